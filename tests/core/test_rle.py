"""Run-length codes beside pycocotools, and submissions both ways."""

import csv
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from cmrseg import rle
from cmrseg.data import BadInput

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


def test_pixels_are_numbered_down_the_columns_from_one():
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)  # numbers 1 3 5 / 2 4 6
    assert rle.encode(mask) == "2 4"
    np.testing.assert_array_equal(rle.decode("2 4", (2, 3)), mask)
    assert rle.encode(np.zeros((3, 3), bool)) == "" and not rle.decode("", (3, 3)).any()
    assert rle.encode(np.ones((96, 96), bool)) == "1 9216"
    assert rle.encode(np.eye(3, dtype=bool)) == "1 1 5 1 9 1"
    assert rle.decode("5 1 1 1 9 1", (3, 3)).tolist() == np.eye(3, dtype=bool).tolist()  # any order


def counts(code, size):
    """Kaggle's starts and lengths -> pycocotools' lengths of zeros and ones in turn."""
    numbers, lengths, end = list(map(int, code.split())), [], 0
    for start, length in zip(numbers[::2], numbers[1::2]):
        lengths += [start - 1 - end, length]
        end = start - 1 + length
    return [*lengths, size - end] if end < size else lengths


@given(arrays(bool, SHAPES))
def test_codes_are_those_of_pycocotools_and_decode_to_the_mask(mask):
    height, width = mask.shape
    code = rle.encode(mask)
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = {"size": [height, width], "counts": counts(code, mask.size)}
    assert coco.frPyObjects(ours, height, width)["counts"] == theirs["counts"]
    np.testing.assert_array_equal(rle.decode(code, mask.shape), mask)
    flat = mask.ravel("F")
    assert len(code.split()) // 2 == (np.diff(flat, prepend=False) & flat).sum()  # no run is cut


NO_PAIRS = ["1", "1 2 3", "-1 2", "1 -2", "1.0 2", "1e2 1", "nan 1", "+1 2", "1,2", "\u0661 2"]
NO_RUNS = ["0 1", "1 0", "5 13", "17 1", "1 1000000000", "1 " + "9" * 30, "1 3 2 1", "4 1 4 1"]


@pytest.mark.parametrize("code", NO_PAIRS + NO_RUNS)
def test_what_is_no_code_of_a_four_by_four_mask_is_refused(code):
    with pytest.raises(ValueError):
        rle.decode(code, (4, 4))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True))
def test_a_submission_is_read_back_the_same_and_in_order(tmp_path_factory, shape, numbers):
    path = tmp_path_factory.getbasetemp() / "s.csv"
    rng = np.random.default_rng(numbers)
    masks = {f"cmr{n}": rng.integers(0, 4, shape, dtype=np.uint8) for n in numbers}
    rle.write_submission(masks, path)
    read = rle.read_submission(path, shape)
    assert list(read) == [f"cmr{n}" for n in sorted(numbers)]
    for name, mask in masks.items():
        np.testing.assert_array_equal(read[name], mask)
        assert read[name].dtype == np.uint8


def test_a_submission_has_a_row_for_each_class_that_decodes_to_it(tmp_path):
    rng = np.random.default_rng(0)
    masks = {f"cmr{n}": rng.integers(0, 4, (6, 5), dtype=np.uint8) for n in (9, 10)}
    masks["cmr10"][masks["cmr10"] == 2] = 0
    rle.write_submission(masks, tmp_path / "s.csv")
    rows = list(csv.DictReader((tmp_path / "s.csv").open(encoding="utf-8")))
    assert [row["id"] for row in rows] == [f"cmr{n}_mask{c}" for n in (9, 10) for c in (1, 2, 3)]
    for row in rows:
        name, c = row["id"].split("_mask")
        np.testing.assert_array_equal(rle.decode(row["encoding"], (6, 5)), masks[name] == int(c))
    assert rows[4]["encoding"] == ""
    assert b"\r" not in (tmp_path / "s.csv").read_bytes()


def test_a_large_and_noisy_submission_is_read_back_too(tmp_path):
    mask = np.random.default_rng(0).integers(0, 4, (512, 512), dtype=np.uint8)
    rle.write_submission({"cmr1": mask}, tmp_path / "s.csv")
    np.testing.assert_array_equal(rle.read_submission(tmp_path / "s.csv", (512, 512))["cmr1"], mask)


def test_rows_may_come_in_any_order_and_lines_may_be_empty(tmp_path):
    masks = {f"cmr{n}": np.full((2, 2), n, np.uint8) for n in (1, 2, 3)}
    rle.write_submission(masks, tmp_path / "s.csv")
    header, *rows = (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "s.csv").write_text("\n".join([header, *rows[::-1], "", ""]), encoding="utf-8")
    read = rle.read_submission(tmp_path / "s.csv", (2, 2))
    assert {n: m.tolist() for n, m in read.items()} == {n: m.tolist() for n, m in masks.items()}


TWO_CLASSES = "cmr1_mask1,1 2\ncmr1_mask2,2 1"
NO_LENGTH = ["1 0 5 2", "5 2 1 0", "2 0", "0 0", "1 0 1 0"]  # may be slips
NOT_ONE_LINE = ['"1 1\n2 30 4"', '"1 1\n30 4"', '"1 1\r\n"', "1 1\fcmr1_mask2,30 4", '"1 1']


@pytest.mark.parametrize(
    ("rows", "problem"),
    [(TWO_CLASSES, "line 3: gives a pixel two classes")]
    + [(f"cmr1_mask1,{code}\ncmr1_mask2,", "line 2: is not id,encoding") for code in NOT_ONE_LINE]
    + [(f"cmr1_mask1,{code}\ncmr1_mask2,", r"line 2: the run \d 0 has no") for code in NO_LENGTH],
)
def test_a_wrong_submission_names_its_line(rows, problem, tmp_path):
    """A code does not go on in another line, nor a line after a form feed."""
    (tmp_path / "s.csv").write_bytes(f"id,encoding\n{rows}\ncmr1_mask3,\n".encode())
    with pytest.raises(BadInput, match=problem):
        rle.read_submission(tmp_path / "s.csv", (4, 4))


@pytest.mark.parametrize("code", ["1 0", " 1  0 ", ""])
def test_a_class_that_is_not_there_has_no_code_or_a_run_of_no_length(code, tmp_path):
    """Case R1: how some encoders write nothing."""
    rows = f"cmr1_mask1,{code}\ncmr1_mask2,2 3\ncmr1_mask3,{code}\n"
    (tmp_path / "s.csv").write_text(f"id,encoding\n{rows}", encoding="utf-8")
    (mask,) = rle.read_submission(tmp_path / "s.csv", (4, 4)).values()
    assert (mask.ravel("F") == 2).nonzero()[0].tolist() == [1, 2, 3] and mask.max() == 2


def test_a_file_without_an_end_is_no_submission(tmp_path):
    (tmp_path / "s.csv").write_text("id,encoding\n", encoding="utf-8")
    os.truncate(tmp_path / "s.csv", rle.LONGEST + 1)
    with pytest.raises(BadInput, match="is over 64 MB"):
        rle.read_submission(tmp_path / "s.csv")


def test_a_submission_replaces_neither_a_folder_nor_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path, "is a folder"), (tmp_path / "pipe", "is not a plain file")):
        with pytest.raises(BadInput, match=what):
            rle.write_submission({"cmr1": np.zeros((4, 4), np.uint8)}, path)
    assert (tmp_path / "pipe").is_fifo()
