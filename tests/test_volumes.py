"""NIfTI volumes made here, with a known heart in millimetres, brought into slices.

Each test fails after any of these one-line changes in volumes.py (and cli.convert):

- geometry: ``side / spacing`` -> ``spacing / side``; ``.T`` dropped (images, or masks); ``(..., 1)`` of the
  factors -> ``2``; ``grid_mode=True`` dropped; in _resample(), ``- size) // 2`` -> ``- size)``;
  in _resample_labels(), ``argmax(0)`` of ``labels`` -> ``_resample(labels, ...)`` rounded
- layouts: ``MNMS if`` -> ``ACDC if``; ``"_gt", "_4d"`` -> ``"_gt"``; ``mask[:, :, z].any()`` -> ``True``;
  ``if truth or not labelled`` -> ``if True``
- patients: in _patient(), return ``path``, or ``path.parent`` always; ``else path.parent`` -> ``else path``
- faults: any of the seven checks dropped
- convert: ``patients % 5`` -> ``patients % 4``; names that begin at 1 in each split
"""

import csv
import json

import numpy as np
import pytest

from conftest import files_in

from cmrseg import data, volumes

nibabel = pytest.importorskip("nibabel")
PIXEL = (1.4, 2.1, 10.0)  # mm
MM = (190, 210)  # width along the first axis, height along the second


def heart(pixel=PIXEL, slices=3, middle=(100.0, 100.0), label=(1, 2, 3)):
    """A volume (X, Y, Z) and its labels: an ellipse of label 3 in a ring of 2, and a disc of 1 at its side.
    The last slice is empty."""
    shape = [round(mm / side) for mm, side in zip(MM, pixel)]
    x, y = np.meshgrid(*((np.arange(n) + 0.5) * side for n, side in zip(shape, pixel)), indexing="ij")
    outer = ((x - middle[0]) / 30) ** 2 + ((y - middle[1]) / 24) ** 2
    inner = ((x - middle[0]) / 20) ** 2 + ((y - middle[1]) / 15) ** 2
    labels = np.zeros(shape, np.uint8)
    labels[np.hypot(x - middle[0] - 45, y - middle[1]) < 18] = label[0]
    labels[outer < 1] = label[1]
    labels[inner < 1] = label[2]
    labels = np.stack([labels] * (slices - 1) + [labels * 0], 2)
    grey = np.array([40.0, 700.0, 150.0, 900.0])[labels] + np.random.default_rng(0).normal(0, 5, labels.shape)
    return grey, labels


def write(path, values, pixel=PIXEL):
    path.parent.mkdir(parents=True, exist_ok=True)
    file = nibabel.Nifti1Image(values, np.diag([*pixel, 1.0]))
    if values.ndim == 4:
        file.header.set_zooms((*pixel, 1.0))
    nibabel.save(file, path)


@pytest.fixture
def acdc(tmp_path):
    """Seven patients, two moments each, with a 4D file and an Info.cfg beside them."""
    root = tmp_path / "acdc"
    for n in range(1, 8):
        for frame in ("frame01", "frame12"):
            grey, labels = heart()
            stem = root / f"patient{n:03}" / f"patient{n:03}_{frame}"
            write(stem.with_name(stem.name + ".nii.gz"), grey.astype(np.float32))
            write(stem.with_name(stem.name + "_gt.nii.gz"), labels)
    write(root / "patient001" / "patient001_4d.nii.gz", np.zeros((9, 9, 2, 3), np.float32))
    (root / "patient001" / "Info.cfg").write_text("ED: 1\nES: 12\n")
    return root


def test_areas_in_millimetres_survive_whatever_the_spacing(acdc):
    for spacing, size in ((1.8, 128), (1.0, 224)):
        found = volumes.read(acdc, spacing, size)
        area = (found.masks[0] == 3).sum() * spacing**2
        assert area == pytest.approx(np.pi * 20 * 15, rel=0.02)
        ring = (found.masks[0] == 2).sum() * spacing**2
        assert ring == pytest.approx(np.pi * (30 * 24 - 20 * 15), rel=0.03)


def test_rows_lie_along_the_second_axis_and_the_mask_on_its_image(acdc):
    found = volumes.read(acdc, 1.0, 224)
    rows, columns = (np.ptp(np.nonzero(found.masks[0] == 3)[axis]) + 1 for axis in (0, 1))
    assert (rows, columns) == (pytest.approx(30, abs=1), pytest.approx(40, abs=1))
    image, mask = found.images[0].astype(float), found.masks[0]
    assert np.mean(image[mask == 3]) > 240 and np.mean(image[mask == 2]) < 60
    bright = image > 128
    assert 2 * (bright & np.isin(mask, (1, 3))).sum() / (bright.sum() + np.isin(mask, (1, 3)).sum()) > 0.98


def test_the_middle_of_the_plane_stays_the_middle(tmp_path):
    for size in (64, 160):  # cut, and filled
        grey, labels = heart(middle=(MM[0] / 2, MM[1] / 2))
        root = tmp_path / str(size)
        write(root / "p" / "p_frame01.nii", grey)
        write(root / "p" / "p_frame01_gt.nii", labels)
        found = volumes.read(root, 2.0, size)
        centre = np.array(np.nonzero(found.masks[0] == 3)).mean(1)
        np.testing.assert_allclose(centre, [(size - 1) / 2] * 2, atol=1)
        assert found.images.shape[1:] == (size, size) and found.images.dtype == found.masks.dtype == np.uint8


def test_slices_know_their_patient_and_where_they_come_from(acdc):
    found = volumes.read(acdc)
    assert len(found) == 7 * 2 * 2  # the empty slice is left out, the 4D file too
    assert found.names[:3] == ("patient001_frame01_slice0", "patient001_frame01_slice1",
                               "patient001_frame12_slice0")
    np.testing.assert_array_equal(found.patients, np.repeat(range(1, 8), 4))
    assert set(np.unique(found.masks)) == {0, 1, 2, 3}


def test_mnms_has_labels_at_two_moments_and_counts_the_other_way(tmp_path):
    grey, labels = heart(label=(3, 2, 1))
    over_time = np.stack([labels * 0, labels, labels * 0, labels], 3)
    write(tmp_path / "A0" / "A0_sa.nii.gz", np.stack([grey] * 4, 3).astype(np.float32))
    write(tmp_path / "A0" / "A0_sa_gt.nii.gz", over_time)
    found = volumes.read(tmp_path, 2.0)
    assert found.names == tuple(f"A0_sa_time{t}_slice{z}" for t in (1, 3) for z in (0, 1))
    cavity, disc = (found.masks[0] == 3).sum() * 4, (found.masks[0] == 1).sum() * 4
    assert cavity == pytest.approx(np.pi * 300, rel=0.03) and disc == pytest.approx(np.pi * 18**2, rel=0.2)


def test_without_any_labels_every_slice_is_taken_and_beside_labels_none_without(acdc):
    for path in acdc.rglob("patient002*_gt.nii.gz"):
        path.unlink()
    assert set(volumes.read(acdc).patients) == {1, 3, 4, 5, 6, 7}
    for path in acdc.rglob("*_gt.nii.gz"):
        path.unlink()
    found = volumes.read(acdc)
    assert found.masks is None and len(found) == 7 * 2 * 3


def test_patients_without_folders_are_told_apart_by_their_names(acdc, tmp_path):
    whole, flat = volumes.read(acdc), tmp_path / "flat"
    flat.mkdir()
    for path in acdc.rglob("*.nii.gz"):
        path.rename(flat / path.name)
    for root in (flat, tmp_path):  # also one folder further down
        found = volumes.read(root)
        assert found.names == whole.names
        np.testing.assert_array_equal(found.patients, whole.patients)


def test_names_of_no_layout_belong_to_the_patient_of_their_folder(tmp_path):
    grey, _ = heart()
    for patient in "ab":
        for moment in ("ed", "es"):
            write(tmp_path / patient / f"{moment}.nii.gz", grey)
    np.testing.assert_array_equal(volumes.read(tmp_path).patients, np.repeat([1, 2], 6))


@pytest.mark.parametrize(("harm", "says"), [
    ("torn", "not a readable NIfTI"), ("text", "not a readable NIfTI"), ("shape", "is of shape"),
    ("labels", "other labels than 0 to 3"), ("halves", "other labels than 0 to 3"),
    ("spacing", "pixels of 0 x 0 mm"), ("metres", "pixels of 1400 x 2100 mm"), ("colours", "not grey levels"),
    ("complex", "not grey levels"), ("flat", "2 dimensions"), ("nan", "no numbers"),
    ("empty", "no labelled slice"), ("nobody's", "whose it is"), ("nothing", "no NIfTI volume"), ("nowhere", "no such folder"),
])
def test_a_fault_is_one_line_with_its_cure(acdc, harm, says, mistake, tmp_path):
    volume, truth = (acdc / "patient003" / f"patient003_frame01{end}.nii.gz" for end in ("", "_gt"))
    grey, labels = heart()
    folder = acdc
    if harm == "torn":
        volume.write_bytes(volume.read_bytes()[:3000])
    elif harm == "text":
        volume.write_text("not a volume")
    elif harm == "shape":
        write(truth, labels[:, :, :2])
    elif harm == "labels":
        write(truth, labels * 2)
    elif harm == "halves":
        write(truth, labels.astype(np.float32) / 2)
    elif harm == "spacing":
        file = nibabel.load(volume)
        values, header = np.asarray(file.dataobj), file.header.copy()
        header["pixdim"][1:3] = 0
        raw = nibabel.Nifti1Image(values, None, header)
        raw.header["pixdim"][1:3] = 0
        nibabel.save(raw, volume)
    elif harm == "metres":
        write(volume, grey, tuple(1000 * side for side in PIXEL))
    elif harm == "colours":
        write(volume, grey.astype(np.uint8).repeat(3).reshape(*grey.shape, 3).view([(c, "u1") for c in "RGB"])[..., 0])
    elif harm == "complex":
        write(volume, grey.astype(np.complex64))
    elif harm == "flat":
        write(volume, grey[:, :, 0])
    elif harm == "nan":
        grey[0, 0, 0] = np.nan
        write(volume, grey)
    elif harm == "empty":
        for path in acdc.rglob("*_gt.nii.gz"):
            write(path, labels * 0)
    elif harm == "nobody's":
        write(acdc / "volume7.nii.gz", grey)
    else:
        folder = tmp_path / "elsewhere"
        if harm == "nothing":
            folder.mkdir()
    assert says in mistake("convert", folder, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_nibabel_it_says_what_to_install(acdc, monkeypatch, mistake, tmp_path):
    monkeypatch.setattr(volumes, "find_spec", lambda name: None)
    assert "pip install 'cmrseg[nifti]'" in mistake("convert", acdc, "--out", tmp_path / "out")


def test_what_convert_writes_can_be_trained_on(acdc, command, tmp_path):
    out = tmp_path / "root"
    done = command("convert", acdc, "--out", out, "--size", 64, "--spacing", 3)
    assert done.status == 0 and "28 slices of 7 patients" in done.out
    train, val = data.load(out, "train"), data.load(out, "val")
    assert set(val.patients) == {5} and set(train.patients) == {1, 2, 3, 4, 6, 7}
    assert len(set(train.names + val.names)) == 28
    found = volumes.read(acdc, 3, 64)
    assert (train + val).masks.sum() == found.masks.sum()
    origin = {row["image"]: row["slice"] for row in csv.DictReader((out / "origin.csv").open())}
    number = val.names.index(val.names[0])
    at = found.names.index(origin[val.names[0]])
    np.testing.assert_array_equal(val.images[number], found.images[at])
    found = json.loads(command("doctor", out, "--json").out)
    assert found["errors"] == []
    assert files_in(out)[:2] == ["origin.csv", "patients.csv"]


def test_volumes_without_labels_become_test_slices(acdc, command, tmp_path):
    for path in acdc.rglob("*_gt.nii.gz"):
        path.unlink()
    assert command("convert", acdc, "--out", tmp_path / "root").status == 0
    assert len(data.read_images(tmp_path / "root" / "test" / "image")) == 42
