"""Predicting: a network's probabilities and label maps, test-time augmentation, and ensembles."""

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import product
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cmrseg.augment import normalise
from cmrseg.postprocess import to_labels


def probabilities(
    model: nn.Module,
    images: np.ndarray,
    scale: str = "zscore",
    batch: int = 20,
    precision: str = "fp32",
) -> np.ndarray:
    """Softmax probabilities float32 (N, 4, H, W) of images uint8 (N, H, W), ``batch`` at a time.

    Sizes that the network cannot halve often enough are padded at the edges and cropped again; a
    coarse output is enlarged to full size.
    """
    return Ensemble([model], scale).probabilities(images, batch, precision)


def predict(model: nn.Module, images: np.ndarray, scale: str = "zscore", **options) -> np.ndarray:
    """Label maps uint8 (N, H, W) of images uint8 (N, H, W): the most probable class of each pixel.

    ``options`` are those of :func:`probabilities`.
    """
    return to_labels(probabilities(model, images, scale, **options), postprocess=False)


def forward_padded(model: nn.Module, x: Tensor, precision: str = "fp32") -> Tensor:
    """Softmax probabilities (N, 4, H, W) of normalised images (N, 1, H, W)."""
    height, width = x.shape[2:]
    x = pad(x, model.multiple).contiguous(memory_format=torch.channels_last)
    with autocast(precision, x.device.type):
        logits = model(x).float()
    if model.stride > 1:
        logits = F.interpolate(logits, scale_factor=model.stride, mode="nearest")
    return logits.softmax(1)[:, :, :height, :width]


def pad(x: Tensor, multiple: int) -> Tensor:
    """Continue (N, C, H, W) at its lower and right edge, up to sizes that ``multiple`` divides."""
    height, width = x.shape[2:]
    return F.pad(x, [0, -width % multiple, 0, -height % multiple], mode="replicate")


def choose_device(name: str) -> str:
    """``"cpu"`` or ``"cuda"`` as asked; for ``"auto"`` the GPU that PyTorch finds, else the CPU."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def autocast(precision: str, device: str = "cpu"):
    """The context in which a network runs in this precision, ``"fp32"`` or ``"bf16"``.

    Raises:
        ValueError: another precision.
    """
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16":
        return torch.autocast(device, dtype=torch.bfloat16)
    raise ValueError(f"precision={precision!r}: expected fp32 or bf16")


# --- several networks, several views -------------------------------------------------------------


@dataclass(frozen=True)
class TTA:
    """Test-time augmentation, and post-processing.

    Attributes:
        rotations: degrees by which a slice is turned; each is one view.
        flip: whether each view is also taken mirrored, left to right.
        postprocess: whether to keep each class's largest piece and to fill the ring, see
            :func:`cmrseg.postprocess.keep_largest_components`.
    """

    rotations: tuple[float, ...] = (0.0,)
    flip: bool = False
    postprocess: bool = False

    def to_record(self) -> dict:
        """These choices as records and files of weights have always called them."""
        return {"turns": self.rotations, "mirror": self.flip, "clean": self.postprocess}

    @classmethod
    def from_record(cls, values: dict) -> Self:
        """The choices that :meth:`to_record` (and JSON) made ``values`` of.

        Raises:
            ValueError, TypeError, LookupError: no such choices.
        """
        rotations, switches = tuple(values["turns"]), (values["mirror"], values["clean"])
        if (
            not rotations
            or not all(abs(r) <= 360 for r in rotations)
            or {*map(type, switches)} != {bool}
        ):
            raise ValueError("not the choices of a test-time augmentation")
        return cls(rotations, *switches)

    def key(
        self, trained: str, seeds: Sequence[int], shift: tuple[str, float] | None = None
    ) -> str:
        """Sixteen hex digits for these choices, with networks filed under ``trained`` but of these
        seeds, on slices that are shifted."""
        text = json.dumps([self.to_record(), trained, list(seeds), shift], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class Ensemble:
    """Networks that are averaged.

    Attributes:
        models: networks on one device; their probabilities are averaged, in evaluation mode.
        scale: how their images are normalised, see :func:`cmrseg.augment.rescale`.
        tta: their views, and post-processing.
    """

    models: list[nn.Module]
    scale: str = "zscore"
    tta: TTA = field(default_factory=TTA)

    def to(self, device: str) -> Self:
        """The ensemble on ``"cpu"``, ``"cuda"`` or ``"auto"``: a GPU, where there is one."""
        for model in self.models:
            model.to(choose_device(device))
        return self

    @torch.inference_mode()
    def probabilities(
        self, images: np.ndarray, batch: int = 20, precision: str = "fp32"
    ) -> np.ndarray:
        """Softmax probabilities as :func:`probabilities`, the mean over networks and views."""
        for model in self.models:
            model.eval()
        device = next(self.models[0].parameters()).device
        parts = []
        for start in range(0, len(images), batch):
            x = normalise(images[start : start + batch], self.scale).to(device)
            parts.append(tta_probabilities(self.models, self.tta, x, precision).cpu().numpy())
        return np.concatenate(parts)

    def predict(self, images: np.ndarray, **options) -> np.ndarray:
        """Label maps uint8 (N, H, W) of images uint8 (N, H, W)."""
        return to_labels(self.probabilities(images, **options), self.tta.postprocess)


def tta_probabilities(
    models: Sequence[nn.Module], tta: TTA, x: Tensor, precision: str = "fp32"
) -> Tensor:
    """Mean softmax probabilities (N, 4, H, W) over networks and views, of images (N, 1, H, W)."""
    total = 0
    views = list(product(tta.rotations, (False, True) if tta.flip else (False,)))
    for degrees, flipped in views:
        view = rotate(x.flip(-1) if flipped else x, degrees)
        answers = [forward_padded(model, view, precision) for model in models]
        answer = rotate(torch.stack(answers).mean(0), -degrees)
        total = total + (answer.flip(-1) if flipped else answer)
    return total / len(views)


def rotate(x: Tensor, degrees: float) -> Tensor:
    """(N, C, H, W) turned about its middle, anticlockwise as one looks at it; the edge goes on."""
    if not degrees:
        return x
    height, width = x.shape[2:]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # In half pixels from the middle.
    down = (2 * torch.arange(height) + 1 - height).float()[:, None]
    right = (2 * torch.arange(width) + 1 - width).float()
    grid = torch.stack(
        [(cos * right - sin * down) / width, (sin * right + cos * down) / height], -1
    )
    return F.grid_sample(
        x, grid.to(x.device).expand(len(x), -1, -1, -1), "bilinear", "border", align_corners=False
    )
