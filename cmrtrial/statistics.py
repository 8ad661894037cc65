"""Statistics of the first trial: the difference of two settings, its error, and what it says of a
claim."""

import numpy as np

from cmrtrial.second.statistics import MARGIN, Difference  # the same in both trials


def paired_difference(
    a: np.ndarray, b: np.ndarray | float, run_parts: list[tuple[float, float]]
) -> Difference:
    """Setting a minus setting b, patient by patient.

    Patients of one fold share a trained network, so a lucky run lifts all of them at once, and the
    spread over patients alone is too sure (Bouthillier et al. 2021 on sources of variance). The
    squared standard error has the variance of a - b over patients, divided by their number, and
    that of the runs; its degrees of freedom follow Welch and Satterthwaite.

    Args:
        a, b: one value for each patient (P,), in one order: the mean of its slices over all seeds.
            NaN where a patient has no value. ``b`` may be a number to compare with.
        run_parts: what the runs add to the squared standard error, with degrees of freedom, a pair
            for each estimate of the variance between runs: where both settings share it (see
            :func:`pooled_run_variance`), ``variance * (1 / runs_a + 1 / runs_b)``.
    """
    d = (a - b)[~np.isnan(a - b)]
    parts, dfs = np.array([(d.var(ddof=1) / len(d), len(d) - 1), *run_parts]).T
    df = parts.sum() ** 2 / (parts**2 / dfs).sum()
    return Difference(float(d.mean()), float(np.sqrt(parts.sum())), float(df))


def pooled_run_variance(groups: list[np.ndarray]) -> tuple[float, int]:
    """Variance between runs that differ in their seed only, and its degrees of freedom.

    Args:
        groups: for each setting and fold the mean Dice of each seed's run; one seed alone says
            nothing and is left out.
    """
    groups = [np.asarray(g, dtype=float) for g in groups if len(g) > 1]
    df = sum(len(g) - 1 for g in groups)
    return float(sum(((g - g.mean()) ** 2).sum() for g in groups) / df), df


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
