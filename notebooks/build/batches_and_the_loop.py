# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Batches and the loop
#
# You have a network, a loss and an optimiser: how do you put them together with a folder of slices, so that the network
# learns to find hearts?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** read a folder with a `Dataset` and a `DataLoader`, write a training loop and say what breaks
# without each of its lines, recognise overfitting, and save, load and repeat a training run.
# **You need** [The U-Net](the_unet), [The loss](the_loss) and [Optimisers and batch norm](optimisers_and_batch_norm).
# **Time** 40 minutes.
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

from cmrseg import augment, plots
from cmrseg.data import CLASSES
from cmrseg.datasets import source, split
from cmrseg.train import schedule

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
SOME = slice(12 if SMOKE else None)
slices = [part[SOME] for part in split(source(), "val")]

# %% tags=["hide-input", "pieces"]
# Built on earlier pages: read_png, block, UNet, soft_dice, ce_dice, dice
def read_png(path):
    """One 8-bit grey PNG as uint8 (H, W)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise SystemExit(f"{path}: not an 8-bit grey PNG")
    return pixels


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


def soft_dice(logits, labels):
    """One minus the mean soft Dice of RV, Myo and LV over the batch."""
    p = logits.softmax(1)[:, 1:]
    truth = F.one_hot(labels, len(CLASSES)).permute(0, 3, 1, 2).float()[:, 1:]
    overlap = (p * truth).sum((0, 2, 3))
    size = p.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def ce_dice(logits, labels):
    """Cross-entropy plus soft Dice."""
    return F.cross_entropy(logits, labels) + soft_dice(logits, labels)


def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores

# %% [markdown]
# ## A folder as a `Dataset`
#
# The students of the report got a folder of PNG files, so that's where we start too. This cell writes the book's slices
# as files, with OpenCV.

# %%
import tempfile
from pathlib import Path

import cv2

folder = Path(tempfile.mkdtemp())
for role, part in zip(("train", "val"), slices):
    for kind in ("image", "mask"):
        (folder / role / kind).mkdir(parents=True)
    for name, image, mask in zip(part.names, part.images, part.masks):
        cv2.imwrite(str(folder / role / "image" / f"{name}.png"), image)
        cv2.imwrite(str(folder / role / "mask" / f"{name}_mask.png"), mask)
    print(role, len(part), "slices of", len(set(part.patients)), "patients")
assert not set(slices[0].patients) & set(slices[1].patients)

# %% [markdown]
# There are two folders because they have two uses. The **training set** moves the weights. The **validation set**
# (`val`) is only predicted and scored: it says how the network does on hearts it doesn't learn from. No patient is in
# both.
#
# A **dataset** answers two questions: how many samples are there, and what is sample `n`? In PyTorch it's a class with
# two methods. Python calls `__len__` when you write `len(learn)`, and `__getitem__` when you write `learn[3]`. Here a
# sample takes three steps: read the two files, give the image mean 0 and standard deviation 1, and make tensors of
# both.

# %% tags=["piece"]
from torch.utils.data import DataLoader, Dataset, Sampler


class Hearts(Dataset):
    """Slices of a folder: image float32 (1, H, W), labels int64 (H, W)."""

    def __init__(self, folder):
        paths = (Path(folder) / "image").glob("cmr*.png")
        self.paths = sorted(paths, key=lambda p: int(p.stem[3:]))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, n):
        path = self.paths[n]
        mask = path.parents[1] / "mask" / f"{path.stem}_mask.png"
        image = torch.from_numpy(read_png(path)).float()[None]
        image = (image - image.mean()) / (image.std() + 1e-6)
        return image, torch.from_numpy(read_png(mask)).long()

# %%
learn, held_out = Hearts(folder / "train"), Hearts(folder / "val")
x, y = learn[0]
print("sample 0:", tuple(x.shape), x.dtype, "and", tuple(y.shape), y.dtype)

theirs = augment.normalise(slices[0].images)  # cmrseg, from memory
assert all(torch.allclose(learn[n][0], theirs[n], atol=1e-5) for n in range(len(learn)))

# %% [markdown]
# The names are sorted by their *number*: as text, cmr10 comes before cmr9. And the mask's name is made from the
# image's, so the two can't be mixed up. **The report did it like this** {cite}`report2020`: the `Dataset` class that
# the students got from their course pairs the names in the same way, but doesn't sort, and hands out grey levels from 0
# to 255. For training the order doesn't matter. On the [next page](predict_and_submit) it does.
#
# ## A batch
#
# The gradient of all slices together is exact, but it gives only one step of the optimiser for a whole pass over the
# data. The gradient of a single slice is cheap, but it says only what *this* heart wants. A **mini-batch** (or just
# batch) is the compromise: a few slices, here four, that share a step. One pass over all slices is an **epoch**. Here
# is a batch by hand, and one from a `DataLoader`:

# %%
images = torch.stack([learn[n][0] for n in range(4)])
labels = torch.stack([learn[n][1] for n in range(4)])
print("by hand:", tuple(images.shape), tuple(labels.shape))

loader = DataLoader(learn, batch_size=4)
x, y = next(iter(loader))
assert torch.equal(x, images) and torch.equal(y, labels)
print("the loader's first batch is the same, and an epoch has", len(loader), "of them")

# %% [markdown]
# Is a loader more than `torch.stack`? It brings four things:
#
# | what | how | when you need it |
# |---|---|---|
# | batching | `batch_size=4`; `drop_last=True` leaves out a last, smaller batch | always |
# | shuffling | `shuffle=True`, or a sampler of your own | in training: otherwise the same slices are always in a batch together |
# | data that don't fit into memory | a slice is read when its turn comes, so memory holds a batch | videos and 3D volumes |
# | workers | `num_workers=2`: two more processes read ahead while the network computes | when reading is slow |
#
# A worker isn't free: it has to be started in every epoch, and each batch has to travel from its memory to ours. For
# files as small as ours we do without.
#
# What does a loader cost? Our slices fit into memory as two tensors, from which a batch is picked by indexing.

# %%
import time

images, labels = next(iter(DataLoader(learn, len(learn))))  # all of them


def from_memory():
    """Batches of four in random order."""
    for chosen in torch.randperm(len(images)).split(4):
        yield images[chosen], labels[chosen]


def seconds(batches):
    """Time to go through all batches once, doing nothing: best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for x, y in batches():
            pass
        times.append(time.perf_counter() - start)
    return min(times)

# %% [markdown]
# **Predict, then run**: batches of four for an epoch, with which nothing is done. How many times slower than tensors in
# memory is the loader, which reads PNG files? And do two workers make it faster?

# %%
ways = {"tensors in memory": from_memory}
ways["loader"] = lambda: DataLoader(learn, 4, shuffle=True)
fork = {"num_workers": 2, "multiprocessing_context": "fork"}
if sys.platform == "linux" and not SMOKE:
    ways["loader, 2 workers"] = lambda: DataLoader(learn, 4, shuffle=True, **fork)
for name, batches in ways.items():
    print(f"{name:>17}: {1000 * seconds(batches):5.0f} ms for an epoch")
size = (images.nbytes + labels.nbytes) / 1e6
print(f"{size:.0f} MB of tensors hold all {len(learn)} slices")

# %% [markdown]
# Indexing wins by far: in memory each file was read and normalised once, the loader does it again in
# every epoch. We use the loader all the same, since your next data set may not fit into memory. And wait until you see
# what the network takes.
#
# Two workers have to be started anew for every epoch, and for so few small files that costs more than they save. (They
# run on Linux only, Colab included: there a worker begins as a copy of this process, a *fork*, which has `Hearts`
# already. On macOS and Windows it begins as a fresh Python, which can't find a class that a notebook defines; there
# `Hearts` has to stand in a file that can be imported.)
#
# ## Who chooses the order
#
# With `shuffle=True` the order comes from PyTorch's global generator of random numbers. Anything in the program may
# draw from it, and one number drawn in between changes the order. To be able to repeat a run, we want a generator of
# our own for all that happens inside the loop. A **sampler** yields the positions of one epoch, one after the other.
# (`DataLoader` also takes `generator=rng`. A sampler of a few lines shows what happens, and ours draws nothing else
# from the generator.)

# %% tags=["piece"]
class Shuffled(Sampler):
    """Each epoch a new order, drawn from a generator that is passed in."""

    def __init__(self, n, rng):
        self.n, self.rng = n, rng

    def __len__(self):
        return self.n

    def __iter__(self):
        yield from torch.randperm(self.n, generator=self.rng).tolist()

# %%
sampler = Shuffled(8, torch.Generator().manual_seed(0))
first, second = list(sampler), list(sampler)
print("first epoch ", *first)
print("second epoch", *second)
again = torch.Generator().manual_seed(0)
assert first == torch.randperm(8, generator=again).tolist()
assert second == torch.randperm(8, generator=again).tolist()

# %% [markdown]
# ## Augmentation: a new heart in every epoch
#
# A network that sees the same few slices again and again can learn them by heart. **Augmentation** shows each of them
# every time in another variation: rotated, zoomed and shifted (an *affine* map), with changed contrast and brightness,
# and with noise (*intensity*). The labels must move with the heart.
#
# PyTorch does this in two steps. `affine_grid` says for every pixel of the *output* where to look in the input, and
# `grid_sample` looks there. To both of them a picture reaches from -1 at its left edge to 1 at its right, however many
# pixels it has. The place $(x, y)$ of the output looks at
#
# $$x' = a x + b y + c, \qquad y' = d x + e y + f$$
#
# of the input, with the six numbers in a 2x3 matrix. If the place lies between pixels, the image is *interpolated*:
# halfway between two pixels of grey levels 10 and 20 it gets 15.
#
# Now a row of four *labels*, two pixels of background (0) and two of the left ventricle (3). Four pixels are 2 wide, so
# half a pixel is 0.25. With $c = 0.25$ each place looks half a pixel to its right.
#
# **Predict, then run**: what does linear interpolation put between background and ventricle, and which class is that?

# %%
row = torch.tensor([[[[0.0, 0.0, 3.0, 3.0]]]])
half_a_pixel = torch.tensor([[[1, 0, 0.25], [0, 1, 0]]])  # (1, 2, 3)
grid = F.affine_grid(half_a_pixel, [1, 1, 1, 4], align_corners=False)
for way in ("bilinear", "nearest"):
    shifted = F.grid_sample(row, grid, way, "border", align_corners=False)
    print(f"{way:>8}:", *shifted.flatten().tolist())

# %% [markdown]
# It is 1.5. Rounded, that's the right ventricle or muscle, where there is neither. Labels are names, and names have no
# mean. So images are interpolated linearly, and labels take the nearest pixel.
#
# `affine` does both with one grid for each slice. It *divides* by the zoom, since to make a heart larger it has to look
# at places closer to the middle; and a shift by a tenth of the picture is `2 * shift`, since a picture is 2 wide.
# Outside the picture `"border"` repeats its rim, and `"zeros"` says 0, which for labels is background.
# `align_corners=False` means that -1 and 1 are the outer edges of the picture, not the middles of its first and last
# pixels.

# %% tags=["piece"]
import math


def uniform(n, low, high, rng):
    """n random numbers between low and high, each as likely as any other."""
    return low + (high - low) * torch.rand(n, generator=rng)


def affine(x, y, rng, degrees=30, zoom=1.25, shift=0.1):
    """Rotate, zoom and shift each slice of a batch, image and labels alike."""
    n = len(x)
    angle = uniform(n, -math.radians(degrees), math.radians(degrees), rng)
    size = torch.exp(uniform(n, -math.log(zoom), math.log(zoom), rng))
    right, down = (uniform(n, -2 * shift, 2 * shift, rng) for _ in range(2))
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    matrix = torch.stack([cos, -sin, right, sin, cos, down], 1).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, "bilinear", "border", align_corners=False)
    y = F.grid_sample(
        y[:, None].float(), grid, "nearest", "zeros", align_corners=False
    )
    return x, y[:, 0].long()

# %% tags=["piece"]
def intensity(x, y, rng, amount=0.5, noise=0.2):
    """Change contrast and brightness of each slice and add noise; labels stay."""
    n = len(x)
    spread = x.std((1, 2, 3), keepdim=True)
    gain = uniform(n, 1 - amount, 1 + amount, rng).view(n, 1, 1, 1)
    offset = uniform(n, -amount, amount, rng).view(n, 1, 1, 1)
    level = uniform(n, 0, noise, rng).view(n, 1, 1, 1)
    grain = level * torch.randn(x.shape, generator=rng)
    return x * gain + (offset + grain) * spread, y

# %%
x, y = images[:1].repeat(7, 1, 1, 1), labels[:1].repeat(7, 1, 1)  # 7 copies
rng, theirs = (torch.Generator().manual_seed(1) for _ in range(2))
varied, moved = intensity(*affine(x, y, rng), rng)
names = ("affine", "strong-intensity")
for ours, cmrsegs in zip((varied, moved), augment.augment(x, y, names, theirs)):
    assert torch.equal(ours, cmrsegs)

figure, axes = plots.panels(4, 2, size=2.375)
pictures, outlines = [x[0], *varied], [y[0], *moved]
for ax, picture, outline in zip(axes, pictures, outlines):
    plots.contours(plots.show(ax, picture[0]), outline.numpy(), width=1.1)
    ax.images[0].set_clim(x.min(), x.max())  # one grey scale for all
axes[0].set_title("as stored");

# %% [markdown]
# *One slice and seven variations, on one grey scale. Position, size, contrast, brightness and noise change, and the
# outlines move with the heart. If the lines ever leave the heart in such a picture, stop: the network would learn the
# mistake.*
#
# ## The learning-rate schedule
#
# No single learning rate fits a whole run. At the beginning a large step may throw the network off; in the middle large
# steps save time; at the end only small ones still improve anything. The **one-cycle schedule** {cite}`smith2019`, in
# the form used here, warms up over three tenths of the run and then falls along half a cosine.

# %% tags=["piece"]
def one_cycle(done):
    """The learning rate as a fraction of its peak, after this fraction of the run."""
    if done < 0.3:
        return 0.04 + 0.96 * done / 0.3
    return 0.5 + 0.5 * math.cos(math.pi * (done - 0.3) / 0.7)

# %%
done = np.linspace(0, 1, 300)
rates = [one_cycle(d) for d in done]
assert rates == [schedule("one-cycle", d) for d in done]
figure, ax = plt.subplots(figsize=(5, 2.2))
ax.plot(done, rates, label="one-cycle")
ax.axhline(1, color=plots.GREY, linestyle=":", label="constant")
ax.set(xlabel="fraction of the run", ylabel="rate / peak", ylim=(0, 1.1))
ax.legend();

# %% [markdown]
# *The last steps are so small that the weights settle.*
#
# ## The loop
#
# Now everything is there, and the loop only puts it into order:
#
# ```{raw} html
# <svg viewBox="0 0 440 252" role="img" aria-labelledby="loop-title" style="display:block;width:36rem;max-width:100%;height:auto;margin:1rem 0" font-family="system-ui, sans-serif" font-size="15" text-anchor="middle" fill="currentColor">
# <title id="loop-title">Sampler, dataset and loader make a batch. It is augmented, the model answers, the loss compares, gradients are zeroed and computed, the optimiser steps and changes the model; then comes the next batch.</title>
# <defs><marker id="loop-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="var(--pst-color-text-base, currentColor)"/></marker></defs>
# <g stroke="var(--pst-color-border, #8888)" stroke-width="1.5" fill-opacity="0.3">
# <rect id="loop-sampler" x="6" y="8" width="112" height="52" rx="8" fill="#648FFF"/>
# <rect id="loop-dataset" x="158" y="8" width="112" height="52" rx="8" fill="#648FFF"/>
# <rect id="loop-loader" x="310" y="8" width="112" height="52" rx="8" fill="#648FFF"/>
# <rect id="loop-augment" x="310" y="98" width="112" height="52" rx="8" fill="#648FFF"/>
# <rect id="loop-model" x="158" y="98" width="112" height="52" rx="8" fill="#785EF0"/>
# <rect id="loop-loss" x="6" y="98" width="112" height="52" rx="8" fill="#FFB000"/>
# <rect id="loop-backward" x="6" y="188" width="112" height="52" rx="8" fill="#FFB000"/>
# <rect id="loop-step" x="158" y="188" width="112" height="52" rx="8" fill="#FFB000"/>
# </g>
# <g font-weight="600"><text x="62" y="30">sampler</text><text x="214" y="30">dataset</text><text x="366" y="30">loader</text><text x="366" y="120">augment</text><text x="214" y="120">model</text><text x="62" y="120">loss</text><text x="62" y="210">zero, then</text><text x="214" y="210">step</text></g>
# <g font-size="13"><text x="62" y="49">which slices?</text><text x="214" y="49">slice n</text><text x="366" y="49">a batch</text><text x="366" y="139">a new variation</text><text x="214" y="139">logits</text><text x="62" y="139">how wrong?</text><text x="214" y="229">new weights</text><text x="366" y="208">the next batch</text></g>
# <text x="62" y="229" font-weight="600">backward</text>
# <g fill="none" stroke="var(--pst-color-text-base, currentColor)" stroke-width="1.6" marker-end="url(#loop-tip)">
# <path d="M118 34h38"/><path d="M270 34h38"/><path d="M366 60v36"/><path d="M310 124h-38"/><path d="M158 124h-38"/><path d="M62 150v36"/><path d="M118 214h38"/><path d="M214 188v-36"/><path d="M270 214h162V34h-8"/>
# </g>
# </svg>
# ```
#
# *Blue makes a batch, violet answers, gold learns. The arrow that goes up from "step" is the only one that changes the
# weights.*
#
# In code, in its smallest form: `begin` makes what a run needs, all of it from a seed, and `one_epoch` shows every
# slice once.

# %%
def begin(data, seed, channels=(8, 16, 32, 64)):
    """A fresh network, its optimiser, a loader, and the generator of the run."""
    torch.manual_seed(seed)
    model, rng = UNet(channels), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.01)
    return model, optimiser, DataLoader(data, 4, sampler=Shuffled(len(data), rng)), rng

# %%
def one_epoch(model, optimiser, loader, rng=None):
    """Show every slice once, augmented where a generator is given."""
    model.train()
    for x, y in loader:
        if rng:
            x, y = intensity(*affine(x, y, rng), rng)
        loss = ce_dice(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()

# %%
model, optimiser, loader, rng = begin(learn, seed=0)
start = time.perf_counter()
last = one_epoch(model, optimiser, loader, rng)
took = time.perf_counter() - start
print(f"loss of the last batch {last:.2f}; the epoch took {took:.1f} s,")
print(f"of which reading the files is about {seconds(lambda: loader) / took:.0%}")

# %% [markdown]
# So the loader is much slower than memory, and it hardly matters, because the network takes most of the time. Measure
# before you make anything faster.
#
# What does each line of the loop do, and what happens without it?
#
# | line | what it does | without it |
# |---|---|---|
# | `model.train()` | batch norm normalises with the batch, and updates its running statistics | after a prediction the network stays in evaluation mode, and the statistics stay as they are |
# | `if rng: ...` | a new variation of each slice | the slices are learned by heart, see below |
# | `ce_dice(model(x), y)` | how wrong is the answer? | nothing to learn from |
# | `zero_grad()` | forgets the gradients of the last step | gradients add up, and each step goes along the sum of all batches so far ([One weight](one_weight)) |
# | `backward()` | computes the gradients, and moves nothing | no gradients: the step does nothing |
# | `step()` | moves the weights | the weights stay as they are, the loss doesn't fall |
# | `.item()` | a plain number | a tensor that holds on to the computation it came from |
#
# ## Prediction
#
# To see how the network does, ask it for masks. `predict` needs both switches of [Optimisers and batch
# norm](optimisers_and_batch_norm): `eval()` for the right numbers, `no_grad()` to save memory and time. With
# `no_grad()` alone, a slice's mask would depend on the other slices in its batch.

# %% tags=["piece"]
@torch.no_grad()
def predict(model, data, batch=20):
    """Label maps uint8 (N, H, W) of all slices of a data set."""
    model.eval()
    masks = [model(x).argmax(1) for x, _ in DataLoader(data, batch)]
    return torch.cat(masks).numpy().astype(np.uint8)

# %%
masks = predict(model, held_out)
print("held-out masks:", masks.shape, masks.dtype, "with the values", *np.unique(masks))

# %% [markdown]
# ## One slice's mask, epoch by epoch
#
# Here is the loop in full, as the rest of this part uses it: `begin`, `one_epoch` and four things more.

# %% tags=["piece"]
def train(data, channels, epochs, lr=0.003, batch=4, seed=0, after_epoch=None):
    """A U-Net trained on a data set; after_epoch(model, epoch, loss) is called."""
    torch.set_flush_denormal(True)  # tiny numbers would cost ten times the time
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = UNet(channels).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    loader = DataLoader(data, batch, sampler=Shuffled(len(data), rng))
    for epoch in range(epochs):
        model.train()
        losses = []
        for step, (x, y) in enumerate(loader):
            for group in optimiser.param_groups:
                group["lr"] = lr * one_cycle((epoch + step / len(loader)) / epochs)
            x, y = intensity(*affine(x, y, rng), rng)
            x = x.contiguous(memory_format=torch.channels_last)
            loss = ce_dice(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        if after_epoch:
            after_epoch(model, epoch + 1, np.mean(losses))
    return model

# %% [markdown]
# What is new? The learning rate is set before every step. (An optimiser keeps its weights in groups, each with its own
# `"lr"`; ours has one group.) `channels_last` is an order in memory in which all channels of a pixel lie side by side,
# and `set_flush_denormal` makes zeros of numbers so tiny that processors are slow with them: both are for speed and
# change no shape. And after each epoch a function of yours is called. Ours predicts the validation slices, keeps the
# first mask, and notes the loss and the Dice.

# %%
CHANNELS, EPOCHS = (8, 16, 32, 64, 128), 2 if SMOKE else 10
truth = np.stack([mask.numpy() for _, mask in held_out])
torch.manual_seed(0)  # as train does, so that this is the network it begins with
strip, curve = [predict(UNet(CHANNELS), held_out)[0]], []


def watch(model, epoch, loss):
    """Keep the first mask, the loss, and the Dice of RV, Myo and LV."""
    masks = predict(model, held_out)
    strip.append(masks[0])
    scores = [dice(mask, true) for mask, true in zip(masks, truth)]
    curve.append((loss, *np.nanmean(scores, 0)))

# %%
model = train(learn, CHANNELS, EPOCHS, after_epoch=watch)

shown = [epoch for epoch in (0, 1, 2, 3, 4, 6, 8, 10) if epoch <= EPOCHS]
figure, axes = plots.panels(4, 2, size=2.375)
for ax, epoch in zip(axes, shown):
    title = f"after epoch {epoch}" if epoch else "untrained"
    plots.overlay(ax, slices[1].images[0], strip[epoch], title)
    for c in (1, 2, 3):
        ax.contour(truth[0] == c, [0.5], colors="white", linewidths=1)
plots.class_legend(figure)

# %% [markdown]
# *One slice that the network never learns from, again and again. Colour is what the network says, white lines are the
# reference. It begins with large areas of one class, then goes by brightness, then by place, and spends the rest of its
# time on the outlines.*

# %%
losses, *scores = zip(*curve)
epochs = range(1, EPOCHS + 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 2.9))
left.plot(epochs, losses, "o-", color=plots.ACCENT, markersize=4)
left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
for (name, colour), values in zip(plots.CLASS_COLOURS.items(), scores):
    right.plot(epochs, values, "o-", color=colour, markersize=4, label=name)
right.set(xlabel="epoch", ylabel="validation Dice", ylim=(-0.03, 1))
right.legend(loc="lower right")
frequency = np.stack([(slices[0].masks == c).mean(0) for c in range(4)])
never_looks = [dice(frequency.argmax(0), true) for true in truth]
print(f"a mask that never looks: mean Dice {np.nanmean(np.nanmean(never_looks, 0)):.3f}")
print(f"after the last epoch:    mean Dice {np.mean(curve[-1][1:]):.3f}")

# %% [markdown]
# *The same run in numbers. The loss is that of augmented training slices, the Dice that of validation slices as they
# are, so the two need not move in step.*
#
# The first line printed is *the number to beat* of [Pixels and a first Dice](pixels_and_a_first_dice). There is no long
# zero-Dice phase as on [The loss](the_loss): this network has the textbook decoder, and soft Dice in its loss.
#
# The number to report is the one after the *last* epoch. If you pick the best-looking epoch by its validation score and
# report that very score, it's too high on average: [Train it again](../statistics/again) measures by how much.
#
# **The report did it like this.** Its loop has the same lines: batches of two from a shuffled loader, Adam at a
# constant rate, 140 epochs. Every ten epochs it switches to `eval`, scores the validation slices, and switches back. It
# counts its epochs from 0, and so:

# %%
scored = [epoch + 1 for epoch in range(140) if epoch % 10 == 0]
print("scored after epoch", *scored[:3], "...", scored[-1], "and not after the last")
print("counted from 1:   ", *[epoch for epoch in range(1, 141) if epoch % 10 == 0][-3:])

# %% [markdown]
# The last score is that after epoch 131, but the network that is saved is that after epoch 140. Today's usual practice
# adds AdamW {cite}`loshchilov2019`, a schedule and augmentation. Whether each of them pays is asked in part IV, *The report on trial*.
#
# ## Overfitting
#
# **Overfitting** means that a network does much better on the slices it learned from than on others: part of what it
# learned holds for these slices only. You see it when you score both. To see it soon, we train on only eight slices, of
# four patients: once as they are, once augmented. Like the report we score every ten epochs, but both sets. (Here the
# rate is set once an epoch, which is simpler.)

# %%
def score(model, data):
    """Mean Dice over classes of the slices of a data set, as they are."""
    pairs = zip(predict(model, data), (mask.numpy() for _, mask in data))
    return np.nanmean(np.nanmean([dice(p, t) for p, t in pairs], 0))

# %%
few, long = torch.utils.data.Subset(learn, range(8)), 10 if SMOKE else 60
gap = {}
for way in ("as they are", "augmented"):
    model_of_few, optimiser, loader, rng = begin(few, seed=0)
    for epoch in range(1, long + 1):
        optimiser.param_groups[0]["lr"] = 0.003 * one_cycle(epoch / (long + 1))
        one_epoch(model_of_few, optimiser, loader, rng if way == "augmented" else None)
        if epoch % 10 == 0:
            gap[way, epoch] = score(model_of_few, few), score(model_of_few, held_out)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.9), sharey=True)
for ax, way in zip(axes, ("as they are", "augmented")):
    epochs = [epoch for name, epoch in gap if name == way]
    for k, name in enumerate(("training", "validation")):
        ax.plot(epochs, [gap[way, e][k] for e in epochs], "o-", label=name)
        print(f"{way:>11}, {name:>10}: Dice {gap[way, long][k]:.2f}")
    ax.set(title=f"eight slices, {way}", xlabel="epoch", ylim=(0, 1))
    ax.legend(loc="lower right")
axes[0].set_ylabel("mean Dice");

# %% [markdown]
# *The same network on the same eight slices. The gap between the lines is how much better it does on slices it has
# seen.*
#
# By the training Dice alone the left run is a success. A gap says *that* a network overfits, not which remedy helps;
# the [trial of augmentation](../experiments/augmentation) has more than one run of each.
#
# ## Saved, loaded, resumed
#
# A network is two things: code, and the tensors in its `state_dict`. Save the tensors.

# %%
torch.save(model.state_dict(), folder / "weights.pt")
weights = torch.load(folder / "weights.pt", weights_only=True)
for name, tensor in list(weights.items())[:5]:
    print(f"{name:>30} {tuple(tensor.shape)}")
copy = UNet(CHANNELS)
copy.load_state_dict(weights, strict=True)
assert (predict(copy, held_out) == predict(model, held_out)).all()

# %% [markdown]
# The running statistics of batch norm are in the file as well; `eval` needs them. `weights_only=True` reads tensors,
# numbers and plain containers, and runs no code: a file from `torch.save` can contain code, which would otherwise run
# when you load it. And `strict=True` (the default) demands that all names fit.
#
# **Predict, then run**: in the next cell the last layer has another name in the file. What happens with `strict=False`?

# %%
renamed = {name.replace("head", "output"): t for name, t in weights.items()}
for strict in (False, True):
    copy = UNet(CHANNELS)
    try:
        copy.load_state_dict(renamed, strict=strict)
        print(f"strict={strict}: loaded. Dice {score(copy, held_out):.2f}", end=" ")
        print(f"instead of {score(model, held_out):.2f}")
    except RuntimeError as error:
        print(f"strict={strict}:", *str(error).split("\n")[:2])

# %% [markdown]
# It loads what fits, leaves the rest at its random start, and raises no error. With `strict=True` you get one, and
# that's what you want.
#
# To *go on* with a training run, weights are not enough. A **checkpoint** holds everything that the next step depends
# on: the optimiser's memory and the state of the generator as well. Below, one run goes straight through two epochs.
# Another network starts from another seed, loads the checkpoint after the first epoch, and trains the second.

# %%
model, optimiser, loader, rng = begin(few, seed=0)
one_epoch(model, optimiser, loader, rng)
parts = {"model": model, "optimiser": optimiser}
checkpoint = {name: part.state_dict() for name, part in parts.items()}
torch.save(checkpoint | {"rng": rng.get_state()}, folder / "checkpoint.pt")
one_epoch(model, optimiser, loader, rng)  # straight on

resumed, optimiser, loader, rng = begin(few, seed=1)
checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
resumed.load_state_dict(checkpoint["model"])
optimiser.load_state_dict(checkpoint["optimiser"])
rng.set_state(checkpoint["rng"])
one_epoch(resumed, optimiser, loader, rng);

# %%
def apart(one, other):
    """The largest difference between the weights of two networks."""
    pairs = zip(one.state_dict().values(), other.state_dict().values())
    return max((a - b).abs().max().item() for a, b in pairs)


print("straight through and resumed differ by", apart(model, resumed))
assert apart(model, resumed) == 0

# %% [markdown]
# ## What a seed fixes, and what it doesn't
#
# Three things are random in this loop: the first weights, the order of the slices, and the augmentation. All three come
# from the **seed**.
#
# **Predict, then run**: three short runs with seeds 0, 0 and 1. Which of them agree, and to how many digits?

# %%
runs = [train(few, (4, 8, 16), epochs=2, seed=seed) for seed in (0, 0, 1)]
for name, k in (("same seed", 1), ("another seed", 2)):
    print(f"{name:>12}: weights differ by {apart(runs[0], runs[k]):g}")
print((0.1 + 0.2) + 0.3, 0.1 + (0.2 + 0.3))

# %% [markdown]
# The same seed gives the same network to the last bit. Another seed gives another network, and neither is the true one:
# a run is one draw of many, and [part III](../statistics/again) is about that. But a seed doesn't make two machines
# agree. The last line shows why: sums are rounded, so their order matters. Another number of threads, another
# processor, a GPU or another version of PyTorch may add up in another order, and over thousands of steps the difference
# grows to that of another seed.
#
# `cmrseg`'s {func}`~cmrseg.train.fit` is this loop with safeguards: it stops with a clear message when the loss is
# no longer a number, and keeps checkpoints, from which `python -m cmrseg train --resume` goes on. [The whole
# thing](whole) shows that both give the same weights.
#
# ## Recap
#
# - A `Dataset` knows sample `n`, a sampler the order, and a `DataLoader` makes batches. Where data fit into memory, tensors
#   do the same faster.
# - One round of the loop is: augment, answer, compare, zero, backward, step. You can say what each line is for, and what
#   goes wrong without it.
# - Score slices you don't learn from, in `eval` mode, and report the last epoch. A network overfits when it does much
#   better on the slices it learned from.
# - Load weights strictly. To resume you need the optimiser and the generator too. A seed repeats a run on one machine.
#
# ## Exercises
#
# ```{exercise} A large batch in small memory
# :label: loop-accumulate
# Someone says: "A second `backward()` overwrites the first." It doesn't, and that's useful: if a batch of 16 doesn't
# fit into memory, four batches of 4 may. Write `my_step(model, optimiser, loss_of, batches)`. `batches` is a list of
# pairs `(x, y)` of equal size, and `loss_of(model(x), y)` gives the mean loss of one of them. Make *one* step of the
# optimiser, with the mean gradient of all batches, and return their mean loss. Gradients of an earlier step may still
# be there when it is called, and the list can have any length.
# ```

# %% tags=["hide-input"]
import torch


def trial(step, count=3, decay=0, loss_of=torch.nn.functional.mse_loss):
    """The gradient that a step on so many batches went along, and what it returned."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data[:] = 1.0
    model.weight.grad = torch.full((1, 1), 50.0)  # left over from an earlier step
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, weight_decay=decay)
    x = torch.tensor([[[1.0], [2.0]], [[2.0], [3.0]], [[4.0], [5.0]]])[:count]
    pairs = [(batch, torch.ones(2, 1)) for batch in x]  # their gradients are 2, 8, 32
    answer = step(model, optimiser, loss_of, pairs)
    return (1 - model.weight.item()) / 0.01, answer


def in_turn(zero, count):
    """A wrong answer: one step for each batch."""

    def step(model, optimiser, loss_of, batches):
        for n, (x, y) in enumerate(batches):
            if zero == "each" or zero == "first" and n == 0:
                optimiser.zero_grad()
            (loss_of(model(x), y) / count).backward()
            optimiser.step()

    return step


SUM = "that goes along the sum of the gradients: divide by the number of batches"
OLD = "gradients of an earlier step are still in it: zero them before the first batch"
LAST = "only the last batch counts: zero the gradients once, not for every batch"
WAYS = {14: "right", 42: SUM, 92: OLD, 64: OLD, 32: LAST, 32 / 3: LAST}
WAYS |= {0: "the weight hasn't moved: where is the optimiser's step?"}
WAYS |= {50: "it goes along an earlier step's gradient: where is backward()?"}
WAYS |= {2: "only the first batch counts", 2 / 3: "only the first batch counts"}
WAYS |= {10.5: "divide by the number of batches that it gets, which isn't always 4"}
for zero in ("each", "first", "never"):
    for count in (1, 3):
        WAYS[trial(in_turn(zero, count))[0]] = "that is a step for each batch: make one"
RETURNS = {31 / 6: "right", 15.5: "the sum of the losses", 12.5: "the last loss"}
RETURNS |= {12.5 / 3: "a part of the last loss", 31 / 18: "a part of the mean loss"}


def of_two(mine):
    """What is wrong with two batches, another loss and a decay of the weights."""
    try:  # the mean gradient is 1.75, the decay adds 1
        went, answer = trial(mine, 2, 1, torch.nn.functional.l1_loss)
        value = float(torch.as_tensor(answer).detach())
    except Exception as error:
        return f"with two batches it raises {type(error).__name__}: {error}"
    if abs(went - 1.75) < 1e-3:
        return "it moves the weights itself: let optimiser.step() do that"
    if abs(went - 2.75) > 1e-3 or abs(value - 1) > 1e-3:
        return "right at first, wrong with two batches and another loss: what is fixed?"
    return "right"


def check_step(mine):
    """What is wrong with a function that should make one step with several batches."""
    try:
        went, answer = trial(mine)
        value = None if answer is None else float(torch.as_tensor(answer).detach())
    except Exception as error:
        return f"it raises {type(error).__name__}: {error}"
    if answer is None and went == 0:
        return "it returns nothing yet"
    way = [why for length, why in WAYS.items() if abs(length - went) < 1e-3]
    if way != ["right"]:
        return (*way, f"it goes along a gradient of {went:.2f}; the mean is 14")[0]
    if value is None:
        return "the step is right; now return the mean loss"
    back = [what for loss, what in RETURNS.items() if abs(loss - value) < 1e-3]
    if back == ["right"]:
        return of_two(mine)
    returned = (*back, f"{value:.3f}")[0]
    return f"the step is right, but it returns {returned}, not the mean loss"

# %%
def my_step(model, optimiser, loss_of, batches):
    """One step with the mean gradient of several batches; returns their mean loss."""
    return None  # your lines here


print("my_step:", check_step(my_step))

# %% [markdown]
# ```{solution-start} loop-accumulate
# :class: dropdown
# ```

# %%
def my_step(model, optimiser, loss_of, batches):
    """One step with the mean gradient of several batches; returns their mean loss."""
    optimiser.zero_grad()
    total = 0
    for x, y in batches:
        loss = loss_of(model(x), y) / len(batches)
        loss.backward()  # adds to what is there
        total += loss.item()
    optimiser.step()
    return total


print("my_step:", check_step(my_step))

# %% [markdown]
# Dividing each loss by the number of batches makes a mean of the sum. After every `backward()` the memory of that batch
# is free again. Two differences from a true batch of 16 remain: batch norm still sees four slices at a time, and so
# does soft Dice, which sums over its batch before it divides.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Half a checkpoint
# :label: loop-half
# Someone says: "The weights are the network, so they are enough to go on with." Resume the run above with the right
# weights, but leave out the optimiser's memory, then the generator's state. Before you run: does either give another
# network? And which of the two disturbs the training?
# ```
#
# ```{solution-start} loop-half
# :class: dropdown
# ```

# %%
for left_out in ("nothing", "rng", "optimiser"):
    resumed, optimiser, loader, rng = begin(few, seed=1)
    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    resumed.load_state_dict(checkpoint["model"])
    if left_out != "optimiser":
        optimiser.load_state_dict(checkpoint["optimiser"])
    if left_out != "rng":
        rng.set_state(checkpoint["rng"])
    one_epoch(resumed, optimiser, loader, rng)
    print(f"{left_out:>9} left out: {apart(model, resumed):.4f} from the straight run")

# %% [markdown]
# (The file is read anew each time, since the optimiser goes on with the very tensors that it was given.)
#
# Both give another network, and the larger difference is the harmless one. Without the generator's state the order and
# the augmentation differ: that leads to another network, as another seed does. Without the optimiser's memory Adam
# begins anew, and on its first step nearly every weight moves by the full learning rate, as on [Optimisers and batch
# norm](optimisers_and_batch_norm). At a rate that is still large, that is a jolt.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [Predict and submit](predict_and_submit) brings the masks out of the notebook, under their right names.
# **Read**: Karpathy's *A Recipe for Training Neural Networks* {cite}`karpathy2019`, for how to begin a training run so
# that its mistakes show.
