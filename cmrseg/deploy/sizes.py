"""The size of slices that a network knows, in a small file beside its weights, and other sizes.

A network knows hearts of the size at which it has seen them. The file beside ``x.safetensors`` or
``x.onnx`` is ``x.size.json``: ``{"pixels": [96, 96], "spacing_mm": 1.8}``, sides as height, width;
the millimetres of a pixel are null where nobody knows them.
"""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cmrseg.data import BadInput, read_text, write_text
from cmrseg.deploy.weights import DELIVERED, WEIGHTS

BEYOND = 1.3  # times as large or small a network draws noticeably worse
Network = Callable[[np.ndarray], np.ndarray]  # images uint8 (N, H, W) -> label maps uint8


def write_size(weights: Path, pixels: tuple[int, int], spacing_mm: float | None = None) -> None:
    """Note the size (H, W) of the slices that a file of weights has learned from."""
    note = {"pixels": [int(side) for side in pixels], "spacing_mm": spacing_mm}
    write_text(weights.with_suffix(".size.json"), json.dumps(note) + "\n")


def read_size(model: str) -> dict | None:
    """What is noted beside the weights that ``predict --model`` names, or None.

    Raises:
        BadInput: a note that says no size.
    """
    file = WEIGHTS / model if model in DELIVERED else Path(model)
    path = (file / "model" if file.is_dir() else file).with_suffix(".size.json")
    try:
        note = json.loads(read_text(path))
        height, width = note["pixels"]
        if not (0 < height < 10**6 and 0 < width < 10**6):
            raise ValueError("no size")
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError, RecursionError):
        raise BadInput(path, "does not say the size of slices", "Restore it") from None
    return {"pixels": (height, width), "spacing_mm": note.get("spacing_mm")}


def warning(model: str, shape: tuple[int, int]) -> str | None:
    """A word on slices (H, W) of quite another size than a network knows, or None."""
    note = read_size(model)
    if note is None or 1 / BEYOND <= max(shape) / max(note["pixels"]) <= BEYOND:
        return None
    known = f"{note['pixels'][1]} x {note['pixels'][0]}"
    known += f" of {note['spacing_mm']} mm" if note["spacing_mm"] else ""
    return (
        f"the slices have {shape[1]} x {shape[0]} pixels; {model} knows {known}, and draws worse "
        "where hearts are larger or smaller. Add --resize if the slices show as much of the body "
        "as those did; else crop or resample them"
    )


def resized(network: Network, model: str) -> Network:
    """A network that sees slices at the size it knows, by their longer side.

    Raises:
        BadInput: nothing says which size that is.
    """
    if (note := read_size(model)) is None:
        cure = "Give --model a network with a .size.json beside its weights, or resize the slices"
        raise BadInput(model, "does not say which size it knows", cure)

    def predict(images: np.ndarray) -> np.ndarray:
        height, width = images.shape[1:]
        scale = max(note["pixels"]) / max(height, width)
        size = [max(1, int(side * scale + 0.5)) for side in (width, height)]
        there, back = (cv2.INTER_AREA, cv2.INTER_LINEAR)[:: 1 if scale < 1 else -1]
        masks = network(
            np.stack([cv2.resize(image, size, interpolation=there) for image in images])
        )
        shares = [  # of each class as of a picture of its own; the strongest wins
            [
                cv2.resize(np.float32(mask == c), (width, height), interpolation=back)
                for c in range(4)
            ]
            for mask in masks
        ]
        return np.argmax(shares, 1).astype(np.uint8)

    return predict
