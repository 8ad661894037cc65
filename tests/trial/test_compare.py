"""Settings compared, on made-up records with a known truth."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from made_up import only, trial, wild_runs  # noqa: F401

from cmrseg.data import BadInput
from cmrtrial import checks, compare, records
from cmrtrial.compare import by_patient, run_variance
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.plans.timing import timed
from cmrtrial.spec import FOLDS
from cmrtrial.statistics import paired_difference, pooled_run_variance

# ruff: noqa: F811


def settings(store, *names):
    table = compare.runs("trial", store=store)
    return [table[table["setting"] == name] for name in names]


def assert_compared(a, b, store, *run_parts):
    """The difference has both parts of the error, and its loadings add up to it."""
    compared = compare.compare(a, b, store=store)
    expected = paired_difference((by_patient(a) - by_patient(b)).to_numpy(), 0.0, run_parts)
    for name in ("mean", "se", "df"):
        assert getattr(compared.difference, name) == pytest.approx(getattr(expected, name))
    size = sum(v**2 for v in compared.loadings.values()) ** 0.5
    assert size == pytest.approx(expected.se, rel=0.02)


# --- reading -------------------------------------------------------------------------------------


def test_runs_are_those_of_one_protocol_with_a_row_of_patients_each(trial):
    store = trial({"a": 0.0, "b": 0.0})
    table = compare.runs("trial", store=store)
    assert len(table) == 10 and set(table["setting"]) == {"a", "b"}
    (a,) = settings(store, "a")
    assert by_patient(a).index.tolist() == list(range(1, 61))
    images = a.iloc[0]["record"]["images"]
    dice = np.array(images["dice"])[np.array(images["patient"]) == 5]
    assert by_patient(a)[5] == pytest.approx(dice.mean())
    assert by_patient(a, "RV-Myo")[5] == pytest.approx((dice[:, 0] - dice[:, 1]).mean())


def test_records_come_with_what_was_planned_and_a_missing_one_says_how_to_make_it(trial):
    store = trial({"a": 0.0})
    pairs, plan = compare.records("trial", store), EXPERIMENTS["trial"]
    assert [spec for spec, _ in pairs] == plan
    assert [record["key"] for _, record in pairs] == [spec.key() for spec in plan]
    plan[2].path(store=store).unlink()
    with pytest.raises(BadInput, match="no record yet for trial, a") as caught:
        compare.records("trial", store)
    assert "python -m cmrtrial sweep trial" in caught.value.cure


def test_a_mean_curve_is_that_of_its_runs():
    def record(*dice):
        return {"history": {"epoch": [1, 2, 3], "loss": [0.3, 0.2, 0.1], "dice": [None, *dice]}}

    runs = [record([None] * 3, [0.5, 0.6, 0.7]), record([0.2] * 3, [0.8] * 3)]
    curve = compare.mean_curve(pd.DataFrame({"record": runs}))
    assert curve.to_dict() == pytest.approx({2.0: 0.1, 3.0: 0.7})
    assert compare.mean_curve(pd.DataFrame({"record": []})).empty


def test_a_last_gain_is_what_the_last_epochs_brought(trial):
    (table,) = settings(trial({"a": 0.0}), "a")  # scored at epochs 20, 40 and 60
    last = compare.mean_curve(table)[60]
    assert compare.last_gain(table) == pytest.approx(last - 0.3)
    assert compare.last_gain(table, 20) == pytest.approx(last - 0.3)
    assert compare.last_gain(table, 21) == pytest.approx(last)


@pytest.mark.filterwarnings("error")
def test_training_dice_is_the_mean_of_the_records_that_have_it(trial):
    (table,) = settings(trial({"a": 0.1}), "a")
    assert compare.train_dice(table) == pytest.approx(0.95)
    first, *others = table["record"]
    rows = [first | {"dice_train": [0.5, 0.6, 0.7]}, *({"seed": 0} for _ in others)]
    assert compare.train_dice(table.assign(record=rows)) == pytest.approx(0.6)
    assert np.isnan(compare.train_dice(table.assign(record=rows).iloc[1:]))


def test_a_beat_takes_a_share_of_the_area_it_began_with():
    true = [[5, 9, 25], [6, 8, 100], [7, 7, 80], [3, 9, 40]]
    images = {"name": ["cmr8", "cmr7", "cmr1", "cmr2"], "patient": [4, 4, 1, 1]}
    images |= {
        "area_true": true,
        "area_pred": [[*t[:2], p] for t, p in zip(true, (30, 120, 80, 20))],
    }
    table = pd.DataFrame({"record": [{"images": images}]})
    areas = records.areas_by_phase(table, "LV")
    assert areas.index.tolist() == [1, 4]
    assert areas.loc[4].tolist() == [100, 25, 120, 30, 0.75, 0.75]
    assert areas.loc[1].tolist() == [80, 40, 80, 20, 0.5, 0.75]
    assert records.areas_by_phase(table, "RV").loc[4, "true ED"] == 6


def test_endpoints_of_a_run(trial):
    (a,) = settings(trial({"a": 0.0}), "a")
    record = a.iloc[0]["record"]
    expected = {"epoch>0.2": 40, "epoch>0.95": 100, "dice@40": 0.3, "loss": 0.1}
    expected |= {"static": 0, "collapsed": 0, "falls": 0}  # rises are not added up
    expected |= {"gain@40": record["dice_last"] - 0.3, "train-gap": 0.95 - record["dice_last"]}
    endpoints = {name: compare.endpoint(record, name) for name in expected}
    assert endpoints == pytest.approx(expected)
    scores = [0.2, 0.5, 0.4, None, float("nan"), 0.3]  # not scored; nothing drawn: it counts as 0
    history = {"epoch": list(range(6)), "loss": [0.1] * 6, "dice": [x and [x] * 3 for x in scores]}
    assert compare.endpoint(record | {"history": history}, "falls") == pytest.approx(0.1 + 0.4)


# --- differences ---------------------------------------------------------------------------------


def test_a_comparison_has_both_parts_of_the_error(trial):
    store = trial({"a": 0.05, "b": 0.0})
    a, b = settings(store, "a", "b")
    variance, df = run_variance("replica", store=store)
    assert_compared(a, b, store, (2 * variance / 5, df))
    level = compare.compare(a, 0.8, store=store).difference
    assert level.mean == pytest.approx(by_patient(a).mean() - 0.8)


def test_each_network_has_a_luck_of_its_own(trial, monkeypatch):
    """A rival whose trainings scatter widely does not widen the comparisons of the others."""
    store = trial({"a": 0.0, "b": 0.0})
    calm = run_variance("replica", store=store)
    monkeypatch.setitem(EXPERIMENTS, "architectures", wild_runs(store, "wild", model="ning"))
    assert run_variance("replica", store=store) == calm
    variance, df = run_variance("replica", store=store, model="ning")
    assert df == 10 and variance > 4 * calm[0]
    (a, b), wild = settings(store, "a", "b"), compare.runs("architectures", store=store)
    assert compare.compare(a, b, store=store).difference.se < 0.02
    assert_compared(a, wild, store, (calm[0] / 5, calm[1]), (variance / 15, df))
    unknown = run_variance("replica", store=store, model="segnet")
    assert unknown[1] == 30  # no seeds of its own: all that there are


def test_a_setting_with_seeds_on_each_fold_brings_its_own_luck(trial):
    store = trial({"a": 0.0})
    EXPERIMENTS["trial"] += wild_runs(store, "wild", lr=0.25)
    (table, a), calm = settings(store, "wild", "a"), run_variance("replica", store=store)
    variance, df = pooled_run_variance([group["dice"] for _, group in table.groupby("split")])
    assert df == 10 and variance > 4 * calm[0]
    assert_compared(table, a, store, (variance / 15, df), (calm[0] / 5, calm[1]))
    two = compare.compare(table[table["seed"] < 2], 0.5, store=store)
    # two seeds are too few to tell: the network's luck
    assert two.difference.se < compare.compare(table, 0.5, store=store).difference.se


def test_settings_made_to_tell_the_luck_of_their_network_take_it(trial, monkeypatch):
    store = trial({})
    monkeypatch.setitem(EXPERIMENTS, "architectures", wild_runs(store, "wild", lr=0.25))
    table = compare.runs("architectures", store=store)
    luck = compare.seed_variance(table, "replica", store=store)
    assert luck == ("unet", *run_variance("replica", store=store)) and luck[2] == 20 + 10


def test_where_a_store_lacks_what_was_made_to_tell_luck_any_seeds_do(only, tmp_path):
    only(trial=wild_runs(tmp_path, "wild", lr=0.25))
    table = compare.runs("trial", store=tmp_path)
    groups = [group["dice"] for _, group in table.groupby("split")]
    expected = pytest.approx(pooled_run_variance(groups))
    assert run_variance("replica", store=tmp_path) == expected


def test_where_some_runs_collapsed_folds_are_compared(trial):
    store = trial({"a": 0.0, "b": 0.0}, collapses=[("a", "fold2")])
    a, b = settings(store, "a", "b")
    comparison = compare.compare(a, b, store=store)
    assert comparison.difference.df == 4
    assert set(comparison.loadings) == {f"fold {fold}" for fold in FOLDS}
    low, high = comparison.difference.interval()
    assert low < 0 < high  # one collapse of five proves nothing
    table = compare.compare_to_baseline("trial", "b", store=store)
    assert table.loc["a", "collapsed"] == 0.2 and np.isnan(table.loc["b", "difference"])
    alone = compare.compare(b, 0.0, store=store).difference
    assert tuple(table.loc["b", ["dice_low", "dice_high"]]) == alone.interval()
    assert table.loc["b", "dice"] == pytest.approx(alone.mean)


def test_folds_alone_are_a_second_opinion(trial):
    store = trial({"a": 0.05, "b": 0.0})
    a, b = settings(store, "a", "b")
    folds, paired = compare.between_folds(a, b), compare.compare(a, b, store=store)
    assert folds.difference.df == 4
    assert folds.difference.mean == pytest.approx(paired.difference.mean)
    rv = [by_patient(t[t["split"] == f], "RV").mean() for f in FOLDS for t in (a, b)]
    expected = np.mean(rv[::2]) - np.mean(rv[1::2])
    assert compare.between_folds(a, b, "RV").difference.mean == pytest.approx(expected)
    level = compare.between_folds(a, 0.5).difference.mean
    assert level == pytest.approx(by_patient(a).mean() - 0.5)


def test_time_is_compared_round_by_round(trial):
    store = trial({"a": 0.1, "b": 0.0})
    sides = [partial(timed, "trial", name) for name in "ab"]
    difference = compare.by_round(*sides, store=store).difference
    assert difference.mean == pytest.approx(np.log(1.1), abs=0.01) and difference.df == 9
    assert difference.se < 0.01  # rounds differ by as much as two
    sides[0](3).path(store=store).unlink()
    assert compare.by_round(*sides, store=store) == "not run yet"


# --- the method ----------------------------------------------------------------------------------


def test_a_seed_that_lifts_all_folds_is_seen():
    rng, alarms = np.random.default_rng(0), []
    rows = [(fold, seed) for fold in range(5) for seed in range(3)]
    for lift in (0.0, 0.05):
        for _ in range(200):
            dice = [0.1 * f + lift * s + rng.normal(0, 0.02) for f, s in rows]
            table = pd.DataFrame(rows, columns=["split", "seed"]).assign(dice=dice)
            alarms.append(checks.seed_effect(table)[1] < 0.05)
    assert 0.01 < np.mean(alarms[:200]) < 0.1 and np.mean(alarms[200:]) > 0.95


def errors(table):
    """Shares of draws whose interval, and whose interval over patients alone, lies beside zero."""
    both = (table["low"] > 0) | (table["high"] < 0)
    return both.mean(), ((table["low_alone"] > 0) | (table["high_alone"] < 0)).mean()


def test_the_ruler_does_not_lie_when_it_counts_the_luck_of_runs(trial):
    rates = []
    for seed in range(8):
        table = checks.aa_test(draws=60, store=trial({}, seed=seed))
        assert table["difference"].nunique() > 50
        rates.append(errors(table))
    both, alone = np.mean(rates, axis=0)
    assert both <= 0.06 and alone > 0.1


def test_the_committed_records_pass_their_own_test():
    """The A/A test on what was measured: at most one false verdict in twenty."""
    assert errors(checks.aa_test(draws=400))[0] <= 0.05


def test_the_two_sides_of_an_a_a_test_share_no_run(trial, monkeypatch):
    sides, unwatched = [], compare.compare

    def watched(a, b, *args, **options):
        sides.append((a, b))
        return unwatched(a, b, *args, **options)

    monkeypatch.setattr(checks, "compare", watched)
    checks.aa_test(draws=20, store=trial({}))
    assert len(sides) == 20
    for a, b in sides:
        assert set(a["split"]) == set(b["split"]) == set(FOLDS)
        assert not set(a["key"]) & set(b["key"])


# --- showing -------------------------------------------------------------------------------------


def test_pages_show_another_name_where_that_of_the_records_says_too_little():
    names = ["skips", "up to skips", "baseline", "2, equal updates"]
    better = ["textbook decoder", "up to textbook decoder", "baseline", "2, equal updates"]
    assert list(map(compare.shown, names)) == better


def test_a_formatted_table_says_the_same(trial):
    numbers = compare.compare_to_baseline("trial", "b", store=trial({"a": 0.1, "b": 0.0}))
    table = compare.format_table(numbers.assign(steps=2.0), "b")
    columns = ["trainings", "folds", "Dice", "collapsed", "difference from b", "steps"]
    assert list(table) == columns
    row = numbers.loc["a"]
    dice = "{:.3f} ({:.3f}\u00a0to\u00a0{:.3f})".format(*row[["dice", "dice_low", "dice_high"]])
    gain = "{:+.3f} ({:+.3f}\u00a0to\u00a0{:+.3f})".format(*row[["difference", "low", "high"]])
    gain = gain.replace("-", "\u2212")
    assert table.loc["a"].tolist() == [row["runs"], row["folds"], dice, "0%", gain, "2.000"]
    assert table.loc["b", "difference from b"] == ""
