"""How alike are two label maps? Dice by overlap, HD95 and surface Dice by boundary, in pixels.

Label maps are integer arrays (N, H, W); results are float64 (N, 3), a column for RV, Myo and LV.

The rules for a class that is not there (Dice would be 0/0, distances undefined):

- absent from truth and prediction: ``empty``, by default NaN: left out of means, and counted;
- absent from one of them only: Dice 0, surface Dice 0, HD95 the diagonal of the image.
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

FOREGROUND = (1, 2, 3)


def dice(pred: np.ndarray, truth: np.ndarray, classes=FOREGROUND, empty=np.nan) -> np.ndarray:
    """Dice of each image and class (Dice 1945), (N, len(classes)): twice the overlap by the sum of sizes.

    Raises:
        ValueError: arrays of two shapes.
    """
    _same_shape(pred, truth)
    scores = []
    for c in classes:
        a, b = pred == c, truth == c
        overlap, size = (a & b).sum((1, 2)), a.sum((1, 2)) + b.sum((1, 2))
        scores.append(np.where(size > 0, 2 * overlap / np.maximum(size, 1), empty))
    return np.stack(scores, 1)


def areas(masks: np.ndarray, classes=FOREGROUND) -> np.ndarray:
    """Pixels of each class in each label map, int64 (N, len(classes))."""
    return np.stack([(masks == c).sum((1, 2)) for c in classes], 1)


def coarsen(masks: np.ndarray, square: int) -> np.ndarray:
    """Label maps (N, H, W) in which each square x square pixels take the label that most of them have (the
    smaller of two equals): what can be drawn with one answer for each square.

    Raises:
        ValueError: squares that do not fill the image.
    """
    n, height, width = masks.shape
    if height % square or width % square:
        raise ValueError(f"{height} x {width} pixels are not a whole number of squares of {square}")
    squares = masks.reshape(n, height // square, square, width // square, square)
    votes = np.stack([(squares == c).sum((2, 4)) for c in (0, *FOREGROUND)])
    return votes.argmax(0).astype(masks.dtype).repeat(square, 1).repeat(square, 2)


def per_class(scores: np.ndarray) -> np.ndarray:
    """Mean over images, leaving out NaN: (N, C) -> (C,); NaN for a class absent everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a class that is absent everywhere
        return np.nanmean(scores, 0)


def mean(scores: np.ndarray, average: str = "class") -> float:
    """One number for a table (N, C).

    Args:
        scores: Dice per image and class, NaN where undefined.
        average: ``"class"``: over images, then over classes (the rule here); ``"image"``: over
            classes, then over images (the report's); ``"pooled"``: over all defined entries.

    Raises:
        ValueError: an unknown ``average``.
    """
    if average == "class":
        return float(per_class(per_class(scores)))
    if average == "image":
        return float(per_class(per_class(scores.T)))
    if average == "pooled":
        return float(per_class(scores.ravel()))
    raise ValueError(f"average={average!r}: expected class, image or pooled")


def hd95(pred: np.ndarray, truth: np.ndarray, classes=FOREGROUND) -> np.ndarray:
    """95th percentile of the distance between boundaries, the larger of both directions, pixels."""
    diagonal = float(np.hypot(*truth.shape[1:]))

    def farther(there: np.ndarray, back: np.ndarray) -> float:
        return float(max(np.percentile(there, 95), np.percentile(back, 95)))

    return _by_surface(pred, truth, classes, farther, one_empty=diagonal)


def surface_dice(
    pred: np.ndarray, truth: np.ndarray, tolerance: float, classes=FOREGROUND
) -> np.ndarray:
    """Share of both boundaries that lies within ``tolerance`` pixels of the other one.

    It is the normalised surface Dice of Nikolov et al. 2021.
    """

    def share(there: np.ndarray, back: np.ndarray) -> float:
        near = (there <= tolerance).sum() + (back <= tolerance).sum()
        return float(near / (len(there) + len(back)))

    return _by_surface(pred, truth, classes, share, one_empty=0.0)


def _by_surface(pred, truth, classes, score, one_empty: float) -> np.ndarray:
    _same_shape(pred, truth)
    table = np.full((len(truth), len(classes)), np.nan)
    for n, (p, t) in enumerate(zip(pred, truth)):
        for k, c in enumerate(classes):
            a, b = p == c, t == c
            if a.any() and b.any():
                table[n, k] = score(*surface_distances(a, b))
            elif a.any() or b.any():
                table[n, k] = one_empty
    return table


def surface_distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each boundary pixel of ``a`` to the boundary of ``b``, and back, in pixels.

    A boundary pixel is one of the object with a 4-neighbour that is not.
    """
    edge_a, edge_b = a & ~binary_erosion(a), b & ~binary_erosion(b)
    return distance_transform_edt(~edge_b)[edge_a], distance_transform_edt(~edge_a)[edge_b]


def _same_shape(pred: np.ndarray, truth: np.ndarray) -> None:
    if pred.shape != truth.shape:
        raise ValueError(f"prediction {pred.shape} and truth {truth.shape} differ in shape")
