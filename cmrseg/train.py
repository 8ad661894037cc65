"""Training: a configuration and slices in, a trained network and its history out.

:func:`fit` goes through the epochs; :func:`train_epoch` is one pass over the slices.
"""

import copy
import math
import time
from collections.abc import Callable, Collection
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cmrseg import metrics
from cmrseg.augment import augment, normalise
from cmrseg.checkpoint import CHECKPOINT, TrainingState, is_finite, load_checkpoint, save_checkpoint
from cmrseg.config import TrainConfig, TrainingResult
from cmrseg.data import BadInput, Slices
from cmrseg.losses import LOSSES
from cmrseg.models import build
from cmrseg.predict import autocast, choose_device, pad, predict


def fit(
    config: TrainConfig,
    train: Slices,
    held_out: Slices | None = None,
    *,
    score_train: bool = False,
    out: Path | None = None,
    resume: bool = False,
    precision: str = "fp32",
    device: str = "auto",
    callback: Callable[[dict[str, list]], object] | None = None,
    start: nn.Module | None = None,
    score_every: int | None = None,
    milestones: Collection[int] = (),
) -> TrainingResult:
    """Train a network.

    Args:
        config: every choice that changes the result.
        train: slices with masks.
        held_out: slices scored while training (see ``score_every``); never trained on.
        score_train: score the training slices at the same epochs.
        out: folder for a checkpoint after each epoch; None keeps none.
        resume: continue from the checkpoint in ``out``, if there is one.
        precision: ``"fp32"`` or ``"bf16"``.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        callback: called after each epoch with the history so far; returning True ends the training.
        start: a network of the same shape, trained on what ``config.start`` says, to begin with.
        score_every: epochs from one scoring to the next (and at the end); None: at most 50
            scorings.
        milestones: epochs after which the masks of the held-out slices are kept, and the training
            slices scored. With a constant learning rate a run of so many epochs ends just there.

    Raises:
        ValueError: arguments that contradict each other.
        BadInput: a checkpoint that cannot be continued, or slices too small for the network.
        FloatingPointError: the loss or a weight is no longer a number; the message says where.
    """
    _check(config, train, held_out, out, start, milestones)
    with torch.random.fork_rng(devices=[]):
        state, images, labels = _begin(config, train, held_out, start, precision, device)
        result = state.result
        if resume and out is not None and (out / CHECKPOINT).exists():
            load_checkpoint(out / CHECKPOINT, state)
        for epoch in range(len(result.history["epoch"]) + 1, config.epochs + 1):
            started = time.perf_counter(), time.process_time()
            losses, batches = train_epoch(state, images, labels, epoch)
            loss = losses.mean().item()
            if not (math.isfinite(loss) and is_finite(result.model)):
                raise FloatingPointError(_divergence(losses, batches, train.names, epoch, out))
            _score(state, epoch, loss, train, held_out, score_train, score_every, milestones)
            result.seconds += time.perf_counter() - started[0]
            result.cpu_seconds += time.process_time() - started[1]
            if out is not None:
                save_checkpoint(out / CHECKPOINT, state)
            if callback is not None and callback(result.history):
                break
    result.model.eval()
    return result


def train_epoch(
    state: TrainingState, images: Tensor, labels: Tensor, epoch: int
) -> tuple[Tensor, list[Tensor]]:
    """One pass over the slices in random order: the loss of each batch (B,), and its slices."""
    config, model, optimiser, losses = state.result.config, state.model, state.optimiser, []
    order = torch.randperm(len(images), generator=state.rng)
    batches = [
        b for b in order.split(config.batch) if len(b) == config.batch or not config.drop_last
    ]
    model.train()
    for step, batch in enumerate(batches):
        done = (epoch - 1 + step / len(batches)) / config.epochs
        for group in optimiser.param_groups:
            group["lr"] = config.lr * schedule(config.schedule, done)
        x, y = augment(images[batch], labels[batch], config.augment, state.rng)
        x = x.contiguous(memory_format=torch.channels_last)
        with autocast(state.result.precision, state.result.device), _batches_of_one_refused():
            logits = model(x)
        loss = _loss(LOSSES[config.loss], logits, y, model.stride)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if config.ema:
            update_ema(state.result.model, model, config.ema, (epoch - 1) * len(batches) + step)
        losses.append(loss.detach())
    return torch.stack(losses), batches


def _loss(loss: Callable, logits: Tensor | list[Tensor], labels: Tensor, stride: int) -> Tensor:
    """The loss of logits; with deep supervision of all levels, each counting half the finer one."""
    levels = [logits] if isinstance(logits, Tensor) else logits
    weights = [0.5**n for n in range(len(levels))]
    losses = [
        w * loss(level, _downsampled(labels, stride * 2**n))
        for n, (w, level) in enumerate(zip(weights, levels))
    ]
    return sum(losses) / sum(weights)


def _downsampled(labels: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return labels
    return torch.from_numpy(metrics.downsample_labels(labels.cpu().numpy(), stride)).to(
        labels.device
    )


def schedule(name: str, done: float) -> float:
    """The learning rate as a part of its peak when ``done`` (0 to 1) of the training is over.

    ``"constant"`` is 1; ``"one-cycle"`` climbs from 1/25 over the first 30 % and then falls as a
    half cosine to nearly zero (Smith and Topin 2019).

    Raises:
        ValueError: an unknown name.
    """
    if name == "constant":
        return 1.0
    if name == "one-cycle":
        if done < 0.3:
            return 0.04 + 0.96 * done / 0.3
        return 0.5 + 0.5 * math.cos(math.pi * (done - 0.3) / 0.7)
    raise ValueError(f"schedule={name!r}: expected constant or one-cycle")


def make_optimiser(config: TrainConfig, parameters) -> torch.optim.Optimizer:
    """SGD, Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019) for the parameters.

    Raises:
        ValueError: an unknown ``config.optimiser``.
    """
    decay = config.weight_decay
    if config.optimiser == "sgd":
        return torch.optim.SGD(parameters, config.lr, config.momentum, weight_decay=decay)
    if config.optimiser == "adam":
        return torch.optim.Adam(parameters, config.lr, weight_decay=decay)
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters, config.lr, weight_decay=decay)
    raise ValueError(f"optimiser={config.optimiser!r}: expected sgd, adam or adamw")


@torch.no_grad()
def update_ema(ema_model: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move averaged weights towards the trained ones: an exponential moving average.

    At first it is a shorter one, so that the random start is soon forgotten.
    """
    part = 1 - min(decay, (1 + step) / (10 + step))
    for averaged, new in zip(ema_model.state_dict().values(), model.state_dict().values()):
        if averaged.is_floating_point():
            averaged.lerp_(new.float(), part)
        else:
            averaged.copy_(new)


# --- scores --------------------------------------------------------------------------------------


def scored_epochs(epochs: int, every: int | None = None) -> set[int]:
    """Epochs to score after: each ``every``-th (None: at most 50 of them), and the last."""
    every = every or max(1, math.ceil(epochs / 50))
    return {*range(every, epochs + 1, every), epochs}


def score(result: TrainingResult, slices: Slices) -> list[float | None]:
    """Mean Dice of RV, Myo and LV over slices; None for a class that none of them shows."""
    means = metrics.per_class(metrics.dice(_masks(result, slices), slices.masks))
    return [None if np.isnan(m) else float(m) for m in means]


def _masks(result: TrainingResult, slices: Slices) -> np.ndarray:
    return predict(result.model, slices.images, result.config.scale, precision=result.precision)


def _score(state, epoch, loss, train, held_out, score_train, score_every, milestones) -> None:
    """Add an epoch to the history, with the scores that are due; the arguments are those of fit."""
    result = state.result
    due = epoch in scored_epochs(result.config.epochs, score_every)
    train_due = epoch in milestones or (due and score_train)
    values = {
        "epoch": epoch,
        "loss": loss,
        "lr": state.optimiser.param_groups[0]["lr"],
        "dice": score(result, held_out) if due and held_out is not None else None,
        "dice_train": score(result, train) if train_due else None,
    }
    for name, value in values.items():
        result.history[name].append(value)
    if epoch in milestones:
        result.milestones[epoch] = _masks(result, held_out)


# --- how a training begins, and what can go wrong ------------------------------------------------


def _check(config: TrainConfig, train: Slices, held_out, out, start, milestones) -> None:
    if bool(config.start) != (start is not None):
        what = "no" if start is None else "a"
        raise ValueError(
            f"start={config.start!r} in the configuration, and {what} network to begin with"
        )
    if not len(train):
        raise ValueError("no slices to learn from")
    if held_out is not None and not len(held_out):
        raise ValueError("no slices are held out: pass None to score none")
    if train.masks is None or (held_out is not None and held_out.masks is None):
        raise ValueError("slices without masks can be neither learned from nor scored")
    if milestones and (out is not None or held_out is None):
        raise ValueError("milestones need held-out slices, and are not kept in checkpoints")


def _begin(config: TrainConfig, train: Slices, held_out, start, precision, device):
    """The state before the first epoch, images (N, 1, H, W) and labels (N, H, W) to learn from."""
    torch.set_flush_denormal(True)  # tiny numbers late in training would cost ten times the time
    torch.manual_seed(config.seed)  # for the initial weights and for dropout
    rng = torch.Generator().manual_seed(config.seed)  # for the order and the augmentation
    device = choose_device(device)
    model = build(config).to(device, memory_format=torch.channels_last)
    if start is not None:
        model.load_state_dict(start.state_dict())
    history = {name: [] for name in ("epoch", "loss", "lr", "dice", "dice_train")}
    ema_model = copy.deepcopy(model) if config.ema else model
    result = TrainingResult(ema_model, config, history, precision=precision, device=device)
    fingerprints = [train.fingerprint, "" if held_out is None else held_out.fingerprint]
    state = TrainingState(
        result, model, make_optimiser(config, model.parameters()), rng, fingerprints
    )
    images = normalise(train.images, config.scale).to(device)
    labels = torch.from_numpy(np.ascontiguousarray(train.masks)).to(device)[:, None].float()
    if config.mirrored_set:
        images, labels = torch.cat([images, images.flip(-1)]), torch.cat([labels, labels.flip(-1)])
    return state, pad(images, model.multiple), pad(labels, model.multiple)[:, 0].long()


@contextmanager
def _batches_of_one_refused():
    """Say what is wrong where batch normalisation sees a single point, which has no spread."""
    try:
        yield
    except ValueError as problem:
        if "more than 1 value per channel" not in str(problem):
            raise
        reason = "are too small for this network, which sees a single point of them at its coarsest"
        cure = "Take larger slices, or leave one out"
        raise BadInput("training slices", f"{reason}, in a batch of one", cure) from None


def _divergence(losses: Tensor, batches: list[Tensor], names, epoch: int, out: Path | None) -> str:
    """The message that loss or weights are not finite: in which batch, which checkpoint is left."""
    what, batch = "a weight is no number", batches[-1]
    if bad := (~torch.isfinite(losses)).nonzero().tolist():
        first = bad[0][0]
        what, batch = f"the loss is {losses[first].item()}", batches[first]
    slices = ", ".join(names[i] for i in sorted({p % len(names) for p in batch.tolist()}))
    none = out is None or epoch == 1
    good = "there is none" if none else f"{out / CHECKPOINT} is of epoch {epoch - 1}"
    return (
        f"{what} in epoch {epoch}, batch of {slices}. Try a smaller learning rate, look at "
        f"these slices; last good checkpoint: {good}"
    )
