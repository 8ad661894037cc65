"""Calibration, expected Dice, agreement, risk and coverage."""

import numpy as np
import pytest

from cmrseg.metrics import dice
from cmrtrial import calibration


def certain(labels, confidence=1.0):
    """Probabilities that give every label this confidence, the rest to the next class."""
    probability = np.zeros((len(labels), 4, *labels.shape[1:]))
    np.put_along_axis(probability, labels[:, None], confidence, 1)
    np.put_along_axis(probability, (labels[:, None] + 1) % 4, 1 - confidence, 1)
    return probability


def square(low=8, high=16, size=24):
    labels = np.zeros((1, size, size), int)
    labels[0, low:high, low:high] = 3
    return labels


def test_a_network_that_is_as_sure_as_it_is_right_is_calibrated():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (4, 80, 80))
    wrong = rng.random(truth.shape) < 0.2
    said = np.where(wrong, (truth + 1) % 4, truth)
    table = calibration.reliability(certain(said, 0.8), truth)
    assert sum(table["count"]) == truth.size  # noise has borders everywhere
    (place,) = np.flatnonzero(table["count"])
    assert table["confidence"][place] == pytest.approx(0.8)
    assert table["right"][place] == pytest.approx(0.8, abs=0.01)
    assert calibration.calibration_error(table) < 0.01
    sure = calibration.reliability(certain(said, 1.0), truth)
    assert calibration.calibration_error(sure) == pytest.approx(0.2, abs=0.01)
    assert sure["count"][-1] == truth.size


def test_confidence_is_binned_from_a_quarter_to_one():
    truth = np.random.default_rng(0).integers(0, 4, (1, 9, 9))
    flat = np.full((1, 4, 9, 9), 0.25)
    assert calibration.reliability(flat, truth)["count"][0] == 81
    assert calibration.reliability(certain(truth, 0.63), truth, bins=3)["count"] == [0, 81, 0]
    table = {"count": [3, 1, 0], "confidence": [0.4, 0.9, 0.0], "right": [0.8, 0.9, 0.0]}
    assert calibration.calibration_error(table) == pytest.approx(0.3)  # weighed by their pixels


@pytest.mark.parametrize("swapped", [False, True])
def test_only_pixels_near_a_border_count(swapped):
    labels, nothing = square(), np.zeros((1, 24, 24), int)
    pair = (nothing, labels) if swapped else (labels, nothing)
    for reach in (1, 3):
        count = sum(calibration.reliability(certain(pair[0]), pair[1], reach=reach)["count"])
        inside = 64 - max(0, 8 - 2 * reach) ** 2
        outside = 4 * 8 * reach  # no corners: the border is sought along rows and columns
        assert count == inside + outside
    assert sum(calibration.reliability(certain(nothing), nothing)["count"]) == 0


def test_a_calibrated_network_expects_the_dice_it_gets():
    rng = np.random.default_rng(1)
    p = rng.random((3, 64, 64)) ** 3  # of class 2, the rest background
    probability = np.stack([1 - p, 0 * p, p, 0 * p], 1)
    truth = np.where(rng.random(p.shape) < p, 2, 0)
    expected, reached = calibration.expected_dice(probability), dice(probability.argmax(1), truth)
    np.testing.assert_allclose(expected[:, 1], reached[:, 1], atol=0.02)
    assert np.isnan(expected[:, [0, 2]]).all()


def test_agreement_is_the_mean_of_all_pairs():
    masks = [square(8, 16), square(8, 16), square(8, 12)]
    one = dice(masks[0], masks[2])[0, 2]
    np.testing.assert_allclose(calibration.agreement(masks)[0, 2], (1 + 2 * one) / 3)
    assert np.isnan(calibration.agreement(masks)[0, :2]).all()
    with pytest.raises(ValueError, match="two or more"):
        calibration.agreement(masks[:1])


def test_setting_the_worst_aside_leaves_the_best():
    good = np.array([0.9, 0.5, 0.7, 0.8])
    coverage, kept = calibration.risk_coverage(good, good)
    np.testing.assert_allclose(coverage, [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(kept, [0.725, 0.8, 0.85, 0.9])
    _, backwards = calibration.risk_coverage(-good, good)
    np.testing.assert_allclose(backwards, [0.725, 2 / 3, 0.6, 0.5])
