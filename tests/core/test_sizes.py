"""Slices of another size, or of other millimetres, than a network knows."""

import shutil

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, fill, heart

from cmrseg.deploy import sizes, weights

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
    warning = sizes.warning("small", shape, mm, resize)
    assert warning is None if word is None else word in warning
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
