# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Training, once
#
# What does a network see while it learns? Most trainings show you a number that creeps. This one is
# short enough to watch: it runs while the page is made, and after every epoch the network has to draw
# the same heart, one it never learns from.

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
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from cmrseg import data, experiments, metrics, plots, results, statistics
from cmrseg.augment import augment, normalise
from cmrseg.losses import ce_dice
from cmrseg.models import build
from cmrseg.training import (
    PRESETS,
    fit,
    make_optimiser,
    predict,
    probe_precision,
    schedule,
)

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, val = data.split(data.source(), "val")
if SMOKE:
    train = train[:8]
config = replace(PRESETS["modern"], epochs=2 if SMOKE else 10)

# %% tags=["hide-input"]
images, labels = normalise(train.images), torch.from_numpy(train.masks).long()


def begin(config):
    """A fresh network, its optimiser and its chance, all made from the seed."""
    torch.manual_seed(config.seed)
    net = build(config).to(memory_format=torch.channels_last)
    return (
        net,
        make_optimiser(config, net.parameters()),
        torch.Generator().manual_seed(config.seed),
    )


net, optimiser, rng = begin(config)
per_epoch = -(-len(images) // config.batch)
drawn, losses = [predict(net, val.images)], []
for epoch in range(config.epochs):  # the loop that this page explains below
    order, seen = torch.randperm(len(images), generator=rng).split(config.batch), []
    for step, chosen in enumerate(order):
        done = (epoch + step / per_epoch) / config.epochs
        optimiser.param_groups[0]["lr"] = config.lr * schedule(config.schedule, done)
        x, y = augment(images[chosen], labels[chosen], config.augment, rng)
        loss = ce_dice(net.train()(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(loss.item())
    losses.append(np.mean(seen))
    drawn.append(predict(net, val.images))  # and draw, after every epoch

shown = np.unique(np.r_[0:4, np.linspace(4, config.epochs, 4)].astype(int))
shown = shown[shown <= config.epochs]

figure, axes = plots.panels(4, -(-len(shown) // 4), size=2.2)
for ax, epoch in zip(axes, shown):
    title = "untrained" if epoch == 0 else f"after epoch {epoch}"
    plots.overlay(ax, val.images[0], drawn[epoch][0], title)
    plots.contours(ax, val.masks[0], width=1.2)
plots.class_legend(figure)

# %% [markdown]
# *One slice, drawn again and again: colour is what the network says, lines are the truth. At first it
# says much the same everywhere. Then it goes by brightness, then by place, and the rest of its time goes to the rims.*
#
# ## What was asked for
#
# A training is a list of choices. In this book the whole list is one object. Some of its fields belong to later
# pages; here are those that this training needs:

# %%
config = replace(PRESETS["modern"], epochs=config.epochs)
for name in (
    "model",
    "channels",
    "convolutions",
    "loss",
    "optimiser",
    "lr",
    "weight_decay",
    "schedule",
    "batch",
    "epochs",
    "scale",
    "augment",
    "seed",
):
    print(f"{name:>12}: {getattr(config, name)}")

# %% [markdown]
# The network is the U-Net of this part, with half the book's channels; the loss is cross-entropy
# plus Dice; the optimiser AdamW {cite}`loshchilov2019`, which is Adam with a small steady pull of every
# weight towards zero; four slices make a batch.
#
# ## The loop
#
# Everything that learns by gradients learns in this loop. Here is one epoch of a fresh network: an
# order, and then for each four slices vary, ask, compare, trace back, step.

# %%
net, optimiser, rng = begin(config)
net.train()
steps = []
for chosen in torch.randperm(len(images), generator=rng).split(config.batch):
    x, y = augment(images[chosen], labels[chosen], config.augment, rng)  # vary
    logits = net(x)  # ask: (4, 4, 96, 96)
    loss = ce_dice(logits, y)  # compare
    optimiser.zero_grad()  # forget the gradients of the last step
    loss.backward()  # trace back: how does each weight change the loss?
    optimiser.step()  # step
    steps.append(loss.item())
print(f"{len(steps)} steps; the first loss {steps[0]:.3f}, the last {steps[-1]:.3f}")

# %% [markdown]
# That is all there is to it; the rest is care. {func}`cmrseg.training.fit` is this loop with
# care: it seeds everything, sets the learning rate before each step, scores slices that it does not
# learn from, writes a checkpoint after each epoch, and stops with a clear word when the loss is no
# longer a number. To check that nothing else is hidden in it, train both ways for one epoch at a constant
# rate and compare all weights:

# %%
once = replace(config, epochs=1, schedule="constant")
cpu = {"precision": "fp32", "device": "cpu"}  # as the loop above
by_fit = fit(once, train, **cpu).model


def apart(one, other):
    """The largest difference between the weights of two networks."""
    pairs = zip(one.parameters(), other.parameters())
    return max((a - b).abs().max().item() for a, b in pairs)


print(f"largest difference between two weights: {apart(net, by_fit):g}")

# %% [markdown]
# ## How large a step
#
# A constant learning rate is a compromise between the beginning, when a large step may throw the
# network off, and the end, when only small ones improve it. The *one-cycle* schedule {cite}`smith2019`
# does not compromise: it warms up, goes fast through the middle, and glides to a halt.

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 2.7))
done = np.linspace(0, 1, 300)
for name, colour in (("one-cycle", plots.ACCENT), ("constant", plots.GREY)):
    rates = [schedule(name, d) for d in done]
    ax.plot(done, rates, color=colour, linestyle="-" if name == "one-cycle" else ":")
ax.text(0.02, 1.04, "constant", fontsize=9.5)
ax.text(0.69, 0.55, "one-cycle", color=plots.ACCENT, fontsize=9.5)
ax.set(
    xlabel="part of the training that is over",
    ylim=(0, 1.15),
    ylabel="learning rate,\npart of its peak",
);

# %% [markdown]
# *Warm up for three tenths, then glide along half a cosine. The last steps are so small that the
# weights settle, and one of the last epochs looks like another.*
#
# ## A new heart in every epoch
#
# The training slices are few. So no slice is shown twice the same way: each time it is turned, zoomed,
# shifted, and its contrast, brightness and noise are changed. A heart that is turned is still a heart,
# and its mask must turn with it.

# %% tags=["hide-input"]
n = 8
x, y = images[:1].expand(n, -1, -1, -1), labels[:1].expand(n, -1, -1)
x, y = augment(x, y, config.augment, torch.Generator().manual_seed(1))
figure, grid = plt.subplot_mosaic("AA1234;AA5678", figsize=(9.5, 3.4))
plots.contours(plots.show(grid["A"], train.images[0], "as stored"), train.masks[0])
for k in range(n):
    plots.contours(plots.show(grid[str(k + 1)], x[k, 0]), y[k].numpy(), width=1.1)

# %% [markdown]
# *One slice and eight variations, lines and all. If ever the lines leave the heart in a picture like
# this one, stop: the network would learn the mistake.*
#
# ## The curves
#
# Back to the training of the first picture. After each epoch it wrote down two things: the mean
# loss of its batches, and the Dice of the validation slices.

# %% tags=["hide-input"]
dice = np.array([metrics.per_class(metrics.dice(masks, val.masks)) for masks in drawn])
dice = np.nan_to_num(dice)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.1))
left.plot(range(1, config.epochs + 1), losses, "o-", color=plots.ACCENT, markersize=4)
left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
for k, (name, colour) in enumerate(plots.CLASS_COLOURS.items()):
    right.plot(dice[:, k], "o-", color=colour, markersize=4, label=name)
right.set(xlabel="epoch", ylabel="validation Dice", ylim=(-0.03, 1))
right.legend(loc="lower right");

# %% [markdown]
# *The loss is that of varied slices, Dice that of slices as they are, so the two need not move in step.
# The round cavity of the left ventricle is learned first.*

# %%
print(
    "validation Dice, last epoch: "
    + ", ".join(
        f"{name} {value:.3f}" for name, value in zip(plots.CLASS_COLOURS, dice[-1])
    )
)
print(f"mean {dice[-1].mean():.3f}")

# %% [markdown]
# The number to report is the one after the last epoch. Picking the best-looking epoch by the very slices
# you then report on is a small lie with a large following; [Train it again](../statistics/again) measures it.
#
# ## What belongs to the machine
#
# How fast it goes is not part of the recipe. On one machine numbers of 16 bits (bf16) are much faster than those of
# 32 (fp32), on another, where they are emulated, many times slower. So `fit` asks: a processor without matrix units
# keeps fp32, one with them is timed on both for a few milliseconds, and the record says what was taken. Device and
# threads are the machine's business too. None of them is meant to change the result by more than rounding; but over a
# thousand steps a difference in rounding grows to one like that of another seed.

# %%
device = "a GPU" if torch.cuda.is_available() else "a CPU"
print(f"here: {probe_precision()} on {device}, threads: {torch.get_num_threads()}")

# %% [markdown]
# ## Chance, and how to hold it
#
# Three things are drawn by lot: the first weights, the order of the slices, and the variations. All three come from
# one number, the *seed*. With the same seed on the same processor, with the same number of threads, precision and
# version of PyTorch, you get the same network to the last bit (on a GPU nothing is promised); with another you get
# another network, which is just as good a witness. A single run is a single draw: [part III](../statistics/again) is
# about nothing else.
#
# ## Stop, and go on
#
# A checkpoint is everything that the next epoch depends on: the weights, the optimiser's memory, and the
# state of the lots. Here a training is stopped by force after its first epoch and resumed; next to it
# runs one that was left in peace.

# %%
short, few = replace(config, epochs=3), train[:8]


def stop(history):
    """Ctrl-C, as it were, at the end of the first epoch."""
    raise KeyboardInterrupt


with tempfile.TemporaryDirectory() as folder:
    try:
        fit(short, few, out=Path(folder), progress=stop, **cpu)
    except KeyboardInterrupt:
        print("stopped; the folder holds", *os.listdir(folder))
    resumed = fit(short, few, out=Path(folder), resume=True, **cpu)
peace = fit(short, few, **cpu)
other = fit(replace(short, seed=1), few, **cpu)
for name, run in (("resumed", resumed), ("another seed", other)):
    print(f"{name}: largest difference of a weight {apart(peace.model, run.model):g}")

# %% [markdown]
# ## From the command line
#
# For a real training you want no notebook that must stay open. The same `fit`, with a progress bar:
#
# ```bash
# python -m cmrseg train --preset book --data acdc96 --out runs/first
# ```
#
# Stop it with Ctrl-C whenever you like, and add `--resume` to the same line to go on. In `runs/first` you
# find
#
# | file | what it is |
# |---|---|
# | `model.safetensors` | the weights, and nothing but the weights: loading them runs no code |
# | `config.json` | every choice, to build the network again |
# | `record.json` | the history, the Dice of every validation slice, the seconds, the machine |
# | `checkpoint.safetensors` | only while the run is unfinished |
#
# ## The full recipe
#
# The preset `book` is of the same kind, but wider and longer. It was run with three seeds, and the records
# lie in the repository. They are of the real slices, whatever the live parts of this page show. What differs
# from the training above, and what came out:

# %%
planned, runs = zip(*experiments.records("book"))
for field in fields(config):
    here, there = (getattr(c, field.name) for c in (config, planned[0].config))
    if here != there:
        print(f"{field.name}: {there} instead of {here}")
print("\nseed  seconds     RV    Myo     LV   mean")
for found in runs:
    last = results.curve(found).iloc[-1]
    dice = "  ".join(f"{last[name]:.3f}" for name in ("RV", "Myo", "LV", "mean"))
    print(f"{found['seed']:4}  {found['seconds']:7.0f}  {dice}")
scores = [found["dice_last"] for found in runs]
print(
    f"\nmean of {len(runs)} seeds {np.mean(scores):.4f}, from {min(scores):.4f} to "
    f"{max(scores):.4f}"
)

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 3))
for found in runs:
    curve = results.curve(found)
    ax.plot(curve["epoch"], curve["mean"], linewidth=1.6, label=f"seed {found['seed']}")
ax.set(xlabel="epoch", ylabel="validation Dice", ylim=(-0.03, 1))
ax.legend(loc="lower right");

# %% [markdown]
# *Three draws of one lottery. They differ most on the way, and come together as the steps get small.*
#
# ## How the recipe was chosen
#
# It was not the first. We had begun with half the epochs and gentler changes of intensity, and had hoped to reach the
# report's 0.86:

# %%
first = [found["dice_last"] for _, found in experiments.records("book-first")]
print("the first recipe, validation Dice:", ", ".join(f"{d:.4f}" for d in first))
print(f"mean {np.mean(first):.4f}")

# %% [markdown]
# One could now try things until the validation slices say what one wants to hear. They would be used up in
# no time. So eight recipes were listed, the first one among them, and compared on five folds *within the 50 training
# patients*, with the narrower network because it is quicker. Two changes raised the mean: more epochs clearly, stronger
# intensity by less than chance can do. A ninth recipe, with both, was added after that was seen.

# %% tags=["hide-input"]
tried = {}
for plan, found in experiments.records("book-recipe"):
    tried.setdefault(plan.setting, []).append(found["dice_last"])
figure, ax = plt.subplots(figsize=(7.5, 3.4))
for y, (name, folds) in enumerate(tried.items()):
    ax.plot(folds, [y] * len(folds), "o", color=plots.GREY, alpha=0.6, markersize=4)
    ax.plot(
        np.mean(folds), y, "|", color=plots.ACCENT, markersize=20, markeredgewidth=3
    )
ax.set_yticks(range(len(tried)), list(tried))
ax.set(xlabel="Dice of held-out training patients", ylim=(len(tried) - 0.5, -0.5));

# %% [markdown]
# *Nine recipes, five folds each (dots) and their mean (bars). The means of the longer trainings lie highest; those
# with nothing but mirroring, stronger rotation and zoom, or smaller batches lie below `as it was`, the recipe that we
# began with.*

# %%
ranked = sorted(tried, key=lambda name: -np.mean(tried[name]))
for name in ranked:
    d = np.subtract(tried[ranked[0]], tried[name])
    low, high = statistics.mean_interval(d)
    below = (
        ""
        if name == ranked[0]
        else f", below the best by {d.mean():.4f} ({low:+.4f} to {high:+.4f})"
    )
    print(f"{name:28} {np.mean(tried[name]):.4f}{below}")

# %% [markdown]
# In brackets: the 95 % interval of the difference, from five folds. The best of the list was taken, though several
# others cannot be told from it, and only then scored on the validation slices. They have been looked at twice now,
# once for each recipe, and a purist would dock a little for that. [Train it again](../statistics/again) shows how
# much such a look can be worth.
#
# ## What to conclude
#
# A training is a loop of ten lines and a list of choices. What turns it into an experiment is the care
# around it: a seed that is written down, slices that are held out, a last epoch that counts, and a record
# of all of it.
#
# ## Try
#
# ```{exercise} Resume as someone else
# :label: training-resume
# Stop a training after its first epoch, then resume it with another learning rate. What should happen?
# What does?
# ```
#
# ```{solution-start} training-resume
# :class: dropdown
# ```

# %%
with tempfile.TemporaryDirectory() as folder:
    try:
        fit(short, few, out=Path(folder), progress=stop, **cpu)
    except KeyboardInterrupt:
        pass
    try:
        fit(replace(short, lr=0.01), few, out=Path(folder), resume=True)
    except data.BadInput as refusal:
        print(f"{Path(refusal.file).name} {refusal.problem}. {refusal.cure}.")

# %% [markdown]
# A run whose recipe changes half-way is neither of the two runs, and its record would be a lie. So `fit`
# refuses, and names the field that differs.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Count the steps
# :label: training-steps
# How many steps does the `book` recipe take on 100 slices, and how many times does it see each slice?
# At which epoch is its learning rate largest? Use the configuration and `schedule`, no training.
# ```
#
# ```{solution-start} training-steps
# :class: dropdown
# ```

# %%
book = PRESETS["book"]
per_epoch = -(-100 // book.batch)
rates = [
    schedule(book.schedule, s / (per_epoch * book.epochs))
    for s in range(per_epoch * book.epochs)
]
print(
    f"{len(rates)} steps; each slice {book.epochs} times; "
    f"the peak, {book.lr:g}, in epoch {1 + np.argmax(rates) // per_epoch}"
)

# %% [markdown]
# A step is a batch; each epoch shows every slice once, in another variation. The peak comes when three
# tenths of the steps are done.
#
# ```{solution-end}
# ```
