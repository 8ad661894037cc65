"""Made-up hearts in NIfTI files, with any header: what the tests of ``convert`` share."""

from itertools import permutations, product

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel")

AFFINE = np.diag([-2.0, -2, 10, 1])  # millimetres along L, P, S: as ACDC's files lie
LEVELS = np.array([60, 700, 200, 900], np.float32)  # grey levels of background, RV, Myo, LV
AXES = ["".join(signs) for order in permutations(("LR", "PA", "SI")) for signs in product(*order)]


def heart(shape=(64, 60, 3), middle=(0, 0), radius=12, angle=0.2):
    """Labels uint8 (X, Y, Z), no two slices alike; the RV at lower first indices than the LV."""
    x, y = np.meshgrid(*(np.arange(n) - n / 2 - m for n, m in zip(shape, middle)), indexing="ij")
    away = 1.27 * radius
    slices = []
    for larger in np.arange(shape[2]) * radius / 12:
        labels = np.zeros(shape[:2], np.uint8)
        labels[np.hypot(x + away * np.cos(angle), y - away * np.sin(angle)) < radius / 1.5] = 1
        labels[np.hypot(x, y) < radius + larger] = 2
        labels[np.hypot(x, y) < 0.6 * radius + larger] = 3
        slices.append(labels)
    return np.stack(slices, 2)


def image(
    values,
    affine=AFFINE,
    qform=None,
    codes=(2, 0),
    pixdim=None,
    axes=None,
    kind=nibabel.Nifti1Image,
):
    """A NIfTI image with these codes of sform and qform, perhaps stored along other axes."""
    file = kind(values, affine if axes else AFFINE)
    if axes:
        now = nibabel.io_orientation(affine)
        then = nibabel.orientations.axcodes2ornt(tuple(axes))
        file = file.as_reoriented(nibabel.orientations.ornt_transform(now, then))
        affine = file.affine.copy()
    file.set_qform(affine if qform is None else qform, codes[1])
    file.set_sform(affine, codes[0])
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    file.header["pixdim"][1:4] = sides if pixdim is None else pixdim
    return file


def save(path, values):
    """Write an image, or values with a plain header; and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image(values) if isinstance(values, np.ndarray) else values, path)


def pair(stem, grey=None, labels=None, ending=".nii.gz"):
    """A volume and its labels ``_gt``: a plain heart, or as given."""
    save(stem.with_name(stem.name + ending), LEVELS[heart()] if grey is None else grey)
    save(stem.with_name(f"{stem.name}_gt{ending}"), heart() if labels is None else labels)


def acdc(folder, patients):
    """So many patients in ACDC's layout, one labelled moment each."""
    for n in range(1, patients + 1):
        pair(folder / f"patient{n:03}" / f"patient{n:03}_frame01")
    return folder
