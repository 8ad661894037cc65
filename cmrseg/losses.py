"""Losses: functions of logits (N, C, H, W) and labels int64 (N, H, W) that return a scalar.

:data:`LOSSES` names them for a :class:`cmrseg.config.TrainConfig`.
"""

import torch.nn.functional as F
from torch import Tensor


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(N, H, W) int64 -> (N, classes, H, W) float32, a 1 in the channel of each pixel's class."""
    return F.one_hot(labels, classes).permute(0, 3, 1, 2).float()


def report_bce(logits: Tensor, labels: Tensor, inside: float = 0.001) -> Tensor:
    """The loss of the 2020 report: binary cross-entropy of each class map, averaged over all.

    With softmax probabilities p and one-hot truth y it is the mean over pixels *and classes* of
    ``-(y log(p + c) + (1 - y) log(1 - p + c))``, c = ``inside`` keeping the logs finite. The
    report's code works at batch size 2 only; this one at any.
    """
    p = logits.float().softmax(1)
    y = one_hot(labels, logits.shape[1])
    return -(y * (p + inside).log() + (1 - y) * (1 - p + inside).log()).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Categorical cross-entropy: the mean over pixels of ``-log p`` of the true class."""
    return F.cross_entropy(logits.float(), labels)


def soft_dice(
    logits: Tensor, labels: Tensor, smooth: float = 1.0, per_slice: bool = False
) -> Tensor:
    """One minus the mean soft Dice of the classes but the background (Milletari et al. 2016).

    Sums run over the pixels of the whole batch, so a slice without a class does no harm; or with
    ``per_slice`` over those of each slice, so that a small structure counts as much as a large one.
    ``smooth`` pixels are added to both sides of the fraction.
    """
    over = (2, 3) if per_slice else (0, 2, 3)
    p = logits.float().softmax(1)[:, 1:]
    y = one_hot(labels, logits.shape[1])[:, 1:]
    overlap = (p * y).sum(over)
    size = p.sum(over) + y.sum(over)
    return 1 - ((2 * overlap + smooth) / (size + smooth)).mean()


def ce_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice, the sum nnU-Net trains on (Isensee et al. 2021)."""
    return cross_entropy(logits, labels) + soft_dice(logits, labels)


def ce_dice_each(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of each slice, which is nearer to how the book scores."""
    return cross_entropy(logits, labels) + soft_dice(logits, labels, per_slice=True)


LOSSES = {
    "report": report_bce,
    "ce": cross_entropy,
    "dice": soft_dice,
    "ce+dice": ce_dice,
    "ce+dice each": ce_dice_each,
}
