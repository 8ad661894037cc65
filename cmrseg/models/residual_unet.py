"""Residual U-Net, the network of the best model (after He et al. 2016 and Isensee et al. 2021).

What it adds to the teaching U-Net, each part on its own so that its worth can be measured:

- ``residual``: each block adds its input to its output, and poolings give way to strided
  convolutions;
- ``strided``: the finest level is one thin convolution, the work begins at half the resolution;
- ``deep``: in training, the coarser levels of the way up give logits too (*deep supervision*,
  Lee et al. 2015).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """A convolution without bias, and batch norm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


class Block(nn.Module):
    """(N, inputs, h, w) -> (N, outputs, h / stride, w / stride): two convolutions, a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, residual: bool = True):
        super().__init__()
        first, second = conv_norm(inputs, outputs, stride=stride), conv_norm(outputs, outputs)
        self.path = nn.Sequential(*first, nn.LeakyReLU(0.01), *second)
        same = inputs == outputs and stride == 1
        self.shortcut: nn.Module | None = None
        if residual:
            self.shortcut = nn.Sequential(*([] if same else conv_norm(inputs, outputs, 1)))
        self.stride = stride
        self.activation = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        y = self.path(x)
        if self.shortcut is not None:
            # Not a 1x1 convolution with a stride: for few channels, oneDNN's overruns its memory
            # (its issue 6035).
            y = y + self.shortcut(x[..., :: self.stride, :: self.stride])
        return self.activation(y)


class ResidualUNet(nn.Module):
    """Logits (N, classes, H, W) from images (N, 1, H, W); H and W are multiples of ``multiple``.

    In training with ``deep`` > 0 a list of logits comes back, from full resolution to coarser:
    (N, classes, H, W), (N, classes, H / 2, W / 2), ...

    Args:
        channels: width of each level, fine to coarse.
        residual, strided: see above.
        deep: how many coarser levels are supervised.
    """

    name = "final"
    stride = 1

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 128, 192),
        residual: bool = True,
        strided: bool = False,
        deep: int = 0,
        classes: int = 4,
    ):
        super().__init__()
        finer, coarser = channels[-2::-1], channels[:0:-1]  # (128, 64, 32, 16), (192, 128, 64, 32)
        self.multiple, self.deep = 2 ** (len(channels) - 1), deep

        def thin(inputs: int) -> nn.Sequential:
            return nn.Sequential(*conv_norm(inputs, channels[0]), nn.LeakyReLU(0.01))

        self.first = thin(1) if strided else Block(1, channels[0], 1, residual)
        self.encoder = nn.ModuleList(Block(i, o, 2, residual) for i, o in pairwise(channels))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, 2) for c, f in zip(coarser, finer))
        self.decoder = nn.ModuleList(
            thin(2 * f) if strided and level == 0 else Block(2 * f, f, 1, residual)
            for level, f in reversed(list(enumerate(channels[:-1])))
        )
        self.heads = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels[: deep + 1])

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        # Shapes for the default channels and a 96x96 slice.
        skips = [self.first(x)]  # (N, 16, 96, 96)
        for block in self.encoder:
            skips.append(block(skips[-1]))  # (N, 32, 48, 48) ... (N, 192, 6, 6)
        x, levels = skips.pop(), []
        for up, block in zip(self.up, self.decoder):
            x = block(torch.cat([skips.pop(), up(x)], 1))  # (N, 128, 12, 12) ... (N, 16, 96, 96)
            levels.insert(0, x)
        if not (self.training and self.deep):
            return self.heads[0](x)  # (N, 4, 96, 96)
        return [head(level) for head, level in zip(self.heads, levels)]
