"""Faults that give no sign, or a wrong one: kinds of them that people reported of other software."""

import errno
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY, files_in, fill, heart, linux, raising

from cmrseg import checkpoint, datasets, machine, metrics, train
from cmrseg.checkpoint import CHECKPOINT, MODEL
from cmrseg.cli import runs
from cmrseg.data import BadInput, encode_png, write_png
from cmrseg.deploy import sizes, weights
from cmrtrial import runner
from cmrtrial.spec import RunSpec

# --- files that are open, and systems without locks ----------------------------------------------


@linux
@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize("said", [None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_two_trainings_do_not_share_a_folder(said, root, command, mistake, tmp_path, monkeypatch):
    """Also where a file system has no locks: on a network share, for instance."""
    if said:
        monkeypatch.setattr("fcntl.flock", raising(OSError(said, os.strerror(said))))
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


# --- slices of another size than a network knows -------------------------------------------------


SEEN = [  # shape and millimetres of slices, whether they are resized, and what is said of them
    ((96, 96), None, False, None),
    ((124, 124), None, False, None),
    ((125, 125), None, False, "125 x 125"),
    ((74, 74), None, False, None),
    ((73, 73), None, False, "73 x 73"),
    ((125, 20), None, False, "20 x 125"),  # the longer side counts
    ((96, 20), None, False, None),
    ((96, 96), 1.6, False, None),
    ((96, 96), 1.0, False, "of 1 mm"),
    ((256, 256), 1.8, True, "of 4.8 mm"),
    ((256, 256), 0.7, True, None),
]


@pytest.mark.parametrize(("shape", "mm", "resize", "word"), SEEN)
def test_slices_of_another_size_or_of_other_millimetres_are_named(shape, mm, resize, word):
    said = sizes.warning("small", shape, mm, resize)
    assert said is None if word is None else word in said
    assert "no .size.json" in sizes.warning("copied.onnx", shape, mm, resize)


def test_predict_warns_of_slices_of_another_size(command, tmp_path):
    """Case P1: 256 pixels a side, where the delivered networks know 96."""
    images = fill(tmp_path, {"test": range(1, 3)}, 256) / "test" / "image"
    words = ("predict", "--model", "small", "--images", images, "--out", tmp_path / "out")
    done = command(*words)
    (line,) = (line for line in done.err.splitlines() if line.startswith("warning"))
    assert done.status == 0 and all(
        word in line for word in ("256 x 256", "96 x 96", "--resize", str(images))
    )
    assert "warning" not in command(*words, "--resize").err


def test_resized_slices_are_drawn_as_those_of_the_right_size(root, model, tmp_path):
    """The network sees what was stored at its size, and the masks lie on the slices as given."""
    seen, labels = [], np.arange(32 * 32).reshape(1, 32, 32) // 256

    def network(images):
        seen.append(images)
        return np.repeat(labels, len(images), 0).astype(np.uint8)

    sizes.write_size(tmp_path / "net.onnx", (32, 32), 1.8)
    image = heart(3, 96)[0]
    draw = sizes.resized(network, str(tmp_path / "net.onnx"))
    masks = draw(np.stack([image[:, :72]] * 3))
    assert seen[0].shape == (3, 32, 24) and masks.shape == (3, 96, 72) and masks.dtype == np.uint8
    expected = cv2.resize(image[:, :72], (24, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(seen[0][0], expected)
    np.testing.assert_array_equal(masks[0], np.repeat(np.arange(96) // 24, 72).reshape(96, 72))
    assert draw(np.zeros((1, 8, 8), np.uint8)).shape == (1, 8, 8)


@pytest.mark.usefixtures("tiny_presets")
def test_what_train_and_the_delivered_networks_know(root, command, tmp_path):
    command("train", "--data", root, "--out", tmp_path / "run")
    assert sizes.read_size(str(tmp_path / "run")) == {"pixels": [32, 32], "spacing_mm": None}
    script = (REPOSITORY / "book" / "assets" / "model.js").read_text(encoding="utf-8")
    assert "const SIDE = 96;" in script and f"{sizes.BEYOND} * SIDE" in script
    for name in weights.DELIVERED:
        assert sizes.read_size(name) == {"pixels": [96, 96], "spacing_mm": 1.8}


def test_predict_knows_the_millimetres_that_convert_wrote(root, command, tmp_path):
    words = ("predict", "--model", "small", "--images", root / "val/image", "--out", tmp_path / "o")
    (root / "spacing.csv").write_text("image,mm\ncmr3,1.0\ncmr4,1.0\n", encoding="utf-8")
    assert "of 0.333 mm" in command(*words, "--resize").err
    (root / "spacing.csv").write_text("image,mm\ncmr9,1.0\n", encoding="utf-8")  # of others
    assert "mm" not in command(*words, "--resize").err


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"pixels": [0, 9]}', '{"pixels": "96"}', "\xff"])
def test_a_note_of_sizes_that_says_none_is_named(note, root, model, mistake, tmp_path):
    run = shutil.copytree(model, tmp_path / "run")
    words = ("predict", "--model", run, "--images", root / "test/image", "--out", tmp_path / "o")
    (run / "model.size.json").unlink()
    mistake(*words, "--resize", naming=run)  # no note
    (run / "model.size.json").write_bytes(note.encode("latin-1"))
    mistake(*words, naming="model.size.json")


# --- who is whose --------------------------------------------------------------------------------


@pytest.fixture
def renumbered(real, tmp_path):
    """Known slices under other numbers: cmr1, cmr2 .. of train are cmr5, cmr6, cmr11, cmr12, ...

    ``renumbered(split, {new: old}, own)``: copies, and made-up slices of the numbers in ``own``.
    """

    def copy(split, numbers, own=()):
        for kind, end in (("image", ""), ("mask", "_mask")):
            (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
            for new, old in numbers.items():
                (source,) = real.glob(f"*/{kind}/cmr{old}{end}.png")
                shutil.copy(source, tmp_path / split / kind / f"cmr{new}{end}.png")
            for n in own:
                pixels = heart(n, 96)[kind == "mask"]
                write_png(tmp_path / split / kind / f"cmr{n}{end}.png", pixels)
        return tmp_path

    return copy


def patients(root, split):
    """Image by name: whose it is."""
    slices = datasets.load(root, split)
    return dict(zip(slices.names, slices.patients.tolist()))


def test_known_slices_under_other_numbers_keep_their_patients(renumbered):
    root = renumbered("train", {1: 12, 2: 5, 3: 11, 8: 6})
    assert patients(root, "train") == {"cmr1": 6, "cmr2": 3, "cmr3": 6, "cmr8": 3}
    masks = datasets.folders.list_pngs(root / "train" / "mask", mask=True)
    assert datasets.known_patients(masks).tolist() == [6, 3, 6, 3]  # as evaluate asks


def test_a_table_wins_over_what_is_known(renumbered):
    root = renumbered("train", {1: 1, 2: 2, 3: 7, 4: 8})
    table = "image,patient\ncmr1,A\ncmr2,B\ncmr3,B\ncmr4,C\n"
    (root / "patients.csv").write_text(table, encoding="utf-8")
    assert patients(root, "train") == {"cmr1": 1, "cmr2": 2, "cmr3": 2, "cmr4": 3}


def test_own_slices_beside_known_ones_are_nobody_known(renumbered):
    renumbered("train", {1: 12, 2: 11, 3: 1}, own=(4, 6))
    root = renumbered("val", {}, own=(5, 7, 201))
    train, val = patients(root, "train"), patients(root, "val")
    assert (train["cmr1"], train["cmr2"], train["cmr3"]) == (6, 6, 1)
    own = {train["cmr4"], train["cmr6"], *val.values()}
    assert len(own) == 5 and not own & {*range(1, 101)}


def test_own_slices_after_known_ones_in_their_place_are_no_pairs(renumbered):
    root = renumbered("train", {1: 1, 2: 2, 3: 3, 4: 4}, own=(201, 202))
    assert [*patients(root, "train").values()] == [1, 1, 2, 2, 301, 302]


@pytest.mark.usefixtures("tiny_presets")
def test_train_warns_of_a_patient_or_an_image_on_both_sides(renumbered, command, tmp_path, capsys):
    renumbered("train", {1: 5, 2: 9})
    root = renumbered("val", {1: 10, 2: 6})

    def warned(source):
        runs.warn_of_shared(*datasets.split(source, "val"))
        return capsys.readouterr().err.splitlines()

    (line,) = warned(root)
    assert "cmr1 of train and cmr2 of val" in line and "2 patients" in line
    assert line in command("train", "--data", root, "--out", tmp_path / "run").err
    (root / "patients.csv").write_text("image,patient\ncmr1,1\ncmr2,2\n", encoding="utf-8")
    (root / "val" / "patients.csv").write_text("image,patient\ncmr1,8\ncmr2,9\n", encoding="utf-8")
    assert warned(root) == warned("phantom") == []
    shutil.copy(root / "train" / "image" / "cmr2.png", root / "val" / "image" / "cmr1.png")
    (line,) = warned(root)
    assert "cmr2 of train and cmr1 of val are the same image" in line


# --- what is said of a fault, and of its cure ----------------------------------------------------


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


def test_a_run_that_the_machine_could_not_do_is_tried_again(root, tiny, tmp_path, monkeypatch):
    spec = RunSpec("a", tiny, "val", "modern")
    trouble = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr(runner, "train_and_evaluate", raising(trouble))
    with pytest.raises(BadInput, match="out of memory"):
        runner.run_one(spec, str(root), tmp_path)
    assert not [*tmp_path.glob("modern/*")]  # no note that it failed


@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize(
    "name", [CHECKPOINT, MODEL, "config.json", "record.json", "net.onnx", "net.safetensors"]
)
def test_a_network_or_record_that_may_not_be_read_is_not_called_damaged(
    name, root, model, mistake, deny, tmp_path
):
    run = shutil.copytree(model, tmp_path / "run")
    file, images = run / name, root / "test" / "image"
    file.touch()
    words = ("predict", "--images", images, "--out", tmp_path / "masks", "--model")
    words += (file if name.startswith("net") else run,)
    if name in (CHECKPOINT, "record.json"):
        words = ("train", "--data", root, "--epochs", 8, "--out", run, "--resume")
    if name == CHECKPOINT:
        (run / MODEL).unlink()
    deny("read_bytes", file)
    deny("open", file)
    line = mistake(*words, naming=file)
    assert "ermission" in line and "damaged" not in line and "emove" not in line


def test_what_lies_in_the_place_of_a_fetched_slice_stays_unless_it_is_torn(tmp_path):
    path, whole = tmp_path / "cmr1.png", encode_png(heart(1)[0])
    for content, stays in {
        whole: True,
        whole[:-20]: False,
        b"\xff\xd8\xff a photograph": True,
        encode_png(np.zeros((9000, 1), np.uint8)): True,
    }.items():
        path.write_bytes(content)
        assert datasets.acdc._is_another_slice(path, "0" * 64) is stays
    assert not datasets.acdc._is_another_slice(tmp_path / "none.png", "0" * 64)


@pytest.mark.parametrize("problem", [
    RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Unsupported model IR version: 99, max 9"),
    RuntimeError("pthread_create failed: Resource temporarily unavailable"),
    ImportError("DLL load failed while importing onnxruntime_pybind11_state"),
    MemoryError(),
])  # fmt: skip
def test_pytorch_does_what_onnxruntime_cannot(problem, command, mistake, tmp_path, monkeypatch):
    """Case O1: a runtime older than the format of the file."""
    monkeypatch.setattr("onnxruntime.InferenceSession", raising(problem))
    images = fill(tmp_path, {"test": range(1, 3)}, 96) / "test" / "image"
    words = ("predict", "--images", images, "--out", tmp_path / "out", "--model")
    done = command(*words, "small")
    assert done.status == 0 and "warning" in done.err and "damaged" not in done.err
    own = shutil.copy(weights.WEIGHTS / "small.onnx", tmp_path / "net.onnx")
    assert "damaged" not in mistake(*words, own, naming=str(problem)[:40])


# --- cores, devices, and options that are overruled ----------------------------------------------


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
    for said, expected in {"": 3, "2": 2}.items():
        monkeypatch.setenv("OMP_NUM_THREADS", said)
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


@pytest.mark.usefixtures("tiny_presets")
def test_a_finished_run_in_another_precision_is_said_to_be(root, command, tmp_path):
    words = ("train", "--data", root, "--out", tmp_path / "run")
    assert command(*words, "--precision", "bf16").status == 0
    assert "bf16" in command(*words, "--resume").err
    assert "warning" not in command(*words, "--resume", "--precision", "bf16").err


# --- millimetres, and volumes --------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path):
    """Masks and truths of five slices of two patients: ``evaluate`` and what it compares."""
    rng, shape = np.random.default_rng(0), (5, 24, 24)
    truth = rng.integers(0, 4, shape, np.uint8) * (rng.random(shape) < 0.2)
    truth[:, 8:16, 8:16] = 3
    pred = np.roll(truth, 1, axis=2)
    for kind, masks in (("pred", pred), ("val/mask", truth)):
        (tmp_path / kind).mkdir(parents=True)
        for n, mask in enumerate(masks, 1):
            write_png(tmp_path / kind / f"cmr{n}_mask.png", mask)
    words = ("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "val/mask")
    return words, pred, truth


def table(path, column, values):
    rows = [f"cmr{n},{value}" for n, value in enumerate(values, 1)]
    path.write_text("\n".join([f"image,{column}", *rows]), encoding="utf-8")


def test_millimetres_are_pixels_times_their_size(judged, command, mistake, tmp_path):
    words, pred, truth = judged
    plain = json.loads(command(*words, "--json").out)
    assert not {"hd95_mm", "surface_dice_2mm"} & plain["metrics"].keys()
    said = json.loads(command(*words, "--json", "--spacing", 2).out)
    old, new = plain["metrics"], said["metrics"]
    assert {k: v for k, v in said.items() if k != "metrics"} == {
        k: v for k, v in plain.items() if k != "metrics"
    }
    assert new["surface_dice_2mm"] == old["surface_dice_1px"]  # pixels of 2 mm
    for c in ("RV", "Myo", "LV"):
        assert new["hd95_mm"][c] == pytest.approx(2 * old["hd95"][c])
    table(tmp_path / "spacing.csv", "mm", [1, 2, 3, 4, 5])
    by_table = json.loads(command(*words, "--json").out)["metrics"]
    expected = (metrics.hd95(pred, truth) * np.arange(1, 6)[:, None]).mean(0)
    assert list(by_table["hd95_mm"].values()) == pytest.approx(expected)
    assert json.loads(command(*words, "--json", "--spacing", 2).out) == said  # asked for: it wins
    assert "hd95_mm: RV" in command(*words).out
    for wrong in (["x"] * 5, [0] * 5, ["nan"] * 5, [1] * 4):
        table(tmp_path / "spacing.csv", "mm", wrong)
        mistake(*words, naming="spacing.csv")


def test_the_dice_of_a_volume_is_that_of_its_slices_together(judged, command, mistake, tmp_path):
    words, pred, truth = judged
    mistake(*words, "--by", "volume", naming="origin.csv")
    table(tmp_path / "patients.csv", "patient", ["A", "A", "A", "B", "B"])
    table(
        tmp_path / "origin.csv",
        "slice",
        ["f1_slice0", "f1_slice3", "f2_slice0", "f1_slice0", "f1_slice1"],
    )
    plain = json.loads(command(*words, "--json").out)
    said = json.loads(command(*words, "--json", "--by", "volume").out)
    volume = said.pop("by_volume")
    assert said == plain and volume["volumes"] == 3  # f1 of A, f1 of B, f2 of A
    for c, name in enumerate(("RV", "Myo", "LV"), 1):
        each = []
        for rows in ([0, 1], [2], [3, 4]):
            a, b = pred[rows] == c, truth[rows] == c
            each.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert volume["dice"][name] == pytest.approx(np.mean(each))
    line = command(*words, "--by", "volume").out.splitlines()[0]
    assert "3 volumes (the labelled, converted slices of a patient and moment) of 2" in line
    table(tmp_path / "origin.csv", "slice", ["f1"] * 5)
    mistake(*words, "--by", "volume", naming="origin.csv")
