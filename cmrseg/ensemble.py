"""Several networks as one: averaged over views of a slice, cleaned up, and kept in one small file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cmrseg import training
from cmrseg.augment import normalise
from cmrseg.data import BadInput
from cmrseg.runtime import CURE, DELIVERED, WEIGHTS, decide, enlist, verify
from cmrseg.training import Run, TrainConfig, save_tensors


@dataclass(frozen=True)
class Ways:
    """How a slice is looked at, and what is done with the answer.

    Attributes:
        turns: degrees by which it is turned; each turn is one view.
        mirror: whether each view is also taken mirrored, left to right.
        clean: whether to keep each class's largest piece and to fill the ring, see :func:`cmrseg.runtime.clean`.
    """

    turns: tuple[float, ...] = (0.0,)
    mirror: bool = False
    clean: bool = False

    @classmethod
    def from_dict(cls, values: dict) -> Ways:
        """The ways that ``dataclasses.asdict`` (and JSON) made ``values`` of; a record says more there.

        Raises:
            ValueError, TypeError, LookupError: no ways to look.
        """
        turns, switches = tuple(values["turns"]), (values["mirror"], values["clean"])
        if not turns or not all(abs(t) <= 360 for t in turns) or {*map(type, switches)} != {bool}:
            raise ValueError("no ways to look")
        return cls(turns, *switches)

    def key(self, trained: str, seeds: Sequence[int], shift: tuple[str, float] | None = None) -> str:
        """Sixteen hex digits for looking in these ways with networks filed under ``trained``, but of
        these seeds, at slices that are shifted."""
        text = json.dumps([asdict(self), trained, list(seeds), shift], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Ensemble:
    """Networks of one configuration, in evaluation mode, and their ways to look."""

    models: list[nn.Module]
    config: TrainConfig
    ways: Ways = field(default_factory=Ways)


@torch.inference_mode()
def probabilities(
    ensemble: Ensemble, images: np.ndarray, batch: int = 20, precision: str = "fp32",
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Mean softmax probabilities float32 (N, 4, H, W) over networks and views, of images uint8 (N, H, W).

    ``progress`` is called with each batch's length.
    """
    parts = []
    for start in range(0, len(images), batch):
        x = normalise(images[start : start + batch], ensemble.config.scale)
        parts.append(look(ensemble, x, precision).numpy())
        if progress is not None:
            progress(len(x))
    return np.concatenate(parts)


def look(ensemble: Ensemble, x: Tensor, precision: str = "fp32") -> Tensor:
    """Mean softmax probabilities (N, 4, H, W) over networks and views, of normalised images (N, 1, H, W)."""
    ways, total = ensemble.ways, 0
    views = list(product(ways.turns, (False, True) if ways.mirror else (False,)))
    for degrees, mirrored in views:
        view = turn(x.flip(-1) if mirrored else x, degrees)
        answers = [training.answer(model, view, precision) for model in ensemble.models]
        answer = turn(torch.stack(answers).mean(0), -degrees)
        total = total + (answer.flip(-1) if mirrored else answer)
    return total / len(views)


def turn(x: Tensor, degrees: float) -> Tensor:
    """(N, C, H, W) turned about its middle, anticlockwise as one looks at it; what comes from outside
    continues the edge."""
    if not degrees:
        return x
    height, width = x.shape[2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    down = (2 * torch.arange(height) + 1 - height).float()[:, None]  # in half pixels from the middle
    right = (2 * torch.arange(width) + 1 - width).float()
    grid = torch.stack([(cos * right - sin * down) / width, (sin * right + cos * down) / height], -1)
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), "bilinear", "border", align_corners=False)


def predict(ensemble: Ensemble, images: np.ndarray, **options) -> np.ndarray:
    """Label maps uint8 (N, H, W) of images uint8 (N, H, W); ``options`` as in :func:`probabilities`."""
    return decide(probabilities(ensemble, images, **options), ensemble.ways.clean)


# --- files ---------------------------------------------------------------------------------------


def find(model: str) -> Ensemble:
    """What ``predict --model`` names: ``final`` or ``small``, a file that :func:`save` wrote, or a folder
    that ``train`` made.

    Raises:
        BadInput: neither, or damaged files.
    """
    if model in DELIVERED:
        return load(WEIGHTS / f"{model}.safetensors")
    if model.endswith(".safetensors") and not Path(model).is_dir():
        return load(Path(model))
    if Path(model).is_file():
        raise BadInput(model, "is not opened: only .safetensors files are, since a pickle (.pt, .pth) can run "
                       "code of its maker's", "Give final, small, or a folder that train --out made")
    run = training.load(Path(model))
    return Ensemble([run.model], run.config)


def save(path: Path, runs: Sequence[Run], ways: Ways) -> None:
    """Write trained networks of one configuration (up to the seed) into one file, in half precision, and
    its checksum into the list ``SHA256SUMS`` beside it.

    Raises:
        ValueError: weights that half precision cannot hold.
    """
    tensors = {f"{number}.{name}": t.half() if t.is_floating_point() else t
               for number, run in enumerate(runs) for name, t in run.model.state_dict().items()}
    if bad := next((n for n, t in tensors.items() if not torch.isfinite(t).all()), None):
        raise ValueError(f"{bad} holds values that are no numbers in half precision")
    path.parent.mkdir(parents=True, exist_ok=True)
    notes = {"config": asdict(runs[0].config), "ways": asdict(ways), "networks": len(runs)}
    save_tensors(path, tensors, {"notes": json.dumps(notes, sort_keys=True)})
    enlist(path)


def load(path: Path) -> Ensemble:
    """The networks that :func:`save` wrote, in single precision.

    Raises:
        BadInput: no such file, not the bytes that were saved, or not an ensemble.
    """
    verify(path)
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = TrainConfig.from_dict(notes["config"])
        ways = Ways.from_dict(notes["ways"])
        models = [training.restored(config, {n.removeprefix(f"{number}."): t for n, t in tensors.items()
                                             if n.startswith(f"{number}.")})
                  for number in range(notes["networks"])]
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, IndexError, OSError):
        raise BadInput(path, "is damaged, or not an ensemble of networks", CURE) from None
    if not models or not all(training.answers(model, config.scale) for model in models):
        raise BadInput(path, "holds no network, or weights that are no numbers or lead to none", CURE)
    return Ensemble(models, config, ways)
