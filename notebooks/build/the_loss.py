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
# network minimise instead, and what does each choice charge for the same mistake?
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

from cmrseg import comparisons, data, ensemble, losses, plots, results
from cmrseg.models.unet import UNet

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live part tiny
train, val = data.split(data.source(), "val")

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
# The network gives every pixel four numbers, one for each class. The largest one wins
# the pixel, and Dice counts the pixels won. Here are the four numbers of one pixel. We
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
# smooth number to follow in its place. To write one down we need the truth and the
# network's answer in the same form.
#
# ## The truth as four maps: one-hot
#
# A label map holds the class numbers 0 to 3. They are names, not quantities: halfway
# between 1 (RV) and 3 (LV) doesn't lie muscle (2). So each class gets a map of its own,
# with a 1 where the class is and a 0 elsewhere. That is **one-hot encoding**. Four
# pixels will do to see it: two of background, one of muscle, one of the left ventricle.

# %%
CLASSES = ("background", "RV", "Myo", "LV")
four_pixels = torch.tensor([[[0, 0], [2, 3]]])  # (N, H, W) = (1, 2, 2)


def one_hot(labels, classes=4):
    """Class numbers (N, H, W) -> maps of zeros and ones (N, classes, H, W)."""
    return torch.stack([labels == c for c in range(classes)], 1).float()


print(one_hot(four_pixels)[0])

# %% [markdown]
# PyTorch's own function puts the classes *last*, where a network has them second.
# `permute` moves the axis; a `reshape` would give the same shape and scrambled maps.

# %%
y = torch.from_numpy(val.masks).long()
library = F.one_hot(y, 4)
print("F.one_hot", tuple(library.shape), "  ours", tuple(one_hot(y).shape))
library = library.permute(0, 3, 1, 2).float()
print("largest difference:", (one_hot(y) - library).abs().max().item())
assert torch.equal(one_hot(y), library)

# %%
heart = int((val.masks == 1).sum((1, 2)).argmax())  # the slice with the largest RV
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
# The last convolution puts out any numbers it likes, say -3 or 20. They are called
# **logits**. **Softmax** makes probabilities of them: take the exponential, so that all
# are positive, then divide by the sum. By hand, for the logits 1.946, 0, 0 and 0: the
# exponentials are 7, 1, 1 and 1, their sum is 10, so the answer is 0.7, 0.1, 0.1, 0.1.


# %%
def softmax(logits):
    """Logits (N, C, H, W) -> probabilities, which add up to one over the classes."""
    powers = (logits - logits.amax(1, keepdim=True)).exp()  # no exp(1000) = inf
    return powers / powers.sum(1, keepdim=True)


z = torch.tensor([1.946, 0.0, 0.0, 0.0]).view(1, 4, 1, 1)
print("softmax      ", softmax(z).flatten())
print("of z + 1000  ", softmax(z + 1000).flatten())
random = 5 * torch.randn(2, 4, 96, 96)
print("largest difference:", (softmax(random) - random.softmax(1)).abs().max().item())
assert torch.allclose(softmax(random), random.softmax(1))

# %% [markdown]
# $$p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}$$
#
# Only differences between logits count, so the largest may be subtracted first.
#
# Why does a U-Net hand over logits, and not probabilities? A convolution needn't obey
# any rule about its sum, and the logarithm that comes next is safe only if it is taken
# together with the softmax. **Predict**: what is the logarithm of the smaller
# probability when the logits are 200 and 0? And what does `F.cross_entropy`, which
# expects logits, say to a *perfect* answer if you hand it probabilities?

# %%
z = torch.tensor([200.0, 0.0])
print("softmax, then log:", z.softmax(0).log(), "  in one go:", z.log_softmax(0))
perfect = one_hot(y)  # probability 1 for the true class, everywhere
print("cross-entropy of a perfect answer, given as probabilities:", end=" ")
print(F.cross_entropy(perfect, y).item(), " as logits:", end=" ")
print(F.cross_entropy(1000 * perfect, y).item())

# %% [markdown]
# The first is minus infinity, and one such pixel ruins the mean of a batch. The second
# can't fall below $\ln(e + 3) - 1$, because softmax is applied a second time. The
# report's network ends in a softmax {cite}`report2020`: give it `F.cross_entropy` as a
# loss, and this happens.
#
# ## Does 0.9 mean 90 % sure?
#
# It's tempting to read a probability of 0.9 as "right in nine cases of ten".
# **Predict**: this book's small network looks at slices it wasn't trained on. Of the
# pixels where its largest probability is near 0.9, how many are right?

# %%
small = ensemble.find("small")  # trained, and delivered with this book
p = ensemble.probabilities(small, val.images)  # (N, 4, H, W), after the softmax
largest, right = p.max(1), p.argmax(1) == val.masks
for low, high in ((0.48, 0.52), (0.68, 0.72), (0.88, 0.92), (0.99, 1.0)):
    here = (largest >= low) & (largest <= high)
    print(f"says {low:.2f} to {high:.2f}: {here.sum():6} pixels,", end=" ")
    print(f"{(here & right).sum():6} of them right, {right[here].mean():.1%}")

# %% [markdown]
# Softmax makes four positive numbers that add up to one. Nothing in it makes 0.9 come
# true nine times in ten on new slices, and the third line shows that it doesn't.
# Whether a network's probabilities can be taken at their word is called **calibration**
# {cite}`guo2017` and has to be measured; [a later page](../conclusions/trust) does.
#
# ## Cross-entropy
#
# The first loss asks one question of each pixel: what probability did the *true* class
# get? It charges minus the logarithm of that, so certainty is free and a small
# probability is dear. By hand: let a network hedge, with 0.7, 0.1, 0.1, 0.1 at each of
# our four pixels. The two background pixels cost $-\ln 0.7 = 0.357$ each, the two heart
# pixels $-\ln 0.1 = 2.303$ each, and the mean is 1.330.

# %%
hedge = torch.tensor([0.7, 0.1, 0.1, 0.1]).log().view(1, 4, 1, 1).expand(1, 4, 2, 2)


def cross_entropy(logits, labels):
    """Mean over pixels of minus the logarithm of the true class's probability."""
    log_p = logits - logits.logsumexp(1, keepdim=True)  # log(softmax), in one go
    return -(one_hot(labels) * log_p).sum(1).mean()  # one-hot picks the true class


torch.manual_seed(0)
random = 3 * torch.randn(len(y), 4, *y.shape[1:])
print("four pixels:", cross_entropy(hedge, four_pixels).item())
print("difference:", (cross_entropy(random, y) - F.cross_entropy(random, y)).item())
assert torch.allclose(cross_entropy(random, y), F.cross_entropy(random, y))

# %% [markdown]
# $$L_\text{CE} = -\frac{1}{N} \sum_\text{pixels} \ln p_\text{true}$$
#
# ## The report's loss
#
# The report did it like this: it took the four maps for four separate yes-or-no
# questions. Where a map should say *yes* it pays $-\ln p$, where it should say *no* it
# pays $-\ln (1 - p)$. That is **binary cross-entropy**, averaged over pixels *and*
# classes. A constant of 0.001 inside the logarithms keeps $\ln 0$ away. By hand,
# without the constant: a background pixel pays $-\ln 0.7 - 3 \ln 0.9 = 0.673$, a heart
# pixel $-\ln 0.1 - \ln 0.3 - 2 \ln 0.9 = 3.717$; four pixels and four classes make a
# mean of 0.549.


# %%
def report_loss(logits, labels, inside=0.001):
    """Binary cross-entropy of each class's map, mean over pixels and classes."""
    p, truth = softmax(logits), one_hot(labels)
    yes = truth * (p + inside).log()
    no = (1 - truth) * (1 - p + inside).log()
    return -(yes + no).mean()


print("four pixels:", report_loss(hedge, four_pixels).item())
print("difference:", (report_loss(random, y) - losses.report(random, y)).item())
assert torch.allclose(report_loss(random, y), losses.report(random, y))

# %% [markdown]
# $$L_\text{report} = -\frac{1}{4N} \sum_\text{pixels} \sum_{k} \big[ y_k \ln(p_k + c) + (1 - y_k) \ln(1 - p_k + c) \big],
# \quad c = 0.001$$
#
# The constant looks harmless. Take one pixel of muscle that the network thinks is
# background, and let the probability of the truth sink. What does the pixel cost? And
# how hard does it *pull*: how steep is the slope at the logit of its true class?

# %%
muscle = torch.tensor([[[2]]])
print("p of truth    CE: cost  pull   report's: cost  pull")
for p_true in (0.9, 0.5, 0.1, 0.01, 0.001, 0.0001):
    q = torch.tensor([1 - p_true, 1e-9, p_true, 1e-9]).view(1, 4, 1, 1)
    row = []
    for loss in (cross_entropy, report_loss):
        logits = q.log().requires_grad_()
        loss(logits, muscle).backward()
        row += [loss(logits, muscle).item(), -logits.grad[0, 2].item()]
    print("{:10}    {:8.2f} {:5.2f}   {:14.2f} {:5.2f}".format(p_true, *row))
by_hand = (1 - p_true, 0.5 * p_true * (1 - p_true) / (p_true + 0.001))
assert np.allclose(by_hand, row[1::2], atol=1e-3)  # CE: 1 - p; report's: see below

# %% [markdown]
# Cross-entropy pulls with $1 - p$, *truth minus prediction* as on [One
# weight](one_weight): the worse the pixel, the harder. The report's loss pulls with
# $\tfrac12 \, p (1 - p) / (p + c)$. At first that is half as hard, which Adam hardly
# notices, as it divides a constant factor away. But once $p$ is well below $c$, it lets
# go of the pixels that are most wrong.
#
# ## Soft Dice
#
# Dice is twice the overlap, divided by the sum of both sizes. Why not make it smooth?
# Count probabilities instead of pixels: a pixel with 0.6 is 0.6 of a pixel. One minus
# that is the **soft Dice loss** {cite}`milletari2016`. It leaves background out, and
# adds 1 above and below the fraction, so that a class that isn't there doesn't divide
# zero by zero. By hand, with the hedging network: each class claims $4 \cdot 0.1$
# pixels. RV: $(0 + 1) / (0.4 + 0 + 1) = 0.714$. Myo and LV: $(2 \cdot 0.1 + 1) / (0.4 +
# 1 + 1) = 0.5$. The mean is 0.571, the loss 0.429.


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
print("four pixels:", soft_dice(hedge, four_pixels).item())
for ours, library in ((soft_dice, losses.soft_dice), (ce_dice, losses.ce_dice)):
    difference = (ours(random, y) - library(random, y)).item()
    print(f"{ours.__name__}: difference {difference}")
    assert torch.allclose(ours(random, y), library(random, y))

# %% [markdown]
# $$L_\text{Dice} = 1 - \frac{1}{3} \sum_{k=1}^{3} \frac{2 \sum p_k y_k + 1}{\sum p_k + \sum y_k + 1}$$
#
# ## What each loss charges for the same mistake
#
# Now hearts, not four pixels. We answer with the reference masks and with five damaged
# copies of them. **Predict** which two rows Dice can't tell apart.

# %%
LOSSES = {"report's": report_loss, "CE": cross_entropy, "soft Dice": soft_dice}


def sure(labels):
    """Probability 0.97 for one class, 0.01 for each of the others."""
    return 0.96 * one_hot(labels) + 0.01


def mean_dice(masks):
    """Dice of label maps of the held-out slices, mean of RV, Myo and LV."""
    table = [dice(mask, truth) for mask, truth in zip(np.asarray(masks), val.masks)]
    return np.nanmean(np.nanmean(table, 0))


# %%
parts = torch.tensor([0.34, 0.22, 0.22, 0.22]).view(1, 4, 1, 1)  # which part? unsure
answers = {
    "right": sure(y),
    "one pixel to the side": sure(y.roll(1, 2)),
    "RV missed": sure(y * (y != 1)),
    "RV and LV swapped": sure(torch.tensor([0, 3, 2, 1])[y]),
    "heart found, parts not": torch.where(y[:, None] > 0, parts, sure(y)),
    "all background": sure(0 * y),
}
print(f"{'':24}{'Dice':>9}" + "".join(f"{name:>11}" for name in LOSSES))
for name, answer in answers.items():
    prices = [loss(answer.log(), y).item() for loss in LOSSES.values()]
    print(f"{name:24}{mean_dice(answer.argmax(1)):9.3f}", end="")
    print("".join(f"{price:11.3f}" for price in prices))

# %% [markdown]
# Look at the last two rows. To Dice they are the same, since no pixel of the heart is
# won. Every loss charges less for the first of the two. This difference explains what
# comes below.
#
# ## Where each loss pulls
#
# A loss acts through its gradient, which enters the network as a pull at every pixel.
# We invent an answer with two faults: it misses the right ventricle and is *sure* of
# it, and the rest lies two pixels to the right, with soft borders. **Predict**: which
# loss pulls hardest at the missed ventricle, and which hardly at all?

# %%
truth = y[heart : heart + 1]
answer = (truth * (truth != 1)).roll(2, 2)  # no RV, the rest two pixels to the right
damaged = 9 * F.avg_pool2d(one_hot(answer), 7, 1, 3)  # logits with soft borders


def pull(loss):
    """Minus the gradient at each pixel's true logit, times the number of pixels."""
    z = damaged.clone().requires_grad_()
    loss(z, truth).backward()
    return -z.grad.gather(1, truth[:, None])[0, 0] * truth.numel()


for name, loss in (LOSSES | {"CE + soft Dice": ce_dice}).items():
    share = pull(loss)[truth[0] == 1].sum() / pull(loss).sum()
    print(f"{name:>14}: {share:4.0%} of the pull is at the missed RV")

# %%
places = np.argwhere(val.masks[heart])  # row and column of each pixel of the heart
low, high = places.min(0), places.max(0)
(row, column), reach = (low + high) / 2, (high - low).max() / 2 + 7
window = {"xlim": (column - reach, column + reach), "ylim": (row + reach, row - reach)}
figure, axes = plots.panels(4, size=2.375)
plots.overlay(axes[0], val.images[heart], answer[0].numpy(), "the answer, the truth")
plots.contours(axes[0], val.masks[heart])
axes[0].set(**window)
for ax, (name, loss) in zip(axes[1:], LOSSES.items()):
    ax.imshow(pull(loss), cmap="magma", vmin=0)
    plots.contours(ax, val.masks[heart] * (val.masks[heart] == 1))
    ax.set(title=f"{name}: up to {pull(loss).max():.2f}", **window)

# %% [markdown]
# *Bright pixels pull; the line is the missed ventricle. Cross-entropy lights up
# wherever the truth got little probability. The report's loss is dim in the ventricle,
# because of its constant. Soft Dice is dark there: its gradient carries as a factor the probability
# of the true class, which has vanished. It pulls where the answer is unsure.*
#
# So soft Dice can give a structure up. What is it good for? Take muscle structures of
# different sizes, each seen with a probability of one half. How hard does *one* of
# their pixels pull?

# %%
for pixels in (30, 300, 3000):
    disc = 2 * (torch.arange(96 * 96) < pixels).long().view(1, 96, 96)
    half = torch.tensor([0.5, 1e-9, 0.5, 1e-9]).view(1, 4, 1, 1)
    half = torch.where(disc[:, None] > 0, half, sure(disc)).log()
    print(f"structure of {pixels:4} pixels:", end=" ")
    for name, loss in LOSSES.items():
        z = half.clone().requires_grad_()
        loss(z, disc).backward()
        print(
            f"{name} {-z.grad[0, 2][disc[0] > 0].mean() * disc.numel():5.2f}", end="  "
        )
    print()

# %% [markdown]
# To the logarithmic losses every pixel is worth the same. To soft Dice a pixel of a
# small structure is worth more. That's a reason to add the two: cross-entropy never
# gives a pixel up, and soft Dice makes small structures count. The sum is today's usual
# practice, in nnU-Net {cite}`isensee2021` and in this book.
#
# ## Loss down, Dice zero
#
# Here are ten runs of the report's recipe with a narrower network, from this book's
# records on the real slices. Only the random seed differs.

# %%
curves = [results.curve(run) for run in comparisons.runs("noise-floor")["record"]]
zero = [curve[curve["mean"] < 0.1]["epoch"].max() for curve in curves]  # or NaN
figure, (above, below) = plt.subplots(2, figsize=(7.5, 5), sharex=True)
for curve in curves:
    above.plot(curve["epoch"], curve["loss"], color=plots.SAID, linewidth=1)
    below.plot(curve["epoch"], curve["mean"], color=plots.ACCENT, linewidth=1)
for ax in (above, below):
    ax.axvspan(0, np.nanmedian(zero), color=plots.GREY, alpha=0.15, linewidth=0)
above.set(yscale="log", ylabel="training loss (log)")
above.set_yticks([0.02, 0.05, 0.1, 0.2, 0.4], ["0.02", "0.05", "0.1", "0.2", "0.4"])
above.minorticks_off()
above.annotate("loss plateau", (45, 0.13), ha="center")
below.set(xlabel="epoch", ylabel="validation Dice", ylim=(-0.03, 1))
below.annotate("zero-Dice phase", (12, 0.6), ha="center");

# %% [markdown]
# *Shaded: the time in which most runs have a Dice of zero. The loss falls steeply in
# it, and is nearly flat later, while Dice begins to rise.*

# %%
print("        end of zero Dice   loss           then RV   Myo    LV")
for seed, (end, curve) in enumerate(zip(zero, curves)):
    after = curve[curve["epoch"] > np.nan_to_num(end)].iloc[0]
    when = "  never below 0.1" if np.isnan(end) else f"   after epoch {end:2.0f}"
    print(f"seed {seed}{when}   {curve['loss'].iloc[0]:.2f} to", end=" ")
    print("{:.2f}   {:9.2f}{:6.2f}{:6.2f}".format(*after[["loss", "RV", "Myo", "LV"]]))

# %% [markdown]
# These are two events, and they need two names. The **zero-Dice phase** is the time in
# which held-out Dice stays below 0.1; here the loss falls in it. A **loss plateau** is
# a time in which the loss hardly moves; here it comes mostly later, while Dice creeps
# up. And look at the printed scores: when the phase ends, *one* class has appeared, and
# the others are still near zero.
#
# What does such a network know while its Dice is zero? We train one, briefly: the same
# network, the report's loss, raw grey levels, batches of two, Adam. The learning rate
# is three times the report's, to save you waiting. (The loop is explained on [the next
# page](batches_and_the_loop).)

# %%
STEPS = 4 if SMOKE else 100
train_x = torch.from_numpy(train.images).float()[:, None]  # grey levels, 0 to 255
train_y = torch.from_numpy(train.masks).long()
val_x = torch.from_numpy(val.images).float()[:, None]


def learn(images, loss):
    """The report's network, narrowed, after a few steps of training."""
    torch.manual_seed(0)
    net = UNet((8, 16, 32, 64, 128), skips="after")
    optimiser = torch.optim.Adam(net.parameters(), 0.003)
    for step in range(STEPS):
        pair = torch.randint(len(images), (2,))
        optimiser.zero_grad()
        loss(net(images[pair]), train_y[pair]).backward()
        optimiser.step()
    return net.eval()


# %%
net = learn(train_x, report_loss)
with torch.no_grad():
    logits = net(val_x)  # of the held-out slices
p = softmax(logits).numpy()
print(f"loss {report_loss(0 * logits, y):.3f} without an opinion,", end=" ")
print(f"{report_loss(logits, y):.3f} now; Dice {mean_dice(p.argmax(1)):.3f}")
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
winner = np.where(p[heart, 0] < 0.5, 1 + p[heart, 1:].argmax(0), 0)
plots.overlay(axes[3], val.images[heart], winner, "without background");

# %% [markdown]
# *It is not blind at all: the second picture shows that it has found the heart. But it
# can't tell the parts apart, and gives them similar probabilities. Each is smaller than
# what background keeps, so background wins (third picture). Without background, nearly
# the same part wins everywhere. The fine grid is the checkerboard of [Down and
# up](down_and_up).*
#
# You have seen this case in the table above: *heart found, parts not*. The heart is in
# the probabilities, and the loss rewards it; Dice sees only the winner. In the records
# the phase ends when one part overtakes background: one class appears, and Dice jumps
# while the loss hardly moves.
#
# ## Who is to blame?
#
# The first suspect is **class imbalance**: most pixels are background, so they dominate
# the mean. Take a network that really is blind, with one answer for all pixels. How
# much can it save by saying "background" more often?

# %%
chances = np.linspace(0.25, 0.99, 38)
figure, ax = plt.subplots(figsize=(7.5, 3))
for (name, loss), colour in zip(LOSSES.items(), (plots.SAID, plots.ACCENT, "#00A078")):
    prices = []
    for chance in chances:
        blind = torch.tensor([chance, *[(1 - chance) / 3] * 3]).float().log()
        prices.append(loss(blind.view(1, 4, 1, 1).expand(random.shape), y).item())
    ax.plot(chances, np.divide(prices, prices[0]), label=name, color=colour)
    print(f"{name:>9} is least at {chances[np.argmin(prices)]:.2f}")
ax.axvline((val.masks == 0).mean(), color=plots.GREY, linestyle=":")
ax.set(xlabel="probability of background, everywhere", ylabel="loss / loss at 0.25")
ax.legend();

# %% [markdown]
# *Dotted: the share of background. There both logarithmic losses are lowest: they
# reward a blind network for saying "background". To soft Dice that is the worst answer
# of all.*
#
# So imbalance can lead a network into zero Dice. Does it keep it there? **Predict**:
# what part of its loss does our live network still pay for background pixels?


# %%
def background_share(logits):
    """The part of the report's loss that is paid for pixels of background."""
    pixels = logits.permute(0, 2, 3, 1)[y == 0][:, :, None, None]  # (M, 4, 1, 1)
    paid = report_loss(pixels, torch.zeros(len(pixels), 1, 1).long())
    return (paid * (y == 0).float().mean() / report_loss(logits, y)).item()


print(f"pixels of background: {(val.masks == 0).mean():.0%}")
print(f"loss paid for them, without an opinion: {background_share(0 * logits):.0%}")
print(f"loss paid for them, by the live network: {background_share(logits):.0%}")

# %% [markdown]
# At the start background dominates the loss. In this network it no longer does, and
# still Dice is zero. So imbalance is one suspect among several. The records have five
# changes to the report's recipe, each made alone, on five folds of patients:

# %%
table = comparisons.runs("repairs").query("seed == 0")
for name, runs in table.groupby("setting", sort=False):
    if not name.startswith("up to"):
        each = [results.curve(run) for run in runs["record"]]
        ends = [curve[curve["mean"] < 0.1]["epoch"].max() for curve in each]
        when = f"below 0.1 until epoch {min(ends):.0f} to {max(ends):.0f}"
        when = "never below 0.1" if np.isnan(ends).all() else when
        print(f"{comparisons.shown(name):22} {len(ends)} runs, Dice {when}")

# %% [markdown]
# With the other loss, cross-entropy plus soft Dice, the phase is shorter, but it's
# still there. With the textbook decoder, which is four changes in one, there is none.
# With normalised input ("scale") it lasts as long as before. (With "schedule" and its
# batches of four an epoch has half as many steps.) What each change is worth at the
# end, with intervals, is on [Repairs](../conclusions/repairs).
#
# Two other losses are often named against imbalance. *Focal loss* {cite}`lin2017`
# multiplies each pixel's cross-entropy by $(1 - p)^\gamma$, so that pixels that are
# nearly right hardly count. *Boundary loss* {cite}`kervadec2019` weights each
# probability by the pixel's distance from the true outline, so that a mistake far from
# it costs more than one nearby. Neither was tried here.
#
# ## Two slips of the report
#
# **A loss that counts to two.** The report cuts the label maps by comparing them with a
# prepared stack of class numbers, laid out for two slices. In our own code:


# %%
def maps_for_two(labels):
    """One-hot maps of exactly two slices."""
    stack = torch.arange(4).repeat(2).view(8, 1, 1)  # 0 1 2 3, 0 1 2 3
    copies = labels.repeat_interleave(4, 0)  # each slice four times
    return (copies == stack).float().view(-1, 4, *labels.shape[1:])


for batch in (2, 4):
    try:
        print("batch of", batch, "->", tuple(maps_for_two(y[:batch]).shape))
    except RuntimeError as error:
        print("batch of", batch, "->", error)

# %% [markdown]
# At batch size 2 nobody notices. At 4 the code stops, so the report's own runs with
# larger batches need a version that wasn't published. The cure is to take every size
# from the tensor, as `one_hot` does:

# %%
assert torch.equal(maps_for_two(y[:2]), one_hot(y[:2]))
for batch in (1, 2, 4, 8):
    price = report_loss(torch.zeros(batch, 4, *y.shape[1:]), y[:batch])
    print("batch of", batch, "->", f"{price:.4f}")  # a mean: the scale stays

# %% [markdown]
# **Input that isn't normalised.** The report's network gets grey levels from 0 to 255.
# Today's usual practice is to subtract each slice's mean and divide by its standard
# deviation. How much of that does the batch norm after the first convolution do anyway?

# %%
first = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8)
)
mean, std = (train_x.mean((2, 3), keepdim=True), train_x.std((2, 3), keepdim=True))
scaled = (train_x - mean) / (std + 1e-6)
for name, images in (("divided by 255", train_x / 255), ("slice by slice", scaled)):
    change = (first(images[:8]) - first(train_x[:8])).abs().mean().item()
    print(f"{name}: first feature maps change by {change:.3f} on average")

# %% [markdown]
# Batch norm {cite}`ioffe2015` removes a factor that all slices share, but not what
# differs from slice to slice. So normalise each slice, as `Hearts` does on [the next
# page](batches_and_the_loop); only don't expect it to end the zero-Dice phase.
#
# ## Recap
# - A loss is a smooth stand-in for Dice. You can write cross-entropy, the report's loss
#   and soft Dice from logits and one-hot maps.
# - Cross-entropy pulls hardest at the worst pixels; the report's loss and soft Dice let
#   go of them. Soft Dice makes a pixel of a small structure count more. The sum has
#   both.
# - Zero-Dice phase: Dice below 0.1, the loss may fall. Loss plateau: the loss is flat,
#   Dice may rise. When Dice is zero, look at the probabilities.
#
# ## Exercises
#
# ```{exercise} Dearer hearts
# :label: loss-weights
# Imbalance is often met with *class weights*: each pixel's cross-entropy is multiplied
# by the weight of its true class, and the sum over all pixels is divided by the sum of
# the weights that were used. Write it, from logits (N, C, H, W), labels (N, H, W) and a
# tensor of C weights. Return one tensor through which a gradient flows, finite for
# logits as large as 200. Then predict: if each weight is the inverse of its class's
# share, what is the best answer of a blind network?
# ```

# %% tags=["hide-input"]
rng = torch.Generator().manual_seed(1)
Z = 2 * torch.randn(3, 4, 5, 6, generator=rng)  # logits, labels and weights to try
Y = torch.multinomial(torch.tensor([6.0, 1, 2, 1]), 90, True, generator=rng)
Y, W = Y.view(3, 5, 6), torch.tensor([0.2, 3.0, 1.5, 0.8])
LOG_P, ONE_HOT = Z.log_softmax(1), F.one_hot(Y, 4).permute(0, 3, 1, 2)
OWN, FIRST = (LOG_P * ONE_HOT).sum(1), Z.argmax(1)  # log p of the truth; the winner
OTHER_AXES = [(Z.log_softmax(axis) * ONE_HOT).sum(1) for axis in (0, 2, 3)]
TWICE = (Z.softmax(1).log_softmax(1) * ONE_HOT).sum(1)


def diagnose(right, slips, other, mine, *inputs):
    """What is wrong with a loss: its value here and on one slice, its gradient."""
    try:
        value = mine(Z.clone().requires_grad_(), *inputs)
        large = mine(200 * Z.sign(), *inputs)
    except Exception as error:
        return f"it stops with {type(error).__name__}: {error}"
    if value is None:
        return "it returns nothing yet"
    if not torch.is_tensor(value):
        return "return a tensor: a plain number, as from .item(), has no gradient"
    if value.numel() != 1:
        return f"one number is wanted, it returns the shape {tuple(value.shape)}"
    said = value.detach().double().item()
    if np.isnan(said):
        return "it says nan: is there a logarithm of something negative, a logit?"
    if not np.isclose(said, right.item(), rtol=1e-4):
        why = [why for why, wrong in slips if np.isclose(said, wrong.item(), rtol=1e-4)]
        return why[0] if why else f"it says {said:.4f} where {right:.4f} is right"
    if not value.requires_grad:
        return "the number is right, but no gradient flows through it"
    if not np.isclose(mine(Z[:1], Y[:1], other[0]).item(), other[1].item(), rtol=1e-4):
        return "right for the first try, wrong for the second: is a number fixed in it?"
    if not torch.isfinite(large).all():
        return "not finite for logits of 200: softmax and log in one go, log_softmax"
    return "right"


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
    other = W.flip(0), mean(W.flip(0)[Y[:1]], OWN[:1])
    return diagnose(mean(w), slips, other, mine, Y, W)


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
    other = 0.5, focal(OWN[:1], gamma=0.5)
    return diagnose(focal(), slips, other, mine, Y, 2)


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
prices = []
for chance in chances:
    blind = torch.tensor([chance, *[(1 - chance) / 3] * 3]).float().log()
    blind = blind.view(1, 4, 1, 1).expand(random.shape)
    prices.append(my_weighted(blind, y, weights).item())
print(f"best probability of background: {chances[np.argmin(prices)]:.2f}")

# %% [markdown]
# All four classes now carry the same total, so the best blind answer is four equal
# parts, and saying "background" no longer pays. But our live network wasn't blind: it
# had found the heart and couldn't tell its parts. Weights make every heart pixel
# dearer; telling the parts apart is a different thing.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Focal loss
# :label: loss-focal
# Write the focal loss from logits (N, C, H, W), labels (N, H, W) and a number `gamma`:
# the mean over pixels of $-(1 - p)^\gamma \ln p$, with $p$ the probability of the
# pixel's true class. Return one tensor through which a gradient flows, finite for
# logits as large as 200. Which loss is it with $\gamma = 0$?
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
# *which* class a pixel has, only how well it is doing already.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A bolder threshold
# :label: loss-threshold
# "Dice was zero, so the network had learned nothing." Take the live network's
# probabilities `p` and call a pixel *heart* when the three parts together have more
# than one half. What is the Dice of heart against background? And what was it before
# training?
# ```
#
# ```{solution-start} loss-threshold
# :class: dropdown
# ```

# %%
torch.manual_seed(0)
fresh = UNet((8, 16, 32, 64, 128), skips="after").eval()
with torch.no_grad():
    before = softmax(fresh(val_x)).numpy()
for name, answer in (("before", before), ("after", p)):
    found, hearts = 1 - answer[:, 0] > 0.5, val.masks > 0
    score = 2 * (found & hearts).sum() / (found.sum() + hearts.sum())
    print(f"{name:>6} training: Dice of heart against background {score:.3f}")

# %% [markdown]
# As an answer in four classes it scores nothing; as a finder of hearts it scores well.
# The knowledge was there, and the argmax hid it.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [Batches and the loop](batches_and_the_loop) feeds slices to the network,
# and this loss to the optimiser, again and again. **Read**: the V-Net paper
# {cite}`milletari2016`, which made Dice a loss; find where its formula differs from
# ours (look at the denominator).
