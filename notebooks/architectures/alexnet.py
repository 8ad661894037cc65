# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # AlexNet-style
#
# AlexNet won ImageNet in 2012 by saying *what* is in a picture. Can it also say *where*? The report tried,
# and got the same mask for every patient.

# %% tags=["remove-cell"]
# In Colab this fetches the book and its package; anywhere else it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("cmrseg") is None:
    address = "https://github.com/cmr-segmentation-book/cmr-segmentation-book"
    subprocess.run(["git", "clone", "--depth", "1", address, "book"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-e", "book"], check=True)
    sys.path.insert(0, "book")

# %% tags=["hide-input"]
import os
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from cmrseg import comparisons, data, metrics, plots, results
from cmrseg.experiments import ALEXNET, SGD
from cmrseg.models import build
from cmrseg.training import PRESETS, fit, predict

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, held_out = data.split(data.source(), "val")

# %% [markdown]
# ## A front end made to classify
#
# The first convolution of AlexNet {cite}`krizhevsky2017` looks through windows of 11x11 pixels and moves by
# four at a time; two poolings follow. After that, 96x96 pixels are 6x6 numbers. For "is it a dog?" this is
# a blessing. A segmenter must answer 9216 times, and gets 36 looks. The last layer, a transposed
# convolution, can only blend between them {cite}`long2015`.

# %%
net = build(replace(PRESETS["replica"], **ALEXNET))
x = torch.zeros(1, 1, 96, 96)
for layer in net.features:
    x = layer(x)
    if not isinstance(layer, torch.nn.ReLU):
        print(f"{type(layer).__name__:10} -> {tuple(x.shape[1:])}")

# %% tags=["hide-input"]
masks = held_out.masks
one_hot = F.one_hot(torch.from_numpy(masks).long(), 4).permute(0, 3, 1, 2).float()
ceilings, pictures = {}, {}
for grid in (96, 48, 24, 12, 6):
    looks = F.adaptive_avg_pool2d(one_hot, grid)
    pictures[grid] = F.interpolate(looks, 96, mode="bilinear").argmax(1).numpy().astype(np.uint8)
    ceilings[grid] = metrics.mean(metrics.dice(pictures[grid], masks))
figure, axes = plots.panels(5, size=1.9)
for ax, (grid, picture) in zip(axes, pictures.items()):
    title = f"{grid}x{grid} looks\nDice {ceilings[grid]:.2f}"
    plots.overlay(ax, held_out.images[0], picture[0], title)

# %% [markdown]
# *The true mask, known only on a grid and blended between its points, from the finest to AlexNet's 6x6. A
# class needs to fill much of a look to be seen at all; Dice is the mean over the validation slices. A
# learned layer can blend more cleverly than this, but it starts from no more looks.*
#
# ## What the report said

# %%
said = results.report()["architectures"]["alexnet"]
print(f"validation {said['validation']} after {said['epochs']} epochs; {said['optimiser']}")

# %% [markdown]
# It overfitted; more epochs and more dropout did not help {cite}`report2020`.
#
# ## What we ran
#
# The report's recipe, AlexNet at a quarter of its width, once at its full width, and once with as many
# parameters as the U-Net; Adam and SGD, each with the best of its own learning rates.

# %%
table = comparisons.against("architectures", "AlexNet")
table.filter(like="AlexNet", axis=0).style.format(precision=3, na_rep="")

# %% [markdown]
# ## The static mask
#
# A network that gives every slice the same mask has learned one thing: where hearts lie on average. How
# many different masks did each network give for the 24 held-out slices of a fold?

# %%
tuning, runs = comparisons.runs("architectures-tuning"), comparisons.runs("architectures")
for name, group in [*tuning[tuning["setting"].str.startswith("AlexNet")].groupby("setting"),
                    *runs[runs["setting"].isin(["AlexNet", "AlexNet, SGD"])].groupby("setting")]:
    distinct = [found["distinct_masks"] for found in group["record"]]
    print(f"{name:20} Dice {group['dice'].mean():.3f}, different masks: {distinct}")

# %% tags=["hide-input"]
every = np.stack([(data.load(data.source(), "train").masks == c).mean(0) for c in range(4)])
static = every.argmax(0).astype(np.uint8)
figure, axes = plots.panels(5, size=1.9)
for ax, c, name in zip(axes, (1, 2, 3), results.CLASSES):
    ax.imshow(every[c], cmap="magma", vmin=0, vmax=1)
    ax.set_title(f"how often {name}")
best = metrics.dice(np.broadcast_to(static, masks.shape), masks)
plots.overlay(axes[3], held_out.images[0], static, f"the best single mask\nDice {metrics.mean(best):.2f}")
plots.overlay(axes[4], held_out.images[5], static, "the same\non another slice")

# %% [markdown]
# *How often each class is at each pixel of the training masks, and the mask of the most frequent class: the
# best answer of a network that does not look. It is what SGD finds first, because it needs nothing but the
# biases of the last layer.*
#
# Why does Adam leave it and SGD stay? The gradient that reaches the first layers is tiny here, since the
# loss is an average over all pixels and classes. SGD's step is the gradient times the rate; Adam divides by
# the gradient's own size, so tiny gradients still move the weights {cite}`kingma2015`. If so, SGD with a
# much larger rate should leave it as well, and the lines above say whether it does.
#
# ## Verdicts

# %%
comparisons.verdicts("architectures").filter(like="AlexNet", axis=0)

# %% [markdown]
# ## Live: how long does it stay static?

# %%
recipe = replace(PRESETS["replica"], **ALEXNET, epochs=1 if SMOKE else 6)
for name, changes in (("Adam, 0.001", {}), ("SGD, 0.001", SGD)):
    run = fit(replace(recipe, **changes), train[:48], None, precision="fp32")
    found = predict(run.model, held_out.images, recipe.scale)
    print(f"{name:12} loss {run.history['loss'][-1]:.3f}, "
          f"{len(np.unique(found, axis=0))} different masks for {len(found)} slices")

# %% [markdown]
# ## What to conclude
#
# CONCLUDE
#
# ## Try
#
# ```{exercise} A smaller stride
# :label: alexnet-stride
# Change the first convolution's stride from 4 to 2 (and `enlarge` to match). How many looks does the
# network have then, and what is the ceiling from the figure above? What does it cost?
# ```
#
# ```{solution} alexnet-stride
# :class: dropdown
# 12x12 looks, so the ceiling of the fourth picture instead of the fifth. Every later convolution works on
# four times as many positions, so it costs about four times as much.
# ```
