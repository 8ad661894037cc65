"""The experiments as data, and the engine that computes what is missing of them.

An experiment is a list of :class:`Planned` runs. A run's record is filed under its key, so a run
that two experiments need is computed and stored once, and running an experiment again only fills
gaps. Several processes may work on one list: a lock file per key keeps them from doing the same
run twice, and a lock dies with its process.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from cmrseg import data, results
from cmrseg.training import PRESETS, TrainConfig, fit, write_text

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

FIRST = {"epochs": 30, "augment": ("affine", "intensity")}  # the recipe we began with

EXPERIMENTS: dict[str, list[Planned]] = {
    # The peak learning rate, chosen within the training part of one fold.
    "book-learning-rate": _runs(
        "book", ["inner0"], settings={f"{lr:g}": FIRST | {"lr": lr} for lr in (0.0015, 0.003, 0.006)}
    ),
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


def failure(planned: Planned, fingerprint: str, store: Path = results.STORE) -> Path:
    """Where the note lies that says why a run failed."""
    return planned.path(fingerprint, store).with_suffix(".failed.json")


def missing(
    plan: list[Planned], fingerprint: str, store: Path = results.STORE, retry: bool = False
) -> list[Planned]:
    """Those of a plan that have neither record nor (unless ``retry``) a note of failure, once each."""
    by_path = {p.path(fingerprint, store): p for p in plan}
    return [p for path, p in by_path.items() if not path.is_file()
            and (retry or not failure(p, fingerprint, store).is_file())]


def overview(name: str, protocol: str, store: Path = results.STORE) -> dict:
    """What an experiment has and lacks under one protocol, on the real slices: counts."""
    plan = [p for p in EXPERIMENTS[name] if p.protocol == protocol]
    plan = list({p.path(ACDC96, store): p for p in plan}.values())
    lacking = len(missing(plan, ACDC96, store))
    failed = len(missing(plan, ACDC96, store, retry=True)) - lacking
    return {"experiment": name, "protocol": protocol, "settings": len({p.setting for p in plan}),
            "runs": len(plan) - lacking - failed, "missing": lacking, "failed": failed}


def run_one(
    planned: Planned, source: str, store: Path = results.STORE, precision: str = "fp32"
) -> Path | None:
    """Train one planned run and file its record, unless it is there or being made elsewhere.

    A run that fails leaves a note with the reason in the place of its record.

    Returns:
        The path of the record or note, or None where another process holds the run.
    """
    fingerprint = data.load(source, "labelled").fingerprint
    path, note = planned.path(fingerprint, store), failure(planned, fingerprint, store)
    lock = store / ".locks" / f"{path.stem}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            if path.is_file():
                return path
            train, held_out = data.split(source, planned.split)
            try:
                run = fit(planned.config, train, held_out, precision=precision)
            except (ArithmeticError, RuntimeError, ValueError) as error:
                path.parent.mkdir(parents=True, exist_ok=True)
                reason = {"key": path.stem, "setting": planned.setting, "reason": str(error)}
                write_text(note, json.dumps(reason) + "\n")
                return note
            results.write(results.record(run, held_out, planned.split, fingerprint, planned.protocol), store)
            note.unlink(missing_ok=True)
    except Timeout:
        return None
    return path


def run_missing(
    plan: list[Planned],
    source: str,
    store: Path = results.STORE,
    workers: int = 1,
    limit_minutes: float | None = None,
    retry: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Compute what is missing of a plan, one process per worker with one thread each.

    Every worker goes through the same list and skips what it finds done or locked. At the time
    limit no new run is begun. ``progress`` is called with (done, planned) once a second.

    Returns:
        How many runs are still missing.
    """
    deadline = None if limit_minutes is None else time.time() + 60 * limit_minutes
    fingerprint = data.load(source, "labelled").fingerprint
    todo = missing(plan, fingerprint, store, retry)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_work, args=(todo, source, store, deadline), daemon=True)
                 for _ in range(min(workers, len(todo)))]
    for process in processes:
        process.start()
    try:
        while any(process.is_alive() for process in processes):
            time.sleep(1)
            if progress is not None:
                progress(len(todo) - len(missing(todo, fingerprint, store)), len(todo))
    finally:
        for process in processes:
            process.terminate()  # on Ctrl-C; a worker that is through does not mind
            process.join()
    return len(missing(todo, fingerprint, store))


def _work(todo: list[Planned], source: str, store: Path, deadline: float | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    torch.set_num_threads(1)
    for planned in todo:
        if deadline is not None and time.time() > deadline:
            return
        run_one(planned, source, store)
