"""The record of a trained network: whatever is said about it is computed from this JSON."""

import hashlib
import json
import platform
import subprocess
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from cmrseg import data, metrics
from cmrseg.config import TrainConfig, TrainingResult
from cmrseg.data import BadInput, Slices
from cmrseg.predict import TTA, predict

VERSION = 1
RECORD = "record.json"  # as train writes it


def make_record(
    result: TrainingResult,
    train: Slices,
    held_out: Slices,
    split: str,
    fingerprint: str,
    protocol: str,
) -> dict:
    """The record of a finished training.

    Of the slices trained on it keeps the mean Dice of RV, Myo and LV, of those held out a table for
    each image, and how many different masks were predicted for them; and at each of the run's
    milestones the Dice of each image (in the order of the table) with the rest of this.
    """
    config, history = result.config, result.history
    of_train, of_held_out = (
        predict(result.model, slices.images, config.scale, precision=result.precision)
        for slices in (train, held_out)
    )
    device = processor() if result.device == "cpu" else torch.cuda.get_device_name()
    record = common_fields(
        config.key(split, fingerprint), config, of_held_out, held_out, split, fingerprint, protocol
    )
    scored = [(mean_dice(d), e) for e, d in zip(history["epoch"], history["dice"]) if d is not None]
    scored = scored or [(record["dice_last"] or np.nan, config.epochs)]
    dice_best, epoch_best = scored[np.argmax(np.nan_to_num([dice for dice, _ in scored]))]
    milestones = [
        {
            "epoch": epoch,
            "dice": rounded(metrics.dice(masks, held_out.masks)),
            "distinct_masks": len(np.unique(masks, axis=0)),
            "dice_train": history["dice_train"][epoch - 1],
            "loss": history["loss"][epoch - 1],
        }
        for epoch, masks in result.milestones.items()
    ]
    record |= {"milestones": milestones} if milestones else {}
    return record | {
        "dice_best": _number(dice_best),
        "epoch_best": epoch_best,
        "dice_train": [
            _number(float(d)) for d in metrics.per_class(metrics.dice(of_train, train.masks))
        ],
        "history": history,
        "seconds": round(result.seconds, 2),
        "cpu_seconds": round(result.cpu_seconds, 2),
        "device": f"{result.device}: {device}",
        "precision": result.precision,
    }


def common_fields(
    key: str,
    config: TrainConfig,
    pred: np.ndarray,
    held_out: Slices,
    split: str,
    fingerprint: str,
    protocol: str,
) -> dict:
    """What every record says: of what it is, and how the predicted masks fared."""
    images = image_table(pred, held_out)
    versions = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
    }
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
        "versions": versions,
        "commit": _commit(),
    }


def image_table(pred: np.ndarray, held_out: Slices) -> dict[str, list]:
    """What is recorded of each held-out slice: lists of N entries; classes are RV, Myo, LV.

    The entries of :data:`cmrseg.metrics.METRICS` hold None where a class is in neither mask;
    ``dice_background`` (not in the oldest records) is one number for each slice.
    """
    truth = held_out.masks
    return {
        "name": list(held_out.names),
        "patient": held_out.patients.tolist(),
        **{name: rounded(metric(pred, truth)) for name, metric in metrics.METRICS.items()},
        "dice_background": [row[0] for row in rounded(metrics.dice(pred, truth, classes=(0,)))],
        "area_true": metrics.areas(truth).tolist(),
        "area_pred": metrics.areas(pred).tolist(),
    }


def rounded(table: np.ndarray) -> list[list[float | None]]:
    """A table as lists of five decimals, None for NaN, which JSON does not know."""
    return [[_number(round(float(v), 5)) for v in row] for row in table]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _floats(table: list) -> np.ndarray:
    return np.array(table, dtype=float)


def mean_dice(by_class: list[float | None]) -> float:
    """Mean of [RV, Myo, LV], leaving out None; NaN for nothing but None."""
    return float(metrics.per_class(_floats([[d] for d in by_class]))[0])


# --- files ---------------------------------------------------------------------------------------


def sealed(record: dict) -> dict:
    """A record with a digest of all else that it says."""
    text = json.dumps(
        {name: value for name, value in record.items() if name != "digest"}, sort_keys=True
    )
    return record | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def read_record(path: Path) -> dict:
    """The record in a file.

    Raises:
        BadInput: a torn file, a record of a newer version, or one that was edited or renamed: its
            key is not that of its configuration, split, seed and slices, its Dice not that of its
            table, or its digest not that of all it says.
    """
    trained = path.name == RECORD  # by itself such a record can't be made again
    other = "train into another --out" if trained else "move it away and compute it again"
    again = f"Restore it, or {other}"
    try:
        record = json.loads(data.read_text(path))
        if type(record["version"]) is not int or record["version"] < 1:
            raise ValueError("no version")
        if record["version"] > VERSION:
            problem = f"is of version {record['version']}, newer than this package"
            raise BadInput(path, problem, "Update cmrseg")
        config = TrainConfig.from_dict(record["config"])
        dice = _number(metrics.mean(_floats(record["images"]["dice"])))
        fits = record["key"] == _key(record, config) and record["seed"] == config.seed
        as_said = np.isclose(dice or -1, record["dice_last"] or -1)
        whole = record == sealed(record)
    except BadInput:
        raise
    except PermissionError:
        raise data.not_allowed(path) from None
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
        raise BadInput(path, "is not a record", again) from None
    if not fits or not (trained or path.stem == record["key"]):
        raise BadInput(
            path, "was edited or renamed: its key does not fit what it says it is", again
        )
    if not as_said:
        raise BadInput(
            path, f"was edited: its Dice is {record['dice_last']}, of its table {dice}", again
        )
    if not whole:
        raise BadInput(path, "was edited: its digest is not that of what it says", again)
    return record


def _key(record: dict, config: TrainConfig) -> str:
    """What a record is filed under, by its contents."""
    trained = config.key(record["split"], record["fingerprint"])
    if (tta := record.get("ways")) is None:
        return trained
    return TTA.from_record(tta).key(trained, tta["seeds"], tta["shift"])


# --- where it was made ---------------------------------------------------------------------------


@lru_cache
def _commit() -> str:
    try:
        command, checkout = ["git", "rev-parse", "HEAD"], Path(__file__).parents[1]
        answer = subprocess.run(command, cwd=checkout, capture_output=True, check=True)
        return answer.stdout.decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@lru_cache
def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
