"""What repeats bit for bit and what only statistically; the second from records, with intervals.

python benchmarks/determinism.py          # writes benchmarks/determinism.md
"""

from pathlib import Path

import numpy as np
from scipy import stats

from cmrtrial import compare

PAGE = Path(__file__).with_suffix(".md")
NAMES = {
    "replica": "`replica`, on a fold of twelve patients",
    "modern": "`modern`, on a fold of twelve patients",
    "report's split": "`replica`, on the report's twenty slices",
}

TEXT = """# What repeats

Written by `benchmarks/determinism.py`; the numbers come from the records in `results/`.

## Bit for bit

On one machine, with the same versions of torch and numpy, the same precision and the same number of threads,
on a CPU:

| what | is the same as | shown by |
|---|---|---|
| a training | the same training again, in another process | `tests/core/test_faults.py` |
| a training that was stopped (Ctrl-C, SIGTERM) and resumed | the uninterrupted one | `tests/core/test_faults.py` |
| a training that was killed or filled the disk, and resumed | the uninterrupted one | `tests/core/test_faults.py` |
| a prediction | the same prediction again | `tests/core/test_train.py` |
| the phantoms, folds and splits | themselves, on every machine | `tests/core/test_phantom.py`, `tests/trial/test_splits.py` |
| a record's Dice and tables | what is computed from the same masks again | `tests/trial/test_records.py` |

Not the same to the last digit: another number of threads, another processor, another version of torch, bf16
against fp32, a slice predicted alone against in a batch, a GPU. Sums are then taken in another order, and a
training of some thousand steps makes a rounding error large. A checkpoint on a GPU holds the state of its
generator too, but its convolutions may add in any order: nothing is promised there, and nothing was tried.

The trainings that are killed have all that has a state: averaged weights, dropout, augmentation, one-cycle.

## Statistically

Whatever changes the rounding changes a training as another seed would. How much that is, the seeds tell: the
standard deviation of a run's mean Dice over its held-out patients, with everything but the seed alike, its
95 % interval (chi-squared, degrees of freedom in the last column), and how far two such runs lie apart in 19 of
20 cases.

| recipe | standard deviation | 95 % interval | two runs differ by up to | d.f. |
|---|---|---|---|---|
{rows}

So a number that was trained again elsewhere should lie this close to its record, and need not lie closer;
`tests/trial/test_records.py` trains three records again and asks for three standard deviations.
"""


def spread(name: str) -> tuple[float, int]:
    """Standard deviation between seeds of a run's mean Dice, and its degrees of freedom."""
    if name != "report's split":
        variance, df = compare.run_variance(name)
        return variance**0.5, df
    dice = compare.runs("noise-floor", "replica")["dice"]
    return float(dice.std(ddof=1)), len(dice) - 1


def row(name: str) -> str:
    deviation, df = spread(name)
    low, high = deviation * np.sqrt(df / stats.chi2.ppf([0.975, 0.025], df))
    apart = stats.t.ppf(0.975, df) * np.sqrt(2) * deviation
    return f"| {NAMES[name]} | {deviation:.4f} | {low:.4f} to {high:.4f} | {apart:.3f} | {df} |"


def page() -> str:
    return TEXT.format(rows="\n".join(map(row, NAMES)))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
