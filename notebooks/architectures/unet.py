# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The U-Net
#
# To say *that is the left ventricle*, a network must look at much of the picture at once. To say
# *it ends exactly here*, it must look at single pixels. How can one network do both?
#
# The U-Net {cite}`ronneberger2015` answers with a shape. On the way down it trades resolution for
# meaning; on the way up it trades back; and at every level it hands what it saw on the way down
# straight across to the way up.

# %% tags=["remove-cell"]
# In Colab this fetches the book and its package; anywhere else it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("cmrseg") is None:
    address = "https://github.com/cmr-segmentation-book/cmr-segmentation-book"
    subprocess.run(["git", "clone", "--depth", "1", address, "book"], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "-e", "book"], check=True
    )
    sys.path.insert(0, "book")

# %% tags=["hide-input"]
import os

import matplotlib.pyplot as plt
import torch

from cmrseg import data, metrics, plots
from cmrseg.augment import normalise
from cmrseg.models import build
from cmrseg.models.unet import UNet
from cmrseg.training import PRESETS, TrainConfig, fit, predict

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, val = data.split(data.source(), "val")

# %% [markdown]
# Here is a small one at work. It was trained while this page was made, and now
# looks at a slice it has never seen.

# %% tags=["hide-input"]
epochs = 1 if SMOKE else 10
run = fit(
    TrainConfig(channels=(8, 16, 32, 64, 128), epochs=epochs),
    train[:16] if SMOKE else train,
)
seen = {}
for name, block in run.model.named_modules():
    if name.count(".") == 1 and name.startswith(("encoder", "decoder")):
        block.register_forward_hook(
            lambda _, __, out, name=name: seen.update({name: out[0]})
        )
mask = predict(run.model, val.images[:1])[0]


def picture(ax, name):
    """Draw the liveliest channel of a level, at the level's own resolution."""
    maps = seen[name]
    plots.show(
        ax, maps[maps.std((1, 2)).argmax()], f"{maps.shape[0]} x {maps.shape[1]}²"
    )


figure, axes = plt.subplots(2, 6, figsize=(9.5, 3.9))
plots.show(axes[0, 0], val.images[0], "slice 96²")
plots.overlay(axes[1, 0], val.images[0], mask, "its labels 96²")
for level in range(5):
    picture(axes[0, level + 1], f"encoder.{level}")
for level in range(4):
    picture(axes[1, level + 1], f"decoder.{3 - level}")
axes[1, 5].axis("off");
# %% [markdown]
# *Read the top row from left to right, the way down: edges become parts, parts become a coarse "here is the heart".
# Read the bottom row from right to left, the way up: the coarse answer gets its sharp outline back. Each picture is
# one channel of its level, the one that varies most; its title is the number of channels x the size.*
#
# ## One block
#
# Everything is made of one block: a 3x3 convolution, batch normalisation {cite}`ioffe2015`, a ReLU,
# and the same again. It changes the number of channels and leaves the size alone.

# %%
net = UNet(channels=(16, 32, 64, 128, 256))
net.encoder[0]

# %% [markdown]
# Between two blocks of the way down, max pooling keeps the largest of each 2x2 square. A quarter of
# the pixels, twice the channels on either side of a convolution: so every level costs about the same,
# and each of its numbers stands for a larger piece of the heart.
#
# On the way up a *transposed convolution* doubles the sides: each number is spread over a square of 2x2, with
# weights that are learned.
#
# ## Shapes at every level
#
# Shapes are the best debugger. Below, the network tells its own, for a batch of two slices.

# %%
x = normalise(val.images[:2])  # (2, 1, 96, 96)
skips = []
for block in net.encoder[:-1]:
    x = block(x)
    print(f"block  {str(tuple(x.shape)):18} a copy goes across")
    skips.append(x)
    x = net.pool(x)
x = net.encoder[-1](x)
print(f"bottom {tuple(x.shape)}")
for up, block in zip(net.up, net.decoder):
    x = torch.cat([skips.pop(), up(x)], dim=1)
    print(f"joined {tuple(x.shape)}")
    x = block(x)
print(f"logits {tuple(net.head(x).shape)}   one channel per class")

# %% [markdown]
# The four numbers of a pixel are *logits*: larger means likelier. They become probabilities by
# softmax in the loss, and a label by taking the largest. The network itself ends with the logits,
# because losses are more exact on them, and because a softmax that is applied twice is a classic
# silent mistake.
#
# The whole network is one short file, `cmrseg/models/unet.py`. Its `forward` is the cell above.
#
# ## Where the report took its skips
#
# The 2020 report {cite}`report2020` built a U-Net too, and it differs from this one in many ways:
#
# | | the report's, by its code | this book's |
# |---|---|---|
# | channels | 32 to 512 | 16 to 256 |
# | convolutions in a block | 3 (by its text and its final list, 2) | 2 |
# | kernel of the first block | 7x7 | 3x3 |
# | poolings | 5, one after every block; windows of 3x3 that overlap | 4, between the blocks; windows of 2x2 |
# | coarsest feature maps | 3² | 6² |
# | skip connections leave | *after* the pooling, the finest at 48² | before it, the finest at 96² |
# | on the way up | block, enlarge, join with the skip | enlarge, join with the skip, block |
# | transposed convolutions | 3x3, which overlap; as many channels come out as go in | 2x2, side by side; half as many come out |
# | the last block | 4 channels at 48², cut off at zero by ReLUs | 16 channels at 96² |
# | the exit | a transposed convolution from 48² to 96², 4 channels to 4 | a 1x1 convolution at 96², 16 channels to 4 |
# | what comes out | probabilities: the softmax is inside | logits |
# | in PyTorch | overrides `__call__` | has a `forward` |
#
# (Our copy of it, the preset `report`, follows the code in all but the last two rows: softmax is part of its loss.)
#
# Three rows belong together: where the skips leave, the order on the way up, and the exit. No feature map of full
# resolution reaches the report's output: the last step has to guess three pixels of four.

# %%
report = PRESETS["report"]
theirs = build(report)
for name, unet in (("the report's", theirs), ("this book's", net)):
    count = sum(p.numel() for p in unet.parameters())
    print(f"{name} U-Net: {count / 1e6:.2f} million parameters")
x = normalise(val.images[:1])
print("finest copy, theirs:", tuple(theirs.pool(theirs.encoder[0](x)).shape))
print("finest copy, ours:  ", tuple(net.encoder[0](x).shape))

# %% [markdown]
# How much can that cost? Take the *true* masks, give each 2x2 square the label that most of its pixels
# have, and enlarge again. That is about the best that one *hard label* for each square can do. A network that enlarges
# soft answers can do better: where the numbers of two neighbours cross, a boundary may run between them. The page
# [AlexNet-style](../architectures/alexnet) shows it on a much coarser grid.

# %%
half = metrics.coarsen(val.masks, 2)
ceiling = metrics.per_class(metrics.dice(half, val.masks))
for name, score in zip(plots.CLASS_COLOURS, ceiling):
    print(f"{name:>3}: Dice of the true mask at half resolution {score:.3f}")

# %% tags=["hide-input"]
figure, axes = plots.panels(3, size=2.9)
plots.overlay(axes[0], val.images[0], val.masks[0], "the true mask")
plots.overlay(axes[1], val.images[0], half[0], "at half resolution")
plots.show(axes[2], half[0] != val.masks[0], "where they differ");
# %% [markdown]
# *Halving the resolution nibbles at every boundary, and the thin myocardium, which is nearly all
# boundary, loses most.*
#
# There is a second price. A transposed convolution puts down a square of numbers for every pixel, two pixels
# apart. Squares of 2x2, this book's, lie side by side. The report's of 3x3 overlap: in every other row and column two
# add up, and where both cross, four. Enlarge a flat picture, with all weights equal:

# %%
figure, axes = plots.panels(2, size=2.6)
for ax, window in zip(axes, (2, 3)):
    up = torch.nn.ConvTranspose2d(1, 1, window, stride=2, bias=False)
    torch.nn.init.ones_(up.weight)
    enlarged = up(torch.ones(1, 1, 8, 8))[0, 0].detach()
    ax.imshow(enlarged, cmap=plots.HEAT, vmin=0, vmax=4)
    ax.set_title(f"squares of {window}x{window}")

# %% [markdown]
# *A flat picture stays flat with squares of 2x2; with 3x3 it becomes a checkerboard.*
#
# Such checkerboards are well known {cite}`odena2016`. A network can learn weights that even them out, but it has to. One
# of the report's kind that has not yet shows the grid in its probabilities on [The loss](../basics/loss).
#
# So all this is a hint and no verdict. What the place of the skips costs with everything else held equal is a matter
# for an experiment. "Repairs" in part V comes near it: it exchanges the report's decoder for the textbook's, which
# changes several of the rows above at once.
#
# ## What to conclude
#
# A U-Net is two chains of blocks and a few copies. The chain makes meaning, the copies keep place.
# Where a copy is taken decides how fine the detail is that reaches the way up.
#
# ## Try
#
# ```{exercise} Shapes, foretold
# :label: unet-shapes
# Fill in the function below: the shapes of the copies that go across in a U-Net of these channels, from the
# finest to the coarsest. The check says what is wrong, not only that something is.
# ```


# %% tags=["hide-input"]
def check_shapes(mine, channels=(4, 8, 16, 32), side=48):
    """What is wrong with a function that should give the shapes of the copies."""
    if mine(channels, side) is None:
        return "it returns nothing yet"
    found = [tuple(shape) for shape in mine(channels, side)]
    right = [(4, 48, 48), (8, 24, 24), (16, 12, 12)]
    telltales = [
        (right, "right"),
        (right + [(32, 6, 6)], "the bottom goes up, not across"),
        ([(c, s // 2, s // 2) for c, s, _ in right], "copies leave before the pooling"),
        (right[::-1], "the finest comes first"),
        ([(s, s, c) for c, s, _ in right], "channels come first"),
        ([(2 * c, s, s) for c, s, _ in right], "twice the channels come by joining"),
    ]
    words = [words for wrong, words in telltales if found == wrong]
    return (*words, f"it says {found}, they are {right}")[0]


# %%
def my_shapes(channels, side):
    """A list of (channels, height, width), one for each copy."""
    return None  # your lines here


print("my_shapes:", check_shapes(my_shapes))

# %% [markdown]
# ```{solution-start} unet-shapes
# :class: dropdown
# ```


# %%
def my_shapes(channels, side):
    """A list of (channels, height, width), one for each copy."""
    return [(c, side // 2**n, side // 2**n) for n, c in enumerate(channels[:-1])]


print("my_shapes:", check_shapes(my_shapes))

# %% [markdown]
# One copy for each level but the last, each half as large as the one before.
#
# ```{solution-end}
# ```
#
# ```{exercise} A U-Net of your own
# :label: unet-own
# Build a U-Net with three levels of 8, 16 and 32 channels and one convolution per block. How many
# parameters has it? What is the smallest slice it takes, and what happens at 97x97?
# ```
#
# ```{solution-start} unet-own
# :class: dropdown
# ```

# %%
small = UNet(channels=(8, 16, 32), convolutions=1)
count = sum(p.numel() for p in small.parameters())
print(f"{count} parameters; sides must be multiples of {small.multiple}")
shape = predict(small, val.images[:1, :95, :93]).shape
print(shape, "from a slice that was padded and cropped again")
try:
    small(torch.zeros(1, 1, 97, 97))
except RuntimeError as error:
    print(f"97x97: {error}")
print("4x4:", tuple(small.eval()(torch.zeros(1, 1, 4, 4)).shape))

# %% [markdown]
# The sizes must halve twice without a remainder. With 97 pixels the copy and the enlarged features
# differ by one pixel and `torch.cat` refuses; {func}`cmrseg.training.predict` pads the slice first. The smallest is 4x4.
#
# ```{solution-end}
# ```
