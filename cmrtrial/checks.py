"""Checks of the method on the baseline's seeds: the A/A test, and the effect of the seed."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cmrseg.metrics import mean_interval
from cmrtrial.compare import by_patient, compare, runs
from cmrtrial.records import STORE


def seed_effect(table: pd.DataFrame) -> tuple[float, float]:
    """F and p of the seed, by a two-way analysis of variance: do runs of one seed resemble each
    other across folds?

    Args:
        table: runs of one setting, each seed once on each fold.
    """
    dice = table.pivot(index="split", columns="seed", values="dice").to_numpy()
    folds, seeds = dice.shape
    rest = dice - dice.mean(0) - dice.mean(1, keepdims=True) + dice.mean()
    df = (folds - 1) * (seeds - 1)
    f = folds * dice.mean(0).var(ddof=1) / ((rest**2).sum() / df)
    return float(f), float(stats.f.sf(f, seeds - 1, df))


def aa_test(protocol: str = "replica", draws: int = 1000, store: Path = STORE) -> pd.DataFrame:
    """The A/A test: two halves of one setting, compared as if they were two settings.

    For each draw and fold, two of the baseline's seeds are taken at random, one for each side, and
    the sides go through :func:`compare`. There is no true difference, so an interval without zero
    is an error.

    Returns:
        A row for each draw: difference, low, high, and low_alone, high_alone: the interval that
        only looks at the spread over patients.
    """
    table, rng = runs("baseline", protocol, store), np.random.default_rng(0)
    folds = [group.index.to_numpy() for _, group in table.groupby("split")]
    rows = []
    for _ in range(draws):
        a, b = zip(*(rng.choice(fold, 2, replace=False) for fold in folds))
        a, b = table.loc[list(a)], table.loc[list(b)]
        difference = compare(a, b, protocol, store=store).difference
        alone = mean_interval((by_patient(a) - by_patient(b)).to_numpy())
        rows.append((difference.mean, *difference.interval(), *alone))
    return pd.DataFrame(rows, columns=["difference", "low", "high", "low_alone", "high_alone"])
