"""How sure is a mean? The unit is the patient: two slices of one heart are not two witnesses."""

from __future__ import annotations

import numpy as np
from scipy import stats

from cmrseg import metrics


def patient_means(scores: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Scores (N, ...) of slices -> mean of each patient's slices (P, ...), patients ascending.

    NaN entries are left out; a patient with none left is NaN.
    """
    return np.stack([metrics.per_class(scores[patients == p]) for p in np.unique(patients)])


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval for the mean of independent values, NaN left out: (low, high).

    With fewer than two values nothing is known of their spread: (-inf, inf).
    """
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
    columns = {"RV": scores[:, 0], "Myo": scores[:, 1], "LV": scores[:, 2], "mean": scores}
    summary: dict[str, dict] = {"dice": {}, "interval": {}, "absent": {}}
    for name, column in columns.items():
        if np.isnan(column).all():
            summary["dice"][name], summary["interval"][name] = None, None
        else:
            centre = metrics.mean(column) if name == "mean" else float(np.nanmean(column))
            each = patient_means(scores if name == "mean" else column[:, None], patients)
            each = metrics.per_class(each.T)
            low, high = mean_interval(each)
            shift = centre - float(np.nanmean(each))
            summary["dice"][name] = centre
            summary["interval"][name] = [float(np.clip(b + shift, 0, 1)) for b in (low, high)]
        if name != "mean":
            summary["absent"][name] = int(np.isnan(column).sum())
    return summary
