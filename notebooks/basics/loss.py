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
# A network cannot climb towards a better Dice: Dice counts pixels, and a count does not change when a
# weight moves a little. So it is given something smooth to go down instead, a *loss*, and we hope that
# the one goes up while the other goes down. And when it does not?

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

from cmrseg import data, experiments, metrics, plots, results
from cmrseg.augment import normalise
from cmrseg.losses import LOSSES, one_hot
from cmrseg.losses import report as report_loss
from cmrseg.models.unet import UNet
from cmrseg.training import predict, probabilities

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, val = data.split(data.source(), "val")
NAMES = {"report": "the report's", "ce": "cross-entropy", "dice": "soft Dice"}
COLOURS = dict(zip(NAMES, ("#FE6100", plots.ACCENT, "#00A078")))

# %% [markdown]
# Here are four trainings on the real slices, from their committed records: the 2020 report's U-Net {cite}`report2020`
# at full size, and three *seeds* (three draws of chance) of the same recipe with a narrower and shallower network,
# for 100 epochs instead of 140.

# %% tags=["hide-input"]
published = [found for _, found in experiments.records("as-published")]
replicas = [found for _, found in experiments.records("late-start")]


def blind(share, c=0.001):
    """The report's loss of the best single answer for classes with these shares."""
    q = share / share.sum()
    return -(q * np.log(q + c) + (1 - q) * np.log(1 - q + c)).mean()


areas = {
    name: area
    for _, found in experiments.records("leakage")
    if found["split"].startswith("fold")
    for name, area in zip(found["images"]["name"], found["images"]["area_true"])
}
trained = [
    area for name, area in areas.items() if name not in replicas[0]["images"]["name"]
]
share = np.mean(trained, 0) / 96**2  # of RV, Myo and LV in the slices trained on
share = np.array([1 - share.sum(), *share])
levels = {
    "one answer for all pixels": blind(share),
    "heart found, parts not": (1 - share[0]) * blind(share * [0, 1, 1, 1]),
}

figure, (above, below) = plt.subplots(2, figsize=(7.5, 5.4), sharex=True)
for runs, name, colour in (
    (replicas, "narrow, three seeds", plots.ACCENT),
    (published, "full size, our code", "#FE6100"),
):
    for k, curve in enumerate(map(results.curve, runs)):
        look = {"color": colour, "linewidth": 1.6, "label": "" if k else name}
        above.plot(curve["epoch"], curve["loss"], **look)
        below.plot(curve["epoch"], curve["mean"], **look)
for name, level in levels.items():
    above.axhline(level, color=plots.GREY, linestyle=":", linewidth=1.4)
    above.annotate(
        name,
        (1, level),
        (0, 3),
        ("axes fraction", "data"),
        "offset points",
        ha="right",
        fontsize=9.5,
    )
above.set(yscale="log", ylabel="training loss")
above.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5], ["0.02", "0.05", "0.1", "0.2", "0.5"])
above.minorticks_off()
above.legend(loc="lower left")
below.set(ylabel="validation Dice", xlabel="epoch", ylim=(-0.03, 1));

# %% [markdown]
# *The loss falls from the first epoch, and Dice stays at zero for tens of epochs. Then it starts, at a
# moment when nothing special happens to the loss. The dotted lines say what two kinds of ignorance
# cost: the same answer for every pixel, and an answer that knows where the heart is but not which part
# is which.*

# %%
print("network, seed  Dice above 0.1      Dice above 0.7")
for found in (*replicas, *published):
    curve = results.curve(found)
    first = [curve[curve["mean"] > level].iloc[0] for level in (0.1, 0.7)]
    when = [f"epoch {row['epoch']:3.0f}, loss {row['loss']:.3f}" for row in first]
    size = "narrow" if found["protocol"] == "replica" else "full size"
    print(f"{size + ', ' + str(found['seed']):13}  {when[0]}  {when[1]}")
for name, level in levels.items():
    print(f"{name}: loss {level:.3f}")

# %% [markdown]
# To read this picture we need to know what the loss rewards.
#
# ## Three losses on four pixels
#
# For each of $N$ pixels the network gives a probability $p_k$ to each class $k$, four that add up
# to one. Let $y_k$ be 1 for the true class and 0 for the others.
#
# *Cross-entropy* looks at the true class only:
#
# $$L_\text{CE} = -\frac{1}{N} \sum_\text{pixels} \ln p_\text{true}$$
#
# *The report's loss* asks four yes-or-no questions at every pixel, is it class $k$ or not, and
# averages over pixels and questions. The constant $c = 0.001$ keeps the logarithms finite:
#
# $$L_\text{report} = -\frac{1}{4N} \sum_\text{pixels} \sum_k
# \big[\, y_k \ln (p_k + c) + (1 - y_k) \ln (1 - p_k + c) \,\big]$$
#
# *Soft Dice* (after {cite}`milletari2016`, who square the probabilities below the line) is Dice with probabilities in the place of counts, averaged over
# the three classes that are not background. The sums run over all pixels of the batch; one pixel is
# added above and below, so that a class that is not there does no harm:
#
# $$L_\text{Dice} = 1 - \frac{1}{3} \sum_{k=1}^{3}
# \frac{2 \sum p_k y_k + 1}{\sum p_k + \sum y_k + 1}$$
#
# Take a picture of four pixels, two of background, one of muscle, one of LV, and a network that hedges:
# the same four probabilities everywhere.

# %%
p = torch.tensor([0.7, 0.1, 0.1, 0.1])
truth = torch.tensor([[[0, 0], [2, 3]]])
logits = p.log().view(1, 4, 1, 1).expand(1, 4, 2, 2)  # softmax makes p of them again
for name in NAMES:
    print(f"{NAMES[name]:>13}: {LOSSES[name](logits, truth).item():.4f}")

# %% [markdown]
# By hand, in the same order (leaving out $c$): at a background pixel the true class has 0.7, at the
# others 0.1; the three wrong classes are told *no*; and each class claims 0.1 of four pixels.

# %%
ln = np.log
background, heart = ln(0.7) + 3 * ln(0.9), ln(0.1) + ln(0.3) + 2 * ln(0.9)
absent, present = 1 / (4 * 0.1 + 1), (2 * 0.1 + 1) / (4 * 0.1 + 1 + 1)
print(f" the report's: {-(2 * background + 2 * heart) / 4 / 4:.4f}")
print(f"cross-entropy: {-(2 * ln(0.7) + 2 * ln(0.1)) / 4:.4f}")
print(f"    soft Dice: {1 - (absent + 2 * present) / 3:.4f}")

# %% [markdown]
# ## What "all background" costs
#
# Now let the network be blind: one answer for every pixel of every slice. It gives background some
# probability and shares the rest among the three others. How much loss can it save without looking?

# %% tags=["hide-input"]
labels = torch.from_numpy(val.masks).long()
chances = np.r_[0.25, np.linspace(0.27, 0.99, 37)]


def constant(loss, chance):
    """The loss of the same answer everywhere, background with this probability."""
    p = torch.tensor([chance, *[(1 - chance) / 3] * 3]).float()
    logits = p.log().view(1, 4, 1, 1).expand(len(labels), 4, 96, 96)
    return LOSSES[loss](logits, labels).item()


background = (val.masks == 0).mean()
figure, ax = plt.subplots(figsize=(7.5, 3.2))
for name in NAMES:
    values = np.array([constant(name, chance) for chance in chances])
    ax.plot(chances, values / values[0], color=COLOURS[name], label=NAMES[name])
    best = chances[values.argmin()]
    print(
        f"{NAMES[name]:>13}: {values[0]:.3f} for four equal parts; "
        f"least at {best:.2f}: {values.min():.3f}"
    )
ax.axvline(background, color=plots.GREY, linestyle=":", linewidth=1.4)
ax.text(background - 0.008, 0.32, "share of background", ha="right", fontsize=9.5)
ax.set(
    xlabel="probability given to background, everywhere",
    ylim=(0.29, 1.17),
    ylabel="loss, relative to\nfour equal parts",
)
ax.legend(loc="lower left", bbox_to_anchor=(0, 0.1));

# %% [markdown]
# *Both logarithmic losses lead a blind network to the same place: say "background" as often as
# background occurs. That about halves the loss, and Dice is zero. Soft Dice leads the other way: for it,
# saying "background" everywhere is the worst of all answers.*
#
# So the report's own loss is no worse a guide here than the usual cross-entropy. Both are content with
# background at first; both pay for more only once the network can tell pixels apart.
#
# ## Who pulls, and how hard
#
# A loss acts through its *gradient*: how hard each pixel pulls at the logit of its own class. We let
# autograd tell, for a pixel of the myocardium, as the probability of its true class goes from
# hopeless to perfect. The rest of its probability is on background, the likely mistake.


# %% tags=["hide-input"]
def pull(loss, p, truth, c=2):
    """Mean gradient at the own logit of the pixels of class c, times all pixels."""
    y, heart = one_hot(truth, 4), truth > 0
    q = torch.where(heart[:, None], p * y, 0.97 * y + 0.01 * (1 - y))
    q[:, 0] += (1 - p) * heart
    logits = q.clamp(min=1e-9).log().requires_grad_()
    LOSSES[loss](logits, truth).backward()
    return -logits.grad[:, c][truth == c].mean().item() * truth.numel()


def disc(pixels):
    """A label map with this many pixels of myocardium and nothing else."""
    return (torch.arange(96 * 96) < pixels).long().view(1, 96, 96) * 2


odds = torch.linspace(-11.5, 11.5, 61).sigmoid().tolist()
areas = np.geomspace(10, 3000, 25).astype(int)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.3))
for name in NAMES:
    left.plot(odds, [pull(name, p, labels[:1]) for p in odds], color=COLOURS[name])
    right.plot(
        areas,
        [pull(name, 0.5, disc(n)) for n in areas],
        color=COLOURS[name],
        label=NAMES[name],
    )
left.set(xscale="logit", xlabel="probability of its true class", ylabel="its pull")
ticks = (0.0001, 0.01, 0.5, 0.99, 0.9999)
left.set_xticks(ticks, [str(tick) for tick in ticks])
left.minorticks_off()
right.set(xscale="log", yscale="log", xlabel="pixels in the structure")
right.set_title("at probability 0.5, by size", loc="left")
left.set_title("in one slice of a heart", loc="left")
right.legend(loc="upper right");

# %% [markdown]
# *Left: cross-entropy pulls hardest at the worst pixels. The report's constant inside the logarithm lets go of a
# pixel once its true class has much less than 0.001, and soft Dice lets go even earlier: their gradients carry the
# factor p of the true class, which vanishes with it; in cross-entropy the logarithm's 1/p cancels it. Right: to
# the logarithmic losses a pixel is a pixel; to soft Dice a pixel of a small structure is worth more, and from some
# hundred pixels on roughly in inverse proportion to its size.*
#
# That is why the two are so often added. Cross-entropy never gives a pixel up, Dice sees to it that a
# small right ventricle counts as much as a large one; nnU-Net trains on the sum {cite}`isensee2021`,
# and so does this book.
#
# In the middle the report's loss pulls half as hard as cross-entropy: it counts a mistake twice, once
# for the class that is missing and once for the one that took its place, and divides by four. With Adam
# {cite}`kingma2015` a constant factor hardly matters, for Adam divides each gradient by its own usual
# size.
#
# ## What it knows while its Dice is zero
#
# Nothing in these curves explains tens of epochs at zero. So we look inside. The same narrow network
# learns here, live, for a short while: raw grey levels, batches of two, Adam. The one change is a
# learning rate three times the report's, to save you waiting.

# %%
STEPS, EVERY = (4, 2) if SMOKE else (100, 20)
x, y = normalise(train.images, "raw"), torch.from_numpy(train.masks).long()


def score(net):
    """Mean Dice on slices that it does not learn from."""
    return metrics.mean(metrics.dice(predict(net, val.images, "raw"), val.masks))


def learn(net, loss):
    """Train on random pairs of slices; the Dice before, and every few steps."""
    optimiser, dice = torch.optim.Adam(net.parameters(), 0.003), [score(net)]
    for step in range(1, STEPS + 1):
        pair = torch.randint(len(x), (2,))
        optimiser.zero_grad()
        loss(net.train()(x[pair]), y[pair]).backward()
        optimiser.step()
        dice += [score(net)] if step % EVERY == 0 else []
    return dice


def fresh(skips):
    """A narrow network: the report's, skips "after" pooling, or the textbook's."""
    torch.manual_seed(0)
    return UNet((8, 16, 32, 64, 128), skips=skips)


# %%
net = fresh("after")
dice = learn(net, report_loss)
p = probabilities(net, val.images, "raw")  # (20, 4, 96, 96)
print(f"Dice after {STEPS} steps: {dice[-1]:.3f}")
print("mean probability of   " + "".join(f"{name:>11}" for name in data.CLASSES))
for c, name in enumerate(data.CLASSES):
    here = [p[:, k][val.masks == c].mean() for k in range(4)]
    print(f"where it is {name:>10}" + "".join(f"{value:11.2f}" for value in here))

# %% tags=["hide-input"]
figure, axes = plots.panels(4, size=2.5)
plots.overlay(axes[0], val.images[0], val.masks[0], "truth")
axes[1].imshow(1 - p[0, 0], cmap="magma", vmin=0, vmax=1)
axes[1].set_title("probability of heart")
plots.overlay(axes[2], val.images[0], p[0].argmax(0), "most probable class")
part = np.where(p[0, 0] < 0.5, 1 + p[0, 1:].argmax(0), 0)
plots.overlay(axes[3], val.images[0], part, "without background");

# %% [markdown]
# *It is not blind at all: the second picture shows that it has found the heart. But it cannot tell the
# parts, and deals its belief out to them in similar portions. Each portion is smaller than what
# background keeps, so background wins (third picture). Without background in the race, the winner is
# one and the same part nearly everywhere.*
#
# That is how a line can be flat. Dice sees only the *winner* at each pixel. Between the two dotted lines
# of the first picture the network finds the heart, the loss pays for it, and no pixel changes hands. Then
# one of the three parts overtakes background by a hair, the whole heart gets its name, and Dice leaps while
# the loss has hardly moved. The records show it:

# %%
for found in (*replicas, *published):
    curve = results.curve(found)
    leap = curve[curve["mean"] > 0.1].iloc[0]
    parts = ", ".join(f"{name} {leap[name]:.2f}" for name in results.CLASSES)
    who = f"{found['protocol']:>7}, seed {found['seed']}"
    print(f"{who}: at epoch {leap['epoch']:.0f} {parts}")

# %% [markdown]
# And only when the network begins to tell the parts from each other does the loss go through the lower
# line.
#
# ## Another loss, or another network?
#
# Does the report's loss cause the standstill? We try two other losses on the same network, and the same loss on this
# book's U-Net, whose decoder is the textbook's.

# %%
curves = {"report's network, report's loss": dice}
curves["report's network, CE + Dice"] = learn(fresh("after"), LOSSES["ce+dice"])
curves["report's network, soft Dice"] = learn(fresh("after"), LOSSES["dice"])
curves["textbook network, report's loss"] = learn(fresh("before"), report_loss)

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 3.2))
looks = (("#FE6100", "-"), (plots.ACCENT, ":"), ("#00A078", "-"), (plots.GREY, "-"))
for (name, values), (colour, line) in zip(curves.items(), looks):
    steps = range(0, STEPS + 1, EVERY)
    ax.plot(steps, values, line, marker="o", markersize=4, color=colour, label=name)
ax.set(xlabel="steps", ylabel="validation Dice", ylim=(-0.03, 1))
ax.legend(loc="upper left");

# %% [markdown]
# *Who starts, and who does not? One short run each, so look at the large differences only.*
#
# Adding Dice to cross-entropy did not wake the report's network in so short a time; Dice alone did,
# since it is not content with background; and with the report's own loss, on the same raw grey levels,
# the textbook's network started soonest of all. So the loss alone is no excuse. The network's
# exit is the better suspect: in the report's, a pixel's four logits come out of four channels at half
# the resolution, each cut off at zero by a ReLU, enlarged by one transposed convolution.
#
# Raw grey levels, which many would blame first, are less of a suspect than they look: batch
# normalisation {cite}`ioffe2015` right after the first convolution takes their scale away again.
#
# A suspect is not a culprit. These were single short runs; the textbook's network differs in four things at least,
# the place of the skips, the last layer, one pooling less and the windows; and three times the learning rate is not
# the report's. The page *Repairs* in part V tries one repair at a time, over all patients, with an interval. (These four
# come together there, too.)
#
# ## A loss that counts to two
#
# The report compares label maps with a ready-made stack of class numbers. The stack is laid out for two
# slices, whatever the batch. Written in our own words:

# %%
stack = torch.arange(4).repeat(2).view(8, 1, 1)  # four classes, for two slices exactly
for batch in (1, 2, 4):
    maps = y[:batch, None].expand(-1, 4, -1, -1).flatten(0, 1)  # a copy per class
    try:
        print("batch of", batch, "->", tuple((maps == stack).shape))
    except RuntimeError:
        print("batch of", batch, "->", f"error: {len(maps)} maps against {len(stack)}")

# %% [markdown]
# At any other batch size the published training stops with an error, so the report's experiment with
# batches of 4 to 32 needs a version of the code that we have not seen. At batch 2 it does no harm. The
# mistake is worth remembering all the same: a number that is true today, written down as if it always
# were. Counting from the tensor itself costs nothing, and a mean over pixels keeps the scale:

# %%
logits = torch.zeros(8, 4, 96, 96)  # a network that has no opinion
for batch in (1, 2, 4, 8):
    loss = report_loss(logits[:batch], y[:batch])
    print("batch of", batch, "->", f"{loss.item():.4f}")

# %% [markdown]
# ## What to conclude
#
# A loss says what a network is paid for, and no more. The logarithmic losses pay well for background and
# for finding the heart as a whole; Dice shows only who wins each pixel. Between the two there is room
# for a network that learns for tens of epochs and has nothing to show. So when Dice is zero, look at the
# probabilities before you blame the loss.
#
# ## Try
#
# ```{exercise} Dearer hearts
# :label: loss-weights
# Many cure an imbalance by *weights*: in cross-entropy each pixel counts with the inverse of its class's
# share. What is then the best single answer for all pixels? And what does that promise for the start of
# a training?
# ```
#
# ```{solution-start} loss-weights
# :class: dropdown
# ```

# %%
weight = torch.tensor([1 / (val.masks == c).mean() for c in range(4)]).float()
costs = []
for chance in chances:
    p = torch.tensor([chance, *[(1 - chance) / 3] * 3]).float()
    costs.append(-(p.log() * weight)[labels].sum().item() / weight[labels].sum().item())
print(f"best probability of background, weighted: {chances[np.argmin(costs)]:.2f}")

# %% [markdown]
# With these weights all four classes carry the same total, so the best blind answer is four equal
# parts, and saying "background" no longer pays. But a blind network is not what stood still above: that
# one had found the heart and could not tell its parts. Weights raise the price of every heart pixel, and
# the parts will overtake background sooner; telling them apart is a different thing.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A bolder threshold
# :label: loss-threshold
# Take the network of "What it knows while its Dice is zero". Call a pixel *heart* when all three parts
# together have more than one half. What is the Dice of heart against background, before and after?
# ```
#
# ```{solution-start} loss-threshold
# :class: dropdown
# ```

# %%
before = probabilities(fresh("after"), val.images, "raw")
after = probabilities(net, val.images, "raw")
for name, p in (("before", before), ("after", after)):
    found = (p[:, 1:].sum(1) > 0.5).astype(int)
    dice = metrics.dice(found, (val.masks > 0).astype(int), classes=(1,)).mean()
    print(f"{name:>6} the training: Dice of heart against background {dice:.3f}")

# %% [markdown]
# As a set of four classes the answer is worthless, as a finder of hearts it is not: the knowledge was
# there, and the argmax hid it.
#
# ```{solution-end}
# ```
