# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # SegNet
#
# A U-Net hands whole feature maps across. SegNet hands across only *where* each maximum was. Is that enough
# to draw a sharp boundary, and how much of its gap to the U-Net is a matter of tuning?

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
import torch
from torch import nn

from cmrseg import comparisons, data, plots, results
from cmrseg.augment import normalise
from cmrseg.experiments import NETS, SEGNET
from cmrseg.models import build
from cmrseg.training import PRESETS, fit

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, held_out = data.split(data.source(), "val")

# %% [markdown]
# ## Unpooling that remembers
#
# Pooling keeps the largest of each 2x2 pixels and forgets which one it was. SegNet
# {cite}`badrinarayanan2017` keeps the index. On the way up the value is put back where it came from, with
# zeros around it, and convolutions fill the gaps.

# %% tags=["hide-input"]
x = normalise(train.images[:1])[:, :, 20:68, 20:68]
pool, unpool = nn.MaxPool2d(4, return_indices=True), nn.MaxUnpool2d(4)
small, won = pool(x)
figure, axes = plots.panels(4, size=2.2)
shown = {"a slice": x, "pooled 4x4": small, "enlarged, places forgotten": small.repeat_interleave(
    4, -1).repeat_interleave(4, -2), "unpooled, places remembered": unpool(small, won)}
for ax, (title, values) in zip(axes, shown.items()):
    plots.show(ax, values[0, 0].numpy(), title)

# %% [markdown]
# *From left: a heart; the largest value of every 4x4 pixels; these values enlarged again; and put back to
# where they were found. The last is mostly zeros, but what it has is in its right place.*
#
# An index is cheap: a small whole number, where a skip carries a full map. But it says *where* something
# was the strongest, not *what* was there; and it only speaks of the winners.

# %%
net = build(replace(PRESETS["replica"], **SEGNET))
unet = build(PRESETS["replica"])
for name, model in (("SegNet", net), ("U-Net", unet)):
    print(f"{name:7} {sum(p.numel() for p in model.parameters()) / 1e6:.2f} million parameters")
with torch.no_grad():
    print("logits", tuple(net(torch.zeros(1, 1, 96, 96)).shape))

# %% [markdown]
# ## What the report said

# %%
said = results.report()["architectures"]["segnet"]
print(f"after {said['epochs']} epochs with {said['optimiser']}: training {said['train']}, "
      f"validation {said['validation']}, hidden {said['kaggle']}")

# %% [markdown]
# It concluded that SegNet is a little worse than the U-Net, and hardly overfitted {cite}`report2020`.
#
# ## What we ran
#
# A rival set up badly proves nothing. So each network first got the same learning rates, tried within the
# training part of fold 0, where none of the patients it is later judged on in that fold takes part; the
# best was then used on all five folds, with three seeds. Width: a quarter of the original's, as the replica
# is a quarter of the report's U-Net, and once more with as many parameters as the U-Net.

# %%
tuning = comparisons.runs("architectures-tuning")
tuning[["net", "rate"]] = tuning["setting"].str.rsplit(", ", n=1, expand=True)
tuning.pivot(index="net", columns="rate", values="dice").loc[list(NETS)].round(3)

# %% [markdown]
# ## The gap against tuning

# %%
table = comparisons.against("architectures", "U-Net")
table.filter(regex="U-Net|SegNet", axis=0).style.format(precision=3, na_rep="")

# %% tags=["hide-input"]
baseline = comparisons.runs("baseline")
runs = comparisons.runs("architectures")
sides = {name: runs[runs["setting"] == name] for name in ("U-Net", "SegNet", "SegNet, long", "SegNet, matched")}
variance = comparisons.run_variance("replica")
gaps = {
    "tuned U-Net - SegNet": (sides["U-Net"], sides["SegNet"]),
    "the report's rate for the U-Net": (baseline, sides["SegNet"]),
    "SegNet, twice the epochs": (sides["U-Net"], sides["SegNet, long"]),
    "SegNet, matched size": (sides["U-Net"], sides["SegNet, matched"]),
}
rows = {}
for name, (a, b) in gaps.items():
    found = comparisons.compare(a, b, variance).difference
    rows[name] = (found.mean, *found.interval())
    print(f"{name:32} {found.mean:+.3f} ({rows[name][1]:+.3f} to {rows[name][2]:+.3f})")
modern = comparisons.runs("architectures", "modern")
a, b = (modern[modern["setting"] == name] for name in ("U-Net", "SegNet"))
found = comparisons.compare(a, b, comparisons.run_variance("modern")).difference
rows["both with the modern recipe"] = (found.mean, *found.interval())
print(f"{'both with the modern recipe':32} {found.mean:+.3f} "
      f"({found.interval()[0]:+.3f} to {found.interval()[1]:+.3f})")
figure, ax = plt.subplots(figsize=(7.5, 2.6))
plots.differences(ax, rows)
ax.set_xlabel("Dice, U-Net minus SegNet, 95 % interval");

# %% [markdown]
# *The gap between the two networks, five ways. What moves a row against the first one is not the
# architecture.*
#
# ## Verdicts

# %%
comparisons.verdicts("architectures").filter(like="SegNet", axis=0)

# %% [markdown]
# ## Live: both, small

# %%
few = replace(PRESETS["modern"], epochs=2 if SMOKE else 10)
for name, changes in (("U-Net", {"channels": (4, 8, 16)}), ("SegNet", SEGNET | {"channels": (4, 8, 16)})):
    run = fit(replace(few, **changes), train[:48], held_out, precision="fp32")
    print(f"{name:7} Dice {results.mean_dice(run.history['dice'][-1]):.3f}")

# %% [markdown]
# ## What to conclude
#
# CONCLUDE
#
# ## Try
#
# ```{exercise} What an index cannot say
# :label: segnet-index
# Two slices differ only in brightness: the second is twice as bright. What do the indices of the first
# pooling look like for the two, if it works on the slice itself? And the pooled values?
# ```
#
# ```{solution-start} segnet-index
# :class: dropdown
# ```

# %%
(small, won), (brighter, also) = pool(x - x.min()), pool(2 * (x - x.min()))
print("same places:", bool((won == also).all()), "- values:", (brighter / small.clamp(min=1e-6)).median().item())

# %% [markdown]
# The places are the same: an index does not notice brightness. Contrast has to pass through the bottleneck.
#
# ```{solution-end}
# ```
