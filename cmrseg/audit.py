"""What is wrong with a folder of images and masks, before a network learns it.

One engine for ``python -m cmrseg doctor``, for the check before a training, and for a look at data
of one's own. *Errors* stop a training, *warnings* are worth a look. Every finding names a
file, says what is wrong with it and what cures it. A check is a function from :class:`Folder` to
findings; :data:`CHECKS` lists those that warn.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation, binary_fill_holes, label

from cmrseg.data import (
    CLASSES, SPLITS, TABLE, BadInput, Slices, list_pngs, no_folder, not_allowed, other_size, read_images, read_pngs,
    read_split,
)
from cmrseg.likeness import copy_limit, likeness, negatives

COARSEST = 16  # sizes that this does not divide are padded before they enter a network
FAR = 3.5  # robust deviations from the median at which an outlier begins (Iglewicz and Hoaglin 1993)
FLAT = 32  # grey levels, of 256: a picture with fewer between darkest and brightest was squeezed
FEW = 8  # grey levels: an image of fewer is none
ENOUGH = 20  # values below which nobody can tell an outlier
NEIGHBOURS = np.ones((3, 3))  # pixels that touch at a corner are together


class Picture(NamedTuple):
    """An image or a mask: its file, uint8 (H, W) pixels and patient."""

    path: Path
    pixels: np.ndarray
    patient: int


class Folder(NamedTuple):
    """What could be read of a folder: its places (itself and its splits), images and masks."""

    places: list[Path]
    images: list[Picture]
    masks: list[Picture]


def audit(folder: Path) -> tuple[list[BadInput], list[BadInput]]:
    """Examine a data root ``{train,val,test}/{image,mask}``, or one folder of images or masks.

    Returns:
        Errors in the order of splits and numbers, and warnings, check by check.
    """
    try:
        errors, found = _read(Path(folder))
        return errors, [finding for check in CHECKS if found.places for finding in check(found)]
    except PermissionError as problem:  # of a folder
        return [not_allowed(problem.filename)], []


def check(folder: Path) -> None:
    """Raise the first error of a folder, with a word on how many more there are."""
    errors, _ = _read(Path(folder))
    if errors:
        first, more = errors[0], len(errors) - 1
        if more:
            first = BadInput(first.file, first.problem, f"{first.cure}; {more} more: run "
                             f"python -m cmrseg doctor {folder}")
        raise first


def _read(folder: Path) -> tuple[list[BadInput], Folder]:
    """The errors of a folder, and what is healthy in it."""
    errors: list[BadInput] = []
    if not folder.is_dir():
        errors.append(no_folder(folder, "Give a data root or a folder of slices"))
        return errors, Folder([], [], [])
    places = [folder / split for split in SPLITS if (folder / split).is_dir()]
    images, masks = [], []
    if places:
        errors += [no_folder(folder / split, "A data root holds train and val; test may be missing")
                   for split in ("train", "val") if folder / split not in places]
        found = {place: read_split(folder, place.name, errors.append) for place in places}
        for place, s in found.items():
            images += _pictures(place / "image", "{}.png", s, s.images)
            masks += _pictures(place / "mask", "{}_mask.png", s, s.masks if s.masks is not None else ())
        errors += [*_two_sizes(found), *_too_small(found)]
    elif any(folder.glob("*_mask.png")):
        paths = list_pngs(folder, True, errors.append)
        masks = [Picture(paths[n], mask, n) for n, mask in read_pngs(paths, True, errors.append).items()]
    else:
        s = read_images(folder, errors.append)
        images = _pictures(folder, "{}.png", s, s.images)
    return errors, Folder([folder, *places], images, masks)


def _pictures(folder: Path, name: str, s: Slices, pixels) -> list[Picture]:
    return [Picture(folder / name.format(s.names[i]), p, int(s.patients[i])) for i, p in enumerate(pixels)]


def _two_sizes(found: dict[Path, Slices]) -> Iterator[BadInput]:
    """Train and val slices of two sizes: the one error that no single split shows."""
    labelled = [(place, s) for place, s in found.items() if s.masks is not None and len(s)]
    for place, s in labelled[1:]:
        if s.images.shape[1:] != labelled[0][1].images.shape[1:]:
            path = place / "image" / f"{s.names[0]}.png"
            yield other_size(path, s.images.shape[1:], labelled[0][1].images.shape[1:])


def _too_small(found: dict[Path, Slices]) -> Iterator[BadInput]:
    """Slices to train on of which the coarsest layer of a network would see a single point."""
    for place, s in found.items():
        height, width = s.images.shape[1:]
        if place.name == "train" and len(s) and max(height, width) <= COARSEST:
            yield BadInput(place / "image" / f"{s.names[0]}.png", f"is {width} x {height} pixels, too small to "
                           f"learn from", f"Take slices of more than {COARSEST} pixels a side")


# --- files and grey levels -----------------------------------------------------------------------


def foreign_files(found: Folder) -> Iterator[BadInput]:
    """Whatever lies in the folder and is ignored, but for hidden files, texts and tables."""
    root, *splits = found.places
    for folder in _folders(found):
        inner = SPLITS if splits and folder == root else ("image", "mask") if folder in splits else ()
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or (path.is_dir() and path.name in inner):
                continue
            if path.name.lower() == "patients.csv" != path.name:
                yield BadInput(path, "is ignored: names count capitals", "Rename it to patients.csv")
            elif inner and not NOTES.fullmatch(path.name):
                yield BadInput(path, f"is ignored: {', '.join(inner)} are read here", "Rename it, or move it away")
            elif path.is_dir():
                yield BadInput(path, "is a folder in a folder of slices and is ignored", "Move it away")
            elif path.suffix.lower() != ".png" and not NOTES.fullmatch(path.name):
                yield BadInput(path, "is not a PNG and is ignored", "Save it as 8-bit grey PNG, or move it away")
    if (root / "test" / "mask").is_dir():
        yield BadInput(root / "test" / "mask", "is ignored: the test split is predicted, not scored",
                       "Score predictions against it with evaluate")


NOTES = re.compile(r"readme.*|licen[cs]e.*|.*\.(txt|md|csv)", re.IGNORECASE)  # welcome beside slices


def _folders(found: Folder) -> list[Path]:
    """Where slices are read, and the folders above them."""
    inner = [place / kind for place in found.places for kind in ("image", "mask")]
    return found.places + [folder for folder in inner if folder.is_dir()]


def outer_links(found: Folder) -> Iterator[BadInput]:
    """Links that lead out of the folder."""
    root, folders = found.places[0].resolve(), _folders(found)
    tables = [folder / TABLE for folder in folders]
    for path in [*folders[1:], *tables, *(p.path for p in found.images + found.masks)]:
        if path.is_symlink() and root not in (there := path.resolve()).parents:
            yield BadInput(path, f"is a link out of the folder, to {there}",
                           "Copy what it points to: the link breaks when the folder moves")


def size_of_test(found: Folder) -> Iterator[BadInput]:
    """Test slices of quite another size than those to learn from."""
    size = {path.parent.parent.name: image.shape for path, image, _ in reversed(found.images)}
    if {"train", "test"} <= {*size} and not all(0.8 < a / b < 1.25 for a, b in zip(size["test"], size["train"])):
        path = next(path for path, *_ in found.images if path.parent.parent.name == "test")
        yield BadInput(path, f"is {size['test'][1]} x {size['test'][0]} pixels, those to learn from "
                       f"{size['train'][1]} x {size['train'][0]}", "Resample to the same size of a pixel, or crop: "
                       "a network knows hearts of the size it has seen")


def shared_patients(found: Folder) -> Iterator[BadInput]:
    """Patients in two splits, by their table or (without one) by their number."""
    first: dict[int, Path] = {}
    for path, _, patient in found.images:
        other = first.setdefault(patient, path)
        if other.parent != path.parent:
            yield BadInput(path, f"is of patient {patient}, as is {other}", "Keep a patient on one side of "
                           "every split; patients.csv says who is who, without it each number is a patient")


def inverted_images(found: Folder) -> Iterator[BadInput]:
    """Images whose cavity is darker than its wall, or that look like the negative of the others."""
    images, seen = {path: image for path, image, _ in found.images}, {}
    for path, mask, _ in found.masks:
        its = path.parent.parent / "image" / path.name.replace("_mask", "")
        if its in images and (mask == 2).any() and _around(mask, 3)[2] > 0.5:
            seen[its] = bool(images[its][mask == 3].mean() < images[its][mask == 2].mean())
    if len(images) >= ENOUGH:
        for i in negatives([image for _, image, _ in found.images]):
            seen.setdefault(found.images[i].path, True)
    yield from _each_or_all(seen, "dark where blood should be bright: inverted", "Invert the grey levels, if "
                            "it is cine MR; else see that all slices are of one kind")


def _each_or_all(seen: dict[Path, bool], problem: str, cure: str) -> Iterator[BadInput]:
    """A finding for each file, or one for a folder most of whose files have it."""
    for folder in dict.fromkeys(path.parent for path in seen):
        here = [path for path in seen if path.parent == folder]
        bad = [path for path in here if seen[path]]
        if len(bad) > 3 and len(bad) > len(here) / 2:
            yield BadInput(folder, f"{len(bad)} of {len(here)} files are {problem}", cure)
        else:
            yield from (BadInput(path, f"is {problem}", cure) for path in bad)


def blank_images(found: Folder) -> Iterator[BadInput]:
    """Images of a single grey level."""
    for path, image, _ in found.images:
        if image.min() == image.max():
            yield BadInput(path, f"is blank: every pixel is {image.min()}", "Look at the original")


def flat_images(found: Folder) -> Iterator[BadInput]:
    """Images of few grey levels, as a picture of another unit has that was stored unstretched."""
    spread = {path: int(image.max()) - int(image.min()) for path, image, _ in found.images}
    yield from _each_or_all({path: 0 < levels < FLAT for path, levels in spread.items()},
                            f"flat: less than {FLAT} grey levels from darkest to brightest",
                            "Stretch the grey levels to 0-255")


def few_grey_levels(found: Folder) -> Iterator[BadInput]:
    """Images of a handful of grey levels: a mask that was coloured to be seen, or a picture cut at a threshold."""
    for path, image, _ in found.images:
        if 1 < (levels := len(np.unique(image))) < FEW and np.ptp(image) >= FLAT:
            yield BadInput(path, f"has {levels} grey levels: a mask, or cut at a threshold", "Look at the original")


def same_images(found: Folder) -> Iterator[BadInput]:
    """Images that are another one's pixels: as they lie, within a patient and split (near-duplicates are those
    of others), turned or mirrored."""
    first: dict[bytes, tuple[Path, int]] = {}
    for path, image, patient in found.images:
        if image.min() == image.max():
            continue
        for mirrored, quarter in product((False, True), range(4)):
            view = np.rot90(image[:, ::-1] if mirrored else image, quarter)
            other, its = first.get(_digest(view), (path, patient))
            if other != path and (mirrored or quarter or (other.parent, its) == (path.parent, patient)):
                how = ", mirrored" if mirrored else ", turned" if quarter else ""
                yield BadInput(path, f"is the same image as {other}{how}", "Keep one of them")
                break
        first.setdefault(_digest(image), (path, patient))


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def padded_images(found: Folder) -> Iterator[BadInput]:
    """The first image of each place with sides that are padded in use."""
    said = set()
    for path, image, _ in found.images:
        if path.parent not in said and any(side % COARSEST for side in image.shape):
            said.add(path.parent)
            yield BadInput(path, f"has sides that {COARSEST} does not divide: padded in use",
                           "Nothing to do, or crop all slices to such a size")


def odd_grey_levels(found: Folder) -> Iterator[BadInput]:
    """Images far darker or brighter than the others."""
    levels = np.array([image.mean() for _, image, _ in found.images])
    for i in outliers(levels):
        yield BadInput(found.images[i].path, f"has a mean grey level of {levels[i]:.0f}, usual is "
                       f"{np.median(levels):.0f}", "Look at it; zscore makes all slices equally bright")


def outliers(values: np.ndarray) -> np.ndarray:
    """Positions of the positive values (N,) that lie far from the others on a logarithmic scale.

    The deviation from the median is measured by the median of all deviations, 0.6745 of which is a
    standard deviation of a bell curve: no outlier, however wild, can widen this ruler.
    """
    known = np.flatnonzero(values > 0)
    if len(known) < ENOUGH:
        return np.zeros(0, int)
    away = np.abs(np.log(values[known]) - np.median(np.log(values[known])))
    return known[0.6745 * away > FAR * max(np.median(away), 0.1)]  # 0.1: half as much again is none


# --- masks ---------------------------------------------------------------------------------------


def missing_classes(found: Folder) -> Iterator[BadInput]:
    """Masks without a class, and folders in which no mask has it."""
    held = {(path.parent, c) for path, mask, _ in found.masks for c in np.unique(mask)}
    nowhere = {(place, c) for place, _ in held for c in (1, 2, 3)} - held
    for place, c in sorted(nowhere):
        yield BadInput(place, f"holds no mask with {CLASSES[c]}", "It can be neither learned nor scored then: "
                       "are these the right masks")
    for path, mask, _ in found.masks:
        if not mask.any():
            yield BadInput(path, "is empty: background only", "Check that it is the right mask")
            continue
        for c in (1, 2, 3):
            if not (mask == c).any() and (path.parent, c) not in nowhere:
                yield BadInput(path, f"has no {CLASSES[c]} pixel", "Right for some slices: Dice leaves "
                               "the class out when it is not predicted either")


def islands(found: Folder) -> Iterator[BadInput]:
    """Classes in more than one piece."""
    for path, mask, _ in found.masks:
        for c in (1, 2, 3):
            pieces, count = label(mask == c, NEIGHBOURS)
            if count > 1:
                sizes = sorted(np.bincount(pieces.flat)[1:])[:-1]
                shown = ", ".join(map(str, sizes[:6])) + (", ..." if len(sizes) > 6 else "")
                yield BadInput(path, f"has {CLASSES[c]} in {count} pieces, the smaller of {shown} px",
                               "Look for stray pixels")


def holes(found: Folder) -> Iterator[BadInput]:
    """Background that is enclosed by labels."""
    for path, mask, _ in found.masks:
        pieces, count = label(binary_fill_holes(mask > 0) & (mask == 0))
        for n in range(1, count + 1):
            around = np.unique(mask[binary_dilation(pieces == n) & (pieces != n)])
            yield BadInput(path, f"has a hole of {(pieces == n).sum()} px in "
                           f"{' and '.join(CLASSES[c] for c in around)}", "Fill it, if nobody meant it")


def swapped_classes(found: Folder) -> Iterator[BadInput]:
    """Masks in which another class lies within another than the LV within the myocardium."""
    seen: dict[tuple[int, int], set[Path]] = {}
    for path, mask, _ in found.masks:
        around = {c: _around(mask, c) for c in (1, 2, 3)}
        inner, outer = max(permutations((1, 2, 3), 2), key=lambda pair: around[pair[0]][pair[1]])
        if around[inner][outer] > 0.8 and around[3][2] < 0.5:
            seen.setdefault((inner, outer), set()).add(path)
    for (inner, outer), files in seen.items():
        yield from _each_or_all(
            {path: path in files for path, _, _ in found.masks},
            f"labelled {CLASSES[inner]} inside, {CLASSES[outer]} around it",
            "It should be LV inside, Myo around it: 0 background, 1 RV, 2 Myo, 3 LV")


def _around(mask: np.ndarray, c: int) -> np.ndarray:
    """Shares (4,) of the classes among the pixels that touch class ``c``; zeros if there are none."""
    ring = binary_dilation(mask == c, NEIGHBOURS) & (mask != c)
    return np.bincount(mask[ring], minlength=4) / max(ring.sum(), 1)


def same_masks(found: Folder) -> Iterator[BadInput]:
    """Masks that are another one's copy, pixel by pixel."""
    first: dict[bytes, Path] = {}
    for path, mask, _ in found.masks:
        other = first.setdefault(_digest(mask), path)
        if other != path and mask.any():
            yield BadInput(path, f"is the same mask as {other}", "Look which of the two images it belongs to")


def odd_sizes(found: Folder) -> Iterator[BadInput]:
    """Classes far smaller or larger than in the other masks."""
    for c in (1, 2, 3):
        areas = np.array([(mask == c).sum() for _, mask, _ in found.masks])
        for i in outliers(areas):
            yield BadInput(found.masks[i].path, f"has {CLASSES[c]} of {areas[i]} px, usual are "
                           f"{np.median(areas[areas > 0]):.0f}", "Look at it: an odd heart, or an error")


# --- near-duplicates -----------------------------------------------------------------------------


def near_duplicates(found: Folder) -> Iterator[BadInput]:
    """Images all but the same as an earlier one of another patient or split: leakage, if in two."""
    if len(found.images) < 2:
        return
    alike = likeness([image for _, image, _ in found.images])
    patients = np.array([patient for _, _, patient in found.images])
    _, place = np.unique([str(path.parent) for path, _, _ in found.images], return_inverse=True)
    strangers, splits = patients[:, None] != patients, place[:, None] != place
    limit = copy_limit(alike[np.triu(strangers)])
    alike[~np.tril(strangers | splits, -1)] = -1
    for j in np.flatnonzero(alike.max(1) > limit):
        i = alike[j].argmax()
        yield BadInput(found.images[j].path, f"looks the same as {found.images[i].path}: likeness "
                       f"{alike[j, i]:.2f}, limit {limit:.2f}", "One slice or one person twice? Keep both on "
                       "one side of every split; patients.csv says who is who")


CHECKS: tuple[Callable[[Folder], Iterator[BadInput]], ...] = (
    foreign_files, outer_links, size_of_test, shared_patients, blank_images, flat_images, few_grey_levels, same_images,
    padded_images, odd_grey_levels, inverted_images, missing_classes, swapped_classes, islands, holes, same_masks, odd_sizes,
    near_duplicates,
)
