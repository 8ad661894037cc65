# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does our ruler lie?
#
# Before a ruler measures anything, lay it against itself. We compare a setting with the very same setting,
# through the code that judges the report, and count how often it finds a difference.

# %% tags=["remove-cell"]
# In Colab this fetches the book and its package; anywhere else it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("cmrseg") is None:
    address = "https://github.com/cmr-segmentation-book/cmr-segmentation-book"
    subprocess.run(["git", "clone", "--depth", "1", address, "book"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "book"], check=True)
    sys.path.insert(0, "book")

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np

from cmrseg import comparisons, plots
from cmrseg.statistics import verdict

plots.style()

# %% [markdown]
# ## The A/A test
#
# The baseline was trained with five seeds on each of the five folds: 25 networks, all of one setting. For
# each fold we draw two of its five at random and call one A and the other B. That gives two complete
# experiments with a network per fold, just like a real comparison with one seed, except that we know the
# truth: there is no difference. A test of a *test* like this is called an A/A test.

# %%
table = comparisons.runs("baseline")
print(table.pivot(index="split", columns="seed", values="dice").round(3).to_string())
draws = comparisons.same_against_same()
false = {claim: np.mean([verdict((low, high), claim) in ("confirmed", "contradicted")
                         for low, high in zip(draws["low"], draws["high"])])
         for claim in ("greater", "equal")}
alone = ((draws["low_alone"] > 0) | (draws["high_alone"] < 0)).mean()
print(f"\n{len(draws)} random pairings")
print(f"our interval sees a difference in {false['greater']:.1%}: false verdicts")
print(f"an interval from the patients alone would in {alone:.1%}")

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, sharey=True)
ways = {"patients and runs (ours)": ("low", "high"), "patients only": ("low_alone", "high_alone")}
for ax, (name, (low, high)) in zip(axes, ways.items()):
    wrong = (draws[low] > 0) | (draws[high] < 0)
    bins = np.linspace(-0.06, 0.06, 49)
    ax.hist(draws["difference"], bins=bins, color=plots.GREY, alpha=0.4)
    ax.hist(draws["difference"][wrong], bins=bins, color=plots.SAID)
    ax.axvline(0, color=plots.GREY, linewidth=1)
    ax.set(title=f"{name}: {wrong.mean():.1%} false", xlabel="Dice, A minus A")
axes[0].set_ylabel("pairings");

# %% [markdown]
# *Differences between equal settings. Orange: pairings in which the interval misses zero, so that a
# difference would have been claimed. Left with both parts of the error, right with the spread over patients
# alone. The width of the grey hill is what one seed per fold can do by chance.*
#
# The test has a weakness that we should say: all pairings are dealt from the same 25 networks, so they are
# not independent, and the variance between seeds that the interval uses was measured on these very
# networks. And it compares a baseline with itself: it cannot see whether another setting has more luck than the baseline
# ([More patients, paired](paired) says which may). The rate is a check for gross errors, not a proof to the last percent. The simulation on the
# same page, where everything is drawn afresh, is the other half of the evidence.
#
# ## The same for the modern recipe

# %%
modern = comparisons.same_against_same("modern")
rate = ((modern["low"] > 0) | (modern["high"] < 0)).mean()
for name in ("replica", "modern"):
    spread, freedom = comparisons.run_variance(name)
    print(f"{name:8} standard deviation between seeds of a fold's Dice: {spread**0.5:.4f}")
print(f"modern: false verdicts in {rate:.1%} of {len(modern)} pairings")

# %% [markdown]
# ## What to conclude
#
# If a ruler finds differences between equal things much more often than it says, its findings are worth
# nothing. Ours errs on the careful side. Between equal settings the little that patients differ by is again the luck of
# the runs, and is counted twice; between different settings patients do differ. The price is that some small true
# differences stay *inconclusive*. The test costs no training beyond the seeds of the baseline; any report could carry
# one.
#
# ## Try
#
# ```{exercise} Spoil the ruler
# :label: ruler-spoil
# Instead of drawing two seeds in each fold, give A always the *best* of the five and B a random other one,
# as a report does that keeps its best run. What does the ruler say now?
# ```
#
# ```{solution-start} ruler-spoil
# :class: dropdown
# ```

# %%
rng, seen = np.random.default_rng(0), []
for _ in range(200):
    a, b = [], []
    for _, fold in table.groupby("split"):
        order = fold.sort_values("dice").index
        a.append(order[-1])
        b.append(rng.choice(order[:-1]))
    low, high = comparisons.compare(table.loc[a], table.loc[b]).difference.interval()
    seen.append(low > 0)
print(f"A is found better in {np.mean(seen):.0%} of the pairings; it is the same setting")

# %% [markdown]
# No formula protects against picking after looking.
#
# ```{solution-end}
# ```
