"""Experiments: what is planned, and that nothing is computed twice.

Each group fails after any of these one-line changes of ``cmrseg/experiments.py``:

- plans: in EXPERIMENTS, of "book" ``seeds=(0, 1, 2)`` -> ``(0, 1, 1)``, or ``TRAIN_FOLDS`` ->
  ``FOLDS``; ``"train-fold{k}"`` -> ``"train{k}"``; in _runs(), ``for split in splits`` -> ``for
  split in splits[len(name) % 2 :]``; a digit of ACDC96
- missing: in missing(), ``if not path.is_file()`` -> ``if path.is_file()``, or without the
  dictionary
- runs: in run_one(), ``if not path.is_file()`` -> ``if True``, or ``FileLock(lock`` ->
  ``FileLock(f"{lock}{os.getpid()}"``; in _work(), ``time.time() > deadline`` -> ``False``
- records: in records(), ``if not path.is_file()`` -> ``if False``
"""

import json
import multiprocessing
import os
import queue
import time
import tomllib
from dataclasses import asdict, replace

import pytest
import torch
from filelock import FileLock

from cmrseg import data, experiments, results
from cmrseg.data import BadInput
from cmrseg.experiments import EXPERIMENTS, FOLDS, Planned
from cmrseg.training import PRESETS, TrainConfig


@pytest.fixture
def plan():
    """Three runs of a blink each, and the first again under another name."""
    configs = [TrainConfig(channels=(2, 4), epochs=1, seed=seed) for seed in (0, 1, 2, 0)]
    return [Planned(f"setting {n}", c, "val", "modern") for n, c in enumerate(configs)]


def fingerprint(root):
    return data.load(root, "labelled").fingerprint


# --- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_planned_run_is_filed_in_a_place_of_its_own(name):
    plan = EXPERIMENTS[name]
    assert plan and len({p.path() for p in plan}) == len(plan)
    labels = [(p.setting, p.protocol, p.split, p.config.seed) for p in plan]
    assert len(set(labels)) == len(plan)
    assert all(p.path().parent == results.STORE / p.protocol for p in plan)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_planned_run_is_of_a_known_protocol_and_split(name, root):
    for split in {p.split for p in EXPERIMENTS[name]}:
        data.split(root, split)
    assert {p.protocol for p in EXPERIMENTS[name]} <= {*PRESETS, "final"}


def runs_of(name):
    """(protocol, setting) -> {split: seeds}."""
    on = {}
    for p in EXPERIMENTS[name]:
        on.setdefault((p.protocol, p.setting), {}).setdefault(p.fold, set()).add(p.config.seed)
    return on


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_setting_runs_on_all_folds_or_the_first_with_the_same_seeds_on_each(name):
    allowed = [FOLDS, FOLDS[:2], FOLDS[:1], experiments.TUNE, experiments.TRAIN_FOLDS, ("val",)]
    allowed += [FOLDS + experiments.RANDOM] if name == "leakage" else []
    allowed += [("from-phantom",), ("to-phantom",)] if name == "patients" else []
    for setting, seeds in runs_of(name).items():
        assert tuple(seeds) in allowed, setting
        assert len(set(map(frozenset, seeds.values()))) == 1, setting


def test_what_a_claim_names_runs_on_all_folds():
    claims = tomllib.loads((results.STORE / "claims.toml").read_text())["claim"]
    named = [(c["experiment"], c.get("setting", c[side]), c["id"]) for c in claims
             if c.get("experiment") in EXPERIMENTS for side in ("a", "b") if side in c]
    assert len(named) > 50
    for experiment, setting, claim in named:
        assert setting in experiments.telling(experiment), claim


# The report's name for a setting -> ours, where they differ.
CHANNELS = {"4-8-16-32": "1-2-4-8", "16-32-64-128": "4-8-16-32", "32-64-128-256": "8-16-32-64",
            "64-128-256-512": "16-32-64-128", "128-256-512-1024": "32-64-128-256"}
NETS = {"segnet": "SegNet", "ning": "Ning", "alexnet": "AlexNet"}
OPTIMISERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


def reported():
    """Experiment -> the settings that the report tried, in our names."""
    report = tomllib.loads((results.STORE / "report-2020.toml").read_text())
    found = {name.replace("_", "-"): set(section["dice"]) for name, section in report.items()
             if isinstance(section.get("dice"), dict)}
    found["learning-rate-wide"] = {f"{lr:g}" for lr in report["learning_rate_wide"]["grid"]}
    found["channels"] = {CHANNELS[c] for c in found["channels"]}
    found["topology"] = {f"{blocks} x {depth}" for blocks, row in report["topology"]["dice"].items()
                         for depth in range(2, 2 + len(row))}
    found["depth"] = set(report["depth"]["median_dice"])
    found["optimiser"] = {OPTIMISERS[o] for o in found["optimiser"]}
    found["augmentation"] = {"none", "mirrored, doubled"}
    found["architectures"] = {"U-Net", "AlexNet, SGD"} | {NETS[n] for n in report["architectures"] if n in NETS}
    return found


@pytest.mark.parametrize("name", [
    "learning-rate-wide", "learning-rate-narrow", "learning-rate-small", "batch-size", "activation",
    "channels", "kernel-size", "topology", "depth", "optimiser", "dropout", "augmentation", "architectures"])
def test_every_setting_of_the_report_is_tried_again(name):
    assert reported()[name] <= {p.setting for p in EXPERIMENTS[name] if p.protocol == "replica"}


def test_what_is_not_repeated_has_a_reason():
    report, replica = tomllib.loads((results.STORE / "report-2020.toml").read_text()), PRESETS["replica"]
    wide = [p for p in EXPERIMENTS["learning-rate-wide"] if p.protocol == "replica"]
    longest = max(p.config.epochs for p in EXPERIMENTS["early-stopping"])
    cut = {
        "epochs": any(section.get("epochs", 0) > replica.epochs for section in report.values()),
        "widths": replica.channels != tuple(report["final"]["channels"]),
        "learning_rate_narrow": len(runs_of("learning-rate-narrow")["replica", "0.01"]["fold0"]) < 7,
        "learning_rate_wide": {p.setting for p in wide} > set(experiments.telling("learning-rate-wide")),
        "early_stopping": longest < report["early_stopping"]["epochs"],
        "augmentation": "mixed" not in report["augmentation"],
    }
    assert {what for what, is_cut in cut.items() if is_cut} == set(experiments.NOT_REPEATED)
    assert all(len(reason) > 40 for reason in experiments.NOT_REPEATED.values())
    assert {p.config.optimiser for p in EXPERIMENTS["architectures"] if p.setting == "AlexNet, SGD"} == {"sgd"}
    assert {p.config.mirrored_set for p in EXPERIMENTS["augmentation"] if "doubled" in p.setting} == {True}
    assert str(longest) in experiments.NOT_REPEATED["early_stopping"]
    assert longest < report["early_stopping"]["epochs"]


def test_the_repairs_lead_from_one_recipe_to_the_other_and_back():
    repaired, undone = PRESETS["replica"], PRESETS["modern"]
    for name, fix in experiments.REPAIRS.items():
        assert set(fix) == set(experiments.UNREPAIRED[name])
        repaired, undone = replace(repaired, **fix), replace(undone, **experiments.UNREPAIRED[name])
    assert (repaired, undone) == (PRESETS["modern"], PRESETS["replica"])


@pytest.mark.parametrize("batch", [4, 8, 16, 32])
def test_equal_updates_are_as_many_steps_as_the_baseline_takes(batch):
    slices, baseline = 96, PRESETS["replica"]
    config = replace(baseline, **experiments.EQUAL_UPDATES[f"{batch}, equal updates"])
    assert slices % batch == 0 and config.batch == batch
    assert slices // batch * config.epochs == slices // baseline.batch * baseline.epochs


def test_what_is_tuned_is_judged_on_training_patients():
    for name in ("book-learning-rate", "book-recipe", "architectures-tuning", "optimiser-tuning"):
        assert all(p.split.startswith(("inner", "train-fold")) for p in EXPERIMENTS[name])


def best_rates(name, protocol):
    """What was tuned -> the rate with the highest last Dice, from the committed records."""
    found = {}
    for planned in (p for p in EXPERIMENTS[name] if p.protocol == protocol):
        what, _, _ = planned.setting.rpartition(", ")
        dice = results.read(planned.path())["dice_last"]
        found[what] = max(found.get(what, (-1, 0)), (dice, planned.config.lr))
    return {what: rate for what, (_, rate) in found.items()}


def test_the_rates_used_are_the_best_that_were_tried():
    for protocol, rates in experiments.RATES.items():
        assert best_rates("architectures-tuning", protocol) == rates
    used = {name: changes["lr"] for name, changes in experiments.OWN_RATES.items()}
    assert best_rates("optimiser-tuning", "replica") == used


def test_the_last_of_the_ideas_is_the_sprint():
    *_, last = [p for p in EXPERIMENTS["sprint-ideas"] if p.setting in experiments.IDEAS and not p.config.seed]
    assert last.config == PRESETS["sprint"]


def means(name):
    """The mean Dice of each setting, of the first seed, from the committed records; {} while one is missing."""
    plan = [p for p in EXPERIMENTS[name] if p.config.seed == 0]
    if not all(p.path().is_file() for p in plan):
        return {}
    dice = {}
    for planned in plan:
        dice.setdefault(planned.setting, []).append(results.read(planned.path())["dice_last"])
    return {setting: sum(each) / len(each) for setting, each in dice.items()}


def highest(name):
    """The setting with the highest mean Dice, or None while a record is missing."""
    found = means(name)
    return max(found, key=found.get, default=None)


def nothing_is_run(*names):
    return not any(p.path().is_file() for name in names for p in EXPERIMENTS[name])


def test_the_final_recipe_is_the_highest_rung_or_nothing_hangs_on_it_yet():
    rung = highest("final-ladder")
    assert rung == experiments.FINAL or (rung is None and nothing_is_run("final-ways", "final-shifts", "final"))


def test_the_small_network_is_half_as_wide_unless_that_costs_a_hundredth():
    if not (found := means("final-ladder")):
        assert nothing_is_run("final")
        return
    half = "1000 epochs, half as wide"
    fits = found[half] >= found[experiments.FINAL] - 0.01
    assert (half if fits else experiments.FINAL) == experiments.SMALL


def test_the_final_ways_are_the_best_of_one_network_or_nothing_hangs_on_them_yet():
    best = highest("final-ways")
    assert experiments.WAYS.get(best) == experiments.FINAL_WAYS or (best is None and nothing_is_run("final"))


def test_what_is_tuned_is_told_by_name():
    for name in ("architectures-tuning", "optimiser-tuning"):
        for planned in EXPERIMENTS[name]:
            assert float(planned.setting.rpartition(", ")[2]) == planned.config.lr


def test_pages_look_for_records_of_the_real_slices(real):
    assert fingerprint(real) == experiments.ACDC96


# --- running -------------------------------------------------------------------------------------


def test_what_is_missing_is_listed_once_and_shrinks(plan, root, tmp_path):
    print_ = fingerprint(root)
    todo = experiments.missing(plan, print_, tmp_path)
    assert len(todo) == 3 and len({p.path(print_, tmp_path) for p in todo}) == 3
    path = experiments.run_one(plan[1], root, tmp_path)
    assert path == plan[1].path(print_, tmp_path) and path.is_file()
    left = experiments.missing(plan, print_, tmp_path)
    assert [p.config.seed for p in left] == [0, 2]
    assert len(experiments.missing(plan, "of other data", tmp_path)) == 3


def test_a_record_says_what_was_planned(plan, root, tmp_path):
    found = results.read(experiments.run_one(plan[2], root, tmp_path))
    assert TrainConfig.from_dict(found["config"]) == plan[2].config
    assert (found["split"], found["protocol"], found["seed"]) == ("val", "modern", 2)
    assert found["fingerprint"] == fingerprint(root)
    assert found["images"]["name"] == ["cmr3", "cmr4"]


def test_a_run_that_is_there_is_not_computed_again(plan, root, tmp_path, monkeypatch):
    path = experiments.run_one(plan[0], root, tmp_path)
    before = path.read_bytes()
    monkeypatch.setattr(experiments, "fit", lambda *_, **__: pytest.fail("computed again"))
    assert experiments.run_one(plan[0], root, tmp_path) == path
    assert experiments.run_one(plan[3], root, tmp_path) == path  # another name, the same run
    assert path.read_bytes() == before


def test_a_run_that_another_process_holds_is_left_to_it(plan, root, tmp_path, monkeypatch):
    monkeypatch.setattr(experiments, "fit", lambda *_, **__: pytest.fail("computed twice"))
    path = plan[0].path(fingerprint(root), tmp_path)
    (tmp_path / ".locks").mkdir()
    with FileLock(tmp_path / ".locks" / f"{path.stem}.lock"):
        assert experiments.run_one(plan[0], root, tmp_path) is None
    assert not path.exists()


def test_the_lock_of_a_dead_process_does_not_hold_a_run_up(plan, root, tmp_path):
    path = plan[0].path(fingerprint(root), tmp_path)
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / f"{path.stem}.lock").write_text("")
    assert experiments.run_one(plan[0], root, tmp_path) == path and path.is_file()


def _worker(plan, root, store, log, start):
    """Work on the plan as a worker does, slowly, with a line in the log for each training."""
    train = experiments.fit

    def fit(config, *slices, **options):
        with open(log, "a") as file:
            file.write(f"{config.seed} {os.getpid()}\n")
        time.sleep(0.5)
        return train(config, *slices, **options)

    experiments.fit = fit
    start.wait()
    experiments._work(plan, root, store, None, queue.SimpleQueue())


def test_two_processes_over_one_store_never_compute_a_run_twice(plan, root, tmp_path):
    context = multiprocessing.get_context("spawn")
    start, log = context.Barrier(2), tmp_path / "log"
    store = tmp_path / "store"
    workers = [context.Process(target=_worker, args=(plan, root, store, log, start))
               for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    seeds, processes = zip(*(line.split() for line in log.read_text().splitlines()))
    assert sorted(seeds) == ["0", "1", "2"] and len(set(processes)) == 2
    assert experiments.missing(plan, fingerprint(root), store) == []


def test_running_what_is_missing_fills_the_store_and_then_starts_nothing(
    plan, root, tmp_path, monkeypatch
):
    seen = []
    left = experiments.run_missing(plan[:2], root, tmp_path, workers=1,
                                   progress=lambda done, of: seen.append((done, of)))
    assert left == 0 and seen[-1] == (2, 2) and seen == sorted(seen)
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: queue)  # has no Process
    assert experiments.run_missing(plan[:2], root, tmp_path, workers=2) == 0


def test_after_the_time_limit_no_new_run_is_begun(plan, root, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    threads = torch.get_num_threads()
    experiments._work(plan, root, tmp_path, time.time() - 1, queue.SimpleQueue())
    assert len(experiments.missing(plan, fingerprint(root), tmp_path)) == 3
    experiments._work(plan[:1], root, tmp_path, time.time() + 600, queue.SimpleQueue())
    assert len(experiments.missing(plan, fingerprint(root), tmp_path)) == 2
    torch.set_num_threads(threads)


# --- reading -------------------------------------------------------------------------------------


def test_records_come_with_what_was_planned_and_a_missing_one_says_how_to_make_it(
    plan, tmp_path, monkeypatch
):
    monkeypatch.setitem(EXPERIMENTS, "small", plan)

    def filed(p):
        results.write({
            "version": 1, "protocol": "modern", "key": p.key(), "config": asdict(p.config), "split": p.split,
            "seed": p.config.seed, "fingerprint": experiments.ACDC96, "images": {"dice": [[0.5, None, 0.7]]},
            "dice_last": 0.6}, tmp_path)

    for p in plan[:2]:
        filed(p)
    with pytest.raises(BadInput, match="no record yet for small, setting 2"):
        experiments.records("small", tmp_path)
    filed(plan[2])
    found = experiments.records("small", tmp_path)
    assert [p.setting for p, _ in found] == [f"setting {n}" for n in range(4)]
    assert found[2][1]["key"] == plan[2].key() and found[0][1] == found[3][1]
    assert json.dumps(found[0][1])
