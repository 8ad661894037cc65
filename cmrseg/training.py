"""The training loop: a configuration and slices in, a trained network and its history out.

:class:`TrainConfig` holds every choice that changes a result; :func:`fit` trains; :func:`predict`
applies. What only changes the speed (precision, threads, device) belongs to the machine and is
chosen when a run starts.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn
from tqdm import tqdm

from cmrseg import metrics
from cmrseg.augment import augment, normalise
from cmrseg.data import BadInput, Slices, read_text, write_bytes
from cmrseg.losses import LOSSES
from cmrseg.models import build
from cmrseg.runtime import TRIAL


@dataclass(frozen=True)
class TrainConfig:
    """One training run. The defaults never change, since records are filed under a hash of what
    differs from them; recipes are in ``PRESETS``."""

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
        chosen = {f.name: getattr(self, f.name) for f in fields(self)
                  if getattr(self, f.name) != f.default}
        text = json.dumps([chosen, split, self.seed, fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, values: dict) -> TrainConfig:
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
    channels=(32, 64, 128, 256, 512), convolutions=3, first_kernel=7, skips="after", scale="raw",
    augment=(), loss="report", optimiser="adam", lr=0.001, weight_decay=0.0, schedule="constant",
    batch=2, epochs=140,
)
_modern = TrainConfig(epochs=60, augment=("affine", "strong-intensity"))  # chosen in "book-recipe"
PRESETS = {
    "report": _report,
    "replica": replace(_report, channels=(8, 16, 32, 64, 128), convolutions=2, first_kernel=None,
                       epochs=100),
    "modern": replace(_modern, channels=(8, 16, 32, 64, 128)),
    "book": _modern,
    "sprint": TrainConfig(model="sprint", channels=(16, 32, 64, 128), convolutions=1, loss="ce+dice each",
                          lr=0.006, epochs=22),
}


@dataclass
class Run:
    """A trained network and how it came about.

    Attributes:
        model: the network, in evaluation mode.
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

    model: nn.Module
    config: TrainConfig
    history: dict[str, list] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    precision: str = "fp32"
    device: str = "cpu"
    milestones: dict[int, np.ndarray] = field(default_factory=dict)


def fit(
    config: TrainConfig,
    train: Slices,
    held_out: Slices | None = None,
    *,
    score_train: bool = False,
    out: Path | None = None,
    resume: bool = False,
    precision: str = "auto",
    device: str = "auto",
    progress: Callable[[dict[str, list]], None] | None = None,
    start: nn.Module | None = None,
    score_every: int | None = None,
    milestones: Collection[int] = (),
) -> Run:
    """Train a network.

    Args:
        config: every choice that changes the result.
        train: slices with masks.
        held_out: slices scored while training (see ``score_every``); never trained on.
        score_train: score the training slices at the same epochs.
        out: folder for a checkpoint after each epoch; None keeps none.
        resume: continue from the checkpoint in ``out``, if there is one.
        precision: ``"fp32"``, ``"bf16"`` or ``"auto"`` (what is faster on this machine).
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: called after each epoch with the history so far.
        start: a network of the same shape, trained on what ``config.start`` says, to begin with.
        score_every: epochs from one scoring to the next (and at the end); None: at most 50 scorings.
        milestones: epochs after which the masks of the held-out slices are kept, and the training slices
            scored as well. With a constant learning rate a run of these many epochs ends just there.

    Raises:
        ValueError: one of ``start`` and ``config.start`` without the other; or milestones with a
            checkpoint, which does not keep them.
        BadInput: a checkpoint that is damaged, of another configuration or of other slices; or slices too
            small for the network.
        FloatingPointError: the loss or a weight is no longer a number; the message names the epoch, the
            slices and the last good checkpoint.
    """
    if bool(config.start) != (start is not None):
        raise ValueError(f"start={config.start!r} in the configuration, and "
                         f"{'no' if start is None else 'a'} network to begin with")
    if not len(train):
        raise ValueError("no slices to learn from")
    if milestones and (out is not None or held_out is None):
        raise ValueError("milestones need held-out slices, and are not kept in checkpoints")
    slices = {"slices": train.fingerprint, "held_out": "" if held_out is None else held_out.fingerprint}
    torch.set_flush_denormal(True)  # tiny numbers late in training would cost ten times the time
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision = probe_precision() if precision == "auto" else precision
    images = normalise(train.images, config.scale).to(device)
    labels = torch.from_numpy(train.masks).long().to(device)
    if config.mirrored_set:
        images, labels = torch.cat([images, images.flip(-1)]), torch.cat([labels, labels.flip(-1)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # for the initial weights and for dropout
        rng = torch.Generator().manual_seed(config.seed)  # for the order and the augmentation
        model = build(config).to(device, memory_format=torch.channels_last)
        if start is not None:
            model.load_state_dict(start.state_dict())
        average = copy.deepcopy(model) if config.ema else model
        images, labels = pad(images, model.multiple), pad(labels[:, None].float(), model.multiple)
        labels = labels[:, 0].long()
        optimiser = make_optimiser(config, [as_one_vector(model)])
        run = Run(average, config, {"epoch": [], "loss": [], "lr": [], "dice": [], "dice_train": []},
                  precision=precision, device=device)
        if out is not None and resume and (Path(out) / CHECKPOINT).exists():
            _restore(Path(out) / CHECKPOINT, run, model, optimiser, rng, slices)
        before, started = (run.seconds, run.cpu_seconds), (time.perf_counter(), time.process_time())
        for epoch in range(len(run.history["epoch"]) + 1, config.epochs + 1):
            try:
                loss = _train_epoch(run, model, optimiser, images, labels, epoch, rng)
            except _Diverged as problem:
                names = ", ".join(train.names[i] for i in sorted({n % len(train) for n in problem.slices}))
                good = "there is none" if out is None or epoch == 1 else (
                    f"{Path(out) / CHECKPOINT} is of epoch {epoch - 1}")
                raise FloatingPointError(f"{problem} in epoch {epoch}, batch of {names}. Try a smaller "
                                         f"learning rate, look at these slices; last good checkpoint: {good}"
                                         ) from None
            scored = epoch in scored_epochs(config.epochs, score_every)
            _append(run.history, epoch=epoch, loss=loss, lr=optimiser.param_groups[0]["lr"],
                    dice=score(run, held_out) if scored and held_out is not None else None,
                    dice_train=score(run, train) if (scored and score_train) or epoch in milestones else None)
            if epoch in milestones:
                run.milestones[epoch] = predict(run.model, held_out.images, config.scale, precision=run.precision)
            run.seconds = before[0] + time.perf_counter() - started[0]
            run.cpu_seconds = before[1] + time.process_time() - started[1]
            if out is not None:
                _checkpoint(Path(out) / CHECKPOINT, run, model, optimiser, rng, slices)
            if progress is not None:
                progress(run.history)
    run.model.eval()
    return run


def _append(history: dict[str, list], **values) -> None:
    for name, value in values.items():
        history[name].append(value)


def scored_epochs(epochs: int, every: int | None = None) -> set[int]:
    """The epochs at which held-out slices are scored: each ``every``-th (None: at most 50), and the last."""
    every = every or max(1, math.ceil(epochs / 50))
    return set(range(every, epochs + 1, every)) | {epochs}


def _train_epoch(
    run: Run, model: nn.Module, optimiser, images: Tensor, labels: Tensor, epoch: int, rng
) -> float:
    """One pass over the slices in random order; returns the mean loss of its batches."""
    config, losses = run.config, []
    order = torch.randperm(len(images), generator=rng)
    batches = [b for b in order.split(config.batch) if len(b) == config.batch or not config.drop_last]
    model.train()
    for step, chosen in enumerate(batches):
        done = (epoch - 1 + step / len(batches)) / config.epochs
        for group in optimiser.param_groups:
            group["lr"] = config.lr * schedule(config.schedule, done)
        x, y = augment(images[chosen], labels[chosen], config.augment, rng)
        x = x.contiguous(memory_format=torch.channels_last)
        try:
            with autocast(run.precision, run.device):
                logits = model(x)
        except ValueError as problem:
            if "more than 1 value per channel" not in str(problem):  # batch normalisation's: one has no spread
                raise
            raise BadInput("training slices", "are too small for this network, which sees a single point of them "
                           "at its coarsest, in a batch of one", "Take larger slices, or leave one out") from None
        loss = _loss(LOSSES[config.loss], logits, y, model.stride)
        optimiser.zero_grad(set_to_none=False)  # see as_one_vector
        loss.backward()
        optimiser.step()
        if config.ema:
            _follow(run.model, model, config.ema, (epoch - 1) * len(batches) + step)
        losses.append(loss.detach())
    found = torch.stack(losses)
    mean_loss = found.mean().item()
    if not math.isfinite(mean_loss):
        first = int((~torch.isfinite(found)).nonzero()[0])
        raise _Diverged(f"the loss is {found[first].item()}", batches[first].tolist())
    if not finite(run.model):
        raise _Diverged("a weight is no number", batches[-1].tolist())
    return mean_loss


class _Diverged(Exception):
    """What is no number any more, and the positions of the slices of that batch."""

    def __init__(self, what: str, slices: list[int]):
        super().__init__(what)
        self.slices = slices


def _loss(loss: Callable, logits: Tensor | list[Tensor], labels: Tensor, stride: int) -> Tensor:
    """The loss of logits, or with deep supervision of each level's, a level counting half the finer one."""
    if isinstance(logits, Tensor):
        return loss(logits, _shrink(labels, stride))
    weights = [0.5**n for n in range(len(logits))]
    return sum(w * loss(level, _shrink(labels, 2**n))
               for n, (w, level) in enumerate(zip(weights, logits))) / sum(weights)


@torch.no_grad()
def _follow(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Draw the averaged weights after the trained ones (an exponential moving average, at first a shorter
    one, so that the random start is soon forgotten)."""
    part = 1 - min(decay, (1 + step) / (10 + step))
    for kept, new in zip(average.state_dict().values(), model.state_dict().values()):
        if kept.is_floating_point():
            kept.lerp_(new.float(), part)
        else:
            kept.copy_(new)


def _shrink(labels: Tensor, stride: int) -> Tensor:
    """Labels at the resolution of a coarse network: the majority of each stride x stride square."""
    if stride == 1:
        return labels
    counts = F.one_hot(labels, 4).permute(0, 3, 1, 2).float()
    return F.avg_pool2d(counts, stride).argmax(1)


def score(run: Run, slices: Slices) -> list[float | None]:
    """Mean Dice of RV, Myo and LV over slices; None for a class that none of them shows."""
    pred = predict(run.model, slices.images, run.config.scale, precision=run.precision)
    means = metrics.per_class(metrics.dice(pred, slices.masks))
    return [None if np.isnan(m) else float(m) for m in means]


def schedule(name: str, done: float) -> float:
    """The learning rate as a part of its peak when ``done`` (0 to 1) of the training is over.

    ``"constant"`` is 1; ``"one-cycle"`` climbs from 1/25 over the first 30 % and then falls as a
    half cosine to nearly zero (Smith and Topin 2019).
    """
    if name == "constant":
        return 1.0
    if name == "one-cycle":
        if done < 0.3:
            return 0.04 + 0.96 * done / 0.3
        return 0.5 + 0.5 * math.cos(math.pi * (done - 0.3) / 0.7)
    raise ValueError(f"schedule={name!r}: expected constant or one-cycle")


def make_optimiser(config: TrainConfig, parameters) -> torch.optim.Optimizer:
    """SGD, Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) for the parameters."""
    decay = config.weight_decay
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=decay)
    if config.optimiser == "adam":
        return torch.optim.Adam(parameters, config.lr, weight_decay=decay)
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters, config.lr, weight_decay=decay)
    raise ValueError(f"optimiser={config.optimiser!r}: expected sgd, adam or adamw")


def as_one_vector(model: nn.Module) -> nn.Parameter:
    """One long vector, of which all parameters of a network become views, and its gradient likewise.

    An optimiser treats every number alike, so its step on the vector is the same, bit for bit; but it takes a
    few long operations instead of many short ones for each layer. The gradient must stay where it is: set it
    to zero, not to None.
    """
    parameters = list(model.parameters())
    sizes = [-(-p.numel() // 16) * 16 for p in parameters]  # each begins on a cache line
    vector = nn.Parameter(parameters[0].new_zeros(sum(sizes)))
    vector.grad = torch.zeros_like(vector)
    for p, start in zip(parameters, np.cumsum([0, *sizes])):
        view = vector.data.as_strided(p.shape, p.stride(), int(start))
        view.copy_(p.data)
        p.data, p.grad = view, vector.grad.as_strided(p.shape, p.stride(), int(start))
    return vector


# --- applying ------------------------------------------------------------------------------------


def pad(x: Tensor, multiple: int) -> Tensor:
    """Continue (N, C, H, W) at its lower and right edge, up to sizes that ``multiple`` divides."""
    height, width = x.shape[2:]
    return F.pad(x, [0, -width % multiple, 0, -height % multiple], mode="replicate")


@torch.inference_mode()
def probabilities(
    model: nn.Module, images: np.ndarray, scale: str = "zscore", batch: int = 20,
    precision: str = "fp32", progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Softmax probabilities float32 (N, 4, H, W) of images uint8 (N, H, W).

    Sizes that the network cannot halve often enough are padded at the edges and cropped again; a
    coarse output is enlarged to full size. ``progress`` is called with each batch's length.
    """
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(images), batch):
        x = normalise(images[start : start + batch], scale).to(device)
        parts.append(answer(model, x, precision).cpu().numpy())
        if progress is not None:
            progress(len(x))
    return np.concatenate(parts)


def answer(model: nn.Module, x: Tensor, precision: str = "fp32") -> Tensor:
    """Softmax probabilities (N, 4, H, W) of normalised images (N, 1, H, W)."""
    height, width = x.shape[2:]
    x = pad(x, model.multiple).contiguous(memory_format=torch.channels_last)
    with autocast(precision, x.device.type):
        logits = model(x).float()
    if model.stride > 1:
        logits = F.interpolate(logits, scale_factor=model.stride, mode="nearest")
    return logits.softmax(1)[:, :, :height, :width]


def predict(model: nn.Module, images: np.ndarray, scale: str = "zscore", **options) -> np.ndarray:
    """Label maps uint8 (N, H, W) of images uint8 (N, H, W): the most probable class of each pixel.

    ``options`` are those of :func:`probabilities`.
    """
    return probabilities(model, images, scale, **options).argmax(1).astype(np.uint8)


# --- the machine ---------------------------------------------------------------------------------


def autocast(precision: str, device: str = "cpu"):
    """The context in which a network runs in this precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device, dtype=torch.bfloat16)


def probe_precision() -> str:
    """``"bf16"`` where the machine is clearly faster in it, else ``"fp32"``; costs milliseconds.

    A CPU needs matrix units for it; what it claims is then measured, because emulation can be a
    hundred times slower.
    """
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)():
        return "fp32"
    layer = nn.Conv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.zeros(4, 32, 48, 48).contiguous(memory_format=torch.channels_last)

    def seconds(precision: str) -> float:
        times = []
        for _ in range(4):  # the first one warms up
            start = time.perf_counter()
            with autocast(precision), torch.no_grad():
                layer(x)
            times.append(time.perf_counter() - start)
            if times[-1] > 0.1:  # emulated, and hopeless
                break
        return min(times)

    return "bf16" if seconds("bf16") < 0.5 * seconds("fp32") else "fp32"


# --- files ---------------------------------------------------------------------------------------

MODEL, CONFIG, CHECKPOINT = "model.safetensors", "config.json", "checkpoint.safetensors"


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    write_bytes(path, text.encode())


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file that appears whole or not at all."""
    write_bytes(path, to_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))


def finite(model: nn.Module) -> bool:
    """Whether all weights and statistics of a network are numbers."""
    return all(torch.isfinite(t).all().item() for t in model.state_dict().values())


def save(run: Run, out: Path) -> None:
    """Write ``model.safetensors`` and ``config.json`` into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / CONFIG, json.dumps(asdict(run.config), indent=1) + "\n")
    save_tensors(out / MODEL, run.model.state_dict(), {})  # last: where it lies, the run is finished


def load(folder: Path) -> Run:
    """The network that :func:`save` wrote, in evaluation mode.

    Raises:
        BadInput: no such run, or damaged files.
    """
    if not folder.is_dir():
        raise BadInput(folder, "no such run", "Give the folder that train --out made")
    config = read_config(folder / CONFIG)
    if not (folder / MODEL).is_file():
        raise BadInput(folder / MODEL, "no such file",
                       "The training has not finished: continue it with train --resume")
    try:
        model = restored(config, load_file(folder / MODEL))
    except (SafetensorError, RuntimeError, ValueError, TypeError, IndexError, OSError):
        raise BadInput(folder / MODEL, "is damaged or does not fit its config.json",
                       "Train again, or copy the whole folder again") from None
    if not answers(model, config.scale):
        raise BadInput(folder / MODEL, "holds weights that are no numbers, or lead to none", "Train again")
    return Run(model, config)


def restored(config: TrainConfig, tensors: dict[str, Tensor]) -> nn.Module:
    """The network of a configuration with these weights, in single precision and evaluation mode.

    Raises:
        ValueError, TypeError, IndexError, RuntimeError: a configuration of no network, or of another.
    """
    normalise(TRIAL, config.scale)  # a scale that we know
    if max(config.convolutions, len(config.channels)) > len(tensors):
        raise ValueError("more layers than weights")  # before they are built, one by one
    with torch.device("meta"):  # no memory for a configuration that asks for too much, nor for a first draw
        model = build(config)
    if any(t.is_floating_point() != tensors.get(name, t).is_floating_point() for name, t in model.state_dict().items()):
        raise ValueError("weights that are whole or complex numbers")
    model.load_state_dict(tensors, assign=True)
    return model.float().eval()


def answers(model: nn.Module, scale: str) -> bool:
    """Whether the weights of a network are numbers, and what it says of a trial picture, too."""
    return finite(model) and bool(np.isfinite(probabilities(model, TRIAL, scale)).all())


def read_config(path: Path) -> TrainConfig:
    """The configuration in a ``config.json``.

    Raises:
        BadInput: a missing or damaged file.
    """
    try:
        return TrainConfig.from_dict(json.loads(read_text(path)))
    except FileNotFoundError:
        raise BadInput(path, "no such file", "Give the folder that train --out made") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadInput(path, f"is not a configuration ({error})", "Train again") from None


def _checkpoint(path: Path, run: Run, model: nn.Module, optimiser, rng, slices: dict[str, str]) -> None:
    """Everything the next epoch depends on, as tensors and JSON: nothing is pickled."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    if run.model is not model:
        tensors |= {f"average.{name}": t for name, t in run.model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        for name, value in state.items():
            if value is not None:
                tensors[f"optimiser.{index}.{name}"] = torch.as_tensor(value)
    tensors["rng.batches"] = rng.get_state()
    tensors["rng.global"] = torch.get_rng_state()
    if run.device == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    notes = {"config": asdict(run.config), "history": run.history, "seconds": run.seconds,
             "cpu_seconds": run.cpu_seconds, "precision": run.precision, "tensors": len(tensors),
             "machine": _machine()} | slices
    save_tensors(path, tensors, {"notes": json.dumps(notes)})


def _machine() -> dict:
    """What changes the rounding, and with it the weights, though no choice of the configuration."""
    return {"threads": torch.get_num_threads(), "torch": str(torch.__version__)}


def require_same(path: Path, found: TrainConfig, asked: TrainConfig) -> None:
    """Raise BadInput, naming the fields, where a run was made with another configuration."""
    different = [f.name for f in fields(found) if getattr(found, f.name) != getattr(asked, f.name)]
    if different:
        raise BadInput(path, f"was made with another {', '.join(different)}",
                       "Resume with the same options, or train into another --out")


def _restore(path: Path, run: Run, model: nn.Module, optimiser, rng, slices: dict[str, str]) -> None:
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        require_same(path, TrainConfig.from_dict(notes["config"]), run.config)
        if any(notes.get(name, its) != its for name, its in slices.items()):
            raise BadInput(path, "was made with other slices", "Resume with the same --data")
        if notes.get("tensors", len(tensors)) != len(tensors):
            raise ValueError
        _put_back(notes, tensors, run, model, optimiser, rng)
        here = _machine()
        before = notes.get("machine", here)
        different = [f"{name} {before[name]}, now {here[name]}" for name in here if before[name] != here[name]]
    except BadInput:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        raise BadInput(path, "is damaged", "Remove it and train again") from None
    if different:
        tqdm.write(f"warning: {path} was made with {'; '.join(different)}: the network may differ from that of "
                   "an uninterrupted training", file=sys.stderr)


def _put_back(notes: dict, tensors: dict[str, Tensor], run: Run, model: nn.Module, optimiser, rng) -> None:
    """What :func:`_checkpoint` wrote, into its places."""
    for prefix, network in {"average.": run.model, "model.": model}.items():
        if prefix == "model." or run.model is not model:
            network.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items()
                                     if n.startswith(prefix)})
    state: dict[int, dict] = {}
    for name in tensors:
        if name.startswith("optimiser."):
            _, index, value = name.split(".", 2)
            state.setdefault(int(index), {})[value] = tensors[name]
    if any(value.shape != optimiser.param_groups[0]["params"][0].shape
           for each in state.values() for name, value in each.items() if name != "step"):
        raise ValueError("a checkpoint of an older version")
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    rng.set_state(tensors["rng.batches"])
    torch.set_rng_state(tensors["rng.global"])
    if run.device == "cuda":
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    if not finite(model) or not finite(run.model) or notes["precision"] not in ("fp32", "bf16"):
        raise ValueError("weights that are no numbers, or of no known precision")
    _look_through(notes["history"], run)
    run.history, run.precision = notes["history"], notes["precision"]
    run.seconds, run.cpu_seconds = float(notes["seconds"]), float(notes["cpu_seconds"])


def _look_through(history: dict[str, list], run: Run) -> None:
    """Raise ValueError or TypeError for a history that this training can't have had."""
    epochs = len(history["epoch"])
    if history.keys() != run.history.keys() or {*map(len, history.values())} != {epochs}:
        raise ValueError("a history with gaps")
    if history["epoch"] != [*range(1, epochs + 1)] or epochs > run.config.epochs:
        raise ValueError("other epochs than were asked for")
    scores = [score for name in ("dice", "dice_train") for score in history[name] if score is not None]
    if any(len(score) != 3 for score in scores):
        raise ValueError("not a score for each class")
    np.array([*history["loss"], *history["lr"], *(d for score in scores for d in score)], dtype=float)
