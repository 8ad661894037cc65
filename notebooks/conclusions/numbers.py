# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From pixels to a doctor's number
#
# Nobody treats a Dice. A doctor asks how large a chamber is, and how much of it the heart throws out with a
# beat. How far off are these numbers when the mask is good, and how far when it is 0.02 worse?

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

from cmrseg import datasets, metrics, plots
from cmrtrial import compare, records
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.spec import main_settings

plots.style()
MODERN = compare.runs("baseline", "modern").query("seed == 0")
REPLICA = compare.runs("baseline").query("seed == 0")

# %% [markdown]
# ## Two areas make a fraction
#
# The book's slices come in pairs: the heart at its fullest (*end-diastole*, odd numbers) and at its
# smallest (*end-systole*, even numbers). The *fractional area change* is the share of a chamber's area that
# goes with the beat:
#
# $$\mathrm{FAC} = \frac{A_\mathrm{ED} - A_\mathrm{ES}}{A_\mathrm{ED}}$$
#
# Each record keeps the true and the predicted area of every slice that its network had not seen. So we can
# ask 60 patients without training anything ({func}`cmrtrial.records.areas_by_phase`).

# %%
left = records.areas_by_phase(MODERN, "LV")
larger = (left["true ED"] > left["true ES"]).sum()
print(f"the cavity is larger at end-diastole in {larger} of {len(left)} patients")
left.head(3).style.format(precision=2)

# %% [markdown]
# A pixel is about 1.8 mm wide, so a hundred pixels are some 3.2 square centimetres. We stay with pixels
# where we can: the true spacing of each slice is not known.
#
# ## Do they agree?
#
# Two ways of measuring one thing are compared by their *differences*, not by their correlation {cite}`bland1986`: the
# mean difference is the bias, and about 95 % of single patients lie within the *limits of agreement*, the bias give
# or take 1.96 standard deviations, if the differences spread like a bell curve. First the areas, those of the two
# cavities and of the wall (*myocardium*):

# %% tags=["hide-input"]
def agree(ax, true, predicted, title):
    """A Bland-Altman plot: what is predicted minus what is true, against the mean of both."""
    off = predicted - true
    ax.plot(0.5 * (true + predicted), off, "o", color=plots.ACCENT, alpha=0.6)
    for at, style in (
        (off.mean(), "-"),
        *((off.mean() + s * 1.96 * off.std(), "--") for s in (-1, 1)),
    ):
        ax.axhline(at, color=plots.GREY, linestyle=style)
    ax.set_title(title)


areas_by_class = {
    name: records.areas_by_phase(MODERN, name) for name in ("LV", "RV", "Myo")
}
figure, axes = plt.subplots(2, 3, figsize=(9.5, 5.4), sharex=True, sharey=True)
for row, moment in zip(axes, ("ED", "ES")):
    for ax, (name, areas) in zip(row, areas_by_class.items()):
        true, predicted = areas[f"true {moment}"], areas[f"predicted {moment}"]
        agree(ax, true, predicted, f"{name}, {moment}")
    row[0].set_ylabel("predicted minus true, pixels")
for ax in axes[1]:
    ax.set_xlabel("area, mean of both, pixels")

# %% [markdown]
# *Each dot is a patient whom the network had not seen; above at end-diastole, below at end-systole. Full line: bias;
# dashed: limits of agreement. They are widest for the right ventricle at end-systole.*

# %% tags=["hide-input"]
rows = {}
for name, areas in areas_by_class.items():
    for moment in ("ED", "ES"):
        true = areas[f"true {moment}"]
        off = areas[f"predicted {moment}"] - true
        bias = (off.mean(), *metrics.mean_interval(off.to_numpy()))
        rows[name, moment] = {
            "mean area": f"{true.mean():.0f}",
            "bias": compare.with_interval("{:+.1f}", bias),
            "limits, give or take": f"{1.96 * off.std():.0f}",
            "of the mean area": f"{1.96 * off.std() / true.mean():.0%}",
        }
pd.DataFrame.from_dict(rows, orient="index")

# %% [markdown]
# *Areas in pixels, the bias with its 95 % interval over 60 patients.*
#
# The biases are small beside the areas. Two of the six can be told from zero: at end-diastole a little of the right
# ventricle is lost, and the wall is drawn a little too large. A study of groups could live with that. For one patient the limits
# count: they are narrowest for the left ventricle at its fullest, and widest for the right one at end-systole, a large part
# of the area itself. The wall, too, is measured worse than the left ventricle.
#
# And the fraction that the two areas of a cavity make:

# %% tags=["hide-input"]
def points_off(areas):
    """By how many points the predicted fraction of each patient is too high."""
    return 100 * (areas["predicted FAC"] - areas["true FAC"])


figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
for ax, name, title in zip(axes, areas_by_class, ("left ventricle", "right ventricle")):
    agree(
        ax,
        100 * areas_by_class[name]["true FAC"],
        100 * areas_by_class[name]["predicted FAC"],
        title,
    )
    ax.set_xlabel("FAC, mean of both, %")
axes[0].set_ylabel("predicted minus true, points");
# %% [markdown]
# *Each dot is a patient whom the network had not seen. Full line: bias; dashed: limits of agreement. A difference of two
# percentages is given in points. The biases are small, the limits wide, and widest for the right ventricle.*
#
# Ten points are not little: in adults, the range that is called normal for the share of its blood that a left
# ventricle ejects is about twenty points wide {cite}`lang2015`. That is a share of a volume and ours one of an area, but
# both are shares of what was there when it was full.
#
# For the left ventricle the bias is small: over many patients the errors cancel, and a study of groups could live
# with them. For the right ventricle they seem to lean to one side, and for fractions of middle size they do (further
# down): there it is predicted too low. For a single patient nothing cancels, in neither ventricle, and the limits say
# how far off one patient may be. And a single patient can carry much of them:

# %% tags=["hide-input"]
right = areas_by_class["RV"]
for name, table in (("left", left), ("right", right)):
    off = points_off(table)
    rest, (low, high) = (
        off.drop(off.abs().idxmax()),
        metrics.mean_interval(off.to_numpy()),
    )
    print(
        f"{name} ventricle: bias {off.mean():+.1f} points ({low:+.1f} to {high:+.1f}), limits give or "
        f"take {1.96 * off.std():.0f}; with patient {off.abs().idxmax()} left out, {1.96 * rest.std():.0f}"
    )

# %% [markdown]
# ## Where does it go wrong?

# %%
off = points_off(right).rename("off by, points")
worst = right.join(off).loc[off.abs().nlargest(5).index]
worst.style.format(precision=2)

# %% [markdown]
# The five patients whose right ventricle is judged worst. Compare the areas: is it the large one at
# end-diastole that is wrong, or the small one at end-systole?

# %% tags=["hide-input"]
wrong = {
    moment: (right[f"predicted {moment}"] - right[f"true {moment}"]).abs()
    for moment in ("ED", "ES")
}
for moment, pixels in wrong.items():
    share = (pixels / right[f"true {moment}"]).median()
    print(
        f"{moment}: area wrong by {pixels.median():.0f} pixels in the median patient, {share:.0%} of it"
    )

# %% [markdown]
# ## What 0.02 Dice does to it
#
# A margin of 0.02 Dice runs through this book. Every setting that ran on all five folds is a measuring
# device of its own: plot how far off its fractions are against its Dice.

# %% tags=["hide-input"]
def device(group):
    """A setting's Dice, and how far off its fractions are, in points: a row for each patient."""
    columns = {"dice": compare.by_patient(group)}
    for name in ("LV", "RV"):
        areas = records.areas_by_phase(group, name)
        columns[name] = points_off(areas).abs()
    return pd.DataFrame(columns)


devices = {}
for name in EXPERIMENTS:
    for protocol in ("replica", "modern"):
        table = compare.runs(name, protocol).query("seed == 0")
        for setting, group in table.groupby("setting"):
            if setting in main_settings(name, protocol) and set(group["split"]) == set(
                MODERN["split"]
            ):
                devices[tuple(sorted(group["key"]))] = device(group)
good = np.stack([d for d in devices.values() if d["dice"].mean() > 0.75])
good = good[:, np.isfinite(good).all((0, 2))]  # no area at ED, no fraction
dice, *off_by = good.mean(1).T
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
for ax, off, title in zip(axes, off_by, ("left ventricle", "right ventricle")):
    ax.plot(dice, off, "o", color=plots.ACCENT, alpha=0.6)
    ends = np.array([dice.min(), dice.max()])
    ax.plot(ends, np.polyval(np.polyfit(dice, off, 1), ends), color=plots.GREY)
    ax.set(title=title, xlabel="Dice of the setting, mean of its patients")
axes[0].set_ylabel("FAC: off by, points");

# %% [markdown]
# *Each dot is a setting of this book's experiments, five networks: by how much the predicted fraction is off in the mean,
# up or down. The higher the Dice, the smaller the error, and at one Dice it still differs. Left out are settings below a Dice of
# 0.75, and the few patients in whom one of the others draws no right ventricle at end-diastole.*

# %% tags=["hide-input"]
def gains(table):
    """Points of error, for LV and RV, that go with 0.02 Dice more: from (settings, patients, 3)."""
    dice, *off_by = table.mean(1).T
    return [-0.02 * np.polyfit(dice, off, 1)[0] for off in off_by]


rng = np.random.default_rng(0)
sizes, again = good.shape[:2], []
for _ in range(2000):  # other settings, other patients
    one, other = (rng.integers(n, size=n) for n in sizes)
    again.append(gains(good[one][:, other]))
intervals = np.percentile(again, [2.5, 97.5], axis=0).T
print("{} settings of {} patients; 0.02 Dice more goes with".format(*sizes))
for name, gain, (low, high), off in zip(areas_by_class, gains(good), intervals, off_by):
    rest = off - np.polyval(np.polyfit(dice, off, 1), dice)
    print(
        f"{name}: {gain:.1f} points less error ({low:.1f} to {high:.1f}); settings of one Dice differ by "
        f"{rest.std(ddof=2):.1f} (standard deviation round the line)"
    )

# %% [markdown]
# *The intervals hold 95 % of the slopes when settings and patients are drawn again (a bootstrap). They tell what goes with a
# better Dice from setting to setting; no setting was made better to see what follows.*
#
# ## Would the doctor say something else?
#
# Numbers matter where they cross a line. In echocardiography a right ventricle that changes by less than 35 %
# is called abnormal {cite}`lang2015`. That line was not drawn for our slices, but any line will do to ask how
# often a patient ends up on the wrong side of it. The band from 20 to 50 % below was chosen after a look at the
# plot above, where it stood out: so its interval is too sure, and what it shows is worth a test on other patients.

# %% tags=["hide-input"]
for name, table in (("the report's recipe", REPLICA), ("the healthy recipe", MODERN)):
    areas = records.areas_by_phase(table, "RV")
    true, called_low = areas["true FAC"] < 0.35, areas["predicted FAC"] < 0.35
    print(
        f"{name}: {(true != called_low).sum()} of {len(areas)} patients on the wrong side "
        f"({(true & ~called_low).sum()} below 35 % but called normal, {(called_low & ~true).sum()} called abnormal though above)"
    )
    part, off = (
        areas["true FAC"].between(0.2, 0.5),
        points_off(areas),
    )
    low, high = metrics.mean_interval(off[part].to_numpy())
    print(
        f"  with a true FAC of 20 to 50 %, bias {off[part].mean():+.1f} points ({low:+.1f} to {high:+.1f})"
    )

# %% [markdown]
# ## And the best model?
#
# [The best model](best_model) stands higher in Dice. Its five networks of the folds, asked in the way that is delivered, have not
# seen the patients they are judged on here, the 50 of the training slices; beside it the healthy recipe on the same folds.

# %% tags=["hide-input"]
fifty = {
    "healthy recipe": compare.runs("book-recipe", "modern").query(
        "setting == '60 epochs, strong intensity'"
    ),
    "best model's": compare.runs("final-ways", "final").query(
        "setting == 'mirrored, turned, cleaned'"
    ),
}
rows, off_by = {}, {}
for name, side in (("LV", "left"), ("RV", "right")):
    for source, group in fifty.items():
        areas = records.areas_by_phase(group, name)
        off = points_off(areas)
        off_by[name, source] = off.abs()
        bias = (off.mean(), *metrics.mean_interval(off.to_numpy()))
        rest = off.drop(off.abs().idxmax())
        rows[f"{side} ventricle", source] = {
            "bias, points": compare.with_interval("{:+.1f}", bias),
            "limits, give or take": f"{1.96 * off.std():.0f}",
            "without the worst patient": f"{1.96 * rest.std():.0f}",
            "wrong side of 35 %": (
                (areas["true FAC"] < 0.35) != (areas["predicted FAC"] < 0.35)
            ).sum(),
        }
display(pd.DataFrame.from_dict(rows, orient="index"))
for name in ("LV", "RV"):
    before, after = (off_by[name, source] for source in fifty)
    gain = (after - before).to_numpy()
    shown = (gain.mean(), *metrics.mean_interval(gain))
    print(
        f"{name}: off by {after.mean():.1f} points in the mean, before {before.mean():.1f}; "
        f"change {compare.with_interval('{:+.1f}', shown)}; most off: patient {after.idxmax()}"
    )

# %% [markdown]
# *The fraction by two recipes, 50 patients. The intervals know how patients differ, not the luck of a training.*
#
# The left ventricle's fraction gains: its limits shrink to a third. The right one's, whose Dice gained most, does not, as far as fifty
# patients can tell: its limits stay as wide, and now it is predicted too low. One patient carries much of both, the one whose right ventricle is
# not there at end-systole: the true fraction is 100 %, and any pixel drawn takes from it.
#
# ## Live: move an edge by a pixel
#
# How much of this is the network's fault? Grow a true mask by one pixel all round, which no eye would
# notice, and see what becomes of area, Dice and fraction.

# %%
from scipy.ndimage import binary_dilation

_, held_out = datasets.split(datasets.source(), "val")
for name, mask in list(zip(held_out.names, held_out.masks))[:2]:
    grown = binary_dilation(mask == 3)
    overlap = metrics.dice(grown[None] * 3, (mask == 3)[None] * 3, classes=(3,))[0, 0]
    print(
        f"{name}: LV {(mask == 3).sum()} pixels, grown {grown.sum()} "
        f"({grown.sum() / (mask == 3).sum() - 1:+.0%}), Dice {overlap:.3f}"
    )
areas = [[(m == 3).sum(), binary_dilation(m == 3).sum()] for m in held_out.masks[:2]]
print(
    "FAC of the two, ED and ES: "
    + ", grown ".join(f"{1 - es / ed:.0%}" for ed, es in zip(*areas))
)

# %% [markdown]
# ## What to conclude
#
# Dice and the doctor's number are related, but they are not the same. A better Dice means smaller errors of both
# ventricles' fractions on the average of settings, and at one Dice there are better and worse devices. The best model
# shows both: a far better left fraction, and a right one that is no better for all its Dice.
#
# The fraction is a ratio of two areas, and the small one decides: at end-systole a few pixels are a large
# part of what is left. The right ventricle is worse off than the left, and for single patients the limits are
# wide. Whoever builds a device should report limits of agreement beside Dice, and on which patients it fails.
#
# One thing this page cannot say: what two doctors would differ by. There is one truth for each slice here,
# drawn once. Without a second reader we know how far the network is from one hand, not whether it is worse
# than another.
#
# ## Try
#
# ```{exercise} Another line
# :label: numbers-line
# 35 % is a convention of another kind of picture. How many of the 60 patients end up on the wrong side of 25, 30, 40 or
# 45 %? And how many have a true fraction within five points of each line?
# ```
#
# ```{solution-start} numbers-line
# :class: dropdown
# ```

# %%
for line in (0.25, 0.3, 0.35, 0.4, 0.45):
    wrong = ((right["true FAC"] < line) != (right["predicted FAC"] < line)).sum()
    near = (right["true FAC"] - line).abs().lt(0.05).sum()
    print(f"{line:.0%}: {wrong} on the wrong side, {near} near the line")

# %% [markdown]
# How often a network "changes the diagnosis" is not a property of the network alone: the line and the patients are in
# it, too. And it is not only a matter of how many are near: compare the two columns.
#
# ```{solution-end}
# ```
