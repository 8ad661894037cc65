"""What could each claim of the second trial hope for? A power analysis on the first trial's records.

For every claim of the first trial, asked as the successor of the same name in ``claims-2.toml`` asks it (its
settings, endpoint, level, side and margin): the standard error, and the probability of each verdict if the truth is

- *zero*: no difference, or the claim's level;
- *half* the margin: of ``greater`` and ``less`` in the claim's direction, of ``equal`` and ``no-more`` upwards, where
  the claim still holds (not for shares of runs, which have no margin);
- the *estimate*: what the first trial's records show.

With 3, 5, 6 and 10 runs of every setting on each fold, and with the numbers that are registered. Verdicts are taken
at the level of the first step of Holm's procedure, 5 % divided by the size of the family: later steps are easier, so
these are lower bounds. Endpoints of runs (loss, epochs, falls) are judged by the signs of pairs, as the amendments to
the second trial have it; the pairs are taken as normal, with the spread of the first trial's. Times are not measured
again: their rows say what ten rounds could hope for.

Column ``basis`` says how near the records come: "as asked"; "at 100 epochs" or the like, where the first trial has
other numbers of epochs (the nearest is taken); "stands in: ..."; "not measured". Beyond them are:

- Variances: they are the first trial's, most of them after 100 epochs. What late, unstable settings have is unknown.
- A setting with one run on each fold has no run variance of its own. It gets that of the same setting after other
  epochs, or of one of its network, that has one (column ``variance of``). Should the difference vary over the folds by
  more than this, patients and the other side explain, it gets what is left ("folds").
- Nothing here knows that a setting which still rises, or has some runs that learnt nothing, can't be said to be ahead
  or equal. Falls were scored every second epoch, not every fifth.

    python -m cmrtrial.second.power          # writes results/second-power.csv
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd
from scipy import special, stats

from cmrtrial import claims as first_claims
from cmrtrial import compare as comparisons
from cmrtrial import records as results
from cmrtrial.plans import EXPERIMENTS, timing
from cmrtrial.second import claims
from cmrtrial.second import plan as second_trial
from cmrtrial.second.statistics import ALPHA, MARGIN, Proportion, Scores, _interaction, _runs, p_values

REPLICATES = (3, 5, 6, 10)
PATIENTS, FOLDS = 60, 5
DONORS = {"unet": "baseline", "alexnet": "AlexNet"}  # whose run variance a setting with one run on each fold gets
SHARES, OF_PAIRS = ("static", "collapsed", "zero"), ("loss", "falls", "epoch")
# It ran once, for tuning, on other slices: one mask for all, Dice 0.
NEVER_RAN = "AlexNet, SGD 0.001"


# --- records of the first trial, as the second would have kept them ---------------------------------------


@cache
def _first() -> dict[tuple, dict[int, list]]:
    """What the first trial ran: (recipe without epochs and seed, split) -> epochs -> runs."""
    found: dict[tuple, dict[int, dict]] = {}
    for planned in (p for plan in EXPERIMENTS.values() for p in plan):
        if planned.protocol == "replica" and planned.tta is None and planned.path().is_file():
            by_epochs = found.setdefault((replace(planned.config, epochs=1, seed=0), planned.split), {})
            by_epochs.setdefault(planned.config.epochs, {})[planned.path()] = planned
    return {recipe: {e: list(runs.values()) for e, runs in by_epochs.items()} for recipe, by_epochs in found.items()}


@cache
def records(setting: str) -> dict[int, list[dict]]:
    """The first trial's records of a setting of the second: epochs -> records, each with its end as a milestone.

    A longer run with the same seed contains a shorter one, and has its end as a milestone as well.
    """
    by_epochs: dict[int, list[dict]] = {}
    for split, config in {p.split: p.config for p in second_trial.PLAN if p.setting == setting}.items():
        of_seed: dict[int, list[dict]] = {}
        for epochs, runs in sorted(_first().get((replace(config, epochs=1, seed=0), split), {}).items()):
            for planned in runs:
                record = results.read_record(planned.path())
                ends = of_seed.setdefault(record["seed"], [])
                ends.append({"epoch": epochs, "dice": record["images"]["dice"], "dice_train": record["dice_train"],
                             "loss": record["history"]["loss"][-1], "distinct_masks": record["distinct_masks"]})
                by_epochs.setdefault(epochs, []).append(record | {"milestones": ends[::-1]})
    most = max((len({r["split"] for r in runs}) for runs in by_epochs.values()), default=0)
    return {epochs: runs for epochs, runs in by_epochs.items() if len({r["split"] for r in runs}) == most}


def nearest(offered, asked: int) -> int:
    """Of numbers of epochs, that whose ratio to the one asked is nearest to 1."""
    return min(offered, key=lambda epochs: abs(np.log(epochs / asked)))


def scores(claim: dict, setting: str, epochs: int, asked: int) -> Scores:
    """A claim's endpoint in the first trial's runs of a setting, after ``epochs`` instead of the epochs asked."""
    since = claim.get("since")
    if claim["endpoint"] == "gain":
        since = nearest((e for e in records(setting) if e < epochs), since)
    elif since:
        since *= epochs / asked
    found = claims.scores(records(setting)[epochs], lambda r: claims.endpoint(r, claim["endpoint"], epochs, since))
    # the second trial's seeds differ between folds
    return replace(found, seeds={fold: [10 * s + n for s in seeds] for n, (fold, seeds) in enumerate(found.seeds.items())})


def sides(claim: dict) -> tuple[list[tuple[str, int, Scores]], float, str]:
    """A claim's settings with their epochs and endpoints in the first trial; what else is taken off; and the basis."""
    asked = {claim[s]: claim.get(f"epochs_{s}", claim["epochs"]) for s in "ab" if s in claim and claim[s] != NEVER_RAN}
    if not asked:
        return [], 0.0, "not measured: one run for tuning gave the same mask for every slice"
    if len(set(asked.values())) == 1:  # equal epochs
        shared = set.intersection(*(set(records(s)) for s in asked))
        epochs = dict.fromkeys(asked, nearest(shared, *set(asked.values())))
    else:
        epochs = {s: nearest(records(s), e) for s, e in asked.items()}
    found = [(s, e, scores(claim, s, e, asked[s])) for s, e in epochs.items()]
    folds = sorted(set.intersection(*(set(side.values) for *_, side in found)))
    found = [(s, e, replace(side, values={f: side.values[f] for f in folds}, seeds={f: side.seeds[f] for f in folds}))
             for s, e, side in found]
    at = f"at {' and '.join(str(e) for e in dict.fromkeys(epochs.values()))} epochs"
    basis = "as asked" if epochs == asked else at
    if claim["endpoint"] == "gain" and (since := nearest(
            (e for e in records(claim["a"]) if e < epochs[claim["a"]]), claim["since"])) != claim["since"]:
        basis = f"stands in: gain from epoch {since} to {epochs[claim['a']]}"
    if claim.get("b") == NEVER_RAN:
        basis = "stands in: Dice 0 for AlexNet, SGD 0.001, as one run for tuning had"
    if len(folds) < FOLDS:
        basis += f", on {len(folds)} folds"
    return found, float(claim.get("level", 0.0)), basis


# --- standard errors ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """An estimated difference, and what :func:`cmrtrial.statistics.compare` would make of any number of runs.

    Attributes:
        patients: part of the squared standard error that no run takes away.
        runs: of each side, what the runs add if there is one on each fold.
        reactions: of each side, what is then taken off, as patients react differently to each run; negative.
        variance_of: where the run variances are from, where not from the settings themselves.
    """

    mean: float
    patients: float
    runs: tuple[float, ...]
    reactions: tuple[float, ...]
    variance_of: str = ""

    def error(self, replicates: tuple[int, ...]) -> tuple[float, float]:
        """Standard error and its degrees of freedom, with so many runs of each side on each fold."""
        noise = [-of_one / r for of_one, r in zip(self.reactions, replicates)]
        parts = [(self.patients + sum(noise), PATIENTS - FOLDS)]
        parts += [(n, FOLDS * (r - 1) * (PATIENTS // FOLDS - 1)) for n, r in zip(noise, replicates)]
        parts += [(of_one / r, FOLDS * (r - 1)) for of_one, r in zip(self.runs, replicates)]
        variance = max(self.patients, 0.0) + sum(of_one / r for of_one, r in zip(self.runs, replicates))
        return variance**0.5, variance**2 / sum(part**2 / free for part, free in parts)


def parts(claim: dict, found: list[tuple[str, int, Scores]], off: float) -> Parts:
    """What the squared standard error of a claim about patients is made of, by the parts of ``compare``."""
    signed = [(sign, side) for sign, (*_, side) in zip((1, -1), found)]
    d = [sum(sign * side.values[f].mean(0) for sign, side in signed) - off for f in signed[0][1].values]
    spread = sum(((x - x.mean()) ** 2).sum() for x in d) / (sum(map(len, d)) - len(d))
    runs, reactions, several, names = [], [], [], []
    for setting, epochs, side in found:
        several.append(min(len(y) for y in side.values.values()))
        lent = side if several[-1] > 1 else _lent(claim, setting, names)
        number = min(len(y) for y in lent.values.values()) if lent else 0
        runs.append(number * _runs(lent, PATIENTS)[0] if lent else 0.0)
        reactions.append(number * _interaction(lent, PATIENTS)[0] if lent else 0.0)
    mean = float(np.concatenate(d).mean())
    patients = spread / PATIENTS + sum(r / n for r, n in zip(reactions, several))
    single = [n == 1 for n in several]
    if any(single) and len(d) == FOLDS:  # do the folds scatter more than that?
        known = sum(r / n for r, n, one in zip(runs, several, single) if not one)
        beyond = max((np.var([x.mean() for x in d], ddof=1) - spread * FOLDS / PATIENTS) / FOLDS - known, 0.0)
        if beyond > (lent := sum(r for r, one in zip(runs, single) if one)):
            runs = [(beyond * (r / lent if lent else 1 / sum(single)) if one else r) for r, one in zip(runs, single)]
            names = ["folds"]
    return Parts(mean, patients, tuple(runs), tuple(reactions), ", ".join(dict.fromkeys(names)))


def _lent(claim: dict, setting: str, names: list[str]) -> Scores | None:
    """A claim's endpoint in a setting that has several runs on each fold: the same after other epochs, or of its network."""
    model = next(p.config.model for p in second_trial.PLAN if p.setting == setting)
    for name in (setting, DONORS.get(model, setting)):
        for epochs, runs in records(name).items():
            if claim["endpoint"] != "gain" and len(runs) > FOLDS:
                names.append(f"{name}, {epochs} epochs")
                return scores(claim, name, epochs, claim["epochs"])
    names.append("folds")  # of a gain no setting has several runs
    return None


# --- probabilities of verdicts -----------------------------------------------------------------------------


def chances(se: float, df: float, claim: str, margin: float, alpha: float, truth: float) -> dict[str, float]:
    """Probability of each verdict, by :func:`cmrtrial.statistics.p_values` at the level ``alpha``, if the difference is
    ``truth`` and its standard error ``se``, which is estimated with ``df`` degrees of freedom."""
    estimated = se * np.sqrt(stats.chi2.ppf((np.arange(400) + 0.5) / 400, df) / df)
    estimate = stats.norm(truth, se)
    two, one = (stats.t.isf(a, df) * estimated for a in (alpha / 2, alpha))

    def within(reach):
        return np.maximum(estimate.cdf(reach) - estimate.cdf(-reach), 0.0)

    if claim in ("greater", "less"):
        up, down = estimate.sf(two), estimate.cdf(-two)
        up, down = (up, down) if claim == "greater" else (down, up)
        found = {"confirmed": up, "contradicted": down, "equivalent": within(np.minimum(two, margin - two))}
    elif claim == "equal":
        found = {"confirmed": within(margin - one), "contradicted": 1 - within(margin + two)}
    else:
        found = {"confirmed": estimate.cdf(margin - one), "contradicted": estimate.sf(margin + one)}
    return _with_rest({word: float(chance.mean()) for word, chance in found.items()})


def of_pairs(number: int, sd: float, claim: str, margin: float, alpha: float, truth: float) -> dict[str, float]:
    """The same of so many pairs of runs, each normal round ``truth``, judged by their signs; ``greater`` and ``less``."""
    steps = stats.norm.cdf(np.array([-np.inf, -margin, 0, margin, np.inf]), truth, sd)
    p = np.maximum(np.diff(steps), 1e-300)  # below -margin, up to 0, up to margin, above
    counts = np.array([(i, j, k) for i in range(number + 1) for j in range(number + 1 - i)
                       for k in range(number + 1 - i - j)])
    counts = np.column_stack([counts, number - counts.sum(1)])
    chance = np.exp(special.gammaln(number + 1) - special.gammaln(counts + 1).sum(1) + counts @ np.log(p))
    tail = stats.binom.sf(np.arange(number + 1) - 1, number, 0.5)  # so many or more on one side
    decided = lambda many: 2 * tail[many] <= alpha
    more, less = decided(counts[:, 2:].sum(1)), decided(counts[:, :2].sum(1))
    near = decided(counts[:, 1:].sum(1)) & decided(counts[:, :3].sum(1)) & ~more & ~less
    up, down = (more, less) if claim == "greater" else (less, more)
    return _with_rest({"confirmed": float(chance[up].sum()), "contradicted": float(chance[down].sum()),
                       "equivalent": float(chance[near].sum())})


def shares(of: int, claim: str, level: float, alpha: float, truth: float) -> dict[str, float]:
    """The same of a claim about a share of so many runs, if the share is ``truth``."""
    counts: Counter = Counter()
    for yes in range(of + 1):
        p = p_values(Proportion(yes, of, level), claim, 0.0)
        word = next((word for word, value in p.items() if value <= alpha), "inconclusive")
        counts[word] += float(stats.binom.pmf(yes, of, truth))
    return dict(counts)


def _with_rest(found: dict[str, float]) -> dict[str, float]:
    return found | {"inconclusive": max(1 - sum(found.values()), 0.0)}


# --- the table ---------------------------------------------------------------------------------------------


def replicates_of(setting: str) -> int:
    """Runs of a setting on each fold, as registered."""
    return sum(p.setting == setting for p in second_trial.PLAN) // FOLDS


def row(claim: dict, size: int) -> dict:
    """One line of the table."""
    margin, alpha, name = claim.get("margin", MARGIN), ALPHA / size, claim["endpoint"]
    found = {"id": claim["id"], "family": claim["family"], "size": size, "claim": claim["claim"], "endpoint": name,
             "level": claim.get("level"), "margin": margin}
    names = [claim[s] for s in "ab" if s in claim]
    if name == "seconds":
        timed = comparisons.by_round(*(partial(timing.timed, claim["experiment"], s) for s in names)).difference
        found |= {"basis": "as asked", "estimate": timed.mean, "registered": "10 rounds"}
        errors = {r: (timed.se, timed.df) for r in (*REPLICATES, "registered")}
        of = lambda r, truth: chances(*errors[r], claim["claim"], margin, alpha, truth)
    else:
        planned = tuple(replicates_of(s) for s in names)
        runs = {r: (r,) * len(names) for r in REPLICATES} | {"registered": planned}
        found["registered"] = " and ".join(map(str, planned))
        here, off, found["basis"] = sides(claim)
        if name in SHARES:
            share = np.mean([y for *_, side in here for y in side.values.values()]) if here else np.nan
            found |= {"estimate": share - off if here else None}
            errors = {r: ((share * (1 - share) / (FOLDS * n[0])) ** 0.5, None) for r, n in runs.items()}
            of = lambda r, truth: shares(FOLDS * runs[r][0], claim["claim"], claim["level"], alpha, claim["level"] + truth)
        elif name.startswith(OF_PAIRS):
            d = differences(here, off)
            found["estimate"], sd = float(d.mean()), float(d.std(ddof=1))
            errors = {r: (sd / (FOLDS * min(n)) ** 0.5, None) for r, n in runs.items()}
            of = lambda r, truth: of_pairs(FOLDS * min(runs[r]), sd, claim["claim"], margin, alpha, truth)
        else:
            made = parts(claim, here, off)
            found |= {"estimate": made.mean, "variance of": made.variance_of}
            errors = {r: made.error(n[:len(made.runs)]) for r, n in runs.items()}
            of = lambda r, truth: chances(*errors[r], claim["claim"], margin, alpha, truth)
    truths = {"zero": 0.0, "half": -margin / 2 if claim["claim"] == "less" else margin / 2, "estimate": found["estimate"]}
    for r, (se, _) in errors.items():
        found[f"se {r}"] = se
        for told, truth in truths.items():
            if truth is not None and not (name in SHARES and told == "half"):
                found |= {f"{word} if {told}, {r}": chance for word, chance in of(r, truth).items()}
    return found


def differences(found: list[tuple[str, int, Scores]], off: float) -> np.ndarray:
    """a - b of the first trial's runs in pairs of one fold and seed, or of each run less a number."""
    a, b = found[0][2], found[1][2] if len(found) > 1 else None
    other = lambda f: dict(zip(b.seeds[f], b.values[f][:, 0])) if b else dict.fromkeys(a.seeds[f], off)
    return np.array([y - other(f)[s] for f in a.values for s, y in zip(a.seeds[f], a.values[f][:, 0]) if s in other(f)])


def table() -> pd.DataFrame:
    """The power of every claim, a row for each claim of the first trial; without numbers where none is asked."""
    asked = claims.claims()
    sizes = Counter(c["family"] for c in asked if "family" in c and "verdict" not in c)
    second, rows = {c["id"]: c for c in asked}, []
    for first in first_claims.claims():
        claim = second[first["id"]]
        if "endpoint" not in claim:
            rows.append({"id": first["id"], "family": claim["verdict"]})
        elif "verdict" in claim:  # an ambiguous claim, if it were one more of its family
            of = "run" if claim["endpoint"].startswith(OF_PAIRS) else "equivalence"
            rows.append(row(claim | {"family": f"{claim['verdict']} ({of})"}, sizes[of] + 1))
        else:
            rows.append(row(claim, sizes[claim["family"]]))
    power = pd.DataFrame(rows).set_index("id")
    order = ["family", "size", "claim", "endpoint", "level", "margin", "basis", "variance of", "estimate", "registered"]
    cells = (*REPLICATES, "registered")
    order += [f"se {r}" for r in cells] + [
        f"{word} if {truth}, {r}" for truth in ("zero", "half", "estimate") for r in cells
        for word in ("confirmed", "contradicted", "equivalent", "inconclusive")]
    return power[order]


def main() -> None:
    power = table()
    power.round(9).to_csv(results.STORE / "second-power.csv", float_format="%.8g")
    shown = ["family", "claim", "endpoint", "basis", "variance of", "estimate", "registered", "se registered"]
    for r in ("registered", 10):
        for truth in ("zero", "half", "estimate"):
            decided = [f"{word} if {truth}, {r}" for word in ("confirmed", "contradicted", "equivalent")]
            power[f"{truth} {r}"] = power[decided].sum(axis=1, min_count=1).round(3)
            shown.append(f"{truth} {r}")
    print(power[shown].to_string(float_format=lambda x: f"{x:.4g}"))


if __name__ == "__main__":
    main()
