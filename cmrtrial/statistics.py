"""How sure is a mean? The unit is the patient: two slices of one heart are not two witnesses."""

from __future__ import annotations

from dataclasses import dataclass

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


# --- comparing two settings ----------------------------------------------------------------------

MARGIN = 0.02  # of Dice: settings closer than this are called equivalent


@dataclass(frozen=True)
class Difference:
    """A paired difference of two settings and its standard error, with degrees of freedom."""

    mean: float
    se: float
    freedom: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval round the mean: (low, high)."""
        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.se
        return float(self.mean - half), float(self.mean + half)


def paired_difference(
    a: np.ndarray, b: np.ndarray | float, luck: list[tuple[float, float]]
) -> Difference:
    """Setting a minus setting b, patient by patient.

    Patients of one fold share a trained network, so a lucky run lifts all of them at once, and the
    spread over patients alone is too sure (Bouthillier et al. 2021 on sources of variance). The
    squared standard error has the variance of a - b over patients, divided by their number, and that of
    the runs; its degrees of freedom follow Welch and Satterthwaite.

    Args:
        a, b: one value for each patient (P,), in one order: the mean of its slices over all seeds.
            NaN where a patient has no value. ``b`` may be a number to compare with.
        luck: what the runs add to the squared standard error, with degrees of freedom, a pair for each
            estimate of the variance between runs: where both settings share it (see
            :func:`pooled_run_variance`), ``variance * (1 / runs_a + 1 / runs_b)``.
    """
    d = (a - b)[~np.isnan(a - b)]
    parts, freedoms = np.array([(d.var(ddof=1) / len(d), len(d) - 1), *luck]).T
    freedom = parts.sum() ** 2 / (parts**2 / freedoms).sum()
    return Difference(float(d.mean()), float(np.sqrt(parts.sum())), float(freedom))


def pooled_run_variance(groups: list[np.ndarray]) -> tuple[float, int]:
    """Variance between runs that differ in their seed only, and its degrees of freedom.

    Args:
        groups: for each setting and fold the mean Dice of each seed's run; one seed alone says
            nothing and is left out.
    """
    groups = [np.asarray(g, dtype=float) for g in groups if len(g) > 1]
    freedom = sum(len(g) - 1 for g in groups)
    return float(sum(((g - g.mean()) ** 2).sum() for g in groups) / freedom), freedom


def verdict(interval: tuple[float, float], claim: str, margin: float = MARGIN) -> str:
    """What the interval (low, high) of a difference a - b says of a claim about it.

    A claim ``"greater"`` or ``"less"`` is *confirmed* when the interval lies on its side of zero,
    *contradicted* when on the other, *equivalent* when it holds zero and lies within the margin.
    A claim ``"equal"`` is *confirmed* when the interval lies within the margin, *contradicted* when
    it lies beyond. Everything else is *inconclusive*.

    Raises:
        ValueError: another claim.
    """
    low, high = interval
    within = -margin < low and high < margin
    if claim == "equal":
        beyond = low > margin or high < -margin
        return "confirmed" if within else "contradicted" if beyond else "inconclusive"
    if claim not in ("greater", "less"):
        raise ValueError(f"claim={claim!r}: expected greater, less or equal")
    if claim == "less":
        low, high = -high, -low
    if low > 0:
        return "confirmed"
    if high < 0:
        return "contradicted"
    return "equivalent" if within else "inconclusive"
