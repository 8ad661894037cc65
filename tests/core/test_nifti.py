"""NIfTI volumes made here, with a known heart in millimetres, brought into slices."""

import csv
import json
import re
from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

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
    "text": ("a readable NIfTI", lambda v, t, g, m: v.write_text("not a volume", encoding="utf-8")),
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


# --- headers --------------------------------------------------------------------------------------

LPS = np.diag([-2.0, -2, 10, 1])  # ACDC's axes
LEVELS = np.array([60, 700, 200, 900], np.float32)  # of background, RV, Myo, LV


def plain_heart():
    """Labels (64, 60, 3) as ACDC stores them, no two slices alike."""
    x, y = np.meshgrid(*(np.arange(n) - n / 2 for n in (64, 60)), indexing="ij")
    slices = []
    for z in range(3):
        labels = np.zeros((64, 60), np.uint8)
        labels[np.hypot(x + 15, y - 3) < 8 + z] = 1
        labels[np.hypot(x, y) < 12 + z] = 2
        labels[np.hypot(x, y) < 7 + z] = 3
        slices.append(labels)
    return np.stack(slices, 2)


def image(values, affine=LPS, qform=None, codes=(2, 0), pixdim=None):
    """A NIfTI image with a header of its own."""
    file = nibabel.Nifti1Image(values, LPS)
    file.set_qform(affine if qform is None else qform, codes[1])
    file.set_sform(affine, codes[0])
    file.header["pixdim"][1:4] = (
        np.linalg.norm(affine[:3, :3], axis=0) if pixdim is None else pixdim
    )
    return file


def stored(file, axes):
    """The same volume along other axes, as its header says."""
    now = nibabel.io_orientation(file.affine)
    return file.as_reoriented(
        nibabel.orientations.ornt_transform(now, nibabel.orientations.axcodes2ornt(tuple(axes)))
    )


def convert(folder, grey, labels, name="p"):
    """Slices of one volume and its labels, or what is complained of, and notes."""
    folder.mkdir(exist_ok=True)
    for end, file in (("", grey), ("_gt", labels)):
        nibabel.save(file, folder / f"{name}_frame01{end}.nii.gz")
    found = layouts.find(folder)
    try:
        return nifti.read(found, 2.0, 64)["train"], found.notes
    except BadInput as problem:
        return str(problem), found.notes


def assert_plain(slices):
    """That these are the slices of the plain heart, each label on its voxels."""
    np.testing.assert_array_equal(slices.masks[:, :, 2:62], np.moveaxis(plain_heart(), 2, 0))
    grey = [{*slices.images[slices.masks == c]} for c in range(4)]
    assert [len(levels) for levels in grey] == [1] * 4 and len(set.union(*grey)) == 4


AXES = ["".join(s) for p in permutations(("LR", "PA", "SI")) for s in product(*p)]


@pytest.mark.parametrize("axes", AXES)
def test_a_heart_stored_along_any_axes_comes_out_as_one(axes, tmp_path):
    labels = plain_heart()
    grey = stored(image(LEVELS[labels]), axes)
    assert_plain(convert(tmp_path, grey, stored(image(labels), axes))[0])
    other = AXES[(7 * AXES.index(axes) + 3) % 48]  # its labels along others still
    slices, notes = convert(tmp_path, grey, stored(image(labels), other))
    assert_plain(slices)
    assert [note.problem for note in notes] == [
        "only patient p has labels: nobody is held out, there is no val"
    ]


def turned(degrees, affine=LPS):
    """The affine turned about all three axes."""
    return (
        nibabel.affines.from_matvec(
            Rotation.from_euler("xyz", degrees, degrees=True).as_matrix(), (9, -70, 33)
        )
        @ affine
    )


@pytest.mark.parametrize("degrees", [(20, 0, 0), (0, -30, 0), (0, 0, 40), (15, -20, 25)])
def test_oblique_volumes_lie_along_the_nearest_axes(degrees, tmp_path):
    labels, affine = plain_heart(), turned(degrees)
    for axes in ("LPS", "SAR"):
        grey = stored(image(LEVELS[labels], affine), axes)
        assert_plain(convert(tmp_path, grey, image(labels, affine))[0])
        assert "away from its volume" in convert(tmp_path, grey, image(labels, LPS))[0]


@pytest.mark.parametrize("axes", ["PIL", "LIP"])
def test_slices_that_stand_have_what_is_inferior_down(axes, tmp_path):
    """Sagittal and coronal stacks: the widest spacing lies along another axis of the body."""
    columns = [{"L": (-2, 0, 0), "P": (0, -2, 0), "S": (0, 0, 2), "I": (0, 0, -2)}[a] for a in axes]
    affine = nibabel.affines.from_matvec(np.transpose(columns) * [1, 1, 5])
    labels = plain_heart()
    for other in (axes, axes.translate(str.maketrans("LPI", "RAS"))[::-1]):
        grey = stored(image(LEVELS[labels], affine), other)
        assert_plain(convert(tmp_path, grey, image(labels, affine))[0])


HEADERS = {
    "ACDC's": {
        "affine": np.diag([-1.0, -1, 1, 1]),
        "qform": LPS,
        "codes": (1, 1),
        "pixdim": (2, 2, 10),
    },
    "sform of a wrong scale": {"affine": np.diag([-1.0, -1, 1, 1]), "pixdim": (2, 2, 10)},
    "qform alone": {"codes": (0, 1)},
    "sform alone": {"codes": (4, 0)},
    "both": {"codes": (1, 1)},
    "negative spacing": {"pixdim": (-2, 2, -10)},
    "neither": {"codes": (0, 0)},
}


@pytest.mark.parametrize("header", HEADERS)
def test_axes_and_spacing_of_a_header(header, tmp_path):
    labels, said = plain_heart(), {}
    for other in (header, "sform alone" if header != "neither" else header):
        slices, notes = convert(
            tmp_path, image(LEVELS[labels], **HEADERS[header]), image(labels, **HEADERS[other])
        )
        assert_plain(slices)
        said[other] = [note for note in notes if "does not say how it lies" in note.problem]
    assert len(said[header]) == (2 if header == "neither" else 0)


def shifted(by):
    affine = LPS.copy()
    affine[:3, 3] += by
    return affine


FOUR = np.stack([plain_heart()] * 2, 3)
UNFIT = {
    "shifted by 5 voxels": ("5 voxels away", lambda g, m: (g, image(m, shifted((10, 0, 0))))),
    "shifted by half": ("0.5 voxels away", lambda g, m: (g, image(m, shifted((0, 1, 0))))),
    "shifted by a slice": ("1 voxels away", lambda g, m: (g, image(m, shifted((0, 0, 10))))),
    "flipped in the header": ("voxels away", lambda g, m: (g, image(m, np.diag([2.0, -2, 10, 1])))),
    "of no scale": ("voxels away", lambda g, m: (g, image(m, np.diag([-1.0, -1, 1, 1])))),
    "other slices": ("is of shape", lambda g, m: (g, image(m[:, :, 1:]))),
    "cropped": ("is of shape", lambda g, m: (g, image(m[4:, :, :]))),
    "coarser": ("is of shape", lambda g, m: (g, image(m[::2, ::2], np.diag([-4.0, -4, 10, 1])))),
    "turned array": ("is of shape", lambda g, m: (g, image(m.swapaxes(0, 1)))),
    "over time": ("is of shape", lambda g, m: (g, image(FOUR))),
    "one-hot": (
        "is of shape",
        lambda g, m: (g, image(np.stack([m == c for c in range(4)], 3) * np.uint8(1))),
    ),
    "only one says where": (
        "only one of the two headers",
        lambda g, m: (g, image(m, codes=(0, 0))),
    ),
    "the other does": ("only one of", lambda g, m: (image(LEVELS[m], codes=(0, 0)), image(m))),
    "labels above 3": ("other labels", lambda g, m: (g, image(m * np.uint8(50)))),
    "label 4": ("other labels", lambda g, m: (g, image(m + np.uint8(1)))),
    "negative": ("other labels", lambda g, m: (g, image(-m.astype(np.int16)))),
    "smoothed": ("other labels", lambda g, m: (g, image(m * np.float32(0.9)))),
    "labels of no number": ("no numbers", lambda g, m: (g, image(np.where(m == 3, np.nan, m)))),
    "M&Ms' order": ("not labelled RV 1, Myo 2, LV 3", lambda g, m: (g, image(MNMS[m]))),
    "another order": ("not labelled", lambda g, m: (g, image(np.array([0, 2, 1, 3], np.uint8)[m]))),
    "yet another": ("not labelled", lambda g, m: (g, image(np.array([0, 1, 3, 2], np.uint8)[m]))),
    "round": ("not labelled", lambda g, m: (g, image(np.array([0, 2, 3, 1], np.uint8)[m]))),
    "and back": ("not labelled", lambda g, m: (g, image(np.array([0, 3, 1, 2], np.uint8)[m]))),
    "no myocardium": ("not labelled", lambda g, m: (g, image(m * (m != 2)))),
    "exchanged": ("holds labels", lambda g, m: (image(m), image(LEVELS[m]))),
    "labels twice": ("holds labels", lambda g, m: (image(m), image(m))),
    "blank": ("single grey level", lambda g, m: (image(LEVELS[m] * 0 + 7), image(m))),
    "contradiction": (
        "contradict",
        lambda g, m: (image(LEVELS[m], np.diag([2.0, -2, 10, 1]), LPS, (1, 1)), image(m)),
    ),
    "turned the other way": (
        "contradict",
        lambda g, m: (image(LEVELS[m], turned((0, 0, 20)), LPS, (1, 1)), image(m)),
    ),
    "sheared": ("right angles", lambda g, m: (image(LEVELS[m], SHEARED), image(m, SHEARED))),
    "flat affine": (
        "right angles",
        lambda g, m: (
            image(LEVELS[m], np.diag([-2.0, -2, 0, 1]), LPS, (1, 1), (2, 2, 10)),
            image(m),
        ),
    ),
    "no place": ("right angles", lambda g, m: (image(LEVELS[m], shifted(np.nan), LPS), image(m))),
    "no spacing": (
        "voxels of 2 x 2 x 0 mm",
        lambda g, m: (image(LEVELS[m], pixdim=(2, 2, 0)), image(m)),
    ),
    "nan": (
        "voxels of 2 x nan x 10 mm",
        lambda g, m: (image(LEVELS[m], pixdim=(2, np.nan, 10)), image(m)),
    ),
    "cubes": (
        "no stack of short axes",
        lambda g, m: (image(LEVELS[m], np.diag([-2.0, -2, 2, 1])), image(m)),
    ),
    "spacing of other axes": (
        "no stack",
        lambda g, m: (image(LEVELS[m], pixdim=(10, 2, 2)), image(m)),
    ),
    "a strip": ("no stack", lambda g, m: (image(LEVELS[m[:, 22:40]]), image(m[:, 22:40]))),
    "a row of slices": (
        "no stack",
        lambda g, m: (
            image(LEVELS[m.repeat(10, 2)], pixdim=(10, 2, 2)),
            image(m.repeat(10, 2), pixdim=(10, 2, 2)),
        ),
    ),
    "micrometres": ("no stack", lambda g, m: (image(LEVELS[m], pixdim=(2e3, 2e3, 1e4)), image(m))),
    "five": (
        "expected 3 or 4 dimensions",
        lambda g, m: (image(LEVELS[m][..., None, None] + np.ones(2, np.float32)), image(m)),
    ),
    "nothing": ("expected 3 or 4 dimensions", lambda g, m: (image(LEVELS[m][:0]), image(m[:0]))),
    "infinite": ("no numbers", lambda g, m: (image(np.where(m == 3, np.inf, LEVELS[m])), image(m))),
}
MNMS = np.array(layouts.MNMS, np.uint8)
SHEARED = LPS @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(("problem", "harm"), UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_right_is_refused(problem, harm, tmp_path):
    labels = plain_heart()
    said, _ = convert(tmp_path, *harm(image(LEVELS[labels]), labels))
    assert isinstance(said, str) and re.search(problem, said) and len(said.splitlines()) == 1


def scaled(values):
    """Stored three times as large, with a slope of a third in the header."""
    file = image(values * 3)
    file.header.set_slope_inter(1 / 3, 0)
    return file


FIT = {
    "nearly whole": lambda m: image(m * np.float32(0.999)),
    "doubles": lambda m: image(m.astype(float)),
    "scaled": scaled,
    "a trailing one": lambda m: image(m[..., None]),
    "two of them": lambda m: image(m[..., None, None]),
    "int64": lambda m: nibabel.Nifti1Image(m.astype(np.int64), LPS, dtype="int64"),
    "big-endian": lambda m: nibabel.Nifti1Image(m, LPS, nibabel.Nifti1Header(endianness=">")),
    "NIfTI-2": lambda m: nibabel.Nifti2Image(m, LPS),
    "a tenth of a voxel away": lambda m: image(m, shifted((0.2, 0, 0))),
}


@pytest.mark.parametrize("how", FIT.values(), ids=FIT)
def test_what_is_odd_and_right_is_read(how, tmp_path):
    labels = plain_heart()
    assert_plain(convert(tmp_path, image(LEVELS[labels][..., None]), how(labels))[0])


def test_where_a_plane_is_filled_up_no_label_is(tmp_path):
    labels = plain_heart()[:32]  # cut through the cavity: it lies at the edge
    slices, _ = convert(tmp_path, image(LEVELS[labels]), image(labels))
    np.testing.assert_array_equal(slices.masks[:, 16:48, 2:62], np.moveaxis(labels, 2, 0))
    assert slices.masks[:, 16:48].any() and not slices.masks[:, 48:].any()


def test_a_heart_upside_down_is_noted(tmp_path):
    """What the header says cannot be checked by itself, but by the RV."""
    labels = plain_heart()
    for turned in (labels[::-1], labels.swapaxes(0, 1)):
        _, notes = convert(tmp_path, image(LEVELS[turned]), image(turned))
        assert any(
            "RV not above its LV" in note.problem and "p_frame01" in note.file for note in notes
        )


def test_labels_that_are_cut_or_vanish_are_noted(tmp_path):
    labels = np.pad(plain_heart(), ((0, 60), (0, 0), (0, 0)))
    _, notes = convert(tmp_path, image(LEVELS[labels]), image(labels))
    cut = (labels > 0).sum() - (labels[30:94] > 0).sum()
    assert f"{cut} of {(labels > 0).sum()} labelled pixels outside" in notes[0].problem
    labels = plain_heart()
    labels[..., 2] = 0
    labels[5, 5, 2] = 1
    for end, values in (("", LEVELS[labels]), ("_gt", labels)):
        nibabel.save(image(values), tmp_path / f"p_frame01{end}.nii.gz")
    found = layouts.find(tmp_path)
    nifti.read(found, 5.0, 64)
    assert "vanish" in found.notes[0].problem


# --- the command ----------------------------------------------------------------------------------


def test_what_convert_writes_can_be_trained_on(acdc, command, tmp_path):
    out = tmp_path / "root"
    done = command("convert", acdc, "--out", out, "--size", 64, "--spacing", 3)
    assert done.status == 0 and "28 slices of 7 patients" in done.out
    train, val = datasets.load(out, "train"), datasets.load(out, "val")
    assert set(val.patients) == {5} and set(train.patients) == {1, 2, 3, 4, 6, 7}
    assert len(set(train.names + val.names)) == 28
    slices = read(acdc, 3, 64)
    assert command("convert", acdc, "--out", out, "--size", 64, "--spacing", 3).status == 0  # again
    origin = {
        row["image"]: row["slice"]
        for row in csv.DictReader((out / "origin.csv").open(encoding="utf-8"))
    }
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
