# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train it again
#
# Two settings were trained, each once. One scored 0.847, the other 0.844. Is the first one better? Before
# we compare two settings, let us compare a setting with itself.

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
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np

from cmrseg import datasets, metrics, plots
from cmrseg.config import PRESETS
from cmrseg.record import mean_dice
from cmrseg.train import fit, score
from cmrtrial import compare, records

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
REPORT = records.reported_numbers()

# %% [markdown]
# ## Live: one recipe, three seeds
#
# A training uses chance in three places: the weights it starts from, the order of the slices, and how each
# slice is varied. A *seed* fixes all three. Here is one small recipe with three seeds; everything else is
# the same, to the last pixel.

# %%
train, held_out = datasets.split(datasets.source(), "val")
recipe = replace(PRESETS["modern"], channels=(4, 8, 16), epochs=2 if SMOKE else 15)
dice = []
for seed in (0, 1, 2):
    run = fit(replace(recipe, seed=seed), train[:48], precision="fp32")
    dice.append(mean_dice(score(run, held_out)))
    print(f"seed {seed}: Dice {dice[-1]:.3f}")
print(f"largest difference: {max(dice) - min(dice):.3f}")

# %% [markdown]
# ## Ten times on the report's own split
#
# The 2020 report {cite}`report2020` trained most settings once, on 100 slices, and compared them on 20. We
# took its recipe (the narrower `replica` of it) and trained it ten times on the same split. Nothing was
# changed but the seed.

# %% tags=["hide-input"]
table = compare.runs("noise-floor")
last, best = table["dice"].to_numpy(), table["dice_best"].to_numpy()
figure, (ax, end) = plt.subplots(1, 2, figsize=(9.5, 3.6), width_ratios=(2.2, 1))
for record in table["record"]:
    curve = records.curve(record)
    ax.plot(curve["epoch"], curve["mean"], color=plots.ACCENT, linewidth=1.2, alpha=0.6)
ax.set(xlabel="epoch", ylabel="Dice on the 20 validation slices", ylim=(0, 0.92))
for x, (name, values) in enumerate((("last", last), ("best-looking", best))):
    end.plot(
        np.full(len(values), x),
        values,
        "o",
        color=(plots.ACCENT, plots.CONTRAST)[x],
        alpha=0.6,
    )
    end.plot([x - 0.2, x + 0.2], [values.mean()] * 2, color=plots.GREY)
for a, b in zip(last, best):
    end.plot([0, 1], [a, b], color=plots.GREY, linewidth=0.7, alpha=0.5)
end.set(xlim=(-0.5, 1.5), ylabel="Dice")
end.set_xticks([0, 1], ["last\nepoch", "best-looking\nepoch"]);

# %% [markdown]
# *Left: ten trainings of one setting. Nearly all sit at zero for a while and wake at much the same time; the one that is
# awake from the start ends no higher for it. Right: where they ended, and the highest point each one passed on its way; the lines
# join a training's two numbers.*

# %% tags=["hide-input"]
pairs = np.abs([a - b for a, b in combinations(last, 2)])
print(
    f"last epoch: mean {last.mean():.3f}, standard deviation {last.std(ddof=1):.3f}, "
    f"from {last.min():.3f} to {last.max():.3f}"
)
print(
    f"two of the ten differ by {pairs.mean():.3f} on average, and in one pair of ten "
    f"by more than {np.quantile(pairs, 0.9):.3f}"
)

# %% [markdown]
# That is the *noise floor* of this split: a difference that means nothing. Now the report's own tables.
# Each line below is a difference it drew a conclusion from, or saw none in, and the share of our pairs of
# *equal* settings that differ by at least as much.

# %% tags=["hide-input"]
activation, topology = REPORT["activation"]["dice"], REPORT["topology"]["dice"]
narrow, optimiser = REPORT["learning_rate_narrow"]["dice"], REPORT["optimiser"]["dice"]
differences = {
    "LeakyReLU and ReLU": activation["leaky-relu"] - activation["relu"],
    "ReLU and Tanh": activation["relu"] - activation["tanh"],
    "learning rates 0.001 and 0.005": narrow["0.001"] - narrow["0.005"],
    "AdamW and Adam": optimiser["adamw"] - optimiser["adam"],
    "5 and 4 blocks of 2": topology["5"][0] - topology["4"][0],
    "5 and 2 blocks of 2": topology["5"][0] - topology["2"][0],
    "5 blocks of 4 and of 3": topology["5"][2] - topology["5"][1],
}
MEANS_OF = {"learning rates 0.001 and 0.005": 7}  # runs; the others are single ones
for name, difference in differences.items():
    share = (pairs / MEANS_OF.get(name, 1) ** 0.5 >= abs(difference)).mean()
    print(f"{name:31} {difference:+.3f}   {share:4.0%} of equal pairs differ as much")

# %% [markdown]
# A caution about these shares: they come from our narrower copy of the report's network, so they show the order of
# magnitude on this split, not the report's own noise. The report did average seven runs for one of its tables, the
# narrow grid of learning rates. A mean of seven is steadier by the factor $\sqrt 7$; that is counted in, and is why
# its share is so much smaller.
#
# ## The bonus of looking
#
# The report gives the *best* Dice on its validation slices; of which epoch and of which training it does not say.
# Chance helps whoever picks the maximum: the right-hand panel shows the same ten trainings, and none can look worse
# by its best epoch than by its last, and most look better.

# %%
bonus = best - last
low, high = metrics.mean_interval(bonus)
print(
    f"best-looking minus last: {bonus.mean():+.3f} on average "
    f"(95 % interval {low:+.3f} to {high:+.3f}), at most {bonus.max():+.3f}"
)
print(
    f"best of all ten, by its best-looking epoch: {best.max():.3f}; "
    f"mean of the ten at the last epoch: {last.mean():.3f}"
)

# %% [markdown]
# The same network, the same ten patients: the whole gain is in the reporting. The cure is cheap. Decide
# *before* which epoch counts (here: always the last), and choose settings on other patients than those
# whose score you report.
#
# ## More seeds do not make more patients
#
# Ten trainings tell us how much training varies. They cannot tell how much *patients* vary: all ten were
# asked about the same ten people. Two 95 % intervals of the same mean Dice, each blind to the other chance:

# %%
patient_dice = compare.by_patient(table).to_numpy()
low, high = metrics.mean_interval(patient_dice)
seeds = metrics.mean_interval(last)
print(f"if only seeds varied:    {seeds[0]:.3f} to {seeds[1]:.3f}")
print(
    f"if only patients varied: {low:.3f} to {high:.3f} ({len(patient_dice)} patients)"
)

# %% [markdown]
# Both kinds of chance are at work in every score, and with ten patients the second is the larger. The next
# page puts the two together.
#
# ## What to conclude
#
# A number from one training is a draw from a distribution. Show several draws, or say that there was one. A
# difference is news when it is large beside the differences between equal things; and the best epoch of the
# best run is not a measurement of anything.
#
# ## Try
#
# ```{exercise} How many seeds?
# :label: again-seeds
# Two settings are each trained with $S$ seeds on this split, and their means are compared. How large must
# $S$ be for chance alone to make a difference of 0.01 only one time in twenty? Use the standard deviation
# above, and mind that two means vary, not one.
# ```
#
# ```{solution-start} again-seeds
# :class: dropdown
# ```

# %%
sd = last.std(ddof=1)
print(f"S = 2 (1.96 sd / 0.01)^2 = {2 * (1.96 * sd / 0.01) ** 2:.0f}")

# %% [markdown]
# The difference of two means of $S$ has the standard error $\mathrm{sd}\sqrt{2/S}$, and 1.96 of these must
# be below 0.01. Few people train that often, so few can see so small a difference.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} The maximum of noise
# :label: again-maximum
# A report tries 60 settings which are all equally good, each once, and gives the best. By how much is it
# too high on average? Simulate with the standard deviation above.
# ```
#
# ```{solution-start} again-maximum
# :class: dropdown
# ```

# %%
draws = np.random.default_rng(0).normal(0, sd, (10_000, 60))
print(f"{draws.max(1).mean():+.3f}")

# %% [markdown]
# More than two standard deviations, for nothing. This is the usual way in which a leaderboard moves.
#
# ```{solution-end}
# ```
