"""How fast does `predict` segment? Beside the report's way to do it, and over ten thousand slices.

    python benchmarks/inference.py [--data DIR] [--threads 2] > benchmarks/inference.md

Three processes, one after the other, with the same threads, in fp32, each with a network that has
been asked once:

- `python -m cmrseg predict --model small` over the 80 test slices;
- the report's way over the same slices: its network, read, asked and written one slice after the
  other. Its weights were never published; ours are random ones of the same shapes, which takes the
  same time;
- `predict --model small` over 10,000 files (the embedded phantoms, again and again).

Of each, the time of the loop alone, from a network that is ready to the last mask on disk; the time
of the whole process, with start, imports and loading; and the most memory it held. The first two
run five times in turn; the median counts.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TIMES = 5
MANY = 10_000


def ours(images: Path, out: Path) -> tuple[float, float]:
    """Seconds of the loop of `predict --model small`, and those of the network in them."""
    from cmrseg import cli
    from cmrseg.deploy import weights

    find, ready, network = weights.find, [], []

    def noted(model: str):
        asked = find(model)

        def timed(slices):
            begun = time.perf_counter()
            masks = asked(slices)
            network.append(time.perf_counter() - begun)
            return masks

        ready.append(time.perf_counter())
        return timed

    weights.find = noted
    cli.predict(model="small", images=images, out=out)
    return time.perf_counter() - ready[0], sum(network)


def report(images: Path, out: Path) -> tuple[float, float]:
    """Seconds of the loop of the report's network, slice by slice, and its own in them."""
    import numpy as np
    import torch
    from PIL import Image

    from cmrseg.config import PRESETS
    from cmrseg.models import build

    out.mkdir()
    network = build(PRESETS["report"]).eval()
    with torch.no_grad():
        network(torch.zeros(1, 1, 96, 96))  # ours is tried out, too, before it is ready
    begun, inside = time.perf_counter(), 0.0
    for path in images.glob("*.png"):
        image = torch.from_numpy(np.array(Image.open(path), np.float32))[None, None]
        asked = time.perf_counter()
        with torch.no_grad():
            mask = network(image).softmax(1).argmax(1)[0]
        inside += time.perf_counter() - asked
        Image.fromarray(mask.byte().numpy()).save(out / f"{path.stem}_mask.png")
    return time.perf_counter() - begun, inside


def measured(way: str, images: Path, threads: int) -> tuple[float, float, float, float]:
    """One process: seconds of its loop, of all of it, megabytes at most, the network's seconds."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable,
            __file__,
            "--one",
            way,
            "--images",
            str(images),
            "--out",
            f"{folder}/masks",
        ]
        begun = time.perf_counter()
        done = subprocess.run(words, env=environment, text=True, capture_output=True, check=False)
        whole = time.perf_counter() - begun
    if done.returncode:
        raise SystemExit(done.stderr)
    loop, network, memory = json.loads(done.stdout.splitlines()[-1])
    return loop, whole, memory, network


def most_held() -> float:
    """Megabytes that this process held at most; ``getrusage`` would count its parent's, too."""
    if not Path("/proc/self/status").is_file():
        return math.nan
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) / 1000


def write(images, count: int, folder: Path) -> None:
    """So many pictures in a folder, of images uint8 (N, H, W), again and again."""
    from cmrseg.data import write_png

    for number in range(count):
        write_png(folder / f"cmr{number + 1}.png", images[number % len(images)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="acdc96", help="acdc96, phantom or a data root (default: acdc96)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="of every process (default: all cores)"
    )
    for hidden in ("--one", "--images", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        times = {"ours": ours, "report": report}[options.one](
            Path(options.images), Path(options.out)
        )
        print(json.dumps([*times, most_held()]))
        return

    from cmrseg import datasets
    from cmrseg.record import processor

    test = datasets.load(options.data, "test").images
    with tempfile.TemporaryDirectory() as folder:
        write(test, len(test), Path(folder))
        turns = [
            (
                measured("ours", Path(folder), options.threads),
                measured("report", Path(folder), options.threads),
            )
            for _ in range(TIMES)
        ]
    mine, theirs = (tuple(map(statistics.median, zip(*way))) for way in zip(*turns))
    with tempfile.TemporaryDirectory() as folder:
        write(datasets.load("phantom", "labelled").images, MANY, Path(folder))
        many = measured("ours", Path(folder), options.threads)
    print(
        "# Prediction\n\nWritten by `benchmarks/inference.py`, which says what is measured; "
        f"{processor()}, {options.threads} threads, Python {platform.python_version()}.\n"
    )
    print(
        "| what | slices | loop, s | of it the network, s | slices a second | whole process, s "
        "| MB at most |\n"
        "|---|---|---|---|---|---|---|"
    )
    for name, number, (loop, whole, memory, network) in (
        ("`predict --model small`", len(test), mine),
        ("the report's way", len(test), theirs),
        ("`predict --model small`", MANY, many),
    ):
        print(
            f"| {name} | {number} | {loop:.2f} | {network:.2f} | {number / loop:.0f} "
            f"| {whole:.2f} | {memory:.0f} |"
        )
    print(
        f"\n`small` is {theirs[0] / mine[0]:.1f} times as fast in the loop, "
        f"{theirs[1] / mine[1]:.1f} times from start to end. We had hoped for 20 and 4. "
        f"In the loop, {mine[3] / mine[0]:.0%} of the time is the network's own arithmetic, "
        f"{1000 * mine[3] / len(test):.1f} ms a slice; "
        f"had all else taken no time, it would be {theirs[0] / mine[3]:.1f} times as fast."
    )


if __name__ == "__main__":
    from cmrseg.data import BadInput

    try:
        main()
    except BadInput as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
