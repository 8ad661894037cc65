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
# pixel sees and check the count with a gradient, and say which detail is gone after pooling.
# **You need** [Convolution](../build/convolution), and Dice from [Pixels and a first Dice](pixels_and_a_first_dice).
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
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cmrseg import data, metrics, plots

plots.style()
train, val = data.split(data.source(), "val")

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
# One 3x3 kernel sees three pixels in each direction. A second layer on top of it sees five, a third seven: each layer
# adds two. How many layers would it take to see a heart from side to side?

# %%
widths = (train.masks > 0).any(1).sum(1)  # columns that hold a part of the heart
width = int(np.median(widths))
print("median width of a heart:", width, "pixels; layers to see it all:", width // 2)

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
# Stride keeps one value of four by position. **Max pooling** keeps the largest of each 2x2 square, **average
# pooling** their mean. Neither has weights. **Predict, then run**: pool these 4x4 numbers both ways, on paper.


# %%
def squares(x):
    """The four pixels of each 2x2 square: (N, C, H, W) -> (4, N, C, H/2, W/2)."""
    return torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])


small = torch.tensor(
    [[1.0, 3, 2, 0], [5, 2, 1, 1], [0, 0, 7, 4], [1, 2, 6, 8]],
)[None, None]
print("largest:", squares(small).amax(0)[0, 0].tolist())
print("mean:   ", squares(small).mean(0)[0, 0].tolist())

assert torch.equal(squares(x).amax(0), F.max_pool2d(x, 2))
assert torch.allclose(squares(x).mean(0), F.avg_pool2d(x, 2))

# %%
figure, axes = plt.subplots(2, 6, figsize=(9.5, 3.5))
for row, (name, pool) in zip(axes, {"max": F.max_pool2d, "mean": F.avg_pool2d}.items()):
    pooled = x
    for ax in row:
        plots.show(ax, pooled[0, 0], f"{name}, {pooled.shape[2]}x{pooled.shape[2]}")
        ax.images[0].set_clim(0, 1)  # the same greys everywhere
        pooled = pool(pooled, 2)

# %% [markdown]
# *A slice, pooled five times by the maximum (above) and by the mean (below). The maximum lets bright blood spread and
# the dark ring of muscle vanish; the mean lets both fade into grey. In a network it's feature maps that are pooled:
# where the "picture" says how strongly a feature was found, keeping the largest is more sensible than it looks here.*
#
# How often can a picture be pooled? 96 is $3 \cdot 2^5$: it halves five times, and then it's 3, which doesn't halve.
# The 2020 report {cite}`report2020` goes all the way, down to 3x3 maps; [our U-Net](the_unet) pools four times, to
# 6x6. **Predict, then run**: how often can 100 be halved?

# %%
for side in (96, 100, 128):
    sides = [side]
    while sides[-1] % 2 == 0:
        sides.append(sides[-1] // 2)
    print(*sides, sep=" -> ")

# %% [markdown]
# So `cmrseg` pads pictures of other sizes before they enter a network, and crops the mask afterwards.
#
# ## What pooling loses
#
# Pooling throws away three values of four. Can't we get them back by enlarging? Here is a test for a doubter. Shuffle
# the four pixels inside each 2x2 square, at random. **Predict first**: how do the pooled pictures differ?

# %%
torch.manual_seed(0)
four = squares(x)
shuffled = four.gather(0, torch.rand(four.shape).argsort(0))
scrambled = torch.empty_like(x)
for k, (i, j) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
    scrambled[..., i::2, j::2] = shuffled[k]
print(f"pixels that differ: {(scrambled != x).float().mean():.0%}")
for pool in (F.max_pool2d, F.avg_pool2d):
    difference = (pool(scrambled, 2) - pool(x, 2)).abs().max().item()
    print(f"{pool.__name__}: largest difference {difference:.7f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.6))
plots.show(axes[0], x[0, 0], "a slice")
plots.show(axes[1], scrambled[0, 0], "shuffled in its squares")
plots.show(axes[2], F.avg_pool2d(x, 2)[0, 0], "the slice, pooled")
plots.show(axes[3], F.avg_pool2d(scrambled, 2)[0, 0], "the shuffled one, pooled");

# %% [markdown]
# *On the left two different pictures, on the right their mean pooling. The pooled pictures are the same.*
#
# Two pictures, one pooled picture (up to the last digit). Whatever works on the pooled one alone can't know which of
# the two it came from, however clever it is. So *upsampling doesn't restore detail: it makes the picture larger, and
# what pooling took away stays away.*
#
# What does that cost, in Dice? Take the true masks, as if a network had found every pixel, reduce them and enlarge
# them again. Each square of the reduced mask holds the share of each class. Enlarged with `"nearest"`, a square gets
# the one label that most of its pixels have.


# %%
def round_trip(masks, factor, mode="nearest"):
    """Label maps (N, H, W), reduced by a factor and enlarged again."""
    maps = np.stack([masks == c for c in range(4)], 1)  # 0 or 1, a map for each class
    small = F.avg_pool2d(torch.from_numpy(maps).float(), factor)
    return F.interpolate(small, scale_factor=factor, mode=mode).argmax(1).numpy()


assert np.array_equal(round_trip(val.masks, 2), metrics.coarsen(val.masks, 2))

# %% [markdown]
# **Predict first**: which class loses most, and what is left of its Dice from a grid of 12x12?

# %%
print("grid     RV    Myo     LV   mean   mean, bilinear")
for factor in (2, 4, 8, 16, 32):
    means = []
    for mode in ("nearest", "bilinear"):
        back = round_trip(val.masks, factor, mode)
        scores = [dice(p, t) for p, t in zip(back, val.masks)]
        means.append(np.nanmean(scores, axis=0))
    each = " ".join(f"{d:6.3f}" for d in (*means[0], means[0].mean()))
    print(f"{96 // factor:4} {each} {means[1].mean():10.3f}")

# %%
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.6))
half, eighth = (round_trip(train.masks[8:9], factor)[0] for factor in (2, 8))
plots.overlay(axes[0], heart, train.masks[8], "the true mask")
plots.overlay(axes[1], heart, half, "from 48x48")
plots.show(axes[2], half != train.masks[8], "where they differ")
plots.overlay(axes[3], heart, eighth, "from 12x12");

# %% [markdown]
# *Halving the resolution nibbles at every boundary (in white). The thin myocardium is nearly all boundary and loses
# most.*
#
# The last column of the table enlarges the shares smoothly, with `"bilinear"`, and only then takes the largest. On
# fine grids this is much better: where the shares of two neighbours cross, a boundary may run between them. So the
# columns before it are a ceiling for one *hard label* a square, not for every network with a coarse grid
# ([AlexNet-style](../architectures/alexnet) shows how far soft answers go on a coarser one). This detail isn't
# restored, it's guessed: a smooth outline is a good guess for a heart. No column says 1, and here the shares came
# from the true masks, while a network would first have to get them right.
#
# **The report did it like this**: it pools, and *then* keeps a copy of the feature maps for the way up, a **skip
# connection**. Today's usual practice, and the U-Net paper's {cite}`ronneberger2015`, is to copy first and pool then.
# It looks like a mere exchange of two lines:

# %%
maps = torch.rand(1, 32, 96, 96)  # feature maps of the first block, full resolution
pooled = F.max_pool2d(maps, 3, stride=2, padding=1)  # the report's windows
for name, copy in (("before pooling", maps), ("after, as the report", pooled)):
    places = copy.shape[2] * copy.shape[3]
    print(f"{name:>20}: finest copy {tuple(copy.shape)}, {places} places")

# %% [markdown]
# With the report's order no map of full resolution reaches the way up. Its finest copy has one place for four pixels
# of the mask, and the last enlargement has to work out where between them the boundary runs. The table's first row
# says what this grid takes from hard labels. (The 32 channels may carry some of the finer positions in their numbers,
# but only if the network learns to put them there.) [The U-Net](the_unet) tells the whole story.
#
# ## Up: transposed convolution
#
# To return to full size we could repeat pixels, or interpolate. The U-Net uses a layer with weights, the **transposed
# convolution**. A convolution *gathers*: it multiplies a window by the kernel and adds up. A transposed convolution
# *spreads*: each input number is multiplied by the whole kernel, and the product is put down like a stamp. The stride
# is the distance between stamps. Here with the numbers 1, 2, 3, stride 2, and the kernels (1, 10) and (1, 10, 100):
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
# *Each colour is the stamp of one input number; the bottom rows add up what lies below each other. Stamps of two
# cells lie side by side. Stamps of three overlap in the grey cells, where two products are added.*
#
# In two dimensions, with channels, two loops over the places put down the stamps. The weights have the shape (input
# channels, output channels, k, k), inputs first.


# %%
def convolve_transposed(x, weight, bias, stride=2):
    """Stamp kernels (C, O, k, k) for maps (N, C, H, W); as F.conv_transpose2d."""
    h, w = x.shape[2:]
    outputs, k = weight.shape[1], weight.shape[2]
    out = torch.zeros(len(x), outputs, stride * (h - 1) + k, stride * (w - 1) + k)
    for i in range(h):
        for j in range(w):
            stamp = torch.einsum("nc,cokl->nokl", x[:, :, i, j], weight)
            out[:, :, stride * i :, stride * j :][:, :, :k, :k] += stamp
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
trimmed = F.conv_transpose2d(maps, weight, bias, stride=2, padding=1, output_padding=1)
assert torch.allclose(ours[..., 1:, 1:], trimmed, atol=1e-5)
print("the report's layer:", tuple(trimmed.shape))

# %% [markdown]
# Stamps of two double the side exactly. Stamps of three give one row and one column too many. The report's layer cuts
# off the first of each: to PyTorch that is `padding=1, output_padding=1`.
#
# ## Checkerboards
#
# The overlap leaves a mark. We enlarge the plainest picture there is, all ones, in three ways: stamps of 3x3, stamps
# of 2x2, and upsampling (each pixel repeated) followed by an ordinary 3x3 convolution. Each once with equal weights,
# once with random ones. **Predict first**: in which of the six does a flat picture stay flat?

# %%
torch.manual_seed(1)
flat, zero = torch.ones(1, 1, 8, 8), torch.zeros(1)
enlarged = {}
for weights, make in {"equal": torch.ones, "random": torch.rand}.items():
    for k in (3, 2):
        up = convolve_transposed(flat, make(1, 1, k, k), zero)
        enlarged[f"{k}x{k} stride 2\n{weights} weights"] = up
    repeated = F.interpolate(flat, scale_factor=2)
    up = convolve(repeated, make(1, 1, 3, 3) / 4, zero)
    enlarged[f"upsample, then 3x3\n{weights} weights"] = up
for name, up in enlarged.items():
    inside = up[0, 0, 2:-2, 2:-2]
    print(f"{name.replace(chr(10), ', '):>34}: {len(inside.unique())} different values")

# %%
figure, axes = plt.subplots(2, 3, figsize=(7.5, 5.4))
for ax, (name, up) in zip(axes.flat, enlarged.items()):
    ax.imshow(up[0, 0], cmap=plots.HEAT, vmin=0, vmax=4)
    ax.set_title(name)
    ax.axis("off");

# %% [markdown]
# *A flat picture, enlarged in six ways. Where stamps of 3x3 overlap, two or four products are added: a checkerboard
# even with equal weights. Stamps of 2x2 keep it flat with equal weights, and repeat one little pattern with others.
# After upsampling, a convolution meets the same window everywhere and keeps it flat with any weights.*
#
# Such **checkerboard artefacts** are well known {cite}`odena2016`. A network can learn weights that even them out,
# but where stamps overlap it has to. The report enlarges with 3x3 stamps in all five steps. Our U-Net uses 2x2, as
# the paper does; upsampling followed by a convolution is common today, too.
#
# ## How far one output pixel sees
#
# All input pixels that can change an output pixel are its **receptive field**. It's tempting to take the kernel for
# it. Count instead, from the input on: a layer adds $k - 1$ of *its* pixels, and each of them is as many input pixels
# wide as the product of all strides $s$ before: $1 + \sum_l (k_l - 1) \prod_{m<l} s_m$.


# %% tags=["piece"]
def receptive_field(layers):
    """Side of the square that one output pixel sees; layers are (kernel, stride)."""
    side, jump = 1, 1  # jump: input pixels from one place to the next
    for kernel, stride in layers:
        side += (kernel - 1) * jump
        jump *= stride
    return side


# %% [markdown]
# By hand, for convolution, convolution, 2x2 pooling, convolution: 1 + 2 + 2 + 1 + 2·2 = 10. **Predict, then run**:
# the way down of our U-Net has two 3x3 convolutions on each of five levels and a 2x2 pooling between them. How far
# does a pixel on each level see?

# %%
levels = [[(3, 1), (3, 1)]]
for _ in range(4):
    levels.append(levels[-1] + [(2, 2), (3, 1), (3, 1)])
counted = [receptive_field(layers) for layers in levels]
print("by level:", counted)
print("ten 3x3 layers without pooling:", receptive_field([(3, 1)] * 10))

# %% [markdown]
# Now measure it. PyTorch can compute how strongly one output number would change if an input pixel changed a little:
# this is its **gradient**, and [One weight](one_weight) explains it. Where the gradient is zero, the output doesn't
# see. We take untrained convolutions, and mean pooling (max pooling would show the winner of each square only).


# %%
def way_down(layers):
    """Untrained convolutions, and mean pooling where the stride is 2."""
    return nn.Sequential(
        *(
            nn.Conv2d(1, 1, k, padding=1) if s == 1 else nn.AvgPool2d(k)
            for k, s in layers
        )
    )


def sensitivity(layers, side, row, column):
    """How strongly one output pixel depends on each pixel of a (side, side) input."""
    x = torch.zeros(1, 1, side, side, requires_grad=True)
    way_down(layers)(x)[0, 0, row, column].backward()
    return x.grad[0, 0].abs()


# %%
torch.manual_seed(0)
for n, layers in enumerate(levels):  # on level n the grid has been halved n times
    middle = 96 // 2**n  # of an input of 192 pixels, so that the frame is far away
    seen = sensitivity(layers, 192, middle, middle) > 0
    measured = int(seen.any(0).sum())
    assert measured == counted[n]
    print(f"{len(layers):2} layers: counted {counted[n]}, measured {measured} pixels")

# %% [markdown]
# For the doubter: every kernel here is 3x3 or smaller, and still a pixel at the bottom depends on more pixels than a
# slice has from side to side. *The kernel is what one layer sees of the layer before it; the receptive field is what
# it sees of the picture.* Here it is on a heart, with the strength of the gradient as colour.

# %%
row, column = (int(v) for v in np.argwhere(train.masks[8] == 3).mean(0))  # in the LV
figure, axes = plt.subplots(1, 5, figsize=(9.5, 2.2))
for n, (ax, layers) in enumerate(zip(axes, levels)):
    place = row // 2**n, column // 2**n
    strength = sum(sensitivity(layers, 96, *place) for _ in range(20))
    alpha = (strength / strength.max()).sqrt().numpy()
    plots.show(ax, heart, f"level {n + 1}: {counted[n]} pixels")
    ax.imshow(np.ones((96, 96)), cmap="cool", vmin=0, vmax=1, alpha=0.85 * alpha)
    ax.contour(strength > 0, levels=[0.5], colors=["#FE6100"], linewidths=1.2);

# %% [markdown]
# *What one output pixel in the left ventricle sees, from the first level of the U-Net's way down to the bottom. The
# orange frame is the receptive field; the colour says how strongly the output depends on each pixel (mean of 20
# untrained networks). On the first level it sees a speck of blood, in the middle a ventricle, at the bottom the
# slice. It sees the centre best.*
#
# The count is an upper limit. There are many ways from a pixel in the centre to the output, and few from the rim, so
# the rim counts for little {cite}`luo2016`. You can also see it without any gradient. Change a single input pixel
# by a lot, 15 columns away from the output's place. **Predict first**: does the output of level 1 change, and that of
# level 4?

# %%
torch.manual_seed(0)
x = heart[None, None]
changed = x.clone()
changed[0, 0, 50, 65] += 1000
for n in (0, 3):
    net, place = way_down(levels[n]), 50 // 2**n
    difference = (net(changed) - net(x))[0, 0, place, place].item()
    print(f"level {n + 1}: the output changes by {difference:.2g}")

# %% [markdown]
# So a pixel at the bottom of a U-Net can take in a whole heart, on a grid too coarse to say where its borders are. A
# pixel on the first level can say exactly where a border is, and sees too little to say of what. A U-Net joins the
# two.
#
# Two relatives, by name only: **dilation** (also *atrous convolution*) spreads the nine weights apart, so that a 3x3
# kernel spans 5 or 9 pixels without any pooling; **unpooling** remembers which pixel of a square was the largest and
# puts the value back there: [SegNet](../architectures/segnet) is built on it.
#
# ## Recap
#
# - Stride and pooling make the grid coarser; each later layer then adds more to the receptive field, which you can
#   count and measure.
# - What pooling drops can't be computed from what's left. Detail for the way up has to be kept before pooling.
# - A transposed convolution puts down a stamp for each number. Overlapping stamps make checkerboards.
#
# ## Exercises
#
# ```{exercise} The report's pooling
# :label: down-report-pooling
# The report pools with windows of 3x3, stride 2 and a padding of 1: the first window is centred on the first pixel,
# and windows overlap. Write it for one feature map (H, W) with even sides, without `F.max_pool2d`. Feature maps may
# be negative: with which number do you have to pad?
# ```

# %% tags=["hide-input"]
import torch
import torch.nn.functional as F

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
    said = [why for why, slip in slips.items() if np.array_equal(slip, answer)]
    other = f"of a 6x6 map it makes {answer.shape}, it should be (3, 3)"
    if answer.shape == (3, 3):
        other = f"it says {answer.tolist()}, it should be {slips['right'].tolist()}"
    return (*said, other)[0]


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
        f"one output pixel sees {sees} pixels, not 40: {hint}": sees < 40,
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
    windows = [padded[i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)]
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
# Return a list of at most seven layers, pairs (kernel, stride), so that one output pixel sees at least 40 pixels in
# each direction. No kernel is wider than 3, no stride wider than its kernel, and the grid becomes at most four times
# coarser. There's more than one answer.
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
# Five 3x3 layers add two pixels each where they stand first, and eight each behind two strides. The kernels are the
# same; where they stand decides how far they see. The price: from the second layer on, the grid has a quarter of the
# rows and columns, and finer detail is gone.
#
# ```{solution-end}
# ```
#
# ```{exercise} Equivariant, but not quite
# :label: down-shift
# A convolution moves with the heart. Does pooling? Move a slice by 1, 2, 3 and 4 pixels (`torch.roll`), pool, and
# compare with the pooled slice moved by half as much. For which moves can they agree? Predict it first.
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
# A move by two pixels is a move by one on the pooled grid, exactly. A move by one would be a move by a half, and the
# squares hold other pixels. After five poolings only moves by multiples of 32 pixels are exact.
#
# ```{solution-end}
# ```
#
# **Next**: [One weight](one_weight): all kernels on this page were random or made by hand, and now they begin to
# learn. **Read**: Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* {cite}`dumoulin2016`, for its pictures
# of every combination of stride, padding and transposition.
