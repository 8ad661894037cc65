"""Part I, "Build it": the frame of its pages, what is folded on them, and the pieces that they share."""

import ast
import csv
import math
import pathlib
import re

import cv2
import jupytext
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

PAGES = sorted((REPOSITORY / "notebooks" / "build").glob("*.py"))
FOLDED = 10  # lines of plumbing on a page, besides the set-up and the pieces of earlier pages


def cells(path):
    return jupytext.read(path).cells


def folded(cell):
    return bool(
        {"hide-input", "hide-cell", "remove-cell", "remove-input"}
        & set(cell.metadata.get("tags", []))
    )


def test_there_are_twelve_pages():
    assert len(PAGES) == 12


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_has_its_frame(path):
    text = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    box = re.search(
        r"```\{admonition\} On this page\n:class: on-this-page\n(.+?)```", text, re.DOTALL
    )
    assert box, "no box under the title"
    for line in ("**After this page you can**", "**You need**", "**Time**"):
        assert line in box[1], line
    opening = text[: box.start()]
    assert re.match(r"# [^\n]+\n\n[^\n][^#]*\?[^#]*\n\n$", opening), (
        "the title, and one question before the box"
    )
    places = [text.find(mark) for mark in ("\n## Recap", "\n## Exercises", "**Next**", "**Read**")]
    assert -1 not in places and places == sorted(places), (
        "Recap, Exercises, Next, Read, in this order"
    )
    assert 2 <= text[places[0] : places[1]].count("\n- ") <= 4
    assert 2 <= len(re.findall(r"\{exercise(?:-start)?\}", text)) <= 4


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_code_that_teaches_stands_open(path):
    """A cell has at most 15 lines, a piece may have more; and little but plumbing is folded."""
    plumbing = 0
    for number, cell in enumerate(c for c in cells(path) if c.cell_type == "code"):
        lines = ast.unparse(
            ast.parse(cell.source)
        ).splitlines()  # one for each statement, however it is wrapped
        lines = [line for line in lines if line.strip()]
        tags = set(cell.metadata.get("tags", []))
        if number < 2 or "pieces" in tags or "check" in tags or "def check_" in cell.source:
            continue
        if folded(cell):
            plumbing += len(lines)
        elif "piece" not in tags and path.stem != "whole":
            assert len(lines) <= 15, lines[0]
    assert plumbing <= FOLDED


# What each page compares with PyTorch, NumPy or cmrseg: words of one assert, or of one call of ``same``.
EQUAL = {
    "arrays_and_tensors": [("looped", "broadcast"), ("ours", "augment.normalise(images)")],
    "backpropagation": [("leaf.grad", "mine"), ("he", "theirs"), ("default", "theirs")],
    "batches_and_the_loop": [
        ("learn[n][0]", "theirs[n]"),
        ("x, images", "y, labels"),
        ("first", "torch.randperm"),
        ("ours", "cmrsegs"),
        ("rates", "schedule('one-cycle', d)"),
    ],
    "convolution": [
        ("slide(patch, kernel)", "theirs"),
        ("ours", "layer(x)"),
        ("framed", "F.conv2d(ones, nine, padding=1)"),
        ("by_hand", "head(maps)"),
    ],
    "down_and_up": [
        ("every_other", "theirs"),
        ("amax", "F.max_pool2d(x, 2)"),
        ("mean", "F.avg_pool2d(x, 2)"),
        ("ours", "theirs"),
    ],
    "one_weight": [("ours", "theirs"), ("t.grad", "slope_at")],
    "optimisers_and_batch_norm": [
        ("descent(", "torch.optim.SGD"),
        ("momentum(", "SGD(momentum=0.9)"),
        ("adam(", "torch.optim.Adam"),
        ("adamw(", "torch.optim.AdamW"),
        ("training output", "theirs"),
        ("evaluation output", "norm(batch)"),
        ("normalise(batch", "F.instance_norm"),
        ("group", "F.group_norm"),
    ],
    "pixels_and_a_first_dice": [
        ("read_png(path)", "data.read_png(path)"),
        ("ours", "package"),
        ("to_beat", "metrics.dice"),
    ],
    "predict_and_submit": [
        ("scores", "in_memory"),
        ("run_lengths", "rle.encode"),
        ("again[name]", "mask"),
    ],
    "the_loss": [
        ("one_hot(y)", "library"),
        ("softmax(random)", "random.softmax"),
        ("cross_entropy(random, y)", "F.cross_entropy"),
        ("report_loss", "losses.report_bce"),
        ("ours(random, y)", "library(random, y)"),
    ],
    "the_unet": [("by_hand", "torchs"), ("ours(few)", "theirs(few)")],
    "whole": [("torch.equal(a, b)",)],
}


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_shows_that_its_pieces_are_the_librarys(path):
    """Each piece of the table stands beside its counterpart in one comparison that the reader sees."""
    open_code = [c.source for c in cells(path) if c.cell_type == "code" and not folded(c)]
    compared = [
        ast.unparse(statement)
        for source in open_code
        for statement in ast.walk(ast.parse(source))
        if isinstance(statement, ast.Assert) or is_call_of(statement, "same")
    ]
    assert EQUAL[path.stem]
    for words in EQUAL[path.stem]:
        assert any(all(word in line for word in words) for line in compared), words


def is_call_of(statement, name):
    """Whether this statement is a call of a function of this name."""
    call = getattr(statement, "value", None)
    return isinstance(call, ast.Call) and getattr(call.func, "id", "") == name


def test_at_least_eighteen_pieces_are_compared():
    assert EQUAL.keys() == {path.stem for path in PAGES}
    assert sum(map(len, EQUAL.values())) >= 18


# --- exercises ---------------------------------------------------------------------------------------------


def exercises(path):
    """The page's names after its checks were defined, and for each checked exercise the sources of its starter and its
    solution: check -> (starter, solution)."""
    names = {
        "np": np,
        "torch": torch,
        "F": F,
        "nn": nn,
        "cv2": cv2,
        "math": math,
        "csv": csv,
        "Path": pathlib.Path,
        "Dataset": Dataset,
        "DataLoader": DataLoader,
        "Sampler": Sampler,
        "CLASSES": ("background", "RV", "Myo", "LV"),
    }
    found = {}
    for cell in (c for c in cells(path) if c.cell_type == "code"):
        if (
            "pieces" in cell.metadata.get("tags", [])
            or "piece" in cell.metadata.get("tags", [])
            or "def check_" in cell.source
        ):
            exec(cell.source, names)
        if call := re.search(r"^.*\b(check_\w+)\((my_\w+)\).*$", cell.source, re.M):
            found.setdefault(call[1], []).append((call[2], cell.source[: call.start()]))
    return names, found


def said(names, check, mine):
    return str(names[check](mine))


@pytest.mark.parametrize(
    "path", [p for p in PAGES if "def check_" in p.read_text()], ids=lambda p: p.stem
)
def test_the_starter_is_not_yet_right_and_the_solution_is(path):
    names, found = exercises(path)
    assert found
    for check, (starter, solution) in found.items():
        for (function, source), expected in (
            (starter, "it returns nothing yet"),
            (solution, "right"),
        ):
            exec(source, names)
            assert said(names, check, names[function]) == expected, (check, expected)


@pytest.mark.parametrize(
    "path", [p for p in PAGES if "def check_" in p.read_text()], ids=lambda p: p.stem
)
def test_a_check_survives_any_answer(path):
    names, found = exercises(path)

    def stumbles(*_, **__):
        raise ZeroDivisionError("mine")

    for check in found:
        for mine in (
            stumbles,
            lambda *_: None,
            lambda *_: "text",
            lambda *_: float("nan"),
            lambda *_: np.zeros(1),
            lambda: 3,
        ):
            assert said(names, check, mine) != "right"


SKIPS = [(4, 48, 48), (8, 24, 24), (16, 12, 12)]  # of channels 4, 8, 16, 32 and 48 pixels
TOLD = [
    *[
        ("the_unet", "check_shapes", lambda channels, side, answer=answer: answer, words)
        for answer, words in (
            ([*SKIPS, (32, 6, 6)], "not across"),
            ([(c, s // 2, s // 2) for c, s, _ in SKIPS], "before the pooling"),
            (SKIPS[::-1], "finest comes first"),
            ([(s, s, c) for c, s, _ in SKIPS], "channels come first"),
            ([(2 * c, s, s) for c, s, _ in SKIPS], "by joining"),
            ([(4, 48, 48)], "it says"),
        )
    ],
    ("arrays_and_tensors", "check_apart", lambda a, b: np.abs(a - b), "246"),
    ("arrays_and_tensors", "check_quarters", lambda x: x.reshape(4, 2, 3), "tears the rows"),
    ("optimisers_and_batch_norm", "check_fold", lambda c, n: (c.weight, c.bias), "isn't scaled"),
]


@pytest.mark.parametrize(
    ("page", "check", "mine", "words"), TOLD, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_check_says_what_is_wrong(page, check, mine, words):
    names, _ = exercises(REPOSITORY / "notebooks" / "build" / f"{page}.py")
    assert words in said(names, check, mine)
