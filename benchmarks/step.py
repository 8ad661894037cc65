"""Where the time of a training step goes: `python benchmarks/step.py > benchmarks/step.md`.

One step of the `replica` recipe (two slices, one thread, fp32), as the sweep takes it, in variants
that might be cheaper; then its parts by kind and those of a step of `book` and `sprint`, which
augment their batch first; then how far the multiply-adds of all three are from a matrix product;
then what a whole training of a fold is made of. Every time is the median of many steps in this
process.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile

from cmrseg import metrics
from cmrseg.augment import augment
from cmrseg.config import PRESETS, TrainConfig
from cmrseg.datasets import phantom
from cmrseg.losses import LOSSES
from cmrseg.models import build, multiply_adds
from cmrseg.predict import predict
from cmrseg.record import processor
from cmrseg.train import make_optimiser, scored_epochs

CONFIG, NAMES = PRESETS["replica"], ("replica", "book", "sprint")
KINDS = {
    "convolution": ("convolution", "conv_transpose", "mkldnn"),
    "batch norm": ("batch_norm",),
    "ReLU": ("threshold", "relu", "clamp_min"),
    "pooling": ("pool",),
    "Adam": ("adam", "addcdiv", "_foreach"),
    "joining and copying": ("cat", "copy", "contiguous", "clone"),
    "filling": ("zero", "fill", "empty"),
}


def a_step(
    config: TrainConfig = CONFIG,
    channels_last: bool = True,
    fused: bool = False,
    compiled: bool = False,
    folds: int = 1,
) -> Callable:
    """A function that takes a training step, perhaps of several networks (:func:`side_by_side`)."""
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = (build(config) if folds == 1 else side_by_side(folds)).to(memory_format=layout)
    images = (255 * torch.rand(config.batch, folds, 96, 96)).contiguous(memory_format=layout)
    labels = torch.randint(0, 4, (config.batch * folds, 96, 96))
    parameters = list(model.parameters())
    optimiser = make_optimiser(config, parameters)
    if fused:
        optimiser = torch.optim.Adam(parameters, config.lr, fused=True)
    forward = torch.compile(model) if compiled else model

    def step() -> None:
        loss = LOSSES[config.loss](forward(images).reshape(len(labels), 4, 96, 96), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def side_by_side(folds: int) -> torch.nn.Module:
    """Several networks in one, each convolution in as many groups: one channel of the picture each.

    For its time only: where two levels are joined, channels are not sorted by network.
    """
    model = build(CONFIG)
    for name, layer in list(model.named_modules()):
        parent, _, last = name.rpartition(".")
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            transposed = isinstance(layer, torch.nn.ConvTranspose2d)
            wide = type(layer)(
                layer.in_channels * folds,
                layer.out_channels * folds,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                groups=folds,
                bias=layer.bias is not None,
                **({"output_padding": layer.output_padding} if transposed else {}),
            )
        elif isinstance(layer, torch.nn.BatchNorm2d):
            wide = torch.nn.BatchNorm2d(layer.num_features * folds)
        else:
            continue
        setattr(model.get_submodule(parent), last, wide)
    return model


def milliseconds(function: Callable[[], object], times: int = 60) -> float:
    """Median time of a call."""
    for _ in range(5):
        function()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        spent.append(1000 * (time.perf_counter() - start))
    return statistics.median(spent)


def kind_of(name: str) -> str:
    return next(
        (kind for kind, words in KINDS.items() if any(word in name for word in words)), "the rest"
    )


def shares(spent: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Each kind's share of the time, of the names of operations and what each took."""
    parts: dict[str, float] = {}
    for name, took in spent:
        kind = kind_of(name.lower())
        parts[kind] = parts.get(kind, 0) + took
    return {kind: part / sum(parts.values()) for kind, part in parts.items()}


def parts_of(config: TrainConfig) -> dict[str, float]:
    """Milliseconds of a step by kind, and of the augmentation of its batch."""
    step = a_step(config)
    whole = milliseconds(step, 20)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(20):
            step()
    found = shares((event.key, event.self_cpu_time_total) for event in profiled.key_averages())
    rng = torch.Generator().manual_seed(0)
    images, labels = (
        torch.rand(config.batch, 1, 96, 96),
        torch.randint(0, 4, (config.batch, 96, 96)),
    )
    varied = (
        milliseconds(lambda: augment(images, labels, config.augment, rng), 20)
        if config.augment
        else 0.0
    )
    return {kind: whole * share for kind, share in found.items()} | {"augmentation": varied}


def table(parts: dict[str, dict[str, float]]) -> str:
    """Milliseconds and shares of the parts of each recipe's step, the last's longest first."""
    last = [*parts.values()][-1]
    lines = [
        "| part | " + " | ".join(f"`{name}`, ms | share" for name in parts) + " |",
        "|---|" + "---|---|" * len(parts),
    ]
    for kind in sorted(
        {kind for each in parts.values() for kind in each}, key=lambda kind: -last.get(kind, 0)
    ):
        cells = [
            f"{each.get(kind, 0):.1f} | {each.get(kind, 0) / sum(each.values()):.0%}"
            for each in parts.values()
        ]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(
        "# One training step\n\nWritten by `benchmarks/step.py`; medians, one thread, fp32,"
        f" {processor()}, torch {torch.__version__}, Python {platform.python_version()}.\n"
    )
    print("| variant, of the replica | milliseconds |\n|---|---|")
    for name, options in {
        "channels last, as in the sweep": {},
        "channels first": {"channels_last": False},
        "channels last, fused Adam": {"fused": True},
        "channels last, torch.compile": {"compiled": True},
    }.items():
        print(f"| {name} | {milliseconds(a_step(**options)):.1f} |")
    for layout in ("channels last", "channels first"):
        step = a_step(channels_last=layout == "channels last", folds=5)
        print(
            f"| {layout}, five folds as one network of grouped convolutions, for each | "
            f"{milliseconds(step, 20) / 5:.1f} |"
        )

    print("\n" + table({name: parts_of(PRESETS[name]) for name in NAMES}))

    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    product = 1024**3 / milliseconds(lambda: a @ b, 20) / 1e6
    print(
        f"\nA matrix product of 1024 x 1024 makes {product:.1f} billion multiply-adds a second "
        "on this thread."
    )
    for name in NAMES:
        config = PRESETS[name]
        work = (
            3 * config.batch * multiply_adds(build(config))
        )  # backwards costs twice what forwards does
        spent = milliseconds(a_step(config))
        print(
            f"A step of `{name}` ({config.batch} slices, {spent:.1f} ms) "
            f"makes {work / spent / 1e6:.1f}: "
            f"{work / spent / 1e6 / product:.0%}."
        )

    (images, masks), model = phantom.make(patients=12), build(CONFIG).eval()
    steps, scored = 48 * CONFIG.epochs, len(scored_epochs(CONFIG.epochs))

    def scoring() -> None:
        metrics.dice(predict(model, images, CONFIG.scale), masks)

    training, looking = (
        steps * milliseconds(a_step()) / 1000,
        scored * milliseconds(scoring, 10) / 1000,
    )
    print(
        f"\nA training on a fold is {steps} steps, {training:.0f} s, and {scored} scorings "
        f"of its 24 held-out slices, {looking:.0f} s."
    )


if __name__ == "__main__":
    main()
