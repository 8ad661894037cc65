"""Makes what `predict --model final` and `--model small` need: files of weights, and submissions.

    CMRSEG_DATA=acdc96 python tools/deliver.py

`weights/final.safetensors`: the five networks of the folds within the training patients.
`weights/small.safetensors`: one network, trained on all training slices; `small.onnx` is the same
for onnxruntime, which starts sooner than PyTorch. Networks that are not in `runs/networks` are
trained first (hours). Then the test slices are predicted with the files just written:
`results/submission-final.csv` and `-small.csv`; and the model card is given the scores of the
records.
"""

import re
import sys
from pathlib import Path

import numpy as np

from cmrseg import datasets, rle
from cmrseg.data import write_bytes
from cmrseg.deploy.export import export
from cmrseg.deploy.sizes import write_size
from cmrseg.deploy.weights import WEIGHTS, add_checksum, load_ensemble, save_ensemble
from cmrseg.metrics import dice_summary
from cmrseg.record import read_record
from cmrtrial import compare
from cmrtrial.networks import cached_networks
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.plans.best import FINAL, SMALL
from cmrtrial.records import CLASSES, STORE
from cmrtrial.spec import ACDC96

CARD = Path(__file__).resolve().parents[1] / "book" / "model_card.md"
ROWS = r"(\| (Dice|training) of `\w+` .*\n)+"


def scores() -> str:
    """What the records say of both on the validation slices, as rows of the model card."""
    runs = compare.runs("final-ladder", "final")
    rows, minutes = [], runs.groupby("setting")["seconds"].mean() / 60
    for spec, recipe in zip(EXPERIMENTS["final"], (FINAL, SMALL)):
        images = read_record(spec.path())["images"]
        dice = np.array(images["dice"], float)
        summary = dice_summary(dice, np.array(images["patient"]))
        low, high = summary["interval"]["mean"]
        interval = f"{low:.3f} to {high:.3f}, 95 % interval over ten patients"
        classes = ", ".join(f"{name} {summary['dice'][name]:.3f}" for name in CLASSES)
        mean = summary["dice"]["mean"]
        rows.append(f"| Dice of `{spec.setting}` | {mean:.3f} ({interval}); {classes} |\n")
        count = "five networks, each" if spec.seeds else "one network,"
        took = f"{minutes[recipe]:.0f} minutes on one core"
        rows.append(f"| training of `{spec.setting}` | {count} {took} |\n")
    return "".join(rows)


def main(store: Path = STORE, weights: Path = WEIGHTS) -> None:
    source = datasets.source()
    for spec in EXPERIMENTS["final"]:
        networks = cached_networks(spec, source, store)
        path = weights / f"{spec.setting}.safetensors"
        save_ensemble(path, networks, spec.tta)
        write_size(path, (96, 96), spacing_mm=1.8)  # about so: of single slices nobody knows it
        ensemble = load_ensemble(path)
        if spec.setting == "small":
            export(ensemble, path.with_suffix(".onnx"))
            add_checksum(path.with_suffix(".onnx"))
        slices = datasets.load(source, "test")
        masks = dict(zip(slices.names, ensemble.predict(slices.images)))
        store.mkdir(parents=True, exist_ok=True)
        rle.write_submission(masks, store / f"submission-{spec.setting}.csv")
        size = path.stat().st_size / 1e6
        print(f"{path.name}: {len(networks)} networks, {size:.1f} MB; {len(masks)} test slices")


if __name__ == "__main__":
    if datasets.load(datasets.source(), "labelled").fingerprint != ACDC96:
        command = "CMRSEG_DATA=acdc96 python tools/deliver.py"
        sys.exit(f"error: what is delivered has learned from the real slices. {command}")
    main()
    write_bytes(CARD, re.sub(ROWS, lambda _: scores(), CARD.read_text(encoding="utf-8")).encode())
