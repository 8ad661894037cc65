# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Look before you score
#
# The training is over, and a number stands at the end of the last line. It is tempting to write it
# down and go home. What would you have seen, had you looked?

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
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from scipy.ndimage import binary_dilation, binary_erosion

from cmrseg import data, datasets, metrics, plots, rle
from cmrseg.checkpoint import save
from cmrseg.config import TrainConfig
from cmrseg.datasets import folders
from cmrseg.predict import predict
from cmrseg.train import fit

plots.style()
SMOKE = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests make the live parts tiny
train, val = datasets.split(datasets.source(), "val")

# %% [markdown]
# A small network was trained while this page was made. It then labelled the
# validation slices, and we sorted them by their mean Dice.

# %% tags=["hide-input"]
config = TrainConfig(channels=(8, 16, 32, 64, 128), epochs=1 if SMOKE else 8)
run = fit(config, train[:16] if SMOKE else train)
pred = predict(run.model, val.images)
table = metrics.dice(pred, val.masks)
slice_dice = metrics.per_class(table.T)  # mean over the classes, for every slice
order = np.argsort(slice_dice)[::-1]
shown = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}

figure, axes = plots.panels(3, size=2.9)
for ax, (rank, i) in zip(axes, shown.items()):
    title = f"{rank}: {val.names[i]}, Dice {slice_dice[i]:.2f}"
    plots.overlay(ax, val.images[i], pred[i], title)
    plots.contours(ax, val.masks[i])
plots.class_legend(figure)

# %% [markdown]
# *Filled: the network. Outlined: the truth. The best slice shows what the network can do, the median
# what to expect, the worst what to be afraid of. One mean stands for all three.*

# %%
print(f"mean Dice {metrics.mean(table):.3f}")
for name, score in zip(plots.CLASS_COLOURS, metrics.per_class(table)):
    print(f"{name:>9} {score:.3f}")
for rank, i in shown.items():
    print(f"{rank}: {val.names[i]}, patient {val.patients[i]}, {slice_dice[i]:.3f}")

# %% [markdown]
# Never pick such slices by hand: it is too easy to pick the pretty ones. *Best, median, worst* is a rule
# that anyone can repeat, and one that shows the reader what the author would rather not.
#
# ## What kind of wrong?
#
# A pixel can be wrong in three ways. It belongs to the heart and was *missed*; it does not and was
# *invented*; or it was found to be heart, but the *wrong part*.

# %% tags=["hide-input"]
KINDS = {"missed": "#FE6100", "invented": "#00A078", "wrong part": "#785EF0"}
SHADES = ListedColormap(["none", *KINDS.values()])


def kinds(pred, truth):
    """0 right, 1 missed, 2 invented, 3 wrong part, for every pixel."""
    missed, invented = (pred == 0) & (truth > 0), (pred > 0) & (truth == 0)
    part = (pred > 0) & (truth > 0) & (pred != truth)
    return missed + 2 * invented + 3 * part


errors = kinds(pred, val.masks)
figure, axes = plots.panels(3, size=2.9)
for ax, (rank, i) in zip(axes, shown.items()):
    plots.show(ax, val.images[i], f"{rank}: {(errors[i] > 0).sum()} pixels wrong")
    ax.imshow(errors[i], cmap=SHADES, vmin=0, vmax=3, interpolation="nearest")
handles = [Patch(color=colour, label=kind) for kind, colour in KINDS.items()]
figure.legend(handles=handles, loc="outside lower center", ncols=3);

# %% [markdown]
# *The same three slices, only the mistakes. A thin rim of them along the outlines is nearly a matter of
# taste: there a doctor would hesitate too. A solid patch is a different thing. It says that the network
# did not understand the picture, and no shift of an outline will cure that.*
#
# To put a number on it: how many of the wrong pixels lie within one pixel of a true outline?

# %%
def near_outline(mask):
    """Pixels at most one away from the outline of any class of one label map."""
    outline = np.zeros(mask.shape, bool)
    for c in np.unique(mask):
        outline |= (mask == c) & ~binary_erosion(mask == c, border_value=1)
    return binary_dilation(outline)


rim = np.stack([near_outline(mask) for mask in val.masks])
wrong = errors > 0
print(
    f"on the rim: {(wrong & rim).sum() / wrong.sum():.0%} of all wrong pixels, "
    f"but only {rim.mean():.0%} of all pixels"
)
for k, kind in enumerate(KINDS, start=1):
    print(f"{kind:>10}: {(errors == k).sum() / wrong.sum():.0%} of all wrong pixels")

# %% [markdown]
# ## All of them, at a glance
#
# Twenty slices fit on one page. Before you believe any score, look once at all of them. It takes a minute,
# and it catches what no mean will show: a mask that is mirrored, one that belongs to another slice, an
# empty one.

# %% tags=["hide-input"]
figure, axes = plots.panels(7, 3, size=1.5)
for ax, i in zip(axes, order):
    plots.overlay(ax, val.images[i], pred[i], alpha=0.45)
    plots.contours(ax, val.masks[i], width=0.9)
    ax.set_title(f"{val.names[i]}  {slice_dice[i]:.2f}", fontsize=8.5)

# %% [markdown]
# *From best to worst. Look longest at the last row, and at who is in it: do the two slices of a patient
# stand together?*
#
# ## Predicting a folder
#
# A network that is to be of use must work on files. On the command line, that is one line for each
# step. Below a notebook plays the command line: it writes a folder of images and one of true masks, and
# saves the network.

# %%
folder = tempfile.TemporaryDirectory()
here = Path(folder.name)
save(run, here / "run")
for name in ("images", "truth"):
    (here / name).mkdir()
for name, image, mask in zip(val.names, val.images, val.masks):
    data.write_png(here / "images" / f"{name}.png", image)
    data.write_png(here / "truth" / f"{name}_mask.png", mask)
rows = [f"{name},{patient}" for name, patient in zip(val.names, val.patients)]
(here / "patients.csv").write_text("\n".join(["image,patient", *rows]), encoding="utf-8")


def shell(words):
    """Run a cmrseg command in that folder; return what it printed."""
    print("$ python -m cmrseg", words)
    command = [sys.executable, "-m", "cmrseg", *words.split()]
    done = subprocess.run(command, cwd=here, text=True, capture_output=True, check=True)
    return done.stdout


print(shell("predict --model run --images images --out masks"))
scores = json.loads(shell("evaluate --pred masks --truth truth --json"))
print("holds:", ", ".join(scores))
for name, dice in scores["dice"].items():
    low, high = scores["interval"][name]
    print(f"{name:>6} {dice:.3f}  [{low:.3f}, {high:.3f}]")

# %% [markdown]
# With `--json` the scores come for a program to read, without it as a small table. The intervals
# count patients, not slices: `patients.csv` says who is who. And the files hold the same masks
# as the memory of this page:

# %%
files = folders.read_masks(here / "masks")
equal = all((files[name] == mask).all() for name, mask in zip(val.names, pred))
print("masks:", len(files), "| values:", *np.unique(list(files.values())))
print("the same as in memory:", equal)

# %% [markdown]
# ## The files that leave your hands
#
# [Predict and submit](../build/predict_and_submit) tells how masks become a submission, and how a right mask gets the
# wrong name. Here we only look: the file is written, read back and compared with the masks that it was made from.

# %%
print(shell("submit --masks masks --out submission.csv"))
for line in (here / "submission.csv").read_text(encoding="utf-8").splitlines()[:4]:
    print(line if len(line) < 70 else line[:66] + " ...")
back = rle.read_submission(here / "submission.csv")
equal = all((back[name] == files[name]).all() for name in files)
print("\nall masks come back:", equal)

# %%
tiny = np.array([[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 1, 0, 0]])
print("its code:        ", rle.encode(tiny))
print("along the rows:  ", rle.encode(tiny.T), "  a valid code of another mask")
folder.cleanup()

# %% [markdown]
# The last line is what a forgotten transpose looks like: a run-length code numbers the pixels down the columns. No
# program will complain, since it is a valid code, and the score is merely low. Only a look at the decoded mask tells.
#
# ## What to conclude
#
# Look at the best, the median and the worst, then at all of them. Ask what kind of wrong it is. Check the files
# that leave your hands: how many, which names, which values, decoded again and laid over their images.
# Then score.
#
# ## Questions
#
# Three questions to check yourself. Choose an answer and open it: it says whether it is right, and why.
#
# **1.** The loss falls, the Dice has been 0 for ten epochs. What comes first?
#
# <details class="answer"><summary>Raise the learning rate.</summary><p>No. Perhaps nothing is wrong, and a
# training that was about to wake up is spoilt.</p></details>
# <details class="answer"><summary>Look at the probabilities and at a mask.</summary><p>Yes. The network may
# already rank the pixels well while the argmax still says background.</p></details>
# <details class="answer"><summary>Stop: it has collapsed.</summary><p>No. Under the report's recipe the loss falls, and Dice stays at 0
# for long. Look before you stop.</p></details>
#
# **2.** A U-Net takes its skips after the pooling. What does the decoder miss?
#
# <details class="answer"><summary>Parameters.</summary><p>No. There are about as many as
# before.</p></details>
# <details class="answer"><summary>The detail of the level it is at.</summary><p>Yes. What arrives has been
# halved already; the finest outlines were lost on the way.</p></details>
# <details class="answer"><summary>The gradient.</summary><p>No. It flows through these skips just as
# well.</p></details>
#
# **3.** Overlays made in memory look right, and the score of the submitted file is low. Where do you look?
#
# <details class="answer"><summary>At the training: a few more epochs.</summary><p>No. The masks were good;
# something happened to them afterwards.</p></details>
# <details class="answer"><summary>At the files: names, order, rows against columns.</summary><p>Yes. Decode
# them, lay them over the images of the same name, and look.</p></details>
# <details class="answer"><summary>At the metric.</summary><p>Later. Code and names go wrong far more often
# than a metric that others use too.</p></details>
#
# ## Try
#
# ```{exercise} Write the code yourself
# :label: looking-code
# Fill in the function below: the run-length code of a mask. The check says what is wrong, not only that
# something is.
# ```

# %% tags=["hide-input"]
board = np.array(
    [[0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0], [0, 1, 0, 0]]
)  # as above
runs = np.array(rle.encode(board).split(), int).reshape(-1, 2)
SLIPS = {
    "it counts from 0: the first pixel is number 1": runs - [1, 0],
    "it gives the last pixel of a run: give its length": np.stack(
        [runs[:, 0], runs.sum(1) - 1], 1
    ),
    "it gives the pixel after a run: give the run's length": np.stack(
        [runs[:, 0], runs.sum(1)], 1
    ),
    "it goes along the rows: pixels are numbered down the columns": rle.encode(
        board.T
    ).split(),
}


def check_code(mine):
    """What is wrong with a function that should write the run-length code of a mask."""
    if mine(board) is None:
        return "it returns nothing yet"
    for slip, numbers in SLIPS.items():
        if mine(board) == " ".join(map(str, np.ravel(numbers))):
            return slip
    masks = {
        "the board": board,
        "an empty mask": 0 * board,
        "a full one": 0 * board + 1,
    }
    wrong = [
        f"of {n} it says {mine(m)!r}"
        for n, m in masks.items()
        if mine(m) != rle.encode(m)
    ]
    return wrong[0] if wrong else "right"

# %%
def my_code(mask):
    """The run-length code of a mask of zeros and ones: "start length start length ..."."""
    return None  # your lines here


print("my_code:", check_code(my_code))

# %% [markdown]
# ```{solution-start} looking-code
# :class: dropdown
# ```

# %%
def my_code(mask):
    """The run-length code of a mask of zeros and ones: "start length start length ..."."""
    numbers, before = [], 0
    for number, pixel in enumerate(mask.ravel(order="F"), start=1):
        if pixel and not before:
            numbers += [number, 0]  # a run begins
        if pixel:
            numbers[-1] += 1
        before = pixel
    return " ".join(map(str, numbers))


print("my_code:", check_code(my_code))

# %% [markdown]
# A full mask is the case to think of: its one run is never ended by a zero. {func}`cmrseg.rle.encode` does
# it without a loop, from where the mask changes.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Whose patient is it?
# :label: looking-pairs
# Is the network's luck with a slice shared by the other slice of the same patient? Compute the
# correlation of the two mean Dices over the patients. With so few patients, how far would you trust it?
# ```
#
# ```{solution-start} looking-pairs
# :class: dropdown
# ```

# %%
people = np.unique(val.patients)
people = people[np.bincount(val.patients)[people] > 1]
pairs = np.array([slice_dice[val.patients == p][:2] for p in people])
print(f"{len(pairs)} patients, correlation {np.corrcoef(pairs.T)[0, 1]:.2f}")

# %% [markdown]
# Ten pairs say little: one odd patient can make or undo the correlation. If it is well above zero, two slices of a
# patient tell less than two slices of two patients would. The page [The patient is the unit](patients) asked the same
# of sixty pairs: compare its number with this one.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Shorter still
# :label: looking-shorter
# How long is the run-length code of a mask, compared with one digit for every pixel? Which shapes make
# it long?
# ```
#
# ```{solution-start} looking-shorter
# :class: dropdown
# ```

# %%
board = np.indices((96, 96)).sum(0) % 2
mean = np.mean([len(rle.encode(mask == 2)) for mask in val.masks])
print(f"one digit a pixel: {board.size} characters")
print(f"a true myocardium: {mean:.0f} characters on average")
print(f"a chessboard:      {len(rle.encode(board))} characters")

# %% [markdown]
# Much shorter: a run costs two numbers however long it is. The code grows with the outline, not with the area. A
# chessboard is nearly the worst case, for almost every second pixel starts a run of its own.
#
# ```{solution-end}
# ```
