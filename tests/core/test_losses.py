"""The losses: values by hand and by plain numpy, gradients against finite differences."""

import math

import numpy as np
import pytest
import torch

from cmrseg import losses
from cmrseg.losses import LOSSES


def batch(n, size=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, 4, size, size, generator=rng),
        torch.randint(4, (n, size, size), generator=rng),
    )


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_loss_of_the_report_by_hand(n):
    """One pixel of each slice; all logits 0 but one, which is log 3 or log 5, of a true class.

    Softmax of (0, 0, 0, log 3) is (1, 1, 1, 3) / 6, and of (log 5, 0, 0, 0) it is (5, 1, 1, 1) / 8.
    With truth class 3, the first slice gives, per class, -log(1 - 1/6 + 0.001) three times and
    -log(3/6 + 0.001); their mean over 4 classes: (3 * 0.181123 + 0.691149) / 4 = 0.308629.
    With truth class 0, the second: (-log(5/8 + 0.001) + 3 * -log(7/8 + 0.001)) / 4
    = (0.468405 + 3 * 0.132389) / 4 = 0.216393. The third is the first again.
    """
    first, second = [0, 0, 0, math.log(3)], [math.log(5), 0, 0, 0]
    logits = torch.tensor([first, second, first])[:n].view(n, 4, 1, 1)
    labels = torch.tensor([3, 0, 3])[:n].view(n, 1, 1)
    by_hand = {1: 0.308629, 2: (0.308629 + 0.216393) / 2, 3: (2 * 0.308629 + 0.216393) / 3}
    assert losses.report_bce(logits, labels).item() == pytest.approx(by_hand[n], abs=2e-6)


def plain(name, logits, labels):
    """The same from the definitions, pixel by pixel."""
    if name == "ce+dice each":
        return np.mean(
            [plain("ce+dice", logits[n : n + 1], labels[n : n + 1]) for n in range(len(labels))]
        )
    logits, labels = logits.double().numpy(), labels.numpy()
    terms, overlap, size = [], np.zeros(4), np.zeros(4)
    for n, y, x in np.ndindex(labels.shape):
        p = np.exp(logits[n, :, y, x]) / np.exp(logits[n, :, y, x]).sum()
        true = labels[n, y, x]
        if name == "report":
            terms += [-np.log(p[c] + 0.001 if c == true else 1 - p[c] + 0.001) for c in range(4)]
        else:
            terms.append(-np.log(p[true]))
        overlap[true] += p[true]
        size += p
        size[true] += 1
    soft_dice = 1 - np.mean([(2 * overlap[c] + 1) / (size[c] + 1) for c in (1, 2, 3)])
    return {"dice": soft_dice, "ce+dice": np.mean(terms) + soft_dice}.get(name, np.mean(terms))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("n", [1, 3])
def test_every_loss_equals_its_definition_in_plain_numpy(name, n):
    logits, labels = batch(n, seed=n)
    loss = LOSSES[name](logits, labels)
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain(name, logits, labels), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name):
    """Central differences of the loss itself; float32 inside, so the step is not small."""
    logits, labels = batch(2, size=3)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(LOSSES[name](logits, labels), logits)
    steps, h = torch.eye(logits.numel()).view(-1, *logits.shape), 1e-2
    with torch.no_grad():
        differences = [
            LOSSES[name](logits + h * d, labels) - LOSSES[name](logits - h * d, labels)
            for d in steps
        ]
    numeric = torch.stack(differences) / (2 * h)
    assert gradient.abs().max() > 1e-2
    torch.testing.assert_close(gradient.flatten(), numeric, atol=5e-5, rtol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_as_the_true_class_wins(name):
    _, labels = batch(2)
    values = [
        LOSSES[name](strength * losses.one_hot(labels, 4), labels).item()
        for strength in (-2, 0, 2, 5, 20)
    ]
    assert values == sorted(values, reverse=True) and values[-1] < 0.02


def test_one_hot_has_a_one_in_the_channel_of_the_class():
    labels = torch.tensor([[[0, 3], [1, 1]]])
    none = [[0, 0], [0, 0]]
    expected = torch.tensor([[[1, 0], [0, 0]], [[0, 0], [1, 1]], none, [[0, 1], [0, 0]]])
    assert torch.equal(losses.one_hot(labels, 4), expected[None].float())


def test_soft_dice_of_slices_without_a_heart_is_finite_and_perfect_when_nothing_is_found():
    labels = torch.zeros(2, 4, 4, dtype=torch.long)
    logits = (50 * losses.one_hot(labels, 4)).requires_grad_()
    loss = losses.soft_dice(logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_give_a_full_precision_loss(name):
    logits, labels = batch(2)
    half = logits.bfloat16()
    loss = LOSSES[name](half, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(LOSSES[name](half.float(), labels).item(), rel=1e-6)
