"""The network of the best model, and what its training adds: averaging, deep supervision.

Each group fails after any of these one-line changes:

- shapes: in final.py, ``levels.insert(0, x)`` -> ``levels.append(x)``; ``2 ** (len(channels) - 1)`` ->
  ``2 ** len(channels)``
- shortcuts: ``y + self.shortcut(...)`` -> ``y``; ``if same`` -> ``if True``; ``[..., :: self.stride, :: self.stride]`` dropped,
  or put into the convolution (with AVX-512)
- skips: ``skips.pop(), up(x)`` -> ``0 * skips.pop(), up(x)``
- strided: ``thin(1) if strided`` -> ``thin(1) if False``
- deep supervision: in training._loss(), ``0.5**n`` -> ``1``, ``/ sum(weights)`` dropped, or ``2**n`` -> ``1``
- averaging: in training._follow(), ``1 - min(...)`` -> ``min(...)``, or ``kept.copy_(new)`` -> ``pass``;
  in _checkpoint(), drop the averaged tensors
- beginning: in training.fit(), drop ``model.load_state_dict(start...)``, or the check before it
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from cmrseg import data, training
from cmrseg.losses import LOSSES
from cmrseg.models import build
from cmrseg.models.final import Block, FinalUNet
from cmrseg.training import TrainConfig, fit

SMALL = (4, 6, 8)


@pytest.fixture
def final(tiny):
    return replace(tiny, model="final", channels=SMALL, residual=True)


@pytest.mark.parametrize("options", [{}, {"strided": True}, {"residual": False}, {"deep": 2}])
def test_logits_have_the_size_of_the_slice_whatever_is_switched_on(options):
    net = FinalUNet(SMALL, **options).eval()
    assert net.multiple == 4
    assert net(torch.randn(2, 1, 12, 20)).shape == (2, 4, 12, 20)


def test_supervised_levels_come_fine_to_coarse_in_training_only():
    net = FinalUNet(SMALL, deep=1).train()
    fine, half = net(torch.randn(2, 1, 16, 16))
    assert fine.shape == (2, 4, 16, 16) and half.shape == (2, 4, 8, 8)
    net.eval()
    assert net(torch.randn(2, 1, 16, 16)).shape == (2, 4, 16, 16)


@pytest.mark.parametrize(("inputs", "stride", "kept"), [(4, 1, True), (4, 2, False), (3, 1, False)])
def test_a_block_that_adds_nothing_passes_its_input_on(inputs, stride, kept):
    block = Block(inputs, 4, stride).eval()
    nn.init.zeros_(block.path[-1].weight)  # the path now adds nothing
    x = torch.rand(2, inputs, 8, 8)
    assert isinstance(block.shortcut, nn.Identity) is kept
    y = block(x)
    assert y.shape == (2, 4, 8 // stride, 8 // stride) and y.abs().sum() > 0
    assert torch.equal(y, x) is kept


def test_a_shortcut_of_few_channels_learns_as_a_strided_convolution_should():
    """In channels-last memory, where oneDNN's own has overrun its memory."""
    block, x = Block(4, 8, 2), torch.randn(4, 4, 96, 96)
    shortcut, strided = block.shortcut[0], nn.Conv2d(4, 8, 1, 2, bias=False)
    strided.load_state_dict(shortcut.state_dict())
    expected = strided(x)
    (expected**2).sum().backward()
    seen = []
    shortcut.register_forward_hook(lambda _, __, out: seen.append(out))
    for _ in range(20):
        shortcut.weight.grad = None
        block.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        (seen[-1] ** 2).sum().backward()
        torch.testing.assert_close(seen[-1], expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(shortcut.weight.grad, strided.weight.grad, rtol=1e-3, atol=1e-2)


def test_without_residual_there_are_no_shortcuts():
    assert not any(isinstance(m, Block) and m.shortcut is not None
                   for m in FinalUNet(SMALL, residual=False).modules())


def test_the_finest_skip_carries_what_the_poolings_lose():
    torch.manual_seed(0)
    net = FinalUNet(SMALL).eval()
    x = torch.randn(1, 1, 16, 16)
    silenced = FinalUNet(SMALL).eval()
    silenced.load_state_dict(net.state_dict())
    nn.init.zeros_(silenced.up[-1].weight)
    nn.init.zeros_(silenced.up[-1].bias)  # nothing comes from below
    moved = silenced(x + torch.eye(16)) - silenced(x)
    assert moved.abs().sum() > 0


def test_a_strided_network_does_less_at_full_resolution():
    plain, strided = (FinalUNet(SMALL, strided=s) for s in (False, True))
    assert isinstance(plain.first, Block) and isinstance(strided.first, nn.Sequential)
    assert sum(p.numel() for p in strided.parameters()) < sum(p.numel() for p in plain.parameters())


def test_the_loss_of_several_levels_is_their_weighted_mean():
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (2, 8, 8)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    fine, half = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)
    loss = LOSSES["ce+dice"]
    expected = (loss(fine, labels) + 0.5 * loss(half, labels[:, ::2, ::2])) / 1.5
    torch.testing.assert_close(training._loss(loss, [fine, half], labels, 1), expected)


def test_an_average_of_unmoving_weights_is_those_weights_and_counters_are_copied():
    model, average = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.constant_(model.weight, 5.0)
    model.num_batches_tracked += 7
    training._follow(average, model, 0.9, 0)
    torch.testing.assert_close(average.weight, torch.full((3,), 1 + 0.9 * 4.0))  # at first nearly all is new
    assert average.num_batches_tracked == 7
    training._follow(average, model, 0.9, 10_000)
    torch.testing.assert_close(average.weight, torch.full((3,), 4.6 + 0.1 * 0.4))


def test_an_averaged_network_is_another_and_trains_the_same(final, root):
    train, held_out = data.split(root, "val")
    plain, averaged = (fit(replace(final, ema=e), train, held_out, precision="fp32") for e in (0.0, 0.9))
    assert plain.history["loss"] == averaged.history["loss"]
    assert plain.history["dice"] != averaged.history["dice"]


def test_an_averaged_run_resumes_bit_for_bit(final, root, tmp_path):
    config = replace(final, ema=0.9, deep=1, epochs=4)
    train, held_out = data.split(root, "val")
    whole = fit(config, train, held_out, precision="fp32")

    class StopError(Exception):
        pass

    def stop(history):
        if len(history["epoch"]) == 2:
            raise StopError

    with pytest.raises(StopError):
        fit(config, train, held_out, out=tmp_path, precision="fp32", progress=stop)
    resumed = fit(config, train, held_out, out=tmp_path, resume=True, precision="fp32")
    assert resumed.history["loss"] == whole.history["loss"]
    for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values()):
        assert torch.equal(a, b)


def test_build_hands_the_fields_on():
    net = build(TrainConfig(model="final", channels=SMALL, residual=False, strided=True, deep=1))
    assert isinstance(net.first, nn.Sequential) and net.deep == 1 and len(net.heads) == 2


# --- beginning with a trained network ------------------------------------------------------------


def test_a_training_may_begin_with_a_trained_network(tiny, root):
    slices, _ = data.split(str(root), "val")
    begun = replace(tiny, start="phantoms", lr=0.0, weight_decay=0.0, epochs=1)
    first = fit(replace(tiny, seed=7), slices, precision="fp32").model
    before = [p.clone() for p in first.parameters()]
    model = fit(begun, slices, precision="fp32", start=first).model
    assert model is not first
    for p, q in zip(before, model.parameters()):
        assert torch.equal(p, q)
    assert begun.key("val", "x") != replace(begun, start="").key("val", "x")


def test_what_a_training_begins_with_is_said_in_its_configuration(tiny, root):
    slices, _ = data.split(str(root), "val")
    with pytest.raises(ValueError, match="no network to begin with"):
        fit(replace(tiny, start="phantoms"), slices)
    with pytest.raises(ValueError, match="a network to begin with"):
        fit(tiny, slices, start=build(tiny))
