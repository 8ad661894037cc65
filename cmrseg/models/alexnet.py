"""AlexNet (Krizhevsky, Sutskever and Hinton 2012), made to segment.

A classifier's front end: an 11x11 convolution with stride 4, two more poolings, five convolutions
in all, and three "fully connected" layers. To label pixels instead of pictures, the fully connected
layers become 1x1 convolutions and one transposed convolution enlarges their answer, as in the
fully convolutional networks of Long, Shelhamer and Darrell (2015). The network decides on a grid
16 times coarser than the slice: 6x6 answers for 96x96 pixels, which the enlargement can only blend.
The original's third pooling is left out, for it would leave 3x3 answers; so is its local response
normalisation. Long et al. turn the first of the fully connected layers into a 6x6 convolution,
which here would be as wide as the grid, and begin with a bilinear enlargement; here it begins at
random.
"""

from torch import Tensor, nn


class AlexNet(nn.Module):
    """Logits (N, classes, H, W) from images (N, 1, H, W); H and W are multiples of 16.

    Args:
        channels: widths of the five convolutions and of the two fully connected layers; the
            original's are 96, 256, 384, 384, 256 and 4096.
        dropout: probability of zeroing a value in the fully connected layers (the original: 0.5).
    """

    name = "alexnet"
    stride = 1
    multiple = 16

    def __init__(
        self,
        channels: tuple[int, ...] = (96, 256, 384, 384, 256, 1024),
        dropout: float = 0.5,
        classes: int = 4,
    ):
        super().__init__()
        c1, c2, c3, c4, c5, full = channels
        self.features = nn.Sequential(
            nn.Conv2d(1, c1, 11, stride=4, padding=5),
            nn.ReLU(),  # (N, 96, 24, 24)
            nn.MaxPool2d(3, stride=2, padding=1),  # (N, 96, 12, 12)
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),  # (N, 256, 6, 6)
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(dropout),
            nn.Conv2d(c5, full, 1),
            nn.ReLU(),  # (N, 1024, 6, 6)
            nn.Dropout(dropout),
            nn.Conv2d(full, full, 1),
            nn.ReLU(),
            nn.Conv2d(full, classes, 1),  # (N, 4, 6, 6)
        )
        self.enlarge = nn.ConvTranspose2d(classes, classes, 32, stride=16, padding=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.enlarge(self.classifier(self.features(x)))  # (N, 4, 96, 96)
