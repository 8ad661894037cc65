"""What a training leaves on the disk: a checkpoint after each epoch, and the finished network."""

import io
import json
import struct
import sys
import zipfile
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from tqdm import tqdm

from cmrseg.augment import normalise
from cmrseg.config import TrainConfig, TrainingResult
from cmrseg.data import BadInput, not_allowed, read_text, write_bytes, write_text
from cmrseg.machine import in_short, trouble
from cmrseg.models import build
from cmrseg.postprocess import PROBE_IMAGE
from cmrseg.predict import probabilities

MODEL, CONFIG, CHECKPOINT = "model.safetensors", "config.json", "checkpoint.pt"


# --- a training that is not finished -------------------------------------------------------------


class TrainingState(NamedTuple):
    """The state of a training between two epochs: everything that the next one depends on.

    Attributes:
        result: what the training has led to so far; its ``model`` is the average of the weights if
            ``config.ema`` asks for one, else ``model`` itself.
        model: the network that is trained.
        optimiser: its optimiser.
        rng: the generator of the order of slices and of the augmentation.
        slices: fingerprints of the slices trained on and of those held out.
    """

    result: TrainingResult
    model: nn.Module
    optimiser: torch.optim.Optimizer
    rng: torch.Generator
    slices: list[str]


def save_checkpoint(path: Path, state: TrainingState) -> None:
    """Write the state of a training, whole or not at all."""
    result, model, optimiser, rng, slices = state
    checkpoint = {
        "config": asdict(result.config),
        "slices": slices,
        "machine": _machine(),
        "history": result.history,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "precision": result.precision,
        "model": model.state_dict(),
        "ema_model": result.model.state_dict() if result.config.ema else None,
        "optimiser": optimiser.state_dict(),
        "rng": rng.get_state(),
        "rng_global": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state() if result.device == "cuda" else None,
    }
    file = io.BytesIO()
    torch.save(checkpoint, file)
    write_bytes(path, file.getvalue())


def load_checkpoint(path: Path, state: TrainingState) -> None:
    """Put back what :func:`save_checkpoint` wrote, on whichever device the state is.

    Raises:
        BadInput: a file that is damaged, or of another configuration or other slices.
        OSError: one that can't be read.
    """
    content = path.read_bytes()
    try:  # PyTorch itself does not look at the checksums
        damaged = bool(zipfile.ZipFile(io.BytesIO(content)).testzip())
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, *_UNFIT):
        damaged = True
    if damaged:
        raise BadInput(path, "is damaged", "Train into another --out, or move it away")
    try:
        checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        require_same(path, TrainConfig.from_dict(checkpoint["config"]), state.result.config)
        if checkpoint["slices"] != state.slices:
            raise BadInput(path, "was made with other slices", "Resume with the same --data")
        before, here = checkpoint["machine"], _machine()
        different = [f"{n} {before[n]}, now {here[n]}" for n in here if before[n] != here[n]]
        asked = state.result.precision
        _restore(checkpoint, state)
    except BadInput:
        raise
    except (*_UNFIT, UnpicklingError) as error:
        if trouble(error):
            raise
        cure = "Go on with the versions of cmrseg and PyTorch that wrote it, or into another --out"
        raise BadInput(path, f"can't be continued ({in_short(error)})", cure) from None
    if different:
        what = f"warning: {path} was made with {'; '.join(different)}"
        why = "the network may differ from that of an uninterrupted training"
        tqdm.write(f"{what}: {why}", file=sys.stderr)
    if (precision := state.result.precision) != asked:
        warning = f"warning: {path} was begun in {precision}, and goes on so, not in {asked}"
        tqdm.write(warning, file=sys.stderr)


def _restore(checkpoint: dict, state: TrainingState) -> None:
    result, model, optimiser, rng, _ = state
    epochs, history = len(checkpoint["history"]["epoch"]), checkpoint["history"]
    if epochs > result.config.epochs or any(len(values) != epochs for values in history.values()):
        raise ValueError("a history with gaps, or longer than was asked for")
    model.load_state_dict(checkpoint["model"])
    if result.config.ema:
        result.model.load_state_dict(checkpoint["ema_model"])
    optimiser.load_state_dict(checkpoint["optimiser"])
    rng.set_state(checkpoint["rng"])
    torch.set_rng_state(checkpoint["rng_global"])
    if result.device == "cuda" and checkpoint["rng_cuda"] is not None:
        torch.cuda.set_rng_state(checkpoint["rng_cuda"])
    for name in ("history", "seconds", "cpu_seconds", "precision"):
        setattr(result, name, checkpoint[name])


def _machine() -> dict:
    """Threads and PyTorch's version: not in the configuration, but they change the rounding."""
    return {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}


# How contents show that are not those of a training, or not of one of this version.
_UNFIT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError)


# --- a finished network --------------------------------------------------------------------------


def save(result: TrainingResult, out: Path) -> None:
    """Write ``model.safetensors`` and ``config.json`` into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CONFIG, json.dumps(asdict(result.config), indent=1) + "\n")
    # Last, since where it lies the run is finished.
    save_tensors(out / MODEL, result.model.state_dict(), {})


def load(folder: Path) -> TrainingResult:
    """The network that :func:`save` wrote, in evaluation mode.

    Raises:
        BadInput: no such run, or damaged files.
        OSError: files that can't be read.
    """
    if not folder.is_dir():
        raise BadInput(
            folder, "no such run", "Give final, small, or a folder that train --out made"
        )
    config = read_config(folder / CONFIG)
    if not (folder / MODEL).is_file():
        cure = "The training has not finished: continue it with train --resume"
        raise BadInput(folder / MODEL, "no such file", cure)
    content = (folder / MODEL).read_bytes()
    try:
        model = model_from_state(config, from_bytes(content))
    except SafetensorError:
        raise BadInput(folder / MODEL, "is damaged", "Copy the whole folder again") from None
    except _UNFIT as error:
        if trouble(error):
            raise
        problem = f"does not fit its {CONFIG} ({in_short(error)})"
        raise BadInput(folder / MODEL, problem, "Copy the whole folder again") from None
    if not is_finite_output(model, config.scale):
        raise BadInput(
            folder / MODEL,
            "holds weights that are no numbers, or lead to none",
            "Train into another --out",
        )
    return TrainingResult(model, config)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that appears whole or not at all."""
    write_bytes(
        path,
        to_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata),
    )


def model_from_state(config: TrainConfig, tensors: dict[str, Tensor]) -> nn.Module:
    """The network of a configuration with these weights, in single precision and evaluation mode.

    Raises:
        ValueError, TypeError, IndexError, RuntimeError: a configuration of no network, or of
            another.
    """
    normalise(PROBE_IMAGE, config.scale)  # a scale that we know
    if max(config.convolutions, len(config.channels)) > len(tensors):
        raise ValueError("more layers than weights")  # before they are built, one by one
    with torch.device("meta"):  # no memory for what asks for too much, nor for a first draw
        model = build(config)
    expected = model.state_dict()
    if any(
        t.is_floating_point() != tensors.get(name, t).is_floating_point()
        for name, t in expected.items()
    ):
        raise ValueError("weights that are whole or complex numbers")
    model.load_state_dict(tensors, assign=True)
    return model.float().eval()


def is_finite(model: nn.Module) -> bool:
    """Whether all weights and statistics of a network are numbers."""
    return all(torch.isfinite(t).all().item() for t in model.state_dict().values())


def is_finite_output(model: nn.Module, scale: str) -> bool:
    """Whether the weights of a network are numbers, and so is its answer to a probe image."""
    return is_finite(model) and bool(np.isfinite(probabilities(model, PROBE_IMAGE, scale)).all())


def read_config(path: Path) -> TrainConfig:
    """The configuration in a ``config.json``.

    Raises:
        BadInput: a missing or damaged file.
    """
    try:
        return TrainConfig.from_dict(json.loads(read_text(path)))
    except FileNotFoundError:
        raise BadInput(path, "no such file", "Give the folder that train --out made") from None
    except PermissionError:
        raise not_allowed(path) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        cure = "Copy the whole folder again"
        raise BadInput(path, f"is not a configuration ({error})", cure) from None


def require_same(path: Path, config: TrainConfig, asked: TrainConfig) -> None:
    """Check that a run was made with the configuration that is asked for.

    Raises:
        BadInput: it was not; the message names the fields that differ.
    """
    different = [
        f.name for f in fields(config) if getattr(config, f.name) != getattr(asked, f.name)
    ]
    if different:
        cure = "Resume with the same options, or train into another --out"
        raise BadInput(path, f"was made with different {', '.join(different)}", cure)
