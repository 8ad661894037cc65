"""Predicting from an ONNX file, without PyTorch, whose import alone takes seconds and memory.

:func:`find` is what the command line asks for a network. Where it names an ONNX file, or one lies in
``weights/`` beside the network it names, onnxruntime does the work; otherwise PyTorch does.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_fill_holes, label

from cmrseg.data import BadInput, write_bytes

DELIVERED = ("final", "small")
WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
SUMS = "SHA256SUMS"
INPUT, OUTPUT, CLEAN = "image", "probability", "clean"  # names in the file
TRIAL = np.arange(32 * 48).astype(np.uint8).reshape(1, 32, 48)  # every network must have an answer to it
Predictor = Callable[[np.ndarray], np.ndarray]  # images uint8 (N, H, W) -> label maps uint8 (N, H, W)


def find(model: str) -> Predictor:
    """The network that ``predict --model`` names, as a function of images that returns label maps.

    Args:
        model: ``final`` or ``small``, a file .safetensors or .onnx, or a folder that ``train`` made.

    Raises:
        BadInput: none of these, damaged, or in need of a library that is not installed.
    """
    file = WEIGHTS / f"{model}.onnx" if model in DELIVERED else Path(model)
    if file.suffix == ".onnx" and (file.is_file() or model not in DELIVERED):
        if find_spec("onnxruntime"):
            return from_onnx(file)
        if model not in DELIVERED:
            raise BadInput(file, "needs onnxruntime", "pip install 'cmrseg[onnx]'")
    from cmrseg import ensemble  # only now: it imports PyTorch

    networks = ensemble.find(model)
    return lambda images: ensemble.predict(networks, images)


def from_onnx(path: Path) -> Predictor:
    """The network of a file that ``export`` wrote, run by onnxruntime on all cores, or as many as OMP_NUM_THREADS says.

    Raises:
        BadInput: no such file, not the bytes that were saved, or not such a network.
    """
    import onnxruntime

    verify(path)
    options = onnxruntime.SessionOptions()
    asked = os.environ.get("OMP_NUM_THREADS", "")  # onnxruntime does not look
    options.intra_op_num_threads = int(asked) if asked.isdecimal() else os.cpu_count() or 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other programs need the cores
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        cleaned = session.get_modelmeta().custom_metadata_map[CLEAN] == "yes"

        def probabilities(images: np.ndarray) -> np.ndarray:
            return session.run([OUTPUT], {INPUT: images[:, None].astype(np.float32)})[0]

        tried = probabilities(TRIAL)
    except MemoryError:
        raise
    except Exception:  # onnxruntime's errors share no class of their own
        raise BadInput(path, "is damaged, or not a network that export wrote", "Export it again") from None
    if tried.shape != (1, 4, 32, 48) or not np.isfinite(tried).all():
        raise BadInput(path, "gives no probabilities of four classes", "Export it again")
    return lambda images: decide(probabilities(images), cleaned)


def decide(probability: np.ndarray, cleaned: bool) -> np.ndarray:
    """The most probable class of each pixel (N, 4, H, W) -> uint8 (N, H, W), see :func:`clean` if wished."""
    masks = probability.argmax(1).astype(np.uint8)
    return np.stack([clean(mask) for mask in masks]) if cleaned else masks


def clean(mask: np.ndarray) -> np.ndarray:
    """A label map (H, W) with one piece of each class, and the cavity nested in the wall.

    Of each class the largest piece stays, the others become background; a wall of one pixel that goes on over a
    corner is one piece. Whatever the myocardium and the left ventricle enclose, and is neither, becomes left
    ventricle.
    """
    cleaned = np.zeros_like(mask)
    for c in (1, 2, 3):
        pieces, _ = label(mask == c, np.ones((3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        if len(sizes):
            cleaned[pieces == 1 + sizes.argmax()] = c
    ring = cleaned >= 2
    cleaned[binary_fill_holes(ring) & ~ring] = 3
    return cleaned


# --- what was delivered is what is run --------------------------------------------------------------


def enlist(path: Path) -> None:
    """Write the checksum of a file into the list ``SHA256SUMS`` beside it."""
    sums = _sums(path.parent) | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    write_bytes(path.parent / SUMS, "".join(f"{s}  {n}\n" for n, s in sorted(sums.items())).encode())


def verify(path: Path) -> None:
    """Complain (BadInput) of a file that is not there, or not as ``SHA256SUMS`` beside it lists it; what was
    delivered must be listed."""
    if not path.is_file():
        raise BadInput(path, "no such file", "Clone the whole repository, or train with the command train")
    expected = _sums(path.parent).get(path.name)
    if expected is None and path.stem in DELIVERED and path.parent.resolve() == WEIGHTS:
        raise BadInput(path.parent / SUMS, f"does not list {path.name}", CURE)
    if expected and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise BadInput(path, f"is not the file that {SUMS} lists", CURE)


CURE = "Restore it: git checkout -- weights, or copy it again"


def _sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, as sha256sum writes them, in text or binary mode."""
    path, sums = folder / SUMS, {}
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        if not (found := LISTED.fullmatch(line)):
            raise BadInput(path, "is not a list that sha256sum wrote", CURE)
        sums[found[2]] = found[1]
    return sums


LISTED = re.compile(r"([0-9a-f]{64}) [ *](.+)")
