"""The trial's splits: the report's, five folds, folds within the training slices, and others."""

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from cmrseg import datasets
from cmrseg.data import FOLDS, Slices
from cmrtrial.corruptions import CHANGES


def split(source: str | Path, name: str) -> tuple[Slices, Slices]:
    """Training and held-out slices of a source.

    Args:
        source: see :mod:`cmrseg.datasets`.
        name: ``"val"``, ``"fold0"`` .. ``"fold4"``: see :func:`cmrseg.datasets.split`;
            ``"train-fold0"`` ..: folds within the training split only; ``"inner0"`` ..: within the
            training part of a fold, a quarter held out to tune on; ``"random0"`` ..: slices dealt
            out at random whoever they belong to, as one should not. ``"fold0@10"``: with ten of the
            training patients only. ``"fold0+shuffled"``, ``"fold0+equalised"``: of slices changed
            by :mod:`cmrtrial.corruptions`. ``"from-phantom"``: phantoms against all labelled
            slices; ``"to-phantom"``: the train split against phantoms.

    Raises:
        ValueError: an unknown name.
        BadInput: nobody to learn from, or nobody to hold out.
    """
    if name == "val":
        return datasets.split(source, name)
    if name == "from-phantom":
        return more_phantoms(), datasets.load(source, "labelled")
    if name == "to-phantom":
        return datasets.load(source, "train"), more_phantoms()
    match = re.fullmatch(r"(fold|train-fold|inner|random)([0-4])(?:@([1-9]\d*)|\+(\w+))?", name)
    if not match:
        kinds = "expected val, or fold, train-fold, inner, random with 0-4"
        raise ValueError(f"split {name!r}: {kinds}")
    kind, k, count, change = match[1], int(match[2]), match[3], match[4]
    slices = datasets.load(source, "train" if kind == "train-fold" else "labelled")
    if change and change not in CHANGES:
        raise ValueError(f"slices cannot be {change!r}: expected {' or '.join(CHANGES)}")
    if change:
        slices = CHANGES[change](slices)
    held_out = slices.patients % FOLDS == k
    if kind == "random":
        held_out = np.random.default_rng(0).permutation(len(slices)) % FOLDS == k
    if kind == "inner":
        slices = slices[~held_out]
        held_out = slices.patients // FOLDS % 4 == 0
    train, held_out = datasets.hold_out(slices, held_out, source, name)
    if count:
        patients = np.random.default_rng(k).permutation(np.unique(train.patients))[: int(count)]
        train = train[np.isin(train.patients, patients)]
    return train, held_out


@lru_cache(maxsize=1)
def more_phantoms(patients: int = 200) -> Slices:
    """Phantoms to learn from, none of them among those of the source ``"phantom"``."""
    from cmrseg.datasets import phantom

    images, masks = phantom.make(seed=1, patients=patients)
    names = tuple(f"cmr{n + 1}" for n in range(len(images)))
    return Slices(images, masks, names, np.arange(len(images), dtype=np.int64) // 2 + 1)
