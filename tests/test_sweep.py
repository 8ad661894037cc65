"""Sweeps from the command line: what is missing is computed, failures are kept, mistakes are one line.

What makes each test fail (each was seen to fail):

- fills gaps: in experiments.missing(), `not path.is_file()` -> `True`
- failures: in run_one(), drop `write_text(note, ...)`; in missing(), drop the `retry or ...` condition
- time limit: in _work(), drop the two lines of the deadline
- unknown names: in cli._named(), `return [name]` before the check
- overview: in overview(), `len(plan) - lacking - failed` -> `len(plan) - lacking`
- kill -9: in results.write(), `write_text(path, text)` -> `path.write_text(text)` in two halves with a
  pause; in run_one(), a lock of `path.with_suffix(".lock").touch(exist_ok=False)` that outlives its process
- a lost node: `max_retries=0` in _start_ray()
"""

from __future__ import annotations

import json
import multiprocessing
import random
import threading
import time
from dataclasses import replace

import pytest

from cmrseg import data, experiments, results
from cmrseg.experiments import Planned
from cmrseg.training import TrainConfig


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


# --- faults --------------------------------------------------------------------------------------


def some_runs(count, epochs=3):
    config = TrainConfig(channels=(2, 4), batch=2, epochs=epochs)
    return [Planned(f"seed {s}", replace(config, seed=s), "val", "modern") for s in range(count)]


def assert_all_there(runs, root, store):
    fingerprint = data.load(root, "labelled").fingerprint
    for planned in runs:
        found = results.read(planned.path(fingerprint, store))
        assert found["seed"] == planned.config.seed and len(found["history"]["loss"]) == planned.config.epochs
    assert len(list(store.glob("*/*"))) == len(runs) * 2  # records and locks, no halves, no failures


@pytest.mark.slow
def test_killed_at_ten_moments_a_sweep_loses_nothing(root, tmp_path):
    store, runs = tmp_path / "store", some_runs(40)
    spawn, rng = multiprocessing.get_context("spawn"), random.Random(0)

    def there():
        return len(list(store.glob("modern/*.json")))

    for _ in range(10):
        process, before = spawn.Process(target=experiments.run_missing, args=(runs, root, store, 2)), there()
        process.start()
        while there() == before:
            time.sleep(0.01)
        time.sleep(rng.random())
        process.kill()
        process.join()
    assert 10 <= there() < 40
    assert experiments.run_missing(runs, root, store, workers=2) == 0
    assert_all_there(runs, root, store)


@pytest.mark.slow
def test_a_lost_node_of_a_cluster_loses_no_record(root, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the engine for clusters is an extra: pip install cmrseg[cluster]")
    from ray.cluster_utils import Cluster

    store, runs = tmp_path / "store", some_runs(8, epochs=40)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    sweep = threading.Thread(target=experiments.run_missing, args=(runs, root, store),
                             kwargs={"workers": 2, "engine": "ray"})
    sweep.start()

    def count(pattern):
        return len(list(store.glob(pattern)))

    while (done := count("modern/*.json")) < 3 or count(".locks/*") < done + 2:  # both nodes at work
        time.sleep(0.02)
    cluster.remove_node(second, allow_graceful=False)
    sweep.join()
    cluster.shutdown()
    assert_all_there(runs, root, store)
