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
# To say *that is the left ventricle*, a network must look at much of the picture at once; to say *it ends exactly
# here*, it must look at single pixels: how can one network do both?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** build a U-Net as a class of about 40 lines, tell the shape and the number of weights of
# each part before you run it, say what a skip connection carries, and name what the paper of 2015, the report of 2020
# and this book do differently.
# **You need** [Down and up](down_and_up) and [Optimisers and batch norm](optimisers_and_batch_norm).
# **Time** 40 minutes to read and run.
# ```

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
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cmrseg import data, datasets, plots

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
CLASSES, (train, val) = data.CLASSES, datasets.split(datasets.source(), "val")

# %% tags=["hide-input", "pieces"]
# Built on earlier pages: dice
def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores

# %% [markdown]
# ## The plan
#
# The task is **semantic segmentation**: a class for every pixel. The U-Net {cite}`ronneberger2015` answers with a shape.
# Its **encoder** goes down and gives up resolution for meaning. Its **decoder** comes back up. And at each level a **skip
# connection** hands across what the encoder saw there.
#
# You know all its layers already: convolution, batch norm, ReLU, pooling, transposed convolution. We try each part on a
# slice as soon as it exists.

# %%
def prepare(slices):
    """Images (N, 1, H, W), each with mean 0 and deviation 1, and labels (N, H, W)."""
    x = torch.from_numpy(slices.images).float()[:, None]
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
    return x, torch.from_numpy(slices.masks).long()


few, labels = prepare(train[:8])
x = few[:1]
print("eight slices", tuple(few.shape), "  one of them", tuple(x.shape))

# %% [markdown]
# ## One block
#
# Everything is made of one **block**: a 3x3 convolution finds patterns, batch normalisation {cite}`ioffe2015` keeps the numbers in
# range, a ReLU cuts them at zero; and the same again. Two 3x3 convolutions see 5x5 pixels, and the ReLU between
# them keeps the two from collapsing into one ([Backpropagation](../build/backpropagation)). A block changes the number of channels; with a padding of 1 the size stays.

# %%
def block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


torch.manual_seed(0)
first = block(1, 8)
maps = first(x).detach()
print(tuple(x.shape), "->", tuple(maps.shape))

# %%
figure, axes = plt.subplots(1, 5, figsize=(9.5, 2.2))
plots.show(axes[0], x[0, 0], "slice")
for n, ax in enumerate(axes[1:]):
    plots.show(ax, maps[0, n], f"feature map {n}")

# %% [markdown]
# *A slice and four of the eight feature maps that an untrained block makes of it. Even random kernels answer to edges and to
# bright or dark areas. Black is zero, where the ReLU has cut.*
#
# **Predict, then run**: how many weights does this block have? Count on paper. (Does a kernel of the second convolution look at
# one map or at all eight?)

# %%
by_hand = {
    "first convolution": 8 * (3 * 3 * 1) + 8,  # eight kernels, and a bias for each
    "its batch norm": 8 + 8,  # a scale and a shift for each map
    "second convolution": 8 * (3 * 3 * 8) + 8,  # each kernel looks at all eight maps
    "its batch norm again": 8 + 8,
}
torchs = sum(p.numel() for p in first.parameters())
print(*by_hand.values(), "together", sum(by_hand.values()), "| torch counts", torchs)
assert sum(by_hand.values()) == torchs

# %% [markdown]
# ## The way down
#
# Between two blocks, max pooling keeps the largest of each 2x2 square. A level down has a quarter of the pixels, but
# its convolutions have twice as many channels going in and coming out. So from the second level on, every level needs
# the same number of multiplications. **Predict, then run**: a slice of 96x96
# is pooled four times. Which shapes appear?
#
# A network in PyTorch is a class that inherits from `nn.Module`: `__init__` makes the layers, `forward` uses them, and
# `net(x)` runs `forward`. An `nn.ModuleList` is a list whose weights PyTorch knows of.

# %%
class Down(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inputs = (1, *channels)  # 1, 8, 16, 32, 64 go in; 8, 16, 32, 64, 128 come out
        self.encoder = nn.ModuleList(block(i, o) for i, o in zip(inputs, channels))

    def forward(self, x):
        for down in self.encoder[:-1]:
            x = F.max_pool2d(down(x), 2)
            print("after a block and a pooling", tuple(x.shape))
        return self.encoder[-1](x)


channels = (8, 16, 32, 64, 128)
bottleneck = Down(channels)(x)
print("the bottleneck", tuple(bottleneck.shape), "=", bottleneck.numel(), "numbers")

# %% [markdown]
# Here is what there is so far. The pale parts are still to come.

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import HTML

import cmrseg

DRAWING = Path(cmrseg.__file__).parents[1] / "notebooks" / "build" / "the_unet.svg"


def draw(built):
    """The U as far as it is built: "down", "both" ways, or with its "skips"."""
    name = "unet-" if built == "skips" else f"{built}-unet-"  # a page has each id once
    text = DRAWING.read_text(encoding="utf-8").replace("STAGE", built)
    return HTML(text.replace('id="unet-', f'id="{name}'))

# %%
draw("down")

# %% [markdown]
# *The way down. Each box says channels x side²; a level down has twice the channels and half the side.*
#
# The coarsest maps, after the last block, are the **bottleneck**: the narrow passage that everything must go through which
# isn't handed across. Here it has 36 places, each for a square of 16x16 pixels. [Down and up](down_and_up) counted that one of
# them sees more than a whole slice. So the bottleneck can know *what* is there: a bright disc in a dark ring, a
# crescent beside it. It holds only half as many numbers as the slice has pixels, and *where* is known on a grid of 6x6.
#
# ## A way up, without skips
#
# On the way up a transposed convolution doubles the sides and halves the channels, and a block works on the result. At the end
# a 1x1 convolution, the *head*, makes four numbers for each pixel. Nothing crosses yet.

# %%
class DownUp(Down):
    def __init__(self, channels):
        super().__init__(channels)
        steps = list(zip(channels[:0:-1], channels[-2::-1]))  # (128, 64), (64, 32) ...
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, stride=2) for c, f in steps)
        self.decoder = nn.ModuleList(block(f, f) for _, f in steps)
        self.head = nn.Conv2d(channels[0], len(CLASSES), 1)

    def forward(self, x):
        for down in self.encoder[:-1]:
            x = F.max_pool2d(down(x), 2)
        x = self.encoder[-1](x)
        for up, merge in zip(self.up, self.decoder):
            x = merge(up(x))
        return self.head(x)

# %%
print(tuple(x.shape), "->", tuple(DownUp(channels)(x).shape))
draw("both")

# %% [markdown]
# *Both ways. The numbers of a pixel at the top right have all passed through the bottleneck.*
#
# What masks can such a network draw? We train it for a few seconds on eight slices, and look at the same slices afterwards. (The
# next two pages explain this loop line by line.) **Predict first**: what will its masks look like?

# %%
def train_briefly(make, steps=2 if SMOKE else 80):
    torch.manual_seed(0)
    net = make(channels)
    optimiser = torch.optim.Adam(net.parameters(), 0.005)
    weight = torch.tensor([0.2, 1, 1, 1])  # a pixel of the heart counts five times
    for _ in range(steps):
        some = torch.randperm(len(few))[:4]
        loss = F.cross_entropy(net(few[some]), labels[some], weight)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval().requires_grad_(False)


plain = train_briefly(DownUp)
blurred = plain(few).argmax(1).numpy()  # the class with the largest number

# %%
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.6))
for k, (left, right) in enumerate((axes[:2], axes[2:])):
    plots.overlay(left, few[2 * k, 0], train.masks[2 * k], "reference")
    plots.overlay(right, few[2 * k, 0], blurred[2 * k], "without skips")

# %% [markdown]
# *Two of the slices that it was trained on. The masks lie about right, but their outlines are off by several pixels:
# everything that the way up knows about places comes from a grid of 6x6.*
#
# Many more steps would help: its channels could learn eight outlines by heart. But *upsampling doesn't restore detail; it
# only makes more pixels*, and the network must invent the outline anew for every heart.
#
# ## Skips: put side by side, not added
#
# The detail was there on the way down. The first block knew exactly where the edges are, but not
# what they are edges of. So hand its maps across, and let a block combine *what* from below with *where* from the side.
#
# **Predict, then run**: we take the lowest skip out of the network just trained, on our slice. There 64 maps come across and 64 come up
# from the bottleneck, all of 12x12. How many come out when they are joined?

# %%
level = x
for down in plain.encoder[:3]:
    level = F.max_pool2d(down(level), 2)
skip = plain.encoder[3](level)  # what the fourth block saw of the heart
below = plain.up[0](plain.encoder[4](F.max_pool2d(skip, 2)))
joined = torch.cat([skip, below], 1)
print("across", tuple(skip.shape), "  from below", tuple(below.shape))
print("joined", tuple(joined.shape), "  added", tuple((skip + below).shape))
assert torch.equal(joined[:, :64], skip) and torch.equal(joined[:, 64:], below)

# %% [markdown]
# *A U-Net's skips don't add anything up.* They **concatenate**: 64 channels beside 64 channels make 128, both are still there
# unchanged, and the next convolution has weights for all 128. A *residual network* {cite}`he2016` does add, and there too it's called a
# skip connection. What's the difference? Give both halves the same kernel, and joining becomes adding:

# %%
kernel = 0.05 * torch.randn(64, 64, 3, 3)
twice = torch.cat([kernel, kernel], 1)  # (64, 128, 3, 3)
by_joining = F.conv2d(joined, twice, padding=1)
by_adding = F.conv2d(skip + below, kernel, padding=1)
assert torch.allclose(by_joining, by_adding, atol=1e-3)
print("the same", tuple(by_adding.shape))

# %% [markdown]
# So a sum is the special case in which the convolution isn't allowed to tell the two apart. Joining leaves it free, and costs
# twice the weights there.
#
# ## The head and its logits
#
# The head is a convolution with kernels of 1x1: at each pixel it turns the 8 channels into 4 numbers, four weighted sums,
# without looking at the neighbours ([Convolution](../build/convolution) has shown that such a kernel is a matrix).
# These numbers are **logits**, as on [One weight](one_weight), but one for each class: any number may come out, and the
# largest wins the pixel (`argmax`). Logits aren't
# probabilities; [The loss](the_loss) makes probabilities of them.
#
# ## The whole class
#
# Now all parts are there. Compared with `DownUp`, the encoder keeps its maps, each step up takes the last one kept, and the
# decoder's blocks have twice the inputs. And `block` says with a loop what it said in six lines.

# %% tags=["piece"]
def block(inputs, outputs):
    """(N, inputs, h, w) -> (N, outputs, h, w): convolution, batch norm, ReLU; twice."""
    layers = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Logits (N, 4, H, W) from images (N, 1, H, W); channels from fine to coarse."""

    def __init__(self, channels):
        super().__init__()
        steps = list(zip(channels[:0:-1], channels[-2::-1]))  # (128, 64), (64, 32) ...
        self.encoder = nn.ModuleList(
            block(i, o) for i, o in zip((1, *channels), channels)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, stride=2) for c, f in steps)
        self.decoder = nn.ModuleList(block(2 * f, f) for _, f in steps)
        self.head = nn.Conv2d(channels[0], len(CLASSES), 1)

    def forward(self, x):
        skips = []
        for down in self.encoder[:-1]:
            skips.append(down(x))  # (N, 8, 96, 96), (N, 16, 48, 48) ...
            x = F.max_pool2d(skips[-1], 2)  # (N, 8, 48, 48) ...
        x = self.encoder[-1](x)  # (N, 128, 6, 6), the bottleneck
        for up, merge in zip(self.up, self.decoder):
            x = merge(torch.cat([skips.pop(), up(x)], 1))  # (N, 64, 12, 12) ...
        return self.head(x)  # (N, 4, 96, 96)

# %%
draw("skips")

# %% [markdown]
# *The U-Net. Over each green arrow stands what is joined there: maps from the side and maps from below. The block at the arrow's tip
# halves their number again.*
#
# Is it the U-Net of the book's package? Give both the same weights: `state_dict` is the dictionary of all weights by name,
# and `strict=True` refuses if a single name or shape differs.

# %%
import cmrseg.models.unet as library

theirs, ours = library.UNet(channels).eval(), UNet(channels).eval()
ours.load_state_dict(theirs.state_dict(), strict=True)
with torch.no_grad():
    assert torch.allclose(ours(few), theirs(few), atol=1e-5)
print("the same logits", tuple(ours(few).shape))

# %% [markdown]
# Most mistakes in a network show in its shapes. A **hook** is a function that PyTorch calls whenever a layer has run; ours notes what went in and what
# came out. **Predict, then run**: which part of `decoder.3` has 16 channels, its input or its output?

# %%
def watch(net):
    """A dictionary that fills with (input, output) of each part when net runs."""
    seen = {}
    for name, layer in net.named_modules():
        if name.count(".") == 1 or name == "head":  # encoder.0, up.0, decoder.0 ...
            note = lambda _, inputs, out, name=name: seen.update({name: (inputs[0], out)})
            layer.register_forward_hook(note)
    return seen


seen = watch(ours)
ours(x)
for name, (before, after) in seen.items():
    print(f"{name:9} {str(tuple(before.shape)):17} -> {tuple(after.shape)}")

# %% [markdown]
# ## With and without
#
# Now the same brief training for the U-Net: the same eight slices, steps and random seed.

# %%
net = train_briefly(UNet)
masks = {"reference": labels.numpy(), "without skips": blurred}
masks["with skips"] = net(few).argmax(1).numpy()
for name, model in (("without skips", plain), ("with skips", net)):
    scores = [dice(p, t) for p, t in zip(masks[name], masks["reference"])]
    count = sum(p.numel() for p in model.parameters())
    mean = np.nanmean(scores)
    print(f"{name:>13}: {count} weights, mean Dice {mean:.3f} on these eight")

# %%
figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.2))
for row, k in zip(axes, (0, 2)):
    for ax, (name, mask) in zip(row, masks.items()):
        plots.overlay(ax, few[k, 0], mask[k], name)
        plots.contours(ax, masks["reference"][k], width=1)

# %% [markdown]
# *The reference, and what the two networks make of slices they were trained on, with the reference's outline. Without skips the
# masks are lumps near the right place; with skips they follow the outline.*
#
# This is one training run of a few seconds on eight slices, and the U-Net has more weights as well: an illustration, not a
# verdict. The hooks also show how the second network works on a slice that it has never seen:

# %%
seen = watch(net)
mask = net(prepare(val[:1])[0]).argmax(1)[0]
figure, axes = plt.subplots(2, 6, figsize=(9.5, 3.8))
plots.show(axes[0, 0], val.images[0], "slice 96²")
plots.overlay(axes[1, 0], val.images[0], mask, "its labels 96²")
places = [f"encoder.{n}" for n in range(5)] + [f"decoder.{n}" for n in (3, 2, 1, 0)]
for ax, place in zip(axes[:, 1:].flat, places):
    maps = seen[place][1][0]  # (channels, side, side)
    liveliest = maps[maps.std((1, 2)).argmax()]
    plots.show(ax, liveliest, f"{len(maps)} x {maps.shape[1]}²")
axes[1, 5].axis("off");

# %% [markdown]
# *One channel of each level, the one that varies most. Read the top row from left to right, the way down: detail turns into a coarse
# "here is the heart". Read the bottom row from right to left, the way up: the coarse answer gets its outline back.*
#
# Some labels far from the heart may still be wrong: 80 steps on eight slices aren't enough for a heart that the network
# hasn't seen.
#
# ## Three U-Nets
#
# The 2020 report {cite}`report2020` used a U-Net too, built on the code of a tutorial. This table sets the
# paper's network, the report's and ours side by side; its last two rows say how each was trained, but for learning rates and
# numbers of epochs, which differ as well. (Terms that you haven't met come on the next two pages.)
#
# | part | the paper {cite}`ronneberger2015` | the report {cite}`report2020`, by its code | this book |
# |---|---|---|---|
# | goes in | a tile of 572x572, its border mirrored | a slice of 96x96, grey levels 0 to 255 | a slice of 96x96, mean 0, deviation 1 |
# | convolutions | 3x3, no padding | 3x3, padded; 7x7 in the first block | 3x3, padded |
# | in a block | 2 | 3 (by its text and final list, 2) | 2 |
# | batch norm | none | after each convolution | after each convolution |
# | dropout | at the end of the way down | none | none |
# | channels | 64 to 1024 | 32 to 512 | 8 to 128 here, 16 to 256 in the package |
# | poolings | 4, between the blocks; 2x2 | 5, one after every block; 3x3, which overlap | 4, between the blocks; 2x2 |
# | coarsest maps | 28² | 3² | 6² |
# | skips leave | before the pooling | *after* it, the finest at 48² | before it, the finest at 96² |
# | skips are | cropped, joined | joined, behind the enlarged maps | joined, in front of them |
# | a step up | enlarge, join, block | block, enlarge, join | enlarge, join, block |
# | enlarging | 2x2 up-convolution to half the channels | 3x3 transposed convolution, overlapping, as many channels out as in | 2x2 transposed convolution to half the channels |
# | last block | 64 channels | 4 channels at 48², cut at zero by ReLUs | 8 channels at 96² |
# | exit | 1x1 convolution | transposed convolution, 48² to 96², 4 channels to 4 | 1x1 convolution |
# | comes out | logits of 388x388, 2 classes | probabilities, 4 classes: softmax is inside | logits of 96x96, 4 classes |
# | first weights | random, with deviation $\sqrt{2/N}$ | PyTorch's own | PyTorch's own |
# | in PyTorch | (Caffe) | overrides `__call__` | has a `forward` |
# | loss | cross-entropy, weighted near borders | binary cross-entropy of each class | cross-entropy plus soft Dice |
# | trained with | SGD, momentum 0.99, one tile a step; elastic deformation | Adam, two slices; no augmentation | AdamW, four slices; affine and intensity augmentation |
#
# Our copy of the report's network follows its code, with two exceptions: it has a `forward`, and softmax is part of the loss. Its
# six slips of code come one by one, each where it happened: the first, 0/0, came on [Pixels and a first
# Dice](pixels_and_a_first_dice), two stand at the end of this page, and three on the next pages.
#
# First, the row on padding. The paper doesn't pad, so each convolution eats a rim of one pixel. **Predict, then run**: what is left of its tile
# of 572 pixels, and of one of our slices?

# %%
for side in (572, 96):
    sides = [side]
    for _ in range(4):
        sides.append((sides[-1] - 4) // 2)  # a block eats 4, pooling halves
    sides.append(sides[-1] - 4)
    for _ in range(4):
        sides.append(2 * sides[-1] - 4)
    print(*sides)

# %% [markdown]
# The tile shrinks to 388, so a skip must be cropped before it fits. A slice of 96 would be used up. So we pad, and
# pay with a rim of zeros.
#
# ### A slip: skips after the pooling
#
# The report joins what comes *out* of each pooling. Run it on the slice, beside ours:

# %%
from cmrseg.models.report_unet import ReportUNet

report = ReportUNet(channels=(32, 64, 128, 256, 512), convolutions=3, first_kernel=7)
inside, seen = watch(report), watch(ours)
with torch.no_grad():
    report(x), ours(x)
    across = [report.pool(inside[f"encoder.{n}"][1]) for n in range(4)]
for n, theirs in enumerate(across):
    mine = seen[f"encoder.{n}"][1]
    print(f"skip {n}: ours {str(tuple(mine.shape)):16} the report's {tuple(theirs.shape)}")
count = [sum(p.numel() for p in model.parameters()) / 1e6 for model in (ours, report)]
print("million weights: ours {:.2f}, the report's {:.2f}".format(*count))

# %% [markdown]
# The report's finest skip has 48x48 places: no feature map of full resolution reaches the way up, and the last step has to work out
# three pixels of four. [Down and up](down_and_up) measured what a mask on such a grid can score. To mend it, swap two lines: keep
# the maps first, then pool. Whether that helps in training is a question for [Repairs](../conclusions/repairs).
#
# ### A slip: `__call__` in place of `forward`
#
# `net(x)` runs `nn.Module.__call__`, which runs `forward` and does a few things around it, hooks among them. The report's class
# writes its own `__call__`. **Predict, then run**: how often is each hook called?

# %%
class Overridden(nn.Conv2d):
    def __call__(self, x):
        return F.conv2d(x, self.weight, self.bias)


class Mended(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias)


for kind in (Overridden, Mended):
    layer, calls = kind(1, 4, 1), []
    layer.register_forward_hook(lambda *_, calls=calls: calls.append("called"))
    print(f"{kind.__name__:10} answers {tuple(layer(x).shape)}; its hook: {calls}")

# %% [markdown]
# The answer is right and nothing complains, but hooks on this class are never called, and neither is whatever else PyTorch does around
# `forward`. The mend is one word: name it `forward`.
#
# ### A trap: softmax inside the network
#
# The report's network ends with softmax, and its own loss expects probabilities, so the two fit. That's no slip, but a trap for whoever
# changes the loss: PyTorch's cross-entropy applies softmax itself. Here are four logits that are sure of class 3, and softmax once and
# twice:

# %%
once = torch.tensor([0.0, 0.0, 0.0, 9.0]).softmax(0)
print("once ", once.numpy().round(2), "  twice", once.softmax(0).numpy().round(2))

# %% [markdown]
# Twice, nothing can be sure any more: the second softmax takes probabilities for logits. [The loss](the_loss) shows what that does to
# cross-entropy. The mend: end with logits, and leave softmax to the loss.
#
# ## Recap
#
# - You can build a U-Net from blocks, poolings, transposed convolutions and a 1x1 head, and say each shape and each number of weights
#   before you run it.
# - A skip connection hands the maps of its level across before they are pooled, and joins them to those from below: the bottleneck says what, the skip
#   says where.
# - You can tell what the paper, the report and this book do differently.
#
# ## Exercises
#
# ```{exercise} Shapes, foretold
# :label: unet-shapes
# Fill in the function below: the shapes of the maps that the skips carry in a U-Net of these channels, from the finest to the coarsest.
# The check says what is wrong, not only that something is.
# ```

# %% tags=["hide-input"]
def attempt(mine, inputs, convert):
    """What a function answers, converted; or, in words, what is wrong already."""
    try:
        answer = mine(*inputs)
        return "it returns nothing yet" if answer is None else convert(answer)
    except Exception as error:
        return f"it stops with {type(error).__name__}: {error}"


def first_slip(mine, cases, slips, convert):
    """What is wrong with a function of each case, by what typical slips answer."""
    for case in cases:
        yours, known = attempt(mine, case, convert), slips(*case)
        if isinstance(yours, str):
            return yours
        matches = [why for why, answer in known.items() if answer == yours]
        other = f"for {case} it says {yours}, it should be {known['right']}"
        if "right" not in matches:
            return (*matches, other)[0]
    return "right"


def shape_slips(channels, side):
    """Shapes of what skips carry, rightly and wrongly."""
    right = [(c, side // 2**n, side // 2**n) for n, c in enumerate(channels[:-1])]
    size = side // 2 ** len(right)
    return {
        "right": right,
        "the bottleneck goes up, not across": right + [(channels[-1], size, size)],
        "skips leave before the pooling": [(c, h // 2, w // 2) for c, h, w in right],
        "the finest comes first": right[::-1],
        "channels come first": [(h, w, c) for c, h, w in right],
        "twice the channels come by joining": [(2 * c, h, w) for c, h, w in right],
        "leave out the number of slices": [(1, *shape) for shape in right],
    }


def weight_slips(c, f):
    """Numbers of weights of a step up, rightly and wrongly."""
    up, norm, second = 4 * c * f + f, 2 * f, 9 * f * f + f
    right = up + (9 * 2 * f * f + f) + norm + second + norm
    return {
        "right": right,
        "skips are joined, not added: 2 f maps go into the block": right - 9 * f * f,
        "a kernel has weights for every input map": 4 * f + 2 * (9 * f) + 3 * f + 2 * norm,
        "the biases are missing": right - 3 * f,
        "the biases of the block's convolutions are missing": right - 2 * f,
        "the bias of the transposed convolution is missing": right - f,
        "batch norm learns a scale and a shift for each map": right - 2 * norm,
        "there are two batch norms": right - norm,
        "a running mean and variance are kept, not learned": right + 2 * norm,
        "the transposed convolution is missing": right - up,
        "the block is missing": up,
        "the transposed convolution has kernels of 2x2": right + 5 * c * f,
        "the transposed convolution halves the channels": right + 9 * (c - f) * f,
        "a block has two convolutions": right - second - norm,
    }


def check_shapes(mine):
    """What is wrong with a function that should give the shapes of the skips."""
    cases = [((4, 8, 16, 32), 48), ((5, 10, 30), 64), ((3, 20, 7, 40, 8), 160)]
    return first_slip(
        mine, cases, shape_slips, lambda shapes: [tuple(map(float, s)) for s in shapes]
    )


def check_weights(mine):
    """What is wrong with a function that should count the weights of a step up."""
    return first_slip(mine, [(16, 8), (64, 32), (50, 7)], weight_slips, float)

# %%
def my_shapes(channels, side):
    """A list of (channels, height, width), one for each skip."""
    return None  # your lines here


print("my_shapes:", check_shapes(my_shapes))

# %% [markdown]
# ```{solution-start} unet-shapes
# :class: dropdown
# ```

# %%
def my_shapes(channels, side):
    """A list of (channels, height, width), one for each skip."""
    return [(c, side // 2**n, side // 2**n) for n, c in enumerate(channels[:-1])]


print("my_shapes:", check_shapes(my_shapes))

# %% [markdown]
# One skip for each level but the last, each with half the side of the one before.
#
# ```{solution-end}
# ```
#
# ```{exercise} The weights of a step up
# :label: unet-weights
# A step up turns `c` maps from below into `f` maps: a transposed convolution with kernels of 2x2 from `c` to `f`, then the skip's
# `f` maps are joined, then a block from all of these to `f`: twice a 3x3 convolution, batch norm, ReLU. Every convolution has a bias,
# and batch norm learns a scale and a shift for each map. Give a formula for how many numbers the step learns, without making any layer.
# ```

# %%
def my_weights(c, f):
    """How many weights a step up from c maps to f maps learns."""
    return None  # your lines here


print("my_weights:", check_weights(my_weights))

# %% [markdown]
# ```{solution-start} unet-weights
# :class: dropdown
# ```

# %%
def my_weights(c, f):
    """How many weights a step up from c maps to f maps learns."""
    up = 2 * 2 * c * f + f
    first, second = 3 * 3 * (2 * f) * f + f, 3 * 3 * f * f + f
    return up + first + second + 2 * (f + f)


print("my_weights:", check_weights(my_weights))
step = [*ours.up[0].parameters(), *ours.decoder[0].parameters()]
assert my_weights(128, 64) == sum(p.numel() for p in step)

# %% [markdown]
# The block's first convolution sees `2 * f` maps, since the skip is put beside what comes from below. With skips that add it would have
# half as many weights.
#
# ```{solution-end}
# ```
#
# ```{exercise} A slice that doesn't fit
# :label: unet-own
# Build a U-Net with three levels of 8, 16 and 32 channels. How many weights does it have, and what happens at 97x97? Write a function that
# lets any network of this page label a slice of any size: pad it, run it, crop the answer. What is the smallest slice that needs no padding?
# ```
#
# ```{solution-start} unet-own
# :class: dropdown
# ```

# %%
def label_any(net, x, multiple):
    """Labels (N, H, W) of images (N, 1, H, W) of any size."""
    h, w = x.shape[2:]
    padded = F.pad(x, (0, -w % multiple, 0, -h % multiple), mode="replicate")
    return net.eval()(padded).argmax(1)[:, :h, :w]


small = UNet((8, 16, 32)).requires_grad_(False)
print(sum(p.numel() for p in small.parameters()), "weights")
try:
    small(torch.zeros(1, 1, 97, 97))
except RuntimeError as error:
    print("97x97:", error)
print("95x93:", tuple(label_any(small, x[:, :, :95, :93], multiple=4).shape))
print("4x4:  ", tuple(small(torch.zeros(1, 1, 4, 4)).shape))

# %% [markdown]
# The sides must halve twice without a remainder. With 97 pixels the skip and the enlarged maps differ by one pixel, and `torch.cat`
# refuses. {func}`cmrseg.predict.predict` pads like this, too. The smallest slice is 4x4: its bottleneck is a single
# place. (In evaluation; in training, batch norm refuses a single number per channel.)
#
# ```{solution-end}
# ```
#
# **Next**: [The loss](the_loss): the network gives four numbers for each pixel, and something has to say how wrong they are. **Read**: {cite}`ronneberger2015`, eight
# pages, for Figure 1: you can now check each number in it.
