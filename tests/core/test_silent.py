"""Faults that give no sign, or a wrong one: kinds of them that people reported of other software.

Their first cases are in test_cases.py.
"""

import errno
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, files_in, heart, linux

from cmrseg import datasets, train
from cmrseg.checkpoint import MODEL
from cmrseg.config import PRESETS
from cmrseg.data import write_png
from cmrseg.deploy import sizes, weights

# --- files that are open, and systems without locks ----------------------------------------------


@linux
@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize("said", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_in_the_file_system_a_file_is_one(
    said, root, command, mistake, tmp_path, monkeypatch
):
    """A network share, for instance."""

    def flock(*_):
        raise OSError(said, os.strerror(said))

    monkeypatch.setattr("fcntl.flock", flock)
    words, seen = ("train", "--data", root, "--out", tmp_path / "run"), []

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


def stored_at(folder, width, height=None, count=2):
    """Images of hearts with so many pixels, and their masks."""
    for n in range(1, count + 1):
        pixels = zip(("image", "mask"), heart(n, 96), (cv2.INTER_AREA, cv2.INTER_NEAREST))
        for kind, picture, how in pixels:
            end = "_mask" if kind == "mask" else ""
            (folder / kind).mkdir(parents=True, exist_ok=True)
            size = (width, height or width)
            picture = cv2.resize(picture, size, interpolation=how)
            write_png(folder / kind / f"cmr{n}{end}.png", picture)
    return folder


@pytest.fixture
def knows_32(tmp_path):
    """A network that has learned from slices of 32 pixels, so it says."""
    path = shutil.copy(weights.WEIGHTS / "small.onnx", tmp_path / "net.onnx")
    sizes.write_size(path, (32, 32))
    return path


@pytest.mark.parametrize("width, height, warned", [
    (32, 32, False), (41, 41, False), (42, 42, True), (25, 25, False), (24, 24, True),
    (20, 64, True), (20, 32, False),
])  # fmt: skip
def test_a_size_beyond_a_factor_is_warned_of(width, height, warned, knows_32, command, tmp_path):
    images = stored_at(tmp_path / "in", width, height) / "image"
    words = ("predict", "--model", knows_32, "--images", images, "--out", tmp_path / "out")
    done = command(*words)
    lines = [line for line in done.err.splitlines() if line.startswith("warning")]
    assert done.status == 0 and len(lines) == warned
    if warned:
        assert f"{width} x {height}" in lines[0] and "32 x 32" in lines[0]
        assert "--resize" in lines[0] and str(images) in lines[0]
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


def test_what_train_and_the_delivered_networks_know(root, command, tmp_path, monkeypatch, tiny):
    monkeypatch.setitem(PRESETS, "book", tiny)
    command("train", "--data", root, "--out", tmp_path / "run")
    net = tmp_path / "net.onnx"
    assert command("export", "--model", tmp_path / "run", "--out", net).status == 0
    for path in (tmp_path / "run", net):
        assert sizes.read_size(str(path)) == {"pixels": (32, 32), "spacing_mm": None}
    script = (REPOSITORY / "book" / "assets" / "model.js").read_text(encoding="utf-8")
    assert "const SIDE = 96;" in script and f"{sizes.BEYOND} * SIDE" in script
    for name in weights.DELIVERED:
        assert sizes.read_size(name) == {"pixels": (96, 96), "spacing_mm": 1.8}


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"pixels": [0, 9]}', '{"pixels": "96"}', "\xff"])
def test_a_note_of_sizes_that_says_none_is_named(note, root, model, mistake, tmp_path):
    run = shutil.copytree(model, tmp_path / "run")
    words = ("predict", "--model", run, "--images", root / "test/image", "--out", tmp_path / "o")
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


@pytest.mark.parametrize("place", ["", "train", "train/image"])
def test_a_table_wins_over_what_is_known(place, renumbered):
    root = renumbered("train", {1: 1, 2: 2, 3: 7, 4: 8})
    table = "image,patient\ncmr1,A\ncmr2,B\ncmr3,B\ncmr4,C\n"
    (root / place / "patients.csv").write_text(table, encoding="utf-8")
    assert patients(root, "train") == {"cmr1": 1, "cmr2": 2, "cmr3": 2, "cmr4": 3}


def test_own_slices_beside_known_ones_are_nobody_known(renumbered):
    renumbered("train", {1: 12, 2: 11, 3: 1}, own=(4, 6))
    root = renumbered("val", {}, own=(5, 7, 201))
    train, val = patients(root, "train"), patients(root, "val")
    assert (train["cmr1"], train["cmr2"], train["cmr3"]) == (6, 6, 1)
    own = {train["cmr4"], train["cmr6"], *val.values()}
    assert len(own) == 5 and not own & {*range(1, 101)}


def test_slices_of_nobody_known_are_numbered_as_ever(root):
    assert patients(root, "val") == {"cmr3": 3, "cmr4": 4}


@pytest.mark.usefixtures("tiny_presets")
def test_train_warns_of_a_patient_on_both_sides(renumbered, command, tmp_path):
    renumbered("train", {1: 5, 2: 9})
    root = renumbered("val", {1: 10, 2: 6})
    words = ("train", "--data", root, "--out", tmp_path / "run")
    (line,) = (x for x in command(*words).err.splitlines() if x.startswith("warning"))
    assert "cmr1 of train and cmr2 of val" in line and "2 patients" in line
    (root / "patients.csv").write_text("image,patient\ncmr1,1\ncmr2,2\n", encoding="utf-8")
    (root / "val" / "patients.csv").write_text("image,patient\ncmr1,8\ncmr2,9\n", encoding="utf-8")
    assert "warning" not in command(*words[:-1], tmp_path / "other").err
    assert "warning" not in command(*words[:-1], tmp_path / "phantom", "--data", "phantom").err
