"""Settings compared and claims judged: from the records of an experiment to differences and verdicts.

Two settings are compared in pairs: patient by patient where the quantity belongs to a patient (Dice),
fold by fold where it belongs to a run (time, loss, epochs). ``results/claims.toml`` says what the report
claimed; :func:`judge` answers each claim, and all of them together as one family.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cmrseg import experiments, results, statistics
from cmrseg.data import BadInput
from cmrseg.experiments import Planned
from cmrseg.models.unet import UNet
from cmrseg.statistics import Difference

COLLAPSED = 0.1  # below this Dice a network has drawn next to nothing
FAMILY_DRAWS = 10_000


# --- reading -------------------------------------------------------------------------------------


def runs(name: str, protocol: str = "replica", store: Path = results.STORE) -> pd.DataFrame:
    """The finished runs of an experiment, a row for each.

    Columns: setting, split (the fold), seed, key, dice (last epoch), dice_best, loss (last epoch's),
    seconds (of the processor; NaN in the oldest records), collapsed, patients (a table of the Dice of RV,
    Myo and LV for each held-out patient, the mean of its slices), and record, the whole of it.
    """
    rows = []
    for planned in experiments.EXPERIMENTS[name]:
        path = planned.path(store=store)
        if planned.protocol == protocol and path.is_file():
            found, patients = _read(path, path.stat().st_mtime_ns)
            rows.append({
                "setting": planned.setting, "split": planned.fold, "seed": planned.config.seed,
                "key": found["key"], "dice": found["dice_last"], "dice_best": found["dice_best"],
                "loss": (found["history"]["loss"] or [np.nan])[-1],
                "seconds": found.get("cpu_seconds", np.nan),
                "collapsed": found["dice_last"] < COLLAPSED, "patients": patients, "record": found,
            })
    return pd.DataFrame(rows, columns=["setting", "split", "seed", "key", "dice", "dice_best", "loss",
                                       "seconds", "collapsed", "patients", "record"])


@cache
def _read(path: Path, _changed: int) -> tuple[dict, pd.DataFrame]:
    found = results.read(path)
    return found, results.dice_table(found).groupby("patient")[results.CLASSES].mean()


def by_patient(table: pd.DataFrame, what: str = "dice") -> pd.Series:
    """Dice of each held-out patient over the runs of a table: Series indexed by patient.

    ``what`` is ``"dice"`` (the mean of RV, Myo and LV), one of the three, or a difference of two, such
    as ``"RV-Myo"``.
    """
    each = pd.concat(list(table["patients"])).groupby(level=0).mean()
    if what == "dice":
        return each.mean(axis=1)
    first, _, second = what.partition("-")
    return each[first] - each[second] if second else each[first]


def patients_of(settings: Iterable[tuple[str, pd.DataFrame]]) -> dict[str, pd.Series]:
    """Dice of each held-out patient, for every setting: a table of runs grouped by ``"setting"``, or the like."""
    return {name: by_patient(table) for name, table in settings}


def mean_curve(table: pd.DataFrame) -> pd.Series:
    """Held-out Dice by scored epoch, mean over the runs of a table (empty for none): Series indexed by epoch.

    The runs were scored at the same epochs; where a run drew nothing that could be scored, it counts as 0.
    """
    curves = [results.curve(found).set_index("epoch")["mean"].fillna(0) for found in table["record"]]
    return pd.concat(curves, axis=1).mean(axis=1) if curves else pd.Series(dtype=float)


def learnt(table: pd.DataFrame) -> float:
    """Mean Dice of the slices that the runs of a table were trained on; NaN where no record has it."""
    return float(np.mean([results.mean_dice(found["dice_train"]) for found in table["record"] if "dice_train" in found]
                         or [np.nan]))


def last_gain(table: pd.DataFrame, epochs: int = 10) -> float:
    """Held-out Dice at the last epoch minus that of so many epochs before, mean over the runs of a table.

    Far above zero for a setting that was stopped while it still learned.
    """
    curve = mean_curve(table)
    return float(curve.iloc[-1] - curve[curve.index <= curve.index[-1] - epochs].iloc[-1])


# Names in records are frozen; where one says too little, pages show another.
SHOWN = {"skips": "textbook decoder"}  # one switch of the U-Net that changes more than where the skips leave


def shown(setting: str) -> str:
    """The name of a setting as pages show it: ``"with skips"`` -> ``"with textbook decoder"``."""
    return " ".join(SHOWN.get(word, word) for word in setting.split(" "))


def network(table: pd.DataFrame) -> str:
    """The network of a setting's runs: ``"unet"``, ``"segnet"``, ..."""
    return table["record"].iloc[0]["config"]["model"]


def beats(table: pd.DataFrame, chamber: str) -> pd.DataFrame:
    """Areas of RV, Myo or LV at end-diastole and end-systole, a row for each held-out patient of a table.

    Columns: true ED, true ES, predicted ED, predicted ES, in pixels, and true FAC, predicted FAC: the fractional area
    change, the share of the area at end-diastole that is gone at end-systole. As in the book's slices, odd
    numbers are end-diastole. With several runs on a fold the last counts.
    """
    place, rows = results.CLASSES.index(chamber), {}
    for images in (found["images"] for found in table["record"]):
        columns = (images[k] for k in ("name", "patient", "area_true", "area_pred"))
        for name, patient, true, predicted in zip(*columns):
            moment = "ED" if int(name[3:]) % 2 else "ES"
            row = rows.setdefault(patient, {})
            row[f"true {moment}"], row[f"predicted {moment}"] = true[place], predicted[place]
    found = pd.DataFrame.from_dict(rows, orient="index").sort_index()
    found = found[["true ED", "true ES", "predicted ED", "predicted ES"]]
    return found.assign(**{f"{who} FAC": 1 - found[f"{who} ES"] / found[f"{who} ED"]
                           for who in ("true", "predicted")})


# --- comparing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A difference, and the chance it hangs on.

    Attributes:
        difference: its mean and standard error.
        shares: what each patient, run or fold contributes to the error: name -> factor of a standard
            normal number. Comparisons that share patients or runs err together.
    """

    difference: Difference
    shares: dict[str, float] = field(default_factory=dict, repr=False)


@cache
def run_variance(
    protocol: str, what: str = "dice", store: Path = results.STORE, model: str = "unet"
) -> tuple[float, int]:
    """Variance between seeds of a run's mean Dice over its fold, and its degrees of freedom.

    Pooled over the folds of a network's settings that ran with several seeds: each network has its own luck.
    It is looked for in the experiments made for it, or where a store lacks them in any, and where no setting
    of this network has several seeds, in those of the others. Collapsed runs are left out.

    Raises:
        BadInput: no setting ran with several seeds.
    """
    groups = _seeds(_pooled(), protocol, what, store) or _seeds(experiments.EXPERIMENTS, protocol, what, store)
    if not groups:
        raise BadInput(store / protocol, "holds no setting with several seeds",
                       f"Compute them: python -m cmrseg sweep baseline --protocol {protocol} --data acdc96")
    same = [values for its, values in groups if its == model]
    return statistics.pooled_run_variance(same or [values for _, values in groups])


def _pooled() -> list[str]:
    """The experiments whose seeds tell what luck a network has."""
    return [n for n in ("baseline", "architectures", "final-ladder") if n in experiments.EXPERIMENTS]


def luck_of(
    table: pd.DataFrame, protocol: str, what: str = "dice", store: Path = results.STORE
) -> tuple[str, float, int]:
    """Whose luck a setting's runs have, its variance and its degrees of freedom.

    It is that of the network, see :func:`run_variance`; but a setting outside those pooled for it, with three
    seeds or more on each fold, has told its own.
    """
    folds = [group for _, group in table.groupby("split")]
    if min(map(len, folds)) > 2 and not table["collapsed"].any():
        pooled = {p.key() for name in _pooled() for p in experiments.EXPERIMENTS[name]}
        if not pooled & set(table["key"]):
            each = [_each_run(group, what) for group in folds]
            return table["setting"].iloc[0], *statistics.pooled_run_variance(each)
    return network(table), *run_variance(protocol, what, store, network(table))


def _seeds(names, protocol: str, what: str, store: Path) -> list[tuple[str, list[float]]]:
    """Network and mean Dice of each seed's run, for every setting and fold with several seeds that trained."""
    groups = []
    for name in names:
        table = runs(name, protocol, store)
        for _, group in table[~table["collapsed"].astype(bool)].groupby(["setting", "split"]):
            groups.append((network(group), _each_run(group, what)))
    return [(its, each) for its, each in groups if len(each) > 1]


def _each_run(table: pd.DataFrame, what: str) -> list[float]:
    """Mean Dice over its held-out patients of each run of a table."""
    return [by_patient(table.iloc[[n]], what).mean() for n in range(len(table))]


def compare(
    a: pd.DataFrame, b: pd.DataFrame | float, protocol: str = "replica", what: str = "dice",
    store: Path = results.STORE,
) -> Comparison:
    """Dice of setting a minus setting b, patient by patient, with both parts of the error.

    Where some runs of a setting collapsed and others did not, the patients of one fold share their
    fate; then folds are compared instead, see :func:`by_fold`.

    Args:
        a, b: rows of :func:`runs`, with runs on the same folds; ``b`` may be a number.
        protocol, store: where the variance between seeds is taken from, see :func:`run_variance`; a setting
            with three seeds on each fold brings its own.
        what: see :func:`by_patient`.
    """
    tables = [t for t in (a, b) if isinstance(t, pd.DataFrame)]
    if any(0 < t["collapsed"].mean() < 1 for t in tables):
        return between_folds(a, b, what)
    one, other = (by_patient(t, what) if isinstance(t, pd.DataFrame) else t for t in (a, b))
    whose = [luck_of(table, protocol, what, store) for table in tables]
    luck = [(variance * sum(1 / len(t) for t, its in zip(tables, whose) if its == (name, variance, freedom)),
             freedom) for name, variance, freedom in dict.fromkeys(whose)]
    difference = statistics.paired_difference((one - 0).to_numpy(), np.asarray(other), luck)
    d = (one - other).dropna()
    shares = {f"patient {p}": v / len(d) for p, v in (d - d.mean()).items()}
    for table, (_, variance, _), sign in zip(tables, whose, (1, -1)):
        for key in table["key"]:
            size = variance**0.5 / len(table)
            shares[f"run {key}"] = shares.get(f"run {key}", 0) + sign * size
    return Comparison(difference, shares)


def between_folds(a: pd.DataFrame, b: pd.DataFrame | float, what: str = "dice") -> Comparison:
    """Dice of setting a minus setting b, fold by fold, with the spread between folds as the error.

    The arguments are those of :func:`compare`, which borrows the variance between seeds from other settings.
    """
    return by_fold(*(t if isinstance(t, float) else
                     {s: by_patient(g, what).mean() for s, g in t.groupby("split")} for t in (a, b)))


def seed_effect(table: pd.DataFrame) -> tuple[float, float]:
    """Do runs of one seed resemble each other across folds? F and p of the seed, by a two-way analysis of variance.

    Args:
        table: runs of one setting, each seed once on each fold.
    """
    grid = table.pivot(index="split", columns="seed", values="dice").to_numpy()
    folds, seeds = grid.shape
    rest = grid - grid.mean(0) - grid.mean(1, keepdims=True) + grid.mean()
    freedom = (folds - 1) * (seeds - 1)
    f = folds * grid.mean(0).var(ddof=1) / ((rest**2).sum() / freedom)
    return float(f), float(stats.f.sf(f, seeds - 1, freedom))


def by_fold(a: dict[str, float], b: dict[str, float] | float = 0.0) -> Comparison:
    """Mean difference of a and b (fold -> value, or a number for b), with the error of a few folds."""
    d = np.array([a[s] - (b[s] if isinstance(b, dict) else b) for s in a], dtype=float)
    difference = Difference(float(d.mean()), float(stats.sem(d)), len(d) - 1)
    return Comparison(difference, {f"fold {s}": v / len(d) for s, v in zip(a, d - d.mean())})


def by_round(a: Callable[[int], Planned], b: Callable[[int], Planned], store: Path = results.STORE) -> Comparison | str:
    """Logarithm of a's processor time over b's, round by round of the experiment ``clock``.

    Args:
        a, b: what was trained in a round of this number, see :func:`cmrseg.experiments.timed`.

    Returns:
        The comparison, or ``"not run yet"``.
    """
    sides = [{n: side(n).path(store=store) for n in experiments.ROUNDS} for side in (a, b)]
    if not all(path.is_file() for side in sides for path in side.values()):
        return "not run yet"
    return by_fold(*({f"round {n}": of_run(results.read(path), "seconds") for n, path in side.items()}
                     for side in sides))


def against(
    name: str, baseline: str, protocol: str = "replica", what: str = "dice", store: Path = results.STORE
) -> pd.DataFrame:
    """Every setting of an experiment beside its baseline.

    Returns:
        A row for each setting: runs, folds, dice (mean over patients) with its 95 % interval (dice_low,
        dice_high), collapsed (fraction of the runs), and for settings on the baseline's folds the paired
        difference with its own (difference, low, high).
    """
    table = runs(name, protocol, store)
    reference, rows = table[table["setting"] == baseline], []
    for setting, group in table.groupby("setting", sort=False):
        dice_low, dice_high = compare(group, 0.0, protocol, what, store).difference.interval()
        row = {"setting": setting, "runs": len(group), "folds": group["split"].nunique(),
               "dice": by_patient(group, what).mean(), "dice_low": dice_low, "dice_high": dice_high,
               "collapsed": group["collapsed"].mean()}
        if setting != baseline and set(group["split"]) == set(reference["split"]):
            difference = compare(group, reference, protocol, what, store).difference
            row |= dict(zip(("difference", "low", "high"), (difference.mean, *difference.interval())))
        rows.append(row)
    return pd.DataFrame(rows).set_index("setting")


def legible(found: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """What :func:`against` returned, as a table to be read: each number with its interval in one cell."""
    def cells(names: list[str], sign: str) -> list[str]:
        return ["" if np.isnan(row[0]) else with_interval(f"{{:{sign}.3f}}", row) for row in found[names].to_numpy(float)]

    table = pd.DataFrame({
        "trainings": found["runs"], "folds": found["folds"], "Dice": cells(["dice", "dice_low", "dice_high"], ""),
        "collapsed": found["collapsed"].map("{:.0%}".format)}, index=found.index)
    if "difference" in found:
        table[f"difference from {baseline}"] = cells(["difference", "low", "high"], "+")
    more = found.drop(columns=[c for c in found if c in ("runs", "folds", "collapsed", "difference", "low", "high")
                               or c.startswith("dice")])
    return table.rename_axis(None).join(more.map(lambda value: f"{value:.3f}" if isinstance(value, float) else value))


def same_against_same(
    protocol: str = "replica", draws: int = 1000, seed: int = 0, store: Path = results.STORE
) -> pd.DataFrame:
    """The A/A test: two halves of one setting, compared as if they were two settings.

    For each draw and fold, two of the baseline's seeds are taken at random, one for each side, and the
    sides go through :func:`compare`. There is no true difference, so an interval without zero is an error.

    Returns:
        A row for each draw: difference, low, high, and low_alone, high_alone: the interval that only
        looks at the spread over patients.
    """
    table, rng = runs("baseline", protocol, store), np.random.default_rng(seed)
    folds = [group.index.to_numpy() for _, group in table.groupby("split")]
    rows = []
    for _ in range(draws):
        a, b = zip(*(rng.choice(fold, 2, replace=False) for fold in folds))
        a, b = table.loc[list(a)], table.loc[list(b)]
        found = compare(a, b, protocol, store=store).difference
        alone = statistics.mean_interval((by_patient(a) - by_patient(b)).to_numpy())
        rows.append((found.mean, *found.interval(), *alone))
    return pd.DataFrame(rows, columns=["difference", "low", "high", "low_alone", "high_alone"])


# --- claims --------------------------------------------------------------------------------------


def claims(store: Path = results.STORE) -> list[dict]:
    """The claims of the report, as ``claims.toml`` has them."""
    return tomllib.loads((store / "claims.toml").read_text())["claim"]


def not_asked(store: Path = results.STORE) -> list[dict]:
    """What the report says besides: text, why there is no claim of it, and the page that comes nearest."""
    return tomllib.loads((store / "claims.toml").read_text())["not-asked"]


def judge(store: Path = results.STORE, level: float = 0.95) -> pd.DataFrame:
    """Every claim with its estimate and its verdict.

    The claims are one family: intervals are widened together so that with probability ``level`` all of
    them hold at once (the single-step max-T procedure of Hothorn, Bretz and Westfall 2008, by drawing
    the errors of patients, runs and folds that the comparisons share). Late claims, written down when the
    records were there, are a family of their own.

    Returns:
        A row for each claim: its id, text, source, said, note, ambiguous (why, or nothing), late; where it could be
        tested also estimate, low, high (simultaneous), low_alone, high_alone (its own interval), against (what
        equality would be: 0, or the claim's level); and verdict, ``"not run yet"`` where records are missing. A claim
        that can be read in more than one way stays in its family and keeps its estimate; its verdict is ``"ambiguous"``.
    """
    rows = [dict(id=c["id"], text=c["text"], source=c["source"], said=c["said"],
                 experiment=c.get("experiment"), endpoint=c.get("endpoint"), note=c.get("note", ""),
                 ambiguous=c.get("ambiguous", ""), late=c.get("late", False)) for c in claims(store)]
    asked = {c["id"]: _answer(c, store) for c in claims(store)}
    wides = {}
    for late in (False, True):
        family = [asked[row["id"]] for row in rows if row["late"] == late]
        family = [answer for answer in family if not isinstance(answer, str)]
        wides[late] = family_level(family, level) if family else level
    for row, claim in zip(rows, claims(store)):
        answer = asked[claim["id"]]
        if isinstance(answer, str):
            row["verdict"] = answer
            continue
        found = answer.difference if isinstance(answer, Comparison) else answer
        margin = claim.get("margin", statistics.MARGIN)
        row["estimate"], row["against"] = found.mean, claim.get("level", 0.0)
        row["low"], row["high"] = found.interval(wides[row["late"]])
        row["low_alone"], row["high_alone"] = found.interval(level)
        row["verdict"] = statistics.verdict((row["low"], row["high"]), claim["claim"], margin)
        row["alone"] = statistics.verdict((row["low_alone"], row["high_alone"]), claim["claim"], margin)
        if row["ambiguous"]:  # no interval says what the report meant
            row["verdict"] = row["alone"] = "ambiguous"
    return pd.DataFrame(rows)


def verdicts(name: str, *ids: str, store: Path = results.STORE) -> pd.DataFrame:
    """The claims about one experiment (with ``ids``: only those), in words: claim -> verdict, what we found,
    what was said.

    Intervals are the wide ones that hold together for all claims, or for all late ones; a late claim says so.
    """
    found = judge(store)
    found = found[(found["experiment"] == name) & (found["id"].isin(ids) if ids else True)]
    shown = [in_words(row) for row in found.to_dict("records")]
    words = found["verdict"].where(~found["late"], found["verdict"] + " (asked late)")
    return pd.DataFrame({"verdict": words.tolist(), "we found": shown,
                         "the report said": found["said"].tolist()}, index=found["text"].tolist())


def with_interval(number: str, values, unit: str = "") -> str:
    """``0.812 (0.788 to 0.836)``: an estimate and its interval; a line may break between the two, not within."""
    estimate, low, high = (number.format(value).replace("-", "\u2212") for value in values)
    return f"{estimate}{unit} ({low}\u00a0to\u00a0{high})"


# What an endpoint measures, where it is not the Dice of the last epoch.
QUANTITIES = {"dice@30": "Dice at epoch 30", "gain@140": "Dice, last epoch minus epoch 140", "loss": "training loss",
              "train-gap": "Dice, training minus held-out slices", "falls": "Dice, all its falls added up",
              "epoch>0.5": "epochs until Dice is above 0.5"}


def in_words(row) -> str:
    """What was measured for a claim, a row of :func:`judge`: the estimate and its interval, or nothing."""
    estimate = row.get("estimate")
    if estimate is None or np.isnan(estimate):
        return ""
    values = np.array([estimate, row["low"], row["high"]])
    if row["endpoint"] == "seconds":
        return with_interval("{:.2f}", np.exp(values), " times")
    if row["endpoint"] in ("static", "collapsed"):
        return with_interval("{:.0%}", values + row["against"], " of the runs")
    quantity = ", " + QUANTITIES[row["endpoint"]] if row["endpoint"] in QUANTITIES else ""
    if row["against"]:
        return with_interval("{:.3f}", values + row["against"]) + quantity
    return with_interval("{:+.0f}" if row["endpoint"].startswith("epoch") else "{:+.3f}", values) + quantity


@dataclass(frozen=True)
class Share:
    """A share of runs, minus a level; its interval is Wilson's (1927), which suits a few runs."""

    yes: int
    of: int
    level: float

    @property
    def mean(self) -> float:
        return self.yes / self.of - self.level

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        found = stats.binomtest(self.yes, self.of).proportion_ci(level, method="wilson")
        return found.low - self.level, found.high - self.level


def family_level(contrasts: list[Comparison | Share], level: float = 0.95, seed: int = 0) -> float:
    """The level that each interval must have so that all hold at once with probability ``level``."""
    names = sorted({name for c in contrasts if isinstance(c, Comparison) for name in c.shares})
    place = {name: i for i, name in enumerate(names)}
    factors = np.zeros((len(names), len(contrasts)))
    for column, contrast in enumerate(contrasts):
        for name, value in getattr(contrast, "shares", {}).items():
            factors[place[name], column] = value
    rng = np.random.default_rng(seed)
    size = np.sqrt((factors**2).sum(0))
    errors = rng.standard_normal((FAMILY_DRAWS, len(names))) @ (factors / np.where(size > 0, size, 1))
    errors[:, size == 0] = rng.standard_normal((FAMILY_DRAWS, (size == 0).sum()))  # shares of runs
    largest = np.abs(errors).max(1)
    return float(2 * stats.norm.cdf(np.quantile(largest, level)) - 1)


def _answer(claim: dict, store: Path) -> Comparison | Share | str:
    """What the records say of one claim, or why they say nothing."""
    if claim["claim"] == "none":
        return "not testable here"
    if claim["claim"] == "shape":
        return "confirmed" if _sixth_block_fails() else "contradicted"
    name, endpoint = claim["experiment"], claim["endpoint"]
    if name not in experiments.EXPERIMENTS:
        return "not run yet"
    table = runs(name, "replica", store)
    sides = [table[table["setting"] == claim.get("setting", claim[s])] for s in ("a", "b") if s in claim]
    planned = {(p.setting, p.fold, p.config.seed) for p in experiments.EXPERIMENTS[name]
               if p.protocol == "replica" and p.setting in set(claim.values())}
    if not planned or planned - set(table[["setting", "split", "seed"]].itertuples(index=False, name=None)):
        return "not run yet"
    if endpoint == "class":
        what = f"{claim['a']}-{claim['b']}"
        return compare(sides[0], 0.0, "replica", what, store)
    level = float(claim.get("level", 0.0))
    if endpoint in ("dice", *results.CLASSES):
        other = sides[1] if len(sides) == 2 else level
        return compare(sides[0], other, "replica", endpoint, store)
    if endpoint == "seconds":
        return by_round(*(partial(experiments.timed, name, claim[s]) for s in ("a", "b")), store=store)
    values = [{split: group["record"].map(lambda r: of_run(r, endpoint)).mean()
               for split, group in side.groupby("split")} for side in sides]
    if endpoint in ("static", "collapsed"):
        yes = sides[0]["record"].map(lambda r: of_run(r, endpoint))
        return Share(int(yes.sum()), len(yes), level)
    return by_fold(values[0], values[1] if len(values) == 2 else level)


def of_run(found: dict, endpoint: str) -> float:
    """An endpoint of one record, see the head of ``claims.toml``."""
    curve = results.curve(found)
    name, _, number = endpoint.replace(">", "@").partition("@")
    if name == "epoch":
        above = curve.loc[curve["mean"] > float(number), "epoch"]
        return float(above.iloc[0]) if len(above) else float(found["config"]["epochs"])
    if name in ("dice", "gain"):
        at = float(curve.loc[curve["epoch"] == float(number), "mean"].iloc[0])
        return at if name == "dice" else found["dice_last"] - at
    return float({
        "seconds": lambda: np.log(found["cpu_seconds"]),
        "loss": lambda: found["history"]["loss"][-1],
        "falls": lambda: float(-curve["mean"].fillna(0).diff().clip(upper=0).sum()),
        "train-gap": lambda: results.mean_dice(found["dice_train"]) - found["dice_last"],
        "static": lambda: found["distinct_masks"] == 1,
        "collapsed": lambda: found["dice_last"] < COLLAPSED,
    }[name]())


def _sixth_block_fails() -> bool:
    """Whether a sixth block of the report's U-Net is at odds with 96 pixels, which halve five times."""
    net = UNet((1,) * 6, skips="after")
    try:
        net(torch.zeros(2, 1, 96, 96))
    except RuntimeError:
        return True
    return False
