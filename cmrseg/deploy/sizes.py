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


def warning(model: str, shape: tuple[int, int]) -> str | None:
    """A word on slices (H, W) of quite another size than a network knows, or None."""
    note = read_size(model)
    if note is None or 1 / BEYOND <= max(shape) / max(note["pixels"]) <= BEYOND:
        return None
    height, width = note["pixels"]
    known = f"{width} x {height}" + (f" of {mm} mm" if (mm := note["spacing_mm"]) else "")
    said = f"the slices have {shape[1]} x {shape[0]} pixels, {model} knows {known}: expect worse"
    return f"{said}. Add --resize if they show as much of the body; else crop or resample them"


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
