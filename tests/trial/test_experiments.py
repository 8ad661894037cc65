"""Plans hold together, follow the report, and what was chosen was the best that was tried."""

from collections import defaultdict

from cmrseg import datasets
from cmrseg.config import PRESETS
from cmrseg.record import read_record
from cmrtrial.plans import EXPERIMENTS, best, report, sprint
from cmrtrial.spec import ACDC96
from cmrtrial.splits import split


def test_every_planned_run_has_a_place_a_name_a_recipe_and_a_split_of_its_own(root):
    for name, plan in EXPERIMENTS.items():
        assert plan and len({s.path() for s in plan}) == len(plan), name
        labels = [(s.setting, s.protocol, s.split, s.config.seed) for s in plan]
        assert len(set(labels)) == len(plan), name
    specs = [spec for plan in EXPERIMENTS.values() for spec in plan]
    assert {spec.protocol for spec in specs} == {*PRESETS, "final"}
    for name in {spec.split for spec in specs}:
        assert all(map(len, split(root, name))), name


def test_a_setting_runs_with_the_same_seeds_on_each_fold():
    for name, plan in EXPERIMENTS.items():
        seeds = defaultdict(lambda: defaultdict(set))
        for spec in plan:
            seeds[spec.protocol, spec.setting][spec.fold].add(spec.config.seed)
        for setting, by_fold in seeds.items():
            assert len(by_fold) in (1, 2, 5, 10), (name, setting)
            assert len(set(map(frozenset, by_fold.values()))) == 1, (name, setting)


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
    dice = means("final-ways")
    assert best.TTAS[max(dice, key=dice.get)] == best.FINAL_TTA
