"""Ten patients in ACDC's layout, phantoms with the oddities of real headers.

From NIfTI volumes to slices, a trained network, its masks and their Dice.
"""

import csv
import json

import numpy as np
from scipy.ndimage import zoom
from volumes import image, save

from cmrseg import datasets
from cmrseg.datasets import phantom
from cmrseg.datasets.folders import read_masks

PIXEL = 1.5  # mm; phantoms have 1.8
PATIENTS, SLICES = 10, 3  # the third slice, the base, is not labelled


def volumes_of(drawn):
    """Phantoms (patients, slices, 2 moments, 96, 96) as (patients, 2, X, Y, Z) in ACDC's axes."""
    volumes = []
    for pixels, order in zip(drawn, (1, 0)):
        factors = (1, 1, 1, 1.8 / PIXEL, 1.8 / PIXEL)
        fine = zoom(pixels, factors, order=order, grid_mode=True, mode="nearest")
        fine = np.pad(fine, [(0, 0)] * 3 + [(12, 13), (4, 5)], mode="edge")
        volumes.append(np.moveaxis(fine, 1, -1))
    volumes[1][..., -1] = 0
    return volumes


def write_acdc(root, hearts):
    """The sform is of the wrong scale, labels are floats, a cine and words lie beside."""
    forms = np.diag([-1.0, -1, 1, 1]), np.diag([-PIXEL, -PIXEL, 10, 1])
    header = {"codes": (1, 1), "pixdim": (PIXEL, PIXEL, 10)}
    for n, (grey, labels) in enumerate(zip(*hearts), start=1):
        place = root / ("training" if n < 8 else "testing") / f"patient{n:03}"
        for t, frame in enumerate(("frame01", f"frame{8 + n:02}")):
            stem = f"{place.name}_{frame}"
            for end, values in (("", grey[t] * 1.0), ("_gt", labels[t] * np.float32(0.9999))):
                save(place / f"{stem}{end}.nii.gz", image(values, *forms, **header))
        save(place / f"{place.name}_4d.nii.gz", np.zeros((9, 9, 2, 3), np.int16))
        lines = f"ED: 1\nES: {8 + n}\nGroup: NOR\nHeight: 171.0\nNbFrame: 30\nWeight: 69.0\n"
        (place / "Info.cfg").write_text(lines, encoding="utf-8")
    (root / "MANDATORY_CITATION.md").write_text("Bernard et al.", encoding="utf-8")


def test_from_volumes_to_dice(command, tmp_path):
    source, out, run, masks = (tmp_path / name for name in ("nifti", "root", "run", "masks"))
    shape = (PATIENTS, SLICES, 2, 96, 96)
    pixels = phantom.make(seed=5, patients=PATIENTS * SLICES)
    drawn = [part.reshape(shape) for part in pixels]
    write_acdc(source, volumes_of(drawn))
    done = command("convert", source, "--out", out)
    assert (done.status, done.err) == (0, "") and "10 cine or long-axis files" in done.out
    assert "40 slices of 10 patients of 10 found (8 train, 2 val)" in done.out
    with (out / "origin.csv").open(encoding="utf-8") as table:
        origin = {row["image"]: row["slice"] for row in csv.DictReader(table)}
    slices = datasets.load(out, "labelled")
    for name, mask, patient in zip(slices.names, slices.masks, slices.patients):
        moment = int("frame01" not in origin[name])
        shares = [(mask == truth).mean() for truth in drawn[1][patient - 1, :, moment]]
        assert max(shares) > 0.98, origin[name]
    assert json.loads(command("doctor", out, "--json").out)["errors"] == []
    words = ("train", "--data", out, "--preset", "sprint", "--epochs", 8, "--out", run)
    assert command(*words).status == 0
    done = command("predict", "--model", run, "--images", out / "val" / "image", "--out", masks)
    assert done.status == 0 and len(read_masks(masks)) == len(read_masks(out / "val" / "mask"))
    done = command("evaluate", "--pred", masks, "--truth", out / "val" / "mask", "--json")
    means = json.loads(done.out)["dice"]
    assert means["LV"] > 0.6 and means["mean"] > 0.5, means
