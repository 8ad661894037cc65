"""Calibration: does a network know when it is wrong? What can be said of a mask without the truth?

Probabilities are float arrays (N, 4, H, W) that sum to 1 over the classes, label maps are integer
arrays (N, H, W).
"""

from itertools import combinations

import numpy as np
from scipy import ndimage

from cmrseg import metrics
from cmrseg.record import rounded


def summary(probability: np.ndarray, truth: np.ndarray, masks: list[np.ndarray]) -> dict:
    """The calibration entries of a record: reliability, expected Dice and agreement.

    Args:
        probability: of all networks together.
        truth: the true masks.
        masks: those of each network alone.
    """
    return {
        "reliability": reliability(probability, truth),
        "expected_dice": rounded(expected_dice(probability)),
        "agreement": rounded(agreement(masks)) if len(masks) > 1 else None,
    }


def reliability(
    probability: np.ndarray, truth: np.ndarray, bins: int = 10, reach: int = 3
) -> dict[str, list]:
    """How often the most probable class is right, by how probable it is (Guo et al. 2017).

    Only pixels near a border count (within ``reach`` pixels of a true or predicted one): far from
    the heart all is easy, and would hide the rest.

    Returns:
        Lists of ``bins`` entries for equal ranges of confidence from 1/4 to 1: ``count`` of pixels,
        their mean ``confidence``, and the share that is ``right`` (0 where the count is 0).
    """
    decided = probability.argmax(1)
    near = _near_a_border(decided, reach) | _near_a_border(truth, reach)
    confidence, right = probability.max(1)[near], (decided == truth)[near]
    place = np.clip(((confidence - 0.25) / 0.75 * bins).astype(int), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    sums = (np.bincount(place, weights, minlength=bins) for weights in (confidence, right))
    means = [(s / np.maximum(count, 1)).round(5).tolist() for s in sums]
    return {"count": count.tolist(), "confidence": means[0], "right": means[1]}


def _near_a_border(labels: np.ndarray, reach: int) -> np.ndarray:
    """Pixels with another label within ``reach`` pixels to the side, above or below."""
    near = np.zeros(labels.shape, bool)
    for axis in (1, 2):
        window = {"size": 2 * reach + 1, "axis": axis, "mode": "nearest"}
        highest = ndimage.maximum_filter1d(labels, **window)
        near |= highest != ndimage.minimum_filter1d(labels, **window)
    return near


def calibration_error(table: dict[str, list]) -> float:
    """The expected calibration error of a :func:`reliability` table: the mean distance between
    confidence and share of right answers, by count."""
    count, confidence, right = (np.array(table[name]) for name in ("count", "confidence", "right"))
    return float((count * np.abs(confidence - right)).sum() / count.sum())


def expected_dice(probability: np.ndarray) -> np.ndarray:
    """The Dice (N, 3) that the network expects of its own masks, RV, Myo and LV: the soft Dice
    between probabilities and decision; NaN where a class is not predicted."""
    p, classes = probability[:, 1:], np.array([1, 2, 3])[:, None, None]
    mine = probability.argmax(1)[:, None] == classes
    both, size = (p * mine).sum((2, 3)), p.sum((2, 3)) + mine.sum((2, 3))
    return np.where(mine.any((2, 3)), 2 * both / np.maximum(size, 1e-9), np.nan)


def agreement(masks: list[np.ndarray]) -> np.ndarray:
    """Mean Dice (N, 3) between the masks that several networks gave, two by two; NaN where no
    network predicts a class.

    Raises:
        ValueError: fewer than two networks.
    """
    if len(masks) < 2:
        raise ValueError("one network cannot disagree with itself: give the masks of two or more")
    return metrics.per_class(np.stack([metrics.dice(a, b) for a, b in combinations(masks, 2)]))


def risk_coverage(score: np.ndarray, dice: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The risk-coverage curve: mean Dice of what is kept when the lowest scores are set aside.

    Args:
        score: of each mask (N,), higher where the mask is thought to be better.
        dice: (N,), how good it is.

    Returns:
        Coverage, the share that is kept (1, (N-1)/N, ... 1/N), and the mean Dice of those kept.
    """
    order = np.argsort(-score, kind="stable")
    kept = np.arange(len(dice), 0, -1)
    return kept / len(dice), (np.cumsum(dice[order]) / np.arange(1, len(dice) + 1))[::-1]
