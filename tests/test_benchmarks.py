"""The clock against the libraries: what its table says of the trainings it was given.

Each group fails after any of these one-line changes of ``benchmarks/time_to_dice.py``:

- reached: ``if d >= dice`` -> ``if d > 0``; ``(epoch - 1)`` -> ``epoch``; for `sprint` its end -> its first passing
- table: ``+ run["imports"]`` dropped; ``sum(ends) / len(ends)`` -> ``max(ends)``
- resuming: ``runs = found.pop("runs") if ...`` -> ``runs = []``, or without its condition; drop ``save(part, ...)``
- plan: ``range(SEEDS)`` -> ``range(1)``; a rate of BEST that is not among RATES

And of ``benchmarks/inference.py``:

- ours: return the time since its first line; ``runtime.find = noted`` dropped
- report: ``.eval()`` dropped; ``begun = time.perf_counter()`` moved below its loop; two slices at once

And of ``benchmarks/side_by_side.py``: ``seed=seed`` -> ``seed=0``; ``range(at_once)`` -> ``range(1)`` (it waits for
the other); ``60 * at_once`` -> ``60``
"""

import json
import re
import runpy
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import REPOSITORY

from cmrseg import data, models, runtime
from cmrseg.training import PRESETS


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
    assert len(rivals) == (18 if full else 2) == len({asked["name"] for asked in rivals})
    everything = [asked["name"] for asked in bench["plan"](True)]
    assert all(asked["name"] in everything for asked in rivals)


@pytest.fixture
def race(bench, tmp_path, monkeypatch):
    """Run the full race in a folder of its own: trainings that are planned, and a function that trains."""

    def begin(names, train):
        its = bench["main"].__globals__
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
    seconds = inference["ours"](four_slices, tmp_path / "masks")
    assert 0.1 < seconds < time.perf_counter() - begun - 0.5
    assert len(list((tmp_path / "masks").iterdir())) == 4


def test_the_reports_loop_asks_its_network_once_a_slice(inference, four_slices, tmp_path, monkeypatch):
    asked = []

    class Slow(models.build(PRESETS["report"]).__class__):
        def forward(self, x):
            asked.append(tuple(x.shape))
            time.sleep(0.05)
            return super().forward(x)

    network = models.build(PRESETS["report"])
    network.__class__ = Slow
    monkeypatch.setattr(models, "build", lambda config: network)
    assert inference["report"](four_slices, tmp_path / "masks") > 4 * 0.05
    assert asked == [(1, 1, 96, 96)] * 4 and not network.training
    assert len(list((tmp_path / "masks").iterdir())) == 4


def test_two_trainings_side_by_side():
    done = subprocess.run([sys.executable, REPOSITORY / "benchmarks" / "side_by_side.py", "--data", "phantom", "--epochs", "1",
                           "--at-once", "2", "--precision", "fp32"], text=True, capture_output=True, check=True)
    (seconds, rate, first, second), = re.findall(r"\| fp32 \| 2 \| (\S+) \| (\S+) \| (\S+), (\S+) \|", done.stdout)
    assert float(rate) == pytest.approx(120 / float(seconds), rel=0.1)
    assert first != second and 0 <= float(second) <= 1
