# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Depth
#
# The report looked twice at the number of convolutions in a block: once in a table of means, and once, for
# its best topology, image by image. A box plot shows more than a mean. What does it show?

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
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from cmrseg import datasets, plots
from cmrseg.config import PRESETS
from cmrseg.models import build
from cmrseg.record import mean_dice
from cmrseg.train import fit, score
from cmrtrial import claims, compare, records

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
reported = records.reported_numbers()["depth"]["median_dice"]
runs = compare.runs("depth")

# %% [markdown]
# ## What the report said

# %%
for depth, median in reported.items():
    print(f"{depth} convolutions: median Dice of an image {median:.3f}")

# %% [markdown]
# No effect, it concluded, so take two: they are the quickest {cite}`report2020`.
#
# ## What one more convolution brings
#
# It widens what a level can see, bends once more, and adds weights and seconds.

# %% tags=["hide-input"]
for depth in (2, 3, 4, 5, 6):
    net = build(replace(PRESETS["replica"], convolutions=depth))
    group = runs[runs["setting"] == str(depth)]
    print(
        f"{depth} convolutions: {sum(p.numel() for p in net.parameters()) / 1e6:.2f} million parameters, "
        f"{group['seconds'].mean():.0f} processor seconds a training"
    )

# %% [markdown]
# ## What we ran
#
# Two and six convolutions on all five folds, three to five on the first two.

# %%
compare.format_table(compare.compare_to_baseline("depth", "2").sort_index(), "two")

# %% [markdown]
# *In brackets 95 % intervals; a training collapsed that ended with a Dice below 0.1. Differences are paired, where both ran on
# the same folds.
# Means over different folds are means of different patients: compare by the difference, not by the mean.*

# %% tags=["hide-input"]
alike = runs[runs["split"].isin(["fold0", "fold1"]) & (runs["seed"] == 0)]
images = {
    name: np.concatenate(
        [
            records.dice_table(record)[records.CLASSES].mean(axis=1)
            for record in group["record"]
        ]
    )
    for name, group in alike.groupby("setting")
}
figure, ax = plt.subplots(figsize=(8.5, 3.8))
plots.boxes(ax, images)
ax.plot(
    range(len(images)),
    [reported[name] for name in images],
    "x",
    color=plots.CONTRAST,
    markersize=8,
    markeredgewidth=2,
    zorder=5,
)
ax.set(xlabel="convolutions in a block", ylabel="Dice of an image");

# %% [markdown]
# *Box plots as the report drew them: a dot for each of the 48 images of folds 0 and 1, one training for
# each fold. Crosses are the report's medians, on other images. All boxes overlap.*
#
# ## What the boxes hide
#
# A box shows how much images differ, which is a lot. It does not show how much the *same* image differs
# between two settings, which is what we ask. Paired by patient, two against six convolutions on all 60:

# %% tags=["hide-input"]
two, six = (runs[runs["setting"] == name] for name in ("2", "6"))
estimate = compare.compare(six, two).difference
difference = (compare.by_patient(six) - compare.by_patient(two)).sort_values()
figure, ax = plt.subplots(figsize=(8.5, 3))
ax.axhspan(-0.02, 0.02, color=plots.GREY, alpha=0.15, linewidth=0)
ax.vlines(range(len(difference)), 0, difference, color=plots.ACCENT, alpha=0.5)
ax.plot(range(len(difference)), difference, "o", color=plots.ACCENT, markersize=4)
ax.axhline(estimate.mean, color=plots.CONTRAST)
ax.set(xlabel="patients, sorted", ylabel="Dice with 6 minus with 2", xticks=[])
low, high = estimate.interval()
print(f"mean difference {estimate.mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")

# %% [markdown]
# *The difference of every patient, sorted, and their mean (orange), which lies below the grey band of the margin: most
# patients do worse.*
#
# ## Verdicts
#
# Beside a verdict stand the wider intervals that hold for all claims of the report together.
# Times were compared in rounds ([Does our ruler lie?](../statistics/ruler) says why).
#
# ```{note}
# The report trained for 250 epochs, we for 100, and with six convolutions the network was still climbing: what looks
# like harm may be delay. That two and six do equally well could not be confirmed with one run of six on each fold,
# whatever the truth. The verdict on time does not depend on either. A second trial is registered and running
# ([Protocols](../statistics/protocols)); this page will tell its result when it is complete.
# ```

# %%
claims.verdicts("depth")

# %% tags=["hide-input"]
for name, group in (("two", two), ("six", six)):
    gained = compare.last_gain(group)
    print(f"{name:>3}: Dice gained in the last ten epochs {gained:+.3f}")

# %% [markdown]
# ## With a healthy recipe

# %%
compare.format_table(compare.compare_to_baseline("depth", "2", "modern"), "two")

# %% [markdown]
# ## Live: two against four
#
# A small network, few slices, one training each. Change the numbers and run it again; for an answer it is far too little.

# %%
train, held_out = datasets.split(datasets.source(), "val")
small = replace(
    PRESETS["modern"], channels=(4, 8, 16, 32), augment=(), epochs=2 if SMOKE else 10
)
for depth in (2, 4):
    run = fit(replace(small, convolutions=depth), train[:48], precision="fp32")
    print(
        f"{depth}: Dice {mean_dice(score(run, held_out)):.3f} in {run.seconds:.1f} s"
    )

# %% [markdown]
# ## What to conclude
#
# The boxes overlap, as they did in the report, and one is tempted to see no effect. The pairs say more:
# with six convolutions most patients do worse than with two, and the interval of the mean lies beyond the
# margin. Widened for all the claims of this book it still touches the margin, so the verdict on "no effect" is
# *inconclusive*, by a hair. With the healthy recipe six do worse than two as well, and the interval is narrower.
#
# It is not a slope, though: on the two folds that all five ran on, three convolutions are the lowest and not six. Plain
# stacks are hard to train when they get long, and the cure that made long stacks usual is a shortcut around each block
# {cite}`he2016`, which neither recipe has. That may be the reason; these trainings do not show it.
#
# The cost is not in doubt: it grows with every convolution. The report's advice, take two, is a good one: two are the
# quickest, and nothing here speaks for more.
#
# ## Try
#
# ```{exercise} Two boxes, one answer
# :label: depth-boxes
# Two box plots overlap almost entirely. Does it follow that the settings do not differ? Make up sixty pairs
# whose boxes overlap and whose paired difference is beyond doubt.
# ```
#
# ```{solution-start} depth-boxes
# :class: dropdown
# ```

# %%
rng = np.random.default_rng(0)
a = rng.normal(0.85, 0.06, 60)
b = a - 0.02 + rng.normal(0, 0.01, 60)
print(
    f"boxes: {np.quantile(a, [0.25, 0.75]).round(3)} and {np.quantile(b, [0.25, 0.75]).round(3)}"
)
print(f"better for {(a > b).sum()} of 60")

# %% [markdown]
# It does not follow. Boxes answer how patients differ, pairs answer how settings do.
#
# ```{solution-end}
# ```
