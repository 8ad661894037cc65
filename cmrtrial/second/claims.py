"""The claims of the second trial, and the verdicts on them.

``results/claims-2.toml`` holds a predicate for every claim of the first trial, registered before the first record;
its head explains the fields. :func:`judge` answers all of them, and only when every planned run is there: nobody
looks at half a trial.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cmrseg import metrics
from cmrseg.data import BadInput
from cmrtrial import compare as comparisons
from cmrtrial import records as results
from cmrtrial.plans import timing
from cmrtrial.second import plan as second_trial
from cmrtrial.second.statistics import MARGIN, Difference, Proportion, Scores, compare, holm, p_values

FAMILIES = {
    "dice": "differences in Dice",
    "equivalence": "equivalences and non-superiorities",
    "time": "times",
    "run": "collapse, static masks, gap, loss and epochs",
    "skips": "the networks between the report's and the textbook's",
}
COLLAPSED, ZERO = 0.1, 0.01  # below this Dice a network has drawn next to nothing; nothing


def claims(store: Path = results.STORE) -> list[dict]:
    """The claims, and after them the contrasts of our own, as ``claims-2.toml`` has them."""
    found = tomllib.loads((store / "claims-2.toml").read_text(encoding="utf-8"))
    return found["claim"] + found["contrast"]


def records(store: Path = results.STORE) -> dict[str, list[dict]]:
    """The records of the second trial: setting -> records.

    Raises:
        BadInput: runs are missing, or one failed.
    """
    found: dict[str, list[dict]] = {}
    for planned in second_trial.PLAN:
        path = planned.path(store=store)
        if not path.is_file():
            raise BadInput(path, f"no record: {second_trial.in_words(store)}", "Run tools/second_trial.sh")
        found.setdefault(planned.setting, []).append(results.read_record(path))
    return found


# --- endpoints -------------------------------------------------------------------------------------------


def patient_dice(record: dict, epochs: int, what: str = "dice") -> np.ndarray:
    """Dice of each held-out patient at a milestone, float64 (P,), patients ascending.

    A patient's value for a class is the mean of its slices. ``what`` is ``"dice"`` (the mean of RV, Myo and LV), one
    of the three, or a difference of two, such as ``"RV-Myo"``.
    """
    table = pd.DataFrame(np.array(milestone(record, epochs)["dice"], dtype=float), columns=results.CLASSES)
    by_class = table.groupby(np.array(record["images"]["patient"])).mean()
    if what == "dice":
        return by_class.mean(axis=1).to_numpy()
    first, _, second = what.partition("-")
    return (by_class[first] - by_class[second] if second else by_class[first]).to_numpy()


def milestone(record: dict, epochs: int) -> dict:
    """What a run kept at a milestone."""
    return next(m for m in record["milestones"] if m["epoch"] == epochs)


def _curve(record: dict, epochs: int) -> pd.Series:
    """Held-out Dice by scored epoch, up to a milestone; 0 where nothing could be scored."""
    curve = results.curve(record).set_index("epoch")["mean"].fillna(0)
    return curve[curve.index <= epochs]


def endpoint(record: dict, name: str, epochs: int, since: int | None = None) -> np.ndarray:
    """An endpoint of one run after so many epochs: a value for each held-out patient, or one for the run.

    See the head of ``claims-2.toml`` for what the names mean.
    """
    if name == "gap":
        return results.mean_dice(milestone(record, epochs)["dice_train"]) - patient_dice(record, epochs)
    if name == "gain":
        return patient_dice(record, epochs) - patient_dice(record, since)
    if name == "loss":
        return np.array([milestone(record, epochs)["loss"]])
    if name == "falls":
        curve = _curve(record, epochs)
        return np.array([-curve[curve.index >= (since or 0)].diff().clip(upper=0).sum()])
    if name.startswith("epoch>"):
        curve = _curve(record, epochs)
        above = curve.index[curve > float(name.removeprefix("epoch>"))]
        return np.array([float(above[0]) if len(above) else float(epochs)])
    if name == "epoch-95":
        curve = _curve(record, epochs)
        reached = curve.index[curve >= 0.95 * curve.max()]
        return np.array([float(reached[0]) if curve.max() >= COLLAPSED else float(epochs)])
    if name == "static":
        return np.array([milestone(record, epochs)["distinct_masks"] == 1])
    if name in ("collapsed", "zero"):
        dice = metrics.mean(np.array(milestone(record, epochs)["dice"], dtype=float))
        return np.array([dice < (COLLAPSED if name == "collapsed" else ZERO)])
    return patient_dice(record, epochs, name)


def rise(record: dict, epochs: int) -> float:
    """By how much held-out Dice rose over the last fifth of so many epochs."""
    curve = _curve(record, epochs)
    return float(curve.iloc[-1] - curve[curve.index <= 0.8 * epochs].iloc[-1])


def scores(runs: list[dict], value: Callable[[dict], np.ndarray], epochs: int | None = None) -> Scores:
    """The endpoint of a setting's runs, by fold; with ``epochs`` also whether their Dice still rises then."""
    values: dict[str, list] = {}
    seeds: dict[str, list] = {}
    for record in sorted(runs, key=lambda r: (r["split"], r["seed"])):
        fold = record["split"].partition("+")[0]
        values.setdefault(fold, []).append(value(record))
        seeds.setdefault(fold, []).append(record["seed"])
    rises = 0.0 if epochs is None else float(np.mean([rise(record, epochs) for record in runs]))
    return Scores({fold: np.array(rows, dtype=float) for fold, rows in values.items()}, seeds, rises)


# --- verdicts --------------------------------------------------------------------------------------------


def estimate(claim: dict, found: dict[str, list[dict]], store: Path = results.STORE) -> Difference | Proportion | None:
    """What the records say of one claim; None where there is nothing to estimate."""
    if "endpoint" not in claim:
        return None
    name, level = claim["endpoint"], float(claim.get("level", 0.0))
    if name == "seconds":  # the first trial's clock: short trainings in rounds
        clock = comparisons.by_round(*(partial(timing.timed, claim["experiment"], claim[side]) for side in "ab"), store)
        return Difference(clock.difference.mean, clock.difference.se, clock.difference.df)
    def side(setting: str, epochs: int) -> Scores:
        of_dice = name in ("dice", "gain") or name[:2] in ("RV", "My", "LV")
        return scores(found[setting], lambda record: endpoint(record, name, epochs, claim.get("since")),
                      epochs if of_dice else None)

    a = side(claim["a"], claim["epochs"])
    if name in ("static", "collapsed", "zero"):
        yes = np.concatenate([y.ravel() for y in a.values.values()])
        return Proportion(int(yes.sum()), len(yes), level)
    if "b" not in claim:
        return compare(a, level)
    return compare(a, side(claim["b"], claim.get("epochs_b", claim["epochs"])))


def judge(found: dict[str, list[dict]], store: Path = results.STORE) -> pd.DataFrame:
    """Every claim with its estimate and its verdict, indexed by id.

    Args:
        found: what :func:`records` returned.
        store: where the claims and the first trial's clock are.

    Returns:
        Columns text, first (the claim of the first trial that it follows), family, estimate, low, high (a separate
        95 % interval), p (of its verdict, before Holm's correction) and verdict: confirmed, contradicted,
        equivalent, inconclusive; or decided beforehand: ambiguous, not testable here, not repeated, by construction.
    """
    table, families = claims(store), {}
    rows = {c["id"]: {"text": c["text"], "first": c.get("first", ""), "family": c.get("family", ""),
                      "verdict": c.get("verdict", "inconclusive")} for c in table}
    for claim in table:
        answer = estimate(claim, found, store)
        if answer is None:
            continue
        row = rows[claim["id"]]
        row["estimate"], (row["low"], row["high"]) = answer.mean, answer.interval()
        if "verdict" not in claim:  # an ambiguous claim is measured, and counts in no family
            families.setdefault(claim["family"], {})[claim["id"]] = p_values(
                answer, claim["claim"], claim.get("margin", MARGIN))
    for family in families.values():
        for name, verdict in zip(family, holm(list(family.values()))):
            rows[name]["verdict"], rows[name]["p"] = verdict, min(family[name].values())
    return pd.DataFrame.from_dict(rows, orient="index")


def half_width(found: dict[str, list[dict]], store: Path = results.STORE) -> pd.DataFrame:
    """Do the signs of contrasts hold at half the report's width? One run on each fold: no intervals, only signs.

    Returns:
        A row for each contrast: quarter (mean difference), half, and folds (how many of the five agree in sign with
        the quarter's mean).
    """
    rows = {}
    for pair in tomllib.loads((store / "claims-2.toml").read_text(encoding="utf-8"))["half-width"]:
        means = []
        for a, b in (pair["quarter"], pair["half"]):
            sides = [scores(found[s], partial(endpoint, name="dice", epochs=pair["epochs"])).values for s in (a, b)]
            means.append(np.array([sides[0][f].mean() - sides[1][f].mean() for f in sides[0]]))
        rows[pair["id"]] = {"quarter": means[0].mean(), "half": means[1].mean(),
                            "folds": int((np.sign(means[1]) == np.sign(means[0].mean())).sum())}
    return pd.DataFrame.from_dict(rows, orient="index")
