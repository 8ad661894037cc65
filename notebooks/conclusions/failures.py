# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where it fails
#
# A mean Dice of 60 patients is one number, and nobody has an average heart. Which class fails, at which
# moment of the beat, on which slices? And is the right ventricle hard for the reasons the report gave?

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

from cmrseg import comparisons, data, metrics, plots, results, rle, shifts, statistics

plots.style()


def every_class(records):
    """Every slice and class of the five folds, each as the one network saw it that was not trained on it."""
    found = pd.concat([results.class_table(record) for record in records])
    return found.assign(
        moment=np.where(found["name"].str[3:].astype(int) % 2, "ED", "ES")
    )


records = {
    p: comparisons.runs("baseline", p).query("seed == 0")["record"]
    for p in ("replica", "modern")
}
sick, healthy = every_class(records["replica"]), every_class(records["modern"])
said = results.report()["per_class"]

# %% [markdown]
# ## What the report said
#
# It drew one box for each class over its 20 validation slices, and concluded: the right ventricle is the
# hardest, the left the easiest {cite}`report2020`. Beside it stand our 120 slices, each judged by a network
# that had not seen its patient: once with the report's recipe, once with the healthy one.


# %% tags=["hide-input"]
def summary(dice):
    """What a box plot draws, in numbers: whiskers end at the last value within 1.5 boxes."""
    low, middle, high = dice.quantile([0.25, 0.5, 0.75])
    inside = dice[dice.between(low - 1.5 * (high - low), high + 1.5 * (high - low))]
    return {
        "median": middle,
        "quartiles": f"{low:.2f} to {high:.2f}",
        "whiskers": f"{inside.min():.2f} to {inside.max():.2f}",
        "standard deviation": dice.std(),
    }


def span(pair):
    return "{:.2f} to {:.2f}".format(*pair) if pair else ""


def dice_of(protocol, name):
    """Dice of each slice: of one class, of the background, or the mean of the three."""
    if name == "background":
        return pd.concat(
            [
                pd.Series(record["images"]["dice_background"])
                for record in records[protocol]
            ]
        )
    table = {"replica": sick, "modern": healthy}[protocol]
    return (
        table.groupby("name")["dice"].mean()
        if name == "mean"
        else table.query("`class` == @name")["dice"]
    )


rows = {}
for name in ("background", "RV", "Myo", "LV", "mean"):
    report = said[name]
    rows[name, "the report"] = {
        "median": report["median"],
        "quartiles": span(report.get("quartiles")),
        "whiskers": span(report.get("whiskers")),
        "standard deviation": report["sd"],
    }
    for whose, protocol in (
        ("report's recipe, our folds", "replica"),
        ("healthy recipe", "modern"),
    ):
        rows[name, whose] = summary(dice_of(protocol, name).dropna())
pd.DataFrame.from_dict(rows, orient="index").style.format(precision=3)

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), sharey=True)
for ax, protocol, title in zip(
    axes, records, ("the report's recipe", "the healthy recipe")
):
    plots.boxes(ax, {name: dice_of(protocol, name) for name in ("RV", "Myo", "LV")})
    ax.plot(
        range(3),
        [said[name]["median"] for name in ("RV", "Myo", "LV")],
        "x",
        color=plots.SAID,
        markersize=8,
        markeredgewidth=2,
        zorder=5,
    )
    ax.set_title(title)
axes[0].set_ylabel("Dice of a slice");

# %% [markdown]
# *Dice of 120 slices, class by class; crosses are the medians of the report's 20. The healthy recipe
# lifts the boxes and pulls in the lower tails; the longest tail stays with the right ventricle.*
#
# Which class is the hardest? By the median it is the wall, with both recipes. By the mean it is the right ventricle,
# as in the report, because of that tail. "Hardest" depends on which average one takes, the median or the mean.
#
# ## At which moment?

# %%
medians = healthy.groupby(["class", "moment"])[
    ["area_true", "dice", "hd95", "surface_dice_1px"]
].median()
medians.loc[["RV", "Myo", "LV"]].style.format(precision=2)

# %% [markdown]
# `area_true` counts pixels. `hd95` is in pixels: 95 % of the two boundaries lie closer together than that.
# `surface_dice_1px` is the share of both boundaries that is right to a pixel {cite}`nikolov2021`.
#
# The two chambers are harder at end-systole, when they are small. By Dice the wall is the other way round; but
# look at the two columns about its boundary: they get worse. A thicker ring forgives the same error. That is
# Dice, not the network. Paired, since each patient has both moments:

# %% tags=["hide-input"]
paired = healthy.pivot_table(
    index=["class", "patient"], columns="moment", values="dice"
)
rows = {}
for name in ("RV", "Myo", "LV"):
    difference = (paired.loc[name, "ES"] - paired.loc[name, "ED"]).to_numpy()
    rows[name] = (np.nanmean(difference), *statistics.mean_interval(difference))
    print("{}: {:+.3f} ({:+.3f} to {:+.3f})".format(name, *rows[name]))
figure, ax = plt.subplots(figsize=(8.5, 1.8))
plots.differences(ax, rows)
ax.set(xlabel="Dice at end-systole minus Dice at end-diastole");

# %% [markdown]
# *Mean difference over 60 patients with its 95 % interval, of one training on each fold. Left of zero:
# worse at end-systole.*
#
# ## Is small the same as hard?
#
# A boundary has a thickness of doubt. Around a disc of radius $r$, being off by $d$ pixels all round costs
# about $d / r$ of Dice: the smaller the disc, the dearer the same doubt.


# %% tags=["hide-input"]
def too_large(area, off):
    """Dice of a disc of this area whose boundary is so many pixels too far out."""
    radius = np.sqrt(area / np.pi)
    return 2 * radius**2 / (radius**2 + (radius + off) ** 2)


figure, ax = plt.subplots(figsize=(8.5, 4))
for name, colour in plots.CLASS_COLOURS.items():
    part = healthy.query("`class` == @name and area_true > 0")
    ax.plot(
        part["area_true"],
        part["dice"],
        "o",
        color=colour,
        markersize=4,
        alpha=0.6,
        label=name,
    )
areas = np.geomspace(15, 1800)
for off in (0.5, 1.0):
    ax.plot(areas, too_large(areas, off), color=plots.GREY, linewidth=1.2)
    ax.annotate(
        f"a disc {off:g} px too large",
        (areas[0], too_large(areas[0], off)),
        xytext=(0, -13),
        textcoords="offset points",
        color=plots.GREY,
        fontsize=9,
    )
ax.set(
    xscale="log",
    xlabel="true area, pixels",
    ylabel="Dice of the slice",
    ylim=(-0.02, 1.02),
)
ax.legend(loc="lower right");

# %% [markdown]
# *Each dot is one class of one slice. The grey curves are discs whose boundary is half a pixel, or a whole
# one, too far out. Left ventricles hug the curves; right ventricles lie lower, the more so the smaller they are.*

# %% tags=["hide-input"]
for name in ("RV", "LV"):
    part = healthy.query("`class` == @name and area_true > 0")
    better = part["dice"] > too_large(part["area_true"], 1)
    print(
        f"{name}: {better.mean():.0%} of the slices lie above the lower curve, off by less than a pixel"
    )

# %% [markdown]
# Compare the two at the same size:

# %% tags=["hide-input"]
limits = ("up to 150", "150 to 300", "300 to 600", "over 600")
size = pd.cut(healthy["area_true"], [0, 150, 300, 600, 3000], labels=limits)
healthy.pivot_table(
    index=size,
    columns="class",
    values="dice",
    aggfunc=["median", "count"],
    observed=True,
).rename_axis(None).style.format(precision=2, na_rep="").format(
    "{:.0f}", subset=["count"], na_rep=""
)

# %% [markdown]
# Being small explains some of it, and not all: at the same size the right ventricle is still harder than the left.
#
# ## The worst five

# %% tags=["hide-input"]
worst = healthy.groupby("name")["dice"].mean().nsmallest(5)
chosen = healthy[healthy["name"].isin(worst.index)]
columns = {"dice": "Dice", "area_true": "true area", "area_pred": "predicted area"}
table = chosen.rename(columns=columns).pivot(
    index="name", columns="class", values=[*columns.values()]
)
table.loc[worst.index].rename_axis(None).style.format(precision=2, na_rep="").format(
    "{:.0f}", subset=["true area", "predicted area"]
)

# %% tags=["hide-input"]
if data.is_acdc96(data.source()):
    slices = data.load(data.source(), "labelled")
    drawn = rle.read_submission(results.STORE / "worst-five.csv")
    figure, axes = plots.panels(5, 2)
    for name, above, below in zip(worst.index, axes[:5], axes[5:]):
        at = slices.names.index(name)
        dice = metrics.mean(metrics.dice(drawn[name][None], slices.masks[at][None]))
        plots.contours(plots.show(above, slices.images[at], name), slices.masks[at])
        plots.contours(
            plots.show(below, slices.images[at], f"Dice {dice:.2f}"), drawn[name]
        )
    plots.class_legend(figure)
else:
    print(
        "The slices themselves show with CMRSEG_DATA=acdc96; this page was built without them."
    )

# %% [markdown]
# *With the real slices the five with the lowest mean Dice stand here: above what should have been drawn, below what
# the network draws, trained again to show it (so its Dice may differ a little from the table).*
#
# All are from end-systole, and the table tells why they count so much. In `cmr24` there is no right ventricle at all:
# a single pixel drawn costs the whole Dice of the class (and its left ventricle is drawn five times too large). In
# two others it is a sliver of some twenty pixels, of which the network finds few: being off by one row would already
# cost a quarter to a third of its Dice. A doctor in doubt would look at the neighbouring slices and at the moving
# heart; the network has one picture.
#
# ## Is the right ventricle hard for the reasons given?
#
# The report gives two: it is found in *different locations*, and it is *similar in colour* to the
# background {cite}`report2020`. Both can be turned up, and then the networks trained and judged again
# ({mod}`cmrseg.shifts`): every heart is moved about, or the right ventricle gets the grey of its surroundings.
# If that hurts, place or grey *can* matter; whether they are why real right ventricles are hard is a step further. So
# look also at the other classes, which are moved just as far.

# %% tags=["hide-input"]
train, _ = data.split(data.source(), "val")
figure, axes = plots.panels(3)
changed = {
    "as it is": train[:1],
    "moved": shifts.shuffle_positions(train[:1], seed=1),
    "of its neighbours' grey": shifts.equalise_grey(train[:1]),
}
for ax, (name, slices) in zip(axes, changed.items()):
    plots.contours(plots.show(ax, slices.images[0], name), slices.masks[0], width=1)
plots.class_legend(figure)

# %% [markdown]
# *One slice, and what the two experiments make of it. Every heart is moved by up to 16 pixels either way;
# the right ventricle keeps its texture, but not its brightness.*

# %% tags=["hide-input"]
shown = {}
for protocol in ("replica", "modern"):
    for name in ("RV", "Myo", "LV"):
        found = comparisons.against("where-it-fails", "RV", protocol, name)
        for setting, row in comparisons.legible(found, "unchanged").iterrows():
            if setting != "RV":
                shown[protocol, setting.replace("RV, ", ""), name] = row[
                    ["Dice", "difference from unchanged"]
                ]
pd.DataFrame.from_dict(shown, orient="index")

# %% [markdown]
# *Dice of each class under the change, and its difference from the trainings without one, with 95 % intervals.*
#
# There is a second way to ask: nature has changed the grey level for us. Slices differ in how much brighter the blood
# of the right ventricle is than what lies around it.


# %% tags=["hide-input"]
def contrast(image, mask):
    """How much brighter the right ventricle is than the background near it, in standard deviations."""
    return (image[mask == 1].mean() - image[shifts.around(mask)].mean()) / image.std()


if data.is_acdc96(data.source()):
    slices = data.load(data.source(), "labelled")
    right = healthy.query("`class` == 'RV' and area_true > 0").set_index("name")[
        ["dice", "area_true"]
    ]
    right["contrast"] = [
        contrast(slices.images[n].astype(float), slices.masks[n])
        for n in map(slices.names.index, right.index)
    ]
    display(right.corr(method="spearman").round(2))
else:
    print("The slices themselves are needed here: CMRSEG_DATA=acdc96.")

# %% [markdown]
# Beside a verdict stand the wider intervals that hold for all claims of the report together.

# %%
comparisons.verdicts("where-it-fails")

# %% [markdown]
# ## What to conclude
#
# A mean hides three kinds of failure. A small structure pays dearly for the same doubt at its border: that is Dice. A right
# ventricle at end-systole is missed or half drawn: that is the network. And a slice without one costs a whole
# Dice for a few pixels: that is a rule of counting. Most of the worst five are the first two at once.
#
# Of the report's two reasons why the right ventricle is hard, the second has something to it. Given the grey of its surroundings
# it falls, while the left ventricle stays (under the report's recipe the wall falls, too); and
# where nature made the contrast low, Dice is low as well (but there the ventricle is also small, and these slices
# can't part the two). Moving all hearts about hurts no class measurably: a convolution does not mind where a thing
# is. Among all claims of the report, and under its own recipe, both stay *inconclusive*.
#
# What the network lacks on these slices a doctor would look for elsewhere: in the slice above, in the next moment of the beat.
#
# ## Try
#
# ```{exercise} One slice of 120
# :label: failures-empty
# In one slice there is no right ventricle, and the network draws one: Dice 0. How much does this slice cost the
# mean of the class over 120 slices? And how much would it cost a mean over 20, as the report's? Use `healthy`.
# ```
#
# ```{solution-start} failures-empty
# :class: dropdown
# ```

# %%
right = healthy.query("`class` == 'RV'")
present = right.query("area_true > 0")["dice"].mean()
print(
    f"{present - right['dice'].mean():.3f} of {len(right)} slices, {present / 20:.3f} of 20"
)

# %% [markdown]
# On 20 slices, one such slice moves the mean of its class by more than the margin of 0.02, and the mean of the three
# classes by two thirds of it. A rule for empty classes is part of a number, and has to be written down with it.
#
# ```{solution-end}
# ```
