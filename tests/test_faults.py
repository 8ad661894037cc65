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


def train_words(root, out):
    return ("train", "--preset", "modern", "--data", root, "--out", out, "--threads", 1, "--precision", "fp32",
            "--resume")


def digest(out):
    return hashlib.sha256((out / training.MODEL).read_bytes()).hexdigest()


def _train(words):
    """A training in a process of its own, which was forked with everything imported."""
    training.PRESETS["modern"] = STATEFUL
    sys.argv = ["cmrseg", *map(str, words)]
    cli.main()


@pytest.fixture(scope="module")
def forked():
    """Start a training at once: its process comes from one that has imported the package already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cmrseg.audit", "cmrseg.results", "cmrseg.cli", "matplotlib", "pytest"])
    return lambda *words, target=_train, more=(): context.Process(target=target, args=(words, *more))


def killed_and_resumed(forked, root, out, kills, rng):
    """Kill a training so many times, each after another epoch and a random while; then let it end."""
    checkpoint = out / training.CHECKPOINT
    for _ in range(kills):
        process, before = forked(*train_words(root, out)), time.time()
        process.start()
        until(lambda p=process, b=before: not p.is_alive() or (
            checkpoint.exists() and checkpoint.stat().st_mtime >= b))
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.join()
    process = forked(*train_words(root, out))
    process.start()
    process.join(1200)
    assert process.exitcode == 0
    return digest(out)


def _train_until(words, moment, write):
    """A training that kills itself while it writes its so manieth file: with half of it written, or as soon as
    the file is there."""
    writes, move = itertools.count(1), os.replace

    def dying(source, target):
        at = next(writes) == write
        if at and moment == "half":
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        move(source, target)
        if at:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying
    _train(words)


def straight(root, out, monkeypatch, command):
    monkeypatch.setitem(training.PRESETS, "modern", STATEFUL)
    assert command(*train_words(root, out)).status == 0
    return digest(out)


def test_a_killed_training_goes_on_to_the_same_weights(forked, root, tmp_path, monkeypatch, command):
    expected = straight(root, tmp_path / "straight", monkeypatch, command)
    assert killed_and_resumed(forked, root, tmp_path / "killed", 1, random.Random(0)) == expected
    assert files_in(tmp_path / "killed") == files_in(tmp_path / "straight")


@pytest.mark.parametrize(("write", "moment", "left"), [
    (1, "half", []), (1, "whole", [training.CHECKPOINT]), (7, "half", [training.CHECKPOINT]),
    (7, "whole", [training.CHECKPOINT]),
    (STATEFUL.epochs + 3, "half", [training.CHECKPOINT, "config.json", "record.json"]),
    (STATEFUL.epochs + 3, "whole", [training.CHECKPOINT, "config.json", training.MODEL, "record.json"])])
def test_killed_within_a_write_a_training_goes_on_to_the_same_weights(
    write, moment, left, forked, root, tmp_path, monkeypatch, command
):
    expected, out = straight(root, tmp_path / "straight", monkeypatch, command), tmp_path / "killed"
    process = forked(*train_words(root, out), target=_train_until, more=(moment, write))
    process.start()
    process.join(1200)
    assert process.exitcode == -signal.SIGKILL
    assert [name for name in files_in(out) if not name.startswith(".")] == left
    assert (moment == "half") == any(name.endswith(".part") for name in files_in(out))
    assert killed_and_resumed(forked, root, out, 0, None) == expected
    assert files_in(out) == files_in(tmp_path / "straight")


@pytest.mark.slow
def test_killed_at_ten_random_moments_a_training_ends_with_the_same_weights(
    forked, root, tmp_path, monkeypatch, command
):
    expected = straight(root, tmp_path / "straight", monkeypatch, command)
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for n in range(10):
        found = killed_and_resumed(forked, root, tmp_path / f"killed{n}", 1 + n % 2, rng)
        assert found == expected, f"run {n} of seed {seed}"
        assert files_in(tmp_path / f"killed{n}") == files_in(tmp_path / "straight")


@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize("lost", [
    ("record.json", "config.json", training.MODEL), ("config.json", training.MODEL), (training.MODEL,), ()])
def test_killed_while_the_network_is_saved_a_training_ends_all_the_same(
    lost, root, tmp_path, command, monkeypatch
):
    """Files are written in this order: record, configuration, network; then the checkpoint goes."""
    out, begun = tmp_path / "out", tmp_path / "begun"
    with monkeypatch.context() as patch:
        patch.setattr(training, "save", lambda run, out: None)
        patch.setattr(cli.Path, "unlink", lambda path, missing_ok=False: None)
        assert command(*train_words(root, begun)).status == 0
    assert command(*train_words(root, out)).status == 0
    whole = {name: (out / name).read_bytes() for name in files_in(out)}
    shutil.copy(begun / training.CHECKPOINT, out)
    for name in lost:
        (out / name).unlink()
    assert command(*train_words(root, out)).status == 0
    assert files_in(out) == sorted(whole)
    for name in ("config.json", training.MODEL):
        assert (out / name).read_bytes() == whole[name]


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


@pytest.fixture
def short_files(monkeypatch):
    """Files that cannot grow beyond so many bytes: what a full disk does, for those who may not mount one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(most):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def noise(count=4):
    rng = np.random.default_rng(0)
    return {f"cmr{n}": rng.integers(0, 4, (96, 96), dtype=np.uint8) for n in range(1, count + 1)}


def writers(root, model, out, tmp_path):
    """Command lines that write into ``out``: words, and the file or folder they write."""
    for name, mask in noise().items():
        data.write_png(tmp_path / f"{name}_mask.png", mask)
    yield ("submit", "--masks", tmp_path, "--out", out / "s.csv")
    yield ("train", "--data", root, "--out", out / "run")
    yield ("predict", "--model", model, "--images", root / "test/image", "--out", out / "masks")
    yield ("data", "--source", "phantom", "--out", out / "phantom")


@pytest.mark.usefixtures("tiny_presets")
def test_on_a_full_disk_every_command_says_so_and_leaves_no_half(disk, root, model, mistake, tmp_path):
    out = disk("size=64k")
    with suppress(OSError), (out / "ballast").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    for words in writers(root, model, out, tmp_path):
        line = mistake(*words, naming=out)
        assert "No space left on device" in line and "the space left" in line
        assert [name for name in files_in(out) if (out / name).stat().st_size] == ["ballast"]


@pytest.mark.usefixtures("tiny_presets")
def test_on_a_read_only_disk_every_command_says_so(disk, root, model, mistake, tmp_path):
    out = disk("size=64k")
    disk("ro")
    for words in writers(root, model, out, tmp_path):
        assert "Read-only file system" in mistake(*words, naming=out)
    assert files_in(out) == []


@pytest.mark.usefixtures("tiny_presets")
def test_a_file_that_cannot_grow_is_named_and_the_old_one_stays(root, mistake, tmp_path, short_files):
    out = tmp_path / "out"
    out.mkdir()
    (out / "s.csv").write_text("id,encoding\n")
    words = list(writers(root, None, out, tmp_path))[:2]
    short_files(1000)
    assert "s.csv" in mistake(*words[0], naming=out)
    assert training.CHECKPOINT in mistake(*words[1], naming=out)
    assert (out / "s.csv").read_text() == "id,encoding\n"
    assert files_in(out) == ["s.csv"]


def test_a_training_that_filled_the_disk_goes_on_when_there_is_room(
    disk, root, command, tmp_path, monkeypatch
):
    expected = straight(root, tmp_path / "straight", monkeypatch, command)
    out, room = disk("size=4m"), training.CHECKPOINT
    with monkeypatch.context() as patch:
        # After two epochs the disk shrinks to less than a second checkpoint needs beside the first.
        kept, epochs = training._train_epoch, []

        def shrink(*args):
            epochs.append(args[5])
            if len(epochs) == 3:
                disk(f"size={(out / 'run' / room).stat().st_size * 3 // 2 // 1024}k")
            return kept(*args)

        patch.setattr(training, "_train_epoch", shrink)
        stopped = command(*train_words(root, out / "run"))
    assert stopped.status == 2 and room in stopped.err.splitlines()[-1] and epochs == [1, 2, 3]
    assert files_in(out / "run") == [room]
    disk("size=4m")
    assert command(*train_words(root, out / "run")).status == 0
    assert digest(out / "run") == expected


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


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["while it looks", "while it writes"])
def test_a_stopped_prediction_leaves_whole_masks_or_none(
    number, status, moment, root, model, command, tmp_path, monkeypatch, request
):
    # a shell starts what runs in the background deaf to Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    masks, write, look = tmp_path / "masks", data.write_png, ensemble.predict
    options = ("predict", "--model", model, "--images", root / "train/image", "--out")
    assert command(*options, tmp_path / "all").status == 0

    def looking(*args, **options):
        signal.raise_signal(number)
        return look(*args, **options)

    def writing(path, pixels):
        if masks.exists() and len(files_in(masks)) == 3:
            signal.raise_signal(number)
        write(path, pixels)

    monkeypatch.setattr(ensemble, "predict", looking if moment == "while it looks" else look)
    monkeypatch.setattr(data, "write_png", writing)
    done = command(*options, masks)
    assert done.status == status and "stopped" in done.err and "Traceback" not in done.err
    assert len(files_in(masks)) == (0 if moment == "while it looks" else 3)
    for name in files_in(masks):
        assert (masks / name).read_bytes() == (tmp_path / "all" / name).read_bytes()
    monkeypatch.undo()
    assert command(*options, masks).status == 0 and files_in(masks) == files_in(tmp_path / "all")


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


@pytest.mark.usefixtures("tiny_presets")
def test_two_trainings_do_not_share_a_folder(root, command, mistake, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".checkpoint.safetensors.123.part").write_bytes(b"a killed process left this")
    with FileLock(out / ".lock"):
        line = mistake("train", "--data", root, "--out", out, naming=out)
        assert "another process" in line
    assert command("train", "--data", root, "--out", out).status == 0
    assert files_in(out) == ["config.json", "model.safetensors", "record.json"]


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


@pytest.mark.usefixtures("tiny_presets")
def test_a_finished_run_with_a_torn_record_is_named(root, command, mistake, tmp_path):
    words = train_words(root, tmp_path / "run")
    assert command(*words).status == 0
    for harm in (lambda path: path.write_text(path.read_text().replace('"seconds": ', '"seconds": 1')),
                 lambda path: path.write_text('{"version": 1'), lambda path: path.unlink()):
        harm(tmp_path / "run" / "record.json")
        mistake(*words, naming="record.json")
