"""Exercises in which a reader writes a function: the check says what is wrong, the solution is right."""

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
from scipy import ndimage, stats
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from cmrseg import rle
from cmrtrial.statistics import verdict

NOTEBOOKS = REPOSITORY / "notebooks"
PAGES = sorted(p for p in NOTEBOOKS.rglob("*.py") if "def check_" in p.read_text(encoding="utf-8"))
PAGES = [str(p.relative_to(NOTEBOOKS).with_suffix("")) for p in PAGES]
KNOWN = {"np": np, "torch": torch, "F": F, "nn": nn, "cv2": cv2, "math": math, "csv": csv}
KNOWN |= {"rle": rle, "stats": stats, "verdict": verdict, "Path": pathlib.Path}
KNOWN |= {"Dataset": Dataset, "DataLoader": DataLoader, "Sampler": Sampler}
KNOWN["CLASSES"] = ("background", "RV", "Myo", "LV")


def exercises(page):
    """A page's names when its checks are defined, and check -> its starter and its solution: name and source."""
    names, checks = dict(KNOWN), {}
    for cell in jupytext.read(NOTEBOOKS / f"{page}.py").cells:
        if cell.cell_type != "code":
            continue
        if {"pieces", "piece"} & {*cell.metadata.get("tags", [])} or "def check_" in cell.source:
            exec(cell.source, names)
        if call := re.search(r"^.*\b(check_\w+)\((my_\w+)\).*$", cell.source, re.M):
            checks.setdefault(call[1], []).append((call[2], cell.source[: call.start()]))
    return names, checks


@pytest.mark.parametrize("page", PAGES)
def test_the_starter_is_not_yet_right_the_solution_is_and_a_check_survives_any_answer(page):
    """Checks outside of part I let a reader's error through, as a cell does."""
    names, checks = exercises(page)
    answers = [lambda *_: 1 / 0, lambda *_: None, lambda *_: "text", lambda *_: float("nan")]
    for check, functions in checks.items():
        for mine in (*answers, lambda *_: np.zeros(1), lambda: 3) if "build" in page else ():
            assert str(names[check](mine)) != "right"
        for (function, source), feedback in zip(functions, ("it returns nothing yet", "right")):
            exec(source, names)
            assert str(names[check](names[function])) == feedback, (check, feedback)
    assert checks


# --- wrong answers, and what is said of them -----------------------------------------------------


def code(mask, start=1, order="F", length=lambda first, past: past - first):
    flat = np.concatenate([[0], np.asarray(mask).ravel(order), [0]])
    first, past = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    return " ".join(f"{a + start} {length(a, b)}" for a, b in zip(first, past))


def open_ended(mask):
    """Forgets the run that reaches the last pixel."""
    return code(mask) if not mask.ravel(order="F")[-1] else " ".join(code(mask).split()[:-2])


def interval(differences, factor=2.2009852, ddof=1, over=lambda n: n**0.5):
    half = factor * differences.std(ddof=ddof) / over(len(differences))
    return differences.mean() - half, differences.mean() + half


def step(zero="first", divide=None, steps="end", returns="mean"):
    """An answer to the exercise on accumulated gradients, right by default."""

    def mine(model, optimiser, loss_of, batches):
        losses = []
        for n, (x, y) in enumerate(batches):
            if zero == "each" or (zero == "first" and n == 0):
                optimiser.zero_grad()
            loss = loss_of(model(x), y)
            (loss / (divide or len(batches))).backward()
            losses.append(loss.item())
            if steps == "each" or (steps == "end" and n == len(batches) - 1):
                optimiser.step()
        return {"mean": np.mean(losses), "sum": sum(losses), "last": losses[-1]}.get(returns)

    return mine


def only_the_first(model, optimiser, loss_of, batches):
    return step(divide=1)(model, optimiser, loss_of, batches[:1])


def one_large_batch(model, optimiser, loss_of, batches):
    x, y = (torch.cat(part) for part in zip(*batches))
    loss = loss_of(model(x), y)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss


def painted(code, shape, first=1, longer=0, end=False, order="F", keep=slice(None)):
    flat = np.zeros(shape[0] * shape[1] + 9, bool)
    numbers = [int(word) for word in code.split()]
    for start, number in list(zip(numbers[::2], numbers[1::2]))[keep]:
        flat[start - first : number if end else start - first + number + longer] = True
    return flat[: shape[0] * shape[1]].reshape(shape, order=order)


def largest(mask, connectivity=8, classes=(1, 2, 3), pick=lambda sizes: 1 + np.argmax(sizes[1:])):
    kept, options = np.zeros_like(mask), {"connectivity": connectivity}
    for c in classes:
        one = (mask == c).astype(np.uint8)
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(one, **options)
        if count > 1:
            kept[(pieces == pick(stats[:, 4])) & (mask == c)] = c
    return kept


def largest_or_error(mask):
    if not (mask == 3).any():
        raise ValueError("attempt to get argmax of an empty sequence")
    return largest(mask)


def scipys(mask):
    kept = np.zeros(mask.shape, int)
    for c in np.unique(mask)[1:]:
        pieces, _ = ndimage.label(mask == c)
        kept[pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])] = c
    return kept


def halves(low, high):
    return verdict((low, high), "greater")


SKIPS = [(4, 48, 48), (8, 24, 24), (16, 12, 12)]  # of channels 4, 8, 16, 32 and 48 pixels
ANSWERS = {  # page and check: answers, and what is said of them
    "basics/dice check_dice": [
        (lambda a, b: (a & b).sum() / (a | b).sum(), "intersection over union"),
        (lambda a, b: (a & b).sum() / (a.sum() + b.sum()), "counts twice"),
        (lambda a, b: (a & b).sum() / a.sum(), "first mask"),
        (lambda a, b: (a == b).mean(), "accuracy"),
        (lambda a, b: 7, "it says 7"),
        (lambda a, b: 2 * (a & b).sum() / max(1, a.sum() + b.sum()), "empty masks"),
    ],
    "basics/looking check_code": [
        (lambda m: code(m, start=0), "from 0"),
        (lambda m: code(m, order="C"), "along the rows"),
        (lambda m: code(m, length=lambda a, b: b), "last pixel"),
        (lambda m: code(m, length=lambda a, b: b + 1), "after a run"),
        (lambda m: code(m) or "0 0", "an empty mask it says '0 0'"),
        (open_ended, "a full one it says ''"),
    ],
    "basics/patients check_folds": [
        (lambda p: np.arange(len(p)) % 5, "in two folds"),
        (lambda p: np.random.default_rng().integers(0, 5, 61)[p], "otherwise"),
        (lambda p: p % 6, "from 0 to 4"),
        (lambda p: np.unique(p) % 5, "each of the 120 slices"),
        (lambda p: np.minimum(p % 8, 4), "differ in size"),
    ],
    "statistics/paired check_interval": [
        (lambda d: interval(d, over=lambda n: 1), "their mean scatters less"),
        (lambda d: interval(d, over=lambda n: n), "root of the number"),
        (lambda d: interval(d, factor=1.96), "Student's t"),
        (lambda d: interval(d, ddof=0), "ddof=1"),
        (lambda d: interval(d)[::-1], "lower one first"),
        (lambda d: d.mean(), "two numbers"),
        (lambda d: interval(d - d.mean()), "its middle"),
    ],
    "statistics/verdicts check_judge": [
        (lambda low, high: "confirmed" if low + high > 0 else "contradicted", "in it matters"),
        (lambda low, high: "confirmed" if low > 0.02 else "inconclusive", "however little"),
        (lambda *ends: halves(*ends).replace("equivalent", "inconclusive"), "in it matters"),
        (lambda low, high: verdict((low, high), "less"), "is confirmed, not contradicted"),
    ],
    "build/batches_and_the_loop check_step": [
        (step(), "right"),
        (one_large_batch, "right"),
        (step(divide=1), "the sum of the gradients"),
        (step(zero="never"), "earlier step are still in it"),
        (step(zero="each"), "only the last batch"),
        (step(steps="each"), "a step for each batch"),
        (step(steps="each", zero="never"), "a step for each"),
        (step(steps="never"), "hasn't moved"),
        (only_the_first, "only the first batch"),
        (step(divide=3), "wrong with two batches"),
        (step(divide=4), "isn't always 4"),
        (step(returns="sum"), "the sum of the losses"),
        (step(returns="last"), "the last loss"),
        (step(returns="none"), "now return"),
        (lambda m, o, f, b: (o.step(), 1.0)[1], "where is backward"),
        (lambda *a: 1 / 0, "raises ZeroDivisionError"),
        (lambda *a: "five", "raises TypeError"),
    ],
    "build/predict_and_submit check_decode": [
        (painted, "right"),
        (lambda c, s: painted(c, s).tolist(), "right"),
        (lambda c, s: torch.from_numpy(painted(c, s).copy()), "right"),
        (lambda c, s: painted(c, s, order="C"), "down the columns"),
        (lambda c, s: painted(c, s, first=2), "not at 2"),
        (lambda c, s: painted(c, s, first=0, order="C"), "subtract 1 from each start; and"),
        (lambda c, s: painted(c, s, end=True), "is a length"),
        (lambda c, s: painted(c, s, longer=1), "too long"),
        (lambda c, s: painted(c, s, longer=-1), "too short"),
        (lambda c, s: painted(c, s).T, "height comes first"),
        (lambda c, s: painted(c, s, keep=slice(-1)), "last run is missing"),
        (lambda c, s: ~painted(c, s), "changed places"),
        (lambda c, s: painted(c, s, keep=slice(-1, None)), "only the last run"),
        (lambda c, s: painted(c, s).ravel(), "reshape it"),
        (lambda c, s: painted(c, s) * 255, "not just 0 and 1"),
        (lambda c, s: painted(c or "1 1", s), "of an empty code"),
    ],
    "build/whole check_largest": [
        (lambda m: largest(m, 4), "right"),
        (scipys, "right"),
        (lambda m: m, "nothing has been removed"),
        (lambda m: m * (largest((m > 0).astype(np.uint8)) > 0), "all classes together"),
        (lambda m: largest(m, pick=lambda sizes: 1 + np.argmin(sizes[1:])), "the smallest"),
        (lambda m: largest(m, pick=lambda sizes: 1), "the first piece"),
        (lambda m: m - largest(m), "removes the largest"),
        (lambda m: largest(m, pick=np.argmax), "piece 0"),
        (lambda m: (largest(m) > 0) * 1, "labels are lost"),
        (lambda m: largest(m, classes=(1, 2)), "pixels are wrong"),
        (largest_or_error, "of a mask without LV it raises"),
    ],
    "build/the_unet check_shapes": [
        (lambda channels, side: [*SKIPS, (32, 6, 6)], "not across"),
        (lambda channels, side: [(c, s // 2, s // 2) for c, s, _ in SKIPS], "before the pooling"),
        (lambda channels, side: SKIPS[::-1], "finest comes first"),
        (lambda channels, side: [(s, s, c) for c, s, _ in SKIPS], "channels come first"),
        (lambda channels, side: [(2 * c, s, s) for c, s, _ in SKIPS], "by joining"),
    ],
    "build/arrays_and_tensors check_apart": [(lambda a, b: np.abs(a - b), "246")],
    "build/arrays_and_tensors check_quarters": [(lambda x: x.reshape(4, 2, 3), "tears the rows")],
    "build/optimisers_and_batch_norm check_fold": [
        (lambda conv, norm: (conv.weight, conv.bias), "isn't scaled")
    ],
}


@pytest.mark.parametrize("place", ANSWERS)
def test_a_check_says_what_is_wrong(place):
    page, check = place.split()
    names, _ = exercises(page)
    for mine, expected in ANSWERS[place]:
        feedback = str(names[check](mine))
        assert feedback == expected if expected == "right" else expected in feedback
