"""Dice and surface distances, beside MONAI's.

Each group fails after any of these one-line changes of ``cmrseg/metrics.py``:

- Dice: ``2 * overlap`` -> ``overlap``; ``, empty)`` -> ``, 1.0)``
- means: in mean(), ``per_class(per_class(scores))`` -> ``per_class(scores.ravel())``; in
  per_class(), ``np.nanmean`` -> ``np.mean``
- surface distance: ``np.percentile(there, 95)`` -> ``there.max()``; ``there <= tolerance`` ->
  ``there < tolerance``; ``a & ~binary_erosion(a)`` -> ``a``
- coarser masks: ``.argmax(0)`` -> ``.argmin(0)``; ``sum((2, 4))`` -> ``sum((1, 3))``;
  ``.repeat(square, 1)`` -> ``.repeat(square, 2)``; ``if height % square or width % square`` -> ``if False``
- absent classes: ``one_empty=diagonal`` -> ``one_empty=0``; ``elif a.any() or b.any()`` -> ``elif
  a.any()``
- shapes: ``if pred.shape != truth.shape`` -> ``if False``
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import (
    DiceMetric,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy.ndimage import gaussian_filter

from cmrseg import metrics

ONE_EMPTY = pytest.approx(np.hypot(24, 20))


def blobs(n, seed, size=(24, 20)):
    """n label maps of smooth random regions, which reach the border."""
    noise = np.random.default_rng(seed).normal(size=(n, 4, *size))
    return gaussian_filter(noise, (0, 0, 2.5, 2.5)).argmax(1)


def one_hot(masks):
    return torch.from_numpy(np.eye(4)[masks]).permute(0, 3, 1, 2)


PAIRS = [(blobs(6, seed), blobs(6, seed + 100)) for seed in range(3)]
PAIRS += [(truth, np.roll(truth, (1, -2), (1, 2))) for _, truth in PAIRS]  # close to the truth


@pytest.mark.parametrize("pred, truth", PAIRS)
def test_dice_is_that_of_monai(pred, truth):
    expected = compute_dice(one_hot(pred), one_hot(truth), include_background=False)
    np.testing.assert_allclose(metrics.dice(pred, truth), expected, atol=1e-6)
    average = DiceMetric(include_background=False, reduction="mean_batch")
    average(one_hot(pred), one_hot(truth))
    found = metrics.per_class(metrics.dice(pred, truth))
    np.testing.assert_allclose(found, average.aggregate(), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_dice_with_absent_classes_is_that_of_monai(seed, most):
    rng = np.random.default_rng(seed)
    pred, truth = rng.integers(0, most + 1, (2, 3, 2, 2))  # tiny, so classes are often absent
    expected = compute_dice(one_hot(pred), one_hot(truth), include_background=False,
                            ignore_empty=False)
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


def test_dice_is_symmetric_and_one_only_for_equals():
    pred, truth = PAIRS[0]
    np.testing.assert_array_equal(metrics.dice(pred, truth), metrics.dice(truth, pred))
    assert (metrics.dice(truth, truth) == 1).all() and (metrics.dice(pred, truth) < 1).all()


def test_the_three_ways_to_average_by_hand():
    """Classes: 1.9 / 3, 0.6 and 0.2. Images: 0.8, 0.1 and 0.9. Pooled: five numbers, sum 2.7."""
    nan = np.nan
    scores = np.array([[1, 0.6, nan], [0, nan, 0.2], [0.9, nan, nan]])
    np.testing.assert_allclose(metrics.per_class(scores), [1.9 / 3, 0.6, 0.2])
    assert metrics.mean(scores) == pytest.approx((1.9 / 3 + 0.6 + 0.2) / 3)
    assert metrics.mean(scores, "image") == pytest.approx((0.8 + 0.1 + 0.9) / 3)
    assert metrics.mean(scores, "pooled") == pytest.approx(2.7 / 5)
    with pytest.raises(ValueError, match="average='median'"):
        metrics.mean(scores, "median")


@pytest.mark.filterwarnings("error")
def test_a_class_absent_everywhere_is_nan_and_leaves_the_mean_alone():
    scores = np.array([[0.5, np.nan, 1], [0.7, np.nan, 1]])
    assert np.isnan(metrics.per_class(scores)).tolist() == [False, True, False]
    assert metrics.mean(scores) == pytest.approx(0.8)


def test_each_square_takes_the_label_of_most_of_its_pixels():
    mask = np.array([[[1, 1, 2, 2, 0, 0],
                      [1, 0, 3, 3, 0, 3],
                      [3, 3, 0, 0, 1, 1],
                      [3, 3, 0, 1, 1, 2]]], np.uint8)
    found = metrics.coarsen(mask, 2)
    assert found.dtype == np.uint8 and found[0].tolist() == [
        [1, 1, 2, 2, 0, 0]] * 2 + [[3, 3, 0, 0, 1, 1]] * 2
    assert (metrics.coarsen(mask, 1) == mask).all()
    with pytest.raises(ValueError, match="4 x 6 pixels"):
        metrics.coarsen(mask, 4)


@pytest.mark.parametrize("pred, truth", PAIRS)
def test_hd95_is_that_of_monai(pred, truth):
    expected = compute_hausdorff_distance(one_hot(pred), one_hot(truth), percentile=95)
    np.testing.assert_allclose(metrics.hd95(pred, truth), expected, rtol=1e-5)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3.5])
@pytest.mark.parametrize("pred, truth", PAIRS)
def test_surface_dice_is_that_of_monai(pred, truth, tolerance):
    expected = compute_surface_dice(one_hot(pred), one_hot(truth), [tolerance] * 3)
    np.testing.assert_allclose(metrics.surface_dice(pred, truth, tolerance), expected, rtol=1e-5)


def test_a_square_shifted_by_three_is_three_pixels_away():
    truth = np.zeros((1, 20, 20), int)
    truth[0, 5:10, 5:10] = 3
    pred = np.roll(truth, 3, 2)
    assert metrics.hd95(pred, truth, classes=(3,)).item() == 3
    # Of the 16 pixels of each outline: the edge left behind (5) and one pixel beside it on each
    # flank are farther than 1 from the other outline; beyond that the outlines run on each other.
    there, back = metrics.surface_distances(pred[0] == 3, truth[0] == 3)
    assert len(there) == len(back) == 16 and there.max() == back.max() == 3
    share = ((there <= 1).sum() + (back <= 1).sum()) / 32
    assert metrics.surface_dice(pred, truth, 1, classes=(3,)).item() == share
    assert metrics.surface_dice(pred, truth, 3, classes=(3,)).item() == 1


def test_distances_of_absent_classes_follow_the_rules():
    truth, pred = np.zeros((2, 3, 24, 20), int)
    truth[0, 4, 4] = pred[1, 4, 4] = 1  # truth only, prediction only, neither
    assert metrics.hd95(pred, truth)[0, 0] == metrics.hd95(pred, truth)[1, 0] == ONE_EMPTY
    assert metrics.surface_dice(pred, truth, 2)[:2, 0].tolist() == [0, 0]
    for table in (metrics.hd95(pred, truth), metrics.surface_dice(pred, truth, 2)):
        assert table.shape == (3, 3)
        assert np.isnan(table[2]).all() and np.isnan(table[:, 1:]).all()


@pytest.mark.parametrize("score", [metrics.dice, metrics.hd95,
                                   lambda p, t: metrics.surface_dice(p, t, 1)])
def test_arrays_of_two_shapes_are_refused(score):
    with pytest.raises(ValueError, match="differ in shape"):
        score(np.zeros((1, 4, 4), int), np.zeros((2, 4, 4), int))
