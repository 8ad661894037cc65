"""NIfTI folders, such as those of ACDC or M&Ms, brought into :class:`cmrseg.data.Slices`.

Every short-axis slice of a volume becomes one picture: resampled to one spacing in the plane, cut
or filled about the middle to one size, grey levels to 8 bit. What lies between slices stays as it
is. What files are read, see :mod:`cmrseg.datasets.layouts`.

**What is assumed of a header.** Its axes tell where left (L), posterior (P) and superior (S) are,
to the nearest axis where a volume is oblique. They come from the sform if it has a code, else from
the qform; the two may not contradict each other. Millimetres are ``pixdim``'s, also where the sform
has others; a warning says so, unless it has none (sides of 1, as ACDC's). Slices lie along the axis
of the widest spacing, which must be wider than the others by half. Volumes are brought to ACDC's
axes: rows of a slice run to the left, columns to the back (down, where slices stand upright),
slices upwards; a heart has its RV above its LV then. Where neither form has a code, a volume is
taken to be stored so, with a warning.

Reading needs nibabel: ``pip install 'cmrseg[nifti]'``.
"""

import gzip
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, product
from pathlib import Path

import nibabel
import numpy as np
from nibabel import affines, orientations
from nibabel.orientations import apply_orientation
from scipy.ndimage import binary_dilation, zoom

from cmrseg.data import CLASSES, FOLDS, BadInput, Slices, not_allowed
from cmrseg.datasets.layouts import Cohort, Volume

LARGEST = 1024  # megabytes of a file, unpacked: ten times a long series of large slices
CURE = "Compare its header with what it holds, or export it again"
# Of a header that does not say: ACDC's axes, so far away that it fits no header that does. Floats:
# whole numbers would cut off the fractions of the millimetres that go into a copy of it.
UNTOLD = affines.from_matvec(np.diag([-1.0, -1, 1]), [1e6] * 3)


def read(
    cohort: Cohort, spacing: float = 1.8, size: int = 96, progress: Callable = iter
) -> dict[str, Slices]:
    """Every slice of the volumes that :func:`cmrseg.datasets.layouts.find` has found.

    Of patients with labels, labelled slices are taken: of every fifth into ``"val"``, or of the
    last of two to four; of the others into ``"train"``. Of patients without labels, all slices are
    taken into ``"test"``. ``cohort.left_out`` and ``cohort.notes`` grow by what is not taken, and
    by what is odd.

    Args:
        cohort: the volumes.
        spacing: millimetres of a pixel in the result.
        size: pixels of the result's sides. The heart should lie near the middle of the volume's
            plane; where labels are cut off, a note says so.
        progress: what the volumes are taken from, such as ``tqdm.tqdm``.

    Returns:
        The splits that are not empty. Images are uint8 (N, size, size), the 1st to 99th percentile
        of a volume stretched over 0..255, rows to the left and columns to the back; patients are
        numbered from 1 in the order of their names; names are such as
        ``patient001_frame01_slice3``.

    Raises:
        BadInput: a file cannot be read or used, labels do not lie on their volume's grid or are
            not in the order of their layout, or no label is in any.
    """
    slices: dict[str, list[tuple]] = {}
    for volume in progress(cohort.volumes):
        slices.setdefault(volume.patient, []).extend(_slices(volume, spacing, size, cohort))
    labelled = sorted({v.patient for v in cohort.volumes if v.labels and slices[v.patient]})
    if not labelled and any(volume.labels for volume in cohort.volumes):
        problem = f"holds no labelled slice, or none within {size} pixels of {spacing:g} mm"
        raise BadInput(cohort.folder, problem, "Check the label files and --size")
    held_out = labelled[FOLDS - 1 :: FOLDS] or labelled[1:][-1:]
    if labelled and not held_out:
        problem = f"only patient {labelled[0]} has labels: nobody is held out, there is no val"
        cohort.notes.append(BadInput(cohort.folder, problem, "Add patients to train on them"))
    parts: dict[str, list[tuple]] = {"train": [], "val": [], "test": []}
    for n, patient in enumerate(cohort.patients, start=1):
        split = "val" if patient in held_out else "train" if patient in labelled else "test"
        parts[split] += ((*one, n) for one in slices.get(patient, ()))
    splits = {}
    for split, part in parts.items():
        if part:
            images, masks, names, numbers = zip(*part)
            masks = None if split == "test" else np.stack(masks)
            splits[split] = Slices(np.stack(images), masks, names, np.array(numbers, np.int64))
    return splits


def _slices(
    volume: Volume, spacing: float, size: int, cohort: Cohort
) -> Iterator[tuple[np.ndarray, np.ndarray | None, str]]:
    """Image uint8 (size, size), label map or None, and name of each slice that is taken."""
    grey, affine = _load(volume.path, cohort.notes)
    if grey.min() == grey.max() or _are_labels(grey):
        raise BadInput(volume.path, "holds labels or a single grey level, no picture", CURE)
    orientation, pixel = _to_acdc(volume.path, affine, grey.shape)
    labels = volume.labels and _read_labels(volume, affine, grey.shape, cohort.notes)
    factors = (pixel[0] / spacing, pixel[1] / spacing, 1)
    for t in range(grey.shape[3]):
        mask = None
        if labels is not None:
            if not labels[..., t].any():
                cohort.left_out["moments without labels"] += 1
                continue
            turned = apply_orientation(labels[..., t], orientation)
            _check_anatomy(volume, turned, cohort.notes)
            mask = _cropped_labels(volume, turned, factors, size, cohort.notes)
        turned = apply_orientation(grey[..., t], orientation)
        image = _eight_bit(_crop(_resample(turned, factors), size))
        name = f"{volume.name}_time{t}" if grey.shape[3] > 1 else volume.name
        for z in range(image.shape[2]):
            part = None if mask is None else mask[:, :, z]
            if part is None or part.any():
                yield image[:, :, z], part, f"{name}_slice{z}"
            else:
                cohort.left_out["slices without labels"] += 1


# --- files ---------------------------------------------------------------------------------------


def _load(path: Path, notes: list[BadInput]) -> tuple[np.ndarray, np.ndarray]:
    """Values (X, Y, Z, T) of a file as stored, and its affine (4, 4): to millimetres R, A, S."""
    logger = nibabel.imageglobals.logger
    was_disabled, logger.disabled = logger.disabled, True  # it prints what we raise
    try:
        content = _content(path)
        second = 540 in (int.from_bytes(content[:4], order) for order in ("little", "big"))
        with np.errstate(all="ignore"):
            file = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(content)
            header = file.header
            raw = type(header)(content[: header.sizeof_hdr], check=False)
            values = np.asarray(file.dataobj)
            forms = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except (BadInput, MemoryError):
        raise
    except PermissionError:
        raise not_allowed(path) from None
    except Exception as error:  # nibabel and what unpacks for it raise a dozen kinds
        problem = f"is not a readable NIfTI file ({type(error).__name__}: {error})"
        raise BadInput(path, problem, "Copy or download it again") from None
    finally:
        logger.disabled = was_disabled
    if file.dataobj.offset < header.single_vox_offset:
        raise BadInput(path, "has its voxels inside its header, by its vox_offset", CURE)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    pixdim = raw["pixdim"][1:4]  # of which nibabel would make 1 where it is 0
    if unfit := _unfit(values, pixdim):
        raise BadInput(path, *unfit)
    coded = [form for form in forms if form is not None]
    if not coded:
        problem = "does not say how it lies: neither its qform nor its sform has a code"
        notes.append(BadInput(path, problem, "Taken to lie as ACDC's do: look at its slices"))
    affine = _affine(path, coded or [UNTOLD], np.abs(pixdim), notes)
    return values if values.ndim == 4 else values[..., None], affine


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked; nibabel itself would ask the name whether they are packed.

    Raises:
        BadInput: far more than a volume has; a small file may unpack to any size.
    """
    with path.open("rb") as file:
        packed = file.peek(2).startswith(b"\x1f\x8b")
        stream = gzip.GzipFile(fileobj=file) if packed else file
        megabytes = iter(partial(stream.read, 2**20), b"")
        content = b"".join(islice(megabytes, LARGEST + 1))
    if len(content) > LARGEST << 20:
        raise BadInput(path, f"is over {LARGEST} MB unpacked", "Split it, or crop it to the heart")
    return content


def _unfit(values: np.ndarray, pixdim: np.ndarray) -> tuple[str, str] | None:
    """Problem and cure of a file that can be read and holds no grey levels of slices."""
    if values.ndim not in (3, 4) or not values.size:
        problem = f"is an array of {_times(values.shape)}, expected 3 or 4 dimensions"
        return problem, "Store slices along the third, moments along the fourth"
    if values.dtype.kind not in "biuf":
        return "holds colours or complex numbers, not grey levels", "Export one channel"
    if not all(1e-6 < abs(side) < 1e6 for side in pixdim):
        return f"has voxels of {_times(pixdim)} mm", "Set pixdim in its header, in millimetres"
    if not -1e30 < values.min() <= values.max() < 1e30:
        return "holds values that are no numbers", "Export it again"
    return None


def _affine(
    path: Path, forms: list[np.ndarray], pixdim: np.ndarray, notes: list[BadInput]
) -> np.ndarray:
    """The affine of a header's forms, the sform first, with the spacing of ``pixdim``."""
    sides = [np.linalg.norm(form[:3, :3], axis=0) for form in forms]
    with np.errstate(all="ignore"):
        axes = [form[:3, :3] / side for form, side in zip(forms, sides)]
        straight = np.abs(np.linalg.det(axes)) > 0.99  # 1 at right angles, and not for NaN
    if not straight.all():
        raise BadInput(path, "has axes that are not at right angles", CURE)
    if not (np.abs(forms) < 1e7).all():  # so far away that numbers overflow
        raise BadInput(path, "lies nowhere, by its header", CURE)
    if np.abs(axes[0] - axes[-1]).max() > 0.1:
        problem = "has a qform and an sform that contradict each other"
        raise BadInput(path, problem, "Set the code of the wrong one to 0")
    for side in sides:
        if not np.allclose(side, 1) and not np.allclose(side, pixdim, rtol=0.05):
            problem = f"has pixdim {_times(pixdim)} mm, and a form of {_times(side)} mm"
            cure = "pixdim is taken: see that hearts have the right size"
            notes.append(BadInput(path, problem, cure))
    best = 0 if np.allclose(sides[0], pixdim, rtol=0.01) else -1  # its origin is of no use either
    affine = forms[best].copy()
    affine[:3, :3] = axes[best] * pixdim
    return affine


def _to_acdc(path: Path, affine: np.ndarray, shape: tuple) -> tuple[np.ndarray, np.ndarray]:
    """How nibabel turns an array to ACDC's axes, and the millimetres of its voxels then."""
    sides, lies = affines.voxel_sizes(affine), orientations.io_orientation(affine)
    *plane, thick = sides.argsort()
    width = (sides * shape[:3])[plane]
    if (
        sides[thick] < 1.5 * sides[plane].max()
        or not 40 < width.min() <= width.max() < 1000
        or sides[thick] * shape[thick] > 500
    ):
        problem = f"has {_times(shape[:3])} voxels of {_times(sides)} mm: no stack of short axes"
        raise BadInput(path, problem, "Set pixdim in its header, in millimetres")
    upright = lies[thick, 0] != 2  # where slices stand, their columns run down
    axes = orientations.axcodes2ornt("LPI" if upright else "LPS")
    orientation = orientations.ornt_transform(lies, axes)
    orientation[thick, 0] = 3  # behind the other two
    orientation[:, 0] = orientation[:, 0].argsort().argsort()
    return orientation, sides[orientation[:, 0].argsort()]


def _times(numbers) -> str:
    return " x ".join(f"{number:g}" for number in numbers)


# --- labels --------------------------------------------------------------------------------------


def _read_labels(
    volume: Volume, affine: np.ndarray, shape: tuple, notes: list[BadInput]
) -> np.ndarray:
    """Labels uint8 (X, Y, Z, T) on the grid of their volume, in our order of classes."""
    labels, own = _load(volume.labels, notes)
    step = np.linalg.inv(affine) @ own  # from their voxels to the volume's
    orientation = orientations.io_orientation(step)
    step = step @ orientations.inv_ornt_aff(orientation, labels.shape[:3])
    labels = apply_orientation(labels, orientation)
    if labels.shape != shape:
        problem = f"is of shape {_times(labels.shape)}, its volume of {_times(shape)}"
        raise BadInput(volume.labels, problem, "Pair them anew")
    corners = np.array([*product(*((0, side - 1) for side in shape[:3]))])
    if (apart := np.abs(affines.apply_affine(step, corners) - corners).max()) > 0.25:
        told = f"{apart:.3g} voxels away from its volume, by their headers"
        problem = "lies " + (told if apart < 1e4 else "where only one of the two headers says")
        raise BadInput(volume.labels, problem, "Resample it onto the volume's grid, or mend them")
    if not _are_labels(labels):
        raise BadInput(
            volume.labels, "holds other labels than 0 to 3", "Store whole numbers 0 to 3"
        )
    if not np.rint(labels).any():
        notes.append(BadInput(volume.labels, "is left out: it holds no label", CURE))
    return np.array(volume.order, np.uint8)[np.rint(labels).astype(np.uint8)]


def _are_labels(values: np.ndarray) -> bool:
    """Whether all values are 0 to 3, nearly: the header may scale them."""
    if values.min() < -0.01 or values.max() > 3.01:
        return False
    return bool((np.abs(values - np.rint(values)) <= 0.01).all())


def _check_anatomy(volume: Volume, labels: np.ndarray, notes: list[BadInput]) -> None:
    """See that the myocardium encloses the LV (labels (X, Y, Z)), and the RV is there, above it.

    Of the LV's border more than 0.97 touches the myocardium in each real slice, of the RV's less
    than 0.47.
    """
    if missing := [CLASSES[c] for c in (1, 2, 3) if not (labels == c).any()]:
        notes.append(BadInput(volume.labels, f"holds no {' and no '.join(missing)}", CURE))
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[:, :, None]
    enclosed, centre = {1: 0.0, 3: 1.0}, {}
    for c in (1, 3):
        inside = labels == c
        border = binary_dilation(inside, cross) & ~inside
        if border.any():
            enclosed[c] = (labels[border] == 2).mean()
            centre[c] = np.array(np.nonzero(inside)).mean(1)
    if enclosed[3] < 0.5 or enclosed[1] > 0.5:
        stored = [volume.order.index(c) for c in (1, 2, 3)]
        problem = "is not labelled RV {}, Myo {}, LV {}: Myo must enclose LV and not RV"
        cure = "Number the labels so, or name the files as in the layout whose order they have"
        raise BadInput(volume.labels, problem.format(*stored), cure)
    if len(centre) == 2:
        down, right, _ = centre[1] - centre[3]
        if down > -abs(right) / 4:
            notes.append(BadInput(volume.path, "has its RV not above its LV", CURE))


# --- pixels --------------------------------------------------------------------------------------


def _resample(values: np.ndarray, factors) -> np.ndarray:
    return zoom(values.astype(np.float32), factors, order=1, mode="nearest", grid_mode=True)


def _crop(values: np.ndarray, size: int, mode: str = "edge") -> np.ndarray:
    """Cut (X, Y, Z), or fill it with its edge, to (size, size, Z) about the middle."""
    for axis in (0, 1):
        beyond = size - values.shape[axis]
        if beyond > 0:
            widths = [(0, 0)] * 3
            widths[axis] = (beyond // 2, beyond - beyond // 2)
            values = np.pad(values, widths, mode=mode)
        start = (values.shape[axis] - size) // 2
        values = values.take(range(start, start + size), axis)
    return values


def _cropped_labels(
    volume: Volume, labels: np.ndarray, factors, size: int, notes: list[BadInput]
) -> np.ndarray:
    """Labels (X, Y, Z) resampled, each class as a picture of its own, and cropped.

    The strongest class wins. This keeps edges better than the nearest label would.
    """
    whole = np.stack([_resample(labels == c, factors) for c in range(4)]).argmax(0).astype(np.uint8)
    mask = _crop(whole, size, mode="constant")  # no label where no voxel was
    if lost := np.count_nonzero(whole) - np.count_nonzero(mask):
        problem = f"has {lost} of {np.count_nonzero(whole)} labelled pixels outside, cut off"
        notes.append(BadInput(volume.path, problem, "Give a larger --size or --spacing"))
    if whole.any((0, 1)).sum() < labels.any((0, 1)).sum():
        problem = "has slices whose labels vanish between the pixels"
        notes.append(BadInput(volume.path, problem, "Give a smaller --spacing"))
    return mask


def _eight_bit(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    return np.rint(255 * ((values - low) / max(high - low, 1e-6)).clip(0, 1)).astype(np.uint8)
