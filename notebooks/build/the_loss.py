# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The loss
#
# Dice counts pixels, and a count tells no weight which way to move: what should a
# network minimise instead, and how do the choices differ?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** write one-hot maps, softmax, cross-entropy and soft Dice
# in a few lines each, say where each loss pulls on a heart, and tell a zero-Dice phase
# from a loss plateau.
# **You need** [One weight](one_weight) for loss and slope, and [The U-Net](the_unet)
# for what the network puts out.
# **Time** 35 minutes to read; it runs in under a minute and a half.
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
import os

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from cmrseg import datasets, losses, plots
from cmrseg.deploy import weights
from cmrseg.models.report_unet import ReportUNet
from cmrtrial import compare, records

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live part tiny
train, val = datasets.split(datasets.source(), "val")

# %% tags=["hide-input", "pieces"]
# Built on earlier pages: dice
def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores

# %% [markdown]
# ## Why not Dice itself?
#
# The network gives every pixel four numbers, one for each class. The largest wins the
# pixel, and Dice counts the pixels won. Here are the four numbers of one pixel; we
# raise the third, a little more each time:

# %%
scores = torch.tensor([2.0, 1.0, 1.9, -1.0], requires_grad=True)
for raised in (0.0, 0.03, 0.06, 0.09, 0.12):
    winner = (scores + torch.tensor([0, 0, raised, 0])).argmax().item()
    print(f"third number {1.9 + raised:.2f}: class {winner} wins")
print("does a gradient flow through argmax?", scores.argmax().requires_grad)

# %% [markdown]
# Nothing happens, nothing happens, then the pixel changes hands. The slope of Dice is
# zero almost everywhere, so gradient descent has nothing to follow. A **loss** is a
# smooth number to follow in its place.
#
# ## The truth as four maps: one-hot
#
# Labels are names, not quantities: muscle (2) is not the mean of RV (1) and LV (3). So
# each class gets a map of its own, with a 1 where the class is and a 0 elsewhere. That
# is **one-hot encoding**. On [Arrays and tensors](arrays_and_tensors) a library
# function did it; by hand it is one line. Four pixels will do to see it: two of
# background, one of muscle, one of the left ventricle.

# %%
CLASSES = ("background", "RV", "Myo", "LV")
four_pixels = torch.tensor([[[0, 0], [2, 3]]])  # (N, H, W) = (1, 2, 2)


def one_hot(labels, classes=4):
    """Class numbers (N, H, W) -> maps of zeros and ones (N, classes, H, W)."""
    return torch.stack([labels == c for c in range(classes)], 1).float()


print(one_hot(four_pixels)[0])
y = torch.from_numpy(val.masks).long()  # of all validation slices
library = F.one_hot(y, 4).permute(0, 3, 1, 2)  # F.one_hot puts classes last
assert torch.equal(one_hot(y), library.float())

# %%
heart = int((val.masks == 1).sum((1, 2)).argmax())  # the largest RV
figure, axes = plots.panels(5, size=1.9)
plots.overlay(axes[0], val.images[heart], val.masks[heart], "labels")
for c in range(4):
    axes[c + 1].imshow(one_hot(y)[heart, c], cmap="magma")
    axes[c + 1].set_title(f"map {c}: {CLASSES[c]}")

# %% [markdown]
# *One label map, and the same thing as four maps. At every pixel exactly one of the
# four is lit.*
#
# ## The answer as four probabilities: softmax
#
# Nothing makes the four outputs of a convolution positive or lets them add up to one.
# They are called **logits**. **Softmax** makes probabilities of them: take the
# exponential of each, then divide by the sum. By hand, for the logits 1.946, 0, 0 and
# 0: the exponentials are 7, 1, 1 and 1, their sum is 10, so the answer is 0.7, 0.1,
# 0.1, 0.1.

# %%
def softmax(logits):
    """Logits (N, C, H, W) -> probabilities, which add up to 1 over C."""
    powers = (logits - logits.amax(1, keepdim=True)).exp()  # no exp(1000) = inf
    return powers / powers.sum(1, keepdim=True)


z = torch.tensor([1.946, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
print("softmax      ", softmax(z).flatten())
print("of z + 1000  ", softmax(z + 1000).flatten())
torch.manual_seed(0)
random = 3 * torch.randn(len(y), 4, *y.shape[1:])  # logits to try things with
assert torch.allclose(softmax(random), random.softmax(1))

# %% [markdown]
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}$$
#
# Only differences between logits count, so the largest may be subtracted first.
#
# The loss takes a logarithm next, and the two are safe only if they are taken together.
#
# **Predict, then run**: two logits are 200 and 0, so the smaller probability is about
# $e^{-200}$. What is its logarithm on paper, and what does the computer say, once in
# two steps and once with `log_softmax`?

# %%
z = torch.tensor([200.0, 0.0])
print("softmax, then log:", z.softmax(0).log())
print("log_softmax:      ", z.log_softmax(0))

# %% [markdown]
# On paper it is -200. In two steps it is minus infinity, because $e^{-200}$ is too
# small for a number of 32 bits and becomes 0; one such pixel ruins the mean of a batch.
# `log_softmax` never writes the small number down: it computes
# $z_k - \ln \sum_j e^{z_j}$, the logarithm of the formula above. PyTorch calls the last
# term `logsumexp`.
#
# The way back is short: *the logarithms of probabilities are logits of these
# probabilities*, since $e^{\ln p} = p$ and the sum is 1 already. To choose
# probabilities ourselves, we hand over their logarithms.
#
# ## Is 0.9 ninety per cent?
#
# It's tempting to read a probability of 0.9 as "right in nine cases of ten". So let a
# trained network look at slices it wasn't trained on, take the pixels where its largest
# probability is near 0.9, and count: once as it is, and again after all logits were
# halved or doubled.
#
# **Predict, then run**: how many of these pixels are right, in each of the three cases?
# And do the masks change when all logits are multiplied by the same number?

# %%
small = weights.find_ensemble("small")  # a U-Net that this book has trained, on other patients
p = torch.from_numpy(small.probabilities(val.images))  # (N, 4, H, W)
for factor in (0.5, 1, 2):
    largest, label = softmax(factor * p.log()).max(1)
    near = (largest > 0.88) & (largest < 0.92)
    right = (label == y)[near].float().mean()
    same = torch.equal(label, p.argmax(1))
    print(f"logits x {factor:3}: {near.sum():5} pixels near 0.9,", end=" ")
    print(f"{right:.0%} of them right; same masks: {same}")

# %% [markdown]
# **A softmax of 0.9 doesn't mean "90 % sure". Softmax is a formula that makes any four
# numbers positive and lets them add up to one.** Multiply the logits, and no pixel
# changes its class. But other pixels get the 0.9, and another share of them is right. A
# network is **calibrated** if its probabilities can be taken at their word
# {cite}`guo2017`. That has to be measured on patients the network hasn't seen, as
# [Calibration and robustness](../conclusions/trust) does.
#
# ## Cross-entropy
#
# The first loss asks of each pixel: what probability did the *true* class get? It takes
# minus the logarithm of that. A true class with probability 1 costs nothing; the
# smaller its probability, the more it costs. By hand: let a network hedge, with 0.7,
# 0.1, 0.1, 0.1 at each of our four pixels. The two background pixels cost
# $-\ln 0.7 = 0.357$ each, the two heart pixels $-\ln 0.1 = 2.303$ each, and the mean is
# 1.330.

# %%
hedge = torch.tensor([0.7, 0.1, 0.1, 0.1]).log()  # logits of these
hedge = hedge.view(1, 4, 1, 1).expand(1, 4, 2, 2)  # the same at all four pixels


def cross_entropy(logits, labels):
    """Mean of minus the logarithm of the true class's probability."""
    log_p = logits - logits.logsumexp(1, keepdim=True)  # log_softmax
    return -(one_hot(labels) * log_p).sum(1).mean()  # one_hot picks the truth


print(f"four pixels: {cross_entropy(hedge, four_pixels):.3f}")
assert torch.allclose(cross_entropy(random, y), F.cross_entropy(random, y))

# %% [markdown]
# $$L_\text{CE} = -\frac{1}{N} \sum_\text{pixels} \ln p_\text{true}$$
#
# `F.cross_entropy` takes logits and applies softmax itself. The report's network ends
# in a softmax {cite}`report2020`, which fits the report's own loss, but not this one.
#
# **Predict, then run**: the true class of a pixel gets a larger and larger logit, the
# other three stay at 0. Where does the cross-entropy go if softmax is applied once, and
# where if the network has applied it already?

# %%
truth = torch.tensor([3])
for logit in (0.0, 2.0, 5.0, 20.0):
    z = torch.tensor([[0.0, 0.0, 0.0, logit]])
    once = F.cross_entropy(z, truth)
    twice = F.cross_entropy(z.softmax(1), truth)
    print(f"logit {logit:4}: softmax once {once:.3f}, twice {twice:.3f}")

# %% [markdown]
# Once, it goes to 0. Twice, even a perfect answer costs $\ln(e + 3) - 1$, the last
# number printed: the second softmax takes the probabilities 0, 0, 0 and 1 for logits.
# There is no error, and the masks are the same; the loss just stops falling. So end the
# network with logits.
#
# ## The report's loss
#
# **The report did it like this**: it treats the four maps as four separate yes-or-no
# questions. Where a map should say *yes*, the loss is $-\ln p$; where it should say
# *no*, it is $-\ln (1 - p)$. That is **binary cross-entropy**, averaged over pixels
# *and* classes. A constant $c = 0.001$ inside the logarithms keeps $\ln 0$ away. By
# hand, without the constant: a background pixel costs $-\ln 0.7 - 3 \ln 0.9 = 0.673$. A
# heart pixel costs $-\ln 0.1$ for its own map, $-\ln (1 - 0.7)$ for background and
# $-\ln (1 - 0.1)$ for each of the two others, together 3.717. The mean over four pixels
# and four classes is 0.549, and the constant makes 0.546 of it.

# %%
def report_loss(logits, labels, inside=0.001):
    """Binary cross-entropy, mean over pixels and classes."""
    p, truth = softmax(logits), one_hot(labels)
    yes = truth * (p + inside).log()
    no = (1 - truth) * (1 - p + inside).log()
    return -(yes + no).mean()


print(f"four pixels: {report_loss(hedge, four_pixels):.3f}")
assert torch.allclose(report_loss(random, y), losses.report_bce(random, y))

# %% [markdown]
# $$L_\text{report} = -\frac{1}{4N} \sum_\text{pixels} \sum_{k} \big[ y_k \ln(p_k + c) + (1 - y_k) \ln(1 - p_k + c) \big]$$
#
# The constant looks harmless. Take one pixel of muscle that the network thinks is
# background, and let the probability of the truth sink. What does the pixel cost? And
# how hard does it *pull*: how steep is the slope at the logit of its true class?

# %%
muscle, c = torch.tensor([[[2]]]), 0.001
print("p of truth    CE: cost  pull   report's: cost  pull")
for p_true in (0.9, 0.5, 0.1, 0.01, 0.001, 0.0001):
    q = torch.tensor([1 - p_true, 1e-9, p_true, 1e-9]).view(1, 4, 1, 1)
    row = []
    for loss in (cross_entropy, report_loss):
        logits = q.log().requires_grad_()
        loss(logits, muscle).backward()
        row += [loss(logits, muscle).item(), -logits.grad[0, 2].item()]
    print("{:10}    {:8.2f} {:5.2f}   {:14.2f} {:5.2f}".format(p_true, *row))
    by_hand = 1 - p_true, 0.5 * p_true * (1 - p_true) / (p_true + c)
    assert np.allclose(row[1::2], by_hand, atol=1e-3)

# %% [markdown]
# Cross-entropy pulls with $1 - p$, *truth minus prediction* as on [One
# weight](one_weight): the worse the pixel, the harder. The report's loss pulls with
# $\tfrac12 \, p (1 - p) / (p + c)$. (Two of the four maps matter here, with the same
# cost: muscle says $p$ and should say yes, background says $1 - p$ and should say no. A
# quarter of the sum is $-\tfrac12 \ln (p + c)$; its slope in $p$ is
# $-\tfrac12 / (p + c)$, and that of $p$ in its logit is $p (1 - p)$.) At first that is
# half of cross-entropy's pull, which hardly matters, as Adam divides a constant factor
# away. But once $p$ is well below $c$, the report's loss *lets go of the pixels that
# are most wrong*.
#
# There is a slip in its code as well. Its one-hot maps come from a comparison of the
# labels with a stack of class numbers that is laid out for two slices. In our own code:

# %%
def maps_for_two(labels):
    """One-hot maps of exactly two slices."""
    stack = torch.arange(4).repeat(2).view(8, 1, 1)  # 0 1 2 3, 0 1 2 3
    copies = labels.repeat_interleave(4, 0)  # each slice four times
    return (copies == stack).float().view(-1, 4, *labels.shape[1:])


assert torch.equal(maps_for_two(y[:2]), one_hot(y[:2]))
try:
    maps_for_two(y[:4])
except RuntimeError as error:
    print("batch of 4:", error)

# %% [markdown]
# At batch size 2 nobody notices. At 4 the code stops, so the report's own runs with
# larger batches must have used a version that wasn't published. The cure is to take
# every size from the tensor, as `one_hot` does.
#
# ## Soft Dice
#
# Dice is twice the overlap, divided by the sum of both sizes. Why not make it smooth?
# Count probabilities instead of pixels: a pixel with 0.6 is 0.6 of a pixel. One minus
# that is the **soft Dice loss** {cite}`milletari2016`. It leaves background out, and
# adds 1 to the numerator and to the denominator, so that a class that isn't there
# doesn't divide zero by zero. By hand, with the hedging network: each class claims
# $4 \cdot 0.1$ pixels. RV: $(0 + 1) / (0.4 + 0 + 1) = 0.714$. Myo and LV:
# $(2 \cdot 0.1 + 1) / (0.4 + 1 + 1) = 0.5$. The mean is 0.571, the loss 0.429.

# %% tags=["piece"]
def soft_dice(logits, labels):
    """One minus the mean soft Dice of RV, Myo and LV over the batch."""
    p = logits.softmax(1)[:, 1:]
    truth = F.one_hot(labels, len(CLASSES)).permute(0, 3, 1, 2).float()[:, 1:]
    overlap = (p * truth).sum((0, 2, 3))
    size = p.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def ce_dice(logits, labels):
    """Cross-entropy plus soft Dice."""
    return F.cross_entropy(logits, labels) + soft_dice(logits, labels)

# %%
print(f"four pixels: {soft_dice(hedge, four_pixels):.3f}")
for ours, library in ((soft_dice, losses.soft_dice), (ce_dice, losses.ce_dice)):
    assert torch.allclose(ours(random, y), library(random, y))

# %% [markdown]
# $$L_\text{Dice} = 1 - \frac{1}{3} \sum_{k=1}^{3} \frac{2 \sum p_k y_k + 1}{\sum p_k + \sum y_k + 1}$$
#
# ## The same mistakes, three losses
#
# Now hearts, not four pixels. We answer with the reference masks and with five damaged
# copies of them:

# %%
def sure(labels):
    """Probability 0.97 for one class, 0.01 for each of the others."""
    return 0.96 * one_hot(labels) + 0.01


parts = torch.tensor([0.34, 0.22, 0.22, 0.22]).view(1, 4, 1, 1)  # unsure
answers = {
    "right": sure(y),
    "one pixel to the side": sure(y.roll(1, 2)),
    "RV missed": sure(y * (y != 1)),
    "RV and LV swapped": sure(torch.tensor([0, 3, 2, 1])[y]),
    "heart found, parts not": torch.where(y[:, None] > 0, parts, sure(y)),
    "all background": sure(0 * y),
}

# %% [markdown]
# **Predict, then run**: which two of these answers have the same Dice? And to which of
# the two does each loss give the smaller number?

# %%
LOSSES = {"report's": report_loss, "CE": cross_entropy, "soft Dice": soft_dice}


def mean_dice(masks):
    """Dice of label maps of the validation slices, mean of RV, Myo and LV."""
    pairs = zip(np.asarray(masks), val.masks)
    table = [dice(mask, truth) for mask, truth in pairs]
    return np.nanmean(np.nanmean(table, 0))


print(f"{'':24}{'Dice':>9}" + "".join(f"{name:>11}" for name in LOSSES))
for name, answer in answers.items():
    costs = [loss(answer.log(), y).item() for loss in LOSSES.values()]
    row = "".join(f"{cost:11.3f}" for cost in costs)
    print(f"{name:24}{mean_dice(answer.argmax(1)):9.3f}{row}")

# %% [markdown]
# To Dice the last two rows are the same, since no pixel of the heart is won. But every
# loss is smaller for the first of the two: it can fall while Dice stays at zero. (The
# right answer isn't free: we said 0.97, not 1. In soft Dice the hundredths at thousands
# of background pixels add up.)
#
# ## Where each loss pulls
#
# A loss acts through its gradient, which enters the network as a pull at every pixel.
# We invent an answer with two faults. It misses the right ventricle, *sure* that there
# is background; and the rest of the heart lies two pixels to the right, with soft
# borders. (`gather(1, truth[:, None])` picks, at each pixel, the number that belongs to
# its true class. The losses are means, so we multiply by the number of pixels.)
#
# **Predict, then run**: which loss has the largest share of its pull at the missed
# ventricle, and which hardly any?

# %%
truth = y[heart : heart + 1]
answer = (truth * (truth != 1)).roll(2, 2)  # no RV, the rest moved
damaged = 9 * F.avg_pool2d(one_hot(answer), 7, 1, 3)  # logits with soft borders


def pull(loss):
    """Minus the gradient at the true logits, times the number of pixels."""
    z = damaged.clone().requires_grad_()
    loss(z, truth).backward()
    return -z.grad.gather(1, truth[:, None])[0, 0] * truth.numel()


for name, loss in (LOSSES | {"CE + soft Dice": ce_dice}).items():
    share = pull(loss)[truth[0] == 1].sum() / pull(loss).sum()
    print(f"{name:>14}: {share:4.0%} of the pull is at the missed RV")

# %%
places = np.argwhere(val.masks[heart])  # rows and columns of the heart
low, high = places.min(0), places.max(0)
(row, column), reach = (low + high) / 2, (high - low).max() / 2 + 7
across, down = (column - reach, column + reach), (row + reach, row - reach)
figure, axes = plots.panels(4, size=2.375)
plots.overlay(axes[0], val.images[heart], answer[0].numpy(), "answer and truth")
plots.contours(axes[0], val.masks[heart])
axes[0].set(xlim=across, ylim=down)
for ax, (name, loss) in zip(axes[1:], LOSSES.items()):
    ax.imshow(pull(loss), cmap="magma", vmin=0)
    plots.contours(ax, val.masks[heart] * (val.masks[heart] == 1))
    ax.set_title(f"{name}: up to {pull(loss).max():.2f}")
    ax.set(xlim=across, ylim=down)

# %% [markdown]
# *Left, the answer in colour and the true outlines as lines. The others show the pull,
# each on its own scale with its largest value in the title; the line is the missed
# ventricle. Cross-entropy is bright wherever the truth got little probability. The
# report's loss is dim in the ventricle, because of its constant. Soft Dice is dark
# there.*
#
# Soft Dice is dark because its gradient has the probability of the true class as a
# factor, and that has vanished. So soft Dice can give a structure up. What is it good
# for? Take muscle structures of different sizes, each seen with a probability of one
# half. How hard does *one* of their pixels pull?

# %%
for pixels in (30, 300, 3000):
    inside = torch.arange(96 * 96).view(1, 96, 96) < pixels  # of any shape
    structure = 2 * inside.long()
    half = torch.tensor([0.5, 1e-9, 0.5, 1e-9]).view(1, 4, 1, 1)
    half = torch.where(inside[:, None], half, sure(structure)).log()
    row = ""
    for name, loss in LOSSES.items():
        z = half.clone().requires_grad_()
        loss(z, structure).backward()
        one_pixel = -z.grad[0, 2][inside[0]].mean() * inside.numel()
        row += f"   {name} {one_pixel:5.2f}"
    print(f"structure of {pixels:4} pixels:{row}")

# %% [markdown]
# To soft Dice a pixel of a small structure counts more; to the two others it counts the
# same whatever the size. That's a reason to add: cross-entropy never gives a pixel up,
# and soft Dice makes small structures count. The sum is today's usual practice, in
# nnU-Net, a widely used segmentation program {cite}`isensee2021`, and in this book.
#
# ## Loss down, Dice zero
#
# Here are ten runs of the report's recipe with a narrower network. They were trained on
# the real slices, and the book keeps a **record** of every run: its settings, losses and
# scores. Only the random seed differs. (An **epoch** is one pass
# over all training slices.)

# %%
curves = [*map(records.curve, compare.runs("noise-floor")["record"])]
zero = [curve[curve["mean"] < 0.1]["epoch"].max() for curve in curves]  # or NaN
figure, (above, below) = plt.subplots(2, figsize=(7.5, 5), sharex=True)
for curve in curves:
    above.plot(curve["epoch"], curve["loss"], color=plots.CONTRAST, linewidth=1)
    below.plot(curve["epoch"], curve["mean"], color=plots.ACCENT, linewidth=1)
for ax in (above, below):
    ax.axvspan(0, np.nanmedian(zero), color=plots.GREY, alpha=0.15, linewidth=0)
above.set(yscale="log", ylabel="training loss (log)")
ticks = (0.02, 0.05, 0.1, 0.2, 0.4)
above.set_yticks(ticks, map(str, ticks))
above.minorticks_off()
above.annotate("loss plateau", (45, 0.13), ha="center")
below.set(xlabel="epoch", ylabel="validation Dice", ylim=(-0.03, 1))
below.annotate("zero-Dice phase", (12, 0.6), ha="center");

# %% [markdown]
# *Shaded: the time in which most runs have a Dice of zero. The loss falls steeply for
# ten epochs or so. Then it is nearly flat until about epoch 55, while Dice stays at
# zero, jumps, and creeps up.*

# %%
print("            end of zero Dice        loss        then RV   Myo    LV")
for seed, (end, curve) in enumerate(zip(zero, curves)):
    if np.isnan(end):
        print(f"seed {seed}    never below 0.1")
        continue
    after = curve[curve["epoch"] > end].iloc[0]
    first, *then = curve["loss"].iloc[0], *after[["loss", "RV", "Myo", "LV"]]
    print(f"seed {seed}     after epoch {end:2.0f}   {first:.2f} to", end=" ")
    print("{:.2f}     {:7.2f}{:6.2f}{:6.2f}".format(*then))

# %% [markdown]
# These are two events, and they need two names. The **zero-Dice phase** is the time in
# which validation Dice stays below 0.1; here the loss falls steeply in its first half.
# A **loss plateau** is a time in which the loss hardly moves; here it begins within the
# zero-Dice phase and outlasts it by some thirty epochs. When the phase ends, *one*
# class has appeared, and the others are still near zero. Seed 7 is the line apart from
# the rest: it had the left ventricle from the first score on, and its loss never stops
# falling.
#
# What does a network know while its Dice is zero? We train one, briefly: the same
# network and loss, raw grey levels, batches of two, and Adam, at three times the
# report's learning rate to save you waiting. (The [next page](batches_and_the_loop)
# explains the loop. The network comes ready from the package, as `ReportUNet`: the
# report's, whose shapes stand beside ours on [The U-Net](the_unet).)

# %%
STEPS = 4 if SMOKE else 100
train_x = torch.from_numpy(train.images).float()[:, None]  # grey levels, 0 to 255
train_y = torch.from_numpy(train.masks).long()
val_x = torch.from_numpy(val.images).float()[:, None]

torch.manual_seed(0)
net = ReportUNet((8, 16, 32, 64, 128))  # not our UNet: the report's
optimiser = torch.optim.Adam(net.parameters(), 0.003)
for step in range(STEPS):
    pair = torch.randint(len(train_x), (2,))
    optimiser.zero_grad()
    report_loss(net(train_x[pair]), train_y[pair]).backward()
    optimiser.step()

# %%
net.eval()
with torch.no_grad():
    logits = net(val_x)  # of the validation slices
p = softmax(logits).numpy()
print(f"loss with four equal probabilities {report_loss(0 * logits, y):.3f}")
print(f"loss of this network {report_loss(logits, y):.3f}", end=", ")
print(f"its Dice {mean_dice(p.argmax(1)):.3f}")
print("mean probability of   " + "".join(f"{name:>11}" for name in CLASSES))
for c, name in enumerate(CLASSES):
    here = [p[:, k][val.masks == c].mean() for k in range(4)]
    print(f"where it is {name:>10}" + "".join(f"{value:11.2f}" for value in here))

# %%
figure, axes = plots.panels(4, size=2.375)
plots.overlay(axes[0], val.images[heart], val.masks[heart], "truth")
axes[1].imshow(1 - p[heart, 0], cmap="magma", vmin=0, vmax=1)
axes[1].set_title("probability of heart")
plots.overlay(axes[2], val.images[heart], p[heart].argmax(0), "most probable class")
part = np.where(p[heart, 0] < 0.5, 1 + p[heart, 1:].argmax(0), 0)
plots.overlay(axes[3], val.images[heart], part, "most probable part");

# %% [markdown]
# *The second picture, from 0 (black) to 1 (pale yellow), shows that the network has
# found the heart. But it gives the parts similar probabilities, each smaller than what
# background keeps, so background wins (third picture). The fourth shows the most
# probable part where heart as a whole has more than half: it is the same one nearly
# everywhere.*
#
# You have seen this case in the table: *heart found, parts not*. The heart is in the
# probabilities, and the loss rewards it; Dice sees only the winner. In the records the
# phase probably ends when one part overtakes background: one class appears, and Dice
# jumps while the loss hardly moves.
#
# ## Is class imbalance to blame?
#
# The first suspect is **class imbalance**: most pixels are background, so they dominate
# the mean. Take a network that really is blind, with one answer for all pixels. How
# much can it save by saying "background" more often?

# %%
chances = np.linspace(0.01, 0.99, 50)
colours = plots.CONTRAST, plots.ACCENT, "#00A078"
figure, ax = plt.subplots(figsize=(7.5, 3))
for (name, loss), colour in zip(LOSSES.items(), colours):
    costs = []
    for chance in chances:
        blind = torch.tensor([chance, *[(1 - chance) / 3] * 3]).float().log()
        blind = blind.view(1, 4, 1, 1).expand(random.shape)
        costs.append(loss(blind, y).item())
    relative = costs / np.interp(0.25, chances, costs)
    ax.plot(chances, relative, label=name, color=colour)
    print(f"{name:>9} is least at {chances[np.argmin(costs)]:.2f}")
ax.axvline((val.masks == 0).mean(), color=plots.GREY, linestyle=":")
ax.set(xlabel="probability of background, everywhere", ylabel="loss / loss at 0.25")
ax.legend();

# %% [markdown]
# *Dotted: the share of background. There cross-entropy and the report's loss are
# lowest: they reward a blind network for saying "background". Soft Dice only rises.*
#
# So imbalance can lead a network into zero Dice. But is it the cause? The records hold
# runs in which one thing of the report's recipe was changed, each five times, every
# time with other patients held out: *scale* normalises each slice, *loss* is
# cross-entropy plus soft Dice, and *textbook decoder* (in the
# code `with skips`) is the way up as on [The U-Net](the_unet). It makes four changes at
# once: [Repairs](../conclusions/repairs) lists them.

# %%
table = compare.runs("repairs").query("seed == 0")
for setting in ("baseline", "with scale", "with loss", "with skips"):
    runs = table.query("setting == @setting")["record"]
    run_curves = [records.curve(record) for record in runs]
    ends = [curve[curve["mean"] < 0.1]["epoch"].max() for curve in run_curves]
    when = f"below 0.1 until epoch {min(ends):.0f} to {max(ends):.0f}"
    when = "never below 0.1" if np.isnan(ends).all() else when
    print(f"{compare.shown(setting):22} {len(ends)} runs, Dice {when}")

# %% [markdown]
# Normalised input leaves the phase as long as it was, and the other loss shortens it.
# With the textbook decoder there is none, and that with the report's loss and as much
# background as before. So *imbalance alone isn't to blame*; which of the decoder's
# changes matters, these runs can't say. What each change is worth at the end, with
# intervals, is on [Repairs](../conclusions/repairs).
#
# Grey levels as they come, and a loss that background wins, are one of the report's six
# slips of code. You ran it in the live network, saw it in the probabilities, and have
# mended it by now: a z-score for each slice, and the sum of two losses. In these runs
# the z-score alone ends nothing earlier.
#
# ## Recap
# - A loss is a smooth stand-in for Dice. You can write cross-entropy, the report's loss
#   and soft Dice from logits and one-hot maps. A softmax of 0.9 isn't a 90 % chance.
# - Cross-entropy pulls hardest at the worst pixels; the report's loss and soft Dice let
#   go of them. Soft Dice makes a pixel of a small structure count more. The sum has
#   both.
# - Zero-Dice phase: Dice below 0.1, the loss may fall. Loss plateau: the loss is flat,
#   Dice may rise. When Dice is zero, look at the probabilities.
#
# ## Exercises
#
# ```{exercise} Weights for rare classes
# :label: loss-weights
# Imbalance is often met with *class weights*: each pixel's cross-entropy is multiplied
# by the weight of its true class, and the sum over all pixels is divided by the sum of
# the weights that were used, one for each pixel. Write
# `my_weighted(logits, labels, weights)`. It gets logits (N, C, H, W), labels int64
# (N, H, W) and a float tensor of C weights, and returns one number as a tensor. A
# gradient must flow through it, so don't end with `.item()`; and it must be finite for
# logits as large as 200, so use `log_softmax`.
#
# Then predict: if each weight is the inverse of its class's share of the pixels, what
# is the best answer of a blind network?
# ```

# %% tags=["hide-input"]
rng = torch.Generator().manual_seed(1)
Z = 2 * torch.randn(3, 4, 5, 6, generator=rng)  # logits, labels and weights to try
Y = torch.multinomial(torch.tensor([6.0, 1, 2, 1]), 90, True, generator=rng)
Y, W = Y.view(3, 5, 6), torch.tensor([0.2, 3.0, 1.5, 0.8])
LOG_P, ONE_HOT = Z.log_softmax(1), F.one_hot(Y, 4).permute(0, 3, 1, 2)
OWN, FIRST = (LOG_P * ONE_HOT).sum(1), Z.argmax(1)  # log p of the truth; the winner
LARGE = 200 * Z.sign()
OWN_LARGE = (LARGE.log_softmax(1) * ONE_HOT).sum(1)
Z3, Y3 = Z[:1, :3].clone(), Y[:1].clamp(max=2)  # one slice, three classes
OWN3 = (Z3.log_softmax(1) * F.one_hot(Y3, 3).permute(0, 3, 1, 2)).sum(1)
OTHER_AXES = [(Z.log_softmax(axis) * ONE_HOT).sum(1) for axis in (0, 2, 3)]
TWICE = (Z.softmax(1).log_softmax(1) * ONE_HOT).sum(1)


def gradient_wrong(mine, *inputs):
    """Whether the gradient of a loss isn't how steeply the loss rises along it."""
    logits, step = Z.clone().requires_grad_(), 0.05
    try:
        (slope,) = torch.autograd.grad(mine(logits, *inputs), logits)
        along = step * slope / slope.norm()
        rise = mine(Z + along, *inputs) - mine(Z - along, *inputs)
    except RuntimeError:  # nothing leads back to the logits
        return True
    return not np.isclose(rise.item() / (2 * step), slope.norm().item(), rtol=0.02)


def elsewhere(mine, large, last, right_of_three, right_of_large):
    """What is wrong with a loss of three classes, or of large logits."""
    try:
        second = mine(Z3.clone(), Y3.clone(), last).item()
    except Exception as error:
        return f"with one slice and three classes it stops: {error}"
    if not np.isclose(second, right_of_three.item(), rtol=1e-4):
        return "right for four classes, wrong for three: is a number fixed in it?"
    if not torch.isfinite(large).all():
        return "not finite for logits of 200: softmax and log in one go, log_softmax"
    if not np.isclose(large.item(), right_of_large.item(), rtol=1e-3):
        return "too small for logits of 200: log_softmax needs no small number added"
    return "right"


def diagnose(right, slips, other, mine, *inputs):
    """What is wrong with a loss: its value here and on one slice, its gradient."""
    try:
        value = mine(Z.clone().requires_grad_(), *inputs)
        large = mine(LARGE.clone(), *inputs)
    except Exception as error:
        return f"it stops with {type(error).__name__}: {error}"
    if value is None:
        return "it returns nothing yet"
    if not torch.is_tensor(value):
        return "return a tensor: a plain number, as from .item(), has no gradient"
    if value.numel() != 1:
        return f"one number is wanted, it returns the shape {tuple(value.shape)}"
    yours = value.detach().double().item()
    if np.isnan(yours):
        return "it says nan: is there a logarithm of something negative, a logit?"
    if not np.isclose(yours, right.item(), rtol=1e-4):
        why = [
            why for why, wrong in slips if np.isclose(yours, wrong.item(), rtol=1e-4)
        ]
        return why[0] if why else f"it says {yours:.4f} where {right:.4f} is right"
    if not value.requires_grad:
        return "the number is right, but no gradient flows through it"
    if gradient_wrong(mine, *inputs):
        return "the number is right, but its gradient isn't: something is cut off"
    return elsewhere(mine, large, *other)


def check_weighted(mine):
    """What is wrong with a weighted cross-entropy."""

    def mean(w, own=OWN):
        return -(w * own).sum() / w.sum()

    w, per_class = W[Y], torch.stack([-OWN[Y == c].mean() for c in range(4)])
    slips = [
        ("it doesn't use the weights", -OWN.mean()),
        ("divide by the sum of the weights used, not by the pixels", -(w * OWN).mean()),
        ("divide by the sum of the weights: this is a sum", -(w * OWN).sum()),
        ("the sign is wrong: a loss is positive", -mean(w)),
        ("the weight is that of the true class, not of the winner", mean(W[FIRST])),
        ("multiply by the weights, don't divide", mean(1 / w)),
        ("each class is averaged by itself first", (W * per_class).sum() / W.sum()),
        ("each class is averaged by itself first", (W * per_class).mean()),
        ("divide once for each pixel, not for each class", -(w * OWN).mean() / 4),
        ("divide by the weights used, one for each pixel", -(w * OWN).sum() / W.sum()),
        (
            "each slice is averaged by itself first",
            torch.stack([mean(w[n], OWN[n]) for n in range(3)]).mean(),
        ),
        ("softmax is applied twice: F.cross_entropy takes logits", mean(w, TWICE)),
        ("the logarithm is missing", mean(w, OWN.exp())),
        ("the logarithm is missing", -mean(w, OWN.exp())),
        (
            "the logarithm is that of the winner, not of the truth",
            mean(w, LOG_P.amax(1)),
        ),
    ]
    axis = "softmax runs over the wrong axis: classes are axis 1"
    slips += [(axis, mean(w, own)) for own in OTHER_AXES]
    other = W.flip(0)[:3], mean(W.flip(0)[Y3], OWN3), mean(w, OWN_LARGE)
    return diagnose(mean(w), slips, other, mine, Y.clone(), W.clone())


def check_focal(mine):
    """What is wrong with a focal loss (gamma 2)."""

    def focal(own=OWN, factor=None, gamma=2):
        return -(
            (1 - own.exp()) ** gamma * own if factor is None else factor * own
        ).mean()

    p = OWN.exp()
    every = -((1 - LOG_P.exp()) ** 2 * LOG_P)
    slips = [
        ("the factor (1 - p) ** gamma is missing", -OWN.mean()),
        ("p ** gamma favours easy pixels: it is 1 - p", focal(factor=p**2)),
        ("gamma is an exponent, not a factor", focal(factor=2 * (1 - p))),
        ("it doesn't use gamma", focal(gamma=1)),
        ("1 - p ** gamma isn't (1 - p) ** gamma", focal(factor=1 - p**2)),
        ("the mean is missing", 90 * focal()),
        ("the sign is wrong: a loss is positive", -focal()),
        (
            "factor first, mean last: each pixel has its own p",
            (1 - OWN.mean().exp()) ** 2 * -OWN.mean(),
        ),
        (
            "factor first, mean last: each pixel has its own p",
            ((1 - p) ** 2).mean() * -OWN.mean(),
        ),
        (
            "p is that of the true class, not of the winner",
            focal(factor=(1 - LOG_P.exp().amax(1)) ** 2),
        ),
        ("p is that of the true class, not of the winner", focal(LOG_P.amax(1))),
        ("only the true class counts: one-hot is missing", every.sum(1).mean()),
        ("only the true class counts: one-hot is missing", every.mean()),
        ("a quarter: divide by the pixels, not by classes too", focal() / 4),
        ("divide by the pixels, not by the factors", focal() / ((1 - p) ** 2).mean()),
        ("softmax is applied twice", focal(TWICE)),
        ("the logarithm is missing", ((1 - p) ** 2 * p).mean()),
        ("the logarithm is missing", -((1 - p) ** 2 * p).mean()),
        ("the logarithm is missing", ((1 - p) ** 2).mean()),
        ("the logarithm is missing", ((1 - p) ** 3).mean()),
        ("use the natural logarithm", focal() / np.log(10)),
        ("use the natural logarithm", focal() / np.log(2)),
    ]
    axis = "softmax runs over the wrong axis: classes are axis 1"
    slips += [(axis, focal(own)) for own in OTHER_AXES]
    other = 0.5, focal(OWN3, gamma=0.5), focal(OWN_LARGE)
    return diagnose(focal(), slips, other, mine, Y.clone(), 2)

# %%
def my_weighted(logits, labels, weights):
    """Cross-entropy, each pixel weighted by its true class: a weighted mean."""
    return None  # your lines here


print("my_weighted:", check_weighted(my_weighted))

# %% [markdown]
# ```{solution-start} loss-weights
# :class: dropdown
# ```

# %%
def my_weighted(logits, labels, weights):
    """Cross-entropy, each pixel weighted by its true class: a weighted mean."""
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -(weights[labels] * log_p).sum() / weights[labels].sum()


print("my_weighted:", check_weighted(my_weighted))
assert torch.isclose(my_weighted(Z, Y, W), F.cross_entropy(Z, Y, W))

# %%
weights = torch.tensor([1 / (val.masks == c).mean() for c in range(4)]).float()
costs = []
for chance in chances:
    blind = torch.tensor([chance, *[(1 - chance) / 3] * 3]).float().log()
    blind = blind.view(1, 4, 1, 1).expand(random.shape)
    costs.append(my_weighted(blind, y, weights).item())
print(f"best probability of background: {chances[np.argmin(costs)]:.2f}")

# %% [markdown]
# `gather(1, labels[:, None])` picks, at each pixel, the number of its true class. All
# four classes now have the same total weight, so the best blind answer is four equal
# probabilities, and saying "background" no longer pays. But our live network wasn't
# blind: it had found the heart and couldn't tell its parts. Weights make every pixel of
# the heart count more; they don't tell the parts apart.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Focal loss
# :label: loss-focal
# Another loss that is often named against imbalance is the *focal loss*
# {cite}`lin2017`: the mean over pixels of $-(1 - p)^\gamma \ln p$, with $p$ the
# probability of the pixel's true class. Pixels that are nearly right hardly count in
# it. Write `my_focal(logits, labels, gamma)`, from logits (N, C, H, W), labels int64
# (N, H, W) and a number `gamma`. Return one number as a tensor through which a gradient
# flows, finite for logits as large as 200. Which loss is it with $\gamma = 0$?
# ```

# %%
def my_focal(logits, labels, gamma):
    """Cross-entropy in which pixels that are nearly right hardly count."""
    return None  # your lines here


print("my_focal:", check_focal(my_focal))

# %% [markdown]
# ```{solution-start} loss-focal
# :class: dropdown
# ```

# %%
def my_focal(logits, labels, gamma):
    """Cross-entropy in which pixels that are nearly right hardly count."""
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma * log_p).mean()


print("my_focal:", check_focal(my_focal))
assert torch.isclose(my_focal(Z, Y, 0), F.cross_entropy(Z, Y))

# %% [markdown]
# With $\gamma = 0$ it is cross-entropy. Unlike a class weight, the factor doesn't ask
# *which* class a pixel has, only how well it is doing already. *Boundary loss*
# {cite}`kervadec2019` looks at places instead: it weights each probability by the
# pixel's distance from the true outline. Neither was tried in this book.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A bolder threshold
# :label: loss-threshold
# "Dice was zero, so the network had learned nothing." Take the live network's
# probabilities `p`, NumPy (N, 4, H, W), and call a pixel *heart* when RV, Myo and LV
# together have more than one half. What is the Dice of heart against background, all
# pixels of the validation slices taken together? What was it before training, with
# `ReportUNet((8, 16, 32, 64, 128))` and seed 0, and what does an answer of
# "heart" at every pixel score?
# ```
#
# ```{solution-start} loss-threshold
# :class: dropdown
# ```

# %%
torch.manual_seed(0)
fresh = ReportUNet((8, 16, 32, 64, 128)).eval()
with torch.no_grad():
    before = softmax(fresh(val_x)).numpy()
three = {"before training": before, "after training": p}
three["heart everywhere"] = 0 * p
for name, answer in three.items():
    predicted, hearts = 1 - answer[:, 0] > 0.5, val.masks > 0
    score = 2 * (predicted & hearts).sum() / (predicted.sum() + hearts.sum())
    print(f"{name:>16}: Dice of heart against background {score:.3f}")

# %% [markdown]
# As an answer in four classes it scores nothing; as a finder of hearts it scores well.
# The knowledge was there, and the argmax hid it. But a Dice above zero isn't knowledge
# by itself: to call everything heart finds every pixel of it, and the last line shows
# what that alone scores.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [Batches and the loop](batches_and_the_loop) feeds slices to the network,
# and this loss to the optimiser, again and again. **Read**: the V-Net paper
# {cite}`milletari2016`, which made Dice a loss; find where its formula differs from
# ours (look at the denominator).
