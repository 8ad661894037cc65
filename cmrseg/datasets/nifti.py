"""NIfTI folders, such as those of ACDC or M&Ms, brought into :class:`cmrseg.data.Slices`.

Every short-axis slice of a volume becomes one picture: resampled to one spacing in the plane, cut
or filled about the middle to one size, grey levels to 8 bit. What lies between slices stays as it
is. Reading needs nibabel: ``pip install 'cmrseg[nifti]'``.
"""

import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from cmrseg.data import BadInput, Slices

ENDINGS = (".nii.gz", ".nii")
# Stored label -> ours (background, RV, Myo, LV): M&Ms counts the ventricles the other way round.
ACDC, MNMS = (0, 1, 2, 3), (0, 3, 2, 1)
NAMED = re.compile(r"(.+)_(?:frame\d+|sa)")  # as ACDC and M&Ms name a patient's volumes


def read(
    folder: Path,
    spacing: float = 1.8,
    size: int = 96,
    progress: Callable[[int], None] | None = None,
) -> Slices:
    """Every slice of the volumes in a folder and those below it.

    Two layouts are known by their names. ACDC (Bernard et al. 2018): ``patient001_frame01.nii.gz``,
    one volume for each moment, labels 1 RV, 2 myocardium, 3 LV; ``_4d`` files are left out. M&Ms
    (Campello et al. 2021): ``A0S9V9_sa.nii.gz``, volumes over time, labels 1 LV, 2 myocardium,
    3 RV, at two moments. A volume's labels lie beside it, with ``_gt`` before the ending. Where any
    volume has labels, only labelled slices are taken; else all.

    Args:
        folder: where they lie. A patient has a folder, and in it one beginning of names in either
            layout; where names are of neither layout the folder alone tells.
        spacing: millimetres of a pixel in the result.
        size: pixels of the result's sides. The heart should lie near the middle of the volume's
            plane.
        progress: called with 1 after each file.

    Returns:
        Slices with images uint8 (N, size, size), the 1st to 99th percentile of a volume stretched
        over 0..255, rows along the volume's second axis and columns along its first; patients
        numbered from 1 in the order of folders and names; names such as
        ``patient001_frame01_slice3``.

    Raises:
        BadInput: nibabel is not installed, no volume is found, one cannot be read or used, or
            nothing tells whose it is.
    """
    if not find_spec("nibabel"):
        raise BadInput(folder, "NIfTI files need nibabel", "pip install 'cmrseg[nifti]'")
    volumes = find(folder)
    labelled = any(labels for labels in volumes.values())
    owners = {path: _patient(path, folder) for path in volumes}
    number = {owner: n for n, owner in enumerate(sorted(set(owners.values())), start=1)}
    images, masks, names, patients = [], [], [], []
    for path, labels in volumes.items():
        for name, image, mask in _frames(path, labels, spacing, size, labelled):
            for z in range(image.shape[2]):
                if mask is None or mask[:, :, z].any():
                    images.append(image[:, :, z].T)
                    masks.append(None if mask is None else mask[:, :, z].T)
                    names.append(f"{name}_slice{z}")
                    patients.append(number[owners[path]])
        if progress is not None:
            progress(1)
    if not images:
        raise BadInput(folder, "holds no labelled slice", "Check the label files")
    labels = np.stack(masks) if labelled else None
    return Slices(np.stack(images), labels, tuple(names), np.array(patients, dtype=np.int64))


def find(folder: Path) -> dict[Path, Path | None]:
    """The volumes below a folder, with the files of their labels, or None.

    Raises:
        BadInput: no such folder, or no volume in it.
    """
    if not folder.is_dir():
        raise BadInput(folder, "no such folder", "Give the folder that holds the patients")
    paths = sorted(path for ending in ENDINGS for path in folder.rglob(f"*{ending}"))
    volumes = {path: _labels(path) for path in paths if not _stem(path).endswith(("_gt", "_4d"))}
    if not volumes:
        cure = "Give a folder with .nii.gz files of ACDC or M&Ms"
        raise BadInput(folder, "holds no NIfTI volume", cure)
    return volumes


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _labels(path: Path) -> Path | None:
    """The file of a volume's labels, which lies beside it."""
    paths = [path.with_name(f"{_stem(path)}_gt{ending}") for ending in ENDINGS]
    return next((path for path in paths if path.is_file()), None)


def _patient(path: Path, folder: Path) -> Path:
    """What a patient's volumes have in common: their folder and perhaps how their names begin."""
    named = NAMED.fullmatch(_stem(path))
    if not named and path.parent == folder:
        problem = "lies in no patient's folder, and its name does not tell whose it is"
        cure = "Give each patient a folder, or names such as patient001_frame01.nii.gz"
        raise BadInput(path, problem, cure)
    return path.with_name(named[1]) if named else path.parent


def _frames(
    path: Path, labels_path: Path | None, spacing: float, size: int, only_labelled: bool
) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Name, images uint8 and labels uint8 (size, size, slices) of each moment of a volume."""
    if labels_path is None and only_labelled:
        return
    grey, pixel = _load(path)
    factors = (*(side / spacing for side in pixel), 1)
    labels = None if labels_path is None else _read_labels(labels_path, path, grey.shape)
    for t in range(grey.shape[3]):
        mask = None if labels is None else labels[..., t]
        if mask is None or mask.any():
            name = f"{_stem(path)}_time{t}" if grey.shape[3] > 1 else _stem(path)
            image = _eight_bit(_resample(grey[..., t], factors, size))
            yield name, image, None if mask is None else _resample_labels(mask, factors, size)


def _read_labels(labels_path: Path, path: Path, shape: tuple) -> np.ndarray:
    """Labels uint8 (X, Y, Z, T) of a volume, in our order of classes."""
    labels, _ = _load(labels_path)
    if labels.shape != shape:
        problem = f"is of shape {labels.shape}, its volume of {shape}"
        raise BadInput(labels_path, problem, "Pair them anew")
    if not set(np.unique(labels)) <= {0, 1, 2, 3}:
        raise BadInput(labels_path, "holds other labels than 0 to 3", "Store whole numbers 0 to 3")
    order = MNMS if _stem(path).endswith("_sa") else ACDC
    return np.array(order, np.uint8)[labels.astype(np.uint8)]


def _load(path: Path) -> tuple[np.ndarray, tuple[float, float]]:
    """Values (X, Y, Z, T) of a file and the millimetres of its pixels in the plane."""
    import nibabel

    try:
        with (
            nibabel.imageglobals.LoggingOutputSuppressor()
        ):  # it mends a spacing of 0 silently: to 1
            file = nibabel.load(path)
            with nibabel.openers.ImageOpener(path) as stored:
                header = type(file.header).from_fileobj(stored, check=False)
        pixel = tuple(map(float, header["pixdim"][1:3]))
        values = np.asarray(file.dataobj)
    except (OSError, EOFError, ValueError, nibabel.filebasedimages.ImageFileError) as error:
        problem = f"is not a readable NIfTI file ({type(error).__name__})"
        raise BadInput(path, problem, "Copy or download it again") from None
    if unfit := _unfit(values, pixel):
        raise BadInput(path, *unfit)
    return values if values.ndim == 4 else values[..., None], pixel


def _unfit(values: np.ndarray, pixel: tuple[float, float]) -> tuple[str, str] | None:
    """Problem and cure of a file that can be read and holds no grey levels of slices."""
    if values.ndim not in (3, 4):
        problem = f"has {values.ndim} dimensions, expected 3 or 4"
        return problem, "Store slices along the third"
    if not all(np.isfinite(pixel)) or min(pixel) < 0.1 or max(pixel) > 20:
        problem = f"has pixels of {pixel[0]:g} x {pixel[1]:g} mm"
        return problem, "Set the spacing in its header, in millimetres"
    if values.dtype.kind not in "biuf":
        return "holds colours or complex numbers, not grey levels", "Export one channel"
    if not np.isfinite(values).all():
        return "holds values that are no numbers", "Export it again"
    return None


def _resample(values: np.ndarray, factors, size: int) -> np.ndarray:
    """Resample (X, Y, Z) by ``factors``; cut or fill it with its edge to (size, size, Z)."""
    resampled = zoom(values.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)
    for axis in (0, 1):
        beyond = size - resampled.shape[axis]
        if beyond > 0:
            widths = [(0, 0)] * 3
            widths[axis] = (beyond // 2, beyond - beyond // 2)
            resampled = np.pad(resampled, widths, mode="edge")
        start = (resampled.shape[axis] - size) // 2
        resampled = resampled.take(range(start, start + size), axis)
    return resampled


def _resample_labels(labels: np.ndarray, factors, size: int) -> np.ndarray:
    """Resample each class as a picture of its own; the strongest wins.

    This keeps edges better than the nearest label would.
    """
    classes = [_resample(labels == c, factors, size) for c in range(4)]
    return np.stack(classes).argmax(0).astype(np.uint8)


def _eight_bit(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    return np.rint(255 * ((values - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
