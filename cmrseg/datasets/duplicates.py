"""Near-duplicate search by correlation of thumbnails.

Copies are found even when they were shifted, rescaled or brightened.
"""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

POINTS = 24  # a thumbnail has so many points a side
ZOOMS, SHIFTS = (0.92, 1, 1.08), (-0.015, 0, 0.015)  # how copies are looked for; parts of the width
FAMILY = 0.8  # a smaller similarity is never called a copy
TWIN = 0.97  # a greater one always is
FEW = 200  # pairs of strangers from which nothing can be told about their similarity
# An image that resembles the usual one less than this is its negative; most lie near +0.6.
NEGATIVE = -0.4


def negatives(images: Sequence[np.ndarray]) -> np.ndarray:
    """Positions of the pictures that look like the negative of the usual one."""
    small = _thumbnails(_by_shape(images))
    usual = np.median(small, axis=0)
    usual -= usual.mean()
    return np.flatnonzero(small @ (usual / (np.linalg.norm(usual) + 1e-3)) < NEGATIVE)


def similarity(images: Sequence[np.ndarray]) -> np.ndarray:
    """Similarity of every two pictures, float32 (N, N): 1 for a copy, about 0 by chance.

    It is the correlation of two thumbnails, which brightness and contrast do not change. One of the
    two is zoomed by 8 % and shifted by 1.5 % of the width to all sides and the best fit counts:
    copies that were moved by two pixels of 96, or rescaled by a tenth, are copies still. Pictures
    may differ in size.
    """
    groups = _by_shape(images)
    plain = _thumbnails(groups)
    best = np.full((len(images), len(images)), -1, np.float32)
    for view in ((zoom, down, right) for zoom in ZOOMS for down in SHIFTS for right in SHIFTS):
        moved = _thumbnails(groups, *view)
        for rows in np.array_split(np.arange(len(plain)), len(plain) // 1000 + 1):
            best[rows] = np.maximum(best[rows], plain[rows] @ moved.T)
    return np.maximum(best, best.T)


def _by_shape(images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pictures of one size together: their positions (n,) and float32 (n, H, W)."""
    shapes = np.array([image.shape for image in images])
    return [
        (which, np.stack([images[i] for i in which]).astype(np.float32))
        for shape in np.unique(shapes, axis=0)
        for which in [np.flatnonzero((shapes == shape).all(1))]
    ]


def _thumbnails(groups, zoom: float = 1, down: float = 0, right: float = 0) -> np.ndarray:
    """The middle of each picture on POINTS x POINTS points, as rows of mean 0 and length 1."""
    small = np.empty((sum(len(which) for which, _ in groups), POINTS, POINTS), np.float32)
    for which, images in groups:
        height, width = images.shape[1:]
        small[which] = _points(height, zoom, down) @ images @ _points(width, zoom, right).T
    small = small.reshape(len(small), -1)
    small -= small.mean(1, keepdims=True)
    return small / (np.linalg.norm(small, axis=1, keepdims=True) + 1e-3)


def _points(side: int, zoom: float, shift: float) -> np.ndarray:
    """Weights float32 (POINTS, side) that draw a row of pixels together, softly, at POINTS places.

    The places lie in the middle four fifths of the row, zoomed and shifted.
    """
    step = 0.8 * side / zoom / POINTS
    places = (side - 1) / 2 + shift * side + step * (np.arange(POINTS) - (POINTS - 1) / 2)
    weights = np.exp(-2 * ((np.arange(side) - places[:, None]) / max(step, 1)) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def copy_limit(strangers: np.ndarray) -> float:
    """The similarity that pictures of two different patients do not reach by chance.

    Fisher's z of the strangers' similarity (P,) lies close to a bell curve; its middle and width
    are taken from medians, so that copies among them don't matter. One pair in a hundred such
    folders would exceed the limit. With few pairs the width is unknown, and only near-perfect
    copies count.
    """
    if len(strangers) < FEW:
        return TWIN
    z = np.arctanh(np.clip(strangers[:: len(strangers) // 10**6 + 1], -0.999, 0.999))
    middle = np.median(z)
    spread = np.median(np.abs(z - middle)) / 0.6745
    limit = np.tanh(middle - NormalDist().inv_cdf(0.01 / len(strangers)) * spread)
    return float(np.clip(limit, FAMILY, TWIN))
