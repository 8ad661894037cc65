"""Who is whose: known slices under other numbers, own slices, and what both sides share."""

import shutil

import pytest
from conftest import heart

from cmrseg import datasets
from cmrseg.cli import runs
from cmrseg.data import write_png


@pytest.fixture
def renumbered(real, tmp_path):
    """Known slices under other numbers: cmr1, cmr2 .. of train are cmr5, cmr6, cmr11, cmr12, ...

    ``renumbered(split, {new: old}, own)``: copies, and made-up slices of the numbers in ``own``.
    """

    def copy(split, numbers, own=()):
        for kind, end in (("image", ""), ("mask", "_mask")):
            (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
            for new, old in numbers.items():
                (source,) = real.glob(f"*/{kind}/cmr{old}{end}.png")
                shutil.copy(source, tmp_path / split / kind / f"cmr{new}{end}.png")
            for n in own:
                pixels = heart(n, 96)[kind == "mask"]
                write_png(tmp_path / split / kind / f"cmr{n}{end}.png", pixels)
        return tmp_path

    return copy


def patients(root, split):
    """Image by name: whose it is."""
    slices = datasets.load(root, split)
    return dict(zip(slices.names, slices.patients.tolist()))


def test_known_slices_under_other_numbers_keep_their_patients(renumbered):
    root = renumbered("train", {1: 12, 2: 5, 3: 11, 8: 6})
    assert patients(root, "train") == {"cmr1": 6, "cmr2": 3, "cmr3": 6, "cmr8": 3}
    masks = datasets.folders.list_pngs(root / "train" / "mask", mask=True)
    assert datasets.known_patients(masks).tolist() == [6, 3, 6, 3]  # as evaluate asks


def test_a_table_wins_over_what_is_known(renumbered):
    root = renumbered("train", {1: 1, 2: 2, 3: 7, 4: 8})
    table = "image,patient\ncmr1,A\ncmr2,B\ncmr3,B\ncmr4,C\n"
    (root / "patients.csv").write_text(table, encoding="utf-8")
    assert patients(root, "train") == {"cmr1": 1, "cmr2": 2, "cmr3": 2, "cmr4": 3}


def test_own_slices_beside_known_ones_are_nobody_known(renumbered):
    renumbered("train", {1: 12, 2: 11, 3: 1}, own=(4, 6))
    root = renumbered("val", {}, own=(5, 7, 201))
    train, val = patients(root, "train"), patients(root, "val")
    assert (train["cmr1"], train["cmr2"], train["cmr3"]) == (6, 6, 1)
    own = {train["cmr4"], train["cmr6"], *val.values()}
    assert len(own) == 5 and not own & {*range(1, 101)}


def test_own_slices_after_known_ones_in_their_place_are_no_pairs(renumbered):
    root = renumbered("train", {1: 1, 2: 2, 3: 3, 4: 4}, own=(201, 202))
    assert [*patients(root, "train").values()] == [1, 1, 2, 2, 301, 302]


@pytest.mark.usefixtures("tiny_presets")
def test_train_warns_of_a_patient_or_an_image_on_both_sides(renumbered, command, tmp_path, capsys):
    renumbered("train", {1: 5, 2: 9})
    root = renumbered("val", {1: 10, 2: 6})

    def warned(source):
        runs.warn_of_shared(*datasets.split(source, "val"))
        return capsys.readouterr().err.splitlines()

    (line,) = warned(root)
    assert "cmr1 of train and cmr2 of val" in line and "2 patients" in line
    assert line in command("train", "--data", root, "--out", tmp_path / "run").err
    (root / "patients.csv").write_text("image,patient\ncmr1,1\ncmr2,2\n", encoding="utf-8")
    (root / "val" / "patients.csv").write_text("image,patient\ncmr1,8\ncmr2,9\n", encoding="utf-8")
    assert warned(root) == warned("phantom") == []
    shutil.copy(root / "train" / "image" / "cmr2.png", root / "val" / "image" / "cmr1.png")
    (line,) = warned(root)
    assert "cmr2 of train and cmr1 of val are the same image" in line
