"""Plans about time: trainings as long as two cores allow, and short ones that serve as a clock."""

from dataclasses import replace
from pathlib import Path

from cmrtrial.plans.report import NETS
from cmrtrial.spec import EXPERIMENTS, FOLDS, RunSpec, runs

# Trainings of different days are not a clock: the same one took a sixth longer on another day. So
# the claims about time have short trainings of their own, in rounds: each setting once in a round,
# one after the other.
TIMED = {
    "kernel-size": ("3", "5"),
    "depth": ("2", "6"),
    "dropout": ("0", "0.3"),
    "augmentation": ("none", "mirrored, doubled"),
    "architectures": tuple(NETS),
}
CLOCK_BASELINE, ROUNDS = ("kernel-size", "3"), range(10)


# As long as forty minutes of two cores allow: seven times the recipe's epochs.
EXPERIMENTS["early-stopping"] = [
    replace(spec, score_train=True)
    for protocol, epochs in (("replica", 700), ("modern", 240))
    for spec in runs(protocol, FOLDS, settings={"long": {"epochs": epochs}})
]


def timed(name: str, setting: str, number: int) -> RunSpec:
    """The short training of a setting in a round of the experiment ``clock``."""
    specs = (s for s in EXPERIMENTS[name] if (s.setting, s.protocol) == (setting, "replica"))
    config = replace(next(specs).config, epochs=6, seed=number)
    return RunSpec(f"{name}, {setting}", config, "val", "replica")


def _rounds() -> list[RunSpec]:
    """All rounds, each begun and ended by the baseline: the second checks, with its own seeds."""
    specs: dict[Path, RunSpec] = {}  # several experiments have the baseline among their settings
    for number in ROUNDS:
        for spec in [timed(name, setting, number) for name in TIMED for setting in TIMED[name]]:
            specs.setdefault(spec.path(), spec)
        again = timed(*CLOCK_BASELINE, number + len(ROUNDS))
        specs[again.path()] = replace(again, setting="the first once more")
    return list(specs.values())


EXPERIMENTS["clock"] = _rounds()
