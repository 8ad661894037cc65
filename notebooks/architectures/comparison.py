# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Four architectures
#
# Which network is best? The question has no answer before one says: at what size, at what cost, after how
# much tuning, and how sure.

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
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from cmrseg import comparisons, data, plots, results
from cmrseg.experiments import NETS, RATES
from cmrseg.models import build
from cmrseg.training import PRESETS, TrainConfig, fit

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
runs = comparisons.runs("architectures")

# %% [markdown]
# ## What the report said

# %%
said = results.report()["architectures"]
said = {"U-Net": results.report()["final"]["validation_dice"], "SegNet": said["segnet"]["validation"],
        "AlexNet": said["alexnet"]["validation"], "Ning": said["ning"]["validation_at_most"]}
for name, dice in said.items():
    print(f"{name:8} {dice:.2f}")

# %% [markdown]
# From these the report chose the U-Net {cite}`report2020`. The U-Net was then tuned in a dozen experiments;
# its rivals were not.
#
# ## A fair start
#
# Each network got the same rates on one inner hold-out of the training patients of fold 0, under either
# recipe; nothing else was tuned. These rates won:

# %%
pd.DataFrame(RATES).loc[[*NETS, "AlexNet, SGD"]].style.format(na_rep="")

# %% [markdown]
# ## What each one costs
#
# Parameters and multiply-adds are counted here and now, from the networks themselves; the seconds are
# processor time of the recorded trainings.

# %%
rows = {}
for name, group in runs.groupby("setting", sort=False):
    net = build(TrainConfig.from_dict(group["record"].iloc[0]["config"])).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, 96, 96))
    epochs = group["record"].iloc[0]["config"]["epochs"]
    classes = pd.concat(list(group["patients"])).groupby(level=0).mean().mean()
    rows[name] = {"parameters (1000)": sum(p.numel() for p in net.parameters()) / 1000,
                  "multiply-adds (million)": counter.get_total_flops() / 2e6,
                  "seconds an epoch": group["seconds"].mean() / epochs,
                  **classes, "mean": comparisons.by_patient(group).mean()}
table = pd.DataFrame(rows).T
table.round({"parameters (1000)": 0, "multiply-adds (million)": 0, "seconds an epoch": 2} |
            dict.fromkeys([*results.CLASSES, "mean"], 3))

# %% tags=["hide-input"]
figure, (ax, size) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
kinds = {"U-Net": plots.GREY, "SegNet": plots.ACCENT, "AlexNet": plots.SAID, "Ning": "#00A078"}
for name, row in table.iterrows():
    colour = kinds[name.split(",")[0]]
    for axis, x in ((ax, row["multiply-adds (million)"]), (size, row["parameters (1000)"])):
        own = name in NETS
        axis.plot(x, row["mean"], "o", color=colour, markersize=9 if own else 6, alpha=1 if own else 0.5)
        if own:
            axis.annotate(name, (x, row["mean"]), (0, 9), textcoords="offset points", ha="center", color=colour)
ax.set(xscale="log", xlabel="million multiply-adds for a slice", ylabel="Dice, mean of 60 patients")
size.set(xscale="log", xlabel="thousand parameters");

# %% [markdown]
# *Dice against cost, left in work, right in size. Large dots: each network at its own proportions, with
# three seeds on five folds. Small ones: matched in size, longer, wider, or with another optimiser, in the
# same colour.*
#
# ## Paired with the U-Net

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6), width_ratios=(1.2, 1))
for ax, protocol in zip(axes, ("replica", "modern")):
    found = comparisons.against("architectures", "U-Net", protocol).dropna(subset=["difference"])
    plots.differences(ax, {name: row for name, *row in found[["difference", "low", "high"]].itertuples()})
    ax.set(xlabel="Dice minus that of the U-Net", title=protocol)

# %% [markdown]
# *Differences from the U-Net patient by patient, with 95 % intervals; left under the report's recipe, right
# under the modern one. How much of each gap is the recipe's, and how much remains?*

# %%
comparisons.against("architectures", "U-Net", "modern").style.format(precision=3, na_rep="")

# %% [markdown]
# ## Verdicts

# %%
comparisons.verdicts("architectures")

# %% [markdown]
# ## Live: four small ones

# %%
train, held_out = data.split(data.source(), "val")
small = {"U-Net": {"channels": (4, 8, 16)}, "SegNet": {"channels": (4, 8, 16)}, "AlexNet": {}, "Ning": {}}
for name, changes in NETS.items():
    recipe = replace(PRESETS["modern"], **(changes | small[name]), epochs=1 if SMOKE else 6)
    run = fit(recipe, train[:48], held_out, precision="fp32")
    print(f"{name:8} Dice {results.mean_dice(run.history['dice'][-1]):.3f} in {run.seconds:.1f} s")

# %% [markdown]
# ## What to conclude
#
# CONCLUDE
#
# ## Try
#
# ```{exercise} Matched how?
# :label: four-matched
# Two networks can be matched in parameters, in multiply-adds, in seconds, or in the hours their authors
# spent on tuning. For a hospital that runs the network on a laptop, which match matters? For a report like
# this one?
# ```
#
# ```{solution} four-matched
# :class: dropdown
# For the hospital, seconds on that laptop (and Dice on its patients). For a report that names a best
# architecture, the one that is hardest to match is the tuning: the winner is often the network that its
# authors liked best.
# ```
