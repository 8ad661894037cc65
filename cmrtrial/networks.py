"""Train and evaluate the network of a planned run, or predict with trained ones that were kept."""

import json
import time
from dataclasses import replace
from pathlib import Path

from cmrseg import checkpoint, datasets
from cmrseg.config import TrainingResult
from cmrseg.data import Slices, write_text
from cmrseg.machine import locked
from cmrseg.postprocess import to_labels
from cmrseg.predict import Ensemble, predict
from cmrseg.record import common_fields, make_record, processor
from cmrseg.train import fit
from cmrtrial import calibration
from cmrtrial.corruptions import LEVELS
from cmrtrial.plans.report import ON_PHANTOMS, PHANTOMS
from cmrtrial.records import STORE
from cmrtrial.spec import TRAIN_FOLDS, RunSpec
from cmrtrial.splits import split

HISTORY = "history.json"


def train_and_evaluate(spec: RunSpec, source: str, store: Path = STORE) -> dict:
    """The record of a run: trained here; or of kept networks, with test-time augmentation."""
    fingerprint = datasets.load(source, "labelled").fingerprint
    train, held_out = split(source, spec.split)
    if spec.tta is not None:
        networks = cached_networks(spec, source, store)
        if spec.shift is not None:
            (change, _), level = LEVELS[spec.shift[0]], spec.shift[1]
            held_out = change(held_out, level)
        return _record_of_tta(spec, networks, held_out, fingerprint)
    if spec.keep:
        result = cached_network(spec, source, store)
    else:
        result = fit(
            spec.config,
            train,
            held_out,
            score_train=spec.score_train,
            start=_start(spec, source, store),
            score_every=spec.score_every,
            milestones=spec.milestones,
        )
    return make_record(result, train, held_out, spec.split, fingerprint, spec.protocol)


def _start(spec: RunSpec, source: str, store: Path):
    """The network that a training begins with, if its configuration asks for one."""
    if spec.config.start != PHANTOMS:
        return None
    config = replace(ON_PHANTOMS.config, seed=int(spec.fold[4]))  # each fold has one of its own
    return cached_network(replace(ON_PHANTOMS, config=config), source, store).model


def cached_networks(spec: RunSpec, source: str, store: Path = STORE) -> list[TrainingResult]:
    """The kept networks that a run with ``tta`` predicts with: those of its seeds.

    On ``"val"`` they are of all folds, see :class:`~cmrtrial.spec.RunSpec`.
    """
    trained = replace(spec, tta=None, shift=None, keep=True)
    splits = TRAIN_FOLDS if spec.split == "val" and spec.seeds else (spec.split,)
    specs = [
        replace(trained, split=name, config=replace(spec.config, seed=seed))
        for name in splits
        for seed in spec.seeds or (spec.config.seed,)
    ]
    return [cached_network(one, source, store) for one in specs]


def cached_network(spec: RunSpec, source: str, store: Path = STORE) -> TrainingResult:
    """The network of a run that is kept, from ``runs/networks`` beside the store, or else trained.

    Its history is kept with it, its checkpoint is not. The held-out slices are not scored on the
    way: such a network is judged when it is ready, once.
    """
    fingerprint = datasets.load(source, "labelled").fingerprint
    folder = store.parent / "runs" / "networks" / spec.key(fingerprint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if not (folder / checkpoint.MODEL).is_file():
            folder.mkdir(exist_ok=True)
            train, _ = split(source, spec.split)
            result = fit(spec.config, train, out=folder, resume=True)
            kept = {name: getattr(result, name) for name in ("history", "seconds", "cpu_seconds")}
            write_text(folder / HISTORY, json.dumps(kept) + "\n")
            checkpoint.save(result, folder)
            (folder / checkpoint.CHECKPOINT).unlink(missing_ok=True)
        result = checkpoint.load(folder)
        for name, value in json.loads((folder / HISTORY).read_text(encoding="utf-8")).items():
            setattr(result, name, value)
    return result


def _record_of_tta(
    spec: RunSpec, networks: list[TrainingResult], held_out: Slices, fingerprint: str
) -> dict:
    """The record of trained networks of one configuration that predict together.

    It has no history, and the seconds are those of the prediction. What :func:`calibration.summary`
    says of the probabilities is added to it.
    """
    ensemble = Ensemble([network.model for network in networks], spec.config.scale, spec.tta)
    started = time.perf_counter(), time.process_time()
    probability = ensemble.probabilities(held_out.images)
    masks = to_labels(probability, spec.tta.postprocess)
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    record = common_fields(
        spec.key(fingerprint), spec.config, masks, held_out, spec.split, fingerprint, spec.protocol
    )
    alone = [predict(model, held_out.images, ensemble.scale) for model in ensemble.models]
    record |= calibration.summary(probability, held_out.masks, alone)
    return record | {
        "ways": spec.tta.to_record() | {"seeds": list(spec.seeds), "shift": spec.shift},
        "dice_best": record["dice_last"],
        "history": {"epoch": [], "loss": [], "lr": [], "dice": [], "dice_train": []},
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "device": f"cpu: {processor()}",
        "precision": "fp32",
    }
