"""The first trial's claims and the verdicts on them.

``results/claims.toml`` says what the report claimed; :func:`judge` answers each claim, and all of
them together as one family.
"""

import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from cmrseg.models.report_unet import ReportUNet
from cmrtrial.compare import Comparison, by_fold, by_round, compare, endpoint, runs, with_interval
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.plans.timing import timed
from cmrtrial.records import CLASSES, STORE
from cmrtrial.second.statistics import Proportion
from cmrtrial.statistics import MARGIN, verdict

FAMILY_DRAWS = 10_000


def claims(store: Path = STORE) -> list[dict]:
    """The claims of the report, as ``claims.toml`` has them."""
    return tomllib.loads((store / "claims.toml").read_text(encoding="utf-8"))["claim"]


def not_asked() -> list[dict]:
    """Statements of the report that are not tested: text, why not, and the page nearest to them."""
    return tomllib.loads((STORE / "claims.toml").read_text(encoding="utf-8"))["not-asked"]


def judge(store: Path = STORE, level: float = 0.95) -> pd.DataFrame:
    """Every claim with its estimate and its verdict.

    The claims are one family: intervals are widened together so that with probability ``level`` all
    of them hold at once (the single-step max-T procedure of Hothorn, Bretz and Westfall 2008, by
    drawing the errors of patients, runs and folds that the comparisons share). Late claims, written
    down when the records were there, are a family of their own.

    Returns:
        A row for each claim: its id, text, source, said, note, ambiguous (why, or nothing), late;
        where it could be tested also estimate, low, high (simultaneous), low_alone, high_alone (its
        own interval), against (what equality would be: 0, or the claim's level); and verdict,
        ``"not run yet"`` where records are missing. A claim that can be read in more than one way
        stays in its family and keeps its estimate; its verdict is ``"ambiguous"``.
    """
    table = claims(store)
    answers = [evaluate_claim(claim, store) for claim in table]
    levels = {}
    for late in (False, True):
        family = [a for a, claim in zip(answers, table) if claim.get("late", False) == late]
        family = [answer for answer in family if not isinstance(answer, str)]
        levels[late] = family_level(family, level) if family else level
    return pd.DataFrame([_row(c, a, levels, level) for c, a in zip(table, answers)])


def _row(claim: dict, answer: Comparison | str, levels: dict[bool, float], level: float) -> dict:
    """A row of :func:`judge`; ``levels`` are those of the intervals of a family, late or not."""
    row = {name: claim[name] for name in ("id", "text", "source", "said")}
    row |= {name: claim.get(name) for name in ("experiment", "endpoint")}
    row |= {"note": claim.get("note", ""), "ambiguous": claim.get("ambiguous", "")}
    row["late"] = claim.get("late", False)
    if isinstance(answer, str):
        return row | {"verdict": answer}
    estimate = answer.difference
    row |= {"estimate": estimate.mean, "against": claim.get("level", 0.0)}
    row["low"], row["high"] = estimate.interval(levels[row["late"]])
    row["low_alone"], row["high_alone"] = estimate.interval(level)
    margin = claim.get("margin", MARGIN)
    row["verdict"] = verdict((row["low"], row["high"]), claim["claim"], margin)
    row["alone"] = verdict((row["low_alone"], row["high_alone"]), claim["claim"], margin)
    if row["ambiguous"]:  # no interval says what the report meant
        row["verdict"] = row["alone"] = "ambiguous"
    return row


def family_level(contrasts: list[Comparison], level: float = 0.95) -> float:
    """The level of each interval at which all hold at once with probability ``level``."""
    # what each patient, run or fold (a row) adds to the error of each contrast (a column)
    loadings = pd.DataFrame(dict(enumerate(contrast.loadings for contrast in contrasts)))
    factors = np.ascontiguousarray(loadings.sort_index().fillna(0))
    rng = np.random.default_rng(0)
    size = np.sqrt((factors**2).sum(0))
    draws = rng.standard_normal((FAMILY_DRAWS, len(factors)))
    errors = draws @ (factors / np.where(size > 0, size, 1))
    shares = (size == 0).sum()  # of runs
    errors[:, size == 0] = rng.standard_normal((FAMILY_DRAWS, shares))
    largest = np.abs(errors).max(1)
    return float(2 * stats.norm.cdf(np.quantile(largest, level)) - 1)


# --- one claim -----------------------------------------------------------------------------------


def evaluate_claim(claim: dict, store: Path = STORE) -> Comparison | str:
    """The difference or share of runs that a claim is about, from the records; or a verdict.

    The verdict of a claim without records: that it is not testable, was not run yet, or, where it
    is about the shape of a network, whether it holds.
    """
    if claim["claim"] == "none":
        return "not testable here"
    if claim["claim"] == "shape":
        return "confirmed" if _sixth_block_fails() else "contradicted"
    name, kind = claim["experiment"], claim["endpoint"]
    paths = [
        spec.path(store=store)
        for spec in EXPERIMENTS.get(name, ())
        if spec.protocol == "replica" and spec.setting in claim.values()
    ]
    if not paths or not all(path.is_file() for path in paths):
        return "not run yet"
    table = runs(name, "replica", store)
    sides = [table[table["setting"] == claim.get("setting", claim[s])] for s in "ab" if s in claim]
    level = float(claim.get("level", 0.0))
    if kind == "class":
        return compare(sides[0], 0.0, "replica", f"{claim['a']}-{claim['b']}", store)
    if kind in ("dice", *CLASSES):
        return compare(sides[0], sides[1] if len(sides) == 2 else level, "replica", kind, store)
    if kind == "seconds":
        return by_round(*(partial(timed, name, claim[side]) for side in "ab"), store=store)
    values = [side.assign(value=[endpoint(r, kind) for r in side["record"]]) for side in sides]
    if kind in ("static", "collapsed"):
        return Comparison(Proportion(int(values[0]["value"].sum()), len(sides[0]), level))
    means = [side.groupby("split")["value"].mean().to_dict() for side in values]
    return by_fold(means[0], means[1] if len(means) == 2 else level)


def _sixth_block_fails() -> bool:
    """Whether 96 pixels, which halve five times, are too few for a sixth block of its U-Net."""
    net = ReportUNet((1,) * 6)
    try:
        net(torch.zeros(2, 1, 96, 96))
    except RuntimeError:
        return True
    return False


# --- in words ------------------------------------------------------------------------------------


def verdicts(name: str, *ids: str, store: Path = STORE) -> pd.DataFrame:
    """The claims about one experiment in words: claim -> verdict, what we found, what was said.

    With ``ids`` only those. Intervals are the wide ones that hold together for all claims, or for
    all late ones; a late claim says so.
    """
    table = judge(store)
    table = table[(table["experiment"] == name) & (table["id"].isin(ids) if ids else True)]
    words = table["verdict"].where(~table["late"], table["verdict"] + " (asked late)")
    columns = {
        "verdict": words.tolist(),
        "we found": [in_words(row) for row in table.to_dict("records")],
        "the report said": table["said"].tolist(),
    }
    return pd.DataFrame(columns, index=table["text"].tolist())


# What an endpoint measures, where it is not the Dice of the last epoch.
QUANTITIES = {
    "dice@30": "Dice at epoch 30",
    "gain@140": "Dice, last epoch minus epoch 140",
    "loss": "training loss",
    "train-gap": "Dice, training minus held-out slices",
    "falls": "Dice, all its falls added up",
    "epoch>0.5": "epochs until Dice is above 0.5",
}


def in_words(row) -> str:
    """The estimate of a claim and its interval, from a row of :func:`judge`; or nothing."""
    estimate, kind = row.get("estimate"), row["endpoint"]
    if estimate is None or np.isnan(estimate):
        return ""
    values = np.array([estimate, row["low"], row["high"]])
    if kind == "seconds":
        return with_interval("{:.2f}", np.exp(values), " times")
    if kind in ("static", "collapsed"):
        return with_interval("{:.0%}", values + row["against"], " of the runs")
    quantity = ", " + QUANTITIES[kind] if kind in QUANTITIES else ""
    if row["against"]:
        return with_interval("{:.3f}", values + row["against"]) + quantity
    return with_interval("{:+.0f}" if kind.startswith("epoch") else "{:+.3f}", values) + quantity
