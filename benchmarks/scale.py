"""What would a study of 100,000 patients cost with this code?

    python benchmarks/scale.py > benchmarks/scale.md

Measured, on the embedded phantoms: the same eight short trainings by one worker, by two, and by two
Ray nodes of one core each (with ray installed: requirements-cluster.txt), each timed from its first
batch to its last, without the start of its process; a training of `book` and a prediction with
`small`, on one thread. The rest is multiplication; README.md beside this file says what it assumes.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

PATIENTS = 100_000
PHASES, LEVELS = 2, 10  # end-diastole and end-systole; slices from base to apex
FOLDS, SEEDS, CORES = 5, 5, 64
EPOCHS = 6
BYTES = 14  # of a pixel in training: stored, as float32, its label stored, as int64


def short_trainings(workers: int, engine: str) -> float:
    """Seconds of an epoch in the middle one of eight short trainings, so many of them at a time."""
    from cmrseg.config import PRESETS
    from cmrtrial.runner import run_missing
    from cmrtrial.spec import RunSpec

    config = replace(PRESETS["replica"], epochs=EPOCHS)
    plan = [RunSpec("short", replace(config, seed=s), "fold0", "replica") for s in range(8)]
    with tempfile.TemporaryDirectory() as store:
        left = run_missing(plan, "phantom", Path(store), workers, engine=engine)
        assert left == 0
        spent = [
            json.loads(path.read_text(encoding="utf-8"))["seconds"]
            for path in Path(store).rglob("*.json")
        ]
        return statistics.median(spent) / EPOCHS


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
    from cmrseg import datasets
    from cmrseg.config import PRESETS
    from cmrseg.train import fit

    train, _ = datasets.split("phantom", "val")
    result = fit(replace(PRESETS["book"], epochs=4), train)
    return 4 * len(train) / result.seconds


def prediction_rate() -> float:
    """Slices a second that one thread segments with `small`."""
    from cmrseg import datasets
    from cmrseg.deploy.weights import find_ensemble

    images, ensemble = datasets.load("phantom", "labelled").images, find_ensemble("small")
    ensemble.predict(images[:20])
    begun = time.perf_counter()
    ensemble.predict(images)
    return len(images) / (time.perf_counter() - begun)


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()

    import torch

    from cmrseg.record import processor

    torch.set_num_threads(1)
    print(
        "# A hundred thousand patients\n\nWritten by `benchmarks/scale.py`; what it assumes is in "
        f"[README.md](README.md). {processor()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}.\n"
    )
    spent = {"one worker": short_trainings(1, "local"), "two workers": short_trainings(2, "local")}
    if find_spec("ray"):
        spent["two Ray nodes of one core"] = two_nodes()
    print(workers(spent))
    print("\n" + costs(training_rate(), prediction_rate()))


def workers(spent: dict[str, float]) -> str:
    """A table of the seconds that an epoch takes while others train beside, by who trains."""
    alone = spent["one worker"]
    rows = [
        f"| {name} | {seconds:.2f} | {alone / seconds:.0%} |" for name, seconds in spent.items()
    ]
    head = [
        "| short trainings by | seconds an epoch, of each | speed that each keeps |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows])


def costs(shown: float, seen: float) -> str:
    """What the study costs, of the slices a second that a thread shows in training and segments."""
    from cmrseg.config import PRESETS

    epochs, learned = PRESETS["book"].epochs, PHASES * PATIENTS * (FOLDS - 1) // FOLDS
    one, memory = epochs * learned / shown / 3600, learned * 96 * 96 * BYTES / 1e9
    all_slices, sweep = PATIENTS * PHASES * LEVELS, FOLDS * SEEDS
    hours = all_slices / seen / 3600
    rows = (
        (
            f"one training of `book` on {PHASES} slices of each patient, {epochs} epochs",
            one,
            one,
            f"{memory:.0f}",
        ),
        (
            f"{FOLDS} folds x {SEEDS} seeds of it",
            sweep * one,
            one * -(-sweep // CORES),
            f"{min(sweep, CORES) * memory:.0f}",
        ),
        (f"`small` on all {all_slices:,} slices", hours, hours / CORES, "streams"),
    )
    lines = [
        f"| {name} | {work:,.0f} | {wait / 24:.1f} | {held} |" for name, work, wait, held in rows
    ]
    return "\n".join(
        [
            f"| what | core hours | days on {CORES} cores | GB of memory, at the least |",
            "|---|---|---|---|",
            *lines,
            "",
            f"One thread shows a `book` in training {shown:.0f} slices a second and segments "
            f"{seen:.0f} with `small`.",
        ]
    )


if __name__ == "__main__":
    main()
