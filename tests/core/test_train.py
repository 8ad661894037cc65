"""Training: the configuration and its key, the loop, and that it repeats."""

import inspect
import json
import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from conftest import files_in
from torch import nn

from cmrseg import metrics, train
from cmrseg.augment import AUGMENTATIONS
from cmrseg.checkpoint import CHECKPOINT
from cmrseg.config import PRESETS, TrainConfig
from cmrseg.data import BadInput, Slices
from cmrseg.losses import LOSSES
from cmrseg.models import build
from cmrseg.predict import predict, probabilities
from cmrseg.train import fit

MADE_UP = "0123456789ab"  # a fingerprint
KEYS = {
    "report": "7a5d3f7e9eaf28d9",
    "replica": "ab613a0b529a4e8c",
    "modern": "8892c1eca51bfcf5",
    "book": "b832b0ef87b3b769",
    "sprint": "67522e9a9ed0a559",
}
DEFAULTS = """TrainConfig(model='unet', channels=(16, 32, 64, 128, 256), convolutions=2, kernel=3,
first_kernel=None, activation='relu', dropout=0.0, skips='before', scale='zscore',
augment=('affine', 'intensity'), mirrored_set=False, loss='ce+dice', optimiser='adamw', lr=0.003,
weight_decay=0.01, momentum=0.0, schedule='one-cycle', batch=4, drop_last=False, epochs=30, seed=0,
residual=False, strided=False, deep=0, ema=0.0, start='', windows=None, poolings=None)"""


def weights(result):
    return [t.clone() for t in result.model.state_dict().values()]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# --- configurations ------------------------------------------------------------------------------


def test_keys_and_defaults_never_change_because_records_are_filed_under_them():
    assert {name: preset.key("val", MADE_UP) for name, preset in PRESETS.items()} == KEYS
    assert repr(TrainConfig()) == DEFAULTS.replace("\n", " ")


def test_every_choice_the_split_and_the_data_change_the_key():
    config = TrainConfig()
    keys = {config.key("val", MADE_UP), config.key("fold0", MADE_UP), config.key("val", "ba98")}
    for f in fields(config):
        other = "other" if isinstance(f.default, (str, tuple)) else (f.default or 0) + 1
        keys.add(replace(config, **{f.name: other}).key("val", MADE_UP))
    assert len(keys) == 3 + len(fields(config))
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_a_configuration_survives_json_and_an_unknown_field_is_refused():
    for preset in PRESETS.values():
        assert TrainConfig.from_dict(json.loads(json.dumps(asdict(preset)))) == preset
    for values, word in (({"attention": True}, "attention"), ([], "no fields")):
        with pytest.raises(ValueError, match=word):
            TrainConfig.from_dict(values)


# --- schedules and optimisers --------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 49, 50, 51, 99, 100, 140, 1001])
def test_slices_are_scored_at_most_fifty_times_evenly_and_at_the_end(epochs):
    scored = sorted(train.scored_epochs(epochs))
    assert scored[-1] == epochs and scored[0] >= 1 and min(epochs, 25) <= len(scored) <= 51
    assert len(set(np.diff(scored[:-1]))) <= 1  # evenly


def test_one_cycle_climbs_to_its_peak_and_falls_to_nearly_nothing():
    rate = [train.schedule("one-cycle", done) for done in np.linspace(0, 1, 1001)]
    assert rate[0] == pytest.approx(1 / 25) and max(rate) == pytest.approx(1)
    assert np.argmax(rate) == 300
    assert (np.diff(rate[:301]) > 0).all() and (np.diff(rate[300:]) < 0).all()
    assert rate[-1] == pytest.approx(0, abs=1e-6) and rate[650] == pytest.approx(0.5)
    assert np.abs(np.diff(rate)).max() < 0.005  # without a jump
    assert train.schedule("constant", 0.7) == 1
    with pytest.raises(ValueError, match="'step'"):
        train.schedule("step", 0.5)


@pytest.mark.parametrize("name, kind", [("sgd", "SGD"), ("adam", "Adam"), ("adamw", "AdamW")])
def test_optimisers_get_the_numbers_of_the_configuration(name, kind):
    config = TrainConfig(optimiser=name, lr=0.02, weight_decay=0.3, momentum=0.7)
    optimiser = train.make_optimiser(config, nn.Linear(2, 2).parameters())
    (group,) = optimiser.param_groups
    assert type(optimiser) is getattr(torch.optim, kind)
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    assert name != "sgd" or group["momentum"] == 0.7
    with pytest.raises(ValueError, match="'lion'"):
        train.make_optimiser(replace(config, optimiser="lion"), nn.Linear(2, 2).parameters())


# --- the loop ------------------------------------------------------------------------------------


def test_a_network_learns_the_made_up_hearts_and_is_scored_by_its_prediction(tiny, slices):
    result = fit(replace(tiny, channels=(8, 16), epochs=30, lr=0.01), *slices)
    history, held_out = result.history, slices[1]
    assert history["epoch"] == list(range(1, 31))
    assert history["loss"][-1] < 0.6 * history["loss"][0] and not result.model.training
    assert result.seconds > 0 and (result.precision, result.device) == ("fp32", "cpu")
    pred = predict(result.model, held_out.images)
    assert np.unique(pred).tolist() == [0, 1, 2, 3] and min(history["dice"][-1]) > 0.6
    assert history["dice"][-1] == pytest.approx(metrics.dice(pred, held_out.masks).mean(0))


def test_the_history_has_the_rates_and_the_scores(tiny, slices):
    config = replace(tiny, epochs=60)
    history = fit(config, *slices).history
    assert {len(values) for values in history.values()} == {60}
    scored = [e for e, dice in zip(history["epoch"], history["dice"]) if dice is not None]
    assert scored == sorted(train.scored_epochs(60)) and history["dice_train"] == [None] * 60
    # the rate of the last step: two batches of four an epoch
    expected = [config.lr * train.schedule("one-cycle", (e - 0.5) / 60) for e in range(1, 61)]
    assert history["lr"] == pytest.approx(expected)


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches(tiny, slices, monkeypatch):
    sizes = []

    def loss(logits, labels):
        sizes.append(len(labels))
        return logits.sum() * 0 + len(sizes) - 1

    monkeypatch.setitem(LOSSES, tiny.loss, loss)
    result = fit(replace(tiny, batch=3, epochs=2), *slices)
    assert sizes == [3, 3, 2] * 2 and result.history["loss"] == pytest.approx([1, 4])
    sizes.clear()
    fit(replace(tiny, batch=3, epochs=1, drop_last=True), *slices)
    assert sizes == [3, 3]


def test_every_slice_is_seen_once_an_epoch_in_another_order(tiny, slices, monkeypatch):
    batches = []

    def watch(x, y, names, rng):
        batches.append(y.sum((1, 2)).tolist())
        return x, y

    monkeypatch.setattr(train, "augment", watch)
    slices[0].masks[:] = 0
    slices[0].masks[:, 0, :8] = np.tri(8, dtype=np.uint8)  # so that slice k has k + 1 pixels
    fit(replace(tiny, epochs=2), *slices)
    first, second = batches[0] + batches[1], batches[2] + batches[3]
    assert sorted(first) == sorted(second) == list(range(1, 9)) and first != second


def test_a_mirrored_set_has_every_slice_and_its_mirror_image(tiny, slices, monkeypatch):
    pairs = []

    def watch(x, y, names, rng):
        pairs.extend(zip(x[:, 0].numpy().astype(np.uint8), y.numpy().astype(np.uint8)))
        return x, y

    monkeypatch.setattr(train, "augment", watch)
    fit(replace(tiny, epochs=1, mirrored_set=True, scale="raw"), *slices)
    both = list(zip(slices[0].images, slices[0].masks))
    expected = both + [(image[:, ::-1], mask[:, ::-1]) for image, mask in both]
    as_bytes = ([a.tobytes() + b.tobytes() for a, b in some] for some in (pairs, expected))
    assert sorted(next(as_bytes)) == sorted(next(as_bytes))


def test_training_slices_are_scored_when_asked_and_at_milestones(tiny, slices):
    config = replace(tiny, epochs=3, lr=0.02, schedule="constant")
    result = fit(config, *slices, score_train=True, score_every=2)
    learnt = metrics.per_class(
        metrics.dice(predict(result.model, slices[0].images), slices[0].masks)
    )
    assert result.history["dice_train"][-1] == pytest.approx(learnt.tolist(), nan_ok=True)
    assert [d is None for d in result.history["dice_train"]] == [True, False, False]
    staged = fit(config, *slices, milestones=(1,))
    short = fit(replace(config, epochs=1), *slices)
    assert [d is None for d in staged.history["dice_train"]] == [False, True, True]
    expected = predict(short.model, slices[1].images)
    np.testing.assert_array_equal(staged.milestones[1], expected)
    for wrong in ({"held_out": None}, {"held_out": slices[1], "out": "folder"}):
        with pytest.raises(ValueError, match="milestones"):
            fit(config, slices[0], milestones=(1,), **wrong)


def test_a_callback_may_end_a_training(tiny, slices):
    result = fit(tiny, *slices, callback=lambda history: history["epoch"] == [1])
    assert result.history["epoch"] == [1] and not result.model.training


def test_held_out_slices_are_scored_but_never_trained_on(tiny, slices):
    alone = fit(tiny, slices[0])
    slices[1].masks[:] = 1
    slices[1].images[:] = 77
    scored = fit(tiny, *slices)
    assert same(weights(alone), weights(scored))
    assert alone.history["dice"] == [None, None] and None not in scored.history["dice"]


@pytest.mark.parametrize("size", [27, 40])
@pytest.mark.parametrize("skips", ["before", "after"])
def test_slices_of_any_size_can_be_trained_on(size, skips, tiny):
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 255, (2, 4, size, size + 3), dtype=np.uint8)
    few = Slices(images, masks % 4, tuple("abcd"), np.arange(4))
    result = fit(replace(tiny, channels=(2, 2, 4), skips=skips, epochs=1), few, few)
    assert math.isfinite(result.history["loss"][0])


def test_a_mirrored_view_of_arrays_is_trained_on_as_its_copy_is(tiny, slices):
    few, once = slices[0][:4], replace(tiny, epochs=1)
    view = replace(few, images=few.images[:, :, ::-1], masks=few.masks[:, :, ::-1])
    copied = replace(few, images=view.images.copy(), masks=view.masks.copy())
    assert same(weights(fit(once, view)), weights(fit(once, copied)))


def test_what_cannot_be_trained_on_is_refused(tiny, slices):
    with pytest.raises(ValueError, match="no slices to learn from"):
        fit(tiny, slices[0][:0])
    with pytest.raises(ValueError, match="no slices are held out"):
        fit(tiny, slices[0], slices[1][:0])
    unlabelled = replace(slices[1], masks=None)
    for pair in ((unlabelled, None), (slices[0], unlabelled)):
        with pytest.raises(ValueError, match="without masks"):
            fit(tiny, *pair)
    with pytest.raises(ValueError, match="'fp16': expected fp32 or bf16"):
        fit(tiny, *slices, precision="fp16")
    small = Slices(*np.zeros((2, 5, 4, 4), np.uint8), tuple("abcde"), np.arange(5))
    with pytest.raises(
        BadInput, match="larger slices"
    ):  # the last batch sees one point of one slice
        fit(replace(tiny, channels=(2, 2, 4)), small)


def test_both_precisions_train_and_say_so(tiny, slices):
    """Case T1: single precision unless asked, for a GPU that emulates bf16 says it has it."""
    assert inspect.signature(fit).parameters["precision"].default == "fp32"
    few, one = slices[0][:4], slices[1][:1]
    for precision in ("fp32", "bf16"):
        result = fit(replace(tiny, epochs=1), few, one, precision=precision)
        assert result.precision == precision and math.isfinite(result.history["loss"][0])
        assert {p.dtype for p in result.model.parameters()} == {torch.float32}


# --- chance --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema": 0.9, "dropout": 0.3},
        {"optimiser": "sgd", "momentum": 0.9, "mirrored_set": True},
        {"augment": tuple(AUGMENTATIONS)},
    ],
)
def test_a_training_repeats_bit_for_bit_and_leaves_the_chance_of_others_alone(
    changes, tiny, slices
):
    results = []
    for before in (1, 2):
        torch.manual_seed(before)
        np.random.seed(before)
        state = torch.get_rng_state()
        results.append(fit(replace(tiny, **changes), *slices))
        assert torch.equal(torch.get_rng_state(), state)
    assert (torch.tensor([1e-38]) * 0.01).item() == 0  # denormals are flushed: they are slow
    first, second = results
    assert first.history == second.history and same(weights(first), weights(second))
    images = slices[1].images
    again = [probabilities(result.model, images) for result in (first, second, first)]
    assert all((p == again[0]).all() for p in again)
    assert not same(weights(first), weights(fit(replace(tiny, seed=1, **changes), *slices)))


# --- beginning with a trained network ------------------------------------------------------------


def test_a_training_may_begin_with_a_trained_network(tiny, slices):
    begun = replace(tiny, start="phantoms", lr=0.0, weight_decay=0.0, epochs=1)
    first = fit(replace(tiny, seed=7), slices[0])
    result = fit(begun, slices[0], start=first.model)
    assert result.model is not first.model
    for p, q in zip(first.model.parameters(), result.model.parameters()):
        assert torch.equal(p, q)
    for config, start, article in ((begun, None, "no"), (tiny, build(tiny), "a")):
        with pytest.raises(ValueError, match=f"{article} network to begin with"):
            fit(config, slices[0], start=start)


# --- averaged weights and deep supervision -------------------------------------------------------


def test_the_loss_of_several_levels_is_their_weighted_mean():
    torch.manual_seed(0)
    labels = torch.randint(0, 4, (2, 8, 8)).repeat_interleave(2, 1).repeat_interleave(2, 2)
    fine, half = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 8, 8)
    loss = LOSSES["ce+dice"]
    expected = (loss(fine, labels) + 0.5 * loss(half, labels[:, ::2, ::2])) / 1.5
    torch.testing.assert_close(train._loss(loss, [fine, half], labels, 1), expected)
    torch.testing.assert_close(train._loss(loss, half, labels, 2), loss(half, labels[:, ::2, ::2]))


def test_an_average_of_unmoving_weights_is_those_weights_and_counters_are_copied():
    model, ema_model = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    nn.init.constant_(model.weight, 5.0)
    model.num_batches_tracked += 7
    train.update_ema(ema_model, model, 0.9, 0)  # at first nearly all is new
    torch.testing.assert_close(ema_model.weight, torch.full((3,), 1 + 0.9 * 4.0))
    assert ema_model.num_batches_tracked == 7
    train.update_ema(ema_model, model, 0.9, 10_000)
    torch.testing.assert_close(ema_model.weight, torch.full((3,), 4.6 + 0.1 * 0.4))


# --- what is no number ---------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_loss_that_is_no_number_names_the_epoch_the_slices_and_the_checkpoint(
    mirrored, tiny, slices, tmp_path, monkeypatch
):
    slices[0].masks[:] = 0
    slices[0].masks[2] = slices[0].masks[5] = 1  # cmr7 and cmr10
    counts = []

    def loss(logits, labels):
        ones = (labels == 1).flatten(1).any(1)
        counts.append(int(ones.sum()))
        known = sum(counts) > 2 * (1 + mirrored) and ones.any()
        return logits.mean() + (math.nan if known else 0)  # whose gradient is sound

    monkeypatch.setitem(LOSSES, tiny.loss, loss)
    config = replace(tiny, batch=1, epochs=3, mirrored_set=mirrored)
    with pytest.raises(FloatingPointError) as caught:
        fit(config, *slices, out=tmp_path)
    message, path = str(caught.value), tmp_path / CHECKPOINT
    assert message.startswith("the loss is nan in epoch 2, batch of cmr")
    assert "batch of cmr7." in message or "batch of cmr10." in message
    assert f"{path} is of epoch 1" in message and "smaller learning rate" in message
    kept = torch.load(path, weights_only=True)["model"]
    assert all(t.isfinite().all() for t in kept.values())


def test_without_an_epoch_or_a_folder_there_is_no_checkpoint_to_name(
    tiny, slices, tmp_path, monkeypatch
):
    monkeypatch.setitem(LOSSES, tiny.loss, lambda x, y: x.sum() * math.inf)
    for options in ({}, {"out": tmp_path}):
        with pytest.raises(FloatingPointError, match=r"in epoch 1, .*: there is none"):
            fit(tiny, *slices, **options)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_weights_that_are_no_numbers_are_never_kept(ema, tiny, slices, tmp_path, monkeypatch):
    """The loss of the only batch is sound, its gradient is not."""
    monkeypatch.setitem(LOSSES, tiny.loss, lambda logits, labels: (0 * logits.mean()).sqrt())
    config = replace(tiny, epochs=1, batch=8, ema=ema)
    with pytest.raises(FloatingPointError, match="a weight is no number in epoch 1, batch of cmr5"):
        fit(config, *slices, out=tmp_path)
    assert files_in(tmp_path) == []
