"""The trial's splits: who is held out, and who is not."""

import numpy as np
import pytest
from conftest import fill

from cmrseg import datasets
from cmrseg.data import SPLITS
from cmrtrial.corruptions import CHANGES
from cmrtrial.splits import split


@pytest.fixture
def pairs(tmp_path):
    """A root of sixty slices of thirty patients, 25 of them for training."""
    fill(tmp_path, {"train": range(1, 51), "val": range(51, 61), "test": range(61, 63)}, size=8)
    rows = [f"cmr{n},{(n + 1) // 2}" for n in range(1, 63)]
    (tmp_path / "patients.csv").write_text("\n".join(["image,patient", *rows]), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(("kind", "part"), [("fold", "labelled"), ("train-fold", "train")])
def test_folds_hold_whole_patients_out_once(kind, part, pairs):
    patients, held_out = set(datasets.load(pairs, part).patients), []
    for k in range(5):
        rest, held = split(pairs, f"{kind}{k}")
        assert set(rest.patients) | set(held.patients) == patients
        assert (held.patients % 5 == k).all() and not (rest.patients % 5 == k).any()
        held_out += held.names
    assert len(held_out) == len(set(held_out)) == 2 * len(patients)


def test_inner_splits_tune_within_the_training_part_of_a_fold(pairs):
    for k in range(5):
        rest, held = split(pairs, f"inner{k}")
        outer, outer_held = split(pairs, f"fold{k}")
        assert {*rest.names, *held.names} == set(outer.names)
        assert not set(rest.patients) & set(held.patients)
        assert not set(held.patients) & set(outer_held.patients)
        assert 0.15 < len(held) / len(outer) < 0.35


def test_random_splits_partition_the_slices_but_share_patients(pairs):
    parts = [split(pairs, f"random{k}") for k in range(5)]
    names = sorted(name for _, held in parts for name in held.names)
    assert names == sorted(datasets.load(pairs, "labelled").names)
    for rest, held in parts:
        assert not set(rest.names) & set(held.names)
        assert set(rest.patients) & set(held.patients)  # the leak they are there to show


def test_a_split_with_fewer_patients_holds_the_same_ones_out(pairs):
    few = set()
    for k in range(5):
        whole, held = split(pairs, f"fold{k}")
        trains, helds = zip(*(split(pairs, f"fold{k}@{n}") for n in (3, 7, 24)))
        assert {h.fingerprint for h in helds} == {held.fingerprint}
        assert [len(set(train.patients)) for train in trains] == [3, 7, 24]
        names = [set(train.names) for train in trains]
        assert names[0] < names[1] < names[2] == set(whole.names)
        few.add(tuple(np.searchsorted(np.unique(whole.patients), np.unique(trains[0].patients))))
    assert len(few) > 1  # each fold chooses anew


def test_changed_slices_are_split_as_they_are(root):
    whole = datasets.load(root, "labelled")
    for name, change in CHANGES.items():
        changed = change(whole)
        rest, held = split(root, f"fold3+{name}")
        assert held.fingerprint == changed[changed.patients % 5 == 3].fingerprint
        assert (rest + held).fingerprint != whole.fingerprint
        assert set(rest.names) == set(split(root, "fold3")[0].names)


def test_phantoms_teach_patients_and_the_reverse(root):
    rest, held = split(root, "from-phantom")
    assert len(rest) == 400 and held.fingerprint == datasets.load(root, "labelled").fingerprint
    patients, phantoms = split(root, "to-phantom")
    assert patients.fingerprint == datasets.load(root, "train").fingerprint
    assert phantoms.fingerprint == rest.fingerprint
    known = {i.tobytes() for part in SPLITS for i in datasets.load("phantom", part).images}
    assert not known & {image.tobytes() for image in phantoms.images}


def test_other_names_are_refused(root):
    assert split(root, "val")[1].names == ("cmr3", "cmr4")
    with pytest.raises(ValueError, match="shuffled or equalised"):
        split(root, "fold0+blurred")
    for name in ("test", "fold5", "fold", "outer0", "fold0@", "fold0@3+shuffled"):
        with pytest.raises(ValueError, match="expected val"):
            split(root, name)


# Patients held out of the sixty phantoms; records of every split were made with these.
HELD_OUT = {
    "fold1": [1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56],
    "train-fold1": [1, 6, 11, 16, 21, 26, 31, 36, 41, 46],
    "inner1": [2, 3, 4, 20, 22, 23, 24, 40, 42, 43, 44, 60],
    "val": list(range(51, 61)),
}


def test_phantoms_and_splits_are_the_same_everywhere():
    assert datasets.load("phantom", "labelled").fingerprint == "0fbd8cf0bf26"
    held_out = {name: [*dict.fromkeys(split("phantom", name)[1].patients)] for name in HELD_OUT}
    assert held_out == HELD_OUT
    train, held = split("phantom", "fold1@5")
    assert [*dict.fromkeys(train.patients)] == [20, 30, 33, 39, 52]
    assert [*dict.fromkeys(held.patients)] == HELD_OUT["fold1"]
    assert split("phantom", "random3")[1].names[:4] == ("cmr6", "cmr7", "cmr15", "cmr25")
