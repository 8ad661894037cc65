"""Settings compared: from the records of an experiment to tables, differences and their errors.

Two settings are compared in pairs: patient by patient where the quantity belongs to a patient
(Dice), fold by fold where it belongs to a run (time, loss, epochs).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from cmrseg.data import BadInput
from cmrseg.record import mean_dice, read_record
from cmrtrial.plans import EXPERIMENTS, POOLED
from cmrtrial.plans.timing import ROUNDS
from cmrtrial.records import CLASSES, STORE, curve, dice_table
from cmrtrial.second.statistics import Proportion
from cmrtrial.spec import RunSpec
from cmrtrial.statistics import Difference, paired_difference, pooled_run_variance

RUN_COLUMNS = ("setting", "split", "seed", "key", "dice", "dice_best", "loss", "seconds")
RUN_COLUMNS += ("collapsed", "patients", "record")
COLLAPSED = 0.1  # below this Dice a network has drawn next to nothing


# --- reading -------------------------------------------------------------------------------------


def records(name: str, store: Path = STORE) -> list[tuple[RunSpec, dict]]:
    """The records of an experiment on the real slices, with what was planned.

    Raises:
        BadInput: one is missing; the message names the experiment.
    """
    pairs = []
    for spec in EXPERIMENTS[name]:
        path = spec.path(store=store)
        if not path.is_file():
            cure = f"Compute it: python -m cmrtrial sweep {name} --data acdc96"
            raise BadInput(path, f"no record yet for {name}, {spec.setting}", cure)
        pairs.append((spec, read_record(path)))
    return pairs


def runs(name: str, protocol: str = "replica", store: Path = STORE) -> pd.DataFrame:
    """The finished runs of an experiment, a row for each.

    Columns: setting, split (the fold), seed, key, dice (last epoch), dice_best, loss (last
    epoch's), seconds (of the processor; NaN in the oldest records), collapsed, patients (a table of
    the Dice of RV, Myo and LV for each held-out patient, the mean of its slices), and record, the
    whole of it.
    """
    rows = []
    for spec in EXPERIMENTS[name]:
        path = spec.path(store=store)
        if spec.protocol == protocol and path.is_file():
            record, patients = _read(path, path.stat().st_mtime_ns)
            dice, loss = record["dice_last"], (record["history"]["loss"] or [np.nan])[-1]
            row = (spec.setting, spec.fold, spec.config.seed, record["key"])
            row += (dice, record["dice_best"], loss, record.get("cpu_seconds", np.nan))
            rows.append((*row, dice < COLLAPSED, patients, record))
    return pd.DataFrame(rows, columns=RUN_COLUMNS)


@cache
def _read(path: Path, _changed: int) -> tuple[dict, pd.DataFrame]:
    record = read_record(path)
    return record, dice_table(record).groupby("patient")[CLASSES].mean()


def by_patient(table: pd.DataFrame, what: str = "dice") -> pd.Series:
    """Dice of each held-out patient over the runs of a table: Series indexed by patient.

    ``what`` is ``"dice"`` (the mean of RV, Myo and LV), one of the three, or a difference of two,
    such as ``"RV-Myo"``.
    """
    by_class = pd.concat(list(table["patients"])).groupby(level=0).mean()
    if what == "dice":
        return by_class.mean(axis=1)
    first, _, second = what.partition("-")
    return by_class[first] - by_class[second] if second else by_class[first]


def patients_of(settings: Iterable[tuple[str, pd.DataFrame]]) -> dict[str, pd.Series]:
    """Dice of each held-out patient, for every setting of a table grouped by ``"setting"``."""
    return {name: by_patient(table) for name, table in settings}


def mean_curve(table: pd.DataFrame) -> pd.Series:
    """Held-out Dice by scored epoch, mean over the runs of a table: Series indexed by epoch.

    The runs were scored at the same epochs; where a run drew nothing that could be scored, it
    counts as 0.
    """
    curves = [curve(record).set_index("epoch")["mean"].fillna(0) for record in table["record"]]
    return pd.concat(curves, axis=1).mean(axis=1) if curves else pd.Series(dtype=float)


def train_dice(table: pd.DataFrame) -> float:
    """Mean Dice of the slices that runs were trained on; NaN where no record has it."""
    values = [mean_dice(r["dice_train"]) for r in table["record"] if "dice_train" in r]
    return float(np.mean(values or [np.nan]))


def last_gain(table: pd.DataFrame, epochs: int = 10) -> float:
    """Held-out Dice at the last epoch minus that of so many epochs before, mean over runs.

    Far above zero for a setting that was stopped while it still learned.
    """
    dice = mean_curve(table)
    return float(dice.iloc[-1] - dice[dice.index <= dice.index[-1] - epochs].iloc[-1])


def endpoint(record: dict, name: str) -> float:
    """An endpoint of a record: the number a claim is about, see the head of ``claims.toml``."""
    scored = curve(record)
    kind, _, number = name.replace(">", "@").partition("@")
    if kind == "epoch":
        above = scored.loc[scored["mean"] > float(number), "epoch"]
        return float(above.iloc[0]) if len(above) else float(record["config"]["epochs"])
    if kind in ("dice", "gain"):
        dice = float(scored.loc[scored["epoch"] == float(number), "mean"].iloc[0])
        return dice if kind == "dice" else record["dice_last"] - dice
    values = {
        "seconds": lambda: np.log(record["cpu_seconds"]),
        "loss": lambda: record["history"]["loss"][-1],
        "falls": lambda: -scored["mean"].fillna(0).diff().clip(upper=0).sum(),
        "train-gap": lambda: mean_dice(record["dice_train"]) - record["dice_last"],
        "static": lambda: record["distinct_masks"] == 1,
        "collapsed": lambda: record["dice_last"] < COLLAPSED,
    }
    return float(values[kind]())


def network(table: pd.DataFrame) -> str:
    """The network of a setting's runs: ``"unet"``, ``"segnet"``, ..."""
    return table["record"].iloc[0]["config"]["model"]


# --- the variance between runs -------------------------------------------------------------------


@cache
def run_variance(
    protocol: str, what: str = "dice", store: Path = STORE, model: str = "unet"
) -> tuple[float, int]:
    """Variance between seeds of a run's mean Dice over its fold, and its degrees of freedom.

    Pooled over the folds of a network's settings that ran with several seeds, since networks differ
    in it. It is estimated from the experiments made for it (``POOLED``), or from any where a store
    lacks these; and where no setting of this network has several seeds, from those of the others.
    Collapsed runs are left out.

    Raises:
        BadInput: no setting ran with several seeds.
    """
    groups = _seed_groups(POOLED, protocol, what, store)
    groups = groups or _seed_groups(EXPERIMENTS, protocol, what, store)
    if not groups:
        command = f"python -m cmrtrial sweep baseline --protocol {protocol} --data acdc96"
        problem = "holds no setting with several seeds"
        raise BadInput(store / protocol, problem, f"Compute them: {command}")
    same = [values for name, values in groups if name == model]
    return pooled_run_variance(same or [values for _, values in groups])


def _seed_groups(
    names: Iterable[str], protocol: str, what: str, store: Path
) -> list[tuple[str, list[float]]]:
    """Network and mean Dice of each seed's run, for every setting and fold with several seeds."""
    tables = (runs(name, protocol, store) for name in names)
    return [
        (network(group), _run_means(group, what))
        for table in tables
        for _, group in table[table["collapsed"].eq(False)].groupby(["setting", "split"])
        if len(group) > 1
    ]


def _run_means(table: pd.DataFrame, what: str) -> list[float]:
    """Mean Dice over its held-out patients of each run of a table."""
    return [by_patient(table.iloc[[n]], what).mean() for n in range(len(table))]


def seed_variance(
    table: pd.DataFrame, protocol: str, what: str = "dice", store: Path = STORE
) -> tuple[str, float, int]:
    """Between-seed variance of a setting: its source, the variance and its degrees of freedom.

    It is that of the network, see :func:`run_variance`; but of the setting itself where it has
    three seeds or more on each fold and is not among those pooled for the network.
    """
    folds = [group for _, group in table.groupby("split")]
    if min(map(len, folds)) > 2 and not table["collapsed"].any():
        pooled = {spec.key() for name in POOLED for spec in EXPERIMENTS[name]}
        if not pooled & set(table["key"]):
            means = [_run_means(group, what) for group in folds]
            return table["setting"].iloc[0], *pooled_run_variance(means)
    return network(table), *run_variance(protocol, what, store, network(table))


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A difference, and what its error comes from.

    Attributes:
        difference: its mean and interval.
        loadings: what each patient, run or fold contributes to the error: name -> factor of a
            standard normal number. Comparisons that share patients or runs err together.
    """

    difference: Difference | Proportion
    loadings: dict[str, float] = field(default_factory=dict, repr=False)


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame | float,
    protocol: str = "replica",
    what: str = "dice",
    store: Path = STORE,
) -> Comparison:
    """Dice of setting a minus setting b, patient by patient, with both parts of the error.

    Where some runs of a setting collapsed and others did not, the patients of one fold share their
    fate; then folds are compared instead, see :func:`by_fold`.

    Args:
        a, b: rows of :func:`runs`, with runs on the same folds; ``b`` may be a number.
        protocol, store: where the variance between seeds is taken from, see :func:`run_variance`; a
            setting with three seeds on each fold brings its own.
        what: see :func:`by_patient`.
    """
    tables = [side for side in (a, b) if isinstance(side, pd.DataFrame)]
    if any(0 < table["collapsed"].mean() < 1 for table in tables):
        return between_folds(a, b, what)
    other = by_patient(b, what) if isinstance(b, pd.DataFrame) else b
    d = (by_patient(a, what) - other).dropna()
    sources = [seed_variance(table, protocol, what, store) for table in tables]
    shares = defaultdict(float)
    loadings = defaultdict(float)
    loadings |= {f"patient {p}": v / len(d) for p, v in (d - d.mean()).items()}
    for table, source, sign in zip(tables, sources, (1, -1)):
        shares[source] += 1 / len(table)
        for key in table["key"]:
            loadings[f"run {key}"] += sign * source[1] ** 0.5 / len(table)
    run_parts = [(variance * share, df) for (_, variance, df), share in shares.items()]
    return Comparison(paired_difference(d.to_numpy(), 0.0, run_parts), loadings)


def between_folds(a: pd.DataFrame, b: pd.DataFrame | float, what: str = "dice") -> Comparison:
    """Dice of setting a minus setting b, fold by fold, with the spread between folds as the error.

    The arguments are those of :func:`compare`, which borrows the variance between seeds from other
    settings.
    """

    def means(side):
        if isinstance(side, float):
            return side
        return {fold: by_patient(group, what).mean() for fold, group in side.groupby("split")}

    return by_fold(means(a), means(b))


def by_fold(a: dict[str, float], b: dict[str, float] | float = 0.0) -> Comparison:
    """Mean difference of a and b (fold -> value; b may be a number), with a few folds' error."""
    d = np.array([a[fold] - (b[fold] if isinstance(b, dict) else b) for fold in a], dtype=float)
    difference = Difference(float(d.mean()), float(stats.sem(d)), len(d) - 1)
    return Comparison(difference, {f"fold {s}": v / len(d) for s, v in zip(a, d - d.mean())})


def by_round(
    a: Callable[[int], RunSpec], b: Callable[[int], RunSpec], store: Path = STORE
) -> Comparison | str:
    """Logarithm of a's processor time over b's, round by round of the experiment ``clock``.

    Args:
        a, b: what was trained in a round of this number, see :func:`cmrtrial.plans.timing.timed`.

    Returns:
        The comparison, or ``"not run yet"``.
    """
    sides = [{f"round {n}": side(n).path(store=store) for n in ROUNDS} for side in (a, b)]
    if not all(path.is_file() for side in sides for path in side.values()):
        return "not run yet"
    return by_fold(
        *({n: endpoint(read_record(path), "seconds") for n, path in s.items()} for s in sides)
    )


# --- showing -------------------------------------------------------------------------------------


def shown(setting: str) -> str:
    """The name of a setting as pages show it: ``"with skips"`` -> ``"with textbook decoder"``.

    Names in records are frozen, and this switch changes more than where the skips leave.
    """
    return setting.replace("skips", "textbook decoder")


def with_interval(number: str, values, unit: str = "") -> str:
    """``0.812 (0.788 to 0.836)``: an estimate and its interval, which no line break parts."""
    estimate, low, high = (number.format(value).replace("-", "\u2212") for value in values)
    return f"{estimate}{unit} ({low}\u00a0to\u00a0{high})"


def compare_to_baseline(
    name: str, baseline: str, protocol: str = "replica", what: str = "dice", store: Path = STORE
) -> pd.DataFrame:
    """Every setting of an experiment beside its baseline.

    Returns:
        A row for each setting: runs, folds, dice (mean over patients) with its 95 % interval
        (dice_low, dice_high), collapsed (fraction of the runs), and for settings on the baseline's
        folds the paired difference with its own (difference, low, high).
    """
    table = runs(name, protocol, store)
    reference, rows = table[table["setting"] == baseline], {}
    for setting, group in table.groupby("setting", sort=False):
        low, high = compare(group, 0.0, protocol, what, store).difference.interval()
        rows[setting] = {
            "runs": len(group),
            "folds": group["split"].nunique(),
            "dice": by_patient(group, what).mean(),
            "dice_low": low,
            "dice_high": high,
            "collapsed": group["collapsed"].mean(),
        }
        if setting != baseline and set(group["split"]) == set(reference["split"]):
            difference = compare(group, reference, protocol, what, store).difference
            values = (difference.mean, *difference.interval())
            rows[setting] |= dict(zip(("difference", "low", "high"), values))
    return pd.DataFrame(list(rows.values()), index=pd.Index(rows, name="setting"))


def format_table(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What :func:`compare_to_baseline` returned, each number with its interval in one cell."""

    def cells(names: list[str], sign: str) -> list[str]:
        rows = table[names].to_numpy(float)
        return ["" if np.isnan(r[0]) else with_interval(f"{{:{sign}.3f}}", r) for r in rows]

    columns = {
        "trainings": table["runs"],
        "folds": table["folds"],
        "Dice": cells(["dice", "dice_low", "dice_high"], ""),
        "collapsed": table["collapsed"].map("{:.0%}".format),
    }
    used = ["runs", "folds", "collapsed", "dice", "dice_low", "dice_high"]
    if "difference" in table:
        used += ["difference", "low", "high"]
        columns[f"difference from {baseline}"] = cells(used[-3:], "+")
    rest = table.drop(columns=[c for c in table if c in used or c.startswith("dice")])
    rest = rest.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value)
    return pd.DataFrame(columns, index=table.index).rename_axis(None).join(rest)
