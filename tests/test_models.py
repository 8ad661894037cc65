"""The U-Net, textbook and report.

Each group fails after any of these one-line changes of ``cmrseg/models/unet.py``:

- counts: ``first_kernel or kernel if level == 0 else kernel`` -> ``kernel``; ``block(2 * f, f)`` ->
  ``block(2 * f, f, 1)``
- shapes: ``padding=kernel // 2`` -> ``padding=1``; ``self.multiple = 2 ** len(channels)`` -> ``2 **
  (len(channels) - 1)``
- what the skips carry: in _textbook(), ``skips.append(x)`` after the pooling, enlarged again; or
  ``up(x)`` -> ``0 * up(x)``
- fields: ``ACTIVATIONS[activation]()`` -> ``nn.ReLU()``; drop ``if dropout else []``;
  ``nn.Dropout(dropout)`` -> ``nn.Identity()``
- multiply-adds, in ``models/__init__.py``: ``// 2`` dropped; ``torch.zeros(shape)`` -> ``torch.zeros(1, 1, 8, 8)``
- refused: ``raise ValueError(f"skips=...`` -> ``print(...``
- squares, in ``models/sprint.py``: ``pixel_shuffle(`` -> ``F.interpolate(`` of every fourth channel, or without
  ``square *`` in ``multiple``
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cmrseg.models import build, multiply_adds, unet
from cmrseg.models.report_unet import ReportUNet
from cmrseg.models.sprint import SprintUNet
from cmrseg.models.unet import UNet
from cmrseg.training import PRESETS, TrainConfig


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def by_hand(channels, convolutions, first, skips):
    """Weights and biases counted from the description: k x k convolutions with bias, two numbers a
    channel for batch norm, 2x2 or 3x3 transposed convolutions, and a 1x1 head."""
    def block(i, o, k=3):
        return sum(k * k * (i if n == 0 else o) * o + 3 * o for n in range(convolutions))

    down = sum(block(i, o, first if i == 1 else 3) for i, o in zip((1, *channels), channels))
    ups = list(zip(channels[::-1], channels[-2::-1]))  # (512, 256), (256, 128), ...
    if skips == "before":
        up = sum(4 * c * f + f + block(2 * f, f) for c, f in ups)
        return down + up + 4 * channels[0] + 4
    outs = [f for _, f in ups] + [4]
    ins = [channels[-1]] + [2 * f for _, f in ups]
    return down + sum(block(i, o) + 9 * o * o + o for i, o in zip(ins, outs))


def test_the_network_of_the_report_has_its_12_26_million_parameters():
    count = parameters(build(PRESETS["report"]))
    assert count == 12_255_896 == by_hand((32, 64, 128, 256, 512), 3, 7, "after")


def test_the_textbook_network_has_its_31_million_parameters():
    count = parameters(UNet((64, 128, 256, 512, 1024)))
    assert round(count / 1e6, 2) == 31.04
    assert count == by_hand((64, 128, 256, 512, 1024), 2, 3, "before")


@pytest.mark.parametrize("name", ["replica", "modern", "book"])
def test_the_other_presets_count_as_described(name):
    c = PRESETS[name]
    assert parameters(build(c)) == by_hand(c.channels, c.convolutions, c.first_kernel or 3, c.skips)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_maps_a_slice_to_logits_of_its_full_size(name):
    model = build(PRESETS[name]).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 1, 96, 96))
    assert logits.shape == (1, 4, 96, 96) and model.stride == 1
    assert (logits.sum(1) - 1).abs().max() > 1e-3  # no softmax inside


@pytest.mark.parametrize("skips", ["before", "after"])
@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_multiple_is_the_smallest_size_and_its_multiples_keep_theirs(skips, levels, kernel):
    model = UNet((2,) * levels, kernel=kernel, skips=skips).eval()
    m = model.multiple
    assert m == 2 ** (levels - 1 if skips == "before" else levels)
    with torch.no_grad():
        for height, width in ((m, m), (3 * m, 2 * m)):
            assert model(torch.randn(2, 1, height, width)).shape == (2, 4, height, width)
        with pytest.raises(RuntimeError):
            model(torch.randn(1, 1, 3 * m // 2, 3 * m))


@pytest.mark.parametrize("skips, sees", [("before", True), ("after", False)])
def test_only_skips_before_pooling_carry_detail_that_pooling_drops(skips, sees):
    """Change the finest features wherever no pooling window has its maximum: what the pooling hands
    down stays the same, so only a skip at full resolution can tell."""
    torch.manual_seed(0)
    model = UNet((4, 8, 8), skips=skips).eval()
    features = torch.rand(1, 4, 32, 32)
    _, kept = nn.functional.max_pool2d(features, model.pool.kernel_size, 2, model.pool.padding,
                                       return_indices=True)
    peaks = torch.zeros(1, 4, 32 * 32, dtype=bool).scatter(2, kept.flatten(2), True)
    lower = torch.where(peaks.view_as(features), features, features - 1)
    assert torch.equal(model.pool(features), model.pool(lower)) and not torch.equal(features, lower)

    class Fixed(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, _):
            return self.value

    with torch.no_grad():
        answers = []
        for value in (features, lower):
            model.encoder[0] = Fixed(value)
            answers.append(model(torch.zeros(1, 1, 32, 32)))
    assert torch.equal(*answers) != sees


@pytest.mark.parametrize("skips", ["before", "after"])
def test_every_level_reaches_the_output(skips):
    torch.manual_seed(0)
    model = UNet((4, 8, 16, 16), activation="leaky-relu", skips=skips)
    model(torch.randn(2, 1, 32, 32)).square().sum().backward()
    # A bias before batch norm is without effect; every other parameter has one.
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            assert module.weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("name, kind", unet.ACTIVATIONS.items())
def test_every_field_of_the_configuration_is_seen_in_the_network(name, kind):
    config = TrainConfig(channels=(4, 8), convolutions=3, kernel=5, first_kernel=7, activation=name,
                         dropout=0.25)
    layers = list(build(config).modules())
    kinds = [type(m) for m in layers]
    assert kinds.count(kind) == 9 and kinds.count(nn.BatchNorm2d) == 9  # three blocks of three
    assert [m.p for m in layers if isinstance(m, nn.Dropout)] == [0.25] * 9
    sizes = [m.kernel_size[0] for m in layers if isinstance(m, nn.Conv2d)]
    assert sizes == [7] * 3 + [5] * 6 + [1]
    assert not any(isinstance(m, nn.Dropout) for m in build(replace(config, dropout=0)).modules())


def test_dropout_is_off_when_the_network_is_applied():
    model = UNet((4, 8), dropout=0.5)
    x = torch.randn(2, 1, 8, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("wrong", [{"skips": "none"}, {"activation": "swish"}, {"dropout": 2.0}])
def test_an_unknown_choice_is_refused(wrong):
    with pytest.raises((ValueError, KeyError), match=next(iter(wrong))):
        UNet((4, 8), **wrong)


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match="'segnet-9'"):
        build(TrainConfig(model="segnet-9"))


def test_multiply_adds_by_hand():
    """Nine for each pixel, input and output channel, and one for each in a 1x1 convolution."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    assert multiply_adds(net, (1, 2, 10, 6)) == 60 * (9 * 2 * 4 + 4 * 3)


# --- squares of pixels as channels ----------------------------------------------------------------


class Copies(nn.Module):
    """Gives each class the channels that came in."""

    def forward(self, x):
        return x.repeat(1, 4, 1, 1)


@pytest.mark.parametrize("square", [2, 4])
def test_a_pixel_that_goes_in_with_its_square_comes_out_at_its_place(square):
    net, x = SprintUNet((2, 4), square=square), torch.randn(2, 1, 16, 24)
    assert net(x).shape == (2, 4, 16, 24) and net.multiple == 2 * square
    net.net = Copies()
    assert torch.equal(net(x), x.expand(2, 4, 16, 24))


def test_squares_cost_a_quarter():
    plain, squares = UNet((8, 16, 32), 1), SprintUNet((8, 16, 32), 1)
    assert multiply_adds(squares) < 0.3 * multiply_adds(plain)
    assert isinstance(build(TrainConfig(model="sprint", channels=(2, 4))), SprintUNet)


def test_the_reports_unet_is_the_same_in_both_files():
    for widths, first in (((2, 4, 8), None), ((2, 4, 8, 8), 7)):
        nets = []
        for made in (lambda: UNet(widths, skips="after", first_kernel=first), lambda: ReportUNet(widths, first_kernel=first)):
            torch.manual_seed(0)
            nets.append(made().train())
        x = torch.randn(2, 1, 32, 32)
        assert torch.equal(nets[0](x), nets[1](x))


@pytest.mark.parametrize("wrong", [{"skips": "before"}, {"windows": 4}, {"poolings": 1}, {"skips": "beside"}], ids=str)
def test_a_parted_network_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError):
        ReportUNet((2, 4, 8), **wrong)
