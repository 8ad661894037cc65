"""Ten patients in the layouts of ACDC and M&Ms, phantoms with the oddities of real headers.

From NIfTI volumes to slices, a trained network, its masks and their Dice.
"""

import csv
import json

import numpy as np
import pytest
from scipy.ndimage import zoom

from cmrseg import datasets
from cmrseg.datasets import phantom
from cmrseg.datasets.folders import read_masks
from cmrseg.datasets.layouts import MNMS

nibabel = pytest.importorskip("nibabel")
PIXEL = 1.5  # mm; phantoms have 1.8
PATIENTS, SLICES = 10, 3  # the third slice, the base, is not labelled


@pytest.fixture(scope="module")
def hearts():
    """Grey levels (patients, 2 moments, X, Y, Z) and labels of phantoms, in ACDC's axes."""
    drawn = phantom.make(seed=5, patients=PATIENTS * SLICES)
    whole = []
    for pixels, order in zip(drawn, (1, 0)):
        pixels = zoom(
            pixels, (1, 1.8 / PIXEL, 1.8 / PIXEL), order=order, grid_mode=True, mode="nearest"
        )
        pixels = np.pad(pixels, ((0, 0), (12, 13), (4, 5)), mode="edge")
        whole.append(np.moveaxis(pixels.reshape(PATIENTS, SLICES, 2, *pixels.shape[1:]), 1, -1))
    whole[1][..., -1] = 0
    return whole


def save(path, values, affine, qform=None, reorient=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = nibabel.Nifti1Image(values, affine)
    if reorient:
        now = nibabel.io_orientation(affine)
        file = file.as_reoriented(
            nibabel.orientations.ornt_transform(now, nibabel.orientations.axcodes2ornt(reorient))
        )
    if qform is not None:
        file.set_sform(affine, 1)
        file.set_qform(qform, 1)
        file.header["pixdim"][1:4] = np.linalg.norm(qform[:3, :3], axis=0)
    file.header.set_xyzt_units("mm", "sec")
    nibabel.save(file, path)


def write_acdc(root, hearts):
    """The sform is of the wrong scale, labels are floats, a cine and words lie beside."""
    qform, sform = np.diag([-PIXEL, -PIXEL, 10, 1]), np.diag([-1.0, -1, 1, 1])
    for n, (grey, labels) in enumerate(zip(*hearts), start=1):
        place = root / ("training" if n < 8 else "testing") / f"patient{n:03}"
        for t, frame in enumerate(("frame01", f"frame{8 + n:02}")):
            stem = f"{place.name}_{frame}"
            save(place / f"{stem}.nii.gz", grey[t].astype(np.int16), sform, qform)
            save(place / f"{stem}_gt.nii.gz", labels[t] * np.float32(0.9999), sform, qform)
        cine = np.moveaxis(grey, 0, -1).astype(np.int16)
        save(place / f"{place.name}_4d.nii.gz", cine, sform, qform)
        lines = f"ED: 1\nES: {8 + n}\nGroup: NOR\nHeight: 171.0\nNbFrame: 30\nWeight: 69.0\n"
        (place / "Info.cfg").write_text(lines, encoding="utf-8")
    (root / "MANDATORY_CITATION.md").write_text("Bernard et al.", encoding="utf-8")


def oblique():
    """As a scanner lays a short axis: the apex is to the left, in front and below."""
    columns = np.array([0.5, 0.6, 0]), np.array([-0.37, 0.31, -0.61]), np.array([0.6, -0.5, -0.62])
    affine = np.eye(4)
    for i, (column, side) in enumerate(zip(columns, (PIXEL, PIXEL, 9.6))):
        affine[:3, i] = column / np.linalg.norm(column) * side * (-1, -1, 1)  # L, P, S to R, A, S
    affine[:3, 3] = 41, -130, 77
    return affine


def write_mnms(root, hearts):
    """Volumes over time, labelled at two moments; oblique; a long axis beside; two unlabelled."""
    affine = oblique()
    axes = nibabel.aff2axcodes(affine)
    opposite = {"L": "R", "R": "L", "P": "A", "A": "P", "S": "I", "I": "S"}
    for n, (grey, labels) in enumerate(zip(*hearts)):
        code = f"{'ABCDEFGHIJ'[n]}{n}S{n}V{n}"
        place = root / "Training" / ("Labeled" if n < 8 else "Unlabeled") / code
        turn = tuple(opposite[a] if n % 2 else a for a in (axes if n % 3 else axes[::-1]))
        over_time = np.stack([grey[0], grey[0], grey[1], grey[0]], 3).astype(np.float64)
        save(place / f"{code}_sa.nii.gz", over_time, affine, reorient=turn)
        save(place / f"{code}_la.nii.gz", over_time[:, :, :1, 0], affine)
        if n < 8:
            masks = np.stack([labels[0], labels[0] * 0, labels[1], labels[0] * 0], 3)
            masks = np.array(MNMS, np.float64)[masks]
            save(place / f"{code}_sa_gt.nii.gz", masks, affine, reorient=turn if n % 4 else None)
    (root / "dataset_information.csv").write_text("External code,ED,ES\n", encoding="utf-8")


COHORTS = {
    "ACDC": (write_acdc, "40 slices of 10 patients of 10 found (8 train, 2 val)"),
    "M&Ms": (write_mnms, "56 slices of 10 patients of 10 found (7 train, 1 val, 2 test)"),
}


@pytest.mark.parametrize(("write", "said"), COHORTS.values(), ids=COHORTS)
def test_from_volumes_to_dice(write, said, hearts, command, tmp_path):
    source, out, run, masks = (tmp_path / name for name in ("nifti", "root", "run", "masks"))
    write(source, hearts)
    done = command("convert", source, "--out", out)
    assert (done.status, done.err) == (0, "") and said in done.out
    assert "10 cine or long-axis files" in done.out
    truth = phantom.make(seed=5, patients=PATIENTS * SLICES)[1].reshape(PATIENTS, SLICES, 2, 96, 96)
    rows = {
        row["image"]: row["slice"]
        for row in csv.DictReader((out / "origin.csv").open(encoding="utf-8"))
    }
    slices = datasets.load(out, "labelled")
    for name, mask, patient in zip(slices.names, slices.masks, slices.patients):
        moment = int("frame01" not in rows[name] and "time0" not in rows[name])
        shares = [(mask == drawn).mean() for drawn in truth[patient - 1, :, moment]]
        assert max(shares) > 0.98, rows[name]
    report = json.loads(command("doctor", out, "--json").out)
    assert report["errors"] == []
    assert (
        command("train", "--data", out, "--preset", "sprint", "--epochs", 14, "--out", run).status
        == 0
    )
    done = command("predict", "--model", run, "--images", out / "val" / "image", "--out", masks)
    assert done.status == 0 and len(read_masks(masks)) == len(read_masks(out / "val" / "mask"))
    done = command("evaluate", "--pred", masks, "--truth", out / "val" / "mask", "--json")
    means = json.loads(done.out)["dice"]
    assert means["LV"] > 0.7 and means["mean"] > 0.5, means
