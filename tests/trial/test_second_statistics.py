"""The second trial's statistics: against code of their own, on the first trial's records and in simulated worlds."""

import json

import numpy as np
import pytest
from scipy import stats

from cmrtrial import compare as comparisons
from cmrtrial import records as results
from cmrtrial.second import worlds
from cmrtrial.second.statistics import (
    Difference,
    Proportion,
    Scores,
    compare,
    holm,
    p_values,
    pairs,
)

# --- the closed form -----------------------------------------------------------------------------


def squares(values):
    return sum((v - np.mean(values)) ** 2 for v in values)


def by_hand(a, b, crossed=False):
    """The same estimate, error and degrees of freedom, written again from the words.

    Run by run, patient by patient. A level is a setting of one run, in which all patients have it.
    Crossed: run r of each fold has seed r.
    """
    n = sum(len(fold[0]) for fold in a)
    estimate, patients, parts, runs = 0.0, 0.0, [], []
    for fold_a, fold_b in zip(a, b):
        d = np.mean(fold_a, 0) - np.mean(fold_b, 0)
        estimate += sum(d) / n
        patients += squares(d)
    parts.append((patients / (n - len(a)) / n, n - len(a)))
    for side in (side for side in (a, b) if len(side[0]) > 1):
        rest, free, weight = 0.0, 0, 0.0
        for fold in side:
            grand, of_patient = np.mean(fold), np.mean(fold, 0)
            for run in fold:
                rest += sum((y - m - np.mean(run) + grand) ** 2 for y, m in zip(run, of_patient))
            free += (len(fold) - 1) * (len(fold[0]) - 1)
            weight += len(fold[0]) / len(fold)
        parts.append((-rest / free * weight / n**2, free))
        if crossed:  # how the mean over all patients varies between the seeds
            means = [sum(sum(fold[seed]) for fold in side) / n for seed in range(len(side[0]))]
            between, free, weight = squares(means), len(means) - 1, 1 / len(means)
        else:
            between = sum(squares(np.mean(fold, 1)) for fold in side)
            free = sum(len(fold) - 1 for fold in side)
            weight = sum((len(fold[0]) / n) ** 2 / len(fold) for fold in side)
        runs.append((between / free * weight, free))
    variance = max(sum(v for v, _ in parts), 0) + sum(v for v, _ in runs)
    df = variance**2 / sum(v**2 / f for v, f in parts + runs)
    return estimate, variance**0.5, min(f for _, f in parts + runs) if crossed else df


def of_first_trial(name, setting):
    """Dice of each patient in each run of a setting that has several seeds, by fold."""
    table = comparisons.runs(name)
    groups = table[table["setting"] == setting].groupby("split")
    return {fold: np.stack([p.mean(axis=1) for p in runs["patients"]]) for fold, runs in groups}


def scores_of(values, distinct=True):
    seeds = {
        fold: [(n if distinct else 0) * 100 + r for r in range(len(y))]
        for n, (fold, y) in enumerate(sorted(values.items()))
    }
    return Scores(values, seeds)


@pytest.mark.parametrize("crossed", [False, True], ids=["seeds of each fold", "shared seeds"])
@pytest.mark.parametrize("other", ["SegNet", "AlexNet, SGD", 0.73], ids=str)
def test_the_closed_form_is_what_it_says_on_records_of_the_first_trial(other, crossed):
    level = isinstance(other, float)
    a = of_first_trial("baseline", "baseline")
    b = {f: np.full((1, 12), other) for f in a} if level else of_first_trial("architectures", other)
    found = compare(scores_of(a, not crossed), other if level else scores_of(b, not crossed))
    expected = by_hand([y.tolist() for y in a.values()], [y.tolist() for y in b.values()], crossed)
    assert (found.mean, found.se, found.df) == pytest.approx(expected, rel=0, abs=1e-9)
    p, t = p_values(found, "no-more"), (expected[0] - 0.02) / expected[1]
    assert p["confirmed"] == pytest.approx(stats.t.cdf(t, expected[2]), rel=0, abs=1e-9)
    assert p["contradicted"] == pytest.approx(stats.t.sf(t, expected[2]), rel=0, abs=1e-9)


def test_patients_add_no_negative_variance():
    """All of it comes from patients that react differently to each run."""
    opposite = np.array([[0.0, 1.0], [1.0, 0.0]])
    found = compare(scores_of({"fold0": opposite, "fold1": opposite}), 0.25)
    assert (found.mean, found.se, found.above(0), found.below(0)) == (0.25, 0.0, 0.0, 1.0)


ONES = np.ones((2, 3))
FOLD, TWO = scores_of({"fold0": ONES}), scores_of({"fold0": ONES, "fold1": ONES})
SHARED = Scores(TWO.values, {"fold0": [1, 2], "fold1": [2, 3]})
NOT_COMPARED = [
    (SHARED, 0.0, "share"),
    (scores_of({"fold0": ONES[:1], "fold1": ONES[:1]}), 0.0, "one run"),
    (TWO, FOLD, "other folds"),
    (FOLD, scores_of({"fold0": np.ones((2, 4))}), "or patients"),
]


@pytest.mark.parametrize("a, b, said", NOT_COMPARED)
def test_what_cannot_be_compared_is_refused(a, b, said):
    with pytest.raises(ValueError, match=said):
        compare(a, b)


def test_a_mixed_model_errs_as_rarely_on_file():
    """Restricted maximum likelihood, see benchmarks/mixed_model.py."""
    filed = json.loads((results.STORE / "second-mixed-model.json").read_text(encoding="utf-8"))
    scatter = 100 * np.sqrt(0.05 * 0.95 / filed["pairs"])
    for found in filed["false verdicts on one claim, per cent"].values():
        both = found["closed form"], found["mixed model"]
        assert found["not fitted"] == 0 and abs(both[0] - both[1]) < 1
        assert max(both) < 5 + 2.6 * scatter  # 1 % of such rates


# --- verdicts ------------------------------------------------------------------------------------


def test_p_values_are_those_of_students_test():
    x = np.random.default_rng(1).normal(0.01, 0.02, 12)
    found = Difference(float(x.mean()), float(stats.sem(x)), 11)
    farther = Difference(found.mean + 0.02, found.se, 11)
    student = stats.ttest_1samp(x, 0)
    two_sided = student.pvalue
    below = stats.ttest_1samp(x, -0.02, alternative="greater").pvalue
    above = stats.ttest_1samp(x, 0.02, alternative="less").pvalue
    expected = [
        (found, "greater", "confirmed", two_sided),
        (found, "less", "contradicted", two_sided),
        (found, "equal", "confirmed", max(below, above)),
        (farther, "equal", "contradicted", two_sided),
        (found, "less", "equivalent", 2 * above),
        (found, "no-more", "confirmed", above),
    ]
    for difference, claim, verdict, p in expected:
        assert p_values(difference, claim)[verdict] == pytest.approx(p), (claim, verdict)
    assert found.interval() == pytest.approx(tuple(student.confidence_interval(0.95)))
    with pytest.raises(ValueError, match=r"larger.*: expected greater, less, equal or no-more"):
        p_values(found, "larger")


def verdict(difference, claim):
    return holm([p_values(difference, claim)])[0]


UNKNOWN = "inconclusive"
CALM = (False, False)
MEANS = (-0.05, 0.0, 0.05)
VERDICTS = [  # claim, whether a and b still rise: verdicts on these differences
    ("greater", CALM, ("contradicted", "equivalent", "confirmed")),
    ("less", CALM, ("confirmed", "equivalent", "contradicted")),
    ("equal", CALM, ("contradicted", "confirmed", "contradicted")),
    ("no-more", CALM, ("confirmed", "confirmed", "contradicted")),
    ("greater", (True, False), ("contradicted", UNKNOWN, UNKNOWN)),
    ("greater", (False, True), (UNKNOWN, UNKNOWN, "confirmed")),
    ("equal", (True, False), ("contradicted", UNKNOWN, UNKNOWN)),
    ("no-more", (False, True), (UNKNOWN, UNKNOWN, "contradicted")),
    ("no-more", (True, False), ("confirmed", "confirmed", UNKNOWN)),
]


@pytest.mark.parametrize("claim, rising, expected", VERDICTS)
def test_verdicts_and_a_setting_that_still_rises_is_never_ahead_nor_equal(claim, rising, expected):
    assert tuple(verdict(Difference(m, 0.004, 30, rising), claim) for m in MEANS) == expected
    assert {verdict(Difference(m, 1.0, 30, rising), claim) for m in MEANS} == {UNKNOWN}


@pytest.mark.parametrize("held_back", [{"rise": 0.021}, {"dead": True}, {"rise": 0.019}], ids=str)
def test_compare_marks_settings_that_rise_or_have_runs_that_learnt_nothing(held_back):
    rng, marked = np.random.default_rng(0), held_back != {"rise": 0.019}
    low = scores_of({f"fold{f}": 0.5 + rng.normal(0, 0.004, (3, 4)) for f in range(5)})
    ahead = Scores({fold: y + 0.2 for fold, y in low.values.items()}, low.seeds, **held_back)
    assert compare(ahead, low).rising == (marked, False)
    assert compare(low, ahead).rising == (False, marked)
    assert verdict(compare(ahead, low), "greater") == (UNKNOWN if marked else "confirmed")


def epochs_of(first, second, *seeds):
    """One value in each run of two folds, all for one patient."""
    columns = (np.array(fold, float)[:, None] for fold in (first, second))
    return Scores(dict(zip(("fold0", "fold1"), columns)), dict(zip(("fold0", "fold1"), seeds)))


def test_runs_are_judged_by_the_signs_of_their_pairs():
    """Of six pairs one is a tie, four are earlier; b has a run more, and its own order."""
    a = epochs_of([10, 20, 30], [40, 50, 500], [5, 10, 15], [6, 11, 16])
    b = epochs_of([15, 20, 35, 0], [60, 55, 60, 0], [5, 10, 15, 20], [11, 6, 16, 21])
    found = pairs(a, b)
    assert found.differences == (-5, 0, -5, -15, -10, 440)
    assert (found.below(0), found.above(0)) == pytest.approx((6 / 32, 31 / 32))
    assert (found.below(5), found.above(-5)) == pytest.approx((7 / 64, 11 / 16))
    mean = compare(a, b)
    assert (found.mean, found.se, found.interval()) == (mean.mean, mean.se, mean.interval())
    assert pairs(a, 30.0).differences == (-20, -10, 0, 10, 20, 470)
    same = pairs(a, a)
    assert same.above(0) == same.below(0) == 1.0
    assert p_values(same, "less", 5)["equivalent"] == pytest.approx(2 / 64)  # all six within 5


@pytest.mark.parametrize("less, word", [(14, "confirmed"), (13, UNKNOWN), (1, "contradicted")])
def test_fourteen_of_fifteen_pairs_decide_the_first_of_twenty_claims(less, word):
    y = np.array([-7.0] * less + [7.0] * (15 - less)).reshape(5, 3, 1)
    p = p_values(pairs(scores_of({f"fold{f}": y[f] for f in range(5)})), "less", 5)
    assert holm([p] + [{"confirmed": 1.0}] * 19) == [word] + [UNKNOWN] * 19


def test_holm_by_hand():
    """0.01 <= 0.05 / 4, 0.015 <= 0.05 / 3, but 0.03 > 0.05 / 2."""
    family = [{"confirmed": p} for p in (0.01, 0.04, 0.03, 0.015)]
    assert holm(family) == ["confirmed", UNKNOWN, UNKNOWN, "confirmed"]
    assert holm([]) == []


def test_shares_of_runs_are_judged_exactly():
    found = Proportion(14, 15, 0.5)
    assert found.above(0) == Proportion(14, 15, 0.4).above(0.1) == pytest.approx(16 / 2**15)
    assert found.above(0) == pytest.approx(Proportion(1, 15, 0.6).below(-0.1))
    assert verdict(found, "greater") == "confirmed"
    assert verdict(Proportion(8, 15, 0.5), "greater") == UNKNOWN
    assert found.interval()[0] < found.mean < found.interval()[1]


# --- simulated worlds ----------------------------------------------------------------------------


def test_in_every_world_at_most_one_trial_in_twenty_says_something_false():
    committed = json.loads((results.STORE / "second-worlds.json").read_text(encoding="utf-8"))
    kept = committed["false verdicts in any, per cent"]
    assert list(kept) == list(worlds.WORLDS)
    assert all(rates["estimand"] <= 5 for rates in kept.values())
    # what the estimand leaves out, and the page must say
    assert kept["folds share training patients"]["beyond"] > 5


@pytest.mark.slow
@pytest.mark.parametrize("name", worlds.WORLDS)
def test_worlds_again(name):
    assert worlds.rates(name, 300, seed=1)["estimand"] <= 5 + 3 * (5 * 95 / 300) ** 0.5


def test_trials_drawn_here_are_seldom_false_and_one_that_errs_is_counted(monkeypatch):
    """So few that only a broken procedure shows: a sound one fails once in ten thousand."""
    found = worlds.rates("unequal variances", 40, seed=2)["estimand"] * 40 / 100
    assert found <= stats.binom.isf(1e-4, 40, 0.05)
    monkeypatch.setattr(worlds, "compare", lambda a, b: Difference(0.5, 0.001, 50))
    assert worlds.rates("plain", 2) == {"estimand": 100.0, "beyond": 100.0}
