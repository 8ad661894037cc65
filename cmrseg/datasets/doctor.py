"""The doctor: all that is wrong with a folder of images and masks, before a network learns it.

One engine for ``python -m cmrseg doctor``, for the check before a training, and for a look at data
of one's own. *Errors* stop a training, *warnings* (:mod:`cmrseg.datasets.checks`) are worth a look.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cmrseg.data import SPLITS, BadInput, not_allowed
from cmrseg.datasets import known_patients
from cmrseg.datasets.checks import CHECKS, COARSEST, Folder, Picture
from cmrseg.datasets.folders import (
    misfits,
    no_folder,
    odd_sizes,
    other_size,
    read_slice,
    sort_pngs,
    unpaired,
)


def examine(folder: Path) -> tuple[list[BadInput], list[BadInput]]:
    """Examine a data root ``{train,val,test}/{image,mask}``, or one folder of images or masks.

    Returns:
        Errors in the order of splits and numbers, and warnings, check by check.
    """
    try:
        errors, healthy = _read(Path(folder))
        checks = CHECKS if healthy.places else ()
        return errors, [finding for check in checks for finding in check(healthy)]
    except PermissionError as problem:  # of a folder
        return [not_allowed(problem.filename)], []


def check(folder: Path) -> None:
    """Check a folder before a training run.

    Raises:
        BadInput: its first error, with the number of further ones.
    """
    errors, _ = _read(Path(folder))
    if not errors:
        return
    first, more = errors[0], len(errors) - 1
    if more:
        cure = f"{first.cure}; {more} more: run python -m cmrseg doctor {folder}"
        raise BadInput(first.file, first.problem, cure)
    raise first


def _read(folder: Path) -> tuple[list[BadInput], Folder]:
    """The errors of a folder, and what is healthy in it."""
    if not folder.is_dir():
        return [no_folder(folder, "Give a data root or a folder of slices")], Folder([], [], [])
    places = [folder / split for split in SPLITS if (folder / split).is_dir()]
    if not places:
        return _read_alone(folder)
    cure = "A data root holds train and val; test may be missing"
    needed = [folder / split for split in ("train", "val")]
    errors = [no_folder(place, cure) for place in needed if place not in places]
    images, masks = [], []
    for place in places:
        more, *pictures = _read_split(place)
        errors += more
        images += pictures[0]
        masks += pictures[1]
    errors = {str(error): error for error in [*errors, *_unfit_splits(images)]}  # each once
    return [*errors.values()], Folder([folder, *places], images, masks)


def _read_alone(folder: Path) -> tuple[list[BadInput], Folder]:
    """The errors of one folder of images or of masks, and what is healthy in it."""
    mask = any(folder.glob("*_mask.png"))
    paths, errors = sort_pngs(folder, mask)
    pixels = _read_healthy(paths, mask, errors)
    paths = {number: paths[number] for number in pixels}
    patients = paths if mask else _patients(paths, errors)
    pictures = [Picture(paths[n], pixels[n], p) for n, p in zip(paths, patients)]
    return errors, Folder([folder], *([], pictures) if mask else (pictures, []))


def _read_split(place: Path) -> tuple[list[BadInput], list[Picture], list[Picture]]:
    """The errors of one split, and its healthy images and masks, which come in pairs."""
    paths, errors = sort_pngs(place / "image")
    if place.name == "test":
        images = _read_healthy(paths, False, errors)
        patients = _patients({number: paths[number] for number in images}, errors)
        return errors, [Picture(paths[n], images[n], p) for n, p in zip(images, patients)], []
    mask_paths, more = sort_pngs(place / "mask", mask=True)
    errors += [*more, *unpaired(paths, mask_paths)]
    images = _read_healthy(paths, False, errors)
    masks = _read_healthy(mask_paths, True, errors)
    odd = misfits(mask_paths, images, masks)
    errors += odd.values()
    both = [number for number in images if number in masks and number not in odd]
    patients = _patients({number: paths[number] for number in both}, errors)
    return (
        errors,
        [Picture(paths[n], images[n], p) for n, p in zip(both, patients)],
        [Picture(mask_paths[n], masks[n], p) for n, p in zip(both, patients)],
    )


def _read_healthy(paths: dict[int, Path], mask: bool, errors: list) -> dict[int, np.ndarray]:
    """The pictures of one size that can be read, by number; ``errors`` takes the others."""
    pictures = {}
    for number, path in paths.items():
        try:
            pictures[number] = read_slice(path, mask)
        except BadInput as problem:
            errors.append(problem)
    odd = odd_sizes(paths, {number: picture.shape for number, picture in pictures.items()})
    errors += odd.values()
    return {number: picture for number, picture in pictures.items() if number not in odd}


def _patients(paths: dict[int, Path], errors: list) -> list[int]:
    """The patient of each file; ``errors`` takes what is wrong with patients.csv."""
    try:
        return known_patients(paths).tolist()
    except BadInput as problem:
        errors.append(problem)
        return [*paths]


def _unfit_splits(images: list[Picture]) -> Iterator[BadInput]:
    """Train and val slices of two sizes, and train slices too small for a network.

    Of the smallest, its coarsest layer would see a single point.
    """
    first = {path.parent.parent.name: (path, image) for path, image, _ in reversed(images)}
    if {"train", "val"} <= first.keys():
        (_, train), (path, val) = first["train"], first["val"]
        if val.shape != train.shape:
            yield other_size(path, val.shape, train.shape)
    if "train" in first and max(first["train"][1].shape) <= COARSEST:
        path, (height, width) = first["train"][0], first["train"][1].shape
        problem = f"is {width} x {height} pixels, too small to learn from"
        yield BadInput(path, problem, f"Take slices of more than {COARSEST} pixels a side")
