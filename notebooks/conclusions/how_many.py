# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How many patients?
#
# A label map of one patient costs an expert's time. Would ten patients have done? Would a hundred more help?
# And how far does one get with hearts that nobody had to label, since a program drew them?

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
import pandas as pd

from cmrseg import datasets, plots
from cmrseg.config import PRESETS
from cmrseg.record import mean_dice
from cmrseg.train import fit, score
from cmrtrial import compare, records
from cmrtrial.splits import more_phantoms

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
runs = compare.runs("patients", "modern")
COUNTS = (5, 10, 20, 35, 48)

# %% [markdown]
# ## Hearts out of a program
#
# The book's default data are *phantoms* ({mod}`cmrseg.datasets.phantom`): a wall, two cavities, a chest around them,
# fat, blur and noise, drawn from a few random numbers each, with masks that are exact because the same numbers
# draw both.

# %% tags=["hide-input"]
phantoms = more_phantoms(patients=4)
figure, axes = plots.panels(4)
for ax, image, mask, name in zip(
    axes, phantoms.images[::2], phantoms.masks[::2], phantoms.names[::2]
):
    plots.contours(plots.show(ax, image), mask, width=1)
plots.class_legend(figure)
for (
    credit
) in figure.texts:  # these are nobody's hearts: the licence of ACDC is not theirs
    credit.remove()

# %% [markdown]
# *Four phantoms at end-diastole with their masks.*
#
# Nothing in them was learned from pixels of real slices. But their
# broad statistics (how large, how bright, where) were set with the 60 labelled patients in view, so they know a little
# more about these patients than about a stranger's.
#
# The program had drafts: sizes were changed, the right ventricle and the organs round the heart got other shapes, and last
# a rule came in that keeps the right ventricle inside the picture. All this went by looks and by broad statistics, before a
# network trained on phantoms was first scored on patients. We had meant to go on until the phantoms teach something; that
# first score, below, was beyond what we had hoped, and nothing was changed after it. What the drafts would have scored was
# not recorded.
#
# ## What we ran
#
# The healthy recipe on five folds, with 5, 10, 20, 35 or all 48 of the training patients of each fold. Every training
# has about the same number of steps (with five patients a few more): with fewer patients each is seen more often. And
# all of it once more, beginning not with random weights but with those of a network that was trained on 200 phantom
# patients. Those steps come on top: twice as many again.

# %% tags=["hide-input"]
groups = dict(list(runs.groupby("setting")))
curves = {"from nothing": {}, "from phantoms": {}}
for count in COUNTS:
    for kind, setting in zip(curves, (f"{count}", f"{count}, phantoms first")):
        difference = compare.compare(groups[setting], 0.0, "modern").difference
        curves[kind][count] = (difference.mean, *difference.interval())
        print(
            f"{count:2} patients, {kind:13}: Dice {difference.mean:.3f} "
            "({:.3f} to {:.3f})".format(*difference.interval())
        )

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8.5, 4))
for (kind, points), shift in zip(curves.items(), (0.98, 1.02)):
    x = shift * np.array(list(points))
    middle, low, high = np.array(list(points.values())).reshape(-1, 3).T
    (line,) = ax.plot(x, middle, "o-", label=kind)
    ax.vlines(x, low, high, color=line.get_color(), linewidth=2)
ax.set(
    xscale="log", xlabel="patients to learn from", ylabel="Dice, mean of 60 patients"
)
ax.set_xticks(COUNTS, COUNTS)
ax.minorticks_off()
ax.legend(loc="lower right");

# %% [markdown]
# *Dice of patients that the networks had not seen, against the number of patients that they had. Lines are
# 95 % intervals with both parts of the error. At the left end they are too narrow: luck was measured with 48
# patients, and which five were drawn is a luck of its own. The axis is logarithmic: a step to the right is a factor.*
#
# ## What do phantoms save?
#
# Compared in pairs, at each number of patients:

# %% tags=["hide-input"]
rows = {}
for count in COUNTS:
    difference = compare.compare(
        groups[f"{count}, phantoms first"], groups[f"{count}"], "modern"
    ).difference
    rows[f"{count} patients"] = row = (difference.mean, *difference.interval())
    print(f"{count:2} patients: " + "{:+.3f} ({:+.3f} to {:+.3f})".format(*row))
figure, ax = plt.subplots(figsize=(8.5, 2.6))
plots.differences(ax, rows)
ax.set(xlabel="change of Dice by phantoms first, 95 % interval");

# %% [markdown]
# *To the right of zero it helps to begin with phantoms. The grey band is the margin of 0.02.*
#
# ## Phantoms only, and the other way round
#
# Two harder questions. A network that has never seen a patient: what does it make of one? And one that knows 50
# patients only: does it recognise a phantom?

# %% tags=["hide-input"]
judged = {
    "trained on phantoms, judged on patients": groups["phantoms only"],
    "trained on patients, judged on phantoms": groups["patients, judged on phantoms"],
}
rows = {}
for name, table in judged.items():
    classes = [
        records.dice_table(record)[records.CLASSES].mean() for record in table["record"]
    ]
    rows[name] = pd.concat(classes, axis=1).mean(axis=1).to_dict() | {
        "mean": table["dice"].mean(),
        "lowest": table["dice"].min(),
        "highest": table["dice"].max(),
        "trainings": len(table),
    }
pd.DataFrame.from_dict(rows, orient="index").style.format(precision=3)

# %% [markdown]
# *The phantoms in the first row are judged by the same 60 patients whose broad statistics they were given: on strangers
# they may teach less.*
#
# How many patients is that worth? Dice of phantoms only, minus that of so many patients from nothing (for few patients these
# intervals, too, are narrower than they should be):

# %% tags=["hide-input"]
for count in COUNTS:
    difference = compare.compare(
        groups["phantoms only"], groups[f"{count}"], "modern"
    ).difference
    print(
        f"{count:2} patients: {difference.mean:+.3f} ({{:+.3f}} to {{:+.3f}})".format(
            *difference.interval()
        )
    )

# %% [markdown]
# ## Live: four patients or twenty-four
#
# A small network, and few steps, the same number for either.

# %%
train, held_out = datasets.split(datasets.source(), "val")
small = replace(PRESETS["modern"], channels=(4, 8, 16, 32), lr=0.006)
for patients in (4, 24):
    epochs = 1 if SMOKE else 144 // patients
    run = fit(replace(small, epochs=epochs), train[: 2 * patients], precision="fp32")
    print(
        f"{patients:2} patients, {epochs} epochs of {patients // 2} steps: "
        f"Dice {mean_dice(score(run, held_out)):.3f}"
    )

# %% [markdown]
# Four patients may well come out ahead: 72 steps are a twentieth of what the trainings above had. Each of the four
# was seen six times as often, and in so short a training that counts for more than variety. Who compares numbers of patients has to train long enough to use them.
#
# ## What to conclude
#
# More patients help, and each one by less: at first a doubling takes a fifth off the error, from 20 patients on about
# a tenth. Whether the curve still climbs at 48 can't be told. But from 35 on the next patients are worth less than
# the differences that the rest of this book is about.
#
# Hearts out of a program teach more than we had hoped. A network that has never seen a patient can't be told, on these
# patients, from one that learned from ten or twenty of them. As a beginning phantoms
# help wherever patients are few, and most where they are fewest; with 48 it can't be told. They do not replace
# patients: with thirty-five, the phantoms alone are left behind.
#
# Two cautions. Whoever begins with phantoms trains longer, and longer alone brings something, too
# ([Early stopping](../experiments/early_stopping)); at the right end of the curve it may be all there is. And the phantoms were drawn by people
# who had these sixty patients in view. For another hospital somebody would have to look again.
#
# ## Try
#
# ```{exercise} A hundred patients?
# :label: how-many-hundred
# Learning curves are often near a power law: the error falls by the same factor with each doubling
# {cite}`hestness2017`. Fit $1 - \mathrm{Dice} = a\,n^{-b}$ to the curve "from nothing" and read off 100 patients. How
# much would you trust it?
# ```
#
# ```{solution-start} how-many-hundred
# :class: dropdown
# ```

# %%
points = curves["from nothing"]
if len(points) > 2:
    power, height = np.polyfit(
        np.log(list(points)), np.log([1 - dice for dice, *_ in points.values()]), 1
    )
    print(
        f"each doubling leaves {2**power:.0%} of the error; at 100 patients Dice "
        f"{1 - np.exp(height + power * np.log(100)):.3f}"
    )

# %% [markdown]
# As a guess at the next doubling it is worth something; at ten times the patients it is worth little. Somewhere
# the curve must flatten: two experts do not agree on every pixel either {cite}`bernard2018`, and the fit knows nothing
# of that.
#
# ```{solution-end}
# ```
