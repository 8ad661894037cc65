"""The experiments as data, and the engine that computes what is missing of them.

An experiment is a list of :class:`Planned` runs. A run's record is filed under its key, so a run
that two experiments need is computed and stored once, and running an experiment again only fills
gaps. Several processes may work on one list: a lock file per key keeps them from doing the same
run twice, and a lock dies with its process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from cmrseg import data, results, training
from cmrseg.ensemble import Ensemble, Ways
from cmrseg.shifts import LEVELS
from cmrseg.training import PRESETS, Run, TrainConfig, fit, write_text

ACDC96 = "da3871a4a8ce"  # fingerprint of the real labelled slices, so that their records are found


@dataclass(frozen=True)
class Planned:
    """One run to be recorded: what it stands for, and how it is made."""

    setting: str
    config: TrainConfig
    split: str
    protocol: str
    score_train: bool = False
    keep: bool = False  # the network, in runs/networks, for those that look with it
    ways: Ways | None = None  # look with kept networks instead of training one:
    seeds: tuple[int, ...] = ()  # of these seeds (on "val" those of all folds), or else with its own alone
    shift: tuple[str, float] | None = None  # how the slices looked at are changed, see cmrseg.shifts
    score_every: int | None = None  # see cmrseg.training.fit, as for the next
    milestones: tuple[int, ...] = ()

    @property
    def fold(self) -> str:
        """The split without what was done to it: runs on one fold are judged on the same patients."""
        return re.split("[@+]", self.split)[0]

    def key(self, fingerprint: str = ACDC96) -> str:
        """What its record is filed under."""
        trained = self.config.key(self.split, fingerprint)
        return trained if self.ways is None else self.ways.key(trained, self.seeds, self.shift)

    def path(self, fingerprint: str = ACDC96, store: Path = results.STORE) -> Path:
        """Where its record lies, or will."""
        return results.path_of(self.protocol, self.key(fingerprint), store)


FOLDS = tuple(f"fold{k}" for k in range(data.FOLDS))
TRAIN_FOLDS = tuple(f"train-fold{k}" for k in range(data.FOLDS))
RANDOM = tuple(f"random{k}" for k in range(data.FOLDS))
TUNE = ("inner0",)  # whatever is tuned is tuned here, within the training part of fold 0
BASELINE = {"baseline": {}}


def _runs(protocol: str, splits, seeds=(0,), settings=None, score_train: bool = False) -> list[Planned]:
    """Every setting (name -> changed fields) on every split with every seed."""
    return [
        Planned(name, replace(PRESETS[protocol], **changes, seed=seed), split, protocol, score_train)
        for name, changes in (settings or BASELINE).items()
        for split in splits
        for seed in seeds
    ]


def _grid(protocol: str, telling: dict, descriptive: dict | None = None, splits=FOLDS[:2]) -> list[Planned]:
    """Settings that answer a claim on all five folds, the others on ``splits`` only; one seed for each,
    and the baseline's five for a setting that is the baseline."""
    plan = []
    for name, changes in telling.items():
        itself = replace(PRESETS[protocol], **changes) == PRESETS[protocol]
        plan += _runs(protocol, FOLDS, range(5) if itself else (0,), {name: changes})
    return plan + (_runs(protocol, splits, settings=descriptive) if descriptive else [])


def telling(name: str, protocol: str = "replica") -> list[str]:
    """The settings of an experiment that ran on all five folds, in order."""
    on: dict[str, set[str]] = {}
    for planned in EXPERIMENTS[name]:
        if planned.protocol == protocol:
            on.setdefault(planned.setting, set()).add(planned.fold)
    return [setting for setting, splits in on.items() if splits >= set(FOLDS)]


def _rates(*values: float, **changes) -> dict:
    """Learning rates as settings."""
    return {f"{lr:g}": {"lr": lr} | changes for lr in values}


def _named_rates(name: str, values, **changes) -> dict:
    return {f"{name}, {lr:g}": {"lr": lr} | changes for lr in values}


# The recipe that the book began with, on the way to its own.
FIRST = {"epochs": 30, "augment": ("affine", "intensity")}

# Five levels of width everywhere but in "channels", where the report has four.
WIDTHS = (8, 16, 32, 64, 128)
FOUR_LEVELS = {"-".join(map(str, c)): {"channels": c} for c in
               ((1, 2, 4, 8), (4, 8, 16, 32), (8, 16, 32, 64), (16, 32, 64, 128), (32, 64, 128, 256))}

CHANNELS_TELLING = ("1-2-4-8", "4-8-16-32", "16-32-64-128")

# Blocks x convolutions in each.
TOPOLOGIES = {f"{blocks} x {depth}": {"channels": WIDTHS[:blocks], "convolutions": depth}
              for blocks in (2, 3, 4, 5) for depth in (2, 3, 4)}

# A batch of 2 takes 48 steps an epoch on a fold; so many epochs give larger ones as many steps.
EQUAL_UPDATES = {f"{batch}, equal updates": {"batch": batch, "epochs": 100 * batch // 2}
                 for batch in (4, 8, 16, 32)}

SGD, MOMENTUM = {"optimiser": "sgd"}, {"optimiser": "sgd", "momentum": 0.9}
ADAMW = {"optimiser": "adamw", "weight_decay": 0.01}
# Each optimiser at the best of the rates tried in "optimiser-tuning".
OWN_RATES = {"SGD": SGD | {"lr": 3}, "SGD with momentum": MOMENTUM | {"lr": 0.3}, "Adam": {"lr": 0.003},
             "AdamW": ADAMW | {"lr": 0.01}}
AUGMENT = {"augment": ("affine", "strong-intensity")}

# The rivals at a quarter of their own width, as the replica is of the report's U-Net; Ning's is small.
SEGNET = {"model": "segnet", "channels": (16, 32, 64, 128, 128)}
ALEXNET = {"model": "alexnet", "channels": (24, 64, 96, 96, 64, 256), "dropout": 0.5}
NING = {"model": "ning", "channels": (6, 16, 40)}
NETS = {"U-Net": {}, "SegNet": SEGNET, "AlexNet": ALEXNET, "Ning": NING}
# The same with as many parameters as the replica's U-Net, half a million.
MATCHED = {
    "SegNet": SEGNET | {"channels": (9, 18, 37, 74, 74)},
    "AlexNet": ALEXNET | {"channels": (30, 80, 120, 120, 80, 320)},
    "Ning": NING | {"channels": (32, 84, 212)},
}
# What the report tried, or might have: more epochs, more dropout, the full width.
VARIANTS = {
    ("SegNet", "long"): {"epochs": 200},
    ("AlexNet", "long"): {"epochs": 300},
    ("AlexNet", "dropout 0.7"): {"dropout": 0.7},
    ("AlexNet", "full width"): {"channels": (96, 256, 384, 384, 256, 1024)},
    ("Ning", "long"): {"epochs": 500},
}
# The best of the rates tried in "architectures-tuning", by Dice after the last epoch.
RATES = {"replica": {"U-Net": 0.003, "SegNet": 0.001, "AlexNet": 0.001, "AlexNet, SGD": 0.1, "Ning": 0.0003},
         "modern": {"U-Net": 0.003, "SegNet": 0.003, "AlexNet": 0.003, "Ning": 0.03}}

def _at_best_rate(protocol: str, nets: dict) -> dict:
    return {net: changes | {"lr": RATES[protocol][net]} for net, changes in nets.items()}


# From the report's recipe to the modern one: five repairs that together make the one of the other.
REPAIRS = {
    "scale": {"scale": "zscore"},
    "loss": {"loss": "ce+dice"},
    "skips": {"skips": "before"},
    "schedule": ADAMW | {"lr": 0.003, "schedule": "one-cycle", "batch": 4, "epochs": 60},
    "augmentation": AUGMENT,
}
UNREPAIRED = {
    "scale": {"scale": "raw"},
    "loss": {"loss": "report"},
    "skips": {"skips": "after"},
    "schedule": {"optimiser": "adam", "weight_decay": 0.0, "lr": 0.001, "schedule": "constant",
                 "batch": 2, "epochs": 100},
    "augmentation": {"augment": ()},
}


def _first_repairs(count: int) -> dict:
    return {field: value for name in list(REPAIRS)[:count] for field, value in REPAIRS[name].items()}


# Twice the steps of the modern recipe, on many phantoms: the network that a training may begin with.
PHANTOMS = "phantoms"
ON_PHANTOMS = Planned(f"{PHANTOMS} only", replace(PRESETS["modern"], epochs=30), "from-phantom", "modern",
                      keep=True)


def _patients(*counts: int) -> list[Planned]:
    """Trainings with so many patients of each fold, of 48, and about as many steps as with all of them;
    and the same begun with phantoms."""
    plan = []
    for count in counts:
        splits = FOLDS if count == 48 else [f"{fold}@{count}" for fold in FOLDS]
        longer = {"epochs": round(PRESETS["modern"].epochs * 48 / count)}
        plan += _runs("modern", splits, settings={f"{count}": longer, f"{count}, {PHANTOMS} first":
                                                  longer | {"start": PHANTOMS}})
    return plan


# Towards the best model: each rung keeps what the rungs before it brought. The rung with the highest mean
# Dice on the five folds within the training patients becomes the recipe.
SHAPES, GREYS = ("strong-affine", "elastic", "strong-intensity"), ("gamma", "bias-field", "low-resolution")
RUNGS = {
    "book": {},
    "+ averaged weights": {"ema": 0.99},
    "+ residual blocks": {"model": "final", "residual": True, "channels": (16, 32, 64, 128, 192)},
    "+ deep supervision": {"deep": 2},
    "+ 120 epochs": {"epochs": 120},
    "+ more shapes": {"augment": SHAPES},
    "+ more greys": {"augment": SHAPES + GREYS},
    "+ mirrored": {"augment": ("mirror", *SHAPES, *GREYS)},
    "+ 300 epochs": {"epochs": 300},
}


def _climb(rungs: dict) -> dict:
    """Every rung with the changes of those before it."""
    names = list(rungs)
    return {name: {f: v for lower in names[: n + 1] for f, v in rungs[lower].items()}
            for n, name in enumerate(names)}


CLIMBED = _climb(RUNGS)
LADDER = CLIMBED | {
    "300 epochs, not mirrored": CLIMBED["+ more greys"] | {"epochs": 300},
    "120 epochs, at half the resolution": CLIMBED["+ more greys"] | {"strided": True},
    "120 epochs, Dice of each slice": CLIMBED["+ more greys"] | {"loss": "ce+dice each"},
    "120 epochs, the plain U-Net": CLIMBED["+ more greys"] | {
        "model": "unet", "residual": False, "channels": PRESETS["book"].channels, "deep": 0},
    "1000 epochs, Dice of each slice": CLIMBED["+ mirrored"] | {"epochs": 1000, "loss": "ce+dice each"},
    "1000 epochs, half as wide": CLIMBED["+ mirrored"] | {
        "epochs": 1000, "channels": (8, 16, 32, 64, 96), "loss": "ce+dice each"},
}


def _kept(runs: list[Planned]) -> list[Planned]:
    """Runs towards the best model, whose networks are kept."""
    return [replace(planned, protocol="final", keep=True) for planned in runs]


def _look(setting: str, rung: str, ways: Ways, splits=TRAIN_FOLDS, **how) -> list[Planned]:
    """The kept networks of a rung, looking in these ways."""
    config = replace(PRESETS["book"], **LADDER[rung])
    return [Planned(setting, config, split, "final", ways=ways, **how) for split in splits]


# One rung ran with three seeds: what is luck worth here, and do such networks agree?
REPEATED = "120 epochs, Dice of each slice"

# The rung and the ways with the highest mean Dice on the folds within the training patients.
FINAL = "1000 epochs, Dice of each slice"
TURNS = (-10.0, 0.0, 10.0)
WAYS = {
    "as it is": Ways(),
    "mirrored": Ways(mirror=True),
    "turned": Ways(TURNS),
    "turned, cleaned": Ways(TURNS, clean=True),
    "mirrored, turned": Ways(TURNS, mirror=True),
    "mirrored, turned, cleaned": Ways(TURNS, mirror=True, clean=True),
}
FINAL_WAYS = WAYS["mirrored, turned, cleaned"]
# The small network is there to be fast: a quarter of the work and one look. Should its mean on the same folds be
# more than 0.01 below the recipe's, then it is of the recipe's size.
SMALL, SMALL_WAYS = "1000 epochs, half as wide", Ways(clean=FINAL_WAYS.clean)


# How fast can it go? From the book's recipe, cut to 18 epochs, each idea kept; then other ideas, each alone. The ends
# were set beforehand, from trials on some of the folds. The first sprint ended after "+ rate 0.006"; on the
# validation slices it missed its line by 0.016, so it got the next two ideas.
IDEAS = {
    "book, 18 epochs": {"model": "unet", "channels": PRESETS["book"].channels, "convolutions": 2, "lr": 0.003,
                        "augment": PRESETS["book"].augment, "loss": "ce+dice", "batch": 4, "epochs": 18},
    "+ four levels": {"channels": (16, 32, 64, 128)},
    "+ one convolution": {"convolutions": 1},
    "+ squares of pixels": {"model": "sprint"},
    "+ gentler greys": {"augment": ("affine", "intensity")},
    "+ rate 0.006": {"lr": 0.006},
    "+ Dice of each slice": {"loss": "ce+dice each"},
    "+ 22 epochs": {"epochs": 22},
}
SPRINTS = _climb(IDEAS)
FIRST_SPRINT, SPRINT = "+ rate 0.006", "+ 22 epochs"
OTHER_IDEAS = {name: SPRINTS[FIRST_SPRINT] | changes for name, changes in {
    "two convolutions": {"convolutions": 2},
    "three levels": {"channels": (16, 32, 64)},
    "narrower": {"channels": (12, 24, 48, 96)},
    "rate 0.012": {"lr": 0.012},
    "batch 8, rate 0.01": {"batch": 8, "lr": 0.01},
    "averaged weights": {"ema": 0.98},
    "shapes only": {"augment": ("affine",)},
    "greys only": {"augment": ("intensity",)},
    "12 epochs": {"epochs": 12},
    "27 epochs": {"epochs": 27},
}.items()}
# Ideas on top of the sprint as it now is. The last gives two threads more to do in a step; it was the sprint until all its
# folds were there.
LATER_IDEAS = {name: SPRINTS[SPRINT] | changes for name, changes in {
    "rate 0.004": {"lr": 0.004},
    "rate 0.008": {"lr": 0.008},
    "SGD, rate 0.03": {"optimiser": "sgd", "momentum": 0.9, "lr": 0.03},
    "SGD, rate 0.1": {"optimiser": "sgd", "momentum": 0.9, "lr": 0.1},
    "SGD, rate 0.3": {"optimiser": "sgd", "momentum": 0.9, "lr": 0.3},
    "batch 8, rate 0.01, 30 epochs": {"batch": 8, "lr": 0.01, "epochs": 30},
    "narrower, 26 epochs": {"channels": (12, 24, 48, 96), "epochs": 26},
    "mirrored": {"augment": ("mirror", "affine", "intensity")},
    "batch 10, rate 0.014, 26 epochs": {"batch": 10, "lr": 0.014, "epochs": 26},
}.items()}
# Larger batches gain more by a second thread. In the order of their time on two threads (a trial of some epochs: 4.3 to 5.0 s,
# the sprint 5.3): the first whose mean Dice over five folds and five seeds is not below the sprint's takes its place. That
# was set before their records; none did.
LARGER_BATCHES = {f"batch {batch}, rate 0.01, {epochs} epochs": SPRINTS[SPRINT] | {"batch": batch, "lr": 0.01, "epochs": epochs}
                  for batch, epochs in ((10, 24), (8, 24), (10, 26), (8, 26))}

# What the report did and the sweep does not repeat, with the reason.
NOT_REPEATED = {
    "epochs": "The report trained 100 to 500 epochs (Ning et al. 1000), the replica 100 (Ning et al. also 500): "
              "\"Early stopping\" asks for more.",
    "widths": "Every width is a quarter of the report's, so that hundreds of trainings fit on two cores.",
    "learning_rate_narrow": "Seven runs of a rate on one split; here one run on each of five folds, or of two.",
    "learning_rate_wide": "Rates that no claim names run once, on one fold: they are drawn as points.",
    "early_stopping": "2500 epochs; here 700, as long as forty minutes of two cores allow for five folds.",
    "augmentation": "How the report mixed its doubled set is not said; here both halves are shuffled.",
}

EXPERIMENTS: dict[str, list[Planned]] = {
    # --- the book's own recipe, and the pages of its first two parts ---
    # The peak learning rate, chosen within the training part of one fold.
    "book-learning-rate": _runs("book", TUNE, settings=_rates(0.0015, 0.003, 0.006, **FIRST)),
    # The first recipe on the report's split: it missed 0.86, so a better one was looked for.
    "book-first": _runs("book", ["val"], seeds=(0, 1, 2), settings={"first recipe": FIRST}),
    # What to change in it, chosen by five folds within the training patients.
    "book-recipe": _runs("modern", TRAIN_FOLDS, settings={
        "as it was": FIRST,
        "batch 2": FIRST | {"batch": 2},
        "60 epochs": FIRST | {"epochs": 60},
        "mirrored": FIRST | {"augment": ("mirror", "affine", "intensity")},
        "strong affine": FIRST | {"augment": ("strong-affine", "intensity")},
        "strong intensity": FIRST | {"augment": ("affine", "strong-intensity")},
        "60 epochs, strong intensity": {"epochs": 60, "augment": ("affine", "strong-intensity")},
        "60 epochs, strong": {"epochs": 60, "augment": ("strong-affine", "strong-intensity")},
        "60 epochs, strong, mirrored": {
            "epochs": 60, "augment": ("mirror", "strong-affine", "strong-intensity")},
    }),
    # The network a reader trains, on the report's split.
    "book": _runs("book", ["val"], seeds=(0, 1, 2)),
    # The report's own recipe, once, at full size.
    "as-published": _runs("report", ["val"]),
    # The same recipe, narrower: the collapse and the late start.
    "late-start": _runs("replica", ["val"], seeds=(0, 1, 2)),
    # One network, two ways to hold slices out: by patient, and by slice at random.
    "leakage": _runs("modern", FOLDS) + _runs("modern", RANDOM),

    # --- the report on trial: what carries most comes first ---
    "baseline": _runs("replica", FOLDS, range(5)) + _runs("modern", FOLDS, range(5)),
    # The report's own split: how large a difference did chance make there?
    "noise-floor": _runs("replica", ["val"], range(10)),
    # Each network and optimiser gets three rates; the best, by Dice after the last epoch, is used below.
    # Where it lay at the edge of the three, one more was added beyond it, for all where the U-Net's did.
    "architectures-tuning": [
        planned
        for protocol, rates in (("replica", (0.0003, 0.001, 0.003, 0.01)), ("modern", (0.001, 0.003, 0.01)))
        for net, changes in NETS.items()
        for planned in _runs(protocol, TUNE, settings=_named_rates(net, rates, **changes))
    ] + _runs("replica", TUNE, settings=(
        _named_rates("AlexNet, SGD", (0.001, 0.01, 0.1, 1), **ALEXNET, **SGD)
        | _named_rates("Ning", (0.0001,), **NING)))
    + _runs("modern", TUNE, settings=_named_rates("Ning", (0.03,), **NING)),
    "optimiser-tuning": _runs("replica", TUNE, settings=(
        _named_rates("SGD", (0.01, 0.1, 1, 3), **SGD)
        | _named_rates("SGD with momentum", (0.001, 0.01, 0.1, 0.3), **MOMENTUM)
        | _named_rates("Adam", (0.0003, 0.001, 0.003, 0.01))
        | _named_rates("AdamW", (0.0003, 0.001, 0.003, 0.01), **ADAMW))),
    # What carries a headline has three seeds; the rest asks what size, epochs and dropout would change.
    "architectures": (
        _runs("replica", FOLDS, range(3), _at_best_rate("replica", NETS | {"AlexNet, SGD": ALEXNET | SGD}))
        + _runs("replica", FOLDS, settings={f"{net}, matched": changes for net, changes in
                                            _at_best_rate("replica", MATCHED).items()})
        + _runs("replica", FOLDS, settings={f"{net}, {what}": _at_best_rate("replica", NETS)[net] | changes
                                            for (net, what), changes in VARIANTS.items()})
        + _runs("modern", FOLDS, range(3), _at_best_rate("modern", NETS))
    ),
    # One fix at a time, one fix alone, and all but one.
    "repairs": (
        _runs("replica", FOLDS, range(3))
        + _runs("replica", FOLDS, settings={f"with {name}": fix for name, fix in REPAIRS.items()})
        + _runs("replica", FOLDS, settings={
            f"up to {list(REPAIRS)[n - 1]}": _first_repairs(n) for n in (2, 3)})
        + _runs("modern", FOLDS, range(3))
        + _runs("modern", FOLDS, settings={f"without {name}": old for name, old in UNREPAIRED.items()})
    ),
    "optimiser": (
        _grid("replica", {"SGD": SGD, "Adam": {}, "AdamW": ADAMW} | {
            f"{name}, own rate": changes for name, changes in OWN_RATES.items()})
        + _grid("modern", {"AdamW": {}, "Adam": {"optimiser": "adam", "weight_decay": 0.0},
                           "SGD": {"optimiser": "sgd", "weight_decay": 0.0}})
    ),
    "batch-size": (
        _grid("replica",
              {"2": {}} | {f"{b}": {"batch": b} for b in (8, 32)}
              | {"32, equal updates": EQUAL_UPDATES["32, equal updates"]},
              {f"{b}": {"batch": b} for b in (4, 16)}
              | {n: c for n, c in EQUAL_UPDATES.items() if n != "32, equal updates"})
        + _runs("replica", ["val"], range(3), {
            "32 of 100": {"batch": 32}, "32 of 100, drop last": {"batch": 32, "drop_last": True}})
        + _grid("modern", {"4": {}} | {f"{b}": {"batch": b} for b in (2, 32)})
    ),
    "activation": (
        _grid("replica", {a: {"activation": a} for a in ("sigmoid", "leaky-relu", "relu", "tanh", "hardtanh")})
        + _grid("modern", {a: {"activation": a} for a in ("relu", "sigmoid", "tanh")})
    ),
    "kernel-size": (
        _grid("replica", {f"{k}": {"kernel": k} for k in (1, 3, 5)})
        + _grid("modern", {f"{k}": {"kernel": k} for k in (1, 3, 5)})
    ),
    "dropout": (
        _grid("replica", {f"{d:g}": {"dropout": d} for d in (0.0, 0.1, 0.3, 0.5)},
              {f"{d:g}": {"dropout": d} for d in (0.2, 0.4)})
        + _grid("modern", {f"{d:g}": {"dropout": d} for d in (0.0, 0.1, 0.5)})
    ),
    "augmentation": (
        _grid("replica", {"none": {}, "mirrored, doubled": {"mirrored_set": True}},
              {"affine": {"augment": ("affine",)}, "affine + intensity": AUGMENT})
        + _grid("modern", {"none": {"augment": ()},
                           "mirrored, doubled": {"augment": (), "mirrored_set": True},
                           "affine": {"augment": ("affine",)}, "affine + intensity": {}})
    ),
    # The wide grid: its 28 rates on one fold, those that claims name on five.
    "learning-rate-wide": (
        _grid("replica", _rates(0.001, 0.2, 0.6, 1.0), _rates(
            *(n / 1000 for n in range(2, 10)), *(n / 100 for n in range(1, 10)), 0.1, 0.3, 0.4, 0.5, 0.7, 0.8,
            0.9), splits=FOLDS[:1])
        + _runs("replica", FOLDS, (1, 2), _rates(0.6))  # is it a share of runs that collapses?
        + _grid("modern", _rates(0.003, 0.2, 0.6))
    ),
    "learning-rate-narrow": (
        _grid("replica", _rates(0.001, 0.01, 0.025), _rates(0.005, 0.015, 0.02))
        + _grid("modern", _rates(0.003, 0.001, 0.025))
    ),
    "learning-rate-small": (
        _grid("replica", _rates(0.0001, 0.0005, 0.001, 0.0025), _rates(0.0015, 0.002))
        + _grid("modern", _rates(0.003, 0.0001, 0.0005))
    ),
    "channels": (
        _grid("replica", {n: c for n, c in FOUR_LEVELS.items() if n in CHANNELS_TELLING},
              {n: c for n, c in FOUR_LEVELS.items() if n not in CHANNELS_TELLING})
        + _runs("replica", FOLDS, (1, 2), {"1-2-4-8": FOUR_LEVELS["1-2-4-8"]})
        + _grid("modern", {n: c for n, c in FOUR_LEVELS.items() if n in CHANNELS_TELLING})
    ),
    "topology": (
        _grid("replica", {n: TOPOLOGIES[n] for n in ("2 x 2", "5 x 2")},
              {n: c for n, c in TOPOLOGIES.items() if n not in ("2 x 2", "5 x 2")})
        + _grid("modern", {n: TOPOLOGIES[n] for n in ("2 x 2", "5 x 2")})
    ),
    "depth": (
        _grid("replica", {f"{d}": {"convolutions": d} for d in (2, 6)},
              {f"{d}": {"convolutions": d} for d in (3, 4, 5)})
        + _grid("modern", {f"{d}": {"convolutions": d} for d in (2, 6)})
    ),
    "patients": (
        _patients(5, 10, 20, 35, 48)
        + [replace(ON_PHANTOMS, config=replace(ON_PHANTOMS.config, seed=seed)) for seed in range(5)]
        + _runs("modern", ["to-phantom"], range(3), {"patients, judged on phantoms": {}})
    ),
    "where-it-fails": (
        [run for protocol in ("replica", "modern") for run in (
            *_runs(protocol, FOLDS, range(5), {"RV": {}}),
            *_runs(protocol, [f"{fold}+shuffled" for fold in FOLDS], settings={"RV, positions shuffled": {}}),
            *_runs(protocol, [f"{fold}+equalised" for fold in FOLDS],
                   settings={"RV, grey levels equalised": {}}))]
    ),
    "final-ladder": _kept(_runs("book", TRAIN_FOLDS, settings=LADDER)
                          + _runs("book", TRAIN_FOLDS, (1, 2), {REPEATED: LADDER[REPEATED]})),
    "final-ways": [run for name, ways in WAYS.items() for run in _look(name, FINAL, ways, seeds=(0,))],
    # Does a network know when it is wrong? One of a rung that ran with three seeds, and all three.
    "final-trust": [
        run for name in ("as it is", "turned") for run in (
            *_look(f"one network, {name}", REPEATED, WAYS[name], seeds=(0,)),
            *_look(f"three networks, {name}", REPEATED, WAYS[name], seeds=(0, 1, 2)))
    ],
    "final-shifts": [
        run for rung in ("book", FINAL) for change, (_, levels) in LEVELS.items() for level in levels
        for run in _look(f"{rung}, {change} {level:g}", rung, Ways(), seeds=(0,), shift=(change, float(level)))
    ],
    # The validation slices, once: five networks, one of each fold; and one, trained on all training slices.
    "final": _look("final", FINAL, FINAL_WAYS, ["val"], seeds=(0,)) + _look("small", SMALL, SMALL_WAYS, ["val"]),
    # Four more seeds of what was, or might have become, the sprint say what the luck of a run is worth.
    "sprint-ideas": _runs("sprint", TRAIN_FOLDS, settings=SPRINTS | OTHER_IDEAS | LATER_IDEAS | LARGER_BATCHES)
    + _runs("sprint", TRAIN_FOLDS, range(1, 5), {
        name: (SPRINTS | LATER_IDEAS | LARGER_BATCHES)[name]
        for name in (FIRST_SPRINT, SPRINT, "batch 10, rate 0.014, 26 epochs", *LARGER_BATCHES)}),
    # As long as forty minutes of two cores allow: seven times the recipe's epochs.
    "early-stopping": _runs("replica", FOLDS, settings={"long": {"epochs": 700}}, score_train=True)
    + _runs("modern", FOLDS, settings={"long": {"epochs": 240}}, score_train=True),
}


# Trainings of different days are not a clock: the same one took a sixth longer on another day. So the claims about
# time have short trainings of their own, in rounds: each setting once in a round, one after the other.
TIMED = {"kernel-size": ("3", "5"), "depth": ("2", "6"), "dropout": ("0", "0.3"),
         "augmentation": ("none", "mirrored, doubled"), "architectures": tuple(NETS)}
AGAIN, ROUNDS = ("kernel-size", "3"), range(10)


def timed(name: str, setting: str, number: int) -> Planned:
    """The short training of a setting in a round of the experiment ``clock``."""
    planned = next(p for p in EXPERIMENTS[name] if (p.setting, p.protocol) == (setting, "replica"))
    config = replace(planned.config, epochs=6, seed=number)
    return Planned(f"{name}, {setting}", config, "val", "replica")


def _clock() -> list[Planned]:
    """All rounds, each begun and ended by the baseline: the second, with seeds of its own, to check the clock."""
    plan: dict[Path, Planned] = {}  # several experiments have the baseline among their settings
    for number in ROUNDS:
        for planned in [timed(name, setting, number) for name in TIMED for setting in TIMED[name]]:
            plan.setdefault(planned.path(), planned)
        again = replace(timed(*AGAIN, number + len(ROUNDS)), setting="the first once more")
        plan[again.path()] = again
    return list(plan.values())


EXPERIMENTS["clock"] = _clock()


def records(name: str, store: Path = results.STORE) -> list[tuple[Planned, dict]]:
    """The records of an experiment on the real slices, with what was planned.

    Raises:
        BadInput: one is missing; the message names the experiment.
    """
    found = []
    for planned in EXPERIMENTS[name]:
        path = planned.path(store=store)
        if not path.is_file():
            raise data.BadInput(path, f"no record yet for {name}, {planned.setting}",
                                f"Compute it: python -m cmrseg sweep {name} --data acdc96")
        found.append((planned, results.read(path)))
    return found


def failure(planned: Planned, fingerprint: str, store: Path = results.STORE) -> Path:
    """Where the note lies that says why a run failed."""
    return planned.path(fingerprint, store).with_suffix(".failed.json")


def failed_runs(plan: list[Planned], fingerprint: str, store: Path = results.STORE) -> list[Path]:
    """The notes of the runs of a plan that failed and have no record."""
    notes = {failure(p, fingerprint, store): p.path(fingerprint, store) for p in plan}
    return [note for note, path in notes.items() if note.is_file() and not path.is_file()]


def missing(
    plan: list[Planned], fingerprint: str, store: Path = results.STORE, retry: bool = False
) -> list[Planned]:
    """Those of a plan that have neither record nor (unless ``retry``) a note of failure, once each."""
    by_path = {p.path(fingerprint, store): p for p in plan}
    return [p for path, p in by_path.items() if not path.is_file()
            and (retry or not failure(p, fingerprint, store).is_file())]


def look_at(plan: list[Planned], fingerprint: str, store: Path = results.STORE) -> None:
    """Raise BadInput for the first record of a plan that is torn, edited, or of a newer version."""
    for path in {p.path(fingerprint, store) for p in plan}:
        if path.is_file():
            results.read(path)


def overview(name: str, protocol: str, store: Path = results.STORE) -> dict:
    """What an experiment has and lacks under one protocol, on the real slices: counts."""
    plan = [p for p in EXPERIMENTS[name] if p.protocol == protocol]
    plan = list({p.path(ACDC96, store): p for p in plan}.values())
    look_at(plan, ACDC96, store)
    lacking = len(missing(plan, ACDC96, store))
    failed = len(failed_runs(plan, ACDC96, store))
    return {"experiment": name, "protocol": protocol, "settings": len({p.setting for p in plan}),
            "runs": len(plan) - lacking - failed, "missing": lacking, "failed": failed}


def run_one(
    planned: Planned, source: str, store: Path = results.STORE, precision: str = "fp32"
) -> Path | None:
    """Train one planned run and file its record, unless it is there or being made elsewhere.

    A run that fails leaves a note with the reason in the place of its record, and is not tried again as long
    as the note lies there.

    Returns:
        The path of the record or note, or None where another process holds the run.
    """
    fingerprint = data.load(source, "labelled").fingerprint
    path, note = planned.path(fingerprint, store), failure(planned, fingerprint, store)
    lock = store / ".locks" / f"{path.stem}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            if path.is_file() or note.is_file():
                return path if path.is_file() else note
            try:
                found = _measure(planned, source, store, precision)
            except data.BadInput:  # nothing that trying again would show
                raise
            except (ArithmeticError, RuntimeError, ValueError) as error:
                path.parent.mkdir(parents=True, exist_ok=True)
                reason = {"key": path.stem, "setting": planned.setting, "reason": str(error)}
                write_text(note, json.dumps(reason) + "\n")
                return note
            results.write(found, store)
    except Timeout:
        return None
    return path


def _measure(planned: Planned, source: str, store: Path, precision: str) -> dict:
    """The record of a run, trained here; or of kept networks, looked with in new ways."""
    fingerprint = data.load(source, "labelled").fingerprint
    train, held_out = data.split(source, planned.split)
    if planned.ways is not None:
        runs = networks(planned, source, store, precision)
        if planned.shift is not None:
            change, level = LEVELS[planned.shift[0]][0], planned.shift[1]
            held_out = change(held_out, level)
        looking = Ensemble([run.model for run in runs], planned.config, planned.ways)
        return results.record_of_ways(looking, planned.seeds, held_out, planned.split, fingerprint,
                                      planned.protocol, planned.shift)
    if planned.keep:
        run = kept(planned, source, store, precision)
    else:
        start = None
        if planned.config.start == PHANTOMS:  # each fold begins with a network of its own
            first = replace(ON_PHANTOMS, config=replace(ON_PHANTOMS.config, seed=int(planned.fold[4])))
            start = kept(first, source, store, precision).model
        run = fit(planned.config, train, held_out, score_train=planned.score_train, precision=precision,
                  start=start, score_every=planned.score_every, milestones=planned.milestones)
    return results.record(run, train, held_out, planned.split, fingerprint, planned.protocol)


def networks(planned: Planned, source: str, store: Path, precision: str = "fp32") -> list[Run]:
    """The kept networks that a planned run looks with."""
    trained = replace(planned, ways=None, shift=None, keep=True)
    splits = TRAIN_FOLDS if planned.split == "val" and planned.seeds else (planned.split,)
    return [kept(replace(trained, split=split, config=replace(planned.config, seed=seed)), source, store, precision)
            for split in splits for seed in planned.seeds or (planned.config.seed,)]


def kept(planned: Planned, source: str, store: Path, precision: str = "fp32") -> Run:
    """The network of a run that is kept, from ``runs/networks`` beside the store, or else trained.

    The held-out slices are not scored on the way: such a network is judged when it is ready, once.
    """
    folder = store.parent / "runs" / "networks" / planned.key(data.load(source, "labelled").fingerprint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / training.MODEL).is_file():
            folder.mkdir(exist_ok=True)
            run = fit(planned.config, data.split(source, planned.split)[0], out=folder, resume=True,
                      precision=precision)
            write_text(folder / HISTORY, json.dumps({"history": run.history, "seconds": run.seconds,
                                                     "cpu_seconds": run.cpu_seconds}) + "\n")
            training.save(run, folder)
            (folder / training.CHECKPOINT).unlink(missing_ok=True)
        run = training.load(folder)
        for name, value in json.loads((folder / HISTORY).read_text()).items():
            setattr(run, name, value)
    return run


HISTORY = "history.json"


def run_missing(
    plan: list[Planned],
    source: str,
    store: Path = results.STORE,
    workers: int = 1,
    limit_minutes: float | None = None,
    retry: bool = False,
    progress: Callable[[int, int], None] | None = None,
    engine: str = "local",
) -> int:
    """Compute what is missing of a plan, one process per worker with one thread each.

    Every worker goes through the same list and skips what it finds done or locked. At the time
    limit no new run is begun. ``progress`` is called with (done, planned) once a second. With
    ``engine="ray"`` the runs are tasks of a Ray cluster (``RAY_ADDRESS``, else one on this machine)
    that are tried again when their node is lost; ``workers`` is then the number of local ones.

    Returns:
        How many runs are still missing.

    Raises:
        BadInput: a record in the store, or a file that a run needs, is damaged; or a worker was killed.
        OSError: a worker could not write, such as on a full disk.
    """
    deadline = None if limit_minutes is None else time.time() + 60 * limit_minutes
    fingerprint = data.load(source, "labelled").fingerprint
    look_at(plan, fingerprint, store)
    todo = missing(plan, fingerprint, store, retry)
    if not todo:
        return 0
    for planned in todo if retry else ():  # what failed before is missing from now on
        failure(planned, fingerprint, store).unlink(missing_ok=True)

    def show() -> None:
        if progress is not None:
            progress(len(todo) - len(missing(todo, fingerprint, store)), len(todo))

    start = {"local": _start_local, "ray": _start_ray}[engine]
    running, stop = start(todo, source, store, deadline, min(workers, len(todo)))
    try:
        while running():
            show()
            time.sleep(1)
        show()
    finally:
        stop()
    return len(missing(todo, fingerprint, store))


def _start_local(todo: list[Planned], source: str, store: Path, deadline: float | None, workers: int):
    """Start processes; returns two functions: are any still running, and stop them."""
    context = multiprocessing.get_context("spawn")
    troubles = context.SimpleQueue()
    processes = [context.Process(target=_work, args=(todo, source, store, deadline, troubles), daemon=True)
                 for _ in range(workers)]
    for process in processes:
        process.start()

    def stop() -> None:
        for process in processes:
            process.terminate()  # on Ctrl-C; a worker that is through does not mind
            process.join()

    def running() -> bool:
        alive = any(process.is_alive() for process in processes)
        if not troubles.empty():
            raise troubles.get()
        lost = [process.exitcode for process in processes if process.exitcode]
        if lost and not alive:
            raise data.BadInput("sweep", f"a worker ended with status {lost[0]}", "Perhaps memory is short: "
                                "the same command goes on, with fewer --workers")
        return alive

    return running, stop


def _work(todo: list[Planned], source: str, store: Path, deadline: float | None, troubles) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    for planned in todo:
        if deadline is not None and time.time() > deadline:
            return
        try:
            run_one(planned, source, store)
        except (data.BadInput, OSError) as problem:  # the other runs would meet it too
            troubles.put(problem)
            return


def _die_with(parent) -> None:
    parent.join()
    os._exit(1)  # nothing is lost: a record is written whole or not at all


def _start_ray(todo: list[Planned], source: str, store: Path, deadline: float | None, workers: int):
    """As :func:`_start_local`, as tasks of a Ray cluster that shares the folder of the store."""
    import ray

    at = os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized():
        ray.init(address=at, num_cpus=None if at else workers, log_to_driver=False, logging_level="ERROR")

    @ray.remote(num_cpus=1, max_retries=5)
    def task(planned: Planned) -> None:
        torch.set_num_threads(1)
        while deadline is None or time.time() < deadline:
            if run_one(planned, source, store):
                return
            time.sleep(1)  # held by the lost node's worker, which will not live long

    tasks = [task.remote(planned) for planned in todo]

    def running() -> bool:
        nonlocal tasks
        done, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        try:
            ray.get(done)
        except ray.exceptions.RayTaskError as problem:  # which says and knows less than its cause
            raise problem.cause from problem
        return bool(tasks)

    return running, ray.shutdown
