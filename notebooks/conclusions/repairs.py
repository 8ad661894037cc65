# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Repairs
#
# Between the report's network and the one a reader trains lie five repairs: how the input is scaled, what
# the loss rewards, a textbook decoder, how the steps are taken, and how slices are varied. Which one matters?

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
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from cmrseg import datasets, plots
from cmrseg.config import PRESETS
from cmrseg.record import mean_dice
from cmrseg.train import fit, score
from cmrtrial import compare
from cmrtrial.plans.report import REPAIRS, UNREPAIRED

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
BROKEN, HEALTHY = "#FE6100", plots.ACCENT

# %% [markdown]
# ## Five repairs
#
# On the left what the report did {cite}`report2020`, on the right what the book does. Together they turn
# the recipe `replica` into the recipe `modern`; the width stays.

# %% tags=["hide-input"]
def listed(changes):
    return ", ".join(f"{field}={value}" for field, value in changes.items())


pd.DataFrame.from_dict(
    {
        compare.shown(name): {
            "report": listed(UNREPAIRED[name]),
            "repaired": listed(REPAIRS[name]),
        }
        for name in REPAIRS
    },
    orient="index",
)

# %% [markdown]
# One of the five is a bundle. In the code the *textbook decoder* {cite}`ronneberger2015` is one switch, `skips`, but it
# makes four changes at once:
#
# 1. the skip connections leave before the pooling, not after it;
# 2. the network pools four times, not five;
# 3. its pooling windows are 2x2 and lie side by side, where the report's are 3x3 and overlap;
# 4. its last layer is a 1x1 convolution at full resolution, not a transposed convolution from half of it.
#
# The order of the layers in the decoder and the windows of its transposed convolutions change with them. The page
# [The U-Net](../build/the_unet) has both networks side by side.
#
# ```{note}
# Earlier this page called the third repair *the skips*, as if they alone did it. The four changes were never tried
# apart, so nothing here says which of them helps, or by how much. No verdict of the [scoreboard](scoreboard) rests on
# this. A second trial is registered and running that takes them apart as far as such networks can be built
# ([Protocols](../statistics/protocols)); this page will tell its result when it is complete.
# ```
#
# There are three ways to ask what a repair is worth. Make it *alone* in the broken recipe. Make them *one
# after another* and watch the sum grow. Or *leave it out* of the healthy recipe. The three need not agree:
# repairs can stand in for each other, or need each other.
#
# ## What came out

# %% tags=["hide-input"]
replica, modern = compare.runs("repairs"), compare.runs("repairs", "modern")
both = pd.concat(
    [
        replica.replace({"setting": {"baseline": "replica"}}),
        modern.replace({"setting": {"baseline": "all five"}}),
    ]
)
dice = {
    name: compare.by_patient(group).mean()
    for name, group in both.groupby("setting", sort=False)
}
for name, value in dice.items():
    group = both[both["setting"] == name]
    print(
        f"{compare.shown(name):25} Dice {value:.3f}   {len(group):2} trainings from {group['dice'].min():.3f} "
        f"to {group['dice'].max():.3f}"
    )

# %% tags=["hide-input"]
names = list(REPAIRS)
steps = [
    "replica",
    f"with {names[0]}",
    f"up to {names[1]}",
    f"up to {names[2]}",
    f"without {names[4]}",
    "all five",
]  # scale, + loss, + textbook decoder, + schedule, + augmentation
heights = [dice[step] for step in steps]
figure, ax = plt.subplots(figsize=(9.5, 3.8))
for x, (low, high) in enumerate(pairwise(heights), start=1):
    ax.bar(
        x, high - low, bottom=low, width=0.6, color=HEALTHY if high > low else BROKEN
    )
    ax.plot([x - 0.7, x + 0.3], [low, low], color=plots.GREY, linewidth=0.8)
    ax.annotate(
        f"{high - low:+.3f}",
        (x, max(low, high)),
        (0, 4),
        textcoords="offset points",
        ha="center",
    )
for x, step in ((0, "replica"), (len(steps), "all five")):
    ax.bar(x, dice[step], width=0.6, color=plots.GREY, alpha=0.3)
    values = both.loc[both["setting"] == step, "dice"]
    ax.plot(np.full(len(values), x), values, "o", color=plots.GREY, markersize=3)
labels = [f"+ {compare.shown(name)}".replace("book ", "book\n") for name in names]
ax.set_xticks(range(len(steps) + 1), ["replica", *labels, "modern"])
ax.set(
    ylim=(min(heights) - 0.06, max(heights) + 0.04), ylabel="Dice, mean of 60 patients"
);
# %% [markdown]
# *From the report's recipe to the modern one, one repair after another. The grey bars are the two ends, with their
# trainings as dots (three seeds on five folds); the steps between them are single seeds on five folds. (After scale
# the recipe is `with scale` of the list, after schedule it is `without augmentation`.) The axis does not start at
# zero: compare the steps, not the heights of the grey bars. How sure each step is stands below.*

# %% tags=["hide-input"]
sure = {}
for name, (low, high) in zip(names, pairwise(steps)):
    protocol = "modern" if name == names[-1] else "replica"  # whose luck: the larger
    difference = compare.compare(
        both[both["setting"] == high], both[both["setting"] == low], protocol
    ).difference
    sure[f"+ {compare.shown(name)}"] = compare.with_interval(
        "{:+.3f}", (difference.mean, *difference.interval())
    )
pd.DataFrame({"change of Dice": sure})

# %% [markdown]
# *The steps of the picture with 95 % intervals, of patients and of trainings. Neighbours share a recipe: where one of
# its trainings was lucky, the step before looks larger and the step after smaller.*
#
# ## Alone, and left out

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3), sharey=True)
for ax, protocol, prefix, title in (
    (axes[0], "replica", "with ", "alone in the report's recipe"),
    (axes[1], "modern", "without ", "left out of the modern recipe"),
):
    table = compare.compare_to_baseline("repairs", "baseline", protocol)
    rows = {
        compare.shown(name): tuple(
            table.loc[prefix + name, ["difference", "low", "high"]]
        )
        for name in REPAIRS
    }
    plots.differences(ax, rows)
    ax.set(title=title, xlabel="change of Dice, 95 % interval")
    for name, row in rows.items():
        print(f"{prefix + name:25} {row[0]:+.3f} ({row[1]:+.3f} to {row[2]:+.3f})")

# %% [markdown]
# *Left: each repair alone, against the report's recipe; to the right of zero it helps: the textbook
# decoder does, and the schedule alone does harm. Right: the modern recipe without it; to the left of zero it is missed: the
# textbook decoder and augmentation are. The grey band is the margin of 0.02.*
#
# ## Who wakes the sleeper?
#
# The report's network draws nothing for many epochs. Which single repair ends that?

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8.5, 3.6))
for name in ("baseline", *(f"with {repair}" for repair in REPAIRS)):
    mean = compare.mean_curve(
        replica[(replica["setting"] == name) & (replica["seed"] == 0)]
    )
    ax.plot(
        mean.index,
        mean,
        color=plots.GREY if name == "baseline" else None,
        label="replica" if name == "baseline" else compare.shown(name),
    )
ax.set(xlabel="epoch", ylabel="Dice, mean of five folds", ylim=(0, 0.95))
ax.legend(loc="lower right");
# %% [markdown]
# *Mean curve of the five folds with seed 0, for the report's recipe and for each single repair. With the
# textbook decoder alone it climbs from the first epochs on; the others sleep for a while. (`with schedule` ends
# after 60 epochs, as its recipe says; with batches of 4 each of them has half as many steps.)*

# %% tags=["hide-input"]
for name in ("baseline", *(f"with {repair}" for repair in REPAIRS)):
    group = replica[(replica["setting"] == name) & (replica["seed"] == 0)]
    first = {}
    for line in (0.1, 0.5):
        reached = compare.mean_curve(group).gt(line)
        first[line] = f"at epoch {reached.idxmax():.0f}" if reached.any() else "never"
    label = compare.shown(name).replace("baseline", "replica")
    print(
        f"{label:21} mean of five folds above 0.1 {first[0.1]}, above 0.5 {first[0.5]}"
    )
curve = compare.mean_curve(
    replica[(replica["setting"] == "baseline") & (replica["seed"] == 0)]
)
print(
    f"After 1,440 steps: with schedule {dice['with schedule']:.3f}, at its end; replica {curve[30]:.3f}, on its way"
)

# %% [markdown]
# ## Live: one repair, small
#
# A small network, few slices, one training each. Change the numbers and run it again; for an answer it is far too little.

# %%
train, held_out = datasets.split(datasets.source(), "val")
small = replace(
    PRESETS["replica"], channels=(4, 8, 16), lr=0.003, epochs=2 if SMOKE else 10
);
for name, changes in (("replica", {}), ("with textbook decoder", REPAIRS["skips"])):
    run = fit(replace(small, **changes), train[:40], precision="fp32")
    print(f"{name:21} Dice {mean_dice(score(run, held_out)):.3f}")

# %% [markdown]
# ## What to conclude
#
# One repair ends the long sleep by itself: the textbook decoder, four changes at once. Its skip connections carry full
# resolution to the output, but it also pools once less, in windows that do not overlap, and draws the mask with a 1x1
# convolution. Which of these does it, these trainings cannot say. No other repair, made alone, lifts the report's recipe
# by more than chance can do. The loss wakes the network earlier, too, but at the end little of that is left.
#
# In the healthy recipe two repairs are missed when they are gone: the textbook decoder again, and augmentation. Leaving
# out the scaling or the schedule costs nothing that we can see, and leaving out the loss very little.
#
# The schedule shows why one must ask both ways. Alone it looks like a disaster. But it ends after 1,440 steps of the
# report's 4,800, and at that point the report's own recipe stands no higher: it was stopped while it slept. In
# company, where nothing sleeps, it costs nothing that we can see, and saves seven steps in ten (of twice as many
# slices each: four slices in ten). A fix that was tried alone and rejected may still be right; a recipe is a whole.
#
# And augmentation pays only once the network learns well: alone we can't see its worth, last in the row
# it is the largest step. Variety helps a network that has begun to learn its training slices by heart,
# and a sleeping one perhaps has not.
#
# ## Try
#
# ```{exercise} Order matters
# :label: repairs-order
# The waterfall adds scale first and augmentation last. Would the bars be the same in another order? Which
# two numbers above already answer this for the first and the last repair?
# ```
#
# ```{solution-start} repairs-order
# :class: dropdown
# ```

# %%
for name in REPAIRS:
    first, last = (
        dice[f"with {name}"] - dice["replica"],
        dice["all five"] - dice[f"without {name}"],
    )
    print(f"{compare.shown(name):>16}: added first {first:+.3f}, added last {last:+.3f}")

# %% [markdown]
# No. A bar is what a repair adds to those before it. First in the order it is "alone", last in the order it is
# what is lost when it is "left out": where the two differ, the repair's worth depends on its company.
#
# ```{solution-end}
# ```
