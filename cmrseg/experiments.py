"""The experiments as data, and the engine that computes what is missing of them.

An experiment is a list of :class:`Planned` runs. A run's record is filed under its key, so a run
that two experiments need is computed and stored once, and running an experiment again only fills
gaps. Several processes may work on one list: a lock file per key keeps them from doing the same
run twice, and a lock dies with its process.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from cmrseg import data, results
from cmrseg.training import PRESETS, TrainConfig, fit

ACDC96 = "da3871a4a8ce"  # fingerprint of the real labelled slices, so that pages find their records


@dataclass(frozen=True)
class Planned:
    """One run to be recorded: what it stands for on a page, and how it is made."""

    setting: str
    config: TrainConfig
    split: str
    protocol: str

    def path(self, fingerprint: str = ACDC96, store: Path = results.STORE) -> Path:
        """Where its record lies, or will."""
        key = self.config.key(self.split, fingerprint)
        return results.path_of(self.protocol, key, store)


def _runs(protocol: str, splits, seeds=(0,), settings=None) -> list[Planned]:
    """Every setting (name -> changed fields) on every split with every seed."""
    return [
        Planned(name, replace(PRESETS[protocol], **changes, seed=seed), split, protocol)
        for name, changes in (settings or {protocol: {}}).items()
        for split in splits
        for seed in seeds
    ]


FOLDS = tuple(f"fold{k}" for k in range(data.FOLDS))
TRAIN_FOLDS = tuple(f"train-fold{k}" for k in range(data.FOLDS))
RANDOM = tuple(f"random{k}" for k in range(data.FOLDS))

EXPERIMENTS: dict[str, list[Planned]] = {
    # The peak learning rate of the book's recipe, chosen within the training part of one fold.
    "book-learning-rate": _runs(
        "book", ["inner0"], settings={f"{lr:g}": {"lr": lr} for lr in (0.0015, 0.003, 0.006)}
    ),
    # What to change in the recipe, chosen by five folds within the training patients.
    "book-recipe": _runs("modern", TRAIN_FOLDS, settings={
        "as it was": {},
        "batch 2": {"batch": 2},
        "60 epochs": {"epochs": 60},
        "mirrored": {"augment": ("mirror", "affine", "intensity")},
        "strong affine": {"augment": ("strong-affine", "intensity")},
        "strong intensity": {"augment": ("affine", "strong-intensity")},
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
}


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


def missing(plan: list[Planned], fingerprint: str, store: Path = results.STORE) -> list[Planned]:
    """Those of a plan that have no record yet, each key once."""
    by_path = {p.path(fingerprint, store): p for p in plan}
    return [p for path, p in by_path.items() if not path.is_file()]


def run_one(planned: Planned, source: str, store: Path = results.STORE, precision: str = "fp32"):
    """Train one planned run and file its record, unless it is there or being made elsewhere.

    Returns:
        The path of the record, or None where another process holds the run.
    """
    fingerprint = data.load(source, "labelled").fingerprint
    path = planned.path(fingerprint, store)
    lock = store / ".locks" / f"{path.stem}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            if not path.is_file():
                train, held_out = data.split(source, planned.split)
                run = fit(planned.config, train, held_out, precision=precision)
                found = results.record(run, held_out, planned.split, fingerprint, planned.protocol)
                results.write(found, store)
    except Timeout:
        return None
    return path


def run_missing(
    plan: list[Planned],
    source: str,
    store: Path = results.STORE,
    workers: int = 1,
    limit_minutes: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compute what is missing of a plan, one process per worker with one thread each.

    At the time limit no new run is begun. ``progress`` is called with (done, planned) now and then.

    Returns:
        How many runs are still missing.
    """
    deadline = None if limit_minutes is None else time.time() + 60 * limit_minutes
    fingerprint = data.load(source, "labelled").fingerprint
    todo = missing(plan, fingerprint, store)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(todo, source, store, deadline), daemon=True)
                 for _ in range(min(workers, len(todo)))]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        time.sleep(1)
        if progress is not None:
            progress(len(todo) - len(missing(todo, fingerprint, store)), len(todo))
    return len(missing(plan, fingerprint, store))


def _work(todo: list[Planned], source: str, store: Path, deadline: float | None) -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for planned in todo:
        if deadline is not None and time.time() > deadline:
            return
        run_one(planned, source, store)
