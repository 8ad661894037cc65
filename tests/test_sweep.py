"""Sweeps from the command line: what is missing is computed, failures are kept, mistakes are one line.

What makes each test fail (each was seen to fail):

- fills gaps: in experiments.missing(), `not path.is_file()` -> `True`
- failures: in run_one(), drop `write_text(note, ...)`; in missing(), drop the `retry or ...` condition
- time limit: in _work(), drop the two lines of the deadline
- unknown names: in cli._named(), `return [name]` before the check
- overview: in overview(), `len(plan) - lacking - failed` -> `len(plan) - lacking`
- protocols: in cli.results(), drop `shown = list(...)`
- shifts: in _measure(), `held_out = change(...)` -> `pass`
- kept networks: in experiments.kept(), `resume=True` -> `resume=False`, or drop `save`; in networks(),
  `seed=seed` -> `seed=0`; in Planned.key(), `self.seeds` -> `()`; or drop `ways`
  from the key
- delivered: in experiments.networks(), ``and planned.seeds`` -> ``and False``; in tools/deliver.py,
  ``planned.ways`` -> ``Ways()``
- phantoms first: in _measure(), ``seed=int(...)`` -> ``seed=0``, or ``start=None``
- ten lines: in comparisons.run_variance(), drop ``or _seeds(experiments.EXPERIMENTS, ...)``
- kill -9: in results.write(), `write_text(path, text)` -> `path.write_text(text)` in two halves with a
  pause; in run_one(), a lock of `path.with_suffix(".lock").touch(exist_ok=False)` that outlives its process
- a task's complaint: `raise problem.cause` -> `raise problem` in _start_ray()
- a lost node: `max_retries=0` in _start_ray()
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import re
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, files_in

from cmrseg import comparisons, data, ensemble, experiments, results, rle, runtime, training
from cmrseg.ensemble import Ensemble, Ways
from cmrseg.experiments import Planned
from cmrseg.training import TrainConfig

sys.path.insert(0, str(REPOSITORY / "tools"))
import deliver


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
    assert first.status == 0 and "nothing is missing; 1 failed, the first for: the loss is" in first.out
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


def test_a_sweep_of_which_every_run_failed_is_no_success(plan, root, command, tmp_path):
    del plan[:2]
    for _ in range(2):
        done = sweep(command, root, tmp_path / "store")
        line = done.err.splitlines()[-1]
        assert done.status == 2 and not done.out and line.startswith("error: ") and ".failed.json: is why" in line
        assert "so did all: the loss is" in line and "--retry" in line


def test_what_failed_in_a_sweep_is_not_tried_again_in_it(plan, root, tmp_path, monkeypatch):
    tried = []

    def fails(config, *_, **__):
        tried.append(config.seed)
        raise ValueError("no")

    monkeypatch.setattr(experiments, "fit", fails)
    for _ in range(2):  # as two workers with one list would
        assert experiments.run_one(plan[0], str(root), tmp_path).name.endswith(".failed.json")
    assert tried == [0]


def test_a_recipe_without_runs_and_a_time_that_is_none_are_one_line(plan, mistake, root, tmp_path):
    line = mistake("sweep", "tiny", "--protocol", "report", "--data", root, "--store", tmp_path)
    assert "has no run" in line and "modern" in line
    for minutes in ("nan", "-3"):
        mistake("sweep", "tiny", "--data", root, "--store", tmp_path, "--limit-minutes", minutes,
                naming="--limit-minutes")


def test_at_the_time_limit_a_sweep_says_what_remains(plan, command, root, tmp_path):
    answer = sweep(command, root, tmp_path / "store", "--limit-minutes", 0)
    assert answer.status == 0 and "3 runs are still missing" in answer.out


def test_an_unknown_experiment_is_one_line(plan, mistake):
    for verb in ("sweep", "results"):
        assert "One of: all, tiny" in mistake(verb, "tinny", naming="tinny")


def test_an_experiment_is_shown_with_every_recipe_it_has(plan, command, tmp_path, monkeypatch):
    monkeypatch.setitem(experiments.EXPERIMENTS, "tiny", [replace(p, protocol="final") for p in plan])
    answer = command("results", "tiny", "--store", tmp_path, "--json")
    assert [row["protocol"] for row in json.loads(answer.out)] == ["final"]
    assert json.loads(command("results", "--store", tmp_path, "--json").out) == []


# --- networks that are kept, and looked with -----------------------------------------------------


@pytest.fixture
def keeping(tiny):
    return Planned("kept", replace(tiny, epochs=3), "val", "final", keep=True)


def test_a_kept_network_is_trained_once_and_judged_when_it_is_ready(keeping, root, tmp_path, monkeypatch):
    path = experiments.run_one(keeping, str(root), tmp_path / "store")
    first = results.read(path)
    assert first["history"]["dice"] == [None] * 3 and len(first["history"]["loss"]) == 3
    assert first["dice_best"] == first["dice_last"] and first["epoch_best"] == 3
    path.unlink()
    monkeypatch.setattr(experiments, "fit", None)  # not called again
    again = results.read(experiments.run_one(keeping, str(root), tmp_path / "store"))
    assert again == first


def test_a_kept_network_goes_on_where_it_was_stopped(keeping, root, tmp_path, monkeypatch):
    whole = experiments.kept(keeping, str(root), tmp_path / "whole" / "store")
    epochs, train = [], training._train_epoch

    def stops(*args):
        epochs.append(args[5])
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(training, "_train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        experiments.kept(keeping, str(root), tmp_path / "cut" / "store")
    found = experiments.kept(keeping, str(root), tmp_path / "cut" / "store")
    assert epochs == [1, 2, 3, 3]
    for name, t in whole.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], t)
    assert files_in(tmp_path / "cut" / "runs") == files_in(tmp_path / "whole" / "runs")


def test_looking_in_another_way_is_a_record_of_its_own(keeping, root, tmp_path, monkeypatch):
    store, ways = tmp_path / "store", Ways((-10.0, 10.0), clean=True)
    keeping = replace(keeping, config=replace(keeping.config, epochs=12), split="fold0")
    looks = [replace(keeping, setting="two", keep=False, ways=ways, seeds=(0, 1)),
             replace(keeping, setting="one", keep=False, ways=ways, seeds=(1,)),
             replace(keeping, setting="once", keep=False, ways=Ways(), seeds=(1,)),
             replace(keeping, setting="dark", keep=False, ways=Ways(), seeds=(1,), shift=("noise", 9.0))]
    records = [results.read(experiments.run_one(planned, str(root), store)) for planned in looks]
    assert len({found["key"] for found in records}) == 4
    runs = [experiments.kept(replace(keeping, config=replace(keeping.config, seed=s)), str(root), store)
            for s in (0, 1)]
    held_out = data.split(str(root), "fold0")[1]
    pred = ensemble.predict(Ensemble([run.model for run in runs], keeping.config, ways), held_out.images)
    assert records[0]["images"] == json.loads(json.dumps(results.image_table(pred, held_out)))
    assert records[0]["ways"] == {"turns": [-10.0, 10.0], "mirror": False, "clean": True, "seeds": [0, 1],
                                  "shift": None}
    assert records[1]["images"] != records[0]["images"]
    assert records[3]["images"] != records[2]["images"] and records[3]["ways"]["shift"] == ["noise", 9.0]
    assert len(records[0]["agreement"]) == len(records[0]["expected_dice"]) == 2
    assert records[1]["agreement"] is None
    assert sum(records[0]["reliability"]["count"]) > 100
    fingerprint = data.load(str(root), "labelled").fingerprint
    monkeypatch.setattr(Planned.path, "__defaults__", (fingerprint, store))
    monkeypatch.setattr(experiments, "EXPERIMENTS", {"ladder": looks})
    table = comparisons.runs("ladder", "final", store)
    assert table["setting"].tolist() == ["two", "one", "once", "dark"] and table["loss"].isna().all()


def test_the_networks_of_all_folds_look_at_the_validation_slices(keeping, root, tmp_path, monkeypatch):
    store, folds = tmp_path / "store", ("train-fold0", "train-fold1")
    monkeypatch.setattr(experiments, "TRAIN_FOLDS", folds)
    looking = replace(keeping, keep=False, ways=Ways(mirror=True), seeds=(0, 1))
    found = results.read(experiments.run_one(looking, str(root), store))
    models = [experiments.kept(replace(keeping, split=fold, config=replace(keeping.config, seed=seed)),
                               str(root), store).model for fold in folds for seed in (0, 1)]
    held_out = data.split(str(root), "val")[1]
    pred = ensemble.predict(Ensemble(models, keeping.config, looking.ways), held_out.images)
    assert found["images"] == json.loads(json.dumps(results.image_table(pred, held_out)))
    assert found["split"] == "val" and len(files_in(tmp_path / "runs" / "networks")) >= 8


def test_a_network_of_all_training_slices_looks_alone(keeping, root, tmp_path):
    looking = replace(keeping, keep=False, ways=Ways(mirror=True))
    found = results.read(experiments.run_one(looking, str(root), tmp_path / "store"))
    model = experiments.kept(keeping, str(root), tmp_path / "store").model
    held_out = data.split(str(root), "val")[1]
    pred = ensemble.predict(Ensemble([model], keeping.config, looking.ways), held_out.images)
    assert found["images"] == json.loads(json.dumps(results.image_table(pred, held_out)))
    assert found["ways"]["seeds"] == [] and found["agreement"] is None


def test_what_is_delivered_is_the_networks_that_were_judged(keeping, root, tmp_path, monkeypatch):
    judged = [replace(keeping, setting="final", keep=False, ways=Ways(mirror=True, clean=True), seeds=(0,)),
              replace(keeping, setting="small", keep=False, ways=Ways())]
    monkeypatch.setenv("CMRSEG_DATA", str(root))
    monkeypatch.setitem(experiments.EXPERIMENTS, "final", judged)
    monkeypatch.setattr(experiments, "TRAIN_FOLDS", ("train-fold0", "train-fold1"))
    deliver.main(tmp_path / "store", tmp_path / "weights")
    truth, test = data.load(str(root), "val"), data.load(str(root), "test")
    for planned, count in zip(judged, (2, 1)):
        found = ensemble.load(tmp_path / "weights" / f"{planned.setting}.safetensors")
        assert len(found.models) == count and found.ways == planned.ways
        record = results.read(experiments.run_one(planned, str(root), tmp_path / "store"))
        table = results.image_table(ensemble.predict(found, truth.images), truth)
        for mine, theirs in zip(table["area_pred"], record["images"]["area_pred"]):
            assert mine == pytest.approx(theirs, abs=4)  # half precision moves a pixel or two
        submission = tmp_path / "store" / f"submission-{planned.setting}.csv"
        masks = rle.read_submission(submission, test.images.shape[1:])
        assert tuple(masks) == test.names
        assert all(map(np.array_equal, masks.values(), ensemble.predict(found, test.images)))
    quick = runtime.from_onnx(tmp_path / "weights" / "small.onnx")(test.images)
    assert (quick == np.stack(list(masks.values()))).mean() > 0.999
    assert [line.split()[1] for line in (tmp_path / "weights" / runtime.SUMS).read_text().splitlines()] == [
        "final.safetensors", "small.onnx", "small.safetensors"]


def test_a_fold_begins_with_phantoms_of_its_own(tiny, root, tmp_path, monkeypatch):
    first = Planned("phantoms only", replace(tiny, epochs=1), "val", "modern", keep=True)
    monkeypatch.setattr(experiments, "ON_PHANTOMS", first)
    begun, fit = [], experiments.fit

    def watched(*args, start=None, **options):
        begun.append(start)
        return fit(*args, start=start, **options)

    monkeypatch.setattr(experiments, "fit", watched)
    planned = Planned("first", replace(tiny, start=experiments.PHANTOMS), "fold3@1", "modern")
    experiments.run_one(planned, str(root), tmp_path / "store")
    expected = experiments.kept(replace(first, config=replace(first.config, seed=3)), str(root),
                                tmp_path / "store").model
    assert begun[0] is None and len(begun) == 2  # the phantoms, and then the patients
    for p, q in zip(begun[1].parameters(), expected.parameters()):
        assert torch.equal(p, q)


def test_a_new_experiment_takes_ten_lines(tiny, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(training.PRESETS, "modern", replace(tiny, epochs=20))
    page = (REPOSITORY / "book" / "contributing.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in lines.splitlines() if line and "import" not in line]) <= 10
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(experiments, "EXPERIMENTS", {})
    fingerprint = data.load(str(root), "labelled").fingerprint
    monkeypatch.setattr(Planned.path, "__defaults__", (fingerprint, tmp_path / "runs" / "store"))
    comparisons.run_variance.cache_clear()
    assert lines.count('"acdc96"') == 1
    exec(lines.replace('"acdc96"', repr(str(root))), {})
    comparisons.run_variance.cache_clear()
    said = capsys.readouterr().out
    assert "half the rate" in said and "difference" in said
    assert len(list(Path("runs/store/modern").glob("*.json"))) == 20


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
    store, runs = tmp_path / "store", some_runs(120)
    spawn, rng = multiprocessing.get_context("spawn"), random.Random(0)

    def there():
        return len(list(store.glob("modern/*.json")))

    for moment in range(10):
        process, before = spawn.Process(target=experiments.run_missing, args=(runs, root, store, 2)), there()
        process.start()
        while moment % 2 and there() == before and process.is_alive():  # every other time it may not even have begun
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1 if moment % 2 else 3))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for worker in children.read_text().split()[-1:] if children.is_file() and moment % 3 == 0 else ():
            os.kill(int(worker), signal.SIGKILL)
        process.kill()
        process.join()
    assert 5 <= there() < len(runs)
    assert experiments.run_missing(runs, root, store, workers=2) == 0
    assert_all_there(runs, root, store)


@pytest.mark.parametrize("cause", [data.BadInput("results/a.json", "is damaged", "Restore it"),
                                   OSError(28, "No space left on device", "results/a.json")])
def test_a_task_of_a_cluster_says_what_a_process_here_would(cause, plan, mistake, root, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="the engine for clusters is an extra: pip install cmrseg[cluster]")

    def get(tasks):  # what Ray makes of it
        raise ray.exceptions.RayTaskError("task", f"Traceback (most recent call last):\n{cause}", cause,
                                          "ray::task()", 1, "192.0.2.1").as_instanceof_cause()

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda task: SimpleNamespace(remote=lambda planned: planned))
    monkeypatch.setattr(ray, "wait", lambda tasks, **_: (tasks, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    line = mistake("sweep", "tiny", "--data", root, "--store", tmp_path, "--engine", "ray")
    assert line.startswith("error: results/a.json: ") and "Traceback" not in line and len(line) < 140


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
