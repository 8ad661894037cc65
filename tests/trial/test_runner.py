"""The runner and its command line: what is missing is computed once, whatever comes between.

Nothing is lost, nothing is torn, the next sweep carries on, and a mistake is one line.
"""

import inspect
import json
import multiprocessing
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, files_in, raising
from filelock import FileLock
from made_up import only  # noqa: F401

from cmrseg import data, datasets, train
from cmrseg.config import TrainConfig
from cmrseg.predict import TTA, Ensemble
from cmrseg.record import image_table, read_record
from cmrtrial import cli, compare, networks, runner
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.plans.report import PHANTOMS
from cmrtrial.spec import RunSpec
from cmrtrial.splits import split

# ruff: noqa: F811


@pytest.fixture
def command(command):
    """The trial's command line instead of the machine's."""
    return partial(command, main=cli.main)


def small(count, epochs=1):
    """Specs of a blink each, of seeds from 0."""
    config = TrainConfig(channels=(2, 4), batch=2, epochs=epochs)
    return [RunSpec(f"seed {n}", replace(config, seed=n), "val", "modern") for n in range(count)]


def fingerprint(root):
    return datasets.load(root, "labelled").fingerprint


@pytest.fixture
def here(monkeypatch):
    """Workers work in this process; to start others takes seconds."""

    def work(todo, source, store, deadline, _workers):
        runner.run_in_turn(todo, source, store, deadline)
        yield

    monkeypatch.setattr(runner, "_run_in_processes", work)


# --- one run -------------------------------------------------------------------------------------


@pytest.fixture
def plan():
    """Three small runs, and the first again under another name."""
    specs = small(3)
    return [*specs, replace(specs[0], setting="the first again")]


def test_what_is_missing_is_listed_once_and_shrinks(plan, root, tmp_path):
    mark = fingerprint(root)
    todo = runner.missing(plan, mark, tmp_path)
    assert len(todo) == 3 and len({spec.path(mark, tmp_path) for spec in todo}) == 3
    path = runner.run_one(plan[1], root, tmp_path)
    assert path == plan[1].path(mark, tmp_path) and path.is_file()
    assert [s.config.seed for s in runner.missing(plan, mark, tmp_path)] == [0, 2]
    assert len(runner.missing(plan, "of other data", tmp_path)) == 3


def test_a_run_is_left_to_the_process_that_holds_it_and_not_computed_again(
    plan, root, tmp_path, monkeypatch
):
    """A lock that a dead process left holds nobody off."""
    path = plan[0].path(fingerprint(root), tmp_path)
    lock = tmp_path / ".locks" / f"{path.stem}.lock"
    lock.parent.mkdir()
    with FileLock(lock):
        assert runner.run_one(plan[0], root, tmp_path) is None and not path.exists()
    lock.write_text("", encoding="utf-8")
    assert runner.run_one(plan[0], root, tmp_path) == path
    before = path.read_bytes()
    monkeypatch.setattr(networks, "fit", lambda *_, **__: pytest.fail("computed again"))
    assert runner.run_one(plan[0], root, tmp_path) == path
    assert runner.run_one(plan[3], root, tmp_path) == path  # another name, the same run
    assert path.read_bytes() == before


def test_what_failed_is_not_tried_again(plan, root, tmp_path, monkeypatch):
    tried = []

    def fails(config, *_, **__):
        tried.append(config.seed)
        raise ValueError("no")

    monkeypatch.setattr(networks, "fit", fails)
    for _ in range(2):  # as two workers with one list would
        note = runner.run_one(plan[0], str(root), tmp_path)
        assert note.name.endswith(".failed.json")
        assert json.loads(note.read_text(encoding="utf-8"))["reason"] == "no"
    assert tried == [0]


# --- many runs -----------------------------------------------------------------------------------


def test_after_the_deadline_no_new_run_is_begun(plan, root, tmp_path):
    runner.run_in_turn(plan, root, tmp_path, time.time() - 1)
    assert len(runner.missing(plan, fingerprint(root), tmp_path)) == 3
    runner.run_in_turn(plan[:1], root, tmp_path, time.time() + 600, wait=True)
    assert len(runner.missing(plan, fingerprint(root), tmp_path)) == 2


@pytest.mark.slow
def test_killed_at_ten_moments_a_sweep_loses_nothing(root, tmp_path):
    store, specs = tmp_path / "store", small(120, epochs=3)
    spawn, rng = multiprocessing.get_context("spawn"), random.Random(0)

    def there():
        return len(list(store.glob("modern/*.json")))

    for moment in range(10):
        before, args = there(), (specs, root, store, 2)
        process = spawn.Process(target=runner.run_missing, args=args)
        process.start()
        while moment % 2 and there() == before and process.is_alive():  # else it may not have begun
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1 if moment % 2 else 3))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        for worker in children.read_text(encoding="utf-8").split()[-1:] if moment % 3 == 0 else ():
            os.kill(int(worker), signal.SIGKILL)
        process.kill()
        process.join()
    assert 5 <= there() < len(specs)
    assert runner.run_missing(specs, root, store, workers=2) == 0
    assert_all_there(specs, root, store)


def assert_all_there(specs, root, store):
    for spec in specs:
        record = read_record(spec.path(fingerprint(root), store))
        assert record["seed"] == spec.config.seed
        assert len(record["history"]["loss"]) == spec.config.epochs
    # records and locks, no halves or failures
    assert len(list(store.glob("*/*"))) == len(specs) * 2


@pytest.mark.slow
def test_a_lost_node_of_a_cluster_loses_no_record(root, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="for clusters: pip install cmrseg[cluster]")
    from ray.cluster_utils import Cluster

    store, specs = tmp_path / "store", small(8, epochs=40)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    options = {"workers": 2, "engine": "ray"}
    sweep = threading.Thread(target=runner.run_missing, args=(specs, root, store), kwargs=options)
    sweep.start()

    def count(pattern):
        return len(list(store.glob(pattern)))

    while (done := count("modern/*.json")) < 3 or count(".locks/*") < done + 2:  # both at work
        time.sleep(0.02)
    cluster.remove_node(second, allow_graceful=False)
    sweep.join()
    cluster.shutdown()
    assert_all_there(specs, root, store)


# --- faults from outside -------------------------------------------------------------------------

PROGRAM = """
from dataclasses import replace
from cmrseg.config import TrainConfig
from cmrtrial import cli
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.spec import RunSpec
if __name__ == "__main__":  # the workers of a sweep read this file too
    config = TrainConfig(channels=(2, 4), batch=2, epochs=120)
    EXPERIMENTS["tiny"] = [
        RunSpec(f"seed {s}", replace(config, seed=s), "val", "modern") for s in range(6)
    ]
    cli.main()
"""


def program(path, text, *words):
    """Start a program of this text in a process of its own."""
    path.write_text(inspect.cleandoc(text), encoding="utf-8")
    pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    settings = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    # a shell that starts jobs in the background may let them ignore Ctrl-C
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen([sys.executable, path, *words], env=settings, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_no_worker_and_goes_on(number, status, root, tmp_path):
    store = tmp_path / "store"
    words = ("sweep", "tiny", "--data", root, "--store", store, "--workers", "2")
    process = program(tmp_path / "program.py", PROGRAM, *words)
    while not [*store.glob("modern/*.json")]:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=600)
    assert process.returncode == status
    assert "the same command goes on" in err and "Traceback" not in err
    for lock in store.glob(".locks/*.lock"):  # nobody holds one any more
        with FileLock(lock, timeout=1):
            pass
    kept = {path: path.stat().st_mtime_ns for path in store.glob("modern/*.json")}
    assert len(kept) < 6  # it did not wait for the end
    process = program(tmp_path / "program.py", PROGRAM, *words)
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0 and "nothing is missing" in out, err
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert len([read_record(path) for path in store.glob("modern/*.json")]) == 6


def test_a_worker_that_is_killed_is_not_passed_over(plan, root, tmp_path):
    def kill(*_):
        for worker in multiprocessing.active_children():
            worker.kill()

    with pytest.raises(data.BadInput, match=r"status -9.*memory is short"):
        runner.run_missing(plan, str(root), tmp_path, progress=kill)
    assert len(list(tmp_path.glob("modern/*"))) == 0


def test_a_script_without_a_main_guard_is_told_what_it_lacks(root, tmp_path):
    """Each of its workers runs the whole script again, and may start no workers itself."""
    text = f"""
        from pathlib import Path
        from cmrseg.config import TrainConfig
        from cmrtrial import runner
        from cmrtrial.spec import RunSpec
        spec = RunSpec("a", TrainConfig(channels=(4, 8), epochs=1), "val", "modern")
        runner.run_missing([spec], {str(root)!r}, Path({str(tmp_path / "store")!r}))
    """
    _, err = program(tmp_path / "mine.py", text).communicate(timeout=240)
    last = err.strip().splitlines()[-1]
    assert "__main__" in last and "memory" not in last, err


def test_a_worker_that_cannot_write_says_so_and_leaves_no_note(plan, root, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    troubles = queue.SimpleQueue()
    monkeypatch.setattr(runner, "write_record", full)
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process stays stoppable
    runner._work(plan, str(root), tmp_path, None, troubles)
    assert troubles.get().errno == 28 and not [*tmp_path.glob("modern/*")]


def test_a_run_that_the_machine_could_not_do_is_tried_again(root, tmp_path, monkeypatch):
    trouble = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr(runner, "train_and_evaluate", raising(trouble))
    with pytest.raises(data.BadInput, match="out of memory"):
        runner.run_one(*small(1), str(root), tmp_path)
    assert not [*tmp_path.glob("modern/*")]  # no note that it failed


# --- the command line ----------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, only, root, tiny):
    """Two small runs and one that diverges, as the experiment `tiny` on the made-up slices."""
    specs = [RunSpec(f"seed {s}", replace(tiny, seed=s), "val", "modern") for s in (0, 1)]
    specs.append(RunSpec("diverges", replace(tiny, lr=1e30, optimiser="sgd"), "val", "modern"))
    only(tiny=specs)
    monkeypatch.setattr(runner, "ACDC96", fingerprint(root))
    return specs


@pytest.fixture
def sweep(command, root, tmp_path):
    """Sweep the experiment `tiny` of these slices into ``tmp_path / "store"``."""
    return partial(command, "sweep", "tiny", "--data", root, "--store", tmp_path / "store")


def test_a_sweep_fills_gaps_keeps_failures_and_then_has_nothing_to_do(
    asked, sweep, command, tmp_path
):
    store = tmp_path / "store"
    first = sweep("--workers", 2)
    said = "nothing is missing; 1 failed, the first for: the loss is"
    assert first.status == 0 and said in first.out
    assert len(list(store.glob("modern/*.json"))) == 3  # two records and a note
    times = {p: p.stat().st_mtime_ns for p in store.glob("modern/*.json")}
    assert sweep().status == 0
    assert {p: p.stat().st_mtime_ns for p in store.glob("modern/*.json")} == times
    (row,) = json.loads(command("results", "tiny", "--store", store, "--json").out)
    counts = {"settings": 3, "runs": 2, "missing": 0, "failed": 1}
    assert row == {"experiment": "tiny", "protocol": "modern", **counts}


def test_a_sweep_of_which_every_run_failed_is_no_success(asked, here, sweep, tmp_path):
    first = sweep("--limit-minutes", 0)
    assert first.status == 0 and "3 runs are still missing" in first.out
    del asked[:2]
    for _ in range(2):
        done = sweep()
        line = done.err.splitlines()[-1]
        assert done.status == 2 and not done.out and line.startswith("error: ")
        assert ".failed.json: is why" in line
        assert "so did all: the loss is" in line and "--retry" in line
    (note,) = tmp_path.glob("store/modern/*.failed.json")
    before = note.stat().st_mtime_ns
    sweep("--retry")
    assert note.stat().st_mtime_ns > before


def test_a_user_s_mistakes_are_one_line(asked, mistake, root, tmp_path):
    words = ("sweep", "tiny", "--data", root, "--store", tmp_path)
    line = mistake(*words, "--protocol", "report")
    assert "has no run" in line and "modern" in line
    for minutes in ("nan", "-3"):
        mistake(*words, "--limit-minutes", minutes, naming="--limit-minutes")
    for verb in ("sweep", "results"):
        assert "One of: all, tiny" in mistake(verb, "tinny", naming="tinny")
    path = runner.run_one(asked[0], str(root), tmp_path)
    path.write_text(path.read_text(encoding="utf-8")[:99], encoding="utf-8")
    for words in (("results", "tiny"), ("sweep", "tiny", "--data", root)):
        assert "not a record" in mistake(*words, "--store", tmp_path, naming=path)


def test_an_experiment_is_shown_with_every_recipe_it_has(asked, command, tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "tiny", [replace(s, protocol="final") for s in asked])
    answer = command("results", "tiny", "--store", tmp_path, "--json")
    assert [row["protocol"] for row in json.loads(answer.out)] == ["final"]
    assert json.loads(command("results", "--store", tmp_path, "--json").out) == []


# --- networks that are kept, and predict in other ways -------------------------------------------


@pytest.fixture
def keeping(tiny):
    return RunSpec("kept", replace(tiny, epochs=3), "val", "final", keep=True)


def as_recorded(models, spec, held_out):
    """The table of slices of these networks, as JSON gives it back."""
    masks = Ensemble(models, spec.config.scale, spec.tta).predict(held_out.images)
    return json.loads(json.dumps(image_table(masks, held_out)))


def test_a_kept_network_is_trained_once_and_judged_when_it_is_ready(
    keeping, root, tmp_path, monkeypatch
):
    path = runner.run_one(keeping, str(root), tmp_path / "store")
    first = read_record(path)
    assert first["history"]["dice"] == [None] * 3 and len(first["history"]["loss"]) == 3
    assert first["dice_best"] == first["dice_last"] and first["epoch_best"] == 3
    path.unlink()
    monkeypatch.setattr(networks, "fit", None)  # not called again
    assert read_record(runner.run_one(keeping, str(root), tmp_path / "store")) == first


def test_a_kept_network_goes_on_where_it_was_stopped(keeping, root, tmp_path, monkeypatch):
    whole = networks.cached_network(keeping, str(root), tmp_path / "whole" / "store")
    epochs, train_epoch = [], train.train_epoch

    def stops(state, images, labels, epoch):
        epochs.append(epoch)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return train_epoch(state, images, labels, epoch)

    monkeypatch.setattr(train, "train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        networks.cached_network(keeping, str(root), tmp_path / "cut" / "store")
    resumed = networks.cached_network(keeping, str(root), tmp_path / "cut" / "store")
    assert epochs == [1, 2, 3, 3]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)
    assert files_in(tmp_path / "cut" / "runs") == files_in(tmp_path / "whole" / "runs")


def test_predicting_in_another_way_is_a_record_of_its_own(
    keeping, root, tmp_path, monkeypatch, only
):
    store, tta = tmp_path / "store", TTA((-10.0, 10.0), postprocess=True)
    keeping = replace(keeping, config=replace(keeping.config, epochs=12), split="fold0")
    judged = replace(keeping, keep=False, tta=tta, seeds=(1,))
    specs = [
        replace(judged, setting="two", seeds=(0, 1)),
        replace(judged, setting="one"),
        replace(judged, setting="once", tta=TTA()),
        replace(judged, setting="dark", tta=TTA(), shift=("noise", 9.0)),
    ]
    two, one, once, dark = (read_record(runner.run_one(s, str(root), store)) for s in specs)
    assert len({record["key"] for record in (two, one, once, dark)}) == 4
    models = [result.model for result in networks.cached_networks(specs[0], str(root), store)]
    assert two["images"] == as_recorded(models, specs[0], split(root, "fold0")[1])
    ways = {"turns": [-10.0, 10.0], "mirror": False, "clean": True, "seeds": [0, 1], "shift": None}
    assert two["ways"] == ways and dark["ways"]["shift"] == ["noise", 9.0]
    assert one["images"] != two["images"] and dark["images"] != once["images"]
    assert len(two["agreement"]) == len(two["expected_dice"]) == 2 and one["agreement"] is None
    assert sum(two["reliability"]["count"]) > 100
    monkeypatch.setattr(RunSpec.path, "__defaults__", (fingerprint(root), store))
    only(ladder=specs)
    table = compare.runs("ladder", "final", store)
    assert table["setting"].tolist() == ["two", "one", "once", "dark"]
    assert table["loss"].isna().all()


def test_the_networks_of_all_folds_predict_the_validation_slices(
    keeping, root, tmp_path, monkeypatch
):
    store, folds = tmp_path / "store", ("train-fold0", "train-fold1")
    monkeypatch.setattr(networks, "TRAIN_FOLDS", folds)
    together = replace(keeping, keep=False, tta=TTA(flip=True), seeds=(0, 1))
    record = read_record(runner.run_one(together, str(root), store))
    seeds = [replace(keeping, config=replace(keeping.config, seed=seed)) for seed in (0, 1)]
    trained = [replace(spec, split=fold) for fold in folds for spec in seeds]
    models = [networks.cached_network(spec, str(root), store).model for spec in trained]
    assert record["images"] == as_recorded(models, together, split(root, "val")[1])
    assert record["split"] == "val" and len(files_in(tmp_path / "runs" / "networks")) >= 8
    alone = replace(together, seeds=())  # the network of all training slices
    record = read_record(runner.run_one(alone, str(root), store))
    model = networks.cached_network(keeping, str(root), store).model
    assert record["images"] == as_recorded([model], alone, split(root, "val")[1])
    assert record["ways"]["seeds"] == [] and record["agreement"] is None


def test_a_fold_begins_with_phantoms_of_its_own(tiny, root, tmp_path, monkeypatch):
    first = RunSpec("phantoms only", replace(tiny, epochs=1), "val", "modern", keep=True)
    monkeypatch.setattr(networks, "ON_PHANTOMS", first)
    begun, fit = [], networks.fit

    def watched(*args, start=None, **options):
        begun.append(start)
        return fit(*args, start=start, **options)

    monkeypatch.setattr(networks, "fit", watched)
    spec = RunSpec("first", replace(tiny, start=PHANTOMS), "fold3@1", "modern")
    runner.run_one(spec, str(root), tmp_path / "store")
    of_seed_3 = replace(first, config=replace(first.config, seed=3))
    expected = networks.cached_network(of_seed_3, str(root), tmp_path / "store").model
    assert begun[0] is None and len(begun) == 2  # the phantoms, and then the patients
    for p, q in zip(begun[1].parameters(), expected.parameters()):
        assert torch.equal(p, q)
