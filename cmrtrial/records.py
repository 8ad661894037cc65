"""The store of what was measured: one run, one JSON file ``results/<protocol>/<key>.json``."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import time
import tomllib
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cmrseg import data, ensemble, metrics, trust
from cmrseg.data import BadInput, Slices
from cmrseg.ensemble import Ensemble, Ways
from cmrseg.runtime import decide
from cmrseg.training import Run, TrainConfig, predict, write_text

VERSION = 1
STORE = Path(__file__).resolve().parents[1] / "results"
CLASSES = list(data.CLASSES[1:])  # RV, Myo, LV


def image_table(pred: np.ndarray, held_out: Slices) -> dict[str, list]:
    """What is recorded of each held-out slice: lists of N entries, classes in the order RV, Myo, LV.

    ``dice``, ``hd95`` and ``surface_dice_1px``/``_2px`` hold None where a class is in neither;
    ``dice_background`` (not in the oldest records) is one number for each slice.
    """
    truth = held_out.masks
    return {
        "name": list(held_out.names),
        "patient": held_out.patients.tolist(),
        "dice": _plain(metrics.dice(pred, truth)),
        "dice_background": [row[0] for row in _plain(metrics.dice(pred, truth, classes=(0,)))],
        "area_true": metrics.areas(truth).tolist(),
        "area_pred": metrics.areas(pred).tolist(),
        "hd95": _plain(metrics.hd95(pred, truth)),
        "surface_dice_1px": _plain(metrics.surface_dice(pred, truth, 1)),
        "surface_dice_2px": _plain(metrics.surface_dice(pred, truth, 2)),
    }


def _plain(table: np.ndarray) -> list[list[float | None]]:
    return [[_number(round(float(v), 5)) for v in row] for row in table]


def _number(value: float) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if np.isnan(value) else value


def record(
    run: Run, train: Slices, held_out: Slices, split: str, fingerprint: str, protocol: str
) -> dict:
    """The record of a finished run: whatever is said about it is computed from this.

    Of the slices trained on it keeps the mean Dice of RV, Myo and LV, of those held out a table for
    each image, and how many different masks were predicted for them; and at each of the run's milestones the
    Dice of each image (in the order of the table) with the rest of this.
    """
    learnt = predict(run.model, train.images, run.config.scale, precision=run.precision)
    pred = predict(run.model, held_out.images, run.config.scale, precision=run.precision)
    judged = _judged(run.config.key(split, fingerprint), run.config, pred, held_out, split, fingerprint,
                     protocol)
    means = [mean_dice(d) for d in run.history["dice"] if d is not None] or [judged["dice_last"] or np.nan]
    epochs = [e for e, d in zip(run.history["epoch"], run.history["dice"]) if d is not None]
    best = int(np.argmax(np.nan_to_num(means)))
    milestones = [{
        "epoch": epoch,
        "dice": _plain(metrics.dice(masks, held_out.masks)),
        "distinct_masks": len(np.unique(masks, axis=0)),
        "dice_train": run.history["dice_train"][epoch - 1],
        "loss": run.history["loss"][epoch - 1],
    } for epoch, masks in run.milestones.items()]
    return judged | ({"milestones": milestones} if milestones else {}) | {
        "dice_best": _number(means[best]),
        "epoch_best": (epochs or [run.config.epochs])[best],
        "dice_train": [_number(float(d)) for d in metrics.per_class(metrics.dice(learnt, train.masks))],
        "history": run.history,
        "seconds": round(run.seconds, 2),
        "cpu_seconds": round(run.cpu_seconds, 2),
        "device": f"{run.device}: {_processor() if run.device == 'cpu' else torch.cuda.get_device_name()}",
        "precision": run.precision,
    }


def record_of_ways(
    looking: Ensemble, seeds: tuple[int, ...], held_out: Slices, split: str, fingerprint: str, protocol: str,
    shift: tuple[str, float] | None = None,
) -> dict:
    """The record of trained networks (of these seeds) that look in some way: no history, and the seconds
    are those of the prediction. It adds what they think of their own masks, see :mod:`cmrseg.trust`."""
    started = time.perf_counter(), time.process_time()
    probability = ensemble.probabilities(looking, held_out.images)
    pred = decide(probability, looking.ways.clean)
    seconds, cpu_seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    alone = [predict(model, held_out.images, looking.config.scale) for model in looking.models]
    key = looking.ways.key(looking.config.key(split, fingerprint), seeds, shift)
    judged = _judged(key, looking.config, pred, held_out, split, fingerprint, protocol)
    return judged | {
        "ways": asdict(looking.ways) | {"seeds": list(seeds), "shift": shift},
        "reliability": trust.reliability(probability, held_out.masks),
        "expected_dice": _plain(trust.expected_dice(probability)),
        "agreement": _plain(trust.agreement(alone)) if len(alone) > 1 else None,
        "dice_best": judged["dice_last"],
        "history": {"epoch": [], "loss": [], "lr": [], "dice": [], "dice_train": []},
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "device": f"cpu: {_processor()}",
        "precision": "fp32",
    }


def _judged(
    key: str, config: TrainConfig, pred: np.ndarray, held_out: Slices, split: str, fingerprint: str,
    protocol: str,
) -> dict:
    """What every record says: of what it is, and how the predicted masks fared."""
    images = image_table(pred, held_out)
    return {
        "version": VERSION,
        "key": key,
        "protocol": protocol,
        "config": asdict(config),
        "split": split,
        "seed": config.seed,
        "fingerprint": fingerprint,
        "dice_last": _number(metrics.mean(_floats(images["dice"]))),
        "distinct_masks": len(np.unique(pred, axis=0)),
        "images": images,
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__),
                     "numpy": version("numpy")},
        "commit": _commit(),
    }


def mean_dice(by_class: list[float | None]) -> float:
    """Mean of [RV, Myo, LV], leaving out None; NaN for nothing but None."""
    return float(metrics.per_class(_floats([[d] for d in by_class]))[0])


def _floats(table: list) -> np.ndarray:
    return np.array(table, dtype=float)


def sealed(found: dict) -> dict:
    """A record with a digest of all else that it says."""
    text = json.dumps({name: value for name, value in found.items() if name != "digest"}, sort_keys=True)
    return found | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def write(found: dict, store: Path = STORE) -> Path:
    """File a record; the file appears whole or not at all."""
    path = store / found["protocol"] / f"{found['key']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(sealed(found), separators=(",", ":")) + "\n")
    return path


def read(path: Path) -> dict:
    """One record.

    Raises:
        BadInput: a torn file, a record of a newer version, or one that was edited or renamed: its key is
            not that of its configuration, split, seed and slices, its Dice not that of its table, or its
            digest not that of all it says.
    """
    again = "Restore it, or remove it; the sweep will make it again"
    try:
        found = json.loads(data.read_text(path))
        if type(found["version"]) is not int or found["version"] < 1:
            raise ValueError("no version")
        if found["version"] > VERSION:
            raise BadInput(path, f"is of version {found['version']}, newer than this package", "Update cmrseg")
        config = TrainConfig.from_dict(found["config"])
        dice = _number(metrics.mean(_floats(found["images"]["dice"])))
        fits = found["key"] == _key(found, config) and found["seed"] == config.seed
        as_said = np.isclose(dice or -1, found["dice_last"] or -1)
        whole = found == sealed(found)
    except BadInput:
        raise
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        raise BadInput(path, "is not a record", again) from None
    if not fits or path.stem not in (found["key"], "record"):  # train writes one as record.json
        raise BadInput(path, "was edited or renamed: its key does not fit what it says it is", again)
    if not as_said:
        raise BadInput(path, f"was edited: its Dice is {found['dice_last']}, of its table {dice}", again)
    if not whole:
        raise BadInput(path, "was edited: its digest is not that of what it says", again)
    return found


def _key(found: dict, config: TrainConfig) -> str:
    """What a record is filed under, by its contents."""
    trained = config.key(found["split"], found["fingerprint"])
    if (ways := found.get("ways")) is None:
        return trained
    return Ways.from_dict(ways).key(trained, ways["seeds"], ways["shift"])


def path_of(protocol: str, key: str, store: Path = STORE) -> Path:
    """Where a record lies, or will."""
    return store / protocol / f"{key}.json"


def dice_table(found: dict) -> pd.DataFrame:
    """Dice of one record's held-out slices: columns name, patient, RV, Myo, LV (NaN: left out)."""
    images = found["images"]
    table = pd.DataFrame(_floats(images["dice"]), columns=CLASSES)
    table.insert(0, "patient", images["patient"])
    table.insert(0, "name", images["name"])
    return table


def class_table(found: dict) -> pd.DataFrame:
    """All that one record says of each held-out slice and class: columns name, patient, class, dice, hd95,
    surface_dice_1px, surface_dice_2px (NaN: in neither mask), area_true, area_pred (pixels)."""
    images, rows = found["images"], []
    measured = [k for k, value in images.items() if isinstance(value[0], list)]
    for n, (name, patient) in enumerate(zip(images["name"], images["patient"])):
        for place, c in enumerate(CLASSES):
            rows.append({"name": name, "patient": patient, "class": c,
                         **{k: images[k][n][place] for k in measured}})
    return pd.DataFrame(rows).astype(dict.fromkeys(measured, float))


def curve(found: dict) -> pd.DataFrame:
    """The scored epochs of one record: columns epoch, loss, RV, Myo, LV, mean."""
    history = found["history"]
    rows = [(e, loss, *d, mean_dice(d)) for e, loss, d in
            zip(history["epoch"], history["loss"], history["dice"]) if d is not None]
    return pd.DataFrame(rows, columns=["epoch", "loss", *CLASSES, "mean"]).astype(float)


def report(store: Path = STORE) -> dict:
    """The numbers of the 2020 report, from ``report-2020.toml``: section -> entries."""
    return tomllib.loads((store / "report-2020.toml").read_text())


@lru_cache
def _commit() -> str:
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], cwd=STORE.parent, text=True,
                                capture_output=True, check=True)
        return answer.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@lru_cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
