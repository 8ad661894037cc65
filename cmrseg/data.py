"""Slices: where they come from, how they are read, and which patient they belong to.

A *data root* is a folder ``{train,val,test}/{image,mask}`` of 8-bit grey PNG files ``cmrN.png`` and
``cmrN_mask.png`` (the test split has no masks). Three kinds of *source* name one:

- ``"phantom"``: synthetic slices made in memory by :mod:`cmrseg.phantom`; nothing to download;
- ``"acdc96"``: the real slices of the 2020 report (from ACDC, Bernard et al. 2018), put into
  ``data/acdc96`` by :func:`fetch`;
- a path: any folder in the layout above.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("background", "RV", "Myo", "LV")
SPLITS = ("train", "val", "test")
FOLDS = 5
ACDC96_URL = (
    "https://raw.githubusercontent.com/AlexandruNst/CNN-Image-Segmentation/"
    "030cfbd53a39eab3d2e7c01c4c4a5a65ba15fb6d/data/"
)
NAME = re.compile(r"cmr([0-9]{1,9})(_mask)?\.png")
LARGEST = 4096  # pixels of a side; a larger picture is no slice, and may be a decompression bomb


class BadInput(ValueError):
    """A user's file or folder is not what it should be: which one, what is wrong, what cures it."""

    def __init__(self, file, problem: str, cure: str):
        said = f"{file}: {problem}. {cure}."
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in said))  # one line
        self.file, self.problem, self.cure = str(file), problem, cure

    def __reduce__(self):  # so that a worker's complaint reaches its parent
        return BadInput, (self.file, self.problem, self.cure)


@dataclass(frozen=True)
class Slices:
    """A stack of slices.

    Attributes:
        images: uint8 (N, H, W), grey levels as stored.
        masks: uint8 (N, H, W) label maps 0 background, 1 RV, 2 Myo, 3 LV; or None (test split).
        names: N names without ending, such as ``"cmr7"``.
        patients: int64 (N,), the patient each slice belongs to: the unit of every statistic.
    """

    images: np.ndarray
    masks: np.ndarray | None
    names: tuple[str, ...]
    patients: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> Slices:
        """The slices at ``index`` (a list of positions, a slice or a boolean mask), as Slices."""
        index = np.arange(len(self))[index]
        masks = None if self.masks is None else self.masks[index]
        names = tuple(self.names[i] for i in index)
        return Slices(self.images[index], masks, names, self.patients[index])

    def __add__(self, other: Slices) -> Slices:
        masks = None if self.masks is None else np.concatenate([self.masks, other.masks])
        return Slices(
            np.concatenate([self.images, other.images]),
            masks,
            self.names + other.names,
            np.concatenate([self.patients, other.patients]),
        )

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits of a SHA-256 over pixels, labels, names and patients."""
        digest = hashlib.sha256(repr((self.images.shape, self.names)).encode())
        for array in (self.images, self.masks, self.patients.astype("<i8")):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]


# --- reading -------------------------------------------------------------------------------------


def read_png(path: Path, mask: bool = False) -> np.ndarray:
    """Read one 8-bit grey PNG as uint8 (H, W); a mask may hold the values 0 to 3 only.

    Raises:
        BadInput: a missing, truncated or mis-typed file, colour, 16 bit, or a wrong mask value.
    """
    kind = "mask" if mask else "image"
    if path.is_symlink() and not path.exists():
        raise BadInput(path, "a link to nowhere", "Put the file itself there, or mend the link")
    if not path.is_file():
        raise BadInput(path, f"no such {kind}", "Check the path, or put the file there")
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of pictures that are large: we ask for less
            depth = file.read(25)[-1:]  # where a PNG says how many bits a channel has
            file.seek(0)
            picture = Image.open(file)
            if picture.format != "PNG":
                raise BadInput(path, f"a {picture.format} file with the name of a PNG",
                               "Save it as PNG: renaming does not convert it")
            if max(picture.size) > LARGEST:
                raise Image.DecompressionBombError
            found = _MODES.get(picture.mode, picture.mode)
            if picture.mode == "L" and depth != b"\x08":  # Pillow would stretch it to 8 bits
                found = f"{depth[0]}-bit grey"
            if found != "L":
                raise BadInput(path, f"expected 8-bit grey, found {found}",
                               "Convert it to 8-bit grey" + (" label values 0-3" if mask else ""))
            if getattr(picture, "n_frames", 1) > 1:
                raise BadInput(path, f"holds {picture.n_frames} pictures", "Store each in a file of its own")
            pixels = np.array(picture)
            file.seek(0)
            _verify(file.read(2 * LARGEST**2), *picture.size)  # twice what any slice takes
    except (BadInput, MemoryError):
        raise
    except PermissionError:
        raise not_allowed(path) from None
    except Image.DecompressionBombError:
        raise BadInput(path, f"far too large for a slice: over {LARGEST} pixels a side",
                       "Crop or resample it") from None
    except Exception:
        # Pillow reports damage as OSError, SyntaxError, ValueError or even IndexError, by where it is.
        raise BadInput(path, "not a readable PNG (truncated or damaged)",
                       "Copy or download it again") from None
    if mask and pixels.max(initial=0) > 3:
        raise _wrong_labels(path, np.unique(pixels))
    return pixels


# Adam7: where the seven passes of an interlaced PNG begin, and their steps (x, y, by, by).
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _verify(content: bytes, width: int, height: int) -> None:
    """Raise ValueError for what Pillow lets pass in an 8-bit grey PNG: wrong checksums, and fewer rows than it
    says, the others of which it would leave black."""
    packed, kind, at = [], b"", 8
    while kind != b"IEND":
        end = at + 8 + int.from_bytes(content[at : at + 4])
        kind, checksum = content[at + 4 : at + 8], content[end : end + 4]
        if zlib.crc32(content[at + 4 : end]).to_bytes(4) != checksum:
            raise ValueError(f"the checksum of {kind} is wrong")
        if kind == b"IDAT":
            packed.append(content[at + 8 : end])
        at = end + 4
    sides = [(width, height)] if not content[28] else [
        ((width - x + dx - 1) // dx, (height - y + dy - 1) // dy) for x, y, dx, dy in _PASSES]
    needed = sum((1 + w) * h for w, h in sides if w)  # each row begins with the number of its filter
    if len(zlib.decompressobj().decompress(b"".join(packed), needed)) < needed:
        raise ValueError("rows are missing")


_MODES = {"RGB": "RGB colour", "RGBA": "RGB colour with alpha", "P": "a colour palette",
          "I;16": "16-bit grey", "I": "16-bit grey", "1": "1-bit black and white",
          "LA": "grey with alpha"}


STRETCHED = {0, 85, 170, 255}  # labels times 85, to be seen


def _wrong_labels(path: Path, values: np.ndarray) -> BadInput:
    shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    if set(values) <= STRETCHED:
        cure = "These are labels stretched for viewing: divide by 85"
    elif len(values) > 20:
        cure = "It looks like an image: are image and mask swapped"
    else:
        cure = "Store labels, not colours: 0 background, 1 RV, 2 Myo, 3 LV"
    return BadInput(path, f"mask values {shown}, expected 0-3", cure)


def _raise(problem: BadInput) -> None:
    raise problem


Report = Callable[[BadInput], None]  # what to do with a problem: raise it, or collect it


def list_pngs(folder: Path, mask: bool = False, report: Report = _raise) -> dict[int, Path]:
    """The files ``cmrN.png`` (or ``cmrN_mask.png``) of a folder, keyed and ordered by N.

    Raises:
        BadInput: a missing or empty folder, a foreign name, or two files with one number.
    """
    folder, pattern = Path(folder), "cmrN_mask.png" if mask else "cmrN.png"
    if not folder.is_dir():
        report(no_folder(folder, f"It should hold files named {pattern}"))
        return {}
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != ".png" or path.name.startswith("."):
            continue
        match = NAME.fullmatch(path.name)
        if not match or bool(match[2]) != mask:
            report(BadInput(path, f"expected a name like {pattern}", "Rename it or move it away"))
        elif int(match[1]) in found:
            report(BadInput(path, f"has the same number as {found[int(match[1])].name}",
                            "Keep one file for each number"))
        else:
            found[int(match[1])] = path
    if not found:
        report(BadInput(folder, f"holds no {pattern}", "Check the path: 8-bit grey PNG files are "
                        "expected in it"))
    return dict(sorted(found.items()))


def not_allowed(path) -> BadInput:
    """The complaint about a file or folder that is there and closed to this user."""
    return BadInput(path, "can't be read: permission denied", "Change its permissions, or ask its owner")


def no_folder(folder: Path, cure: str) -> BadInput:
    """The complaint about a folder that is not there; perhaps capitals are to blame."""
    around = folder.parent.iterdir() if folder.parent.is_dir() else ()
    like = next((path.name for path in around if path.name.lower() == folder.name.lower()), None)
    problem = ("no such folder" if like is None else "is not a folder" if like == folder.name
               else f"no such folder, but there is {like}")
    return BadInput(folder, problem, cure)


def read_pngs(paths: dict[int, Path], mask: bool = False, report: Report = _raise):
    """Read files of one size: ``{number: uint8 (H, W)}``, without those that were reported."""
    arrays: dict[int, np.ndarray] = {}
    for number, path in paths.items():
        try:
            pixels = read_png(path, mask)
            if not mask and pixels.size == 1:
                raise BadInput(path, "is a single pixel", "Look at the original")
            if not mask and (as_labels := _as_labels(pixels)):
                raise BadInput(path, f"has grey levels {as_labels} only: a mask, or an image of other units",
                               "Store grey levels 0-255; are image and mask swapped")
            arrays[number] = pixels
        except BadInput as problem:
            report(problem)
    for number in _odd_sizes(paths, {n: array.shape for n, array in arrays.items()}, report):
        del arrays[number]
    return arrays


def _as_labels(pixels: np.ndarray) -> str:
    """The grey levels of an image that looks like a mask, as stored or stretched for viewing; else nothing."""
    if 0 < pixels.max() <= 3:
        return "0-3"
    levels = np.flatnonzero(np.bincount(pixels.ravel()))
    return ", ".join(map(str, levels)) if len(levels) > 2 and {*levels} <= STRETCHED else ""


def _odd_sizes(paths: dict[int, Path], shapes: dict[int, tuple], report: Report) -> list[int]:
    """Report the files that are not of the usual size; returns their numbers."""
    usual = max(Counter(shapes.values()).items(), key=lambda item: item[1], default=(None, 0))[0]
    odd = [number for number, shape in shapes.items() if shape != usual]
    for number in odd:
        report(other_size(paths[number], shapes[number], usual))
    return odd


def other_size(path: Path, shape, usual) -> BadInput:
    """The complaint about a file of another size (H, W) than is usual."""
    found, expected = (f"{width} x {height}" for height, width in (shape, usual))
    return BadInput(path, f"is {found} pixels, expected {expected} like the others",
                    "Crop or pad all slices to one size")


def read_images(folder, report: Report = _raise) -> Slices:
    """All images ``cmrN.png`` of one folder, without masks, ordered by N."""
    paths = list_pngs(Path(folder), report=report)
    images = read_pngs(paths, report=report)
    return _slices({n: paths[n] for n in images}, images, None, report)


def check_images(folder) -> dict[int, Path]:
    """The files ``cmrN.png`` of a folder, each read once and found whole, all of one size; nothing is kept.

    Raises:
        BadInput: as :func:`read_images`.
    """
    paths = list_pngs(Path(folder))
    shapes = {number: read_pngs({number: path})[number].shape for number, path in paths.items()}
    _odd_sizes(paths, shapes, _raise)
    return paths


def read_masks(folder) -> dict[str, np.ndarray]:
    """All masks of one folder: ``{"cmr7": uint8 (H, W), ...}``, ordered by number."""
    paths = list_pngs(Path(folder), mask=True)
    masks = read_pngs(paths, mask=True)
    return {f"cmr{number}": masks[number] for number in masks}


def read_split(root, split: str, report: Report = _raise) -> Slices:
    """One split of a data root: its images and, except for the test split, their masks.

    Raises:
        BadInput: anything wrong with the folder, an image without its mask or a mask without image.
            With another ``report`` the healthy pairs are returned.
    """
    folder = Path(root) / split
    if split == "test":
        return read_images(folder / "image", report)
    paths = list_pngs(folder / "image", report=report)
    mask_paths = list_pngs(folder / "mask", mask=True, report=report)
    for number in paths.keys() - mask_paths.keys() if mask_paths else ():
        report(BadInput(paths[number], "has no mask", f"Put cmr{number}_mask.png into the folder "
                        "mask beside image, or remove the image"))
    for number in mask_paths.keys() - paths.keys() if paths else ():
        report(BadInput(mask_paths[number], "has no image", f"Put cmr{number}.png into the folder "
                        "image beside mask, or remove the mask"))
    images, masks = read_pngs(paths, report=report), read_pngs(mask_paths, True, report)
    both = [number for number in images if number in masks]
    for number in [n for n in both if images[n].shape != masks[n].shape]:
        report(other_size(mask_paths[number], masks[number].shape, images[number].shape))
        both.remove(number)
    return _slices({n: paths[n] for n in both}, images, masks, report)


def _slices(paths: dict[int, Path], images: dict, masks: dict | None, report: Report) -> Slices:
    empty = np.zeros((0, 0, 0), np.uint8)
    try:
        patients = patients_of(paths)
    except BadInput as problem:  # of patients.csv
        report(problem)
        patients = np.array(list(paths), dtype=np.int64)
    return Slices(
        np.stack([images[n] for n in paths]) if paths else empty,
        None if masks is None else np.stack([masks[n] for n in paths]) if paths else empty,
        tuple(path.stem for path in paths.values()),
        patients,
    )


def read_text(path: Path) -> str:
    """The text of a file that is never long: a table of patients, a configuration, a record.

    Raises:
        OSError: no such file; or a pipe, a device or a folder, which one could read forever.
        ValueError: not UTF-8, or over 16 MB.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a plain file")
    with path.open("rb") as file:
        content = file.read(2**24 + 1)
    if len(content) > 2**24:
        raise ValueError("over 16 MB")
    return content.decode("utf-8-sig")


# --- patients and folds --------------------------------------------------------------------------


@lru_cache
def acdc96_hashes() -> dict[str, str]:
    """SHA-256 of every file of the real data set: ``{"train/image/cmr1.png": "...", ...}``."""
    lines = files("cmrseg").joinpath("acdc96.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def patients_of(paths: dict[int, Path]) -> np.ndarray:
    """The patient of each file, int64 (N,).

    In the real set images 2k-1 and 2k are patient k; we know the set by the hashes of most of its files. Elsewhere a
    ``patients.csv`` (columns image, patient) in the folder or above it says so; without one, each
    image is its own patient. A data root may have a table for each split: who has one name in two of them
    has one number, and an image of a split without a table is none of the patients of the others.
    """
    if not paths:
        return np.zeros(0, np.int64)
    known = set(acdc96_hashes().values())
    if sum(path.is_file() and _sha256(path) in known for path in paths.values()) > len(paths) / 2:
        return np.array([(number + 1) // 2 for number in paths], dtype=np.int64)
    folder = next(iter(paths.values())).parent
    table = next((place / TABLE for place in (folder, folder.parent, folder.parent.parent)
                  if os.path.lexists(place / TABLE)), None)
    tables = {table} - {None}
    if folder.parent.name in SPLITS:
        places = (folder.parent.parent / split / kind for split in ("", *SPLITS) for kind in ("", "image", "mask"))
        tables |= {place / TABLE for place in places if os.path.lexists(place / TABLE)}
    people = _numbers({who for each in sorted(tables) for who in _read_table(each).values()})
    if table is None:
        return np.array(list(paths), dtype=np.int64) + max(people.values(), default=0)
    patient = _read_table(table)
    if gone := [p for p in paths.values() if p.stem.removesuffix("_mask") not in patient]:
        raise BadInput(table, f"has no entry {gone[0].stem.removesuffix('_mask')!r}", COLUMNS)
    return np.array([people[patient[p.stem.removesuffix("_mask")]] for p in paths.values()], dtype=np.int64)


def _numbers(people: set[str]) -> dict[str, int]:
    """A number for each patient: its name, if all names are numbers, else its place in their order."""
    if all(re.fullmatch("[0-9]{1,18}", who) for who in people):
        return {who: int(who) for who in people}
    return {who: n for n, who in enumerate(sorted(people), start=1)}


TABLE = "patients.csv"
COLUMNS = "It needs the columns image,patient: cmr1,1"


def _read_table(table: Path) -> dict[str, str]:
    """Who each image of a ``patients.csv`` is of: ``{"cmr1": "P-017", ...}``."""
    patient: dict[str, str] = {}
    try:
        rows = [(Path(row["image"]).stem, row["patient"].strip())
                for row in csv.DictReader(io.StringIO(read_text(table), newline=""))]
    except KeyError as missing:
        raise BadInput(table, f"has no entry {missing}", COLUMNS) from None
    except PermissionError:
        raise not_allowed(table) from None
    except (OSError, ValueError, TypeError, AttributeError, csv.Error):
        raise BadInput(table, "is not a table of images and patients", COLUMNS) from None
    for image, who in rows:
        if not who or patient.setdefault(image, who) != who:
            said = f"gives {image} two patients, {patient[image]} and {who}" if who else (
                f"gives {image} no patient")
            raise BadInput(table, said, "Keep one line for each image")
    return patient


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folds(slices: Slices) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five pairs (training positions, held-out positions); patient p is held out in fold p % 5."""
    fold = slices.patients % FOLDS
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]


def split(source: str | Path, name: str) -> tuple[Slices, Slices]:
    """Training and held-out slices of a source.

    Args:
        source: see the module.
        name: ``"val"``: the report's split, 100 and 20 slices; ``"fold0"`` .. ``"fold4"``: all 60
            labelled patients, a fifth held out; ``"train-fold0"`` ..: the same within the training
            split only; ``"inner0"`` ..: within the training part of a fold, a quarter held out to
            tune on; ``"random0"`` ..: slices dealt out at random whoever they belong to, as one
            should not. ``"fold0@10"``: with ten of the training patients only. ``"fold0+shuffled"``,
            ``"fold0+equalised"``: of slices changed by :mod:`cmrseg.shifts`. ``"from-phantom"``:
            phantoms against all labelled slices; ``"to-phantom"``: the train split against phantoms.

    Raises:
        ValueError: an unknown name.
    """
    if name == "val":
        return load(source, "train"), load(source, "val")
    if name == "from-phantom":
        return more_phantoms(), load(source, "labelled")
    if name == "to-phantom":
        return load(source, "train"), more_phantoms()
    match = re.fullmatch(r"(fold|train-fold|inner|random)([0-4])(?:@(\d+)|\+(\w+))?", name)
    if not match:
        raise ValueError(f"split {name!r}: expected val, or fold, train-fold, inner, random with 0-4")
    slices, k = load(source, "train" if match[1] == "train-fold" else "labelled"), int(match[2])
    if match[4]:
        slices = _changed(slices, match[4])
    if match[1] == "random":
        held_out = np.random.default_rng(0).permutation(len(slices)) % FOLDS == k
    else:
        held_out = slices.patients % FOLDS == k
    if match[1] == "inner":
        slices = slices[~held_out]
        held_out = slices.patients // FOLDS % 4 == 0
    train = slices[~held_out]
    if match[3]:
        some = np.random.default_rng(k).permutation(np.unique(train.patients))[: int(match[3])]
        train = train[np.isin(train.patients, some)]
    if not len(train) or not held_out.any():
        raise BadInput(source, f"has nobody to {'hold out' if len(train) else 'learn from'} in {name}",
                       f"Patients are dealt into {FOLDS} folds by their numbers: more of them are needed")
    return train, slices[held_out]


def _changed(slices: Slices, how: str) -> Slices:
    from cmrseg.shifts import CHANGES

    if how not in CHANGES:
        raise ValueError(f"slices cannot be {how!r}: expected {' or '.join(CHANGES)}")
    return CHANGES[how](slices)


@lru_cache(maxsize=1)
def more_phantoms(patients: int = 200) -> Slices:
    """Phantoms to learn from, none of them among those of the source ``"phantom"``."""
    from cmrseg import phantom

    images, masks = phantom.make(seed=1, patients=patients)
    names = tuple(f"cmr{n + 1}" for n in range(len(images)))
    return Slices(images, masks, names, np.arange(len(images), dtype=np.int64) // 2 + 1)


# --- sources -------------------------------------------------------------------------------------


@lru_cache
def is_acdc96(source: str) -> bool:
    """Whether a source is the real slices, by its name or its first picture: their licence is to stand beside
    what is shown."""
    picture = next(iter(sorted(Path(source).glob("*/image/*.png"))), None)
    known = acdc96_hashes().values()
    return os.path.basename(source.rstrip("/")) == "acdc96" or (picture is not None and _sha256(picture) in known)


def source() -> str:
    """The data source this process should use: ``CMRSEG_DATA``, by default ``"phantom"``."""
    return os.environ.get("CMRSEG_DATA") or "phantom"


def load(source: str | Path, split: str) -> Slices:
    """One split (``"train"``, ``"val"``, ``"test"``) or ``"labelled"`` (train and val together).

    Raises:
        BadInput: the source does not exist or something in it is wrong.
    """
    if split == "labelled":
        return load(source, "train") + load(source, "val")
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)} or labelled")
    if str(source) == "phantom":
        return _phantom(split)
    root = home() / "acdc96" if str(source) == "acdc96" else Path(source)
    if not root.is_dir():
        cure = ("Fetch it: python -m cmrseg data --source acdc96" if str(source) == "acdc96"
                else "Give phantom, acdc96 or a folder with train/ and val/ in it")
        raise BadInput(root, "no such data", cure)
    if str(source) == "acdc96" and (gone := [name for name in acdc96_hashes() if not (root / name).is_file()]):
        raise BadInput(root / gone[0], f"is missing, one of {len(gone)}",
                       "Fetch the rest: python -m cmrseg data --source acdc96")
    return read_split(root, split)


def _phantom(split: str) -> Slices:
    images, masks = _phantoms()
    start, stop = {"train": (0, 100), "val": (100, 120), "test": (120, 200)}[split]
    names = tuple(f"cmr{n + 1}" for n in range(start, stop))
    patients = np.arange(start, stop, dtype=np.int64) // 2 + 1
    labels = None if split == "test" else masks[start:stop].copy()
    return Slices(images[start:stop].copy(), labels, names, patients)


@lru_cache(maxsize=1)
def _phantoms() -> tuple[np.ndarray, np.ndarray]:
    from cmrseg import phantom

    return phantom.make()


def home() -> Path:
    """Where fetched data sets lie: ``data/`` beside the package's checkout, else in the cwd."""
    checkout = Path(__file__).resolve().parents[1]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"


# --- writing -------------------------------------------------------------------------------------


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as problem:
        raise OSError(problem.errno, problem.strerror, str(path)) from None  # a full disk names no file
    finally:
        with suppress(OSError):
            temporary.unlink()


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels, dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W) as an 8-bit grey PNG."""
    write_bytes(path, _png(pixels))


def write_root(out: Path, source: str = "phantom") -> None:
    """Write a source as a data root that :func:`load` reads back the same, with its patients.

    Raises:
        BadInput: a file that is there already and holds something else; nothing is written then.
    """
    write_slices(out, {split: load(source, split) for split in SPLITS})


def write_slices(out: Path, splits: dict[str, Slices]) -> None:
    """Write slices as the splits of a data root, with their patients; see :func:`write_root`."""
    files, rows = {}, ["image,patient"]
    for split, slices in splits.items():
        for i, name in enumerate(slices.names):
            files[out / split / "image" / f"{name}.png"] = _png(slices.images[i])
            if slices.masks is not None:
                files[out / split / "mask" / f"{name}_mask.png"] = _png(slices.masks[i])
            rows.append(f"{name},{slices.patients[i]}")
    files[out / TABLE] = ("\n".join(rows) + "\n").encode()
    for path, content in files.items():
        if path.exists() and path.read_bytes() != content:
            raise _taken(path)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)


def _is_another_slice(path: Path, digest: str) -> bool:
    """Whether a sound picture lies there that is not the expected one; a torn one may be replaced."""
    try:
        read_png(path)
    except BadInput:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() != digest


def _taken(path: Path) -> BadInput:
    return BadInput(path, "is there already and is another file", "Choose an empty --out, or remove it")


def fetch(out: Path | None = None, progress: bool = True) -> Path:
    """Download the real slices into ``out`` (by default ``data/acdc96``), each file checked.

    Files already there with the right hash are not downloaded again. ``CMRSEG_DATA_URL`` replaces
    the base address, for mirrors and tests.

    Raises:
        BadInput: a file that is missing at the source, or arrives torn or changed; or another file
            in the place of one of them.
    """
    import pooch
    from requests.exceptions import ConnectionError, ConnectTimeout, RequestException
    from tqdm import tqdm

    out = home() / "acdc96" if out is None else Path(out)
    base = os.environ.get("CMRSEG_DATA_URL", ACDC96_URL).rstrip("/") + "/"
    pooch.get_logger().setLevel("ERROR")
    for name, digest in tqdm(acdc96_hashes().items(), "acdc96", unit="file", disable=not progress):
        target = out / name
        if _is_another_slice(target, digest):
            raise _taken(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            pooch.retrieve(base + name, f"sha256:{digest}", fname=target.name, path=target.parent)
        except ValueError as error:
            if "protocol" in str(error):
                raise BadInput(base, "is not an address", "Set CMRSEG_DATA_URL to http://...") from None
            raise BadInput(base + name, "arrived torn or changed (its SHA-256 differs)",
                           "Try again; if it stays, the source has changed: use a mirror by "
                           "CMRSEG_DATA_URL") from None
        except RequestException as error:
            status = getattr(error.response, "status_code", None)
            problem = (f"the server answered {status}" if status else
                       "the server cannot be reached" if isinstance(error, (ConnectTimeout, ConnectionError))
                       else "the download broke off")
            raise BadInput(base + name, problem, "Check the network, or set CMRSEG_DATA_URL to a "
                           "mirror; files already fetched are kept") from None
    return out
