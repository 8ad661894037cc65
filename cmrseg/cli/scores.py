"""What ``evaluate`` needs to know of slices, and how it shows scores."""

import numpy as np

from cmrseg.data import BadInput
from cmrseg.datasets.folders import entries


def spacing(paths: dict, asked: float | None) -> np.ndarray | None:
    """Millimetres of a pixel of each slice (N,): as asked, or from spacing.csv; or None.

    Raises:
        BadInput: the table holds other than positive numbers below 1000.
    """
    if (values := [asked] * len(paths) if asked else entries(paths, "spacing.csv")) is None:
        return None
    try:
        mm = np.array(values, dtype=float)
    except ValueError:
        mm = np.zeros(1)
    if not ((mm > 0) & (mm < 1000)).all():
        table = next(iter(paths.values())).parent / "spacing.csv"  # there, or above it
        raise BadInput(table, "gives other than millimetres", "Give each image a number")
    return mm


def volumes(paths: dict, patients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The volume of each slice as a number (N,), by origin.csv, and the first slice of each.

    Raises:
        BadInput: no origin.csv, or one that names no volume of a slice.
    """
    origin = [name.rpartition("_slice")[0] for name in entries(paths, "origin.csv") or [""]]
    if not all(origin):
        cure = "Evaluate against masks that convert wrote, with its origin.csv above them"
        raise BadInput("--by volume", "nothing says which slices are of one volume", cure)
    names = [f"{patient} {name}" for patient, name in zip(patients, origin)]
    return np.unique(names, return_index=True, return_inverse=True)[:0:-1]


def show(summary: dict) -> None:
    """Print Dice with its intervals."""
    for name, dice in summary["dice"].items():
        low, high = summary["interval"][name] or (float("nan"), float("nan"))
        absent = summary["absent"].get(name)
        note = f"   ({absent} left out: in neither mask)" if absent else ""
        value = "in no mask" if dice is None else f"{dice:.4f}  [{low:.4f}, {high:.4f}]"
        print(f"{name:>5}  {value}{note}")
