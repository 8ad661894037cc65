"""Data sets: where slices come from. Three kinds of *source* name one:

- ``"phantom"``: synthetic slices made in memory by :mod:`cmrseg.datasets.phantom`;
- ``"acdc96"``: the real slices of the 2020 report, put into ``data/acdc96`` by
  :func:`cmrseg.datasets.acdc.fetch`;
- a path: any folder in the layout of :mod:`cmrseg.datasets.folders`.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from cmrseg.data import FOLDS, SPLITS, BadInput, Slices
from cmrseg.datasets import acdc
from cmrseg.datasets.folders import patients_of, read_split, write_slices

PATIENTS = 100  # of the real slices; those of number 2k - 1 and 2k are of patient k


def source() -> str:
    """The data source this process should use: ``CMRSEG_DATA``, by default ``"phantom"``."""
    return os.environ.get("CMRSEG_DATA") or "phantom"


def home() -> Path:
    """Where fetched data sets lie: ``data/`` beside the package's checkout, else in the cwd."""
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()) / "data"


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
    if str(source) == "acdc96":
        return read_split(_whole_acdc96(), split, known_patients)
    if not Path(source).is_dir():
        cure = "Give phantom, acdc96 or a folder with train/ and val/ in it"
        raise BadInput(Path(source), "no such data", cure)
    return read_split(source, split, known_patients)


def _whole_acdc96() -> Path:
    """The folder of the real slices, all of which must be there."""
    root = home() / "acdc96"
    cure = "python -m cmrseg data --source acdc96"
    if not root.is_dir():
        raise BadInput(root, "no such data", f"Fetch it: {cure}")
    if missing := [name for name in acdc.acdc96_hashes() if not (root / name).is_file()]:
        problem = f"is missing, one of {len(missing)}"
        raise BadInput(root / missing[0], problem, f"Fetch the rest: {cure}")
    return root


def known_patients(paths: dict[int, Path]) -> np.ndarray:
    """The patient of each file, int64 (N,): as a ``patients.csv`` says, see :func:`patients_of`.

    Without one, real slices are known by their hashes, whatever their numbers are here, and others
    beside them are none of their patients. One that was altered in its place stays where it was,
    if most about it are as they were.
    """
    return patients_of(paths, _patients_by_hash)


def _patients_by_hash(paths: dict[int, Path]) -> list[int]:
    known = {n: number for n, path in paths.items() if (number := acdc.number(path))}
    in_place = len(known) > len(paths) / 2 and all(n == number for n, number in known.items())
    if in_place and max(paths) <= 2 * PATIENTS:
        return [(n + 1) // 2 for n in paths]
    place = next(iter(paths.values())).parent
    root = place.parent.parent if place.parent.name in SPLITS else place  # a split, or alone
    beside = root.glob(f"*/{place.name}/*.png")
    others = PATIENTS if known or any(acdc.number(path) for path in beside) else 0
    return [(known[n] + 1) // 2 if n in known else n + others for n in paths]


def _phantom(split: str) -> Slices:
    images, masks = _phantoms()
    part = {"train": slice(0, 100), "val": slice(100, 120), "test": slice(120, 200)}[split]
    numbers = np.arange(200, dtype=np.int64)[part] + 1
    labels = None if split == "test" else masks[part].copy()
    names = tuple(f"cmr{number}" for number in numbers)
    return Slices(images[part].copy(), labels, names, (numbers + 1) // 2)


@lru_cache(maxsize=1)
def _phantoms() -> tuple[np.ndarray, np.ndarray]:
    from cmrseg.datasets import phantom

    return phantom.make()


def folds(slices: Slices) -> list[tuple[np.ndarray, np.ndarray]]:
    """Five pairs (training positions, held-out positions); patient p is held out in fold p % 5."""
    fold = slices.patients % FOLDS
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]


def split(source: str | Path, name: str) -> tuple[Slices, Slices]:
    """Training and held-out slices of a source.

    Args:
        source: see the module.
        name: ``"val"``: the report's split, 100 and 20 slices; ``"fold0"`` .. ``"fold4"``: all
            labelled patients, a fifth held out.

    Raises:
        ValueError: an unknown name.
        BadInput: nobody to learn from, or nobody to hold out.
    """
    if name == "val":
        return load(source, "train"), load(source, "val")
    if name not in [f"fold{k}" for k in range(FOLDS)]:
        raise ValueError(f"split {name!r}: expected val, or fold with 0-4")
    slices = load(source, "labelled")
    return hold_out(slices, slices.patients % FOLDS == int(name[4:]), source, name)


def hold_out(
    slices: Slices, held_out: np.ndarray, source: str | Path, name: str
) -> tuple[Slices, Slices]:
    """Slices in two parts, by a boolean mask (N,); neither may be empty.

    Args:
        source, name: of the data and of the split, for the message.

    Raises:
        BadInput: one of the parts is empty.
    """
    if held_out.all() or not held_out.any():
        lack = "learn from" if held_out.all() else "hold out"
        cure = f"Patients are dealt into {FOLDS} folds by their numbers: more of them are needed"
        raise BadInput(source, f"has nobody to {lack} in {name}", cure)
    return slices[~held_out], slices[held_out]


def write_root(out: Path, source: str = "phantom") -> None:
    """Write a source as a data root that :func:`load` reads back the same, with its patients.

    Raises:
        BadInput: a file that is there already and holds something else; nothing is written then.
    """
    write_slices(out, {split: load(source, split) for split in SPLITS})
