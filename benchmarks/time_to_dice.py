"""How long until a network knows these slices? This package beside MONAI, nnU-Net, the report.

    python benchmarks/time_to_dice.py [--data DIR] [--threads 2] [--full]

Every training has a process of its own with the same threads, in fp32, learns from the 100 training
slices and is scored on the 20 validation slices after every epoch. Two clocks run: one begins with
the process, the other when everything is imported and before the first slice is read.

- `sprint` and `book` are presets of this package. `sprint` ends at a fixed epoch, and its time is
  that of its end; ten seeds, all of them shown.
- MONAI: its residual U-Net (16 to 256 channels), its Dice and cross-entropy, Adam, its transforms.
- nnU-Net: the PlainConvUNet that its planner gives to slices of this size, from He's random
  weights. Dice (of the three classes, over the batch) and cross-entropy at each level but the
  coarsest; SGD with Nesterov momentum 0.99, gradients clipped at norm 12. Its augmentation with its
  own probabilities, made by MONAI's transforms. Not had here: its patches and its loader of many
  processes, 1000 epochs of 250 batches, and predictions averaged over mirrored slices, which would
  take longer.
- Both take four slices at a time, augmented one by one in the process that trains, and have one
  seed. Their time is when they *first* pass the target, which flatters them; so does that their
  rates and schedules were chosen on the slices they are scored on. With --full each runs to its end
  at three learning rates, constant and two lengths of one-cycle, and nnU-Net with its own fall of
  the rate, (1 - done) ** 0.9; otherwise at the fastest of these, and MONAI at Adam's usual rate as
  well, until the target is passed.
- The report's recipe, in our code: five epochs are timed, and scaled to the first epoch at which
  its published code, run again, is known to have passed the target: an estimate, and rather too
  long, since it was scored every 20 epochs there. With --full it runs to its end.

It writes time_to_dice.json beside this file (time_to_dice_full.json with --full), which the page
"Ten seconds" reads, and prints a table. A full run that was stopped goes on where it was, on the
same machine. It needs: pip install --no-deps -r requirements-bench.txt
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

SEEDS = 10
RATES = {"MONAI": (0.001, 0.003, 0.01), "nnU-Net": (0.003, 0.01, 0.03)}
SCHEDULES = (("constant", 60), ("one-cycle", 25), ("one-cycle", 16))  # and how many epochs
SCHEDULES = {"MONAI": SCHEDULES, "nnU-Net": (*SCHEDULES, ("polynomial", 25))}
# What runs without --full: the fastest of time_to_dice_full.json, and MONAI at Adam's usual rate.
CHOSEN = {
    "MONAI": [(0.01, "one-cycle", 25), (0.001, "constant", 60)],
    "nnU-Net": [(0.003, "constant", 60)],
}
BATCH = 4
TIMED = 5  # epochs of the report's recipe


# --- one training, in a process of its own -------------------------------------------------------


class Clock:
    """Notes the validation Dice after each epoch, and when; made when everything is imported."""

    def __init__(self):
        import torch._dynamo  # noqa: F401  a second long; PyTorch's optimisers would import it at their first step

        self.begun, self.seconds, self.dice = time.time(), [], []

    def note(self, dice: float) -> None:
        self.seconds.append(round(time.time() - self.begun, 3))
        self.dice.append(round(dice, 5))


def ours(asked: dict, source: str) -> Clock:
    """A preset of this package, for the asked number of epochs or to its end; scored after every
    epoch, where ``fit`` alone would skip some of a long training."""
    from cmrseg import datasets
    from cmrseg.config import PRESETS
    from cmrseg.record import mean_dice
    from cmrseg.train import fit

    clock = Clock()
    config, last = replace(PRESETS[asked["preset"]], seed=asked["seed"]), asked.get("epochs")

    def note(history: dict) -> bool:
        clock.note(mean_dice(history["dice"][-1]))
        return len(history["epoch"]) == last

    fit(config, *datasets.split(source, "val"), device="cpu", callback=note, score_every=1)
    return clock


def rival(asked: dict, source: str) -> Clock:
    """MONAI's or nnU-Net's network, as its makers train it."""
    import torch
    import torch.nn.functional as F
    from monai.utils import set_determinism

    from cmrseg import datasets, metrics
    from cmrseg.augment import normalise

    make = {"MONAI": monai, "nnU-Net": nnunet}[asked["rival"]](asked["rate"])
    clock = Clock()
    torch.set_flush_denormal(True)  # as in ours
    set_determinism(asked["seed"])
    net, optimiser, loss, most, transform = make()
    train, held_out = datasets.split(source, "val")
    images, labels = normalise(train.images), torch.from_numpy(train.masks)[:, None].float()
    epochs = asked["epochs"]
    steps, scheduler = epochs * -(-len(train) // BATCH), torch.optim.lr_scheduler
    falling = {
        "constant": lambda: scheduler.ConstantLR(optimiser, 1),
        "one-cycle": lambda: scheduler.OneCycleLR(
            optimiser, asked["rate"], steps, cycle_momentum=False
        ),
        "polynomial": lambda: scheduler.PolynomialLR(optimiser, steps, 0.9),
    }[asked["schedule"]]()
    for _ in range(epochs):
        net.train()
        for chosen in torch.randperm(len(train)).split(BATCH):
            pairs = [transform({"image": images[i], "label": labels[i]}) for i in chosen]
            x, y = (
                torch.stack([torch.as_tensor(pair[key]) for pair in pairs])
                for key in ("image", "label")
            )
            logits = net(x)
            levels = (
                logits[:-1] if isinstance(logits, list) else [logits]
            )  # the coarsest counts nothing in nnU-Net
            weights = [0.5**n for n in range(len(levels))]
            sizes = [F.interpolate(y, level.shape[2:], mode="nearest-exact") for level in levels]
            optimiser.zero_grad()
            (
                sum(w * loss(*pair) for w, *pair in zip(weights, levels, sizes)) / sum(weights)
            ).backward()
            if most is not None:
                torch.nn.utils.clip_grad_norm_(net.parameters(), most)
            optimiser.step()
            falling.step()
        net.eval()
        with torch.inference_mode():
            masks = net(normalise(held_out.images)).argmax(1).numpy()
        clock.note(metrics.mean(metrics.dice(masks, held_out.masks)))
        if clock.dice[-1] >= asked.get("until", math.inf):
            break
    return clock


def monai(rate: float):
    """A function that makes MONAI's network, optimiser, loss, gradient limit (none), transforms."""
    import torch
    from monai import transforms as t
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    def make():
        net = UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=4,
            channels=(16, 32, 64, 128, 256),
            strides=(2, 2, 2, 2),
            num_res_units=2,
        )
        loss = DiceCELoss(softmax=True, to_onehot_y=True)
        return (
            net,
            torch.optim.Adam(net.parameters(), rate),
            loss,
            None,
            t.Compose(
                [
                    t.RandAffined(
                        ("image", "label"),
                        prob=0.8,
                        rotate_range=0.5,
                        scale_range=0.2,
                        translate_range=8,
                        mode=("bilinear", "nearest"),
                        padding_mode=("border", "zeros"),
                    ),
                    t.RandScaleIntensityd(("image",), 0.2, prob=0.5),
                    t.RandShiftIntensityd(("image",), 0.2, prob=0.5),
                    t.RandGaussianNoised(("image",), prob=0.2, std=0.1),
                ]
            ),
        )

    return make


def nnunet(rate: float):
    """A function that makes nnU-Net's plain network, optimiser, loss, most norm of a gradient and
    augmentation, as its nnUNetTrainer (version 2) does."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from monai import transforms as t
    from monai.losses import DiceCELoss

    both, image, way = ("image", "label"), ("image",), {"mode": ("bilinear", "nearest")}

    class Net(PlainConvUNet):
        def train(self, mode: bool = True):
            self.decoder.deep_supervision = (
                mode  # all levels in training, the finest alone otherwise
            )
            return super().train(mode)

    def make():
        net = Net(
            1,
            5,
            [32, 64, 128, 256, 512],
            torch.nn.Conv2d,
            3,
            [1, 2, 2, 2, 2],
            2,
            4,
            2,
            conv_bias=True,
            norm_op=torch.nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=torch.nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
        )
        net.apply(net.initialize)
        optimiser = torch.optim.SGD(
            net.parameters(), rate, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
        loss = DiceCELoss(
            include_background=False,
            softmax=True,
            to_onehot_y=True,
            batch=True,
            smooth_nr=1e-5,
            smooth_dr=1e-5,
        )
        return (
            net,
            optimiser,
            loss,
            12,
            t.Compose(
                [
                    t.RandAffined(both, prob=0.2, rotate_range=3.14, padding_mode="zeros", **way),
                    t.RandZoomd(
                        both, prob=0.2, min_zoom=0.7, max_zoom=1.4, padding_mode="constant", **way
                    ),
                    t.RandGaussianNoised(image, prob=0.1, std=0.1),
                    t.RandGaussianSmoothd(image, (0.5, 1.0), (0.5, 1.0), prob=0.1),
                    t.RandScaleIntensityd(image, 0.25, prob=0.15),
                    t.RandScaleIntensityFixedMeand(
                        image, factors=0.25, preserve_range=True, prob=0.15
                    ),
                    t.RandSimulateLowResolutiond(
                        image, prob=0.125, downsample_mode="nearest-exact", upsample_mode="bilinear"
                    ),
                    t.RandAdjustContrastd(
                        image, prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True
                    ),
                    t.RandAdjustContrastd(image, prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
                    t.RandFlipd(both, prob=0.5, spatial_axis=0),
                    t.RandFlipd(both, prob=0.5, spatial_axis=1),
                ]
            ),
        )

    return make


# --- all of them ---------------------------------------------------------------------------------


def plan(full: bool) -> list[dict]:
    """What is trained, in order; ``name`` is what the table says."""
    tried, until = [], {} if full else {"until": target()[0]}
    for name, chosen in CHOSEN.items():
        for rate, schedule, epochs in (
            [(r, *s) for r, s in product(RATES[name], SCHEDULES[name])] if full else chosen
        ):
            tried.append(
                {
                    "name": f"{name}, {schedule}, {epochs} epochs, {rate:g}",
                    "rival": name,
                    "rate": rate,
                    "schedule": schedule,
                    "epochs": epochs,
                    "seed": 0,
                }
                | until
            )
    return [
        *({"name": "sprint", "preset": "sprint", "seed": seed} for seed in range(SEEDS)),
        {"name": "book", "preset": "book", "seed": 0},
        *tried,
        {"name": "the report's recipe", "preset": "report", "seed": 0}
        | ({} if full else {"epochs": TIMED}),
    ]


def train(asked: dict, options: argparse.Namespace) -> dict:
    """One training in a process of its own, and what its clocks said."""
    threads = str(options.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    words = [
        sys.executable,
        __file__,
        "--data",
        options.data,
        "--threads",
        threads,
        "--one",
        json.dumps(asked),
    ]
    born = time.time()
    done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout.splitlines()[-1])
    return asked | {"imports": round(result.pop("begun") - born, 3)} | result


def asked_of(run: dict) -> dict:
    """What was asked for, of what :func:`train` found."""
    return {
        name: value for name, value in run.items() if name not in ("imports", "seconds", "dice")
    }


def one(asked: dict, source: str) -> None:
    """The training that a process of its own was started for."""
    print(json.dumps(vars((rival if "rival" in asked else ours)(asked, source))))


def target() -> tuple[float, int]:
    """Where the report's published code, run again, ended, and the first epoch at which it is known
    to have stood there: an upper bound, since it was scored now and then (0.826 after 90 epochs,
    0.839 after 110)."""
    from cmrtrial.records import reported_numbers

    again = {
        int(epoch): dice for epoch, dice in reported_numbers()["rerun"]["dice_by_epoch"].items()
    }
    end = again[max(again)]
    return end, min(epoch for epoch, dice in again.items() if dice >= end)


def reached(run: dict, dice: float, epoch: int) -> float | None:
    """Seconds after the imports at which a training passed ``dice``: of `sprint` its end, and of
    the report's recipe, if it was not run to its end, an estimate: ``epoch`` times what one
    took."""
    if run["name"] == "sprint":
        return run["seconds"][-1]
    if run.get("epochs") == TIMED:
        first, last = run["seconds"][0], run["seconds"][-1]
        return first + (last - first) / (len(run["seconds"]) - 1) * (epoch - 1)
    return next((s for s, d in zip(run["seconds"], run["dice"]) if d >= dice), None)


def table(runs: list[dict], dice: float, epoch: int) -> list[tuple[str, ...]]:
    """A head, and a row for each training, the ten of `sprint` in one: seconds from the first
    slice, seconds from the start of the process, and how many times those of `sprint` both are."""
    sprints = [run for run in runs if run["name"] == "sprint"]
    mean = sum(run["seconds"][-1] for run in sprints) / len(sprints)
    whole = mean + sum(run["imports"] for run in sprints) / len(sprints)
    ends = sorted(run["dice"][-1] for run in sprints)
    shown = f"{sum(ends) / len(ends):.4f} at the end, from {ends[0]:.3f} to {ends[-1]:.3f}"
    rows = [
        ("training", "seconds", "with imports", "x sprint", "x with imports", "validation Dice"),
        (f"sprint, {len(sprints)} seeds", f"{mean:.1f}", f"{whole:.1f}", "1", "1", shown),
    ]
    for run in runs:
        if run["name"] == "sprint":
            continue
        estimated, seconds = (
            " (estimated)" if run.get("epochs") == TIMED else "",
            reached(run, dice, epoch),
        )
        times = (
            ("not reached", "", "", "")
            if seconds is None
            else (
                f"{seconds:.1f}",
                f"{seconds + run['imports']:.1f}",
                f"{seconds / mean:.1f}",
                f"{(seconds + run['imports']) / whole:.1f}",
            )
        )
        passed = run["dice"][-1] >= run.get("until", math.inf)
        end = (
            "when it passed"
            if passed
            else f"after {TIMED} epochs"
            if estimated
            else f"at the end, {max(run['dice']):.3f} at most"
        )
        rows.append((run["name"] + estimated, *times, f"{run['dice'][-1]:.3f} {end}"))
    return rows


def in_columns(rows: list[tuple[str, ...]]) -> str:
    """The rows of a table as lines of text."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="acdc96", help="acdc96, phantom or a data root (default: acdc96)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of every training (default: all cores)"
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="all rates and schedules, and the report to its end: hours",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        return one(json.loads(options.one), options.data)
    from tqdm import tqdm

    from cmrseg import datasets
    from cmrseg.record import processor

    datasets.split(options.data, "val")  # or complain before anything is trained
    dice, epoch = target()
    out = Path(__file__).with_name(
        "time_to_dice_full.json" if options.full else "time_to_dice.json"
    )
    about = {
        "machine": processor(),
        "threads": options.threads,
        "target": dice,
        "report_epoch": epoch,
    }
    runs, part, planned = [], out.with_suffix(".part"), plan(options.full)
    if options.full and part.is_file():
        saved = json.loads(part.read_text(encoding="utf-8"))
        runs = saved.pop("runs") if about == {key: saved[key] for key in about} else []
    runs = [run for run in runs if asked_of(run) in planned]
    left = [asked for asked in planned if asked not in map(asked_of, runs)]
    for asked in tqdm(left, initial=len(runs), total=len(planned), unit="training"):
        runs.append(train(asked, options))
        save(part, about | {"runs": runs})
    runs.sort(key=lambda run: planned.index(asked_of(run)))
    rows = table(runs, dice, epoch)
    save(out, about | {"table": rows, "runs": runs})
    part.unlink()
    print(in_columns(rows))


def save(path: Path, results: dict) -> None:
    """Write a file whole or not at all."""
    from cmrseg.data import write_bytes

    write_bytes(path, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    from cmrseg.data import BadInput

    try:
        main()
    except BadInput as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
