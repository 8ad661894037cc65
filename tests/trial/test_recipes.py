"""The three recipes of the page *Contributing*, executed in a copy of the repository: each touches one place."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY, fill

RECIPES = re.findall(
    r"```python\n# (\S+\.py)(, at its end)?\n(.+?)```",
    (REPOSITORY / "book" / "contributing.md").read_text(encoding="utf-8"),
    re.S,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A program in a copy that has followed the recipes."""
    places = [path.rpartition("/")[0] for path, *_ in RECIPES]
    assert places == ["cmrseg/models", "cmrtrial/plans", "cmrseg"]
    copy = tmp_path_factory.mktemp("copy")
    for name in ("cmrseg", "cmrtrial", "tests", "tools"):
        ours = shutil.ignore_patterns("__pycache__")  # nothing says here what git ignores
        shutil.copytree(REPOSITORY / name, copy / name, ignore=ours)
    for name in ("results", "weights", "book", "notebooks", "pyproject.toml", "README.md"):
        (copy / name).symlink_to(REPOSITORY / name)
    for path, at_end, code in RECIPES:
        with (copy / path).open("a" if at_end else "w", encoding="utf-8") as file:
            file.write(code)
    for words in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *words], cwd=copy, check=True)

    def run(*words):
        options = {"text": True, "capture_output": True, "cwd": copy}
        options["env"] = {"PYTHONPATH": str(copy), "PATH": os.environ["PATH"]}
        done = subprocess.run([sys.executable, *map(str, words)], **options)
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_network_is_a_file(run):
    code = """
from cmrseg.datasets import load
from cmrseg.config import TrainConfig
from cmrseg.train import fit
result = fit(TrainConfig(model="one-layer", kernel=5, epochs=1), load("phantom", "train")[:4])
print(tuple(result.model.layer.weight.shape), len(result.history["loss"]))"""
    assert run("-c", code) == "(4, 1, 5, 5) 1\n"


def test_an_experiment_is_an_entry(run):
    (row,) = json.loads(run("-m", "cmrtrial", "results", "half-rate", "--json"))
    assert row["experiment"] == "half-rate" and row["settings"] == 2
    assert row["runs"] + row["missing"] == 20


def test_a_metric_is_an_entry(run, tmp_path):
    folder = fill(tmp_path) / "val" / "mask"
    said = run("-m", "cmrseg", "evaluate", "--pred", folder, "--truth", folder, "--json")
    assert json.loads(said)["metrics"]["jaccard"] == {"RV": 1, "Myo": 1, "LV": 1}
    code = """
from cmrseg import datasets, record
slices = datasets.load("phantom", "val")[:2]
print("jaccard" in record.image_table(slices.masks, slices))"""
    assert run("-c", code) == "True\n"


def test_no_list_in_a_test_asks_for_a_second_place(run):
    readme = "test_the_readme_names_each_file_of_packages_and_tools_and_all_at_the_top"
    layers = "tests/core/test_models.py::test_every_layer_reaches_the_output[one-layer]"
    second = "tests/trial/test_second_trial.py::test_results_tells_of_the_second_trial_in_a_line_of_its_own"
    names = f"tests/book/test_book.py::{readme}"
    assert "4 passed" in run("-m", "pytest", layers, names, second, "tests/trial/test_golden.py")
