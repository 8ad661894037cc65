"""Kaggle's run-length code and submission file, both ways.

Pixels are numbered down the columns from 1 (*column-major*, 1-based); a mask becomes pairs
``start length start length ...``. A submission is a CSV file with the header ``id,encoding`` and
three rows ``cmrN_mask1``, ``cmrN_mask2``, ``cmrN_mask3`` (RV, Myo, LV) for each slice.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cmrseg.data import BadInput, write_bytes

HEADER = ["id", "encoding"]
LONGEST = 2**26  # bytes of a submission: a hundred thousand slices
Codes = dict[str, tuple[str, str]]  # of a slice: class -> where its code stands, and the code
ROW = re.compile(r"(cmr([0-9]{1,9}))_mask([123])")


def encode(mask: np.ndarray) -> str:
    """The run-length code of a boolean mask (H, W); an empty mask gives an empty string."""
    flat = np.concatenate([[0], mask.astype(bool).ravel(order="F"), [0]]).astype(np.int8)
    steps = np.diff(flat)
    starts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return " ".join(f"{a + 1} {b - a}" for a, b in zip(starts, stops))


def decode(code: str, shape: tuple[int, int] = (96, 96)) -> np.ndarray:
    """The boolean mask (H, W) of a run-length code.

    Raises:
        ValueError: not pairs of whole numbers, a run of no length, or one outside the image.
    """
    words = code.split()
    if len(words) % 2 or not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words):
        raise ValueError("a run-length code is pairs of whole numbers: start length ...")
    flat = np.zeros(shape[0] * shape[1], dtype=bool)
    for start, length in np.array(words, dtype=np.int64).reshape(-1, 2):
        if length < 1:
            raise ValueError(f"the run {start} {length} has no length; an empty mask has no code")
        if start < 1 or start + length - 1 > flat.size:
            raise ValueError(f"the run {start} {length} leaves an image of {flat.size} pixels")
        if flat[start - 1 : start - 1 + length].any():
            raise ValueError(f"the run {start} {length} covers a pixel twice")
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(shape, order="F")


def write_submission(masks: dict[str, np.ndarray], path: Path) -> None:
    """Write label maps ``{"cmr121": uint8 (H, W), ...}`` as a submission, three rows a slice.

    Raises:
        BadInput: ``path`` is a folder, or another thing that is no plain file.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "not a plain file"
        raise BadInput(path, f"is {kind}", "Give a file to write")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for name, mask in masks.items():
        writer.writerows([f"{name}_mask{c}", encode(mask == c)] for c in (1, 2, 3))
    write_bytes(path, text.getvalue().encode())


def read_submission(path: Path, shape: tuple[int, int] = (96, 96)) -> dict[str, np.ndarray]:
    """The label maps of a submission: ``{"cmr121": uint8 (H, W), ...}``, ordered by number.

    Raises:
        BadInput: not a submission; the message names the line.
    """
    return dict(each_mask(path, shape))


def each_mask(path: Path, shape: tuple[int, int] = (96, 96)) -> Iterator[tuple[str, np.ndarray]]:
    """The label maps of a submission, one after the other: together they may be large.

    Of a class that is not there the code is empty, or ``1 0``, as other competitions write it.

    Raises:
        BadInput: not a submission; the message names the line.
    """
    if not path.is_file():
        raise BadInput(path, "no such file", "Make one with: python -m cmrseg submit")
    if path.stat().st_size > LONGEST:
        cure = "A slice takes a few hundred bytes: is it a submission"
        raise BadInput(path, f"is over {LONGEST >> 20} MB", cure)
    csv.field_size_limit(2**31 - 1)  # the code of a large and noisy mask is long
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error):
        problem = "is not a text file of comma-separated values"
        raise BadInput(path, problem, "Write it as UTF-8 CSV") from None
    if not rows or rows[0] != HEADER:
        raise BadInput(path, "does not start with the header id,encoding", "Add that first line")
    if len(rows) == 1:
        raise BadInput(path, "has no rows after its header", "Each slice has three")
    codes: dict[str, Codes] = {}
    for line, row in enumerate(rows[1:], start=2):
        if row:
            _sort_in(codes, row, f"{path}, line {line}")
    numbers: dict[int, str] = {}
    for name in sorted(codes, key=lambda name: int(name[3:])):
        if missing := [c for c in "123" if c not in codes[name]]:
            raise BadInput(path, f"has no row {name}_mask{missing[0]}", "Each slice has three rows")
        if (other := numbers.setdefault(int(name[3:]), name)) != name:
            raise BadInput(path, f"has {other} and {name}", "Keep one slice for each number")
        yield name, _label_map(codes[name], shape)


def _sort_in(codes: dict[str, Codes], row: list[str], where: str) -> None:
    """Put the code of one row to its slice."""
    match = ROW.fullmatch(row[0]) if len(row) == 2 else None
    if not match or "\n" in row[1]:  # so a row is a line, and its number that of the line
        cure = "Expected a row such as: cmr121_mask1,12 3 20 4"
        raise BadInput(where, "is not id,encoding", cure)
    classes = codes.setdefault(match[1], {})
    if match[3] in classes:
        raise BadInput(where, f"repeats {row[0]}", "Keep one row for each class of each slice")
    classes[match[3]] = where, row[1]


def _label_map(codes: Codes, shape: tuple[int, int]) -> np.ndarray:
    """The label map uint8 (H, W) of the codes of one slice."""
    label = np.zeros(shape, dtype=np.uint8)
    for c, (where, code) in codes.items():  # in the order of the lines
        try:
            runs = decode("" if code.split() == ["1", "0"] else code, shape)
        except ValueError as error:
            raise BadInput(where, str(error), "Check the code, and --size") from None
        if label[runs].any():
            raise BadInput(where, "gives a pixel two classes", "Classes must not overlap")
        label[runs] = int(c)
    return label
