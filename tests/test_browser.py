"""What readers can touch, in a real browser (Debian's Chromium, or the one named by CMRSEG_CHROMIUM).

What makes each test fail (each was seen to fail), in book/assets/explorers.js unless said otherwise:

- Dice: ``2 * both`` -> ``both``; ``Math.hypot(SIDE, SIDE)`` -> ``0``; ``0.95`` -> ``0.9``; drop the third
  neighbour in border()
- run-length codes: ``runs.push(i + 1, 1)`` -> ``runs.push(i, 1)``; ``% GRID`` and ``/ GRID`` swapped where a
  cell gets its row and column; each of the four complaints of decode() dropped
- keyboard: drop ``cells[n + step]?.focus()``
- votes: in book.js, drop ``localStorage.setItem``
- paper: in book.css, drop ``.bd-sidebar-primary``, ``details.hide:not([open])`` or the line of a.external
"""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import REPOSITORY

from cmrseg import metrics, rle

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = os.environ.get("CMRSEG_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ASSETS = REPOSITORY / "book" / "assets"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium here: install Debian's chromium, or set CMRSEG_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield found
        found.close()


@pytest.fixture
def page(browser, tmp_path):
    """Open a page that has nothing but this body and the book's own scripts; no error may be logged."""
    opened, errors = browser.new_page(), []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)

    def show(body):
        scripts = "".join(f'<script src="{(ASSETS / name).as_uri()}"></script>' for name in
                          ("book.js", "explorers.js"))
        path = tmp_path / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8><body>{body}{scripts}</body>")
        opened.goto(path.as_uri())
        return opened

    yield show
    opened.close()
    assert errors == []


def explorer(kind):
    return f'<div class="explorer" data-explorer="{kind}">In words.</div>'


def disc(column, row, radius):
    y, x = np.mgrid[:96, :96]
    return ((x - column) ** 2 + (y - row) ** 2 < radius**2).astype(np.uint8)[None]


def test_the_dice_explorer_measures_as_the_package_does(page):
    opened = page(explorer("dice"))
    rng = np.random.default_rng(0)
    settings = [(6, 0, 20, 20), (0, 0, 0, 20), (30, -30, 20, 0), *rng.integers((-40, -40, 1, 1), 40, (12, 4))]
    for x, y, seen, truth in settings:
        for place, value in enumerate((x, y, seen, truth)):
            opened.locator("input").nth(place).fill(str(value))
        found = json.loads(opened.locator(".explorer").get_attribute("data-measures"))
        a, b = disc(47.5, 47.5, truth), disc(47.5 + x, 47.5 + y, seen)
        assert found["dice"] == pytest.approx(metrics.dice(b, a, classes=(1,))[0, 0])
        assert found["iou"] == pytest.approx((a & b).sum() / (a | b).sum())
        assert found["hd95"] == pytest.approx(metrics.hd95(b, a, classes=(1,))[0, 0])
        assert f"{found['dice']:.3f}" in opened.locator(".explorer-says").inner_text()
    for place in (2, 3):
        opened.locator("input").nth(place).fill("0")
    assert "0/0" in opened.locator(".explorer-says").inner_text()


def pressed(opened):
    """The mask that the board shows, from where its cells lie."""
    mask = np.zeros((8, 8), np.uint8)
    for cell in opened.locator(".explorer-board button").all():
        row, column = (int(cell.evaluate(f"e => e.style.{side}").split()[0]) - 1 for side in
                       ("gridRow", "gridColumn"))
        mask[row, column] = cell.get_attribute("aria-pressed") == "true"
    return mask


def test_a_code_that_is_typed_becomes_its_mask_and_a_painted_mask_its_code(page):
    opened = page(explorer("rle"))
    field = opened.locator("input")
    assert field.input_value() == rle.encode(pressed(opened))
    mask = (np.random.default_rng(0).random((8, 8)) < 0.4).astype(np.uint8)
    field.fill(rle.encode(mask))
    np.testing.assert_array_equal(pressed(opened), mask)
    opened.get_by_label("row 3, column 5, pixel 35").click()
    mask[2, 4] = 1 - mask[2, 4]
    np.testing.assert_array_equal(pressed(opened), mask)
    assert field.input_value() == rle.encode(mask)
    field.fill("")
    assert pressed(opened).sum() == 0


@pytest.mark.parametrize(("code", "says"), [
    ("1", "pairs"), ("1 x", "whole numbers"), ("0 3", "whole numbers"), ("63 3", "leaves the picture"),
    ("5 3 7 1", "in two runs"),
])
def test_a_code_that_is_none_is_told_why_and_changes_nothing(page, code, says):
    opened = page(explorer("rle"))
    before = pressed(opened)
    opened.locator("input").fill(code)
    assert says in opened.locator(".explorer-says").inner_text()
    assert opened.locator("input").get_attribute("aria-invalid") == "true"
    np.testing.assert_array_equal(pressed(opened), before)


def test_the_board_is_painted_from_the_keyboard(page):
    opened = page(explorer("rle"))
    opened.locator("input").fill("")
    opened.locator(".explorer-board button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowUp", "Space", "ArrowLeft", "ArrowLeft"):
        opened.keyboard.press(key)
    assert opened.locator("input").input_value() == "10 1"


def test_a_vote_is_kept_in_the_browser_and_met_again(page):
    cards = '<div class="votes"><div class="sd-card">One.</div><div class="sd-card">Two.</div></div>'
    verdicts = json.dumps({"1": ["One.", "confirmed"], "2": ["Two.", "contradicted"]})
    board = f"<ul id='your-votes' hidden data-verdicts='{verdicts}'></ul>"
    opened = page(cards + board)
    assert not opened.locator("#your-votes").is_visible()
    opened.get_by_role("button", name="I would not").nth(1).click()
    opened.reload()
    assert opened.get_by_role("button", name="I would not").nth(1).get_attribute("aria-pressed") == "true"
    (line,) = opened.locator("#your-votes li").all()
    assert line.inner_text() == "Two. You would not have bet on it; verdict: contradicted."


def test_on_paper_stand_the_text_and_where_its_links_lead(page):
    style = f'<link rel="stylesheet" href="{(ASSETS / "book.css").as_uri()}">'
    text = '<p id="text">Text <a class="external" href="https://example.org/paper">link</a>.</p>'
    folded = '<details class="hide"><summary>Show the code</summary>code</details>'
    aside = '<div class="bd-sidebar-primary">aside</div>'
    opened = page(f'{style}{aside}<main class="bd-article">{text}{folded}</main>')
    for media, seen in (("screen", True), ("print", False)):
        opened.emulate_media(media=media)
        assert opened.locator("#text").is_visible()
        assert opened.locator(".bd-sidebar-primary").is_visible() is seen
        assert opened.locator("details.hide").is_visible() is seen
        after = opened.locator("a").evaluate("a => getComputedStyle(a, '::after').content")
        assert ("https://example.org/paper" in after) is not seen
