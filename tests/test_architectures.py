"""The three networks that the report compared with its U-Net.

What makes each test fail (each was seen to fail):

- shapes: `stride = 4` -> `stride = 2` in ning.py
- VGG: `2 if level < 2 else 3` -> `2` in segnet.py
- indices: `won.pop()` -> `won.pop(0)` in segnet.py
- blocks of 16: `stride=16` -> `stride=8` in alexnet.py
- majority: `.argmax(1)` -> `.argmin(1)` in training._shrink
- tanh: drop the torch.tanh of Subsample in ning.py
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cmrseg.models import build
from cmrseg.models.alexnet import AlexNet
from cmrseg.models.ning import Ning, Subsample
from cmrseg.models.segnet import SegNet
from cmrseg.training import TrainConfig, _shrink

CONFIGS = {
    "segnet": TrainConfig(model="segnet", channels=(4, 8, 8)),
    "alexnet": TrainConfig(model="alexnet", channels=(4, 8, 8, 8, 8, 16), dropout=0.5),
    "ning": TrainConfig(model="ning", channels=(6, 16, 40)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_have_the_size_that_the_stride_promises(name):
    net = build(CONFIGS[name])
    size = 3 * net.multiple
    assert net(torch.rand(2, 1, size, size)).shape == (2, 4, size // net.stride, size // net.stride)


def test_segnet_has_the_thirteen_convolutions_of_vgg16():
    convolutions = [m for m in SegNet((8, 8, 8, 8, 8)).encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13


def test_segnet_puts_each_value_back_where_it_came_from():
    net = SegNet((4, 4))
    for i, block in enumerate([*net.encoder, *net.decoder]):
        block.register_forward_hook(lambda _, x, out, i=i: x[0].expand(-1, 4, -1, -1))  # blocks do nothing
    net.head = nn.Identity()
    x = torch.rand(1, 1, 16, 16)
    back = net(x)[:, :1]
    assert torch.equal(back[back > 0], x[back > 0])
    largest = torch.nn.functional.max_pool2d(x, 4)
    assert sorted(back[back > 0].tolist()) == sorted(largest.flatten().tolist())


def test_alexnet_decides_on_a_grid_of_sixteen_pixels():
    net = AlexNet((4, 4, 4, 4, 4, 8)).eval()
    seen = {}
    net.classifier.register_forward_hook(lambda _, __, out: seen.update(grid=out.shape))
    net(torch.rand(1, 1, 96, 96))
    assert seen["grid"] == (1, 4, 6, 6)


def test_a_coarse_network_learns_the_majority_of_each_square():
    labels = torch.zeros(1, 4, 8, dtype=torch.int64)
    labels[0, :, 4:] = 3
    labels[0, 0, :] = 2  # a row of four in each square: a minority
    assert _shrink(labels, 4).tolist() == [[[0, 3]]]


def test_ning_subsamples_by_a_bounded_average():
    x = torch.full((1, 2, 4, 4), 100.0)
    assert Subsample(2)(x).shape == (1, 2, 2, 2) and (Subsample(2)(x).abs() <= 1).all()
    assert sum(p.numel() for p in Ning().parameters()) < 20_000
