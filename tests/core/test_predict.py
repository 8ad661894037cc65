"""Predicting: padding, coarse networks, ensembles, views, and post-processing."""

import math

import numpy as np
import pytest
import torch
from conftest import heart
from torch import nn

from cmrseg import predict
from cmrseg.augment import normalise
from cmrseg.config import TrainConfig
from cmrseg.models import build
from cmrseg.postprocess import keep_largest_components, to_labels
from cmrseg.predict import TTA, Ensemble, probabilities, rotate


class Fixed(nn.Module):
    """The same logits for every pixel and image."""

    multiple = stride = 1

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.view(1, 4, 1, 1).expand(len(x), 4, *x.shape[2:])


class Pixelwise(nn.Module):
    """Class 3 where it is bright, else background; it keeps what it sees."""

    multiple = stride = 1

    def __init__(self):
        super().__init__()
        self.seen, self.unused = [], nn.Parameter(torch.zeros(1))  # a network has parameters

    def forward(self, x):
        self.seen.append(x.clone())
        return torch.cat([-4 * x, 0 * x - 50, 0 * x - 50, 4 * x], 1)


class Coarse(nn.Module):
    """A network of stride 4 whose logits are those of the mean grey level, class by class."""

    stride, multiple = 4, 8

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([0.0, 80, 160, 240]))

    def forward(self, x):
        grey = nn.functional.avg_pool2d(x, 4)
        return -((grey - self.levels.view(1, 4, 1, 1)) ** 2)


def images(count=3, size=32):
    return np.stack([heart(n, size)[0] for n in range(1, count + 1)])


def blob(height=40, width=40, y=12, x=24):
    """A smooth bright spot away from the middle, as images uint8 (1, H, W)."""
    rows, columns = np.mgrid[:height, :width]
    return (250 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 40)).astype(np.uint8)[None]


# --- one network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("skips", ["before", "after"])
@pytest.mark.parametrize("size", [(7, 13), (1, 5), (32, 32)])
def test_slices_of_any_size_are_padded_and_cropped_again(size, skips):
    model = build(TrainConfig(channels=(2, 4, 4), skips=skips))
    pictures = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    p = probabilities(model, pictures)
    assert p.shape == (3, 4, *size) and p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    labels = predict.predict(model, pictures)
    assert labels.dtype == np.uint8 and (labels == p.argmax(1)).all()


def test_a_prediction_does_not_depend_on_the_other_slices():
    model = build(TrainConfig(channels=(4, 8))).train()
    together = probabilities(model, images(5), batch=4)
    alone = probabilities(model, images(5), batch=1)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert not model.training


def test_a_coarse_output_is_enlarged_to_full_size():
    labels = np.random.default_rng(0).integers(0, 4, (2, 3, 5))
    pictures = (80 * labels.repeat(4, 1).repeat(4, 2)).astype(np.uint8)
    np.testing.assert_array_equal(predict.predict(Coarse(), pictures, "raw"), pictures // 80)


# --- several networks, several views -------------------------------------------------------------


def test_several_networks_are_averaged_as_probabilities():
    nets = [Fixed(9.0, 0.0, 0.0, 0.0), Fixed(0.0, 9.0, 0.0, 0.0), Fixed(0.0, 9.0, 0.0, 0.0)]
    expected = np.mean([torch.softmax(n.logits, 0).detach().numpy() for n in nets], axis=0)
    p = Ensemble(nets).probabilities(images(5), batch=2)
    np.testing.assert_allclose(p[0, :, 5, 5], expected, rtol=1e-6)
    assert len(p) == 5 and Ensemble(nets).predict(images(1)).max() == 1


@pytest.mark.parametrize("tta", [TTA((-20.0, 0.0, 20.0)), TTA(flip=True), TTA((15.0,), flip=True)])
def test_an_answer_that_follows_the_picture_is_the_same_from_every_view(tta):
    once = Ensemble([Pixelwise()]).probabilities(blob())
    views = Ensemble([Pixelwise()], tta=tta).probabilities(blob())
    assert once[0, 3].max() > 0.9
    assert np.abs(views - once)[..., 6:-6, 6:-6].max() < 0.08
    np.testing.assert_allclose(views.sum(1), 1, rtol=1e-5)


def test_a_network_sees_the_mirrored_picture_and_one_normalised_before_it_is_turned():
    """What a turn brings in from outside must not change the scale of what is inside."""
    net = Pixelwise()
    Ensemble([net], tta=TTA((30.0,), flip=True)).probabilities(images(1))
    x = normalise(images(1))
    torch.testing.assert_close(net.seen, [rotate(x, 30.0), rotate(x.flip(-1), 30.0)])


def test_a_turn_goes_against_the_clock_and_does_not_stretch():
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 28] = 1  # eight right of the middle
    assert rotate(x, 90.0)[0, 0, 2, 20] > 0.99  # eight above
    assert rotate(x, 0.0) is x


def test_views_keep_the_names_and_keys_of_the_records():
    tta = TTA((-10.0, 0.0, 10.0), True, True)
    record = {"turns": (-10.0, 0.0, 10.0), "mirror": True, "clean": True}
    assert tta.to_record() == record and TTA.from_record(record | {"seeds": [1]}) == tta
    assert tta.key("7a5d3f7e9eaf28d9", (0, 1)) == "5bb1783bd0fdccf8"


@pytest.mark.parametrize(
    "change",
    [
        {"turns": "abc"},
        {"turns": []},
        {"turns": [0.0, math.inf]},
        {"turns": [math.nan]},
        {"turns": [10**400]},
        {"mirror": "no"},
        {"clean": 1},
    ],
    ids=lambda change: str(change)[:30],
)
def test_views_that_are_none_are_refused(change):
    with pytest.raises((ValueError, TypeError)):
        TTA.from_record(TTA().to_record() | change)


# --- post-processing -----------------------------------------------------------------------------


def drawn(picture):
    return np.array(
        [[int(c) for c in line.replace(".", "0")] for line in picture.split()], np.uint8
    )


@pytest.mark.parametrize(
    "before, after",
    [
        ("11..1 11... ....1", "11... 11... ....."),  # islands of one class
        ("1...2 ..... 2...1", "1...2 ..... ....."),  # of pieces as large, the upper ones stay
        ("2222.3 2332.. 2222.3", "2222.. 2332.. 2222.."),  # of the cavity
        ("2222. 2.32. 2222.", "2222. 2332. 2222."),  # a hole in the ring
        ("222.. 2.3.. 223..", "222.. 233.. 223.."),  # wall and cavity enclose it together
        ("2222. 2.... 2222.", "2222. 2.... 2222."),  # open: nothing is enclosed
        (".22.. 2332. .22.2", ".22.. 2332. .22.2"),  # a thin wall goes on over a corner
        ("22222.. 21.32.1 22222.1", "22222.. 23332.1 22222.1"),  # RV inside the ring gives way
        ("..... ..... .....", "..... ..... ....."),
    ],
)
def test_one_piece_of_each_class_and_no_hole(before, after):
    np.testing.assert_array_equal(keep_largest_components(drawn(before)), drawn(after))


def test_post_processing_is_done_only_where_it_is_asked_for():
    probability = np.eye(4, dtype=np.float32)[[[[1, 1, 0, 1, 0]]]].transpose(0, 3, 1, 2)
    assert to_labels(probability, False).tolist() == [[[1, 1, 0, 1, 0]]]
    assert to_labels(probability, True).tolist() == [[[1, 1, 0, 0, 0]]]
