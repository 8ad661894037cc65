"""Simulated worlds in which the truth is known: how often does the second trial's procedure say what is false?

In each world a whole trial is drawn, many times over: the settings of a family share the baseline, the patients and
the folds, as the real ones do, and go through :func:`cmrtrial.statistics.compare` (endpoints of runs: ``pairs``),
``p_values`` and ``holm``. A trial is counted when *any* of its verdicts is false. In worlds of Dice half of the claims of
a family ask for a direction where there is no difference, a quarter for equality and a quarter for no gain where the
difference is just the margin: the places where errors are likeliest. In worlds of epochs all ask for a direction where
there is none.

What a verdict says (the estimand), and what it does not:

- It is about networks trained on these five sets of patients. Of other training patients it says little: see
  *beyond* in the world where folds share training patients, about 70 % of whose trials would be false there.
- Of Dice: *equal* is said of runs that learn. *Ahead*, *behind* and *no more* are said of those, or of all runs if some
  have learnt nothing. If all fifteen runs of a setting learnt, one in twenty may still not, and the mean over *all*
  runs may be another: *beyond* in the worlds with runs that learn nothing.
- Of epochs: which setting is earlier in more than half of the pairs of runs; not which has the smaller mean, which a
  few late runs decide: *beyond* is about means.

    python -m cmrtrial.worlds          # writes results/second-worlds.json; an hour on two cores
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from cmrseg import results
from cmrseg.training import write_text
from cmrtrial.statistics import ALPHA, MARGIN, Pairs, Scores, compare, holm, p_values, pairs

FOLDS, REPLICATES, PATIENTS = 5, 3, 12  # patients in a fold
# Standard deviations of Dice, near those of the first trial: between patients, of a setting's effect on a patient, between
# runs, and of a run's effect on a patient.
PATIENT, EFFECT, RUN, NOISE = 0.08, 0.04, 0.017, 0.03
LEVEL = 0.8  # Dice of the baseline
CLAIMS = 24  # in a family of differences in Dice


@dataclass(frozen=True)
class World:
    """What is unlike the plain world.

    Attributes:
        run: standard deviation between the runs of each setting: for setting number n of the family; the baseline has
            number 1.
        shared: share of the run variance that a seed has in all folds alike.
        crossed: whether each setting has the same seeds in all folds (the first trial's way, with replicates).
        rising: whether curves are cut while they rise, but the baseline's: most runs have left the zero-Dice phase,
            some not yet, so that runs scatter far and to one side.
        patients: standard deviation of a training patient's effect on a setting's Dice; folds share these patients.
        alike: share of the run variance that is the same in all settings, as a seed begins with the same weights in each.
        dead: share of the runs of the settings, and of the baseline, that learn nothing (Dice 0).
        levelled: whether the runs that learn make up for those that don't, so that means over all runs differ as claimed.
    """

    run: Callable[[int], float] = lambda n: RUN
    shared: float = 0.0
    crossed: bool = False
    rising: bool = False
    patients: float = 0.0
    alike: float = 0.0
    dead: tuple[float, float] = (0.0, 0.0)
    levelled: bool = False


@dataclass(frozen=True)
class EpochWorld:
    """Epochs at which runs get somewhere: log-normal, scored every 5 epochs, ended at 500; the baseline's median is 100.

    Attributes:
        spread: standard deviation of the logarithm, for setting number n (the baseline has 1).
        never: share of the runs of the settings, and of the baseline, that never get there.
    """

    spread: Callable[[int], float] = lambda n: 0.3
    never: tuple[float, float] = (0.0, 0.0)


WORLDS: dict[str, World | EpochWorld] = {
    "plain": World(),
    "unequal variances": World(run=lambda n: RUN * (0.3, 1, 3, 6)[n % 4]),
    "a seed acts alike in all folds; seeds differ between folds": World(run=lambda n: 2 * RUN, shared=0.72),
    "a seed acts alike in all folds; one set of seeds for all folds": World(run=lambda n: 2 * RUN, shared=0.72, crossed=True),
    "curves cut while they rise": World(rising=True),
    "curves cut while they rise, one set of seeds for all folds": World(rising=True, shared=0.72, crossed=True),
    "folds share training patients": World(patients=0.1),
    # from here on: added on 2026-11-28 (results/second/AMENDMENTS.md)
    "unequal variances, in every kind of claim; the baseline's is large": World(run=lambda n: RUN * (1, 6, 0.3, 3, 1)[n % 5]),
    "a seed acts alike in all settings": World(run=lambda n: 2 * RUN, alike=0.5),
    "1 run in 50 learns nothing": World(dead=(0.02, 0.02)),
    "1 run in 20 learns nothing": World(dead=(0.05, 0.05)),
    "1 run in 3 learns nothing, but the baseline's": World(dead=(1 / 3, 0.0)),
    "1 run in 3 learns nothing, but the baseline's; means of all runs levelled": World(dead=(1 / 3, 0.0), levelled=True),
    "1 run in 50 learns nothing, but the baseline's; means of all runs levelled": World(dead=(0.02, 0.0), levelled=True),
    "1 run in 20 learns nothing, but the baseline's; means of all runs levelled": World(dead=(0.05, 0.0), levelled=True),
    "epochs": EpochWorld(),
    "epochs, late risers": EpochWorld(spread=lambda n: np.linspace(0.3, 1.0, 20)[n % 20]),
    "epochs, 1 run in 20 never gets there": EpochWorld(never=(0.05, 0.0)),
    "epochs, 1 run in 10 never gets there": EpochWorld(never=(0.1, 0.0)),
    "epochs, 1 run in 10 never gets there, the baseline's as well": EpochWorld(never=(0.1, 0.1)),
}


def draw(world: World, rng: np.random.Generator, number: int, patients: np.ndarray, weights: np.ndarray, shift: float,
         baseline: bool = False, of_seeds: np.ndarray | None = None) -> tuple[Scores, float]:
    """Setting ``number`` of a trial, and the true mean of its runs that learn, less what the baseline's is worth.

    Args:
        number: settings differ in their run variance; the baseline is 1 of ``baseline=True``.
        patients: (folds, patients), what each patient's Dice is worth in every setting.
        weights: the same shape, what each patient is worth in training, in this setting.
        shift: its true difference from the baseline, besides what its training patients bring.
        of_seeds: (folds, replicates), what each seed does in every setting.
    """
    spread, values, seeds, rises, none = world.run(number), {}, {}, [], 0
    of_seed = rng.normal(0, 1, (FOLDS, REPLICATES))
    if world.crossed or world.shared:  # with seeds that differ between folds a shared part is just another part
        common = rng.normal(0, 1, REPLICATES) if world.crossed else rng.normal(0, 1, (FOLDS, REPLICATES))
        of_seed = np.sqrt(world.shared) * common + np.sqrt(1 - world.shared) * of_seed
    if world.alike:
        of_seed = np.sqrt(world.alike) * of_seeds + np.sqrt(1 - world.alike) * of_seed
    trained = [np.delete(weights, fold, 0).mean() for fold in range(FOLDS)]
    effect = rng.normal(0, EFFECT, (FOLDS, PATIENTS))
    truth = shift + float(np.mean(trained))
    for fold in range(FOLDS):
        run = spread * of_seed[fold]
        if world.rising and not baseline:  # cut after 100 epochs
            run = waking(of_seed[fold], 100) - waking(_GRID, 100) @ _WEIGHTS
            rises.append(np.mean(waking(of_seed[fold], 100) - waking(of_seed[fold], 80)))
        noise = rng.normal(0, NOISE, (REPLICATES, PATIENTS))
        found = shift + trained[fold] + patients[fold] + effect[fold] + run[:, None] + noise
        if any(world.dead):
            asleep = rng.random(REPLICATES) < world.dead[baseline]
            found[asleep], none = -LEVEL, none + asleep.sum()
        values[f"fold{fold}"] = found
        seeds[f"fold{fold}"] = [r if world.crossed else 5 * r + fold for r in range(REPLICATES)]
    return Scores(values, seeds, float(np.mean(rises or 0.0)), bool(0 < none < FOLDS * REPLICATES)), truth


def waking(z: np.ndarray, epochs: int) -> np.ndarray:
    """Dice after so many epochs of runs that leave the zero-Dice phase at epoch 70 + 12 z."""
    return 0.8 / (1 + np.exp(-(epochs - 70 - 12 * z) / 8))


_GRID = np.linspace(-6, 6, 1001)
_WEIGHTS = np.exp(-_GRID**2 / 2) / np.exp(-_GRID**2 / 2).sum()


def trial(world: World, rng: np.random.Generator, claims: int = CLAIMS, registered: bool = False) -> tuple[bool, bool]:
    """One trial of so many claims, all against one baseline.

    Args:
        registered: judge as it was registered, where runs that learn nothing held no verdict back.

    Returns:
        Whether any verdict was false: of what it says (the estimand), and beyond that; see the head of this file.
    """
    patients = rng.normal(0, PATIENT, (FOLDS, PATIENTS))
    weights = lambda: rng.normal(0, world.patients, (FOLDS, PATIENTS)) if world.patients else np.zeros((FOLDS, PATIENTS))
    of_seeds = rng.normal(0, 1, (FOLDS, REPLICATES)) if world.alike else None
    base, base_truth = draw(world, rng, 1, patients, weights(), 0.0, baseline=True, of_seeds=of_seeds)
    of_all = lambda truth, dead: (1 - dead) * truth - dead * LEVEL  # a mean of runs that learn, to one of all runs
    asked, family = [], []
    for number in range(claims):
        claim = ("greater", "equal", "less", "no-more")[number % 4]
        shift = MARGIN if claim in ("equal", "no-more") else 0.0
        if claim in ("equal", "no-more") and number % 8 > 3:
            shift *= 1.0001  # just beyond, where only "confirmed" is false
        made_up_for = (shift + LEVEL) * world.dead[0] / (1 - world.dead[0]) if world.levelled else 0.0
        setting, truth = draw(world, rng, number, patients, weights(), shift + made_up_for, of_seeds=of_seeds)
        every = of_all(truth, world.dead[0]) - of_all(base_truth, world.dead[1])
        asked.append((claim, truth - base_truth, every, every if any(world.dead) else shift))
        sides = [replace(side, dead=False) for side in (setting, base)] if registered else (setting, base)
        family.append(p_values(compare(*sides), claim))
    verdicts = holm(family)
    return (any(false(v, c, learn) and (is_equal(v, c) or false(v, c, every))
                for v, (c, learn, every, _) in zip(verdicts, asked)),
            any(false(v, c, beyond) for v, (c, *_, beyond) in zip(verdicts, asked)))


def is_equal(verdict: str, claim: str) -> bool:
    """Whether a verdict says that two settings are equal."""
    return verdict == "equivalent" or verdict == "confirmed" and claim == "equal"


def false(verdict: str, claim: str, truth: float) -> bool:
    """Whether a verdict on a claim about a true difference is false."""
    holds = {"greater": truth > 0, "less": truth < 0, "equal": abs(truth) <= MARGIN, "no-more": truth <= MARGIN}[claim]
    against = {"greater": truth < 0, "less": truth > 0, "equal": abs(truth) > MARGIN, "no-more": truth > MARGIN}[claim]
    return {"confirmed": not holds, "contradicted": not against, "equivalent": abs(truth) > MARGIN}.get(verdict, False)


# --- epochs ----------------------------------------------------------------------------------------------

MEDIAN, END, EVERY = 100, 500, 5
EPOCH_CLAIMS, EPOCH_MARGIN = 20, 5  # of the family of endpoints of runs


def epochs(rng: np.random.Generator, median: float, spread: float, never: float) -> Scores:
    """First scored epochs at which the runs of a setting get somewhere."""
    found = np.exp(rng.normal(np.log(median), spread, (FOLDS, REPLICATES)))
    found[rng.random((FOLDS, REPLICATES)) < never] = END
    found = np.minimum(np.ceil(found / EVERY) * EVERY, END)
    return Scores({f"fold{f}": found[f][:, None] for f in range(FOLDS)},
                  {f"fold{f}": [5 * r + f for r in range(REPLICATES)] for f in range(FOLDS)})


def mean_epoch(median: float, spread: float, never: float) -> float:
    """The true mean of :func:`epochs`."""
    steps = np.arange(0, END, EVERY)  # a run is later than each of them with this probability
    return EVERY * float(np.sum(never + (1 - never) * stats.norm.sf((np.log(np.maximum(steps, 1e-9) / median)) / spread)))


@lru_cache(maxsize=None)
def null_median(spread: float, base_spread: float, never: tuple[float, float], of_means: bool) -> float:
    """The median of a setting that is as often before the baseline as after it; or has the same mean."""
    p, q = never
    if of_means:
        goal = mean_epoch(MEDIAN, base_spread, q)
        return float(optimize.brentq(lambda m: mean_epoch(m, spread, p) - goal, 1, END))
    earlier = 0.5 + (p * (1 - q) - q * (1 - p)) / (2 * (1 - p) * (1 - q))  # among pairs of runs that get there
    return float(MEDIAN * np.exp(-stats.norm.ppf(earlier) * np.hypot(spread, base_spread)))


def epoch_trial(world: EpochWorld, rng: np.random.Generator, claims: int = EPOCH_CLAIMS, registered: bool = False,
                of_means: bool = False) -> bool:
    """One trial in which no setting is earlier than the baseline: does a verdict say so?

    Args:
        registered: judge means by Student's test, as it was registered, instead of pairs by their signs.
        of_means: settings have the baseline's mean, instead of being as often before it as after it.
    """
    base_spread = float(world.spread(1))
    base, family = epochs(rng, MEDIAN, base_spread, world.never[1]), []
    for number in range(claims):
        spread = float(world.spread(number))
        median = null_median(spread, base_spread, world.never, of_means)
        setting = epochs(rng, median, spread, world.never[0])
        family.append(p_values((compare if registered else pairs)(setting, base), "less", EPOCH_MARGIN))
    return any(verdict in ("confirmed", "contradicted") for verdict in holm(family))


def power(earlier: float, claims: int, number: int = FOLDS * REPLICATES) -> float:
    """Probability that so many pairs of runs decide a claim at the level of the first of ``claims``, if a is earlier than b
    in a share ``earlier`` of all pairs."""
    def p(less: int) -> float:
        return p_values(Pairs(0.0, 1.0, 1.0, differences=(-1.0,) * less + (1.0,) * (number - less)), "less")["confirmed"]

    return float(sum(stats.binom.pmf(less, number, earlier) for less in range(number + 1) if p(less) <= ALPHA / claims))


# --- rates -----------------------------------------------------------------------------------------------


def rates(name: str, trials: int, claims: int | None = None, seed: int = 0, registered: bool = False) -> dict[str, float]:
    """Share of a world's trials with a false verdict, in per cent: ``{"estimand": ..., "beyond": ...}``.

    *Beyond* asks for more than the verdicts say; see the head of this file.
    """
    world, rng = WORLDS[name], np.random.default_rng([seed, list(WORLDS).index(name)])
    if isinstance(world, World):
        found = np.array([trial(world, rng, claims or CLAIMS, registered) for _ in range(trials)])
    else:
        found = np.array([[epoch_trial(world, rng, claims or EPOCH_CLAIMS, registered, of_means)
                           for of_means in (False, True)] for _ in range(trials)])
    return dict(zip(("estimand", "beyond"), (100 * found.mean(0)).round(2).tolist()))


AMENDED = [name for name, world in WORLDS.items() if isinstance(world, EpochWorld) or any(world.dead)]


def main(path: Path = results.STORE / "second-worlds.json", trials: int = 4000, trials_registered: int = 1000) -> None:
    """Try all worlds and file the rates; where the amendment changed the analysis, also those of the registered one."""
    tasks = [(name, trials, False) for name in WORLDS] + [(name, trials_registered, True) for name in AMENDED]
    with ProcessPoolExecutor() as pool:
        futures = [pool.submit(rates, name, number, registered=registered) for name, number, registered in tasks]
        found = [future.result() for future in futures]
    write(path, trials, trials_registered, found)
    for (name, _, registered), rate in zip(tasks, found):
        print(f"{rate['estimand']:6.2f} % {rate['beyond']:6.2f} %  {name}{', as registered' if registered else ''}")


def write(path: Path, trials: int, trials_registered: int, found: list[dict[str, float]]) -> None:
    """File the rates of all worlds, and after them those of the registered analysis in the amended worlds."""
    write_text(path, json.dumps({
        "trials": trials, "claims": CLAIMS, "claims about epochs": EPOCH_CLAIMS,
        "false verdicts in any, per cent": dict(zip(WORLDS, found)),
        "trials as registered": trials_registered, "as registered": dict(zip(AMENDED, found[len(WORLDS):])),
        "chance that 15 pairs decide, by the share in which a is earlier": {
            str(share): round(power(share, EPOCH_CLAIMS), 3) for share in (0.7, 0.8, 0.9, 0.95, 0.99)},
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
