"""The machine beneath: locks, open files, memory, cores and devices."""

import errno
import os
from pathlib import Path

import cv2
import onnxruntime
import pytest
import torch
from conftest import files_in, linux, raising

from cmrseg import checkpoint, datasets, machine, train
from cmrseg.checkpoint import CHECKPOINT, MODEL
from cmrseg.deploy import weights

# --- files that are open, and systems without locks ----------------------------------------------


@linux
@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize("error", [None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_two_trainings_do_not_share_a_folder(error, root, command, mistake, tmp_path, monkeypatch):
    """Also where a file system has no locks: on a network share, for instance."""
    if error:
        monkeypatch.setattr("fcntl.flock", raising(OSError(error, os.strerror(error))))
    words, seen = ("train", "--data", root, "--out", tmp_path / "run"), []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{CHECKPOINT}.123.part").write_bytes(b"a killed process left this")

    def epoch(*arguments, whole=train.train_epoch):
        if not seen:
            seen.append(mistake(*words))
        return whole(*arguments)

    monkeypatch.setattr(train, "train_epoch", epoch)
    assert command(*words).status == 0 and "another process" in seen[0]
    assert files_in(tmp_path / "run") == ["config.json", MODEL, "model.size.json", "record.json"]


@linux
@pytest.mark.usefixtures("tiny_presets")
def test_no_open_file_is_removed(root, command, tmp_path, monkeypatch):
    """On Windows that fails: a lock goes after its release there."""
    remove, lock, refused = Path.unlink, tmp_path / "run" / ".lock", []

    def unlink(path, missing_ok=False):
        held = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
        if path.exists() and os.path.realpath(path) in held:
            refused.append(path)
            raise PermissionError(13, "The process cannot access the file", str(path))
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert command("train", "--data", root, "--out", tmp_path / "run").status == 0
    assert refused == [lock] and not lock.exists()


@linux
def test_no_weight_is_mapped_from_its_file():
    """On Windows such a file can't be replaced; elsewhere a weight would change with it."""
    ensemble = weights.load_ensemble(weights.WEIGHTS / "small.safetensors")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert ensemble.models and "small.safetensors" not in maps


# --- what the machine lacks ----------------------------------------------------------------------


LACKS = {  # what libraries say of the machine -> words of the one line
    MemoryError(): "out of memory",
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"): "out of mem",
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."): "out of",
    RuntimeError("std::bad_alloc"): "out of memory",
    cv2.error("OpenCV(5) alloc.cpp: error: (-4:Insufficient memory) Failed to allocate 9 b"): "out of",
    OSError(errno.ENOMEM, "Cannot allocate memory"): "out of memory",
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."): "smaller batch",
    RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"): "--device cpu",
    RuntimeError("CUDA error: no kernel image is available for execution on the device\n"
                 "CUDA kernel errors might be asynchronously reported"): "no kernel image is available",
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"): "CUDNN_STATUS_EXECUTION_FAILED",
    AssertionError("Torch not compiled with CUDA enabled"): "--device cpu",
    RuntimeError("can't start new thread"): "no more threads",
}  # fmt: skip
lacks = pytest.mark.parametrize(("problem", "words"), LACKS.items(), ids=lambda v: str(v)[:40])


@lacks
@pytest.mark.usefixtures("tiny_presets")
def test_what_the_machine_lacks_is_one_line(problem, words, root, mistake, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train_epoch", raising(problem))
    line = mistake("train", "--data", root, "--out", tmp_path / "run", naming=words)
    assert "damaged" not in line


@lacks
def test_what_the_machine_lacks_is_no_damage_of_a_file(
    problem, words, root, tiny, model, tmp_path, monkeypatch
):
    slices = datasets.load(root, "train")
    train.fit(tiny, slices, out=tmp_path)
    for place, name, read in (
        (torch, "load", lambda: train.fit(tiny, slices, out=tmp_path, resume=True)),
        (torch.optim.Optimizer, "load_state_dict", lambda: train.fit(tiny, slices, out=tmp_path, resume=True)),
        (checkpoint, "build", lambda: checkpoint.load(model)),
        (checkpoint, "build", lambda: weights.load_ensemble(weights.WEIGHTS / "small.safetensors")),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(place, name, raising(problem))
            with pytest.raises(type(problem)):
                read()


def test_a_file_is_not_the_machine_whatever_its_name():
    assert machine.trouble(PermissionError(13, "Permission denied", "/CUDA/cmr1.png")) is None


# --- cores and devices ---------------------------------------------------------------------------


def test_cores_are_those_of_this_process_and_of_its_container(monkeypatch):
    cases = {None: 6, "max 100000": 6, "250000 100000": 3, "50000 100000": 1, "nonsense": 6}
    first = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")  # cgroups' first version: two files

    def read_text(path, encoding):
        name = path.as_posix().removeprefix("/sys/fs/cgroup/")
        if isinstance(quota, tuple) and name in first:
            return quota[first.index(name)]
        if name != "cpu.max" or not isinstance(quota, str):
            raise FileNotFoundError(path)
        return quota

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(Path, "read_text", read_text)
    cases |= {("-1", "100000"): 6, ("250000", "100000"): 3}
    for quota, expected in cases.items():
        assert machine.cores() == expected, quota
    quota = None
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == 64


@pytest.mark.usefixtures("tiny_presets")
def test_threads_are_no_more_than_this_process_may_use(root, command, tmp_path, monkeypatch):
    """Case T9; onnxruntime does not look at OMP_NUM_THREADS."""
    monkeypatch.setattr("cmrseg.cli.runs.cores", lambda: 3)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    for n, (words, expected) in enumerate({(): 3, ("--threads", 9): 9}.items()):
        command("train", "--data", root, "--out", tmp_path / str(n), *words)
        assert chosen.pop() == expected
    monkeypatch.setattr("cmrseg.deploy.onnx_runner.cores", lambda: 3)
    session, small = onnxruntime.InferenceSession, str(weights.WEIGHTS / "small.onnx")

    def started(content, options, **how):
        chosen.append(options.intra_op_num_threads)
        return session(content, options, **how)

    monkeypatch.setattr(onnxruntime, "InferenceSession", started)
    for limit, expected in {"": 3, "2": 2}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        weights.find(small)
        assert chosen.pop() == expected


@pytest.mark.usefixtures("tiny_presets")
def test_the_device_is_the_one_that_was_asked_for(root, command, mistake, tmp_path, monkeypatch):
    words, fit = ("train", "--data", root, "--out"), train.fit
    mistake(*words, tmp_path / "a", "--device", "cuda", naming="--device cpu")
    drawn = ("predict", "--model", "small", "--images", root / "val/image", "--out")
    mistake(*drawn, tmp_path / "m", "--device", "cuda", naming="--device cpu")
    assert files_in(tmp_path) == []
    asked = []

    def noted(*slices, device, **options):
        asked.append(device)
        with monkeypatch.context() as really:  # a PyTorch with CUDA would look for its driver
            really.setattr(torch.cuda, "is_available", lambda: False)
            return fit(*slices, device="cpu", **options)

    monkeypatch.setattr(train, "fit", noted)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device in ("cpu", "cuda", "auto"):
        assert command(*words, tmp_path / device, "--device", device).status == 0
    assert asked == ["cpu", "cuda", "auto"]
