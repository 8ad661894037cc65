"""The power table of the second trial: each row against its claim, and its parts against code of their own."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cmrtrial import claims as first_claims
from cmrtrial import records as results
from cmrtrial.second import claims, power
from cmrtrial.second.statistics import compare

WORDS = ("confirmed", "contradicted", "equivalent", "inconclusive")


@pytest.fixture(scope="module")
def table():
    return power.table()


@pytest.fixture(scope="module")
def asked():
    return {c["id"]: c for c in claims.claims()}


def test_the_committed_table_is_the_scripts_and_each_row_asks_what_its_claim_asks(table, asked):
    kept = pd.read_csv(results.STORE / "second-power.csv", index_col="id")
    assert list(kept.columns) == list(table.columns)
    assert list(kept.index) == [c["id"] for c in first_claims.claims()]
    for name in kept:
        if pd.api.types.is_numeric_dtype(kept[name]):
            now = table[name].astype(float)
            np.testing.assert_allclose(kept[name], now, rtol=1e-6, atol=1e-9, err_msg=name)
        else:
            assert [*kept[name].fillna("").map(str)] == [*table[name].fillna("").map(str)]
    for name, row in table[table["claim"].notna()].iterrows():
        claim = asked[name]
        for field in ("claim", "endpoint", "family"):
            assert row[field] == claim.get(field, row[field])
        assert row["margin"] == claim.get("margin", 0.02)
        assert row["level"] == pytest.approx(claim.get("level", np.nan), nan_ok=True)


ON_THE_SAME_RUNS = ["unet-over-segnet", "unet-over-alexnet", "alexnet-overfitted", "rv-hardest"]


@pytest.mark.parametrize("name", ON_THE_SAME_RUNS)
def test_the_error_is_that_of_compare_on_the_same_runs(asked, table, name):
    found, off, _ = power.sides(asked[name])
    sides = [side for *_, side in found]
    direct = compare(sides[0], sides[1] if len(sides) > 1 else off)
    replicates = tuple(len(side.values["fold0"]) for side in sides)
    made = power.parts(asked[name], found, off)
    expected = (direct.mean, direct.se, direct.df)
    assert (made.mean, *made.error(replicates)) == pytest.approx(expected, rel=1e-9)
    if len(set(replicates)) == 1:
        assert table.loc[name, f"se {replicates[0]}"] == pytest.approx(direct.se, rel=0, abs=1e-9)
    assert table.loc[name, "estimate"] == pytest.approx(direct.mean, rel=0, abs=1e-9)


# --- chances, against twenty thousand draws ------------------------------------------------------

MARGIN, ALPHA, DRAWS = 0.02, 0.05 / 4, 20_000


@pytest.mark.parametrize("claim", ["greater", "less", "equal", "no-more"])
@pytest.mark.parametrize("truth", [0.0, -0.03])
def test_chances_are_those_of_draws(claim, truth):
    se, df, rng = 0.007, 12, np.random.default_rng(1)
    mean = rng.normal(truth, se, DRAWS)
    error = se * np.sqrt(rng.chisquare(df, DRAWS) / df)

    def above(value):
        return stats.t.sf((mean - value) / error, df)

    within = np.maximum(1 - above(MARGIN), above(-MARGIN))
    more, less = 2 * above(0) <= ALPHA, 2 * (1 - above(0)) <= ALPHA
    near = (2 * within <= ALPHA) & ~more & ~less
    beyond = 2 * np.minimum(above(MARGIN), 1 - above(-MARGIN)) <= ALPHA
    drawn = {
        "greater": [more, less, near],
        "less": [less, more, near],
        "equal": [within <= ALPHA, beyond],
        "no-more": [1 - above(MARGIN) <= ALPHA, above(MARGIN) <= ALPHA],
    }
    found = power.chances(se, df, claim, MARGIN, ALPHA, truth)
    chances = [found[w] for w in WORDS if w in found][:-1]
    assert chances == pytest.approx([d.mean() for d in drawn[claim]], abs=0.012)


@pytest.mark.parametrize("truth", [0.0, 2.5, 9.0])
def test_chances_of_pairs_are_those_of_draws(truth):
    number, sd, margin = 15, 6.0, 5.0
    d = np.random.default_rng(2).normal(truth, sd, (DRAWS, number))
    p = np.array([stats.binomtest(k, number, 0.5, "greater").pvalue for k in range(number + 1)])

    def one_sided(value, sign):
        return p[(sign * (d - value) > 0).sum(1)]

    more, less = 2 * one_sided(0, 1) <= ALPHA, 2 * one_sided(0, -1) <= ALPHA
    near = 2 * np.maximum(one_sided(-margin, 1), one_sided(margin, -1)) <= ALPHA
    found = power.of_pairs(number, sd, "less", margin, ALPHA, truth)
    expected = [less.mean(), more.mean(), (near & ~more & ~less).mean()]
    assert [found[w] for w in WORDS[:3]] == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("claim, truth", [("greater", 0.8), ("less", 0.2), ("greater", 0.2)])
def test_chances_of_shares_are_those_of_draws(claim, truth):
    yes = np.random.default_rng(3).binomial(15, truth, DRAWS)
    found = power.shares(15, claim, 0.5, ALPHA, truth)
    for word, side in (
        ("confirmed", claim),
        ("contradicted", "less" if claim == "greater" else "greater"),
    ):
        p = np.array([2 * stats.binomtest(k, 15, 0.5, side).pvalue for k in range(16)])
        assert found.get(word, 0.0) == pytest.approx((p[yes] <= ALPHA).mean(), abs=0.012)
    assert sum(found.values()) == pytest.approx(1)
