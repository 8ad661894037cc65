"""Run-length codes beside pycocotools', and submissions both ways.

Each group fails after any of these one-line changes of ``cmrseg/rle.py``:

- by hand, pycocotools, round trips: in encode(), ``order="F"`` -> ``"C"``, or ``{a + 1}`` ->
  ``{a}``; in decode(), ``order="F"`` -> ``"C"``
- refused: in decode(), ``length < 1`` -> ``length < 0``, or ``[0-9]{1,9}`` -> ``\\d{1,9}``
- submissions: in write_submission(), ``mask == c`` -> ``mask == 4 - c``, or ``path.with_name(...)``
  -> ``path``; in each_mask(), ``int(name[3:])`` -> ``name``, or drop
  ``csv.field_size_limit(...)`` or ``if not row: continue``
- lines: in read_submission(), ``io.StringIO(...)`` -> ``....splitlines()``; in _place(), drop
  ``or "\\n" in row[1]``
"""

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
MASKS = arrays(bool, SHAPES)


def test_pixels_are_numbered_down_the_columns_from_one():
    mask = np.array([[0, 1, 1],
                     [1, 1, 0]], bool)  # numbers 1 3 5 / 2 4 6
    assert rle.encode(mask) == "2 4"
    np.testing.assert_array_equal(rle.decode("2 4", (2, 3)), mask)
    assert rle.encode(np.zeros((3, 3), bool)) == "" and not rle.decode("", (3, 3)).any()
    assert rle.encode(np.ones((96, 96), bool)) == "1 9216"
    assert rle.encode(np.eye(3, dtype=bool)) == "1 1 5 1 9 1"
    assert rle.decode("5 1 1 1 9 1", (3, 3)).tolist() == np.eye(3, dtype=bool).tolist()  # any order


@given(MASKS)
def test_decoding_undoes_encoding(mask):
    code = rle.encode(mask)
    np.testing.assert_array_equal(rle.decode(code, mask.shape), mask)
    flat = mask.ravel("F")
    assert len(code.split()) // 2 == (np.diff(flat, prepend=False) & flat).sum()  # no run is cut


def counts(code, size):
    """Kaggle's starts and lengths -> pycocotools' lengths of zeros and ones in turn."""
    numbers, lengths, end = list(map(int, code.split())), [], 0
    for start, length in zip(numbers[::2], numbers[1::2]):
        lengths += [start - 1 - end, length]
        end = start - 1 + length
    return [*lengths, size - end] if end < size else lengths


@given(MASKS)
def test_codes_are_those_of_pycocotools(mask):
    height, width = mask.shape
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    plain = {"size": [height, width], "counts": counts(rle.encode(mask), mask.size)}
    ours = coco.frPyObjects(plain, height, width)
    assert ours["counts"] == theirs["counts"]
    np.testing.assert_array_equal(coco.decode(ours), rle.decode(rle.encode(mask), mask.shape))


@pytest.mark.parametrize("code", [
    "1", "1 2 3", "0 1", "1 0", "-1 2", "1 -2", "1.0 2", "1e2 1", "nan 1", "+1 2", "5 13", "17 1",
    "1 1000000000", "1 999999999", "1 3 2 1", "4 1 4 1", "one 2", "1,2", "١ 2"])
def test_what_is_no_code_of_a_four_by_four_mask_is_refused(code):
    with pytest.raises(ValueError):
        rle.decode(code, (4, 4))


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, numbers=st.lists(st.integers(1, 10**6), min_size=1, max_size=6, unique=True),
       seed=st.integers(0, 10**6))
def test_a_submission_is_read_back_the_same_and_in_order(shape, numbers, seed, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "s.csv"
    rng = np.random.default_rng(seed)
    masks = {f"cmr{n}": rng.integers(0, 4, shape, dtype=np.uint8) for n in numbers}
    rle.write_submission(masks, path)
    found = rle.read_submission(path, shape)
    assert list(found) == [f"cmr{n}" for n in sorted(numbers)]
    for name, mask in masks.items():
        np.testing.assert_array_equal(found[name], mask)
        assert found[name].dtype == np.uint8


def test_a_submission_has_a_row_for_each_class_that_decodes_to_it(tmp_path):
    masks = {f"cmr{n}": np.random.default_rng(n).integers(0, 4, (6, 5), dtype=np.uint8)
             for n in (9, 10)}
    masks["cmr10"][masks["cmr10"] == 2] = 0
    rle.write_submission(masks, tmp_path / "s.csv")
    rows = list(csv.DictReader((tmp_path / "s.csv").open()))
    assert [row["id"] for row in rows] == [f"cmr{n}_mask{c}" for n in (9, 10) for c in (1, 2, 3)]
    for row in rows:
        name, c = row["id"].split("_mask")
        np.testing.assert_array_equal(rle.decode(row["encoding"], (6, 5)), masks[name] == int(c))
    assert rows[4]["encoding"] == ""
    assert b"\r" not in (tmp_path / "s.csv").read_bytes()


def test_a_large_and_noisy_submission_is_read_back_too(tmp_path):
    masks = {"cmr1": np.random.default_rng(0).integers(0, 4, (512, 512), dtype=np.uint8)}
    rle.write_submission(masks, tmp_path / "s.csv")
    found = rle.read_submission(tmp_path / "s.csv", (512, 512))
    np.testing.assert_array_equal(found["cmr1"], masks["cmr1"])


def test_rows_may_come_in_any_order_and_lines_may_be_empty(tmp_path):
    masks = {f"cmr{n}": np.full((2, 2), n, np.uint8) for n in (1, 2, 3)}
    rle.write_submission(masks, tmp_path / "s.csv")
    header, *rows = (tmp_path / "s.csv").read_text().splitlines()
    (tmp_path / "s.csv").write_text("\n".join([header, *rows[::-1], "", ""]))
    found = rle.read_submission(tmp_path / "s.csv", (2, 2))
    assert {n: m.tolist() for n, m in found.items()} == {n: m.tolist() for n, m in masks.items()}


def test_a_failed_write_leaves_the_old_submission(tmp_path, monkeypatch):
    path = tmp_path / "s.csv"
    path.write_text("id,encoding\n")
    monkeypatch.setattr(rle, "encode", lambda mask: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rle.write_submission({"cmr1": np.zeros((2, 2), np.uint8)}, path)
    assert path.read_text() == "id,encoding\n" and os.listdir(tmp_path) == ["s.csv"]


def test_a_wrong_submission_names_its_line(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("id,encoding\ncmr1_mask1,1 2\ncmr1_mask2,2 1\ncmr1_mask3,\n")
    with pytest.raises(BadInput, match="line 3: gives a pixel two classes"):
        rle.read_submission(path, (4, 4))


def test_a_file_without_an_end_is_no_submission(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("id,encoding\n")
    os.truncate(path, rle.LONGEST + 1)
    with pytest.raises(BadInput, match="is over 64 MB"):
        rle.read_submission(path)


@pytest.mark.parametrize("rows", ['cmr1_mask1,"1 1\n2 30 4"', 'cmr1_mask1,"1 1\n30 4"', 'cmr1_mask1,"1 1\r\n"',
                                  "cmr1_mask1,1 1\fcmr1_mask2,30 4", 'cmr1_mask1,"1 1'])
def test_a_code_does_not_go_on_in_another_line_nor_a_line_after_a_form_feed(rows, tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes(f"id,encoding\n{rows}\ncmr1_mask2,\ncmr1_mask3,\n".encode())
    with pytest.raises(BadInput, match="line 2: is not id,encoding"):
        rle.read_submission(path)


def test_a_submission_replaces_neither_a_folder_nor_a_device(tmp_path):
    """Fails after `if path.exists() and not path.is_file()` -> `if path.is_dir()`."""
    os.mkfifo(tmp_path / "pipe")
    for path, what in ((tmp_path, "is a folder"), (tmp_path / "pipe", "is not a plain file")):
        with pytest.raises(BadInput, match=what):
            rle.write_submission({"cmr1": np.zeros((4, 4), np.uint8)}, path)
    assert (tmp_path / "pipe").is_fifo()
