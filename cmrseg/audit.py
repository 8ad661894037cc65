"""What is wrong with a folder of images and masks, before a network learns it.

One engine for ``python -m cmrseg doctor``, for the check before a training, and for a look at data
of one's own. *Errors* stop a training, *warnings* are worth a look. Every finding names a
file, says what is wrong with it and what cures it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.ndimage import label

from cmrseg.data import (
    CLASSES, SPLITS, BadInput, Slices, list_pngs, other_size, read_images, read_pngs, read_split,
)

SAME_PICTURE = 0.97  # correlation above which slices of two patients are called near-duplicates
COARSEST = 16  # sizes that this does not divide are padded before they enter a network


def audit(folder: Path) -> tuple[list[BadInput], list[BadInput]]:
    """Examine a data root ``{train,val,test}/{image,mask}``, or one folder of images or masks.

    Returns:
        Errors and warnings, each in the order of splits and numbers.
    """
    folder, errors, warnings = Path(folder), [], []
    if not folder.is_dir():
        return [BadInput(folder, "no such folder", "Give a data root or a folder of slices")], []
    splits = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    if splits:
        errors += [BadInput(folder / split, "no such folder", "A data root holds train and val; test may be "
                            "missing") for split in ("train", "val") if split not in splits]
        found = {place: read_split(folder, split, errors.append) for split, place in splits.items()}
    elif any(folder.glob("*_mask.png")):
        paths = list_pngs(folder, True, errors.append)
        for number, mask in read_pngs(paths, True, errors.append).items():
            warnings += _labels(paths[number], mask)
        found = {}
    else:
        found = {folder: read_images(folder, errors.append)}
    errors += _sizes(found)
    for place in (folder, *splits.values()):
        warnings += _foreign_files(place)
    for place, slices in found.items():
        warnings += _content(place, slices)
    return errors, warnings + list(_lookalikes(found))


def check(folder: Path) -> None:
    """Raise the first error of a folder, with a word on how many more there are."""
    errors, _ = audit(folder)
    if errors:
        first, more = errors[0], len(errors) - 1
        if more:
            first = BadInput(first.file, first.problem, f"{first.cure}; {more} more: run "
                             f"python -m cmrseg doctor {folder}")
        raise first


def _foreign_files(folder: Path) -> Iterator[BadInput]:
    for place in (folder, folder / "image", folder / "mask"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if path.suffix.lower() in (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".dcm", ".nii"):
                yield BadInput(path, "is not a PNG and is ignored", "Convert it to 8-bit grey PNG")


def _path(place: Path, name: str) -> Path:
    return (place / "image" if (place / "image").is_dir() else place) / f"{name}.png"


def _sizes(found: dict[Path, Slices]) -> Iterator[BadInput]:
    """Train and val slices of two sizes."""
    labelled = [(place, s) for place, s in found.items() if s.masks is not None and len(s)]
    for place, s in labelled[1:]:
        if s.images.shape[1:] != labelled[0][1].images.shape[1:]:
            yield other_size(_path(place, s.names[0]), s.images.shape[1:], labelled[0][1].images.shape[1:])


def _content(place: Path, slices: Slices) -> Iterator[BadInput]:
    for i, name in enumerate(slices.names):
        image = slices.images[i]
        path = _path(place, name)
        if image.min() == image.max():
            yield BadInput(path, f"is blank: every pixel is {image.min()}", "Look at the original")
        if i == 0 and any(side % COARSEST for side in image.shape):
            yield BadInput(path, f"has sides that {COARSEST} does not divide: padded in use",
                           "Nothing to do, or crop all slices to such a size")
        if slices.masks is not None:
            yield from _labels(place / "mask" / f"{name}_mask.png", slices.masks[i])


def _labels(path: Path, mask: np.ndarray) -> Iterator[BadInput]:
    if not mask.any():
        yield BadInput(path, "is empty: background only", "Check that it is the right mask")
        return
    for c in (1, 2, 3):
        if not (mask == c).any():
            yield BadInput(path, f"has no {CLASSES[c]} pixel", "Right for some slices: Dice leaves "
                           "the class out when it is not predicted either")
        elif (count := label(mask == c, np.ones((3, 3)))[1]) > 1:
            yield BadInput(path, f"has {CLASSES[c]} in {count} pieces", "Look for stray pixels")


def _lookalikes(found: dict[Path, Slices]) -> Iterator[BadInput]:
    """Pictures of different patients, or splits, that are all but the same: leakage, if in two."""
    found = {place: s for place, s in found.items() if len(s)}
    if not found or len({s.images.shape[1:] for s in found.values()}) > 1:
        return
    places = np.repeat(np.arange(len(found)), [len(s) for s in found.values()])
    paths = [_path(place, name) for place, s in found.items() for name in s.names]
    patients = np.concatenate([s.patients for s in found.values()])
    flat = np.concatenate([s.images.reshape(len(s), -1) for s in found.values()]).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6
    alike = np.triu(flat @ flat.T > SAME_PICTURE, 1)
    apart = (patients[:, None] != patients) | (places[:, None] != places)
    for i, j in np.argwhere(alike & apart):
        yield BadInput(paths[j], f"looks the same as {paths[i]}",
                       "One slice twice? Keep both on one side of every split")
