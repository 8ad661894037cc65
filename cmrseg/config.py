"""A training's configuration, the recipes of the book, and what a training returns."""

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np


@dataclass(frozen=True)
class TrainConfig:
    """One training run: every choice that changes a result.

    The defaults never change, since records are filed under a hash of what differs from them;
    recipes are in ``PRESETS``. What only changes the speed (precision, threads, device) belongs to
    the machine and is chosen when a run starts.
    """

    model: str = "unet"
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    convolutions: int = 2
    kernel: int = 3
    first_kernel: int | None = None
    activation: str = "relu"
    dropout: float = 0.0
    skips: str = "before"
    scale: str = "zscore"
    augment: tuple[str, ...] = ("affine", "intensity")
    mirrored_set: bool = False
    loss: str = "ce+dice"
    optimiser: str = "adamw"
    lr: float = 0.003
    weight_decay: float = 0.01
    momentum: float = 0.0
    schedule: str = "one-cycle"
    batch: int = 4
    drop_last: bool = False
    epochs: int = 30
    seed: int = 0
    residual: bool = False
    strided: bool = False
    deep: int = 0
    ema: float = 0.0
    start: str = ""
    windows: int | None = None
    poolings: int | None = None

    def key(self, split: str, fingerprint: str) -> str:
        """Sixteen hex digits for this configuration on this split of these data.

        Only fields that differ from their default count, so a field added later (with a default
        that does what was done before) leaves old keys as they are.
        """
        chosen = {
            f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default
        }
        text = json.dumps([chosen, split, self.seed, fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict) -> Self:
        """The configuration that ``dataclasses.asdict`` (and JSON) made ``values`` of.

        Raises:
            ValueError: no fields at all, or one that this version does not know.
        """
        if not isinstance(values, dict):
            raise ValueError("no fields with values")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown configuration field {unknown[0]!r}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


_report = TrainConfig(
    channels=(32, 64, 128, 256, 512),
    convolutions=3,
    first_kernel=7,
    skips="after",
    scale="raw",
    augment=(),
    loss="report",
    optimiser="adam",
    lr=0.001,
    weight_decay=0.0,
    schedule="constant",
    batch=2,
    epochs=140,
)
_narrow = (8, 16, 32, 64, 128)
_book = TrainConfig(epochs=60, augment=("affine", "strong-intensity"))  # chosen in "book-recipe"
PRESETS = {
    "report": _report,
    "replica": replace(_report, channels=_narrow, convolutions=2, first_kernel=None, epochs=100),
    "modern": replace(_book, channels=_narrow),
    "book": _book,
    "sprint": TrainConfig(
        model="sprint",
        channels=(16, 32, 64, 128),
        convolutions=1,
        loss="ce+dice each",
        lr=0.006,
        epochs=22,
    ),
}


@dataclass
class TrainingResult:
    """A trained network and how it came about.

    Attributes:
        model: the network (a ``torch.nn.Module``), in evaluation mode.
        config: what was asked for.
        history: per epoch, lists of equal length: ``epoch`` (from 1), ``loss`` (mean of the
            batches), ``lr`` (of the last step), ``dice`` ([RV, Myo, LV] on the held-out slices, or
            None in epochs that were not scored), ``dice_train`` (the same on the training slices).
        seconds: wall time of the training.
        cpu_seconds: processor time of the training, which other programs disturb less.
        precision: ``"fp32"`` or ``"bf16"``.
        device: ``"cpu"`` or ``"cuda"``.
        milestones: epoch -> masks uint8 (N, H, W) predicted for the held-out slices after it.
    """

    model: Any
    config: TrainConfig
    history: dict[str, list] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    precision: str = "fp32"
    device: str = "cpu"
    milestones: dict[int, np.ndarray] = field(default_factory=dict)
