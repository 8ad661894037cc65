"""NIfTI volumes made here, with a known heart in millimetres, brought into slices."""

import csv
import json

import numpy as np
import pytest

from cmrseg import cli, datasets
from cmrseg.data import BadInput
from cmrseg.datasets import layouts, nifti

nibabel = pytest.importorskip("nibabel")
PIXEL = (1.4, 2.1, 10.0)  # mm
MM = (190, 210)  # width along the first axis, height along the second


def heart(middle=(100.0, 100.0), label=(1, 2, 3)):
    """A volume (X, Y, Z), the last slice empty: an ellipse in a ring, and a disc at its side."""
    shape = [round(mm / side) for mm, side in zip(MM, PIXEL)]
    axes = [(np.arange(n) + 0.5) * side - m for n, side, m in zip(shape, PIXEL, middle)]
    x, y = np.meshgrid(*axes, indexing="ij")
    labels = np.zeros(shape, np.uint8)
    labels[np.hypot(x - 45, y) < 18] = label[0]
    labels[np.hypot(x / 30, y / 24) < 1] = label[1]
    labels[np.hypot(x / 20, y / 15) < 1] = label[2]
    labels = np.stack([labels, labels, labels * 0], 2)
    grey = np.array([40.0, 700.0, 150.0, 900.0])[labels]
    return grey + np.random.default_rng(0).normal(0, 5, labels.shape), labels


def write(path, values, pixel=PIXEL):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*pixel, 1.0])), path)


def read(folder, *how):
    """All labelled slices in one, or else those without labels."""
    splits = nifti.read(layouts.find(folder), *how)
    labelled = [splits[name] for name in ("train", "val") if name in splits]
    slices = sum(labelled[1:], labelled[0]) if labelled else splits["test"]
    return slices[sorted(range(len(slices)), key=lambda i: (slices.patients[i], slices.names[i]))]


@pytest.fixture
def acdc(tmp_path):
    """Seven patients, two moments each, with a 4D file beside them."""
    root = tmp_path / "acdc"
    for n in range(1, 8):
        for frame in ("frame01", "frame12"):
            for end, values in zip(("", "_gt"), heart()):
                name = f"patient{n:03}/patient{n:03}_{frame}{end}.nii.gz"
                write(root / name, values.astype(np.uint8 if end else np.float32))
    write(root / "patient001" / "patient001_4d.nii.gz", np.zeros((9, 9, 2, 3), np.float32))
    return root


@pytest.mark.parametrize(("spacing", "size"), [(1.8, 128), (1.0, 224)])
def test_millimetres_survive_and_rows_lie_along_the_first_axis(spacing, size, acdc):
    slices = read(acdc, spacing, size)
    image, mask = slices.images[0], slices.masks[0]
    areas = [(mask == c).sum() * spacing**2 for c in (3, 2)]
    assert areas == [pytest.approx(a * np.pi, rel=0.03) for a in (20 * 15, 30 * 24 - 20 * 15)]
    sides = [(np.ptp(axis) + 1) * spacing for axis in np.nonzero(mask == 3)]
    assert sides == [pytest.approx(40, abs=spacing), pytest.approx(30, abs=spacing)]
    bright, chambers = image > 128, np.isin(mask, (1, 3))
    assert 2 * (bright & chambers).sum() / (bright.sum() + chambers.sum()) > 0.98


@pytest.mark.parametrize("size", [64, 160])  # cut, and filled
def test_the_middle_of_the_plane_stays_the_middle(size, tmp_path):
    for end, values in zip(("", "_gt"), heart(middle=(MM[0] / 2, MM[1] / 2))):
        write(tmp_path / "p" / f"p_frame01{end}.nii", values)
    slices = read(tmp_path, 2.0, size)
    centre = np.array(np.nonzero(slices.masks[0] == 3)).mean(1)
    np.testing.assert_allclose(centre, [(size - 1) / 2] * 2, atol=1)
    assert slices.images.shape == slices.masks.shape == (2, size, size)


def test_slices_know_their_patient_and_where_they_come_from(acdc, tmp_path):
    slices = read(acdc)
    assert len(slices) == 7 * 2 * 2  # the empty slice is left out, the 4D file too
    assert slices.names[1:3] == ("patient001_frame01_slice1", "patient001_frame12_slice0")
    np.testing.assert_array_equal(slices.patients, np.repeat(range(1, 8), 4))
    (tmp_path / "flat").mkdir()  # without folders, names tell patients apart
    for path in acdc.rglob("*.nii.gz"):
        path.rename(tmp_path / "flat" / path.name)
    for root in (tmp_path / "flat", tmp_path):  # also one folder further down
        flat = read(root)
        assert flat.names == slices.names
        np.testing.assert_array_equal(flat.patients, slices.patients)


def test_mnms_has_labels_at_two_moments_and_counts_the_other_way(tmp_path):
    grey, labels = heart(label=(3, 2, 1))
    write(tmp_path / "A0" / "A0_sa.nii.gz", np.stack([grey] * 4, 3).astype(np.float32))
    over_time = np.stack([labels * 0, labels, labels * 0, labels], 3)
    write(tmp_path / "A0" / "A0_sa_gt.nii.gz", over_time)
    slices = read(tmp_path, 2.0)
    assert slices.names == tuple(f"A0_sa_time{t}_slice{z}" for t in (1, 3) for z in (0, 1))
    disc, _, cavity = (4 * (slices.masks[0] == c).sum() for c in (1, 2, 3))
    assert cavity == pytest.approx(np.pi * 300, rel=0.03)
    assert disc == pytest.approx(np.pi * 18**2, rel=0.2)


def without_spacing(volume, grey):
    file = nibabel.Nifti1Image(grey, None)
    file.header["pixdim"][1:3] = 0
    nibabel.save(file, volume)


RGB = np.dtype([(c, "u1") for c in "RGB"])
FAULTS = {
    "torn": ("a readable NIfTI", lambda v, t, g, m: v.write_bytes(v.read_bytes()[:3000])),
    "text": ("a readable NIfTI", lambda v, t, g, m: v.write_text("not a volume")),
    "shape": ("is of shape", lambda v, t, g, m: write(t, m[:, :, :2])),
    "labels": ("other labels than 0 to 3", lambda v, t, g, m: write(t, m * 2)),
    "halves": ("other labels than 0 to 3", lambda v, t, g, m: write(t, m.astype(np.float32) / 2)),
    "spacing": ("voxels of 0 x 0 x 10? mm", lambda v, t, g, m: without_spacing(v, g)),
    "metres": ("voxels of 1400 x 2100 x 1 mm", lambda v, t, g, m: write(v, g, (1400, 2100, 1))),
    "colours": ("not grey levels", lambda v, t, g, m: write(v, np.zeros(g.shape, RGB))),
    "complex": ("not grey levels", lambda v, t, g, m: write(v, g.astype(np.complex64))),
    "flat": ("array of 136 x 100, expected 3", lambda v, t, g, m: write(v, g[:, :, 0])),
    "nan": ("no numbers", lambda v, t, g, m: write(v, np.where(m == 3, np.nan, g))),
    "nobody's": ("neither layout", lambda v, t, g, m: write(v.parents[1] / "volume7.nii.gz", g)),
}


@pytest.mark.parametrize(("problem", "harm"), FAULTS.values(), ids=FAULTS)
def test_a_fault_of_a_file_is_named(problem, harm, tmp_path):
    volume, labels = (tmp_path / "p" / f"p_frame01{end}.nii.gz" for end in ("", "_gt"))
    for path, values in zip((volume, labels), heart()):
        write(path, values)
    harm(volume, labels, *heart())
    with pytest.raises(BadInput, match=problem):
        read(tmp_path)


def test_a_folder_without_volumes_or_labels_is_refused_in_one_line(tmp_path, mistake, monkeypatch):
    (tmp_path / "empty").mkdir()
    grey, labels = heart()
    write(tmp_path / "p" / "p_frame01.nii.gz", grey)
    write(tmp_path / "p" / "p_frame01_gt.nii.gz", labels * 0)
    for name, problem in {"p": "no labelled", "empty": "no NIfTI", "x": "no such folder"}.items():
        assert problem in mistake("convert", tmp_path / name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert "pip install" in mistake("convert", tmp_path / "p", "--out", tmp_path / "out")


def test_what_convert_writes_can_be_trained_on(acdc, command, tmp_path):
    out = tmp_path / "root"
    done = command("convert", acdc, "--out", out, "--size", 64, "--spacing", 3)
    assert done.status == 0 and "28 slices of 7 patients" in done.out
    train, val = datasets.load(out, "train"), datasets.load(out, "val")
    assert set(val.patients) == {5} and set(train.patients) == {1, 2, 3, 4, 6, 7}
    assert len(set(train.names + val.names)) == 28
    slices = read(acdc, 3, 64)
    assert command("convert", acdc, "--out", out, "--size", 64, "--spacing", 3).status == 0  # again
    origin = {row["image"]: row["slice"] for row in csv.DictReader((out / "origin.csv").open())}
    original = slices[[slices.names.index(origin[name]) for name in val.names]]
    np.testing.assert_array_equal([val.images, val.masks], [original.images, original.masks])
    assert json.loads(command("doctor", out, "--json").out)["errors"] == []


def test_patients_without_labels_go_into_test(acdc, command, tmp_path):
    for path in acdc.rglob("patient002*_gt.nii.gz"):
        path.unlink()
    done = command("convert", acdc, "--out", tmp_path / "some")
    assert "5 train, 1 val, 1 test" in done.out
    assert set(datasets.load(tmp_path / "some", "test").patients) == {2}
    assert len(datasets.load(tmp_path / "some", "test")) == 2 * 3
    for path in acdc.rglob("*_gt.nii.gz"):  # without any labels, all volumes count
        path.unlink()
    assert command("convert", acdc, "--out", tmp_path / "root").status == 0
    assert len(datasets.load(tmp_path / "root", "test")) == 7 * 2 * 3
