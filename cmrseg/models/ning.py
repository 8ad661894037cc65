"""The network of Ning et al. (2005), made to label cells in films of embryos.

A small LeNet: three convolutions with tanh between two sub-samplings, each of which halves the
resolution by averaging, scaling and shifting. It answers on a grid four times coarser than the
slice, so it is trained on the majority label of each 4x4 square and its answers are enlarged.

The original slides over the picture without padding, with kernels 7, 6 and 6. Kernels 7, 5 and 5
with padding keep the grid aligned with the pixels here. Each map is made from all maps of the layer
before (LeNet left some out).
"""

import torch
from torch import Tensor, nn


class Subsample(nn.Module):
    """(N, C, h, w) -> (N, C, h/2, w/2): mean of 2x2, times a weight, plus a bias, tanh."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(nn.functional.avg_pool2d(x, 2) * self.weight + self.bias)


class Ning(nn.Module):
    """Logits (N, classes, H/4, W/4) from images (N, 1, H, W); H and W are multiples of 4.

    Args:
        channels: maps of the three convolutions; the original's are 6, 16 and 40.
    """

    name = "ning"
    stride = 4
    multiple = 4

    def __init__(self, channels: tuple[int, ...] = (6, 16, 40), classes: int = 4):
        super().__init__()
        c1, c2, c3 = channels
        self.layers = nn.Sequential(
            nn.Conv2d(1, c1, 7, padding=3),  # (N, 6, 96, 96)
            Subsample(c1),  # (N, 6, 48, 48)
            nn.Conv2d(c1, c2, 5, padding=2),
            Subsample(c2),  # (N, 16, 24, 24)
            nn.Conv2d(c2, c3, 5, padding=2),
            nn.Tanh(),  # (N, 40, 24, 24)
            nn.Conv2d(c3, classes, 1),  # (N, 4, 24, 24)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
