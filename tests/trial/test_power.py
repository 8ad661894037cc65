"""The power table of the second trial: each row against its claim, and its parts against code of their own."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmrtrial import claims as first_claims
from cmrtrial import compare as comparisons
from cmrtrial import records as results
from cmrtrial.second import claims, power
from cmrtrial.second.statistics import compare

WORDS = ("confirmed", "contradicted", "equivalent", "inconclusive")
CELLS = (*power.REPLICATES, "registered")


@pytest.fixture(scope="module")
def table():
    return power.table()


@pytest.fixture(scope="module")
def asked():
    return {c["id"]: c for c in claims.claims()}


def test_the_committed_table_is_the_scripts(table):
    kept = pd.read_csv(results.STORE / "second-power.csv", index_col="id")
    assert len(kept) == len(first_claims.claims()) == 61
    assert list(kept.columns) == list(table.columns) and list(kept.index) == [
        c["id"] for c in first_claims.claims()
    ]
    for name in kept:
        if pd.api.types.is_numeric_dtype(kept[name]):
            np.testing.assert_allclose(
                kept[name], table[name].astype(float), rtol=1e-6, atol=1e-9, err_msg=name
            )
        else:
            assert (
                kept[name].fillna("").astype(str).tolist()
                == table[name].fillna("").astype(str).tolist()
            )


def test_verdicts_of_a_row_sum_to_one(table):
    measured = table[table["claim"].notna()]
    assert len(measured) == 58
    for truth in ("zero", "half", "estimate"):
        for r in CELLS:
            chances = measured[[f"{word} if {truth}, {r}" for word in WORDS]]
            given = chances[f"confirmed if {truth}, {r}"].notna()
            assert chances[given].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-7)
            assert (chances[given].fillna(0) >= 0).all().all()
            absent = set(measured.index[~given])
            shares = set(measured.index[measured["endpoint"].isin(power.SHARES)])
            assert absent == {"zero": set(), "half": shares, "estimate": {"alexnet-static"}}[truth]


def test_each_row_asks_what_its_successor_asks(table, asked):
    for name, row in table[table["claim"].notna()].iterrows():
        claim = asked[name]
        assert (row["claim"], row["endpoint"]) == (claim["claim"], claim["endpoint"])
        assert row["margin"] == claim.get("margin", 0.02)
        assert row["level"] == claim.get("level") or (
            np.isnan(row["level"]) and "level" not in claim
        )
        assert row["family"] == claim.get("family", row["family"])
    assert table.loc["adamw-loss", "family"] == "ambiguous (run)"
    assert table.loc["mirror-no-gain", "family"] == "ambiguous (equivalence)"


def test_what_stands_in_says_so(table):
    basis = table["basis"].dropna()
    assert set(basis[basis.str.startswith("stands in")].index) == {
        "alexnet-adam",
        "more-epochs-no-gain",
    }
    assert set(basis[basis.str.startswith("not measured")].index) == {"alexnet-static"}
    assert basis["wide-enough"] == "at 100 epochs, on 2 folds"
    assert basis["segnet-not-overfitted"] == "as asked"


def test_the_sign_is_the_asked_endpoints(table):
    for name, sign in (
        ("tanh-starts-first", -1),
        ("hardtanh-starts-first", -1),
        ("kernel-one-slower", 1),
    ):
        assert np.sign(table.loc[name, "estimate"]) == sign
    curves = {
        s: [results.curve(r).set_index("epoch")["mean"].fillna(0) for r in runs["record"]]
        for s, runs in comparisons.runs("activation").groupby("setting")
        if s in ("tanh", "relu")
    }
    first = {s: np.mean([c.index[c > 0.1][0] for c in found]) for s, found in curves.items()}
    assert table.loc["tanh-starts-first", "estimate"] == pytest.approx(
        first["tanh"] - first["relu"], abs=2
    )


def test_what_is_far_on_the_claims_side_is_confirmed(table):
    told = table["claim"].isin(["greater", "less"]) & ~table["endpoint"].isin(power.SHARES)
    strength = (
        table["estimate"] / table["se registered"] * np.where(table["claim"] == "greater", 1, -1)
    )
    assert (table.loc[told & (strength > 8), "confirmed if estimate, registered"] > 0.99).all()
    assert (table.loc[told & (strength < -8), "contradicted if estimate, registered"] > 0.99).all()
    less = table[told & (table["claim"] == "less") & (strength > 8)].index
    assert {
        "dropout-hurts",
        "rate-too-small",
        "sgd-worse",
        "tanh-starts-first",
        "unet-faster-than-segnet",
    } <= set(less)
    half = table[told & (table["claim"] == "less")]  # half the margin on the claim's side
    assert (half["confirmed if half, 10"] >= half["contradicted if half, 10"]).all()


@pytest.mark.parametrize(
    "name", ["unet-over-segnet", "unet-over-alexnet", "alexnet-overfitted", "rv-hardest"]
)
def test_the_error_is_that_of_compare_on_the_same_runs(asked, table, name):
    found, off, _ = power.sides(asked[name])
    sides = [side for *_, side in found]
    direct = compare(sides[0], sides[1] if len(sides) > 1 else off)
    replicates = tuple(len(side.values["fold0"]) for side in sides)
    made = power.parts(asked[name], found, off)
    assert (made.mean, *made.error(replicates)) == pytest.approx(
        (direct.mean, direct.se, direct.df), rel=1e-9
    )
    if set(replicates) <= {3, 5}:
        assert made.variance_of == ""
    if len(set(replicates)) == 1:
        assert table.loc[name, f"se {replicates[0]}"] == pytest.approx(direct.se, rel=0, abs=1e-9)
    assert table.loc[name, "estimate"] == pytest.approx(direct.mean, rel=0, abs=1e-9)


def test_levels_are_taken_off(table):
    runs = comparisons.runs("architectures")
    long = runs[runs["setting"] == "SegNet, long"]
    gap = (
        np.mean([results.mean_dice(r["dice_train"]) for r in long["record"]])
        - comparisons.by_patient(long).mean()
    )
    assert table.loc["segnet-not-overfitted", "estimate"] == pytest.approx(gap - 0.1, abs=1e-6)
    loss = np.mean(
        [r["history"]["loss"][-1] for r in runs[runs["setting"] == "Ning, long"]["record"]]
    )
    assert table.loc["ning-loss-near-zero", "estimate"] == pytest.approx(loss - 0.02)
    assert table.loc["too-narrow", "estimate"] == -0.5


def test_a_setting_that_ran_once_gets_a_run_variance(asked):
    found = {
        name: power.parts(asked[name], *power.sides(asked[name])[:2])
        for name in ("kernel-five-same", "adamw-is-adam")
    }
    lent, own = found["kernel-five-same"], found["adamw-is-adam"]
    assert (lent.variance_of, own.variance_of) == ("baseline, 100 epochs", "folds")
    assert lent.runs[0] == lent.runs[1] == own.runs[1] < own.runs[0]


def test_a_longer_run_begins_as_the_shorter_one():
    """Or else a gain from one to the other would be none."""
    for setting, short, long in (("AlexNet", 100, 300), ("baseline", 100, 700)):
        found = power.records(setting)
        for run in found[long]:
            twin = next(
                r for r in found[short] if (r["split"], r["seed"]) == (run["split"], run["seed"])
            )
            one, other = (
                dict(zip(r["history"]["epoch"][:short], r["history"]["dice"])) for r in (run, twin)
            )
            shared = [e for e in one if one[e] and other[e]]
            assert shared and all(one[e] == other[e] for e in shared)


@pytest.mark.parametrize("claim", ["greater", "less", "equal", "no-more"])
@pytest.mark.parametrize("truth", [0.0, 0.01, -0.03])
def test_chances_are_those_of_draws(claim, truth):
    se, df, margin, alpha = 0.007, 12, 0.02, 0.05 / 4
    rng = np.random.default_rng(1)
    mean = rng.normal(truth, se, 20_000)
    error = se * np.sqrt(rng.chisquare(df, 20_000) / df)

    def p(value):
        return stats.t.sf((mean - value) / error, df)  # for "above"

    if claim in ("greater", "less"):
        sign = 1 if claim == "greater" else -1
        confirmed = 2 * stats.t.sf(sign * mean / error, df) <= alpha
        contradicted = 2 * stats.t.sf(-sign * mean / error, df) <= alpha
        inside = 2 * np.maximum(1 - p(margin), p(-margin)) <= alpha
        drawn = [confirmed, contradicted, inside & ~confirmed & ~contradicted]
    elif claim == "equal":
        drawn = [
            np.maximum(1 - p(margin), p(-margin)) <= alpha,
            2 * np.minimum(p(margin), 1 - p(-margin)) <= alpha,
        ]
    else:
        drawn = [1 - p(margin) <= alpha, p(margin) <= alpha]
    found = power.chances(se, df, claim, margin, alpha, truth)
    assert [found[w] for w in WORDS if w in found][:-1] == pytest.approx(
        [d.mean() for d in drawn], abs=0.012
    )


@pytest.mark.parametrize("truth", [0.0, 2.5, 9.0])
def test_chances_of_pairs_are_those_of_draws(truth):
    number, sd, margin, alpha = 15, 6.0, 5.0, 0.05 / 4
    d = np.random.default_rng(2).normal(truth, sd, (20_000, number))

    def one_sided(value, sign):
        return np.array(
            [stats.binomtest(k, number, 0.5, "greater").pvalue for k in range(number + 1)]
        )[(sign * (d - value) > 0).sum(1)]

    more, less = 2 * one_sided(0, 1) <= alpha, 2 * one_sided(0, -1) <= alpha
    near = 2 * np.maximum(one_sided(-margin, 1), one_sided(margin, -1)) <= alpha
    found = power.of_pairs(number, sd, "less", margin, alpha, truth)
    assert [found[w] for w in WORDS[:3]] == pytest.approx(
        [less.mean(), more.mean(), (near & ~more & ~less).mean()], abs=0.012
    )


@pytest.mark.parametrize("claim, truth", [("greater", 0.8), ("less", 0.2), ("greater", 0.2)])
def test_chances_of_shares_are_those_of_draws(claim, truth):
    alpha, yes = 0.05 / 4, np.random.default_rng(3).binomial(15, truth, 20_000)
    sides = ("greater", "less")
    p = {
        side: np.array([2 * stats.binomtest(k, 15, 0.5, side).pvalue for k in range(16)])
        for side in sides
    }
    found = power.shares(15, claim, 0.5, alpha, truth)
    other = {"greater": "less", "less": "greater"}[claim]
    for word, side in (("confirmed", claim), ("contradicted", other)):
        assert found.get(word, 0.0) == pytest.approx((p[side][yes] <= alpha).mean(), abs=0.012)
    assert sum(found.values()) == pytest.approx(1)
