"""Experiments as data: an experiment is a list of :class:`RunSpec`, an entry of ``EXPERIMENTS``."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cmrseg import data
from cmrseg.config import PRESETS, TrainConfig
from cmrseg.predict import TTA
from cmrtrial.records import STORE, path_of

ACDC96 = "da3871a4a8ce"  # fingerprint of the real labelled slices, so that their records are found

FOLDS = tuple(f"fold{k}" for k in range(data.FOLDS))
TRAIN_FOLDS = tuple(f"train-fold{k}" for k in range(data.FOLDS))
RANDOM = tuple(f"random{k}" for k in range(data.FOLDS))
TUNE = ("inner0",)  # whatever is tuned is tuned here, within the training part of fold 0


@dataclass(frozen=True)
class RunSpec:
    """One run to be recorded: what it stands for, and how it is made.

    Attributes:
        setting: its name within its experiment.
        config, split, protocol: what is trained, on which slices, and the recipe it belongs to.
        score_train, score_every, milestones: see :func:`cmrseg.train.fit`.
        keep: whether the network is kept in ``runs/networks``, for the specs that have ``tta``.
        tta: predict with kept networks in this way, instead of training one.
        seeds: those of the kept networks (on ``"val"`` they are of all folds); none: the config's.
        shift: how the held-out slices are changed: a name in :data:`cmrtrial.corruptions.LEVELS`
            and a level.
    """

    setting: str
    config: TrainConfig
    split: str
    protocol: str
    score_train: bool = False
    keep: bool = False
    tta: TTA | None = None
    seeds: tuple[int, ...] = ()
    shift: tuple[str, float] | None = None
    score_every: int | None = None
    milestones: tuple[int, ...] = ()

    @property
    def fold(self) -> str:
        """The fold of its split: ``"fold0"`` of ``"fold0@10"``, with the same patients held out."""
        return re.split("[@+]", self.split)[0]

    def key(self, fingerprint: str = ACDC96) -> str:
        """The key of its record, sixteen hex digits of what is trained or predicted with."""
        trained = self.config.key(self.split, fingerprint)
        return trained if self.tta is None else self.tta.key(trained, self.seeds, self.shift)

    def path(self, fingerprint: str = ACDC96, store: Path = STORE) -> Path:
        """The path of its record, whether it is there or not."""
        return path_of(self.protocol, self.key(fingerprint), store)


# --- lists of runs -------------------------------------------------------------------------------


def runs(
    protocol: str,
    splits: Iterable[str],
    seeds: Iterable[int] = (0,),
    settings: dict[str, dict] | None = None,
) -> list[RunSpec]:
    """Every setting (name -> changed fields) on every split with every seed."""
    return [
        RunSpec(name, replace(PRESETS[protocol], **changes, seed=seed), split, protocol)
        for name, changes in (settings or {"baseline": {}}).items()
        for split in splits
        for seed in seeds
    ]


def grid(
    protocol: str, main: dict, extra: dict | None = None, splits: Iterable[str] = FOLDS[:2]
) -> list[RunSpec]:
    """Main settings, which answer a claim, on all five folds, extra ones on ``splits`` only.

    One seed for each, and the baseline's five for a main setting that is the baseline.
    """
    specs = []
    for name, changes in main.items():
        is_baseline = replace(PRESETS[protocol], **changes) == PRESETS[protocol]
        specs += runs(protocol, FOLDS, range(5) if is_baseline else (0,), {name: changes})
    return specs + (runs(protocol, splits, settings=extra) if extra else [])


def vary(field: str, *values, **changes) -> dict[str, dict]:
    """A setting for each value of a field, named by it; ``changes`` go with all of them."""
    names = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
    return {name: {field: value} | changes for name, value in zip(names, values)}


def prefixed(name: str, settings: dict[str, dict]) -> dict[str, dict]:
    """The same settings, as ``"name, setting"``."""
    return {f"{name}, {setting}": changes for setting, changes in settings.items()}


def cumulative(steps: dict[str, dict]) -> dict[str, dict]:
    """Every step with the changes of those before it."""
    changes: dict = {}
    return {name: (changes := changes | step) for name, step in steps.items()}


# --- the registry --------------------------------------------------------------------------------

# name, by which `sweep` and `results` know it -> runs; filled by the modules of cmrtrial.plans
EXPERIMENTS: dict[str, list[RunSpec]] = {}
# From whose seeds the variance between runs is estimated, see cmrtrial.compare.run_variance.
POOLED = ("baseline", "architectures", "final-ladder")


def main_settings(name: str, protocol: str = "replica") -> list[str]:
    """The settings of an experiment that ran on all five folds, in order."""
    folds: dict[str, set[str]] = {}
    for spec in EXPERIMENTS[name]:
        if spec.protocol == protocol:
            folds.setdefault(spec.setting, set()).add(spec.fold)
    return [setting for setting, ran_on in folds.items() if ran_on >= set(FOLDS)]
