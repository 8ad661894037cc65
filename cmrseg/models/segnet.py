"""SegNet (Badrinarayanan, Kendall and Cipolla 2017): unpooling that remembers where.

The decoder goes back the way of the encoder, block by block. Nothing is copied across; instead each
max pooling keeps the *index* of the pixel that won, and the unpooling of the same level puts the
value back there, with zeros around it. The convolutions of the decoder fill the gaps. Compared with
a U-Net's skips an index is cheap, and it says where something was but not what.

As in the paper the encoder follows VGG16 (Simonyan and Zisserman 2015): two convolutions in each
of the first two blocks, three in the others. Here it starts from random weights, not ImageNet's,
and a block of the decoder narrows at its first convolution, where the paper's narrows at its last.
"""

from torch import Tensor, nn

from cmrseg.models.unet import conv_block


class SegNet(nn.Module):
    """Logits (N, classes, H, W) from images (N, 1, H, W); H and W are multiples of ``multiple``.

    Args:
        channels: width of each level, fine to coarse; VGG16's are 64, 128, 256, 512, 512.
        dropout: probability of zeroing a value after each activation.
    """

    name = "segnet"
    stride = 1

    def __init__(
        self,
        channels: tuple[int, ...] = (64, 128, 256, 512, 512),
        dropout: float = 0.0,
        classes: int = 4,
    ):
        super().__init__()
        self.multiple = 2 ** len(channels)
        depths = [2 if level < 2 else 3 for level in range(len(channels))]
        inputs, outputs = (1, *channels[:-1]), (channels[0], *channels[:-1])
        self.encoder = nn.ModuleList(
            conv_block(i, o, n, dropout=dropout) for i, o, n in zip(inputs, channels, depths)
        )
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.unpool = nn.MaxUnpool2d(2)
        self.decoder = nn.ModuleList(  # fine to coarse, as the encoder; used backwards
            conv_block(c, o, n, dropout=dropout) for c, o, n in zip(channels, outputs, depths)
        )
        self.head = nn.Conv2d(channels[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Shapes for the default channels and a 96x96 slice.
        won = []
        for block in self.encoder:
            x, indices = self.pool(block(x))  # (N, 64, 48, 48) ... (N, 512, 3, 3)
            won.append(indices)
        for block in reversed(self.decoder):
            x = block(self.unpool(x, won.pop()))  # (N, 512, 6, 6) ... (N, 64, 96, 96)
        return self.head(x)  # (N, 4, 96, 96)
