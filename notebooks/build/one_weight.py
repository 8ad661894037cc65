# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One weight
#
# Nobody sets the weights of a network by hand; how does a single weight find its own value?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** say what a loss, a gradient and a learning rate are, do steps of gradient descent by
# hand and with PyTorch, and predict what happens when the learning rate is too small or too large.
# **You need** [Pixels and a first Dice](pixels_and_a_first_dice), where you chose a threshold by eye.
# **Time** 25 minutes.
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
import numpy as np
import torch
import torch.nn.functional as F

from cmrseg import datasets, plots

plots.style()
train, val = datasets.split(datasets.source(), "val")
MUSCLE, BLOOD = plots.CLASS_COLOURS["Myo"], plots.CLASS_COLOURS["LV"]

# %% [markdown]
# ## One threshold to learn
#
# Around the bright blood of the left ventricle lies a ring of dark muscle. Suppose we already know which pixels lie inside
# the outer edge of the ring. Then one grey level should be enough to tell the two tissues apart: brighter is blood,
# darker is muscle. We call this grey level the *threshold* $t$. It is
# the only number that our model has to learn. In a network such numbers are called **weights**; the nine numbers of a
# kernel are weights, too. We could choose it by eye; here it will be learned.

# %%
image, mask = train.images[0], train.masks[0]
inside = mask >= 2  # muscle (2) and the blood of the left ventricle (3)
x = torch.tensor(image[inside] / 255)  # grey levels from 0 to 1
y = torch.tensor(mask[inside] == 3).double()  # 1 for blood, 0 for muscle
print(f"{len(x)} pixels, {y.mean():.0%} of them blood")
print(f"mean grey level: blood {x[y == 1].mean():.2f}, muscle {x[y == 0].mean():.2f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3), width_ratios=(1, 2.2))
plots.contours(plots.show(left, image), np.where(inside, mask, 0))
bins = np.linspace(0, 1, 52)
right.hist(x[y == 0], bins, color=MUSCLE, alpha=0.7, label="muscle")
right.hist(x[y == 1], bins, color=BLOOD, alpha=0.7, label="blood")
right.axvline(0.1, color=plots.GREY, linestyle="--", label="t = 0.1")
right.set(xlabel="grey level", ylabel="pixels")
right.legend();

# %% [markdown]
# *Left: a slice, with the muscle between the gold and the magenta line and the blood inside the magenta one. Right:
# how often each grey level occurs in the two tissues. A threshold of 0.1 is far too low: it calls most of the muscle
# blood. (The tall bar at 1 holds all that is as bright as can be.)*
#
# You see at once that $t$ has to move to the right. A computer doesn't see it. It needs one number that says how bad
# $t = 0.1$ is, and a way to find out whether a larger $t$ would be better.
#
# ## How bad? A loss
#
# The obvious number is the share of pixels on the wrong side of $t$. **Predict, then run**: does it change when $t$
# moves from 0.1 to 0.1002?

# %%
def wrong_side(t):
    """The share of pixels that a hard threshold gets wrong."""
    return ((x > t) != (y == 1)).double().mean().item()


print(wrong_side(0.1), wrong_side(0.1002))

# %% [markdown]
# It doesn't change at all. No pixel has a grey level between the two, so none changes sides, and the count can't
# tell which way is better. That's the trouble with every count: it stays flat, then jumps.
#
# So we don't ask for a side. We ask for a **probability** of being blood, which changes a little whenever
# $t$ does. The **sigmoid** function $\sigma(s) = 1 / (1 + e^{-s})$ turns any
# number into one between 0 and 1, which we take as the probability. In the next cell, $s = (x - t) / 0.05$: the
# further a pixel lies above the threshold, the surer the answer. The 0.05 sets how quickly it changes from muscle to
# blood; it stays fixed for now.

# %%
def probability(x, t):
    """The probability of blood: 0.5 at the threshold, near 0 or 1 well away from it."""
    return torch.sigmoid((x - t) / 0.05)


three = torch.tensor([0.1, 0.2, 0.3]).double()  # grey levels of three pixels
print(probability(three, 0.2).numpy().round(2))

# %% [markdown]
# Let's follow these three pixels by hand. The threshold is 0.2, so the darkest pixel is probably muscle, the
# brightest probably blood, and the one in the middle could be either. Let the truth be muscle, muscle, blood. What
# should each answer cost? The usual choice is *minus the logarithm of the probability that the true class got*. (The third exercise shows what
# goes wrong with the more obvious squared error.) A
# probability of 1 costs nothing, 0.5 costs $\ln 2$, and a probability near 0 costs a lot. Averaged over the pixels
# this is the **cross-entropy**:
#
# $$L(t) = -\frac{1}{N} \sum_{i=1}^{N} \big[\, y_i \ln p_i + (1 - y_i) \ln(1 - p_i) \,\big]$$
#
# For each pixel only one of the two terms counts: the left one for blood ($y = 1$), the right one for muscle
# ($y = 0$).

# %%
def cross_entropy(p, y):
    return -(y * p.log() + (1 - y) * (1 - p).log()).mean()


truth = torch.tensor([0, 0, 1]).double()  # muscle, muscle, blood
p = probability(three, 0.2)
ours, theirs = cross_entropy(p, truth), F.binary_cross_entropy(p, truth)
true_class = p.where(truth == 1, 1 - p)  # p where the truth is 1, else 1 - p
print("probability of the true class:", true_class.numpy().round(2))
print(f"loss {ours:.4f}, PyTorch's {theirs:.4f}")
assert torch.allclose(ours, theirs)

# %% [markdown]
# A number that is small when the answers are good and that changes smoothly with the weights is called a **loss**.
# Here is ours for all pixels of the ring and its cavity, as a function of the one weight $t$.

# %%
def loss(t):
    return cross_entropy(probability(x, t), y)


for t in (0.1, 0.1002, 0.15, 0.2):
    print(f"t {t:.4f}   loss {loss(t):.4f}")

# %% [markdown]
# Unlike the count, the loss notices even the step from 0.1 to 0.1002.
#
# **Predict, then run**: sketch the loss for all $t$ from 0 to 1. Where is it lowest? What does it look like far from
# there?

# %%
figure, ax = plt.subplots(figsize=(7.5, 3))
ts = np.linspace(0, 1, 101)
ax.plot(ts, [loss(t) for t in ts], color=plots.GREY)
ax.plot(0.1, loss(0.1), "o", color=plots.ACCENT, markersize=13)
ax.set(xlabel="threshold t", ylabel="loss");

# %% [markdown]
# *The loss over all thresholds is a valley. Its lowest point lies between the two humps of the histogram; beyond the drawing, on both
# sides, it rises like a straight line, because there every further step makes all pixels of one tissue worse by
# the same amount. The ball is our threshold, and learning means letting it roll down.*
#
# ## Which way? The slope
#
# We drew the whole curve because there is only one weight. With two weights it would be a landscape, and with the
# weights of a U-Net it can't be drawn at all. But to walk downhill you don't need a map. It's enough to know how steep
# the ground is where you stand. So nudge $t$ a little to both sides and compare:

# %%
t, nudge = 0.1, 0.0001
slope = (loss(t + nudge) - loss(t - nudge)) / (2 * nudge)
print(f"slope at 0.1: {slope:.4f}")

# %% [markdown]
# The slope is negative, so a larger $t$ means a smaller loss: go right. Nudging works, but a network would have to
# run twice for each of its weights. Calculus gives the same number in one go.
#
# The loss of a pixel is a chain of three small functions. First $s = (x - t) / 0.05$, then $p = \sigma(s)$, then
# minus the logarithm. The **chain rule** says: the slope of a chain is the product of the slopes of its links.
#
# | link | its slope |
# |---|---|
# | from $t$ to $s = (x - t)/0.05$ | $\dfrac{ds}{dt} = -\dfrac{1}{0.05}$ |
# | from $s$ to $p = \sigma(s)$ | $\dfrac{dp}{ds} = p\,(1 - p)$ |
# | from $p$ to $L = -\ln p$ or $-\ln(1 - p)$ | $\dfrac{dL}{dp} = \dfrac{p - y}{p\,(1 - p)}$ |
#
# Check the last line: for blood ($y = 1$) it is $-1/p$, the derivative of $-\ln p$; for muscle ($y = 0$) it is
# $1/(1 - p)$. The middle line is the derivative of $1/(1 + e^{-s})$, written with $p$. Multiply the last two: $p\,(1 - p)$ cancels, and the slope in $s$ is simply $p - y$, prediction minus truth. With the
# first link, averaged over all pixels:
#
# $$\frac{dL}{dt} = \frac{1}{0.05} \cdot \frac{1}{N} \sum_{i=1}^{N} (y_i - p_i)$$
#
# In words: *truth minus prediction, averaged*, times 20. In our example of three pixels that's 0 minus 0.12, 0 minus 0.5 and
# 1 minus 0.88. They add up to $-0.5$, so the slope is $-0.5/3 \cdot 20 = -3.3$: the loss falls when $t$ grows. The middle pixel,
# muscle that might be blood, accounts for nearly all of it. Pixels
# that are right and sure hardly pull at all.

# %%
def slope_at(t):
    """The slope of the loss at t, by the chain rule."""
    return ((y - probability(x, t)).mean() / 0.05).item()


print(f"by the chain rule: {slope_at(0.1):.4f}   by nudging: {slope:.4f}")
assert abs(slope_at(0.1) - slope) < 1e-4

# %% [markdown]
# ## A step downhill
#
# Now move $t$ against its slope. How far? The slope times a small number, the **learning rate** $\eta$ (eta):
#
# $$t \leftarrow t - \eta \, \frac{dL}{dt}$$

# %%
t = 0.1
for step in range(6):
    print(f"step {step}   t {t:.4f}   loss {loss(t):.4f}   slope {slope_at(t):+.3f}")
    t = t - 0.02 * slope_at(t)  # learning rate 0.02

# %% [markdown]
# The slopes of a loss for all weights together are called its **gradient**; here it has a single entry. So this is
# **gradient descent**, and every network in this book learns like this: a loss, its gradient, a step, again.
# Look at how $t$ moves. The learning rate stays the same, yet the steps shrink by themselves, because the slope
# shrinks as the ground gets flatter. So what has it learned?

# %%
for _ in range(40):
    t = t - 0.02 * slope_at(t)
learned = t
figure, axes = plots.panels(3, size=3.1)
plots.overlay(axes[0], image, np.where(inside, mask, 0), "truth")
for ax, at in zip(axes[1:], (0.1, learned)):
    called = np.where(image / 255 > at, 3, 2)
    title = f"t = {at:.3f}: {wrong_side(at):.0%} wrong"
    plots.overlay(ax, image, np.where(inside, called, 0), title)

# %% [markdown]
# *The truth, the threshold we started with, and the one that gradient descent found. Gold is muscle, magenta is
# blood. Dark spots inside the blood stay wrong: a threshold that got them right would lose the muscle.*
#
# One question before we go on. We wanted few wrong pixels, and we made the loss small. Is that the same?

# %%
counts = [wrong_side(t) for t in ts]
fewest = ts[np.argmin(counts)]
print(f"learned   t = {learned:.3f}: {wrong_side(learned):.2%} of the pixels wrong")
print(f"fewest    t = {fewest:.3f}: {min(counts):.2%} of the pixels wrong")

# %% [markdown]
# Nearly, but not quite. A loss is a stand-in for what we want, chosen because it has a useful slope.
# [The loss](the_loss) returns to the difference.
#
# ## Too small, too large
#
# **Predict, then run**: the learning rate was 0.02. Where will $t$ be after twelve steps with a rate ten times
# smaller? And with one ten times larger: will it arrive sooner?

# %%
def walk(rate, steps=12, t=0.1):
    """Every t on the way, from the first to the last."""
    path = [t]
    for _ in range(steps):
        path.append(path[-1] - rate * slope_at(path[-1]))
    return path


walks = {rate: walk(rate) for rate in (0.002, 0.02, 0.2)}
for rate, path in walks.items():
    print(f"rate {rate:<5}  t:", *(f"{t:.2f}" for t in path))

# %% [markdown]
# To draw these walks we need the loss far outside the interval from 0 to 1. There our formula breaks:

# %%
print("loss at t = -2:", loss(-2.0).item())

# %% [markdown]
# `nan` means *not a number*. At $t = -2$ every $p$ is so close to 1 that the computer rounds it to exactly 1. Then
# $\ln(1 - p)$ is minus infinity. For blood it's multiplied by $1 - y = 0$, and zero times infinity has no value. The cure is never to compute $p$: put $s$, the number *before* the sigmoid, into a version of the loss that was rearranged on paper. For muscle,
# $-\ln(1 - \sigma(s)) = \ln(1 + e^s)$, which for a large $s$ is simply $s$: no 1 to round to, no logarithm of zero. A number that goes into a sigmoid
# (or, with several classes, into its relative, *softmax*) is called a **logit**. This is why networks return
# logits, and why the losses that we use from here on take logits.

# %%
def safe_loss(t):
    return F.binary_cross_entropy_with_logits((x - t) / 0.05, y)


assert torch.allclose(safe_loss(0.1), loss(0.1))
print("loss at t = -2:", safe_loss(-2.0).item())

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.4))
arrow = {"arrowstyle": "->", "connectionstyle": "arc3,rad=-0.3", "color": plots.GREY}
for ax, (rate, path) in zip(axes, walks.items()):
    ts = np.linspace(min(0, *path) - 0.05, max(0.6, *path) + 0.05, 200)
    ax.plot(ts, [safe_loss(t) for t in ts], color=plots.GREY, linewidth=1.4)
    balls = [(t, safe_loss(t).item()) for t in path]
    for a, b in zip(balls[:6], balls[1:]):
        ax.annotate("", b, a, arrowprops=arrow | {"shrinkA": 6, "shrinkB": 6})
    ax.scatter(*zip(*balls), 90, range(13), cmap=plots.HEAT, ec=plots.ACCENT, zorder=3)
    ax.set(title=f"learning rate {rate}", xlabel="threshold t", ylabel="loss")

# %% [markdown]
# *Thirteen positions of the ball in each panel, from pale (the start) to dark. Left: it creeps, and after twelve steps
# it is still on the slope. Middle: a few steps, and it rests at the bottom. Right, on a wider stretch of the same
# curve: it leaps over the valley from one side to the other, and after every third step it is back near where it started.*
#
# Nothing is wrong with the loss, the slope or the code on the right; only the step is too long. How long is too long?
# Near the bottom the valley looks like a parabola, and its slope grows in proportion to the distance from the bottom:
# slope $\approx c\,\cdot$ distance, with some steepness $c$. A step takes $\eta c \cdot$ distance away, so it multiplies the
# distance by $1 - \eta c$.
# The ball comes closer if this factor lies between $-1$ and $1$, that is, if $\eta < 2/c$. And $c$ is the slope of the slope, which we measure by
# nudging, as before.

# %%
c = (slope_at(learned + 0.001) - slope_at(learned - 0.001)) / 0.002
print(f"c = {c:.1f}, so the learning rate must stay below {2 / c:.3f}")

# %% [markdown]
# For a network nobody works this out: each of its weights has its own steepness, and that changes while it learns. There
# the learning rate is found by trying, and [Learning rate](../experiments/learning_rate) tries many with a whole
# U-Net.
#
# ## PyTorch finds the slope
#
# We did the calculus on paper. PyTorch does it for us: `requires_grad=True` says that we'll want the slope with respect to this tensor, here our weight; everything
# that's computed from it is recorded, and `backward()` works out the slope of the result. This machinery is called
# **autograd**.
#
# **Predict, then run**: what are `t` and `t.grad` after one call of `backward()`? And after a second one?

# %%
t = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
safe_loss(t).backward()
print(f"after one call:  t {t:.1f}   t.grad {t.grad:.4f}")
assert np.isclose(t.grad.item(), slope_at(0.1))
safe_loss(t).backward()
print(f"after two calls: t {t:.1f}   t.grad {t.grad:.4f}")
assert np.isclose(t.grad.item(), 2 * slope_at(0.1))

# %% [markdown]
# Two common beliefs are wrong:
#
# - *"`backward()` updates the weights."* It doesn't: `t` is still 0.1 after both calls. `backward()` computes slopes
#   and puts them into `.grad`. The step needs a line of its own.
# - *"A second `backward()` overwrites the gradient."* It doesn't: the printed gradient has doubled. Every call **adds**
#   to `.grad`, until you set it to zero. [Backpropagation](../build/backpropagation) shows why adding is the right rule.
#
# So a training loop needs three lines, and you'll find them in every PyTorch program. An *optimiser* holds the weights
# and does the step; `SGD` is the plain one, weight minus learning rate times gradient. (The S stands for *stochastic*;
# [Batches and the loop](batches_and_the_loop) explains it.)

# %%
t = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.SGD([t], lr=0.02)
path = [t.item()]
for step in range(12):
    optimiser.zero_grad()  # forget the old slope
    safe_loss(t).backward()  # find the new one
    optimiser.step()  # t = t - 0.02 * t.grad
    path.append(t.item())
assert np.allclose(path, walks[0.02])
print("as in our own walk:", *(f"{t:.2f}" for t in path))

# %% [markdown]
# The same twelve steps, to the last digits. And what if somebody forgets a line? **Predict, then run**: the next cell
# leaves out `zero_grad`.

# %%
t = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.SGD([t], lr=0.02)
path = [t.item()]
for step in range(12):
    safe_loss(t).backward()
    optimiser.step()
    path.append(t.item())
print("t:", *(f"{t:.2f}" for t in path))

# %% [markdown]
# There is no error message. But each step now adds up all slopes since the start, so the ball shoots past the bottom,
# and swings back and forth instead of coming to rest. If a loss of yours ever rises and falls in waves, look for
# `zero_grad` first.
#
# ## Recap
#
# - A loss turns "how wrong" into one smooth number. Its slope says which way to move a weight, and how strongly.
# - A step of gradient descent is weight minus learning rate times slope. With too small a rate $t$
#   creeps, with too large a one it leaps over the valley.
# - `backward()` changes no weight. It adds slopes to `.grad`; the optimiser takes the step, and `zero_grad` clears up.
#
# ## Exercises

# %% [markdown]
# ```{exercise} The loop, from memory
# :label: one-weight-loop
# Write gradient descent for any loss, with autograd: start at the number `t`, take the given number of steps, return
# the last `t`. The check tries it on $(t - 3)^2$ and says which line is missing or wrong. Then it tries
# another loss.
# ```

# %% tags=["hide-input"]
def flat(answer):
    """All numbers of an answer, in one list."""
    parts = answer if isinstance(answer, (tuple, list)) else [answer]
    parts = [torch.as_tensor(v, dtype=torch.float64).flatten() for v in parts]
    return torch.cat(parts).detach().tolist()


def ask(mine, *question):
    """The numbers that a function answers, and what keeps it from answering."""
    try:
        answer = mine(*question)
        return ([], "it returns nothing yet") if answer is None else (flat(answer), "")
    except Exception as error:
        hint = "NoneType" in str(error) or "leaf" in str(error)
        return [], f"it stops with {type(error).__name__}: {error}" + HINT * hint


HINT = " (t - rate * t.grad is a result, not a weight: change t itself)"
LOOP_SLIPS = {  # of (t - 3) ** 2 from 1, rate 0.1, three steps; right is 1.976
    1.0: "t hasn't moved: backward() only computes gradients; take a step after it",
    3.016: "gradients add up: set them to zero before each backward()",
    -0.456: "it walks uphill: subtract the gradient",
    1.72: "that is one step too few",
    2.1808: "that is one step too many",
    1.4: "that is one step only: the loop has to go on",
    5.0: "the rate is missing: multiply the gradient by it",
    1.048576: "that is the loss: return the last t",
    1.6384: "that is the loss before the last step: return the last t",
    -2.56: "that is the last gradient: return the last t",
}


def check_descent(mine):
    """What is wrong with a function that should walk downhill."""
    for start, rate, steps, end in ((1.0, 0.1, 3, 1.976), (5.0, 0.25, 5, 3.0625)):
        answer, problem = ask(mine, lambda t: (t - 3) ** 2, start, rate, steps)
        if problem or len(answer) != 1:
            return problem or "return one number, the last t"
        if not np.isclose(answer[0], end, atol=1e-4):
            why = [text for v, text in LOOP_SLIPS.items() if abs(answer[0] - v) < 1e-4]
            return (
                why or [f"{steps} steps from {start} end at {end}, not {answer[0]}"]
            )[0]
    answer, problem = ask(mine, lambda t: t**4 / 4, 1.0, 0.5, 2)
    if problem or not np.allclose(answer, 0.4375, atol=1e-4):
        return problem or "right for (t - 3) ** 2 only: leave the slope to autograd"
    return "right"


def which(name, value, right, slips):
    """What is wrong with one slope; nothing where it is right."""
    if np.isclose(value, right, rtol=1e-3):
        return ""
    why = [text for text, slip in slips.items() if np.isclose(value, float(slip), 1e-3)]
    return f"{name}: {why[0] if why else f'{value:.4f}, autograd says {right:.4f}'}"


X, Y = torch.tensor([[0.1, 0.7, 0.8], [0, 0, 1]]).double()
T, K = (torch.tensor(v).double().requires_grad_() for v in (0.3, 4.0))
F.binary_cross_entropy_with_logits(K * (X - T), Y).backward()
S = (K * (X - T)).detach()
E, D, C = S.sigmoid() - Y, S / 4, S.sigmoid() * (1 - S.sigmoid())  # D is x - t
T_SLIPS = {
    "wrong sign, for s shrinks when t grows": 4 * E.mean(),
    "the factor k is missing: s = k (x - t) changes by -k": -E.mean(),
    "wrong sign, and the factor k is missing": E.mean(),
    "take the mean over the pixels, not the sum": -4 * E.sum(),
    "the steepness is k now, not 1 / 0.05": -20 * E.mean(),
    "p (1 - p) cancels against the logarithm's slope": -4 * (E * C).mean(),
}
K_SLIPS = {
    "wrong sign": -(E * D).mean(),
    "the factor is x - t, not x": (E * X).mean(),
    "the factor x - t is missing": E.mean(),
    "take the mean over the pixels, not the sum": (E * D).sum(),
    "multiply pixel by pixel, then take the mean": E.mean() * D.mean(),
    "the slope of k (x - t) in k has no factor k": 4 * (E * D).mean(),
    "p (1 - p) cancels against the logarithm's slope": (E * D * C).mean(),
}


def check_slopes(mine):
    """Which of the two slopes is wrong, and why."""
    values, problem = ask(mine, X.clone(), Y.clone(), 0.3, 4.0)
    if problem or len(values) != 2:
        return problem or "return two numbers: the slope of t, then the slope of k"
    if np.allclose(values, [K.grad, T.grad]):
        return "the two have changed places: the slope of t comes first"
    wrong = which("slope of t", values[0], T.grad.item(), T_SLIPS)
    more = which("slope of k", values[1], K.grad.item(), K_SLIPS)
    return "; ".join(filter(None, (wrong, more))) or "right"

# %%
def my_descent(loss, t, rate, steps):
    """The last t of so many steps of gradient descent from t (a float)."""
    return None  # your lines here


print("my_descent:", check_descent(my_descent))

# %% [markdown]
# ```{solution-start} one-weight-loop
# :class: dropdown
# ```

# %%
def my_descent(loss, t, rate, steps):
    """The last t of so many steps of gradient descent from t (a float)."""
    t = torch.tensor(t, requires_grad=True)
    optimiser = torch.optim.SGD([t], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(t).backward()
        optimiser.step()
    return t.item()


print("my_descent:", check_descent(my_descent))

# %% [markdown]
# Leave out one of the three lines in the loop and look at what the check says. It recognises each by the number that
# comes out.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A second weight
# :label: one-weight-two
# We chose 0.05 by hand. Let the model learn its steepness too: $p = \sigma(k\,(x - t))$, with two weights $t$ and $k$
# ($k = 20$ is our 0.05). Derive the slopes of the cross-entropy with respect to $t$ and to $k$ on paper, and return
# both, that of $t$ first. `x` (grey levels) and `y` (1 for blood, 0 for muscle) are tensors of equal length, `t` and
# `k` numbers. The check compares with autograd and says which of the two is wrong. Then let both learn from $t = 0.1$
# and $k = 20$, with a learning rate of 0.02.
# ```

# %%
def my_slopes(x, y, t, k):
    """Slopes of the cross-entropy of sigmoid(k (x - t)): of t, of k."""
    return None  # your lines here


print("my_slopes:", check_slopes(my_slopes))

# %% [markdown]
# ```{solution-start} one-weight-two
# :class: dropdown
# ```

# %%
def my_slopes(x, y, t, k):
    """Slopes of the cross-entropy of sigmoid(k (x - t)): of t, of k."""
    error = torch.sigmoid(k * (x - t)) - y
    return -k * error.mean(), (error * (x - t)).mean()


print("my_slopes:", check_slopes(my_slopes))
t, k = 0.1, 20.0
for step in range(201):
    slope_t, slope_k = my_slopes(x, y, t, k)
    if step % 50 == 0:
        print(
            f"{step:3}   t {t:.3f}   k {k:.3f}   slopes {slope_t:+.4f} {slope_k:+.4f}"
        )
    t, k = t - 0.02 * slope_t, k - 0.02 * slope_k

# %% [markdown]
# The chain is the same; only its first link changed. From $t$ to $s = k(x - t)$ the slope is $-k$, from $k$ it is
# $x - t$. After 50 steps the threshold has arrived, and the steepness has hardly moved; it creeps upwards still. One
# learning rate doesn't suit both weights. [Optimisers and batch norm](optimisers_and_batch_norm) has an answer, a rate that adapts to each
# weight.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Why not the squared error?
# :label: one-weight-squared
# The squared error, the mean of $(p - y)^2$, is zero for a perfect answer as well. Start it at $t = 1.5$, far too
# high, and compare its slope with that of the cross-entropy. Which of the two finds its way back, and why?
# ```
#
# ```{solution-start} one-weight-squared
# :class: dropdown
# ```

# %%
def squared_error(t):
    return ((probability(x, t) - y) ** 2).mean()


for start in (0.5, 1.0, 1.5):
    slopes = []
    for function in (safe_loss, squared_error):
        t = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        function(t).backward()
        slopes.append(t.grad.item())
    print("t {}: cross-entropy {:.3f}, squared error {:.2g}".format(start, *slopes))

# %% [markdown]
# Far from the threshold the sigmoid is flat, and the squared error's slope contains the sigmoid's slope $p\,(1 - p)$.
# It nearly vanishes exactly where the answer is most wrong, so a step goes nowhere. In the cross-entropy the
# logarithm's slope cancels this factor, and a pixel that is badly wrong pulls with full strength.
#
# ```{solution-end}
# ```

# %% [markdown]
# **Next**: in [Backpropagation](../build/backpropagation) a second layer comes after the first, and the chain rule carries the
# slope through both. **Read**: the first chapter of Michael Nielsen's *Neural Networks and Deep Learning* {cite}`nielsen2015`,
# which explains gradient descent in the same way for a network that reads handwritten digits.
