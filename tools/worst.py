"""Trains the networks again that met the five worst slices, and keeps what they draw there.

    CMRSEG_DATA=acdc96 python tools/worst.py

Records hold numbers and no masks. `results/worst-five.csv`, in the format of a submission, holds those five for
the page "Where it fails". On another machine than that of the records rounding differs, and so may a few pixels.
"""

import pandas as pd

from cmrseg import datasets, rle
from cmrseg.predict import predict
from cmrseg.train import fit
from cmrtrial import compare, records
from cmrtrial.plans import EXPERIMENTS

OUT = records.STORE / "worst-five.csv"


def worst() -> pd.Series:
    """The five slices with the lowest mean Dice under the healthy recipe, seed 0: name -> Dice, lowest first."""
    runs = compare.runs("baseline", "modern").query("seed == 0")
    found = pd.concat([records.class_table(record) for record in runs["record"]])
    return found.groupby("name")["dice"].mean().nsmallest(5)


def main() -> None:
    source, names, masks = datasets.source(), worst().index, {}
    for planned in EXPERIMENTS["baseline"]:
        if planned.protocol == "modern" and planned.config.seed == 0:
            train, held_out = datasets.split(source, planned.split)
            there = [n for n, name in enumerate(held_out.names) if name in names]
            if there:
                run = fit(planned.config, train, precision="fp32")
                drawn = predict(run.model, held_out.images[there], run.config.scale)
                masks |= dict(zip((held_out.names[n] for n in there), drawn))
    rle.write_submission({name: masks[name] for name in names}, OUT)


if __name__ == "__main__":
    main()
