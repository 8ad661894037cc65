"""Faults from outside: a killed process, a full disk, a folder that cannot be written, signals, company.

Nothing is lost, nothing is torn, and the next run carries on. What makes each test fail (each was seen to
fail):

- killed: in training._put_back(), drop ``rng.set_state(...)``, ``torch.set_rng_state(...)``, the average or
  ``optimiser.load_state_dict(...)``; in data.write_bytes(), ``temporary`` -> ``path``; in cli.train(), drop
  ``".lock"``
- full and read-only disks: in data.write_bytes(), drop ``except OSError`` (no file is named), or the
  ``finally`` (halves are left), or ``temporary`` -> ``path``; in experiments._work(), drop what is caught
- signals: in cli.predict(), drop the second ``_hint``; in cli.main(), ``sys.exit(143)`` -> ``sys.exit(0)``; in
  experiments._start_local(), ``process.terminate()`` -> ``pass``
- company: in cli._alone(), ``lock.acquire()`` -> ``pass``; drop ``torn.unlink()``
- a worker: in experiments._start_local(), drop ``if lost and not alive``
- two sweeps: in experiments.run_one(), ``FileLock(lock, timeout=0)`` -> ``nullcontext()``
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict

import numpy as np
import pytest
from conftest import REPOSITORY, files_in
from filelock import FileLock

from cmrseg import cli, data, ensemble, experiments, results, training
from cmrseg.training import TrainConfig

# Everything that has a state: averaged weights, dropout, every kind of chance in the augmentation, one-cycle.
STATEFUL = TrainConfig(channels=(4, 8), epochs=16, ema=0.9, dropout=0.2, batch=2,
                       augment=("mirror", "affine", "elastic", "intensity", "low-resolution"))

PROGRAM = """
import json, sys
from cmrseg import cli, experiments, training
if __name__ == "__main__":  # the workers of a sweep read this file too
    config = training.TrainConfig.from_dict(json.loads(sys.argv.pop(1)))
    runs = [experiments.Planned(f"seed {s}", training.replace(config, seed=s), "val", "modern")
            for s in range(6)]
    experiments.EXPERIMENTS = {"tiny": runs}
    cli.main()
"""


@pytest.fixture
def begin(tmp_path):
    """Start a sweep in a fresh process: six seeds of a configuration are its experiment ``tiny``."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    processes = []

    def run(*words, config):
        processes.append(subprocess.Popen(
            [sys.executable, program, json.dumps(asdict(config)), *map(str, words)], text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


def until(condition, process=None, seconds=900):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline and (process is None or process.poll() is None), "it did not come about"
        time.sleep(0.002)


# --- killed --------------------------------------------------------------------------------------


# --- full and read-only disks --------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A small disk in memory: ``disk(kilobytes)`` gives its folder, again for another size, or read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(options):
        again = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options]
        source = [] if mounted else ["tmpfs"]
        if shutil.which("mount") is None or subprocess.run(
            ["mount", *again, *source, folder], capture_output=True
        ).returncode:
            pytest.skip("mounting a small disk is not allowed here")
        mounted.append(options)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_sweep_that_filled_the_disk_goes_on_when_there_is_room(disk, begin, root):
    store, config = disk("size=12k") / "store", TrainConfig(channels=(2, 4), batch=2, epochs=3)
    words = ("sweep", "tiny", "--data", root, "--store", store, "--workers", 2)
    process = begin(*words, config=config)
    _, err = process.communicate(timeout=1200)
    assert process.returncode == 2 and err.splitlines()[-1].startswith("error: ")
    assert "No space left on device" in err and "Traceback" not in err
    for path in store.glob("modern/*.json"):
        results.read(path)
    assert not [*store.glob("modern/*.failed.json")] and len([*store.glob("modern/.*")]) == 0
    disk("size=1m")
    process = begin(*words, config=config)
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0 and "nothing is missing" in out, err
    assert len([*store.glob("modern/*.json")]) == 6


# --- signals -------------------------------------------------------------------------------------


SHORT = TrainConfig(channels=(2, 4), batch=2, epochs=120)


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_no_worker_and_goes_on(number, status, begin, root, tmp_path):
    store = tmp_path / "store"
    words = ("sweep", "tiny", "--data", root, "--store", store, "--workers", 2)
    process = begin(*words, config=SHORT)
    until(lambda: len([*store.glob("modern/*.json")]) >= 1, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == status and "the same command goes on" in err and "Traceback" not in err
    for lock in store.glob(".locks/*.lock"):  # nobody holds one any more
        with FileLock(lock, timeout=1):
            pass
    kept = {path: path.stat().st_mtime_ns for path in store.glob("modern/*.json")}
    assert len(kept) < 6  # it did not wait for the end
    process = begin(*words, config=SHORT)
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0 and "nothing is missing" in out, err
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert len([results.read(path) for path in store.glob("modern/*.json")]) == 6


# --- company -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_sweeps_at_once_share_the_work(begin, root, tmp_path):
    store = tmp_path / "store"
    words = ("sweep", "tiny", "--data", root, "--store", store)
    sweeps = [begin(*words, config=SHORT) for _ in range(2)]
    written: dict = {}  # record -> when it was first seen to be written

    def over():
        for path in store.glob("modern/*.json"):
            assert written.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
            results.read(path)
        return all(process.poll() is not None for process in sweeps)

    until(over)
    assert [process.returncode for process in sweeps] == [0, 0]
    assert len(written) == 6 and not [*store.glob("modern/*.failed.json")]


def test_a_worker_that_is_killed_is_not_passed_over(root, tmp_path, tiny):
    runs = [experiments.Planned(f"{s}", training.replace(tiny, seed=s), "val", "modern") for s in range(2)]

    def kill(*_):
        for worker in multiprocessing.active_children():
            worker.kill()

    with pytest.raises(data.BadInput, match="status -9"):
        experiments.run_missing(runs, str(root), tmp_path, progress=kill)
    assert len(list(tmp_path.glob("modern/*"))) == 0


def test_a_run_that_another_process_makes_is_left_to_it(root, tmp_path, tiny):
    planned = experiments.Planned("a", tiny, "val", "modern")
    path = planned.path(data.load(root, "labelled").fingerprint, tmp_path)
    (tmp_path / ".locks").mkdir()
    with FileLock(tmp_path / ".locks" / f"{path.stem}.lock"):
        assert experiments.run_one(planned, str(root), tmp_path) is None and not path.exists()
    assert experiments.run_one(planned, str(root), tmp_path) == path


# --- records -------------------------------------------------------------------------------------


def test_results_and_sweep_name_a_record_that_is_torn_edited_or_newer(
    root, command, mistake, tmp_path, monkeypatch, tiny
):
    planned = experiments.Planned("a", tiny, "val", "modern")
    fingerprint = data.load(root, "labelled").fingerprint
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"tiny": [planned]})
    monkeypatch.setattr(experiments, "ACDC96", fingerprint)
    path = experiments.run_one(planned, str(root), tmp_path)
    whole = path.read_text()
    assert command("results", "tiny", "--store", tmp_path).status == 0
    for text, word in ((whole[:99], "not a record"), (whole.replace('"lr":0.003', '"lr":0.004', 1), "edited"),
                       (whole.replace('"version":1', '"version":7', 1), "newer"),
                       (whole.replace('"dice_last":0', '"dice_last":1', 1), "edited")):
        assert text != whole
        path.write_text(text)
        for words in (("results", "tiny"), ("sweep", "tiny", "--data", root)):
            assert word in mistake(*words, "--store", tmp_path, naming=path)
        assert path.read_text() == text

