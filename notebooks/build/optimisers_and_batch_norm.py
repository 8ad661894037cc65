# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Optimisers and batch norm
#
# How far should each weight move in a step, and what keeps the numbers inside a network from growing or shrinking out of
# reach?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** write momentum, Adam and AdamW in a few lines each, say how long their first step is,
# write batch normalisation, and tell training mode from evaluation mode.
# **You need** [One weight](one_weight) and [Backpropagation](../build/backpropagation).
# **Time** 35 minutes to read; it runs in under a minute.
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
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from cmrseg import datasets, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")

# %% [markdown]
# ## One valley, two slopes
#
# On [One weight](one_weight), a learning rate could be too small or too large. With many weights, one rate can be both
# at once. Take a loss with just two weights, steep along one and flat along the other:
#
# $$L(a, b) = \tfrac12\,(a^2 + 20\,b^2), \qquad \text{gradient } (a,\ 20\,b)$$
#
# It is a long narrow valley with its lowest point at (0, 0). Start at (10, 1), with a learning rate of 0.09, and do
# the first steps by hand:
#
# | position | gradient | rate times gradient | next position |
# |---|---|---|---|
# | (10, 1) | (10, 20) | (0.9, 1.8) | (9.1, −0.8) |
# | (9.1, −0.8) | (9.1, −16) | (0.819, −1.44) | (8.281, 0.64) |
#
# Every step multiplies $a$ by 0.91 and $b$ by −0.8. So $b$ jumps across the valley and back while $a$ creeps along
# it: the path zigzags. A larger rate is no way out: from 0.1 on, $b$ is multiplied by −1 or
# less and never settles. The steep direction limits the rate, and the flat one has to live with that rate.

# %%
STEEP, START, STEPS = torch.tensor([1.0, 20.0]), torch.tensor([10.0, 1.0]), 40


def valley(w):
    return (STEEP * w**2).sum(-1) / 2


def slope(w):
    return STEEP * w  # the gradient of valley, by hand


print("loss", valley(START).item(), "gradient", slope(START).tolist())

# %%
def descent(slope, w, rate, steps=STEPS):
    path = [w]
    for _ in range(steps):
        w = w - rate * slope(w)
        path.append(w)
    return torch.stack(path)


print(descent(slope, START, 0.09)[:4].round(decimals=3))

# %% [markdown]
# ## Momentum: remember the last gradients
#
# Across the valley, one gradient points up and the next one down. Along the valley they all point the same way. A
# running sum of gradients cancels the first kind and adds up the second. **Momentum** steps along such a sum: each
# step keeps 0.9 of the old sum and adds the new gradient.
#
# $$v \leftarrow 0.9\,v + g, \qquad w \leftarrow w - \text{rate} \cdot v$$
#
# If the gradient were always $g$, the sum would grow towards $g / (1 - 0.9) = 10\,g$. So momentum usually gets a
# smaller rate than plain descent.

# %%
def momentum(slope, w, rate, steps=STEPS, keep=0.9):
    v, path = torch.zeros_like(w), [w]
    for _ in range(steps):
        v = keep * v + slope(w)
        w = w - rate * v
        path.append(w)
    return torch.stack(path)


print(momentum(slope, START, 0.02)[:4].round(decimals=3))

# %% [markdown]
# The first step is the same as in plain descent with this rate: there's nothing to remember yet. Is this what
# PyTorch does? We let one of its optimisers walk down the same valley and compare all 40 steps.

# %%
def with_torch(make, loss=valley, steps=STEPS):
    """The path of a PyTorch optimiser that `make` builds for a list of weights."""
    w = START.clone().requires_grad_()
    optimiser, path = make([w]), [START]
    for _ in range(steps):
        optimiser.zero_grad()
        loss(w).backward()
        optimiser.step()
        path.append(w.detach().clone())
    return torch.stack(path)

# %%
def same(name, ours, theirs):
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5), name
    print(f"{name}: largest difference {(ours - theirs).abs().max():.1e}")


path = with_torch(lambda w: torch.optim.SGD(w, lr=0.09))
same("plain descent is torch.optim.SGD", descent(slope, START, 0.09), path)
path = with_torch(lambda w: torch.optim.SGD(w, lr=0.02, momentum=0.9))
same("momentum is SGD(momentum=0.9)", momentum(slope, START, 0.02), path)

# %% [markdown]
# ## Adam: divide each entry of the gradient by its own size
#
# The trouble with the valley is that the gradient's two entries differ in size. **Adam** {cite}`kingma2015` divides each weight's
# gradient by its own usual size. It keeps two running means for every weight: $m$ of the gradient, and $s$ of its
# square. The square root of $s$ is the usual size. At each step $m$ keeps nine tenths of its old value and takes one tenth
# of the new gradient; $s$ keeps 0.999 of its own and takes a thousandth of the new square.
#
# Both means start at zero, so at first they are too small. Here is the first step by hand, at (10, 1), where the
# gradient is (10, 20):
#
# | what | by hand | result |
# |---|---|---|
# | $m$, a tenth of the gradient | 0.1 · (10, 20) | (1, 2) |
# | $s$, a thousandth of its square | 0.001 · (100, 400) | (0.1, 0.4) |
# | **bias correction** of $m$ | divide by 1 − 0.9 | (10, 20) |
# | bias correction of $s$ | divide by 1 − 0.999 | (100, 400) |
# | $m / \sqrt{s}$ | (10, 20) / (10, 20) | (1, 1) |
#
# The corrected ratio is exactly 1 for each weight. Adam's first step is *the learning rate itself*, up or down. In
# general, at step $t$, with decay rates 0.9 and 0.999 (PyTorch's `betas`) and a tiny $\epsilon$ against division by zero:
#
# $$w \leftarrow w - \text{rate} \cdot \frac{m \,/\, (1 - 0.9^t)}{\sqrt{s \,/\, (1 - 0.999^t)} + \epsilon}$$

# %%
def adam(slope, w, rate, steps=STEPS, b1=0.9, b2=0.999, eps=1e-8):
    m, s, path = torch.zeros_like(w), torch.zeros_like(w), [w]
    for t in range(1, steps + 1):
        g = slope(w)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * g**2
        usual = (s / (1 - b2**t)).sqrt() + eps
        w = w - rate * m / (1 - b1**t) / usual
        path.append(w)
    return torch.stack(path)


path = with_torch(lambda w: torch.optim.Adam(w, lr=0.5))
same("adam is torch.optim.Adam", adam(slope, START, 0.5), path)

# %% [markdown]
# Now all three, each at a rate chosen by eye for this valley.

# %%
paths = {
    "gradient descent, rate 0.09": descent(slope, START, 0.09),
    "momentum, rate 0.02": momentum(slope, START, 0.02),
    "Adam, rate 0.5": adam(slope, START, 0.5),
}

# %%
along, across = torch.linspace(-4, 11, 150), torch.linspace(-1.5, 1.5, 80)
a, b = torch.meshgrid(along, across, indexing="ij")
height = valley(torch.stack([a, b], -1))
figure, axes = plt.subplots(3, 1, figsize=(9.5, 6), sharex=True)
levels = [0.5, 2, 5, 10, 20, 35, 55]
for ax, (name, path), colour in zip(axes, paths.items(), ("C0", "C1", "C2")):
    ax.contour(a, b, height, levels, colors=plots.GREY, linewidths=0.7, alpha=0.6)
    ax.plot(*path.T, ".-", color=colour, linewidth=1.4, markersize=6)
    ax.plot(0, 0, "+", color=plots.GREY, markersize=10)
    ax.set_title(name, loc="left", color=colour)
axes[-1].set(xlabel="a", ylabel="b");

# %% [markdown]
# *Forty steps down one valley, from the right towards the cross; grey lines join points of equal loss. Gradient descent
# jumps from wall to wall and then creeps. Momentum and Adam swing across in a few long waves and overshoot the cross.
# Adam's first step is just as long in one weight as in the other, although the gradient's entries differ.*
#
# Don't read the picture as a race: other rates would give other winners. It shows what each rule does on the same
# slope.
#
# ## How long is a first step?
#
# **Predict, then run**: all three get the report's learning rate, 0.001. How far does each weight move in the first
# step? And how far if the loss, and with it each gradient, is a thousand times smaller?

# %%
MAKERS = {
    "SGD": lambda w: torch.optim.SGD(w, lr=0.001),
    "momentum": lambda w: torch.optim.SGD(w, lr=0.001, momentum=0.9),
    "Adam": lambda w: torch.optim.Adam(w, lr=0.001),
}
for scale in (1, 0.001):
    print("the loss, times", scale)
    for name, make in MAKERS.items():
        path = with_torch(make, lambda w: scale * valley(w), steps=1)
        a, b = (path[0] - path[1]).tolist()
        print(f"   {name:>8} moves a by {a:.6f} and b by {b:.6f}")

# %% [markdown]
# SGD's step follows the gradient, so a loss a thousand times smaller makes a step a thousand times shorter. Adam's
# *first* step is the rate, whatever the gradient (as long as it isn't as tiny as $\epsilon$), and later steps are seldom
# much longer. With the same learning rate of 0.001, SGD and Adam take steps of very different length. So a
# comparison at one rate, such as the report's ([Optimiser](../experiments/optimiser)), mostly compares step lengths. The report chose Adam at 0.001. In `cmrseg` its settings are the preset `report`:

# %%
from cmrseg.config import PRESETS
from cmrseg.train import make_optimiser

report = PRESETS["report"]
print(report.optimiser, "| rate", report.lr, "| slices in a batch", report.batch)
path = with_torch(lambda w: make_optimiser(report, w))
same("our adam and the report's optimiser", adam(slope, START, report.lr), path)

# %% [markdown]
# The price: the gradient's size no longer shortens the steps near the lowest point. With gradients from small batches,
# which are noisy everywhere, the weights keep jittering. Today's usual practice therefore lowers the rate towards the
# end; on [Batches and the loop](batches_and_the_loop) a schedule does it.
#
# ## What it costs: memory
#
# Momentum remembers one number for every weight, Adam two. Let's count them, and compute how many
# megabytes the weights of the report's network, their gradients and the optimiser's memory take, with four bytes a
# number. (The feature maps that the backward pass needs come on top.)

# %%
from cmrseg.models import build

report_weights = sum(p.numel() for p in build(report).parameters())
for name, make in MAKERS.items():
    layer = nn.Conv2d(16, 32, 3)
    count = sum(p.numel() for p in layer.parameters())
    optimiser = make(layer.parameters())
    layer(torch.randn(2, 16, 8, 8)).mean().backward()
    optimiser.step()
    values = [v for state in optimiser.state.values() for v in state.values()]
    state_size = sum(v.numel() for v in values if torch.is_tensor(v) and v.numel() > 1)
    total = (2 + state_size / count) * report_weights * 4 / 1e6
    print(f"{name:>8}: numbers per weight {state_size / count:.0f}, {total:.0f} MB")

# %% [markdown]
# ## Weight decay, and the W in AdamW
#
# **Weight decay** lets every weight shrink a little at each step, unless the loss pulls it back. It's a form of *regularisation*: it keeps the weights small,
# even where larger ones would fit the training data better. The old way adds
# $\lambda w$ to the gradient, with a small $\lambda$. In plain SGD this shrinks each weight by the factor
# $1 - \text{rate} \cdot \lambda$. In Adam it doesn't, because the sum is then divided by its own size. **AdamW**
# {cite}`loshchilov2019` keeps the decay out of that division. It shrinks the weight directly, in one extra line:

# %%
def adamw(slope, w, rate, decay, steps=STEPS, b1=0.9, b2=0.999, eps=1e-8):
    m, s, path = torch.zeros_like(w), torch.zeros_like(w), [w]
    for t in range(1, steps + 1):
        g = slope(w)
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * g**2
        usual = (s / (1 - b2**t)).sqrt() + eps
        w = w * (1 - rate * decay)  # the one line that is new
        w = w - rate * m / (1 - b1**t) / usual
        path.append(w)
    return torch.stack(path)


path = with_torch(lambda w: torch.optim.AdamW(w, lr=0.5, weight_decay=0.1))
same("adamw is torch.optim.AdamW", adamw(slope, START, 0.5, 0.1), path)

# %% [markdown]
# **Predict, then run**: where are $a$ and $b$ after one step from (10, 1) with rate 0.5: Adam without decay, Adam with
# a decay of 0.1 in its gradient, AdamW with a decay of 0.1?

# %%
for name, make in {
    "Adam": lambda w: torch.optim.Adam(w, lr=0.5),
    "Adam, decay 0.1": lambda w: torch.optim.Adam(w, lr=0.5, weight_decay=0.1),
    "AdamW, decay 0.1": lambda w: torch.optim.AdamW(w, lr=0.5, weight_decay=0.1),
}.items():
    a, b = with_torch(make, steps=1)[1].tolist()
    print(f"{name:>16}: a = {a:.3f}, b = {b:.3f}")

# %% [markdown]
# Adam's decay left no trace in the first step: the gradient was larger, and so was its size. AdamW also took 5 % off
# each weight. Today's usual practice is AdamW, and [The whole thing](whole) uses it.
#
# ## Batch normalisation: why
#
# Gradient descent changes a layer's weights as if its input would stay the same. It doesn't: the layers before it learn too,
# and the size of their feature maps changes all the time. [Backpropagation](../build/backpropagation) showed how signals grow
# or shrink from layer to layer. **Batch normalisation**, or **batch norm** {cite}`ioffe2015`, brings each channel back
# to mean 0 and standard deviation 1 in every batch. It stands between a convolution and its ReLU, in the report's
# blocks as in ours. Why it helps is still debated: its authors pointed to the changing inputs; Santurkar and
# colleagues {cite}`santurkar2018` found that it makes the loss smoother, so that larger steps are safe.
#
# ## A tiny example by hand
#
# Two images, A and B, with two channels of two pixels each. The second channel has much larger numbers.
#
# | channel | image A | image B | mean | standard deviation |
# |---|---|---|---|---|
# | 0 | 1, 7 | 9, 15 | 8 | 5 |
# | 1 | 150, 90 | 70, 10 | 80 | 50 |
#
# For channel 0 the distances from the mean are −7, −1, 1, 7. Their squares have the mean 100 / 4 = 25, whose root is
# 5. Subtract the mean and divide by 5: A becomes −1.4 and −0.2, B becomes 0.2 and 1.4.

# %%
x = torch.tensor([[[[1.0, 7]], [[150, 90]]], [[[9, 15]], [[70, 10]]]])
print(tuple(x.shape))  # images, channels, rows, columns


def normalise(x, axes, eps=1e-5):
    mean = x.mean(axes, keepdim=True)
    variance = x.var(axes, unbiased=False, keepdim=True)
    return (x - mean) / (variance + eps).sqrt()


print(normalise(x, (0, 2, 3)).squeeze(2))  # A: two channels, B: two channels

# %% [markdown]
# Both channels now have the same scale. The mean runs over axes 0, 2 and 3: all images, rows and columns. Axis 1, the
# channels, is left out, so each channel has a mean and a variance of its own. The small `eps`, $\epsilon$ in the
# formula, prevents a division by zero where a channel has no variance.
#
# Two weights for each channel follow, a scale $\gamma$ and a shift $\beta$. They start at 1 and 0 and are learned like
# any other weight, so the network can choose another mean and spread where that suits it better:
#
# $$y = \gamma \cdot \frac{x - \text{mean}}{\sqrt{\text{variance} + \epsilon}} + \beta$$
#
# ## It doesn't normalise each image
#
# **Predict, then run**: batch norm gives a batch of feature maps mean 0 and standard deviation 1. What is the mean of
# each *single* image afterwards? We take raw slices, as the report did, and the eight feature maps of one untrained
# convolution.

# %%
torch.manual_seed(0)
grey = torch.tensor(train.images[:, None], dtype=torch.float32)  # 0 to 255
convolution = nn.Conv2d(1, 8, 3, padding=1)
with torch.no_grad():
    maps = convolution(grey)
batch = maps[::12][:8]  # eight slices of different patients
normal = normalise(batch, (0, 2, 3))
print(f"mean of the batch {normal[:, 0].mean().abs():.2f}")
print("mean of each image", *[f"{mean:+.2f}" for mean in normal[:, 0].mean((1, 2))])

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3))
versions = {
    "before": batch,
    "batch norm": normal,
    "instance norm": normalise(batch, (2, 3)),
}
for ax, (name, values) in zip(axes, versions.items()):
    mean, spread = values[:, 0].mean((1, 2)), values[:, 0].std((1, 2))
    ax.errorbar(range(8), mean, spread, fmt="o", capsize=3)
    ax.axhline(values[:, 0].mean(), color=plots.GREY, linewidth=1)
    ax.set(title=name, xlabel="image of the batch", xticks=range(8))
axes[0].set_ylabel("channel 0: mean and spread");

# %% [markdown]
# *The same channel of eight images; a dot is the mean of one image, a bar its standard deviation, the line the mean
# of the batch. Batch norm only moves and rescales the axis: the pattern of the dots is the same as before. To make all
# images alike you need instance norm, which we come to below.*
#
# So batch norm does **not** normalise each image. It shifts and scales the whole batch, and an image that lay below
# the others stays below them. You saw it by hand, too: in channel 0, image A has the mean −0.8 afterwards, and B 0.8.
#
# ## Training and evaluation are two computations
#
# In training the mean comes from the batch, so the output for one image depends on the others. For a prediction that
# would be absurd: a patient's mask must not depend on who else is in the batch. So during training the layer also
# keeps **running statistics**, and in evaluation it uses those instead.
#
# Channel 0 of the tiny example, by hand. The running mean starts at 0 and moves a tenth of the way to the batch's mean:
# 0.9 · 0 + 0.1 · 8 = 0.8. The running variance starts at 1. It moves towards the *unbiased* variance, the one that
# divides by 4 − 1: 100 / 3 = 33.3, hence 0.9 · 1 + 0.1 · 33.3 = 4.23. The output itself uses the biased one, 25.
# PyTorch calls the tenth `momentum`. Beware: in the optimiser, `momentum=0.9` was the part of the *old* that stays;
# here, `momentum=0.1` is the part of the *new* that comes in.

# %%
def batch_norm(x, gamma, beta, running, training, momentum=0.1, eps=1e-5):
    """Batch normalisation of (N, C, H, W); training updates the running statistics."""
    mean, variance = running["mean"], running["variance"]
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        n = x.numel() / x.shape[1]  # numbers behind each mean
        new = {"mean": mean, "variance": variance * n / (n - 1)}
        for key in new:
            running[key] = (1 - momentum) * running[key] + momentum * new[key].detach()
    mean, variance = mean[:, None, None], variance[:, None, None]  # (C, 1, 1)
    x = (x - mean) / (variance + eps).sqrt()
    return gamma[:, None, None] * x + beta[:, None, None]

# %%
running = {"mean": torch.zeros(2), "variance": torch.ones(2)}
batch_norm(x, torch.ones(2), torch.zeros(2), running, training=True)
print(running)

# %% [markdown]
# Now against `nn.BatchNorm2d`, with a $\gamma$ and a $\beta$ that matter: ten batches of four slices in training
# mode, then another batch in evaluation mode.

# %%
norm = nn.BatchNorm2d(8)
nn.init.uniform_(norm.weight, 0.5, 2)  # PyTorch's name for gamma
nn.init.uniform_(norm.bias, -1, 1)  # and for beta
running = {"mean": torch.zeros(8), "variance": torch.ones(8)}
for start in range(0, 40, 4):
    four = maps[start : start + 4]
    ours = batch_norm(four, norm.weight, norm.bias, running, training=True)
    theirs = norm(four)
    assert torch.allclose(ours, theirs, atol=1e-4)
same("training output  ", ours, theirs)
same("running mean     ", running["mean"], norm.running_mean)
same("running variance ", running["variance"], norm.running_var)
norm.eval()
ours = batch_norm(batch, norm.weight, norm.bias, running, training=False)
same("evaluation output", ours, norm(batch))

# %% [markdown]
# A new layer is in training mode. `model.eval()` sets the flag `training` of every layer to `False`, `model.train()`
# sets it back, and that is all they do.
#
# ## `no_grad` is not `eval`
#
# `torch.no_grad()` is a different switch: it stops PyTorch from recording what backpropagation needs. Many scripts
# use only one of `eval` and `no_grad`.
#
# **Predict, then run**: a fresh batch norm layer works inside `no_grad`, in training mode. Image 0 goes in together with
# image 1, then together with image 2. Is image 0's output the same both times? Do the running statistics move? And in
# evaluation mode?

# %%
norm = nn.BatchNorm2d(8)
with torch.no_grad():
    for mode in (True, False):
        norm.train(mode)
        before = norm.running_mean.clone()
        beside_1, beside_2 = norm(batch[[0, 1]])[0], norm(batch[[0, 2]])[0]
        print(
            f"training={norm.training}: output of image 0 differs by up to "
            f"{(beside_1 - beside_2).abs().max():.3f}, the running means moved by up to "
            f"{(norm.running_mean - before).abs().max():.3f}"
        )

# %% [markdown]
# So `no_grad` is **not** `eval`. With `no_grad` alone the output still depends on the other images of the batch, and
# every prediction changes the layer's running statistics, even with slices it should never learn from. To predict you
# want both: `eval()` for the right numbers, `no_grad()` to save memory and time.
#
# ## Batches of two
#
# The report trained on two slices at a time. In the first layer, two slices give each mean 2 · 96 · 96 = 18,432
# numbers. **Predict, then run**: if these were independent (the mean of $n$ independent numbers varies by $1/\sqrt{n}$ of what one of them varies), how much would such a mean differ from batch to batch, in
# standard deviations of the channel? And how much does it really differ?

# %%
def batch_means(maps, size, draws=200):
    """Means of random batches, measured from the overall mean in deviations: (draws, C)."""
    image_means = maps.mean((2, 3))
    batches = [torch.randperm(len(maps))[:size] for _ in range(draws)]
    means = torch.stack([image_means[chosen].mean(0) for chosen in batches])
    return (means - maps.mean((0, 2, 3))) / maps.std((0, 2, 3))


print("batch   if independent   measured")
for size in (2, 4, 8, 16):
    measured = batch_means(maps, size).std(0).mean()
    print(f"{size:5}{(size * 96 * 96) ** -0.5:17.3f}{measured:11.3f}")

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(9.5, 2.2))
for y, size in enumerate((2, 4, 16)):
    height = y + 0.5 * (torch.rand(200) - 0.5)
    ax.plot(batch_means(maps, size)[:, 0], height, "o", markersize=3, alpha=0.6)
alone = (2 * 96 * 96) ** -0.5  # what batches of two would have
ax.axvspan(-2 * alone, 2 * alone, alpha=0.4, color="0.5")
ax.invert_yaxis()
ax.set_yticks(range(3), ["batches of 2", "batches of 4", "batches of 16"])
ax.set_xlabel("mean of channel 0 over one batch, in standard deviations");

# %% [markdown]
# *Each dot is the mean of one random batch; batch norm subtracts it. If pixels were independent, nearly all the dots
# of batches of 2 (top) would lie in the grey band.*
#
# The pixels of a slice are far from independent: one slice is brighter than another, and all its pixels share that.
# What counts is the number of *slices*, and two is few. So the same slice is shifted differently each time it comes up in training, which
# is noise that training has to live with. If each slice gets mean 0 and standard deviation 1 first, as in this book,
# the noise nearly vanishes in the first layer:

# %%
zscore = (grey - grey.mean((1, 2, 3), keepdim=True)) / grey.std((1, 2, 3), keepdim=True)
with torch.no_grad():
    measured = batch_means(convolution(zscore), 2).std(0).mean()
print(f"measured, batches of 2: {measured:.3f}")

# %% [markdown]
# Deeper layers are noisy all the same; [Batch size](../experiments/batch_size) measures it level by level.
#
# ## Where it breaks: a batch of one pixel
#
# Each pooling halves the sides. The report's five leave 3 by 3 of 96 by 96 pixels; on smaller images or with more
# poolings a single pixel may be left. Two slices then give two numbers for each channel, and one slice gives one.
# **Predict, then run**: what comes out?

# %%
norm, pixel = nn.BatchNorm2d(4), torch.randn(2, 4, 1, 1)
print(norm(pixel).squeeze().detach().round(decimals=3))
try:
    norm(pixel[:1])
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# Two numbers become about −1 and 1, however far apart they were: all that is left is which one was larger. One
# number minus its own mean is 0, so nothing would be left, and PyTorch refuses. Evaluation mode has no such trouble.
#
# ## Other axes: instance and group norm
#
# What if no image may depend on another? Then take the mean within each image:
#
# ```{raw} html
# <svg viewBox="0 0 408 152" role="img" fill="none" stroke="currentColor"
#  font-size="13" font-family="sans-serif" style="width:560px;max-width:100%;color:var(--pst-color-text-base)">
# <title>Three grids of three images by four channels. Batch norm takes a mean over one channel of all images,
# instance norm over one channel of one image, group norm over two channels of one image.</title>
# <defs><g id="norm-grid"><path d="M0 0h96v72h-96zM24 0v72M48 0v72M72 0v72M0 24h96M0 48h96"/></g></defs>
# <g fill="#785EF0" stroke="none" fill-opacity="0.75">
# <rect x="56" y="48" width="24" height="72"/><rect x="192" y="48" width="24" height="24"/>
# <rect x="304" y="48" width="48" height="24"/></g>
# <use href="#norm-grid" x="32" y="48"/><use href="#norm-grid" x="168" y="48"/><use href="#norm-grid" x="304" y="48"/>
# <g fill="currentColor" stroke="none" text-anchor="middle">
# <text x="80" y="18" font-weight="bold">batch norm</text><text x="216" y="18" font-weight="bold">instance norm</text>
# <text x="352" y="18" font-weight="bold">group norm</text>
# <text x="80" y="40">channels</text><text x="216" y="40">channels</text><text x="352" y="40">channels</text>
# <text x="20" y="88" transform="rotate(-90 20 84)">images</text>
# <text x="80" y="142">axes 0, 2, 3</text><text x="216" y="142">axes 2, 3</text>
# <text x="352" y="142">within groups</text>
# </g></svg>
# ```
#
# *A batch of three images with four channels: each square is one feature map with all its pixels. The
# filled squares share one mean and one variance.*
#
# **Instance norm** {cite}`ulyanov2016` normalises every feature map by itself. **Group norm** {cite}`wu2018` puts the channels of one image into groups and normalises each group. On the tiny example, where A was darker
# than B in channel 0:

# %%
print("instance norm", normalise(x, (2, 3)).squeeze(2), sep="\n")
grouped = x.view(2, 1, 2, 1, 2)  # images, groups, channels of a group, rows, columns
group = normalise(grouped, (2, 3, 4)).view(x.shape)
print("group norm, one group", group.squeeze(2), sep="\n")

# %% [markdown]
# Instance norm makes A and B the same: the fact that A was darker is gone. Group norm keeps how the channels of a group
# compare: in A, channel 1 was far above channel 0 and still is. (With a single group it's nearly the same as *layer norm*.)
# Neither needs running statistics, so training and evaluation are one computation. On slices, against PyTorch:

# %%
theirs = F.batch_norm(batch, None, None, training=True)
same("batch norm   ", normalise(batch, (0, 2, 3)), theirs)
same("instance norm", normalise(batch, (2, 3)), F.instance_norm(batch))
grouped = batch.view(8, 4, 2, 96, 96)  # eight channels in four groups
group = normalise(grouped, (2, 3, 4)).view(batch.shape)
same("group norm   ", group, F.group_norm(batch, num_groups=4))

# %% [markdown]
# Batch norm is what the report's U-Net and ours use. Instance norm is today's usual practice where memory allows only a
# few images at a time, as in 3D segmentation {cite}`isensee2021`. One more layer computes differently in training and
# in evaluation: [dropout](../experiments/dropout).
#
# Last, the package's own network. The first batch norm of `cmrseg`'s U-Net, on two slices:

# %%
net = build(PRESETS["modern"])
first, norm = net.encoder[0][0], net.encoder[0][1]
running = {"mean": norm.running_mean.clone(), "variance": norm.running_var.clone()}
with torch.no_grad():
    two = first(zscore[:2])
    for training in (True, False):
        ours = batch_norm(two, norm.weight, norm.bias, running, training)
        same(f"training={training}", ours, norm.train(training)(two))

# %% [markdown]
# ## Recap
#
# - Momentum steps along a running sum of gradients. Adam divides a running mean by the gradient's usual size, so its
#   first step is the learning rate, whatever the gradient. AdamW shrinks the weights separately from the gradient step.
# - Batch norm gives each *channel* of a *batch* mean 0 and standard deviation 1, not each image. In evaluation it uses
#   running statistics instead; `no_grad` doesn't switch to them, `eval` does.
# - Means of two raw slices are noisy, however many pixels a slice has. Instance and group norm take the mean over
#   other axes, and no image depends on another.
#
# ## Exercises
#
# ```{exercise} Fold batch norm away
# :label: norm-fold
# In evaluation mode, batch norm multiplies each channel by one number and adds another. A convolution can do that by
# itself. Given a convolution (with a bias) and the batch norm layer that follows it, compute the weight and bias of
# *one* convolution that gives what the two give together in evaluation mode. You need `norm.running_mean`,
# `norm.running_var`, `norm.weight`, `norm.bias` and `norm.eps`. The check says what is wrong, first with the weight, then
# with the bias.
# ```

# %% tags=["hide-input"]
from copy import deepcopy

import torch
from torch import nn


def conv_and_norm(inputs, outputs):
    """A convolution and a batch norm layer in which every number matters."""
    torch.manual_seed(inputs)
    conv, norm = nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs, eps=0.1).eval()
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data.uniform_(0.5, 2)
    return conv, norm


def known(conv, norm):
    """Right and wrong answers: {"weight": {why: tensor}, "bias": {why: tensor}}."""
    weight, bias, mean = conv.weight.data, conv.bias.data, norm.running_mean
    gamma, beta, var = norm.weight.data, norm.bias.data, norm.running_var
    root = (var + norm.eps).sqrt()
    by = gamma / root
    scales = {
        "right": by,
        "it isn't scaled: divide by the deviation, multiply by gamma": gamma**0,
        "the root of the variance is missing": gamma / (var + norm.eps),
        "`norm.weight`, the gamma, is missing": 1 / root,
        "divide by the deviation, don't multiply by it": gamma * root,
        "`norm.eps` is missing (it isn't always 1e-5)": gamma / var.sqrt(),
        "`norm.eps` belongs under the root": gamma / (var.sqrt() + norm.eps),
    }
    weights = {why: weight * s[:, None, None, None] for why, s in scales.items()}
    if conv.in_channels == conv.out_channels == 3:  # or these would be errors
        wrong_axes = by[:, None, None], by[:, None], by
        for name, s in zip(("input channels", "rows", "columns"), wrong_axes):
            weights[f"that scales {name}: output channels are axis 0"] = weight * s
    biases = {why: (bias - mean) * s + beta for why, s in scales.items()} | {
        "it is still the convolution's": bias,
        "it is batch norm's alone": beta,
        "the running mean and `norm.bias` are missing": bias * by,
        "the convolution's bias is missing": beta - mean * by,
        "scale the convolution's bias, too": bias + beta - mean * by,
        "`norm.running_mean` is missing": bias * by + beta,
        "scale the running mean, too": bias * by - mean + beta,
        "subtract the running mean, don't add it": (bias + mean) * by + beta,
        "`norm.bias`, the beta, is missing": (bias - mean) * by,
        "beta isn't scaled: add it last": (bias - mean + beta) * by,
    }
    return {"weight": weights, "bias": biases}


HINTS = {
    "weight": "it is the old one, each output channel times one number",
    "bias": "it is what the two layers give for an image of zeros",
}


def check_fold(mine):
    """What is wrong with a function that should fold batch norm into a convolution."""
    for inputs, outputs in ((3, 3), (2, 5)):
        conv, norm = conv_and_norm(inputs, outputs)
        try:
            answer = mine(deepcopy(conv), deepcopy(norm))
        except Exception as error:
            return f"it raises {type(error).__name__}: {error}"
        if answer is None:
            return "it returns nothing yet"
        if isinstance(answer, nn.Conv2d):
            answer = answer.weight, answer.bias
        if not isinstance(answer, (tuple, list)) or len(answer) != 2:
            return "return two tensors, the weight and the bias"
        for (name, answers), value in zip(known(conv, norm).items(), answer):
            right = answers["right"]
            if not torch.is_tensor(value) or value.shape != right.shape:
                return f"the {name} should be a tensor of shape {tuple(right.shape)}"
            value = value.detach().to(right)
            off = {why: (value - a).abs().max() for why, a in answers.items()}
            close = [why for why in off if off[why] < 1e-4]
            if not close:
                return f"the {name} is off by up to {off['right']:.3f}: {HINTS[name]}"
            if close[0] != "right":
                return f"the {name}: {close[0]}"
    return "right"

# %%
def my_fold(conv, norm):
    """Weight and bias of one convolution that equals norm(conv(x)) in evaluation mode."""
    return None  # your lines here


print("my_fold:", check_fold(my_fold))

# %% [markdown]
# ```{solution-start} norm-fold
# :class: dropdown
# ```

# %%
def my_fold(conv, norm):
    """Weight and bias of one convolution that equals norm(conv(x)) in evaluation mode."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = conv.weight * scale[:, None, None, None]
    bias = (conv.bias - norm.running_mean) * scale + norm.bias
    return weight, bias


print("my_fold:", check_fold(my_fold))

# %% [markdown]
# In evaluation the mean and the variance are fixed numbers, so nothing depends on the batch, and two layers become one.
# Programs that only predict do this to save time. In training it's impossible: there the scale changes with every batch.
# (And there the convolution's own bias does nothing. Batch norm subtracts the mean, and the bias with it.)
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Turn the valley
# :label: optimiser-turn
# "Adam copes with any narrow valley." Turn the valley and the start by 45 degrees, so that each weight has a part in
# both directions. (To turn a point, multiply it by `[[1, -1], [1, 1]]` divided by the square root of 2.) Before you run:
# which of the three walk the same path, only turned, and which doesn't? And how long is Adam's first step across the
# valley now, and how long along it?
# ```
#
# ```{solution-start} optimiser-turn
# :class: dropdown
# ```

# %%
rotation = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5  # by 45 degrees
WALKS = {"descent": (descent, 0.09), "momentum": (momentum, 0.02), "adam": (adam, 0.5)}
for name, (walk, rate) in WALKS.items():
    plain = walk(slope, START, rate)
    turned = walk(lambda w: rotation @ slope(rotation.T @ w), rotation @ START, rate)
    back = turned @ rotation  # turned back, to compare
    apart = (plain - back).norm(dim=1).max()
    step = [f"{value:.2f}" for value in (back[1] - back[0])]
    print(f"{name:>8}: paths up to {apart:.2f} apart, first step along, across:", *step)

# %% [markdown]
# Descent and momentum only add up gradients, so when the valley turns, their whole path turns with it. Adam divides
# weight by weight. It can even out a valley that lies along an axis, but not one that lies along a diagonal: its first
# step moves both weights by the rate, and here that leads straight across the valley and not along it at all. The
# valleys of a network's loss have no reason to lie along the axes. So the picture above doesn't explain why Adam works so
# well on networks.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: [The U-Net](the_unet) puts convolution, batch norm and ReLU into one block, and blocks into a U. **Read**:
# Goh's *Why Momentum Really Works* {cite}`goh2017`, for a valley whose rate and momentum you can drag.
