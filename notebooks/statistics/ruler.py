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
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "-e", "book"], check=True
    )
    sys.path.insert(0, "book")

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import numpy as np

from cmrseg import metrics, plots
from cmrtrial import compare
from cmrtrial.checks import aa_test
from cmrtrial.plans.timing import CLOCK_BASELINE, ROUNDS, timed
from cmrtrial.statistics import verdict

plots.style()

# %% [markdown]
# ## The A/A test
#
# The baseline was trained with five seeds on each of the five folds: 25 networks, all of one setting. For
# each fold we draw two of its five at random and call one A and the other B. That gives two complete
# experiments with a network per fold, just like a real comparison with one seed, except that we know the
# truth: there is no difference. A test of a *test* like this is called an A/A test.

# %% tags=["hide-input"]
table = compare.runs("baseline")
print(table.pivot(index="split", columns="seed", values="dice").round(3).to_string())
draws = aa_test()
false = {
    claim: np.mean(
        [
            verdict((low, high), claim) in ("confirmed", "contradicted")
            for low, high in zip(draws["low"], draws["high"])
        ]
    )
    for claim in ("greater", "equal")
}
alone = ((draws["low_alone"] > 0) | (draws["high_alone"] < 0)).mean()
print(f"\n{len(draws)} random pairings")
print(f"our interval sees a difference in {false['greater']:.1%}: false verdicts")
print(f"an interval from the patients alone would in {alone:.1%}")

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), sharex=True, sharey=True)
ways = {
    "patients and runs (ours)": ("low", "high"),
    "patients only": ("low_alone", "high_alone"),
}
for ax, (name, (low, high)) in zip(axes, ways.items()):
    wrong = (draws[low] > 0) | (draws[high] < 0)
    bins = np.linspace(-0.06, 0.06, 49)
    ax.hist(draws["difference"], bins=bins, color=plots.GREY, alpha=0.4)
    ax.hist(draws["difference"][wrong], bins=bins, color=plots.CONTRAST)
    ax.axvline(0, color=plots.GREY, linewidth=1)
    ax.set(title=f"{name}: {wrong.mean():.1%} false", xlabel="Dice, A minus A")
axes[0].set_ylabel("pairings");

# %% [markdown]
# *Differences between equal settings. Orange: pairings in which the interval misses zero, so that a
# difference would have been claimed. Left with both parts of the error, right with the spread over patients
# alone. The width of the grey hill is what one seed per fold can do by chance.*
#
# The test has a weakness that we should say: all pairings are dealt from the same 25 networks, so they are not
# independent, and the variance between seeds that the interval uses was measured on these very networks. And it
# compares a baseline with itself: it cannot see whether another setting has more luck than the baseline ([More
# patients, paired](paired) says which may). Nor can it see what one seed on all folds does, for it draws the seeds of each
# fold anew. The rate is a check for gross errors, not a proof to the last percent.
# The simulation in [More patients, paired](paired), where everything is drawn afresh, is the other half of the
# evidence.
#
# ## The same for the modern recipe

# %% tags=["hide-input"]
modern = aa_test("modern")
rate = ((modern["low"] > 0) | (modern["high"] < 0)).mean()
for name in ("replica", "modern"):
    spread, df = compare.run_variance(name)
    print(
        f"{name:8} standard deviation between seeds of a fold's Dice: {spread**0.5:.4f}"
    )
print(f"modern: false verdicts in {rate:.1%} of {len(modern)} pairings")

# %% [markdown]
# ## What is compared fold by fold
#
# Some quantities belong to a training and not to a patient; they are compared by fold, with five differences and
# Student's interval. The same test, for the training loss, for the *gap* (Dice of training slices minus Dice of
# held-out ones), for the epoch at which Dice first passes 0.5, and for the *falls* (how much Dice drops between
# scored epochs, all drops added up):

# %% tags=["hide-input"]
rng, folds = (
    np.random.default_rng(0),
    [fold.index.to_numpy() for _, fold in table.groupby("split")],
)
pairings = np.array(
    [[rng.choice(fold, 2, replace=False) for fold in folds] for _ in range(1000)]
)  # draw, fold, side
for endpoint in ("loss", "train-gap", "epoch>0.5", "falls"):
    values = table["record"].map(
        lambda record, endpoint=endpoint: compare.endpoint(record, endpoint)
    )
    first, second = values[pairings[..., 0].ravel()], values[pairings[..., 1].ravel()]
    differences = (first.to_numpy() - second.to_numpy()).reshape(
        len(pairings), len(folds)
    )
    ends = [
        compare.by_fold(dict(enumerate(row))).difference.interval()
        for row in differences
    ]
    print(
        f"{endpoint:9} a difference is seen in {np.mean([low > 0 or high < 0 for low, high in ends]):.1%}"
    )

# %% [markdown]
# ## And the clock?
#
# Some claims are about time, and the processor seconds of a training stand in its record. But the records were made
# over days. The same question: does the clock find a difference where there is none?

# %% tags=["hide-input"]
rows = table["seed"] == 0
days = np.log(table.loc[rows, "seconds"].to_numpy()) - np.log(
    table[~rows].groupby("split")["seconds"].mean().to_numpy()
)
low, high = np.exp(metrics.mean_interval(days))
print(
    f"seed 0, made a day later, against the other seeds: {np.exp(days.mean()):.2f} times ({low:.2f} to {high:.2f})"
)
again = compare.by_round(
    lambda n: timed(*CLOCK_BASELINE, n + len(ROUNDS)),
    lambda n: timed(*CLOCK_BASELINE, n),
)
low, high = np.exp(again.difference.interval())
print(
    f"within rounds, the same setting twice: {np.exp(again.difference.mean):.2f} times ({low:.2f} to {high:.2f})"
)

# %% [markdown]
# It does, between days. The setting is the same, the folds are the same, and the interval is sure of a difference
# that belongs to the machine, or to the code of that day. Comparing fold by fold does not help when one setting ran
# on a busy day and the other did not. Since then such claims are answered by short trainings in *rounds*: each
# setting once, one after the other, and then all again, so that whatever slows the machine slows a whole round. Ten
# rounds are the experiment `clock`, and within them the same setting agrees with itself. No verdict changed; the
# estimates did. The seconds in the tables and figures of other pages are those of the records: take them as rough.
#
# ## What to conclude
#
# If a ruler finds differences between equal things much more often than it says, its findings are worth nothing. For
# Dice, ours errs on the careful side: between equal settings the differences of patients are mostly the luck of the
# runs; our formula counts this luck once in the part of the patients and once in that of the runs, so the interval is
# too wide. Between different settings patients do differ. The price is that some small true differences stay
# *inconclusive*. The test costs no training beyond the seeds of the baseline; any report could carry one.
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
    low, high = compare.compare(table.loc[a], table.loc[b]).difference.interval()
    seen.append(low > 0)
print(
    f"A is found better in {np.mean(seen):.0%} of the pairings; it is the same setting"
)

# %% [markdown]
# No formula protects against picking after looking.
#
# ```{solution-end}
# ```
