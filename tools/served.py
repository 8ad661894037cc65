"""What pages fetch when a reader asks for it, made at build time: the network in the browser, slices to show
it, verdicts and experiments. It lies in _build/made (ignored by git) and is served from the book's _static.

- model/small.onnx: the network of weights/small.safetensors; about.json: what the page has at hand
- samples/1.png, 2.png, ...: held-out slices of the build's data source; beside each 1.json, ...: the reference and what the
  network draws, as rows of digits, and the mean probability it gives to what it draws
- verdicts.json: every claim with its verdict, and which claims stand behind a card that readers vote on
- experiments.json: for every setting on the five folds the Dice of each patient, and its difference from each other
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from cmrseg import datasets
from cmrseg.data import write_png, write_text
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


def _write(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")


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
    judged, pages = claims.judge(), pages_of_claims()
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
        for row in judged.to_dict("records")
    ]
    return {"cards": cards(), "claims": rows}


def cards() -> list[dict]:
    """The cards of the page that asks for votes: title and ids of claims, from its own lines."""
    page = (ROOT / "book" / "report-2020.md").read_text(encoding="utf-8")
    matches = re.findall(r"\{grid-item-card\} (\d+\. .+)\n:class-card: (.+)\n", page)
    return [{"title": title, "claims": ids.split()} for title, ids in matches]


def pages_of_claims() -> dict[str, dict]:
    """Claim -> title and address of the page that gives its verdict."""
    pages, asked = {}, claims.claims()
    for path in sorted((ROOT / "notebooks").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for words in re.findall(r"claims\.verdicts\((.+?)\)", text, re.DOTALL):
            name, *ids = re.findall(r'"(.+?)"', words)
            title = re.search(r"^# # (.+)$", text, re.M)[1]
            page = {"title": title, "path": str(path.relative_to(ROOT).with_suffix(".html"))}
            pages |= {
                c["id"]: page
                for c in asked
                if c["id"] in ids or (not ids and c.get("experiment", c["source"]) == name)
            }
    return pages


def summary() -> dict:
    """Every experiment's settings: folds, runs, collapsed runs, each patient's Dice, and all differences in pairs."""
    tables = {}
    for name, plan in EXPERIMENTS.items():
        for protocol in dict.fromkeys(p.protocol for p in plan):
            table = compare.runs(name, protocol)
            table = table[table["split"].isin(FOLDS)]
            if table["setting"].nunique() > 1:  # something to compare
                tables[name, protocol] = table
    patients = sorted({p for t in tables.values() for dice in t["patients"] for p in dice.index})
    rows = [
        {"name": name, "protocol": protocol, "settings": _settings(table, patients, protocol)}
        for (name, protocol), table in tables.items()
    ]
    return {
        "folds": len(FOLDS),
        "margin": statistics.MARGIN,
        "experiments": rows,
    }


def _settings(table: pd.DataFrame, patients: list[int], protocol: str) -> list[dict]:
    settings, before = [], []
    for name, group in table.groupby("setting", sort=False):
        dice = compare.by_patient(group).round(4).reindex(patients)
        folds = {
            split.removeprefix("fold"): [len(runs), int(runs["collapsed"].sum())]
            for split, runs in group.groupby("split")
        }
        settings.append(
            {
                "name": compare.shown(name),
                "folds": folds,
                "dice": [None if np.isnan(d) else float(d) for d in dice],
                "differences": [_difference(group, other, protocol) for other in before],
            }
        )
        before.append(group)
    return settings


def _difference(a: pd.DataFrame, b: pd.DataFrame, protocol: str) -> dict | None:
    """Setting a minus setting b on the folds that both ran on, None where there is none.

    ``folds`` has the difference on each of them where folds are compared, and is None where patients are.
    """
    common = set(a["split"]) & set(b["split"])
    if not common:
        return None
    a, b = (side[side["split"].isin(common)] for side in (a, b))
    compared = compare.compare(a, b, protocol)
    mean, loadings = compared.difference.mean, compared.loadings
    of_folds = [mean + v * len(common) for name, v in loadings.items() if name.startswith("fold ")]
    values = zip(("mean", "low", "high"), (mean, *compared.difference.interval()))
    return {name: None if np.isnan(v) else round(v, 6) for name, v in values} | {
        "runs": [len(a), len(b)],
        "folds": [round(d, 4) for d in of_folds] or None,
    }
