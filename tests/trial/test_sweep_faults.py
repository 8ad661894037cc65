"""Sweeps and faults from outside: signals, killed workers, company, a full disk, torn records.

Nothing is lost, nothing is torn, and the next sweep carries on.
"""

import inspect
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from conftest import REPOSITORY
from filelock import FileLock
from made_up import only  # noqa: F401

from cmrseg import data, datasets
from cmrseg.record import read_record
from cmrtrial import cli, runner
from cmrtrial.spec import RunSpec

# ruff: noqa: F811

PROGRAM = """
from dataclasses import replace
from cmrseg.config import TrainConfig
from cmrtrial import cli
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.spec import RunSpec
if __name__ == "__main__":  # the workers of a sweep read this file too
    config = TrainConfig(channels=(2, 4), batch=2, epochs=120)
    EXPERIMENTS["tiny"] = [
        RunSpec(f"seed {s}", replace(config, seed=s), "val", "modern") for s in range(6)
    ]
    cli.main()
"""


@pytest.fixture
def begin(root, tmp_path):
    """Start a sweep of six runs in a fresh process; its store is ``tmp_path / "store"``."""
    program, processes = tmp_path / "program.py", []
    program.write_text(PROGRAM, encoding="utf-8")
    words = ("sweep", "tiny", "--data", root, "--store", tmp_path / "store", "--workers", "2")

    def start():
        process = subprocess.Popen(
            [sys.executable, program, *words],
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_no_worker_and_goes_on(number, status, begin, tmp_path):
    store, process = tmp_path / "store", begin()
    while not [*store.glob("modern/*.json")]:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == status
    assert "the same command goes on" in err and "Traceback" not in err
    for lock in store.glob(".locks/*.lock"):  # nobody holds one any more
        with FileLock(lock, timeout=1):
            pass
    kept = {path: path.stat().st_mtime_ns for path in store.glob("modern/*.json")}
    assert len(kept) < 6  # it did not wait for the end
    process = begin()
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0 and "nothing is missing" in out, err
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert len([read_record(path) for path in store.glob("modern/*.json")]) == 6


@pytest.fixture
def spec(tiny):
    return RunSpec("a", tiny, "val", "modern")


def test_a_worker_that_is_killed_is_not_passed_over(root, tmp_path, spec):
    def kill(*_):
        for worker in multiprocessing.active_children():
            worker.kill()

    with pytest.raises(data.BadInput, match=r"status -9.*memory is short"):
        runner.run_missing([spec], str(root), tmp_path, progress=kill)
    assert len(list(tmp_path.glob("modern/*"))) == 0


def test_a_script_without_a_main_guard_is_told_what_it_lacks(root, tmp_path):
    """Each of its workers runs the whole script again, and may start no workers itself."""
    lines = f"""
        from pathlib import Path
        from cmrseg.config import TrainConfig
        from cmrtrial import runner
        from cmrtrial.spec import RunSpec
        spec = RunSpec("a", TrainConfig(channels=(4, 8), epochs=1), "val", "modern")
        runner.run_missing([spec], {str(root)!r}, Path({str(tmp_path / "store")!r}))
    """
    (tmp_path / "mine.py").write_text(inspect.cleandoc(lines), encoding="utf-8")
    how = {"cwd": REPOSITORY, "env": os.environ | {"PYTHONPATH": str(REPOSITORY)}}
    words = [sys.executable, tmp_path / "mine.py"]
    done = subprocess.run(words, **how, capture_output=True, text=True, timeout=240)
    last = done.stderr.strip().splitlines()[-1]
    assert "__main__" in last and "memory" not in last, done.stderr


def test_a_worker_that_cannot_write_says_so_and_leaves_no_note(root, tmp_path, spec, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    troubles = queue.SimpleQueue()
    monkeypatch.setattr(runner, "write_record", full)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process stays stoppable
    runner._work([spec], str(root), tmp_path, None, troubles)
    assert troubles.get().errno == 28 and not [*tmp_path.glob("modern/*")]


def test_results_and_sweep_name_a_torn_record(root, mistake, tmp_path, monkeypatch, only, spec):
    monkeypatch.setattr(runner, "ACDC96", datasets.load(root, "labelled").fingerprint)
    only(tiny=[spec])
    path = runner.run_one(spec, str(root), tmp_path)
    path.write_text(path.read_text(encoding="utf-8")[:99], encoding="utf-8")
    for words in (("results", "tiny"), ("sweep", "tiny", "--data", root)):
        assert "not a record" in mistake(*words, "--store", tmp_path, naming=path)


@pytest.fixture
def command(command):
    """The trial's command line instead of the machine's."""
    return partial(command, main=cli.main)
