"""What evaluate says in millimetres and of volumes."""

import json

import numpy as np
import pytest

from cmrseg import metrics
from cmrseg.data import write_png


@pytest.fixture
def judged(tmp_path):
    """Masks and truths of five slices of two patients: ``evaluate`` and what it compares."""
    rng, shape = np.random.default_rng(0), (5, 24, 24)
    truth = rng.integers(0, 4, shape, np.uint8) * (rng.random(shape) < 0.2)
    truth[:, 8:16, 8:16] = 3
    pred = np.roll(truth, 1, axis=2)
    for kind, masks in (("pred", pred), ("val/mask", truth)):
        (tmp_path / kind).mkdir(parents=True)
        for n, mask in enumerate(masks, 1):
            write_png(tmp_path / kind / f"cmr{n}_mask.png", mask)
    words = ("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "val/mask")
    return words, pred, truth


def table(path, column, values):
    rows = [f"cmr{n},{value}" for n, value in enumerate(values, 1)]
    path.write_text("\n".join([f"image,{column}", *rows]), encoding="utf-8")


def test_millimetres_are_pixels_times_their_size(judged, command, mistake, tmp_path):
    words, pred, truth = judged
    plain = json.loads(command(*words, "--json").out)
    assert not {"hd95_mm", "surface_dice_2mm"} & plain["metrics"].keys()
    summary = json.loads(command(*words, "--json", "--spacing", 2).out)
    old, new = plain["metrics"], summary["metrics"]
    assert {k: v for k, v in summary.items() if k != "metrics"} == {
        k: v for k, v in plain.items() if k != "metrics"
    }
    assert new["surface_dice_2mm"] == old["surface_dice_1px"]  # pixels of 2 mm
    for c in ("RV", "Myo", "LV"):
        assert new["hd95_mm"][c] == pytest.approx(2 * old["hd95"][c])
    table(tmp_path / "spacing.csv", "mm", [1, 2, 3, 4, 5])
    by_table = json.loads(command(*words, "--json").out)["metrics"]
    expected = (metrics.hd95(pred, truth) * np.arange(1, 6)[:, None]).mean(0)
    assert list(by_table["hd95_mm"].values()) == pytest.approx(expected)
    asked = json.loads(command(*words, "--json", "--spacing", 2).out)
    assert asked == summary  # the option wins over the table
    assert "hd95_mm: RV" in command(*words).out
    for wrong in (["x"] * 5, [0] * 5, ["nan"] * 5, [1] * 4):
        table(tmp_path / "spacing.csv", "mm", wrong)
        mistake(*words, naming="spacing.csv")


def test_the_dice_of_a_volume_is_that_of_its_slices_together(judged, command, mistake, tmp_path):
    words, pred, truth = judged
    mistake(*words, "--by", "volume", naming="origin.csv")
    table(tmp_path / "patients.csv", "patient", ["A", "A", "A", "B", "B"])
    table(
        tmp_path / "origin.csv",
        "slice",
        ["f1_slice0", "f1_slice3", "f2_slice0", "f1_slice0", "f1_slice1"],
    )
    plain = json.loads(command(*words, "--json").out)
    summary = json.loads(command(*words, "--json", "--by", "volume").out)
    volume = summary.pop("by_volume")
    assert summary == plain and volume["volumes"] == 3  # f1 of A, f1 of B, f2 of A
    for c, name in enumerate(("RV", "Myo", "LV"), 1):
        each = []
        for rows in ([0, 1], [2], [3, 4]):
            a, b = pred[rows] == c, truth[rows] == c
            each.append(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert volume["dice"][name] == pytest.approx(np.mean(each))
    line = command(*words, "--by", "volume").out.splitlines()[0]
    assert "3 volumes (the labelled, converted slices of a patient and moment) of 2" in line
    table(tmp_path / "origin.csv", "slice", ["f1"] * 5)
    mistake(*words, "--by", "volume", naming="origin.csv")
