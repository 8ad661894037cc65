"""Simulated worlds in which the truth is known: how often does the second trial's procedure say what is false?

In each world a whole trial is drawn, many times over: the settings of a family share the baseline, the patients and
the folds, as the real ones do, and go through :func:`cmrtrial.second.statistics.compare`, ``p_values`` and ``holm``. A trial
is counted when *any* of its verdicts is false. Half of the claims of a family ask for a direction where there is no
difference, a quarter for equality and a quarter for no gain where the difference is just the margin: the places where
errors are likeliest.

    python -m cmrtrial.second.worlds          # writes results/second-worlds.json; a quarter of an hour on two cores
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmrseg.data import write_text
from cmrtrial import records as results
from cmrtrial.second.statistics import MARGIN, Scores, compare, holm, p_values

FOLDS, REPLICATES, PATIENTS = 5, 3, 12  # patients in a fold
# Standard deviations of Dice, near those of the first trial: between patients, of a setting's effect on a patient, between
# runs, and of a run's effect on a patient.
PATIENT, EFFECT, RUN, NOISE = 0.08, 0.04, 0.017, 0.03


@dataclass(frozen=True)
class World:
    """What is unlike the plain world.

    Attributes:
        run: standard deviation between the runs of each setting: for setting number n of the family.
        shared: share of the run variance that a seed has in all folds alike.
        crossed: whether each setting has the same seeds in all folds (the first trial's way, with replicates).
        rising: whether curves are cut while they rise, but the baseline's: most runs have left the zero-Dice phase,
            some not yet, so that runs scatter far and to one side.
        patients: standard deviation of a training patient's effect on a setting's Dice; folds share these patients.
    """

    run: Callable[[int], float] = lambda n: RUN
    shared: float = 0.0
    crossed: bool = False
    rising: bool = False
    patients: float = 0.0


WORLDS = {
    "plain": World(),
    "unequal variances": World(run=lambda n: RUN * (0.3, 1, 3, 6)[n % 4]),
    "a seed acts alike in all folds; seeds differ between folds": World(run=lambda n: 2 * RUN, shared=0.72),
    "a seed acts alike in all folds; one set of seeds for all folds": World(run=lambda n: 2 * RUN, shared=0.72, crossed=True),
    "curves cut while they rise": World(rising=True),
    "curves cut while they rise, one set of seeds for all folds": World(rising=True, shared=0.72, crossed=True),
    "folds share training patients": World(patients=0.1),
}


def draw(world: World, rng: np.random.Generator, number: int, patients: np.ndarray, weights: np.ndarray, shift: float,
         baseline: bool = False) -> tuple[Scores, float]:
    """Setting ``number`` of a trial, and its true mean.

    Args:
        number: settings differ in their run variance; the baseline is 1 of ``baseline=True``.
        patients: (folds, patients), what each patient's Dice is worth in every setting.
        weights: the same shape, what each patient is worth in training, in this setting.
        shift: its true difference from the baseline, besides what its training patients bring.
    """
    spread, values, seeds, rises = world.run(number), {}, {}, []
    of_seed = rng.normal(0, 1, (FOLDS, REPLICATES))
    if world.crossed or world.shared:  # with seeds that differ between folds a shared part is just another part
        common = rng.normal(0, 1, REPLICATES) if world.crossed else rng.normal(0, 1, (FOLDS, REPLICATES))
        of_seed = np.sqrt(world.shared) * common + np.sqrt(1 - world.shared) * of_seed
    trained = [np.delete(weights, fold, 0).mean() for fold in range(FOLDS)]
    effect = rng.normal(0, EFFECT, (FOLDS, PATIENTS))
    truth = shift + float(np.mean(trained))
    for fold in range(FOLDS):
        run = spread * of_seed[fold]
        if world.rising and not baseline:  # cut after 100 epochs
            run = waking(of_seed[fold], 100) - waking(_GRID, 100) @ _WEIGHTS
            rises.append(np.mean(waking(of_seed[fold], 100) - waking(of_seed[fold], 80)))
        noise = rng.normal(0, NOISE, (REPLICATES, PATIENTS))
        values[f"fold{fold}"] = shift + trained[fold] + patients[fold] + effect[fold] + run[:, None] + noise
        seeds[f"fold{fold}"] = [r if world.crossed else 5 * r + fold for r in range(REPLICATES)]
    return Scores(values, seeds, float(np.mean(rises or 0.0))), truth


def waking(z: np.ndarray, epochs: int) -> np.ndarray:
    """Dice after so many epochs of runs that leave the zero-Dice phase at epoch 70 + 12 z."""
    return 0.8 / (1 + np.exp(-(epochs - 70 - 12 * z) / 8))


_GRID = np.linspace(-6, 6, 1001)
_WEIGHTS = np.exp(-_GRID**2 / 2) / np.exp(-_GRID**2 / 2).sum()


def trial(world: World, rng: np.random.Generator, claims: int) -> tuple[bool, bool]:
    """One trial of so many claims, all against one baseline.

    Returns:
        Whether any verdict was false: of these training sets (the estimand), and of training sets such as these.
    """
    patients = rng.normal(0, PATIENT, (FOLDS, PATIENTS))
    weights = lambda: rng.normal(0, world.patients, (FOLDS, PATIENTS)) if world.patients else np.zeros((FOLDS, PATIENTS))
    baseline, base_truth = draw(world, rng, 1, patients, weights(), 0.0, baseline=True)
    asked, family = [], []
    for number in range(claims):
        claim = ("greater", "equal", "less", "no-more")[number % 4]
        shift = MARGIN if claim in ("equal", "no-more") else 0.0
        if claim in ("equal", "no-more") and number % 8 > 3:
            shift *= 1.0001  # just beyond, where only "confirmed" is false
        setting, truth = draw(world, rng, number, patients, weights(), shift)
        asked.append((claim, truth - base_truth, shift))
        family.append(p_values(compare(setting, baseline), claim))
    verdicts = holm(family)
    return tuple(any(false(v, c, truths[which]) for v, (c, *truths) in zip(verdicts, asked)) for which in (0, 1))


def false(verdict: str, claim: str, truth: float) -> bool:
    """Whether a verdict on a claim about a true difference is false."""
    holds = {"greater": truth > 0, "less": truth < 0, "equal": abs(truth) <= MARGIN, "no-more": truth <= MARGIN}[claim]
    against = {"greater": truth < 0, "less": truth > 0, "equal": abs(truth) > MARGIN, "no-more": truth > MARGIN}[claim]
    return {"confirmed": not holds, "contradicted": not against, "equivalent": abs(truth) > MARGIN}.get(verdict, False)


def rates(name: str, trials: int, claims: int = 24, seed: int = 0) -> dict[str, float]:
    """Share of a world's trials with a false verdict, in per cent: ``{"estimand": ..., "beyond": ...}``.

    *Beyond* asks of training sets such as these, which the estimand does not.
    """
    rng = np.random.default_rng([seed, list(WORLDS).index(name)])
    found = np.array([trial(WORLDS[name], rng, claims) for _ in range(trials)])
    return dict(zip(("estimand", "beyond"), (100 * found.mean(0)).round(2).tolist()))


def main(path: Path = results.STORE / "second-worlds.json", trials: int = 4000) -> None:
    """Try all worlds and file the rates."""
    with ProcessPoolExecutor() as pool:
        found = dict(zip(WORLDS, pool.map(rates, WORLDS, [trials] * len(WORLDS))))
    write_text(path, json.dumps({"trials": trials, "claims": 24, "false verdicts in any, per cent": found}, indent=1) + "\n")
    for name, rate in found.items():
        print(f"{rate['estimand']:6.2f} % {rate['beyond']:6.2f} %  {name}")


if __name__ == "__main__":
    main()
