# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ning et al. 2005
#
# Seven years before AlexNet, a small network labelled cells in films of embryos. It answers on a grid four
# times coarser than the picture. How good can such an answer be at best?

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

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from cmrseg import comparisons, data, metrics, plots, results
from cmrseg.experiments import NING
from cmrseg.models import build
from cmrseg.training import PRESETS, fit, predict

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, held_out = data.split(data.source(), "val")

# %% [markdown]
# ## The network
#
# Three convolutions, two *sub-samplings* between them (each the mean of 2x2 pixels, times a learned weight,
# plus a learned bias), tanh {cite}`ning2005`. It is a LeNet without the classifier at its end.

# %%
net = build(replace(PRESETS["replica"], **NING))
x = torch.zeros(1, 1, 96, 96)
for layer in net.layers:
    x = layer(x)
    print(f"{type(layer).__name__:10} -> {tuple(x.shape[1:])}")
print(f"{sum(p.numel() for p in net.parameters()):,} parameters")

# %% [markdown]
# Its answers are 24x24. So it is trained on masks of that size: each 4x4 square gets the label that most of
# its sixteen pixels have, and to be scored, each answer is enlarged to its square again.
#
# ## The ceiling
#
# Suppose it makes no mistake at all. Reduce the true mask to 24x24, enlarge it again, and score it:

# %%
def through(masks, stride, mode):
    """Masks reduced by a stride and enlarged again: by squares, or blended and then decided."""
    parts = F.one_hot(torch.from_numpy(masks).long(), 4).permute(0, 3, 1, 2).float()
    parts = F.avg_pool2d(parts, stride)
    if mode == "nearest":
        parts = F.one_hot(parts.argmax(1), 4).permute(0, 3, 1, 2).float()
    return F.interpolate(parts, scale_factor=stride, mode=mode).argmax(1).numpy().astype(np.uint8)


masks = data.load(data.source(), "labelled").masks
ceiling = {}
for stride in (2, 4, 8):
    for mode in ("nearest", "bilinear"):
        dice = metrics.per_class(metrics.dice(through(masks, stride, mode), masks))
        ceiling[stride, mode] = dice.mean()
        each = "  ".join(f"{name} {d:.3f}" for name, d in zip(results.CLASSES, dice))
        print(f"1/{stride} of the resolution, {mode:8}: {each}  mean {dice.mean():.3f}")

# %% tags=["hide-input"]
image, mask = held_out.images[:1], held_out.masks[:1]
figure, axes = plots.panels(4, size=2.3)
plots.overlay(axes[0], image[0], mask[0], "true mask")
for ax, (stride, mode) in zip(axes[1:], ((4, "nearest"), (4, "bilinear"), (8, "nearest"))):
    found = through(mask, stride, mode)
    title = f"1/{stride}, {mode}\nDice {metrics.mean(metrics.dice(found, mask)):.3f}"
    plots.overlay(ax, image[0], found[0], title)

# %% [markdown]
# *A true mask, and the same after its way through a coarser grid. The second panel is the best that the
# network of Ning et al. can do here: the wall of the heart is a few squares thick.*
#
# No training, however long, passes this ceiling. A metric on the small masks would never show it.
#
# ## What the report said

# %%
said = results.report()["architectures"]["ning"]
print(f"after 1000 epochs a training loss {said['training_loss']}, and a Dice never above "
      f"{said['validation_at_most']}")

# %% [markdown]
# ## What we ran
#
# The report's recipe; the original's widths (it is small enough), the best of the same learning rates that
# every network got, three seeds on five folds. Also five times as many epochs, and so many channels that it
# has the U-Net's number of parameters.

# %%
table = comparisons.against("architectures", "U-Net")
table.filter(regex="U-Net|Ning", axis=0).style.format(precision=3, na_rep="")

# %% tags=["hide-input"]
runs = comparisons.runs("architectures")
figure, (ax, loss) = plt.subplots(1, 2, figsize=(9.5, 3.5))
for name, colour in (("U-Net", plots.GREY), ("Ning", plots.ACCENT), ("Ning, long", "#00A078")):
    group = runs[(runs["setting"] == name) & (runs["seed"] == 0)]
    for number, found in enumerate(group["record"]):
        curve = results.curve(found)
        ax.plot(curve["epoch"], curve["mean"], color=colour, linewidth=1, label="" if number else name)
        loss.semilogy(found["history"]["epoch"], found["history"]["loss"], color=colour, linewidth=1)
ax.axhline(ceiling[4, "nearest"], color=plots.SAID, linewidth=1, linestyle=":")
ax.axhline(said["validation_at_most"], color=plots.SAID, linewidth=1)
ax.annotate("ceiling of 1/4", (1, ceiling[4, "nearest"]), xycoords=("axes fraction", "data"), ha="right",
            va="bottom", color=plots.SAID)
ax.annotate("the report: never above", (1, said["validation_at_most"]), xycoords=("axes fraction", "data"),
            ha="right", va="bottom", color=plots.SAID)
ax.set(xlabel="epoch", ylabel="held-out Dice", ylim=(0, 1))
ax.legend(loc="lower right")
loss.set(xlabel="epoch", ylabel="training loss, log scale");

# %% [markdown]
# *Left: held-out Dice of the five folds, the ceiling of the resolution (dotted) and the report's highest
# value. Right: the training loss of the same runs; that of Ning et al. is counted on 24x24 labels, so the
# two networks' losses are not on one scale.*

# %%
for name in ("Ning", "Ning, long", "Ning, matched"):
    group = runs[runs["setting"] == name]
    print(f"{name:14} training loss {group['loss'].mean():.4f}, Dice of training slices "
          f"{np.mean([results.mean_dice(f['dice_train']) for f in group['record']]):.3f}, "
          f"held out {group['dice'].mean():.3f}")

# %% [markdown]
# ## Verdicts

# %%
comparisons.verdicts("architectures").filter(like="Ning", axis=0)

# %% [markdown]
# ## With a healthy recipe

# %%
comparisons.against("architectures", "U-Net", "modern").style.format(precision=3, na_rep="")

# %% [markdown]
# ## Live

# %%
recipe = replace(PRESETS["modern"], **NING, epochs=2 if SMOKE else 15)
run = fit(recipe, train[:48], held_out, precision="fp32")
print(f"Dice {results.mean_dice(run.history['dice'][-1]):.3f}")

# %% tags=["hide-input"]
figure, axes = plots.panels(3, size=2.3)
for ax, i in zip(axes, (0, 5, 10)):
    plots.overlay(ax, held_out.images[i], predict(run.model, held_out.images[i : i + 1])[0], held_out.names[i])

# %% [markdown]
# *Three held-out slices as the network just trained sees them, in squares of 4x4 pixels.*
#
# ## What to conclude
#
# CONCLUDE
#
# ## Try
#
# ```{exercise} A cheap repair
# :label: ning-blend
# The second column of ceilings blends the small masks before deciding. Could the network use this without
# any new training? What would have to change in `predict`?
# ```
#
# ```{solution} ning-blend
# :class: dropdown
# Yes: enlarge its four *logits* (or probabilities) with bilinear interpolation and take the largest
# afterwards, instead of enlarging the decided labels. In {func}`cmrseg.training.probabilities` that is
# `mode="bilinear"` in one line. The ceiling rises; whether the score does depends on how good its
# probabilities are.
# ```
