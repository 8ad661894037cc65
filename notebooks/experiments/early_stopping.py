# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Early stopping
#
# When is a training over? The report watched for the epoch at which training Dice leaves validation Dice
# behind, and stopped there. What does training on cost, and what does stopping at the best epoch hide?

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
from cmrseg.record import mean_dice
from cmrseg.train import fit
from cmrtrial import claims, compare, records

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
reported = records.reported_numbers()["early_stopping"]

# %% [markdown]
# ## What the report said

# %% tags=["hide-input"]
print(
    f"one run of {reported['epochs']} epochs: training Dice {reported['train_dice']:.2f}, validation Dice "
    f"{reported['validation_dice']:.3f} and flat"
)
print(
    f"the gap opens at epoch {reported['gap_opens_at_epoch']}; {reported['epochs_chosen']} epochs were chosen"
)

# %% [markdown]
# After 150 epochs nothing more is gained; so one stops where the two curves part {cite}`report2020`.
#
# ## What we ran
#
# The replica for 700 epochs, seven times its own, on all five folds: as long as forty minutes of two cores
# allow. The training slices are scored beside the held-out ones.

# %% tags=["hide-input"]
def both(record):
    """Dice of the training and of the held-out slices at each scored epoch of a record."""
    history, curve = record["history"], records.curve(record)
    train_dice = [mean_dice(d) for d in history["dice_train"] if d is not None]
    return (
        curve["epoch"].to_numpy(),
        np.nan_to_num(train_dice),
        curve["mean"].fillna(0).to_numpy(),
    )

# %% tags=["hide-input"]
LONG = {
    protocol: compare.runs("early-stopping", protocol)
    for protocol in ("replica", "modern")
}
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
for ax, (protocol, runs) in zip(axes, LONG.items()):
    for record in runs["record"]:
        epochs, train_dice, held = both(record)
        ax.plot(epochs, train_dice, color=plots.ACCENT, linewidth=1, alpha=0.5)
        ax.plot(epochs, held, color=plots.CONTRAST, linewidth=1, alpha=0.5)
        ax.fill_between(
            epochs, held, train_dice, color=plots.ACCENT, alpha=0.05, linewidth=0
        )
    ax.set(
        xlabel="epoch",
        title=f"the {protocol} recipe"
        if protocol == "modern"
        else "the report's recipe",
    )
axes[0].plot([], [], color=plots.ACCENT, label="training slices")
axes[0].plot([], [], color=plots.CONTRAST, label="held-out slices")
axes[0].legend(loc="lower right")
axes[0].set_ylabel("Dice");

# %% [markdown]
# *Five folds each. Between the curves of a fold lies the gap. It opens while the lower curve still climbs, and after
# that the lower one stays level or still climbs; it does not fall.*

# %% tags=["hide-input"]
for protocol, runs in LONG.items():
    short = compare.runs("baseline", protocol)
    many, few = (table["record"].iloc[0]["config"]["epochs"] for table in (runs, short))
    dice = compare.compare(runs, 0.0, protocol).difference
    more = compare.compare(runs, short, protocol).difference
    print(
        "{}, {} epochs: Dice {:.3f} ({:.3f} to {:.3f}); minus {} epochs, paired by patient: {:+.3f} ({:+.3f} to "
        "{:+.3f})".format(
            protocol,
            many,
            dice.mean,
            *dice.interval(),
            few,
            more.mean,
            *more.interval(),
        )
    )

# %% [markdown]
# ## Where does the gap open?
#
# "Where the curves part" needs a rule. Ours: the first scored epoch from which on the training slices stay ahead by
# more than 0.05. One number for each fold:

# %% tags=["hide-input"]
def opens(record, ahead=0.05):
    """The first scored epoch from which on the gap stays above ``ahead``; None if there is none."""
    epochs, train_dice, held = both(record)
    below = np.flatnonzero(train_dice - held <= ahead)
    later = epochs[below[-1] + 1 :] if len(below) else epochs
    return int(later[0]) if len(later) else None


for protocol, runs in LONG.items():
    for ahead in (0.03, 0.05, 0.1):
        when = [str(opens(record, ahead) or "never") for record in runs["record"]]
        print(f"{protocol:7}, ahead by {ahead:.2f}: epochs {', '.join(when)}")
there = []
for record in LONG["replica"]["record"]:
    epochs, _, held = both(record)
    there.append((held[epochs == opens(record)][0], held[-1]))
print(
    "replica, mean held-out Dice where the gap of 0.05 opens {:.3f}, after the last epoch {:.3f}".format(
        *np.mean(there, 0)
    )
)

# %% [markdown]
# ## What the best epoch hides
#
# Whoever stops at the epoch with the best held-out Dice reports a number that chance has picked. How much
# higher is it than that of the last epoch, and than that of the epoch that *another* fold would have
# chosen?

# %% tags=["hide-input"]
runs = LONG["replica"]
curves = [both(record)[2] for record in runs["record"]]
for n, curve in enumerate(curves):
    others = np.mean([c for m, c in enumerate(curves) if m != n], axis=0)
    print(
        f"fold {n}: best epoch {curve.max():.3f}, chosen by the other folds {curve[others.argmax()]:.3f}, "
        f"last epoch {curve[-1]:.3f}"
    )

# %% [markdown]
# ## Verdicts
#
# Beside a verdict stand the wider intervals that hold for all claims of the report together.
#
# ```{note}
# That Dice no longer rises was asked as an equality, of five runs and among many claims; an interval from five numbers
# that allows for so many can hardly fit within the margin. So *inconclusive* speaks of this trial and not of the
# report, whose claim is confirmed on its own. A second trial is registered and running
# ([Protocols](../statistics/protocols)); this page will tell its result when it is complete.
# ```

# %%
claims.verdicts("early-stopping")

# %% [markdown]
# ## With a healthy recipe
#
# There the learning rate falls to nothing by the last epoch, so there is nothing to stop: how long to train is
# chosen beforehand, and more is another training. The difference above, of four times as many epochs, is that of two
# trainings which both came to their end.
#
# ## Live: the gap in small
#
# Eight patients, and then twice as many for half the epochs: the same number of steps. Which gap is wider?

# %%
train, held_out = datasets.split(datasets.source(), "val")
recipe = replace(
    PRESETS["modern"], channels=(4, 8, 16, 32), augment=(), schedule="constant"
)
for slices, epochs in ((16, 40), (32, 20)):
    recipe = replace(recipe, epochs=2 if SMOKE else epochs)
    run = fit(recipe, train[:slices], held_out, score_train=True, precision="fp32")
    for epoch in np.unique(np.linspace(1, recipe.epochs, 5).astype(int)):
        train_dice, held = (
            mean_dice(run.history[k][epoch - 1]) for k in ("dice_train", "dice")
        )
        print(
            f"{slices} slices, epoch {epoch:>2}: training {train_dice:.3f}, held out {held:.3f}, "
            f"gap {train_dice - held:.3f}"
        )

# %% [markdown]
# ## What to conclude
#
# The report's picture comes out again, on every fold: the training slices climb to near perfection, the held-out ones
# stay behind, and the gap between them is confirmed.
#
# What to read from it is another matter. A gap is no harm by itself: while it opens, the held-out slices still get
# better, and whoever stops where the curves part gives away what is still to come. Nor do they get worse afterwards. From
# epoch 140 to 700 they gain next to nothing and lose next to nothing, on each fold. That is what the report says; that the
# verdict is *inconclusive* comes from asking so many claims at once of five trainings. On its own this one would
# have been confirmed.
#
# So on these slices stopping early saves time, not Dice, and it is the held-out curve alone that says when. The epoch
# has to be chosen on other patients than those whose Dice is reported: picked on the same, the best epoch flatters.
#
# With the healthy recipe the gap is below a tenth on every fold at the end of 240 epochs (no slice is shown twice alike, which may be why), and
# four times the epochs bring a little more. There the question is not when to stop, but how long one is ready to wait.
#
# ## Try
#
# ```{exercise} The price of looking twenty times
# :label: stopping-looks
# A curve has levelled off and trembles with a standard deviation of 0.01. You look at 20 of its epochs and
# keep the best. How far above the level will it lie on average? What if neighbouring epochs are alike?
# ```
#
# ```{solution-start} stopping-looks
# :class: dropdown
# ```

# %%
rng = np.random.default_rng(0)
free = rng.normal(0, 0.01, (10_000, 20)).max(1).mean()
alike = np.repeat(rng.normal(0, 0.01, (10_000, 5)), 4, axis=1).max(1).mean()
print(f"twenty independent looks {free:+.3f}; in groups of four alike {alike:+.3f}")

# %% [markdown]
# Nearly two standard deviations; less when neighbours are alike, for then there are fewer chances. Either way
# it is a bonus of the looking, not of the network.
#
# ```{solution-end}
# ```
