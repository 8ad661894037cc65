"""Dice and surface distances beside MONAI's, intervals over patients beside scipy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.ndimage import gaussian_filter

from cmrseg import metrics

NAN = np.nan
ONE_EMPTY = pytest.approx(np.hypot(24, 20))


@pytest.fixture(scope="module")
def monai():
    """MONAI's metrics. To import them takes seconds, which not every process should spend."""
    from monai import metrics

    return metrics


def blobs(n, seed, size=(24, 20)):
    """n label maps of smooth random regions, which reach the border."""
    noise = np.random.default_rng(seed).normal(size=(n, 4, *size))
    return gaussian_filter(noise, (0, 0, 2.5, 2.5)).argmax(1)


def one_hot(masks):
    return torch.from_numpy(np.eye(4)[masks]).permute(0, 3, 1, 2)


PAIRS = [(blobs(6, seed), blobs(6, seed + 100)) for seed in range(3)]
PAIRS += [(truth, np.roll(truth, (1, -2), (1, 2))) for _, truth in PAIRS]  # close to the truth


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), most=st.integers(1, 3))
def test_dice_with_absent_classes_is_that_of_monai(monai, seed, most):
    rng = np.random.default_rng(seed)
    pred, truth = rng.integers(0, most + 1, (2, 3, 2, 2))  # tiny, so classes are often absent
    expected = monai.compute_dice(
        one_hot(pred), one_hot(truth), include_background=False, ignore_empty=False
    )
    np.testing.assert_allclose(metrics.dice(pred, truth, empty=1.0), expected, atol=1e-6)


def test_dice_by_hand_with_every_kind_of_absence():
    """RV: 2 * 1 / (2 + 1). Myo: truth only. LV: prediction only, then neither."""
    truth = np.array([[[1, 1, 2, 0]], [[0, 0, 0, 0]]])
    pred = np.array([[[1, 0, 0, 3]], [[0, 0, 0, 0]]])
    expected = [[2 / 3, 0, 0], [np.nan] * 3]
    np.testing.assert_allclose(metrics.dice(pred, truth), expected)
    np.testing.assert_array_equal(metrics.dice(pred, truth, empty=1)[1], [1, 1, 1])
    np.testing.assert_allclose(metrics.dice(pred, truth, classes=(0, 1))[:, 0], [0, 1])
    np.testing.assert_array_equal(metrics.areas(truth), [[2, 1, 0], [0, 0, 0]])


def test_images_are_averaged_before_classes():
    nan = np.nan
    scores = np.array([[1, 0.6, nan], [0, nan, 0.2], [0.9, nan, nan]])
    np.testing.assert_allclose(metrics.per_class(scores), [1.9 / 3, 0.6, 0.2])
    assert metrics.mean(scores) == pytest.approx((1.9 / 3 + 0.6 + 0.2) / 3)


def test_each_square_takes_the_label_of_most_of_its_pixels_the_smaller_of_two_equals():
    rows = ["112200", "103303", "330011", "330112"]
    mask = np.array([[[int(c) for c in row] for row in rows]], np.uint8)
    half = metrics.downsample_labels(mask, 2)
    assert half.dtype == np.uint8 and half.tolist() == [[[1, 2, 0], [3, 0, 1]]]
    assert (metrics.downsample_labels(mask, 1) == mask).all()
    with pytest.raises(ValueError, match="4 x 6 pixels"):
        metrics.downsample_labels(mask, 4)


@pytest.mark.parametrize("pred, truth", PAIRS)
def test_hd95_is_that_of_monai(monai, pred, truth):
    expected = monai.compute_hausdorff_distance(one_hot(pred), one_hot(truth), percentile=95)
    np.testing.assert_allclose(metrics.hd95(pred, truth), expected, rtol=1e-5)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3.5])
@pytest.mark.parametrize("pred, truth", PAIRS)
def test_surface_dice_is_that_of_monai(monai, pred, truth, tolerance):
    expected = monai.compute_surface_dice(one_hot(pred), one_hot(truth), [tolerance] * 3)
    np.testing.assert_allclose(metrics.surface_dice(pred, truth, tolerance), expected, rtol=1e-5)


def test_distances_of_absent_classes_follow_the_rules():
    truth, pred = np.zeros((2, 3, 24, 20), int)
    truth[0, 4, 4] = pred[1, 4, 4] = 1  # truth only, prediction only, neither
    assert metrics.hd95(pred, truth)[0, 0] == metrics.hd95(pred, truth)[1, 0] == ONE_EMPTY
    assert metrics.surface_dice(pred, truth, 2)[:2, 0].tolist() == [0, 0]
    for table in (metrics.hd95(pred, truth), metrics.surface_dice(pred, truth, 2)):
        assert table.shape == (3, 3)
        assert np.isnan(table[2]).all() and np.isnan(table[:, 1:]).all()


@pytest.mark.parametrize(
    "score", [metrics.dice, metrics.hd95, lambda p, t: metrics.surface_dice(p, t, 1)]
)
def test_arrays_of_two_shapes_are_refused(score):
    with pytest.raises(ValueError, match="differ in shape"):
        score(np.zeros((1, 4, 4), int), np.zeros((2, 4, 4), int))


# --- means and intervals over patients -----------------------------------------------------------


@given(arrays(float, st.integers(2, 30), elements=st.floats(0, 1)), st.sampled_from([0.9, 0.95]))
def test_the_interval_of_a_mean_is_that_of_scipy(values, level):
    if np.ptp(values) < 1e-6:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    interval = metrics.mean_interval(values, level)
    np.testing.assert_allclose(interval, (expected.low, expected.high), rtol=1e-9, atol=1e-12)
    with_gaps = np.concatenate([[NAN], values, [NAN]])
    assert metrics.mean_interval(with_gaps, level) == interval


def test_the_interval_by_hand():
    """Mean 2, standard error 1 / sqrt 3 = 0.57735, t(0.975, 2) = 4.30265: 2 -+ 2.48414."""
    interval = metrics.mean_interval(np.array([1.0, 2, 3]))
    assert interval == pytest.approx((-0.48414, 4.48414), abs=1e-5)


def test_of_fewer_than_two_values_nothing_is_known():
    for values in ([], [0.8], [NAN, 0.8]):
        assert metrics.mean_interval(np.array(values)) == (-np.inf, np.inf)


def test_patients_are_averaged_before_anything_else():
    scores = np.array([[0.2, NAN], [0.4, 0.5], [0.9, NAN], [0.6, 0.7]])
    means = metrics.patient_means(scores, np.array([7, 7, 2, 9]))
    np.testing.assert_allclose(means, [[0.9, NAN], [0.3, 0.5], [0.6, 0.7]])  # patients 2, 7, 9


@pytest.mark.filterwarnings("error")
def test_the_summary_by_hand():
    """Two slices each of three patients; RV is missing from one slice, LV from all.

    RV: mean of the five slices 3.6 / 5 = 0.72; patients 0.5, 0.8, 0.9 have the deviation 0.20817,
    so the half width is 4.30265 * 0.20817 / sqrt 3 = 0.51711, round 0.72: from 0.20289 to 1, cut
    off. Myo: all 0.5, so no width. Mean: (0.72 + 0.5) / 2 = 0.61; a patient's mean is that of the
    classes it has, 0.5, 0.65 and 0.7, with the deviation 0.10408: half width 0.25856.
    """
    rv = [0.4, 0.6, 0.8, NAN, 0.9, 0.9]
    scores = np.array([rv, [0.5] * 6, [NAN] * 6]).T
    summary = metrics.dice_summary(scores, np.array([1, 1, 2, 2, 3, 3]))
    assert summary["dice"] == {
        "RV": pytest.approx(0.72),
        "Myo": 0.5,
        "LV": None,
        "mean": pytest.approx(0.61),
    }
    assert summary["interval"] == {
        "RV": pytest.approx([0.20289, 1], abs=2e-5),
        "Myo": pytest.approx([0.5, 0.5]),
        "LV": None,
        "mean": pytest.approx([0.35144, 0.86856], abs=2e-5),
    }
    assert summary["absent"] == {"RV": 1, "Myo": 0, "LV": 6}


def test_two_slices_of_one_patient_are_not_two_witnesses():
    rng = np.random.default_rng(0)
    hearts = rng.uniform(0.6, 0.95, (8, 3))
    once = metrics.dice_summary(hearts, np.arange(8))
    twice = metrics.dice_summary(np.repeat(hearts, 2, 0), np.repeat(np.arange(8), 2))
    assert twice["interval"] == {k: pytest.approx(v) for k, v in once["interval"].items()}


@pytest.mark.filterwarnings("error")
def test_with_one_patient_the_interval_is_everything_and_with_no_class_nothing():
    one = metrics.dice_summary(np.array([[0.5, 0.6, 0.7]] * 2), np.array([1, 1]))
    assert set(map(tuple, one["interval"].values())) == {(0.0, 1.0)}
    none = metrics.dice_summary(np.full((2, 3), NAN), np.array([1, 2]))
    assert set(none["dice"].values()) == set(none["interval"].values()) == {None}
    assert none["absent"] == {"RV": 2, "Myo": 2, "LV": 2}
