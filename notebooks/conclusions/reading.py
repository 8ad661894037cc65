# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading a report
#
# The report of 2020 {cite}`report2020` has nine slips that we know of. So have most papers; this one shares
# its code, so that slips can be found. What did each cost, and what would have caught it?

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
import pandas as pd
import torch
from torch import nn

from cmrseg import data, datasets, metrics, plots
from cmrseg.config import PRESETS
from cmrseg.losses import one_hot
from cmrseg.models.report_unet import ReportUNet
from cmrseg.models.unet import UNet
from cmrtrial import compare, records

plots.style()
REPORT = records.reported_numbers()
train, held_out = datasets.split(datasets.source(), "val")

# %% [markdown]
# ## Slips of code
#
# **1. A loss for two.** The published loss builds its one-hot maps for exactly two slices; with three it
# stops. That is the kind way to be wrong. Worse would be a loss that goes on and compares the wrong pairs.
# Nobody noticed, since batch size 2 was the one that was kept; the report's own table of batch sizes, up to
# 32, cannot have come from the code as it was published.
#
# What catches it: one test with another batch size, and one that a loss of all slices is the mean of the
# losses of each. Ours are in `tests/core/test_losses.py`.

# %%
def of_two(probability, labels):
    """A mean squared error that was written for a batch of two."""
    truth = torch.cat([one_hot(labels[:1], 4), one_hot(labels[1:2], 4)])
    return ((probability - truth) ** 2).mean()


for count in (2, 3):
    labels = torch.from_numpy(train.masks[:count]).long()
    try:
        print(
            f"{count} slices: loss {of_two(torch.full((count, 4, *labels.shape[1:]), 0.25), labels):.3f}"
        )
    except RuntimeError as error:
        print(f"{count} slices: {str(error)[:70].rsplit(' ', 1)[0]} ...")

# %% [markdown]
# **2. Skips after the pooling.** They carry what has already lost its resolution. What that costs by itself is not known.
# The page [Repairs](repairs) measures it together with three other changes, as a *textbook decoder*: the four together
# help more than any other repair made alone, and are missed most when they are left out. What catches it: writing the
# shapes beside the layers.

# %% tags=["hide-input"]
for skips, network in (("after", ReportUNet), ("before", UNet)):
    net = network((4, 8, 16))
    net.decoder[-1].register_forward_pre_hook(
        lambda module, inputs, skips=skips: print(
            f"skips {skips:6} pooling: the last block on the way up "
            f"works at {inputs[0].shape[-1]} x {inputs[0].shape[-1]}"
        )
    )
    net(torch.zeros(2, 1, 96, 96))

# %% [markdown]
# **3. Grey levels as they come, and a loss that the background wins.** For many epochs the network finds that
# drawing nothing is right almost everywhere. What catches it: a Dice of zero is a finding. Stop and look. (The
# suspicion falls on the grey levels first; mending them alone wakes nobody.)

# %% tags=["hide-input"]
repairs = compare.runs("repairs")
for name in ("baseline", "with scale", "with loss", "with skips"):
    run_records = repairs.loc[
        (repairs["setting"] == name) & (repairs["seed"] == 0), "record"
    ]
    waking = run_records.map(
        lambda record: compare.endpoint(record, "epoch>0.5")
    ).median()
    print(
        f"{compare.shown(name):21} Dice above 0.5 at epoch {waking:.0f}, median of five folds"
    )

# %% [markdown]
# **4. `__call__` overridden instead of `forward`.** The network works, and what PyTorch hangs on a call is gone: hooks,
# and with them the tools that count or time layers. What asks for `forward` finds none. Exporting gets by, since it
# runs the network.

# %% tags=["hide-input"]
class Direct(nn.Module):
    def __call__(self, x):
        return 2 * x


class Proper(nn.Module):
    def forward(self, x):
        return 2 * x


for kind in (Direct, Proper):
    net = kind()
    net.register_forward_hook(
        lambda *_, kind=kind: print(f"{kind.__name__}: the hook is heard")
    )
    print(f"{kind.__name__}: the answer is {net(torch.ones(1)).item()}")
    torch.export.export(kind(), (torch.ones(1),))
    try:
        torch.fx.symbolic_trace(kind())
        print(f"{kind.__name__}: exported, and traced by torch.fx")
    except NotImplementedError as error:
        print(f"{kind.__name__}: exported, but for torch.fx {error}")

# %% [markdown]
# The network also ends in a softmax. The report's own loss wants it so; a loss that takes logits would apply a second
# one, and [My Dice is 0](../basics/debugging) shows what that looks like. And no score belongs to the network that is
# saved: the last score comes after epoch 131 of 140. Both are weak points; we don't count them as slips.
#
# **5. Masks named by a counter** over a list in no order. On one machine all is well, on another every mask
# may carry a stranger's name: [Predict and submit](../build/predict_and_submit) runs it.
#
# **6. Zero by zero.** A class that is neither there nor predicted has no Dice; one such slice makes a mean
# that is not a number: see [Pixels and a first Dice](../build/pixels_and_a_first_dice). What catches it: asking the data.

# %% tags=["hide-input"]
absent = [
    (name, data.CLASSES[c])
    for name, mask in zip(train.names, train.masks)
    for c in (1, 2, 3)
    if not (mask == c).any()
]
print(
    f"{len(absent)} of {3 * len(train)} class maps of the training slices are empty:",
    *absent[:3],
)
perfect = metrics.dice(train.masks, train.masks)
print(
    f"mean Dice of perfect masks: {perfect.mean()}; with the empty ones left out {metrics.mean(perfect)}"
)

# %% [markdown]
# ## Slips of method
#
# **7. One training for nearly every setting.** Trainings of *one* setting differ, too. Here are the report's tables
# and figures that have a Dice for each setting: the best setting less the second best, beside what chance does to
# single trainings on the same 20 slices (the narrow grid of rates holds means of seven).

# %% tags=["hide-input"]
chance = compare.runs("noise-floor")["dice"].to_numpy()
leads = {}
for name, section in REPORT.items():
    values = section.get("dice") if isinstance(section, dict) else None
    if isinstance(values, dict):
        ranges = [max(between) for between in section.get("ranges", {}).values()]
        flat = sorted(np.hstack([*values.values(), *ranges]).astype(float))
        leads[name.replace("_", " ")] = flat[-1] - flat[-2]
pairs = np.abs(np.subtract.outer(chance, chance)[np.triu_indices(len(chance), 1)])
figure, ax = plt.subplots(figsize=(8.5, 3.4))
ax.axvspan(0, np.quantile(pairs, 0.9), color=plots.GREY, alpha=0.25, linewidth=0)
ax.axvline(pairs.mean(), color=plots.GREY)
ax.plot(
    list(leads.values()),
    list(leads),
    "x",
    color=plots.CONTRAST,
    markersize=8,
    markeredgewidth=2,
)
ax.set(xlabel="Dice, best setting minus second best", xlim=(-0.002, None));

# %% [markdown]
# *Crosses: by how much the best setting of each of the report's tables leads. Grey line: by how much two
# trainings of equal settings differ on average; the band holds nine in ten of such pairs. (The chance is
# that of our narrower copy.)*

# %% tags=["hide-input"]
inside = sum(lead < np.quantile(pairs, 0.9) for lead in leads.values())
print(
    f"{inside} of {len(leads)} leads are no larger than what nine in ten pairs of equal settings show"
)

# %% [markdown]
# **8. Text, figures and code disagree.** Which one was run?

# %% tags=["hide-input"]
final, code, classes = REPORT["final"], PRESETS["report"], REPORT["per_class"]
classes = {name: value for name, value in classes.items() if isinstance(value, dict)}
losses = REPORT["optimiser"]["training_loss"]
easiest = max(classes, key=lambda name: classes[name]["median"])
steadiest = min(classes, key=lambda name: classes[name]["sd"])
rows = {
    "convolutions in a block": (
        f"{final['convolutions']} (final list)",
        f"{code.convolutions} (code)",
    ),
    "first kernel": (
        f"{final['kernel']} (final list)",
        f"{code.first_kernel} (code)",
    ),
    "channels": (
        "64-128-256-512, said to be in the final network (section on channels)",
        f"{'-'.join(map(str, final['channels']))} (final list)",
    ),
    "last partial batch": (
        "dropped (text)",
        f"{'dropped' if code.drop_last else 'kept'} (code)",
    ),
    "smaller loss of the optimisers": (
        "AdamW (text)",
        f"{min(losses, key=losses.get).title()} (figure)",
    ),
    "most accurate class": ("LV (text)", f"{easiest} (figure)"),
    "class that varies least": ("LV (text)", f"{steadiest} (figure)"),
    "paragraph on the number of epochs": (
        "in the section on augmentation",
        "the same one in the section on early stopping",
    ),
}
pd.DataFrame.from_dict(rows, orient="index", columns=["one place says", "another"])

# %% [markdown]
# (Of the classes of the heart alone, the left ventricle *is* the most accurate in the figure, and varies least.)
#
# What catches it: records. A number in this book comes from a file that holds the configuration it was trained with,
# so a printed number cannot drift from the run that it is of.
#
# **9. Chosen and reported on the same slices.** Epoch, settings and final number all come from the same 20 slices.
# Suppose that forty of the report's settings were equally good and differed by chance alone, as our seeds do: how good
# would the best of them look?

# %% tags=["hide-input"]
rng = np.random.default_rng(0)
best_of = rng.normal(0, chance.std(ddof=1), (10_000, 40)).max(1)
epochs = compare.runs("noise-floor")
tables = [
    section.get("grid") or section.get("dice") or section.get("median_dice")
    for section in REPORT.values()
]
tables = [list(t.values()) if isinstance(t, dict) else t for t in tables if t]
print(f"{sum(map(np.size, tables))} settings in the report's tables and figures")
print(
    f"the best of forty equal settings looks better than it is by {best_of.mean():.3f}"
)
print(
    f"the best-looking epoch of one training adds {(epochs['dice_best'] - epochs['dice']).mean():.3f}"
)

# %% [markdown]
# ## The checklist
#
# Twelve questions for any report of a segmentation, your own first.
#
# | ask | because | here |
# |---|---|---|
# | 1. How many *patients* were judged? | slices of one heart are one witness | [The patient is the unit](../basics/patients) |
# | 2. Was anyone in both training and test? | a sibling is a leak | [The patient is the unit](../basics/patients) |
# | 3. Which Dice: of what, averaged how, and of nothing? | rules differ by more than methods | [Dice](../basics/dice) |
# | 4. How many trainings stand behind a number? | one is an anecdote | [Train it again](../statistics/again) |
# | 5. Is there an interval, and of which chance? | patients *and* trainings vary | [More patients, paired](../statistics/paired) |
# | 6. Does "no difference" mean shown equal, or not seen? | small experiments miss a lot | [Verdicts](../statistics/verdicts) |
# | 7. On which patients were settings and epoch chosen? | the best of many looks too good | above |
# | 8. Were the rivals tuned as much? | a rival at a bad rate is a straw man | [Optimiser](../experiments/optimiser) |
# | 9. Does a difference survive a healthy recipe? | some matter only to a broken one | [Repairs](repairs) |
# | 10. Does anyone know what the network sees? | a number does not say what was drawn | [Looking](../basics/looking) |
# | 11. Do code and text agree? | one of them was run | above |
# | 12. Can I run it? | then all other questions can be answered | this book |
#
# The report of 2020 passes the twelfth, and so everything else could be found out.
#
# ## Capstone: replicate one claim
#
# Take one claim of the report, of this book, or of a paper you like. Answer it with five folds and at least
# two seeds, write two pages, and hand in records with them. This is all it takes to plan an experiment:

# %% tags=["hide-input"]
from dataclasses import replace

from cmrseg.config import PRESETS
from cmrtrial.spec import FOLDS, RunSpec

plan = [
    RunSpec(
        f"batch {batch}",
        replace(PRESETS["modern"], batch=batch, seed=seed),
        fold,
        "modern",
    )
    for batch in (4, 8)
    for fold in FOLDS
    for seed in (0, 1)
]
print(f"{len(plan)} trainings; one is filed under {plan[0].key()}")
pd.DataFrame(
    [(p.setting, p.split, p.config.seed) for p in plan[:3]],
    columns=["setting", "split", "seed"],
)

# %% [markdown]
# `cmrtrial.runner.run_missing(plan, source)` runs them. Give the plan a name, as in the recipe for an experiment in
# [Contributing](../../book/contributing), and `compare.compare` compares. How it is marked:
#
# | criterion | 0 | 1 | 2 |
# |---|---|---|---|
# | the claim | vague | what would refute it is said | and written down before the first run |
# | the comparison | one training each | several, judged on the same patients | paired, folds and seeds, the rival tuned as well |
# | the answer | a bare number | with an interval | of both chances, and a verdict that it supports |
# | the records | none | configuration and seed of each | a stranger can run the same, and gets the same |
# | the look | none | pictures | the worst cases, and why they fail |
# | the writing | | it can be followed | it says what it does not know |
#
# Ten of twelve is a good mark. A contradicted claim counts as much as a confirmed one.
#
# ## What to conclude
#
# None of the nine slips is stupid, and only one shows in the training curve. Slips of code are caught by tests and
# by looking; slips of method are caught before the first training, by deciding what is compared, on whom,
# and when one will stop. Both are habits, and cheap.
#
# ## Try
#
# ```{exercise} Mark the book
# :label: reading-book
# Put the twelve questions to this book. Where does it do worst?
# ```
#
# ```{solution-start} reading-book
# :class: dropdown
# ```

# %%
from cmrtrial.plans import EXPERIMENTS

seeds = {
    (name, setting): group["seed"].nunique()
    for name in EXPERIMENTS
    for setting, group in compare.runs(name).groupby("setting")
}
print(
    f"{sum(n == 1 for n in seeds.values())} of {len(seeds)} settings under the replica have one seed only"
)

# %% [markdown]
# At number 5 for settings that ran once on each fold: their share of chance is borrowed from the settings that ran
# three or five times. At number 7: twelve of the sixty patients helped to choose learning rates, and are among those
# judged. At number 9, for all that was tested in the narrow copy only. And at number 1: sixty patients of one
# hospital are not the world.
#
# ```{solution-end}
# ```
