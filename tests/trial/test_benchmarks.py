"""The benchmarks run, and their tables say what was measured."""

import os
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from cmrseg import datasets
from cmrseg.config import PRESETS, TrainConfig
from cmrtrial.second import worlds
from cmrtrial.second.statistics import compare

SCRIPTS = REPOSITORY / "benchmarks"


def load(name):
    """The functions of a script."""
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


def start(name, *words):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    words = [sys.executable, SCRIPTS / f"{name}.py", *words]
    return subprocess.run(words, text=True, capture_output=True, env=environment)


@pytest.fixture
def few(monkeypatch):
    """Eight slices to learn from and four to be scored on, instead of the whole source."""
    train, held_out = datasets.split("phantom", "val")
    monkeypatch.setattr(datasets, "split", lambda source, name: (train[:8], held_out[:4]))


def run(name, seconds, dice, **more):
    return {"name": name, "seconds": seconds, "dice": dice, "imports": 2.0} | more


def test_a_time_is_that_of_the_first_passing_and_of_sprint_that_of_its_end():
    bench = load("time_to_dice")
    runs = [run("sprint", [1.0, 4.0], [0.9, 0.84]), run("sprint", [1.0, 6.0], [0.5, 0.85])]
    runs += [run("MONAI", [10.0, 20.0, 30.0], [0.5, 0.84, 0.7]), run("slow", [10.0], [0.2])]
    runs += [run("the report's recipe", [11.0, 21.0, 31.0, 41.0, 51.0], [0.0] * 5, epochs=5)]
    target = bench["target"]()
    assert target == (0.836, 110)
    rows = {name: cells for name, *cells in bench["table"](runs, *target)}
    ends = "0.8450 at the end, from 0.840 to 0.850"
    assert rows["sprint, 2 seeds"] == ["5.0", "7.0", "1", "1", ends]
    assert rows["MONAI"] == ["20.0", "22.0", "4.0", "3.1", "0.700 at the end, 0.840 at most"]
    assert rows["slow"][0] == "not reached"
    assert rows["the report's recipe (estimated)"][0] == "1101.0"


def test_a_recipe_is_scored_after_each_epoch_and_stops_when_asked(few, monkeypatch):
    tiny = TrainConfig(channels=(2, 4), epochs=140, batch=4, augment=())
    monkeypatch.setitem(PRESETS, "report", tiny)
    clock = load("time_to_dice")["ours"]({"preset": "report", "seed": 0, "epochs": 5}, "phantom")
    assert len(clock.seconds) == len(clock.dice) == 5 and clock.seconds == sorted(clock.seconds)
    assert all(0 <= dice <= 1 for dice in clock.dice)


@pytest.mark.parametrize("rival, until, epochs", [("MONAI", 0, 1), ("nnU-Net", 1.1, 2)])
def test_a_rival_learns_and_stops_when_it_has_passed(rival, until, epochs, few):
    pytest.importorskip("monai" if rival == "MONAI" else "dynamic_network_architectures")
    asked = {"rival": rival, "rate": 0.001, "schedule": "constant", "epochs": 2, "seed": 0}
    clock = load("time_to_dice")["rival"](asked | {"until": until}, "phantom")
    assert len(clock.dice) == epochs and 0 <= clock.dice[0] <= 1


def test_a_folder_that_is_not_there_is_one_line_and_status_2(tmp_path):
    for script in ("time_to_dice", "inference", "side_by_side"):
        done = start(script, "--data", tmp_path / "nowhere")
        assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
        assert done.stderr.startswith(f"error: {tmp_path / 'nowhere'}: no such data. Give")


def test_two_trainings_side_by_side(root):
    said = start("side_by_side", "--data", root, "--epochs", "1", "--at-once", "2").stdout
    (row,) = re.findall(r"\| fp32 \| 2 \| (\S+) \| (\S+) \| (\S+), (\S+) \|", said)
    seconds, rate, *dice = map(float, row)
    assert 120 / rate == pytest.approx(seconds, abs=0.006, rel=0.02)  # both are rounded
    assert all(0 <= d <= 1 for d in dice)


def test_the_page_on_what_repeats_says_what_the_records_say():
    module = load("determinism")
    assert module["PAGE"].read_text(encoding="utf-8") == module["page"]()


def test_a_mixed_model_gives_nearly_the_error_of_the_closed_form_in_a_plain_world():
    pytest.importorskip("statsmodels")
    mixed_error, rng = load("mixed_model")["mixed_error"], np.random.default_rng(0)
    shape = (worlds.FOLDS, worlds.PATIENTS)
    patients = rng.normal(0, worlds.PATIENT, shape)
    (b, _), (a, _) = (
        worlds.draw(worlds.WORLDS["plain"], rng, n, patients, np.zeros(shape), 0.0) for n in (1, 2)
    )
    assert mixed_error(a, b, crossed=False) == pytest.approx(compare(a, b).se, rel=0.1)
