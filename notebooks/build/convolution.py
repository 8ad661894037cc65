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
# How can a table of nine numbers find the border of a heart, wherever in the picture the heart lies?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** compute a convolution by hand, count the weights of any `Conv2d` and predict the shape
# of its output, and say what padding adds and what it doesn't.
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

from cmrseg import data, plots

plots.style()
train, val = data.split(data.source(), "val")

# %% [markdown]
# ## One detector for every place
#
# A threshold looks at one pixel at a time. To a threshold, the blood in a ventricle and a piece of bright fat are the
# same. What tells us that we are at the border of something are the *neighbours* of a pixel: dark on one side, bright
# on the other. So a detector should look at a small **window** of the picture, say 3x3 pixels.
#
# It should also be the *same* detector everywhere. Hearts lie in different places, and a border looks like a border
# in every corner of a slice. So we take one small table of numbers, the **kernel**, and slide it over the picture. At
# each place we multiply the nine pixels in the window by the nine numbers of the kernel, add up, and write down the
# sum. That is a **convolution**.
#
# ## By hand
#
# On the left a made-up patch of 5x5 grey levels, dark on one side and bright on the other, like muscle beside blood.
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
# The same in PyTorch, and the next place on the right. **Predict, then run**: what is the second sum? You need six of
# the nine pixels.

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
# A 3x3 window has three places beside each other in a row of five pixels, and three below each other. So the output
# is a table of 3x3 numbers. Two loops visit all places:


# %%
def slide(image, kernel):
    """Slide a kernel (k, k) over an image (H, W), one weighted sum at each place."""
    k = len(kernel)
    h, w = image.shape[0] - k + 1, image.shape[1] - k + 1
    out = torch.zeros(h, w)
    for i in range(h):
        for j in range(w):
            out[i, j] = (image[i : i + k, j : j + k] * kernel).sum()
    return out


print(slide(patch, kernel))

# %% [markdown]
# The numbers are large where dark meets bright, and small on the right, where everything is bright. PyTorch's
# function for this is `F.conv2d`. It expects four axes, (batch, channels, height, width), so we add two with `None`:

# %%
theirs = F.conv2d(patch[None, None], kernel[None, None])[0, 0]
assert torch.allclose(slide(patch, kernel), theirs)
print("largest difference:", (slide(patch, kernel) - theirs).abs().max().item())

# %% [markdown]
# (In mathematics a convolution flips the kernel before it slides. Without the flip the operation is called
# *cross-correlation*. Networks learn their kernels, so a flip would change nothing, and all libraries for deep
# learning leave it out and keep the name.)
#
# ## Four detectors on a heart
#
# Other numbers make other detectors. Two find edges, one blurs, and one is made for this book: a bright disc in a
# dark ring, as large as the cavity of the left ventricle in the median training slice.


# %%
def disc_in_ring(radius):
    """A kernel whose disc weighs +1 in all, and the ring around it -1."""
    reach = int(1.5 * radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    distance = np.hypot(y, x)  # from the middle
    disc = distance <= radius
    ring = ~disc & (distance < reach + 0.5)
    return torch.from_numpy(disc / disc.sum() - ring / ring.sum()).float()


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
    print(f"{name:>17}: kernel {len(detectors[name]):2}, output {tuple(result.shape)}")

# %%
figure, axes = plt.subplots(2, 5, figsize=(9.5, 4.3))
plots.show(axes[1, 0], heart, "a slice")
axes[0, 0].axis("off")
for name, above, below in zip(detectors, *axes[:, 1:]):
    margin = len(detectors[name]) // 2  # the window's middle comes no nearer
    for ax, values in ((above, detectors[name]), (below, results[name])):
        limit = values.abs().quantile(0.99)
        look = {"cmap": "PuOr", "vmin": -limit, "vmax": limit}
        edges = [margin, 96 - margin, 96 - margin, margin]
        ax.imshow(values, extent=edges if ax is below else None, **look)
        ax.set_title(name if ax is above else f"{len(values)}x{len(values)}")
        ax.axis("off")
    below.set(xlim=(0, 96), ylim=(96, 0))
# %% [markdown]
# *Above four kernels, all drawn in the same size; below what each makes of the slice on the left. Purple is positive,
# orange negative, white zero. The two edge kernels light up at borders that run their way, and change sign from one
# side of the heart to the other. The mean blurs. The disc in a ring is largest where something bright and round, as
# large as a cavity, lies in dark surroundings. The larger the kernel, the fewer places there are for it, and the
# smaller its picture.*
#
# Is the last one of any use? We let it slide over every training slice and ask which class lies at the place of its
# largest value. A kernel that knew nothing would hit each class as often as its share of the places, printed on the
# right. **Predict first**: in how many of a hundred slices does this one kernel, made without any learning, hit the
# LV?

# %%
images = torch.from_numpy(train.images)[:, None].float() / 255  # (N, 1, 96, 96)
blob = disc_in_ring(radius)
answers = F.conv2d(images, blob[None, None])
places = answers.flatten(1).argmax(1)  # of each slice's largest value
reach = len(blob) // 2  # from a window's corner to its middle
middles = torch.from_numpy(train.masks)[:, reach:-reach, reach:-reach].flatten(1)
labels = middles[torch.arange(len(train)), places]
print("            hit in  share of the places")
for c, name in enumerate(data.CLASSES):
    hits, share = (labels == c).float().mean(), (middles == c).float().mean()
    print(f"{name:>10} {hits:7.0%} {share:10.0%}")

# %% [markdown]
# A place isn't yet a mask, but it's far from chance. A network slides many kernels in many layers, and nobody makes
# them by hand: it learns them. [One weight](one_weight) and [Backpropagation](../build/backpropagation) show how.
#
# ## Many input channels
#
# The outputs of several kernels, cut to one size, can be stacked: an array of shape (4, H, W). Each of the four is a
# **channel**, also called a **feature map**, because it says where a feature was found. A network does one such step
# after another; each is a **layer**, and takes the stack that the one before it made. What does a 3x3 kernel do with
# four channels?
#
# It's tempting to think that a kernel is a 3x3 table that looks at one picture. It isn't: *a kernel has one 3x3 slice
# for every input channel, and its output is the sum over all of them.* A tiny example, with two channels and 2x2
# windows:
#
# - first channel: window (1, 2; 3, 4), slice (1, 0; 0, 1): 1·1 + 4·1 = 5;
# - second channel: window (0, 1; 1, 0), slice (2, 2; 2, 2): 1·2 + 1·2 = 4;
# - together 5 + 4 = 9, plus one number, the **bias**, that belongs to the kernel.
#
# One kernel makes one output channel. For two output channels we need two kernels:
#
# ```{raw} html
# <svg viewBox="0 0 522 312" role="img" style="width:522px;max-width:100%;height:auto"
#      fill="none" stroke="currentColor" font-family="sans-serif" font-size="15">
# <title>Two kernels, each with one slice for every one of three input channels, make two output channels</title>
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
# <text x="172" y="40">kernel 1: a slice per channel</text><text x="219" y="96">+</text><text x="281" y="96">+</text><text x="345" y="96">+ b₁</text><text x="472" y="150" text-anchor="middle">channel 1</text>
# <text x="172" y="190">kernel 2: a slice per channel</text><text x="219" y="246">+</text><text x="281" y="246">+</text><text x="345" y="246">+ b₂</text><text x="472" y="300" text-anchor="middle">channel 2</text>
# <text x="430" y="22">2 output</text><text x="430" y="40">channels</text>
# </g>
# </svg>
# ```
#
# *Colours stand for input channels: each slice of a kernel meets its own channel. The products of all slices are
# added up, with the bias b, to one number of one output channel.*
#
# So the weights of a layer are an array (output channels, input channels, height, width). **Predict, then run**: a
# layer takes 8 channels and makes 16, with 3x3 kernels. How many weights has it? And if we change one input channel,
# say number 5, how many of its 16 output channels change?

# %%
torch.manual_seed(0)
layer = nn.Conv2d(8, 16, 3)
print("weights", tuple(layer.weight.shape), "and biases", tuple(layer.bias.shape))
print("together", sum(p.numel() for p in layer.parameters()), "numbers")

x = torch.rand(1, 8, 96, 96)
changed = x.clone()
changed[:, 5] += 1  # one input channel, and no other
differs = (layer(x) - layer(changed)).abs().amax((0, 2, 3)) > 1e-3
print("output channels that change:", int(differs.sum()), "of", len(differs))

# %% [markdown]
# All of them: each of the 16 kernels sees each of the 8 input channels. What belongs to one output channel alone is
# its kernel, with 8 slices and a bias.
#
# ## The loops, complete
#
# One number of the output, as plainly as it can be written, with a loop over the channels and two over the kernel:

# %%
weight, bias = layer.weight.detach(), layer.bias.detach()  # detach: the bare numbers
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
# All numbers of the output need six loops: two over the places and one each over output channels, input channels, and
# the rows and columns of the kernel. The order of a sum is ours to choose. We let Python loop over the weights, and
# for each weight treat all places at once: shift the input, multiply it by the weight, add it to the output. That is
# one step for each weight, instead of one for each weight at each place.


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
for padding in (0, 1, 2):
    ours = convolve(x, weight, bias, padding)
    theirs = F.conv2d(x, weight, bias, padding=padding)
    assert torch.allclose(ours, theirs, atol=1e-5)
    print(tuple(ours.shape), "largest difference", (ours - theirs).abs().max().item())
assert torch.allclose(convolve(x, weight, bias), layer(x), atol=1e-5)

# %% [markdown]
# (The last digits differ because computers round, and we add up in another order.) As a formula, for output channel
# $o$ and place $(i, j)$, with $C$ input channels, a kernel of $k$ by $k$ and the padded input $x$:
#
# $$y_{o,i,j} = b_o + \sum_{c=1}^{C} \sum_{u=0}^{k-1} \sum_{v=0}^{k-1} w_{o,c,u,v} \; x_{c,\,i+u,\,j+v}$$
#
# A layer with $O$ output channels has $O \cdot C \cdot k^2$ weights and $O$ biases. The size of the picture isn't in
# this count.
#
# **The report did it like this** {cite}`report2020`: a stack of `Conv2d` layers with 32 to 512 channels, 3x3 by its
# text; in its code, the kernels of the first block are 7x7. Count what its first layer and one of its deepest hold:

# %%
for name, layer in {
    "first: 1 to 32 channels, 7x7": nn.Conv2d(1, 32, 7),
    "deep: 512 to 512 channels, 3x3": nn.Conv2d(512, 512, 3),
}.items():
    print(f"{name:>30}: {sum(p.numel() for p in layer.parameters()):,} numbers")

# %% [markdown]
# Nearly all weights of such a network sit where the channels are many.
#
# ## Padding
#
# A 3x3 convolution cuts a pixel off on each side. The first U-Net {cite}`ronneberger2015` accepted that: its masks
# were smaller than its pictures. Today's usual practice is **padding**: put a frame of zeros around the input, so
# that the output keeps its size. A kernel of $k$ (odd) needs a frame of $(k - 1) / 2$ pixels.
#
# Try it on the plainest input: a picture of 4x5 ones, a kernel of nine ones. **Predict, then run**: without padding
# every sum is 9. What stands in the corners and along the edges with a frame of one pixel?

# %%
ones, nine, zero = torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 3), torch.zeros(1)
print(convolve(ones, nine, zero)[0, 0])
print(convolve(ones, nine, zero, padding=1)[0, 0])

# %% [markdown]
# The output is larger than without padding. Does it know more about the picture? *Padding adds no information about
# the picture: the frame is the same, all zeros, for every patient.* For the doubter: pad all training slices.
# **Predict, then run**: by how much does the frame differ from slice to slice? And is anything else in the padded
# pictures that wasn't there before?

# %%
padded = F.pad(images, [1, 1, 1, 1])
frame = torch.ones(98, 98, dtype=torch.bool)
frame[1:-1, 1:-1] = False
print("pixels in the frame:", int(frame.sum()))
print("their spread over all slices:", padded[:, 0, frame].std(0).max().item())
print("the rest is the old picture:", torch.equal(padded[:, :, 1:-1, 1:-1], images))

# %% [markdown]
# What the frame does bring is an edge that isn't in the anatomy. The sums of 4 and 6 above are such an edge, in a
# picture that has none. A network can learn from it how far the frame is, and so where in the picture it is {cite}`islam2020`.
# That is knowledge of the frame, and not of the heart.
#
# ## Weight sharing, and a heart that moves
#
# The same nine weights serve all places. This is called **weight sharing**, and it has a consequence: move the heart,
# and the output moves with it, otherwise unchanged. The term is **translation equivariance**. (*In*variance would
# mean that the output stays where it is.)
#
# We push a slice down by 12 pixels and right by 20; what leaves on one side comes in on the other. Then we compare
# "move, then convolve" with "convolve, then move". **Predict first**: at how many of the 9216 pixels do the two
# differ, and where?

# %%
x = heart[None, None]
w, b = kernel[None, None], torch.zeros(1)
moved = torch.roll(x, (12, 20), dims=(2, 3))
one = convolve(moved, w, b, padding=1)
other = torch.roll(convolve(x, w, b, padding=1), (12, 20), dims=(2, 3))
differs = (one - other).abs()[0, 0] > 1e-5
print("pixels that differ:", int(differs.sum()), "of", differs.numel())
print("rows:   ", torch.where(differs.float().mean(1) > 0.5)[0].tolist())
print("columns:", torch.where(differs.float().mean(0) > 0.5)[0].tolist())

# %%
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.6))
plots.show(axes[0], x[0, 0], "a slice")
plots.show(axes[1], moved[0, 0], "moved")
axes[2].imshow(one[0, 0], cmap="PuOr", vmin=-1.5, vmax=1.5)
axes[2].set_title("its edges")
axes[2].axis("off")
plots.show(axes[3], differs, "where the orders differ");

# %% [markdown]
# *A heart, the same heart moved, the edges of the moved one, and in white the pixels at which "move, then convolve"
# and "convolve, then move" differ. They lie along the frame and along the seam where the old frame came to lie: where
# zeros were padded. Everywhere else the detector found the heart's edges just as before.*
#
# A network made of convolutions needn't learn each heart again for each place. But it isn't indifferent to
# everything. Turn the heart by 90 degrees, and a detector of left and right borders finds others:

# %%
one = convolve(torch.rot90(x, 1, (2, 3)), w, b, padding=1)
other = torch.rot90(convolve(x, w, b, padding=1), 1, (2, 3))
print(f"pixels that differ: {((one - other).abs() > 1e-5).float().mean():.0%}")

# %% [markdown]
# That is one reason why [The whole thing](whole) rotates its training slices at random.
#
# ## The 1x1 convolution
#
# A kernel may be a single pixel wide. On one channel that would be no more than a factor. On 8 channels it's a
# weighted sum of the 8 numbers at a pixel, the same at every pixel: it mixes channels and doesn't look sideways at
# all. A U-Net ends with one, which turns 8 feature maps into 4 maps, one for each class.

# %%
maps = torch.rand(2, 8, 96, 96)
head = nn.Conv2d(8, 4, 1)
table = head.weight[:, :, 0, 0]  # (4, 8)
by_hand = torch.einsum("oc,nchw->nohw", table, maps) + head.bias[:, None, None]
assert torch.allclose(by_hand, head(maps), atol=1e-5)
print(tuple(maps.shape), "->", tuple(head(maps).shape), "by", tuple(table.shape))

# %% [markdown]
# ## What it would cost without sharing
#
# In a **fully connected layer** every output number has a weight of its own for every input number. **Predict, then
# run**: one slice in, 8 feature maps out. How many weights does each kind need? (On the device `"meta"` PyTorch keeps
# shapes and no numbers, so that we may count what wouldn't fit into memory.)

# %%
pixels = 96 * 96
layers = {
    "convolution, 3x3": nn.Conv2d(1, 8, 3, padding=1, device="meta"),
    "fully connected": nn.Linear(pixels, 8 * pixels, device="meta"),
}
for name, layer in layers.items():
    n = sum(p.numel() for p in layer.parameters())
    print(f"{name:>16}: {n:>11,} numbers, {4 * n / 1e3:>11,.1f} kB")

# %% [markdown]
# And the fully connected layer would have to learn a heart in the left half and a heart in the right half separately.
# The price of sharing: a 3x3 kernel sees three pixels, and a heart is many times wider. How a network of small
# kernels comes to see all of it is the question of the next page.
#
# ## Recap
#
# - A convolution multiplies a window by a kernel and adds up, with the same weights at every place; so its output
#   moves with the heart.
# - A kernel has a slice for every input channel and makes one output channel: $O \cdot C \cdot k^2$ weights and $O$
#   biases, whatever the size of the picture.
# - Padding keeps the size and adds nothing about the picture, only an edge along the frame.
#
# ## Exercises
#
# ```{exercise} Two moments of one heart
# :label: convolution-two-moments
# Stack a patient's two slices as two input channels: channel 0 at end-diastole, channel 1 at end-systole. Write a
# function that returns the weight of a convolution with **one** output channel: the mean of the 3x3 window at
# end-systole minus the mean of the 3x3 window at end-diastole. Give it the shape that `F.conv2d` expects. The check
# says what is wrong.
# ```

# %% tags=["hide-input"]
import torch

MEANS = np.stack([-np.ones((3, 3)), np.ones((3, 3))])[None] / 9
SHAPES = {
    (3, 3): "a kernel has a slice for every input channel, and here are two",
    (1, 1, 3, 3): "a kernel has a slice for every input channel, and here are two",
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
        answer = answer.detach().numpy() if torch.is_tensor(answer) else answer
        return "it returns nothing yet" if answer is None else np.array(answer, float)
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
    other = "a slice should have nine equal weights that add up to 1 or -1"
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
    other = f"of {h}x{w} pixels it makes {matrix.shape}, not {slips['right'].shape}"
    if matrix.shape == slips["right"].shape:
        other = "right shape, but a row isn't the kernel laid into an empty picture"
    said = [why for why, slip in slips.items() if np.array_equal(slip, matrix)]
    return (*said, other)[0]


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
# Where blood gives way to muscle between the two moments, the output is negative: the ring thickens inwards. The
# report's network sees one slice at a time, so it can't have such a kernel.
#
# ```{solution-end}
# ```
#
# ```{exercise} The same thing as a matrix
# :label: convolution-matrix
# A convolution is a fully connected layer most of whose weights are zero and the others shared. Show it: write
# `my_matrix(kernel, h, w)`, which returns the matrix with a row for every place of the window and a column for every
# pixel of an (h, w) picture, both counted row by row, so that `matrix @ image.ravel()` equals `slide(image,
# kernel).ravel()`.
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
# Each row holds the same kernel, laid into an empty picture at its place. The rest is zero: no output looks beyond
# its window.
#
# ```{solution-end}
# ```
#
# ```{exercise} Disc after disc
# :label: convolution-discs
# For which radius does the disc in a ring hit the left ventricle most often? At end-systole (slices 1, 3, 5, ...) the
# cavity is smaller than at end-diastole (0, 2, 4, ...): predict what that does to the best radius and to the number
# of hits, then count. Choose on the training slices, and let the validation slices say how good the choice is.
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
found = {r: hits(train, r) for r in range(6, 19, 2)}
print("radius  end-diastole  end-systole")
for r, hit in found.items():
    print(f"{r:6} {hit[0::2].mean():13.0%} {hit[1::2].mean():12.0%}")
best = max(found, key=lambda r: found[r].mean())
print(f"radius {best}, on the validation slices: {hits(val, best).mean():.0%}")

# %% [markdown]
# Compare the two columns. On our slices the end-systolic one is lower at nearly every radius, but it peaks at about
# the same radius, although the cavity is smaller. The anatomy alone doesn't foretell what works. (Our guess: small
# discs fit into many other bright things, too. The table doesn't test it.) One kernel has one size. A network has
# many, and looks at the picture at several resolutions: that is the next page.
#
# ```{solution-end}
# ```
#
# **Next**: [Down and up](down_and_up): how a network of 3x3 kernels comes to see a whole heart, and what it loses on
# the way. **Read**: chapter 7 of Zhang et al., *Dive into Deep Learning* {cite}`zhang2023`, for the same loops on other
# pictures, and for the argument that leads from fully connected layers to convolutions.
