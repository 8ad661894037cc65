# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # More patients, paired
#
# Ten validation patients are few, and the next ten would have given another score. We have no more patients
# than sixty, but we can use all of them, and use them better.

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

from cmrseg import metrics, plots
from cmrtrial import compare, statistics
from cmrtrial.checks import seed_effect

plots.style()
A, B = "with scale", "baseline"
table = compare.runs("repairs")
a, b = (table[(table["setting"] == name) & (table["seed"] == 0)] for name in (A, B))

# %% [markdown]
# ## Everyone is held out once
#
# The 2020 report {cite}`report2020` trained on 50 patients and judged on 10. We deal the 60 into five
# *folds* of twelve. Five networks are trained; each has never seen one fold and is judged on it. So every
# patient gets one score from a network that did not know them: sixty scores instead of ten.
#
# As an example we take one question from part V: does it help the report's network when each slice is
# brought to mean 0 and standard deviation 1 (`with scale`), instead of grey levels from 0 to 255
# (`baseline`)?

# %%
one, other = compare.by_patient(a), compare.by_patient(b)
difference = one - other
print(f"{A}: mean Dice of {len(one)} patients {one.mean():.3f}")
print(f"{B}: mean Dice of {len(other)} patients {other.mean():.3f}")
print(f"patients for whom {A} did better: {(difference > 0).sum()}")

# %% tags=["hide-input"]
figure, (ax, hist) = plt.subplots(1, 2, figsize=(9.5, 4), width_ratios=(1, 1.3))
for left, right in zip(other, one):
    colour = plots.ACCENT if right > left else plots.CONTRAST
    ax.plot(
        [0, 1],
        [left, right],
        color=colour,
        linewidth=1,
        alpha=0.6,
        marker="o",
        markersize=3,
    )
ax.set_xticks([0, 1], [B, A])
ax.set(ylabel="Dice of a patient", xlim=(-0.2, 1.2))
hist.hist(difference, bins=25, color=plots.ACCENT, alpha=0.7)
hist.axvline(0, color=plots.GREY)
hist.axvline(difference.mean(), color=plots.CONTRAST)
hist.set(xlabel=f"difference of a patient, {A} minus {B}", ylabel="patients");
# %% [markdown]
# *Left: a line is a patient, purple where the score rises and orange where it falls. Hearts differ far more
# from each other than the two settings do. Right: the same sixty differences. What we want to know is where
# their mean lies (orange line), and how sure we are.*
#
# ## Pairs
#
# A hard heart is hard for both networks. If we compare the mean of one column with the mean of the other,
# this shared difficulty counts as noise, twice. If we subtract patient by patient, it is gone.

# %%
unpaired = stats.ttest_ind(one, other, equal_var=False).confidence_interval()
paired = metrics.mean_interval(difference.to_numpy())
print(f"two columns:  {unpaired.low:+.3f} to {unpaired.high:+.3f}")
print(f"pairs:        {paired[0]:+.3f} to {paired[1]:+.3f}")
print(f"correlation of the two columns: {np.corrcoef(one, other)[0, 1]:.2f}")

# %% [markdown]
# ## Sixty patients, but only five networks
#
# The second interval is still too sure. Twelve patients share one trained network. If that training was a
# lucky one, twelve differences rise together, and the interval takes them for twelve independent witnesses.
#
# How bad is it? We let chance play. In each game there is *no* true difference, each training has its luck
# (with the standard deviation that we measured between seeds), and each patient some noise. An honest 95 %
# interval would miss zero in 5 % of the games.

# %% tags=["hide-input"]
spread, df = compare.run_variance("replica")
noise = max(difference.var(ddof=1) - 2 * spread, 1e-5) ** 0.5
rng, games, rejects = (
    np.random.default_rng(0),
    4000,
    {"patients only": 0, "patients and runs": 0},
)
for _ in range(games):
    seed_effects = rng.normal(0, spread**0.5, (2, 5)).repeat(12, axis=1)
    d = seed_effects[0] - seed_effects[1] + rng.normal(0, noise, 60)
    low, high = metrics.mean_interval(d)
    rejects["patients only"] += not low < 0 < high
    low, high = statistics.paired_difference(d, 0, [(2 * spread / 5, df)]).interval()
    rejects["patients and runs"] += not low < 0 < high
print(
    f"standard deviation between seeds: {spread**0.5:.4f} Dice, from {df} degrees of freedom"
)
for name, count in rejects.items():
    print(
        f"{name:18} a difference is seen in {count / games:.1%} of the games; there is none"
    )

# %% [markdown]
# So the error has two parts. Let there be $n$ patients and five folds, with $S_A$ trainings of setting A on each fold and
# $S_B$ of setting B. With $s^2_\text{patient}$, the variance of the patients' differences, and $s^2_\text{run}$, the
# variance of a fold's mean Dice from seed to seed:
#
# $$\mathrm{SE}^2 = \frac{s^2_\text{patient}}{n} + \frac{s^2_\text{run}}{5\,S_A} + \frac{s^2_\text{run}}{5\,S_B}$$
#
# The first part shrinks with patients, the others with trainings. With one seed in each fold we cannot see
# the second part in the comparison itself, so it is measured elsewhere, on settings that were trained with
# several seeds, and *pooled* over the settings of one network: each network has a luck of its own, and a
# rival that scatters widely must not widen the intervals of the others. (That we pool by network and not over all was decided
# when the first rivals had been trained and had scattered widely.) What is assumed is that all settings of one network have
# the same luck. It is not always true: the narrowest U-Net of [Channels](../experiments/channels) scatters more. It
# has three seeds on each fold and so brings a luck of its own. Others that are still climbing at their
# last epoch may scatter, too, and were trained once: their intervals may be too narrow.
#
# An interval is the mean give or take some two standard errors; how many exactly depends on how well the variances
# are known. That is counted in *degrees of freedom*: a variance of $m$ values around their own mean has $m - 1$. The
# fewer, the wider the interval. For the sum of several variances there is a formula by Welch and Satterthwaite
# {cite}`satterthwaite1946,welch1947`. All this is {func}`cmrtrial.statistics.paired_difference`, a few lines.

# %% tags=["hide-input"]
estimate = compare.compare(a, b).difference
low, high = estimate.interval()
part = difference.var(ddof=1) / len(difference)
print(
    f"share of the patients in the squared error: {part / estimate.se**2:.0%}; of the runs: "
    f"{1 - part / estimate.se**2:.0%}"
)
print(f"{A} minus {B}: {estimate.mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 1.9))
plots.differences(
    ax,
    {
        "two columns": (difference.mean(), unpaired.low, unpaired.high),
        "pairs, patients only": (difference.mean(), *paired),
        "pairs, patients and runs": (estimate.mean, low, high),
    },
)
ax.set_xlabel(f"Dice, {A} minus {B}");

# %% [markdown]
# *One difference, three intervals. Pairing narrows the first to the second; honesty about the five networks
# widens it to the third, which this book uses. The grey band is ±0.02, within which a difference does
# not matter to us.*
#
# When some trainings of a setting never wake up (Dice near zero) and others do, luck is no longer a bell
# curve. There {func}`cmrtrial.compare.compare` falls back on five numbers, one for each fold, and the
# pages also report which fraction of the trainings collapsed.
#
# ## What the error leaves out
#
# *The choice of training patients.* Any two of the five networks share 36 of their 48 training patients, so the five
# are more alike than networks trained on patients of their own would be. How much a difference would change with
# other training patients is not in our error. A single cross-validation cannot estimate that without bias
# {cite}`bengio2004`; corrections exist, and they are approximations {cite}`nadeau2003`. So we say what is estimated: the
# difference between *these recipes on these 60 patients*, dealt into these five folds. It is no statement about other
# patients to train on.
#
# *The choice of the seed.* A setting that was trained once on each fold used the same seed on all five: the same first
# weights, the same order of slices. The formula counts five independent runs. Where a seed is good or bad on every fold
# alike, they are not. Settings with several seeds show how much that matters; a two-way analysis of variance compares the
# spread between seeds with what folds and chance would make of it:

# %% tags=["hide-input"]
several = {
    "U-Net, baseline": ("baseline", "baseline"),
    "U-Net, rate 0.003": ("architectures", "U-Net"),
    "U-Net, 1-2-4-8 channels": ("channels", "1-2-4-8"),
    "SegNet": ("architectures", "SegNet"),
    "AlexNet-style": ("architectures", "AlexNet"),
    "Ning et al.": ("architectures", "Ning"),
}
for label, (experiment, setting) in several.items():
    runs = compare.runs(experiment)
    f, p = seed_effect(runs[runs["setting"] == setting])
    print(f"{label:24} F of the seed {f:4.1f}, p = {p:.3f}")

# %% [markdown]
# For most of them no such effect is seen. For the narrowest U-Net and for Ning et al. it is large, and where a setting
# like them has one seed, its interval is too narrow. A second trial, which gives each fold seeds of its own, is
# registered and running ([Protocols](protocols)).
#
# ## What to conclude
#
# Hold out everyone once, compare patient by patient, and count the trainings as well as the patients. A single score
# on one test set does none of these, and the sources of variance are many {cite}`bouthillier2021`. How many patients an
# interval of a mean Dice asks for, and how often claims of being ahead may be chance, others have asked
# {cite}`eljurdi2025,christodoulou2025`.
#
# ## Try
#
# ```{exercise} An interval of your own
# :label: paired-interval
# Fill in the function below: the 95 % interval of the mean of some patients' differences. The check says what
# is wrong, not only that something is.
# ```

# %% tags=["hide-input"]
def check_interval(mine):
    """What is wrong with a function that should give a 95 % interval of a mean."""
    sample = np.random.default_rng(0).normal(0.02, 0.05, 12)
    if mine(sample) is None:
        return "it returns nothing yet"
    answer = np.asarray(mine(sample), float)
    if answer.shape != (2,) or not answer[0] < answer[1]:
        return f"give two numbers, the lower one first, not {answer}"
    return fault_of(answer.mean(), np.diff(answer)[0] / 2, sample)


def fault_of(middle, half, sample):
    """What is wrong with an interval round ``middle`` that reaches ``half`` to either side."""
    if not np.isclose(middle, sample.mean()):
        return f"its middle is {middle:.4f}, the mean is {sample.mean():.4f}"
    spread, factor = sample.std(ddof=1), stats.t.ppf(0.975, 11)
    error = spread / 12**0.5  # of the mean
    telltales = {
        factor * error: "right",
        factor * spread: "that is how patients scatter; their mean scatters less",
        factor
        * spread
        / 12: "it is the root of the number of patients, not the number",
        factor
        * error
        * (11 / 12) ** 0.5: "numpy divides by n unless it is told ddof=1",
        1.96 * error: "1.96 is for very many patients; ask Student's t for twelve",
        error: "that is one standard error to either side",
    }
    words = [w for wrong, w in telltales.items() if np.isclose(half, wrong, rtol=1e-3)]
    return (*words, f"it reaches {half:.4f}, it should reach {factor * error:.4f}")[0]

# %%
def my_interval(differences):
    """The lower and the upper end of the 95 % interval of the mean."""
    return None  # your lines here


print("my_interval:", check_interval(my_interval))

# %% [markdown]
# ```{solution-start} paired-interval
# :class: dropdown
# ```

# %%
def my_interval(differences):
    """The lower and the upper end of the 95 % interval of the mean."""
    n = len(differences)
    half = stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5
    return differences.mean() - half, differences.mean() + half


print("my_interval:", check_interval(my_interval))

# %% [markdown]
# The spread of the patients, divided by the root of their number, is the standard error of their mean; Student's t says
# how many of them to go to either side.
#
# ```{solution-end}
# ```
#
# ```{exercise} Where to spend an hour
# :label: paired-hour
# You may train ten more networks. Is it better to give each fold of both settings two seeds instead of one,
# or would twelve more patients (if you had them) help more? Use the two parts above.
# ```
#
# ```{solution-start} paired-hour
# :class: dropdown
# ```

# %%
patient, run = difference.var(ddof=1), spread
for name, n, seeds in (("now", 60, 1), ("two seeds", 60, 2), ("72 patients", 72, 1)):
    print(
        f"{name:12} standard error {(patient / n + 2 * run / (5 * seeds)) ** 0.5:.4f}"
    )

# %% [markdown]
# The larger of the two parts is worth the money. Note that part of the spread over patients is itself the
# luck of single runs, so more seeds lower the first part a little as well.
#
# ```{solution-end}
# ```
