"""The clock against the libraries: who is scored when, and what its table says; and the other benchmarks.

Each group fails after any of these one-line changes of ``benchmarks/time_to_dice.py``:

- reached: ``if d >= dice`` -> ``if d > 0``; ``(epoch - 1)`` -> ``epoch``; for `sprint` its end -> its first passing
- table: ``+ run["imports"]`` dropped; ``sum(ends) / len(ends)`` -> ``max(ends)``
- resuming: ``runs = found.pop("runs") if ...`` -> ``runs = []``, or without its condition; drop ``save(part, ...)``
- a rival stops: drop ``break``; ``math.inf`` -> ``0``, both times
- plan: ``range(SEEDS)`` -> ``range(1)``; a rate of CHOSEN that is not among RATES; drop ``("polynomial", 25)``
- ours: drop ``every,``; ``== last`` -> ``> last``
- nnU-Net: drop ``net.apply``, ``clip_grad_norm_``, ``logits[:-1]`` -> ``logits``, ``= mode`` -> ``= True``,
  ``include_background=False``, ``falling.step()``
- a wrong folder, of all three scripts that read slices: drop ``except BadInput``, or ``sys.exit(2)``; in the Makefile,
  ``$(wildcard ../shared/data/acdc96)`` or ``$(CMRSEG_DATA)`` dropped

And of ``benchmarks/inference.py``:

- ours: return the time since its first line; ``runtime.find = noted`` dropped
- report: ``.eval()`` dropped; ``begun = time.perf_counter()`` moved below its loop, or above the first call; two slices
  at once; the first call dropped
- threads, in ``cmrseg/runtime.py``: ``int(asked) if asked.isdecimal() else`` dropped; ``.isdecimal()`` -> ``!= ""``
- write: ``number % len(images)`` -> ``0``

And of ``benchmarks/side_by_side.py``: ``seed=seed`` -> ``seed=0``; ``range(at_once)`` -> ``range(1)`` (it waits for
the other); ``60 * at_once`` -> ``60``; ``if options.compile`` -> ``if False``; in fast(), ``known and`` dropped

And of ``benchmarks/step.py``: in shares(), ``.lower()`` dropped; in parts_of(), ``config.augment, rng`` -> ``(), rng``; in
table(), ``-last`` -> ``last``. And of ``benchmarks/scale.py``: ``/ EPOCHS`` dropped; ``alone / seconds`` -> ``seconds /
alone``; ``min(sweep, CORES) * memory`` -> ``memory``; ``-(-sweep // CORES)`` -> ``sweep // CORES``
"""

import argparse
import json
import math
import os
import re
import runpy
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY

from cmrseg import data, experiments, models, runtime, training
from cmrseg.models.sprint import SprintUNet
from cmrseg.training import PRESETS, TrainConfig

SCRIPTS = REPOSITORY / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    return runpy.run_path(str(REPOSITORY / "benchmarks" / "time_to_dice.py"))


def run(name, seconds, dice, **more):
    return {"name": name, "seconds": seconds, "dice": dice, "imports": 2.0} | more


RUNS = [run("sprint", [1.0, 4.0], [0.9, 0.84]), run("sprint", [1.0, 6.0], [0.5, 0.85]),
        run("MONAI", [10.0, 20.0, 30.0], [0.5, 0.84, 0.7]), run("slow", [10.0], [0.2]),
        run("the report's recipe", [11.0, 21.0, 31.0, 41.0, 51.0], [0.0] * 5, epochs=5)]


def test_the_target_is_where_the_published_code_ended(bench):
    assert bench["target"]() == (0.836, 110)


def test_a_time_is_that_of_the_first_passing_and_of_sprint_that_of_its_end(bench):
    times = [bench["reached"](found, 0.836, 110) for found in RUNS]
    assert times == [4.0, 6.0, 20.0, None, 11.0 + 109 * 10.0]


def test_the_table_says_all_of_it(bench):
    table = bench["table"](RUNS, 0.836, 110)
    assert len({len(row) for row in table}) == 1
    text = bench["in_columns"](table)
    assert all(cell in text for row in table for cell in row) and len(text.splitlines()) == len(table)
    rows = {name: [*cells] for name, *cells in table}
    assert rows["sprint, 2 seeds"] == ["5.0", "7.0", "1", "1", "0.8450 at the end, from 0.840 to 0.850"]
    assert rows["MONAI"] == ["20.0", "22.0", "4.0", "3.1", "0.700 at the end, 0.840 at most"]
    assert rows["slow"][0] == "not reached"
    assert rows["the report's recipe (estimated)"][0] == "1101.0"


@pytest.mark.parametrize("full", [False, True])
def test_what_is_trained(bench, full):
    plan = bench["plan"](full)
    assert sorted(asked["seed"] for asked in plan if asked["name"] == "sprint") == list(range(10))
    assert {asked["preset"] for asked in plan if "preset" in asked} == {"sprint", "book", "report"} <= {*PRESETS}
    rivals = [asked for asked in plan if "rival" in asked]
    assert {asked["rival"] for asked in rivals} == {"MONAI", "nnU-Net"}
    assert len(rivals) == (21 if full else 3) == len({asked["name"] for asked in rivals})
    assert {asked["rival"] for asked in rivals if asked["schedule"] == "polynomial"} == ({"nnU-Net"} if full else set())
    assert {asked.get("until") for asked in rivals} == {None if full else 0.836}
    everything = [asked["name"] for asked in bench["plan"](True)]
    assert all(asked["name"] in everything for asked in rivals)


@pytest.fixture
def few(monkeypatch):
    """Eight slices to learn from and four to be scored on, instead of the whole source."""
    train, held_out = data.split("phantom", "val")
    monkeypatch.setattr(data, "split", lambda source, name: (train[:8], held_out[:4]))


def test_a_long_recipe_is_scored_after_each_of_the_epochs_that_are_timed(bench, few, monkeypatch):
    tiny = TrainConfig(channels=(2, 4), epochs=140, batch=4, augment=())
    monkeypatch.setitem(PRESETS, "report", tiny)
    assert 5 not in training.scored_epochs(tiny.epochs)  # by itself it would be scored at the third alone
    asked = {"name": "the report's recipe", "preset": "report", "seed": 0, "epochs": 5}
    clock = bench["ours"](asked, "phantom")
    assert len(clock.seconds) == len(clock.dice) == 5 and clock.seconds == sorted(clock.seconds)
    assert all(0 <= dice <= 1 for dice in clock.dice)
    *_, row = bench["table"]([*RUNS[:2], asked | {"imports": 2.0} | vars(clock)], 0.836, 110)
    first, last = clock.seconds[0], clock.seconds[-1]
    assert "after 5 epochs" in row[-1]
    assert row[:2] == ("the report's recipe (estimated)", f"{first + (last - first) / 4 * 109:.1f}")


def test_a_preset_runs_to_its_end_and_is_scored_after_every_epoch(bench, few, monkeypatch):
    monkeypatch.setitem(PRESETS, "book", TrainConfig(channels=(2, 4), epochs=52, batch=8, augment=()))
    assert len(bench["ours"]({"preset": "book", "seed": 0}, "phantom").dice) == 52


@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_monai_learns(bench, few, schedule):
    asked = {"rival": "MONAI", "rate": 0.001, "schedule": schedule, "epochs": 1, "seed": 0}
    clock = bench["rival"](asked, "phantom")
    assert len(clock.seconds) == 1 and 0 <= clock.dice[0] <= 1


@pytest.mark.parametrize("until, epochs", [(0, 1), (1.1, 3)])
def test_a_rival_stops_when_it_has_passed(bench, few, until, epochs):
    asked = {"name": "MONAI", "rival": "MONAI", "rate": 0.001, "schedule": "constant", "epochs": 3, "seed": 0}
    clock = bench["rival"](asked | {"until": until}, "phantom")
    assert len(clock.dice) == epochs
    *_, row = bench["table"]([*RUNS[:2], asked | {"until": until, "imports": 2.0} | vars(clock)], until, 110)
    assert ("when it passed" in row[-1]) == (epochs == 1) == (row[1] != "not reached")


def test_nnunet_is_set_up_as_its_makers_do(bench, few, monkeypatch):
    pytest.importorskip("dynamic_network_architectures")
    from monai.losses import DiceCELoss

    clipped, weighed, looked, rates = [], [], [], []
    clip, forward, step = torch.nn.utils.clip_grad_norm_, DiceCELoss.forward, torch.optim.SGD.step
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, most: clipped.append(most) or clip(p, most))
    monkeypatch.setattr(DiceCELoss, "forward", lambda self, x, y: weighed.append((tuple(x.shape), tuple(y.shape)))
                        or forward(self, x, y))
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: rates.append(
        self.param_groups[0]["lr"]) or step(self, closure))
    net, _, loss, _, _ = bench["nnunet"](0.01)()
    make = bench["nnunet"](0.01)
    made = make()
    made[0].register_forward_hook(lambda net, x, found: looked.append(type(found)))
    monkeypatch.setitem(bench["rival"].__globals__, "nnunet", lambda rate: lambda: made)
    asked = {"rival": "nnU-Net", "rate": 0.01, "schedule": "polynomial", "epochs": 1, "seed": 0}
    clock = bench["rival"](asked, "phantom")
    assert len(clock.seconds) == 1 and 0 <= clock.dice[0] <= 1
    assert looked == [list, list, torch.Tensor]  # two steps, and a look at the held-out slices
    assert clipped == [12, 12]
    assert weighed[:3] == [((4, 4, n, n), (4, 1, n, n)) for n in (96, 48, 24)] and len(weighed) == 6  # not at 12
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9])
    first = net.encoder.stages[2][0].convs[0].conv
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.05) and not first.bias.any()
    nothing, background = torch.zeros(2, 4, 8, 8), torch.zeros(2, 1, 8, 8)
    nothing[:, 0] = 50  # sure of the background, and right: yet no Dice is earned with it
    assert loss(nothing, background).item() == pytest.approx(0, abs=1e-3)
    assert not loss.dice.include_background and loss.dice.batch


@pytest.mark.parametrize("script", ["time_to_dice", "inference", "side_by_side"])
def test_a_folder_that_is_not_there_is_one_line_and_status_2(script, tmp_path):
    done = subprocess.run([sys.executable, SCRIPTS / f"{script}.py", "--data", tmp_path / "nowhere"], text=True,
                          capture_output=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}: no such data. Give") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("there, asked, found", [
    ([], "", "acdc96"), (["shared/data/acdc96"], "", "../shared/data/acdc96"),
    (["shared/data/acdc96", "clone/data/acdc96"], "", "acdc96"), (["shared/data/acdc96"], "phantom", "phantom")])
def test_make_bench_takes_the_slices_that_are_there(there, asked, found, tmp_path):
    for folder in ["clone/.venv", *there]:
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "clone" / ".venv" / "ready").touch()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / "clone" / name).write_bytes((REPOSITORY / name).read_bytes())
    said = subprocess.run(["make", "--dry-run", "bench"], text=True, capture_output=True, check=True,
                          cwd=tmp_path / "clone", env=os.environ | {"CMRSEG_DATA": asked}).stdout
    assert f'time_to_dice.py --data "{found}"' in said


@pytest.fixture
def race(bench, tmp_path, monkeypatch):
    """Run the full race in a folder of its own: trainings that are planned, and a function that trains."""

    def begin(names, train):
        its = bench["main"].__globals__
        monkeypatch.setattr(data, "split", lambda source, name: None)
        monkeypatch.setitem(its, "__file__", str(tmp_path / "time_to_dice.py"))
        monkeypatch.setitem(its, "plan", lambda full: [{"name": name} for name in names])
        monkeypatch.setitem(its, "train", train)
        monkeypatch.setattr("sys.argv", ["time_to_dice.py", "--full"])
        bench["main"]()
        found = json.loads((tmp_path / "time_to_dice_full.json").read_text())
        return [each["name"] for each in found["runs"]]

    return begin


def test_a_full_run_that_was_stopped_goes_on(race, tmp_path):
    names, asked = [*(f"training {n}" for n in range(5)), "sprint"], []

    def train(what, options):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(what["name"])
        return what | run(what["name"], [1.0, 2.0], [0.5, 0.9])

    with pytest.raises(KeyboardInterrupt):
        race(names, train)
    asked.insert(0, "so that the next stop is not at three")
    assert race(names, train) == asked[1:] == names
    assert [path.name for path in tmp_path.iterdir()] == ["time_to_dice_full.json"]


def test_another_machine_begins_anew(race, tmp_path):
    (tmp_path / "time_to_dice_full.part").write_text(json.dumps(
        {"machine": "another", "threads": 1, "target": 0, "report_epoch": 0, "runs": [run("old", [1.0], [0.5])]}))
    assert race(["sprint"], lambda what, options: run("sprint", [1.0], [0.9])) == ["sprint"]


@pytest.fixture
def inference():
    return runpy.run_path(str(REPOSITORY / "benchmarks" / "inference.py"))


@pytest.fixture
def four_slices(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(data.load("phantom", "labelled").images[:4]):
        data.write_png(folder / f"cmr{number + 1}.png", image)
    return folder


def test_our_loop_begins_when_the_network_is_ready(inference, four_slices, tmp_path, monkeypatch):
    def slow_to_load(model):
        time.sleep(0.5)
        return slow

    def slow(images):
        time.sleep(0.1)
        return np.zeros(images.shape, np.uint8)

    monkeypatch.setattr(runtime, "find", slow_to_load)
    begun = time.perf_counter()
    seconds, network = inference["ours"](four_slices, tmp_path / "masks")
    assert 0.1 < network < seconds < time.perf_counter() - begun - 0.5
    assert len(list((tmp_path / "masks").iterdir())) == 4


def test_the_reports_loop_asks_its_network_once_a_slice(inference, four_slices, tmp_path, monkeypatch):
    asked = []

    class Slow(models.build(PRESETS["report"]).__class__):
        def forward(self, x):
            time.sleep(0.05 if asked else 1)
            asked.append(tuple(x.shape))
            return super().forward(x)

    network = models.build(PRESETS["report"])
    network.__class__ = Slow
    monkeypatch.setattr(models, "build", lambda config: network)
    begun = time.perf_counter()
    seconds, inside = inference["report"](four_slices, tmp_path / "masks")
    assert 4 * 0.05 < inside < seconds < time.perf_counter() - begun - 1  # the first call is before the clock, as with ours
    assert asked == [(1, 1, 96, 96)] * 5 and not network.training
    assert len(list((tmp_path / "masks").iterdir())) == 4


def test_pictures_are_written_again_and_again(inference, tmp_path):
    images = data.load("phantom", "test").images[:2]
    inference["write"](images, 5, tmp_path)
    found = [data.read_png(tmp_path / f"cmr{number}.png") for number in range(1, 6)]
    assert (np.stack(found) == images[[0, 1, 0, 1, 0]]).all() and len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("asked, expected", [("1", 1), ("3", 3), ("", None), ("2,1", None)])
def test_onnxruntime_takes_the_threads_that_were_asked_for(asked, expected, tmp_path, monkeypatch):
    (tmp_path / "a.onnx").touch()
    threads = []

    def session(path, options, providers):
        threads.append(options.intra_op_num_threads)
        raise RuntimeError

    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(data.BadInput):
        runtime.from_onnx(tmp_path / "a.onnx")
    assert threads == [expected or os.cpu_count()]


def test_two_trainings_side_by_side():
    done = subprocess.run([sys.executable, REPOSITORY / "benchmarks" / "side_by_side.py", "--data", "phantom", "--epochs", "1",
                           "--at-once", "2", "--precision", "fp32"], text=True, capture_output=True, check=True)
    (seconds, rate, first, second), = re.findall(r"\| fp32 \| 2 \| (\S+) \| (\S+) \| (\S+), (\S+) \|", done.stdout)
    assert float(rate) == pytest.approx(120 / float(seconds), rel=0.1)
    assert first != second and 0 <= float(second) <= 1


@pytest.fixture
def beside():
    return runpy.run_path(str(SCRIPTS / "side_by_side.py"))


@pytest.mark.parametrize("compiled", [False, True])
def test_a_training_is_compiled_where_that_is_asked_for(beside, few, compiled, monkeypatch):
    forward, made, ran = SprintUNet.forward, [], []

    def compile_(function, mode):
        made.append(mode)
        return lambda self, x: ran.append(len(x)) or function(self, x)

    monkeypatch.setattr(torch, "compile", compile_)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    beside["meet"](threading.Barrier(1))
    options = argparse.Namespace(data="phantom", device="cpu", epochs=2, compile=compiled)
    started, ended, dice = beside["one"](0, options, "fp32")
    assert started < ended and 0 <= dice <= 1
    assert (made, ran) == ((["reduce-overhead"], [4] * 2 * 3) if compiled else ([], []))  # and one epoch to warm up
    assert SprintUNet.forward is forward


@pytest.mark.parametrize("device, gpu, probed, expected", [
    ("cpu", False, "fp32", ["fp32"]), ("cpu", False, "bf16", ["fp32", "bf16"]), ("cpu", True, "bf16", ["fp32"]),
    ("cuda", True, "bf16", ["fp32", "bf16"])])
def test_bf16_only_where_it_is_fast(beside, device, gpu, probed, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(training, "probe_precision", lambda: probed)
    assert beside["fast"](device) == expected


@pytest.mark.parametrize("script", ["step", "scale"])
def test_a_script_says_what_it_measures(script):
    done = subprocess.run([sys.executable, SCRIPTS / f"{script}.py", "--help"], text=True, capture_output=True,
                          check=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    assert runpy.run_path(str(SCRIPTS / f"{script}.py"))["__doc__"].splitlines()[2] in done.stdout


def test_where_the_time_of_a_step_goes(monkeypatch):
    step = runpy.run_path(str(SCRIPTS / "step.py"))
    found = step["shares"]([("aten::Convolution", 2.0), ("aten::mkldnn_convolution", 4.0), ("aten::relu_", 1.0),
                            ("aten::sum", 3.0)])
    assert found == pytest.approx({"convolution": 0.6, "ReLU": 0.1, "the rest": 0.3})
    lines = step["table"]({"replica": {"Adam": 1.0, "convolution": 3.0}, "book": {"convolution": 8.0, "augmentation": 12.0}})
    assert lines.splitlines() == ["| part | `replica`, ms | share | `book`, ms | share |", "|---|---|---|---|---|",
                                  "| augmentation | 0.0 | 0% | 12.0 | 60% |", "| convolution | 3.0 | 75% | 8.0 | 40% |",
                                  "| Adam | 1.0 | 25% | 0.0 | 0% |"]
    asked, its = [], step["parts_of"].__globals__
    monkeypatch.setitem(its, "augment", lambda x, y, names, rng: asked.append((tuple(x.shape), names)))
    monkeypatch.setitem(its, "milliseconds", lambda function, times: function() or 2.0)
    tiny = replace(PRESETS["book"], channels=(2, 4))
    parts = step["parts_of"](tiny)
    assert asked == [((4, 1, 96, 96), PRESETS["book"].augment)] and parts.pop("augmentation") == 2.0
    assert sum(parts.values()) == pytest.approx(2.0) and parts["convolution"] > 0
    assert step["parts_of"](replace(tiny, augment=()))["augmentation"] == 0


def test_what_a_large_study_costs(monkeypatch):
    scale = runpy.run_path(str(SCRIPTS / "scale.py"))
    *_, two = scale["workers"]({"one worker": 1.0, "two workers": 1.25}).splitlines()
    assert two == "| two workers | 1.25 | 80% |"
    one, sweep, drawn = scale["costs"](100, 1000).splitlines()[2:5]
    hours = 60 * 160_000 / 100 / 3600
    assert one.endswith(f" | {hours:.0f} | {hours / 24:.1f} | 21 |")
    assert sweep.endswith(f" | {25 * hours:,.0f} | {hours / 24:.1f} | 516 |")
    assert "2,000,000" in drawn and drawn.endswith(" | 1 | 0.0 | streams |")

    def trained(plan, source, store, workers, engine):
        for number, planned in enumerate(plan):
            assert planned.config.epochs == 6
            (store / f"{number}.json").write_text(json.dumps({"seconds": 6.0 * number}))
        return 0

    monkeypatch.setattr(experiments, "run_missing", trained)
    assert scale["short_trainings"](2, "local") == 3.5  # what a training says of itself, not how long all took
