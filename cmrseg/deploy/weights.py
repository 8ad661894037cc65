"""Files of weights, their checksums, and what ``predict --model`` names.

PyTorch, whose import alone takes seconds and memory, is imported only where an ONNX file does not
do.
"""

import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cmrseg.data import BadInput, write_bytes
from cmrseg.deploy.onnx_runner import from_onnx
from cmrseg.machine import in_short, trouble

DELIVERED = ("final", "small")
WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
SUMS = "SHA256SUMS"
CURE = "Copy it again, from where it was made or from the repository"


def find(model: str, device: str = "auto") -> Callable[[np.ndarray], np.ndarray]:
    """The network that ``predict --model`` names: a function of images that returns label maps.

    Where it names an ONNX file, or one lies in ``weights/`` beside the network it names,
    onnxruntime does the work, on the CPU; otherwise PyTorch does.

    Args:
        model: ``final`` or ``small``, a file .safetensors or .onnx, or a folder that ``train``
            made.
        device: ``"cpu"``, ``"cuda"`` (of delivered networks PyTorch does the work then), or
            ``"auto"``: where PyTorch works and finds a GPU, there.

    Raises:
        BadInput: none of these, damaged, or in need of a library that is not installed.
    """
    if device == "cuda" and model in DELIVERED:
        return find_ensemble(model).to(device).predict
    file = WEIGHTS / f"{model}.onnx" if model in DELIVERED else Path(model)
    if file.suffix == ".onnx" and not file.is_dir() and (file.is_file() or model not in DELIVERED):
        if find_spec("onnxruntime"):
            verify(file)
            if device == "cuda":
                raise BadInput(file, "an ONNX file is run on the CPU", "Say --device cpu")
            try:
                return from_onnx(file)
            except BadInput as problem:
                if model not in DELIVERED:
                    raise
                print(f"warning: {problem} PyTorch does it", file=sys.stderr)
        elif model not in DELIVERED:
            raise BadInput(file, "needs onnxruntime", "pip install 'cmrseg[onnx]'")
    return find_ensemble(model).to(device).predict


def find_ensemble(model: str):
    """The :class:`cmrseg.predict.Ensemble` that ``predict --model`` or ``export --model`` names.

    Args:
        model: ``final`` or ``small``, a file that :func:`save_ensemble` wrote, or a folder that
            ``train`` made.

    Raises:
        BadInput: none of these, or damaged files.
    """
    from cmrseg import checkpoint
    from cmrseg.predict import Ensemble

    if model in DELIVERED:
        return load_ensemble(WEIGHTS / f"{model}.safetensors")
    if model.endswith(".safetensors") and not Path(model).is_dir():
        return load_ensemble(Path(model))
    if Path(model).is_file():
        why = "only .onnx and .safetensors are, since a pickle (.pt) can run code of its maker's"
        cure = "Give final, small, a folder that train --out made, or what export wrote as .onnx"
        raise BadInput(model, f"is not opened: {why}", cure)
    result = checkpoint.load(Path(model))
    return Ensemble([result.model], result.config.scale)


def save_ensemble(path: Path, results: Sequence, tta) -> None:
    """Write trained networks of one configuration, up to the seed, in half precision.

    The checksum of the file goes into the list ``SHA256SUMS`` beside it.

    Raises:
        ValueError: weights that half precision cannot hold.
    """
    import torch

    from cmrseg.checkpoint import save_tensors

    tensors = {
        f"{number}.{name}": t.half() if t.is_floating_point() else t
        for number, result in enumerate(results)
        for name, t in result.model.state_dict().items()
    }
    if bad := next((n for n, t in tensors.items() if not torch.isfinite(t).all()), None):
        raise ValueError(f"{bad} holds values that are no numbers in half precision")
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = {"config": asdict(results[0].config), "ways": tta.to_record(), "networks": len(results)}
    save_tensors(path, tensors, {"notes": json.dumps(notes, sort_keys=True)})
    add_checksum(path)


def load_ensemble(path: Path):
    """The :class:`cmrseg.predict.Ensemble` that :func:`save_ensemble` wrote, in single precision.

    Raises:
        BadInput: no such file, not the bytes that were saved, or not an ensemble.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    from cmrseg import checkpoint
    from cmrseg.config import TrainConfig
    from cmrseg.predict import TTA, Ensemble

    verify(path)
    content = path.read_bytes()  # not mapped: then it could not be replaced, on Windows
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        notes = json.loads(header["__metadata__"]["notes"])
        config, tta = TrainConfig.from_dict(notes["config"]), TTA.from_record(notes["ways"])
        states = [{} for _ in range(notes["networks"])]
        for name, tensor in tensors.items():
            number, _, weights = name.partition(".")
            states[int(number)][weights] = tensor
        models = [checkpoint.model_from_state(config, state) for state in states]
    except SafetensorError:
        raise BadInput(path, "is damaged", CURE) from None
    except (RuntimeError, ValueError, TypeError, LookupError, MemoryError) as problem:
        if trouble(problem):
            raise
        reason = f"is not an ensemble of networks ({in_short(problem)})"
        raise BadInput(path, reason, CURE) from None
    if not models or not all(checkpoint.is_finite_output(model, config.scale) for model in models):
        raise BadInput(
            path, "holds no network, or weights that are no numbers or lead to none", CURE
        )
    return Ensemble(models, config.scale, tta)


# --- what was delivered is what is run -----------------------------------------------------------


def add_checksum(path: Path) -> None:
    """Write the checksum of a file into the list ``SHA256SUMS`` beside it."""
    sums = _sums(path.parent) | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    write_bytes(
        path.parent / SUMS, "".join(f"{s}  {n}\n" for n, s in sorted(sums.items())).encode()
    )


def verify(path: Path) -> None:
    """Check a file of weights against the ``SHA256SUMS`` beside it; delivered ones must be listed.

    Raises:
        BadInput: the file is missing, differs from its checksum, or should be listed and is not.
    """
    if not path.is_file():
        raise BadInput(
            path, "no such file", "Clone the whole repository, or train with the command train"
        )
    expected = _sums(path.parent).get(path.name)
    if expected is None and path.stem in DELIVERED and path.parent.resolve() == WEIGHTS:
        raise BadInput(path.parent / SUMS, f"does not list {path.name}", CURE)
    if expected and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise BadInput(path, f"is not the file that {SUMS} lists", CURE)


def _sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256, as sha256sum writes them, in text or binary mode."""
    path, sums = folder / SUMS, {}
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
        if not (listed := re.fullmatch(r"([0-9a-f]{64}) [ *](.+)", line)):
            raise BadInput(path, "is not a list that sha256sum wrote", CURE)
        sums[listed[2]] = listed[1]
    return sums
