"""What must not change when code is moved or renamed: keys, fingerprints, verdicts, scores, weights.

``python tools/golden.py --check`` compares with tests/golden.json what any machine can say again.
``--write`` makes that file anew. ``--weights FILE`` trains two epochs of every model, augmentation
and training option and writes a hash of each network; run it at two commits on one machine, since
rounding differs between machines, and compare the files. The real slices are needed (CMRSEG_DATA,
or ../shared/data/acdc96).
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from cmrseg import datasets
from cmrseg.config import PRESETS
from cmrseg.train import fit
from cmrtrial import claims
from cmrtrial.plans import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden.json"
REAL = Path(os.environ.get("CMRSEG_DATA") or ROOT.parent / "shared" / "data" / "acdc96")


def digest(*parts) -> str:
    """Sixteen hex digits for bytes, arrays or anything with a repr."""
    joined = b"|".join(p if isinstance(p, bytes) else repr(p).encode() for p in parts)
    return hashlib.sha256(joined).hexdigest()[:16]


def run(*arguments) -> str:
    """What a command prints."""
    words = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(words, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def without_real_slices(experiments=EXPERIMENTS) -> dict:
    """What a checkout can say of itself: plans, keys, synthetic slices, verdicts, submissions.

    Of ``experiments`` by name: to add one is no change of those that were there.
    """
    plans = {
        name: [f"{r.setting} {r.split} {r.protocol} {r.key()}" for r in EXPERIMENTS.get(name, [])]
        for name in experiments
    }
    return {
        "plans": {name: [len(lines), digest(*lines)] for name, lines in plans.items()},
        "keys": digest(
            *sorted({line.rsplit(" ", 1)[1] for lines in plans.values() for line in lines})
        ),
        "presets": {name: config.key("val", "data") for name, config in PRESETS.items()},
        "phantom": {
            part: s.fingerprint
            for part, s in zip(("train", "val"), datasets.split("phantom", "val"))
        },
        "verdicts": json.loads(claims.judge().to_json(orient="records", double_precision=10)),
        "submissions": {
            name: digest((ROOT / "results" / f"submission-{name}.csv").read_bytes())
            for name in ("final", "small")
        },
    }


def collect(experiments=EXPERIMENTS) -> dict:
    """Everything that must stay, as JSON."""
    rows = json.loads(run("cmrtrial", "results", "--json"))
    golden = without_real_slices(experiments) | {
        "real": {
            part: s.fingerprint for part, s in zip(("train", "val"), datasets.split(REAL, "val"))
        },
        "results": [row for row in rows if row["experiment"] in experiments],
        "doctor": json.loads(run("cmrseg", "doctor", REAL, "--json").replace(str(REAL), "DATA")),
    }
    for name in ("final", "small"):
        with tempfile.TemporaryDirectory() as folder:
            masks = Path(folder) / "masks"
            images, truth = REAL / "val" / "image", REAL / "val" / "mask"
            run("cmrseg", "predict", "--model", name, "--images", images, "--out", masks)
            pictures = [
                cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in sorted(masks.glob("*.png"))
            ]
            golden[f"{name} masks"] = digest(*(picture.tobytes() for picture in pictures))
            words = ("evaluate", "--pred", masks, "--truth", truth, "--json")
            golden[f"{name} evaluate"] = json.loads(run("cmrseg", *words))
            del golden[f"{name} evaluate"]["metrics"]  # new since then
    return golden


def compare(collect) -> tuple[list[str], list[str]]:
    """Names of the entries that are as in tests/golden.json, and of those that are not."""
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    golden = json.loads(json.dumps(collect(expected["plans"])))
    same = [name for name in golden if golden[name] == expected.get(name)]
    return same, [name for name in golden if name not in same]


# Each a change of a small recipe; together every model, augmentation and training option.
OPTIONS = {
    "unet": {},
    "report-unet": {"model": "report-unet", "skips": "after"},
    "segnet": {"model": "segnet", "channels": (4, 8, 8, 8, 8)},
    "alexnet": {"model": "alexnet", "channels": (4, 8, 8, 8, 8, 16), "dropout": 0.5},
    "ning": {"model": "ning", "channels": (3, 6, 9)},
    "sprint": {"model": "sprint", "convolutions": 1},
    "final": {"model": "final", "residual": True, "deep": 2, "channels": (4, 8, 8, 8, 8)},
    "final plain": {"model": "final"},
    "strided": {"model": "final", "strided": True},
    "replica": {"preset": "replica", "channels": (4, 8, 8)},
    "kernel": {"kernel": 5, "first_kernel": 7},
    "dropout": {"dropout": 0.3},
    "convolutions": {"convolutions": 3},
    **{f"activation {a}": {"activation": a} for a in ("leaky-relu", "sigmoid", "tanh", "hardtanh")},
    "scale raw": {"scale": "raw"},
    **{
        f"augment {a}": {"augment": (a,)}
        for a in (
            "affine",
            "strong-affine",
            "elastic",
            "intensity",
            "strong-intensity",
            "gamma",
            "bias-field",
            "low-resolution",
            "mirror",
        )
    },
    "no augment": {"augment": ()},
    "mirrored set": {"mirrored_set": True},
    **{f"loss {x}": {"loss": x} for x in ("report", "ce", "dice", "ce+dice each")},
    "sgd": {"optimiser": "sgd", "momentum": 0.9},
    "adam": {"optimiser": "adam", "weight_decay": 0.0},
    "constant": {"schedule": "constant"},
    "drop last": {"drop_last": True, "batch": 3},
    "ema": {"ema": 0.99},
    "seed": {"seed": 7},
    "windows": {"model": "report-unet", "skips": "after", "windows": 2},
    "poolings": {"model": "report-unet", "skips": "after", "windows": 2, "poolings": 2},
    "skips before": {"model": "report-unet", "windows": 2, "poolings": 2},
    "start": {"start": "unet"},
    "bf16": {"precision": "bf16"},
}


def weights() -> dict[str, str]:
    """Option -> hash of the weights after two epochs on phantoms."""
    train, held_out = datasets.split("phantom", "val")
    train, held_out = train[:8], held_out[:4]
    hashes = {}
    torch.set_num_threads(1)
    for name, changes in OPTIONS.items():
        changes = {**changes}
        base = PRESETS[changes.pop("preset", "modern")]
        options = {"precision": changes.pop("precision", "fp32")}
        config = replace(base, **{"channels": (4, 8, 8), "epochs": 2, **changes})
        if config.start:
            options["start"] = fit(replace(config, start=""), train).model
        trained = fit(config, train, held_out, **options)
        tensors = [t.numpy().tobytes() for t in trained.model.state_dict().values()]
        hashes[name] = digest(*tensors, trained.history["dice"], *trained.model.state_dict())
    return hashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="make tests/golden.json anew")
    parser.add_argument("--check", action="store_true", help="compare with tests/golden.json")
    parser.add_argument("--weights", type=Path, help="file for hashes of trained networks")
    chosen = parser.parse_args()
    if chosen.weights:
        chosen.weights.write_text(json.dumps(weights(), indent=1) + "\n", encoding="utf-8")
    if not (chosen.write or chosen.check):
        return 0
    if chosen.write:
        GOLDEN.write_text(json.dumps(collect(), indent=1) + "\n", encoding="utf-8")
        return 0
    same, different = compare(collect)
    unchanged = f"{len(same)} entries unchanged"
    print("golden: " + (f"differs in {', '.join(different)}" if different else unchanged))
    return bool(different)


if __name__ == "__main__":
    sys.exit(main())
