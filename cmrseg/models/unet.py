"""U-Net (Ronneberger, Fischer and Brox 2015).

It contracts an image to coarse, many-channelled features and expands them again; features of the
way down are handed across to the way up (the *skips*). They leave before pooling, so the finest has
the full resolution and the network can draw a boundary where it saw it. Widths c1..c5 mean four
poolings and a 1x1 head.

Unlike the paper's, its convolutions are padded (output size = input size) and normalised by batch.
"""

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardtanh": nn.Hardtanh,
}


def conv_block(inputs, outputs, convolutions, kernel=3, activation="relu", dropout=0.0):
    """(N, inputs, h, w) -> (N, outputs, h, w): convolution, batch norm, activation; and again.

    Raises:
        ValueError: an unknown activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: expected one of {', '.join(ACTIVATIONS)}")
    layers: list[nn.Module] = []
    for _ in range(convolutions):
        layers.append(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))
        layers += [nn.BatchNorm2d(outputs), ACTIVATIONS[activation]()]
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
        inputs: channels of an image.
    """

    name = "unet"
    stride = 1

    def __init__(
        self,
        channels: tuple[int, ...] = (16, 32, 64, 128, 256),
        convolutions: int = 2,
        kernel: int = 3,
        first_kernel: int | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        inputs: int = 1,
        classes: int = 4,
    ):
        super().__init__()

        def block(inputs: int, outputs: int, size: int = kernel) -> nn.Sequential:
            return conv_block(inputs, outputs, convolutions, size, activation, dropout)

        self.multiple = 2 ** (len(channels) - 1)
        finer, coarser = channels[-2::-1], channels[:0:-1]  # (128, 64, 32, 16), (256, 128, 64, 32)
        sizes = [first_kernel or kernel] + [kernel] * (len(channels) - 1)
        self.encoder = nn.ModuleList(map(block, (inputs, *channels), channels, sizes))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(c, f, 2, stride=2) for c, f in zip(coarser, finer)
        )
        self.decoder = nn.ModuleList(block(2 * f, f) for f in finer)
        self.head = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
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
