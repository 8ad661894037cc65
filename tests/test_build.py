"""Part I, "Build it": the frame of its pages, what is folded on them, and the pieces that they share."""

import re

import jupytext
import pytest

from conftest import REPOSITORY

PAGES = sorted((REPOSITORY / "notebooks" / "build").glob("*.py"))
FOLDED = 10  # lines of plumbing on a page, besides the set-up and the pieces of earlier pages


def cells(path):
    return jupytext.read(path).cells


def folded(cell):
    return bool({"hide-input", "hide-cell", "remove-cell", "remove-input"} & set(cell.metadata.get("tags", [])))


def test_there_are_twelve_pages():
    assert len(PAGES) == 12


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_has_its_frame(path):
    text = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    box = re.search(r"```\{admonition\} On this page\n:class: on-this-page\n(.+?)```", text, re.DOTALL)
    assert box, "no box under the title"
    for line in ("**After this page you can**", "**You need**", "**Time**"):
        assert line in box[1], line
    opening = text[: box.start()]
    assert re.match(r"# [^\n]+\n\n[^\n][^#]*\?[^#]*\n\n$", opening), "the title, and one question before the box"
    places = [text.find(mark) for mark in ("\n## Recap", "\n## Exercises", "**Next**", "**Read**")]
    assert -1 not in places and places == sorted(places), "Recap, Exercises, Next, Read, in this order"
    assert 2 <= text[places[0] : places[1]].count("\n- ") <= 4
    assert 2 <= len(re.findall(r"\{exercise(?:-start)?\}", text)) <= 4


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_code_that_teaches_stands_open(path):
    """A cell has at most 15 lines, a piece may have more; and little but plumbing is folded."""
    plumbing = 0
    for number, cell in enumerate(c for c in cells(path) if c.cell_type == "code"):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        tags = set(cell.metadata.get("tags", []))
        if number < 2 or "pieces" in tags or "check" in tags or "def check_" in cell.source:
            continue
        if folded(cell):
            plumbing += len(lines)
        elif "piece" not in tags and path.stem != "whole":
            assert len(lines) <= 15, lines[0]
    assert plumbing <= FOLDED


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_a_page_shows_that_its_pieces_are_the_librarys(path):
    source = "\n".join(c.source for c in cells(path) if c.cell_type == "code" and not folded(c))
    assert path.stem == "whole" or "assert " in source
