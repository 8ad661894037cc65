"""The command line: from a folder of slices to a submission, and what it answers to mistakes.

Each group fails after any of these one-line changes of ``cmrseg/cli.py`` (or another file, named):

- the way through: in _write_masks(), ``f"{name}_mask.png"`` -> ``f"cmr{len(name)}_mask.png"``; in
  evaluate(), ``[found[name] for name in true]`` -> ``list(reversed(found.values()))``; in
  rle._label_map(), ``label[runs] = int(c)`` -> ``4 - int(c)``; in
  statistics.dice_summary(), ``int(np.isnan(column).sum())`` -> ``0``; in training.pad(), ``if
  any(beyond)`` -> ``if False``
- other slices: in evaluate(), ``if name not in found`` or ``if name not in true`` -> ``if False``
- submissions: in rle.decode(), ``start < 1`` -> ``start < 0``, or ``if flat[...].any()`` -> ``if
  False``; in rle._sort_in(), ``if match[3] in its``, or in rle._label_map(), ``if label[runs].any()`` -> ``if
  False``; in rle.each_mask(), ``utf-8-sig`` -> ``utf-8``, or drop ``UnicodeDecodeError``; in decode(),
  ``(height, width)`` -> ``(width, height)``
- wrong models: in training.load(), drop ``SafetensorError`` from what is caught, in read_config()
  ``RecursionError``, or ``if not finite(model)``
  -> ``if False``; in ensemble.find(), drop ``if Path(model).is_file()``; in
  restored(), ``torch.device("meta")`` -> ``"cpu"``
- much at once: in predict(), ``min(AT_ONCE, ...)`` -> ``AT_ONCE``; in decode(), ``rle.each_mask(...)`` ->
  ``rle.read_submission(...).items()``, either one; in main(), drop ``isinstance(problem, MemoryError) or``, or
  ``or "allocate memory" in ...``; in data.read_png(), ``except (BadInput, MemoryError)`` -> ``except BadInput``
- read forever: in training.read_config(), ``read_text(path)`` -> ``path.read_text()``, and so in results.read()
- too small: in training._train_epoch(), ``except ValueError`` -> ``except KeyError``
- where to write: in _claim(), ``if (finished or begun) and not resume`` -> ``if False``; in
  rle.write_submission(), ``path.exists() and not path.is_file()`` -> ``False``; in
  cli._mask_folder(), ``if others`` -> ``if False``; in train(), drop ``training.require_same(...)``
- odd names: in main(), ``sys.stdout, sys.stderr`` -> either one; drop ``errors="backslashreplace"``
- the parser: in main(), ``if not hasattr(...)`` -> ``if True``, or drop ``or ["--help"]``
- diverged: in main(), drop ``except FloatingPointError``
- stopped and resumed: in main(), ``sys.exit(143)`` -> ``sys.exit(0)``, or ``sys.exit(app(...))`` ->
  ``app(...)``; in training.fit(), ``manual_seed(config.seed)`` -> ``seed()``, either one; in
  training._restore(), drop ``rng.set_state(...)``
"""

import hashlib
import json
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, files_in, fill
from PIL import Image
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_tensors

from cmrseg import data, losses, runtime, training

COMMANDS = {"data", "train", "predict", "evaluate", "submit", "decode", "doctor"}


def masks_of(folder):
    return {path.name: np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))}


# --- the way through -----------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_from_slices_to_a_submission_and_back(root, command, tmp_path):
    run, masks, back = tmp_path / "runs" / "first", tmp_path / "masks", tmp_path / "back"
    done = command("train", "--preset", "modern", "--data", root, "--out", run, "--epochs", 3,
                   "--seed", 4, "--threads", 1, "--precision", "fp32")
    assert done.status == 0, done.err
    assert "validation Dice" in done.out and "epoch 3/3 loss" in done.err
    assert files_in(run) == ["config.json", "model.safetensors", "record.json"]
    config, record = (json.loads((run / f"{n}.json").read_text()) for n in ("config", "record"))
    assert (config["epochs"], config["seed"]) == (3, 4) and record["config"] == config
    assert record["precision"] == "fp32" and record["split"] == "val"
    assert record["images"]["name"] == ["cmr3", "cmr4"]
    assert record["fingerprint"] == data.load(root, "labelled").fingerprint

    done = command("predict", "--model", run, "--images", root / "test/image", "--out", masks)
    assert done.status == 0 and files_in(masks) == ["cmr1_mask.png", "cmr2_mask.png"]
    submission = tmp_path / "new" / "s.csv"
    assert command("submit", "--masks", masks, "--out", submission).status == 0
    lines = submission.read_text().splitlines()
    assert lines[0] == "id,encoding" and [line.split(",")[0] for line in lines[1:]] == [
        f"cmr{n}_mask{c}" for n in (1, 2) for c in (1, 2, 3)]
    done = command("decode", "--submission", submission, "--out", back, "--size", "32x32")
    assert done.status == 0
    assert files_in(back) == files_in(masks)
    for name, mask in masks_of(masks).items():
        np.testing.assert_array_equal(mask, masks_of(back)[name])


def test_true_masks_survive_the_way_through_a_submission(root, command, tmp_path):
    masks, path, back = root / "train" / "mask", tmp_path / "s.csv", tmp_path / "back"
    command("submit", "--masks", masks, "--out", path)
    command("decode", "--submission", path, "--out", back, "--size", "32x32")
    assert {n: m.tolist() for n, m in masks_of(back).items()} == {
        n: m.tolist() for n, m in masks_of(masks).items()}


def test_each_mask_is_that_of_its_own_image_whatever_else_lies_there(
    root, model, command, tmp_path
):
    together, alone = tmp_path / "together", {}
    command("predict", "--model", model, "--images", root / "train/image", "--out", together)
    for number in (5, 10, 12):
        (tmp_path / f"{number}").mkdir()
        shutil.copy(root / "train/image" / f"cmr{number}.png", tmp_path / f"{number}")
        out = tmp_path / f"{number}" / "masks"
        command("predict", "--model", model, "--images", tmp_path / f"{number}", "--out", out)
        alone |= masks_of(out)
    assert set(alone) == {f"cmr{n}_mask.png" for n in (5, 10, 12)}
    for name, mask in alone.items():
        np.testing.assert_array_equal(mask, masks_of(together)[name])
        assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2, 3}


def test_old_masks_of_other_slices_are_not_left_among_new_ones(root, model, mistake, command, tmp_path):
    out = tmp_path / "masks"
    for _ in range(2):  # the same slices again may be replaced
        assert command("predict", "--model", model, "--images", root / "val/image", "--out", out).status == 0
    before = files_in(out)
    mistake("predict", "--model", model, "--images", root / "test/image", "--out", out, naming=before[0])
    assert files_in(out) == before


def test_predicting_into_the_folder_of_the_images_is_refused(root, model, mistake):
    images = root / "test" / "image"
    mistake("predict", "--model", model, "--images", images, "--out", images, naming=images)
    assert files_in(images) == ["cmr1.png", "cmr2.png"]


def test_slices_of_a_size_the_network_cannot_halve_are_trained_on_and_predicted(
    command, tmp_path, monkeypatch, tiny
):
    for name in training.PRESETS:
        deep = training.replace(tiny, channels=(2, 2, 2, 4))
        monkeypatch.setitem(training.PRESETS, name, deep)
    root = fill(tmp_path / "root", size=27)
    done = command("train", "--data", root, "--out", tmp_path / "run")
    assert done.status == 0, done.err
    command("predict", "--model", tmp_path / "run", "--images", root / "test/image",
            "--out", tmp_path / "masks")
    assert [m.shape for m in masks_of(tmp_path / "masks").values()] == [(27, 27)] * 2


def test_evaluate_as_json_has_plain_numbers_in_the_agreed_shape(tmp_path, command):
    """Two slices, 4 x 1 pixels. RV: Dice 2*1/(2+1) = 2/3 and 0. Myo: 1 and absent from both, so
    left out. LV: absent everywhere. Mean of the classes there: (1/3 + 1) / 2 = 2/3."""
    for folder, rows in {"truth": [[1, 1, 2, 0], [1, 0, 0, 0]],
                         "pred": [[1, 0, 2, 0], [0, 1, 0, 0]]}.items():
        (tmp_path / folder).mkdir()
        for number, row in enumerate(rows, start=9):  # 9 and 10: ordered by number
            data.write_png(tmp_path / folder / f"cmr{number}_mask.png", np.array([row], np.uint8))
    done = command("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth", "--json")
    assert done.status == 0
    said = json.loads(done.out, parse_constant=pytest.fail)
    assert set(said) == {"images", "dice", "interval", "absent"} and said["images"] == 2
    assert said["dice"] == {"RV": pytest.approx(1 / 3), "Myo": 1, "LV": None,
                            "mean": pytest.approx(2 / 3)}
    assert said["absent"] == {"RV": 0, "Myo": 1, "LV": 2}
    assert set(said["interval"]) == {"RV", "Myo", "LV", "mean"} and said["interval"]["LV"] is None
    for name in ("RV", "Myo", "mean"):
        low, high = said["interval"][name]
        assert 0 <= low <= said["dice"][name] <= high <= 1


def test_evaluate_for_people_says_how_many_were_left_out(root, command):
    folder = root / "val" / "mask"
    for path in folder.iterdir():
        mask = np.array(Image.open(path))
        data.write_png(path, np.where(mask == 1, 0, mask))
    done = command("evaluate", "--pred", folder, "--truth", folder)
    lines = done.out.splitlines()
    assert done.status == 0 and lines[0] == "2 slices of 2 patients"
    assert "in no mask" in lines[1] and "2 left out" in lines[1]
    assert "1.0000  [1.0000, 1.0000]" in lines[2]


def test_evaluate_counts_the_patients_of_the_real_slices(real, command):
    folder = real / "val" / "mask"
    done = command("evaluate", "--pred", folder, "--truth", folder)
    assert done.out.startswith("20 slices of 10 patients")
    said = json.loads(command("evaluate", "--pred", folder, "--truth", folder, "--json").out)
    assert set(said["dice"].values()) == {1.0}


def test_data_writes_the_phantom_as_a_data_root(tmp_path, command):
    out = tmp_path / "phantom"
    assert command("data", "--source", "phantom", "--out", out).status == 0
    assert data.load(out, "val").fingerprint == data.load("phantom", "val").fingerprint
    assert command("doctor", out).status == 0


# --- mistakes: masks, submissions, models --------------------------------------------------------


@pytest.mark.parametrize("gone, named", [("pred", "pred"), ("truth", "truth")])
def test_evaluate_wants_the_same_slices_on_both_sides(gone, named, root, mistake, tmp_path):
    for side in ("pred", "truth"):
        shutil.copytree(root / "train" / "mask", tmp_path / side)
    (tmp_path / gone / "cmr7_mask.png").unlink()
    mistake("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth",
            naming=tmp_path / named / "cmr7_mask.png")


def test_evaluate_wants_one_size(root, mistake, tmp_path):
    small = fill(tmp_path / "small", size=16)
    line = mistake("evaluate", "--pred", small / "val/mask", "--truth", root / "val/mask",
                   naming=small / "val/mask")
    assert "16 x 16" in line and "32 x 32" in line


GOOD = [f"cmr{n}_mask{c},{5 * c} 2" for n in (1, 2) for c in (1, 2, 3)]


def submission(path, rows, header="id,encoding"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_submission_may_have_a_byte_order_mark_and_dos_lines(tmp_path, command):
    (tmp_path / "s.csv").write_bytes(
        b"\xef\xbb\xbf" + "\r\n".join(["id,encoding", *GOOD, ""]).encode())
    done = command("decode", "--submission", tmp_path / "s.csv", "--out", tmp_path / "out")
    assert done.status == 0
    for mask in masks_of(tmp_path / "out").values():
        assert mask.shape == (96, 96)
        assert mask[:16, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 0, 0, 0, 3, 3]


@pytest.mark.parametrize("rows, word", [
    pytest.param([*GOOD[:5], "cmr2_mask3,10 2"], "line 7", id="overlapping classes"),
    pytest.param([*GOOD[:5], "cmr2_mask3,20 5 22 1"], "line 7", id="overlapping runs"),
    pytest.param([*GOOD[:5], "cmr2_mask3,9216 2"], "line 7", id="past the end"),
    pytest.param([*GOOD[:5], "cmr2_mask3,9217 1"], "line 7", id="outside"),
    pytest.param([*GOOD[:5], "cmr2_mask3,0 2"], "line 7", id="pixel zero"),
    pytest.param([*GOOD[:5], "cmr2_mask3,20 0"], "line 7", id="no length"),
    pytest.param([*GOOD[:5], "cmr2_mask3,-3 2"], "line 7", id="negative"),
    pytest.param([*GOOD[:5], "cmr2_mask3,3 -2"], "line 7", id="negative length"),
    pytest.param([*GOOD[:5], "cmr2_mask3,3.0 2"], "line 7", id="float"),
    pytest.param([*GOOD[:5], "cmr2_mask3,nan 2"], "line 7", id="not a number"),
    pytest.param([*GOOD[:5], "cmr2_mask3,20 1000000000"], "line 7", id="a thousand million long"),
    pytest.param([*GOOD[:5], "cmr2_mask3,20 999999999"], "line 7", id="nearly as long"),
    pytest.param([*GOOD[:5], "cmr2_mask3," + "9" * 5000 + " 1"], "line 7", id="5000 digits"),
    pytest.param([*GOOD[:5], "cmr2_mask3,20 5 30"], "line 7", id="odd count"),
    pytest.param([*GOOD[:5], "cmr2_mask3,²0 5"], "line 7", id="strange digits"),
    pytest.param([*GOOD, "cmr2_mask2,50 2"], "line 8: repeats cmr2_mask2", id="twice the same id"),
    pytest.param([*GOOD[:5], "../../cmr2_mask3,20 1"], "line 7", id="a path"),
    pytest.param([*GOOD[:5], "/tmp/cmr2_mask3,20 1"], "line 7", id="an absolute path"),
    pytest.param([*GOOD[:5], "C:\\cmr2_mask3,20 1"], "line 7", id="a path of Windows"),
    pytest.param([*GOOD[:5], f"cmr{'2' * 5000}_mask3,20 1"], "line 7", id="a number of 5000 digits"),
    pytest.param([*GOOD[:5], "cmr2_mask3\0,20 1"], "line 7", id="a null byte"),
    pytest.param([*GOOD[:5], "cmr2_mask4,20 1"], "line 7", id="a fourth class"),
    pytest.param([*GOOD[:5], "cmr2_mask3,20 1,7"], "line 7", id="three columns"),
    pytest.param([*GOOD[:5], "cmr2_mask3"], "line 7", id="one column"),
    pytest.param(GOOD[:5], "cmr2_mask3", id="a missing row"),
    pytest.param([*GOOD, *(r.replace("cmr2", "cmr02") for r in GOOD[3:])], "cmr", id="one number"),
    pytest.param([], "", id="no rows"),
])
def test_a_wrong_submission_gets_one_line_and_no_masks(rows, word, tmp_path, mistake):
    path = submission(tmp_path / "s.csv", rows)
    line = mistake("decode", "--submission", path, "--out", tmp_path / "out", naming=path)
    assert word in line and len(line) < 1000
    assert os.listdir(tmp_path) == ["s.csv"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"id;encoding\n", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_submission_is_refused(content, tmp_path, mistake):
    (tmp_path / "s.csv").write_bytes(content)
    mistake("decode", "--submission", tmp_path / "s.csv", "--out", tmp_path / "out",
            naming=tmp_path / "s.csv")
    mistake("decode", "--submission", tmp_path / "none.csv", "--out", tmp_path / "out",
            naming=tmp_path / "none.csv")
    assert os.listdir(tmp_path) == ["s.csv"]


@pytest.mark.parametrize("size", ["96", "96x", "0x96", "-1x5", "axb", "9x9x9", "1e3x5", "99999x1"])
def test_a_wrong_size_is_refused(size, tmp_path, mistake):
    path = submission(tmp_path / "s.csv", GOOD)
    mistake("decode", "--submission", path, "--out", tmp_path / "out", "--size", size,
            naming="size")
    assert os.listdir(tmp_path) == ["s.csv"]


def test_a_size_is_width_by_height(tmp_path, command):
    path = submission(tmp_path / "s.csv", GOOD)
    command("decode", "--submission", path, "--out", tmp_path / "out", "--size", "20x10")
    assert masks_of(tmp_path / "out")["cmr1_mask.png"].shape == (10, 20)


def torn_weights(run):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])


def other_shapes(run):
    change(run, channels=[4, 16])


def other_names(run):
    path = run / "model.safetensors"
    save_file({f"module.{n}": t for n, t in load_file(path).items()}, path)


def no_numbers(run, value=np.nan):
    tensors = load_file(run / "model.safetensors")
    next(t for t in tensors.values() if t.ndim == 4)[0, 0] = value
    save_file(tensors, run / "model.safetensors")


def three_classes(run):
    """The last layer, which has an output for each class, without one."""
    tensors = load_file(run / "model.safetensors")
    last = [name for name, t in tensors.items() if t.shape[:1] == (4,)][-2:]
    save_file(tensors | {name: tensors[name][:3].copy() for name in last}, run / "model.safetensors")


class Trap:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def pickled(path):
    path.write_bytes(pickle.dumps(Trap(str(path) + ".opened")))


def instead_of(path, put):
    path.unlink()
    put(path)


def change_weights(run, how):
    path = run / "model.safetensors"
    training.save_tensors(path, {name: how(name, t) if t.is_floating_point() else t
                                 for name, t in load_tensors(path).items()}, {})


def as_type(run, dtype):
    change_weights(run, lambda name, t: t.to(dtype))


def change(run, **fields):
    path = run / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


MODELS = {
    "no folder": shutil.rmtree,
    "no model yet": lambda run: (run / "model.safetensors").unlink(),
    "no config": lambda run: (run / "config.json").unlink(),
    "torn weights": torn_weights,
    "empty weights": lambda run: (run / "model.safetensors").write_bytes(b""),
    "weights of text": lambda run: (run / "model.safetensors").write_text("weights" * 99),
    "other shapes": other_shapes,
    "other names": other_names,
    "torn config": lambda run: (run / "config.json").write_text('{"model": "un'),
    "binary config": lambda run: (run / "config.json").write_bytes(b"\xff\xfe\x00"),
    "config is a list": lambda run: (run / "config.json").write_text("[1, 2]"),
    "config is deep": lambda run: (run / "config.json").write_text("[" * 100_000),
    "config is a number": lambda run: (run / "config.json").write_text("3"),
    "config is a pipe": lambda run: instead_of(run / "config.json", os.mkfifo),
    "config is endless": lambda run: instead_of(run / "config.json", lambda path: path.symlink_to("/dev/zero")),
    "config is a folder": lambda run: instead_of(run / "config.json", os.mkdir),
    "config is very long": lambda run: os.truncate(run / "config.json", 2**30),
    "an unknown field": lambda run: change(run, attention=True),
    "an unknown model": lambda run: change(run, model="segnet-9"),
    "an unknown activation": lambda run: change(run, activation="swish"),
    "an unknown scale": lambda run: change(run, scale="minmax"),
    "no channels": lambda run: change(run, channels=[]),
    "channels of text": lambda run: change(run, channels="wide"),
    "negative channels": lambda run: change(run, channels=[-4, 8]),
    "channels without end": lambda run: change(run, channels=[4, 10**9]),
    "convolutions without end": lambda run: change(run, convolutions=10**9),
    "levels without end": lambda run: change(run, channels=[4] * 1000),
    "weights that are no numbers": no_numbers,
    "infinite weights": lambda run: no_numbers(run, np.inf),
    "complex weights": lambda run: as_type(run, torch.complex64),
    "whole weights": lambda run: as_type(run, torch.int32),
    "weights that lead to no numbers": lambda run: change_weights(run, lambda name, t: t * 0 + 3e38),
    "a negative variance": lambda run: change_weights(run, lambda name, t: -t if "running_var" in name else t),
    "three classes": three_classes,
    "a pickle under its name": lambda run: pickled(run / "model.safetensors"),
}


@pytest.mark.parametrize("harm", MODELS.values(), ids=MODELS)
def test_a_wrong_model_gets_one_line_and_no_masks(harm, model, root, mistake, tmp_path):
    run = shutil.copytree(model, tmp_path / "run")
    harm(run)
    mistake("predict", "--model", run, "--images", root / "test/image", "--out", tmp_path / "out",
            naming=run)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.safetensors", "model"])
def test_a_pickle_is_refused_unopened(name, root, mistake, tmp_path):
    pickled(tmp_path / name)
    line = mistake("predict", "--model", tmp_path / name, "--images", root / "test/image",
                   "--out", tmp_path / "out", naming=name)
    assert ("is damaged" if name.endswith(".safetensors") else "can run code") in line
    assert os.listdir(tmp_path) == [name]


def test_a_configuration_that_asks_for_too_much_gets_no_memory(model):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = training.replace(training.read_config(model / "config.json"), channels=(4, 4000))
    with pytest.raises(RuntimeError):
        training.restored(config, load_tensors(model / "model.safetensors"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_a_record_without_an_end_is_not_waited_for(put, root, command, mistake, tmp_path):
    assert command("train", "--data", root, "--out", tmp_path / "run").status == 0
    instead_of(tmp_path / "run" / "record.json", put)
    mistake("train", "--data", root, "--out", tmp_path / "run", "--resume", naming="record.json")


# --- mistakes: too small, too much at once -------------------------------------------------------


def test_slices_of_which_the_network_sees_one_point_are_refused(mistake, tmp_path, monkeypatch, tiny):
    monkeypatch.setitem(training.PRESETS, "book", training.replace(tiny, channels=(2, 2, 2, 2, 2, 4)))
    root = fill(tmp_path / "root", {"train": range(5, 10), "val": range(3, 5)})  # five in batches of four
    line = mistake("train", "--data", root, "--out", tmp_path / "run", naming="training slices")
    assert "larger slices" in line and not list((tmp_path / "run").glob("*"))


def test_large_slices_are_predicted_one_by_one(tmp_path, command, monkeypatch):
    seen, sizes = [], {"large": 1000, "small": 100}
    monkeypatch.setattr(runtime, "find", lambda name: lambda x: seen.append(len(x)) or np.zeros_like(x))
    for name, size in sizes.items():
        (tmp_path / name).mkdir()
        for number in range(1, 4):
            data.write_png(tmp_path / name / f"cmr{number}.png", np.eye(size) * 255)
        command("predict", "--model", "m", "--images", tmp_path / name, "--out", tmp_path / f"{name}-masks")
    assert seen == [1, 1, 1, 3]


def test_a_submission_is_decoded_mask_by_mask(tmp_path, command):
    rows = [f"cmr{n}_mask{c},{5 * c} 2" for n in range(1, 41) for c in (1, 2, 3)]
    path = submission(tmp_path / "s.csv", rows)
    tracemalloc.start()
    done = command("decode", "--submission", path, "--out", tmp_path / "out", "--size", "1000x1000")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.status == 0 and len(files_in(tmp_path / "out")) == 40 and most < 20e6


@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_said_in_one_line(problem, root, model, mistake, monkeypatch, tmp_path):
    def fail(*_):
        raise problem

    monkeypatch.setattr(runtime, "find", lambda name: fail)
    line = mistake("predict", "--model", model, "--images", root / "test/image", "--out", tmp_path / "out")
    assert "out of memory" in line
    if isinstance(problem, MemoryError):
        monkeypatch.setattr(data, "_verify", fail)
        assert "out of memory" in mistake("doctor", root)


# --- mistakes: where to write --------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_a_finished_run_is_not_overwritten(root, command, mistake, tmp_path):
    run = tmp_path / "run"
    assert command("train", "--data", root, "--out", run).status == 0
    before = {name: (run / name).read_bytes() for name in files_in(run)}
    mistake("train", "--data", root, "--out", run, naming=run)
    done = command("train", "--data", root, "--out", run, "--resume")
    assert done.status == 0 and "finished" in done.out
    assert "seed" in mistake("train", "--data", root, "--out", run, "--resume", "--seed", 9, naming=run)
    other = fill(tmp_path / "other", size=64)
    assert "slices" in mistake("train", "--data", other, "--out", run, "--resume", naming=run)
    assert {name: (run / name).read_bytes() for name in files_in(run)} == before


@pytest.mark.usefixtures("tiny_presets")
def test_an_unfinished_run_is_not_overwritten(root, mistake, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / training.CHECKPOINT).write_bytes(b"epochs of work")
    line = mistake("train", "--data", root, "--out", tmp_path / "run", naming=tmp_path / "run")
    assert "--resume" in line
    line = mistake("train", "--data", root, "--out", tmp_path / "run", "--resume",
                   naming=training.CHECKPOINT)
    assert "damaged" in line
    assert (tmp_path / "run" / training.CHECKPOINT).read_bytes() == b"epochs of work"


@pytest.mark.usefixtures("tiny_presets")
def test_an_out_that_is_a_file_or_below_one_is_named(root, model, mistake, tmp_path):
    (tmp_path / "file").write_text("mine")
    path = submission(tmp_path / "s.csv", GOOD)
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        mistake("train", "--data", root, "--out", out, naming=tmp_path / "file")
        mistake("predict", "--model", model, "--images", root / "test/image", "--out", out,
                naming=tmp_path / "file")
        mistake("decode", "--submission", path, "--out", out, naming=tmp_path / "file")
        mistake("data", "--source", "phantom", "--out", out, naming=tmp_path / "file")
    mistake("submit", "--masks", root / "val/mask", "--out", tmp_path / "file" / "s.csv",
            naming=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_submission_is_not_written_over_a_folder(root, mistake, tmp_path):
    (tmp_path / "taken").mkdir()
    mistake("submit", "--masks", root / "val/mask", "--out", tmp_path / "taken",
            naming=tmp_path / "taken")
    assert os.listdir(tmp_path) == ["taken"] and os.listdir(tmp_path / "taken") == []


def test_a_name_that_is_no_text_is_shown_as_far_as_it_goes(root, command, tmp_path):
    odd = root.rename(tmp_path / os.fsdecode(b"b\xff"))
    done = command("doctor", odd)
    assert done.status == 0 and done.out.endswith("0 errors, 0 warnings in " + str(tmp_path) + "/b\\udcff\n")
    (tmp_path / "file").write_text("mine")
    done = command("submit", "--masks", odd / "val/mask", "--out", tmp_path / "file" / odd.name / "s.csv")
    assert done.status == 2 and "file/b\\udcff: Not a directory" in done.err


# --- the parser ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_exits_with_zero(words, command):
    done = command(*words)
    assert done.status == 0 and "Usage" in done.out and not done.err
    if len(words) < 2:
        assert all(name in done.out for name in COMMANDS)


@pytest.mark.parametrize("words, named", [
    (("fly",), "fly"),
    (("train", "--fast"), "--fast"),
    (("train",), "--out"),
    (("train", "--out", "x", "--preset", "best"), "best"),
    (("train", "--out", "x", "--epochs", "0"), "--epochs"),
    (("train", "--out", "x", "--epochs", "many"), "--epochs"),
    (("train", "--out", "x", "--seed", "-1"), "--seed"),
    (("train", "--out", "x", "--seed", "9" * 30, "--data", "phantom"), "--seed"),
    (("train", "--out", "x", "--threads", "0"), "--threads"),
    (("train", "--out", "x", "--precision", "fp8"), "fp8"),
    (("data", "--source", "mnist"), "mnist"),
    (("doctor",), "folder"),
    (("evaluate", "--pred"), "--pred"),
])
def test_a_wrong_option_gets_one_line(words, named, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistake(*words, naming=named)
    assert os.listdir(tmp_path) == []


# --- diverged, stopped, resumed ------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_a_loss_that_is_no_number_ends_with_one_line(root, mistake, tmp_path, monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "ce+dice", lambda logits, labels: logits.mean() * np.nan)
    line = mistake("train", "--data", root, "--out", tmp_path / "run", naming="nan in epoch 1")
    assert "the loss is" in line
    assert not (tmp_path / "run").exists() or files_in(tmp_path / "run") == []


LONG = ("--preset", "modern", "--epochs", "12", "--seed", "5", "--precision", "fp32",
        "--threads", "1")


def start(root, out, *words):
    """``python -m cmrseg train`` in a fresh process, which Ctrl-C reaches."""
    return subprocess.Popen(
        [sys.executable, "-m", "cmrseg", "train", *LONG, "--data", root, "--out", out, *words],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop(process, out, number):
    """Send a signal as soon as there is a checkpoint; status and what was said."""
    deadline = time.time() + 120
    while not (out / training.CHECKPOINT).exists() and process.poll() is None:
        assert time.time() < deadline, "no checkpoint in two minutes"
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    return process.returncode, err


def test_stopped_before_the_first_epoch_nothing_is_left(root, command, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", stop)
    done = command("train", "--data", root, "--out", tmp_path / "run")
    assert done.status == 130 and "nothing is kept" in done.err and not (tmp_path / "run").exists()


def test_a_model_may_be_read_by_whom_its_record_may(model):
    assert len({(model / name).stat().st_mode for name in files_in(model)}) == 1


def digest(run):
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def test_fresh_processes_stopped_or_not_give_identical_weights(root, tmp_path):
    straight, again = tmp_path / "straight", tmp_path / "again"
    interrupted, terminated = tmp_path / "interrupted", tmp_path / "terminated"
    runs = [start(root, straight), start(root, again)]

    status, err = stop(start(root, interrupted), interrupted, signal.SIGINT)
    assert status == 130, err
    assert "--resume" in err and "Traceback" not in err
    status, err = stop(start(root, terminated), terminated, signal.SIGTERM)
    assert status == 143, err
    assert "--resume" in err and "Traceback" not in err
    for out in (interrupted, terminated):
        assert files_in(out) == [training.CHECKPOINT]
    for process in runs:
        assert process.wait(timeout=240) == 0

    resumed = start(root, interrupted, "--resume")
    _, err = resumed.communicate(timeout=240)
    assert resumed.returncode == 0, err
    assert digest(straight) == digest(again) == digest(interrupted)
    first, second = (json.loads((run / "record.json").read_text())
                     for run in (straight, interrupted))
    assert first["images"] == second["images"] and first["history"] == second["history"]
    assert files_in(interrupted) == files_in(straight)
