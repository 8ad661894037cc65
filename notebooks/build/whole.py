# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The whole thing
#
# Can you read a complete training script from the first line to the last, and say what every line is for?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** train a U-Net on a folder of PNG files with a script of your own, score it, and write its
# validation masks as PNG files and as run-length codes.
# **You need** all pages of this part; each piece below was built on one of them.
# **Time** 20 minutes to read; the run takes up to five minutes on a laptop.
# ```

# %% tags=["remove-cell"]
# In Colab this fetches the book and its package; anywhere else it does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("cmrseg") is None and "google.colab" in sys.modules:
    address = "https://github.com/cmr-segmentation-book/cmr-segmentation-book"
    subprocess.run(["git", "clone", "--depth", "1", address, "book"], check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "-e", "book"], check=True
    )
    sys.path.insert(0, "book")

# %% [markdown]
# This page is a script, too. Its file `whole.py` runs alone, with PyTorch, NumPy, OpenCV and Matplotlib:
#
# ```bash
# python notebooks/build/whole.py --data FOLDER --out runs/whole
# ```
#
# You know every piece of it; only the way they are put together is new. At every line ask yourself what would happen
# without it: the second exercise asks this of eight lines.
#
# ```{raw} html
# <svg viewBox="0 0 440 444" role="img" aria-labelledby="whole-title" style="display:block;width:32rem;max-width:100%;height:auto;margin:1rem 0" font-family="system-ui, sans-serif" font-size="15" text-anchor="middle" fill="currentColor">
# <title id="whole-title">The script beside the U. Hearts and Shuffled make batches of PNG files, affine and intensity vary them, the U-Net answers, the loss says how wrong it is, train changes the weights; predict and dice make masks and a score; the last functions write files. An arrow leads validation slices past the variation, straight into the U.</title>
# <defs><marker id="whole-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="var(--pst-color-text-base, currentColor)"/></marker></defs>
# <style>.whole-code{font-family:ui-monospace,monospace;font-size:13px}</style>
# <g stroke="var(--pst-color-border, #8888)" stroke-width="1.5" fill-opacity="0.3"><rect x="6" y="8" width="150" height="34" rx="8" fill="#648FFF"/><rect x="6" y="58" width="150" height="34" rx="8" fill="#648FFF"/><rect id="whole-unet" x="6" y="108" width="150" height="128" rx="8" fill="#785EF0"/><rect x="6" y="252" width="150" height="34" rx="8" fill="#FFB000"/><rect x="6" y="302" width="150" height="34" rx="8" fill="#FFB000"/><rect x="6" y="352" width="150" height="34" rx="8" fill="#DC267F"/><rect x="6" y="402" width="150" height="34" rx="8" fill="#DC267F"/></g>
# <g fill="none" stroke-width="2"><rect x="206" y="8" width="196" height="34" rx="8" stroke="#648FFF"/><rect x="206" y="58" width="196" height="34" rx="8" stroke="#648FFF"/><rect x="206" y="252" width="196" height="34" rx="8" stroke="#FFB000"/><rect x="206" y="302" width="196" height="34" rx="8" stroke="#FFB000"/><rect x="206" y="352" width="196" height="34" rx="8" stroke="#DC267F"/><rect x="206" y="402" width="196" height="34" rx="8" stroke="#DC267F"/></g>
# <g fill="#785EF0" fill-opacity="0.3" stroke="#785EF0" stroke-width="1.5"><rect x="206" y="112" width="28" height="17" rx="3"/><rect x="374" y="112" width="28" height="17" rx="3"/><rect x="223" y="138" width="28" height="17" rx="3"/><rect x="357" y="138" width="28" height="17" rx="3"/><rect x="240" y="164" width="28" height="17" rx="3"/><rect x="340" y="164" width="28" height="17" rx="3"/><rect x="257" y="190" width="28" height="17" rx="3"/><rect x="323" y="190" width="28" height="17" rx="3"/><rect x="290" y="216" width="28" height="17" rx="3"/></g>
# <g stroke="#00A078" stroke-width="2"><path d="M236 120H372"/><path d="M253 146H355"/><path d="M270 172H338"/><path d="M287 198H321"/></g>
# <g><text class="whole-code" x="81" y="30">Hearts, Shuffled</text><text x="304" y="30">PNG files, as batches</text><text x="304" y="116" font-size="13">skips</text><text class="whole-code" x="81" y="80">affine, intensity</text><text x="304" y="80">in training: a variation</text><text class="whole-code" x="81" y="166">block</text><text class="whole-code" x="81" y="188">UNet</text><text class="whole-code" x="81" y="274">ce_dice</text><text x="304" y="274">how wrong?</text><text class="whole-code" x="81" y="324">train</text><text x="304" y="324">new weights</text><text class="whole-code" x="81" y="374">predict, dice</text><text x="304" y="374">masks, and a score</text><text class="whole-code" x="81" y="424">write_masks, ...</text><text x="304" y="424">files under their names</text></g>
# <g fill="none" stroke="var(--pst-color-text-base, currentColor)" stroke-width="1.6" marker-end="url(#whole-tip)">
# <path d="M304 42v14"/><path d="M220 92v18"/><path d="M206 25h-22v96h20"/><path d="M402 125h12v144h-10"/><path d="M304 286v14"/><path d="M206 319h-22v-147h54"/><path d="M402 115h28v254h-26"/><path d="M304 386v14"/>
# </g>
# </svg>
# ```
#
# *On the left the script, on the right what it does to the slices. Blue brings them in, violet answers, gold learns,
# magenta brings masks out. Training slices take the inner arrows. Validation slices take the outer ones: on the left they
# skip the augmentation, on the right the loss.*

# %%
import argparse
import csv
import math
import os
import sys
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

CLASSES = ("background", "RV", "Myo", "LV")

# %% tags=["remove-cell"]
if "ipykernel" in sys.modules:  # a page of the book has the look of its figures
    from cmrseg import plots

    plots.style()

# %% [markdown]
# ## What can be chosen
#
# As a notebook this page is started with arguments that aren't ours. `parse_args` would refuse them;
# `parse_known_args` ignores them. It ignores a misspelt option as well: `--seeds 3` runs with seed 0. So the script
# prints what it understood. In a script that is never a notebook, use `parse_args`.

# %%
parser = argparse.ArgumentParser(description="Train a U-Net on cardiac MR slices.")
parser.add_argument("--data", type=Path, help="folder {train,val}/{image,mask}")
parser.add_argument("--out", type=Path, default=Path("runs/whole"), help="results")
short = os.environ.get("CMRSEG_BUDGET") == "smoke"  # tests want a short run
parser.add_argument("--epochs", type=int, default=1 if short else 60)
parser.add_argument("--seed", type=int, default=0)
args, _ = parser.parse_known_args()
print(f"{args.epochs} epochs, seed {args.seed}, slices of {args.data or 'the package'}")

# %% [markdown]
# ## Slices from files
#
# From [Pixels and a first Dice](pixels_and_a_first_dice) and [Batches and the loop](batches_and_the_loop). The files are
# read anew in every epoch, so memory never holds more than a batch of training slices. The order of the slices and the
# augmentation draw from one generator.

# %% tags=["piece"]
def read_png(path):
    """One 8-bit grey PNG as uint8 (H, W)."""
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise SystemExit(f"{path}: not an 8-bit grey PNG")
    return pixels


class Hearts(Dataset):
    """Slices of a folder: image float32 (1, H, W), labels int64 (H, W)."""

    def __init__(self, folder):
        paths = (Path(folder) / "image").glob("cmr*.png")
        self.paths = sorted(paths, key=lambda p: int(p.stem[3:]))

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, n):
        path = self.paths[n]
        mask = path.parents[1] / "mask" / f"{path.stem}_mask.png"
        image = torch.from_numpy(read_png(path)).float()[None]
        image = (image - image.mean()) / (image.std() + 1e-6)
        return image, torch.from_numpy(read_png(mask)).long()

# %% tags=["piece"]
class Shuffled(Sampler):
    """Each epoch a new order, drawn from a generator that is passed in."""

    def __init__(self, n, rng):
        self.n, self.rng = n, rng

    def __len__(self):
        return self.n

    def __iter__(self):
        yield from torch.randperm(self.n, generator=self.rng).tolist()

# %% [markdown]
# ## A new heart in every epoch
#
# From [Batches and the loop](batches_and_the_loop). Image and labels move together; only the image changes its grey
# levels.

# %% tags=["piece"]
def uniform(n, low, high, rng):
    """n random numbers between low and high, each as likely as any other."""
    return low + (high - low) * torch.rand(n, generator=rng)


def affine(x, y, rng, degrees=30, zoom=1.25, shift=0.1):
    """Rotate, zoom and shift each slice of a batch, image and labels alike."""
    n = len(x)
    angle = uniform(n, -math.radians(degrees), math.radians(degrees), rng)
    size = torch.exp(uniform(n, -math.log(zoom), math.log(zoom), rng))
    right, down = (uniform(n, -2 * shift, 2 * shift, rng) for _ in range(2))
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    matrix = torch.stack([cos, -sin, right, sin, cos, down], 1).view(n, 2, 3)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, "bilinear", "border", align_corners=False)
    y = F.grid_sample(
        y[:, None].float(), grid, "nearest", "zeros", align_corners=False
    )
    return x, y[:, 0].long()


def intensity(x, y, rng, amount=0.5, noise=0.2):
    """Change contrast and brightness of each slice and add noise; labels stay."""
    n = len(x)
    spread = x.std((1, 2, 3), keepdim=True)
    gain = uniform(n, 1 - amount, 1 + amount, rng).view(n, 1, 1, 1)
    offset = uniform(n, -amount, amount, rng).view(n, 1, 1, 1)
    level = uniform(n, 0, noise, rng).view(n, 1, 1, 1)
    grain = level * torch.randn(x.shape, generator=rng)
    return x * gain + (offset + grain) * spread, y

# %% [markdown]
# ## The network
#
# From [The U-Net](the_unet): down by pooling, up by transposed convolution, and at every level the skip that keeps the detail.
# The comments give the shapes for the channels used below.

# %% tags=["piece"]
def block(inputs, outputs):
    """(N, inputs, h, w) -> (N, outputs, h, w): convolution, batch norm, ReLU; twice."""
    layers = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Logits (N, 4, H, W) from images (N, 1, H, W); channels from fine to coarse."""

    def __init__(self, channels):
        super().__init__()
        steps = list(zip(channels[:0:-1], channels[-2::-1]))  # (128, 64), (64, 32) ...
        self.encoder = nn.ModuleList(
            block(i, o) for i, o in zip((1, *channels), channels)
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, f, 2, stride=2) for c, f in steps)
        self.decoder = nn.ModuleList(block(2 * f, f) for _, f in steps)
        self.head = nn.Conv2d(channels[0], len(CLASSES), 1)

    def forward(self, x):
        skips = []
        for down in self.encoder[:-1]:
            skips.append(down(x))  # (N, 8, 96, 96), (N, 16, 48, 48) ...
            x = F.max_pool2d(skips[-1], 2)  # (N, 8, 48, 48) ...
        x = self.encoder[-1](x)  # (N, 128, 6, 6), the bottleneck
        for up, merge in zip(self.up, self.decoder):
            x = merge(torch.cat([skips.pop(), up(x)], 1))  # (N, 64, 12, 12) ...
        return self.head(x)  # (N, 4, 96, 96)

# %% [markdown]
# ## The loss, and the score
#
# From [The loss](the_loss), [Pixels and a first Dice](pixels_and_a_first_dice) and
# [Batches and the loop](batches_and_the_loop). The loss is smooth, and training makes it small. Dice is what we report.
# `predict` switches to evaluation, and `train` switches back.

# %% tags=["piece"]
def soft_dice(logits, labels):
    """One minus the mean soft Dice of RV, Myo and LV over the batch."""
    p = logits.softmax(1)[:, 1:]
    truth = F.one_hot(labels, len(CLASSES)).permute(0, 3, 1, 2).float()[:, 1:]
    overlap = (p * truth).sum((0, 2, 3))
    size = p.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return 1 - ((2 * overlap + 1) / (size + 1)).mean()


def ce_dice(logits, labels):
    """Cross-entropy plus soft Dice."""
    return F.cross_entropy(logits, labels) + soft_dice(logits, labels)

# %% tags=["piece"]
def dice(pred, truth):
    """Dice of one slice for RV, Myo and LV; NaN where a class is in neither mask."""
    scores = []
    for c in (1, 2, 3):
        a, b = pred == c, truth == c
        size = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / size if size else np.nan)
    return scores

# %% tags=["piece"]
@torch.no_grad()
def predict(model, data, batch=20):
    """Label maps uint8 (N, H, W) of all slices of a data set."""
    model.eval()
    masks = [model(x).argmax(1) for x, _ in DataLoader(data, batch)]
    return torch.cat(masks).numpy().astype(np.uint8)

# %% [markdown]
# ## The loop
#
# From [Batches and the loop](batches_and_the_loop). In every step: set the learning rate, augment, answer, compare,
# `zero_grad`, `backward`, `step`. None may be missing: `zero_grad` has to come before
# `backward`, and `step` after it.

# %% tags=["piece"]
def one_cycle(done):
    """The learning rate as a fraction of its peak, after this fraction of the run."""
    if done < 0.3:
        return 0.04 + 0.96 * done / 0.3
    return 0.5 + 0.5 * math.cos(math.pi * (done - 0.3) / 0.7)


def train(data, channels, epochs, lr=0.003, batch=4, seed=0, after_epoch=None):
    """A U-Net trained on a data set; after_epoch(model, epoch, loss) is called."""
    torch.set_flush_denormal(True)  # tiny numbers would cost ten times the time
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = UNet(channels).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.01)
    loader = DataLoader(data, batch, sampler=Shuffled(len(data), rng))
    for epoch in range(epochs):
        model.train()
        losses = []
        for step, (x, y) in enumerate(loader):
            for group in optimiser.param_groups:
                group["lr"] = lr * one_cycle((epoch + step / len(loader)) / epochs)
            x, y = intensity(*affine(x, y, rng), rng)
            x = x.contiguous(memory_format=torch.channels_last)
            loss = ce_dice(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        if after_epoch:
            after_epoch(model, epoch + 1, np.mean(losses))
    return model

# %% [markdown]
# ## Masks and codes
#
# From [Predict and submit](predict_and_submit): each file and each row is named after its own image.

# %% tags=["piece"]
def run_lengths(mask):
    """Run-length code of a bool (H, W): "start length ...", by columns, from 1."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [0]]).astype(int)
    change = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(f"{s} {e - s}" for s, e in zip(change[::2], change[1::2]))


def write_masks(folder, names, masks):
    """Write each label map as a PNG that is named after its own image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in zip(names, masks):
        cv2.imwrite(str(folder / f"{name}_mask.png"), mask)


def write_submission(path, names, masks):
    """Write three rows for each slice: id and run-length code of RV, Myo and LV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["id", "encoding"])
        for name, mask in zip(names, masks):
            for c in (1, 2, 3):
                rows.writerow([f"{name}_mask{c}", run_lengths(mask == c)])

# %% [markdown]
# ## All of it
#
# So far there were only definitions. Now the script runs: it opens the folder, trains, and scores every ten epochs and at
# the end. Where no folder is given, it borrows slices from `cmrseg`, by default phantoms. It needs the package for
# nothing else.

# %%
if args.data is None:  # phantoms, or the slices that CMRSEG_DATA names
    from cmrseg import datasets

    args.data = args.out / Path(datasets.source()).name
    datasets.write_root(args.data, datasets.source())

learn, held_out = Hearts(args.data / "train"), Hearts(args.data / "val")
truth, curve = np.stack([mask.numpy() for _, mask in held_out]), []


def watch(model, epoch, loss):
    """Score the held-out slices every ten epochs, and at the end."""
    if epoch % 10 == 0 or epoch == args.epochs:
        scores = [dice(p, t) for p, t in zip(predict(model, held_out), truth)]
        curve.append((epoch, loss, np.nanmean(np.nanmean(scores, 0))))
        print("epoch {:3}   loss {:.3f}   validation Dice {:.3f}".format(*curve[-1]))


model = train(learn, (8, 16, 32, 64, 128), args.epochs, seed=args.seed, after_epoch=watch)

# %% [markdown]
# The last score is the one to report, not the best. (At the first score, after epoch 10, the learning rate still climbs;
# on [Batches and the loop](batches_and_the_loop) it had come down by then.) What remains is to write everything down.

# %%
names, masks = [path.stem for path in held_out.paths], predict(model, held_out)
write_masks(args.out / "val", names, masks)
write_submission(args.out / "submission.csv", names, masks)
torch.save(model.state_dict(), args.out / "weights.pt")
epochs, losses, scores = zip(*curve)
figure, ax = plt.subplots(figsize=(7.5, 3))
ax.plot(epochs, losses, "o-", label="training loss")
ax.plot(epochs, scores, "o-", label="validation Dice")
ax.set(xlabel="epoch", ylabel="loss, or Dice", ylim=(0, None))
ax.legend()
figure.savefig(args.out / "curve.png")

# %% [markdown]
# *The loss of the augmented training slices and the Dice of the validation slices, every ten epochs. In the last ten, when
# the learning rate is small, both hardly change.*
#
# | file | what it is |
# |---|---|
# | `val/cmrN_mask.png` | a label map for each validation slice |
# | `submission.csv` | the same masks as run-length codes |
# | `weights.pt` | the network's tensors; load them with `strict=True` |
# | `curve.png` | the figure above |
#
# The submission holds the *validation* slices, to show the format. Test slices have no masks, so `Hearts` can't read them.
# To submit those, write a second class that returns a 0 in place of the labels: `predict` doesn't look at them.

# %%
if "ipykernel" not in sys.modules:
    sys.exit()  # Jupyter isn't there: a script ends here, a page goes on

# %% [markdown]
# ## Look at it
#
# Is the last score good? Compare it with [the number to beat](pixels_and_a_first_dice), the Dice of the mask that never
# looks: at each pixel the most frequent label.

# %%
from cmrseg import data, datasets, plots
from cmrseg.config import TrainConfig
from cmrseg.datasets import folders
from cmrseg.train import fit

most = torch.stack([labels for _, labels in learn]).mode(0).values.numpy()
never_looks = np.nanmean([dice(most, t) for t in truth], 0).mean()
print(f"never looks {never_looks:.3f}, the network {curve[-1][2]:.3f}")

# %% [markdown]
# That is one run with one seed and few slices; how far to trust it is a question for the next parts. These overlays are
# made from the files, as somebody else would read them:

# %%
quality = np.nanmean([dice(p, t) for p, t in zip(masks, truth)], 1)
order, last = quality.argsort(), len(names) - 1
figure, axes = plots.panels(2, 2, size=3.75)
for ax, n in zip(axes, order[[0, last // 3, 2 * last // 3, last]]):
    mask = read_png(args.out / "val" / f"{names[n]}_mask.png")
    image = read_png(held_out.paths[n])
    plots.overlay(ax, image, mask, f"{names[n]}: Dice {quality[n]:.2f}")
    for c in (1, 2, 3):
        ax.contour(truth[n] == c, [0.5], colors="white", linewidths=1)
plots.class_legend(figure)

# %% [markdown]
# *The worst validation slice (top left), the best (bottom right) and two from between. Colour is what the file holds,
# white lines are the reference. If you see a small piece of colour far from the heart: the first exercise removes it.*
#
# **Predict, then run**: would `cmrseg` train the same network? Its {func}`~cmrseg.train.fit` holds tensors in memory,
# the script reads files batch by batch. Both get the same eight slices, two epochs and one seed. How far apart will the
# weights be?

# %%
few = torch.utils.data.Subset(learn, range(8))
ours = train(few, channels=(4, 8, 16), epochs=2)
config = TrainConfig(
    channels=(4, 8, 16), epochs=2, augment=("affine", "strong-intensity")
)  # by default: ce+dice, adamw, 0.003, 0.01, one-cycle, batches of 4, seed 0
eight = folders.read_split(args.data, "train")[:8]
theirs = fit(config, eight, precision="fp32", device="cpu").model
for a, b in zip(ours.state_dict().values(), theirs.state_dict().values()):
    assert torch.equal(a, b)
print("all", len(ours.state_dict()), "tensors are equal, to the last bit")

# %% [markdown]
# ## The report's script, and this one
#
# **The report did it like this** {cite}`report2020`: its script has the same parts in the same order. Input, network, loss
# and optimiser stand in the table of [The U-Net](the_unet). The rest:
#
# | choice | the report's | this one |
# |---|---|---|
# | learning rate | constant, 0.001 | one cycle with its peak at 0.003 |
# | run | 140 epochs, batches of 2 | 60 epochs, batches of 4 |
# | scores | after epochs 1, 11, 21 ... and 131 | after epochs 10, 20 ... and the last |
# | names of masks | a counter | the image's name |
#
# The last row fixes one of the report's six slips of code, which you met on [Predict and submit](predict_and_submit).
# The other five came where they happened:
#
# - a Dice of 0/0, on [Pixels and a first Dice](pixels_and_a_first_dice);
# - skips after the pooling, and `__call__` overridden, both on [The U-Net](the_unet);
# - a loss for batches of two, and grey levels as they come with a loss that background wins, both on
#   [The loss](the_loss).
#
# The overridden `__call__` and the loss for two did the report no harm: they are traps for whoever changes something
# else. Two further points are weak, but aren't counted as slips: softmax stands inside the network, which is another
# such trap, and there is no score of the network that is saved. The rest are choices, and today's usual practice is no
# proof that each of them pays: [Repairs](../conclusions/repairs) takes them apart one by one, and
# [Reading a report](../conclusions/reading) asks what would have caught the slips.
#
# ## Recap
#
# - You have a complete script: it reads files, trains, scores, and writes masks, a submission file, weights and a curve.
# - You can say for each function which page built it.
# - You have seen that it trains the same weights as the package, bit for bit.
#
# ## Exercises
#
# ```{exercise} Only the largest piece
# :label: whole-largest
# A heart has one left ventricle, so a second piece of it must be wrong. Write `my_largest(mask)`, which keeps the largest
# connected piece of each class of a label map and turns the rest into background. `mask` is uint8 (H, W) with labels 0 to
# 3, of which some may be missing; return a new array of the same shape. `cv2.connectedComponentsWithStats` takes the mask
# of *one* class (uint8, 0 and 1) and returns four things: how many pieces there are, an array with the number of the
# piece at each pixel, a table with a row for each piece (column `cv2.CC_STAT_AREA` is its size), and their centres.
# Piece 0 is the background. Before you score it: will the Dice rise on every slice?
# ```

# %% tags=["hide-input"]
import cv2
import numpy as np

DRAWING = """
11...........
11....111111.
......111111.
2.....111111.
2............
....222222...
..33222222...
..33222222..1
....222222..1
"""
SPREAD = """
2222.....333.
2222.....333.
2222.....333.
.3333333.....
............2
............2
............2
............2
2.......22222
"""


def drawn(picture):
    """The label map of a drawing."""
    rows = picture.replace(".", "0").split()
    return np.array([[int(pixel) for pixel in row] for row in rows], np.uint8)


PIECES = drawn(DRAWING)
MASKS = {
    "": PIECES,
    "of a mask without LV ": np.where(PIECES == 3, 0, PIECES).astype(np.uint8),
    "of a mask without RV, with thin pieces, ": drawn(SPREAD),
    "of an empty mask ": np.zeros_like(PIECES),
}


def keep(mask, choose):
    """Of each class, the pieces that are chosen by their sizes."""
    kept = np.zeros_like(mask)
    for c in np.unique(mask[mask > 0]):
        count, pieces = cv2.connectedComponents((mask == c).astype(np.uint8))
        sizes = [(pieces == k).sum() for k in range(count)]
        kept[np.isin(pieces, choose(sizes)) & (mask == c)] = c
    return kept


def largest(sizes):
    """The number of the largest piece that isn't background."""
    return [1 + np.argmax(sizes[1:])]


TOGETHER = PIECES * (keep((PIECES > 0).astype(np.uint8), largest) > 0)
WRONG = [
    (PIECES, "nothing has been removed"),
    (TOGETHER, "it takes all classes together: go through them one by one"),
    (keep(PIECES, lambda sizes: [1 + np.argmin(sizes[1:])]), "it keeps the smallest"),
    (keep(PIECES, lambda sizes: [1]), "it keeps the first piece, large or small"),
    (keep(PIECES, lambda sizes: [len(sizes) - 1]), "it keeps the last piece"),
    (PIECES - keep(PIECES, largest), "it removes the largest and keeps the rest"),
    (PIECES * 0, "nothing is left: piece 0 of connectedComponents is the background"),
    ((keep(PIECES, largest) > 0).astype(int), "the labels are lost: keep 1, 2 and 3"),
]


def check_largest(mine):
    """What is wrong with a function that should keep the largest pieces."""
    for name, mask in MASKS.items():
        given = mask.copy()
        try:
            answer = mine(given)
        except Exception as error:
            return f"{name}it raises {type(error).__name__}: {error}"
        if answer is None:
            return f"{name}it returns nothing yet"
        answer = np.asarray(answer)
        if answer.shape != mask.shape:
            return f"{name}its shape is {answer.shape}, not {mask.shape}"
        if (wrong := answer != keep(mask, largest)).any():
            known = [why for it, why in WRONG if not name and (it == answer).all()]
            return (*known, f"{name}{wrong.sum()} pixels are wrong")[0]
        if (given != mask).any():
            return "the answer is right, but the mask that it was given has changed"
    return "right"

# %%
def my_largest(mask):
    """A label map with only the largest connected piece of each class."""
    return None  # your lines here


print("my_largest:", check_largest(my_largest))

# %% [markdown]
# ```{solution-start} whole-largest
# :class: dropdown
# ```

# %%
def my_largest(mask):
    """A label map with only the largest connected piece of each class."""
    cleaned = np.zeros_like(mask)
    for c in (1, 2, 3):
        here = (mask == c).astype(np.uint8)
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(here)
        if count > 1:  # piece 0 is everything else
            biggest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
            cleaned[pieces == biggest] = c
    return cleaned


print("my_largest:", check_largest(my_largest))

# %%
before = np.array([dice(p, t) for p, t in zip(masks, truth)])
after = np.array([dice(my_largest(p), t) for p, t in zip(masks, truth)])
for when, scores in (("before", before), ("after", after)):
    print(f"mean Dice {when:>6} {np.nanmean(scores, 0).mean():.4f}")
higher, lower = (after > before).sum(), (after < before).sum()
print(f"of {before.size} scores {higher} are higher and {lower} lower")

# %% [markdown]
# No: where the network found each class in one piece, nothing changes. An island far from the heart is rightly removed.
# But the largest piece need not be the right one, and a ventricle that the network found in two halves loses one of them.
# [Where it fails](../conclusions/failures) shows both.
#
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Loud, silent or harmless
# :label: whole-silent
# Someone says: "If a line were missing, I'd get an error." Take one thing out of the script at a time. Which raises an
# error, which runs on and is wrong, and which does no harm? Decide first, then try some of them with `--epochs 11` (so
# that there is a score before the last epoch).
#
# 1. `[None]` in `Hearts`
# 2. `key=...` in `Hearts`
# 3. `.long()` in `Hearts`
# 4. `model.train()` in `train`
# 5. `optimiser.zero_grad()` in `train`
# 6. `.permute(0, 3, 1, 2)` in `soft_dice`
# 7. `model.eval()` in `predict`
# 8. `order="F"` in `run_lengths`
# ```
#
# ```{solution} whole-silent
# :class: dropdown
# Two are loud: 1, since `affine_grid` wants four axes, and 6, since the shapes no longer fit. Two do no harm here. Without
# 2 the slices come in another order, so the same seed gives another network, but every mask still has its own name.
# Without 3 the labels stay `uint8` until `affine` makes int64 of them. The other four run on and are wrong. Without 4 the
# network stays in evaluation mode after its first score, and batch norm's running statistics stand still. Without 5
# gradients add up. Without 7 a mask depends on the other slices in its batch, and each prediction changes the running
# averages. Without 8 every code is valid, and of another mask. That's why you look at masks made from files.
# ```

# %% [markdown]
# **Next**: [Dice and its traps](../basics/dice) opens the second part: your script prints a number. How far can you
# trust it? **Read**: nnU-Net {cite}`isensee2021`, for what becomes of such a script when rules make all of its
# choices.
