"""Intervals over patients, beside scipy's.

Each group fails after any of these one-line changes of ``cmrseg/statistics.py``:

- Student's interval: ``len(values) - 1`` -> ``len(values)``; ``(1 + level) / 2`` -> ``level``;
  ``len(values) < 2`` -> ``< 1``
- patients: in patient_means(), ``metrics.per_class(scores[...])`` -> ``scores[...][0]``
- the summary: in dice_summary(), ``b + shift`` -> ``b``, or ``np.clip(b + shift, 0, 1)`` -> ``b +
  shift``, or ``column[:, None], patients`` -> ``column[:, None], np.arange(len(scores))``
- paired differences: in paired_difference(), drop ``*luck`` (false alarms rise to a fifth), or ``*luck`` ->
  ``*luck[:1]``, or ``parts**2 / freedoms`` -> ``parts / freedoms``; in pooled_run_variance(), ``len(g) - 1`` -> ``len(g)``
- verdicts: ``low > 0`` -> ``high > 0``; ``within`` -> ``True``; drop the exchange of low and high for "less"
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from cmrseg import statistics

NAN = np.nan


@given(arrays(float, st.integers(2, 30), elements=st.floats(0, 1)), st.sampled_from([0.9, 0.95]))
def test_the_interval_of_a_mean_is_that_of_scipy(values, level):
    if np.ptp(values) < 1e-6:
        return
    expected = stats.ttest_1samp(values, 0).confidence_interval(level)
    found = statistics.mean_interval(values, level)
    np.testing.assert_allclose(found, (expected.low, expected.high), rtol=1e-9, atol=1e-12)
    with_gaps = np.concatenate([[NAN], values, [NAN]])
    assert statistics.mean_interval(with_gaps, level) == found


def test_the_interval_by_hand():
    """Mean 2, standard error 1 / sqrt 3 = 0.57735, t(0.975, 2) = 4.30265: 2 -+ 2.48414."""
    found = statistics.mean_interval(np.array([1.0, 2, 3]))
    assert found == pytest.approx((-0.48414, 4.48414), abs=1e-5)


def test_of_fewer_than_two_values_nothing_is_known():
    for values in ([], [0.8], [NAN, 0.8]):
        assert statistics.mean_interval(np.array(values)) == (-np.inf, np.inf)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [low <= 0.8 <= high for low, high in
            (statistics.mean_interval(v) for v in rng.normal(0.8, 0.1, (2000, 10)))]
    assert abs(np.mean(held) - 0.95) < 0.02


def test_patients_are_averaged_before_anything_else():
    scores = np.array([[0.2, NAN], [0.4, 0.5], [0.9, NAN], [0.6, 0.7]])
    found = statistics.patient_means(scores, np.array([7, 7, 2, 9]))
    np.testing.assert_allclose(found, [[0.9, NAN], [0.3, 0.5], [0.6, 0.7]])  # patients 2, 7, 9


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
    summary = statistics.dice_summary(scores, np.array([1, 1, 2, 2, 3, 3]))
    assert summary["dice"] == {"RV": pytest.approx(0.72), "Myo": 0.5, "LV": None,
                               "mean": pytest.approx(0.61)}
    assert summary["interval"] == {
        "RV": pytest.approx([0.20289, 1], abs=2e-5), "Myo": pytest.approx([0.5, 0.5]), "LV": None,
        "mean": pytest.approx([0.35144, 0.86856], abs=2e-5)}
    assert summary["absent"] == {"RV": 1, "Myo": 0, "LV": 6}


def test_two_slices_of_one_patient_are_not_two_witnesses():
    rng = np.random.default_rng(0)
    hearts = rng.uniform(0.6, 0.95, (8, 3))
    once = statistics.dice_summary(hearts, np.arange(8))
    twice = statistics.dice_summary(np.repeat(hearts, 2, 0), np.repeat(np.arange(8), 2))
    assert twice["interval"] == {k: pytest.approx(v) for k, v in once["interval"].items()}


@pytest.mark.filterwarnings("error")
def test_with_one_patient_the_interval_is_everything_and_with_no_class_nothing():
    one = statistics.dice_summary(np.array([[0.5, 0.6, 0.7]] * 2), np.array([1, 1]))
    assert set(map(tuple, one["interval"].values())) == {(0.0, 1.0)}
    none = statistics.dice_summary(np.full((2, 3), NAN), np.array([1, 2]))
    assert set(none["dice"].values()) == set(none["interval"].values()) == {None}
    assert none["absent"] == {"RV": 2, "Myo": 2, "LV": 2}


# --- comparing two settings ----------------------------------------------------------------------


def test_without_variance_between_runs_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.85, 0.05, (2, 60))
    found = statistics.paired_difference(a, b, [(0.0, 20)])
    expected = stats.ttest_rel(a, b).confidence_interval()
    np.testing.assert_allclose(found.interval(), (expected.low, expected.high))
    gap = np.r_[a, np.nan]
    assert statistics.paired_difference(gap, np.r_[b, 0.5], [(0.0, 20)]) == found


@pytest.mark.parametrize("b, luck, run_part", [
    (np.zeros(3), [(0.2, 20)], 0.2), (np.zeros(3), [(0.1, 20), (0.05, 10)], 0.15), (0.0, [(0.1, 20)], 0.1)])
def test_the_standard_error_by_hand(b, luck, run_part):
    """Differences 1, 2, 3: variance 1 over 3 patients."""
    found = statistics.paired_difference(np.array([1.0, 2, 3]), b, luck)
    assert found.mean == 2 and found.se == pytest.approx((1 / 3 + run_part) ** 0.5)
    parts = np.array([(1 / 3, 2), *luck])
    expected = (1 / 3 + run_part) ** 2 / (parts[:, 0] ** 2 / parts[:, 1]).sum()  # Welch and Satterthwaite
    assert found.freedom == pytest.approx(expected)


def test_the_rate_of_false_alarms_is_what_it_says():
    """No true difference, five folds of twelve patients, runs that lift a whole fold."""
    rng, alarms, repeats = np.random.default_rng(1), 0, 2000
    for _ in range(repeats):
        patients = rng.normal(0.85, 0.04, 60)
        runs = rng.normal(0, 0.01, (2, 5)).repeat(12, axis=1)
        a, b = patients + runs + rng.normal(0, 0.02, (2, 60))
        low, high = statistics.paired_difference(a, b, [(2 * 0.01**2 / 5, 20)]).interval()
        alarms += not low < 0 < high
    assert 0.01 < alarms / repeats < 0.06


def test_variance_between_seeds_is_pooled_over_settings():
    groups = [np.array([1.0, 3]), np.array([10.0, 11, 12]), np.array([7.0])]
    assert statistics.pooled_run_variance(groups) == (pytest.approx((2 + 2) / 3), 3)


@pytest.mark.parametrize("interval, claim, expected", [
    ((0.01, 0.05), "greater", "confirmed"),
    ((-0.05, -0.01), "greater", "contradicted"),
    ((-0.05, -0.01), "less", "confirmed"),
    ((0.01, 0.05), "less", "contradicted"),
    ((-0.015, 0.019), "greater", "equivalent"),
    ((-0.015, 0.019), "less", "equivalent"),
    ((-0.015, 0.021), "greater", "inconclusive"),
    ((-0.03, 0.01), "less", "inconclusive"),
    ((-0.015, 0.019), "equal", "confirmed"),
    ((0.005, 0.015), "equal", "confirmed"),
    ((0.03, 0.05), "equal", "contradicted"),
    ((-0.05, -0.03), "equal", "contradicted"),
    ((0.01, 0.05), "equal", "inconclusive"),
])
def test_verdicts(interval, claim, expected):
    assert statistics.verdict(interval, claim) == expected


def test_a_claim_must_be_one_of_three():
    with pytest.raises(ValueError, match="better"):
        statistics.verdict((0, 1), "better")
