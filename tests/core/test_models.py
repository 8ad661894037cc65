"""The networks: shapes, counts by hand, and what is particular to each."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cmrseg.config import PRESETS, TrainConfig
from cmrseg.models import MODELS, build, multiply_adds, unet
from cmrseg.models.ning import Ning, Subsample
from cmrseg.models.pixelshuffle_unet import PixelShuffleUNet
from cmrseg.models.report_unet import ReportUNet
from cmrseg.models.residual_unet import Block, ResidualUNet
from cmrseg.models.segnet import SegNet
from cmrseg.models.unet import UNet

SMALL = (4, 6, 8)
CONFIGS = {
    "unet": TrainConfig(channels=SMALL, activation="leaky-relu"),
    "skips after": TrainConfig(channels=SMALL, skips="after", activation="leaky-relu"),
    "report-unet": TrainConfig(model="report-unet", channels=SMALL, windows=2, poolings=2),
    "segnet": TrainConfig(model="segnet", channels=SMALL),
    "alexnet": TrainConfig(model="alexnet", channels=(4, 8, 8, 8, 8, 16)),
    "ning": TrainConfig(model="ning", channels=SMALL),
    "sprint": TrainConfig(model="sprint", channels=SMALL),
    "final": TrainConfig(model="final", channels=SMALL, residual=True),
    "final, strided": TrainConfig(model="final", channels=SMALL, strided=True),
}
CONFIGS["report-unet"] = replace(CONFIGS["report-unet"], skips="before", activation="leaky-relu")
# A network that is not listed above, a new one for instance, is tried as it is by default.
for name in sorted(MODELS.keys() - {config.model for config in CONFIGS.values()}):
    CONFIGS[name] = TrainConfig(model=name)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


# --- all of them ---------------------------------------------------------------------------------


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"'segnet-9'.*unet"):
        build(TrainConfig(model="segnet-9"))


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_have_the_size_that_the_stride_promises_and_no_softmax(name):
    net = build(CONFIGS[name]).eval()
    for height, width in ((2, 3), (3, 1)):
        height, width = height * net.multiple, width * net.multiple
        with torch.no_grad():
            logits = net(torch.randn(2, 1, height, width))
        assert logits.shape == (2, 4, height // net.stride, width // net.stride)
        assert (logits.sum(1) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
def test_every_layer_reaches_the_output(name):
    torch.manual_seed(0)
    net = build(CONFIGS[name])
    side = 4 * net.multiple
    net(torch.randn(2, 1, side, side)).square().sum().backward()
    # A bias before batch norm is without effect; every weight has one.
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, Subsample)
    for part, module in net.named_modules():
        if isinstance(module, layers):
            assert module.weight.grad.abs().max() > 0, part


def test_multiply_adds_by_hand():
    """Nine for each pixel, input and output channel, and one for each in a 1x1 convolution."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    assert multiply_adds(net, (1, 2, 10, 6)) == 60 * (9 * 2 * 4 + 4 * 3)


# --- U-Net, textbook and report ------------------------------------------------------------------


def by_hand(channels, convolutions, first, skips):
    """Weights and biases counted from the description: k x k convolutions with bias, two numbers a
    channel for batch norm, 2x2 or 3x3 transposed convolutions, and a 1x1 head."""

    def block(i, o, k=3):
        return sum(k * k * (i if n == 0 else o) * o + 3 * o for n in range(convolutions))

    pairs = zip((1, *channels), channels)
    down = sum(block(i, o, first if i == 1 else 3) for i, o in pairs)
    ups = list(zip(channels[::-1], channels[-2::-1]))  # (512, 256), (256, 128), ...
    if skips == "before":
        up = sum(4 * c * f + f + block(2 * f, f) for c, f in ups)
        return down + up + 4 * channels[0] + 4
    outs = [f for _, f in ups] + [4]
    ins = [channels[-1]] + [2 * f for _, f in ups]
    return down + sum(block(i, o) + 9 * o * o + o for i, o in zip(ins, outs))


def test_parameters_are_counted_as_described():
    assert parameters(build(PRESETS["report"])) == 12_255_896  # 12.26 million
    for name in ("report", "replica", "modern", "book"):
        c = PRESETS[name]
        expected = by_hand(c.channels, c.convolutions, c.first_kernel or 3, c.skips)
        assert parameters(build(c)) == expected
    paper = (64, 128, 256, 512, 1024)
    assert parameters(UNet(paper)) == by_hand(paper, 2, 3, "before") == 31_042_564


@pytest.mark.parametrize("kind, fewer", [(UNet, 1), (ReportUNet, 0)])
@pytest.mark.parametrize("levels", [2, 4])
@pytest.mark.parametrize("kernel", [1, 5])
def test_multiple_is_the_smallest_size_and_its_multiples_keep_theirs(kind, fewer, levels, kernel):
    net = kind((2,) * levels, kernel=kernel).eval()
    m = net.multiple
    assert m == 2 ** (levels - fewer)
    with torch.no_grad():
        assert net(torch.randn(2, 1, m, m)).shape == (2, 4, m, m)
        with pytest.raises(RuntimeError):
            net(torch.randn(1, 1, 3 * m // 2, 3 * m))


class Fixed(nn.Module):
    """Says the same of every picture."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, _):
        return self.value


@pytest.mark.parametrize("kind, sees", [(UNet, True), (ReportUNet, False)])
def test_only_skips_before_pooling_carry_detail_that_pooling_drops(kind, sees):
    """Change the finest features wherever no pooling window has its maximum: what the pooling hands
    down stays the same, so only a skip at full resolution can tell."""
    torch.manual_seed(0)
    net = kind((4, 8, 8)).eval()
    features = torch.rand(1, 4, 32, 32)
    options = (net.pool.kernel_size, 2, net.pool.padding)
    _, kept = nn.functional.max_pool2d(features, *options, return_indices=True)
    peaks = torch.zeros(1, 4, 32 * 32, dtype=bool).scatter(2, kept.flatten(2), True)
    lower = torch.where(peaks.view_as(features), features, features - 1)
    assert torch.equal(net.pool(features), net.pool(lower))
    answers = []
    for value in (features, lower):
        net.encoder[0] = Fixed(value)
        with torch.no_grad():
            answers.append(net(torch.zeros(1, 1, 32, 32)))
    assert torch.equal(*answers) != sees


@pytest.mark.parametrize("name, kind", unet.ACTIVATIONS.items())
def test_every_field_of_the_configuration_is_seen_in_the_network(name, kind):
    sizes = {"convolutions": 3, "kernel": 5, "first_kernel": 7}
    config = TrainConfig(channels=(4, 8), activation=name, dropout=0.25, **sizes)
    layers = list(build(config).modules())
    kinds = [type(m) for m in layers]
    assert kinds.count(kind) == 9 and kinds.count(nn.BatchNorm2d) == 9  # three blocks of three
    assert [m.p for m in layers if isinstance(m, nn.Dropout)] == [0.25] * 9
    kernels = [m.kernel_size[0] for m in layers if isinstance(m, nn.Conv2d)]
    assert kernels == [7] * 3 + [5] * 6 + [1]
    assert not any(isinstance(m, nn.Dropout) for m in build(replace(config, dropout=0)).modules())


@pytest.mark.parametrize(
    "kind, wrong",
    [
        (UNet, {"activation": "swish"}),
        (UNet, {"dropout": 2.0}),
        (ReportUNet, {"skips": "none"}),
        (ReportUNet, {"windows": 4}),
        (ReportUNet, {"poolings": 3}),
    ],
)
def test_an_unknown_choice_is_refused(kind, wrong):
    with pytest.raises((ValueError, KeyError), match=next(iter(wrong))):
        kind((4, 8), **wrong)


# --- squares of pixels as channels ---------------------------------------------------------------


@pytest.mark.parametrize("square", [2, 4])
def test_a_pixel_that_goes_in_with_its_square_comes_out_at_its_place(square):
    net, x = PixelShuffleUNet((2, 4), square=square), torch.randn(2, 1, 16, 24)
    assert net(x).shape == (2, 4, 16, 24) and net.multiple == 2 * square
    net.net = nn.Identity()
    net.net.forward = lambda x: x.repeat(1, 4, 1, 1)  # each class gets the channels that came in
    assert torch.equal(net(x), x.expand(2, 4, 16, 24))


# --- the networks that the report compared -------------------------------------------------------


def test_segnet_puts_each_value_back_where_it_came_from():
    net = SegNet((4, 4))
    assert (
        sum(isinstance(m, nn.Conv2d) for m in SegNet((8,) * 5).encoder.modules()) == 13
    )  # VGG16's
    for block in (*net.encoder, *net.decoder):  # blocks do nothing
        block.register_forward_hook(lambda _, x, out: x[0].expand(-1, 4, -1, -1))
    net.head = nn.Identity()
    x = torch.rand(1, 1, 16, 16)
    back = net(x)[:, :1]
    assert torch.equal(back[back > 0], x[back > 0])
    largest = nn.functional.max_pool2d(x, 4)
    assert sorted(back[back > 0].tolist()) == sorted(largest.flatten().tolist())


def test_ning_subsamples_by_a_bounded_average():
    x = torch.full((1, 2, 4, 4), 100.0)
    assert Subsample(2)(x).shape == (1, 2, 2, 2) and (Subsample(2)(x).abs() <= 1).all()
    assert parameters(Ning()) < 20_000


# --- the network of the best model ---------------------------------------------------------------


def test_supervised_levels_come_fine_to_coarse_in_training_only():
    net = ResidualUNet(SMALL, deep=1).train()
    fine, half = net(torch.randn(2, 1, 16, 16))
    assert fine.shape == (2, 4, 16, 16) and half.shape == (2, 4, 8, 8)
    assert net.multiple == 4 and not isinstance(ResidualUNet(SMALL, strided=True).first, Block)
    assert net.eval()(torch.randn(2, 1, 16, 16)).shape == (2, 4, 16, 16)


@pytest.mark.parametrize("inputs, stride, kept", [(4, 1, True), (4, 2, False), (3, 1, False)])
def test_a_block_that_adds_nothing_passes_its_input_on(inputs, stride, kept):
    block = Block(inputs, 4, stride).eval()
    nn.init.zeros_(block.path[-1].weight)  # the path now adds nothing
    x = torch.rand(2, inputs, 8, 8)
    assert (len(block.shortcut) == 0) is kept
    y = block(x)
    assert y.shape == (2, 4, 8 // stride, 8 // stride) and y.abs().sum() > 0
    assert torch.equal(y, x) is kept
    assert Block(inputs, 4, stride, residual=False).shortcut is None


def test_a_shortcut_of_few_channels_learns_as_a_strided_convolution_should():
    """In channels-last memory, where oneDNN's own has overrun its memory."""
    last = torch.channels_last
    block, x, outputs = Block(4, 8, 2), torch.randn(4, 4, 96, 96), []
    shortcut, strided = block.shortcut[0], nn.Conv2d(4, 8, 1, 2, bias=False)
    strided.load_state_dict(shortcut.state_dict())
    expected = strided(x)
    (expected**2).sum().backward()
    shortcut.register_forward_hook(lambda _, __, out: outputs.append(out))
    for _ in range(20):
        shortcut.weight.grad = None
        block.to(memory_format=last)(x.contiguous(memory_format=last))
        (outputs[-1] ** 2).sum().backward()
        torch.testing.assert_close(outputs[-1], expected, rtol=1e-4, atol=1e-5)
        gradients = shortcut.weight.grad, strided.weight.grad
        torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-2)


def test_the_finest_skip_carries_what_the_poolings_lose():
    torch.manual_seed(0)
    net, x = ResidualUNet(SMALL).eval(), torch.randn(1, 1, 16, 16)
    nn.init.zeros_(net.up[-1].weight)
    nn.init.zeros_(net.up[-1].bias)  # nothing comes from below
    assert (net(x + torch.eye(16)) - net(x)).abs().sum() > 0
