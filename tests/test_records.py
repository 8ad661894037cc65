"""Committed records, computed again: the same configuration gives what the record says.

Slow (some minutes) and on the real slices. The test fails when a record's config is changed by hand (its
key no longer fits, or its Dice is another's) or when training is not what it was: in
training._train_epoch(), ``optimiser.step()`` -> ``pass``.
"""

import random

import pytest
import torch

from cmrseg import comparisons, data, experiments, results
from cmrseg.training import TrainConfig, fit


def recorded():
    """Every planned run of the replica and the modern recipe with a record, once each."""
    found = {}
    for plan in experiments.EXPERIMENTS.values():
        for planned in plan:
            path = planned.path()
            plain = planned.ways is None and not planned.config.start and planned.config.epochs <= 100
            if planned.protocol in ("replica", "modern") and plain and path.is_file():
                found[path.stem] = planned
    return found


def test_every_record_is_filed_under_its_configuration():
    for key, planned in recorded().items():
        found = results.read(planned.path())
        config = TrainConfig.from_dict(found["config"])
        assert config == planned.config
        assert found["key"] == key == config.key(found["split"], found["fingerprint"])


@pytest.mark.slow
def test_three_records_come_out_again(real):
    torch.set_num_threads(1)
    runs = recorded()
    for key in random.sample(sorted(runs), 3):
        planned, found = runs[key], results.read(runs[key].path())
        train, held_out = data.split(str(real), planned.split)
        run = fit(planned.config, train, held_out, precision="fp32")
        again = results.record(run, train, held_out, planned.split, experiments.ACDC96, planned.protocol)
        spread = comparisons.run_variance(planned.protocol, model=planned.config.model)[0] ** 0.5
        print(f"{planned.protocol}/{key} {planned.setting}: recorded {found['dice_last']:.5f}, "
              f"again {again['dice_last']:.5f}; seeds differ by {spread:.4f}")
        assert again["key"] == key
        assert abs(again["dice_last"] - found["dice_last"]) <= 3 * spread
