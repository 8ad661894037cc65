"""The claims of the second trial, and the verdicts on them.

``results/claims-2.toml`` holds a predicate for every claim of the first trial, registered before the first record;
its head explains the fields, ``results/second/AMENDMENTS.md`` what was changed since. :func:`judge` answers all of them,
and only when every planned run is there or has failed: nobody looks at half a trial.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cmrseg import comparisons, data, experiments, metrics, results, training
from cmrseg.data import BadInput
from cmrtrial import second_trial
from cmrtrial.statistics import MARGIN, Difference, Pairs, Proportion, Scores, compare, holm, p_values, pairs

FAMILIES = {
    "dice": "differences in Dice",
    "equivalence": "equivalences and non-superiorities",
    "time": "times",
    "run": "collapse, static masks, gap, loss and epochs",
    "skips": "the networks between the report's and the textbook's",
}
COLLAPSED, ZERO = 0.1, 0.01  # below this Dice a network has drawn next to nothing; nothing
DIVERGED = ("the loss is", "a weight is no number")  # how the notes of runs begin that failed by diverging


class Withheld(Exception):
    """A claim that the runs there are can't answer, and why."""


def claims(store: Path = results.STORE) -> list[dict]:
    """The claims, and after them the contrasts of our own, as ``claims-2.toml`` has them."""
    found = tomllib.loads((store / "claims-2.toml").read_text(encoding="utf-8"))
    return found["claim"] + found["contrast"]


def records(store: Path = results.STORE) -> dict[str, list[dict]]:
    """The records of the second trial: setting -> records. A run that diverged counts: see :func:`diverged`.

    Raises:
        BadInput: a run is missing, or failed for another reason than that it diverged.
    """
    found, notes = {planned.setting: [] for planned in second_trial.PLAN}, []
    for planned in second_trial.PLAN:
        path, note = planned.path(store=store), experiments.failure(planned, experiments.ACDC96, store)
        if path.is_file():
            found[planned.setting].append(results.read(path))
        elif not note.is_file():
            raise BadInput(path, f"no record: {second_trial.in_words(store)}", "Run tools/second_trial.sh")
        elif not (reason := json.loads(note.read_text(encoding="utf-8"))["reason"]).startswith(DIVERGED):
            raise BadInput(note, f"the run did not diverge, it failed: {reason}",
                           "Mend the cause and remove the note; tools/second_trial.sh makes the run again")
        else:
            notes.append(planned)
    patients = {fold_of(r): r["images"]["patient"] for runs in found.values() for r in runs}
    for planned in notes:
        found[planned.setting].append(diverged(planned, patients[planned.fold.partition("+")[0]]))
    return found


def diverged(planned: experiments.Planned, patients: list[int]) -> dict:
    """What counts as the record of a run that diverged: Dice 0 in every slice from the first epoch on, one mask for all.

    It has no loss and no Dice of training slices: a claim that needs one, or what is computed from Dice at two times
    (``gain``, ``falls``), is inconclusive.
    """
    epochs, nothing, nan = planned.config.epochs, [0.0] * 3, float("nan")
    table, scored = [nothing] * len(patients), training.scored_epochs(epochs, planned.score_every)
    return {"failed": True, "split": planned.split, "seed": planned.config.seed,
            "images": {"patient": patients, "dice": table},
            "history": {"epoch": list(range(1, epochs + 1)), "loss": [nan] * epochs,
                        "dice": [nothing if epoch in scored else None for epoch in range(1, epochs + 1)]},
            "milestones": [{"epoch": epoch, "dice": table, "dice_train": [nan] * 3, "loss": nan, "distinct_masks": 1}
                           for epoch in planned.milestones]}


def fold_of(record: dict) -> str:
    """The fold of a record, whatever was done to its slices."""
    return record["split"].partition("+")[0]


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
    scored = [(e, d) for e, d in zip(record["history"]["epoch"], record["history"]["dice"]) if d is not None and e <= epochs]
    means = metrics.per_class(np.array([dice for _, dice in scored], dtype=float).T)  # of the classes, for each epoch
    return pd.Series(np.nan_to_num(means), index=[float(epoch) for epoch, _ in scored])


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


def dead(runs: list[dict], epochs: int) -> int:
    """How many runs have learnt nothing after so many epochs."""
    return sum(bool(endpoint(record, "collapsed", epochs)[0]) for record in runs)


def scores(runs: list[dict], value: Callable[[dict], np.ndarray], epochs: int | None = None) -> Scores:
    """The endpoint of a setting's runs, by fold; with ``epochs`` also whether their Dice still rises then, and whether some
    of them, but not all, have learnt nothing by then."""
    values: dict[str, list] = {}
    seeds: dict[str, list] = {}
    for record in sorted(runs, key=lambda r: (r["split"], r["seed"])):
        fold = fold_of(record)
        values.setdefault(fold, []).append(value(record))
        seeds.setdefault(fold, []).append(record["seed"])
    rises = 0.0 if epochs is None else float(np.mean([rise(record, epochs) for record in runs]))
    partly = epochs is not None and 0 < dead(runs, epochs) < len(runs)
    return Scores({fold: np.array(rows, dtype=float) for fold, rows in values.items()}, seeds, rises, partly)


# --- verdicts --------------------------------------------------------------------------------------------


def estimate(claim: dict, found: dict[str, list[dict]], store: Path = results.STORE) -> Difference | Proportion | None:
    """What the records say of one claim; None where there is nothing to estimate.

    Raises:
        Withheld: runs failed, or some learnt nothing, and what the claim is about can't be had of them.
    """
    if "endpoint" not in claim:
        return None
    name, level = claim["endpoint"], float(claim.get("level", 0.0))
    if name == "seconds":  # the first trial's clock: short trainings in rounds
        clock = comparisons.by_round(*(partial(experiments.timed, claim["experiment"], claim[side]) for side in "ab"), store)
        return Difference(clock.difference.mean, clock.difference.se, clock.difference.freedom)
    def side(setting: str, epochs: int) -> Scores:
        runs = found[setting]
        if name in ("gap", "gain", "loss", "falls") and (failed := sum(r.get("failed", False) for r in runs)):
            raise Withheld(f"{failed} of {len(runs)} runs failed: {setting}")
        if name in ("gap", "gain") and 0 < (none := dead(runs, epochs)) < len(runs):
            raise Withheld(f"{none} of {len(runs)} runs learnt nothing: {setting}")
        of_dice = name in ("dice", "gain") or name[:2] in ("RV", "My", "LV")
        return scores(runs, lambda record: endpoint(record, name, epochs, claim.get("since")), epochs if of_dice else None)

    a = side(claim["a"], claim["epochs"])
    if name in ("static", "collapsed", "zero"):
        yes = np.concatenate([y.ravel() for y in a.values.values()])
        return Proportion(int(yes.sum()), len(yes), level)
    b = side(claim["b"], claim.get("epochs_b", claim["epochs"])) if "b" in claim else level
    return (pairs if name in ("loss", "falls") or name.startswith("epoch") else compare)(a, b)


def judge(found: dict[str, list[dict]], store: Path = results.STORE) -> pd.DataFrame:
    """Every claim with its estimate and its verdict, indexed by id.

    Args:
        found: what :func:`records` returned.
        store: where the claims and the first trial's clock are.

    Returns:
        Columns text, first (the claim of the first trial that it follows), family, estimate, low, high (a separate
        95 % interval), p (of its verdict, before Holm's correction) and verdict: confirmed, contradicted,
        equivalent, inconclusive; or decided beforehand: ambiguous, not testable here, not repeated, by construction.
        Also more and less (of an endpoint of runs: in how many pairs a is above b, or the level, and below), dead_a and
        dead_b (how many runs have learnt nothing by then), and why (the reason, where no test was made).
    """
    table, families = claims(store), {}
    rows = {c["id"]: {"text": c["text"], "first": c.get("first", ""), "family": c.get("family", ""),
                      "verdict": c.get("verdict", "inconclusive")} for c in table}
    for claim in table:
        row = rows[claim["id"]]
        try:
            answer = estimate(claim, found, store)
        except Withheld as reason:  # stays in its family, and can't be decided
            row["why"] = str(reason)
            if "verdict" not in claim:
                families.setdefault(claim["family"], {})[claim["id"]] = {"inconclusive": 1.0}
            continue
        if answer is None:
            continue
        row["estimate"], (row["low"], row["high"]) = answer.mean, answer.interval()
        if isinstance(answer, Pairs):
            row["more"], row["less"] = (sum(sign * d > 0 for d in answer.differences) for sign in (1, -1))
        for side in "ab" if claim["endpoint"] != "seconds" else "":
            if side in claim:
                row[f"dead_{side}"] = dead(found[claim[side]], claim.get(f"epochs_{side}", claim["epochs"]))
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


def hours(store: Path = results.STORE, source: str | None = None) -> pd.DataFrame:
    """The processor time that all runs of the plan need: a row for each setting.

    Args:
        source: slices on which settings without a record are clocked, for five epochs on one thread; None: theirs is NaN.

    Returns:
        Columns runs, epochs (of a run), records (how many the seconds are the mean of), seconds (an epoch) and hours (of
        all runs, finished ones as well).
    """
    rows: dict[str, dict] = {}
    for planned in second_trial.PLAN:
        row = rows.setdefault(planned.setting, {"runs": 0, "epochs": planned.config.epochs, "records": 0, "seconds": 0.0})
        row["runs"] += 1
        if planned.path(store=store).is_file():
            row["records"] += 1
            row["seconds"] += results.read(planned.path(store=store))["cpu_seconds"] / planned.config.epochs
    for setting, row in rows.items():
        if source and not row["records"]:
            planned = next(p for p in second_trial.PLAN if p.setting == setting)
            run = training.fit(replace(planned.config, epochs=5), *data.split(source, planned.split), score_every=5, milestones=(5,))
            row["seconds"] = run.cpu_seconds / 5
        else:
            row["seconds"] = row["seconds"] / row["records"] if row["records"] else float("nan")
        row["hours"] = row["runs"] * row["epochs"] * row["seconds"] / 3600
    return pd.DataFrame.from_dict(rows, orient="index")
