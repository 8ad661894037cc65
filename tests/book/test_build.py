"""Part I, "Build it": the frame of its pages, what is folded on them, and the pieces that they share."""

import ast
import re

import jupytext
import pytest
from conftest import REPOSITORY

PAGES = sorted((REPOSITORY / "notebooks" / "build").glob("*.py"))
FOLDED = 10  # lines of plumbing on a page, besides the set-up and the pieces of earlier pages
HIDDEN = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)


def cells(path, kind="code"):
    """Source and tags of the cells of a kind."""
    found = [c for c in jupytext.read(path).cells if c.cell_type == kind]
    return [(cell.source, set(cell.metadata.get("tags", []))) for cell in found]


@every_page
def test_a_page_has_its_frame(path):
    """A title, one question, a box that says what for; and at its end Recap, Exercises, Next, Read."""
    text = "\n".join(source for source, _ in cells(path, "markdown"))
    box = re.search(r"```\{admonition\} On this page\n:class: on-this-page\n(.+?)```", text, re.S)
    for line in ("**After this page you can**", "**You need**", "**Time**"):
        assert line in box[1], line
    assert re.match(r"# [^\n]+\n\n[^\n][^#]*\?[^#]*\n\n$", text[: box.start()])
    places = [text.find(mark) for mark in ("\n## Recap", "\n## Exercises", "**Next**", "**Read**")]
    assert -1 not in places and places == sorted(places)
    assert 2 <= text[places[0] : places[1]].count("\n- ") <= 4
    assert 2 <= len(re.findall(r"\{exercise(?:-start)?\}", text)) <= 4


@every_page
def test_code_that_teaches_stands_open(path):
    """A cell has at most 15 lines, a piece may have more; and little but plumbing is folded."""
    plumbing = 0
    for source, tags in cells(path)[2:]:
        # one for each statement, however it is wrapped
        lines = [line for line in ast.unparse(ast.parse(source)).splitlines() if line.strip()]
        if tags & {"pieces", "check"} or "def check_" in source:
            continue
        if tags & HIDDEN:
            plumbing += len(lines)
        elif "piece" not in tags and path.stem != "whole":
            assert len(lines) <= 15, lines[0]
    assert plumbing <= FOLDED


# What each page compares with PyTorch, NumPy or cmrseg: words of one assert, or of one call of ``same``.
EQUAL = """
arrays_and_tensors: looped ~ broadcast; ours ~ augment.normalise(images)
backpropagation: leaf.grad ~ mine; he ~ theirs; default ~ theirs
batches_and_the_loop: learn[n][0] ~ theirs[n]; x, images ~ y, labels; first ~ torch.randperm
batches_and_the_loop: ours ~ cmrsegs; rates ~ schedule('one-cycle', d)
convolution: slide(patch, kernel) ~ theirs; ours ~ layer(x); by_hand ~ head(maps)
convolution: framed ~ F.conv2d(ones, nine, padding=1)
down_and_up: every_other ~ theirs; amax ~ F.max_pool2d(x, 2); mean ~ F.avg_pool2d(x, 2)
down_and_up: ours ~ theirs
one_weight: ours ~ theirs; t.grad ~ slope_at
optimisers_and_batch_norm: descent( ~ torch.optim.SGD; momentum( ~ SGD(momentum=0.9)
optimisers_and_batch_norm: adam( ~ torch.optim.Adam; adamw( ~ torch.optim.AdamW
optimisers_and_batch_norm: training output ~ theirs; evaluation output ~ norm(batch)
optimisers_and_batch_norm: normalise(batch ~ F.instance_norm; group ~ F.group_norm
pixels_and_a_first_dice: read_png(path) ~ data.read_png(path); ours ~ package
pixels_and_a_first_dice: to_beat ~ metrics.dice
predict_and_submit: scores ~ in_memory; run_lengths ~ rle.encode; again[name] ~ mask
the_loss: one_hot(y) ~ library; softmax(random) ~ random.softmax
the_loss: cross_entropy(random, y) ~ F.cross_entropy; ours(random, y) ~ library(random, y)
the_loss: report_loss ~ losses.report_bce
the_unet: by_hand ~ torchs; ours(few) ~ theirs(few)
whole: torch.equal( ~ a, b
"""


def compares(statement):
    """Whether a statement is an assert, or a call of ``same``."""
    call = getattr(statement, "value", None)
    same = isinstance(call, ast.Call) and getattr(call.func, "id", "") == "same"
    return same or isinstance(statement, ast.Assert)


@every_page
def test_a_page_shows_that_its_pieces_are_the_librarys(path):
    """Each piece of the table stands beside its counterpart in one comparison that the reader sees."""
    trees = [ast.walk(ast.parse(source)) for source, tags in cells(path) if not tags & HIDDEN]
    compared = [ast.unparse(node) for tree in trees for node in tree if compares(node)]
    lines = re.findall(rf"^{path.stem}: (.+)$", EQUAL, re.M)
    assert lines
    for pair in "; ".join(lines).split("; "):
        assert any(all(word in line for word in pair.split(" ~ ")) for line in compared), pair
