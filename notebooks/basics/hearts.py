# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Hearts in slices
#
# A cardiac MR scanner films the beating heart one slice at a time. The *short-axis* view cuts across
# the left ventricle like a saw across a tree trunk: a disc of bright blood in a ring of dark muscle,
# and the right ventricle wrapped round one side. A child could colour it in. What makes it hard?

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
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from cmrseg import augment, data, metrics, plots

plots.style()
train = data.load(data.source(), "train")
val = data.load(data.source(), "val")

# %% tags=["hide-input"]
figure, axes = plots.panels(4, size=2.6)
for k, phase in enumerate(("end-diastole", "end-systole")):
    plots.show(axes[2 * k], train.images[k], phase)
    plots.contours(plots.show(axes[2 * k + 1], train.images[k]), train.masks[k])
plots.class_legend(figure)

# %% [markdown]
# *One patient, twice. At end-diastole the ventricles are full; at end-systole, a third of a second later, the
# cavities have shrunk and the wall between the gold and the magenta line has thickened. Note how little contrast
# there is where the right ventricle's thin wall meets what lies outside.*
#
# ## Three classes and a background
#
# | label | class | what it is |
# |---|---|---|
# | 0 | background | lungs, liver, chest wall, vessels: everything else |
# | 1 | RV | the cavity of the right ventricle, a crescent that hugs the left |
# | 2 | Myo | the myocardium of the left ventricle, the muscle ring |
# | 3 | LV | the cavity of the left ventricle, papillary muscles included |
#
# The two phases are not chosen for beauty. *End-diastole* (ED) is the moment of greatest filling,
# *end-systole* (ES) of least; from the areas or volumes at both, doctors compute how much blood a beat
# moves. That is why these two frames were labelled by hand, and no others.
#
# ## How rare the heart is

# %%
share = [(train.masks == c).mean() for c in range(4)]
for name, part in zip(data.CLASSES, share):
    print(f"{name:>10}: {part:6.1%} of all pixels")

# %% tags=["hide-input"]
shades = ["#80808055", *plots.CLASS_COLOURS.values()]
figure, ax = plt.subplots(figsize=(7.5, 1.3))
ax.barh(0, share, left=np.cumsum([0, *share[:-1]]), color=shades, edgecolor="none")
for name, left, part in zip(data.CLASSES, np.cumsum([0, *share[:-1]]), share):
    ax.text(left + part / 2, 0.55, name, ha="center")
ax.set_ylim(-0.45, 0.8)
ax.axis("off");

# %% [markdown]
# *More than four pixels in five are background. A network that answers "background" everywhere is right most of the
# time and useless all of the time: the first trap of this task, and the subject of the page on [Dice](../basics/dice).*
#
# ## Where the slices are from
#
# The 2020 report {cite}`report2020` worked on 200 slices of 96x96 pixels, 8-bit grey, one ED and one ES frame of each
# patient: 50 patients to train, 10 to validate, 40 to test, as the numbers go (one of the 40 is there twice: [The
# data, audited](../conclusions/audit)). They come from ACDC {cite}`bernard2018`, a public challenge whose patients
# have four diseases or none. Here, as there, the labels of the test slices stay with whoever runs the course, so this
# book never judges on them.
#
# The real slices may not be copied into this repository. Unless you fetch them (`make data`) and ask for them
# (`CMRSEG_DATA=acdc96`) every page runs on *phantoms*: synthetic hearts, drawn with exact masks. You can always tell
# which you are looking at:

# %%
print("source:", Path(data.source()).name, "| slices:", len(train), "+", len(val))
print("patients:", len(set(train.patients)), "+", len(set(val.patients)))

# %% tags=["hide-input"]
figure, axes = plots.panels(6, 2, size=1.75)
for ax, i in zip(axes, range(0, 96, 8)):
    plots.overlay(ax, train.images[i], train.masks[i], train.names[i], alpha=0.45)

# %% [markdown]
# *Twelve patients at end-diastole. Position, size, orientation and brightness differ; the topology,
# a crescent beside a ring round a disc, does not.*
#
# ## From files to a batch
#
# A network eats *batches*: float tensors of shape (N, 1, H, W), and labels of shape (N, H, W). PyTorch's usual way
# there is a `Dataset` and a `DataLoader`, which pay off when the data do not fit into memory. Ours take about a
# megabyte, so the book keeps all slices in memory and picks a batch by indexing:

# %%
images = augment.normalise(train.images)
labels = torch.from_numpy(train.masks).long()
chosen = torch.randperm(len(images))[:4]
x, y = images[chosen], labels[chosen]
print("images", tuple(x.shape), x.dtype, "| labels", tuple(y.shape), y.dtype)
print(f"all {len(train)} images take {train.images.nbytes / 1e6:.1f} MB as bytes")

# %% [markdown]
# One line above deserves its name: `normalise`. A scanner's grey levels have no unit. The same muscle
# may be 60 in one patient and 120 in the next, so each slice is shifted and scaled to mean 0 and
# standard deviation 1 (a *z-score*). The 2020 report fed grey levels from 0 to 255 as they were. What
# that cost it is one of the questions of part V.

# %% tags=["hide-input"]
cavity = train.masks[::2] == 3


def blood(stack):
    """Mean grey level of the left ventricle's blood in each patient's ED slice."""
    return [image[inside].mean() for image, inside in zip(stack[::2], cavity)]


greys = {
    "as stored": blood(train.images),
    "after normalising": blood(images[:, 0].numpy()),
}
figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.4), sharey=True)
for ax, grey, limits in zip(axes, greys.values(), ((0, 255), (-1, 4))):
    ax.hist(grey, bins=20, range=limits, color=plots.CLASS_COLOURS["LV"])
axes[0].set(title="blood in the LV, grey level as stored", ylabel="patients")
axes[1].set_title("the same, after normalising")
for name, grey in greys.items():
    print(
        f"{name}: standard deviation {np.std(grey):.2f}, {np.std(grey) / np.mean(grey):.2f} of the mean"
    )

# %% [markdown]
# *The same blood in every heart, yet its grey level varies from patient to patient, for reasons of coil, gain and
# export. Scaling each slice takes the scanner's unit away, but it does not make all blood equal: the printed shares
# say how much it varies before and after (after, from another zero, even more). What scaling is worth to a network,
# [Repairs](../conclusions/repairs) measures.*
#
# ## What to conclude
#
# Three structures, a fifth of the pixels, two moments of one beat, and always two slices of the same
# person. That last point is the next page.
#
# ## Try
#
# ```{exercise} Smaller at end-systole
# :label: hearts-shrink
# By what part does the left ventricle's cavity shrink from ED to ES, in the median patient? And the
# myocardium: does its area shrink, grow or stay?
# ```
#
# ```{solution-start} hearts-shrink
# :class: dropdown
# ```

# %%
areas = metrics.areas(train.masks).astype(float)
both = (areas[0::2] > 0).all(1) & (areas[1::2] > 0).all(1)
change = areas[1::2][both] / areas[0::2][both] - 1  # ES against ED, each patient
for name, part in zip(plots.CLASS_COLOURS, np.median(change, axis=0)):
    print(f"{name:>3}: median change of area from ED to ES {part:+.0%}")

# %% [markdown]
# The cavity loses about half its area. Muscle cannot be compressed, so as the ring contracts it thickens.
# Its area in one slice even grows: the heart also shortens along its axis, and muscle from above moves
# into the plane.
#
# ```{solution-end}
# ```
