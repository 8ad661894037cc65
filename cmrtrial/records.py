"""The store of records: one run, one JSON file ``results/<protocol>/<key>.json``; and tables of a record."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from cmrseg import data
from cmrseg.data import write_text
from cmrseg.record import mean_dice, read_record, sealed

__all__ = ["CLASSES", "STORE", "mean_dice", "read_record"]

STORE = Path(__file__).resolve().parents[1] / "results"
CLASSES = list(data.CLASSES[1:])  # RV, Myo, LV


def path_of(protocol: str, key: str, store: Path = STORE) -> Path:
    """Where a record lies, or will."""
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
    """All that one record says of each held-out slice and class, a row for each.

    Columns: name, patient, class, dice, hd95, surface_dice_1px, surface_dice_2px (NaN: in neither
    mask), area_true, area_pred (pixels).
    """
    images, rows = record["images"], []
    measures = [name for name, column in images.items() if isinstance(column[0], list)]
    for n, (name, patient) in enumerate(zip(images["name"], images["patient"])):
        for place, c in enumerate(CLASSES):
            values = {measure: images[measure][n][place] for measure in measures}
            rows.append({"name": name, "patient": patient, "class": c, **values})
    return pd.DataFrame(rows).astype(dict.fromkeys(measures, float))


def curve(record: dict) -> pd.DataFrame:
    """The scored epochs of one record: columns epoch, loss, RV, Myo, LV, mean."""
    epochs = zip(*(record["history"][name] for name in ("epoch", "loss", "dice")))
    rows = [
        (epoch, loss, *dice, mean_dice(dice)) for epoch, loss, dice in epochs if dice is not None
    ]
    return pd.DataFrame(rows, columns=["epoch", "loss", *CLASSES, "mean"]).astype(float)


def reported_numbers(store: Path = STORE) -> dict:
    """The numbers of the 2020 report, from ``report-2020.toml``: section -> entries."""
    return tomllib.loads((store / "report-2020.toml").read_text(encoding="utf-8"))
