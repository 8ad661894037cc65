"""The closed form of the second trial beside a mixed model, in simulated worlds: `python benchmarks/mixed_model.py`.

In each world pairs of settings are drawn as a whole trial draws them (:mod:`cmrtrial.second.worlds`), and one claim is
asked that is false: that they differ from what is true. Once the error comes from the closed form, once from a mixed
model fitted by restricted maximum likelihood (patients; patients in a setting; runs of each setting; where all folds
have the same seeds, those as well). Degrees of freedom are those of the closed form for both: a mixed model has none of
its own. Written to results/second-mixed-model.json: how often each says that they differ, at 5 % for one claim.
"""

import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from statsmodels.regression.mixed_linear_model import MixedLM

from cmrseg.data import write_text
from cmrtrial.records import STORE
from cmrtrial.second.statistics import ALPHA, Scores, compare
from cmrtrial.second.worlds import FOLDS, PATIENT, PATIENTS, REPLICATES, WORLDS, draw

NAMES = (
    "plain",
    "unequal variances",
    "a seed acts alike in all folds; one set of seeds for all folds",
    "curves cut while they rise",
    "folds share training patients",
)
PARTS = {
    "effect": "0 + C(patient):C(setting)",
    "runs of a": "0 + C(run):a",
    "runs of b": "0 + C(run):I(1 - a)",
}
SEEDS = {"seeds of a": "0 + C(seed):a", "seeds of b": "0 + C(seed):I(1 - a)"}


def mixed_error(a: Scores, b: Scores, crossed: bool) -> float:
    """The standard error of a - b by the mixed model; NaN where it cannot be fitted."""
    rows = [
        (
            y,
            setting,
            f"{fold} {patient}",
            f"{setting}{fold} {run}",
            f"{setting}{scores.seeds[fold][run]}",
        )
        for setting, scores in (("a", a), ("b", b))
        for fold, values in scores.values.items()
        for (run, patient), y in np.ndenumerate(values)
    ]
    table = pd.DataFrame(rows, columns=["y", "setting", "patient", "run", "seed"])
    table = table.assign(one=1, a=(table["setting"] == "a").astype(float))
    parts = PARTS | (SEEDS if crossed else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a part that is estimated as 0
        fitted = MixedLM.from_formula(
            "y ~ a + C(patient)", table, groups="one", vc_formula=parts
        ).fit(method="lbfgs")
    return float(fitted.bse["a"])


def rates(name: str, pairs: int) -> dict[str, float]:
    """How often each error leads to a false verdict on one claim, in per cent of the pairs."""
    world, rng = WORLDS[name], np.random.default_rng(list(WORLDS).index(name))
    false, unfit = np.zeros(2), 0
    for n in range(pairs):
        patients = rng.normal(0, PATIENT, (FOLDS, PATIENTS))
        weights = [rng.normal(0, world.patients or 0.0, (FOLDS, PATIENTS)) for _ in range(2)]
        b, of_b = draw(world, rng, 1, patients, weights[0], 0.0, baseline=True)
        a, of_a = draw(world, rng, n % 4, patients, weights[1], 0.0)
        difference = compare(a, b)
        error = mixed_error(a, b, world.crossed)
        unfit += not np.isfinite(error)
        for k, one in enumerate(
            (difference, replace(difference, se=error if np.isfinite(error) else difference.se))
        ):
            truth = of_a - of_b
            false[k] += 2 * min(one.above(truth), one.below(truth)) <= ALPHA
    closed, mixed = (100 * false / pairs).round(2).tolist()
    return {"closed form": closed, "mixed model": mixed, "not fitted": 100 * unfit / pairs}


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    table = {name: rates(name, pairs) for name in NAMES}
    text = json.dumps(
        {"pairs": pairs, "replicates": REPLICATES, "false verdicts on one claim, per cent": table},
        indent=1,
    )
    write_text(STORE / "second-mixed-model.json", text + "\n")
    print(text)


if __name__ == "__main__":
    main()
