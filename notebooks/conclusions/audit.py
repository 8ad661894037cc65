# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The data, audited
#
# Every number in this book stands on one folder of pictures. We have put the report on trial, the
# networks, and our own ruler. What about the folder?

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
import json
import os
import re
import tempfile
import textwrap
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.ndimage import zoom

from cmrseg import data, datasets, metrics, plots
from cmrseg.config import PRESETS
from cmrseg.datasets import checks, doctor
from cmrseg.datasets.duplicates import copy_limit, similarity
from cmrseg.postprocess import keep_largest_components
from cmrseg.predict import predict
from cmrseg.train import fit
from cmrtrial import compare, records
from cmrtrial.figures.copies import ring

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
parts = {split: datasets.load(datasets.source(), split) for split in data.SPLITS}
train, val, test = parts.values()
labelled = train + val
images = np.concatenate([s.images for s in parts.values()])
patients = np.concatenate([s.patients for s in parts.values()])
names = [name for s in parts.values() for name in s.names]

# %% [markdown]
# The 2020 report {cite}`report2020` tells of no check of its data. One would have paid at once: its
# Dice has no rule for a class that is not there, and one of its training slices has no right ventricle.
#
# ## What the doctor says
#
# `python -m cmrseg doctor FOLDER` looks for all the oddities below, in a moment for these slices and in about
# a minute for ten thousand. (What each would do to a result, and who owns the pixels, this page works out itself.) This
# is its answer for the real ones, kept with the other records of this book, so it is the same whichever slices you
# read this page with.

# %%
diagnosis = json.loads(
    (records.STORE / "doctor-acdc96.json").read_text(encoding="utf-8")
)
print(len(diagnosis["errors"]), "errors,", len(diagnosis["warnings"]), "warnings")
pd.DataFrame(diagnosis["warnings"])[["file", "problem"]].style.hide(axis="index")

# %% [markdown]
# No errors: nothing that would stop a training. Warnings are not mistakes either. They are slices that a
# person should look at once and then decide. We take them in turn, and ask of each kind what it would do
# to a result.
#
# ## The same heart twice
#
# A copy of a training slice among the held-out ones lifts the score of whoever remembers, and nobody sees it in a
# folder. Comparing files finds exact copies only. Someone who cuts out a picture afresh, a pixel further left, or
# exports it a little larger or brighter makes a new file.
#
# So {func}`cmrseg.datasets.duplicates.similarity` compares *thumbnails*: the middle of each picture on a small grid
# of points, with the mean taken out and divided by the spread, so that brightness and contrast drop
# out. One of the two is tried at three zooms and nine shifts, and the best correlation counts. What is
# a copy then? We let the data say: below are pairs of strangers, pairs of siblings (the two slices of
# one patient) and copies that we made ourselves.

# %% tags=["hide-input"]
ALTER = {
    "a pixel to the right": lambda x: np.roll(x, 1, 1),
    "a tenth larger": lambda x: zoom(x, 1.1, order=1)[5:101, 5:101],
    "brighter": lambda x: np.clip(1.2 * x + 20, 0, 255).astype(np.uint8),
}
ALTER["all three"] = lambda x: ALTER["brighter"](
    ALTER["a tenth larger"](np.roll(x, 1, 1))
)

alike = similarity(images)
upper, strangers = np.triu(np.ones_like(alike, bool), 1), patients[:, None] != patients
limit = copy_limit(alike[upper & strangers])
copies = {}
for name, alter in ALTER.items():
    altered = np.stack([alter(x) for x in images])
    copies[name] = np.diag(similarity([*images, *altered]), len(images))
    print(
        f"{name:>20}: likeness at least {copies[name].min():.2f}, "
        f"found {(copies[name] > limit).mean():.0%}"
    )
siblings = alike[upper & ~strangers]
print(
    f"limit {limit:.3f}; of {upper.sum() - len(siblings)} pairs of strangers "
    f"{(alike[upper & strangers] > limit).sum()} lie above it,\n"
    f"of {len(siblings)} pairs of siblings {(siblings > limit).sum()}"
)

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8.5, 3.2))
groups = {
    "strangers": (alike[upper & strangers], plots.GREY),
    "siblings": (siblings, plots.ACCENT),
    "altered copies": (np.concatenate([*copies.values()]), plots.CONTRAST),
}
for name, (values, colour) in groups.items():
    counts, edges = np.histogram(
        np.arctanh(np.minimum(values, 0.9995)), np.linspace(-0.6, 4, 93)
    )
    ax.stairs(
        counts / counts.max(), edges, fill=True, alpha=0.6, color=colour, label=name
    )
ax.axvline(np.arctanh(limit), color=plots.GREY, linestyle=":", label="limit")
ticks = np.array([-0.5, 0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999])
ax.set_xticks(np.arctanh(ticks), [f"{tick:g}" for tick in ticks])
ax.set(xlabel="likeness (the axis stretches what is near 1)", yticks=[])
ax.spines["left"].set_visible(False)
ax.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2);

# %% [markdown]
# *Each hill is scaled to the same height. On this axis (Fisher's z) the strangers make nearly a bell curve,
# and the limit is the place that a pair of them would pass in one of a hundred such folders. The copies
# lie far beyond it. The siblings lie on both sides.*
#
# The limit was not tuned until the result looked good. The strangers alone set it, through medians, so
# that a few copies among them can't move it. And the gap between them and the copies is so wide that it
# hardly matters where in it the limit lies.
#
# The siblings carry a lesson: no limit parts the second slice of a patient from a copy of the first.
# Within a split siblings are expected, and the doctor is silent; across splits they are leakage as
# copies are. Who is whose sibling no picture can say, so the doctor reads `patients.csv`.
#
# ## The map
#
# All slices on a circle; a line joins every two that are too alike. Left the folder as it is; right the same folder
# after we hid eight altered copies of training slices in the other two splits.

# %% tags=["hide-input"]
rng = np.random.default_rng(0)
chosen = rng.permutation(len(train))[:8]
planted = [alter(train.images[i]) for i, alter in zip(chosen, [*ALTER.values()] * 2)]
order = [
    *range(len(train) + len(val)),
    *range(len(images), len(images) + 4),
    *range(len(train) + len(val), len(images)),
    *range(len(images) + 4, len(images) + 8),
]
stack = [
    [*images, *planted][i] for i in order
]  # four at the end of val, four at the end of test
owner = np.r_[patients, -np.arange(1, 9)][order]


def pairs_of(alike, owner):
    """Pairs above their limit: of one patient, and of two."""
    above = np.triu(np.ones_like(alike, bool), 1)
    different = owner[:, None] != owner
    above &= alike > copy_limit(alike[above & different])
    return np.argwhere(above & ~different), np.argwhere(above & different)


maps = {
    "as it is": pairs_of(alike, patients),
    "with eight copies hidden": pairs_of(similarity(stack), owner),
}
for title, (one, two) in maps.items():
    print(f"{title}: {len(one)} pairs of one patient, {len(two)} of two")

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.6))
for ax, (title, (one, two)), extra in zip(axes, maps.items(), (0, 4)):
    sizes = {split: len(s) + extra * (split != "train") for split, s in parts.items()}
    ring(ax, sizes, {plots.ACCENT: one, plots.CONTRAST: two})
    ax.set_title(title)

# %% [markdown]
# *The map of near-duplicates. Short ticks at the rim, violet: siblings, which have neighbouring
# numbers. Orange: two patients, as far as the folder says. A line that crosses from one arc to another
# is leakage. Some hidden copies have two lines, since they are like the sibling of their original as
# well.*
#
# ### What the real folder hides
#
# On the real slices nothing crosses from one split to another. But two short orange lines stand out
# among the test slices: the two slices of one patient lie there twice, as two patients. The next cell
# takes the orange pairs of the left map (on the synthetic slices, which have none, two of the hidden
# copies), slides one picture over the other by whole pixels, and counts how many pixels agree.

# %% tags=["hide-input"]
def agreement(a, b, down, right):
    """Share of equal pixels of b and of a after a shift, away from the rim."""
    rim = slice(3, -3)
    return (np.roll(a, (down, right), (0, 1))[rim, rim] == b[rim, rim]).mean()


def best_shift(a, b):
    """The whole-pixel shift after which two pictures agree most: (share, down, right)."""
    steps = range(-3, 4)
    return max(
        (agreement(a, b, down, right), down, right) for down in steps for right in steps
    )


twins = [(names[i], names[j], images[i], images[j]) for i, j in maps["as it is"][1]]
if not twins:
    twins = [
        (train.names[chosen[k]], "its copy", train.images[chosen[k]], planted[k])
        for k in (0, 4)
    ]
for first, second, a, b in twins:
    share, down, right = best_shift(a, b)
    print(
        f"{first} and {second}: {agreement(a, b, 0, 0):.0%} of the pixels agree as they lie,\n"
        f"    {share:.0%} when the first is moved {down} pixels down and {right} to the right"
    )

# %% tags=["hide-input"]
figure, axes = plots.panels(4, 2, size=2.1)
for row, (first, second, a, b) in enumerate(twins[:2]):
    _, down, right = best_shift(a, b)
    differences = [
        abs(a.astype(int) - b),
        abs(np.roll(a, (down, right), (0, 1)).astype(int) - b),
    ]
    plots.show(axes[4 * row], a, first)
    plots.show(axes[4 * row + 1], b, second)
    for ax, difference, title in zip(
        axes[4 * row + 2 :], differences, ("difference", "after the shift")
    ):
        ax.imshow(difference, cmap="magma", vmin=0, vmax=80)
        ax.set_title(title)

# %% [markdown]
# *Two pairs that the map joins; their difference as they lie; and after the best shift, when only the
# rim that came from outside is left.*
#
# Where not one pixel differs, it can't be another scan, nor another slice of the same heart. It is the
# same picture, cut out a pixel apart; whether it was double at the source or doubled on the way, we
# can't tell. So the real test set holds one patient fewer than its numbers say. Nothing flows into
# training from there, so no Dice in this book is too high for it; but that patient counts double in
# every score on the test slices.
#
# ### What leakage by copies would do
#
# The strongest case is a method that learns nothing and only remembers: its answer for a slice is the
# mask of the training slice that is most like it. We let copies of held-out slices, shifted by a pixel,
# slip into the training, one by one.

# %% tags=["hide-input"]
known = similarity([*val.images, *train.images])[: len(val), len(val) :]
honest = metrics.dice(train.masks[known.argmax(1)], val.masks)
leaked = metrics.dice(
    np.roll(val.masks, 1, 2), val.masks
)  # it finds the shifted copy, and its mask
draws = np.stack(
    [rng.permutation(len(val)) for _ in range(200)]
)  # who leaks first, in 200 orders
for count in (0, 1, 2, 5, 10, len(val)):
    means = [
        metrics.mean(np.where((place < count)[:, None], leaked, honest))
        for place in draws
    ]
    print(
        f"{count:2} of {len(val)} held-out slices leaked: Dice {np.mean(means):.3f}, "
        f"by who leaked from {min(means):.3f} to {max(means):.3f}"
    )

# %% [markdown]
# Each leaked slice lifts the mean by the same step, and a method that knows nothing of hearts climbs as far as you
# let it. A network remembers less exactly. What one of ours gained from *siblings* in its training is measured in
# [The patient is the unit](../basics/patients); whether more parameters and more epochs remember more was not
# measured here.
#
# ## A class that is not there
#
# A slice without a right ventricle may be right: near the tip of the heart there is none. What did the
# one on the real list do to our own numbers? The records of the baseline know.

# %% tags=["hide-input"]
held = {}  # (recipe, slice) -> Dice of RV, Myo, LV of each training that held the slice out
for planned, record in compare.records("baseline"):
    for name, dice in zip(record["images"]["name"], record["images"]["dice"]):
        held.setdefault((planned.protocol, name), []).append(dice)
scores = pd.DataFrame(
    {key: np.nanmean(np.array(dice, float), 0) for key, dice in held.items()},
    index=records.CLASSES,
).T


def slices_with(pattern, kind="mask"):
    """Labelled slices that the doctor names for a problem, with what the pattern catches of it."""
    matches = [
        (re.search(r"/(cmr\d+)", w["file"])[1], re.search(pattern, w["problem"]))
        for w in diagnosis["warnings"]
        if f"/{kind}/" in w["file"] and "test" not in w["file"]
    ]
    return [(name, match[1]) for name, match in matches if match]


for recipe in ("replica", "modern"):
    for name, c in slices_with("has no (.*) pixel"):
        marks = [dice[records.CLASSES.index(c)] for dice in held[recipe, name]]
        rest = scores.loc[recipe].drop(name)[c].mean()
        print(
            f"{recipe}: of {len(marks)} networks {marks.count(None)} drew no {c} in {name}, and "
            f"{marks.count(0)} did and got 0\n    mean {c} Dice of all slices "
            f"{scores.loc[recipe][c].mean():.3f}, without this one {rest:.3f}"
        )

# %% [markdown]
# Not one network got it right: each drew some right ventricle where there is none, and by our rule that
# is a 0. Among 120 slices one zero weighs little. Among 20, as in the report's validation set, it would
# weigh six times as much. [Dice and its traps](../basics/dice) shows the other rules.
#
# ## Islands and holes
#
# A stray pixel of a label, far from the rest, or background enclosed by labels: a slip of the mouse, or
# the trace of resampling. The real masks have a few, all tiny. What does it take to notice one in a
# score? We give every left ventricle an island in a far corner, or cut a hole into its middle, and
# score that against the true mask.

# %% tags=["hide-input"]
def with_island(mask, side):
    """The mask with a square island of LV in the corner that is farthest from it."""
    y, x = np.argwhere(mask == 3).mean(0)
    spoilt = mask.copy()
    rows = slice(2, 2 + side) if y > len(mask) / 2 else slice(-2 - side, -2)
    columns = slice(2, 2 + side) if x > len(mask) / 2 else slice(-2 - side, -2)
    spoilt[rows, columns] = 3
    return spoilt


def with_hole(mask, side):
    """The mask with a square hole in the middle of its LV."""
    y, x = (np.argwhere(mask == 3).mean(0) - (side - 1) / 2).round().astype(int)
    spoilt = mask.copy()
    spoilt[y : y + side, x : x + side] = 0
    return spoilt


truth = val.masks[: 6 if SMOKE else None]
truth = truth[metrics.areas(truth)[:, 2] > 150]
sides = range(7)
curves = {
    name: [np.stack([spoil(mask, side) for mask in truth]) for side in sides]
    for name, spoil in (("with an island", with_island), ("with a hole", with_hole))
}

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
for (label, stacks), colour in zip(curves.items(), (plots.CONTRAST, plots.ACCENT)):
    for ax, score in zip(axes, (metrics.dice, metrics.hd95)):
        values = np.stack([score(masks, truth, [3])[:, 0] for masks in stacks])
        ax.plot(np.array(sides) ** 2, values, color=colour, linewidth=0.8, alpha=0.35)
        ax.plot(
            np.array(sides) ** 2, np.median(values, 1), "o-", color=colour, label=label
        )
axes[0].set(xlabel="pixels", ylabel="Dice of the LV", ylim=(0.8, 1.005))
axes[1].set(xlabel="pixels", ylabel="HD95 of the LV, pixels")
axes[0].legend(loc="lower left");

# %% [markdown]
# *Thin: every validation slice with a left ventricle of more than 150 pixels; thick: their median. Dice
# counts pixels, so it falls slowly, and alike for both. HD95 hardly sees a single pixel, and then
# leaps: to the depth of the hole, or across the whole picture to the island.*
#
# The leap comes when the island's edge is more than five in a hundred pixels of the boundary: that is
# what the 95 means, and why it is preferred to the plain maximum, which one stray pixel in a true mask
# would ruin. And what do the stray pieces in the true masks weigh? We take them away and score what is left
# against the masks as they are:

# %%
tidy = metrics.dice(np.stack([keep_largest_components(m) for m in labelled.masks]), labelled.masks)
print(
    f"Dice without the stray pieces: mean {metrics.mean(tidy):.4f}, lowest {np.nanmin(tidy):.3f}"
)

# %% [markdown]
# In the mean of the real slices that is too little to matter; two pixels show only where the whole right ventricle is a
# sliver. What a *network* leaves behind need not be so small, and the same checks find it: give `doctor` the folder
# of the predicted masks.
#
# ## Odd ones out
#
# An outlier is a slice whose class is far smaller or larger, or whose picture is far darker or
# brighter, than the others. Far is measured from the median, on a logarithmic scale, in units of the
# median deviation {cite}`iglewicz1993`: a mean and a standard deviation would be stretched by the very
# outliers they should find.

# %% tags=["hide-input"]
areas, grey = metrics.areas(labelled.masks).astype(float), images.mean((1, 2))
columns = {
    **{c: areas[:, k] for k, c in enumerate(records.CLASSES)},
    "mean grey level": grey,
}
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.9))
for ax, (name, values) in zip(axes, columns.items()):
    odd, x = checks.outliers(values), rng.uniform(-0.3, 0.3, len(values))
    ax.plot(
        x,
        np.where(values > 0, values, np.nan),
        "o",
        markersize=3,
        alpha=0.4,
        color=plots.CLASS_COLOURS.get(name, plots.GREY),
        markeredgewidth=0,
    )
    ax.plot(
        x[odd], values[odd], "o", markersize=7, markerfacecolor="none", color=plots.CONTRAST
    )
    ax.set(yscale="log", xticks=[], xlim=(-0.5, 0.5), xlabel=name)
    ax.set_yticks([30, 100, 300, 1000] if name in records.CLASSES else [30, 50, 100])
    ax.set_ylim(values[values > 0].min() * 0.8, values.max() * 1.2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()
axes[0].set_ylabel("pixels, or grey level");

# %% [markdown]
# *Left three: area of each class in the labelled slices. Right: mean grey level of every slice, the
# test slices too. Ringed: the outliers. Small structures stand out, large ones do not.*

# %% tags=["hide-input"]
suspects = [
    (i, f"{c} {areas[i, k]:.0f} px")
    for k, c in enumerate(records.CLASSES)
    for i in checks.outliers(areas[:, k])
]
suspects += [(i, f"grey {grey[i]:.0f}") for i in checks.outliers(grey) if i < len(labelled)]
figure, axes = plots.panels(4, 2, size=2.1)
for ax, (i, title) in zip(axes, suspects):
    plots.show(ax, labelled.images[i], f"{names[i]}: {title}").images[0].set_clim(
        0, 255
    )
    plots.contours(ax, labelled.masks[i])

# %% [markdown]
# *The labelled ones among them, all in one grey scale. Look before you throw away: the small ones are hearts at
# end-systole, most of them, or slices near the tip, and the labels look right to us. The dark ones owe it to very bright spots
# elsewhere, for the grey levels are stretched until about one pixel in a hundred has the highest.*
#
# So they stay. An outlier is not an error; to drop what is hard and report the rest would be one. But
# they tell where to expect low scores. What did the baseline's networks get on the real ones?

# %% tags=["hide-input"]
def of_networks(recipe, name, c):
    """Mean Dice of a class of a slice, lowest and highest, over the networks that it was held out from."""
    marks = np.array(held[recipe, name], float)[:, records.CLASSES.index(c)]
    return f"{marks.mean():.2f} ({marks.min():.2f} to {marks.max():.2f})"


rows = [(name, f"{c} is tiny", c) for name, c in slices_with(r"has (\w+) of")]
rows += [
    (name, "dark", c)
    for name, _ in slices_with("(grey)", "image")
    for c in records.CLASSES
]
table = pd.DataFrame(rows, columns=["slice", "why", "class"])
for recipe in ("replica", "modern"):
    table[recipe] = [of_networks(recipe, name, c) for name, _, c in rows]
    table[f"{recipe}, median slice"] = [
        f"{scores.loc[recipe][c].median():.2f}" for c in table["class"]
    ]
table.style.hide(axis="index")

# %% [markdown]
# *Dice of the slices that the doctor names: the mean of five networks, and the lowest and highest of
# them.*
#
# The tiny ones lie far below the median, with either recipe: a pixel is dear to the small. The dark
# ones lie near it with the modern recipe, which scales each slice by itself among other things.
#
# ### What a dark slice does to a network
#
# Live: two small networks, one fed with grey levels as stored and one with each slice scaled to mean 0
# and standard deviation 1. Then the held-out slices are dimmed, as another scanner might do.

# %% tags=["hide-input"]
small = replace(
    PRESETS["modern"],
    channels=(8, 16, 32),
    augment=(),
    lr=0.01,
    epochs=1 if SMOKE else 7,
)
gains = (1, 0.75, 0.5, 0.25)
for scale in ("raw", "zscore"):
    run = fit(
        replace(small, scale=scale), train[: 8 if SMOKE else 48], precision="fp32"
    )
    dimmed = [
        predict(run.model, (gain * val.images).astype(np.uint8), scale)
        for gain in gains
    ]
    marks = [metrics.mean(metrics.dice(pred, val.masks)) for pred in dimmed]
    print(
        f"{scale:>6}: Dice",
        ", ".join(f"{mark:.3f} at {gain:.0%}" for mark, gain in zip(marks, gains)),
    )

# %% [markdown]
# To the network below a dimmed slice is the same slice, but for rounding: brightness can't be an outlier any more.
# (Batch normalisation does not help here: after training it divides by its running averages, those of undimmed
# slices.) The one above has learned that blood has a certain grey, and is lost where it has another.
#
# ## Who owns the pixels
#
# One thing is never wrong and yet worth knowing: how the pixels are shared out among the classes. It
# decides what a network gets for nothing.

# %%
shares = {
    split: np.bincount(s.masks.ravel(), minlength=4) / s.masks.size
    for split, s in (("train", train), ("val", val))
}
pd.DataFrame(shares, index=data.CLASSES).T.style.format("{:.3f}")

# %% [markdown]
# More than four pixels in five are background, and the three classes share the rest about evenly. Hence the
# temptation to draw nothing under a loss that counts all pixels alike ([The loss](../build/the_loss)), and hence Dice
# instead of accuracy. Two rows far apart would mean that training and validation are not of one kind.
#
# ## Live: break a folder
#
# Here is a copy of the folder to harm. Each line of `HARM` is one way; take some away, add your own,
# and read what the doctor says beyond what it said before.

# %%
def edit(root, place, change):
    """Rewrite one picture of a folder."""
    path = next(root.glob(f"{place}*.png"))
    data.write_png(path, change(data.read_png(path)).astype(np.uint8))


HARM = {
    "train/mask/cmr1_": lambda m: with_island(m, 1),
    "train/mask/cmr3_": lambda m: with_hole(m, 2),
    "train/mask/cmr5_": lambda m: m * (m != 2),  # no muscle
    "val/mask/cmr101_": lambda m: 85 * m,  # stretched, for looking at
    "val/image/cmr103": lambda x: x / 8,  # far too dark
    "test/image/cmr121": lambda x: ALTER["all three"](train.images[8]),  # a moved copy
}
with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    datasets.write_root(root, datasets.source())
    before = {(w.file, w.problem[:9]) for w in doctor.examine(root)[1]}
    for place, change in HARM.items():
        edit(root, place, change)
    errors, warnings = doctor.examine(root)
for kind, findings in (("error", errors), ("warning", warnings)):
    for f in findings:
        if (f.file, f.problem[:9]) not in before:
            line = f"{kind}: {f}".replace(folder + "/", "")
            print(textwrap.fill(line, 78, subsequent_indent="    "))

# %% [markdown]
# In a terminal it is `python -m cmrseg doctor FOLDER`, or with `--json` for a program. Given a folder of your own,
# `train` asks for errors by itself before its first step; warnings wait until you ask.
#
# ## What to conclude
#
# The real folder is in good order: nothing leaks between training, validation and test, and every odd slice looks right
# to us (no doctor has checked them), but for a few stray pixels that are too small to move the mean. What it hid, a patient counted
# twice in the hidden test set, cannot touch our results, and no one who compared only files could have seen it.
#
# What each finding would do to a result differs by far more than it looks. A tiny island costs nothing, a class that
# is not there costs a zero, a dark slice is harmless or fatal by the scaling, and copies across splits lift the
# number, the more of them the more. So look at all of them, but first at leakage. And write down what you found and
# kept: a reader can't audit a folder that only you have.
#
# ## Try
#
# ```{exercise} In the mirror
# :label: audit-mirror
# Someone has enlarged a data set by mirrored copies, and split it afterwards. Would the map show it?
# Measure how alike a slice and its mirror image are. What would you change?
# ```
#
# ```{solution-start} audit-mirror
# :class: dropdown
# ```

# %%
mirrored = images[:, :, ::-1]
plain = np.diag(similarity([*images, *mirrored]), len(images))
print(
    f"a slice and its mirror image: likeness {np.median(plain):.2f} (median), limit {limit:.2f}"
)
hidden = [*images, mirrored[0]]
flipped = similarity([*hidden, *(x[:, ::-1] for x in hidden)])[len(images), len(hidden) :]
print(
    f"compared with mirrored pictures, the copy of {names[0]} is most like {names[flipped.argmax()]}, "
    f"likeness {flipped.max():.2f}"
)

# %% [markdown]
# It would not: to the correlation a heart and its mirror image are strangers. Compare every picture
# with the mirrored ones too, and they are found. In general a search finds the alterations that it
# tries, and no others.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Who is who
# :label: audit-who
# What would the doctor say of this folder without its table of patients, when every slice counts as a
# patient of its own? Is this a fault of the doctor?
# ```
#
# ```{solution-start} audit-who
# :class: dropdown
# ```

# %%
alone = [
    checks.Picture(Path(split) / name, image, n)
    for n, (split, name, image) in enumerate(
        (split, name, image)
        for split, s in parts.items()
        for name, image in zip(s.names, s.images)
    )
]
duplicates = [*checks.near_duplicates(checks.Folder([], alone, []))]
print(len(duplicates), "slices look the same as an earlier one; the first:")
print(textwrap.fill(str(duplicates[0]), 78, subsequent_indent="    "))

# %% [markdown]
# It takes siblings for copies, and rightly: without the table, whoever deals these slices out at random
# will part them. It also misses every pair that is less alike. A warning here means: write the table.
#
# ```{solution-end}
# ```
