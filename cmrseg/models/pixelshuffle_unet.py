"""Pixel-shuffle U-Net, of the page "Ten seconds": half the resolution, and nothing lost.

Squares of 2x2 pixels go in as four channels of one coarser pixel, and each coarser pixel gives the
logits of its four pixels back (the sub-pixel convolution of Shi et al. 2016). The convolutions in
between have a quarter of the pixels to go over.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from cmrseg.models.unet import UNet


class PixelShuffleUNet(nn.Module):
    """Logits (N, classes, H, W) from images (N, 1, H, W); H and W are multiples of ``multiple``.

    Args:
        channels, convolutions: as for :class:`cmrseg.models.unet.UNet`, from half the resolution
            on.
        square: side of the squares.
    """

    name = "sprint"
    stride = 1

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 128),
        convolutions: int = 1,
        square: int = 2,
        classes: int = 4,
    ):
        super().__init__()
        self.square = square
        self.net = UNet(channels, convolutions, inputs=square**2, classes=square**2 * classes)
        self.multiple = square * self.net.multiple

    def forward(self, x: Tensor) -> Tensor:
        # Shapes for the defaults and a 96x96 slice.
        x = F.pixel_unshuffle(x, self.square)  # (N, 4, 48, 48)
        x = self.net(x)  # (N, 16, 48, 48)
        return F.pixel_shuffle(x, self.square)  # (N, 4, 96, 96)
