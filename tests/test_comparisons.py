"""Paired differences with both parts of the error, and the verdicts made of them.

What makes each test fail (each was seen to fail):

- one part alone: in paired_difference(), `1 / runs_a + 1 / runs_b` -> `0`
- the honest rate: the same change (the rejection rate rises to about a fifth)
- pooled variance: `len(g) - 1` -> `len(g)` in pooled_run_variance()
- verdicts: `low > 0` -> `high > 0`; `within` -> `True`; drop the exchange of low and high for "less"
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cmrseg import statistics


def test_without_variance_between_runs_it_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.85, 0.05, (2, 60))
    found = statistics.paired_difference(a, b, 0.0, 5, 5, 20)
    expected = stats.ttest_rel(a, b).confidence_interval()
    np.testing.assert_allclose(found.interval(), (expected.low, expected.high))
    gap = np.r_[a, np.nan]
    assert statistics.paired_difference(gap, np.r_[b, 0.5], 0.0, 5, 5, 20) == found


def test_the_standard_error_by_hand():
    """Differences 1, 2, 3: variance 1 over 3 patients; run variance 0.5, five runs: 2 * 0.5 / 5."""
    found = statistics.paired_difference(np.array([1.0, 2, 3]), np.zeros(3), 0.5, 5, 5, 20)
    assert found.mean == 2 and found.se == pytest.approx((1 / 3 + 0.2) ** 0.5)


def test_the_rate_of_false_alarms_is_what_it_says():
    """No true difference, five folds of twelve patients, runs that lift a whole fold."""
    rng, alarms, repeats = np.random.default_rng(1), 0, 2000
    for _ in range(repeats):
        patients = rng.normal(0.85, 0.04, 60)
        runs = rng.normal(0, 0.01, (2, 5)).repeat(12, axis=1)
        a, b = patients + runs + rng.normal(0, 0.02, (2, 60))
        low, high = statistics.paired_difference(a, b, 0.01**2, 5, 5, 20).interval()
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
