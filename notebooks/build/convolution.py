# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Convolution
#
# How can one small table of numbers find borders, wherever in the picture the heart lies?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** compute a convolution by hand, count the weights of a `Conv2d` layer and predict the
# shape of its output, and say what padding adds and what it doesn't.
# **You need** [Arrays and tensors](arrays_and_tensors) and [Pixels and a first Dice](pixels_and_a_first_dice).
# **Time** 35 minutes to read and run.
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

from cmrseg import data, datasets, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")

# %% [markdown]
# ## One detector for every place
#
# A threshold looks at one pixel at a time. To a threshold, the blood in a ventricle and a piece of bright fat are the
# same. It's the *neighbours* of a pixel that show a border: dark on one side, bright on the other. So a detector should
# look at a small **window** of the picture, say 3x3 pixels.
#
# It should be the *same* detector everywhere, since hearts lie in different places. So we take one small table of
# numbers, the **kernel**, and slide it over the picture. At each place we multiply the nine pixels in the window by the
# nine numbers of the kernel, add up, and write down the sum. That is a **convolution**. The numbers of a kernel are
# called its **weights**.
#
# ## By hand
#
# On the left is a made-up patch of 5x5 grey levels, dark on one side and bright on the other, like muscle beside blood.
# The kernel subtracts what is left of the middle from what is right of it.
#
# ```{raw} html
# <svg viewBox="0 0 450 204" role="img" style="width:450px;max-width:100%;height:auto"
#      fill="none" stroke="currentColor" font-family="sans-serif" font-size="15">
# <title>A window of nine pixels times the nine numbers of the kernel, added up, is one number of the output</title>
# <g stroke-opacity="0.6">
# <rect x="6" y="34" width="96" height="96" fill="#785ef0" fill-opacity="0.3"/>
# <path d="M6 34h160M6 34v160M6 66h160M38 34v160M6 98h160M70 34v160M6 130h160M102 34v160M6 162h160M134 34v160M6 194h160M166 34v160"/>
# <path d="M206 66h96M206 66v96M206 98h96M238 66v96M206 130h96M270 66v96M206 162h96M302 66v96"/>
# <rect x="346" y="66" width="32" height="32" fill="#785ef0" fill-opacity="0.3"/>
# <path d="M346 66h96M346 66v96M346 98h96M378 66v96M346 130h96M410 66v96M346 162h96M442 66v96"/>
# </g>
# <g fill="currentColor" stroke="none" text-anchor="middle">
# <text x="22" y="55">1</text><text x="54" y="55">1</text><text x="86" y="55">2</text><text x="118" y="55">8</text><text x="150" y="55">9</text>
# <text x="22" y="87">1</text><text x="54" y="87">2</text><text x="86" y="87">8</text><text x="118" y="87">9</text><text x="150" y="87">9</text>
# <text x="22" y="119">1</text><text x="54" y="119">1</text><text x="86" y="119">9</text><text x="118" y="119">9</text><text x="150" y="119">8</text>
# <text x="22" y="151">2</text><text x="54" y="151">1</text><text x="86" y="151">8</text><text x="118" y="151">9</text><text x="150" y="151">9</text>
# <text x="22" y="183">1</text><text x="54" y="183">1</text><text x="86" y="183">2</text><text x="118" y="183">8</text><text x="150" y="183">9</text>
# <text x="222" y="87">−1</text><text x="254" y="87">0</text><text x="286" y="87">1</text>
# <text x="222" y="119">−1</text><text x="254" y="119">0</text><text x="286" y="119">1</text>
# <text x="222" y="151">−1</text><text x="254" y="151">0</text><text x="286" y="151">1</text>
# <text x="362" y="87">16</text>
# <text x="187" y="119">∗</text><text x="325" y="119">=</text>
# <text x="86" y="22">patch, 5 × 5</text><text x="254" y="22">kernel, 3 × 3</text><text x="394" y="22">output, 3 × 3</text>
# </g>
# </svg>
# ```
#
# *The first place of the window. Row by row it gives (2 − 1) + (8 − 1) + (9 − 1) = 16.*
#
# Below is the same in PyTorch, at this place and at the next one on its right.
#
# **Predict, then run**: what is the sum at the second place? You need six of its nine pixels.

# %%
patch = torch.tensor(
    [
        [1, 1, 2, 8, 9],
        [1, 2, 8, 9, 9],
        [1, 1, 9, 9, 8],
        [2, 1, 8, 9, 9],
        [1, 1, 2, 8, 9],
    ]
).float()
kernel = torch.tensor([[-1.0, 0.0, 1.0]] * 3)
print("first place: ", (patch[0:3, 0:3] * kernel).sum().item())
print("second place:", (patch[0:3, 1:4] * kernel).sum().item())

# %% [markdown]
# A 3x3 window has three places side by side in five columns, and three below each other in five rows. So the output is
# a table of 3x3 numbers. Two loops visit all places:

# %%
def slide(image, kernel):
    """Slide a kernel (k, k) over an image (H, W): a sum at each place."""
    k = len(kernel)
    h, w = image.shape[0] - k + 1, image.shape[1] - k + 1
    out = torch.zeros(h, w)
    for i in range(h):
        for j in range(w):
            out[i, j] = (image[i : i + k, j : j + k] * kernel).sum()
    return out


print(slide(patch, kernel))

# %% [markdown]
# The numbers are large where dark meets bright, and smaller on the right, where nearly everything is bright. PyTorch's
# function for this is `F.conv2d`. It expects a picture with four axes (number of slices, channels, height, width),
# and a kernel with four axes, whose meaning comes below. Here the first two have length 1 in both, and we add them
# with `None`:

# %%
theirs = F.conv2d(patch[None, None], kernel[None, None])
assert torch.allclose(slide(patch, kernel), theirs[0, 0])
print("PyTorch's answer has the shape", tuple(theirs.shape))

# %% [markdown]
# (In mathematics a convolution flips the kernel first; without the flip the operation is called *cross-correlation*. A
# network can learn the flipped kernel just as well, so the usual libraries leave the flip out and keep the name.)
#
# ## Four detectors on a heart
#
# Other numbers make other detectors. Here are four: two find edges, one blurs, and one is made for this book. It
# looks for a bright disc, as large as the median cavity of the left ventricle, in a dark ring.

# %%
def disc_in_ring(radius):
    """A kernel whose disc sums to +1 and whose ring around it sums to -1."""
    reach = int(1.5 * radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]  # 0 in the middle
    distance = np.hypot(y, x)  # of each cell from the middle
    disc = distance <= radius
    ring = ~disc & (distance < reach + 0.5)
    return torch.from_numpy(disc / disc.sum() - ring / ring.sum()).float()

# %% [markdown]
# The weights of the disc add up to 1, those of the ring to -1. So the sum is the mean grey of the disc minus the mean
# grey of the ring, and on an even grey it is 0.

# %%
area = np.median((train.masks == 3).sum((1, 2)))  # pixels of the cavity
radius = np.sqrt(area / np.pi)  # of a disc with this area
detectors = {
    "right minus left": kernel,
    "below minus above": kernel.T,
    "mean": torch.ones(7, 7) / 49,
    "disc in a ring": disc_in_ring(radius),
}
heart = torch.from_numpy(train.images[8]).float() / 255
results = {name: slide(heart, weights) for name, weights in detectors.items()}
for name, result in results.items():
    k, side = len(detectors[name]), len(result)
    print(f"{name:>17}: kernel {k}x{k}, output {side}x{side}")

# %%
figure, axes = plots.panels(2, 3, size=2.5)
plots.show(axes[0], heart, "a slice")
for ax, (name, result) in zip(axes[1:], results.items()):
    weights, side, first = detectors[name], len(result), 47.5 - len(result) / 2
    ax.add_patch(plt.Rectangle((first, first), side, side, fill=0, ec="gray"))
    corner = ax.inset_axes([0.7, 0, 0.3, 0.3], xticks=[], yticks=[])
    extent = [first, first + side, first + side, first]
    for panel, values, where in ((ax, result, extent), (corner, weights, None)):
        values = values / values.abs().quantile(0.99)
        panel.imshow(values, "PuOr", vmin=-1, vmax=1, extent=where)
    ax.set(xlim=(-0.5, 95.5), ylim=(95.5, -0.5), title=name)
plots.overlay(axes[5], heart, train.masks[8], "the true mask")
row, column = np.add(divmod(int(result.argmax()), side), first + 0.5)
for ax in axes[[0, 4, 5]]:
    ax.plot(column, row, "x", color="#FE6100", ms=11, mew=3)

# %% [markdown]
# *A slice, what four kernels make of it (purple positive, orange negative), and the true mask. In the corner of each
# answer is its kernel. "Right minus left" lights up at upright borders, "below minus above" at level ones; both change
# sign from one side of the heart to the other. The mean blurs. The disc in a ring answers most, at the cross, where
# something bright and as large as a cavity lies in dark surroundings. A larger kernel has fewer places, so its answer is
# smaller.*
#
# Is the last one of any use? We let it slide over every training slice and ask which class lies at the place of its
# largest value. A kernel that knew nothing would hit each class as often as its share of the places, printed on the
# right.
#
# **Predict, then run**: nothing in this kernel is learned; only its radius was measured, on the training masks. In how
# many of a hundred slices does it hit the LV?

# %%
images = torch.from_numpy(train.images)[:, None].float() / 255  # (N, 1, 96, 96)
blob = disc_in_ring(radius)
answers = F.conv2d(images, blob[None, None])  # (N, 1, h, w)
rows = answers.flatten(1)  # (N, h * w): each answer as one long row
places = rows.argmax(1)  # (N,): where in its row the largest value stands
reach = len(blob) // 2  # no window has its middle nearer to the rim
inner = torch.from_numpy(train.masks)[:, reach:-reach, reach:-reach]
middles = inner.flatten(1)  # (N, h * w): the labels, laid out like rows
labels = middles[torch.arange(len(train)), places]  # (N,)
print("            hit in  share of the places")
for c, name in enumerate(data.CLASSES):
    hits, share = (labels == c).float().mean(), (middles == c).float().mean()
    print(f"{name:>10} {hits:7.0%} {share:10.0%}")

# %% [markdown]
# A place isn't a mask yet. But the LV is hit several times as often as its share of the places. A network slides many
# kernels in many layers, and it learns them: see [One weight](one_weight) and
# [Backpropagation](../build/backpropagation).
#
# ## Many input channels
#
# The outputs of four kernels, cut to one size, can be stacked: an array of shape (4, H, W). Each of the four is a
# **channel**, also called a **feature map**, because it says where a feature was found. A network does one such step, a
# **layer**, after another; each takes the stack that the one before it made. What does a 3x3 kernel do with four
# channels?
#
# It's tempting to think that a kernel is a 3x3 table that looks at one picture. It isn't: *a kernel has one 3x3 table
# for every input channel, and its output is the sum over all of them.* A tiny example, with two channels and 2x2
# windows:
#
# - first channel: the window has the rows (1, 2) and (3, 4), the table (1, 0) and (0, 1): 1·1 + 2·0 + 3·0 + 4·1 = 5;
# - second channel: the window has the rows (0, 1) and (1, 0), the table (2, 2) and (2, 2): 0·2 + 1·2 + 1·2 + 0·2 = 4;
# - together 5 + 4 = 9, plus one number that belongs to the kernel, the **bias**. It shifts all its sums alike.
#
# One kernel makes one output channel. For two output channels we need two kernels:
#
# ```{raw} html
# <svg viewBox="0 0 522 312" role="img" style="width:522px;max-width:100%;height:auto"
#      fill="none" stroke="currentColor" font-family="sans-serif" font-size="15">
# <title>Two kernels, each with one table for every one of three input channels, make two output channels</title>
# <defs>
# <g id="conv-k1"><rect width="42" height="42" fill-opacity="0.2"/><path d="M14 0v42M28 0v42M0 14h42M0 28h42"/><rect width="14" height="42"/></g>
# <g id="conv-k2"><rect width="42" height="42" fill-opacity="0.2"/><path d="M14 0v42M28 0v42M0 14h42M0 28h42"/><rect width="42" height="14"/></g>
# </defs>
# <rect x="4" y="92" width="76" height="76" fill="var(--pst-color-background, white)"/><rect x="4" y="92" width="76" height="76" fill="#785ef0" fill-opacity="0.25" stroke="#785ef0"/><rect x="8" y="96" width="18" height="18" fill="#785ef0" stroke="none"/>
# <rect x="29" y="117" width="76" height="76" fill="var(--pst-color-background, white)"/><rect x="29" y="117" width="76" height="76" fill="#00a078" fill-opacity="0.25" stroke="#00a078"/><rect x="33" y="121" width="18" height="18" fill="#00a078" stroke="none"/>
# <rect x="54" y="142" width="76" height="76" fill="var(--pst-color-background, white)"/><rect x="54" y="142" width="76" height="76" fill="#fe6100" fill-opacity="0.25" stroke="#fe6100"/><rect x="58" y="146" width="18" height="18" fill="#fe6100" stroke="none"/>
# <use href="#conv-k1" x="172" y="70" fill="#785ef0" stroke="#785ef0"/>
# <use href="#conv-k1" x="234" y="70" fill="#00a078" stroke="#00a078"/>
# <use href="#conv-k1" x="296" y="70" fill="#fe6100" stroke="#fe6100"/>
# <path d="M138 146L164 91"/>
# <path d="M392 91h30m-7 -5l7 5l-7 5"/>
# <rect x="432" y="51" width="80" height="80" fill="currentColor" fill-opacity="0.12"/><rect x="441" y="60" width="8" height="8" fill="currentColor" stroke="none"/>
# <use href="#conv-k2" x="172" y="220" fill="#785ef0" stroke="#785ef0"/>
# <use href="#conv-k2" x="234" y="220" fill="#00a078" stroke="#00a078"/>
# <use href="#conv-k2" x="296" y="220" fill="#fe6100" stroke="#fe6100"/>
# <path d="M138 210L164 241"/>
# <path d="M392 241h30m-7 -5l7 5l-7 5"/>
# <rect x="432" y="201" width="80" height="80" fill="currentColor" fill-opacity="0.12"/><rect x="441" y="210" width="8" height="8" fill="currentColor" stroke="none"/>
# <g fill="currentColor" stroke="none">
# <text x="6" y="60">3 input</text><text x="6" y="78">channels</text>
# <text x="172" y="40">kernel 1: a table per channel</text><text x="219" y="96">+</text><text x="281" y="96">+</text><text x="345" y="96">+ b₁</text><text x="472" y="150" text-anchor="middle">channel 1</text>
# <text x="172" y="190">kernel 2: a table per channel</text><text x="219" y="246">+</text><text x="281" y="246">+</text><text x="345" y="246">+ b₂</text><text x="472" y="300" text-anchor="middle">channel 2</text>
# <text x="430" y="22">2 output</text><text x="430" y="40">channels</text>
# </g>
# </svg>
# ```
#
# *Colours stand for input channels: each table of a kernel meets its own channel. The products of all tables are
# added up, with the bias b, to one number of one output channel.*
#
# So the weights of a layer are an array (output channels, input channels, height, width). In PyTorch,
# `nn.Conv2d(8, 16, 3)` makes a layer with 8 input channels, 16 output channels and 3x3 kernels, filled with random
# numbers. You call it like a function. Its weights and biases together are its *parameters*.
#
# **Predict, then run**: how many weights and how many biases does this layer have? And if we change one input channel,
# say number 5, how many of the layer's 16 output channels change?

# %%
torch.manual_seed(0)
layer = nn.Conv2d(8, 16, 3)
for name, numbers in layer.named_parameters():
    print(f"{name}: shape {tuple(numbers.shape)}, {numbers.numel()} numbers")

x = torch.rand(1, 8, 96, 96)
changed = x.clone()
changed[:, 5] += 1  # one input channel, and no other
change = (layer(x) - layer(changed)).abs()
differs = change.amax((0, 2, 3)) > 1e-3  # for each output channel
print("output channels that change:", int(differs.sum()), "of", len(differs))

# %% [markdown]
# All of them: each of the 16 kernels sees each of the 8 input channels.
#
# ## The loops, complete
#
# One number of the output takes a loop over the input channels and two over the kernel:

# %%
weight, bias = layer.weight.detach(), layer.bias.detach()  # the bare numbers
o, row, column = 3, 40, 50  # one output channel, one place
total = bias[o]
for c in range(8):
    for i in range(3):
        for j in range(3):
            total = total + weight[o, c, i, j] * x[0, c, row + i, column + j]
theirs = layer(x)[0, o, row, column]
assert torch.allclose(total, theirs, atol=1e-5)
print(total.item(), "and PyTorch says", theirs.item())

# %% [markdown]
# (The last digits differ because computers round, and PyTorch adds up in another order.)
#
# All numbers of the output need six loops: two over the places and one each over output channels, input channels, and
# the rows and columns of the kernel. We may add the products in any order. So we let Python loop over the weights, and
# for each weight treat all places at once: shift the input, multiply it by the weight, add it to the output. (The
# padding is explained below.)

# %% tags=["piece"]
def convolve(x, weight, bias, padding=0):
    """Slide kernels (O, C, k, k) over maps (N, C, H, W); as F.conv2d."""
    x = F.pad(x, [padding] * 4)  # zeros on all four sides
    k = weight.shape[-1]
    h, w = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = torch.zeros(len(x), len(weight), h, w)
    for o, c, i, j in np.ndindex(*weight.shape):  # four loops in one
        out[:, o] += weight[o, c, i, j] * x[:, c, i : i + h, j : j + w]
    return out + bias[:, None, None]

# %%
ours = convolve(x, weight, bias)
assert torch.allclose(ours, layer(x), atol=1e-5)
print(tuple(x.shape), "->", tuple(ours.shape))

# %% [markdown]
# As a formula, for output channel $o$ and place $(i, j)$, with $C$ input channels, a kernel of $k$ by $k$ and the
# padded input $x$, everything counted from 0:
#
# $$y_{o,i,j} = b_o + \sum_{c=0}^{C-1} \sum_{u=0}^{k-1} \sum_{v=0}^{k-1} w_{o,c,u,v} \; x_{c,\,i+u,\,j+v}$$
#
# A layer with $O$ output channels has $O \cdot C \cdot k^2$ weights and $O$ biases.
#
# **The report did it like this** {cite}`report2020`: it stacks such layers. Its first, from 1 to 32 channels with kernels
# of 7x7, has 1,568 weights; one of its deepest, from 512 to 512 channels with kernels of 3x3, has 2,359,296. The number
# grows with the channels and not with the pixels.
#
# ## Padding
#
# A 3x3 convolution cuts a pixel off on each side. The first **U-Net**, the kind of network that this book builds,
# accepted that {cite}`ronneberger2015`. Today's usual practice is **padding**: put a frame of zeros around the input,
# so that the output keeps its size. With side $n$, kernel $k$ and a frame of $p$ pixels the output has $n + 2p - k + 1$
# pixels a side. To keep its size, a kernel of odd side $k$ needs $p = (k - 1) / 2$.
#
# Try it on the plainest input: a picture of 4x5 ones and a kernel of nine ones. Without padding every sum is 9.
#
# **Predict, then run**: with a frame of one pixel, what stands in the corners of the output and what along its edges?

# %%
ones, nine = torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 3)
zero = torch.zeros(1)  # the bias
framed = convolve(ones, nine, zero, padding=1)
assert torch.equal(framed, F.conv2d(ones, nine, padding=1))
print(convolve(ones, nine, zero)[0, 0])
print(framed[0, 0])

# %% [markdown]
# The output is larger now. Does it know more about the picture? *Padding adds no information about the picture: the
# frame is the same, all zeros, for every patient.* The sums of 9 are the old ones, and those of 4 and 6 are made of
# fewer pixels. What the frame does bring is an edge, in a picture that has none. From this edge a network can learn how
# far away the frame is, and so where in the picture a pixel lies {cite}`islam2020`.
#
# ## Weight sharing, and a heart that moves
#
# The same nine weights serve all places: this is called **weight sharing**. So if the heart moves, the output moves with
# it, otherwise unchanged. The term is **translation equivariance**. (*In*variance would mean that the output stays
# where it is.)
#
# We push a slice down by 12 pixels and right by 20; what leaves on one side comes in on the other. Then we compare
# "move, then convolve" with "convolve, then move":

# %%
x = heart[None, None]
w, b = kernel[None, None], torch.zeros(1)
moved = torch.roll(x, (12, 20), dims=(2, 3))
moved_first = convolve(moved, w, b, padding=1)
moved_last = torch.roll(convolve(x, w, b, padding=1), (12, 20), dims=(2, 3))
print(tuple(moved_first.shape), tuple(moved_last.shape))

# %% [markdown]
# **Predict, then run**: at which pixels do the two results differ?

# %%
differs = (moved_first - moved_last).abs()[0, 0] > 1e-5
print("rows:   ", torch.where(differs.float().mean(1) > 0.5)[0].tolist())
print("columns:", torch.where(differs.float().mean(0) > 0.5)[0].tolist())
figure, axes = plots.panels(2, 2, size=2.5)
plots.show(axes[0], x[0, 0], "a slice")
plots.show(axes[1], moved[0, 0], "moved")
axes[2].imshow(moved_first[0, 0], cmap="PuOr", vmin=-1.5, vmax=1.5)
axes[2].set_title("edges of the moved one")
axes[3].imshow(differs, cmap="inferno", vmax=1.3)  # orange where they differ
axes[3].set_title("where the two differ");

# %% [markdown]
# *They differ along the frame, and along the seam where the old frame came to lie (orange in the last picture): where
# zeros were padded. (Where the seam is interrupted, both results happen to be the same.) Everywhere else the detector finds the same edges, at
# their new places.*
#
# A network made of convolutions needn't learn each heart again for each place. But this holds for shifts only: turn the
# heart by 90 degrees, and a detector of upright borders finds others. That is one reason why [The whole thing](whole)
# turns its training slices by random angles.
#
# ## The 1x1 convolution
#
# A kernel may be a single pixel wide. On 8 channels it's a weighted sum of the 8 numbers at a pixel: it mixes channels
# and doesn't look at the neighbours. The U-Net of this book ends with such a layer, which turns 8 feature maps into 4,
# one for each class. Its weights are a table of 4 rows and 8 columns (a *matrix*), one row for each sum:

# %%
maps = torch.rand(2, 8, 96, 96)
head = nn.Conv2d(8, 4, 1)
table = head.weight[:, :, 0, 0]  # (4, 8)
pixel = maps[0, :, 40, 50]  # the 8 numbers at one place
by_hand = (table * pixel).sum(1) + head.bias  # 4 weighted sums
assert torch.allclose(by_hand, head(maps)[0, :, 40, 50], atol=1e-5)
print(tuple(maps.shape), "->", tuple(head(maps).shape))

# %% [markdown]
# ## What it would cost to connect everything
#
# In a **fully connected layer** every output number has a weight of its own for every input number.
#
# **Predict, then run**: one slice of 96x96 pixels goes in, 8 feature maps of the same size come out. How many weights
# does a 3x3 convolution need, and how many a fully connected layer?

# %%
pixels = 96 * 96
print(f"3x3 convolution: {nn.Conv2d(1, 8, 3).weight.numel():>11,} weights")
print(f"fully connected: {pixels * 8 * pixels:>11,} weights")

# %% [markdown]
# Two savings come together: a window of 9 pixels instead of all 9216, and one kernel for all 9216 places. The fully
# connected layer would also have to learn a heart on the left and a heart on the right separately.
#
# The price of a small window: a 3x3 kernel sees a square three pixels wide, and a heart is many times wider.
#
# ## Recap
#
# - A convolution multiplies a window by a kernel and adds up, with the same weights at every place; so its output
#   moves with the heart.
# - A kernel has a table for every input channel and makes one output channel. The number of weights doesn't depend on
#   the size of the picture.
# - Padding keeps the size and adds nothing about the picture, only an edge along the frame.
#
# ## Exercises
#
# ```{exercise} Two moments of one heart
# :label: convolution-two-moments
# Stack a patient's two slices as two input channels: channel 0 at end-diastole, channel 1 at end-systole. A convolution
# with 3x3 kernels, no bias and **one** output channel shall compute the mean of the window at end-systole minus the
# mean of the same window at end-diastole. Write `my_weight()`, which takes nothing and returns the weight of this
# convolution: a float tensor of the shape that `F.conv2d` expects.
# ```

# %% tags=["hide-input"]
MEANS = np.stack([-np.ones((3, 3)), np.ones((3, 3))])[None] / 9
SHAPES = {
    (3, 3): "a kernel has a table for every input channel: here two",
    (1, 1, 3, 3): "a kernel has a table for every input channel: here two",
    (2, 1, 3, 3): "these are two kernels of one channel each: outputs come first",
    (2, 3, 3): "the axis of the output channels is missing, in front",
    (1, 3, 3, 2): "channels come before rows and columns",
}
SLIPS = {
    "end-diastole is what you subtract, not end-systole": -MEANS,
    "these are sums: a mean divides by the number of pixels": 9 * MEANS,
    "each mean is over nine pixels, not over all eighteen": MEANS / 2,
    "both slices add: what is subtracted needs a minus": abs(MEANS),
    "both slices subtract: only end-diastole needs a minus": -abs(MEANS),
}


def attempt(mine, *inputs):
    """What a function answers, as an array; or what is wrong already, in words."""
    try:
        answer = mine(*inputs)
        if answer is None:
            return "it returns nothing yet"
        if not torch.is_tensor(answer) or not answer.is_floating_point():
            kind = answer.dtype if torch.is_tensor(answer) else type(answer).__name__
            return f"return a float tensor, not {kind}"
        return answer.detach().double().numpy()
    except Exception as error:
        return f"it stops with {type(error).__name__}: {error}"


def check_weight(mine):
    """What is wrong with a function that should return the weight of the kernel."""
    weight = attempt(mine)
    if isinstance(weight, str):
        return weight
    if weight.shape != MEANS.shape:
        other = f"its shape is {weight.shape}, F.conv2d expects (1, 2, 3, 3)"
        return SHAPES.get(weight.shape, other)
    slips = [why for why, slip in SLIPS.items() if np.allclose(weight, slip, atol=1e-3)]
    other = "a table should have nine equal weights that add up to 1 or -1"
    return "right" if np.allclose(weight, MEANS, atol=1e-3) else (*slips, other)[0]


def laid_out(kernel, h, w, row=None, step=None):
    """A convolution as a matrix; wrongly, if told a wrong length of the rows."""
    k = len(kernel)
    places = list(np.ndindex(h - k + 1, w - k + 1))
    matrix = np.zeros((len(places), h * w))
    for line, (i, j) in zip(matrix, places):
        for u, v in np.ndindex(k, k):
            line[i * (row or w) + j + u * (step or w) + v] += kernel[u, v]
    return matrix


def matrix_slips(k, h, w):
    """What a 3x3 convolution looks like as a matrix, rightly and wrongly."""
    right = laid_out(k, h, w)
    return {
        "right": right,
        "it flips the kernel": laid_out(k.flip(0, 1), h, w),
        "it exchanges rows and columns of the kernel": laid_out(k.T, h, w),
        "a row of the picture has w pixels": laid_out(k, h, w, row=w - 2),
        "the kernel's next row belongs one row down": laid_out(k, h, w, step=3),
        "it should be transposed: a row for every place": right.T,
        "all rows are alike: the window has to move": right[[0] * len(right)],
        "count places row by row": right[np.arange(8).reshape(2, 4).T.ravel()],
        "count pixels row by row": right.reshape(8, 4, 6).swapaxes(1, 2).reshape(8, 24),
    }


def check_matrix(mine, h=4, w=6):
    """What is wrong with a function that should write a convolution as a matrix."""
    k = torch.arange(1.0, 10).reshape(3, 3)
    matrix, slips = attempt(mine, k, h, w), matrix_slips(k, h, w)
    if isinstance(matrix, str):
        return matrix
    other = f"a {h}x{w} picture needs {slips['right'].shape}, not {matrix.shape}"
    if matrix.shape == slips["right"].shape:
        other = "right shape, but a row isn't the kernel laid into an empty picture"
    matches = [why for why, slip in slips.items() if np.array_equal(slip, matrix)]
    small = torch.arange(1.0, 5).reshape(2, 2)
    again = attempt(mine, small, 5, 3) if matches == ["right"] else ""
    if matches == ["right"] and not np.array_equal(again, laid_out(small, 5, 3)):
        return f"right for a 3x3 kernel on {h}x{w} pixels, wrong for 2x2 on 5x3"
    return (*matches, other)[0]

# %%
def my_weight():
    """The weight of one kernel that sees two channels."""
    return None  # your lines here


print("my_weight:", check_weight(my_weight))

# %% [markdown]
# ```{solution-start} convolution-two-moments
# :class: dropdown
# ```

# %%
def my_weight():
    """The weight of one kernel that sees two channels."""
    mean = torch.ones(3, 3) / 9
    return torch.stack([-mean, mean])[None]  # (1, 2, 3, 3)


print("my_weight:", check_weight(my_weight))

# %% [markdown]
# Where blood gives way to muscle between the two moments, the output is negative.
#
# ```{solution-end}
# ```
#
# ```{exercise} The same thing as a matrix
# :label: convolution-matrix
# A convolution is a fully connected layer most of whose weights are zero and the others shared. Show it: write
# `my_matrix(kernel, h, w)` for a float tensor `kernel` (k, k) and a picture of h rows and w columns, without padding. It
# returns a float tensor with a row for every place of the window and a column for every pixel, both counted row by row,
# so that `matrix @ image.ravel()` equals `slide(image, kernel).ravel()`. (`ravel` writes a picture as one long row.
# `matrix @ v` multiplies each row of the matrix by `v`, entry by entry, and adds up.)
# ```

# %%
def my_matrix(kernel, h, w):
    """A matrix (places, h * w) that does what sliding the kernel does."""
    return None  # your lines here


print("my_matrix:", check_matrix(my_matrix))

# %% [markdown]
# ```{solution-start} convolution-matrix
# :class: dropdown
# ```

# %%
def my_matrix(kernel, h, w):
    """A matrix (places, h * w) that does what sliding the kernel does."""
    k, rows = len(kernel), []
    for i in range(h - k + 1):
        for j in range(w - k + 1):
            image = torch.zeros(h, w)
            image[i : i + k, j : j + k] = kernel
            rows.append(image.ravel())
    return torch.stack(rows)


print("my_matrix:", check_matrix(my_matrix))
matrix = my_matrix(kernel, 24, 24)
zeros = (matrix == 0).float().mean()
print(f"{matrix.numel():,} entries, {zeros:.1%} of them zero")

# %% [markdown]
# Each row holds the same kernel, laid into an empty picture at its place. The rest is zero.
#
# ```{solution-end}
# ```
#
# ```{exercise} Disc after disc
# :label: convolution-discs
# A kernel *hits* the left ventricle if the LV lies at the place of its largest value. For which radius, from 6 to 18
# pixels in steps of 2, does `disc_in_ring(radius)` hit it most often? At end-systole (slices 1, 3, 5, ...) the cavity is
# smaller than at end-diastole (0, 2, 4, ...): predict what that does to the best radius and to the number of hits.
# Count on the training slices, then count the hits of the best radius on the validation slices.
# ```
#
# ```{solution-start} convolution-discs
# :class: dropdown
# ```

# %%
def hits(slices, radius):
    """For each slice whether the disc's largest answer lies in the left ventricle."""
    blob = disc_in_ring(radius)
    images = torch.from_numpy(slices.images)[:, None].float()
    places = F.conv2d(images, blob[None, None]).flatten(1).argmax(1)
    reach = len(blob) // 2
    middles = slices.masks[:, reach:-reach, reach:-reach].reshape(len(slices), -1)
    return middles[np.arange(len(slices)), places] == 3

# %%
hits_by_radius = {r: hits(train, r) for r in range(6, 19, 2)}
print("radius  end-diastole  end-systole")
for r, hit in hits_by_radius.items():
    print(f"{r:6} {hit[0::2].mean():13.0%} {hit[1::2].mean():12.0%}")
best = max(hits_by_radius, key=lambda r: hits_by_radius[r].mean())
print(f"radius {best}, on the validation slices: {hits(val, best).mean():.0%}")

# %% [markdown]
# At end-systole there are fewer hits at every radius, but the best radius is the same, although the cavity is smaller.
# So a smaller cavity doesn't mean that a smaller disc is best. (A guess: small discs fit many other bright things, too.
# The table doesn't test it.)
#
# ```{solution-end}
# ```
#
# **Next**: [Down and up](down_and_up): how a network of 3x3 kernels comes to see a whole heart, and what it loses on
# the way. **Read**: chapter 7 of Zhang et al., *Dive into Deep Learning* {cite}`zhang2023`, for the same loops on other
# pictures, and for the argument that leads from fully connected layers to convolutions.
