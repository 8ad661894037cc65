"""Plans hold together, follow the report, and what was chosen was the best that was tried."""

import pytest

from cmrseg import datasets
from cmrseg.config import PRESETS
from cmrseg.record import read_record
from cmrtrial.plans import EXPERIMENTS, best, report, sprint
from cmrtrial.records import STORE
from cmrtrial.spec import ACDC96, FOLDS, RANDOM, TRAIN_FOLDS, TUNE
from cmrtrial.splits import split


def test_every_planned_run_is_filed_in_a_place_of_its_own():
    for name, plan in EXPERIMENTS.items():
        assert plan and len({s.path() for s in plan}) == len(plan), name
        labels = [(s.setting, s.protocol, s.split, s.config.seed) for s in plan]
        assert len(set(labels)) == len(plan), name
        assert all(s.path().parent == STORE / s.protocol for s in plan), name


def test_every_planned_run_is_of_a_known_protocol_and_split(root):
    specs = [spec for plan in EXPERIMENTS.values() for spec in plan]
    for name in {spec.split for spec in specs}:
        assert all(map(len, split(root, name))), name
    assert {spec.protocol for spec in specs} == {*PRESETS, "final"}


def seeds_of(name):
    """(protocol, setting) -> {fold: seeds}."""
    seeds = {}
    for spec in EXPERIMENTS[name]:
        by_fold = seeds.setdefault((spec.protocol, spec.setting), {})
        by_fold.setdefault(spec.fold, set()).add(spec.config.seed)
    return seeds


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_setting_runs_on_all_folds_or_the_first_with_the_same_seeds_on_each(name):
    allowed = [FOLDS, FOLDS[:2], FOLDS[:1], TUNE, TRAIN_FOLDS, ("val",)]
    allowed += [FOLDS + RANDOM] if name == "leakage" else []
    allowed += [("from-phantom",), ("to-phantom",)] if name == "patients" else []
    for setting, seeds in seeds_of(name).items():
        assert tuple(seeds) in allowed, setting
        assert len(set(map(frozenset, seeds.values()))) == 1, setting


def test_what_is_tuned_is_judged_on_training_patients_and_told_by_name():
    for name in ("book-learning-rate", "book-recipe", "architectures-tuning", "optimiser-tuning"):
        assert all(s.split.startswith(("inner", "train-fold")) for s in EXPERIMENTS[name])
        if name.endswith("-tuning"):
            rates = [float(s.setting.rpartition(", ")[2]) for s in EXPERIMENTS[name]]
            assert rates == [s.config.lr for s in EXPERIMENTS[name]]


def test_pages_look_for_records_of_the_real_slices(real):
    assert datasets.load(real, "labelled").fingerprint == ACDC96


# --- what the committed records chose ------------------------------------------------------------


def best_rates(name, protocol):
    """What was tuned -> the rate with the highest last Dice."""
    best = {}
    for spec in (s for s in EXPERIMENTS[name] if s.protocol == protocol):
        what, _, _ = spec.setting.rpartition(", ")
        dice = read_record(spec.path())["dice_last"]
        best[what] = max(best.get(what, (-1, 0)), (dice, spec.config.lr))
    return {what: rate for what, (_, rate) in best.items()}


def test_the_rates_used_are_the_best_that_were_tried():
    for protocol, rates in report.RATES.items():
        assert best_rates("architectures-tuning", protocol) == rates
    used = {name: changes["lr"] for name, changes in report.OWN_RATES.items()}
    assert best_rates("optimiser-tuning", "replica") == used


def test_the_last_of_the_ideas_is_the_sprint():
    ideas = [s for s in EXPERIMENTS["sprint-ideas"] if s.setting in sprint.IDEAS]
    assert [s for s in ideas if not s.config.seed][-1].config == PRESETS["sprint"]


def means(name):
    """The mean Dice of each setting, of the first seed."""
    dice = {}
    for spec in (s for s in EXPERIMENTS[name] if s.config.seed == 0):
        dice.setdefault(spec.setting, []).append(read_record(spec.path())["dice_last"])
    return {setting: sum(values) / len(values) for setting, values in dice.items()}


def test_the_final_recipe_is_the_highest_and_the_small_one_costs_less_than_a_hundredth():
    dice = means("final-ladder")
    assert max(dice, key=dice.get) == best.FINAL
    half = "1000 epochs, half as wide"
    assert (half if dice[half] >= dice[best.FINAL] - 0.01 else best.FINAL) == best.SMALL


def test_the_final_views_are_the_best_of_one_network():
    dice = means("final-ways")
    assert best.TTAS[max(dice, key=dice.get)] == best.FINAL_TTA
