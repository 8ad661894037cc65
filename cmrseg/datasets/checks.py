"""Warnings about slices: what is odd in a folder that can be read.

A check is a function from :class:`Folder` to findings; :data:`CHECKS` lists them. Every finding
names a file, says what is odd about it and what cures it.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from cmrseg.data import CLASSES, SPLITS, BadInput
from cmrseg.datasets.duplicates import copy_limit, negatives, similarity
from cmrseg.datasets.folders import NAME, TABLE

COARSEST = 16  # sizes that this does not divide are padded before they enter a network
# Robust deviations from the median at which an outlier begins (Iglewicz and Hoaglin 1993).
FAR = 3.5
FLAT = 32  # grey levels, of 256: a picture with fewer between darkest and brightest was squeezed
FEW = 8  # grey levels: an image of fewer is none
ENOUGH = 20  # values below which nobody can tell an outlier
NEIGHBOURS = np.ones((3, 3), np.uint8)  # pixels that touch at a corner are together
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


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


# --- files ---------------------------------------------------------------------------------------

NOTES = re.compile(r"readme.*|licen[cs]e.*|.*\.(txt|md|csv)", re.IGNORECASE)  # welcome there


def foreign_files(folder: Folder) -> Iterator[BadInput]:
    """Whatever lies in the folder and is ignored, but for hidden files, texts and tables."""
    root, *splits = folder.places
    for place in _read_places(folder):
        parts = ("image", "mask") if place in splits else ()
        parts = SPLITS if splits and place == root else parts
        for path in sorted(place.iterdir()):
            hidden = path.name.startswith(".")
            if not hidden and not (path.is_dir() and path.name in parts):
                yield from _ignored(path, parts)
    if (root / "test" / "mask").is_dir():
        problem = "is ignored: the test split is predicted, not scored"
        cure = "Score predictions against it with evaluate"
        yield BadInput(root / "test" / "mask", problem, cure)


def _ignored(path: Path, parts: tuple[str, ...]) -> Iterator[BadInput]:
    """A finding if a file is ignored in a place where folders of these names are read."""
    if path.name.lower() == TABLE != path.name:
        yield BadInput(path, "is ignored: names count capitals", f"Rename it to {TABLE}")
    elif parts and not NOTES.fullmatch(path.name):
        problem = f"is ignored: {', '.join(parts)} are read here"
        yield BadInput(path, problem, "Rename it, or move it away")
    elif path.is_dir():
        problem = "is a folder in a folder of slices and is ignored"
        yield BadInput(path, problem, "Move it away")
    elif path.suffix.lower() != ".png" and not NOTES.fullmatch(path.name):
        cure = "Save it as 8-bit grey PNG, or move it away"
        yield BadInput(path, "is not a PNG and is ignored", cure)


def _read_places(folder: Folder) -> list[Path]:
    """Where slices are read, and the folders above them."""
    inner = [place / kind for place in folder.places for kind in ("image", "mask")]
    return folder.places + [place for place in inner if place.is_dir()]


def outer_links(folder: Folder) -> Iterator[BadInput]:
    """Links that lead out of the folder."""
    root, places = folder.places[0].resolve(), _read_places(folder)
    tables = [place / TABLE for place in places]
    pictures = [picture.path for picture in folder.images + folder.masks]
    for path in [*places[1:], *tables, *pictures]:
        if path.is_symlink() and root not in (target := path.resolve()).parents:
            cure = "Copy what it points to: the link breaks when the folder moves"
            yield BadInput(path, f"is a link out of the folder, to {target}", cure)


def shared_patients(folder: Folder) -> Iterator[BadInput]:
    """Patients in two splits, by their table or (without one) by their number."""
    first: dict[int, Path] = {}
    for path, _, patient in folder.images:
        other = first.setdefault(patient, path)
        if other.parent != path.parent:
            cure = (
                "Keep a patient on one side of every split; patients.csv says who is who, "
                "without it each number is a patient"
            )
            yield BadInput(path, f"is of one patient with {other}", cure)


# --- sizes and grey levels -----------------------------------------------------------------------


def size_of_test(folder: Folder) -> Iterator[BadInput]:
    """Test slices of quite another size than those to learn from."""
    first = {path.parent.parent.name: (path, image) for path, image, _ in reversed(folder.images)}
    if not {"train", "test"} <= first.keys():
        return
    path, test, train = *first["test"], first["train"][1]
    if not all(0.8 < a / b < 1.25 for a, b in zip(test.shape, train.shape)):
        sizes = [f"{width} x {height}" for height, width in (test.shape, train.shape)]
        cure = (
            "Resample to the same size of a pixel, or crop: "
            "a network knows hearts of the size it has seen"
        )
        yield BadInput(path, f"is {sizes[0]} pixels, those to learn from {sizes[1]}", cure)


def padded_images(folder: Folder) -> Iterator[BadInput]:
    """The first image of each place with sides that are padded in use."""
    first: dict[Path, Path] = {}
    for path, image, _ in folder.images:
        if any(side % COARSEST for side in image.shape):
            first.setdefault(path.parent, path)
    for path in first.values():
        problem = f"has sides that {COARSEST} does not divide: padded in use"
        yield BadInput(path, problem, "Nothing to do, or crop all slices to such a size")


def inverted_images(folder: Folder) -> Iterator[BadInput]:
    """Images whose cavity is darker than its wall, or that look like the negative of the others."""
    images = {_slice(path): (path, image) for path, image, _ in folder.images}
    dark = {}
    for path, mask, _ in folder.masks:
        if _slice(path) in images and (mask == 2).any() and _around(mask, 3)[2] > 0.5:
            image, grey = images[_slice(path)]
            dark[image] = bool(grey[mask == 3].mean() < grey[mask == 2].mean())
    if len(folder.images) >= ENOUGH:
        for i in negatives([image for _, image, _ in folder.images]):
            dark.setdefault(folder.images[i].path, True)
    cure = "Invert the grey levels, if it is cine MR; else see that all slices are of one kind"
    yield from _each_or_all(dark, "dark where blood should be bright: inverted", cure)


def _slice(path: Path) -> tuple[Path, int | str]:
    """The split and the number of a slice, which its image and its mask have in common."""
    match = NAME.fullmatch(path.name)
    return path.parent.parent, int(match[1]) if match else path.name.replace("_mask", "")


def _each_or_all(affected: dict[Path, bool], problem: str, cure: str) -> Iterator[BadInput]:
    """A finding for each affected file, or one for a folder most of whose files are."""
    for folder in dict.fromkeys(path.parent for path in affected):
        here = [path for path in affected if path.parent == folder]
        bad = [path for path in here if affected[path]]
        if len(bad) > 3 and len(bad) > len(here) / 2:
            yield BadInput(folder, f"{len(bad)} of {len(here)} files are {problem}", cure)
        else:
            yield from (BadInput(path, f"is {problem}", cure) for path in bad)


def poor_images(folder: Folder) -> Iterator[BadInput]:
    """Images of one grey level or a handful, or of levels that lie close together.

    They may be masks coloured to be seen, or pictures of another unit stored unstretched.
    """
    flat = {}
    for path, image, _ in folder.images:
        levels, spread = np.unique(image), np.ptp(image)
        flat[path] = 0 < spread < FLAT
        if spread == 0:
            yield BadInput(path, f"is blank: every pixel is {levels[0]}", "Look at the original")
        elif len(levels) < FEW and spread >= FLAT:
            problem = f"has {len(levels)} grey levels: a mask, or cut at a threshold"
            yield BadInput(path, problem, "Look at the original")
    problem = f"flat: less than {FLAT} grey levels from darkest to brightest"
    yield from _each_or_all(flat, problem, "Stretch the grey levels to 0-255")


def odd_grey_levels(folder: Folder) -> Iterator[BadInput]:
    """Images far darker or brighter than the others."""
    levels = np.array([image.mean() for _, image, _ in folder.images])
    for i in outliers(levels):
        problem = f"has a mean grey level of {levels[i]:.0f}, usual is {np.median(levels):.0f}"
        cure = "Look at it; zscore makes all slices equally bright"
        yield BadInput(folder.images[i].path, problem, cure)


def outliers(values: np.ndarray) -> np.ndarray:
    """Positions of the positive values (N,) that lie far from the others on a logarithmic scale.

    The deviation from the median is measured by the median of all deviations, 0.6745 of which is a
    standard deviation of a bell curve: no outlier, however wild, can widen this ruler.
    """
    known = np.flatnonzero(values > 0)
    if len(known) < ENOUGH:
        return np.zeros(0, int)
    away = np.abs(np.log(values[known]) - np.median(np.log(values[known])))
    # 0.1: half as much again is none
    return known[0.6745 * away > FAR * max(np.median(away), 0.1)]


# --- copies --------------------------------------------------------------------------------------


def same_images(folder: Folder) -> Iterator[BadInput]:
    """Images that are another one's pixels, turned or mirrored.

    As they lie only within a patient and split: :func:`near_duplicates` finds those of others.
    """
    first: dict[bytes, tuple[Path, int]] = {}
    for path, image, patient in folder.images:
        if image.min() == image.max():
            continue
        for mirrored, quarter in product((False, True), range(4)):
            view = np.rot90(image[:, ::-1] if mirrored else image, quarter)
            other, owner = first.get(_digest(view), (path, patient))
            changed = ", mirrored" if mirrored else ", turned" if quarter else ""
            sibling = (other.parent, owner) == (path.parent, patient)
            if other != path and (changed or sibling):
                yield BadInput(path, f"is the same image as {other}{changed}", "Keep one of them")
                break
        first.setdefault(_digest(image), (path, patient))


def same_masks(folder: Folder) -> Iterator[BadInput]:
    """Masks that are another one's copy, pixel by pixel."""
    first: dict[bytes, Path] = {}
    for path, mask, _ in folder.masks:
        other = first.setdefault(_digest(mask), path)
        if other != path and mask.any():
            cure = "Look which of the two images it belongs to"
            yield BadInput(path, f"is the same mask as {other}", cure)


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()


def near_duplicates(folder: Folder) -> Iterator[BadInput]:
    """Images all but the same as an earlier one of another patient or split: leakage, if in two."""
    if len(folder.images) < 2:
        return
    alike = similarity([image for _, image, _ in folder.images])
    patients = np.array([patient for _, _, patient in folder.images])
    _, place = np.unique([str(path.parent) for path, _, _ in folder.images], return_inverse=True)
    strangers, splits = patients[:, None] != patients, place[:, None] != place
    limit = copy_limit(alike[np.triu(strangers)])
    alike[~np.tril(strangers | splits, -1)] = -1
    cure = (
        "One slice or one person twice? Keep both on one side of every split; "
        "patients.csv says who is who"
    )
    for j in np.flatnonzero(alike.max(1) > limit):
        i = alike[j].argmax()
        numbers = f"likeness {alike[j, i]:.2f}, limit {limit:.2f}"
        problem = f"looks the same as {folder.images[i].path}: {numbers}"
        yield BadInput(folder.images[j].path, problem, cure)


# --- masks ---------------------------------------------------------------------------------------


def missing_classes(folder: Folder) -> Iterator[BadInput]:
    """Masks without a class, and folders in which no mask has it."""
    held = {(path.parent, c) for path, mask, _ in folder.masks for c in np.unique(mask)}
    nowhere = {(place, c) for place, _ in held for c in (1, 2, 3)} - held
    for place, c in sorted(nowhere):
        cure = "It can be neither learned nor scored then: are these the right masks"
        yield BadInput(place, f"holds no mask with {CLASSES[c]}", cure)
    cure = "Right for some slices: Dice leaves the class out when it is not predicted either"
    for path, mask, _ in folder.masks:
        if not mask.any():
            yield BadInput(path, "is empty: background only", "Check that it is the right mask")
            continue
        for c in (1, 2, 3):
            if not (mask == c).any() and (path.parent, c) not in nowhere:
                yield BadInput(path, f"has no {CLASSES[c]} pixel", cure)


def islands(folder: Folder) -> Iterator[BadInput]:
    """Classes in more than one piece."""
    for path, mask, _ in folder.masks:
        for c in (1, 2, 3):
            pieces = cv2.connectedComponentsWithStats(np.uint8(mask == c), connectivity=8)[2][1:]
            if len(pieces) > 1:
                sizes = sorted(pieces[:, cv2.CC_STAT_AREA])[:-1]
                shown = ", ".join(map(str, sizes[:6])) + (", ..." if len(sizes) > 6 else "")
                problem = f"has {CLASSES[c]} in {len(pieces)} pieces, the smaller of {shown} px"
                yield BadInput(path, problem, "Look for stray pixels")


def holes(folder: Folder) -> Iterator[BadInput]:
    """Background that is enclosed by labels."""
    for path, mask, _ in folder.masks:
        background = np.pad(np.uint8(mask == 0), 1, constant_values=1)
        count, pieces = cv2.connectedComponents(background, connectivity=4)
        outside, pieces = pieces[0, 0], pieces[1:-1, 1:-1]
        for n in set(range(1, count)) - {outside}:
            hole = np.uint8(pieces == n)
            around = np.unique(mask[cv2.dilate(hole, CROSS) > hole])
            names = " and ".join(CLASSES[c] for c in around)
            problem = f"has a hole of {hole.sum()} px in {names}"
            yield BadInput(path, problem, "Fill it, if nobody meant it")


def swapped_classes(folder: Folder) -> Iterator[BadInput]:
    """Masks in which another class lies within another than the LV within the myocardium."""
    swapped: dict[tuple[int, int], set[Path]] = {}
    for path, mask, _ in folder.masks:
        around = {c: _around(mask, c) for c in (1, 2, 3)}
        inner, outer = max(permutations((1, 2, 3), 2), key=lambda pair: around[pair[0]][pair[1]])
        if around[inner][outer] > 0.8 and around[3][2] < 0.5:
            swapped.setdefault((inner, outer), set()).add(path)
    for (inner, outer), files in swapped.items():
        affected = {path: path in files for path, _, _ in folder.masks}
        problem = f"labelled {CLASSES[inner]} inside, {CLASSES[outer]} around it"
        cure = "It should be LV inside, Myo around it: 0 background, 1 RV, 2 Myo, 3 LV"
        yield from _each_or_all(affected, problem, cure)


def _around(mask: np.ndarray, c: int) -> np.ndarray:
    """Shares (4,) of the classes among the pixels that touch class ``c``; zeros if none do."""
    inside = np.uint8(mask == c)
    ring = cv2.dilate(inside, NEIGHBOURS) > inside
    return np.bincount(mask[ring], minlength=4) / max(ring.sum(), 1)


def odd_areas(folder: Folder) -> Iterator[BadInput]:
    """Classes far smaller or larger than in the other masks."""
    for c in (1, 2, 3):
        areas = np.array([(mask == c).sum() for _, mask, _ in folder.masks])
        for i in outliers(areas):
            usual = np.median(areas[areas > 0])
            problem = f"has {CLASSES[c]} of {areas[i]} px, usual are {usual:.0f}"
            yield BadInput(folder.masks[i].path, problem, "Look at it: an odd heart, or an error")


CHECKS: tuple[Callable[[Folder], Iterator[BadInput]], ...] = (
    foreign_files,
    outer_links,
    size_of_test,
    shared_patients,
    poor_images,
    same_images,
    padded_images,
    odd_grey_levels,
    inverted_images,
    missing_classes,
    swapped_classes,
    islands,
    holes,
    same_masks,
    odd_areas,
    near_duplicates,
)
