"""Sweeps from the command line: what is missing is computed, failures are kept, mistakes are one line.

What makes each test fail (each was seen to fail):

- fills gaps: in experiments.missing(), `not path.is_file()` -> `True`
- failures: in run_one(), drop `write_text(note, ...)`; in missing(), drop the `retry or ...` condition
- time limit: in _work(), drop the two lines of the deadline
- unknown names: in cli._named(), `return [name]` before the check
- overview: in overview(), `len(plan) - lacking - failed` -> `len(plan) - lacking`
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cmrseg import data, experiments
from cmrseg.experiments import Planned


@pytest.fixture
def plan(monkeypatch, root, tiny):
    """Two small runs and one that diverges, as the experiment `tiny` on the made-up slices."""
    runs = [Planned(f"seed {s}", replace(tiny, seed=s), "val", "modern") for s in (0, 1)]
    runs.append(Planned("diverges", replace(tiny, lr=1e30, optimiser="sgd"), "val", "modern"))
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"tiny": runs})
    monkeypatch.setattr(experiments, "ACDC96", data.load(root, "labelled").fingerprint)
    return runs


def sweep(command, root, store, *options):
    return command("sweep", "tiny", "--data", root, "--store", store, *options)


def test_a_sweep_fills_gaps_keeps_failures_and_then_has_nothing_to_do(plan, command, root, tmp_path):
    store = tmp_path / "store"
    first = sweep(command, root, store, "--workers", 2)
    assert first.status == 0 and "nothing is missing" in first.out
    assert len(list(store.glob("modern/*.json"))) == 3  # two records and a note
    (note,) = store.glob("modern/*.failed.json")
    assert "loss" in json.loads(note.read_text())["reason"]
    times = {p: p.stat().st_mtime_ns for p in store.glob("modern/*.json")}
    assert sweep(command, root, store).status == 0
    assert {p: p.stat().st_mtime_ns for p in store.glob("modern/*.json")} == times
    (row,) = json.loads(command("results", "tiny", "--store", store, "--json").out)
    assert row == {"experiment": "tiny", "protocol": "modern", "settings": 3, "runs": 2, "missing": 0,
                   "failed": 1}
    sweep(command, root, store, "--retry")
    assert note.stat().st_mtime_ns > times[note]


def test_at_the_time_limit_a_sweep_says_what_remains(plan, command, root, tmp_path):
    answer = sweep(command, root, tmp_path / "store", "--limit-minutes", 0)
    assert answer.status == 0 and "3 runs are still missing" in answer.out


def test_an_unknown_experiment_is_one_line(plan, mistake):
    for verb in ("sweep", "results"):
        assert "One of: all, tiny" in mistake(verb, "tinny", naming="tinny")
