# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # My Dice is 0
#
# The training runs, the loss falls, and the Dice is 0.000. It happens to everybody, and the cause is
# seldom where one looks first. Where should one look first?

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
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch

from cmrseg import data, datasets, metrics, plots
from cmrseg.augment import normalise
from cmrseg.losses import ce_dice, cross_entropy
from cmrseg.losses import report_bce as report_loss
from cmrseg.models.report_unet import ReportUNet
from cmrseg.models.unet import UNet
from cmrseg.predict import predict

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
STEPS = 4 if SMOKE else 100
train, val = datasets.split(datasets.source(), "val")

# %% tags=["hide-input"]
TREE = {
    "it does not even start": [
        "a broken or missing file",
        "mask values 0, 85, 170, 255",
    ],
    "the loss jumps or grows": ["learning rate too high"],
    "the loss stops far above zero": ["softmax applied twice"],
    "the loss falls, Dice stays at 0": [
        "background wins every pixel",
        "batch-norm averages lag behind",
    ],
    "the loss falls, Dice stays low": [
        "each image has another's mask",
        "augmentation moves the image only",
    ],
    "Dice changes from call to call": ["model.eval() forgotten"],
}
figure, ax = plt.subplots(figsize=(4.3, 4.9))
ax.text(0, 0, "My Dice is 0, or far too low", fontsize=12, weight="bold", va="center")
y = 0
for symptom, causes in TREE.items():
    ax.plot([0.15, 0.15, 0.4], [0.4, y + 1.2, y + 1.2], color=plots.GREY, linewidth=1)
    ax.text(0.55, y + 1.2, symptom, color=plots.ACCENT, fontsize=11.5, va="center")
    for k, cause in enumerate(causes, start=1):
        down = [y + 1.6, y + 1.2 + k, y + 1.2 + k]
        ax.plot([0.75, 0.75, 1], down, color=plots.GREY, linewidth=1)
        ax.text(1.15, y + 1.2 + k, cause, fontsize=11.5, va="center")
    y += 1.2 + len(causes)
ax.set(xlim=(-0.05, 7), ylim=(y + 0.5, -0.5))
ax.axis("off");

# %% [markdown]
# *Find your symptom, in colour; below it hang the usual causes. Every one of them is shown on this page, with
# its cure.*
#
# ## First of all: can it learn two slices?
#
# Before any long training, try the shortest. A healthy network with a healthy loop learns two slices
# by heart in seconds. If it cannot do that, more data and more epochs will not help, and you have a
# bug that shows itself in seconds too.

# %%
def learn(net, batches, loss=ce_dice, lr=0.02):
    """One step on each of these batches; the loss of every step."""
    optimiser, losses = torch.optim.Adam(net.parameters(), lr), []
    for x, y in batches:
        losses.append(loss(net.train()(x), y))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    return [value.item() for value in losses]


def tiny():
    """A small U-Net, always the same one."""
    torch.manual_seed(0)
    return UNet((8, 16, 32))


def dice(net, slices, scale="zscore"):
    """Mean Dice of a network on slices."""
    predicted = predict(net, slices.images, scale)
    return metrics.mean(metrics.dice(predicted, slices.masks))


two = train[[2, 4]]  # of two patients
x, y = normalise(two.images), torch.from_numpy(two.masks).long()
net = tiny()
healthy = learn(net, [(x, y)] * STEPS)
print(f"{STEPS} steps, loss {healthy[0]:.3f} -> {healthy[-1]:.3f}")
print(f"Dice on the two slices {dice(net, two):.3f}")

# %% [markdown]
# This is a test of the *machinery* only. It says nothing about hearts that the network has not seen. Keep the
# function `learn` above: the checks below all use it.
#
# ## The loss falls, Dice stays at 0
#
# ### Background wins every pixel
#
# Here the report's network {cite}`report2020` begins to learn, narrow, with its own loss, on grey levels as
# stored. The check is one line: *which classes does it predict, and how often?*

# %%
torch.manual_seed(0)
grey, labels = normalise(train.images, "raw"), torch.from_numpy(train.masks).long()
pairs = [torch.randint(len(grey), (2,)) for _ in range(STEPS * 6 // 10)]
flat = ReportUNet((8, 16, 32, 64, 128))
losses = learn(flat, [(grey[pair], labels[pair]) for pair in pairs], report_loss, 0.003)
answer = predict(flat, val.images, "raw")
print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, Dice {dice(flat, val, 'raw'):.3f}")
for c, name in enumerate(data.CLASSES):
    shares = (answer == c).mean(), (val.masks == c).mean()
    print(f"{name:>10}: predicted {shares[0]:6.1%}, true {shares[1]:6.1%}")

# %% [markdown]
# The page on the loss shows what hides behind it: the network may know quite well where the heart is, and background
# wins by a little everywhere. *Cure:* look at the probabilities, not the labels; try a textbook network, to see
# whether it is your network that stands still (with a textbook decoder the report's no longer did:
# [Repairs](../conclusions/repairs)); add soft Dice to the loss; and if nothing else can be changed, wait,
# for some networks wake late.
#
# ### Averages that lag
#
# Batch normalisation {cite}`ioffe2015` uses the mean and spread of the batch while training, and
# running averages of them afterwards. A young network changes faster than its averages follow. Then the
# same weights do well in training mode and badly in evaluation mode:

# %%
young = tiny()
learn(young, [(x, y)] * (STEPS * 3 // 10))
with torch.inference_mode():
    training = young.train()(x).argmax(1).numpy()
print(f"training mode   Dice {metrics.mean(metrics.dice(training, two.masks)):.3f}")
print(f"evaluation mode Dice {dice(young, two):.3f}")

# %% [markdown]
# *Cure:* more steps, or a smaller learning rate at the end, which lets the averages catch up. If the gap
# stays for good, the batches are too small or too unlike the slices you predict.
#
# ## Dice changes from call to call
#
# The same mistake from the other side: predict without `model.eval()`, and the answer for a slice depends on which
# other slice shares its batch. In a batch of two, half of the mean and spread come from that other slice.

# %%
def answers(net, companion):
    """The labels of a slice it has learned, in a batch with another one."""
    with torch.inference_mode():
        both = normalise(train.images[[2, companion]])
        return net(both)[0].argmax(0)


for mode in ("train", "eval"):
    getattr(net, mode)()  # net.train() or net.eval()
    changed = (answers(net, 8) != answers(net, 13)).sum().item()
    print(f"net.{mode}(): another companion changes {changed} pixels of the answer")

# %% [markdown]
# *Cure:* `net.eval()` before every prediction, `net.train()` before every step.
# {func}`cmrseg.predict.predict` does the first, the loop above the second.
#
# ## The loss stops far above zero, or jumps
#
# Two bugs with the same thermometer. On the left, softmax is applied twice: the network's output goes
# through it once by hand and once inside the cross-entropy. Nothing fails. But the loss now sees "logits"
# between 0 and 1, and cannot fall below $\ln(e + 3) - 1$ however sure the network is. On the right, the
# learning rate is too high.

# %%
def twice(logits, labels):
    """The silent mistake: cross-entropy takes logits, and gets probabilities."""
    return cross_entropy(logits.softmax(1), labels)


again = [(x, y)] * (STEPS * 7 // 10)
curves = {"once": learn(tiny(), again, cross_entropy)}
curves["twice"] = learn(tiny(), again, twice)
rates = {0.02: healthy[: len(again)]}
for lr in (1.0, 10.0):
    rates[lr] = learn(tiny(), again, lr=lr)
floor = np.log(np.e + 3) - 1
for name, values in curves.items():
    print(f"softmax {name:>5}: last loss {values[-1]:.3f}")
print(f"        floor: {floor:.3f}")

# %% tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3))
for name, values in curves.items():
    left.plot(values, linewidth=1.6, label=f"softmax {name}")
left.axhline(floor, color=plots.GREY, linestyle=":", linewidth=1.4)
left.set(xlabel="step", ylabel="cross-entropy", ylim=(0, None))
left.legend(loc="upper right")
for lr, values in rates.items():
    right.plot(values, linewidth=1.6, label=f"learning rate {lr:g}")
right.set(xlabel="step", ylabel="CE + Dice", yscale="log")
right.legend(loc="upper right");

# %% [markdown]
# *Left: a loss that bends too early and settles on a line above zero. Right: a rate of 10 throws the network
# far away in its first steps, and 1 is too large as well: compare where the three curves end.*
#
# *Cure* on the left: models return logits, losses take logits, and softmax is for looking at probabilities.
# The Dice of such a network can still be fair, which is why the mistake goes unnoticed. On the right: divide
# the learning rate by ten until the first steps go down.
#
# ## The loss falls, Dice stays low
#
# ### Each image has another's mask
#
# Files come from the disk in any order, and names sorted as text are not sorted as numbers:

# %%
numbers = [f"cmr{n}.png" for n in range(1, 101)]
print("as text:   ", *sorted(numbers)[:6])
print("as numbers:", *numbers[:6])

# %% [markdown]
# Sort images one way and masks another, and nearly every mask lies on the wrong heart. The test with two
# slices is blind to this: a network learns a wrong pair by heart almost as gladly as a right one.

# %%
swapped = tiny()
learn(swapped, [(x, y.flip(0))] * STEPS)
wrong = metrics.mean(metrics.dice(predict(swapped, two.images), two.masks[::-1]))
print(
    f"masks swapped: Dice {wrong:.3f} against the masks it was given, "
    f"{dice(swapped, two):.3f} against the true ones"
)

# %% [markdown]
# ### Augmentation moves the image only
#
# The cousin of it: image and mask match on the disk, and part company in the loop, when one is turned or
# mirrored and the other is not. A picture of what the network is really fed shows both mistakes at once.

# %% tags=["hide-input"]
image, mask = train.images[8], train.masks[8]
figure, axes = plots.panels(3, size=2.8)
plots.contours(plots.show(axes[0], image, "as it should be"), mask)
plots.contours(plots.show(axes[1], image, "another's mask"), train.masks[4])
plots.contours(plots.show(axes[2], image[:, ::-1], "only the image mirrored"), mask);

# %% [markdown]
# *Lines that lie on the heart, lines that lie beside it, and lines that fit a heart which is no longer
# there. It takes a second to see and, without looking, may take a week to find.*
#
# *Cure:* pair files by the number in their name, as {func}`cmrseg.datasets.folders.list_pngs` does; pass image and mask
# through one function, as {func}`cmrseg.augment.augment` does; and draw four slices of the first batch of
# every new training.
#
# ## It does not even start
#
# Broken files are the kind ones: they can be caught before anything is learned. Five common ones, made
# here and read:

# %%
def complaint(path, mask=False):
    """What the package says about a file, without the folder."""
    try:
        data.read_png(path, mask)
        return f"{path.name}: fine"
    except data.BadInput as problem:
        return f"{path.name}: {problem.problem}.\n    {problem.cure}."


image, labels = train.images[0], train.masks[0]
with tempfile.TemporaryDirectory() as folder:
    place = Path(folder)
    cv2.imwrite(f"{place}/cmr1.png", cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
    cv2.imwrite(f"{place}/cmr2.png", image.astype(np.uint16) * 257)
    cv2.imencode(".jpg", image)[1].tofile(place / "cmr3.png")
    cv2.imencode(".png", image)[1][:2000].tofile(place / "cmr4.png")
    cv2.imwrite(f"{place}/cmr5_mask.png", labels * 85)
    for path in sorted(place.iterdir()):
        print(complaint(path, mask="mask" in path.name))

# %% [markdown]
# The last is the classic. Masks with the values 0, 85, 170 and 255 look right in a viewer, which is what
# they were stretched for; taken as they are, they hold no class 1, 2 or 3 at all.
#
# ## The doctor
#
# All of this and more is asked by one command, of a whole folder, before a training: are there two sizes, an
# image without its mask, an empty mask, a label in stray pieces, one slice in two splits? Here is a
# small data set, broken on purpose.

# %%
def write(root, split, count, first):
    """A few slices of the training set, as a split of a data root."""
    for kind in ("image", "mask"):
        (root / split / kind).mkdir(parents=True)
    for i in range(first, first + count):
        name = train.names[i]
        data.write_png(root / split / "image" / f"{name}.png", train.images[i])
        data.write_png(root / split / "mask" / f"{name}_mask.png", train.masks[i])


with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    write(root, "train", 6, first=0)
    write(root, "val", 4, first=6)
    masks, images = root / "train" / "mask", root / "train" / "image"
    data.write_png(masks / "cmr1_mask.png", train.masks[0] * 85)  # stretched
    (masks / "cmr2_mask.png").unlink()  # missing
    data.write_png(masks / "cmr3_mask.png", 0 * train.masks[2])  # empty
    data.write_png(images / "cmr4.png", train.images[3][:80])  # of another size
    data.write_png(root / "val" / "image" / "cmr7.png", train.images[4])  # a copy
    command = [sys.executable, "-m", "cmrseg", "doctor", folder]
    told = subprocess.run(command, capture_output=True, text=True)
lines = told.stdout.replace(folder + "/", "").replace(folder, "FOLDER").splitlines()
for line in lines:
    print(textwrap.fill(line, 78, subsequent_indent="    "))
print("exit status", told.returncode)

# %% [markdown]
# In a terminal that is `python -m cmrseg doctor FOLDER`. Errors stop a training, warnings are worth a look.
# `python -m cmrseg train`, given a folder of your own, looks for the errors before its first step.
#
# ## What to conclude
#
# Look at what goes in, overfit two slices, count what comes out: in this order, and before you touch a single
# hyperparameter. The whole page in one table:
#
# | symptom | likely cause | check | cure |
# |---|---|---|---|
# | does not start | broken file, wrong format | `doctor` | the line says it |
# | does not start, or learns nothing in a loop without checks | masks 0, 85, 170, 255 | `np.unique(mask)` | divide by 85 |
# | Dice 0, loss falls | background wins | share of predicted classes | textbook decoder, Dice in the loss, patience |
# | Dice 0 in evaluation only | averages lag | Dice in both modes | more steps, smaller last steps |
# | Dice changes from call to call | `eval()` forgotten | predict twice | `net.eval()` |
# | loss lies flat above zero | softmax twice | overfit two slices | return logits |
# | loss jumps or grows | learning rate too high | plot the first steps | divide by ten |
# | Dice low, overfitting works | images and masks out of step | draw a batch | pair by number |
# | Dice low, overfitting works | augmentation on the image only | draw a batch | one function for both |
#
# ## Try
#
# ```{exercise} A check that looks for you
# :label: debugging-pairs
# You cannot look at ten thousand slices. Write a check of one number per slice that tells right masks from
# masks which have slipped by one patient. What do you know about blood and muscle?
# ```
#
# ```{solution-start} debugging-pairs
# :class: dropdown
# ```

# %%
def contrast(images, masks):
    """Grey level of the LV's label minus that of the myocardium's, each slice."""
    return np.array(
        [
            image[mask == 3].mean() - image[mask == 2].mean()
            for image, mask in zip(images, masks)
            if {2, 3} <= set(mask.flat)
        ]
    )


slipped = np.roll(train.masks, 2, axis=0)
for name, masks in (("right", train.masks), ("slipped", slipped)):
    contrasts = contrast(train.images, masks)
    print(
        f"{name:>8} masks: median contrast {np.median(contrasts):5.1f} grey levels, "
        f"LV brighter in {(contrasts > 0).mean():.0%} of the slices"
    )

# %% [markdown]
# In these images blood is brighter than muscle. So the mean grey level inside the LV's label should
# exceed that of the myocardium's, and clearly; a mask that has slipped blurs the difference.
# One slice proves little, a whole folder tells.
#
# ```{solution-end}
# ```
