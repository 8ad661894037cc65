"""What lies in weights/ is small enough, whole, and as good as its record says.

Each test fails if one file of weights/ is exchanged for another of its kind, and:

- files: a file is not enlisted; experiments.FINAL_WAYS or SMALL_WAYS is changed after they were delivered
- the card: a digit of its scores
- scores, submissions: two networks change places, or one of five is left out
"""

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from cmrseg import data, ensemble, experiments, metrics, results, rle, runtime

WEIGHTS = REPOSITORY / "weights"
sys.path.insert(0, str(REPOSITORY / "tools"))
import deliver  # noqa: E402


def test_the_files_are_small_enough_listed_and_of_the_chosen_kind():
    files = {path.name: path for path in WEIGHTS.iterdir() if path.suffix in (".safetensors", ".onnx")}
    assert {*files} == {"final.safetensors", "small.safetensors", "small.onnx"} == {*runtime._sums(WEIGHTS)}
    assert sum(path.stat().st_size for path in files.values()) <= 20e6
    for path in files.values():
        runtime.verify(path)
    for planned, count in zip(experiments.EXPERIMENTS["final"], (5, 1)):
        found = ensemble.find(planned.setting)
        assert (found.config, found.ways, len(found.models)) == (planned.config, planned.ways, count)
    assert sum(p.numel() for p in ensemble.find("small").models[0].parameters()) <= 2e6


def test_the_model_card_says_what_the_records_say():
    assert deliver.scores() in deliver.CARD.read_text()


@pytest.mark.parametrize("name", ["final", "small"])
def test_it_scores_what_its_record_says(name, real):
    (planned,) = [p for p in experiments.EXPERIMENTS["final"] if p.setting == name]
    held_out = data.split(real, "val")[1]
    masks = runtime.find(name)(held_out.images)
    found = results.read(planned.path())
    recorded = np.array(found["images"]["dice"], float)
    np.testing.assert_allclose(metrics.dice(masks, held_out.masks), recorded, atol=0.02)  # half precision
    assert metrics.mean(metrics.dice(masks, held_out.masks)) == pytest.approx(found["dice_last"], abs=0.001)


@pytest.mark.parametrize("name", ["final", "small"])
def test_the_submission_is_what_it_says_of_the_test_slices(name, real):
    test = data.load(real, "test")
    submitted = rle.read_submission(results.STORE / f"submission-{name}.csv")
    assert tuple(submitted) == test.names and len(test) == 80
    few = slice(0, 80, 10)
    masks = runtime.find(name)(test.images[few])
    assert (masks == np.stack(list(submitted.values()))[few]).mean() > 0.999


def test_the_small_one_says_the_same_in_both_forms(real):
    images = data.split(real, "val")[1].images
    quick = runtime.from_onnx(WEIGHTS / "small.onnx")(images)
    assert (quick == ensemble.predict(ensemble.find("small"), images)).mean() > 0.999
