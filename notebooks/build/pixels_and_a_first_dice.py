# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Pixels and a first Dice
#
# Before any network learns anything: how do you read a slice with its mask, how is a mask scored, and how good is one
# that never looks at the picture?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** load, show and save slices and label maps with OpenCV, score a mask with Dice, explain why
# accuracy misleads here, and name the number that a network has to beat.
# **You need** [Arrays and tensors](arrays_and_tensors), or its eight questions answered.
# **Time** 35 minutes.
# ```

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
import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from cmrseg import data, datasets, metrics, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")

# %% [markdown]
# ## The task
#
# A magnetic resonance (MR) scanner films the beating heart one slice at a time. The *short-axis* view cuts across the
# left ventricle like a saw across a tree trunk: a disc of bright blood in a ring of dark muscle, and the right
# ventricle wrapped round one side.

# %%
figure, axes = plots.panels(2, 2, size=2.5)
for k, moment in enumerate(("end-diastole", "end-systole")):
    image, mask = train.images[20 + k], train.masks[20 + k]  # of one patient
    plots.show(axes[k], image, moment)
    plots.contours(plots.show(axes[2 + k], image, "with its mask"), mask)
plots.class_legend(figure)

# %% [markdown]
# *One patient, twice. At end-diastole (ED) the ventricles are full. At end-systole (ES), a third of a second later, the
# cavities have shrunk and the wall between the gold and the magenta line has thickened. The right ventricle's thin wall
# hardly stands out from what lies outside it.*
#
# We want the class of every pixel. This is called **semantic segmentation**, and the answer is a **label map**: an
# array as large as the image that holds a class number at each pixel.
#
# | label | class | what it is |
# |---|---|---|
# | 0 | background | lungs, liver, chest wall, vessels: everything else |
# | 1 | RV | the cavity of the right ventricle, a crescent that hugs the left |
# | 2 | Myo | the myocardium of the left ventricle, the muscle ring |
# | 3 | LV | the cavity of the left ventricle, with the papillary muscles (dark spots in the blood) |
#
# For real slices experts drew these maps, at ED and ES, since doctors compare the two to see how much blood a beat
# moves. Learning from pairs of an input and its right answer is **supervised learning**. We learn from the *training*
# slices and judge on the *validation* slices, which come from other patients.
#
# This book goes back to a student project of 2020, *the report* {cite}`report2020`. It worked on 120 labelled slices
# from ACDC {cite}`bernard2018`, whose licence is CC BY-NC-SA 4.0. They aren't part of the book's code: `make data`
# fetches them, and with `CMRSEG_DATA=acdc96` a page is made with them. Otherwise it uses *phantoms*, synthetic hearts
# with exact masks, and its numbers differ. This page was made with:

# %%
from pathlib import Path

print("source:", Path(datasets.source()).name)
for name, part in {"training": train, "validation": val}.items():
    print(f"{name}: {part.images.shape} of {len(set(part.patients))} patients")

# %% [markdown]
# ## From file to array and back
#
# In practice slices arrive as files. The report's were 8-bit grey PNG files, an image and a mask for each slice, read
# and written with **OpenCV** (`cv2`), a library for working with images. We write some first.

# %%
import tempfile

folder = Path(tempfile.mkdtemp())
for name, image, mask in zip(train.names[:10], train.images, train.masks):
    cv2.imwrite(str(folder / f"{name}.png"), image)
    cv2.imwrite(str(folder / f"{name}_mask.png"), mask)
(folder / "notes.png").write_text("a text file with the name of a picture", encoding="utf-8")
print(sorted(path.name for path in folder.iterdir())[:4], "...")

# %% [markdown]
# **Predict, then run**: the first two lines read one grey image of 96 rows and 96 columns, the third reads the text
# file. What does each print?

# %%
first = str(folder / f"{train.names[0]}.png")
print(cv2.imread(first).shape)
print(cv2.imread(first, cv2.IMREAD_UNCHANGED).shape)
print(cv2.imread(str(folder / "notes.png"), cv2.IMREAD_UNCHANGED))

# %% [markdown]
# Without a flag OpenCV turns every file into a colour image: three channels in the order blue, green, red, and 8 bits
# even if the file had more. `IMREAD_UNCHANGED` gives what is stored. And a file that is missing or isn't a picture
# raises no error: `imread` returns `None`, and your program stops later, somewhere else. So we read through a
# function that checks. (`SystemExit` ends a script with its message, and this function will be part of one.)

# %% tags=["piece"]
def read_png(path):
    """One 8-bit grey PNG as uint8 (H, W)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise SystemExit(f"{path}: not an 8-bit grey PNG")
    return pixels

# %%
for name, image in zip(train.names[:10], train.images):
    path = folder / f"{name}.png"
    assert np.array_equal(read_png(path), image)
    assert np.array_equal(read_png(path), data.read_png(path))  # cmrseg's
try:
    read_png(folder / "notes.png")
except SystemExit as problem:
    print(str(problem).replace(str(folder), "..."))

# %% [markdown]
# ## A label map is not a picture
#
# Open a mask in an image viewer and you see a black square: 3 of 255 is as good as black. To look at labels, the report
# multiplied them by 85.

# %%
mask = read_png(folder / f"{train.names[0]}_mask.png")
stretched = mask * 85
print("stored:", np.unique(mask), " stretched:", np.unique(stretched))
figure, axes = plots.panels(3, size=2.5)
for ax, picture in zip(axes, (mask, stretched)):
    ax.imshow(picture, vmin=0, vmax=255)
plots.overlay(axes[2], train.images[0], mask, alpha=0.5)
for ax, title in zip(axes, ("as a viewer shows it", "times 85", "in colour")):
    ax.set_title(title)

# %% [markdown]
# *One label map, three ways to show it. Without `vmin` and `vmax`, matplotlib stretches the range by itself.*
#
# Sooner or later somebody trains on stretched masks. Who notices? A network will give four scores, or *logits*, to
# each pixel, one for each class. PyTorch's `F.cross_entropy`, the measure of error that it's trained with, looks up
# the score of the true class, so it uses the label as an index: 0, 1, 2 or 3 ([The loss](the_loss) explains it).
# Other code compares, as in `mask == 1`.
#
# **Predict, then run**: does `cross_entropy` notice the labels 0, 85, 170 and 255? Does a comparison?

# %%
labels = torch.from_numpy(stretched).long()[None]  # (1, H, W)
logits = torch.zeros(1, 4, *mask.shape)  # four equal scores a pixel
try:
    F.cross_entropy(logits, labels)
except (IndexError, RuntimeError) as problem:
    print("cross_entropy: ", str(problem).split("\n")[0])
print("by comparison: ", [int((stretched == c).sum()) for c in range(4)])
print("it should be:  ", [int((mask == c).sum()) for c in range(4)])

# %% [markdown]
# `cross_entropy` finds no class 85, and stops. Code that *compares* notices nothing: it finds background, and three
# classes without a pixel. The report computes both its loss and its Dice by such comparisons; a network would learn
# that no pixel belongs to the heart. So look at `np.unique(mask)` once, for every data set you meet.
#
# ## How rare the heart is

# %%
share = [(train.masks == c).mean() for c in range(4)]
for name, part in zip(data.CLASSES, share):
    print(f"{name:>10}: {part:6.1%} of all training pixels")
nothing = np.zeros_like(val.masks)
print(f"accuracy of 'background': {(nothing == val.masks).mean():.3f}")

# %% [markdown]
# This is **class imbalance**: more than four pixels in five are background, and each class of the heart has five or
# six in a hundred. **Accuracy**, the share of pixels with the right label, rewards that: a mask that finds no heart
# at all gets more than 0.8 on the validation slices. So accuracy is no use here.
#
# ## Dice in three lines
#
# We need a score that ignores what both masks call background. Here is a row of ten pixels.
#
# ```{raw} html
# <svg viewBox="0 0 420 150" role="img" aria-labelledby="dice-title" style="display:block;width:560px;max-width:100%;height:auto;margin:1rem 0" font-family="system-ui, sans-serif" font-size="14" fill="var(--pst-color-text-base, currentColor)">
# <title id="dice-title">Ten pixels. The true mask covers the third to the sixth, the predicted mask the fourth to the eighth. Three pixels are in both.</title>
# <g stroke="var(--pst-color-border, #8888)" stroke-width="1.5" fill="none">
# <path d="M110 20h290v29h-290z M110 64h290v29h-290z"/>
# <path d="M139 20v29M168 20v29M197 20v29M226 20v29M255 20v29M284 20v29M313 20v29M342 20v29M371 20v29M139 64v29M168 64v29M197 64v29M226 64v29M255 64v29M284 64v29M313 64v29M342 64v29M371 64v29"/>
# </g>
# <g fill="#DC267F" fill-opacity="0.55"><rect x="169" y="21" width="114" height="27"/></g>
# <g fill="#648FFF" fill-opacity="0.55"><rect x="198" y="65" width="143" height="27"/></g>
# <rect x="197" y="14" width="87" height="85" fill="none" stroke="var(--pst-color-text-base, currentColor)" stroke-width="2" stroke-dasharray="5 4"/>
# <text x="100" y="40" text-anchor="end">truth, 4</text><text x="100" y="84" text-anchor="end">prediction, 5</text>
# <text x="240" y="118" text-anchor="middle">in both: 3</text>
# <text x="240" y="142" text-anchor="middle" font-weight="600">Dice = 2 · 3 / (4 + 5) = 0.67</text>
# </svg>
# ```
#
# *Dice by hand. The overlap is part of both masks, so it counts twice.*
#
# Seven of the ten pixels have the right label: an accuracy of 0.7. For **Dice** {cite}`dice1945`, count the pixels
# that lie in both masks at once, and divide by the mean size of the two masks. With $|A|$ for the number of pixels in
# a mask $A$, and $A \cap B$ for the pixels that $A$ and $B$ share:
#
# $$D = \frac{2\,|A \cap B|}{|A| + |B|}$$
#
# It is 1 if the masks are equal and 0 if they don't overlap. Add a thousand background pixels at each end: the accuracy
# rises to nearly 1, and Dice stays the same.

# %%
truth = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)
pred = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0], bool)
overlap = (pred & truth).sum()
size = pred.sum() + truth.sum()
print(f"Dice {2 * overlap / size:.2f} | accuracy {(pred == truth).mean():.2f}")

# %% [markdown]
# ## When a class is missing
#
# The report's Dice was those three lines, once for each class. Let's run them on the best possible prediction, the
# reference itself, for a slice without a right ventricle.
#
# **Predict, then run**: what are the three scores, RV, Myo and LV, and what is their mean?

# %%
rv_pixels = (train.masks == 1).sum((1, 2))
print("training slices without an RV pixel:", (rv_pixels == 0).sum())
truth = train.masks[rv_pixels.argmin()].copy()
truth[truth == 1] = 0  # in case every slice has an RV, remove it here
pred, scores = truth.copy(), []
with np.errstate(invalid="ignore"):  # else NumPy warns, and goes on
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
print("RV, Myo, LV:", np.array(scores), "| mean:", np.mean(scores))

# %% [markdown]
# One of the report's training images is such a slice. If the prediction agrees, Dice of the RV is 0/0, which NumPy
# calls `nan`, *not a number*. It spreads: a single `nan` turns every mean it enters into `nan`. So Dice needs a rule
# for an empty class. Ours: **if a class is in neither mask, the slice is left out of the mean of that class.** If it
# is in only one of the two masks, the formula gives 0, as it should. The report has six slips of code that we know of,
# and 0/0 is the first one you meet; the next line mends it, and the other five follow where they happen.

# %% tags=["piece"]
def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores

# %%
shifted = np.roll(train.masks, 2, axis=2)  # each mask 2 pixels to the right
ours = np.array([dice(p, t) for p, t in zip(shifted, train.masks)])
package = metrics.dice(shifted, train.masks)  # cmrseg's
assert np.array_equal(ours, package, equal_nan=True)
print("a slice without RV:", np.array(dice(truth, truth)))
print("scores:", ours.shape, "| not a number:", np.isnan(ours).sum())
print("mean of each class:", np.nanmean(ours, axis=0).round(3))

# %% [markdown]
# `np.nanmean` leaves out what isn't a number. The mean over the slices is the score of a class; the mean of these
# three is *the* Dice of this book.
#
# ## Dice 0.9 is not 90 % of the pixels
#
# Below are two wrong masks of a left ventricle, both with a Dice of 0.9. One lacks the top of the cavity, the other
# has an extra cap of pixels.
#
# If $m$ of $n$ pixels are missing, Dice is $2(n - m) / (2n - m)$, which is 0.9 for $m = 2n/11$. With $m$ pixels too
# many it is $2n / (2n + m)$, and $m = 2n/9$. (`cumsum` numbers the pixels of a mask from the top, `cv2.dilate` makes
# a mask larger.)
#
# **Predict, then run**: which share of the true pixels does each mask find?

# %%
lv = train.masks[0] == 3
n = lv.sum()
number = lv.cumsum().reshape(lv.shape)  # 1, 2, ... row by row
too_small = lv & (number > 2 * n / 11)
near = cv2.dilate(lv.astype(np.uint8), np.ones((7, 7))) == 1
ring = near & ~lv  # at most 3 pixels outside the LV
number = ring.cumsum().reshape(lv.shape)
too_large = lv | (ring & (number <= 2 * n / 9))
wrong = {"too small": too_small, "too large": too_large}
print("           Dice   of all pixels right   of the true ones found")
for name, m in wrong.items():
    score = dice(3 * m, 3 * lv)[2]  # our dice expects the LV to be label 3
    right, sensitivity = (m == lv).mean(), (m & lv).sum() / n
    print(f"{name}   {score:.2f} {right:15.1%} {sensitivity:22.1%}")

# %%
figure, axes = plots.panels(3, size=2.5)
for ax, (name, m) in zip(axes, {"reference": lv, **wrong}.items()):
    plots.overlay(ax, train.images[0], 3 * m, name, alpha=0.5)
    ax.contour(lv, levels=[0.5], colors="white", linewidths=1.2)

# %% [markdown]
# *The same Dice twice, the true outline in white. The mask in the middle misses the top of the cavity, the mask on the
# right finds too much.*
#
# **A Dice of 0.9 doesn't mean that 90 % of the pixels are right, either in the slice or in the heart.** Of the whole
# slice, nearly all pixels are right. Of the ventricle, one mask finds about four fifths and the other finds every
# pixel. (This share is called *recall*; Dice is also known as the F1 score.)
#
# ## Baseline 1: one grey level
#
# A **baseline** is a simple answer to a task that any serious method has to beat. Blood is bright, so let's call
# every pixel above some grey level LV. Which level? We choose one by eye, on the *training* slices: nearly all muscle
# and most of the background lie below 140.

# %%
figure, ax = plt.subplots(figsize=(7.5, 2.8))
colours = dict(zip(data.CLASSES, (plots.GREY, *plots.CLASS_COLOURS.values())))
for c, (name, colour) in enumerate(colours.items()):
    grey = train.images[train.masks == c]
    look = {"histtype": "step", "linewidth": 2, "color": colour, "label": name}
    ax.hist(grey, bins=32, range=(0, 256), density=True, **look)
ax.axvline(140, color=plots.CONTRAST, linestyle="--")
ax.set(xlabel="grey level", ylabel="share of the class", yticks=[])
ax.legend();

# %% [markdown]
# *Grey levels of the four classes, each with the same area. Muscle (gold) is dark. Blood (blue, magenta) spreads over
# nearly all levels and is brighter in the LV; what was too bright to store ended up at 255. The dashed line at 140 is
# our choice.*

# %%
threshold = 140  # chosen by eye; change me
bright = np.where(val.images > threshold, 3, 0).astype(np.uint8)


def score(masks, truths):
    """Mean Dice over the slices, for RV, Myo and LV."""
    return np.nanmean([dice(m, t) for m, t in zip(masks, truths)], axis=0)


print("RV, Myo, LV:", score(bright, val.masks).round(2))
sensitivity = (bright == 3)[val.masks == 3].mean()
print(f"of the true LV pixels it finds {sensitivity:.0%}")

# %% [markdown]
# RV and Myo get 0, because this baseline never answers them. For the LV the Dice is poor, although most of its pixels
# are found: the grey levels of the two ventricles overlap widely, and the background has more than ten times as many
# pixels as the LV, so even the small part of it that is brighter than 140 is larger than the LV. A grey level doesn't say
# where a pixel is.
#
# Besides, grey levels have no unit: the same blood may be twice as bright in one patient as in the next.
# Normalisation (the *z-score* of the last page) removes each slice's own scale of brightness. The report fed grey
# levels as they were; normalising is today's usual practice. [Repairs](../conclusions/repairs) measures what it is
# worth to a network.
#
# ## Baseline 2: a mask that never looks
#
# All hearts lie near the middle of their slice. So take, at each pixel, the label that is most frequent there in the
# training masks, and answer with this one mask for every slice. It uses no image at all. (`argmax(0)` says, at each
# pixel, where along axis 0 the largest number stands: that is the label.)

# %%
frequency = np.stack([(train.masks == c).mean(0) for c in range(4)])
static = frequency.argmax(0).astype(np.uint8)
static_masks = np.stack([static] * len(val))
print("frequency", frequency.shape, "| masks", static_masks.shape)
figure, axes = plots.panels(2, 2, size=2.5)
for c in (1, 2, 3):
    axes[c - 1].imshow(frequency[c], vmin=0, vmax=1, cmap=plots.HEAT)
    axes[c - 1].set_title(f"{data.CLASSES[c]}: up to {frequency[c].max():.0%}")
plots.overlay(axes[3], train.images.mean(0), static, "the most frequent label");

# %% [markdown]
# *How often each pixel belongs to each class: the darker, the more often. Bottom right, the most frequent label, laid
# over the mean image. Muscle is a thin ring in a different place in every heart, so it seldom wins.*
#
# ## The number to beat
#
# **Predict, then run**: rank three answers to the validation slices by accuracy, then by mean Dice: background
# everywhere, brighter than 140, and the mask that never looks. Are the two rankings the same?

# %%
answers = {
    "background everywhere": nothing,
    "brighter than 140": bright,
    "never looks": static_masks,
}
print("                      accuracy     RV    Myo     LV   mean Dice")
for name, masks in answers.items():
    accuracy, classes = (masks == val.masks).mean(), score(masks, val.masks)
    row = "".join(f"{d:7.2f}" for d in classes)
    print(f"{name:>21} {accuracy:9.3f} {row} {classes.mean():11.3f}")
to_beat = score(static_masks, val.masks).mean()
assert np.isclose(to_beat, metrics.mean(metrics.dice(static_masks, val.masks)))

# %%
figure, axes = plt.subplots(2, 2, figsize=(5, 5.2))
shown = {"true": val.masks, "brighter": bright, "never looks": static_masks}
for ax, (name, stack) in zip(axes.flat, shown.items()):
    plots.overlay(ax, val.images[0], stack[0], name, alpha=0.6)
    ax.images[0].set_clim(0, 500)  # darker, so that the outlines stand out
    for c in (1, 2, 3):
        ax.contour(val.masks[0] == c, [0.5], colors="white", linewidths=1)
bars = axes[1, 1]
for x, stack in enumerate((bright, static_masks)):
    places, look = x + np.array([-0.25, 0, 0.25]), plots.CLASS_COLOURS.values()
    bars.bar(places, score(stack, val.masks), 0.22, color=list(look))
bars.axhline(to_beat, color=plots.CONTRAST)
bars.set_title(f"Dice, to beat: {to_beat:.2f}", color=plots.CONTRAST)
bars.set(ylim=(0, 1), xticks=[0, 1], xticklabels=["brighter", "never looks"]);

# %% [markdown]
# *The number to beat. One validation slice with its true outlines in white, and the two baselines. Bottom right,
# their Dice for each class in its colour; the line is the mean Dice of the mask that never looks.*
#
# No: accuracy ranks "background everywhere" above the threshold, although the threshold finds most of the LV and the
# other finds nothing. And by Dice a mask that never looks at the picture beats the one answer that does. Its mean
# Dice, in the last row of the table, is **the number to beat**: a network that doesn't score more has learned nothing
# that one fixed mask doesn't know, however well its training seemed to go.
#
# ## Recap
#
# - You can read slices safely (`IMREAD_UNCHANGED`, and a check), and you don't train on masks made for viewing.
# - You can compute Dice by hand and in code, with a rule for an empty class, and explain why a Dice of 0.9 isn't 90 %
#   of the pixels and why a high accuracy means little where classes are imbalanced.
# - You have two baselines, and with them a number that a network has to beat.
#
# ## Exercises
#
# ```{exercise} A mask in colour
# :label: pixels-colour
# A mask times 85 is grey. Write a function that takes a label map, uint8 (H, W) with labels 0 to 3, and returns a
# colour picture that `cv2.imwrite` can save, uint8 (H, W, 3): background black, RV red, Myo green, LV blue, each at
# full strength (255). Mind the order in which OpenCV stores the three channels.
# ```

# %% tags=["hide-input"]
# The checks of this page: each says what is wrong with a function, not only that something is.
LABELS = np.array([[0, 1, 2], [3, 1, 0]], np.uint8)
BGR = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
PICTURE = BGR[LABELS]
RGB = PICTURE[..., ::-1]
COLOURS = {  # what is wrong with an answer -> that answer
    "OpenCV writes blue first: your red and blue would be exchanged": RGB,
    "OpenCV wants the channels last: (H, W, 3)": PICTURE.transpose(2, 0, 1),
    "channels last, please, and blue first": RGB.transpose(2, 0, 1),
    "full strength is 255 in a uint8 image, not 1": PICTURE // 255,
    "full strength is 255, not 1, and blue comes first": RGB // 255,
    "that is still grey: give each class a colour": LABELS * 85,
    "that is the label map itself: give each class a colour": LABELS,
    "three equal channels are grey": np.dstack([LABELS * 85] * 3),
    "right colours on white: the background should be black": np.where(
        LABELS[..., None] == 0, 255, PICTURE
    ),
}
FREQUENT = np.array([[6, 2, 5], [0, 1, 0], [1, 3, 1], [3, 4, 4]])[:, None] / 10
LIKELY = np.zeros((4, 256))
LIKELY[:, 10], LIKELY[:, 200] = (0.5, 0.1, 0.8, 0.1), (0.2, 0.95, 0.1, 0.5)
GREYS = np.array([[10, 10, 200]], np.uint8)
BOTH = FREQUENT * LIKELY[:, GREYS]
VOTES = {
    "you look at the grey level only: use the place, too": LIKELY[:, GREYS].argmax(0),
    "you use the place only: look at the grey level, too": FREQUENT.argmax(0),
    "multiply the two numbers; you add them": (FREQUENT + LIKELY[:, GREYS]).argmax(0),
    "you leave out the background": 1 + BOTH[1:].argmax(0),
    "these are the products: which class has the largest one?": BOTH,
    "that is the largest product itself: which class has it?": BOTH.max(0),
    "you took the class with the smallest product": BOTH.argmin(0),
}


def attempt(mine, inputs):
    """What a function returns, as an array, or words for why it returns none."""
    try:
        answer = mine(*(x.copy() for x in inputs))
        return "it returns nothing yet" if answer is None else np.asarray(answer)
    except Exception as problem:
        return f"it stops with {type(problem).__name__}: {problem}"


def judge(answer, right, slips):
    """Whether an answer is right, and if not, why."""
    if isinstance(answer, str):
        return answer
    known = {"right": right} | slips
    words = [why for why, other in known.items() if np.array_equal(answer, other)]
    yours = f"yours has shape {answer.shape} and begins {answer.ravel()[:6]}"
    return words[0] if words else f"not yet: expected shape {np.shape(right)}; {yours}"


def check_colours(mine):
    """What is wrong with a function that should colour a label map."""
    answer = attempt(mine, (LABELS,))
    words = judge(answer, PICTURE, COLOURS)
    if words == "right" and answer.dtype != np.uint8:
        return f"the colours are right, but the dtype is {answer.dtype}, not uint8"
    tall = np.array([[2, 1], [0, 1], [1, 2]], np.uint8)  # no LV
    if words == "right" and judge(attempt(mine, (tall,)), BGR[tall], {}) != "right":
        return "right for one mask, wrong for another: 3 rows, 2 columns and no LV"
    return words


def check_vote(mine):
    """What is wrong with a function that should let place and grey level vote."""
    answer = attempt(mine, (FREQUENT, LIKELY, GREYS))
    words = judge(answer, BOTH.argmax(0), VOTES)
    draw = np.random.default_rng(0)
    often, likely = draw.random((4, 5, 7)), draw.random((4, 256))
    image = draw.integers(0, 256, (5, 7), np.uint8)
    vote = (often * likely[:, image]).argmax(0)
    again = attempt(mine, (often, likely, image)) if words == "right" else ""
    if words == "right" and not np.array_equal(again, vote):
        return "right for three pixels, wrong for a picture of 5 rows and 7 columns"
    return words

# %%
def my_colours(mask):
    """Labels (H, W) -> uint8 (H, W, 3) for OpenCV: RV red, Myo green, LV blue."""
    return None  # your lines here


print("my_colours:", check_colours(my_colours))

# %% [markdown]
# ```{solution-start} pixels-colour
# :class: dropdown
# ```

# %%
def my_colours(mask):
    """Labels (H, W) -> uint8 (H, W, 3) for OpenCV: RV red, Myo green, LV blue."""
    palette = np.array([[0, 0, 0], [0, 0, 255], [0, 255, 0], [255, 0, 0]], np.uint8)
    return palette[mask]


print("my_colours:", check_colours(my_colours))

# %% [markdown]
# Indexing with an array replaces each label by its row of the palette, so an axis is added: (H, W) becomes (H, W, 3).
# The rows are written blue, green, red. Try it: `cv2.imwrite("mask.png", my_colours(val.masks[0]))`.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Place and brightness together
# :label: pixels-vote
# One baseline knows only the place, the other only the brightness. Combine them: your function gets `frequency` (4,
# H, W): how often each class is at each pixel; `likelihood` (4, 256): `likelihood[c, g]` says how often a pixel of
# class `c` has the grey level `g`; and an image, uint8 (H, W). At each pixel, and for every class, multiply its
# frequency at this place by its likelihood at this grey level. Return the label map (H, W) of the classes with the
# largest product. (This is *naive Bayes*. Indexing with an array looks up each of its numbers: `likelihood[c, image]`
# has the shape (H, W).)
#
# The cell below makes `likelihood` from the training slices; the 16 levels of a bin share one value. When the check
# says "right", predict whether the vote reaches the number to beat, then score it: `score([my_vote(frequency,
# likelihood, image) for image in val.images], val.masks)`.
# ```

# %%
likelihood = np.zeros((4, 256))
for c in range(4):
    grey = train.images[train.masks == c]
    counts = np.bincount(grey // 16, minlength=16)  # 16 bins of 16 levels
    likelihood[c] = np.repeat(counts / counts.sum(), 16)
print(likelihood.shape)

# %%
def my_vote(frequency, likelihood, image):
    """Label map (H, W): the class with the largest frequency times likelihood."""
    return None  # your lines here


print("my_vote:", check_vote(my_vote))

# %% [markdown]
# ```{solution-start} pixels-vote
# :class: dropdown
# ```

# %%
def my_vote(frequency, likelihood, image):
    """Label map (H, W): the class with the largest frequency times likelihood."""
    return (frequency * likelihood[:, image]).argmax(0)


print("my_vote:", check_vote(my_vote))

# %%
voted = [my_vote(frequency, likelihood, image) for image in val.images]
classes = score(voted, val.masks)
print("RV, Myo, LV:", classes.round(2))
print(f"mean {classes.mean():.3f}, to beat {to_beat:.3f}")

# %%
figure, axes = plots.panels(2, 2, size=2.5)
for k, ax in enumerate(axes):
    plots.overlay(ax, val.images[k], voted[k])
    plots.contours(ax, val.masks[k], width=1.2)

# %% [markdown]
# *Place times brightness on the first four validation slices, with the true outlines.*
#
# `likelihood[:, image]` does the look-up for all classes at once and has the shape (4, H, W). The printed mean is
# well above the number to beat, and there is still no network. But the masks are ragged, because each pixel was
# judged by itself. To see shape you have to look at a pixel's neighbours, and that begins on the next page.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Not as JPEG
# :label: pixels-jpeg
# Save the label map `mask` as JPEG instead of PNG, with `cv2.imwrite`, and read it again with `IMREAD_UNCHANGED`.
# Which labels do you expect? How many pixels changed? Then do the same with the stretched mask.
# ```
#
# ```{solution-start} pixels-jpeg
# :class: dropdown
# ```

# %%
for name, picture in {"labels": mask, "times 85": mask * 85}.items():
    cv2.imwrite(str(folder / "mask.jpg"), picture)
    again = cv2.imread(str(folder / "mask.jpg"), cv2.IMREAD_UNCHANGED)
    values = np.unique(again)
    print(f"{name}: {(again != picture).sum()} pixels changed")
    print(f"    {len(values)} values: {values[:8]} ...")

# %% [markdown]
# JPEG is made for photographs. It stores a picture as a sum of waves and drops the weak ones, which blurs edges; and
# the edges are all that a mask has. It even invents labels that no mask has. PNG gives back every byte.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [Convolution](../build/convolution) looks at a pixel's neighbours. **Read**: Reinke et al.
# {cite}`reinke2024`, for a collection of pictures in which one score misjudges a mask.
