"""Made-up experiments and records with a known truth, for the tests of this folder."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from cmrtrial import compare
from cmrtrial.compare import run_variance
from cmrtrial.plans import EXPERIMENTS, POOLED
from cmrtrial.plans.timing import ROUNDS, timed
from cmrtrial.records import write_record
from cmrtrial.spec import ACDC96, FOLDS, runs

PATIENTS = {f"fold{k}": [p for p in range(1, 61) if p % 5 == k] for k in range(5)}


@pytest.fixture
def only(monkeypatch):
    """``only(name=plan, ...)``: as if these experiments were all there are."""

    def put(**plans):
        for name in list(EXPERIMENTS):
            monkeypatch.delitem(EXPERIMENTS, name)
        for name, plan in plans.items():
            monkeypatch.setitem(EXPERIMENTS, name, plan)
        monkeypatch.setattr(compare, "POOLED", [name for name in POOLED if name in plans])
        run_variance.cache_clear()

    yield put
    run_variance.cache_clear()


def made_up(spec, rng, effect=0.0, run_sd=0.02, hearts=None, collapsed=False):
    """A record: patients have the Dice of their hearts, an effect, luck of the run, and noise."""
    patients = np.repeat(PATIENTS[spec.split], 2)
    luck = rng.normal(0, run_sd)
    dice = np.array([[hearts[p] + effect + luck] * 3 for p in patients])
    dice = (dice + rng.normal(0, 0.02, (24, 3))) * (0 if collapsed else 1)
    curve = [[0.0] * 3, [0.3] * 3, dice.mean(0).tolist()]
    names = [f"cmr{i}" for i in range(24)]
    return {
        "version": 1,
        "protocol": spec.protocol,
        "key": spec.key(),
        "config": asdict(spec.config),
        "split": spec.split,
        "seed": spec.config.seed,
        "fingerprint": ACDC96,
        "dice_last": float(dice.mean()),
        "dice_best": float(dice.mean()),
        "dice_train": [0.95] * 3,
        "history": {"epoch": [20, 40, 60], "loss": [0.3, 0.2, 0.1], "dice": curve},
        "images": {"name": names, "patient": patients.tolist(), "dice": dice.tolist()},
        "cpu_seconds": 100.0 * (1 + effect),
        "distinct_masks": 1 if collapsed else 24,
    }


@pytest.fixture
def trial(only, tmp_path):
    """Write an experiment ``trial`` of settings (name -> effect) and a baseline of five seeds."""

    def build(effects, seed=0, collapses=()):
        rng = np.random.default_rng(seed)
        hearts = dict(zip(range(1, 61), rng.normal(0.85, 0.05, 60)))
        rates = {name: {"lr": 0.5 + n} for n, name in enumerate(effects)}
        plan = runs("replica", FOLDS, settings=rates) if effects else []
        baseline = runs("replica", FOLDS, range(5))
        only(baseline=baseline, architectures=[], trial=[*plan, *runs("modern", FOLDS[:1])])
        for spec in baseline + plan:
            gone, effect = (spec.setting, spec.split) in collapses, effects.get(spec.setting, 0)
            write_record(made_up(spec, rng, effect, hearts=hearts, collapsed=gone), tmp_path)
        (elsewhere,) = runs("modern", FOLDS[:1])  # of another recipe
        write_record(made_up(elsewhere, np.random.default_rng(0), hearts=hearts), tmp_path)
        for number in ROUNDS:
            slow = rng.uniform(1, 2)  # each round has a machine of its own
            for name, effect in effects.items():
                spec = timed("trial", name, number)
                record = made_up(replace(spec, split="fold0"), rng, effect, hearts=hearts)
                seconds = slow * rng.uniform(0.99, 1.01) * record["cpu_seconds"]
                record |= {"key": spec.key(), "split": "val", "cpu_seconds": seconds}
                write_record(record, tmp_path)
        return tmp_path

    return build


def wild_runs(store, setting, **changes):
    """Three seeds on each fold of a setting whose trainings scatter widely, recorded."""
    rng, hearts = np.random.default_rng(1), dict.fromkeys(range(1, 61), 0.5)
    plan = runs("replica", FOLDS, range(3), {setting: changes})
    for spec in plan:
        write_record(made_up(spec, rng, run_sd=0.08, hearts=hearts), store)
    run_variance.cache_clear()
    return plan
