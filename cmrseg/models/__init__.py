"""One architecture, one file: each maps images (N, 1, H, W) to logits (N, 4, H, W)."""

from __future__ import annotations

from torch import nn

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
    raise ValueError(f"unknown model {config.model!r}: expected unet")
