"""Claims judged, on made-up records with a known truth; and the form of the report's own."""

import json

import numpy as np
import pytest
from made_up import only, trial  # noqa: F401

from cmrtrial import claims, cli, compare
from cmrtrial.plans import EXPERIMENTS

# ruff: noqa: F811


def test_a_family_of_claims_errs_together_as_rarely_as_one(monkeypatch):
    """Twenty comparisons of independent patients, all without a difference."""
    monkeypatch.setattr(claims, "FAMILY_DRAWS", 2000)
    rng, alarms = np.random.default_rng(0), 0
    for repeat in range(200):
        family = [
            compare.by_fold({f"{i}.{j}": value for j, value in enumerate(row)})
            for i, row in enumerate(rng.normal(0, 1, (20, 30)))
        ]
        wide = claims.family_level(family)
        intervals = [comparison.difference.interval(wide) for comparison in family]
        alarms += any(not low < 0 < high for low, high in intervals)
        if not repeat:  # nearly Bonferroni's: nothing is shared
            assert 1 - 0.05 / 20 * 1.3 < wide < 1 - 0.05 / 20 * 0.7
    assert 0.01 < alarms / 200 < 0.09
    one_question = claims.family_level([family[0]] * 20)
    assert one_question == pytest.approx(0.95, abs=0.01)


BETTER = {"experiment": "trial", "a": "a", "b": "b", "endpoint": "dice", "claim": "greater"}
CLASSES = {"a": "RV", "b": "Myo", "endpoint": "class", "setting": "b", "claim": "less"}
DEAD = {"experiment": "trial", "a": "c", "endpoint": "collapsed", "level": 0.3}
CLAIMS = {
    "better": BETTER,
    "slower": BETTER | {"endpoint": "seconds", "margin": 0.1},
    "dead": DEAD | {"claim": "greater"},
    "classes": BETTER | CLASSES,
    "later": BETTER | {"experiment": "another"},
    "hidden": {"claim": "none"},
}
NUMBERS = ["estimate", "low", "high", "low_alone", "high_alone"]


@pytest.fixture
def judged(monkeypatch):
    """The verdicts on CLAIMS, of which some may be changed or added."""

    def judge(store, **changed):
        asked = [
            {"id": name, "text": f"{name}.", "source": "s", "said": "1"} | claim
            for name, claim in (CLAIMS | changed).items()
        ]
        monkeypatch.setattr(claims, "claims", lambda _: asked)
        return claims.judge(store).set_index("id")

    return judge


def test_claims_are_judged_from_records(trial, judged):
    collapses = [("c", f"fold{k}") for k in range(5)]
    store = trial({"a": 0.1, "b": 0.0, "c": 0.0}, collapses=collapses)
    table = judged(store)
    assert not table["late"].any()
    expected = {"better": "confirmed", "slower": "confirmed", "dead": "confirmed"}
    expected |= {"classes": "equivalent", "later": "not run yet", "hidden": "not testable here"}
    assert table["verdict"].to_dict() == expected
    assert table.loc["better", "estimate"] == pytest.approx(0.1, abs=0.04)
    assert table.loc["slower", "estimate"] == pytest.approx(np.log(1.1), abs=0.01)
    assert table.loc["dead", "estimate"] == pytest.approx(0.7)
    tested = table.dropna(subset=["estimate"])
    assert (tested["low"] <= tested["low_alone"]).all()
    assert (tested["high"] >= tested["high_alone"]).all()
    assert tested.loc["better", "low"] < tested.loc["better", "low_alone"]
    EXPERIMENTS["trial"][10].path(store=store).unlink()
    assert judged(store).loc["dead", "verdict"] == "not run yet"


def test_late_claims_are_a_family_of_their_own(trial, judged):
    store = trial({"a": 0.1, "b": 0.0})
    alone = judged(store)
    table = judged(store, afterthought=BETTER | {"late": True})
    assert table.index[table["late"]].tolist() == ["afterthought"]
    assert table.loc[alone.index, NUMBERS].equals(alone[NUMBERS])  # the first family is as it was
    row = table.loc["afterthought"]
    assert row["low_alone"] == pytest.approx(row["low"], abs=0.002)
    assert row["low"] > table.loc["better", "low"]
    shown = claims.verdicts("trial", "better", "afterthought", store=store)["verdict"]
    assert shown.tolist() == ["confirmed", "confirmed (asked late)"]


def test_an_ambiguous_claim_is_computed_and_not_judged(trial, judged):
    store = trial({"a": 0.1, "b": 0.0, "c": 0.0})
    before = judged(store)
    table = judged(store, better=BETTER | {"ambiguous": "Two readings."})
    reasons = dict.fromkeys(before.index, "") | {"better": "Two readings."}
    assert table["ambiguous"].to_dict() == reasons
    assert table.loc["better", ["verdict", "alone"]].tolist() == ["ambiguous"] * 2
    assert table[NUMBERS].equals(before[NUMBERS])  # its family is as large as it was
    assert table["verdict"].drop("better").equals(before["verdict"].drop("better"))


def test_verdicts_are_those_of_one_experiment_or_of_some_claims(trial, judged):
    store = trial({"a": 0.1, "b": 0.0})
    judged(store)
    table = claims.verdicts("trial", store=store)
    assert table.index.tolist() == ["better.", "slower.", "dead.", "classes."]
    some = claims.verdicts("trial", "better", "dead", store=store)
    assert some["verdict"].to_dict() == {"better.": "confirmed", "dead.": "not run yet"}
    assert some.loc["better.", "we found"] == table.loc["better.", "we found"] != ""


# --- the report's ---------------------------------------------------------------------------------


def test_what_is_not_asked_says_why_and_is_no_claim():
    rest = claims.not_asked()
    assert len(rest) > 5
    assert all(row[part] for row in rest for part in ("text", "why", "about"))
    texts = [row["text"] for row in rest + claims.claims()]
    assert len(set(texts)) == len(texts)


def test_verdicts_on_the_command_line(tmp_path, command):
    text = (claims.STORE / "claims.toml").read_text(encoding="utf-8")
    (tmp_path / "claims.toml").write_text(text, encoding="utf-8")
    done = command("verdicts", "--store", tmp_path, "--json", main=cli.main)
    rows = json.loads(done.out)
    assert [row["id"] for row in rows] == [c["id"] for c in claims.claims()]
    done = command("verdicts", "--store", tmp_path, main=cli.main)
    assert done.status == 0 and done.out.count("not run yet") > 50
