# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Backpropagation
#
# A network has many layers, and the loss is computed after the last; how does a weight in the first layer get its
# slope?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** compute the gradients of a two-layer network by hand and check them with autograd, say why
# a network needs nonlinear functions between its layers, and choose the size of its first random weights.
# **You need** [One weight](one_weight), and the product of two matrices.
# **Time** 40 minutes.
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

from cmrseg import datasets, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")
STEPS = 20 if os.environ.get("CMRSEG_BUDGET") == "smoke" else 500

# %% [markdown]
# ## Why one layer isn't enough
#
# On [One weight](one_weight) a threshold told blood from muscle, inside the ring of the heart. Now we want to find the
# muscle in a larger part of the slice, and one threshold can't do it: muscle is darker than blood, but brighter than
# the air in the lung. Take three pixels: lung with grey level 0, muscle with 0.5, blood with 1. The answers we want are
# 0, 1 and 0: first up, then down.
#
# A **linear layer** multiplies its input by weights and adds a **bias**: here $w x + b$. Drawn over $x$, that's a
# straight line, and a line doesn't go up and down again. So we add a second layer. Its input is the result of the
# first. **Predict, then run**: can two linear layers do it?

# %%
grey = torch.tensor([0, 0.5, 1])  # lung, muscle, blood
w, b, v, c = 2, -1, 3, 0.5
print("two layers:", v * (w * grey + b) + c)
print("one layer: ", 6 * grey - 2.5)

# %% [markdown]
# They can't, whatever the weights. Multiply out: $v\,(w x + b) + c = (v w)\,x + (v b + c)$. That's a line again, with
# another slope and another bias. One might expect two linear layers to be stronger than one. They aren't: **two
# linear layers are one linear layer**, written out at greater length, and so are a hundred.
#
# What's missing is a function between the layers that isn't a straight line, a **nonlinearity** or **activation
# function**. Today's usual choice is the **ReLU** (rectified linear unit): negative numbers become 0, positive ones
# pass unchanged. With it, a first layer with two results, called **units**, is enough:

# %%
def relu(a):
    return a.clamp(min=0)


print(2 * relu(grey) - 4 * relu(grey - 0.5))

# %%
figure, ax = plt.subplots(figsize=(7.5, 2.6))
x = torch.linspace(-0.2, 1.2, 200)
ax.plot(x, v * (w * x + b) + c, color=plots.GREY, label="two linear layers")
ax.plot(x, 2 * relu(x) - 4 * relu(x - 0.5), label="two units with ReLU")
ax.plot(grey, [0, 1, 0], "o", color=plots.CLASS_COLOURS["LV"], label="wanted")
ax.set(xlabel="grey level", ylabel="answer", ylim=(-2.2, 2.2))
ax.legend();

# %% [markdown]
# *Lung, muscle and blood as three dots. Two linear layers draw a straight line, whatever their weights. With ReLU the
# line bends: the first unit starts to rise at 0, and the second pulls it down from 0.5 on.*
#
# ## Forward, with numbers
#
# We chose these weights by thinking. A network has to find them by gradient descent, so it needs a slope for every
# weight. Let's do it once by hand. One input $x$ goes to three **hidden units**, each with a weight, a bias and a
# ReLU. The second layer multiplies by $v$, adds up, and adds its bias $c$. The target is $y = 1$, and the loss is the
# squared error, because its numbers are easy. Beside each line stands the shape of its result.

# %%
x, y = torch.tensor(2.0), torch.tensor(1.0)
w, b = torch.tensor([0.5, -1, 1]), torch.tensor([0.0, 1, 0])
v, c = torch.tensor([3.0, 2, -1]), torch.tensor(1.0)

a = w * x + b  # (3,)
h = relu(a)  # (3,)
z = (v * h).sum() + c  # (), one number
loss = (z - y) ** 2  # ()
print("a", a.tolist(), "  h", h.tolist(), "  z", z.item(), "  loss", loss.item())

# %% [markdown]
# This is the **forward pass**. A program that's written as such a list of small steps can be drawn as a **computation
# graph**: a box for each step, an arrow for each value that goes from one to the next.
#
# ## Backward, line by line
#
# Now go through the same lines from the last to the first, and ask of each value: *if it grew a little, how much would
# the loss grow?* The answer for `h` is called `g_h`, and so on. It has the same shape as the value. The chain rule says
# that we never need to look at the whole network. Each line takes the slope of its result, multiplies it by
# its own slope, and hands that back:
#
# | step | what it hands back, when its result has the slope $g$ |
# |---|---|
# | sum $p + q$ | $g$ to both |
# | product $p \cdot q$ | $g\,q$ to $p$, and $g\,p$ to $q$: times *the other one* |
# | ReLU of $a$ | $g$ where $a > 0$, and 0 elsewhere |
# | square $(z - y)^2$ | $2\,(z - y)\,g$ |
#
# **Before you run it:** which entries of `g_w` will be zero, and why?

# %%
g_z = 2 * (z - y)  # (): the square
g_c = g_z  # (): a sum
g_v = g_z * h  # (3,): a product, times the other one
g_h = g_z * v  # (3,): the same product, the other way round
g_a = g_h * (a > 0)  # (3,): the ReLU
g_w = g_a * x  # (3,): a product
g_b = g_a  # (3,): a sum
g_x = (g_a * w).sum()  # (): x went to three places, so add up
print("g_v", g_v.tolist(), "  g_w", g_w.tolist(), "  g_b", g_b.tolist())
print("g_c", g_c.item(), "  g_x", g_x.item())

# %% [markdown]
# ```{raw} html
# <svg viewBox="0 0 400 604" role="img" class="computation"
# style="max-width: 100%; width: 34rem; height: auto; display: block; margin: 0 auto"
# font-family="var(--pst-font-family-heading, sans-serif)" font-size="14" fill="currentColor">
# <title>Computation graph of two layers: three hidden units, the loss, and each value's slope</title>
# <style>
# .computation .b { fill: none; stroke: var(--pst-color-border, #888); stroke-width: 1.5 }
# .computation .e { stroke: currentColor; stroke-width: 1.2; opacity: 0.55; marker-end: url(#graph-tip) }
# .computation .g { fill: var(--pst-color-secondary, #c2410c); font-weight: 700 }
# .computation .q { opacity: 0.75; font-size: 13px }
# .computation .off { stroke-dasharray: 4 4 }</style>
# <defs><marker id="graph-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
# <path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker></defs>
# <text x="12" y="20" text-anchor="start" class="q">value, forward</text>
# <text x="12" y="38" class="g" font-size="13">slope, backward</text>
# <rect id="graph-x" class="b" x="162" y="8" width="76" height="36" rx="7"/>
# <text x="186" y="31" text-anchor="middle">x = 2</text>
# <text x="226" y="31" text-anchor="middle" class="g">1</text>
# <text x="388" y="20" text-anchor="end" class="q">x goes to three</text>
# <text x="388" y="37" text-anchor="end" class="q">places: 3 + 0 − 2</text>
# <line class="e" x1="171.4" y1="44" x2="70" y2="98"/>
# <text x="80.2" y="76" text-anchor="middle">2</text>
# <text x="98.2" y="76" text-anchor="middle" class="g">3</text>
# <rect id="graph-a1" class="b" x="14" y="100" width="112" height="74" rx="7"/>
# <text x="70" y="119" text-anchor="middle" class="q">w x + b</text>
# <text x="26" y="141" text-anchor="start">w = 0.5</text>
# <text x="116" y="141" text-anchor="end" class="g">12</text>
# <text x="26" y="163" text-anchor="start">b = 0</text>
# <text x="116" y="163" text-anchor="end" class="g">6</text>
# <line class="e" x1="70" y1="174" x2="70" y2="208"/>
# <text x="60" y="196" text-anchor="end">1</text>
# <text x="80" y="196" text-anchor="start" class="g">6</text>
# <rect id="graph-r1" class="b" x="34" y="210" width="72" height="28" rx="7"/>
# <text x="70" y="229" text-anchor="middle" class="q">ReLU</text>
# <line class="e" x1="70" y1="238" x2="70" y2="272"/>
# <text x="60" y="260" text-anchor="end">1</text>
# <text x="80" y="260" text-anchor="start" class="g">6</text>
# <rect id="graph-v1" class="b" x="14" y="274" width="112" height="52" rx="7"/>
# <text x="70" y="293" text-anchor="middle" class="q">v h</text>
# <text x="26" y="315" text-anchor="start">v = 3</text>
# <text x="116" y="315" text-anchor="end" class="g">2</text>
# <line class="e" x1="70" y1="326" x2="161.0" y2="378"/>
# <text x="87.4" y="366" text-anchor="middle">3</text>
# <text x="105.4" y="366" text-anchor="middle" class="g">2</text>
# <line class="e" x1="200.0" y1="44" x2="200" y2="98"/>
# <text x="189.0" y="76" text-anchor="middle">2</text>
# <text x="211.0" y="76" text-anchor="middle" class="g">0</text>
# <rect id="graph-a2" class="b" x="144" y="100" width="112" height="74" rx="7"/>
# <text x="200" y="119" text-anchor="middle" class="q">w x + b</text>
# <text x="156" y="141" text-anchor="start">w = −1</text>
# <text x="246" y="141" text-anchor="end" class="g">0</text>
# <text x="156" y="163" text-anchor="start">b = 1</text>
# <text x="246" y="163" text-anchor="end" class="g">0</text>
# <line class="e" x1="200" y1="174" x2="200" y2="208"/>
# <text x="190" y="196" text-anchor="end">−1</text>
# <text x="210" y="196" text-anchor="start" class="g">0</text>
# <rect id="graph-r2" class="b off" x="164" y="210" width="72" height="28" rx="7"/>
# <text x="200" y="229" text-anchor="middle" class="q">ReLU</text>
# <line class="e" x1="200" y1="238" x2="200" y2="272"/>
# <text x="190" y="260" text-anchor="end">0</text>
# <text x="210" y="260" text-anchor="start" class="g">4</text>
# <rect id="graph-v2" class="b" x="144" y="274" width="112" height="52" rx="7"/>
# <text x="200" y="293" text-anchor="middle" class="q">v h</text>
# <text x="156" y="315" text-anchor="start">v = 2</text>
# <text x="246" y="315" text-anchor="end" class="g">0</text>
# <line class="e" x1="200" y1="326" x2="200.0" y2="378"/>
# <text x="189.0" y="356" text-anchor="middle">0</text>
# <text x="211.0" y="356" text-anchor="middle" class="g">2</text>
# <line class="e" x1="228.6" y1="44" x2="330" y2="98"/>
# <text x="305.8" y="76" text-anchor="middle">2</text>
# <text x="325.8" y="76" text-anchor="middle" class="g">−2</text>
# <rect id="graph-a3" class="b" x="274" y="100" width="112" height="74" rx="7"/>
# <text x="330" y="119" text-anchor="middle" class="q">w x + b</text>
# <text x="286" y="141" text-anchor="start">w = 1</text>
# <text x="376" y="141" text-anchor="end" class="g">−4</text>
# <text x="286" y="163" text-anchor="start">b = 0</text>
# <text x="376" y="163" text-anchor="end" class="g">−2</text>
# <line class="e" x1="330" y1="174" x2="330" y2="208"/>
# <text x="320" y="196" text-anchor="end">2</text>
# <text x="340" y="196" text-anchor="start" class="g">−2</text>
# <rect id="graph-r3" class="b" x="294" y="210" width="72" height="28" rx="7"/>
# <text x="330" y="229" text-anchor="middle" class="q">ReLU</text>
# <line class="e" x1="330" y1="238" x2="330" y2="272"/>
# <text x="320" y="260" text-anchor="end">2</text>
# <text x="340" y="260" text-anchor="start" class="g">−2</text>
# <rect id="graph-v3" class="b" x="274" y="274" width="112" height="52" rx="7"/>
# <text x="330" y="293" text-anchor="middle" class="q">v h</text>
# <text x="286" y="315" text-anchor="start">v = −1</text>
# <text x="376" y="315" text-anchor="end" class="g">4</text>
# <line class="e" x1="330" y1="326" x2="239.0" y2="378"/>
# <text x="300.6" y="366" text-anchor="middle">−2</text>
# <text x="320.6" y="366" text-anchor="middle" class="g">2</text>
# <rect id="graph-z" class="b" x="136" y="380" width="128" height="52" rx="7"/>
# <text x="200" y="399" text-anchor="middle" class="q">sum + c</text>
# <text x="148" y="421" text-anchor="start">c = 1</text>
# <text x="252" y="421" text-anchor="end" class="g">2</text>
# <line class="e" x1="200" y1="432" x2="200" y2="468"/>
# <text x="190" y="455" text-anchor="end">z = 2</text>
# <text x="210" y="455" text-anchor="start" class="g">2</text>
# <rect id="graph-square" class="b" x="136" y="470" width="128" height="52" rx="7"/>
# <text x="200" y="489" text-anchor="middle" class="q">(z − y)²</text>
# <text x="200" y="511" text-anchor="middle">y = 1</text>
# <line class="e" x1="200" y1="522" x2="200" y2="558"/>
# <text x="190" y="545" text-anchor="end">1</text>
# <text x="210" y="545" text-anchor="start" class="g">1</text>
# <rect id="graph-loss" class="b" x="150" y="560" width="100" height="36" rx="7"/>
# <text x="200" y="583" text-anchor="middle">loss = 1</text>
# <text x="258" y="455" text-anchor="start" class="q">2 (z − y) = 2</text>
# <text x="330" y="250" text-anchor="middle" class="q"></text>
# </svg>
# ```
#
# *The computation graph of the example. Read the values downwards, and then the slopes upwards, beginning with 1 at
# the loss. Each box has its own simple rule. The dashed ReLU got a negative number: it is closed, and no slope passes
# it, so the weight and the bias above it get a zero. At the top, three slopes arrive at x and are added.*
#
# That's **backpropagation** {cite}`rumelhart1986`: the chain rule, applied from the loss backwards, so
# that each slope is computed once and used by everything above it. Nudging would need two forward passes for each
# weight; this needs one pass forward and one back, however many weights there are. The price: the backward pass uses
# values of the forward pass (`h`, `a`, `x`), so they have to be kept. That's why training takes more memory than
# prediction.
#
# Does autograd agree?

# %%
leaves = [t.clone().requires_grad_() for t in (x, w, b, v, c)]
x_, w_, b_, v_, c_ = leaves
((v_ * relu(w_ * x_ + b_)).sum() + c_ - y).square().backward()
for name, leaf, mine in zip("xwbvc", leaves, (g_x, g_w, g_b, g_v, g_c)):
    print(name, leaf.grad.tolist(), "difference", (leaf.grad - mine).abs().max().item())
    assert torch.allclose(leaf.grad, mine)
assert g_w.tolist() == [12, 0, -4] and g_x == 1  # the numbers in the drawing

# %% [markdown]
# The slopes of the three weights are 12, 0 and -4: a rise of the first raises the loss, behind
# the closed ReLU nothing changes, and a rise of the third lowers the loss. Do the slopes help? One step with a learning rate of 0.01, for all weights at once:

# %%
w, b, v, c = (t - 0.01 * g for t, g in ((w, g_w), (b, g_b), (v, g_v), (c, g_c)))
print("loss after the step:", (((v * relu(w * x + b)).sum() + c - y) ** 2).item())

# %% [markdown]
# ## A value that's used twice
#
# Look at the last line of the backward pass again: $x$ was used by three units, so three slopes came back, and we
# added them. Adding is right because all three ways exist at the same time: if $x$ grows, the loss changes along each
# of them. **Predict, then run**: in $y = x + x^2$ the value $x$ is used by the sum and by the square. What is its slope
# at 3: 1, 6 or 7?

# %%
x = torch.tensor(3.0, requires_grad=True)
(x + x**2).backward()
print(x.grad.item())

# %% [markdown]
# That's also why `backward()` *adds* to `.grad`: for autograd, a second call is one more use of the weight.
#
# A **skip connection** is a path that goes round one or more layers; how it joins again is a choice. In a layer of the
# form $x + f(x)$ {cite}`he2016`, $x$ goes through $f$ and also round it, and the two are added. Its
# slope is $1 + f'(x)$. Even where $f'$ is nearly 0, the 1 lets the slope pass. The skips of [the U-Net](the_unet) put
# $x$ and $f(x)$ side by side instead of adding them, but the rule is the same: a feature map that's used in two places gets the sum of two
# slopes.
#
# ## A layer for many pixels
#
# Real layers have many inputs and outputs, and they see many pixels at once. Put the $N$ pixels into the rows of a
# matrix, and the whole layer is one matrix product, which Python writes as `@`:

# %%
def linear(x, w, b):
    """(N, in), (in, out), (out,) -> (N, out)"""
    return x @ w + b


def linear_back(g, x, w):
    """From the slope of the result: the slopes of x, w and b."""
    return g @ w.T, x.T @ g, g.sum(0)  # (N, in), (in, out), (out,)

# %% [markdown]
# The backward pass is the table from above once more. Every weight multiplies one input of *each* pixel.
# So it's used $N$ times, and its $N$ slopes $g \cdot x$ are added: that's what `x.T @ g` computes. The bias is added to
# each pixel, so it gets the sum of all $g$. And each input of a pixel goes to all units, as $x$ went to three places
# above, so its slopes $g \cdot w$ from all units are added: that's `g @ w.T`. And if you forget which side gets the transpose, the shapes tell you: unless two sizes happen to be equal, only
# one way fits.

# %%
torch.manual_seed(0)
x, w, b = torch.randn(5, 4), torch.randn(4, 3), torch.randn(3)
g = torch.randn(5, 3)  # as if it came from the layers after this one
leaves = [t.clone().requires_grad_() for t in (x, w, b)]
linear(*leaves).backward(g)  # starts from the slopes g instead of from 1
for leaf, mine in zip(leaves, linear_back(g, x, w)):
    assert torch.allclose(leaf.grad, mine, atol=1e-6)
    print("the same slopes", tuple(mine.shape))

# %% [markdown]
# PyTorch has this layer as `torch.nn.Linear`; it stores `w` the other way round, as (out, in).
#
# ## Muscle or not
#
# Now a network learns something with these gradients. Each pixel is described by nine numbers, the grey levels of the $3 \times 3$ patch around
# it, and the question is: *is the pixel in the middle muscle?* We take muscle pixels of one slice, and as many others
# from its neighbourhood.

# %%
def patches(image):
    """The 3x3 patch around each pixel, (H, W) -> (H * W, 9); mean 0 and spread 1."""
    image = torch.from_numpy(image).float()
    image = (image - image.mean()) / image.std()
    return F.unfold(image[None, None], 3, padding=1)[0].T  # was (9, H * W)


print("patches", tuple(patches(train.images[0]).shape))

# %% [markdown]
# `F.unfold` cuts out all 3x3 patches. In the next cell a max pooling with a window of 17 is 1 wherever a muscle pixel lies
# within eight pixels, so `near` is the neighbourhood. `randperm` shuffles the places, so that we can take the first 300.

# %%
muscle = torch.from_numpy(train.masks[0]) == 2  # (96, 96)
near = F.max_pool2d(muscle[None].float(), 17, stride=1, padding=8)[0] > 0
yes = muscle.flatten().nonzero()[:, 0]  # muscle
no = (near & ~muscle).flatten().nonzero()[:, 0]  # up to eight pixels away from it
torch.manual_seed(0)
n = min(300, len(yes), len(no))
chosen = torch.cat([k[torch.randperm(len(k))[:n]] for k in (yes, no)])
pixels = patches(train.images[0])[chosen]
answers = muscle.flatten()[chosen, None].float()
print("pixels", tuple(pixels.shape), "  answers", tuple(answers.shape))

# %% [markdown]
# The network has two layers, with 16 hidden units and ReLU between them. Its result is a logit, and the loss is the
# cross-entropy of [One weight](one_weight). There we found its slope with respect to the logit: prediction minus truth. As the
# loss is a mean, each pixel contributes one $N$-th of that. The other lines are the ones you know:

# %%
def gradients(x, y, w1, b1, w2, b2):
    a = linear(x, w1, b1)  # (N, 16)
    h = relu(a)  # (N, 16)
    s = linear(h, w2, b2)  # (N, 1), the logits
    g_s = (s.sigmoid() - y) / len(x)  # (N, 1)
    g_h, g_w2, g_b2 = linear_back(g_s, h, w2)
    g_a = g_h * (a > 0)
    _, g_w1, g_b1 = linear_back(g_a, x, w1)
    return g_w1, g_b1, g_w2, g_b2

# %%
def fresh():
    """First weights of the two layers; the last section says why they are this large."""
    torch.manual_seed(0)
    w1, w2 = torch.randn(9, 16) * (2 / 9) ** 0.5, torch.randn(16, 1) * (2 / 16) ** 0.5
    return [w1, torch.zeros(16), w2, torch.zeros(1)]


def network(x, w1, b1, w2, b2):
    return linear(relu(linear(x, w1, b1)), w2, b2)


print("weights", *(tuple(weight.shape) for weight in fresh()))
print("result", tuple(network(pixels, *fresh()).shape))

# %%
cross_entropy = F.binary_cross_entropy_with_logits
mine = fresh()
for step in range(STEPS):
    if step % (STEPS // 4) == 0:
        loss = cross_entropy(network(pixels, *mine), answers)
        print(f"step {step:3}   loss {loss:.3f}")
    slopes = gradients(pixels, answers, *mine)
    mine = [weight - 0.2 * slope for weight, slope in zip(mine, slopes)]

# %% [markdown]
# Now the same with autograd. The step is a calculation too, but it isn't part of the loss, so autograd mustn't record
# it. **`torch.no_grad()`** switches the recording off: inside it, results have no graph behind them, and nothing has to
# be kept for a backward pass. The numbers are the same as outside.

# %%
theirs = [weight.requires_grad_() for weight in fresh()]
for step in range(STEPS):
    cross_entropy(network(pixels, *theirs), answers).backward()
    with torch.no_grad():
        for weight in theirs:
            weight -= 0.2 * weight.grad
            weight.grad = None  # as zero_grad does

# %%
for name, a, b in zip(("w1", "b1", "w2", "b2"), mine, theirs):
    assert torch.allclose(a, b, atol=1e-3)
    print("the same", name, tuple(a.shape))
with torch.no_grad():
    print("recorded inside no_grad: ", network(pixels, *theirs).requires_grad)
print("recorded outside no_grad:", network(pixels, *theirs).requires_grad)

# %% [markdown]
# After all these steps the weights are the same, up to rounding. You have trained a network without autograd.
#
# **Predict, then run**: we train two more, a single layer, and two layers *without* the ReLU. How will they compare?

# %%
def learn(net, weights):
    """Gradient descent by autograd; returns the last loss."""
    optimiser = torch.optim.SGD(weights, lr=0.2)
    for _ in range(STEPS):
        loss = cross_entropy(net(pixels, *weights), answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


def no_relu(x, w1, b1, w2, b2):
    return linear(linear(x, w1, b1), w2, b2)

# %%
networks = {
    "one layer": (linear, [torch.zeros(9, 1), torch.zeros(1)]),
    "two layers, no ReLU": (no_relu, fresh()),
    "two layers, ReLU": (network, fresh()),
}
for name, (net, weights) in networks.items():
    for weight in weights:
        weight.requires_grad_()
    loss = learn(net, weights)
    right = ((net(pixels, *weights) > 0) == (answers > 0)).float().mean()
    print(f"{name:20} loss {loss:.3f}, {right:.0%} of these pixels right")

# %%
figure, axes = plots.panels(4, size=2.37)
image = train.images[0]
plots.contours(plots.show(axes[0], image, "truth"), np.where(muscle, 2, 0))
for ax, (name, (net, weights)) in zip(axes[1:], networks.items()):
    with torch.no_grad():
        p = net(patches(image), *weights).sigmoid().view(image.shape)
    ax.imshow(p, cmap="magma", vmin=0, vmax=1)
    ax.set_title(name)

# %% [markdown]
# *The muscle, and its probability at every pixel of the slice that the networks were trained on, from black (0) to pale yellow (1). One layer and two layers without a
# ReLU show nearly the same picture, and the ring hardly stands out from what lies beside it. With the ReLU the ring
# appears: the bright blood is not called muscle, and neither is the dark outside. Other tissue of the same grey level
# is, because a patch of nine pixels doesn't show what it belongs to.*
#
# The two networks without a ReLU don't have exactly the same loss: each went its own way, and neither has quite
# arrived. But whatever the one with two layers draws, a single layer can draw too. In the second exercise you'll compute that single layer.
#
# ## When gradients vanish
#
# On the way back, each layer multiplies the slope that
# arrives by its own slope. What happens after many layers? For a long time the usual nonlinearity was
# the sigmoid, whose slope $p\,(1 - p)$ is never more than a quarter. **Predict, then run**: what's left of a slope of
# 1 after passing back through ten sigmoids? Through ten ReLUs, all of them open?

# %%
for depth in (1, 2, 5, 10, 20):
    slopes = []
    for bend in (torch.sigmoid, relu):
        x = torch.tensor(0.5, requires_grad=True)
        h = x
        for _ in range(depth):
            h = bend(h)
        h.backward()
        slopes.append(x.grad.item())
    print("{:2} in a row: sigmoid {:.1e}, ReLU {}".format(depth, *slopes))

# %% [markdown]
# (With ReLUs that's for a positive input; a negative one would give 0 at once.) This is the **vanishing gradient**: the first layers get next to no slope and stay as they were at the start. Now the
# same in a network with ten layers of 100 units, and once more with a skip connection around each sigmoid layer. (The
# input is random, and the loss is any number computed from the output: we only look at how large the slopes are.)

# %%
def slope_sizes(bend, skip=0):
    """The spread of the slopes of each layer's weights, from the first to the tenth."""
    torch.manual_seed(0)
    weights = [torch.randn(100, 100) * (2 / 100) ** 0.5 for _ in range(10)]
    h = torch.randn(500, 100)
    for w in weights:
        h = bend(h @ w.requires_grad_()) + skip * h
    h.square().mean().backward()
    return [w.grad.std().item() for w in weights]


columns = slope_sizes(torch.sigmoid), slope_sizes(torch.sigmoid, 1), slope_sizes(relu)
print("layer   sigmoid   with skips      ReLU")
for layer, row in enumerate(zip(*columns), start=1):
    print(f"{layer:5}" + "".join(f"{value:12.1e}" for value in row))

# %% [markdown]
# Read the columns from the bottom up, as the slopes travel. With sigmoids they shrink in every layer. With skips or
# with ReLU, a useful part of them arrives. ReLU has a weakness of its own, which you saw in the drawing: where it's
# closed, nothing passes. A unit that's closed for *every* input gets no slope at all and can't open by itself (a **dead
# ReLU**). [Activation](../experiments/activation) measures what the
# choice of the nonlinearity does to a U-Net.
#
# ## Initialisation
#
# Gradient descent has to start somewhere, and the first weights decide whether anything arrives at all. We send random
# numbers through ten layers of 256 ReLU units, and look at the spread (standard deviation) of the values after each
# layer, the **activations**. Five ways to draw the weights:

# %%
n = 256
starts = {
    "all zeros": lambda: torch.zeros(n, n),
    "too small": lambda: torch.randn(n, n) * 0.01,
    "too large": lambda: torch.randn(n, n) * 1,
    "PyTorch's default": lambda: (2 * torch.rand(n, n) - 1) / n**0.5,
    "He": lambda: torch.randn(n, n) * (2 / n) ** 0.5,
}

# %% [markdown]
# **Predict, then run**: which of these keeps the spread about the same?

# %%
spreads = {}
for name, start in starts.items():
    torch.manual_seed(0)
    layers = [torch.randn(1000, n)]
    for _ in range(10):
        layers.append(relu(layers[-1] @ start()))
    spreads[name] = [h.std().item() for h in layers]
    print(
        f"{name:18} after one layer {spreads[name][1]:.1e}, ten {spreads[name][-1]:.1e}"
    )

# %%
figure, ax = plt.subplots(figsize=(7.5, 3.4))
for name, values in spreads.items():
    if max(values[1:]) > 0:  # zero has no place on this axis
        ax.plot(values, "o-", markersize=4, label=name)
ax.set(yscale="log", xlabel="layer", ylabel="spread of the activations")
ax.set_xticks(range(11))
ax.legend(ncols=2);

# %% [markdown]
# *The spread of the activations through ten layers, on a logarithmic axis. Weights that are too small or too large
# multiply it by about the same factor in every layer, and
# ten such factors make it vanish or explode. The initialisation named after Kaiming He, who proposed it, nearly holds it.
# All zeros isn't drawn: there everything is zero from the first layer on.*
#
# Where does He's factor come from? A unit adds up $n$ products. The variances of independent numbers add up, so the
# sum has $n \cdot \operatorname{Var}(w)$ times the mean square of the inputs. ReLU then sets the negative half to zero,
# and with it half of the mean square. To keep the mean square, $n \cdot \operatorname{Var}(w) / 2$ has to be 1, so the
# weights need a standard deviation of $\sqrt{2/n}$
# {cite}`he2015`. (The standard deviation falls a little all the same, since after a ReLU the mean is no longer 0.) Here $n$ is the number of inputs of a unit, for a $3 \times 3$ convolution nine times the number of
# input channels.
#
# PyTorch's default draws evenly from $-1/\sqrt{n}$ to $1/\sqrt{n}$, for linear layers and convolutions. That's smaller
# than He's, and the figure shows what it does. In a U-Net, batch normalisation brings the spread back after every
# convolution; that's part of the [next page](optimisers_and_batch_norm). PyTorch has both rules:

# %%
torch.manual_seed(0)
he = torch.randn(n, n) * (2 / n) ** 0.5
torch.manual_seed(0)
theirs = torch.nn.init.kaiming_normal_(torch.empty(n, n), nonlinearity="relu")
print("He:      difference", (he - theirs).abs().max().item())
assert torch.allclose(he, theirs)
torch.manual_seed(0)
default = torch.empty(n, n).uniform_(-1 / n**0.5, 1 / n**0.5)
torch.manual_seed(0)
theirs = torch.nn.Linear(n, n).weight
print("default: difference", (default - theirs).abs().max().item())
assert torch.allclose(default, theirs)

# %% [markdown]
# And why not begin with zeros? In the backward pass a product multiplies by *the other one*, and the other one is zero:

# %%
zeros = [torch.zeros_like(weight) for weight in fresh()]
for name, slope in zip(("w1", "b1", "w2", "b2"), gradients(pixels, answers, *zeros)):
    print(name, f"largest slope {slope.abs().max():.6f}")

# %% [markdown]
# Not one weight can move. (Only the last bias could, if the two answers weren't equally frequent.)
#
# ## Recap
#
# - Two linear layers are one. A nonlinearity between them is what makes a second layer worth having.
# - Backpropagation walks through the lines of the forward pass in reverse. Each hands back the slope of its result
#   times its own slope, and a value that's used more than once gets the sum.
# - Many small factors make slopes vanish. ReLU, skip connections and weights of the right size keep them alive.
#
# ## Exercises

# %% [markdown]
# ```{exercise} The gradient of a kernel
# :label: backpropagation-kernel
# A convolution uses the same few weights at every place. In one dimension, with a kernel of three weights:
# $y_i = w_0 x_i + w_1 x_{i+1} + w_2 x_{i+2}$. You get `x` with $n$ numbers and `g`, the slopes of the $n - 2$ results.
# Return the slopes of the three weights.
# ```

# %% tags=["hide-input"]
def numbers(answer):
    """All numbers of an answer in one list."""
    parts = answer if isinstance(answer, (tuple, list)) else [answer]
    parts = [torch.as_tensor(v, dtype=torch.float64).flatten() for v in parts]
    return torch.cat(parts).detach()


def ask(mine, *question):
    """The numbers that a function answers, and what keeps it from answering."""
    try:
        answer = mine(*(tensor.clone() for tensor in question))
        return (
            (None, "it returns nothing yet")
            if answer is None
            else (numbers(answer), "")
        )
    except Exception as error:
        return None, f"it stops with {type(error).__name__}: {error}"


def same(answer, wanted):
    """Whether an answer has the wanted numbers."""
    wanted = numbers(wanted)
    return answer.shape == wanted.shape and torch.allclose(answer, wanted, atol=1e-4)


def why_not(answer, wanted, slips):
    """What is wrong with an answer; nothing where it is right."""
    if same(answer, wanted):
        return ""
    why = [text for text, slip in slips.items() if same(answer, slip)]
    told, right = answer.numpy().round(3), numbers(wanted).numpy().round(3)
    return why[0] if why else f"it says {told}, and right is {right}"


LINE, SLOPES = torch.tensor([1.0, 2, 0, 4, 3]), torch.tensor([1.0, -2, 3])
MORE, STEEP = torch.tensor([1.0, 4, 2, 8, 5, 7]), torch.tensor([3.0, -1, 2, 1])
KERNELS = (LINE, SLOPES, [-3, 14, 1]), (MORE, STEEP, [11, 31, 15])
KERNEL_SLIPS = {
    "that is the last place alone: a second use doesn't overwrite the first, add": [
        0,
        12,
        9,
    ],
    "that is the first place alone: the kernel is used at every place": [1, 2, 0],
    "add the slopes of all places, don't take their mean": [-1, 14 / 3, 1 / 3],
    "the order is reversed: w_0 meets x_i, not x_(i+2)": [1, 14, -3],
    "g is reversed: slide it over x as it is": [-1, 10, -5],
    "g is missing: a product hands back g times the other one": [3, 6, 7],
    "the sign: that is the direction of a step, not the slope": [3, -14, -1],
    "multiply place by place, then add": [6, 12, 14],
    "that is g times x at one and the same i: w_1 meets x_(i+1)": [1, -4, 0],
    "there are as many places as numbers in g, not always three": [3, 26, 8],
}


def check_kernel(mine):
    """What is wrong with the gradient of a kernel."""
    for x, g, wanted in KERNELS:
        answer, problem = ask(mine, x, g)
        if problem or len(answer) != 3:
            return problem or f"three weights have three slopes, not {len(answer)}"
        if problem := why_not(answer, wanted, KERNEL_SLIPS):
            return problem
    return "right"


ONE, TWO = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[2.0, -1], [1, 3]])
B1, B2 = torch.tensor([1.0, -2]), torch.tensor([5.0, 7])
WEIGHT, BIAS = ONE @ TWO, B1 @ TWO + B2
W_SLIPS = {
    "w: wrong order, x meets w1 first": TWO @ ONE,
    "w: one transpose too many": WEIGHT.T,
    "w: take the matrix product, not number by number": ONE * TWO,
    "w: layers in a row multiply, they don't add": ONE + TWO,
}
B_SLIPS = {
    "b: b1 is lost, and it does pass through the second layer": B2,
    "b: b2 is lost": B1 @ TWO,
    "b: b1 passes through the second layer before b2 is added": B1 + B2,
    "b: a row times a matrix is b1 @ w2, not w2 @ b1": TWO @ B1 + B2,
    "b: b1 passes through w2, not through w1": B1 @ ONE + B2,
}


def of_other_sizes(mine):
    """What is wrong with one layer for two that go from 3 over 2 to 4 numbers."""
    first, second = torch.arange(-3.0, 3).reshape(3, 2), torch.arange(8.0).reshape(2, 4)
    last = torch.arange(4.0)
    try:
        w, b = mine(first.clone(), B1.clone(), second.clone(), last.clone())
        shapes = tuple(w.shape), tuple(b.shape)
    except Exception as error:
        return f"right for 2x2 weights; for 3x2, then 2x4, it stops with: {error}"
    if shapes != ((3, 4), (4,)):
        return f"of 3x2 and 2x4 weights w should be (3, 4), b (4,); they are {shapes}"
    right = same(numbers((w, b)), (first @ second, B1 @ second + last))
    return "right" if right else "right for 2x2 weights, wrong for other sizes"


def check_collapse(mine):
    """What is wrong with the one layer that should replace two."""
    answer, problem = ask(mine, ONE, B1, TWO, B2)
    if problem or len(answer) != 6:
        return problem or "return w (two by two) and b (two numbers)"
    if same(answer, (BIAS, WEIGHT)):
        return "they have changed places: w first, then b"
    wrong = why_not(answer[:4], WEIGHT, W_SLIPS), why_not(answer[4:], BIAS, B_SLIPS)
    return "; ".join(filter(None, wrong)) or of_other_sizes(mine)

# %%
def my_kernel_gradient(x, g):
    """Slopes of the three weights of a kernel, from the slopes g of its results."""
    return None  # your lines here


print("my_kernel_gradient:", check_kernel(my_kernel_gradient))

# %% [markdown]
# ```{solution-start} backpropagation-kernel
# :class: dropdown
# ```

# %%
def my_kernel_gradient(x, g):
    """Slopes of the three weights of a kernel, from the slopes g of its results."""
    places = len(g)
    return [(g * x[k : k + places]).sum() for k in range(3)]


print("my_kernel_gradient:", check_kernel(my_kernel_gradient))

# %% [markdown]
# Each weight is used at every place, so it collects a slope from every place. In a U-Net a kernel of the first layer
# is used at 96 times 96 places, and each of them has a say in how it changes. Look at the formula again: sliding `g`
# over `x` is itself a convolution.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Two layers into one
# :label: backpropagation-collapse
# Write a function that takes the weights and biases of two linear layers and returns `w` and `b` of the single layer
# that does the same. All are tensors, and a layer is `x @ w + b` as above: `w` is (in, out), `b` is (out,). Then try it on
# the network without ReLU that was trained above.
# ```

# %%
def my_collapse(w1, b1, w2, b2):
    """The w and b of one linear layer that does what the two do."""
    return None  # your lines here


print("my_collapse:", check_collapse(my_collapse))

# %% [markdown]
# ```{solution-start} backpropagation-collapse
# :class: dropdown
# ```

# %%
def my_collapse(w1, b1, w2, b2):
    """The w and b of one linear layer that does what the two do."""
    return w1 @ w2, b1 @ w2 + b2


print("my_collapse:", check_collapse(my_collapse))
net, weights = networks["two layers, no ReLU"]
with torch.no_grad():
    two, one = net(pixels, *weights), linear(pixels, *my_collapse(*weights))
print(
    sum(w.numel() for w in weights),
    "weights do what ten do: difference",
    (two - one).abs().max().item(),
)

# %% [markdown]
# Multiplied out: `(x @ w1 + b1) @ w2 + b2` is `x @ (w1 @ w2) + (b1 @ w2 + b2)`. Try the same with the network that has
# a ReLU: there is no such matrix.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Twins
# :label: backpropagation-twins
# Zeros are a bad start because no slope arrives. So take 0.3 for all weights instead. Train the network with ReLU from
# there. What do the 16 columns of `w1` look like at the end, and how many hidden units does the network really have?
# ```
#
# ```{solution-start} backpropagation-twins
# :class: dropdown
# ```

# %%
twins = [torch.full_like(weight, 0.3).requires_grad_() for weight in fresh()]
print(f"loss {learn(network, twins):.3f}")
columns = twins[0].detach()
print("columns of w1 differ by at most", (columns - columns[:, :1]).abs().max().item())

# %% [markdown]
# All columns are the same: one unit, copied 16 times. Units that start equal get equal slopes in every step, and
# nothing ever tells them apart. That's why first weights are random: not to be small, but to be *different*.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: now that every weight has its slope, [Optimisers and batch norm](optimisers_and_batch_norm) asks how long
# its step should be. **Read**: chapter 2 of Michael Nielsen's *Neural Networks and Deep Learning* {cite}`nielsen2015`, which writes
# the lines of `gradients` as four equations for a network of any depth.
