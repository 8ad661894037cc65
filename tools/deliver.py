"""Makes what `predict --model final` and `--model small` need, from the networks towards the best model.

    CMRSEG_DATA=acdc96 python tools/deliver.py

`weights/final.safetensors`: the five networks of the folds within the training patients.
`weights/small.safetensors`: one network, trained on all training slices; `small.onnx` is the same for
onnxruntime, which starts sooner than PyTorch. Networks that are not in
`runs/networks` are trained first (hours). Then the test slices are predicted with the files just written:
`results/submission-final.csv` and `-small.csv`; and the model card is given the scores of the records.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

from cmrseg import data, datasets, metrics, rle
from cmrseg.deploy import export, weights
from cmrseg.predict import predict
from cmrseg.record import read_record
from cmrtrial import compare, records
from cmrtrial.networks import cached_networks
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.plans.best import FINAL, SMALL
from cmrtrial.spec import ACDC96

CARD = Path(__file__).resolve().parents[1] / "book" / "model_card.md"
ROWS = r"(\| (Dice|training) of `\w+` .*\n)+"


def scores() -> str:
    """What the records say of both on the validation slices, as rows of the model card."""
    rows, minutes = [], compare.runs("final-ladder", "final").groupby("setting")["seconds"].mean() / 60
    for planned, rung in zip(EXPERIMENTS["final"], (FINAL, SMALL)):
        images = read_record(planned.path())["images"]
        said = metrics.dice_summary(np.array(images["dice"], float), np.array(images["patient"]))
        low, high = said["interval"]["mean"]
        classes = ", ".join(f"{name} {said['dice'][name]:.3f}" for name in records.CLASSES)
        rows.append(f"| Dice of `{planned.setting}` | {said['dice']['mean']:.3f} ({low:.3f} to {high:.3f}, 95 % interval "
                    f"over ten patients); {classes} |\n")
        rows.append(f"| training of `{planned.setting}` | {'five networks, each' if len(planned.seeds) else 'one network,'} "
                    f"{minutes[rung]:.0f} minutes on one core |\n")
    return "".join(rows)


def main(store: Path = records.STORE, weights: Path = weights.WEIGHTS) -> None:
    source = datasets.source()
    for planned in EXPERIMENTS["final"]:
        networks = cached_networks(planned, source, store)
        path = weights / f"{planned.setting}.safetensors"
        weights.save_ensemble(path, networks, planned.tta)
        if planned.setting == "small":
            export.export(weights.load_ensemble(path), path.with_suffix(".onnx"))
            weights.add_checksum(path.with_suffix(".onnx"))
        slices = datasets.load(source, "test")
        masks = dict(zip(slices.names, weights.load_ensemble(path).predict(slices.images)))
        store.mkdir(parents=True, exist_ok=True)
        rle.write_submission(masks, store / f"submission-{planned.setting}.csv")
        print(f"{path.name}: {len(networks)} networks, {path.stat().st_size / 1e6:.1f} MB; "
              f"{len(masks)} test slices")


if __name__ == "__main__":
    if datasets.load(datasets.source(), "labelled").fingerprint != ACDC96:
        sys.exit("error: what is delivered has learned from the real slices. CMRSEG_DATA=acdc96 python tools/deliver.py")
    main()
    data.write_bytes(CARD, re.sub(ROWS, lambda found: scores(), CARD.read_text()).encode())
