"""How many trainings of `sprint` does a device finish in a minute? One alone, or side by side.

    python benchmarks/side_by_side.py [--device cuda] [--at-once 1 2 4 8] > side_by_side.md

Each training is a process with a seed of its own; on processors each has one thread, on a GPU all
share the chip. They warm up with one epoch, wait for each other and start together; the clock stops
with the last. In fp32, and in bf16 where it is asked for (where the device is not made for it, it
may take a hundred times longer). With --compile the network's forward and backward pass go through
torch.compile, on a GPU recorded as CUDA graphs; the warm-up pays for it. Dice is of the 20
validation slices, after the last epoch.
"""

import argparse
import multiprocessing
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace


def one(seed: int, options: argparse.Namespace, precision: str) -> tuple[float, float, float]:
    """Train once, when all others are ready: when it started and ended, and its Dice."""
    import torch

    from cmrseg import datasets
    from cmrseg.config import PRESETS
    from cmrseg.record import mean_dice
    from cmrseg.train import fit, score

    if options.device == "cpu":
        torch.set_num_threads(1)
    config = replace(PRESETS["sprint"], seed=seed, epochs=options.epochs)
    if options.compile:
        config = replace(config, model=compiled(config.model))
    train, held_out = datasets.split(options.data, "val")
    fit(replace(config, epochs=1), train, precision=precision, device=options.device)
    together.wait(600)  # or else one of them failed
    started = time.time()
    result = fit(config, train, precision=precision, device=options.device)
    ended = time.time()
    return started, ended, mean_dice(score(result, held_out))


def compiled(name: str) -> str:
    """Register a network once more, compiled; returns its new name."""
    import torch

    from cmrseg.models import MODELS

    network = MODELS[name]
    forward = torch.compile(network.forward, mode="reduce-overhead")
    MODELS[f"{name}, compiled"] = type(network.__name__, (network,), {"forward": forward})
    return f"{name}, compiled"


def meet(barrier) -> None:
    """Give a process the point at which all wait for each other."""
    global together
    together = barrier


def side_by_side(
    at_once: int, options: argparse.Namespace, precision: str
) -> tuple[float, list[float]]:
    """Seconds from the first start to the last end of so many trainings, and the Dice of each."""
    processes = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(at_once, processes, meet, (processes.Barrier(at_once),)) as pool:
        waiting = [pool.submit(one, seed, options, precision) for seed in range(at_once)]
        started, ended, dice = zip(*(each.result() for each in waiting))
    return max(ended) - min(started), list(dice)


def main() -> None:
    from cmrseg.config import PRESETS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="acdc96", help="acdc96, phantom or a data root (default: acdc96)"
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where to train (default: cpu)"
    )
    parser.add_argument(
        "--at-once", type=int, nargs="+", default=[1, 2], help="how many at once (default: 1 2)"
    )
    parser.add_argument(
        "--epochs",
        type=int,
        default=PRESETS["sprint"].epochs,
        help="of each training (default: %(default)s, all of them)",
    )
    parser.add_argument(
        "--precision", nargs="+", default=["fp32"], help="fp32, bf16 (default: fp32)"
    )
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    options = parser.parse_args()

    import torch

    from cmrseg import datasets
    from cmrseg.record import processor

    datasets.split(options.data, "val")  # or complain before a process is started
    device = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"{processor()}, a thread each"
    )
    print(
        "# Side by side\n\nWritten by `benchmarks/side_by_side.py`, which says what is measured; "
        f"{device}, torch {torch.__version__}, Python {platform.python_version()}; "
        f"{options.epochs} epochs of `sprint`"
        f"{', compiled' if options.compile else ''}.\n"
    )
    print("| precision | at once | seconds | trainings a minute | Dice |\n|---|---|---|---|---|")
    for precision in options.precision:
        for at_once in options.at_once:
            seconds, dice = side_by_side(at_once, options, precision)
            print(
                f"| {precision} | {at_once} | {seconds:.2f} | {60 * at_once / seconds:.1f} | "
                f"{', '.join(f'{each:.3f}' for each in dice)} |",
                flush=True,
            )


if __name__ == "__main__":
    from cmrseg.data import BadInput

    try:
        main()
    except BadInput as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
