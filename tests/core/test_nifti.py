"""NIfTI volumes with a known heart, brought into slices: millimetres, axes, labels, odd headers."""

import gzip
import re
import struct

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from volumes import AFFINE, AXES, LEVELS, heart, image, nibabel, pair

from cmrseg.data import BadInput
from cmrseg.datasets import layouts, nifti


def convert(folder, grey, labels, spacing=2.0, size=64):
    """Slices of one volume and its labels, or what is complained of; and notes."""
    pair(folder / "p_frame01", grey, labels)
    cohort = layouts.find(folder)
    try:
        return nifti.read(cohort, spacing, size)["train"], cohort.notes
    except BadInput as problem:
        return str(problem), cohort.notes


def assert_plain(slices):
    """That these are the slices of the plain heart, each label on its voxels."""
    np.testing.assert_array_equal(slices.masks[:, :, 2:62], np.moveaxis(heart(), 2, 0))
    grey = [{*slices.images[slices.masks == c]} for c in range(4)]
    assert [len(levels) for levels in grey] == [1] * 4 and len(set.union(*grey)) == 4


# --- the plane -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("spacing", "size"), [(1.8, 128), (1.0, 224)])
def test_millimetres_survive_and_rows_lie_along_the_first_axis(spacing, size, tmp_path):
    """An LV of 14.4 voxels, of 1.4 x 2.1 mm, inside a Myo of 24."""
    labels, affine = heart((136, 100, 1), radius=24), np.diag([-1.4, -2.1, 10, 1])
    files = image(LEVELS[labels], affine), image(labels, affine)
    slices, _ = convert(tmp_path, *files, spacing, size)
    picture, mask = slices.images[0], slices.masks[0]
    areas = [(mask == c).sum() * spacing**2 for c in (3, 2)]
    expected = [np.pi * 1.4 * 2.1 * squares for squares in (14.4**2, 24**2 - 14.4**2)]
    assert areas == [pytest.approx(area, rel=0.03) for area in expected]
    sides = [(np.ptp(axis) + 1) * spacing for axis in np.nonzero(mask == 3)]
    assert sides == [pytest.approx(28.8 * side, abs=spacing) for side in (1.4, 2.1)]
    bright, chambers = picture > 128, np.isin(mask, (1, 3))
    assert 2 * (bright & chambers).sum() / (bright.sum() + chambers.sum()) > 0.98


@pytest.mark.parametrize("size", [48, 81])  # cut, and filled
def test_the_middle_of_the_plane_stays_the_middle(size, tmp_path):
    slices, _ = convert(tmp_path, None, None, size=size)
    centre = np.array(np.nonzero(slices.masks[0] == 3)).mean(1)
    np.testing.assert_allclose(centre, [(size - 1) / 2] * 2, atol=1)
    assert slices.images.shape == slices.masks.shape == (3, size, size)


def test_where_a_plane_is_filled_up_no_label_is(tmp_path):
    labels = heart()[:32]  # cut through the cavity: it lies at the edge
    slices, _ = convert(tmp_path, LEVELS[labels], labels)
    np.testing.assert_array_equal(slices.masks[:, 16:48, 2:62], np.moveaxis(labels, 2, 0))
    assert slices.masks[:, 16:48].any() and not slices.masks[:, 48:].any()


def test_labels_that_are_cut_or_vanish_are_noted(tmp_path):
    """Case N09, and slices whose labels lie between the pixels."""
    labels = np.pad(heart(), ((0, 60), (0, 0), (0, 0)))
    _, notes = convert(tmp_path, LEVELS[labels], labels)
    cut, whole = (labels > 0).sum() - (labels[30:94] > 0).sum(), (labels > 0).sum()
    assert f"{cut} of {whole} labelled pixels outside" in notes[0].problem
    assert "p_frame01" in notes[0].file
    labels = heart()
    labels[..., 2] = 0
    labels[5, 5, 2] = 1
    _, notes = convert(tmp_path, LEVELS[labels], labels, spacing=5.0)
    assert "vanish" in notes[0].problem


# --- axes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", AXES)
def test_a_heart_stored_along_any_axes_comes_out_as_one(axes, tmp_path):
    """Cases N06 and N13: the header of the volume counts, and that of its labels."""
    grey, labels = image(LEVELS[heart()], axes=axes), image(heart(), axes=axes)
    assert_plain(convert(tmp_path, grey, labels)[0])
    other = AXES[(7 * AXES.index(axes) + 3) % 48]
    slices, notes = convert(tmp_path, grey, image(heart(), axes=other))
    assert_plain(slices)
    assert len(notes) == 1 and "there is no val" in notes[0].problem  # of a single patient


def turned(degrees):
    """Axes turned about all three."""
    rotation = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return nibabel.affines.from_matvec(rotation, (9, -70, 33)) @ AFFINE


@pytest.mark.parametrize("degrees", [(20, 0, 0), (0, -30, 0), (0, 0, 40), (15, -20, 25)])
def test_oblique_volumes_lie_along_the_nearest_axes(degrees, tmp_path):
    affine = turned(degrees)
    for axes in ("LPS", "SAR"):
        grey = image(LEVELS[heart()], affine, axes=axes)
        assert_plain(convert(tmp_path, grey, image(heart(), affine))[0])
        assert "away from its volume" in convert(tmp_path, grey, image(heart()))[0]


@pytest.mark.parametrize("axes", ["PIL", "LIP"])
def test_slices_that_stand_have_what_is_inferior_down(axes, tmp_path):
    """Sagittal and coronal stacks: the widest spacing lies along another axis of the body."""
    columns = [{"L": (-2, 0, 0), "P": (0, -2, 0), "I": (0, 0, -2)}[a] for a in axes]
    affine = nibabel.affines.from_matvec(np.transpose(columns) * [1, 1, 5])
    for other in (axes, axes.translate(str.maketrans("LPI", "RAS"))[::-1]):
        grey = image(LEVELS[heart()], affine, axes=other)
        assert_plain(convert(tmp_path, grey, image(heart(), affine))[0])


def test_a_heart_upside_down_is_noted(tmp_path):
    """What the header says cannot be checked by itself, but by the RV."""
    for labels in (heart()[::-1], heart().swapaxes(0, 1)):
        _, notes = convert(tmp_path, LEVELS[labels], labels)
        (note,) = [note for note in notes if "RV not above its LV" in note.problem]
        assert "p_frame01" in note.file


@pytest.mark.parametrize(
    ("order", "lacks"), [((0, 0, 2, 3), "RV"), ((0, 0, 0, 1), "Myo and no LV")]
)
def test_labels_without_a_class_are_noted(order, lacks, tmp_path):
    """Such as labels of the LV alone, which would be learned as the RV."""
    _, notes = convert(tmp_path, None, np.uint8(order)[heart()])
    assert f"holds no {lacks}" in notes[0].problem and "p_frame01_gt" in notes[0].file


# --- headers -------------------------------------------------------------------------------------

MILLIMETRE = np.diag([-1.0, -1, 1, 1])  # a form of a wrong scale
HEADERS = {
    "ACDC's": {"affine": MILLIMETRE, "qform": AFFINE, "codes": (1, 1), "pixdim": (2, 2, 10)},
    "sform of a wrong scale": {"affine": MILLIMETRE, "pixdim": (2, 2, 10)},
    "qform alone": {"codes": (0, 1)},
    "both": {"codes": (1, 1)},
    "negative spacing": {"pixdim": (-2, 2, -10)},
    "neither": {"codes": (0, 0)},
}


@pytest.mark.parametrize("header", HEADERS)
def test_axes_and_spacing_of_a_header(header, tmp_path):
    how, neither = HEADERS[header], header == "neither"
    for labels_how in (how, how if neither else {}):
        files = image(LEVELS[heart()], **how), image(heart(), **labels_how)
        slices, notes = convert(tmp_path, *files)
        assert_plain(slices)
        noted = [note for note in notes if "does not say how it lies" in note.problem]
        assert len(noted) == 2 * neither


def test_where_no_form_has_a_code_millimetres_are_no_whole_numbers(tmp_path):
    how = {"affine": np.diag([-2.5, -2.5, 10, 1]), "codes": (0, 0), "axes": "LPS"}
    files = image(LEVELS[heart()], **how), image(heart(), **how)
    assert_plain(convert(tmp_path, *files, spacing=2.5)[0])


def test_a_form_of_other_millimetres_than_pixdim_is_named(tmp_path):
    both = [image(v, pixdim=(1, 1, 10)) for v in (LEVELS[heart()], heart())]
    assert "pixdim 1 x 1 x 10" in convert(tmp_path, *both)[1][0].problem


def scaled(values):
    """Stored three times as large, with a slope of a third in the header."""
    file = image(values * 3)
    file.header.set_slope_inter(1 / 3, 0)
    return file


def shifted(*by):
    affine = AFFINE.copy()
    affine[:3, 3] += by
    return affine


FIT = {
    "nearly whole": lambda m: image(m * np.float32(0.999)),
    "scaled": scaled,
    "two dimensions of one": lambda m: image(m[..., None, None]),
    "int64": lambda m: nibabel.Nifti1Image(m.astype(np.int64), AFFINE, dtype="int64"),
    "big-endian": lambda m: nibabel.Nifti1Image(m, AFFINE, nibabel.Nifti1Header(endianness=">")),
    "NIfTI-2": lambda m: nibabel.Nifti2Image(m, AFFINE),
    "a tenth of a voxel away": lambda m: image(m, shifted(0.2, 0, 0)),
}


@pytest.mark.parametrize("how", FIT.values(), ids=FIT)
def test_what_is_odd_and_right_is_read(how, tmp_path):
    assert_plain(convert(tmp_path, LEVELS[heart()][..., None], how(heart()))[0])


# --- what cannot be right ------------------------------------------------------------------------

SHEARED = AFFINE @ np.array([[1, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
RGB = np.dtype([(c, "u1") for c in "RGB"])
FOUR = np.stack([heart()] * 2, 3)
LABELS = {  # of a sound volume: what they are instead of m, and what is said
    "shifted by half a voxel": (lambda m: image(m, shifted(0, 1, 0)), "0.5 voxels away"),
    "flipped in the header": (lambda m: image(m, np.diag([2.0, -2, 10, 1])), "voxels away"),
    "of no scale": (lambda m: image(m, MILLIMETRE), "voxels away"),
    "lying nowhere": (lambda m: image(m, codes=(0, 0)), "only one of the two headers"),
    "of next to no spacing": (
        lambda m: image(m, pixdim=(1e-300, 2, 10), kind=nibabel.Nifti2Image),
        "voxels of 1e-300 x 2 x 10 mm",
    ),
    "beyond all numbers": (
        lambda m: image(m, shifted(1e308, 0, 0), AFFINE, kind=nibabel.Nifti2Image),
        "lies nowhere",
    ),
    "other slices": (lambda m: m[:, :, 1:], "is of shape"),
    "turned": (lambda m: m.swapaxes(0, 1), "is of shape"),
    "over time": (lambda m: FOUR, "is of shape"),
    "above 3": (lambda m: m + np.uint8(1), "other labels"),
    "negative": (lambda m: -m.astype(np.int16), "other labels"),
    "smoothed": (lambda m: m * np.float32(0.9), "other labels"),
    "no numbers": (lambda m: np.where(m == 3, np.nan, m), "no numbers"),
    "M&Ms' order": (lambda m: np.uint8(layouts.MNMS)[m], "not labelled RV 1, Myo 2, LV 3"),
    "another order": (lambda m: np.uint8([0, 2, 1, 3])[m], "not labelled"),
    "without myocardium": (lambda m: m * (m != 2), "not labelled"),
    "none": (lambda m: m * 0, "holds no labelled slice"),
}
VOLUMES = {  # of sound labels: what they are instead of v, and what is said
    "lying nowhere": (lambda v: image(v, codes=(0, 0)), "only one of the two headers"),
    "labels": (lambda v: heart(), "holds labels"),
    "blank": (lambda v: v * 0 + 7, "single grey level"),
    "contradicting": (
        lambda v: image(v, np.diag([2.0, -2, 10, 1]), AFFINE, (1, 1)),
        "contradict",
    ),
    "turned in one form": (lambda v: image(v, turned((0, 0, 20)), AFFINE, (1, 1)), "contradict"),
    "of flat voxels": (
        lambda v: image(v, np.diag([-2.0, -2, 0, 1]), AFFINE, (1, 1), (2, 2, 10)),
        "right angles",
    ),
    "sheared": (lambda v: image(v, SHEARED), "right angles"),
    "of no place": (lambda v: image(v, shifted(np.nan, 0, 0), AFFINE), "lies nowhere"),
    "without spacing": (lambda v: image(v, pixdim=(2, 2, 0)), "voxels of 2 x 2 x 0 mm"),
    "of no spacing": (lambda v: image(v, pixdim=(2, np.nan, 10)), "voxels of 2 x nan x 10 mm"),
    "of metres": (lambda v: image(v, pixdim=(2000, 2000, 10)), "voxels of 2000 x 2000 x 10 mm"),
    "of cubes": (lambda v: image(v, np.diag([-2.0, -2, 2, 1])), "no stack of short axes"),
    "a strip": (lambda v: v[:, 22:40], "no stack"),
    "a row of slices": (lambda v: image(v.repeat(10, 2), pixdim=(10, 2, 2)), "no stack"),
    "of five dimensions": (lambda v: v[..., None, None] + np.ones(2, "f"), "3 or 4 dimensions"),
    "of two dimensions": (lambda v: v[:, :, 0], "array of 64 x 60, expected 3 or 4 dimensions"),
    "infinite": (lambda v: np.where(heart() == 3, np.inf, v), "no numbers"),
    "of colours": (lambda v: np.zeros(v.shape, RGB), "not grey levels"),
    "complex": (lambda v: v.astype(np.complex64), "not grey levels"),
}
UNFIT = [
    pytest.param(kind, *case, id=f"{kind} {name}")
    for kind, table in (("labels", LABELS), ("volume", VOLUMES))
    for name, case in table.items()
]


@pytest.mark.parametrize(("kind", "change", "problem"), UNFIT)
def test_what_cannot_be_right_is_refused(kind, change, problem, tmp_path):
    of_labels = kind == "labels"
    message, _ = convert(
        tmp_path,
        None if of_labels else change(LEVELS[heart()]),
        change(heart()) if of_labels else None,
    )
    assert (
        isinstance(message, str) and re.search(problem, message) and len(message.splitlines()) == 1
    )


def of_no_type(content):
    """A header of a data type that nobody knows, which nibabel would print itself."""
    content = gzip.decompress(content)
    return content[:70] + struct.pack("<h", 999) + content[72:]


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda _: b"not a volume", "is not a readable NIfTI"),
        (lambda content: content[:-300], "is not a readable NIfTI"),
        (of_no_type, "is not a readable NIfTI.*data code 999"),
        (lambda content: content + gzip.compress(bytes(2**21)), "is over 1 MB unpacked"),
    ],
    ids=["text", "torn", "no type", "bomb"],
)
def test_a_file_that_cannot_be_read_is_named(harm, problem, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(nifti, "LARGEST", 1)
    pair(tmp_path / "p_frame01")
    path = tmp_path / "p_frame01.nii.gz"
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(BadInput, match=rf"p_frame01.*: {problem}"):
        nifti.read(layouts.find(tmp_path))
    assert caplog.records == []


@pytest.mark.parametrize("offset", [0, 351])
def test_voxels_that_would_begin_in_the_header_are_refused(offset, tmp_path):
    pair(tmp_path / "p_frame01", ending=".nii")
    path = tmp_path / "p_frame01.nii"
    content = path.read_bytes()
    path.write_bytes(content[:108] + struct.pack("<f", offset) + content[112:])
    with pytest.raises(BadInput, match=r"p_frame01.*: .*(vox_offset|vox offset 351 too low)"):
        nifti.read(layouts.find(tmp_path))
