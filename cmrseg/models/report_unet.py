"""The U-Net of the 2020 report, and the networks between it and the textbook's.

The report's network (``skips="after"``) takes its skip connections after pooling, so the finest has
half the resolution, and a transposed convolution draws the masks: no layer ever sees the features
at full resolution on the way up. In its decoder a block comes before the enlargement and the
concatenation after it.

It differs from the textbook's U-Net (:mod:`cmrseg.models.unet`) in several ways at once. The
arguments part them, as far as networks between the two can be built: the windows of pooling and
enlargement (3x3 with stride 2, overlapping, or 2x2), the number of poolings, and where the skip
connections leave. A skip at full resolution needs a layer after its concatenation; with
``skips="before"`` that is a 1x1 convolution.
"""

import torch
from torch import Tensor, nn

from cmrseg.models.unet import conv_block


class ReportUNet(nn.Module):
    """Logits (N, classes, H, W) from images (N, 1, H, W); H and W are multiples of ``multiple``.

    Args:
        channels: width of each level, fine to coarse.
        convolutions: convolutions in each block, on the way down and up.
        kernel: their odd size; ``first_kernel`` that of the first block (the report's is 7).
        activation: a key of ``cmrseg.models.unet.ACTIVATIONS``.
        dropout: probability of zeroing a value after each activation.
        skips: where the skip connections leave, ``"after"`` or ``"before"`` pooling.
        windows: side of the windows of pooling and of the transposed convolutions, 3 or 2; their
            stride is 2. None is the report's 3.
        poolings: as many as levels, or one less, so that the coarsest block is not pooled. None is
            the report's, as many as levels.

    Raises:
        ValueError: a combination that cannot be built.
    """

    name = "report-unet"
    stride = 1

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        convolutions: int = 2,
        kernel: int = 3,
        first_kernel: int | None = None,
        activation: str = "relu",
        dropout: float = 0.0,
        skips: str = "after",
        windows: int | None = None,
        poolings: int | None = None,
        classes: int = 4,
    ):
        super().__init__()
        windows, levels = windows or 3, len(channels)
        poolings, edge = poolings or levels, windows // 3
        possible = {"after": (levels, levels - 1), "before": (levels - 1,)}.get(skips, ())
        if windows not in (2, 3) or poolings not in possible:
            choice = f"skips={skips!r}, windows={windows}, poolings={poolings}"
            raise ValueError(f"{choice}: no network of {levels} levels can be built so")

        def block(inputs: int, outputs: int, size: int = kernel) -> nn.Sequential:
            return conv_block(inputs, outputs, convolutions, size, activation, dropout)

        self.skips, self.poolings, self.multiple = skips, poolings, 2**poolings
        finer = channels[-2::-1]  # (256, 128, 64, 32)
        sizes = [first_kernel or kernel] + [kernel] * (levels - 1)
        self.encoder = nn.ModuleList(map(block, (1, *channels), channels, sizes))
        self.pool = nn.MaxPool2d(windows, stride=2, padding=edge)
        inputs, outputs = (channels[-1], *(2 * f for f in finer)), (*finer, classes)
        if skips == "before":  # the last concatenation goes to the head, and no block follows it
            inputs, outputs = inputs[:-1], outputs[:-1]
        self.decoder = nn.ModuleList(map(block, inputs, outputs))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(o, o, windows, stride=2, padding=edge, output_padding=edge)
            for o in outputs[len(outputs) - poolings :]
        )
        self.head = nn.Conv2d(2 * channels[0], classes, 1) if skips == "before" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # Shapes for the report's channels (32, 64, 128, 256, 512) and a 96x96 slice.
        skips = []
        for level, block in enumerate(self.encoder):
            x = fine = block(x)  # (N, 32, 96, 96) ... (N, 512, 6, 6)
            if level < self.poolings:
                x = self.pool(x)  # (N, 32, 48, 48) ... (N, 512, 3, 3)
                skips.append(x if self.skips == "after" else fine)
        if self.poolings == len(self.encoder):
            skips.pop()  # the coarsest goes straight on, not across
        for step, block in enumerate(self.decoder, len(self.up) - len(self.decoder)):
            x = block(x)  # (N, 256, 3, 3), (N, 128, 6, 6) ... (N, 4, 48, 48)
            if step >= 0:
                x = self.up[step](x)  # (N, 256, 6, 6), (N, 128, 12, 12) ... (N, 4, 96, 96)
            if skips:
                x = torch.cat([x, skips.pop()], 1)  # (N, 512, 6, 6) ... (N, 64, 48, 48)
        return self.head(x)  # (N, 4, 96, 96)
