# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The patient is the unit
#
# To know how good a network is, we keep some slices away from it and ask it about those. Which ones?
# "A fifth of them, at random" sounds fair. It is also an easy way to fool oneself.

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
import pandas as pd

from cmrseg import data, datasets, metrics, plots
from cmrtrial import compare, records
from cmrtrial.splits import split as hold_out

plots.style()
slices = datasets.load(datasets.source(), "labelled")
THEM, US = "#FE6100", plots.ACCENT  # dealt out at random; by patient

# %% tags=["hide-input"]
pair = {p: np.flatnonzero(slices.patients == p) for p in np.unique(slices.patients)}
pair = {p: both for p, both in pair.items() if len(both) == 2}
figure, axes = plots.panels(6, 2, size=1.75)
for k, both in enumerate([*pair.values()][:6]):
    for row, i in enumerate(both):
        plots.show(axes[6 * row + k], slices.images[i], slices.names[i])

# %% [markdown]
# *Six patients, one to a column: end-diastole above, end-systole below. The heart has moved. The chest
# wall, the liver, the brightness and the field of view have hardly changed. Whoever has seen the upper picture knows
# most of the lower one.*
#
# ## How alike is a pair?
#
# We compare every slice with every other, twice over. The pictures by the correlation of their grey
# levels. The masks by Dice, which is 1 when they are equal and 0 when they do not meet (the next page takes it
# apart): how well would the one do as an answer for the other?

# %% tags=["hide-input"]
n = len(slices)
alike = np.corrcoef(slices.images.reshape(n, -1))
flat = slices.masks.reshape(n, -1)
bits = np.stack([flat == c for c in (1, 2, 3)]).astype(np.float32)  # (3, n, pixels)
overlap, sizes = bits @ bits.transpose(0, 2, 1), bits.sum(2)
total = sizes[:, :, None] + sizes[:, None]
copied = np.where(total > 0, 2 * overlap / np.maximum(total, 1), np.nan)
copied = np.nanmean(copied, 0)  # Dice of every mask with every other, (n, n)

upper = np.triu(np.ones((n, n), bool), 1)
same = slices.patients[:, None] == slices.patients
figure, axes = plt.subplots(1, 2, figsize=(9.5, 2.9))
for ax, values in zip(axes, (alike, copied)):
    look = {"density": True, "bins": np.linspace(-0.4, 1, 57), "alpha": 0.75}
    ax.hist(values[upper & ~same], color=plots.GREY, label="two patients", **look)
    ax.hist(values[upper & same], color=THEM, label="one patient", **look)
    ax.set(yticks=[])
    ax.spines["left"].set_visible(False)
axes[0].set(xlabel="correlation of the two pictures", xlim=(-0.4, 1))
axes[1].set(xlabel="Dice of one mask as an answer for the other", xlim=(0, 1))
axes[0].legend(loc="upper left");

# %% [markdown]
# *Grey: two slices of different patients. Orange: the two slices of one patient, scaled to the same
# area. The pictures hardly overlap; and a sibling's mask, copied without a look at the picture, is a
# far better answer than a stranger's.*

# %%
for name, values in (("pictures, correlation", alike), ("masks, Dice", copied)):
    within, between = values[upper & same], values[upper & ~same]
    print(
        f"{name:>21}: within a patient {within.mean():.2f}, "
        f"between patients {between.mean():.2f}"
    )

# %% [markdown]
# So a network that only remembers already knows something about the sibling of what it has seen. That
# is *leakage*: knowledge of the held-out slices that reaches the training by a side door.
#
# ## What a random split does
#
# Here are two ways to hold out a fifth. One draws slices; one draws patients, and their slices come along. A fifth
# of the patients is called a *fold*: with five of them, everyone is held out once.

# %% tags=["hide-input"]
def held_out_names(split):
    """The names of the held-out slices of a split."""
    return set(hold_out(datasets.source(), split)[1].names)


figure, axes = plt.subplots(2, figsize=(9.5, 2.7))
ways = {"random0": ("dealt out at random", THEM), "fold0": ("by patient", US)}
for ax, (split, (title, colour)) in zip(axes, ways.items()):
    out = held_out_names(split)
    for column, both in enumerate(pair.values()):
        for row, i in enumerate(both):
            shade = colour if slices.names[i] in out else "#80808033"
            corner = (column + 0.08, 1 - row + 0.06)
            ax.add_patch(plt.Rectangle(corner, 0.84, 0.88, color=shade))
    ax.set(xlim=(0, len(pair)), ylim=(0, 2), xticks=[])
    ax.set_yticks([1.5, 0.5], ["ED", "ES"])
    ax.set_title(title, loc="left", color=colour)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)

# %% [markdown]
# *A column is a patient; coloured slices are held out, grey ones are trained on. Above, most coloured
# slices sit over or under a grey one: the sibling is in the training set.*

# %%
for way in ("random", "fold"):
    counts, siblings = [], []
    for k in range(data.FOLDS):
        train, held_out = hold_out(datasets.source(), f"{way}{k}")
        siblings.append(np.isin(held_out.patients, train.patients).sum())
        counts.append(len(held_out))
    print(
        f"{way:>6}: {sum(siblings)} of {sum(counts)} held-out slices "
        "have their sibling in training"
    )

# %% [markdown]
# ## One network, both ways
#
# Does it matter? We trained one recipe ten times on the real slices: five times with a fifth of the
# slices held out at random, five times with a fifth of the patients. Either way every slice is held out
# exactly once, so every slice has two scores, each from a network that was not shown it.

# %%
def scores(way):
    """Mean Dice of every slice when it was held out, with its patient and its split."""
    parts = [
        records.dice_table(record).assign(split=planned.split)
        for planned, record in compare.records("leakage")
        if planned.split.startswith(way)
    ]
    table = pd.concat(parts).set_index("name")
    table["dice"] = table[records.CLASSES].mean(axis=1)
    return table


random, fold = scores("random"), scores("fold").loc[scores("random").index]
gain = (random["dice"] - fold["dice"]).groupby(fold["patient"]).mean()
low, high = metrics.mean_interval(gain.to_numpy())

# %% tags=["hide-input"]
trained = random.groupby("patient")["split"].transform("nunique") > 1  # the sibling was
figure, (ax, strip) = plt.subplots(1, 2, figsize=(9.5, 4), width_ratios=(1.1, 1))
start = min(random["dice"].min(), fold["dice"].min()) - 0.03
ax.plot([start, 1], [start, 1], color=plots.GREY, linewidth=1, linestyle=":")
for group, colour, label in (
    (trained, THEM, "sibling in the training at random"),
    (~trained, plots.GREY, "sibling held out with it"),
):
    look = {"color": colour, "markersize": 4.5, "alpha": 0.75, "label": label}
    ax.plot(fold["dice"][group], random["dice"][group], "o", **look)
ax.set(xlabel="Dice, held out by patient", ylabel="Dice, held out at random")
ax.set(xlim=(start, 1), ylim=(start, 1))
ax.set_aspect("equal")
ax.legend(loc="upper left", bbox_to_anchor=(0, 1.17), borderaxespad=0)

strip.axvline(0, color=plots.GREY, linewidth=1, linestyle=":")
ranked = gain.sort_values()
strip.hlines(range(len(ranked)), 0, ranked, color=plots.GREY, linewidth=0.8, alpha=0.6)
strip.plot(ranked, range(len(ranked)), "o", color=THEM, markersize=3.5)
strip.plot([low, high], [-6, -6], color=US, linewidth=3, solid_capstyle="round")
strip.plot(gain.mean(), -6, "o", color=US, markersize=8)
strip.annotate(
    "mean, 95 % interval",
    (high, -6),
    (8, 0),
    textcoords="offset points",
    va="center",
    color=US,
    fontsize=9.5,
)
strip.set(xlabel="Dice at random minus Dice by patient")
strip.set(yticks=[], ylim=(-10, len(gain)))
strip.spines["left"].set_visible(False)

# %% [markdown]
# *Left: a dot is a slice; above the dotted line, the random split gave it the higher score. Right: the
# same differences as means of the patients, sorted, and below them the mean of all with its 95 % interval: a range
# made by a rule that catches the true mean in 95 of 100 such studies.*

# %%
print(
    f"mean Dice of {len(gain)} patients: at random {random['dice'].mean():.3f}, "
    f"by patient {fold['dice'].mean():.3f}"
)
print(f"difference {gain.mean():+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")
verdict = "better" if low > 0 else "worse" if high < 0 else "neither better nor worse"
print(f"by this interval the random split looks {verdict}")
for group, name in ((trained, "in training"), (~trained, "held out too")):
    change = (random["dice"] - fold["dice"])[group].mean()
    print(f"sibling {name:>12}: {group.sum():3} slices, difference {change:+.3f}")

# %% [markdown]
# Read these lines with care. Each side is five trainings, one for each fifth, and the interval knows only how
# patients differ; that the same training comes out differently each time is not in it. Part III shows how to put that
# in, and learns to say *inconclusive*. A gain where siblings were in training and none where they were not is what
# leakage would look like; five trainings a side cannot prove it. The last two lines ask where a difference comes
# from: if it came from siblings, the slices whose sibling was in training would gain, and the others would not. The
# two ways also differ in a second thing: at random, nearly every patient has some slice in training, so the network
# sees more different people.
#
# But whatever the size of the difference, the two numbers answer different questions. By patient: how
# well will it do on *a new person*? At random: how well does it do on another slice of people it has
# met? Nobody needs the second answer. And how much a network profits from having met them depends on the
# network, its training and the number of slices of each patient; it may be little here and much with
# whole volumes. The honest split costs nothing, so there is no reason to find out the hard way
# {cite}`varoquaux2023`.
#
# ## Two slices are not two witnesses
#
# The same pairs do a second kind of harm, and splitting by patient does not cure it. If a patient is
# hard at end-diastole, is the same patient hard at end-systole too?

# %%
pairs = fold.groupby("patient")["dice"].apply(list)
pairs = np.array([both for both in pairs if len(both) == 2])
together = np.corrcoef(pairs.T)[0, 1]
print(f"correlation of the two Dices within {len(pairs)} patients: {together:.2f}")

# %% tags=["hide-input"]
dice = fold["dice"].to_numpy()
patient_dice = metrics.patient_means(dice[:, None], fold["patient"].to_numpy())[:, 0]
samples = {
    f"{len(dice)} slices": dice,
    f"{len(patient_dice)} patients": patient_dice,
    "every slice, ten times": np.repeat(dice, 10),
}
rows = {name: (v.mean(), *metrics.mean_interval(v)) for name, v in samples.items()}
figure, ax = plt.subplots(figsize=(7.5, 1.9))
plots.intervals(ax, rows)
ax.set_xlabel("mean Dice, 95 % interval")
for name, (_, left, right) in rows.items():
    print(f"{name:>22}: {left:.3f} to {right:.3f}, width {right - left:.3f}")

# %% [markdown]
# *One mean, three intervals. The last row is nonsense: copying every slice ten times teaches
# us nothing, yet the formula believes ten times as many witnesses and narrows the interval threefold.
# The first row makes the same mistake in small.*
#
# With a correlation $r$ between the two slices of a patient, the interval from slices should have been
# wider by the factor $\sqrt{1 + r}$. At $r = 1$ the second slice adds nothing; at $r = 0$ it is worth a
# patient. So this book takes the mean of each patient first and lets *patients* be the sample, in every
# interval and every comparison.
#
# ## The rule
#
# In these data the images $2k-1$ and $2k$ belong to patient $k$, and patient $k$ is held out in fold
# $k$ modulo 5. Nothing is drawn, so nothing depends on a seed, and anyone gets the same folds.

# %%
train, held_out = datasets.split(datasets.source(), "fold3")
print("held out in fold 3:", *np.unique(held_out.patients))
print("patients on both sides:", len(np.intersect1d(train.patients, held_out.patients)))

# %% [markdown]
# {func}`cmrseg.datasets.split` knows this split and the others of the book, {func}`cmrseg.datasets.folds` makes the five
# folds of any slices. For a folder of your own, a table `patients.csv` says which image belongs to whom. In
# scikit-learn, `GroupKFold` keeps patients together when it is given `groups=slices.patients`; its plain `KFold` pays
# no heed to them (unshuffled and in this order of slices, pairs stay together by luck).
#
# ## What to conclude
#
# Ask of every split: can anything of a held-out patient have been seen in training? Ask of every
# interval: what is counted? Here the answer to both is *the patient*. If there were several scanners or
# hospitals, and the network were meant for a new one, the answer would be the hospital.
#
# ## Try
#
# ```{exercise} Folds of your own
# :label: patients-folds
# Fill in the function below: a fold, 0 to 4, for every slice. It is given the patient of each slice, in any
# order. The check says what is wrong, not only that something is.
# ```

# %% tags=["hide-input"]
def check_folds(mine):
    """What is wrong with a function that should give each slice a fold."""
    people = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 61), 2))
    if mine(people) is None:
        return "it returns nothing yet"
    folds = np.asarray(mine(people))
    if folds.shape != people.shape or not np.isin(folds, range(5)).all():
        return f"give one number from 0 to 4 for each of the {len(people)} slices"
    return (
        faults_of(folds, people)
        if (folds == mine(people)).all()
        else "asked again, it answers otherwise"
    )


def faults_of(folds, people):
    """The first fault of folds that have the right form."""
    torn = [p for p in np.unique(people) if np.ptp(folds[people == p])]
    if torn:
        return f"{len(torn)} patients are in two folds, patient {torn[0]} for one"
    sizes = np.bincount(folds, minlength=5)
    return (
        "right"
        if np.ptp(sizes) <= 2
        else f"the folds differ in size: {sizes.tolist()} slices"
    )

# %%
def my_folds(patients):
    """The fold, 0 to 4, of every slice; ``patients`` says whose slice it is."""
    return None  # your lines here


print("my_folds:", check_folds(my_folds))

# %% [markdown]
# ```{solution-start} patients-folds
# :class: dropdown
# ```

# %%
def my_folds(patients):
    """The fold, 0 to 4, of every slice; ``patients`` says whose slice it is."""
    people, position = np.unique(patients, return_inverse=True)
    return position % 5


print("my_folds:", check_folds(my_folds))

# %% [markdown]
# `patients % 5` is right too, as long as the patients are numbered without gaps; `position` counts them
# afresh. `np.arange(len(patients)) % 5` is the classic slip: equal folds, torn patients.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} The odds
# :label: patients-odds
# A fifth of 120 slices, two of each patient, is drawn at random. What is the chance that a held-out
# slice has its sibling in training? Work it out, then simulate.
# ```
#
# ```{solution-start} patients-odds
# :class: dropdown
# ```

# %%
rng = np.random.default_rng(0)
shares = []
for _ in range(2000):
    out = rng.permutation(120) < 24
    shares.append(1 - out[np.flatnonzero(out) ^ 1].mean())  # i ^ 1 is the sibling of i
print(f"worked out {96 / 119:.4f}, simulated {np.mean(shares):.4f}")

# %% [markdown]
# Take one held-out slice. Its sibling is any of the 119 others with equal chance, and 96 of those are
# in training: 96/119. With ten slices of each patient it would be all but certain that some sibling is.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Other side doors
# :label: patients-doors
# The 2020 report {cite}`report2020` kept both slices of a patient together: 1 to 100 to train on,
# 101 to 120 to validate, 121 to 200 hidden. It chose its settings and the number of epochs on the 20
# validation slices, and reported the best Dice on these. What leaked, and through which door?
# ```
#
# ```{solution} patients-doors
# :class: dropdown
# No picture leaked, but choices did. Of many epochs and many settings, the one that suited these ten
# patients best was kept, and then the same ten patients were asked how good it is. The more one has
# tried, the more of the best score is luck. The cure is a third set that is looked at once: here, the
# hidden test slices. How large such a bonus is can be measured, and [part III](../statistics/again) does so.
# ```
