"""Plans hold together, follow the report, and what was chosen was the best that was tried."""

import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace

import pytest
from conftest import REPOSITORY

from cmrseg import datasets
from cmrseg.config import PRESETS
from cmrseg.record import read_record
from cmrtrial.plans import EXPERIMENTS, best, report, sprint
from cmrtrial.records import STORE, reported_numbers
from cmrtrial.spec import ACDC96, FOLDS, RANDOM, TRAIN_FOLDS, TUNE, main_settings
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


def test_what_a_claim_names_runs_on_all_folds():
    claims = tomllib.loads((STORE / "claims.toml").read_text())["claim"]
    named = [
        (c["experiment"], c.get("setting", c[side]), c["id"])
        for c in claims
        if c.get("experiment") in EXPERIMENTS
        for side in ("a", "b")
        if side in c
    ]
    assert len(named) > 50
    for experiment, setting, claim in named:
        assert setting in main_settings(experiment), claim


# The report's name for a setting -> ours, where they differ.
CHANNELS = {
    "4-8-16-32": "1-2-4-8",
    "16-32-64-128": "4-8-16-32",
    "32-64-128-256": "8-16-32-64",
    "64-128-256-512": "16-32-64-128",
    "128-256-512-1024": "32-64-128-256",
}
NETS = {"segnet": "SegNet", "ning": "Ning", "alexnet": "AlexNet"}
OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def reported():
    """Experiment -> the settings that the report tried, in our names."""
    sections = reported_numbers()
    tried = {
        name.replace("_", "-"): set(section["dice"])
        for name, section in sections.items()
        if isinstance(section.get("dice"), dict)
    }
    tried["learning-rate-wide"] = {f"{lr:g}" for lr in sections["learning_rate_wide"]["grid"]}
    tried["channels"] = {CHANNELS[c] for c in tried["channels"]}
    tried["topology"] = {
        f"{blocks} x {depth}"
        for blocks, row in sections["topology"]["dice"].items()
        for depth in range(2, 2 + len(row))
    }
    tried["depth"] = set(sections["depth"]["median_dice"])
    tried["optimiser"] = {OPTIMISERS[o] for o in tried["optimiser"]}
    tried["augmentation"] = {"none", "mirrored, doubled"}
    rivals = {NETS[n] for n in sections["architectures"] if n in NETS}
    tried["architectures"] = {"U-Net", "AlexNet, SGD"} | rivals
    return tried


ONES = "batch-size activation channels kernel-size topology depth optimiser dropout augmentation"
TRIED = [f"learning-rate-{n}" for n in ("wide", "narrow", "small")] + ONES.split()


@pytest.mark.parametrize("name", [*TRIED, "architectures"])
def test_every_setting_of_the_report_is_tried_again(name):
    ours = {spec.setting for spec in EXPERIMENTS[name] if spec.protocol == "replica"}
    assert reported()[name] <= ours


def test_what_is_not_repeated_has_a_reason():
    numbers, replica = reported_numbers(), PRESETS["replica"]
    wide = {s.setting for s in EXPERIMENTS["learning-rate-wide"] if s.protocol == "replica"}
    longest = max(spec.config.epochs for spec in EXPERIMENTS["early-stopping"])
    narrow = seeds_of("learning-rate-narrow")["replica", "0.01"]["fold0"]
    cut = {
        "epochs": any(section.get("epochs", 0) > replica.epochs for section in numbers.values()),
        "widths": replica.channels != tuple(numbers["final"]["channels"]),
        "learning_rate_narrow": len(narrow) < 7,
        "learning_rate_wide": wide > set(main_settings("learning-rate-wide")),
        "early_stopping": longest < numbers["early_stopping"]["epochs"],
        "augmentation": "mixed" not in numbers["augmentation"],
    }
    reasons = report.NOT_REPEATED
    assert {what for what, is_cut in cut.items() if is_cut} == set(reasons)
    assert all(len(reason) > 40 for reason in reasons.values())
    assert str(longest) in reasons["early_stopping"]
    sgd = [s for s in EXPERIMENTS["architectures"] if s.setting == "AlexNet, SGD"]
    assert {s.config.optimiser for s in sgd} == {"sgd"}
    doubled = [s for s in EXPERIMENTS["augmentation"] if "doubled" in s.setting]
    assert {s.config.mirrored_set for s in doubled} == {True}


def test_the_repairs_lead_from_one_recipe_to_the_other_and_back():
    repaired, undone = PRESETS["replica"], PRESETS["modern"]
    for name, fix in report.REPAIRS.items():
        assert set(fix) == set(report.UNREPAIRED[name])
        repaired, undone = replace(repaired, **fix), replace(undone, **report.UNREPAIRED[name])
    assert (repaired, undone) == (PRESETS["modern"], PRESETS["replica"])


@pytest.mark.parametrize("batch", [4, 8, 16, 32])
def test_equal_updates_are_as_many_steps_as_the_baseline_takes(batch):
    slices, baseline = 96, PRESETS["replica"]
    config = replace(baseline, **report.EQUAL_UPDATES[f"{batch}, equal updates"])
    assert slices % batch == 0 and config.batch == batch
    assert slices // batch * config.epochs == slices // baseline.batch * baseline.epochs


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


# --- adding one ----------------------------------------------------------------------------------

PLAN = '''"""A plan of two rates."""

from cmrtrial.spec import FOLDS, each, experiment, runs


@experiment("two-rates")
def two_rates():
    """Two rates."""
    return runs("modern", FOLDS, settings=each("lr", 0.001, 0.003))
'''


def test_a_new_plan_alone_appears_in_results(tmp_path):
    shutil.copytree(REPOSITORY / "cmrtrial", tmp_path / "cmrtrial")
    (tmp_path / "cmrtrial" / "plans" / "mine.py").write_text(PLAN)
    words = ["-m", "cmrtrial", "results", "two-rates", "--store", tmp_path / "results"]
    options = {"env": {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}, "text": True}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, **options)
    row = "two-rates                modern           2     0       10"
    assert row in done.stdout, done.stderr
