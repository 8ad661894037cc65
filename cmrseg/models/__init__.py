"""One architecture, one file: each maps images (N, 1, H, W) to logits (N, 4, H, W), or coarser."""

from __future__ import annotations

from torch import nn

from cmrseg.models.alexnet import AlexNet
from cmrseg.models.final import FinalUNet
from cmrseg.models.ning import Ning
from cmrseg.models.segnet import SegNet
from cmrseg.models.unet import UNet


def build(config) -> nn.Module:
    """The network a :class:`cmrseg.training.TrainConfig` describes, freshly initialised.

    Raises:
        ValueError: an unknown ``config.model``.
    """
    if config.model == "unet":
        return UNet(
            config.channels, config.convolutions, config.kernel, config.first_kernel,
            config.activation, config.dropout, config.skips,
        )
    if config.model == "segnet":
        return SegNet(config.channels, config.dropout)
    if config.model == "alexnet":
        return AlexNet(config.channels, config.dropout)
    if config.model == "ning":
        return Ning(config.channels)
    if config.model == "final":
        return FinalUNet(config.channels, config.residual, config.strided, config.deep)
    raise ValueError(f"unknown model {config.model!r}: expected unet, segnet, alexnet, ning or final")
