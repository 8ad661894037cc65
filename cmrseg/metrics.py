"""Metrics of label maps: Dice by overlap, HD95 and surface Dice by boundary; means, intervals.

:data:`METRICS` names those that ``evaluate`` prints and that a record keeps. Label maps are integer
arrays (N, H, W); results are float64 (N, 3), a column for RV, Myo and LV.

The rules for a class that is not there (Dice would be 0/0, distances undefined):

- absent from truth and prediction: ``empty``, by default NaN: left out of means, and counted;
- absent from one of them only: Dice 0, surface Dice 0, HD95 the diagonal of the image.
"""

import warnings
from functools import partial

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt

from cmrseg.data import CLASSES

FOREGROUND = (1, 2, 3)


def dice(pred: np.ndarray, truth: np.ndarray, classes=FOREGROUND, empty=np.nan) -> np.ndarray:
    """Dice (N, len(classes)) of each image and class: twice the overlap by the sum of sizes.

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


def areas(masks: np.ndarray) -> np.ndarray:
    """Pixels of RV, Myo and LV in each label map, int64 (N, 3)."""
    return np.stack([(masks == c).sum((1, 2)) for c in FOREGROUND], 1)


def downsample_labels(masks: np.ndarray, square: int) -> np.ndarray:
    """Label maps (N, H, W) -> (N, H / square, W / square): of each square the most frequent label.

    Of two as frequent it is the smaller. A coarse network learns this, and can draw no better.

    Raises:
        ValueError: squares that do not fill the image.
    """
    n, height, width = masks.shape
    if height % square or width % square:
        raise ValueError(f"{height} x {width} pixels are not a whole number of squares of {square}")
    squares = masks.reshape(n, height // square, square, width // square, square)
    votes = np.stack([(squares == c).sum((2, 4)) for c in (0, *FOREGROUND)])
    return votes.argmax(0).astype(masks.dtype)


def per_class(scores: np.ndarray) -> np.ndarray:
    """Mean over images, leaving out NaN: (N, C) -> (C,); NaN for a class absent everywhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a class that is absent everywhere
        return np.nanmean(scores, 0)


def mean(scores: np.ndarray) -> float:
    """Mean over images, then over classes, of scores (N, C) that are NaN where undefined."""
    return float(per_class(per_class(scores)))


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


def in_mm(pred: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> dict[str, np.ndarray]:
    """HD95 in mm and surface Dice within 2 mm (N, 3), of slices with pixels of so many mm (N,)."""
    near = [surface_dice(p, t, 2 / mm) for p, t, mm in zip(pred[:, None], truth[:, None], spacing)]
    return {
        "hd95_mm": hd95(pred, truth) * spacing[:, None],
        "surface_dice_2mm": np.concatenate(near),
    }


def volume_dice(pred: np.ndarray, truth: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Dice (V, 3) of all slices of a volume together; (N,) says which volume a slice is of."""
    pairs = [[m[volumes == v].reshape(1, -1, 1) for m in (pred, truth)] for v in np.unique(volumes)]
    return np.concatenate([dice(*pair) for pair in pairs])


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
    edge_a, edge_b = _boundary(a), _boundary(b)
    return distance_transform_edt(~edge_b)[edge_a], distance_transform_edt(~edge_a)[edge_b]


def _boundary(mask: np.ndarray) -> np.ndarray:
    """The boundary pixels of a mask, bool (H, W)."""
    framed = np.pad(mask, 1).astype(np.uint8)  # so that an object at the edge of the image ends
    contours, _ = cv2.findContours(framed, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(framed), contours, -1, 1)[1:-1, 1:-1].astype(bool)


def _same_shape(pred: np.ndarray, truth: np.ndarray) -> None:
    if pred.shape != truth.shape:
        raise ValueError(f"prediction {pred.shape} and truth {truth.shape} differ in shape")


METRICS = {  # name -> function of predicted and true label maps (N, H, W) that returns (N, 3)
    "dice": dice,
    "hd95": hd95,
    "surface_dice_1px": partial(surface_dice, tolerance=1),
    "surface_dice_2px": partial(surface_dice, tolerance=2),
}


# --- means and intervals over patients: two slices of one heart are not two witnesses ------------


def patient_means(scores: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Scores (N, ...) of slices -> mean of each patient's slices (P, ...), patients ascending.

    NaN entries are left out; a patient with none left is NaN.
    """
    return np.stack([per_class(scores[patients == p]) for p in np.unique(patients)])


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of independent values, NaN left out: (low, high).

    With fewer than two values nothing is known of their spread: (-inf, inf).
    """
    from scipy import stats  # slow to import, and no training needs it

    values = values[~np.isnan(values)]
    if len(values) < 2:
        return -np.inf, np.inf
    half = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def dice_summary(scores: np.ndarray, patients: np.ndarray) -> dict[str, dict]:
    """Mean Dice and its 95 % interval over patients for RV, Myo, LV and their mean.

    Args:
        scores: Dice of slices (N, 3), NaN where a class is absent from truth and prediction.
        patients: (N,) patient of each slice.

    Returns:
        ``{"dice": {...}, "interval": {...: [low, high]}, "absent": {...}}``. Dice is the mean over
        slices, then classes; the interval lies round it, as wide as patients differ, within 0..1;
        absent counts the slices left out. None stands for a class absent everywhere.
    """
    columns = {name: scores[:, [k]] for k, name in enumerate(CLASSES[1:])}
    absent = {name: int(np.isnan(column).sum()) for name, column in columns.items()}
    summary: dict[str, dict] = {"dice": {}, "interval": {}, "absent": absent}
    for name, column in (columns | {"mean": scores}).items():
        centre, interval = None, None
        if not np.isnan(column).all():
            centre = mean(column)
            of_patients = per_class(patient_means(column, patients).T)
            shift = centre - float(np.nanmean(of_patients))
            interval = [float(np.clip(bound + shift, 0, 1)) for bound in mean_interval(of_patients)]
        summary["dice"][name], summary["interval"][name] = centre, interval
    return summary
