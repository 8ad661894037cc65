"""The store of records: one run, one file ``results/<protocol>/<key>.json``; and their tables."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from cmrseg import data
from cmrseg.data import write_text
from cmrseg.record import mean_dice, sealed
from cmrseg.record import read_record as read_record  # the second trial has it from here

STORE = Path(__file__).resolve().parents[1] / "results"
CLASSES = list(data.CLASSES[1:])  # RV, Myo, LV


def path_of(protocol: str, key: str, store: Path = STORE) -> Path:
    """The path of a record, whether it is there or not."""
    return store / protocol / f"{key}.json"


def write_record(record: dict, store: Path = STORE) -> Path:
    """File a record; the file appears whole or not at all."""
    path = path_of(record["protocol"], record["key"], store)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(sealed(record), separators=(",", ":")) + "\n")
    return path


def dice_table(record: dict) -> pd.DataFrame:
    """Dice of one record's held-out slices: columns name, patient, RV, Myo, LV (NaN: left out)."""
    images = record["images"]
    table = pd.DataFrame(np.array(images["dice"], dtype=float), columns=CLASSES)
    table.insert(0, "patient", images["patient"])
    table.insert(0, "name", images["name"])
    return table


def class_table(record: dict) -> pd.DataFrame:
    """The metrics of one record for each held-out slice and class, a row for each.

    Columns: name, patient, class, dice, hd95, surface_dice_1px, surface_dice_2px (NaN: in neither
    mask), area_true, area_pred (pixels).
    """
    images = record["images"]
    columns = {name: np.repeat(images[name], len(CLASSES)) for name in ("name", "patient")}
    columns["class"] = CLASSES * len(images["name"])
    measures = {name: column for name, column in images.items() if isinstance(column[0], list)}
    columns |= {name: np.ravel(np.array(column, float)) for name, column in measures.items()}
    return pd.DataFrame(columns)


def curve(record: dict) -> pd.DataFrame:
    """The scored epochs of one record: columns epoch, loss, RV, Myo, LV, mean."""
    epochs = zip(*(record["history"][name] for name in ("epoch", "loss", "dice")))
    rows = [
        (epoch, loss, *dice, mean_dice(dice)) for epoch, loss, dice in epochs if dice is not None
    ]
    return pd.DataFrame(rows, columns=["epoch", "loss", *CLASSES, "mean"]).astype(float)


def areas_by_phase(runs: pd.DataFrame, chamber: str) -> pd.DataFrame:
    """Areas of RV, Myo or LV at end-diastole and end-systole, a row for each held-out patient.

    Columns: true ED, true ES, predicted ED, predicted ES, in pixels, and true FAC, predicted FAC:
    the fractional area change, the share of the area at end-diastole that is gone at end-systole.
    As in the book's slices, odd numbers are end-diastole. With several runs on a fold the last
    counts.
    """
    place, rows = CLASSES.index(chamber), {}
    for images in (record["images"] for record in runs["record"]):
        columns = (images[k] for k in ("name", "patient", "area_true", "area_pred"))
        for name, patient, true, predicted in zip(*columns):
            phase = "ED" if int(name[3:]) % 2 else "ES"
            row = rows.setdefault(patient, {})
            row[f"true {phase}"], row[f"predicted {phase}"] = true[place], predicted[place]
    areas = pd.DataFrame.from_dict(rows, orient="index").sort_index()
    areas = areas[["true ED", "true ES", "predicted ED", "predicted ES"]]
    for who in ("true", "predicted"):
        areas[f"{who} FAC"] = 1 - areas[f"{who} ES"] / areas[f"{who} ED"]
    return areas


def reported_numbers() -> dict:
    """The numbers of the 2020 report, from ``report-2020.toml``: section -> entries."""
    return tomllib.loads((STORE / "report-2020.toml").read_text(encoding="utf-8"))
