"""The U-Net (Ronneberger, Fischer and Brox 2015), and the one of the 2020 report.

Both contract an image to coarse, many-channelled features and expand them again, and both hand
features of the way down across to the way up (the *skips*). They differ in where the skips leave:

- ``skips="before"`` pooling, as in the paper: the finest skip has the full resolution, so the
  network can draw a boundary where it saw it. Widths c1..c5 mean four poolings and a 1x1 head.
- ``skips="after"`` pooling, as in the report: the finest skip has half the resolution, and the
  last transposed convolution must invent the rest. Widths c1..c5 mean five poolings, no head.

Unlike the paper, both pad their convolutions (output size = input size) and normalise by batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
}


def conv_block(
    inputs: int, outputs: int, convolutions: int, kernel: int = 3, activation: str = "relu", dropout: float = 0
) -> nn.Sequential:
    """(N, inputs, h, w) -> (N, outputs, h, w): convolution, batch norm, activation; and again."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: expected one of {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
                   nn.BatchNorm2d(outputs), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = outputs
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Logits (N, classes, H, W) from images (N, 1, H, W); H and W are multiples of ``multiple``.

    Args:
        channels: width of each level, fine to coarse.
        convolutions: convolutions in each block, on the way down and up.
        kernel: their odd size; ``first_kernel`` that of the first block (the report's is 7).
        activation: a key of ``ACTIVATIONS``.
        dropout: probability of zeroing a value after each activation.
        skips: ``"before"`` or ``"after"`` pooling, see above.
        inputs: channels of an image.
    """

    stride = 1

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 128, 256),
        convolutions: int = 2,
        kernel: int = 3,
        first_kernel: int | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        skips: str = "before",
        inputs: int = 1,
        classes: int = 4,
    ):
        super().__init__()

        def block(inputs: int, outputs: int, size: int = kernel) -> nn.Sequential:
            return conv_block(inputs, outputs, convolutions, size, activation, dropout)

        self.skips = skips
        finer, coarser = channels[-2::-1], channels[:0:-1]  # (128, 64, 32, 16), (256, 128, 64, 32)
        self.encoder = nn.ModuleList(
            block(i, o, first_kernel or kernel if level == 0 else kernel)
            for level, (i, o) in enumerate(zip((inputs, *channels), channels))
        )
        if skips == "before":
            self.multiple = 2 ** (len(channels) - 1)
            self.pool = nn.MaxPool2d(2)
            self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, stride=2) for c, f in zip(coarser, finer))
            self.decoder = nn.ModuleList(block(2 * f, f) for f in finer)
            self.head = nn.Conv2d(channels[0], classes, 1)
        elif skips == "after":
            self.multiple = 2 ** len(channels)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
            inputs, outputs = (channels[-1], *(2 * f for f in finer)), (*finer, classes)
            self.decoder = nn.ModuleList(block(i, o) for i, o in zip(inputs, outputs))
            self.up = nn.ModuleList(
                nn.ConvTranspose2d(o, o, 3, stride=2, padding=1, output_padding=1) for o in outputs
            )
        else:
            raise ValueError(f"skips={skips!r}: expected 'before' or 'after' pooling")

    def forward(self, x: Tensor) -> Tensor:
        return self._textbook(x) if self.skips == "before" else self._report(x)

    def _textbook(self, x: Tensor) -> Tensor:
        # Shapes for the default channels and a 96x96 slice.
        skips = []
        for block in self.encoder[:-1]:
            x = block(x)  # (N, 16, 96, 96), (N, 32, 48, 48), (N, 64, 24, 24), (N, 128, 12, 12)
            skips.append(x)
            x = self.pool(x)  # (N, 16, 48, 48) ... (N, 128, 6, 6)
        x = self.encoder[-1](x)  # (N, 256, 6, 6), the bottleneck
        for up, block in zip(self.up, self.decoder):
            x = torch.cat([skips.pop(), up(x)], 1)  # (N, 256, 12, 12) ... (N, 32, 96, 96)
            x = block(x)  # (N, 128, 12, 12) ... (N, 16, 96, 96)
        return self.head(x)  # (N, 4, 96, 96)

    def _report(self, x: Tensor) -> Tensor:
        # Shapes for the report's channels (32, 64, 128, 256, 512) and a 96x96 slice.
        skips = []
        for block in self.encoder:
            x = self.pool(block(x))  # (N, 32, 48, 48) ... (N, 512, 3, 3)
            skips.append(x)
        skips.pop()  # the coarsest goes straight on, not across
        for block, up in zip(self.decoder, self.up):
            x = up(block(x))  # (N, 256, 6, 6), (N, 128, 12, 12) ... (N, 4, 96, 96)
            if skips:
                x = torch.cat([x, skips.pop()], 1)  # (N, 512, 6, 6) ... (N, 64, 48, 48)
        return x  # (N, 4, 96, 96): drawn by the last transposed convolution alone
