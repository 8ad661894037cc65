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
# Before any network learns anything: how well can a mask fit the heart if it never looks at the picture?
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
from cmrseg import augment, data, metrics, plots

plots.style()
train, val = data.split(data.source(), "val")

# %% [markdown]
# ## The task
#
# A magnetic resonance (MR) scanner films the beating heart one slice at a time. The *short-axis* view cuts across the
# left ventricle like a saw across a tree trunk: a disc of bright blood in a ring of dark muscle, and the right
# ventricle wrapped round one side.

# %%
figure, axes = plots.panels(4, size=2.375)
for k, moment in enumerate(("end-diastole", "end-systole")):
    image, mask = train.images[20 + k], train.masks[20 + k]  # both of one patient
    plots.show(axes[2 * k], image, moment)
    plots.contours(plots.show(axes[2 * k + 1], image), mask)
plots.class_legend(figure)

# %% [markdown]
# *One patient, twice. At end-diastole (ED) the ventricles are full. At end-systole (ES), a third of a second later, the
# cavities have shrunk and the wall between the gold and the magenta line has thickened. There is little contrast where
# the right ventricle's thin wall meets what lies outside.*
#
# We want the class of every pixel. This is called **semantic segmentation**, and the answer is a **label map**: an array
# as large as the image that holds a class number at each pixel.
#
# | label | class | what it is |
# |---|---|---|
# | 0 | background | lungs, liver, chest wall, vessels: everything else |
# | 1 | RV | the cavity of the right ventricle, a crescent that hugs the left |
# | 2 | Myo | the myocardium of the left ventricle, the muscle ring |
# | 3 | LV | the cavity of the left ventricle, papillary muscles included |
#
# For real slices experts drew these maps. Learning from pairs of an input and its right answer is **supervised
# learning**. We learn from the *training* slices and judge on the *validation* slices, which come from other patients.
# Doctors compare ED with ES to see how much blood a beat moves, so these two moments were labelled.
#
# The 2020 report {cite}`report2020` worked on 120 labelled slices that come from ACDC {cite}`bernard2018`. They may not be
# copied into this book. Unless you ask for them (`make data`, then `CMRSEG_DATA=acdc96`), pages run on *phantoms*:
# synthetic hearts with exact masks.

# %%
from pathlib import Path

print("source:", Path(data.source()).name)
print("training:  ", train.images.shape, "of", len(set(train.patients)), "patients")
print("validation:", val.images.shape, "of", len(set(val.patients)), "patients")

# %% [markdown]
# ## From file to array and back
#
# In practice slices arrive as files. The report's were 8-bit grey PNG files, an image and a mask for each slice, and
# **OpenCV** (`cv2`) read and wrote them. We write some first, so that there is something to read.

# %%
import tempfile

folder = Path(tempfile.mkdtemp())
for name, image, mask in zip(train.names[:10], train.images, train.masks):
    cv2.imwrite(str(folder / f"{name}.png"), image)
    cv2.imwrite(str(folder / f"{name}_mask.png"), mask)
(folder / "notes.png").write_text("a text file with the name of a picture")
print(sorted(path.name for path in folder.iterdir())[:4], "...")

# %% [markdown]
# **Predict first**: the file holds one grey image of 96 rows and 96 columns. What does each of these lines print?

# %%
first = str(folder / f"{train.names[0]}.png")
print(cv2.imread(first).shape)
print(cv2.imread(first, cv2.IMREAD_UNCHANGED).shape)
print(cv2.imread(str(folder / "notes.png"), cv2.IMREAD_UNCHANGED))

# %% [markdown]
# Without a flag OpenCV turns every file into a colour image: three channels in the order blue, green, red, and 8 bits
# even if the file had more. `IMREAD_UNCHANGED` means: give me what is stored. And a file that is missing or
# isn't a picture raises no error: `imread` returns `None`, and your program stops later, somewhere else. So we read
# through a function that checks. (`SystemExit` ends a script with a message and no traceback.)


# %% tags=["piece"]
def read_png(path):
    """One 8-bit grey PNG as uint8 (H, W)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise SystemExit(f"{path}: not an 8-bit grey PNG")
    return pixels


# %%
for name, image, mask in zip(train.names[:10], train.images, train.masks):
    assert np.array_equal(read_png(folder / f"{name}.png"), image)
    assert np.array_equal(read_png(folder / f"{name}_mask.png"), mask)
difference = read_png(first).astype(int) - data.read_png(Path(first))
assert not difference.any()
print("difference from cmrseg's reader:", np.abs(difference).max())
try:
    read_png(folder / "notes.png")
except SystemExit as problem:
    print(str(problem).replace(str(folder), "..."))

# %% [markdown]
# ## A label map is not a picture
#
# Open a mask in an image viewer and you see a black square: 3 of 255 is as good as black. The report multiplied labels
# by 85 to look at them, which spreads them over 0, 85, 170 and 255.

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
# *One label map, three ways to show it. matplotlib hides the problem: unless you give it `vmin` and `vmax`, it stretches
# whatever you pass to the full range.*
#
# Stretched masks are for eyes only. Sooner or later somebody saves one and trains on it. **Predict first**: who notices,
# PyTorch's loss, a comparison such as `mask == 1`, or both?

# %%
labels = torch.from_numpy(stretched).long()[None]  # (1, H, W)
logits = torch.zeros(1, 4, *mask.shape)  # a network's raw scores, before any training
try:
    F.cross_entropy(logits, labels)
except (IndexError, RuntimeError) as problem:
    print("PyTorch's loss:", str(problem).split("\n")[0])
print("by comparison: ", [int((stretched == c).sum()) for c in range(4)], "pixels")
print("it should be:  ", [int((mask == c).sum()) for c in range(4)])

# %% [markdown]
# PyTorch's cross-entropy (the usual loss, explained on [The loss](the_loss)) uses a label as an index, finds no class
# 85, and stops. Code that *compares*, `mask == 1` and so on, notices nothing: it finds background, and three classes
# without a pixel. The report's loss and its Dice compare. With stretched masks they would teach a network that no pixel
# belongs to the heart, and nothing would complain. So look at `np.unique(mask)` once, for every data set you meet.
#
# ## How rare the heart is

# %%
share = [(train.masks == c).mean() for c in range(4)]
for name, part in zip(data.CLASSES, share):
    print(f"{name:>10}: {part:6.1%} of all training pixels")
nothing = np.zeros_like(val.masks)
print(f"\naccuracy of 'background everywhere': {(nothing == val.masks).mean():.3f}")

# %% [markdown]
# This is **class imbalance**: more than four pixels in five are background, and each class of the heart has about one in
# twenty. The last line shows what that does to **accuracy**, the share of pixels with the right label. A mask that finds
# no heart at all gets more than 0.8 on the validation slices. So accuracy is no use here: it pays for background.
#
# ## Dice in three lines
#
# We need a score that ignores the pixels which both masks call background. Here is a row of ten pixels.
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
# Seven of the ten pixels have the right label: an accuracy of 0.7. For **Dice** {cite}`dice1945`, count the pixels in both
# masks, and divide by the mean size of the two:
#
# $$D = \frac{2\,|A \cap B|}{|A| + |B|}$$
#
# It is 1 if the masks are equal and 0 if they don't meet. Add a thousand background pixels at either end: the accuracy
# rises to nearly 1, and Dice stays the same.

# %%
truth = np.array([0, 0, 1, 1, 1, 1, 0, 0, 0, 0], bool)
pred = np.array([0, 0, 0, 1, 1, 1, 1, 1, 0, 0], bool)
overlap = (pred & truth).sum()
size = pred.sum() + truth.sum()
print(f"Dice {2 * overlap / size:.2f} | accuracy {(pred == truth).mean():.2f}")

# %% [markdown]
# ## Nothing against nothing
#
# The report's Dice was those three lines, once for each class. Let's run them on the best prediction there can be, the
# reference itself, for a slice without a right ventricle. **Predict first**: which three scores, and which mean?

# %%
rv_pixels = (train.masks == 1).sum((1, 2))
print((rv_pixels == 0).sum(), "training slices have no RV pixel")
truth = train.masks[rv_pixels.argmin()].copy()
truth[truth == 1] = 0  # should all slices have some, we take it out
pred, scores = truth.copy(), []
with np.errstate(invalid="ignore"):  # NumPy would print a warning, and go on
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        scores.append(2 * (a & b).sum() / (a.sum() + b.sum()))
print("RV, Myo, LV:", np.array(scores), "| mean:", np.mean(scores))

# %% [markdown]
# Some slices contain no right ventricle; one of the report's training images is such a slice. If the prediction agrees,
# Dice is 0/0, which NumPy calls `nan`, *not a number*. It spreads: a single `nan` turns every mean it enters into `nan`.
# So Dice needs a rule for an empty class. Ours: **if a class is in neither mask, there is nothing to score, and the slice
# is left out of the mean of that class.** If it is in only one of the two masks, the formula gives 0, as it should.


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
shifted = np.roll(train.masks, 2, axis=2)  # every true mask, two pixels too far right
ours = np.array([dice(p, t) for p, t in zip(shifted, train.masks)])
package = metrics.dice(shifted, train.masks)
assert np.array_equal(ours, package, equal_nan=True)
print("difference from cmrseg:", np.nanmax(np.abs(ours - package)))
print("a slice without RV:", np.array(dice(truth, truth)))
print("slices x classes:", ours.shape, "| without a number:", np.isnan(ours).sum())
print("mean of each class:", np.nanmean(ours, axis=0).round(3))

# %% [markdown]
# `np.nanmean` leaves out what isn't a number. The mean over the slices gives one score for each class; the mean of these
# three is *the* Dice of this book.
#
# ## Dice 0.9 is not 90 % of the pixels
#
# Many readers take a Dice of 0.9 for "90 % of the pixels are right". Below, two wrong masks of a left ventricle, made so
# that both have a Dice of 0.9. One lacks the top of the cavity, the other has a cap of pixels too many.
# **Predict first**: which share of the true pixels does each one find?

# %%
lv = train.masks[0] == 3
n = lv.sum()
near = cv2.dilate(lv.astype(np.uint8), np.ones((7, 7))) == 1  # up to 3 pixels around
ring = near & ~lv
too_small = lv & (lv.cumsum().reshape(lv.shape) > 2 * n / 11)  # 2n/11 missing
too_large = lv | (ring & (ring.cumsum().reshape(lv.shape) <= 2 * n / 9))  # 2n/9 added
wrong = {"too small": too_small, "too large": too_large}
print("           Dice   of all pixels right   of the true ones found")
for name, m in wrong.items():
    score = dice(3 * m, 3 * lv)[2]
    right, found = (m == lv).mean(), (m & lv).sum() / n
    print(f"{name}   {score:.2f} {right:15.1%} {found:22.1%}")

# %%
figure, axes = plots.panels(3, size=2.5)
for ax, (name, m) in zip(axes, {"reference": lv, **wrong}.items()):
    plots.overlay(ax, train.images[0], 3 * m, name, alpha=0.5)
    ax.contour(lv, levels=[0.5], colors="white", linewidths=1.2)

# %% [markdown]
# *The same Dice twice, the true outline in white. The mask in the middle misses the top of the cavity. The mask on the
# right finds all of it, and a cap of pixels that don't belong to it.*
#
# **A Dice of 0.9 doesn't say that 90 % of the pixels are right, neither of the slice nor of the heart.** Of the
# whole slice, nearly all pixels are right. Of the ventricle, one mask finds about four fifths and the other finds
# every pixel. (The share of true pixels that are found is called *recall*, the share of found pixels that are true
# *precision*. Dice is their harmonic mean, also known as the F1 score.)
#
# ## Baseline 1: one grey level
#
# A **baseline** is a simple answer to a task that any serious method has to beat. Blood is bright, so let's call every
# pixel above some grey level LV. Which level? We choose one by eye, on the *training* slices.

# %%
figure, ax = plt.subplots(figsize=(7.5, 2.8))
colours = dict(zip(data.CLASSES, (plots.GREY, *plots.CLASS_COLOURS.values())))
for c, (name, colour) in enumerate(colours.items()):
    grey = train.images[train.masks == c]
    look = {"histtype": "step", "linewidth": 2, "color": colour, "label": name}
    ax.hist(grey, bins=32, range=(0, 256), density=True, **look)
ax.axvline(140, color=plots.SAID, linestyle="--")
ax.set(xlabel="grey level", ylabel="share of the class", yticks=[])
ax.legend();

# %% [markdown]
# *Grey levels of the four classes, each with the same area. Muscle (gold) is dark, blood (blue, magenta) mostly bright.
# The background holds everything. The dashed line at 140 is our choice.*

# %%
threshold = 140  # chosen by eye; change me
bright = np.where(val.images > threshold, 3, 0).astype(np.uint8)


def score(masks, truths):
    """Mean Dice over the slices, for RV, Myo and LV."""
    return np.nanmean([dice(m, t) for m, t in zip(masks, truths)], axis=0)


print("RV, Myo, LV:", score(bright, val.masks).round(3))

# %% [markdown]
# Poor, even for the LV, and the figure shows why. Blood is about as bright in both ventricles, and so are many pixels
# outside the heart: a grey level doesn't say where a pixel is. There is a second reason. A scanner's grey levels have no
# unit, so the same blood may be twice as bright in one patient as in the next.

# %%
z = augment.normalise(train.images)[:, 0].numpy()
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.4), sharey=True)
for ax, stack, title in zip(axes, (train.images, z), ("as stored", "normalised")):
    blood = [image[m == 3].mean() for image, m in zip(stack[::2], train.masks[::2])]
    muscle = [image[m == 2].mean() for image, m in zip(stack[::2], train.masks[::2])]
    ax.hist(blood, bins=20, color=plots.CLASS_COLOURS["LV"])
    ax.set(title=f"blood in the LV, {title}", xlabel="mean grey level")
    spread = np.std(blood) / (np.mean(blood) - np.mean(muscle))
    print(f"{title}: standard deviation is {spread:.2f} of the gap to muscle")
axes[0].set(ylabel="patients", yticks=[0, 5, 10]);

# %% [markdown]
# *The mean grey level of the blood in each patient's ED slice. Left, as the scanner wrote it. Right, after each slice was
# brought to mean 0 and standard deviation 1.*
#
# That is what the normalisation of the last page (the *z-score*) is for: it takes the scanner's unit away. The printed
# shares say what it changes, and that much variation remains. The report fed grey levels from 0 to 255 as they were;
# normalising is today's usual practice. What it is worth to a network, [Repairs](../conclusions/repairs) measures.
#
# ## Baseline 2: a mask that never looks
#
# All hearts lie near the middle of their slice. So take, at each pixel, the label that is most frequent there in the
# training masks, and answer with this one mask for every slice. It uses no image at all.

# %%
frequency = np.stack([(train.masks == c).mean(0) for c in range(4)])
static = frequency.argmax(0).astype(np.uint8)
static_masks = np.stack([static] * len(val))
assert np.allclose(frequency.sum(0), 1)
print("frequency", frequency.shape, "| masks", static_masks.shape)
figure, axes = plots.panels(4, size=2.375)
for c in (1, 2, 3):
    axes[c - 1].imshow(frequency[c], vmin=0, vmax=1, cmap=plots.HEAT)
    axes[c - 1].set_title(f"{data.CLASSES[c]}: up to {frequency[c].max():.0%}")
plots.overlay(axes[3], train.images.mean(0), static, "the most frequent label");

# %% [markdown]
# *How often each pixel belongs to each class in the training slices: the darker, the more often. Right, the most frequent
# label, laid over the mean image. Muscle is a thin ring in a different place in every heart, so it seldom wins.*
#
# ## The number to beat
#
# **Predict first**: here are three answers to the validation slices. Rank them by accuracy, then by mean Dice. Are
# the two rankings the same?

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
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.7), width_ratios=(1, 1, 1, 1.2))
shown = {"reference": val.masks, "brighter": bright, "never looks": static_masks}
for ax, (name, stack) in zip(axes, shown.items()):
    plots.contours(plots.overlay(ax, val.images[0], stack[0], name), val.masks[0])
for x, stack in enumerate((bright, static_masks)):
    places, look = x + np.array([-0.25, 0, 0.25]), list(plots.CLASS_COLOURS.values())
    axes[3].bar(places, score(stack, val.masks), 0.22, color=look)
axes[3].axhline(to_beat, color=plots.SAID)
axes[3].set_title(f"to beat: {to_beat:.2f}", color=plots.SAID)
axes[3].set(ylabel="Dice", ylim=(0, 1))
axes[3].set_xticks([0, 1], ["brighter", "never looks"]);

# %% [markdown]
# *The number to beat. One validation slice with its true outlines, and the two baselines. Right, their Dice for each class
# in its colour (the threshold has none for RV and Myo); the line is the mean Dice of the mask that never looks.*
#
# Two things to keep. First, accuracy ranks "background everywhere" above the threshold, although the threshold finds
# much of the LV and the other finds nothing. Second, the best of the three is the one that ignores the picture. Its mean
# Dice is **the number to beat**: a network that scores less is no better than a mask that never looks, whatever
# its loss says.
#
# ## Recap
#
# - You can read slices safely (`IMREAD_UNCHANGED`, and a check), and you don't train on masks made for viewing.
# - You can compute Dice by hand and in code, with a rule for an empty class. You can explain why a Dice of 0.9 isn't 90 %
#   of the pixels, and why a high accuracy means little where classes are imbalanced.
# - You have two baselines, and with them a number that a network has to beat.
#
# ## Exercises
#
# ```{exercise} A mask in colour
# :label: pixels-colour
# A mask times 85 is grey. Write a function that turns a label map (H, W) into a colour picture that `cv2.imwrite` can
# save: background black, RV red, Myo green, LV blue, each at full strength (255). Which shape, which order of channels,
# which dtype?
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
    found = f"yours has shape {answer.shape} and begins {answer.ravel()[:6]}"
    return words[0] if words else f"not yet: expected shape {np.shape(right)}; {found}"


def check_colours(mine):
    """What is wrong with a function that should colour a label map."""
    answer = attempt(mine, (LABELS,))
    words = judge(answer, PICTURE, COLOURS)
    if words == "right" and answer.dtype != np.uint8:
        return f"the colours are right, but the dtype is {answer.dtype}, not uint8"
    return words


def check_vote(mine):
    """What is wrong with a function that should let place and grey level vote."""
    answer = attempt(mine, (FREQUENT, LIKELY, GREYS))
    return judge(answer, BOTH.argmax(0), VOTES)


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
# One baseline knows only the place, the other only the brightness. Combine them. You get `frequency` (4, H, W), how often
# each class is at each pixel; `likelihood` (4, 256), how often each grey level occurs within each class; and an image,
# uint8 (H, W). At each pixel multiply, for every class, the two numbers that belong to it, and answer with the class
# whose product is largest. (This is *naive Bayes*.) Before you run it on the validation slices, predict: does it reach
# the number to beat?
# ```


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
likelihood = np.zeros((4, 256))
for c in range(4):
    grey = train.images[train.masks == c]
    counts = np.bincount(grey // 16, minlength=16)  # 16 bins of 16 levels
    likelihood[c] = np.repeat(counts / counts.sum(), 16)
voted = [my_vote(frequency, likelihood, image) for image in val.images]
classes = score(voted, val.masks)
print("RV, Myo, LV:", classes.round(2))
print(f"mean {classes.mean():.3f}, to beat {to_beat:.3f}")

# %%
figure, axes = plots.panels(4, size=2.375)
for k, ax in enumerate(axes):
    plots.overlay(ax, val.images[k], voted[k])
    plots.contours(ax, val.masks[k], width=1.2)

# %% [markdown]
# *Place times brightness on the first four validation slices, with the true outlines.*
#
# The printed mean is well above the number to beat, and there is still no network. Look at the masks, though: they're
# ragged, because each pixel was judged by itself. This method knows nothing about shape. To see shape you have to look
# at a pixel's neighbours, and that begins on the next page.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Not as JPEG
# :label: pixels-jpeg
# Save the label map of a slice as JPEG instead of PNG and read it again. Which labels do you expect? How many
# pixels changed, and where are they? Then do the same with the stretched mask.
# ```
#
# ```{solution-start} pixels-jpeg
# :class: dropdown
# ```

# %%
for name, picture in {"labels": mask, "times 85": mask * 85}.items():
    cv2.imwrite(str(folder / "mask.jpg"), picture)
    again = cv2.imread(str(folder / "mask.jpg"), cv2.IMREAD_UNCHANGED)
    changed = again != picture
    values = np.unique(again)
    print(f"{name}: {changed.sum()} pixels changed; {len(values)} values: {values[:8]}")

# %% [markdown]
# JPEG is made for photographs: it stores smooth waves and lets small differences go, mostly along edges, which is
# where a mask's information is. Labels are names, not brightnesses, so a label between two others means nothing. PNG
# gives back every byte.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [Convolution](../build/convolution) looks at a pixel's neighbours. **Read**: Reinke et al. {cite}`reinke2024`, for
# a collection of pictures in which one score misjudges a mask.
