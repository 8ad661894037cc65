# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Predict and submit
#
# A trained network gives masks as arrays in memory: how do they get into files, and how do you know that each one
# arrived under the right name?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** turn logits into label maps, write them as PNG files with the right labels under the right
# names, score a folder, and write and read run-length codes.
# **You need** [Batches and the loop](batches_and_the_loop).
# **Time** 25 minutes; the section on the submission file is optional.
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
import csv
import math
import os
import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from cmrseg import data, datasets, metrics, plots, rle
from cmrseg.datasets import folders

plots.style()
CLASSES, SMOKE = data.CLASSES, os.environ.get("CMRSEG_BUDGET") == "smoke"

# %% tags=["hide-input", "pieces"]
# Built on earlier pages: read_png, dice, block, UNet, soft_dice, ce_dice, Hearts
# Built on earlier pages: Shuffled, uniform, affine, intensity, one_cycle, train, predict
def read_png(path):
    """One 8-bit grey PNG as uint8 (H, W)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise SystemExit(f"{path}: not an 8-bit grey PNG")
    return pixels


def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores


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


class Shuffled(Sampler):
    """Each epoch a new order, drawn from a generator that is passed in."""

    def __init__(self, n, rng):
        self.n, self.rng = n, rng

    def __len__(self):
        return self.n

    def __iter__(self):
        yield from torch.randperm(self.n, generator=self.rng).tolist()


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


def intensity(x, y, rng, amount=0.5, noise=0.2):
    """Change contrast and brightness of each slice and add noise; labels stay."""
    n = len(x)
    spread = x.std((1, 2, 3), keepdim=True)
    gain = uniform(n, 1 - amount, 1 + amount, rng).view(n, 1, 1, 1)
    offset = uniform(n, -amount, amount, rng).view(n, 1, 1, 1)
    level = uniform(n, 0, noise, rng).view(n, 1, 1, 1)
    grain = level * torch.randn(x.shape, generator=rng)
    return x * gain + (offset + grain) * spread, y


def one_cycle(done):
    """The learning rate as a fraction of its peak, after this fraction of the run."""
    if done < 0.3:
        return 0.04 + 0.96 * done / 0.3
    return 0.5 + 0.5 * math.cos(math.pi * (done - 0.3) / 0.7)


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


@torch.no_grad()
def predict(model, data, batch=20):
    """Label maps uint8 (N, H, W) of all slices of a data set."""
    model.eval()
    masks = [model(x).argmax(1) for x, _ in DataLoader(data, batch)]
    return torch.cat(masks).numpy().astype(np.uint8)

# %% [markdown]
# First a folder of PNG files, as on the last page, and a small network that is trained on it now, a little shorter than
# there.

# %%
folder = Path(tempfile.mkdtemp())
learn, val = datasets.split(datasets.source(), "val")
learn = learn[:12] if SMOKE else learn
folders.write_slices(folder, {"train": learn, "val": val})

channels, epochs = (8, 16, 32, 64, 128), 1 if SMOKE else 8
model = train(Hearts(folder / "train"), channels, epochs)
held_out = Hearts(folder / "val")
print("trained on", len(learn), "slices, epochs:", epochs)
print(len(held_out), "slices to predict")

# %% [markdown]
# ## From logits to labels
#
# The network gives four numbers for every pixel, its **logits**: one for each class; within a pixel, the larger the
# likelier. A mask needs *one* number, the class. `argmax` takes the class with the largest logit. Here is the pixel about
# which the network is least able to decide.

# %%
model.eval()
with torch.no_grad():
    logits = model(held_out[0][0][None])[0]  # (4, 96, 96)
first, second = logits.topk(2, dim=0).values  # the two largest of each pixel
least = (first - second).argmin().item()  # counts through the flattened array
row, column = divmod(least, logits.shape[2])
p = logits.softmax(0)[:, row, column]
print(f"row {row}, column {column}")
for name, logit, chance in zip(CLASSES, logits[:, row, column], p):
    print(f"{name:>10}: logit {logit:6.2f}, probability {chance:.3f}")
print("label:", logits.argmax(0)[row, column].item())

# %% [markdown]
# The label doesn't say how close it was. `predict` takes the `argmax` of the logits themselves, without softmax: the
# largest logit has the largest probability.

# %%
masks = predict(model, held_out)
print("masks", masks.shape, masks.dtype, "with the values", *np.unique(masks))

# %% [markdown]
# ## A mask is a file
#
# A label map is an image whose grey levels are the labels 0 to 3, and a PNG keeps every grey level as it is. In a viewer
# it looks black, and neither multiplying by 85 nor JPEG is a remedy: you tried both on
# [Pixels and a first Dice](pixels_and_a_first_dice). The name of the file is made from the name of the *image* that was
# predicted.

# %% tags=["piece"]
def write_masks(folder, names, masks):
    """Write each label map as a PNG that is named after its own image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in zip(names, masks):
        cv2.imwrite(str(folder / f"{name}_mask.png"), mask)

# %%
names = [path.stem for path in held_out.paths]
write_masks(folder / "predicted", names, masks)
back = folders.read_masks(folder / "predicted")  # cmrseg reads what we wrote
print(len(back), "files:", *list(back)[:3], "...")
assert list(back) == names
assert all((back[name] == mask).all() for name, mask in zip(names, masks))

# %% [markdown]
# Names and masks belong together here because `predict` goes through the data set in the order of `held_out.paths`.
#
# ## Dice over a folder
#
# Whoever scores your masks has only the files. So score the files, too: each reference with the prediction of its name.

# %%
def folder_dice(predicted, truth):
    """Mean Dice of RV, Myo and LV over the masks of a folder."""
    scores = []
    for path in sorted(truth.glob("cmr*_mask.png")):
        scores.append(dice(read_png(predicted / path.name), read_png(path)))
    return np.nanmean(scores, axis=0)


references = folder / "val" / "mask"
scores = folder_dice(folder / "predicted", references)
for name, score in zip(CLASSES[1:], scores):
    print(f"{name:>4} {score:.4f}")
in_memory = metrics.mean(metrics.dice(masks, val.masks))  # cmrseg's
print(f"mean {scores.mean():.4f}, of the masks in memory {in_memory:.4f}")
assert np.isclose(scores.mean(), in_memory)

# %% [markdown]
# The mean is taken over the slices first and then over the classes; a class that is in neither mask gives NaN and is
# left out. The command for it is `python -m cmrseg evaluate --pred predicted --truth val/mask`. In the last line that
# the cell printed two numbers must agree, the Dice of the files and the Dice of the masks in memory.
#
# ## The right mask under the wrong name
#
# The **test slices** are those whose masks the report's course kept to itself, to score what students sent. They follow
# the 120 slices with masks, so they begin at 121.
#
# **The report did it like this** {cite}`report2020`: it lists the images of the test folder with `glob`, predicts them
# in that order, and numbers the masks with a counter that begins at 121. If the list happens to come in the order of
# the numbers, every name is right. But `glob` promises no order. It gives the names as the file system keeps
# them. The authors noticed it themselves: a comment in their code says that it works on Windows, and perhaps not on
# Linux.
#
# Here is the same idea in our own code, on the validation slices. So that every machine shows the same, we shuffle the
# list ourselves.

# %%
paths = list((folder / "val" / "image").glob("*.png"))
print("glob, on this machine:", *[path.stem for path in paths[:5]], "...")
listed = [str(name) for name in np.random.default_rng(0).permutation(names)]
print("a list out of order:  ", *listed[:5], "...")

mask_of = dict(zip(names, masks))  # the network's mask of each image
number = int(names[0][3:])  # the counter starts at the first slice
for name in listed:
    write_masks(folder / "counted", [f"cmr{number}"], [mask_of[name]])
    number += 1
print(len(list((folder / "counted").glob("*.png"))), "files, none is missing")

# %% [markdown]
# **Predict, then run**: nearly every mask now carries the name of another slice. What will the mean Dice be: about 0,
# about 0.3, about 0.6, or nearly as before?

# %%
counted = folder_dice(folder / "counted", references)
print(f"named after its image {scores.mean():.3f}")
print(f"named by a counter    {counted.mean():.3f}")
most = np.stack([learn.masks == c for c in range(4)]).mean(1).argmax(0)
baseline = metrics.dice(np.stack([most] * len(val)), val.masks)
print(f"never looks           {metrics.mean(baseline):.3f}")

moved = [i for i in range(len(names)) if listed[i] != names[i]][:3]
figure, axes = plt.subplots(1, 3, figsize=(7.5, 3.2))
for ax, i in zip(axes, moved):
    stored = read_png(folder / "counted" / f"{names[i]}_mask.png")
    plots.overlay(ax, val.images[i], stored, f"{names[i]},\nmask of {listed[i]}")
    plots.contours(ax, val.masks[i])
plots.class_legend(figure)

# %% [markdown]
# *Lines are the reference, colour is what the file under this name holds. Each mask is a decent one, but for another
# slice.*
#
# The score isn't zero, and that's the trap: hearts lie near the middle of the picture, so the mask of another heart
# still overlaps. It does so about as well as the mask that never looks (last line), which is
# [the number to beat](pixels_and_a_first_dice). So the network looks poor, and people go on training. Would a program
# notice that checks every file before it is sent?

# %%
def problems(predicted, images):
    """What is wrong with the mask files of a folder of images."""
    faults = []
    for path in sorted(images.glob("cmr*.png")):
        file = predicted / f"{path.stem}_mask.png"
        if not file.exists():
            faults.append(f"{file.name} is missing")
        elif read_png(file).shape != read_png(path).shape:
            faults.append(f"{file.name} has another size")
        elif read_png(file).max() > 3:
            faults.append(f"{file.name} holds other values than 0 to 3")
    return faults

# %%
write_masks(folder / "stretched", names, 85 * masks)  # made to be seen
write_masks(folder / "partial", names[1:], masks[1:])

# %% [markdown]
# **Predict, then run**: which of three folders does `problems` object to? "counted" holds masks under wrong names,
# "stretched" masks times 85, and in "partial" one mask is missing.

# %%
for name in ("counted", "stretched", "partial"):
    report = problems(folder / name, folder / "val" / "image")
    print(f"{name:>9}: {len(report)} problem(s)", *report[:1])

# %% [markdown]
# It doesn't object to wrong names, as each file is correct by itself. Write such a check all the same, since it catches missing
# files, wrong sizes and stretched labels. Two things catch a mask under a wrong name. Where there are references, score
# the files: their Dice must be that of the masks in memory, and here it isn't. Where there are none, lay a few masks
# over their images, read from the *files* and not from memory.
#
# This is one of the report's six slips of code. It is fixed in one line: the name comes from the path that was read, and the order no longer matters.

# %%
write_masks(folder / "fixed", listed, [mask_of[name] for name in listed])
fixed = folder_dice(folder / "fixed", references)
print(f"named after its image, in any order {fixed.mean():.3f}")
assert np.array_equal(fixed, scores)

# %% [markdown]
# ## The submission file (optional)
#
# The report's course scored the test slices on Kaggle, a website for competitions, which takes one text file. A mask
# becomes text as a **run-length code**: number the pixels, and write down where each run of mask pixels starts and how
# long it is. The code has two conventions: pixels are numbered *down the columns*, and counting begins *at 1*.
#
# By hand, on a mask of three rows and four columns:
#
# ```{raw} html
# <svg viewBox="0 0 440 264" role="img" aria-labelledby="code-title" style="display:block;width:34rem;max-width:100%;height:auto;margin:1rem 0" font-family="system-ui, sans-serif" font-size="15" text-anchor="middle" fill="currentColor">
# <title id="code-title">A mask of three rows and four columns, numbered down its columns from 1 to 12. Pixels 3 to 7 and pixel 12 belong to the mask. Column after column they lie in a row: a run of five that starts at 3 and a run of one that starts at 12. The code is 3 5 12 1.</title>
# <defs><marker id="code-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="var(--pst-color-text-base, currentColor)"/></marker></defs>
# <g stroke="var(--pst-color-border, #8888)" stroke-width="1.5" fill-opacity="0.4"><rect x="16" y="8" width="44" height="44" fill="none"/><rect x="60" y="8" width="44" height="44" fill="#785EF0"/><rect x="104" y="8" width="44" height="44" fill="#785EF0"/><rect x="148" y="8" width="44" height="44" fill="none"/><rect x="16" y="52" width="44" height="44" fill="none"/><rect x="60" y="52" width="44" height="44" fill="#785EF0"/><rect x="104" y="52" width="44" height="44" fill="none"/><rect x="148" y="52" width="44" height="44" fill="none"/><rect x="16" y="96" width="44" height="44" fill="#785EF0"/><rect x="60" y="96" width="44" height="44" fill="#785EF0"/><rect x="104" y="96" width="44" height="44" fill="none"/><rect x="148" y="96" width="44" height="44" fill="#785EF0"/>
# <rect x="16" y="186" width="34" height="34" fill="none"/><rect x="50" y="186" width="34" height="34" fill="none"/><rect x="84" y="186" width="34" height="34" fill="#785EF0"/><rect x="118" y="186" width="34" height="34" fill="#785EF0"/><rect x="152" y="186" width="34" height="34" fill="#785EF0"/><rect x="186" y="186" width="34" height="34" fill="#785EF0"/><rect x="220" y="186" width="34" height="34" fill="#785EF0"/><rect x="254" y="186" width="34" height="34" fill="none"/><rect x="288" y="186" width="34" height="34" fill="none"/><rect x="322" y="186" width="34" height="34" fill="none"/><rect x="356" y="186" width="34" height="34" fill="none"/><rect x="390" y="186" width="34" height="34" fill="#785EF0"/></g>
# <g><text x="45" y="36">1</text><text x="89" y="36">4</text><text x="133" y="36">7</text><text x="176" y="36">10</text><text x="45" y="80">2</text><text x="89" y="80">5</text><text x="133" y="80">8</text><text x="176" y="80">11</text><text x="45" y="124">3</text><text x="89" y="124">6</text><text x="133" y="124">9</text><text x="176" y="124">12</text></g>
# <g font-size="13"><text x="33" y="208">1</text><text x="67" y="208">2</text><text x="101" y="208">3</text><text x="135" y="208">4</text><text x="169" y="208">5</text><text x="203" y="208">6</text><text x="237" y="208">7</text><text x="271" y="208">8</text><text x="305" y="208">9</text><text x="339" y="208">10</text><text x="373" y="208">11</text><text x="407" y="208">12</text><text x="67" y="178">column 1</text><text x="169" y="178">column 2</text><text x="271" y="178">column 3</text><text x="373" y="178">column 4</text></g>
# <g fill="none" stroke="var(--pst-color-text-base, currentColor)" stroke-width="1.3" marker-end="url(#code-tip)"><path d="M22 14v118"/><path d="M66 14v118"/><path d="M110 14v118"/><path d="M154 14v118"/></g>
# <g fill="none" stroke="var(--pst-color-text-base, currentColor)" stroke-width="1.5"><path d="M16 166v54"/><path d="M118 166v54"/><path d="M220 166v54"/><path d="M322 166v54"/><path d="M424 166v54"/><path d="M87 228v8h164v-8"/><path d="M393 228v8h28v-8"/></g>
# <g text-anchor="start"><text x="216" y="38">The mask: its pixels are</text><text x="216" y="60">numbered down the</text><text x="216" y="82">columns, from 1.</text><text x="216" y="122" font-weight="600">code: 3 5 12 1</text></g>
# <text x="169" y="254">start 3, length 5</text><text x="424" y="254" text-anchor="end">start 12, length 1</text>
# </svg>
# ```
#
# *The run of five goes on from the foot of one column to the head of the next, twice. The code is "3 5 12 1": two pairs
# of start and length.*
#
# In NumPy: lay the columns end to end (`order="F"` reads an array down its columns), add a zero on both sides, and look
# where the value changes.

# %%
small = np.array([[0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]], bool)
flat = np.concatenate([[0], small.ravel(order="F"), [0]]).astype(int)
print("padded row:", *flat)
change = np.flatnonzero(np.diff(flat)) + 1
print("it changes at pixels", *change)
print("starts", *change[::2], "| one past the ends", *change[1::2])

# %% [markdown]
# Why `+ 1`? Thanks to the zero in front, `flat[k]` is pixel number `k`. `np.diff` compares each entry with the next: if
# its entry `i` isn't 0, pixel `i + 1` differs from pixel `i`. So `i + 1` is the first pixel with the new value.
#
# Every second change starts a run, the others end one; the difference is the length. The zero at the end is there for a
# run that touches the last pixel. That's the whole function:

# %% tags=["piece"]
def run_lengths(mask):
    """Run-length code of a bool (H, W): "start length ...", by columns, from 1."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [0]]).astype(int)
    change = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(f"{s} {e - s}" for s, e in zip(change[::2], change[1::2]))

# %% [markdown]
# **Predict, then run**: what comes out if somebody numbers along the rows, that is, takes the code of the transposed
# mask: an error, the same code, or another one?

# %%
print("down the columns:", run_lengths(small))
print("along the rows:  ", run_lengths(small.T))
print("of an empty mask:", repr(run_lengths(small & False)))
for c in (1, 2, 3):  # the same as cmrseg's, for all masks of this page
    assert all(run_lengths(mask == c) == rle.encode(mask == c) for mask in masks)

# %% [markdown]
# Another one, and a valid code of another mask. No program complains, and the score is merely low.
#
# <div class="explorer" data-explorer="rle" aria-label="A mask and its run-length code">On the book's web page
# you can paint a mask on a board of 8 x 8 pixels here and watch its code, or write a code and watch its mask. A column of
# three pixels from the top left has the code 1 3.</div>
#
# The file has a header and three rows for each slice, one for each class. Where a class is missing the code is empty, but
# its row must be there.

# %% tags=["piece"]
def write_submission(path, names, masks):
    """Write three rows for each slice: id and run-length code of RV, Myo and LV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "encoding"])
        for name, mask in zip(names, masks):
            for c in (1, 2, 3):
                rows.writerow([f"{name}_mask{c}", run_lengths(mask == c)])

# %%
write_submission(folder / "submission.csv", names, masks)
for line in (folder / "submission.csv").read_text(encoding="utf-8").splitlines()[:4]:
    print(line if len(line) < 70 else line[:66] + " ...")

again = rle.read_submission(folder / "submission.csv", masks.shape[1:])
assert all((again[name] == mask).all() for name, mask in zip(names, masks))
print("cmrseg reads all", len(again), "masks back as they were")

# %% [markdown]
# Before you send a file: count the rows, look at the names, decode it, and lay three masks over their images.
#
# ## Recap
#
# - You can turn logits into labels: `argmax` does it, and softmax wouldn't change them.
# - You can save labels in lossless files (they look black), each named after its own image, never by a counter. Score
#   the files, and look at them.
# - You can write a run-length code: pairs of start and length, down the columns and from 1. Numbered the wrong way it is
#   still a valid code, of another mask.
#
# ## Exercises
#
# ```{exercise} Back to a mask
# :label: predict-decode
# A code can be valid and still wrong; to find out, look at its mask. Write the way back: `my_decode(code, shape)`. `code` is a
# string such as `"3 5 12 1"`, or `""` for an empty mask, and `shape` is `(height, width)`. Return the mask as an array of
# that shape, of booleans or of zeros and ones. Pixels are numbered down the columns, from 1.
# ```

# %% tags=["hide-input"]
import numpy as np


def paint(runs=((3, 5), (12, 1)), first=1, longer=0, to=False, order="F"):
    """The mask of a code, read rightly or wrongly."""
    flat = np.zeros(40, bool)
    for start, number in runs:
        flat[start - first : number if to else start - first + number + longer] = True
    return flat[:12].reshape(3, 4, order=order)


ROWS = "pixels are numbered down the columns, not along the rows"
FIRST = "pixel number 1 has the index 0: subtract 1 from each start"
READINGS = [
    (paint(), "right"),
    (paint(first=0), FIRST),
    (paint(order="C"), ROWS),
    (paint(first=0, order="C"), f"{FIRST}; and {ROWS}"),
    (paint(first=2), "counting starts at 1, not at 2"),
    (paint(to=True), "the second number is a length, not the last pixel"),
    (paint(longer=1), "each run is one pixel too long"),
    (paint(longer=-1), "each run is one pixel too short"),
    (paint(((3, 1), (12, 1))), "only the first pixel of each run is there"),
    (paint(((3, 5),)), "the last run is missing"),
    (paint(((12, 1),)), "only the last run is there: keep the ones before it"),
    (~paint(), "mask and background have changed places"),
    (paint() & False, "the mask is empty: no run was painted"),
]
MORE = {
    "an empty code": ("", (3, 4), np.zeros((3, 4), bool)),
    "another shape": ("2 3", (2, 3), np.array([[0, 1, 0], [1, 1, 0]], bool)),
}


def shape_wrong(mask, shape):
    """What is wrong with the shape or the values of an answer."""
    if mask.shape == shape[::-1] and mask.shape != shape:
        return f"its shape is {mask.shape}: height comes first, {shape}"
    if mask.shape != shape:
        return f"its shape is {mask.shape}, not {shape}: reshape it"
    if not set(np.unique(mask).tolist()) <= {0, 1}:
        return "its values are not just 0 and 1"
    return ""


def check_decode(mine):
    """What is wrong with a function that should turn a run-length code into a mask."""
    tests = {"": ("3 5 12 1", (3, 4), paint()), **MORE}
    for name, (code, shape, right) in tests.items():
        where = f"of {name}: " if name else ""
        try:
            answer = mine(code, shape)
        except Exception as error:
            return f"{where}it raises {type(error).__name__}: {error}"
        if answer is None:
            return f"{where}it returns nothing yet"
        mask = np.asarray(answer)
        if why := shape_wrong(mask, shape):
            return where + why
        if not name:
            known = [why for reading, why in READINGS if (reading == mask).all()]
            if known != ["right"]:
                return (*known, f"it paints {mask.astype(int).tolist()}")[0]
        elif (mask != right).any():
            return f"{where}{(mask != right).sum()} pixels are wrong"
    return "right"

# %%
def my_decode(code, shape):
    """The mask (H, W) of a run-length code."""
    return None  # your lines here


print("my_decode:", check_decode(my_decode))

# %% [markdown]
# ```{solution-start} predict-decode
# :class: dropdown
# ```

# %%
def my_decode(code, shape):
    """The mask (H, W) of a run-length code."""
    flat = np.zeros(shape[0] * shape[1], bool)
    numbers = [int(word) for word in code.split()]
    for start, length in zip(numbers[::2], numbers[1::2]):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(shape, order="F")


print("my_decode:", check_decode(my_decode))

# %% [markdown]
# `order="F"` on the way in needs `order="F"` on the way out. Leave it out here, and a correct code gives another mask
# without complaint. {func}`cmrseg.rle.decode` does the same as `my_decode`, and refuses runs that overlap or leave the
# image.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Sorted, and still wrong
# :label: predict-sorted
# Someone says: "I sort the list, then the counter is safe." Take 100 images, cmr1 to cmr100, and name the masks with a
# counter from 1. How many get their own name if the list is sorted as text? And how many if it is sorted by number, but
# cmr50 is missing? Decide first, then run the solution.
# ```
#
# ```{solution-start} predict-sorted
# :class: dropdown
# ```

# %%
by_number = [f"cmr{n}" for n in range(1, 101)]
lists = {
    "sorted as text": sorted(by_number),
    "sorted by number": by_number,
    "by number, cmr50 is missing": by_number[:49] + by_number[50:],
}
for way, some in lists.items():
    right = sum(name == f"cmr{k}" for k, name in enumerate(some, start=1))
    print(f"{way:>28}: {right:3} of {len(some)} under their own name")

# %% [markdown]
# As text, cmr10 and cmr100 come right after cmr1, and hardly a name is right. Sorting by number helps until a file is
# missing: from there on every slice gets its neighbour's mask. The order isn't to blame; the counter is.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [The whole thing](whole) puts all pieces of this part into one script. **Read**: Maier-Hein et al., *Metrics
# reloaded* {cite}`maierhein2024`, on what to score beside Dice, and why.
