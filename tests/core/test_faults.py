"""Checkpoints, and faults from outside: a killed process, a full disk, signals.

Nothing is lost, nothing is torn, and the next run carries on.
"""

import hashlib
import io
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from conftest import files_in, fill

from cmrseg import checkpoint, cli
from cmrseg.checkpoint import CHECKPOINT, MODEL
from cmrseg.config import PRESETS, TrainConfig
from cmrseg.data import BadInput
from cmrseg.train import fit

resource = pytest.importorskip("resource")  # not on Windows

# Everything that has a state: averaged weights, dropout, one-cycle, every kind of chance in the
# augmentation.
CHANCE = ("mirror", "affine", "elastic", "intensity", "low-resolution")
STATEFUL = TrainConfig(channels=(4, 8), epochs=8, ema=0.9, dropout=0.2, batch=2, augment=CHANCE)


def stop_after(*epochs):
    def stop(history):
        if len(history["epoch"]) in epochs:
            raise KeyboardInterrupt

    return stop


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_a_resumed_run_is_bit_for_bit_the_run_it_continues(optimiser, slices, tmp_path):
    config = replace(STATEFUL, epochs=5, optimiser=optimiser, momentum=0.9)
    straight = fit(config, *slices)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(config, *slices, out=tmp_path, resume=True, callback=stop_after(2, 4))
    resumed = fit(config, *slices, out=tmp_path, resume=True)
    again = fit(config, *slices, out=tmp_path, resume=True)  # nothing is left to do
    for result in (resumed, again):
        assert result.history == straight.history and result.seconds > 0
        states = straight.model.state_dict(), result.model.state_dict()
        assert all(torch.equal(a, b) for a, b in zip(*map(dict.values, states)))


def test_a_checkpoint_of_another_configuration_or_of_other_slices_is_refused(
    tiny, slices, tmp_path
):
    fit(tiny, *slices, out=tmp_path)
    for change in ({"lr": 0.5}, {"seed": 1}, {"channels": (4, 16)}, {"epochs": 9}):
        with pytest.raises(BadInput, match=f"different {next(iter(change))}"):
            fit(replace(tiny, **change), *slices, out=tmp_path, resume=True)
    learn, held_out = slices
    turned = replace(held_out, masks=held_out.masks[:, ::-1])
    for others in ((learn[:6], held_out), (learn, held_out[:1]), (learn, turned), (learn, None)):
        with pytest.raises(BadInput, match="other slices"):
            fit(tiny, *others, out=tmp_path, resume=True)


def test_a_run_that_goes_on_under_other_conditions_says_so(
    tiny, slices, tmp_path, capsys, monkeypatch
):
    """Case T23 is the last: begun in bf16, continued with --precision fp32."""
    lines = []
    for threads, version, precision in (
        (1, torch.__version__, "fp32"),
        (7, "99", "fp32"),
        (1, torch.__version__, "bf16"),
    ):
        with pytest.raises(KeyboardInterrupt):
            fit(tiny, *slices, out=tmp_path, callback=stop_after(1), precision=precision)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda n=threads: n)
            patch.setattr(torch, "__version__", version)
            resumed = fit(tiny, *slices, out=tmp_path, resume=True)
        assert resumed.history["epoch"] == [1, 2] and resumed.precision == precision
        lines += capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "begun in bf16, and goes on so, not in fp32" in lines[1]
    start = f"warning: {tmp_path / CHECKPOINT} was made with threads 1, now 7; torch "
    assert lines[0].startswith(f"{start}{torch.__version__}, now 99: ")


def flip(content):
    """One bit of the largest tensor."""
    largest = max(zipfile.ZipFile(io.BytesIO(content)).infolist(), key=lambda i: i.file_size)
    at = largest.header_offset + largest.file_size // 2 + 100
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def changed(change):
    """A checkpoint in which something is changed."""

    def harm(content):
        kept, file = torch.load(io.BytesIO(content), weights_only=True), io.BytesIO()
        change(kept)
        torch.save(kept, file)
        return file.getvalue()

    return harm


PARTS = ["config", "history", "machine", "model", "ema_model", "optimiser", "rng"]
OF_ANOTHER_VERSION = [
    *(changed(lambda kept, part=part: kept.pop(part)) for part in PARTS),
    changed(lambda kept: kept["history"]["loss"].pop()),
    changed(lambda kept: kept["optimiser"]["param_groups"].clear()),
    changed(lambda kept: kept.update(more=Fraction(1, 2))),  # of a kind that is not unpickled
    changed(lambda kept: kept["model"].popitem()),
]
TORN = [lambda c: b"", lambda c: c[:2000], lambda c: c[:-1], flip, lambda c: b"text"]


@pytest.mark.parametrize(
    ("harm", "problem"),
    [(harm, "is damaged") for harm in TORN]
    + [(harm, "can't be continued") for harm in OF_ANOTHER_VERSION],
)
def test_a_checkpoint_that_is_torn_or_lacks_something_is_named(
    harm, problem, tiny, slices, tmp_path
):
    config, path = replace(tiny, ema=0.9), tmp_path / CHECKPOINT
    fit(config, *slices, out=tmp_path)
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(BadInput, match=rf"checkpoint\.pt: {problem}"):
        fit(config, *slices, out=tmp_path, resume=True)


def test_a_checkpoint_written_on_a_gpu_goes_on_without_one(tiny, slices, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(tiny, *slices, out=tmp_path, callback=stop_after(1))
    path = tmp_path / CHECKPOINT
    kept = torch.load(path, weights_only=True) | {"rng_cuda": torch.get_rng_state()}
    torch.save(kept, path)
    resumed = fit(tiny, *slices, out=tmp_path, resume=True)
    assert resumed.history == fit(tiny, *slices).history


def test_a_checkpoint_written_without_a_gpu_goes_on_on_one(tiny, slices, tmp_path, monkeypatch):
    """Case T2: it holds no random state of a GPU. The GPU is made of the CPU here."""
    with pytest.raises(KeyboardInterrupt):
        fit(tiny, *slices, out=tmp_path, device="cpu", callback=stop_after(1))
    for kind in (torch.nn.Module, torch.Tensor):

        def to_cpu(self, device, *more, to=kind.to, **how):
            return to(self, "cpu" if device == "cuda" else device, *more, **how)

        monkeypatch.setattr(kind, "to", to_cpu)
    for name in ("get_rng_state", "set_rng_state"):
        monkeypatch.setattr(torch.cuda, name, getattr(torch, name))
    assert fit(tiny, *slices, out=tmp_path, device="cuda", resume=True).device == "cuda"


def test_a_stop_while_a_file_is_written_leaves_the_one_before(tiny, slices, tmp_path, monkeypatch):
    result = fit(replace(tiny, epochs=1), *slices, out=tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        fit(replace(tiny, epochs=1), *slices, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):  # what counts as finished is the model, written last
        checkpoint.save(result, tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before and files_in(tmp_path) == [CHECKPOINT]


# --- killed --------------------------------------------------------------------------------------


def train_words(root, out):
    words = ("train", "--preset", "modern", "--data", root, "--out", out, "--threads", 1)
    return (*words, "--resume")


def digest(out):
    contents = (out / "config.json").read_bytes() + (out / MODEL).read_bytes()
    return hashlib.sha256(contents).hexdigest()


def _train(words):
    """A training in a process of its own, which was forked with everything imported."""
    PRESETS["modern"] = STATEFUL
    sys.argv = ["cmrseg", *map(str, words)]
    cli.main()


def _train_until(words, moment, write, name):
    """A training that sends itself a signal while it writes a file, counted from 1: with half of it
    written, or as soon as the file is there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    writes, move, number = itertools.count(1), os.replace, getattr(signal, name)

    def dying(source, target):
        at = next(writes) == write
        if at and moment == "half":
            os.truncate(source, os.path.getsize(source) // 2)
            signal.raise_signal(number)
        move(source, target)
        if at:
            signal.raise_signal(number)

    os.replace = dying
    _train(words)


@pytest.fixture(scope="module")
def forked():
    """Start a training at once: its process comes from one that has imported the package."""
    context = multiprocessing.get_context("forkserver")
    # PyTorch imports the last for its first optimiser, which takes longer than a whole training.
    modules = ["cmrseg.datasets.doctor", "cmrseg.record", "torch._dynamo"]
    context.set_forkserver_preload([__name__, *modules])
    with pytest.MonkeyPatch.context() as patch:  # what the server finds its modules by
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        first = context.Process()
        first.start()
        first.join()

    def start(*words, target=_train, more=()):
        process = context.Process(target=target, args=(words, *more))
        process.start()
        return process

    return start


def killed_and_resumed(forked, root, out, kills, rng):
    """Kill a training after an epoch and a random while, so many times; then let it end."""
    path = out / CHECKPOINT
    for _ in range(kills):
        before, process = time.time(), forked(*train_words(root, out))
        while process.is_alive() and not (path.exists() and path.stat().st_mtime >= before):
            time.sleep(0.002)
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.join()
    process = forked(*train_words(root, out))
    process.join(1200)
    assert process.exitcode == 0
    return digest(out)


@pytest.fixture(scope="module")
def straight(forked, tmp_path_factory):
    """The folder of a training that nothing stopped."""
    place = tmp_path_factory.mktemp("straight")
    process = forked(*train_words(fill(place / "root"), place / "run"))
    process.join(1200)
    assert process.exitcode == 0
    return place / "run"


LAST = STATEFUL.epochs + 4  # record, size and configuration are written before the network


ALL = [CHECKPOINT, "config.json", MODEL, "model.size.json", "record.json"]
MOMENTS = [  # which write, how much of it, by which signal, and what is left
    (1, "half", "SIGKILL", []),
    (1, "whole", "SIGKILL", [CHECKPOINT]),
    (7, "half", "SIGKILL", [CHECKPOINT]),
    (7, "whole", "SIGKILL", [CHECKPOINT]),
    (LAST - 3, "half", "SIGKILL", [CHECKPOINT]),
    (LAST - 1, "half", "SIGKILL", [CHECKPOINT, "model.size.json", "record.json"]),
    (LAST, "half", "SIGKILL", [CHECKPOINT, "config.json", "model.size.json", "record.json"]),
    (LAST, "whole", "SIGKILL", ALL),
    (3, "whole", "SIGINT", [CHECKPOINT]),
    (5, "whole", "SIGTERM", [CHECKPOINT]),
]
STATUS = {"SIGKILL": -signal.SIGKILL, "SIGINT": 130, "SIGTERM": 143}


@pytest.mark.parametrize("write, moment, name, left", MOMENTS)
def test_killed_or_stopped_a_training_goes_on_in_another_process_to_the_same_weights(
    write, moment, name, left, forked, root, straight, tmp_path
):
    out = tmp_path / "killed"
    process = forked(*train_words(root, out), target=_train_until, more=(moment, write, name))
    process.join(1200)
    assert process.exitcode == STATUS[name]
    assert [name for name in files_in(out) if not name.startswith(".")] == left
    assert (moment == "half") == any(name.endswith(".part") for name in files_in(out))
    assert killed_and_resumed(forked, root, out, 0, None) == digest(straight)
    assert files_in(out) == files_in(straight)
    first, second = (json.loads((d / "record.json").read_text("utf-8")) for d in (straight, out))
    assert first["images"] == second["images"] and first["history"] == second["history"]


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_training_ends_with_the_same_weights(
    times, forked, root, straight, tmp_path
):
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    for n in range(times):
        out = tmp_path / f"killed{n}"
        weights = killed_and_resumed(forked, root, out, 1 + n % 2, rng)
        assert weights == digest(straight), f"run {n} of seed {seed}"
        assert files_in(out) == files_in(straight)


# --- full disks -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_a_file_that_cannot_grow_is_named_and_the_old_one_stays(
    root, model, mistake, tmp_path, request
):
    """What a full disk does: every command says so, and leaves no half."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "s.csv").write_text("id,encoding\n", encoding="utf-8")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    for words, file in (
        (("submit", "--masks", root / "val/mask", "--out", out / "s.csv"), "s.csv"),
        (("train", "--data", root, "--out", out), CHECKPOINT),
        (("predict", "--model", model, "--images", root / "test/image", "--out", out), "cmr1_mask"),
        (("data", "--source", "phantom", "--out", out / "phantom"), "phantom"),
    ):
        line = mistake(*words, naming=out)
        assert file in line and "the space left" in line
        assert [name for name in files_in(out) if (out / name).stat().st_size] == ["s.csv"]
    assert (out / "s.csv").read_text(encoding="utf-8") == "id,encoding\n"


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("kept", [0, 3])
def test_a_stopped_prediction_leaves_whole_masks_or_none(
    number, status, kept, root, model, command, tmp_path, monkeypatch, request
):
    # a shell starts what runs in the background deaf to Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    masks, write = tmp_path / "masks", cli.write_png
    options = ("predict", "--model", model, "--images", root / "train/image", "--out")
    assert command(*options, tmp_path / "all").status == 0

    def stopping(path, pixels):
        if len(files_in(masks)) == kept:
            signal.raise_signal(number)
        write(path, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "write_png", stopping)
        done = command(*options, masks)
    assert done.status == status and "stopped" in done.err and "Traceback" not in done.err
    assert len(files_in(masks)) == kept
    for name in files_in(masks):
        assert (masks / name).read_bytes() == (tmp_path / "all" / name).read_bytes()
    assert command(*options, masks).status == 0 and files_in(masks) == files_in(tmp_path / "all")
