"""What could each claim of the second trial hope for? A power analysis on the first trial's records.

For every claim of the first trial, asked as its successor in ``claims-2.toml`` asks it: the standard error with 3, 5
and 10 runs on each fold, and the probability of each verdict if the true difference is zero, half the margin, or what
the first trial found. Verdicts are taken at the level of the first step of Holm's procedure, 5 % divided by the size of
the family: later steps are easier, so these are lower bounds.

The variances are the first trial's, after 100 epochs. A setting with one run on each fold has no run variance of its own and
is given that of its network's settings that have one (see :func:`cmrseg.comparisons.run_variance`): too small, where
it had just begun to learn.

    python -m cmrtrial.power          # writes results/second-power.csv
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
from scipy import stats

from cmrseg import comparisons, results
from cmrtrial.claims import claims
from cmrtrial.statistics import ALPHA, MARGIN, Proportion, Scores, _interaction, p_values

REPLICATES = (3, 5, 10)


def variances(claim: dict) -> tuple[float, float, float, int]:
    """Estimate of a claim of the first trial, and what its squared standard error is made of.

    Returns:
        The estimated difference; the variance between patients divided by their number; the variance between runs,
        summed over both sides; the number of patients.
    """
    table = comparisons.runs(claim["experiment"])
    names = [claim.get("setting", claim[s]) for s in "ab" if s in claim]
    what = f"{claim['a']}-{claim['b']}" if claim["endpoint"] == "class" else claim["endpoint"]
    tables = [table[table["setting"] == name] for name in dict.fromkeys(names)]
    level = float(claim.get("level", 0.0))
    if claim["endpoint"] not in ("dice", "class", *results.CLASSES):  # of a run: its variance over the folds
        sides = [t.groupby("split")["record"].apply(lambda rs: np.mean([comparisons.of_run(r, what) for r in rs]))
                 for t in tables]
        d = sides[0] - (sides[1] if len(sides) > 1 else level)
        return float(d.mean()), 0.0, float(d.var(ddof=1)), 0
    sides = [comparisons.by_patient(t, what) for t in tables]
    d = sides[0] - (sides[1] if len(sides) > 1 else level)
    fold = d.index.to_numpy() % 5
    within = sum(((x - x.mean()) ** 2).sum() for _, x in d.groupby(fold)) / (len(d) - 5) / len(d)
    noise = sum(_noise(t, what) for t in tables)  # negative: the runs below hold it already
    runs = sum(comparisons.luck_of(t, "replica", what)[1] for t in tables)
    return float(d.mean()), max(within + noise, 0.0), runs, len(d)


def _noise(table: pd.DataFrame, what: str) -> float:
    """What patients that react differently to each run add to the variance between patients; of one run on each fold, the
    baseline's."""
    if table.groupby("split").size().min() < 2:
        base = comparisons.runs("baseline")
        return _noise(base, what) * base.groupby("split").size().min()
    values = {split: np.stack([comparisons.by_patient(group.iloc[[n]], what) for n in range(len(group))])
              for split, group in table.groupby("split")}
    return _interaction(Scores(values, {}), 60)[0]


def chances(se: float, df: float, claim: str, margin: float, level: float, truth: float) -> dict[str, float]:
    """Probability of each verdict on a claim, by :func:`cmrtrial.statistics.p_values` at a level, if the difference is
    ``truth`` and its standard error ``se``."""
    two, one = stats.t.isf([level / 2, level], df) * se
    estimate = stats.norm(truth, se)

    def within(reach: float) -> float:
        return max(float(estimate.cdf(reach) - estimate.cdf(-reach)), 0.0)

    if claim in ("greater", "less"):
        up, down = float(estimate.sf(two)), float(estimate.cdf(-two))
        up, down = (up, down) if claim == "greater" else (down, up)
        return {"confirmed": up, "contradicted": down, "equivalent": within(min(two, margin - two))}
    if claim == "equal":
        return {"confirmed": within(margin - one), "contradicted": 1 - within(margin + two)}
    return {"confirmed": float(estimate.cdf(margin - one)), "contradicted": float(estimate.sf(margin + one))}


def shares(of: int, claim: str, level: float, alpha: float, truth: float) -> dict[str, float]:
    """Probability of each verdict on a claim about a share of runs, if the share is ``truth``."""
    counts: Counter = Counter()
    for yes in range(of + 1):
        p = p_values(Proportion(yes, of, level), claim, 0.0)
        word = next((word for word, value in p.items() if value <= alpha), "inconclusive")
        counts[word] += stats.binom.pmf(yes, of, truth)
    return dict(counts)


def row(first: dict, second: dict, size: int, clock: pd.DataFrame) -> dict:
    """One line of the table: a claim of the first trial, asked as its successor asks it."""
    same = first["endpoint"][:5] == second["endpoint"][:5] or "margin" not in second  # another endpoint has another unit
    margin, alpha = (second if same else first).get("margin", MARGIN), ALPHA / size
    found = {"id": first["id"], "family": second["family"], "size": size, "claim": second["claim"], "margin": margin}
    if second["endpoint"] == "seconds":
        found_then = clock.loc[first["id"]]
        half = (found_then["high_alone"] - found_then["low_alone"]) / 2
        se = half / stats.t.ppf(0.975, len(comparisons.experiments.ROUNDS) - 1)
        cells = [(r, se, len(comparisons.experiments.ROUNDS) - 1) for r in REPLICATES]
        estimate = found_then["estimate"]
    elif second["endpoint"] in ("static", "collapsed", "zero"):
        table = comparisons.runs(first["experiment"])
        share = np.mean([comparisons.of_run(r, first["endpoint"]) for r in table[table["setting"] == first["a"]]["record"]])
        found["estimate"] = share - second["level"]
        for r in REPLICATES:
            found[f"se {r}"] = (share * (1 - share) / (5 * r)) ** 0.5
            for name, truth in (("zero", second["level"]), ("estimate", share)):
                for word, chance in shares(5 * r, second["claim"], second["level"], alpha, truth).items():
                    found[f"{word} if {name}, {r}"] = chance
        return found
    else:
        estimate, patients, runs, number = variances(first)
        cells = []
        for r in REPLICATES:
            parts = [(patients, max(number - 5, 1)), (runs / (5 * r), 10 * (r - 1))]
            total = patients + runs / (5 * r)
            cells.append((r, total**0.5, total**2 / sum(p**2 / f for p, f in parts) if total else 1.0))
    found["estimate"] = estimate
    for r, se, df in cells:
        found[f"se {r}"] = se
        for name, truth in (("zero", 0.0), ("half", margin / 2), ("estimate", estimate)):
            for word, chance in chances(se, df, second["claim"], margin, alpha, truth).items():
                found[f"{word} if {name}, {r}"] = chance
    return found


def table() -> pd.DataFrame:
    """The power of every claim, a row for each claim of the first trial; without numbers where none is asked."""
    asked = claims()
    sizes = Counter(c["family"] for c in asked if "family" in c and "verdict" not in c)
    second, clock = {c["id"]: c for c in asked}, comparisons.judge().set_index("id")
    rows = []
    for first in comparisons.claims():
        successor = second[first["id"]]
        if "endpoint" in successor:
            successor = {"family": "equivalence"} | successor  # an ambiguous claim, if it were asked
            rows.append(row(first, successor, sizes[successor["family"]], clock))
        else:
            rows.append({"id": first["id"], "family": successor["verdict"]})
    return pd.DataFrame(rows).set_index("id")


if __name__ == "__main__":
    power = table().round(4)
    columns = [c for c in power if " if " not in c] + sorted(c for c in power if " if " in c)
    power[columns].to_csv(results.STORE / "second-power.csv")
    shown = ["family", "claim", "estimate", "se 3", "se 10"]
    for r in (3, 10):
        for truth in ("zero", "half", "estimate"):
            decided = [c for c in power if c.endswith(f" if {truth}, {r}") and not c.startswith("inconclusive")]
            power[f"{truth} {r}"] = power[decided].sum(axis=1)
            shown.append(f"{truth} {r}")
    print(power[shown].to_string())
