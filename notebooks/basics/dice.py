# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Dice and its traps
#
# Almost every number in this book is a *Dice*: one number between 0 and 1 that says how well two
# masks agree. 0.80, for instance. What does a mask with a Dice of 0.80 look like?

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
from scipy.ndimage import distance_transform_edt, gaussian_filter, shift

from cmrseg import datasets, metrics, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")
both = train + val
areas = metrics.areas(both.masks)

# %% tags=["hide-input"]
lv = areas[: len(train) : 2, 2]
chosen = 2 * np.argsort(lv)[len(lv) // 2]  # the ED slice with the median left ventricle
image, truth = train.images[chosen], train.masks[chosen] == 3

depth = distance_transform_edt(truth) - distance_transform_edt(~truth)  # > 0 inside
y, x = np.indices(truth.shape)
cy, cx = y[truth].mean() + 0.3, x[truth].mean() + 0.2
blurred = gaussian_filter(truth.astype(float), 2)
grain = gaussian_filter(np.random.default_rng(3).normal(size=truth.shape), 1)
grain /= grain.std()

damages = {  # each one the worse, the larger its t
    "shifted": lambda t: shift(blurred, (-0.4 * t, 0.9 * t), order=1) > 0.5,
    "too small": lambda t: blurred > 0.5 + t / 40,
    "with a hole": lambda t: truth & (np.hypot(y - cy, x - cx) > t),
    "with an island": lambda t: truth | (np.hypot(y - 82.3, x - 82.2) < t),
    "ragged": lambda t: depth > t * grain,
}


def dice_of(mask):
    """Dice of one mask against the true left ventricle."""
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def tune(damage, goal=0.8):
    """The mask of a kind of damage whose Dice is nearest to the goal."""
    masks = [damage(t) for t in np.linspace(0.02, 20, 800)]
    return min(masks, key=lambda mask: abs(dice_of(mask) - goal))


wrong = {name: tune(damage) for name, damage in damages.items()}
figure, axes = plots.panels(3, 2, size=2.75)
for ax, (name, mask) in zip(axes, {"the true left ventricle": truth, **wrong}.items()):
    plots.overlay(ax, image, 3 * mask, name, alpha=0.6)
    ax.contour(truth, levels=[0.5], colors="white", linewidths=1.2)
    hd95 = metrics.hd95(mask[None], truth[None], [1]).item()
    surface = metrics.surface_dice(mask[None], truth[None], 1, [1]).item()
    scores = f"Dice {dice_of(mask):.2f}\nHD95 {hd95:.1f} px, surface {surface:.2f}"
    place = {"transform": ax.transAxes, "ha": "center", "va": "top"}
    ax.text(0.5, -0.04, scores, fontsize=10, **place)

# %% [markdown]
# *One true mask, in a white outline, and five wrong ones. A doctor would shrug at one of them and be
# alarmed by another. Their Dice is the same. What tells them apart stands beneath: HD95 is the distance
# within which 95 % of the boundary lies from the other one, surface Dice the part of the boundary that
# is right to within one pixel.*
#
# None of these numbers ranks the five as a doctor would: to surface Dice, the mask that is a little too small all
# round is the worst of all. So Dice is one question among several. It is still a better question than the first that
# comes to mind.
#
# ## Accuracy lies
#
# The obvious score is *accuracy*: the part of all pixels that got the right label. Below, three answers
# that no one would call good, scored on the validation slices.

# %%
exchanged = np.array([0, 3, 2, 1], np.uint8)[val.masks]
answers = {
    "background everywhere": np.zeros_like(val.masks),
    "the two ventricles exchanged": exchanged,
    "the truth, 4 pixels too far right": np.roll(val.masks, 4, axis=2),
}
for name, pred in answers.items():
    accuracy = (pred == val.masks).mean()
    dice = metrics.mean(metrics.dice(pred, val.masks))
    print(f"{name:>34}: accuracy {accuracy:.2f}, mean Dice {dice:.2f}")

# %% [markdown]
# Accuracy pays for background, and background is nearly everything. To see the heart, a score has to
# leave out the pixels that both masks call background.
#
# ## Dice in three lines
#
# On [Pixels and a first Dice](../build/pixels_and_a_first_dice) these lines were built and checked; what follows rests
# on them, so here they are again. Count the pixels on which the masks agree that the class is there. Divide by the mean of their sizes.
# In 1945 Lee Dice, an ecologist, asked in this way how often two species share a place
# {cite}`dice1945`:
#
# $$D = \frac{2\,|A \cap B|}{|A| + |B|}$$

# %%
a, b = wrong["shifted"], truth
overlap = (a & b).sum()
size = a.sum() + b.sum()
print("by hand:", 2 * overlap / size)
print("cmrseg: ", metrics.dice(a[None], b[None], [1]).item())

# %% [markdown]
# Some papers report the *intersection over union* instead, also called Jaccard: the overlap divided by
# the area that either mask covers. It is the same knowledge on another scale: $J = D / (2 - D)$. Of two
# masks, both scores prefer the same one.

# %% tags=["hide-input"]
d = np.linspace(0, 1, 101)
figure, ax = plt.subplots(figsize=(3.4, 3.0))
ax.plot(d, d, ":", color=plots.GREY, linewidth=1.4)
ax.plot(d, d / (2 - d))
for name, mask in wrong.items():
    ax.plot(
        dice_of(mask),
        (mask & truth).sum() / (mask | truth).sum(),
        "o",
        color=plots.CLASS_COLOURS["LV"],
        alpha=0.6,
    )
ax.set(xlabel="Dice", ylabel="intersection over union")
ax.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
ax.set_aspect("equal");

# %% [markdown]
# *The dots are the five masks from above, in one place. Between the ends the same mask gets a smaller
# number; so ask which of the two scores it is before you compare with a paper.*
#
# ## A pixel is dear to the small
#
# Shift a mask by a single pixel. Hardly anyone would see it. What does it cost?

# %% tags=["hide-input"]
radii = np.linspace(2, 26, 100)
h = 1 / (2 * radii)
lens = 2 / np.pi * (np.arccos(h) - h * np.sqrt(1 - h**2))  # two discs, 1 px apart
moved = metrics.dice(np.roll(both.masks, 1, axis=2), both.masks)
figure, ax = plt.subplots(figsize=(7.5, 3.7))
for c, (name, colour) in enumerate(plots.CLASS_COLOURS.items()):
    look = {"color": colour, "markersize": 4, "alpha": 0.6, "label": name}
    ax.plot(areas[:, c], moved[:, c], "o", **look)
    ax.axvline(np.median(areas[:, c]), ymax=0.05, color=colour, linewidth=3)
ax.plot(np.pi * radii**2, lens, color=plots.GREY, label="a disc")
ax.set(xscale="log", xlim=(18, 2300), ylim=(0.55, 1))
ax.set(xlabel="area of the structure, pixels", ylabel="Dice after a shift by one pixel")
ax.set_xticks([20, 50, 100, 200, 500, 1000, 2000], [20, 50, 100, 200, 500, 1000, 2000])
ax.minorticks_off()
ax.legend(loc="lower right", bbox_to_anchor=(1, 0.06));

# %% [markdown]
# *Every dot is a true structure against itself, one pixel further right; ticks at the bottom mark the
# median area of each class. The smaller, the dearer. And the muscle lies below the line of the discs:
# a ring has two boundaries, and a thin ring is nearly all boundary.*

# %%
for c, name in enumerate(plots.CLASS_COLOURS):
    middle = np.nanmedian(areas[:, c])
    print(
        f"{name:>3}: median area {middle:3.0f} pixels, one pixel of shift costs "
        f"{1 - np.nanmean(moved[:, c]):.3f} Dice on average"
    )

# %% [markdown]
# For a disc of radius $r$ the cost is about $2 / \pi r$. So when the Dice of one class is lower than of
# another, the network need not be worse at it. The class may be smaller, or thinner. A cavity at
# end-systole is small, and for that reason alone its Dice tends to be lower than at end-diastole.
#
# Try it: move the prediction, make both smaller, let one vanish, then both.
#
# <div class="explorer" data-explorer="dice" aria-label="Dice of two discs">On the book's web page two discs
# stand here, to be moved and scaled. Two equal discs of radius 20, one moved by 6 pixels, have a Dice of 0.81;
# of radius 8, moved as far, 0.54.</div>
#
# ## Nothing against nothing
#
# Some slices miss the right ventricle. Its mask is empty, and if the network agrees, Dice is
# $0/0$. It is the best answer there can be, and the formula has no number for it.

# %%
empty = np.flatnonzero(areas[:, 0] == 0)
names = [both.names[i] for i in empty]
print("slices without a right ventricle:", *(names or ["none"]))
if not len(empty):  # then we take one out, to see what happens
    empty, both.masks[0][both.masks[0] == 1] = np.array([0]), 0

# %% [markdown]
# Three rules are in use: leave the slice out, call it 1, or call it 0. To see what they do, here are
# six slices, one without a right ventricle, and a made-up prediction: every true mask pushed by one to
# four pixels along both axes.

# %% tags=["hide-input"]
rng = np.random.default_rng(1)
present = np.flatnonzero((areas > 0).all(1))
before, after = present[present < empty[0]], present[present > empty[0]]
six = both[np.r_[before[-3:], empty[0], after][:6]]
pushes = rng.integers(1, 5, (6, 2)) * rng.choice([-1, 1], (6, 2))
pred = np.stack([np.roll(mask, push, (0, 1)) for mask, push in zip(six.masks, pushes)])
table = metrics.dice(pred, six.masks)

figure, axes = plots.panels(6, size=1.75)
for ax, picture, mask, guess, name in zip(axes, six.images, six.masks, pred, six.names):
    plots.overlay(ax, picture, guess, name, alpha=0.4)
    plots.contours(ax, mask, width=1.2)

# %% [markdown]
# *True outlines, and the made-up prediction laid over in colour. One of the six has no blue part.*

# %%
stray = pred.copy()
without = ~(six.masks == 1).any((1, 2))
stray[without, 5, 5] = 1  # one wrong pixel
rules = {"left out": np.nan, "1": 1.0, "0": 0.0}
print("mean RV Dice       nothing predicted   one pixel predicted")
for name, value in rules.items():
    quiet, loud = (metrics.dice(p, six.masks, empty=value)[:, 0] for p in (pred, stray))
    print(f"empty is {name:>8} {np.nanmean(quiet):13.3f} {np.nanmean(loud):19.3f}")

# %% [markdown]
# One slice in six, and the rule alone moves the mean: no pixel has changed. Under the rule *0* a
# perfect answer is punished; under *1* a slice in which there was nothing to find lifts the mean,
# and a class that is often absent looks easy. Whatever the rule, one stray pixel turns the slice into a
# zero.
#
# The Dice of the 2020 report {cite}`report2020` had no rule for this case. In this book
# an empty class that is predicted empty is *left out and counted*; one that is predicted all the same
# scores 0. {func}`cmrseg.metrics.dice` takes the rule as an argument, so a reader can have another.
#
# ## The order of the mean
#
# A table of slices by classes can be boiled down to one number in three orders. Down the columns first,
# then across: the mean of the class means. Across the rows first, then down: the mean of the slice means.
# Or all cells at once. As long as every cell is filled, the three agree.

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 3.7))
rows, columns = np.nanmean(table, 1), np.nanmean(table, 0)
ax.imshow(table, cmap=plots.HEAT, vmin=0, vmax=1, aspect=0.5)
cells = [(i, j, table[i, j]) for i in range(6) for j in range(3)]
cells += [(i, 3.1, value) for i, value in enumerate(rows)]
cells += [(6.2, j, value) for j, value in enumerate(columns)]
for i, j, value in cells:
    inside = i < 6 and j < 3
    text = "0/0" if np.isnan(value) else f"{value:.2f}"
    shade = "#FE6100" if np.isnan(value) else plots.ink(value) if inside else plots.ACCENT
    ax.text(j, i, text, ha="center", va="center", color=shade)
for j, name in zip((0, 1, 2, 3.1), (*plots.CLASS_COLOURS, "mean of\nthe slice")):
    ax.text(j, -0.65, name, ha="center", va="bottom")
ax.set(xlim=(-0.5, 3.6), ylim=(6.6, -1.6), xticks=[])
ax.set_yticks([*range(6), 6.2], [*six.names, "mean of the class"])
ax.tick_params(length=0)
ax.spines[:].set_visible(False)

# %% [markdown]
# *Six slices, three classes, and one cell without a number. To the mean of their own slice its two neighbours count
# half each instead of a third; to the means of their classes they count a sixth each, like the cells above and below
# them.*

# %%
print(f"mean of the class means: {np.nanmean(np.nanmean(table, axis=0)):.4f}")  # metrics.mean
print(f"mean of the slice means: {np.nanmean(np.nanmean(table, axis=1)):.4f}")
print(f"mean of all cells:       {np.nanmean(table):.4f}")

# %% [markdown]
# That is all the difference there is, and it shows in the decimals that tables print. This book takes the classes last: a class that
# is often absent then counts as much as the others. Where patients are compared, each patient's mean is taken first, in the same way: of a
# class over the two slices, then over the classes.
#
# ## The trap of one number
#
# Two made-up methods on the validation slices. One is off by a pixel or two on every slice, one is
# perfect on most and finds nothing at all on some.

# %% tags=["hide-input"]
def slice_means(pred):
    """Mean Dice over the classes of each validation slice."""
    return metrics.per_class(metrics.dice(pred, val.masks).T)


one, two = (slice_means(np.roll(val.masks, pixels, axis=2)) for pixels in (1, 2))
lost = round(len(val) * (1 - two.mean()))
mixes = [np.where(np.arange(len(val)) < n, one, two) for n in range(len(val))]
careful = min(mixes, key=lambda mix: abs(mix.mean() - (1 - lost / len(val))))
bold = slice_means(np.where(np.arange(len(val))[:, None, None] < lost, 0, val.masks))
bold = np.random.default_rng(5).permutation(bold)
figure, axes = plt.subplots(1, 2, figsize=(8.5, 2.8), sharey=True)
methods = {"a little wrong": careful, "perfect or lost": bold}
for ax, (name, scores) in zip(axes, methods.items()):
    ax.vlines(range(len(val)), 0, scores, color=plots.GREY, linewidth=1, alpha=0.5)
    ax.plot(scores, "o", markersize=5)
    ax.axhline(scores.mean(), color="#FE6100", linewidth=1.6)
    ax.set(title=f"{name}: mean Dice {scores.mean():.3f}", xlabel="slice", xticks=[])
axes[0].set_ylabel("Dice");

# %% [markdown]
# *The same mean, or nearly so. A doctor can work with the left method after a glance; the right one
# needs someone to look at every slice, because nothing tells in advance which are lost.*
#
# So look for three things beside a mean: the classes, the worst cases and a distance. [Where it
# fails](../conclusions/failures) shows all three, [Look before you score](looking) the first two; of the scores the
# trial of part IV uses Dice alone, and shows the patients behind each mean. Two long papers collect such pitfalls
# {cite}`reinke2024` and advise what to measure for which task {cite}`maierhein2024`; for masks like ours, an overlap
# together with a boundary score. Surface Dice is described in {cite}`nikolov2021`.
#
# One trap remains, in the word *mean* itself: the mean over what? Dice can be taken of each slice, as
# here, or of all slices of a patient at once, as the ACDC challenge does with its volumes
# {cite}`bernard2018`. There a small slice near the tip of the heart hardly counts; here every slice
# counts the same. That alone forbids setting our numbers beside those of the challenge.
#
# ## What to conclude
#
# Dice sees the heart where accuracy sees the background. It does not see *where* the error lies, it is
# stern with small and thin structures, it has no answer for an empty class, and its mean hides the
# worst. A Dice is worth reading when it comes with its classes, its rule for empty ones, its unit and a
# distance.
#
# ## Questions
#
# Three questions to check yourself. Choose an answer and open it: it says whether it is right, and why.
#
# **1.** A network labels pixels with an accuracy of 0.95. How good is it?
#
# <details class="answer"><summary>Good: one pixel in twenty is wrong.</summary><p>No. If 19 of 20 pixels
# are background, a network that finds nothing reaches the same.</p></details>
# <details class="answer"><summary>One cannot say.</summary><p>Yes. Accuracy pays for background. Ask for
# the Dice of each class.</p></details>
# <details class="answer"><summary>Poor: Dice must then be below 0.95.</summary><p>No. Accuracy does not
# bound Dice from either side: it depends on how much of the slice is heart.</p></details>
#
# **2.** Eighty slices of forty patients are drawn into five folds at random. What is wrong with that?
#
# <details class="answer"><summary>Eighty slices are too few for five folds.</summary><p>No. Few patients
# make the answer unsure, and the interval says so; the folds are not to blame.</p></details>
# <details class="answer"><summary>Held-out slices have siblings in training.</summary><p>Yes. Most do, and
# what the network learnt of a patient is then asked of the same patient.</p></details>
# <details class="answer"><summary>The classes should be equally frequent in each fold.</summary><p>No. That
# is seldom needed, and it would not keep a patient together.</p></details>
#
# **3.** One class has a Dice of 0.90, another of 0.80. Is the network worse at the second?
#
# <details class="answer"><summary>Yes, by a tenth.</summary><p>No. Dice is stern with the small and the
# thin: the same error in pixels costs them more.</p></details>
# <details class="answer"><summary>Not necessarily.</summary><p>Yes. The second may be smaller or thinner. A
# distance in pixels, such as HD95, tells more.</p></details>
# <details class="answer"><summary>No, Dice does not compare classes at all.</summary><p>No. It may well be
# worse at it; Dice alone does not tell.</p></details>
#
# ## Try
#
# ```{exercise} Write Dice yourself
# :label: dice-yourself
# Fill in the function below. The check says what is wrong, not only that something is. Its two masks have
# four pixels and two, and share one.
# ```

# %% tags=["hide-input"]
A, B = np.zeros((2, 3, 4), bool)
A[0], B[:2, 0] = True, True  # their Dice is 1/3
SLIPS = {
    1
    / 5: "that is intersection over union: divide by the sum of the sizes, not by the union",
    1 / 6: "that is half of it: the overlap counts twice, as it is in both masks",
    1 / 4: "that is the part of the first mask that is right: divide by both sizes",
    1 / 2: "that is the part of the second mask that was found: divide by both sizes",
    2 / 3: "that is accuracy: leave out the pixels that both call background",
}


def check_dice(mine):
    """What is wrong with a function that should compute Dice."""
    answer = mine(A, B)
    if answer is None:
        return "it returns nothing yet"
    if not np.isclose(answer, 1 / 3):
        slips = [why for value, why in SLIPS.items() if np.isclose(answer, value)]
        return (
            slips[0] if slips else f"of two masks with a Dice of 1/3 it says {answer}"
        )
    empty = A & ~A
    return (
        "right"
        if np.isnan(mine(empty, empty))
        else "two empty masks have no Dice: return np.nan"
    )

# %%
def my_dice(pred, truth):
    """Dice of two boolean masks; NaN where both are empty."""
    return None  # your lines here


print("my_dice:", check_dice(my_dice))

# %% [markdown]
# ```{solution-start} dice-yourself
# :class: dropdown
# ```

# %%
def my_dice(pred, truth):
    """Dice of two boolean masks; NaN where both are empty."""
    size = pred.sum() + truth.sum()
    return 2 * (pred & truth).sum() / size if size else np.nan


print("my_dice:", check_dice(my_dice))

# %% [markdown]
# The overlap is in both masks, so it counts twice above the line as it does below. Without the last words
# of the second line, two empty masks divide zero by zero.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} One patient, one Dice
# :label: dice-patient
# Take all labelled slices, shifted by two pixels. Compute the Dice of the left ventricle for each slice,
# then once for each patient, with the pixels of both slices counted together before dividing. Which mean
# is higher, and why?
# ```
#
# ```{solution-start} dice-patient
# :class: dropdown
# ```

# %%
a, b = np.roll(both.masks, 2, axis=2) == 3, both.masks == 3
overlap, size = 2 * (a & b).sum((1, 2)), a.sum((1, 2)) + b.sum((1, 2))
people = [both.patients == p for p in np.unique(both.patients)]
pooled = [overlap[p].sum() / size[p].sum() for p in people if size[p].sum()]
print(f"mean over slices   {np.mean(overlap[size > 0] / size[size > 0]):.4f}")
print(f"mean over patients {np.mean(pooled):.4f}")

# %% [markdown]
# The mean over patients is the higher one. Counted together, the large cavity at end-diastole brings
# more pixels than the small one at end-systole, and the large one suffers less from the same shift. No
# mask has become any better.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} How much is a pixel?
# :label: dice-tolerance
# Surface Dice forgives one pixel. Let it forgive two, three, five. Which of the five masks gain from
# it, and which never will?
# ```
#
# ```{solution-start} dice-tolerance
# :class: dropdown
# ```

# %%
print("tolerance     " + "".join(f"{t:>6} px" for t in (1, 2, 3, 5)))
for name, mask in wrong.items():
    pair = mask[None], truth[None]
    row = [metrics.surface_dice(*pair, t, [1]).item() for t in (1, 2, 3, 5)]
    print(f"{name:>14}" + "".join(f"{value:9.2f}" for value in row))

# %% [markdown]
# Where the boundary is merely inexact, each pixel of tolerance forgives more of it: the shifted, the
# small and the ragged mask rise towards 1. The hole follows once the tolerance reaches from its edge to
# the true outline. The island stays where it is, far from any true boundary. So choose the tolerance before you look, by what two doctors would differ by.
#
# ```{solution-end}
# ```
