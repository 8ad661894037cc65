# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Arrays and tensors
#
# To a computer, a slice of a heart is a grid of numbers. Some mistakes with such grids raise no error: how do you
# avoid them?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** read the dtype, shape and axes of an array, subtract two images without wrapping around,
# predict what broadcasting does, choose between reshape and permute, and move slices from NumPy to PyTorch and back.
# **You need** Python, and nothing of neural networks.
# **Time** 40 minutes; a quarter of an hour if you know NumPy.
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

from cmrseg import augment, datasets, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")

# %% [markdown]
# ## Eight questions first
#
# If you've never used NumPy, skip to the next section: at the end of the page you can answer all eight. Otherwise
# answer each in your head, then open it. If all were right, go on to [Pixels and a first
# Dice](pixels_and_a_first_dice).
#
# <details class="answer"><summary>1. The shape of an image is <code>(64, 96)</code>. How many columns does it
# have?</summary><p>96. The first axis counts rows, the second counts columns.</p></details>
# <details class="answer"><summary>2. <code>a</code> holds 3 and <code>b</code> holds 5, both of dtype
# <code>uint8</code>. What is <code>a - b</code>?</summary><p>254. A byte has no negative numbers, so the result
# wraps around.</p></details>
# <details class="answer"><summary>3. <code>images</code> has the shape <code>(100, 96, 96)</code>. What is the shape
# of <code>images.mean((1, 2))</code>?</summary><p><code>(100,)</code>: one mean for each slice. The axes that you
# name disappear.</p></details>
# <details class="answer"><summary>4. Does <code>images - images.mean((1, 2))</code> run?</summary><p>No. Shapes are
# lined up from the right, and 100 doesn't fit 96.</p></details>
# <details class="answer"><summary>5. What is the shape of the sum of a <code>(100, 1, 1)</code> and a
# <code>(96, 96)</code> array?</summary><p><code>(100, 96, 96)</code>. An axis of length 1 is stretched, and a
# missing axis counts as 1.</p></details>
# <details class="answer"><summary>6. <code>x</code> is a tensor of shape <code>(96, 96, 4)</code>. Is
# <code>x.reshape(4, 96, 96)</code> the same as <code>x.permute(2, 0, 1)</code>?</summary><p>No. Both have the shape
# <code>(4, 96, 96)</code>, but the numbers stand in other places.</p></details>
# <details class="answer"><summary>7. <code>patch = image[:10, :10]</code>, then <code>patch[:] = 0</code>. Has
# <code>image</code> changed?</summary><p>Yes. A part that you cut out with colons is a view: it shares the
# memory of the whole.</p></details>
# <details class="answer"><summary>8. <code>x = torch.from_numpy(image)</code>, then <code>x += 1</code>. Has
# <code>image</code> changed?</summary><p>Yes. The tensor shares its memory with the array.</p></details>
#
# ## One heart as numbers
#
# The book's package, `cmrseg`, gives us slices: pictures that cut across the heart, and for each a *mask* that says
# what every pixel shows. `train` holds 100 of them, as arrays of **NumPy**, Python's library for calculating with
# grids of numbers; **matplotlib** draws them. (The imports are in the first cell, under "Show the code".) Here is the
# first slice.

# %%
image, mask = train.images[0], train.masks[0]
print(type(image).__name__, image.dtype, image.shape)
print("darkest and brightest pixel:", image.min(), image.max())

# %% [markdown]
# An **array** is a grid of numbers of one type. Three words describe it:
#
# - The **dtype** is the type of its numbers. `uint8` means *unsigned integer of 8 bits*: a whole number
#   from 0 to 255 that takes one byte.
# - The **shape** is the number of entries in each direction, as a tuple.
# - Each of these directions is an **axis**. Axis 0 of an image runs down its rows, axis 1 along its columns.
#
# So `image[row, column]` is one grey level, and `image[20:28, 40:48]` is a patch of 8 rows and 8 columns.
#
# The left ventricle is the heart's main pumping chamber: a cavity full of blood, bright in our images, inside a wall
# of muscle, which is dark. We look at a patch where the blood ends and the muscle begins. In the mask, this blood has
# the number 3. A comparison such as `mask == 3` gives an array of True and False; used as an index, it picks the
# entries where it is True.

# %%
blood = np.argwhere(mask == 3)  # one line (row, column) for each such pixel
middle = int(blood[:, 0].mean())
edge = blood[blood[:, 0] == middle, 1].max()  # last blood pixel of this row
top, left = middle - 4, edge - 3
patch = image[top : top + 8, left : left + 8]
print("from row", top, "and column", left)
print(patch)

# %% tags=["hide-input"]
figure, (whole, near) = plt.subplots(1, 2, figsize=(7.5, 3.9))
plots.show(whole, image, "the slice")
corner = (left - 0.5, top - 0.5)
whole.add_patch(plt.Rectangle(corner, 8, 8, fill=False, ec=plots.CONTRAST, lw=2))
plots.show(near, patch, "the patch, with its numbers")
inside = np.kron(mask[top : top + 8, left : left + 8] == 3, np.ones((20, 20)))
near.contour(inside, [0.5], colors=plots.CLASS_COLOURS["LV"], extent=(-0.5, 7.5) * 2)
for (row, column), grey in np.ndenumerate(patch):
    ink = "black" if grey > (int(patch.min()) + int(patch.max())) / 2 else "white"
    near.text(column, row, grey, color=ink, ha="center", va="center", size=13)

# %% [markdown]
# *One heart as numbers. The orange frame on the left is the patch on the right. Left of the magenta line are the pixels
# that the mask labels as blood.*
#
# A trap when you draw: arrays take `[row, column]`, but most drawing functions take `(x, y)`, which is (column, row).
#
# A whole **stack** of slices is an array with three axes: slice, row, column. Functions such as `mean` take the axes
# to average over. These axes disappear; with `keepdims=True` they stay, with length 1:

# %%
images = train.images
print("the stack:         ", images.shape, images.dtype)
print("mean over 1 and 2: ", images.mean((1, 2)).shape, "one for each slice")
print("the same, axes kept", images.mean((1, 2), keepdims=True).shape)
print("mean over 0:       ", images.mean(0).shape, "one for each pixel")

# %% [markdown]
# ## A byte wraps around
#
# The heart beats. Our slices come in pairs: first the moment when the ventricles are full, then the same place in the
# same patient when they have contracted. To see what moved, we subtract one image from the other. Take two pixels of
# each, `a` and `b`.
#
# **Predict, then run**: what are the two numbers of `a - b`?

# %%
a = np.array([[50, 200]], dtype=np.uint8)
b = np.array([[60, 190]], dtype=np.uint8)
print(a - b)

# %% [markdown]
# The first is 246 and not $-10$, because a `uint8` has no minus sign. Its 256 values form a circle, like the hours on
# a clock: one step below 0 comes 255. This is called *wrapping around*. NumPy computes $(50 - 60) \bmod 256 = 246$
# and says nothing. Addition wraps in the same way: 200 + 100 gives 44. And converting the *result* is too late:

# %%
print("subtract, then convert:", (a - b).astype(np.float32))
print("convert, then subtract:", a.astype(np.float32) - b.astype(np.float32))

# %% [markdown]
# Now two whole images, once as bytes and once converted first.
#
# **Predict, then run**: which of the two results, `wrapped` and `right`, contains negative numbers?

# %%
full, contracted = images[20], images[21]
wrapped = full - contracted
right = full.astype(np.float32) - contracted.astype(np.float32)
print("smallest value: wrapped", wrapped.min(), "| right", right.min())
print(f"{(wrapped != right).mean():.0%} of the pixels are wrong")

# %%
figure, axes = plots.panels(2, 2, size=2.5)
plots.show(axes[0], full, "full")
plots.show(axes[1], contracted, "contracted")
plots.show(axes[2], wrapped, "difference, wrapped")
plots.show(axes[3], right, "difference, right")
axes[3].images[0].set_clim(-180, 180)  # so that 0 is a middle grey

# %% [markdown]
# *The same subtraction twice. Bottom left, every pixel that should be a little below zero is nearly white, so harmless
# noise looks like a large change. Bottom right, middle grey means no change.*
#
# **Subtracting two `uint8` images never gives a negative number**, because the type has none. Convert first, then
# subtract.
#
# ## Broadcasting
#
# We'd like to subtract from each slice its own mean: a stack minus one number for each slice, two arrays of different
# shapes. NumPy does this without a loop. It stretches axes of length 1 until the shapes fit, which is called
# **broadcasting**. By hand, with two "slices" of three pixels each:

# %%
tiny = np.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])  # shape (2, 3)
means = np.array([[2.0], [20.0]])  # shape (2, 1)
print(tiny - means)

# %% [markdown]
# From each row its own number was subtracted. The rule has three parts. Line the shapes up **from the right**. Two
# lengths fit if they're equal or if one of them is 1. A missing axis counts as 1.
#
# | stack | means | result |
# |---|---|---|
# | `(100, 96, 96)` | `(100,)`, read as `(1, 1, 100)` | 96 and 100 don't fit: an error |
# | `(100, 96, 96)` | `(100, 1, 1)` | `(100, 96, 96)`: each slice minus its own mean |
# | `(100, 96, 96)` | `(96, 96)`, read as `(1, 96, 96)` | `(100, 96, 96)`: each slice minus one image |

# %%
means = images.mean((1, 2))
try:
    images - means
except ValueError as problem:
    print(problem)
column = means[:, None, None]
print((images - column).shape, "with means of shape", column.shape)

# %% [markdown]
# In an index, `None` inserts an axis of length 1. Is the result what a loop would give? We write the loop, for the
# first ten slices, and time both.

# %%
from time import perf_counter

few, start = images[:10], perf_counter()
looped = np.empty(few.shape)
for n in range(10):
    for row in range(few.shape[1]):
        for column in range(few.shape[2]):
            looped[n, row, column] = few[n, row, column] - means[n]
half = perf_counter()
broadcast = few - means[:10, None, None]
end = perf_counter()
assert np.array_equal(looped, broadcast)
print(f"the loop took {(half - start) / (end - half):.0f} times as long")

# %% [markdown]
# The numbers are the same, but the loop takes about a hundred times as long. (How much depends on the machine.)
#
# Broadcasting can go wrong without an error. Take as many slices as a slice has columns, and forget the `None`.
#
# **Predict, then run**: does the line with `wrong` raise an error? If not, what does it subtract from what?

# %%
side = images.shape[2]
some, their_means = images[:side], means[:side]
wrong = some - their_means
right = some - their_means[:, None, None]
print("means of three slices, wrong:", wrong[:3].mean((1, 2)).round(2))
print("means of three slices, right:", right[:3].mean((1, 2)).round(2))

# %% [markdown]
# No error: the number of slices now equals the number of columns, so the mean of slice $k$ was subtracted from column
# $k$ of *every* slice. If the lengths differ, a mistake stops your program. If they happen to be equal, it doesn't. Two
# habits protect you: write `images.mean((1, 2), keepdims=True)`, which has the right shape (100, 1, 1) from the start,
# and check a number that you know (here, a mean of 0; `-0.` is a tiny negative number, rounded).
#
# The *standard deviation* says how far the pixels typically lie from their mean: it is the root of the mean squared
# distance. If you subtract the mean and divide by the standard deviation, each slice gets mean 0 and a standard
# deviation of 1. This is called **normalisation**, or taking the *z-score*.

# %%
def normalise(images):
    """uint8 (N, H, W) -> floats; each slice gets mean 0 and std 1."""
    mean = images.mean((1, 2), keepdims=True)
    std = images.std((1, 2), keepdims=True)
    return (images - mean) / std


z = normalise(images)
print("means of three slices:", z[:3].mean((1, 2)).round(6))
print("their deviations:     ", z[:3].std((1, 2)).round(6))

# %% [markdown]
# Nothing wraps here: `mean` holds floats, so NumPy converts the bytes to floats first.
#
# ## From NumPy to PyTorch and back
#
# **PyTorch** (`torch`) is the library with which this book builds and trains networks, and a **tensor** is its array.
# It has a dtype, a shape and axes as well. It can also be computed on a graphics card, and PyTorch can work out
# derivatives of what you compute with it. Networks need both. The step across is short:

# %%
x = torch.from_numpy(images)  # still bytes
print(x.dtype, "smallest difference:", (x[0] - x[1]).min().item())
x = x.float()[:, None]  # convert, and insert an axis
y = torch.from_numpy(train.masks).long()
print("images", x.dtype, tuple(x.shape))
print("labels", y.dtype, tuple(y.shape))
back = x[:, 0].numpy()
assert np.array_equal(back, images)

# %% [markdown]
# Bytes wrap in PyTorch too. And here are the two shapes that you'll meet on every page to come:
#
# - **Images are `float32` of shape (N, 1, H, W)**: number of slices, channels, height, width. A *channel* is one of
#   several pictures of the same place. A colour photo has three, a grey slice has one.
# - **Labels are `int64` of shape (N, H, W)**, with a class number from 0 to 3 at each pixel. PyTorch's cross-entropy,
#   the *loss* that you'll meet first, asks for this dtype (`.long()`), since it uses each label as an index into a
#   list of four numbers. (A loss is the number that training makes small.)
#
# A few names differ:
#
# | NumPy | PyTorch | what differs |
# |---|---|---|
# | `a.astype(np.float32)` | `x.float()` | another dtype |
# | `a.mean(1, keepdims=True)` | `x.mean(1, keepdim=True)` | an axis is called `dim` |
# | `a.transpose(2, 0, 1)` | `x.permute(2, 0, 1)` | axes in another order |
# | `a.copy()` | `x.clone()` | memory of its own |
#
# Let's normalise again, now in PyTorch, and compare with the package. (The `1e-6` matters only for a slice with a
# single grey level, whose standard deviation is 0: 0/0 is `nan`, *not a number*.)

# %%
mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
ours = (x - mean) / (std + 1e-6)
assert torch.allclose(ours, augment.normalise(images))  # the package's version
print("NumPy against PyTorch:", np.abs(z - ours[:, 0].numpy()).max())

# %% [markdown]
# The NumPy version differs by a little, and rounding isn't the reason: for the mean squared distance, `np.std`
# divides by the number of pixels $n$, `torch.std` by $n - 1$. (So does NumPy with `ddof=1`.)
#
# ## Reshape is not permute
#
# In memory an array is one long row of numbers. **Reshape** keeps the order of this row and breaks it into lines of
# another length. **Permute** exchanges axes: what was a row becomes a column.
#
# ```{raw} html
# <svg viewBox="0 0 420 236" role="img" aria-labelledby="memory-title" style="display:block;width:560px;max-width:100%;height:auto;margin:1rem 0" font-family="system-ui, sans-serif" font-size="14" text-anchor="middle" fill="currentColor">
# <title id="memory-title">Six numbers, 0 to 5, in a row in memory and as an array of two rows. Reshaped to three rows they read 0 1, 2 3, 4 5. Permuted they read 0 3, 1 4, 2 5.</title>
# <g stroke="var(--pst-color-border, #8888)" stroke-width="1.5" fill="#648FFF" fill-opacity="0.45">
# <rect x="126" y="26" width="28" height="28"/><rect x="154" y="26" width="28" height="28"/><rect x="182" y="26" width="28" height="28"/>
# <rect x="30" y="104" width="28" height="28"/><rect x="58" y="104" width="28" height="28"/><rect x="86" y="104" width="28" height="28"/>
# <rect x="182" y="104" width="28" height="28"/><rect x="210" y="104" width="28" height="28"/><rect x="182" y="132" width="28" height="28"/>
# <rect x="320" y="104" width="28" height="28"/><rect x="320" y="132" width="28" height="28"/><rect x="320" y="160" width="28" height="28"/>
# </g>
# <g stroke="var(--pst-color-border, #8888)" stroke-width="1.5" fill="#FFB000" fill-opacity="0.5">
# <rect x="210" y="26" width="28" height="28"/><rect x="238" y="26" width="28" height="28"/><rect x="266" y="26" width="28" height="28"/>
# <rect x="30" y="132" width="28" height="28"/><rect x="58" y="132" width="28" height="28"/><rect x="86" y="132" width="28" height="28"/>
# <rect x="210" y="132" width="28" height="28"/><rect x="182" y="160" width="28" height="28"/><rect x="210" y="160" width="28" height="28"/>
# <rect x="348" y="104" width="28" height="28"/><rect x="348" y="132" width="28" height="28"/><rect x="348" y="160" width="28" height="28"/>
# </g>
# <g fill="var(--pst-color-text-base, currentColor)">
# <text x="210" y="16">in memory</text>
# <text x="140" y="45">0</text><text x="168" y="45">1</text><text x="196" y="45">2</text><text x="224" y="45">3</text><text x="252" y="45">4</text><text x="280" y="45">5</text>
# <text x="72" y="94">shape (2, 3)</text>
# <text x="44" y="123">0</text><text x="72" y="123">1</text><text x="100" y="123">2</text><text x="44" y="151">3</text><text x="72" y="151">4</text><text x="100" y="151">5</text>
# <text x="210" y="94">reshape(3, 2)</text>
# <text x="196" y="123">0</text><text x="224" y="123">1</text><text x="196" y="151">2</text><text x="224" y="151">3</text><text x="196" y="179">4</text><text x="224" y="179">5</text>
# <text x="348" y="94">permute(1, 0)</text>
# <text x="334" y="123">0</text><text x="362" y="123">3</text><text x="334" y="151">1</text><text x="362" y="151">4</text><text x="334" y="179">2</text><text x="362" y="179">5</text>
# <text x="210" y="212">reading order kept,</text><text x="210" y="230">rows torn</text>
# <text x="348" y="212">rows kept,</text><text x="348" y="230">as columns</text>
# </g>
# </svg>
# ```
#
# *Six numbers, one colour for each row of the array on the left. Reshape tears the rows, permute turns them into
# columns.*

# %%
six = torch.arange(6).reshape(2, 3)
print(six.reshape(3, 2))
print(six.permute(1, 0))

# %% [markdown]
# On a heart this matters when labels become **one-hot**: four numbers at each pixel, a 1 for its class and 0 for the
# other three. `F.one_hot` (`F` is `torch.nn.functional`) puts the class axis last, (H, W, 4), but a network has it
# first, (4, H, W). Both `permuted` and `reshaped` below have the shape that we want.
#
# **Predict, then run**: in which of the two does each channel hold as many ones as its label has pixels? And in the
# other?

# %%
one_hot = F.one_hot(torch.from_numpy(mask).long(), 4)  # (H, W, 4)
permuted = one_hot.permute(2, 0, 1)
reshaped = one_hot.reshape(4, *mask.shape)
print("pixels of each label:", np.bincount(mask.ravel(), minlength=4))
print("permuted:", tuple(permuted.shape), permuted.sum((1, 2)).tolist())
print("reshaped:", tuple(reshaped.shape), reshaped.sum((1, 2)).tolist())
for c in range(4):
    assert np.array_equal(permuted[c].numpy(), mask == c)

# %%
figure, axes = plots.panels(2, 2, size=2.5)
for row, (c, name) in enumerate({1: "RV", 2: "Myo"}.items()):
    plots.show(axes[2 * row], permuted[c], f"permuted: {name}")
    plots.show(axes[2 * row + 1], reshaped[c, -24:, 36:60], f"reshaped: {name}?")

# %% [markdown]
# *Two of the four channels. Left, each is the mask of one class: the right ventricle (RV) and the left ventricle's
# muscle (Myo). Right, a piece of each "channel", enlarged. Such a "channel" is a quarter of the slice: every row is
# broken into four lines, in which the four numbers of a pixel, one 1 and three 0s, stand side by side. That makes
# stripes, and a stripe jumps where the label changes.*
#
# **Reshape and permute don't do the same thing, even when their results have the same shape.** The printed counts prove
# it: after reshape all four "classes" have the same number of pixels. A network would train on this nonsense without an
# error.
#
# Reshape is right when you split or merge *neighbouring* axes and keep their order. The two slices of one patient
# follow each other, so 100 slices are 50 pairs. (A length of -1 means: as many as are needed, here 50.)

# %%
pairs = images.reshape(-1, 2, *images.shape[1:])
print(pairs.shape, "patient, moment, row, column")
assert np.array_equal(pairs[:, 0], images[::2])  # all first moments
assert np.array_equal(pairs[:, 1], images[1::2])

# %% [markdown]
# ## Views and copies
#
# NumPy avoids copying. A **view** is an array that looks at the memory of another one; a **copy** has memory of its
# own. We paint a corner white:

# %%
scratch = images[0].copy()
corner = scratch[:20, :20]
corner[:] = 255
print("scratch:                 ", scratch[0, :3])
print("the training slice itself:", images[0, 0, :3])

# %% [markdown]
# `scratch` has a white corner, because `corner` is a view of it. The training slice kept its pixels, because
# `scratch` was a copy.
#
# **Predict, then run**: which of these eight results are views of `scratch`, and which are copies?

# %%
results = {
    "scratch[:20, :20]": scratch[:20, :20],
    "scratch[None]": scratch[None],
    "scratch.T": scratch.T,
    "scratch.reshape(-1)": scratch.reshape(-1),
    "torch.from_numpy(scratch)": torch.from_numpy(scratch).numpy(),
    "scratch[scratch > 100]": scratch[scratch > 100],
    "scratch.astype(float)": scratch.astype(float),
    "scratch + 0": scratch + 0,
}
for name, result in results.items():
    kind = "view" if np.shares_memory(result, scratch) else "copy"
    print(f"{name:>26} {kind}")

# %% [markdown]
# The first five only *describe* the same memory differently (`.T` exchanges rows and columns); the last three had to
# write new numbers. Views are cheap: they move nothing. They're also how an innocent `corner[:] = 255` or `x += 1` can
# damage your training data. If you change an array in place and still need the old one, write `.copy()` or `.clone()`
# first.

# %% [markdown]
# ## Recap
#
# - You can describe an array by its dtype, shape and axes, and you convert bytes *before* you subtract them.
# - You can predict broadcasting (line up from the right, 1 stretches) and say why equal lengths are dangerous.
# - You can bring slices into the shape that networks want, (N, 1, H, W), choose between permute and reshape, and copy
#   before you change something in place.
#
# ## Exercises
#
# ```{exercise} How far apart?
# :label: arrays-apart
# Write a function that takes two `uint8` images of the same shape and returns a new array of that shape with $|a - b|$
# at each pixel, in any dtype that can hold it. The check gives it images of one row and four pixels.
# ```

# %% tags=["hide-input"]
# The checks of this page: each says what is wrong with a function, not only that something is.
A, B = np.array([[10, 20, 0, 200]], np.uint8), np.array([[20, 10, 255, 10]], np.uint8)
SIGNED = A.astype(int) - B
APART = {  # what is wrong with an answer -> that answer
    "10 - 20 became 246: convert before you subtract": A - B,
    "20 - 10 became 10, but 10 - 20 became 246: convert before you subtract": B - A,
    "both differences wrap, and you take the larger one": np.maximum(A - B, B - A),
    "large differences wrap, 255 became 1: a byte is too small": np.minimum(
        A - B, B - A
    ),
    "200 doesn't fit into int8, which ends at 127": [[10, 10, 255, 66]],
    "the sign is still there": SIGNED,
    "the sign is still there, and turned round": -SIGNED,
    "where b is larger you say 0: the distance is b - a there": SIGNED.clip(0),
    "where a is larger you say 0: the distance is a - b there": (-SIGNED).clip(0),
    "that is the square of the difference": SIGNED**2,
}
X = np.arange(24).reshape(4, 6)
BOXES, CORNERS = X.reshape(2, 2, 2, 3), [X[:2, :3], X[:2, 3:], X[2:, :3], X[2:, 3:]]
QUARTERS = {
    "reshape alone keeps the reading order and tears the rows": X.reshape(4, 2, 3),
    "you go down first; top right comes second": [CORNERS[i] for i in (0, 2, 1, 3)],
    "you go round; bottom left comes third": [CORNERS[i] for i in (0, 1, 3, 2)],
    "each quarter is transposed: rows became columns": [x.T for x in CORNERS],
    "you take every other pixel; a quarter is a connected corner": [
        X[i::2, j::2] for i in (0, 1) for j in (0, 1)
    ],
    "the quarter has to be the first axis": np.stack(CORNERS, -1),
    "merge the first two axes: (4, H/2, W/2)": BOXES.transpose(0, 2, 1, 3),
    "the middle axes have to change places first": BOXES,
}


def attempt(mine, inputs):
    """What a function returns, as an array, or words for why it returns none."""
    try:
        answer = mine(*inputs)
        if isinstance(answer, (list, tuple)):
            return "that is a list, not one array: np.stack or np.array makes one of it"
        return "it returns nothing yet" if answer is None else np.asarray(answer)
    except Exception as problem:
        return f"it stops with {type(problem).__name__}: {problem}"


def judge(answer, right, slips):
    """Whether an answer is right, and if not, why."""
    if isinstance(answer, str):
        return answer
    known = {"right": right} | slips
    words = [why for why, other in known.items() if np.array_equal(answer, other)]
    yours = f"yours has shape {answer.shape} and begins {answer.ravel()[:6]}"
    return words[0] if words else f"not yet: expected shape {np.shape(right)}; {yours}"


def check_apart(mine):
    """What is wrong with a function that should compute |a - b|."""
    a, b = A.copy(), B.copy()
    words = judge(attempt(mine, (a, b)), abs(SIGNED), APART)
    if words == "right" and ((a != A) | (b != B)).any():
        return "the distances are right, but an image that it was given has changed"
    return words


def check_quarters(mine):
    """What is wrong with a function that should cut a slice into its four quarters."""
    words = judge(attempt(mine, (X.copy(),)), CORNERS, QUARTERS)
    tall = X.reshape(6, 4).copy()
    corners = [tall[:3, :2], tall[:3, 2:], tall[3:, :2], tall[3:, 2:]]
    if words == "right" and judge(attempt(mine, (tall,)), corners, {}) != "right":
        return "right for 4 rows and 6 columns, wrong for 6 and 4: use image.shape"
    return words

# %%
def my_apart(a, b):
    """|a - b| at each pixel of two uint8 images."""
    return None  # your lines here


print("my_apart:", check_apart(my_apart))

# %% [markdown]
# ```{solution-start} arrays-apart
# :class: dropdown
# ```

# %%
def my_apart(a, b):
    """|a - b| at each pixel of two uint8 images."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16))


print("my_apart:", check_apart(my_apart))

# %% [markdown]
# Any signed type of more than 8 bits will do. `np.where(a > b, a - b, b - a)` is right as well: it takes the one of
# the two differences that didn't wrap. `np.abs(a - b)` isn't: no byte is negative, so `abs` has nothing to do.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Four quarters
# :label: arrays-quarters
# Write a function that cuts a slice of shape (H, W), both even, into its four quarters and returns them as one array
# of shape (4, H/2, W/2): top left, top right, bottom left, bottom right. Why isn't a reshape enough? (The check uses
# a slice of 4 rows and 6 columns, then one of 6 rows and 4 columns.)
# ```

# %%
def my_quarters(image):
    """(H, W) -> (4, H/2, W/2): top left, top right, then bottom ones."""
    return None  # your lines here


print("my_quarters:", check_quarters(my_quarters))

# %% [markdown]
# ```{solution-start} arrays-quarters
# :class: dropdown
# ```

# %%
def my_quarters(image):
    """(H, W) -> (4, H/2, W/2): top left, top right, then bottom ones."""
    h, w = image.shape[0] // 2, image.shape[1] // 2
    boxes = image.reshape(2, h, 2, w)  # half, row in it, half, column in it
    return boxes.transpose(0, 2, 1, 3).reshape(4, h, w)


print("my_quarters:", check_quarters(my_quarters))

# %%
figure, axes = plots.panels(4, size=1.85)
for ax, quarter in zip(axes, my_quarters(images[0])):
    plots.show(ax, quarter)

# %% [markdown]
# *The four quarters of the first slice.*
#
# The first reshape only splits neighbouring axes, so it is safe. Then the two "half" axes have to come together at the
# front, and only a permutation can do that. Slicing four times and `np.stack` gives the same.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A brighter data set
# :label: arrays-brighter
# The function below should return a new slice that is 40 grey levels brighter, in which nothing exceeds 255, and
# leave the given slice as it was. It is called twice on the same four pixels. Two things are wrong with it: find and
# mend both.
# ```
#
# **Predict, then run**: which four numbers does it print after the first call, and which after the second?

# %%
def brighter(image):
    """The slice, 40 grey levels brighter."""
    image += 40
    return image


pixels = np.array([[0, 100, 200, 230]], np.uint8)
print("once: ", brighter(pixels))
print("twice:", brighter(pixels))

# %% [markdown]
# ```{solution-start} arrays-brighter
# :class: dropdown
# ```

# %%
def brighter(image):
    """The slice, 40 grey levels brighter; white stays white."""
    return np.clip(image.astype(np.int16) + 40, 0, 255).astype(np.uint8)


pixels = np.array([[0, 100, 200, 230]], np.uint8)
print("once: ", brighter(pixels))
print("twice:", brighter(pixels))
assert np.array_equal(pixels, [[0, 100, 200, 230]])

# %% [markdown]
# `+=` writes into the caller's array, so the second call began where the first had ended. And bytes wrap: 230 + 40
# became 14, so the brightest pixel turned nearly black. A wider dtype, `np.clip` and a new array mend both.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [Pixels and a first Dice](pixels_and_a_first_dice) reads slices from files and scores a first mask.
# **Read**: Harris et al., *Array programming with NumPy* {cite}`harris2020`, for its first figure, which draws views,
# broadcasting and reductions on one page.
