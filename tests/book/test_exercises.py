"""Exercises in which a reader writes a function: the check says what is wrong, the solution is right."""

import re

import jupytext
import numpy as np
import pytest
from conftest import REPOSITORY
from scipy import stats

from cmrseg import rle
from cmrtrial.statistics import verdict


def of(page):
    """The check of a page's exercise, the names it has, and the starter and the solution it is given."""
    notebook = jupytext.read(REPOSITORY / "notebooks" / f"{page}.py")
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (place,) = [i for i, source in enumerate(cells) if re.search(r"^def check_", source, re.M)]
    names = {"np": np, "rle": rle, "stats": stats, "verdict": verdict}
    exec(cells[place], names)
    answers = []
    for source in cells[place + 1 : place + 3]:
        exec(source, names)
        answers.append(names[re.search(r"^def (my_\w+)", source, re.M)[1]])
    return names[re.search(r"def (check_\w+)", cells[place])[1]], *answers


@pytest.mark.parametrize(
    "page",
    [
        "basics/dice",
        "basics/looking",
        "basics/patients",
        "statistics/paired",
        "statistics/verdicts",
    ],
)
def test_the_starter_is_not_yet_right_and_the_solution_is(page, capsys):
    check, starter, solution = of(page)
    assert (check(starter), check(solution)) == ("it returns nothing yet", "right")


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (lambda a, b: (a & b).sum() / (a | b).sum(), "intersection over union"),
        (lambda a, b: (a & b).sum() / (a.sum() + b.sum()), "counts twice"),
        (lambda a, b: (a & b).sum() / a.sum(), "first mask"),
        (lambda a, b: (a & b).sum() / b.sum(), "second mask"),
        (lambda a, b: (a == b).mean(), "accuracy"),
        (lambda a, b: 7, "it says 7"),
        (lambda a, b: 2 * (a & b).sum() / max(1, a.sum() + b.sum()), "empty masks"),
    ],
)
def test_the_check_of_dice_says_what_is_wrong(mine, says):
    assert says in of("basics/dice")[0](mine)


def code(mask, start=1, order="F", length=lambda first, past: past - first):
    flat = np.concatenate([[0], np.asarray(mask).ravel(order), [0]])
    first, past = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    return " ".join(f"{a + start} {length(a, b)}" for a, b in zip(first, past))


def open_ended(mask):
    """Forgets the run that reaches the last pixel."""
    return code(mask) if not mask.ravel(order="F")[-1] else " ".join(code(mask).split()[:-2])


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (lambda m: code(m, start=0), "from 0"),
        (lambda m: code(m, order="C"), "along the rows"),
        (lambda m: code(m, length=lambda a, b: b), "last pixel"),
        (lambda m: code(m, length=lambda a, b: b + 1), "after a run"),
        (lambda m: code(m) or "0 0", "an empty mask it says '0 0'"),
        (open_ended, "a full one it says ''"),
        (lambda m: "1 1", "the board it says '1 1'"),
    ],
)
def test_the_check_of_the_run_length_code_says_what_is_wrong(mine, says):
    assert says in of("basics/looking")[0](mine)


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (lambda p: np.arange(len(p)) % 5, "in two folds"),
        (lambda p: np.random.default_rng().integers(0, 5, 61)[p], "otherwise"),
        (lambda p: p % 6, "from 0 to 4"),
        (lambda p: np.unique(p) % 5, "each of the 120 slices"),
        (lambda p: np.minimum(p % 8, 4), "differ in size"),
    ],
)
def test_the_check_of_folds_says_what_is_wrong(mine, says):
    assert says in of("basics/patients")[0](mine)


def interval(differences, factor=2.2009852, ddof=1, over=lambda n: n**0.5):
    half = factor * differences.std(ddof=ddof) / over(len(differences))
    return differences.mean() - half, differences.mean() + half


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (lambda d: interval(d, over=lambda n: 1), "their mean scatters less"),
        (lambda d: interval(d, over=lambda n: n), "root of the number"),
        (lambda d: interval(d, factor=1.96), "Student's t"),
        (lambda d: interval(d, ddof=0), "ddof=1"),
        (lambda d: interval(d, factor=1), "one standard error"),
        (lambda d: interval(d, factor=3), "it should reach"),
        (lambda d: interval(d)[::-1], "lower one first"),
        (lambda d: d.mean(), "two numbers"),
        (lambda d: interval(d - d.mean()), "its middle"),
    ],
)
def test_the_check_of_an_interval_says_what_is_wrong(mine, says):
    assert says in of("statistics/paired")[0](mine)


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (
            lambda low, high: "confirmed" if low + high > 0 else "contradicted",
            "nothing in it matters",
        ),
        (lambda low, high: "confirmed" if low > 0.02 else "inconclusive", "however little"),
        (
            lambda low, high: verdict((low, high), "greater").replace("equivalent", "inconclusive"),
            "nothing in it matters",
        ),
        (
            lambda low, high: (
                verdict((low, high), "greater") if high <= 0.02 or low > 0 else "confirmed"
            ),
            "much else",
        ),
        (lambda low, high: verdict((low, high), "less"), "is confirmed, not contradicted"),
    ],
)
def test_the_check_of_a_judge_says_what_is_wrong(mine, says):
    assert says in of("statistics/verdicts")[0](mine)
