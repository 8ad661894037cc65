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
# Can you read a complete training script from the first line to the last, and know what every line is for?
#
# ```{admonition} On this page
# :class: on-this-page
# **After this page you can** train a U-Net on a folder of PNG files with a script of your own, score it, and write its
# masks and a submission file.
# **You need** all pages of this part; each piece below was built on one of them.
# **Time** 20 minutes to read; the run takes five minutes on a laptop.
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

# %%
import argparse
import csv
import math
import os
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

CLASSES = ("background", "RV", "Myo", "LV")

# %% [markdown]
# ## What can be chosen

# %%
parser = argparse.ArgumentParser(description="Train a U-Net on cardiac MR slices.")
parser.add_argument("--data", type=Path, help="folder {train,val,test}/{image,mask}")
parser.add_argument("--out", type=Path, default=Path("runs/whole"), help="results")
parser.add_argument("--epochs", type=int, default=60)
parser.add_argument("--seed", type=int, default=0)
args, _ = parser.parse_known_args()  # a notebook's kernel has arguments of its own

# %% [markdown]
# ## Slices from files

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

# %% tags=["piece"]
def uniform(n, low, high, rng):
    """n numbers, evenly spread between low and high."""
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

# %% tags=["piece"]
def one_cycle(done):
    """The learning rate, as a part of its peak, when this part of the run is over."""
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

# %% tags=["piece"]
def run_lengths(mask):
    """Run-length code of a bool (H, W): "start length ...", from 1, column by column."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [0]]).astype(int)
    change = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = change[::2], change[1::2]
    return " ".join(f"{s} {e - s}" for s, e in zip(starts, ends))


def write_masks(folder, names, masks):
    """Write each label map as a PNG that is named after its own image."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, mask in zip(names, masks):
        cv2.imwrite(str(folder / f"{name}_mask.png"), mask)


def write_submission(path, names, masks):
    """Write three rows for each slice: id and run-length code of RV, Myo and LV."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "encoding"])
        for name, mask in zip(names, masks):
            for c in (1, 2, 3):
                rows.writerow([f"{name}_mask{c}", run_lengths(mask == c)])


# %% [markdown]
# ## All of it

# %%
if args.data is None:  # nothing given: the folder in CMRSEG_DATA, or synthetic slices
    args.data = Path(os.environ.get("CMRSEG_DATA", ""))
    if not (args.data / "train").is_dir():
        from cmrseg import data as slices

        args.data = args.out / "phantoms"
        slices.write_root(args.data)
if os.environ.get("CMRSEG_BUDGET") == "smoke":
    args.epochs = 1

learn, held_out = Hearts(args.data / "train"), Hearts(args.data / "val")
truth = np.stack([mask.numpy() for _, mask in held_out])
curve = []


def score(model, epoch, loss):
    """Score the held-out slices every ten epochs, and at the end."""
    if epoch % 10 == 0 or epoch == args.epochs:
        scores = np.array([dice(p, t) for p, t in zip(predict(model, held_out), truth)])
        curve.append((epoch, loss, np.nanmean(np.nanmean(scores, 0))))
        print("epoch {:3}   loss {:.3f}   validation Dice {:.3f}".format(*curve[-1]))


model = train(
    learn, (8, 16, 32, 64, 128), args.epochs, seed=args.seed, after_epoch=score
)

# %%
names, masks = [path.stem for path in held_out.paths], predict(model, held_out)
write_masks(args.out / "val", names, masks)
write_submission(args.out / "submission.csv", names, masks)
torch.save(model.state_dict(), args.out / "weights.pt")
epochs, losses, scores = zip(*curve)
figure, ax = plt.subplots(figsize=(7, 3))
ax.plot(epochs, losses, label="training loss")
ax.plot(epochs, scores, label="validation Dice")
ax.set(xlabel="epoch", ylim=(0, None))
ax.legend()
figure.savefig(args.out / "curve.png")
