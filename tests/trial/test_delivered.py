"""What lies in weights/ is small enough, whole, and as good as its record says."""

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from cmrseg import datasets, metrics, rle
from cmrseg.deploy import weights
from cmrseg.models import build
from cmrseg.record import read_record
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.records import STORE

sys.path.insert(0, str(REPOSITORY / "tools"))
import deliver

WEIGHTS = REPOSITORY / "weights"


def test_the_files_are_small_enough_listed_and_of_the_chosen_kind():
    kinds = (".safetensors", ".onnx")
    files = {path.name: path for path in WEIGHTS.iterdir() if path.suffix in kinds}
    sums = (WEIGHTS / weights.SUMS).read_text(encoding="utf-8")
    listed = {line.split()[1] for line in sums.splitlines()}
    assert {*files} == {"final.safetensors", "small.safetensors", "small.onnx"} == listed
    assert sum(path.stat().st_size for path in files.values()) <= 20e6
    for path in files.values():
        weights.verify(path)
    for spec, count in zip(EXPERIMENTS["final"], (5, 1)):
        ensemble = weights.find_ensemble(spec.setting)
        assert (ensemble.scale, ensemble.tta) == (spec.config.scale, spec.tta)
        shapes = [{n: t.shape for n, t in m.state_dict().items()} for m in ensemble.models]
        planned = {n: t.shape for n, t in build(spec.config).state_dict().items()}
        assert shapes == [planned] * count
    (small,) = weights.find_ensemble("small").models
    assert sum(p.numel() for p in small.parameters()) <= 2e6


def test_the_model_card_says_what_the_records_say():
    assert deliver.scores() in deliver.CARD.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "step"), [("final", 5), ("small", 1), pytest.param("final", 1, marks=pytest.mark.slow)]
)
def test_it_scores_what_its_record_says_and_the_submission_is_its_own(name, step, real):
    """On every fifth slice only where five networks look in six ways."""
    (spec,) = [s for s in EXPERIMENTS["final"] if s.setting == name]
    held_out, find = datasets.load(real, "val")[::step], weights.find(name)
    dice = metrics.dice(find(held_out.images), held_out.masks)
    recorded = np.array(read_record(spec.path())["images"]["dice"], float)[::step]
    np.testing.assert_allclose(dice, recorded, atol=0.02)  # half precision
    assert metrics.mean(dice) == pytest.approx(metrics.mean(recorded), abs=0.002)
    test, few = datasets.load(real, "test"), slice(0, 80, 10 * step)
    submitted = rle.read_submission(STORE / f"submission-{name}.csv")
    assert tuple(submitted) == test.names and len(test) == 80
    masks = find(test.images[few])
    assert (masks == np.stack(list(submitted.values()))[few]).mean() > 0.999
