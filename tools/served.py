"""What pages fetch when a reader asks for it, made at build time: the network in the browser, slices to show
it, verdicts and experiments. It lies in _build/made (ignored by git) and is served from the book's _static.

- model/small.onnx: the network of weights/small.safetensors; about.json: what the page has at hand
- samples/1.png, 2.png, ...: held-out slices of the build's data source; beside each 1.json, ...: the reference and what the
  network draws, as rows of digits, and the mean probability it gives to what it draws
- verdicts.json: every claim with its verdict, and which claims stand behind a card that readers vote on
- experiments.json: for every setting on the five folds the Dice of each patient, and what intervals need
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from cmrseg import datasets
from cmrseg.data import BadInput, write_png, write_text
from cmrseg.datasets import acdc
from cmrseg.deploy import export
from cmrseg.deploy.weights import WEIGHTS, load_ensemble
from cmrseg.postprocess import to_labels
from cmrtrial import claims, compare, statistics
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.spec import FOLDS

ROOT = Path(__file__).resolve().parents[1]
CAPTIONS = {
    "phantom": "The samples are synthetic slices, made by this book.",
    "acdc96": "The samples are real slices of ACDC (CC BY-NC-SA 4.0) that the network was not trained on.",
}
SAMPLES = 6


def make(out: Path, weights: Path = WEIGHTS / "small.safetensors") -> None:
    """Write all of it; the network only where it is not there yet."""
    for folder in ("model", "samples"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    source = datasets.source()
    known = "acdc96" if acdc.is_acdc96(source) else source
    caption = CAPTIONS.get(
        known, "The samples are slices of the folder that this book was built with."
    )
    _write(
        out / "model" / "about.json",
        {
            **model(weights, out / "model"),
            "runtime": (ROOT / "vendor" / "onnxruntime").is_dir(),
            "samples": samples(source, out / "samples", weights),
            "caption": caption,
        },
    )
    _write(out / "verdicts.json", verdicts())
    _write(out / "experiments.json", summary())


def _write(path: Path, found: dict) -> None:
    write_text(path, json.dumps(found, separators=(",", ":"), allow_nan=False) + "\n")


def model(weights: Path, out: Path) -> dict:
    """Make the network for the browser; where there are no weights there is none, and the page says so.

    Returns whether there is one, and whether its answers are to be cleaned up.
    """
    if not weights.is_file():
        (out / "small.onnx").unlink(missing_ok=True)
        return {"network": False}
    networks, note = load_ensemble(weights), out / ".made-of"
    made_of = hashlib.sha256(weights.read_bytes() + Path(export.__file__).read_bytes()).hexdigest()
    if (
        not (out / "small.onnx").is_file()
        or not note.is_file()
        or note.read_text(encoding="utf-8") != made_of
    ):
        export.export(networks, out / "small.onnx")
        write_text(note, made_of)
    return {"network": True, "clean": networks.tta.postprocess}


def samples(source: str, out: Path, weights: Path) -> int:
    """Write held-out slices of as many patients, by turns of one moment and the other; returns how many.

    Beside each lie its reference and, where there are weights, what the network draws.
    """
    _, held_out = datasets.split(source, "val")
    first = np.unique(held_out.patients, return_index=True)[1]
    chosen = [min(place + n % 2, len(held_out) - 1) for n, place in enumerate(first[:SAMPLES])]
    for old in out.iterdir():
        old.unlink()
    images, truth = held_out.images[chosen], held_out.masks[chosen]
    drawn, sure = [None] * len(chosen), [None] * len(chosen)
    if weights.is_file():
        networks = load_ensemble(weights)
        probability = networks.probabilities(images)
        drawn = to_labels(probability, networks.tta.postprocess)
        sure = [
            float(p.max(0)[mask > 0].mean()) if mask.any() else None
            for p, mask in zip(probability, drawn)
        ]
    for number, (image, reference, mask, share) in enumerate(zip(images, truth, drawn, sure), 1):
        write_png(out / f"{number}.png", image)
        _write(
            out / f"{number}.json",
            {
                "truth": _digits(reference),
                "network": None if mask is None else _digits(mask),
                "sure": share,
            },
        )
    return len(chosen)


def _digits(mask: np.ndarray) -> str:
    return "".join(map(str, mask.ravel().tolist()))


# --- records ---------------------------------------------------------------------------------------------


def verdicts() -> dict:
    """The cards of the vote with the claims behind each, and every claim with what came of it."""
    found, pages = claims.judge(), pages_of_claims()
    rows = [
        {
            "id": row["id"],
            "text": row["text"],
            "said": row["said"],
            "found": claims.in_words(row),
            "verdict": row["verdict"],
            "ambiguous": row["ambiguous"],
            "late": row["late"],
            "page": pages.get(row["id"]),
            "about": row["source"].replace("_", " ").capitalize(),
        }
        for row in found.to_dict("records")
    ]
    return {"cards": cards(), "claims": rows}


def cards() -> list[dict]:
    """The cards of the page that asks for votes: title and ids of claims, from its own lines."""
    page = (ROOT / "book" / "report-2020.md").read_text(encoding="utf-8")
    found = re.findall(r"\{grid-item-card\} (\d+\. .+)\n:class-card: (.+)\n", page)
    return [{"title": title, "claims": ids.split()} for title, ids in found]


def pages_of_claims() -> dict[str, dict]:
    """Claim -> title and address of the page that gives its verdict."""
    found, asked = {}, claims.claims()
    for path in sorted((ROOT / "notebooks").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for words in re.findall(r"claims\.verdicts\((.+?)\)", text, re.DOTALL):
            name, *ids = re.findall(r'"(.+?)"', words)
            title = re.search(r"^# # (.+)$", text, re.M)[1]
            page = {"title": title, "path": str(path.relative_to(ROOT).with_suffix(".html"))}
            found |= {
                c["id"]: page
                for c in asked
                if c["id"] in ids or (not ids and c.get("experiment", c["source"]) == name)
            }
    return found


def summary() -> dict:
    """Every experiment's settings: on which folds, how often trained and collapsed, and each patient's Dice."""
    tables = {}
    for name, plan in EXPERIMENTS.items():
        for protocol in dict.fromkeys(p.protocol for p in plan):
            table = compare.runs(name, protocol)
            table = table[table["split"].isin(FOLDS)]
            if table["setting"].nunique() > 1:  # something to compare
                tables[name, protocol] = table
    patients = sorted({p for t in tables.values() for each in t["patients"] for p in each.index})
    rows = [
        {
            "name": name,
            "protocol": protocol,
            "settings": [
                _setting(setting, group, patients, protocol)
                for setting, group in table.groupby("setting", sort=False)
            ],
        }
        for (name, protocol), table in tables.items()
    ]
    return {
        "patients": patients,
        "folds": len(FOLDS),
        "margin": statistics.MARGIN,
        "experiments": rows,
    }


def _setting(name: str, table: pd.DataFrame, patients: list[int], protocol: str) -> dict:
    dice = compare.by_patient(table).round(4).reindex(patients)
    folds = {
        split.removeprefix("fold"): [len(group), int(group["collapsed"].sum())]
        for split, group in table.groupby("split")
    }
    whose, *luck = _luck(table, protocol)
    return {
        "name": compare.shown(name),
        "folds": folds,
        "whose": whose,
        "luck": luck or None,
        "dice": [None if np.isnan(d) else float(d) for d in dice],
    }


def _luck(table: pd.DataFrame, protocol: str) -> tuple:
    """Whose luck a setting's runs have, its variance and degrees of freedom; only whose, if nothing is known of it."""
    try:
        return compare.seed_variance(table, protocol)
    except BadInput:
        return (compare.network(table),)
