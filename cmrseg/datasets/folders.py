"""Folders of slices, ``cmrN.png`` and ``cmrN_mask.png``, and whose they are (``patients.csv``).

A *data root* is a folder ``{train,val,test}/{image,mask}`` of such files; its test split has no
masks. The readers raise the first thing that is wrong; :mod:`cmrseg.datasets.doctor` lists all.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from cmrseg.data import (
    SPLITS,
    STRETCHED,
    BadInput,
    Slices,
    encode_png,
    not_allowed,
    read_png,
    read_text,
    write_bytes,
)

NAME = re.compile(r"cmr([0-9]{1,9})(_mask)?\.png")
TABLE = "patients.csv"
COLUMNS = {
    TABLE: ("patient", "1"),
    "spacing.csv": ("mm", "1.8"),
    "origin.csv": ("slice", "a_slice0"),
}


def list_pngs(folder: Path, mask: bool = False) -> dict[int, Path]:
    """The files ``cmrN.png`` (or ``cmrN_mask.png``) of a folder, keyed and ordered by N.

    Raises:
        BadInput: a missing or empty folder, a foreign name, or two files with one number.
    """
    paths, problems = sort_pngs(Path(folder), mask)
    _raise_first(problems)
    return paths


def sort_pngs(folder: Path, mask: bool = False) -> tuple[dict[int, Path], list[BadInput]]:
    """What :func:`list_pngs` lists, and what is wrong with the folder and its other files."""
    pattern = "cmrN_mask.png" if mask else "cmrN.png"
    if not folder.is_dir():
        return {}, [no_folder(folder, f"It should hold files named {pattern}")]
    paths: dict[int, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".png" or path.name.startswith("."):
            continue
        match = NAME.fullmatch(path.name)
        if not match or bool(match[2]) != mask:
            problem, cure = f"expected a name like {pattern}", "Rename it or move it away"
            problems.append(BadInput(path, problem, cure))
        elif other := paths.get(int(match[1])):
            problem = f"has the same number as {other.name}"
            problems.append(BadInput(path, problem, "Keep one file for each number"))
        else:
            paths[int(match[1])] = path
    if not paths:
        cure = "Check the path: 8-bit grey PNG files are expected in it"
        problems.append(BadInput(folder, f"holds no {pattern}", cure))
    return dict(sorted(paths.items())), problems


def no_folder(folder: Path, cure: str) -> BadInput:
    """The complaint about a folder that is not there; perhaps capitals are to blame."""
    around = folder.parent.iterdir() if folder.parent.is_dir() else ()
    like = next((path.name for path in around if path.name.lower() == folder.name.lower()), None)
    if like == folder.name:
        return BadInput(folder, "is not a folder", cure)
    return BadInput(folder, "no such folder" + (f", but there is {like}" if like else ""), cure)


def _raise_first(problems: Iterable[BadInput]) -> None:
    for problem in problems:
        raise problem


# --- pictures of one size ------------------------------------------------------------------------


def read_slice(path: Path, mask: bool = False) -> np.ndarray:
    """Read an image or a mask by :func:`cmrseg.data.read_png`; no image may look like a mask.

    Raises:
        BadInput: not such a file, a single pixel, or an image with the grey levels of a mask.
    """
    pixels = read_png(path, mask)
    if not mask and pixels.size == 1:
        raise BadInput(path, "is a single pixel", "Look at the original")
    if not mask and (levels := _as_labels(pixels)):
        problem = f"has grey levels {levels} only: a mask, or an image of other units"
        raise BadInput(path, problem, "Store grey levels 0-255; are image and mask swapped")
    return pixels


def _as_labels(pixels: np.ndarray) -> str:
    """The grey levels of an image that looks like a mask, plain or stretched; else nothing."""
    if 0 < pixels.max() <= 3:
        return "0-3"
    levels = np.flatnonzero(np.bincount(pixels.ravel()))
    return ", ".join(map(str, levels)) if len(levels) > 2 and {*levels} <= STRETCHED else ""


def odd_sizes(paths: dict[int, Path], shapes: dict[int, tuple]) -> dict[int, BadInput]:
    """A complaint, by number, about each file that is not of the size of most."""
    counts = Counter(shapes.values())
    usual = max(counts, key=counts.get, default=None)
    odd = [number for number, shape in shapes.items() if shape != usual]
    return {number: other_size(paths[number], shapes[number], usual) for number in odd}


def other_size(path: Path, shape, usual) -> BadInput:
    """The complaint about a file of another size (H, W) than is usual."""
    size, expected = (f"{width} x {height}" for height, width in (shape, usual))
    problem = f"is {size} pixels, expected {expected} like the others"
    return BadInput(path, problem, "Crop or pad all slices to one size")


def read_pngs(paths: dict[int, Path], mask: bool = False) -> dict[int, np.ndarray]:
    """Read files of one size: ``{number: uint8 (H, W)}``."""
    pictures = {number: read_slice(path, mask) for number, path in paths.items()}
    shapes = {number: picture.shape for number, picture in pictures.items()}
    _raise_first(odd_sizes(paths, shapes).values())
    return pictures


def check_images(folder: Path) -> dict[int, Path]:
    """The files ``cmrN.png`` of a folder, each read once and found whole, all of one size.

    No picture is kept: together they may be large.

    Raises:
        BadInput: as :func:`read_images`.
    """
    paths = list_pngs(folder)
    shapes = {number: read_slice(path).shape for number, path in paths.items()}
    _raise_first(odd_sizes(paths, shapes).values())
    return paths


def read_masks(folder: Path) -> dict[str, np.ndarray]:
    """All masks of one folder by the name of their slice, ordered by number.

    ``{"cmr7": uint8 (H, W), ...}``; of a file ``cmr007_mask.png`` the name is ``cmr007``.
    """
    paths = list_pngs(folder, mask=True)
    masks = read_pngs(paths, mask=True)
    return {path.stem.removesuffix("_mask"): masks[number] for number, path in paths.items()}


def read_pairs(pred: Path, truth: Path) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and true masks (N, H, W) of the same slices, ordered by number.

    Raises:
        BadInput: a mask without its partner, or masks of another size.
    """
    paths, true_paths = list_pngs(pred, mask=True), list_pngs(truth, mask=True)
    for number, path in true_paths.items():
        if number not in paths:
            problem = "no such mask, but there is a true one"
            raise BadInput(pred / path.name, problem, "Predict every slice of the truth")
    for number, path in paths.items():
        if number not in true_paths:
            cure = "Compare folders with the same slices"
            raise BadInput(truth / path.name, "no such mask, but it is predicted", cure)
    predicted, true = (read_pngs(files, mask=True) for files in (paths, true_paths))
    p, t = np.stack([predicted[number] for number in true]), np.stack(list(true.values()))
    if t.shape != p.shape:
        sizes = [f"{masks.shape[2]} x {masks.shape[1]}" for masks in (p, t)]
        problem = f"masks are {sizes[0]} pixels, the true ones {sizes[1]}"
        raise BadInput(pred, problem, "Predict at the size of the truth")
    return p, t


def make_mask_folder(folder: Path, names: list[str]) -> None:
    """Make a folder for the masks of these slices.

    Raises:
        BadInput: a file, or masks of other slices in it: they would be scored or sent too.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(folder, "is a file", "Give a folder for the masks")
    others = {path.name for path in folder.glob("*_mask.png")} - {f"{n}_mask.png" for n in names}
    if others:
        cure = "Choose an empty --out, or move the old masks away"
        raise BadInput(folder / min(others), "is there already, of another slice", cure)
    folder.mkdir(parents=True, exist_ok=True)


# --- whose slices they are -----------------------------------------------------------------------


def patients_of(paths: dict[int, Path], alone: Callable = list) -> np.ndarray:
    """The patient of each file, int64 (N,).

    A ``patients.csv`` (columns image, patient) in the folder or above it says so; without one, each
    image is its own patient, or the one that ``alone``, a function of ``paths``, gives it. A data
    root may have a table for each split: who has one name in two of them has one number, and an
    image of a split without a table is none of the patients of the others.
    """
    if not paths:
        return np.zeros(0, np.int64)
    folder = next(iter(paths.values())).parent
    table = _find_table(folder, TABLE)
    tables = {table} - {None}
    if folder.parent.name in SPLITS:
        places = [folder.parent.parent / split for split in ("", *SPLITS)]
        siblings = [place / kind / TABLE for place in places for kind in ("", "image", "mask")]
        tables |= {path for path in siblings if os.path.lexists(path)}
    patients = {patient for path in sorted(tables) for patient in _read_table(path).values()}
    spelled: dict[str, str] = {}
    for patient in sorted(patients):
        if (other := spelled.setdefault(_spelling(patient), patient)) != patient:
            problem = f"names patients {other} and {patient}: one in two spellings, or two"
            raise BadInput(table or min(tables), problem, "Give each patient one name")
    number = _numbers(patients)
    if table is None:
        return np.array(alone(paths), dtype=np.int64) + max(number.values(), default=0)
    return np.array([number[patient] for patient in entries(paths, TABLE)], dtype=np.int64)


def entries(paths: dict[int, Path], name: str) -> list[str] | None:
    """What a table of this name, in the folder of the files or above it, says of each of them.

    ``patients.csv`` says the ``patient``, ``spacing.csv`` the ``mm`` of a pixel, and ``origin.csv``
    the ``slice`` it was. Without a table: None.

    Raises:
        BadInput: no such table, or one that lacks one of the files.
    """
    if (table := _find_table(next(iter(paths.values())).parent, name)) is None:
        return None
    values = _read_table(table)
    images = [path.stem.removesuffix("_mask") for path in paths.values()]
    if missing := [image for image in images if image not in values]:
        raise BadInput(table, f"has no entry {missing[0]!r}", _needs(table))
    return [values[image] for image in images]


def _find_table(folder: Path, name: str) -> Path | None:
    above = [place / name for place in (folder, folder.parent, folder.parent.parent)]
    return next((path for path in above if os.path.lexists(path)), None)


def _spelling(patient: str) -> str:
    """One spelling for capitals, leading zeros, and the fraction of which Excel makes a number."""
    return re.sub("0*([0-9]+)", r"\1", patient.casefold().removesuffix(".0"))


def _numbers(patients: set[str]) -> dict[str, int]:
    """A number for each patient: the name, if all are numbers, else its place in their order."""
    if all(re.fullmatch("[0-9]{1,18}", patient) for patient in patients):
        return {patient: int(patient) for patient in patients}
    return {patient: n for n, patient in enumerate(sorted(patients), start=1)}


def _needs(table: Path) -> str:
    column, example = COLUMNS[table.name]
    return f"It needs the columns image,{column}: cmr1,{example}"


def _read_table(table: Path) -> dict[str, str]:
    """What a table says of each image: ``{"cmr1": "P-017", ...}``."""
    column, of = COLUMNS[table.name][0], {}
    try:
        lines = csv.DictReader(io.StringIO(read_text(table), newline=""))
        rows = [(Path(row["image"]).stem, row[column].strip()) for row in lines]
    except KeyError as missing:
        raise BadInput(table, f"has no entry {missing}", _needs(table)) from None
    except PermissionError:
        raise not_allowed(table) from None
    except (OSError, ValueError, TypeError, AttributeError, csv.Error):
        raise BadInput(table, f"is not a table of images and {column}s", _needs(table)) from None
    for image, value in rows:
        if not value:
            raise BadInput(table, f"gives {image} no {column}", "Keep one line for each image")
        if (other := of.setdefault(image, value)) != value:
            problem = f"gives {image} two {column}s, {other} and {value}"
            raise BadInput(table, problem, "Keep one line for each image")
    return of


# --- whole folders of images, and splits with masks ----------------------------------------------


def read_images(folder: Path, patients: Callable = patients_of) -> Slices:
    """All images ``cmrN.png`` of one folder, ordered by N, without masks."""
    paths = list_pngs(folder)
    return stack(paths, read_pngs(paths), None, patients(paths))


def read_split(root: Path, split: str, patients: Callable = patients_of) -> Slices:
    """One split of a data root: its images and, except for the test split, their masks.

    Args:
        root, split: where it lies, and ``"train"``, ``"val"`` or ``"test"``.
        patients: the function that says whose the files ``{number: path}`` are.

    Raises:
        BadInput: anything wrong with the folder, an image without mask or a mask without image.
    """
    folder = Path(root) / split
    if split == "test":
        return read_images(folder / "image", patients)
    paths, mask_paths = list_pngs(folder / "image"), list_pngs(folder / "mask", mask=True)
    _raise_first(unpaired(paths, mask_paths))
    images, masks = read_pngs(paths), read_pngs(mask_paths, mask=True)
    _raise_first(misfits(mask_paths, images, masks).values())
    return stack(paths, images, masks, patients(paths))


def unpaired(paths: dict[int, Path], mask_paths: dict[int, Path]) -> Iterator[BadInput]:
    """Complaints about images without mask and masks without image, where there are both."""
    for number in paths.keys() - mask_paths.keys() if mask_paths else ():
        name = f"{paths[number].stem}_mask.png"
        cure = f"Put {name} into the folder mask beside image, or move the image away"
        yield BadInput(paths[number], "has no mask", cure)
    for number in mask_paths.keys() - paths.keys() if paths else ():
        name = mask_paths[number].name.replace("_mask", "")
        cure = f"Put {name} into the folder image beside mask, or move the mask away"
        yield BadInput(mask_paths[number], "has no image", cure)


def misfits(mask_paths: dict[int, Path], images: dict, masks: dict) -> dict[int, BadInput]:
    """A complaint, by number, about each mask of another size than its image."""
    both = [number for number in images if number in masks]
    odd = [number for number in both if images[number].shape != masks[number].shape]
    return {n: other_size(mask_paths[n], masks[n].shape, images[n].shape) for n in odd}


def stack(paths: dict[int, Path], images: dict, masks: dict | None, patients) -> Slices:
    """Slices of pictures by number, in the order of ``paths``."""
    return Slices(
        np.stack([images[number] for number in paths]),
        None if masks is None else np.stack([masks[number] for number in paths]),
        tuple(path.stem for path in paths.values()),
        patients,
    )


def write_slices(out: Path, splits: dict[str, Slices], spacing: float | None = None) -> None:
    """Write slices as the splits of a data root, with their patients.

    Args:
        out, splits: the folder, and slices by split.
        spacing: millimetres of their pixels, of slices of volumes: these are named ``cmrN``, N from
            1, their own names go into ``origin.csv``, and the millimetres into ``spacing.csv``.

    Raises:
        BadInput: a file that is there already and holds something else, or another slice in one
            of the splits; nothing is written then.
    """
    files, rows, origin = {}, [("image", "patient")], [("image", "slice")]
    for split, slices in splits.items():
        for i, old in enumerate(slices.names):
            name = f"cmr{len(rows)}" if spacing else old
            files[out / split / "image" / f"{name}.png"] = encode_png(slices.images[i])
            if slices.masks is not None:
                files[out / split / "mask" / f"{name}_mask.png"] = encode_png(slices.masks[i])
            rows.append((name, slices.patients[i]))
            origin.append((name, old))
    files[out / TABLE] = _table(rows)
    if spacing:
        files[out / "origin.csv"] = _table(origin)
        mm = [(name, spacing) for name, _ in rows[1:]]
        files[out / "spacing.csv"] = _table([("image", "mm"), *mm])
    for path in sorted({*files, *(p for split in SPLITS for p in out.glob(f"{split}/*/*.png"))}):
        if path.exists() and (path not in files or path.read_bytes() != files[path]):
            raise taken(path)
    # Masks last: where the writing is stopped, an image lacks its own, which everyone notices.
    for path in sorted(files, key=lambda path: path.parent.name == "mask"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, files[path])


def _table(rows: list[tuple]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")  # a name need not be text


def taken(path: Path) -> BadInput:
    """The complaint about another file in the place of one to write."""
    cure = "Choose an empty --out, or move it away"
    return BadInput(path, "is there already and is another file", cure)
