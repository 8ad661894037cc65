"""Statistics of the first trial, beside scipy's and by hand."""

import numpy as np
import pytest
from scipy import stats

from cmrtrial.second.statistics import Proportion
from cmrtrial.statistics import paired_difference, pooled_run_variance, verdict


def test_without_variance_between_runs_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.85, 0.05, (2, 60))
    difference = paired_difference(a, b, [(0.0, 20)])
    expected = stats.ttest_rel(a, b).confidence_interval()
    np.testing.assert_allclose(difference.interval(), (expected.low, expected.high))
    gap = np.r_[a, np.nan]
    assert paired_difference(gap, np.r_[b, 0.5], [(0.0, 20)]) == difference


PARTS = [(np.zeros(3), [(0.1, 20), (0.05, 10)], 0.15), (0.0, [(0.1, 20)], 0.1)]


@pytest.mark.parametrize("b, run_parts, total", PARTS)
def test_the_standard_error_by_hand(b, run_parts, total):
    """Differences 1, 2, 3: variance 1 over 3 patients."""
    difference = paired_difference(np.array([1.0, 2, 3]), b, run_parts)
    assert difference.mean == 2 and difference.se == pytest.approx((1 / 3 + total) ** 0.5)
    parts = np.array([(1 / 3, 2), *run_parts])
    df = (1 / 3 + total) ** 2 / (parts[:, 0] ** 2 / parts[:, 1]).sum()  # Welch, Satterthwaite
    assert difference.df == pytest.approx(df)


def test_variance_between_seeds_is_pooled_over_settings():
    groups = [np.array([1.0, 3]), np.array([10.0, 11, 12]), np.array([7.0])]
    assert pooled_run_variance(groups) == (pytest.approx((2 + 2) / 3), 3)


def test_the_interval_of_a_proportion_is_wilsons_round_its_level():
    share = Proportion(4, 5, 0.3)
    low, high = share.interval()
    assert share.mean == pytest.approx(0.5)
    assert (low + 0.3, high + 0.3) == pytest.approx((0.3755, 0.9638), abs=1e-4)  # Wilson (1927)


VERDICTS = [
    ((0.01, 0.05), "greater", "confirmed"),
    ((-0.05, -0.01), "greater", "contradicted"),
    ((-0.05, -0.01), "less", "confirmed"),
    ((-0.015, 0.019), "less", "equivalent"),
    ((-0.015, 0.021), "greater", "inconclusive"),
    ((-0.015, 0.019), "equal", "confirmed"),
    ((-0.05, -0.03), "equal", "contradicted"),
    ((0.01, 0.05), "equal", "inconclusive"),
]


@pytest.mark.parametrize("interval, claim, expected", VERDICTS)
def test_verdicts(interval, claim, expected):
    assert verdict(interval, claim) == expected
