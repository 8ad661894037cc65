"""The size of slices that a network knows: a note beside its weights, and slices of other sizes.

Beside ``x.safetensors`` or ``x.onnx`` lies ``x.size.json``: ``{"pixels": [96, 96], "spacing_mm":
1.8}``, height and width, and the millimetres of a pixel or null.
"""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cmrseg.data import BadInput, read_text, write_text
from cmrseg.deploy.weights import DELIVERED, WEIGHTS

BEYOND = 1.3  # times as large or small, hearts are drawn noticeably worse


def write_size(weights: Path, pixels: tuple[int, int], spacing_mm: float | None = None) -> None:
    """Note the size (H, W) of the slices that a file of weights has learned from."""
    note = {"pixels": list(pixels), "spacing_mm": spacing_mm}
    write_text(weights.with_suffix(".size.json"), json.dumps(note) + "\n")


def read_size(model: str) -> dict | None:
    """The note beside the weights that ``predict --model`` names, or None.

    Raises:
        BadInput: a note that says no size.
    """
    file = WEIGHTS / model if model in DELIVERED else Path(model)
    path = (file / "model" if file.is_dir() else file).with_suffix(".size.json")
    if not path.exists():
        return None
    try:
        note = json.loads(read_text(path))
        if min(note["pixels"]) > 0 and len(note["pixels"]) == 2 and "spacing_mm" in note:
            return note
    except (ValueError, TypeError, LookupError):
        pass
    raise BadInput(path, "does not say the size of slices", "Copy it again")


def warning(model: str, shape: tuple[int, int], mm: float | None, resize: bool) -> str | None:
    """A word on slices of quite another size than a network knows, or None.

    Args:
        model: what ``predict --model`` names.
        shape: their height and width in pixels.
        mm: millimetres of their pixels, where known.
        resize: whether :func:`resized` brings them to the size that the network knows.
    """
    if (note := read_size(model)) is None:
        return f"nothing says which size of slices {model} knows: no .size.json lies beside it"
    (height, width), known_mm = note["pixels"], note["spacing_mm"]
    factor = max(shape) / max(height, width)
    known = f"{width} x {height}" + (f" of {known_mm} mm" if known_mm else "")
    if not resize and not 1 / BEYOND <= factor <= BEYOND:
        problem = f"the slices have {shape[1]} x {shape[0]} pixels, {model} knows {known}"
        cure = "Add --resize if they show as much of the body; else crop or resample them"
        return f"{problem}: expect worse. {cure}"
    shown_mm = mm and mm * (factor if resize else 1)
    if known_mm and shown_mm and not 1 / BEYOND <= shown_mm / known_mm <= BEYOND:
        problem = f"{model} would see pixels of {shown_mm:.3g} mm, it knows {known}: expect worse"
        return f"{problem}. Resample the slices, or convert with --spacing {known_mm}"
    return None


def resized(network: Callable, model: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function of images that shows them to a network at the size it knows, by the longer side.

    Raises:
        BadInput: nothing says which size that is.
    """
    if (note := read_size(model)) is None:
        raise BadInput(model, "has no .size.json beside it", "Resize the slices yourself")

    def predict(images: np.ndarray) -> np.ndarray:
        scale, full = max(note["pixels"]) / max(images.shape[1:]), images.shape[:0:-1]
        small = [max(1, int(side * scale + 0.5)) for side in full]
        there, back = (cv2.INTER_AREA, cv2.INTER_LINEAR)[:: 1 if scale < 1 else -1]
        masks = network(np.stack([cv2.resize(i, small, interpolation=there) for i in images]))
        classes = (masks[..., None] == np.arange(4)).astype(np.float32)  # the strongest wins
        shares = [cv2.resize(mask, full, interpolation=back) for mask in classes]
        return np.argmax(shares, -1).astype(np.uint8)

    return predict
