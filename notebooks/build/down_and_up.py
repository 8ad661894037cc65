# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Down and up
#
# A kernel is three pixels wide and a heart is many times wider: how does a network come to see all of it, and what
# does it lose on the way?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** compute stride, pooling and transposed convolution by hand, count how far one output
# pixel sees and check the count, and say which detail is gone after pooling.
# **You need** [Convolution](../build/convolution), and Dice from [Pixels and a first Dice](pixels_and_a_first_dice).
# **Time** 50 minutes to read and run; before the section *Up* is a good place for a break.
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
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cmrseg import datasets, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")

# %% tags=["hide-input", "pieces"]
# Built on earlier pages: convolve, dice
def convolve(x, weight, bias, padding=0):
    """Slide kernels (O, C, k, k) over maps (N, C, H, W); as F.conv2d."""
    x = F.pad(x, [padding] * 4)  # zeros on all four sides
    k = weight.shape[-1]
    h, w = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = torch.zeros(len(x), len(weight), h, w)
    for o, c, i, j in np.ndindex(*weight.shape):  # four loops in one
        out[:, o] += weight[o, c, i, j] * x[:, c, i : i + h, j : j + w]
    return out + bias[:, None, None]


def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores

# %% [markdown]
# ## Why go down?
#
# A 3x3 kernel sees a square three pixels wide. A second layer looks at three neighbouring outputs of the first, whose
# windows together cover five pixels. A third layer sees seven: each layer adds one pixel on either side.
#
# ```{raw} html
# <svg viewBox="0 0 400 212" role="img" style="width:400px;max-width:100%;height:auto"
#      fill="none" stroke="currentColor" font-family="sans-serif" font-size="15">
# <title>One output of the third layer looks at three outputs of the second, these at five of the first, and these at seven pixels</title>
# <g stroke-opacity="0.7">
# <rect x="90" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="120" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="150" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="180" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="210" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="240" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="270" y="170" width="30" height="30" fill="#785ef0" fill-opacity="0.15"/>
# <rect x="120" y="118" width="30" height="30" fill="#785ef0" fill-opacity="0.30"/>
# <rect x="150" y="118" width="30" height="30" fill="#785ef0" fill-opacity="0.30"/>
# <rect x="180" y="118" width="30" height="30" fill="#785ef0" fill-opacity="0.30"/>
# <rect x="210" y="118" width="30" height="30" fill="#785ef0" fill-opacity="0.30"/>
# <rect x="240" y="118" width="30" height="30" fill="#785ef0" fill-opacity="0.30"/>
# <rect x="150" y="66" width="30" height="30" fill="#785ef0" fill-opacity="0.45"/>
# <rect x="180" y="66" width="30" height="30" fill="#785ef0" fill-opacity="0.45"/>
# <rect x="210" y="66" width="30" height="30" fill="#785ef0" fill-opacity="0.45"/>
# <rect x="180" y="14" width="30" height="30" fill="#785ef0" fill-opacity="0.60"/>
# <path d="M120 148L90 170M270 148L300 170" stroke-dasharray="3 3"/>
# <path d="M150 96L120 118M240 96L270 118" stroke-dasharray="3 3"/>
# <path d="M180 44L150 66M210 44L240 66" stroke-dasharray="3 3"/>
# </g>
# <g fill="currentColor" stroke="none">
# <text x="4" y="190">pixels</text>
# <text x="4" y="138">layer 1</text>
# <text x="4" y="86">layer 2</text>
# <text x="4" y="34">layer 3</text>
# <text x="318" y="138">sees 3</text>
# <text x="318" y="86">sees 5</text>
# <text x="318" y="34">sees 7</text>
# </g>
# </svg>
# ```
#
# *One row of pixels. An output of layer 3 looks at three outputs of layer 2, these at five of layer 1, and these at
# seven pixels.*
#
# How many layers would it take to see a heart from side to side? After $n$ layers an output sees $1 + 2n$ pixels, so
# we need about half as many layers as the heart is wide:

# %%
widths = (train.masks > 0).any(1).sum(1)  # columns that hold some heart
width = int(np.median(widths))
print("median width of a heart:", width, "pixels")
print("layers to see it all:", width // 2)

# %% [markdown]
# Each of these layers would have to visit every pixel of the slice. A network goes another way. It makes its pictures
# smaller, so that three of *their* pixels span more of the heart.
#
# ## Stride
#
# The simplest way is to take larger steps. The **stride** is how far the window moves from one place to the next.
# Take the row (3, 1, 4, 1, 5, 9, 2) and a kernel (1, 1, 1). With stride 1 the sums are 8, 6, 10, 15, 16. With stride
# 2 every other one is left out: 8, 10, 16. In two dimensions:

# %%
heart = torch.from_numpy(train.images[8]).float() / 255
x = heart[None, None]  # (1, 1, 96, 96)
weight, bias = torch.randn(1, 1, 3, 3), torch.zeros(1)
every_other = convolve(x, weight, bias, padding=1)[:, :, ::2, ::2]
theirs = F.conv2d(x, weight, bias, stride=2, padding=1)
assert torch.allclose(every_other, theirs, atol=1e-5)
print(tuple(x.shape), "->", tuple(theirs.shape))

# %% [markdown]
# With side $n$, kernel $k$, padding $p$ and stride $s$, the output has $\lfloor (n + 2p - k) / s \rfloor + 1$ pixels
# a side: here $(96 + 2 - 3) / 2$, rounded down, plus 1, which is 48.
#
# ## Pooling
#
# A stride of 2 keeps one value of four, always the one at the same position. **Max pooling** keeps the largest of each
# 2x2 square, **average pooling** their mean. Neither has weights. In the code, `x[..., i::2, j::2]` takes every second
# row and column, from row `i` and column `j` on; the dots stand for all axes before these two.

# %%
def squares(x):
    """The pixels of each 2x2 square: (N, C, H, W) -> (4, N, C, H/2, W/2)."""
    return torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])


assert torch.equal(squares(x).amax(0), F.max_pool2d(x, 2))
assert torch.allclose(squares(x).mean(0), F.avg_pool2d(x, 2))
print(tuple(x.shape), "->", tuple(squares(x).shape))

# %% [markdown]
# Pool these 4x4 numbers both ways, on paper:
#
# ```text
# 1 3 2 0
# 5 2 1 1
# 0 0 7 4
# 1 2 6 8
# ```
#
# **Predict, then run**: what are the four largest values, and what are the four means?

# %%
rows = [[1.0, 3, 2, 0], [5, 2, 1, 1], [0, 0, 7, 4], [1, 2, 6, 8]]
small = torch.tensor(rows)[None, None]
print("largest:", squares(small).amax(0)[0, 0].tolist())
print("mean:   ", squares(small).mean(0)[0, 0].tolist())

# %%
figure, axes = plots.panels(2, 3, size=2.5)
poolings = {"max": F.max_pool2d, "mean": F.avg_pool2d}
for row, factor in enumerate((2, 4, 16)):  # pooled once, twice, four times
    for ax, (name, pool) in zip(axes[2 * row :], poolings.items()):
        side = 96 // factor
        plots.show(ax, pool(x, factor)[0, 0], f"{name}, {side}x{side}")
        ax.images[0].set_clim(0, 1)  # the same greys everywhere
        ax.add_patch(plt.Rectangle((-0.5, -0.5), side, side, fill=0, ec="gray"))

# %% [markdown]
# *A slice, pooled once, twice and four times, by the maximum (left) and by the mean (right). The maximum lets what is
# bright spread, and the dark ring of muscle vanishes; the mean lets both fade into grey. In a network it's feature maps
# that are pooled, and their largest values say where a feature was found.*
#
# How many times can a picture be pooled? 96 is $3 \cdot 2^5$, so it halves five times, down to 3. The 2020 report
# {cite}`report2020` goes all the way; our [U-Net](the_unet) pools four times, to 6x6. A side of 100 halves only twice,
# to 25. PyTorch pools 25 to 12 and says nothing, but on the way back up 12 becomes 24, and a row and a column are
# missing. So this book's package pads such pictures first, and crops the mask afterwards.
#
# ## How far one output pixel sees
#
# The **receptive field** of an output pixel is the set of all input pixels that can change it. It isn't the same as the
# kernel. We count how wide it is, from the input on:
#
# | layer | adds | so one output pixel sees |
# |:--|:--|--:|
# | none: the pixel itself | | 1 |
# | 3x3 convolution | one pixel on either side: 2 | 1 + 2 = 3 |
# | 3x3 convolution | another 2 | 3 + 2 = 5 |
# | 2x2 pooling | one neighbour: 1 | 5 + 1 = 6 |
# | 3x3 convolution | two neighbours, which now lie 2 input pixels apart: 2·2 | 6 + 4 = 10 |
#
# In general, a layer with kernel $k$ adds $k - 1$ steps on the grid that it looks at. Each step is as many input pixels
# long as all strides before it, multiplied.

# %% tags=["piece"]
def receptive_field(layers):
    """Side of the square an output pixel sees; layers: (kernel, stride)."""
    side, jump = 1, 1  # jump: input pixels from one place to the next
    for kernel, stride in layers:
        side += (kernel - 1) * jump
        jump *= stride
    return side

# %% [markdown]
# The way down of our U-Net has five *levels*, with a 2x2 pooling between one level and the next. On each level are two
# 3x3 convolutions.
#
# **Predict, then run**: how far does one pixel see at the end of level 2? And at the end of level 5?

# %%
levels = [[(3, 1), (3, 1)]]
for _ in range(4):
    levels.append(levels[-1] + [(2, 2), (3, 1), (3, 1)])
counted = [receptive_field(layers) for layers in levels]
print("by level:", counted)
print("ten 3x3 layers without pooling:", receptive_field([(3, 1)] * 10))

# %% [markdown]
# Without the poolings, the same ten convolutions would see 21 pixels instead of 140. But is the count right? We build
# the layers with random weights, change one pixel of a slice and look whether an output changes. `nn.Sequential` runs
# layers one after another. (We pool by the mean, since the maximum lets only one pixel of four through, and leave out
# what else a U-Net has between its convolutions; that comes on later pages.)

# %%
def way_down(layers):
    """Untrained convolutions, and mean pooling where the stride is 2."""
    steps = []
    for kernel, stride in layers:
        if stride == 1:
            steps.append(nn.Conv2d(1, 1, kernel, padding=1))
        else:
            steps.append(nn.AvgPool2d(kernel))
    return nn.Sequential(*steps)


print("level 2:", *[type(layer).__name__ for layer in way_down(levels[1])])

# %% [markdown]
# **Predict, then run**: we change the pixel 15 columns to the right of the output's place, and by a lot, 1000. Does the
# output of level 1 change, and does that of level 4?

# %%
torch.manual_seed(0)
changed = x.clone()
changed[0, 0, 50, 65] += 1000
for n in (0, 3):  # on level n + 1 the grid has been halved n times
    net, place = way_down(levels[n]), 50 // 2**n
    difference = (net(changed) - net(x))[0, 0, place, place].item()
    print(f"level {n + 1}: the output changes by {difference:.2g}")

# %% [markdown]
# On level 1 the pixel lies outside the receptive field, on level 4 inside. An untrained network passes little on, so the
# change is small; what matters is that it isn't 0.
#
# PyTorch can ask this for all pixels at once: *how much would the output change if this pixel changed a little?* The
# answers together are the **gradient**; where it is 0, the output doesn't see the pixel. `requires_grad=True` tells
# PyTorch to keep track of everything that is computed from `x`. `backward()`, called on one output number, then writes
# the gradient into `x.grad`, one number for each pixel. ([Backpropagation](../build/backpropagation) shows how it is
# computed.)

# %%
def sensitivity(layers, side, row, column):
    """How much one output changes with each pixel of a (side, side) input."""
    x = torch.zeros(1, 1, side, side, requires_grad=True)
    output = way_down(layers)(x)
    output[0, 0, row, column].backward()
    return x.grad[0, 0].abs()

# %%
torch.manual_seed(0)
for n, layers in enumerate(levels):
    middle = 96 // 2**n  # of 192 pixels, so that the frame is far away
    seen = sensitivity(layers, 192, middle, middle) > 0
    measured = int(seen.any(0).sum())
    assert measured == counted[n]
    print(f"level {n + 1}: counted {counted[n]}, measured {measured} pixels")

# %% [markdown]
# Every kernel here is 3x3 or smaller, and still a pixel on level 5 sees further than a slice is wide. *The kernel is what
# one layer sees of the layer before it; the receptive field is what it sees of the picture.* Here it is on a heart:

# %%
row, column = np.argwhere(train.masks[8] == 3).mean(0).astype(int)  # in the LV
figure, axes = plots.panels(2, 2, size=2.5)
for ax, n in zip(axes, (0, 2, 3, 4)):
    place = row // 2**n, column // 2**n
    nets = [sensitivity(levels[n], 96, *place) for _ in range(20)]
    strength = sum(nets) / sum(nets).max()
    plots.show(ax, heart, f"level {n + 1}: {counted[n]} pixels")
    colour = np.ones((96, 96))
    ax.imshow(colour, cmap="cool", vmin=0, vmax=1, alpha=0.9 * strength.numpy())
    ax.contour(strength > 0, levels=[0.5], colors=["#FE6100"], linewidths=2);

# %% [markdown]
# *What one output pixel in the left ventricle sees, on four levels. The orange frame is the receptive field (on level 5
# it lies outside the slice). The pinker a pixel, the larger the gradient there (mean of 20 untrained networks).*
#
# So the count says which pixels *can* matter, not how much each does. Many ways lead from a pixel in the centre to the
# output, and few from the rim, so the rim counts for little {cite}`luo2016`.
#
# ## What pooling loses
#
# Pooling puts one number in the place of four. Can't we get the four back by enlarging? Here is a test: shuffle
# the pixels inside each 2x2 square, at random.

# %%
torch.manual_seed(0)
four = squares(x)
order = torch.rand(four.shape).argsort(0)  # 0 to 3 at random, for each square
shuffled = four.gather(0, order)  # the four pixels in this order
scrambled = torch.empty_like(x)
for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
    scrambled[..., i::2, j::2] = shuffled[k]
print("pixels that differ:", int((scrambled != x).sum()), "of", x.numel())

# %% [markdown]
# **Predict, then run**: by how much do the two pictures differ when they are pooled?

# %%
for pool in (F.max_pool2d, F.avg_pool2d):
    difference = (pool(scrambled, 2) - pool(x, 2)).abs().max().item()
    print(f"{pool.__name__}: largest difference {difference:.7f}")
figure, axes = plots.panels(2, 2, size=2.5)
plots.show(axes[0], x[0, 0], "a slice")
plots.show(axes[1], F.avg_pool2d(x, 2)[0, 0], "the slice, pooled")
plots.show(axes[2], scrambled[0, 0], "shuffled in its squares")
plots.show(axes[3], F.avg_pool2d(scrambled, 2)[0, 0], "shuffled, then pooled");

# %% [markdown]
# *On the left are two different pictures, on the right their mean pooling: the same, up to the last digit.*
#
# A network that sees only the pooled picture can't know which of the two it came from. Enlarging is called
# **upsampling**. *Upsampling can't restore detail: it makes the picture larger, and has to guess what pooling took
# away.*
#
# What does that cost, in Dice? Take the true masks, as if a network had found every pixel, reduce them and enlarge them
# again. Each square of the reduced mask holds the share of each class among its pixels. `"nearest"` repeats these
# shares at every pixel of the square, so all get the same label: the most frequent one (in a tie, the smaller number).

# %%
def round_trip(masks, factor):
    """Label maps (N, H, W), reduced by a factor and enlarged again."""
    maps = np.stack([masks == c for c in range(4)], 1)  # one for each class
    shares = F.avg_pool2d(torch.from_numpy(maps).float(), factor)
    back = F.interpolate(shares, scale_factor=factor, mode="nearest")
    return back.argmax(1).numpy()


half, eighth = (round_trip(train.masks[8:9], factor)[0] for factor in (2, 8))
figure, axes = plots.panels(2, 2, size=2.5)
plots.overlay(axes[0], heart, train.masks[8], "the true mask")
plots.overlay(axes[1], heart, half, "from 48x48")
plots.show(axes[2], half != train.masks[8], "where 48x48 differs")
plots.overlay(axes[3], heart, eighth, "from 12x12");

# %% [markdown]
# *Halving the resolution changes pixels along every boundary (white). From 12x12, blocks are left.*
#
# **Predict, then run**: which class loses most, and to what does its Dice fall on a grid of 12x12?

# %%
print("grid     RV    Myo     LV   mean")
for factor in (2, 4, 8, 16, 32):
    back = round_trip(val.masks, factor)
    scores = [dice(p, t) for p, t in zip(back, val.masks)]
    class_dice = np.nanmean(scores, axis=0)
    print(f"{96 // factor:4}", *(f"{d:6.3f}" for d in (*class_dice, class_dice.mean())))

# %% [markdown]
# The myocardium loses most: it is thin, and nearly all of it is boundary. (The table holds for one label a square. A
# network may enlarge the shares more smoothly, as on the page [AlexNet-style](../architectures/alexnet), but that is a
# guess, too.)
#
# ## Up: transposed convolution
#
# To return to full size we could repeat pixels, or fill in values between them (*interpolate*). The U-Net uses a layer
# with weights, the **transposed convolution**. A convolution *gathers*: it multiplies a window by the kernel and adds
# up. A transposed convolution *spreads*: it multiplies the whole kernel by each input number and puts the product down
# like a stamp. The stride is the distance between stamps. Here the numbers are 1, 2, 3, the stride is 2, and the
# kernels are (1, 10) and (1, 10, 100):
#
# ```{raw} html
# <svg viewBox="0 0 440 210" role="img" style="width:440px;max-width:100%;height:auto"
#      fill="none" stroke="currentColor" font-family="sans-serif" font-size="15">
# <title>The numbers 1, 2, 3 each put down a stamp, two cells apart; stamps of two cells lie side by side, stamps of three overlap and add up</title>
# <g stroke-opacity="0.7">
# <rect x="6" y="46" width="60" height="30" fill="#785ef0" fill-opacity="0.25" stroke="#785ef0"/>
# <rect x="66" y="84" width="60" height="30" fill="#00a078" fill-opacity="0.25" stroke="#00a078"/>
# <rect x="126" y="122" width="60" height="30" fill="#fe6100" fill-opacity="0.25" stroke="#fe6100"/>
# <rect x="6" y="172" width="30" height="30"/>
# <rect x="36" y="172" width="30" height="30"/>
# <rect x="66" y="172" width="30" height="30"/>
# <rect x="96" y="172" width="30" height="30"/>
# <rect x="126" y="172" width="30" height="30"/>
# <rect x="156" y="172" width="30" height="30"/>
# <rect x="222" y="46" width="90" height="30" fill="#785ef0" fill-opacity="0.25" stroke="#785ef0"/>
# <rect x="282" y="84" width="90" height="30" fill="#00a078" fill-opacity="0.25" stroke="#00a078"/>
# <rect x="342" y="122" width="90" height="30" fill="#fe6100" fill-opacity="0.25" stroke="#fe6100"/>
# <rect x="222" y="172" width="30" height="30"/>
# <rect x="252" y="172" width="30" height="30"/>
# <rect x="282" y="172" width="30" height="30" fill="currentColor" fill-opacity="0.18"/>
# <rect x="312" y="172" width="30" height="30"/>
# <rect x="342" y="172" width="30" height="30" fill="currentColor" fill-opacity="0.18"/>
# <rect x="372" y="172" width="30" height="30"/>
# <rect x="402" y="172" width="30" height="30"/>
# </g>
# <g fill="currentColor" stroke="none" text-anchor="middle" font-size="14">
# <text x="21" y="66">1</text>
# <text x="51" y="66">10</text>
# <text x="81" y="104">2</text>
# <text x="111" y="104">20</text>
# <text x="141" y="142">3</text>
# <text x="171" y="142">30</text>
# <text x="21" y="192">1</text>
# <text x="51" y="192">10</text>
# <text x="81" y="192">2</text>
# <text x="111" y="192">20</text>
# <text x="141" y="192">3</text>
# <text x="171" y="192">30</text>
# <text x="96" y="20">two wide: side by side</text>
# <text x="237" y="66">1</text>
# <text x="267" y="66">10</text>
# <text x="297" y="66">100</text>
# <text x="297" y="104">2</text>
# <text x="327" y="104">20</text>
# <text x="357" y="104">200</text>
# <text x="357" y="142">3</text>
# <text x="387" y="142">30</text>
# <text x="417" y="142">300</text>
# <text x="237" y="192">1</text>
# <text x="267" y="192">10</text>
# <text x="297" y="192">102</text>
# <text x="327" y="192">20</text>
# <text x="357" y="192">203</text>
# <text x="387" y="192">30</text>
# <text x="417" y="192">300</text>
# <text x="327" y="20">three wide: they overlap</text>
# </g>
# </svg>
# ```
#
# *Each colour is the stamp of one input number; the bottom row adds up each column. Stamps of two cells lie side by
# side. Stamps of three overlap in the grey cells, where two products are added.*
#
# In two dimensions, with channels, loops over the input channels and the places put down the stamps. The weights have
# the shape (input channels, output channels, k, k), inputs first.

# %%
def convolve_transposed(x, weight, bias, stride=2):
    """Stamp kernels (C, O, k, k) for maps (N, C, H, W)."""
    (n, _, h, w), (_, o, k, _) = x.shape, weight.shape
    out = torch.zeros(n, o, stride * (h - 1) + k, stride * (w - 1) + k)
    for c, i, j in np.ndindex(*x.shape[1:]):  # three loops in one
        number = x[:, c, i, j][:, None, None, None]  # one for each picture
        top, left = stride * i, stride * j  # the corner of its stamp
        out[:, :, top : top + k, left : left + k] += number * weight[c]
    return out + bias[:, None, None]

# %% [markdown]
# **Predict, then run**: from 3x3 maps, how large is the output with kernels of two and of three?

# %%
maps, bias = torch.rand(2, 5, 3, 3), torch.rand(4)
for k in (2, 3):
    weight = torch.randn(5, 4, k, k)
    ours = convolve_transposed(maps, weight, bias)
    theirs = F.conv_transpose2d(maps, weight, bias, stride=2)
    assert torch.allclose(ours, theirs, atol=1e-5)
    print(f"kernel {k}: {tuple(maps.shape)} -> {tuple(ours.shape)}")

# %% [markdown]
# Stamps of two double the side exactly. Stamps of three give one row and one column too many; the report's layer cuts
# off the first of each.
#
# ## Checkerboards
#
# The overlap leaves a mark. We enlarge the plainest picture there is, all ones, in three ways: stamps of 3x3, stamps
# of 2x2, and upsampling (each pixel repeated) followed by an ordinary 3x3 convolution. Each is done once with equal
# weights and once with random ones.

# %%
torch.manual_seed(1)
flat, zero = torch.ones(1, 1, 8, 8), torch.zeros(1)
repeated = F.interpolate(flat, scale_factor=2)
enlarged = {}
for k in (3, 2):
    for name, make in {"equal": torch.ones, "random": torch.rand}.items():
        up = convolve_transposed(flat, make(1, 1, k, k), zero)
        enlarged[f"{k}x{k} stamps, {name}"] = up
for name, make in {"equal": torch.ones, "random": torch.rand}.items():
    enlarged[f"upsampled, {name}"] = convolve(repeated, make(1, 1, 3, 3), zero)
for name, up in enlarged.items():
    print(f"{name:>17}: {tuple(flat.shape[2:])} -> {tuple(up.shape[2:])}")

# %% [markdown]
# **Predict, then run**: in which of the six does the flat picture stay flat?

# %%
figure, axes = plots.panels(2, 3, size=2.5)
for ax, (name, up) in zip(axes, enlarged.items()):
    ax.imshow(up[0, 0] / up.mean(), cmap=plots.HEAT, vmin=0, vmax=2)
    ax.set_title(name)
    values = up[0, 0, 2:-2, 2:-2].unique()  # without the rim
    print(f"{name:>17}: {len(values)} different values")

# %% [markdown]
# *A flat picture, enlarged in six ways, each divided by its mean. Where stamps of 3x3 overlap, two or four products are
# added: a checkerboard even with equal weights. Stamps of 2x2 stay flat with equal weights, and repeat one little
# pattern with random ones. After upsampling, the convolution meets the same window everywhere, and any weights keep it
# flat.*
#
# Such **checkerboard artefacts** are well known {cite}`odena2016`. A network can learn weights that even them out; with
# stamps of 3x3, equal weights aren't enough. The report enlarges with 3x3 stamps in all five steps. Our U-Net uses 2x2,
# as the U-Net paper does; upsampling followed by a convolution is common today, too.
#
# ## Down and up again, with copies
#
# A pixel on the coarsest level can take in a whole heart, on a grid too coarse to say where its borders are. A pixel on
# the first level can say exactly where a border is, but sees too little to say what it is the border of. A U-Net joins
# the two. It goes down to coarse maps and up again to full size, and on the way down it copies the maps of each level,
# for the same level on the way up. The path of such a copy, round all deeper levels, is a **skip connection**:
#
# ```{raw} html
# <svg viewBox="0 0 440 218" role="img" style="width:440px;max-width:100%;height:auto"
#      fill="none" stroke="currentColor" font-family="sans-serif" font-size="15">
# <title>Maps shrink from 96 to 24 pixels on the way down and grow again on the way up; copies go across on each level</title>
# <g fill="#785ef0" fill-opacity="0.25">
# <rect x="24" y="28" width="80" height="80"/>
# <rect x="92" y="128" width="48" height="48"/>
# <rect x="204" y="184" width="28" height="28"/>
# <rect x="296" y="128" width="48" height="48"/>
# <rect x="336" y="28" width="80" height="80"/>
# </g>
# <g fill="currentColor" stroke="none" text-anchor="middle">
# <text x="64" y="73">96²</text>
# <text x="116" y="157">48²</text>
# <text x="218" y="203">24²</text>
# <text x="320" y="157">48²</text>
# <text x="376" y="73">96²</text>
# <text x="220" y="58">copy</text><text x="218" y="142">copy</text><text x="64" y="18">slice in</text><text x="376" y="18">mask out</text>
# <text x="40" y="160">pool</text><text x="398" y="160">enlarge</text></g>
# <path stroke="#fe6100" stroke-width="2" d="M108 68h220m-8 -5l8 5l-8 5"/>
# <path stroke="#fe6100" stroke-width="2" d="M144 152h144m-8 -5l8 5l-8 5"/>
# <path d="M76 110l18 16m-3 -9l3 9l-9 -1"/>
# <path d="M142 174l58 22m-6 -8l6 8l-10 3"/>
# <path d="M236 196l58 -22m-10 -3l10 3l-6 8"/>
# <path d="M346 126l18 -16m-9 1l9 -1l-3 9"/>
# </svg>
# ```
#
# *Boxes are stacks of maps of 96x96, 48x48 and 24x24 places. The copies bring what is known of the exact places across.*
#
# It matters when the copy is made. The usual practice today, and that of the U-Net paper {cite}`ronneberger2015`, is to
# copy a level's maps first and then to pool them. **The report did it like this**: it pools first and copies what is
# left. So its finest copy has 48x48 places, one for every four pixels of the mask. The first row of the Dice table shows
# what such a grid costs with one label a square. [The U-Net](the_unet) builds both.
#
# ## Recap
#
# - Stride and pooling make the grid coarser; each later layer then adds more to the receptive field, which you can
#   count and measure.
# - What pooling drops can't be computed from what's left. Detail for the way up has to be copied before pooling.
# - A transposed convolution puts down a stamp for each number. Overlapping stamps make checkerboards.
#
# ## Exercises
#
# ```{exercise} The report's pooling
# :label: down-report-pooling
# The report pools with windows of 3x3, stride 2 and a padding of 1: the first window is centred on the first pixel,
# and windows overlap. Write `my_pool(x)`, without `F.max_pool2d`: it takes one feature map, a float tensor (H, W) with
# even sides, and returns a float tensor (H/2, W/2), the largest value of each window. Feature maps may be negative: with
# which number do you have to pad?
# ```

# %% tags=["hide-input"]
order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
GRID = -(order + 2.0).reshape(6, 6)  # all below zero


def pool_slips(x):
    """What pooling with windows of 3x3 and stride 2 gives, rightly and wrongly."""
    x = x[None, None]
    zeros, late = F.pad(x, [1] * 4), F.pad(x, [0, 1, 0, 1], value=float("-inf"))
    return {
        "right": F.max_pool2d(x, 3, 2, 1),
        "zeros beat every negative number: pad with less": F.max_pool2d(zeros, 3, 2),
        "the rim is missing: pad by one pixel": F.max_pool2d(x, 3, 2),
        "these are windows of 2x2": F.max_pool2d(x, 2),
        "the stride is 2: every other window": F.max_pool2d(x, 3, 1, 1),
        "the first window begins outside, above and left": F.max_pool2d(late, 3, 2),
        "that is the smallest number, not the largest": -F.max_pool2d(-x, 3, 2, 1),
        "that is the mean": F.avg_pool2d(x, 3, 2, 1),
    }


def attempt(mine, *inputs):
    """What a function answers, as an array; or what is wrong already, in words."""
    try:
        answer = mine(*inputs)
        if inputs and answer is not None and not torch.is_tensor(answer):
            return f"return a float tensor, not a {type(answer).__name__}"
        answer = answer.detach().numpy() if torch.is_tensor(answer) else answer
        return "it returns nothing yet" if answer is None else np.array(answer, float)
    except Exception as error:
        return f"it stops with {type(error).__name__}: {error}"


def check_pool(mine):
    """What is wrong with a function that should pool as the report does."""
    answer = attempt(mine, GRID.clone())
    if isinstance(answer, str):
        return answer
    slips = {why: slip[0, 0].numpy() for why, slip in pool_slips(GRID).items()}
    matches = [why for why, slip in slips.items() if np.array_equal(slip, answer)]
    other = f"of a 6x6 map it makes {answer.shape}, it should be (3, 3)"
    if answer.shape == (3, 3):
        other = f"it says {answer.tolist()}, it should be {slips['right'].tolist()}"
    low = -1e30 * torch.arange(36.0, 0, -1).reshape(18, 2)  # lowest at the top
    again = attempt(mine, low.clone()) if matches == ["right"] else ""
    pooled = F.max_pool2d(low[None, None], 3, 2, 1)[0, 0]
    if matches == ["right"] and not np.array_equal(again, pooled):
        return "right for a 6x6 map, wrong for 18 rows, 2 columns, far lower numbers"
    return (*matches, other)[0]


def layer_faults(kernel, stride):
    """What is wrong with a way down, by what should be."""
    before = np.cumprod([1, *stride])[:-1]
    sees = int(1 + ((kernel - 1) * before).sum())
    hint = "an early stride makes all later layers see more" if sees < 40 else ""
    return {
        "no kernel is wider than 3": (kernel > 3).any(),
        "a stride wider than its kernel skips pixels": (stride > kernel).any(),
        f"the grid is {int(stride.prod())} times coarser: at most 4": stride.prod() > 4,
        f"these are {len(kernel)} layers: at most 7": len(kernel) > 7,
        f"an output sees a square {sees} wide, not 40: {hint}": sees < 40,
    }


def check_layers(mine):
    """What is wrong with a function that should design a way down."""
    layers = attempt(mine)
    if isinstance(layers, str):
        return layers
    if layers.shape[1:] != (2,) or (layers % 1 + (layers < 1)).any():
        return "it should be a list of pairs (kernel, stride), whole numbers from 1 on"
    faults = layer_faults(*layers.T)
    return (*(why for why, wrong in faults.items() if wrong), "right")[0]

# %%
def my_pool(x):
    """The largest of each 3x3 window of a map (H, W), stride 2, padding 1."""
    return None  # your lines here


print("my_pool:", check_pool(my_pool))

# %% [markdown]
# ```{solution-start} down-report-pooling
# :class: dropdown
# ```

# %%
def my_pool(x):
    """The largest of each 3x3 window of a map (H, W), stride 2, padding 1."""
    padded = F.pad(x, [1, 1, 1, 1], value=float("-inf"))
    h, w = x.shape
    windows = []
    for i in range(3):
        for j in range(3):
            windows.append(padded[i : i + h : 2, j : j + w : 2])
    return torch.stack(windows).amax(0)


print("my_pool:", check_pool(my_pool))

# %% [markdown]
# Pad with minus infinity. A frame of zeros would win against every negative number along the rim.
#
# ```{solution-end}
# ```
#
# ```{exercise} See 40 pixels with seven layers
# :label: down-layers
# Write `my_layers()`, which takes nothing and returns a list of at most seven layers, pairs of whole numbers (kernel,
# stride), the first layer first, so that one output pixel sees a square at least 40 pixels wide. No kernel is wider
# than 3, no stride wider than its kernel, and all strides, multiplied, are at most 4. There's more than one answer.
# ```

# %%
def my_layers():
    """A list of pairs (kernel, stride), the first layer first."""
    return None  # your lines here


print("my_layers:", check_layers(my_layers))

# %% [markdown]
# ```{solution-start} down-layers
# :class: dropdown
# ```

# %%
def my_layers():
    """A list of pairs (kernel, stride), the first layer first."""
    return [(3, 2), (3, 2)] + [(3, 1)] * 5


print("my_layers:", check_layers(my_layers))

# %% [markdown]
# Each of the five 3x3 layers would add two pixels at the beginning; after two layers of stride 2 it adds eight. The
# price: from the second layer on, the grid has a quarter of the rows and columns, and finer detail is gone.
#
# ```{solution-end}
# ```
#
# ```{exercise} Equivariant, but not quite
# :label: down-shift
# A convolution moves with the heart. Does pooling? Move a slice to the right by 1, 2, 3 and 4 pixels (`torch.roll`),
# max-pool it in 2x2 squares, and compare with the pooled slice moved by half as much; where the half isn't a whole
# number, try both neighbours. For which moves can the two agree? Predict it before you run it.
# ```
#
# ```{solution-start} down-shift
# :class: dropdown
# ```

# %%
pooled = F.max_pool2d(x, 2)
for step in (1, 2, 3, 4):
    after = F.max_pool2d(torch.roll(x, step, dims=3), 2)
    nearest = min(
        float((after != torch.roll(pooled, half, dims=3)).float().mean())
        for half in (step // 2, (step + 1) // 2)
    )
    print(f"moved by {step}: {nearest:.0%} of the pooled pixels differ")

# %% [markdown]
# A move by two pixels is a move by one on the pooled grid, exactly. After a move by one, the squares hold other pixels.
# After five poolings only moves by multiples of 32 pixels are exact.
#
# ```{solution-end}
# ```
#
# **Next**: [One weight](one_weight): all kernels on this page were random or made by hand, and now they begin to
# learn. **Read**: Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* {cite}`dumoulin2016`, for its pictures
# of every combination of stride, padding and transposition.
