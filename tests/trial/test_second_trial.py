"""The second trial: its runs, its claims, and the script that computes it."""

import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cmrseg import train as training
from cmrseg.config import TrainConfig
from cmrseg.data import BadInput
from cmrseg.models import build
from cmrseg.record import make_record
from cmrseg.train import fit
from cmrtrial import claims as first_claims
from cmrtrial import cli, runner, spec
from cmrtrial import records as results
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.splits import split
from cmrtrial.second import claims
from cmrtrial.second import plan as second_trial
from cmrtrial.second.statistics import Difference, Pairs, p_values

from conftest import REPOSITORY

# --- the runs ------------------------------------------------------------------------------------------


def test_no_key_of_the_first_trial_changes():
    keys = sorted({p.key() for plan in EXPERIMENTS.values() for p in plan})
    digest = hashlib.sha256("".join(keys).encode()).hexdigest()
    assert (len(keys), digest) == (
        1616,
        "95793ebd5a1dca013a79fd3a6aee392907770894ed3a9a24e67504a5d34b59e3",
    )
    assert len(set(keys) | {p.key() for p in second_trial.PLAN}) == len(keys) + len(
        second_trial.PLAN
    )


def test_seeds_differ_between_the_folds_of_a_setting_and_are_new():
    seeds = {}
    for planned in second_trial.PLAN:
        seeds.setdefault(planned.setting, []).append(planned.config.seed)
    assert all(len(set(s)) == len(s) for s in seeds.values())
    first = {p.config.seed for plan in EXPERIMENTS.values() for p in plan if p.fold in spec.FOLDS}
    assert not first & {s for of_setting in seeds.values() for s in of_setting}
    assert all(p.config.seed % 5 == int(p.fold[4]) for p in second_trial.PLAN)


def test_replicate_by_replicate_and_every_main_setting_has_three():
    main = [p for p in second_trial.PLAN if p.setting in second_trial.SETTINGS]
    assert [p.config.seed // 5 for p in main] == sorted(p.config.seed // 5 for p in main)
    for names, replicates in (
        (second_trial.SETTINGS, {1, 2, 3}),
        (second_trial.SKIPS, {1, 2, 3}),
        (second_trial.HALF, {1}),
    ):
        for name in names:
            runs = [p for p in second_trial.PLAN if p.setting == name]
            assert {p.config.seed // 5 for p in runs} - {4, 5, 6} == replicates
            assert {p.fold for p in runs} == set(spec.FOLDS)


# Where report-2020.toml has the epochs of each setting's experiment; or the number, which is its text's or ours.
EPOCHS = {
    "activation": ["baseline", "sigmoid", "hardtanh", "tanh", "leaky-relu"],
    "learning_rate_wide": ["rate 0.2", "rate 0.6"],
    "learning_rate_narrow": ["rate 0.01", "rate 0.025"],
    "learning_rate_small": ["rate 0.0001", "rate 0.0005", "rate 0.0025"],
    "batch_size": ["batch 8", "batch 32"],
    "channels": [
        "channels 1-2-4-8",
        "channels 4-8-16-32",
        "channels 8-16-32-64",
        "channels 16-32-64-128",
    ],
    "topology": [
        "2 blocks",
        "6 convolutions",
        "windows 2x2",
        "four poolings",
        "skips before pooling",
        "textbook decoder",
    ],
    "kernel_size": ["kernel 1", "kernel 5", "half width", "half width, kernel 1"],
    "optimiser": ["SGD", "AdamW", "SGD, rate 3"],
    "dropout": ["dropout 0.1", "dropout 0.3", "dropout 0.5", "half width, dropout 0.3"],
    "augmentation": ["mirrored"],
    "final": ["RV, positions shuffled", "RV, grey levels equalised"],
    200: ["SegNet", "half width, SegNet"],
    1000: ["Ning"],
    100: ["AlexNet, SGD 0.001", "AlexNet, SGD 0.1", "AlexNet, dropout 0.7"],
    300: ["AlexNet"],  # 100, and as many others as the report may have tried
    500: ["U-Net, rate 0.003"],  # the baseline's
}


def test_settings_train_for_the_reports_epochs():
    report = tomllib.loads((results.STORE / "report-2020.toml").read_text())
    asked = {
        name: where if isinstance(where, int) else report[where]["epochs"]
        for where, names in EPOCHS.items()
        for name in names
    }
    assert asked == {p.setting: p.config.epochs for p in second_trial.PLAN}
    nets = report["architectures"]
    assert (nets["segnet"]["epochs"], nets["ning"]["epochs"], nets["alexnet"]["epochs"]) == (
        200,
        1000,
        100,
    )


def test_a_learning_rate_that_is_constant_makes_milestones_ends():
    assert {p.config.schedule for p in second_trial.PLAN} == {"constant"}
    for planned in second_trial.PLAN:
        assert planned.milestones[-1] == planned.config.epochs
        assert all(m % planned.score_every == 0 for m in planned.milestones)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dropout": 0.3},
        {"optimiser": "sgd", "momentum": 0.9},
        {"augment": ("affine", "strong-intensity")},
        {"model": "report-unet", "windows": 2, "poolings": 2, "skips": "before"},
    ],
    ids=str,
)
def test_a_milestone_is_the_end_of_a_shorter_run(root, changes):
    train, held_out = split(str(root), "val")
    config = TrainConfig(channels=(2, 4, 4), schedule="constant", lr=0.01, **changes)

    def recorded(epochs, milestones):
        run = fit(
            replace(config, epochs=epochs),
            train,
            held_out,
            score_every=2,
            milestones=milestones,
            precision="fp32",
        )
        return make_record(run, train, held_out, "val", "0", "second")

    long, short = recorded(6, (2, 4, 6)), recorded(4, (4,))
    assert [m["epoch"] for m in long["milestones"]] == [2, 4, 6]
    assert long["milestones"][1] == short["milestones"][-1]
    assert short["milestones"][-1]["dice"] == short["images"]["dice"]
    assert short["milestones"][-1]["dice_train"] == pytest.approx(short["dice_train"])
    assert short["milestones"][-1]["distinct_masks"] == short["distinct_masks"]
    assert long["history"]["dice"][:4] == short["history"]["dice"]
    assert (
        long["milestones"][-1]["loss"]
        == long["history"]["loss"][-1]
        != long["milestones"][1]["loss"]
    )


def test_scoring_and_milestones_change_no_weights(root):
    train, held_out = split(str(root), "val")
    config = TrainConfig(channels=(2, 4), epochs=3, dropout=0.2, schedule="constant")
    plain = fit(config, train, precision="fp32").model.state_dict()
    scored = fit(
        config, train, held_out, score_every=1, milestones=(1, 2, 3), precision="fp32"
    ).model.state_dict()
    assert all(torch.equal(plain[name], scored[name]) for name in plain)


def test_milestones_with_a_checkpoint_are_refused(root, tmp_path):
    train, held_out = split(str(root), "val")
    with pytest.raises(ValueError, match="checkpoint"):
        fit(TrainConfig(channels=(2, 4), epochs=1), train, held_out, milestones=(1,), out=tmp_path)


# --- the networks between the report's and the textbook's -------------------------------------------------


def test_each_parted_network_differs_in_what_it_says():
    nets = {
        name: build(next(p.config for p in second_trial.PLAN if p.setting == name))
        for name in ("baseline", *second_trial.SKIPS)
    }
    pools = {name: net.pool.kernel_size for name, net in nets.items()}
    assert list(pools.values()) == [3, 2, 2, 2, 2]
    assert [net.multiple for net in nets.values()] == [32, 32, 16, 16, 16]
    shapes = {}
    for (
        name,
        net,
    ) in nets.items():  # what each block of the decoder sees and gives, and what the last layer is
        seen = []
        for block in net.decoder:
            block.register_forward_hook(
                lambda _, x, y, seen=seen: seen.append((tuple(x[0].shape[1:]), tuple(y.shape[1:3])))
            )
        net.eval()(torch.zeros(1, 1, 96, 96))
        shapes[name] = seen
    assert shapes["baseline"] == shapes["windows 2x2"]
    assert [s[0][1] for s in shapes["windows 2x2"]] == [3, 6, 12, 24, 48]
    assert [s[0][1] for s in shapes["four poolings"]] == [6, 6, 12, 24, 48]
    assert [s[0][0] for s in shapes["four poolings"]] == [s[0][0] for s in shapes["windows 2x2"]]
    assert [s[0] for s in shapes["skips before pooling"]] == [
        (128, 6, 6),
        (128, 12, 12),
        (64, 24, 24),
        (32, 48, 48),
    ]
    assert [s[0] for s in shapes["textbook decoder"]] == [
        (128, 12, 12),
        (64, 24, 24),
        (32, 48, 48),
        (16, 96, 96),
    ]
    assert nets["skips before pooling"].head.in_channels == 16


# --- claims ------------------------------------------------------------------------------------------------


def test_every_claim_of_the_first_trial_has_a_successor_with_a_reason():
    asked = tomllib.loads((results.STORE / "claims-2.toml").read_text())["claim"]
    first = {c["id"]: c for c in first_claims.claims()}
    assert {c["first"] for c in asked} == set(first) and len(first) == 61
    assert len({c["id"] for c in asked}) == len(asked)
    for claim in asked:
        assert claim["changed"] and claim["source"] == first[claim["first"]]["source"], claim["id"]
        assert ("family" in claim) != ("verdict" in claim), claim["id"]
        assert claim.get("family", "dice") in claims.FAMILIES


def test_claims_ask_what_the_runs_can_answer():
    plan = {}
    for planned in second_trial.PLAN:
        plan.setdefault(planned.setting, planned)
    for claim in claims.claims():
        if claim.get("endpoint", "seconds") == "seconds":
            continue
        for side in "ab":
            if side in claim:
                milestones = plan[claim[side]].milestones
                assert claim.get(f"epochs_{side}", claim["epochs"]) in milestones, claim["id"]
                assert claim["endpoint"] != "gain" or claim["since"] in milestones


def made_up(planned, rng, dice):
    """A record as a run of the plan would leave it, of made-up numbers."""
    fold, epochs = int(planned.fold[4]), planned.config.epochs
    patients = np.repeat([p for p in range(1, 61) if p % 5 == fold], 2)
    table = (dice + rng.normal(0, 0.02, (len(patients), 3)) + rng.normal(0, 0.005)).clip(0, 1)
    table = table.round(5).tolist()
    means = [float(m) for m in np.mean(table, 0)]
    scored = training.scored_epochs(epochs, planned.score_every)
    return {
        "split": planned.split,
        "seed": planned.config.seed,
        "dice_last": float(np.mean(table)),
        "images": {"patient": patients.tolist(), "dice": table},
        "history": {
            "epoch": list(range(1, epochs + 1)),
            "loss": [0.1] * epochs,
            "dice": [means if e in scored else None for e in range(1, epochs + 1)],
        },
        "milestones": [
            {"epoch": m, "dice": table, "distinct_masks": 24, "dice_train": [0.9] * 3, "loss": 0.1}
            for m in planned.milestones
        ],
    }


@pytest.fixture(scope="module")
def whole_trial():
    """Made-up records of the whole plan: every setting at 0.8, sigmoid far below, SGD drawing nothing."""
    rng, found = np.random.default_rng(0), {}
    for planned in second_trial.PLAN:
        dice = {"sigmoid": 0.6, "SGD": 0.0}.get(planned.setting, 0.8)
        found.setdefault(planned.setting, []).append(made_up(planned, rng, dice))
    return found


def test_a_whole_trial_is_judged(whole_trial):
    found = claims.judge(whole_trial)
    assert len(found) == len(claims.claims())
    assert found.loc["sigmoid-ends-lower", "verdict"] == "confirmed"
    assert found.loc["sigmoid-ends-lower", "estimate"] == pytest.approx(-0.2, abs=0.02)
    assert found.loc["leaky-is-relu", "verdict"] == "confirmed"
    assert found.loc["dropout-hurts", "verdict"] == "equivalent"
    assert found.loc["gap-opens", "estimate"] == pytest.approx(
        0.0, abs=0.02
    )  # 0.9 - 0.8, less the level 0.1
    assert found.loc["too-narrow", "verdict"] == "contradicted"
    assert found.loc["ning-loss-near-zero", "verdict"] == "contradicted"
    assert found.loc["kernel-five-slower", "verdict"] == "confirmed"  # the first trial's clock
    ambiguous = found.loc["mirror-no-gain"]
    assert (
        ambiguous["verdict"] == "ambiguous"
        and np.isfinite(ambiguous["estimate"])
        and np.isnan(ambiguous["p"])
    )
    assert found.loc["kaggle", "verdict"] == "not testable here"
    assert (found["low"].dropna() <= found["estimate"].dropna()).all()


def test_half_width_gives_signs(whole_trial):
    """At a quarter the U-Net leads by 0.2 everywhere; at half by 0.1 in three folds, and is behind by 0.1 in two."""
    rng, found = np.random.default_rng(0), dict(whole_trial)
    for setting, dice in (
        ("SegNet", lambda fold: 0.6),
        ("half width, SegNet", lambda fold: 0.7 if fold < 3 else 0.9),
    ):
        found[setting] = [
            made_up(p, rng, dice(int(p.fold[4]))) for p in second_trial.PLAN if p.setting == setting
        ]
    row = claims.half_width(found).loc["half-segnet"]
    assert (
        row["folds"] == 3
        and row["quarter"] == pytest.approx(0.2, abs=0.02)
        and row["half"] == pytest.approx(0.02, abs=0.02)
    )
    assert len(claims.half_width(found)) == 3


def the(name):
    return next(claim for claim in claims.claims() if claim["id"] == name)


def changed(whole_trial, setting, change):
    """The trial with a change to each record of a setting; the change gets a copy and its number."""
    runs = copy.deepcopy(whole_trial[setting])
    for number, run in enumerate(runs):
        change(run, number)
    return whole_trial | {setting: runs}


def judged(found, monkeypatch, *names):
    """Verdicts on these claims alone, each in a family of those of them that are of its family."""
    few = [the(name) for name in names]
    monkeypatch.setattr(claims, "claims", lambda store: few)
    return claims.judge(found)


@pytest.mark.parametrize(
    "name, sides", [("tanh-ends-lower", "ab"), ("rv-position", "ab"), ("more-epochs-no-gain", "a")]
)
def test_a_setting_that_still_rises_is_noticed(whole_trial, name, sides):
    def rising(run, number):
        run["history"]["dice"] = [
            d if d is None else [0.7 + 0.1 * (e > 0.85 * claim["epochs"])] * 3
            for e, d in zip(run["history"]["epoch"], run["history"]["dice"])
        ]

    claim = the(name)
    assert claims.estimate(claim, whole_trial).rising == (False, False)
    for side in sides:
        assert claims.estimate(claim, changed(whole_trial, claim[side], rising)).rising == (
            side == "a",
            side == "b",
        )


def test_sides_are_compared_at_the_epochs_that_are_said(whole_trial):
    def later(run, number):
        for milestone in run["milestones"]:
            if milestone["epoch"] < 1000:
                milestone["dice"] = [[0.1] * 3] * len(milestone["dice"])

    claim = the("unet-over-ning")
    assert (claim["epochs"], claim["epochs_b"]) == (500, 1000)
    assert claims.estimate(claim, changed(whole_trial, "Ning", later)).mean == pytest.approx(
        0.0, abs=0.02
    )


def test_claims_are_judged_with_their_own_margins_in_their_own_families(whole_trial, monkeypatch):
    margins, sizes = [], []

    def p_values(answer, claim, margin):
        margins.append(margin)
        return {"confirmed": 1.0}

    def holm(family):
        sizes.append(len(family))
        return ["inconclusive"] * len(family)

    monkeypatch.setattr(
        claims, "estimate", lambda claim, *_: Difference(0, 1, 5) if "endpoint" in claim else None
    )
    monkeypatch.setattr(claims, "dead", lambda *_: 0)
    monkeypatch.setattr(claims, "p_values", p_values)
    monkeypatch.setattr(claims, "holm", holm)
    found = claims.judge(whole_trial)
    asked = [c for c in claims.claims() if "endpoint" in c and "verdict" not in c]
    assert margins == [c.get("margin", 0.02) for c in asked] and {0.02, 0.005, 5, 0.1} <= set(
        margins
    )
    assert (
        sorted(sizes) == sorted(Counter(c["family"] for c in asked).values()) == [4, 7, 12, 20, 28]
    )
    assert (found.loc[[c["id"] for c in asked], "verdict"] == "inconclusive").all()


def test_epochs_are_judged_by_pairs_and_their_means_are_told(whole_trial, monkeypatch):
    def leaves_at(epoch, of_first):
        def change(run, number):
            begin = {0: of_first, 1: 200}.get(number, epoch)
            run["history"]["dice"] = [
                d if d is None else [0.8 if e >= begin else 0.0] * 3
                for e, d in zip(run["history"]["epoch"], run["history"]["dice"])
            ]

        return change

    found = changed(
        changed(whole_trial, "tanh", leaves_at(100, 400)), "baseline", leaves_at(200, 200)
    )
    assert all(
        isinstance(claims.estimate(the(name), found), Pairs)
        for name in ("relu-steadiest", "batch-large-loss")
    )
    p = p_values(claims.estimate(the("tanh-starts-first"), found), "less", 5)
    row = judged(found, monkeypatch, "tanh-starts-first").loc["tanh-starts-first"]
    assert (row["less"], row["more"], row["verdict"]) == (13, 1, "confirmed")  # and one tie
    assert (
        row["estimate"] == pytest.approx((13 * 100 + 200 + 400) / 15 - 200)
        and row["p"] == p["confirmed"]
    )


# --- runs that learn nothing, and runs that fail ---------------------------------------------------------


def nothing(run, number):
    """One run of the setting draws nothing."""
    if number == 0:
        for milestone in run["milestones"]:
            milestone["dice"] = [[0.0] * 3] * len(milestone["dice"])


def test_a_setting_with_a_run_that_learnt_nothing_is_neither_ahead_nor_equal(
    whole_trial, monkeypatch
):
    found, all_of_them = (
        changed(whole_trial, "tanh", change) for change in (nothing, lambda run, _: nothing(run, 0))
    )
    for which, rising in ((found, (True, False)), (all_of_them, (False, False))):
        assert claims.estimate(the("tanh-ends-lower"), which).rising == rising
    row = judged(found, monkeypatch, "tanh-ends-lower").loc["tanh-ends-lower"]
    assert (row["dead_a"], row["dead_b"], row["verdict"]) == (1, 0, "inconclusive")
    row = claims.judge(all_of_them).loc["tanh-ends-lower"]
    assert (row["dead_a"], row["verdict"]) == (15, "confirmed")


def test_a_gap_of_runs_that_learnt_nothing_is_withheld_and_stays_in_its_family(
    whole_trial, monkeypatch
):
    found = changed(changed(whole_trial, "SegNet", nothing), "AlexNet", nothing)
    with pytest.raises(claims.Withheld):
        claims.estimate(the("alexnet-epochs"), found)
    sizes, holm = [], claims.holm
    monkeypatch.setattr(claims, "holm", lambda family: [sizes.append(len(family)), holm(family)][1])
    rows = judged(found, monkeypatch, "segnet-not-overfitted", "gap-opens")
    row = rows.loc["segnet-not-overfitted"]
    assert row["verdict"] == "inconclusive" and row["why"] == "1 of 15 runs learnt nothing: SegNet"
    assert sizes == [2] and np.isnan(row["estimate"])


@pytest.fixture
def filed(whole_trial, tmp_path, monkeypatch):
    """A store with a file for every planned run, read as made-up records; give it runs to let them fail."""
    counted, content = Counter(), {}
    for planned in second_trial.PLAN:
        path = planned.path(store=tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        content[path] = whole_trial[planned.setting][counted[planned.setting]]
        counted[planned.setting] += 1
    read = results.read_record  # of the first trial's clock
    monkeypatch.setattr(
        results, "read_record", lambda path: content[path] if path in content else read(path)
    )

    def fail(
        setting,
        number=None,
        reason="the loss is nan in epoch 3, batch of a slice. Try a smaller learning rate",
    ):
        for planned in [p for p in second_trial.PLAN if p.setting == setting][slice(number)]:
            planned.path(store=tmp_path).unlink()
            runner.failure_note(planned, spec.ACDC96, tmp_path).write_text(
                json.dumps({"reason": reason})
            )

    return SimpleNamespace(store=tmp_path, fail=fail)


def test_a_trial_with_runs_that_diverged_is_complete_and_judged(filed, whole_trial, monkeypatch):
    assert claims.records(filed.store) == whole_trial
    filed.fail("rate 0.6")
    filed.fail("batch 32", 1)
    filed.fail("batch 8", 1)
    filed.fail("hardtanh", 1)
    assert (
        second_trial.in_words(filed.store) == "second trial: 707 of 725 runs, 18 failed, complete"
    )
    found = claims.records(filed.store)
    assert [len(runs) for runs in found.values()] == [len(runs) for runs in whole_trial.values()]
    row = judged(
        found,
        monkeypatch,
        "rate-zero-was-an-error",
        "batch-large-loss",
        "batch-bursts",
        "hardtanh-overfits",
        "hardtanh-ends-lower",
    )
    assert row.loc["rate-zero-was-an-error", "verdict"] == "contradicted"  # all draw nothing
    assert row.loc["rate-zero-was-an-error", "estimate"] == 0.5
    assert (row.loc["batch-large-loss", "verdict"], row.loc["batch-large-loss", "why"]) == (
        "inconclusive",
        "1 of 15 runs failed: batch 32",
    )
    assert row.loc["batch-bursts", "why"] == "1 of 15 runs failed: batch 8"
    assert row.loc["hardtanh-overfits", "why"] == "1 of 15 runs failed: hardtanh"
    assert row.loc["hardtanh-ends-lower", "dead_a"] == 1
    assert row.loc["hardtanh-ends-lower", "estimate"] == pytest.approx(
        -0.8 / 15, abs=0.01
    )  # Dice 0 for 12 patients
    failed = next(run for run in found["hardtanh"] if run.get("failed"))
    assert (
        claims.endpoint(failed, "epoch>0.1", 500)
        == claims.endpoint(failed, "epoch-95", 500)
        == [500]
    )
    assert claims.endpoint(failed, "static", 500) == [True] and claims.endpoint(
        failed, "zero", 500
    ) == [True]
    assert (claims.endpoint(failed, "dice", 300) == 0).all() and len(
        claims.endpoint(failed, "dice", 300)
    ) == 12


def test_a_trial_that_lacks_a_run_or_has_one_that_failed_for_another_reason_is_not_judged(filed):
    filed.fail("rate 0.6", 1, reason="not enough memory")
    with pytest.raises(BadInput, match="did not diverge"):
        claims.records(filed.store)
    second_trial.PLAN[0].path(store=filed.store).unlink()
    assert second_trial.in_words(filed.store) == (
        "second trial: 723 of 725 runs, 1 failed, 1 missing: not counted until it is complete"
    )
    with pytest.raises(BadInput, match="1 missing"):
        claims.records(filed.store)


def test_a_run_that_diverges_leaves_the_note_that_counts(root, tmp_path):
    planned = spec.RunSpec(
        "x", TrainConfig(channels=(2, 4), epochs=3, lr=1e30, optimiser="sgd"), "val", "second"
    )
    note = runner.run_one(planned, str(root), tmp_path)
    assert note.name.endswith(".failed.json") and json.loads(note.read_text())["reason"].startswith(
        claims.DIVERGED
    )


def test_endpoints_by_hand():
    history = {
        "epoch": list(range(1, 21)),
        "loss": [0.5] * 20,
        "dice": [
            [d] * 3 if (d := {5: 0.2, 10: 0.74, 15: 0.64, 20: 0.8}.get(e)) else None
            for e in range(1, 21)
        ],
    }
    tables = {10: [[0.6] * 3] * 2, 20: [[0.7, 0.8, 0.9], [None, 0.6, 0.8]]}
    record = {
        "images": {"patient": [7, 7]},
        "history": history,
        "milestones": [
            {
                "epoch": e,
                "dice": t,
                "dice_train": [0.9, 0.9, 0.9],
                "loss": 0.5,
                "distinct_masks": 1 + (e < 20),
            }
            for e, t in tables.items()
        ],
    }

    def value(name, epochs=20, since=None):
        return claims.endpoint(record, name, epochs, since)

    assert value("dice") == pytest.approx([(0.7 + 0.7 + 0.85) / 3])  # RV of the slice that has one
    assert value("RV-Myo") == pytest.approx([0.0]) and value("LV") == pytest.approx([0.85])
    assert value("gap") == pytest.approx([0.9 - 0.75]) and value("gain", since=10) == pytest.approx(
        [0.15]
    )
    assert value("loss") == [0.5] and value("epoch>0.5") == [10] and value("epoch>0.9") == [20]
    assert value("epoch-95") == [20] and value("epoch-95", 10) == [10]
    assert value("falls") == pytest.approx([0.1]) and value("falls", since=15) == pytest.approx(
        [0.0]
    )
    assert (
        value("static") == [True]
        and value("static", 10) == [False]
        and (claims.COLLAPSED, claims.ZERO) == (0.1, 0.01)
    )
    assert value("collapsed") == [False] and value("zero") == [False]
    assert claims.rise(record, 20) == pytest.approx(0.16)


# --- the records that are there, and how they come ------------------------------------------------------


def test_records_of_the_second_trial_are_whole():
    registered = (results.STORE / "second" / "REGISTERED").read_text().strip()
    plan, faults = {p.path(): p for p in second_trial.PLAN}, []
    for path in sorted((results.STORE / "second").glob("*.json")):
        if path.name.endswith(".failed.json"):
            faults += (
                []
                if path.with_name(path.name.replace(".failed", "")) in plan
                else [f"{path.name}: not of the plan"]
            )
            continue
        found, planned = results.read_record(path), plan.get(path)
        if (
            planned is None
            or TrainConfig.from_dict(found["config"]) != planned.config
            or found["split"] != planned.split
        ):
            faults.append(f"{path.name}: not of the plan")
        elif [m["epoch"] for m in found["milestones"]] != list(planned.milestones):
            faults.append(f"{path.name}: other milestones than planned")
        elif found["milestones"][-1]["dice"] != found["images"]["dice"]:
            faults.append(f"{path.name}: its last milestone is not its end")
        elif found["commit"] != registered:
            faults.append(f"{path.name}: of commit {found['commit']}, not the registered one")
    assert not faults


def test_results_tells_of_the_second_trial_in_a_line_of_its_own(command):
    done = command("results", main=cli.main)
    assert done.status == 0
    assert done.out.splitlines()[-1].startswith("second trial: ")
    done = command("results", "--json", main=cli.main)
    assert done.status == 0 and all(row["missing"] == 0 for row in json.loads(done.out))
    assert done.err.startswith("second trial: ")


@pytest.fixture
def clone(tmp_path):
    """A small repository with the script, a stand-in for the trial's code that files a record every 0.2 s, and data."""
    repo = tmp_path / "repo"
    (repo / "tools").mkdir(parents=True)
    (repo / "tools" / "second_trial.sh").write_bytes(
        (REPOSITORY / "tools" / "second_trial.sh").read_bytes()
    )
    (repo / "tools" / "second_trial.sh").chmod(0o755)
    (repo / "cmrtrial").mkdir()
    (repo / "cmrtrial" / "__init__.py").touch()
    (repo / "cmrtrial" / "second_trial.py").write_text(
        "import os, sys, time, pathlib\n"
        "store = pathlib.Path(sys.argv[sys.argv.index('--store') + 1]) / 'second'\n"
        "for n in range(8):\n"
        "    path = store / f'{n:016x}.json'\n"
        "    if not path.exists():\n"
        "        time.sleep(0.2)\n"
        "        with open(store / 'made', 'a') as log: log.write(f'{n} {os.nice(0)}\\n')\n"
        "        path.with_suffix('.part').write_text('{}'); path.with_suffix('.part').rename(path)\n"
    )
    (repo / "requirements.txt").touch()
    (repo / ".gitignore").write_text("runs/\ndata/\n*.part\nresults/second/made\n__pycache__/\n")
    (repo / "data" / "acdc96").mkdir(parents=True)
    (repo / "results" / "second").mkdir(parents=True)
    git = SimpleNamespace(home=repo)

    git.run = lambda *words: subprocess.run(
        ["git", *words], cwd=repo, check=True, text=True, capture_output=True
    ).stdout.strip()
    for words in (
        ("init", "-q", "-b", "main"),
        ("config", "user.email", "a@b"),
        ("config", "user.name", "a"),
    ):
        git.run(*words)
    register(git)
    return git


def register(clone):
    """Commit what is there, and register this commit."""
    clone.run("add", "-A")
    clone.run("commit", "-qm", "code")
    (clone.home / "results" / "second" / "REGISTERED").write_text(
        clone.run("rev-parse", "HEAD") + "\n"
    )
    clone.run("add", "-A")
    clone.run("commit", "-qm", "registered")


def sweep(clone, *words, wait=True, **environment):
    env = {**os.environ, "SECOND_TRIAL_PYTHON": sys.executable, **environment}
    process = subprocess.Popen(
        ["tools/second_trial.sh", *words],
        cwd=clone.home,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    if wait:
        out, err = process.communicate(timeout=60)
        return SimpleNamespace(status=process.returncode, out=out, err=err)
    return process


def test_a_sweep_that_is_killed_goes_on_and_does_nothing_twice(clone, tmp_path):
    process = sweep(clone, wait=False)
    while len(list((clone.home / "results" / "second").glob("*.json"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    committed = clone.run("ls-files", "results/second").splitlines()
    assert len(committed) >= 4 and clone.run("status", "--porcelain") == ""
    again = tmp_path / "again"  # a fresh clone goes on from what was committed
    subprocess.run(
        ["git", "clone", "-q", "-c", "user.email=a@b", "-c", "user.name=a", clone.home, again],
        check=True,
    )
    (again / "data" / "acdc96").mkdir(parents=True)
    done = sweep(SimpleNamespace(home=again))
    assert done.status == 0, done.err
    assert len(list((again / "results" / "second").glob("*.json"))) == 8
    made = [
        int(line.split()[0])
        for line in (again / "results" / "second" / "made").read_text().splitlines()
    ]
    assert sorted(made) == list(
        range(len(committed) - 1, 8)
    )  # nothing that was committed, and each once


def test_after_kill_9_the_sweep_ends_and_the_next_start_commits_what_it_left(clone):
    code = clone.home / "cmrtrial" / "second_trial.py"
    code.write_text(
        code.read_text().replace(  # the first sweep stays with its fifth run, as real ones do
            "time.sleep(0.2)",
            "time.sleep(60 if n == 4 and not (store.parent.parent / 'runs' / 'again').exists() else 0.2)",
        )
    )
    register(clone)
    process = sweep(clone, wait=False)
    store = clone.home / "results" / "second"
    while len(list(store.glob("*.json"))) < 4:
        assert process.poll() is None
        time.sleep(0.05)
    group = int((clone.home / "runs" / "second" / "pid").read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    (clone.home / "runs" / "again").touch()
    assert clone.run("ls-files", "results/second") == "results/second/REGISTERED"
    done = sweep(clone)  # waits until the first has ended
    assert done.status == 0, done.err
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert (
        len(clone.run("ls-files", "results/second").splitlines()) == 9
        and clone.run("status", "--porcelain") == ""
    )
    assert (
        clone.run("log", "-2", "--format=%s").splitlines()
        == ["results: add 4 runs of the second trial"] * 2
    )
    made = [int(line.split()[0]) for line in (store / "made").read_text().splitlines()]
    assert made == list(range(8))  # each once, and no two sweeps side by side


def test_a_second_start_beside_a_running_sweep_is_refused(clone):
    slow = clone.home / "cmrtrial" / "second_trial.py"
    slow.write_text("import time\ntime.sleep(60)\n")
    register(clone)
    first = sweep(clone, wait=False)
    while not (clone.home / "runs" / "second" / "pid").is_file():
        assert first.poll() is None
    done = sweep(clone, SECOND_TRIAL_WAIT="1")
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=30)
    assert done.status == 2 and "runs already" in done.err


def test_notes_of_failed_runs_are_committed_and_not_counted_as_runs(clone):
    store = clone.home / "results" / "second"
    for n in range(8):
        (store / f"{n:016x}.json").write_text("{}")
    clone.run("add", "-A")
    clone.run("commit", "-qm", "all but a record")
    (store / f"{8:016x}.json").write_text("{}")
    (store / f"{9:016x}.failed.json").write_text("{}")
    assert sweep(clone).status == 0
    assert clone.run("log", "-1", "--format=%s") == (
        "results: add 1 run of the second trial, and the note of 1 that failed"
    )


def test_a_sweep_runs_at_the_lowest_priority_and_commits_records_on_the_way_and_nothing_else(clone):
    (clone.home / "draft.txt").write_text("mine")
    (clone.home / "requirements.txt").write_text("changed\n")
    clone.run("add", "draft.txt")
    before = clone.run("rev-parse", "HEAD")
    assert sweep(clone, SECOND_TRIAL_EVERY="1").status == 0
    nice = {
        line.split()[1]
        for line in (clone.home / "results" / "second" / "made").read_text().splitlines()
    }
    assert nice == {"19"}
    said = clone.run("log", "--format=%s", f"{before}..").splitlines()
    assert len(said) > 1 and all(line.startswith("results: add ") for line in said)
    names = clone.run("log", "--name-only", "--format=", f"{before}..").split()
    assert sorted(names) == [f"results/second/{n:016x}.json" for n in range(8)]
    assert clone.run("diff", "--cached", "--name-only") == "draft.txt"


def test_another_commit_is_refused(clone):
    assert sweep(clone, SECOND_TRIAL_EVERY="1").status == 0
    worktree = next(p for p in (clone.home / "runs" / "second").iterdir() if len(p.name) == 40)
    (worktree / "cmrtrial" / "second_trial.py").write_text("print('something else')\n")
    done = sweep(clone)
    assert (
        done.status == 2
        and done.err.startswith("error: ")
        and "not the registered commit" in done.err
    )
    subprocess.run(["git", "checkout", "-q", "."], cwd=worktree, check=True)
    assert sweep(clone, SECOND_TRIAL_EVERY="1").status == 0
    subprocess.run(
        ["git", "checkout", "-q", "--detach", "main"], cwd=worktree, check=True
    )  # whole, but another commit
    done = sweep(clone)
    assert done.status == 2 and "not the registered commit" in done.err
    (clone.home / "results" / "second" / "REGISTERED").write_text("0" * 40 + "\n")
    done = sweep(clone)
    assert done.status == 2 and "not in this branch" in done.err


@pytest.mark.parametrize(
    "words, said",
    [
        (("--hours",), "needs a number"),
        (("--hours", "soon"), "needs a number"),
        (("--fast",), "no option"),
        ((), "real slices"),
    ],
)
def test_a_mistake_is_one_line(clone, words, said):
    (clone.home / "data" / "acdc96").rmdir()
    done = sweep(clone, *words)
    assert done.status == 2 and len(done.err.splitlines()) == 1 and said in done.err
