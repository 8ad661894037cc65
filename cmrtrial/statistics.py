"""How sure is a difference between two settings, and what does it say of a claim?

The estimand: the mean difference of two *recipes*, over patients such as these 60, with networks trained on these
five sets of 48 patients. So two things vary: the patients, and the runs (initial weights, order of the slices). The
choice of the training patients is part of the question and not of the error; between any two folds 36 of 48
training patients are the same, and nothing here could tell what others would bring (Bengio and Grandvalet 2004).

Of two kinds of endpoint means are a bad summary, as a few runs may be far from the others: when a run got somewhere, and
its loss. They are judged run against run, by a sign test (:func:`pairs`). And fifteen runs that all learnt say nothing
of one in twenty that would not: what is said of Dice is said of runs that learn (results/second/AMENDMENTS.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MARGIN = 0.02  # of Dice: settings closer than this are called equivalent
ALPHA = 0.05


@dataclass(frozen=True)
class Scores:
    """One endpoint of one setting.

    Attributes:
        values: for each fold float64 (runs, patients); for an endpoint of a run, such as its loss, (runs, 1).
        seeds: for each fold the seeds of its runs.
        rise: by how much the endpoint grew over the last fifth of the epochs, mean over the runs. A setting that
            still rises by more than the margin can't be said to be ahead of another, nor equal to it: what fifteen
            runs show is then mostly the runs that woke up in time, and others lag behind. It can be said to be behind.
        dead: whether some of the runs, but not all, have learnt nothing (Dice below 0.1). Then the same holds: the setting
            can be said to be behind, but neither ahead nor equal.
    """

    values: dict[str, np.ndarray]
    seeds: dict[str, Sequence[int]]
    rise: float = 0.0
    dead: bool = False

    @property
    def unsettled(self) -> bool:
        """Whether the setting can be said to be behind, but neither ahead nor equal."""
        return self.rise > MARGIN or self.dead


@dataclass(frozen=True)
class Difference:
    """An estimated difference a - b and its standard error, with degrees of freedom; and whether a and b are unsettled:
    still rise, or have some runs that learnt nothing."""

    mean: float
    se: float
    df: float
    rising: tuple[bool, bool] = (False, False)

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """Student's interval round the mean: (low, high)."""
        half = stats.t.ppf((1 + level) / 2, self.df) * self.se
        return float(self.mean - half), float(self.mean + half)

    def above(self, value: float) -> float:
        """One-sided p-value of the hypothesis that the difference is at most ``value``."""
        if self.rising[0]:
            return 1.0
        if self.se == 0:
            return float(self.mean <= value)
        return float(stats.t.sf((self.mean - value) / self.se, self.df))

    def below(self, value: float) -> float:
        """One-sided p-value of the hypothesis that the difference is at least ``value``."""
        return Difference(-self.mean, self.se, self.df, self.rising[::-1]).above(-value)


@dataclass(frozen=True)
class Pairs(Difference):
    """A difference of runs. Estimate, error and interval are those of the mean; judged it is run against run.

    Attributes:
        differences: a - b of each pair of runs with the same fold and seed; or of each run, less a number.
    """

    differences: tuple[float, ...] = ()

    def above(self, value: float) -> float:
        """One-sided p-value of the hypothesis that a - b is no more often above ``value`` than below it.

        A sign test: pairs at ``value`` say nothing and are left out. Exact, however runs scatter.
        """
        more, less = sum(d > value for d in self.differences), sum(d < value for d in self.differences)
        return float(stats.binom.sf(more - 1, more + less, 0.5))

    def below(self, value: float) -> float:
        """One-sided p-value of the hypothesis that a - b is no more often below ``value`` than above it."""
        return Pairs(-self.mean, self.se, self.df, differences=tuple(-d for d in self.differences)).above(-value)


@dataclass(frozen=True)
class Proportion:
    """A share of runs, less a level to compare it with. Its interval is Wilson's (1927), its p-values exact."""

    yes: int
    of: int
    level: float

    @property
    def mean(self) -> float:
        return self.yes / self.of - self.level

    def interval(self, level: float = 1 - ALPHA) -> tuple[float, float]:
        """(low, high)."""
        wilson = stats.binomtest(self.yes, self.of).proportion_ci(level, method="wilson")
        return wilson.low - self.level, wilson.high - self.level

    def above(self, value: float) -> float:
        """One-sided p-value of the hypothesis that the share less the level is at most ``value``."""
        return float(stats.binomtest(self.yes, self.of, self.level + value, "greater").pvalue)

    def below(self, value: float) -> float:
        """One-sided p-value of the hypothesis that the share less the level is at least ``value``."""
        return float(stats.binomtest(self.yes, self.of, self.level + value, "less").pvalue)


def compare(a: Scores, b: Scores | float = 0.0) -> Difference:
    """Setting a minus setting b (or minus a number), in closed form.

    The squared standard error is a sum of variances, each estimated with its own degrees of freedom (Welch 1947,
    Satterthwaite 1946). Nothing is borrowed from other settings.

    - Patients: how a - b varies over the patients of a fold, less the part that comes from patients reacting
      differently to each run, which the next line holds already.
    - Runs, for each setting: how the mean over a fold varies between the runs of the fold. If the same seeds ran in
      every fold, seeds are the units instead: how the mean over all folds varies between them.

    Raises:
        ValueError: one run in a fold, which says nothing of how runs vary; sides with other folds or
            patients; or seeds that some folds share and others do not.
    """
    sides = [a, b] if isinstance(b, Scores) else [a]
    folds = list(a.values)
    if any(list(side.values) != folds or any(side.values[f].shape[1] != a.values[f].shape[1] for f in folds)
           for side in sides):
        raise ValueError("the sides have other folds or patients")
    d = {f: a.values[f].mean(0) - (b.values[f].mean(0) if isinstance(b, Scores) else b) for f in folds}
    patients = sum(map(len, d.values()))
    parts = []  # of the squared standard error, with their degrees of freedom
    if patients > len(folds):
        spread = sum(((x - x.mean()) ** 2).sum() for x in d.values()) / (patients - len(folds))
        parts.append((spread / patients, patients - len(folds)))
        parts += [_interaction(side, patients) for side in sides]
    variance = max(sum(part for part, _ in parts), 0.0)
    for side in sides:
        parts.append(_runs(side, patients))
        variance += parts[-1][0]
    df = variance**2 / sum(part**2 / free for part, free in parts) if variance else 1.0
    if any(_crossed(side) for side in sides):
        df = min(free for _, free in parts)  # two or three seeds: the approximation would promise too much
    rising = (a.unsettled, isinstance(b, Scores) and b.unsettled)
    return Difference(float(sum(x.sum() for x in d.values()) / patients), float(variance**0.5), float(df), rising)


def pairs(a: Scores, b: Scores | float = 0.0) -> Pairs:
    """Setting a minus setting b (or minus a number) in an endpoint of runs: the runs of a fold with the same seed in pairs.

    Raises:
        ValueError: as :func:`compare`, which gives the estimate and its error.
    """
    differences = []
    for fold, y in a.values.items():
        others = dict(zip(b.seeds[fold], b.values[fold][:, 0])) if isinstance(b, Scores) else dict.fromkeys(a.seeds[fold], b)
        differences += [float(value - others[s]) for s, value in zip(a.seeds[fold], y[:, 0]) if s in others]
    mean = compare(a, b)
    return Pairs(mean.mean, mean.se, mean.df, differences=tuple(differences))


def _interaction(side: Scores, patients: int) -> tuple[float, int]:
    """What patients that react differently to each run add to the spread over patients: to be taken off."""
    squares, free, weight = 0.0, 0, 0.0
    for y in side.values.values():
        rest = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
        squares += (rest**2).sum()
        free += (y.shape[0] - 1) * (y.shape[1] - 1)
        weight += y.shape[1] / y.shape[0]
    return (-squares / free * weight / patients**2 if free else 0.0), max(free, 1)


def _runs(side: Scores, patients: int) -> tuple[float, int]:
    """What the runs of a setting add to the squared standard error, and its degrees of freedom."""
    means = {f: y.mean(1) for f, y in side.values.items()}
    weights = {f: y.shape[1] / patients for f, y in side.values.items()}
    free = sum(len(m) - 1 for m in means.values())
    if any(len(m) < 2 for m in means.values()):
        raise ValueError("a fold with one run, which says nothing of how runs vary")
    if not _crossed(side):
        within = sum(((m - m.mean()) ** 2).sum() for m in means.values()) / free
        return float(within * sum(weights[f] ** 2 / len(m) for f, m in means.items())), free
    distinct = sorted({s for seeds in side.seeds.values() for s in seeds})
    by_seed = np.array([sum(weights[f] * means[f][list(side.seeds[f]).index(s)] for f in means) for s in distinct])
    return float(by_seed.var(ddof=1) / len(by_seed)), len(by_seed) - 1


def _crossed(side: Scores) -> bool:
    """Whether every fold had the same seeds (True), or each its own (False)."""
    distinct = {s for seeds in side.seeds.values() for s in seeds}
    if len(distinct) == sum(map(len, side.seeds.values())):
        return False
    if any(set(seeds) != distinct for seeds in side.seeds.values()):
        raise ValueError("seeds that some folds share and others do not")
    return True


def p_values(found: Difference | Proportion, claim: str, margin: float = MARGIN) -> dict[str, float]:
    """How strongly an estimate speaks for each verdict: verdict -> p-value.

    - ``"greater"``, ``"less"`` than zero: two-sided, so that *confirmed* and *contradicted* share the error;
      *equivalent*, a verdict of its own, when the two-sided interval lies within the margin.
    - ``"equal"``: two one-sided tests (Schuirmann 1987) for *confirmed*; *contradicted* when beyond the margin.
    - ``"no-more"``: non-superiority, *confirmed* when below the margin, *contradicted* when above it.

    Raises:
        ValueError: another claim.
    """
    outside = max(found.above(-margin), found.below(margin))
    beyond = 2 * min(found.above(margin), found.below(-margin))
    more, less = 2 * found.above(0), 2 * found.below(0)
    if claim not in ("greater", "less", "equal", "no-more"):
        raise ValueError(f"claim={claim!r}: expected greater, less, equal or no-more")
    p = {"greater": {"confirmed": more, "contradicted": less, "equivalent": 2 * outside},
         "less": {"confirmed": less, "contradicted": more, "equivalent": 2 * outside},
         "equal": {"confirmed": outside, "contradicted": beyond},
         "no-more": {"confirmed": found.below(margin), "contradicted": found.above(margin)}}[claim]
    return {word: min(value, 1.0) for word, value in p.items()}


def holm(family: Sequence[dict[str, float]], alpha: float = ALPHA) -> list[str]:
    """The verdict of each claim of a family, by Holm's procedure (1979).

    The claim with the smallest p-value is judged at ``alpha`` divided by the number of claims, the next by the
    number of those left, and so on until one does not reach its level; it and the rest are *inconclusive*. A claim
    that reaches its level gets the first of its verdicts that does.
    """
    verdicts = ["inconclusive"] * len(family)
    order = sorted(range(len(family)), key=lambda i: min(family[i].values()))
    for place, i in enumerate(order):
        level = alpha / (len(family) - place)
        reached = [word for word, p in family[i].items() if p <= level]
        if not reached:
            break
        verdicts[i] = reached[0]
    return verdicts
