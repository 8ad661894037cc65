"""The runs of the second trial, in the order in which they are made.

The first trial trained 100 epochs where the report trained 200 to 500, and gave a setting the same seed in all
folds. Here a setting trains for the report's own number of epochs, with seeds that differ between folds. The
learning rate is constant, so a run contains every shorter one: at its *milestones* a run keeps what a run that
ended there would have recorded, and settings are compared at equal epochs.

    python -m cmrtrial.second.plan --data FOLDER --store FOLDER      # computes what is missing
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from cmrseg import data, datasets
from cmrseg.config import PRESETS
from cmrtrial import records as results
from cmrtrial import runner
from cmrtrial.plans.report import ALEXNET, NING, SEGNET, WIDTHS
from cmrtrial.spec import ACDC96, FOLDS, RunSpec

PROTOCOL = "second"
SCORE_EVERY = 5
MILESTONES = (30, 100, 140, 150, 200, 250, 300, 500)  # and the last epoch of a run
REPLICATES = (1, 2, 3)
# Three more; the baseline's serve every comparison. By the power table (results/second-power.csv, corrected since) they
# raise the chance of "confirmed", should there be no difference at all, from 0.21 to 0.88 for kernel 5, from 0.12 to 0.77 for
# AdamW, from 0.20 to 0.53 for AlexNet's dropout, and hardly for AlexNet's epochs (0.20 to 0.21), where patients are the
# error. Five other equalities have 0.07 or less: more runs of their settings would cost too much, or would not help.
MORE, MORE_REPLICATES = ("baseline", "AdamW", "kernel 5", "AlexNet", "AlexNet, dropout 0.7"), (4, 5, 6)
REPORT = replace(PRESETS["replica"], epochs=500)  # the report's recipe at a quarter of its width

SGD, ADAMW = {"optimiser": "sgd"}, {"optimiser": "adamw", "weight_decay": 0.01}
HALF_WIDTH = (16, 32, 64, 128, 256)

# What claims need, the most telling first: setting -> what differs from the baseline. The epochs are the report's for the
# experiment (mirrored slices: its figure's; AlexNet: 100 and, as the report tried others, 300; classes: those of its final
# network). The baseline's 500 contain all of them.
SETTINGS: dict[str, dict] = {
    "baseline": {},
    # architectures: rivals at the rates that were best for them in the first trial, where the report gives none
    "SegNet": SEGNET | {"epochs": 200},
    "U-Net, rate 0.003": {"lr": 0.003},  # the U-Net's own best rate; Adam's as well
    "AlexNet": ALEXNET | {"epochs": 300},
    "Ning": NING | {"lr": 0.0003, "epochs": 1000},
    # what had only begun to learn when the first trial stopped
    "dropout 0.1": {"dropout": 0.1, "epochs": 300},
    "dropout 0.3": {"dropout": 0.3, "epochs": 300},
    "dropout 0.5": {"dropout": 0.5, "epochs": 300},
    "sigmoid": {"activation": "sigmoid"},
    "hardtanh": {"activation": "hardtanh"},
    "tanh": {"activation": "tanh"},
    "leaky-relu": {"activation": "leaky-relu"},
    "kernel 1": {"kernel": 1, "epochs": 300},
    "kernel 5": {"kernel": 5, "epochs": 300},
    "batch 8": {"batch": 8, "epochs": 250},
    "batch 32": {"batch": 32, "epochs": 250},
    "rate 0.0005": {"lr": 0.0005, "epochs": 300},
    "rate 0.0025": {"lr": 0.0025, "epochs": 300},
    "rate 0.0001": {"lr": 0.0001, "epochs": 300},
    "channels 4-8-16-32": {"channels": (4, 8, 16, 32), "epochs": 250},
    "channels 8-16-32-64": {"channels": (8, 16, 32, 64), "epochs": 250},
    "channels 16-32-64-128": {"channels": (16, 32, 64, 128), "epochs": 250},
    "6 convolutions": {"convolutions": 6, "epochs": 250},
    "2 blocks": {"channels": WIDTHS[:2], "epochs": 250},
    "SGD": SGD | {"epochs": 200},
    "AdamW": ADAMW | {"epochs": 200},
    "SGD, rate 3": SGD | {"lr": 3, "epochs": 200},
    "rate 0.2": {"lr": 0.2, "epochs": 200},
    "rate 0.6": {"lr": 0.6, "epochs": 200},
    "rate 0.01": {"lr": 0.01, "epochs": 300},
    "rate 0.025": {"lr": 0.025, "epochs": 300},
    "mirrored": {"mirrored_set": True, "epochs": 250},
    "RV, positions shuffled": {"epochs": 140},
    "RV, grey levels equalised": {"epochs": 140},
    "AlexNet, SGD 0.001": ALEXNET | SGD | {"epochs": 100},
    "AlexNet, SGD 0.1": ALEXNET | SGD | {"lr": 0.1, "epochs": 100},
    "AlexNet, dropout 0.7": ALEXNET | {"dropout": 0.7, "epochs": 100},
    "channels 1-2-4-8": {"channels": (1, 2, 4, 8), "epochs": 250},
}
CHANGED_SLICES = {"RV, positions shuffled": "+shuffled", "RV, grey levels equalised": "+equalised"}

# From the report's network to the textbook's. Each network differs from the one before it by (the first from the baseline):
# the windows of pooling and enlargement; the fifth pooling, left out with the enlargement that undoes it; skips that
# leave before pooling, and the 1x1 convolution that then must draw; the decoder, whose blocks come after the concatenation
# (the textbook's U-Net, of four poolings and 2x2 windows).
_PARTED = {"model": "report-unet", "windows": 2, "epochs": 250}
SKIPS = {
    "windows 2x2": _PARTED,
    "four poolings": _PARTED | {"poolings": 4},
    "skips before pooling": _PARTED | {"poolings": 4, "skips": "before"},
    "textbook decoder": {"skips": "before", "epochs": 250},
}

# Does the sign of a contrast hold at half the report's width, and about its size?
HALF = {
    "half width": {"channels": HALF_WIDTH, "epochs": 300},
    "half width, SegNet": SEGNET | {"channels": (32, 64, 128, 256, 256), "epochs": 200},
    "half width, kernel 1": {"channels": HALF_WIDTH, "kernel": 1, "epochs": 300},
    "half width, dropout 0.3": {"channels": HALF_WIDTH, "dropout": 0.3, "epochs": 300},
}


def seed(replicate: int, fold: int) -> int:
    """Seeds differ between the folds of a setting; replicates begin with 1, and so no seed is the first trial's."""
    return 5 * replicate + fold


def runs(settings: dict[str, dict], replicates) -> list[RunSpec]:
    """The runs of settings, replicate by replicate, in the order of the settings."""
    plan = []
    for replicate in replicates:
        for name, changes in settings.items():
            for number, fold in enumerate(FOLDS):
                config = replace(REPORT, **changes, seed=seed(replicate, number))
                plan.append(RunSpec(
                    name, config, fold + CHANGED_SLICES.get(name, ""), PROTOCOL, score_every=SCORE_EVERY,
                    milestones=(*(m for m in MILESTONES if m < config.epochs), config.epochs)))
    return plan


PLAN = (runs(SETTINGS, REPLICATES) + runs({name: SETTINGS[name] for name in MORE}, MORE_REPLICATES)
        + runs(SKIPS, REPLICATES) + runs(HALF, REPLICATES[:1]))


def overview(store: Path = results.STORE) -> dict:
    """What the second trial has and lacks: counts of settings, runs, missing and failed ones."""
    lacking = len(runner.missing(PLAN, ACDC96, store))
    failed = len(runner.failed_runs(PLAN, ACDC96, store))
    return {"settings": len({p.setting for p in PLAN}), "runs": len(PLAN) - lacking - failed,
            "missing": lacking, "failed": failed}


def in_words(store: Path = results.STORE) -> str:
    """The state of the second trial in one line."""
    now = overview(store)
    state = f"{now['missing']} missing: not counted until it is complete" if now["missing"] else "complete"
    return f"second trial: {now['runs']} of {len(PLAN)} runs, {now['failed']} failed, {state}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compute the runs of the second trial that have no record yet. "
                                     "Safe to stop at any moment: the same command goes on.")
    parser.add_argument("--data", default=datasets.source(), help="folder of the real slices, or acdc96")
    parser.add_argument("--store", type=Path, default=results.STORE, help="folder of the records [results]")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each [2]")
    parser.add_argument("--hours", type=float, help="begin no run after so long")
    asked = parser.parse_args()
    try:
        found = datasets.load(asked.data, "labelled").fingerprint
        if found != ACDC96:
            raise data.BadInput(asked.data, "holds other slices than the second trial is about",
                                "Give the folder of the 120 real slices")
        bar = tqdm(total=len(PLAN), desc=PROTOCOL, unit="run", disable=None)

        def show(done: int, planned: int) -> None:
            bar.update(len(PLAN) - planned + done - bar.n)

        with bar:
            runner.run_missing(PLAN, asked.data, asked.store, asked.workers,
                               None if asked.hours is None else 60 * asked.hours, progress=show)
        print(in_words(asked.store))
    except (data.BadInput, OSError) as problem:
        sys.exit(f"error: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
