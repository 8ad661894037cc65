"""One architecture, one file: each maps images (N, 1, H, W) to logits (N, 4, H, W), or coarser."""

from __future__ import annotations

import torch
from torch import nn

from cmrseg.models.alexnet import AlexNet
from cmrseg.models.final import FinalUNet
from cmrseg.models.ning import Ning
from cmrseg.models.report_unet import ReportUNet
from cmrseg.models.segnet import SegNet
from cmrseg.models.sprint import SprintUNet
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
    if config.model == "report-unet":
        return ReportUNet(
            config.channels, config.convolutions, config.kernel, config.first_kernel,
            config.activation, config.dropout, config.skips, config.windows, config.poolings,
        )
    if config.model == "segnet":
        return SegNet(config.channels, config.dropout)
    if config.model == "alexnet":
        return AlexNet(config.channels, config.dropout)
    if config.model == "ning":
        return Ning(config.channels)
    if config.model == "final":
        return FinalUNet(config.channels, config.residual, config.strided, config.deep)
    if config.model == "sprint":
        return SprintUNet(config.channels, config.convolutions)
    raise ValueError(f"unknown model {config.model!r}: expected unet, report-unet, segnet, alexnet, ning, final or sprint")


def multiply_adds(net: nn.Module, shape: tuple[int, ...] = (1, 1, 96, 96)) -> int:
    """Multiplications with additions that a network's convolutions take for an input of this shape."""
    from torch.utils.flop_counter import FlopCounterMode  # slow to import, and seldom asked for

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(shape))
    return counter.get_total_flops() // 2  # it counts both
