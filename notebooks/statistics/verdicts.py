# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Verdicts
#
# An interval is the honest answer, but a reader wants a word. This book uses five, and each has to be
# earned.

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
from scipy import stats

from cmrseg import datasets, metrics, plots
from cmrtrial import claims, compare, records
from cmrtrial.statistics import MARGIN, verdict

plots.style()

# %% [markdown]
# ## Absence of evidence
#
# "We saw no significant difference, so it makes no difference" is the most common slip in reports like the
# one of 2020 {cite}`report2020`. A tiny experiment often misses a difference that is there, and sometimes it
# sees one that is not. To claim that two settings are *equally good* one needs an interval that is narrow and lies
# round zero.
#
# How near to zero is near enough? That is a matter of purpose, not of statistics, and it has to be said
# before one looks. Here it is the *margin* of 0.02 Dice. In pixels:

# %% tags=["hide-input"]
slices = datasets.load(datasets.source(), "labelled")
for name, area in zip(records.CLASSES, metrics.areas(slices.masks).mean(0)):
    print(
        f"{name:>3}: {area:.0f} pixels in a slice; at a Dice of 0.98 about {0.02 * area:.0f} of them are missed "
        "and as many added"
    )

# %% tags=["hide-input"]
examples = {
    "A is better": (0.050, 0.028, 0.072),
    "A is a little better": (0.011, 0.004, 0.018),
    "A is worse": (-0.040, -0.062, -0.018),
    "no difference that matters": (0.002, -0.013, 0.017),
    "who knows": (0.012, -0.016, 0.040),
}
figure, ax = plt.subplots(figsize=(7.5, 3))
plots.differences(ax, examples)
for y, (_, low, high) in enumerate(examples.values()):
    words = f"{verdict((low, high), 'greater')} / {verdict((low, high), 'equal')}"
    ax.annotate(words, (0.085, y), va="center", color=plots.GREY, fontsize=9.5)
ax.set(xlim=(-0.08, 0.15), xlabel="Dice, A minus B, 95 % interval (made up)")
ax.set_xticks([-0.06, -0.02, 0.02, 0.06]);
# %% [markdown]
# *Five made-up intervals; the band is the margin. On the right two verdicts on each: of the claim "A is
# better", and of the claim "A and B are equally good". The second line shows that both can hold: a
# difference can be sure and too small to matter.*
#
# | verdict | "A is better than B" | "A and B are equally good" |
# |---|---|---|
# | **confirmed** | the interval lies above zero | the interval lies inside the margin |
# | **contradicted** | it lies below zero | it lies outside the margin |
# | **equivalent** | it holds zero and lies inside the margin | |
# | **inconclusive** | everything else | everything else |
# | **not testable here** | the data cannot answer | the data cannot answer |
#
# A sixth word comes from no interval: **ambiguous** is a claim for which the report can be read in more than one way. It
# keeps its estimate and is counted apart.
#
# To ask that the interval lie inside the margin is the *two one-sided tests* procedure {cite}`schuirmann1987`: it rejects
# both that the difference is above $+0.02$ and that it is below $-0.02$. With a 95 % interval, settings that truly differ by the
# margin or more are called equal in at most 2.5 % of the cases, stricter than the customary 5 %.
#
# A few claims are about a share of runs: a network "learns nothing" if more than half of its runs end with next to
# nothing. The interval of such a share is Wilson's {cite}`wilson1927`, which suits small numbers. It takes the runs for
# independent, as tosses of a coin are; three seeds on each of five folds are not quite fifteen tosses.

# %%
for low, high in ((0.028, 0.072), (-0.013, 0.017), (-0.016, 0.040)):
    better, equal = (verdict((low, high), claim) for claim in ("greater", "equal"))
    print(f"{low:+.3f} to {high:+.3f}   better? {better:12}   equal? {equal}")

# %% [markdown]
# ## What can be shown at all?
#
# To place an interval inside a band of $\pm 0.02$, its half-width must be below 0.02 even if the settings
# are exactly equal. Our trainings have a known luck, so one can say beforehand what is within reach.

# %%
spread, df = compare.run_variance("replica")
patients = 0.05**2 / 60  # a guess: differences of patients scatter by 0.05
for seeds in (1, 3, 5, 10):
    se = (patients + 2 * spread / (5 * seeds)) ** 0.5
    half = stats.t.ppf(0.975, 20) * se
    room = max(0, MARGIN - half) / se
    power = max(0.0, 2 * stats.norm.cdf(room) - 1)
    print(
        f"{seeds:2} seeds on each fold: half-width {half:.3f}, "
        f"chance to show an equality that is true: {power:.0%}"
    )

# %% [markdown]
# With one seed on each fold even a true equality can hardly be shown with a narrow copy of the report's recipe. (The
# spread over patients in this cell is a guess.) A calculation like this, a *power analysis*, belongs before the first run.
# This trial made none, so that its claims of equality had little chance from the start. Where a claim is inconclusive,
# the page says so, and more seeds may settle it.
#
# ## Many questions at once
#
# An interval of 95 % is wrong one time in twenty. Ask forty questions, and about two answers will be wrong. The
# scoreboard at the end of part IV asks that many, so its intervals are widened *together*: with probability 95 %,
# *all* of them hold.

# %%
rng = np.random.default_rng(0)
rates = []
for questions in (1, 5, 20, 40):
    t = rng.standard_t(20, (20_000, questions))
    rates.append(((np.abs(t) > stats.t.ppf(0.975, 20)).any(1)).mean())
    print(
        f"{questions:2} questions without any true difference: "
        f"at least one false alarm in {rates[-1]:.0%} of the reports"
    )

# %% [markdown]
# The simplest cure divides 5 % by the number of questions (Bonferroni). Holm's goes from the surest answer to the least
# sure and divides by the number of questions that are left {cite}`holm1979`: it confirms all that Bonferroni does, and
# sometimes more. Both are too strict when the questions have something in common, as ours have: most compare with the
# same baseline, on the same patients. The *max-T* method {cite}`hothorn2008` draws the errors of all comparisons together, notes the largest in each
# draw, and takes the value that only 5 % of the largest exceed. {func}`cmrtrial.claims.family_level`
# does this with 10,000 draws; comparisons with few degrees of freedom keep their own, wider distribution.

# %% tags=["hide-input"]
alike = [
    compare.by_fold({"a": 0.1, "b": 0.2, "c": 0.4})
] * 20  # one question, asked twenty times
rng = np.random.default_rng(1)
apart = [
    compare.by_fold({f"{i}{k}": v for k, v in enumerate(rng.normal(size=5))})
    for i in range(20)
]
for name, family in (
    ("the same question twenty times", alike),
    ("twenty unrelated questions", apart),
):
    print(f"{name:31} each interval must have {claims.family_level(family):.2%}")
print(f"{'Bonferroni, twenty':31} each interval must have {1 - 0.05 / 20:.2%}")

# %% [markdown]
# ## What to conclude
#
# *No effect* is a claim like any other and needs evidence. State the margin first. Say how many questions
# were asked. And leave *inconclusive* in the vocabulary: it is the most common truth about a small
# experiment.
#
# ## Try
#
# ```{exercise} A judge of your own
# :label: verdicts-judge
# Fill in the function below: the verdict on "A is better than B", from the interval of A minus B. Four words
# are possible. The check says what is wrong, not only that something is.
# ```

# %% tags=["hide-input"]
def check_judge(mine):
    """What is wrong with a function that should judge "A is better than B"."""
    if mine(0.03, 0.07) is None:
        return "it returns nothing yet"
    cases = {
        (0.03, 0.07): "all of it lies above zero",
        (0.004, 0.018): "all of it lies above zero, however little",
        (-0.07, -0.03): "all of it lies below zero",
        (-0.018, -0.004): "all of it lies below zero, however little",
        (-0.01, 0.015): "it holds zero, and nothing in it matters",
        (-0.03, 0.05): "it holds zero, and much else",
        (-0.01, 0.05): "it holds zero; most of it above proves nothing",
        (-0.05, 0.01): "it holds zero; most of it below proves nothing",
    }
    for interval, words in cases.items():
        answer, right = mine(*interval), verdict(interval, "greater")
        if answer != right:
            return (
                f"{interval[0]:+} to {interval[1]:+} is {right}, not {answer}: {words}"
            )
    return "right"

# %%
def my_judge(low, high, margin=0.02):
    """confirmed, contradicted, equivalent or inconclusive."""
    return None  # your lines here


print("my_judge:", check_judge(my_judge))

# %% [markdown]
# ```{solution-start} verdicts-judge
# :class: dropdown
# ```

# %%
def my_judge(low, high, margin=0.02):
    """confirmed, contradicted, equivalent or inconclusive."""
    if low > 0:
        return "confirmed"
    if high < 0:
        return "contradicted"
    return "equivalent" if -margin < low and high < margin else "inconclusive"


print("my_judge:", check_judge(my_judge))

# %% [markdown]
# Nowhere does it ask for the mean. A judge who does will one day confirm a difference that may be none.
#
# ```{solution-end}
# ```
#
# ```{exercise} Another margin
# :label: verdicts-margin
# A clinic says that 0.01 Dice already matters. Which of the five made-up verdicts change?
# ```
#
# ```{solution-start} verdicts-margin
# :class: dropdown
# ```

# %%
for name, (_, *interval) in examples.items():
    for claim in ("equal", "greater"):
        before, after = (verdict(interval, claim, margin) for margin in (0.02, 0.01))
        print(f"{name:27} {claim:7} within 0.02: {before:13} within 0.01: {after}")

# %% [markdown]
# A smaller margin can turn equality into *inconclusive* or *contradicted*. Of verdicts about better and worse, the
# *confirmed* and the *contradicted* do not move; *equivalent* can become *inconclusive*.
#
# ```{solution-end}
# ```
