"""What would a study of 100,000 patients cost with this code?

    python benchmarks/scale.py > benchmarks/scale.md

Measured, on the embedded phantoms: the same eight short trainings by one worker, by two, and by two Ray nodes of one
core each (with ray installed: requirements-cluster.txt); a training of `book` and a prediction with `small`, on one
thread. Then the rest is multiplication, and its assumptions are written beside it.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

PATIENTS = 100_000
PHASES, LEVELS = 2, 10  # end-diastole and end-systole; slices from base to apex
FOLDS, SEEDS, CORES = 5, 5, 64


def short_trainings(workers: int, engine: str) -> float:
    """Seconds that eight short trainings take."""
    from cmrseg.experiments import Planned, run_missing
    from cmrseg.training import PRESETS

    plan = [Planned("short", replace(PRESETS["replica"], epochs=3, seed=seed), "fold0", "replica") for seed in range(8)]
    with tempfile.TemporaryDirectory() as store:
        begun = time.perf_counter()
        left = run_missing(plan, "phantom", Path(store), workers, engine=engine)
        assert left == 0
        return time.perf_counter() - begun


def two_nodes() -> float:
    """The same by two Ray nodes of one core."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return short_trainings(2, "ray")
    finally:
        ray.shutdown()
        cluster.shutdown()


def training_rate() -> float:
    """Slices a second that one thread shows a `book` in training."""
    from cmrseg import data
    from cmrseg.training import PRESETS, fit

    train, _ = data.split("phantom", "val")
    run = fit(replace(PRESETS["book"], epochs=4), train, precision="fp32")
    return 4 * len(train) / run.seconds


def prediction_rate() -> float:
    """Slices a second that one thread segments with `small`."""
    from cmrseg import data, ensemble

    images, network = data.load("phantom", "labelled").images, ensemble.find("small")
    ensemble.predict(network, images[:20])
    begun = time.perf_counter()
    ensemble.predict(network, images)
    return len(images) / (time.perf_counter() - begun)


def main() -> None:
    import torch

    from cmrseg.results import _processor

    torch.set_num_threads(1)
    print("# A hundred thousand patients\n\nWritten by `benchmarks/scale.py`, which says what is measured; "
          f"{_processor()}, torch {torch.__version__}, Python {platform.python_version()}.\n")
    print("| eight short trainings by | seconds | times as fast as one worker |\n|---|---|---|")
    ways = {"one worker": (1, "local"), "two workers": (2, "local")}
    spent = {name: short_trainings(*how) for name, how in ways.items()}
    if find_spec("ray"):
        spent["two Ray nodes of one core"] = two_nodes()
    for name, seconds in spent.items():
        print(f"| {name} | {seconds:.0f} | {spent['one worker'] / seconds:.1f} |")
    shown, seen = training_rate(), prediction_rate()
    print(f"\nOne thread shows a `book` in training {shown:.0f} slices a second and segments {seen:.0f} with `small`.\n")
    table(shown, seen, spent["one worker"] / spent["two workers"] / 2)


def table(shown: float, seen: float, kept: float) -> None:
    """Print what the study costs: slices a second in training and in prediction, share of two workers' time kept."""
    from cmrseg.training import PRESETS

    epochs, learned = PRESETS["book"].epochs, PHASES * PATIENTS * (FOLDS - 1) // FOLDS
    one = epochs * learned / shown / 3600
    all_slices = PATIENTS * PHASES * LEVELS
    hours = all_slices / seen / 3600
    rows = ((f"one training of `book` on two slices of each patient, {epochs} epochs", one, one),
            (f"{FOLDS} folds x {SEEDS} seeds of it", FOLDS * SEEDS * one, one * -(-FOLDS * SEEDS // CORES)),
            (f"`small` on all {all_slices:,} slices", hours, hours / CORES))
    print(f"| what | core hours | days on {CORES} cores |\n|---|---|---|")
    for name, work, wait in rows:
        print(f"| {name} | {work:,.0f} | {wait / 24:.1f} |")
    print(f"""
Assumptions:

- {PHASES} moments and {LEVELS} slices of each patient, of 96 x 96 pixels. A larger picture costs in proportion.
- The same epochs. With more patients fewer would do: each epoch brings {PATIENTS // 50:,} times as many steps as ours.
- One training runs on one core, and cannot be shared out: its days in the table are those of a single core. A sweep is
  shared out over its trainings, and two workers keep {kept:.0%} of what they should gain; nodes share a folder and nothing
  else, so that is taken to hold for more of them.
- `fit` holds all slices in memory, {96 * 96 * (4 + 8) / 1e3:.0f} kB each as float32 with labels of eight bytes: {
    learned * 96 * 96 * 12 / 1e9:.0f} GB for one training. On most machines this, not time, is where the code as it stands
  ends; labels of one byte, made long batch by batch, would halve it and more.
- `predict` streams: its memory does not grow with the folder.""")


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
