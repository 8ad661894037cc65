"""Training: the configuration and its key, the loop, checkpoints, prediction.

Each group fails after any of these one-line changes of ``cmrseg/training.py``:

- keys and presets: in key(), drop ``if getattr(self, f.name) != f.default``, or ``self.seed,
  fingerprint`` -> ``self.seed``; ``weight_decay: float = 0.01`` -> ``0.02``; in _report,
  ``skips="after"`` -> ``"before"``; in from_dict(), ``tuple(v) if ... else v`` -> ``v``
- schedules and optimisers: in scored_epochs(), ``math.ceil(epochs / 50)`` -> ``epochs // 50``; in
  schedule(), ``/ 0.7`` -> ``/ 0.9``; in as_one_vector(), ``view.copy_`` dropped, or ``int(start)`` -> ``0``; in
  make_optimiser(), ``config.momentum`` -> ``0``
- the loop: in _train_epoch(), drop ``optimiser.step()``, or ``(epoch - 1 + step / len(batches))``
  -> ``(epoch - 1)``, ``not config.drop_last`` -> ``config.drop_last``,
  ``torch.stack(losses).mean()`` -> ``losses[-1]``, ``torch.randperm(...)`` ->
  ``torch.arange(len(images))``, ``if not math.isfinite(mean_loss)`` -> ``if False``; in score(),
  ``slices.masks`` -> ``slices.masks[::-1]``; in fit(), ``labels.flip(-1)`` -> ``labels``,
  ``score(run, train)`` -> ``score(run, held_out)``, ``manual_seed`` -> ``seed()``, or train
  on the held-out images, ``fork_rng(devices=[])`` -> ``nullcontext()``,
  ``set_flush_denormal(True)`` -> ``False``; in pad(), ``if any(beyond)`` -> ``if False``
- resuming: in _restore(), drop ``optimiser.load_state_dict``, ``rng.set_state`` or
  ``torch.set_rng_state``, or ``if config != run.config`` or ``if notes.get(...) != slices`` -> ``if
  False``, or drop ``SafetensorError`` or ``tqdm.write(...)``, or in _machine() ``threads`` or ``torch``; in
  save_tensors(), ``path.with_name(...)`` -> ``path``
- applying: in probabilities(), drop ``model.eval()``, or ``if model.stride > 1`` -> ``if False``;
  in _shrink(), ``.argmax(1)`` -> ``.argmin(1)``
- the machine: in probe_precision(), the last ``return`` -> ``return "half"``; in fit(),
  ``precision=precision`` -> ``precision="fp32"``
- files: in load(), ``model.eval()`` -> ``model``; in save(), the model before its configuration; in
  write_text(), ``write_bytes(path, text.encode())`` -> ``path.write_text(text)``
"""

import json
import math
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import files_in
from torch import nn

from cmrseg import data, training
from cmrseg.data import BadInput
from cmrseg.losses import LOSSES
from cmrseg.models import build
from cmrseg.training import PRESETS, TrainConfig, fit, predict

MADE_UP = "0123456789ab"  # a fingerprint
KEYS = {"report": "7a5d3f7e9eaf28d9", "replica": "ab613a0b529a4e8c",
        "modern": "8892c1eca51bfcf5", "book": "b832b0ef87b3b769", "sprint": "67522e9a9ed0a559"}


def weights(run):
    return {name: t.clone() for name, t in run.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def train(config, root, **options):
    return fit(config, *data.split(root, "val"), precision="fp32", **options)


# --- configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_keys_of_the_presets_never_change(name):
    assert PRESETS[name].key("val", MADE_UP) == KEYS[name]


def test_the_defaults_never_change_because_keys_do_not_count_them():
    assert asdict(TrainConfig()) == {
        "model": "unet", "channels": (16, 32, 64, 128, 256), "convolutions": 2, "kernel": 3,
        "first_kernel": None, "activation": "relu", "dropout": 0.0, "skips": "before",
        "scale": "zscore", "augment": ("affine", "intensity"), "mirrored_set": False, "loss": "ce+dice",
        "optimiser": "adamw", "lr": 0.003, "weight_decay": 0.01, "momentum": 0.0,
        "schedule": "one-cycle", "batch": 4, "drop_last": False, "epochs": 30, "seed": 0,
        "residual": False, "strided": False, "deep": 0, "ema": 0.0, "start": "",
        "windows": None, "poolings": None}


def test_a_field_added_with_a_default_leaves_old_keys_as_they_are():
    @dataclass(frozen=True)
    class Later(TrainConfig):
        attention: str = "none"
        ema: float = 0.0

    for name, preset in PRESETS.items():
        assert Later(**asdict(preset)).key("val", MADE_UP) == KEYS[name]
    assert Later(ema=0.9).key("val", MADE_UP) != KEYS["book"]


def test_every_choice_the_split_and_the_data_change_the_key():
    book = TrainConfig()
    others = {"model": "segnet", "channels": (1, 2), "augment": ("affine",), "first_kernel": 7,
              "activation": "tanh", "skips": "after", "scale": "raw", "loss": "report",
              "optimiser": "sgd", "schedule": "constant", "drop_last": True, "start": "phantoms",
                  "windows": 2, "poolings": 4}
    keys = {book.key("val", MADE_UP), book.key("fold0", MADE_UP), book.key("val", "ba9876543210")}
    for f in fields(book):
        value = others.get(f.name, getattr(book, f.name) + 1 if f.name not in others else None)
        keys.add(replace(book, **{f.name: value}).key("val", MADE_UP))
    assert len(keys) == 3 + len(fields(book))
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)


def test_a_configuration_survives_json_and_keeps_its_key():
    for preset in PRESETS.values():
        again = TrainConfig.from_dict(json.loads(json.dumps(asdict(preset))))
        assert again == preset and again.key("val", MADE_UP) == preset.key("val", MADE_UP)
    with pytest.raises(ValueError, match="attention"):
        TrainConfig.from_dict({"attention": True})


def test_the_presets_are_the_recipes_of_the_design():
    report, replica, modern, book = (PRESETS[n] for n in ("report", "replica", "modern", "book"))
    assert (report.channels, report.convolutions, report.first_kernel) == (
        (32, 64, 128, 256, 512), 3, 7)
    assert (report.loss, report.optimiser, report.lr, report.batch, report.epochs) == (
        "report", "adam", 0.001, 2, 140)
    assert (report.skips, report.scale, report.schedule, report.augment) == (
        "after", "raw", "constant", ())
    assert replica == replace(report, channels=(8, 16, 32, 64, 128), convolutions=2,
                              first_kernel=None, epochs=100)
    assert modern.channels == (8, 16, 32, 64, 128) and book.channels == (16, 32, 64, 128, 256)
    assert modern == replace(book, channels=modern.channels)
    assert (book.loss, book.optimiser, book.schedule, book.scale, book.skips) == (
        "ce+dice", "adamw", "one-cycle", "zscore", "before")


# --- schedules and optimisers --------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 2, 30, 49, 50, 51, 99, 100, 140, 500, 1001])
def test_slices_are_scored_at_most_fifty_times_evenly_and_at_the_end(epochs):
    scored = sorted(training.scored_epochs(epochs))
    assert scored[-1] == epochs and scored[0] >= 1 and len(scored) <= 50 + 1
    assert len(scored) >= min(epochs, 25)
    assert len(set(np.diff(scored[:-1]))) <= 1  # evenly


def test_one_cycle_climbs_to_its_peak_and_falls_to_nearly_nothing():
    rate = [training.schedule("one-cycle", done) for done in np.linspace(0, 1, 1001)]
    assert rate[0] == pytest.approx(1 / 25) and max(rate) == pytest.approx(1)
    assert np.argmax(rate) == 300
    assert (np.diff(rate[:301]) > 0).all() and (np.diff(rate[300:]) < 0).all()
    assert rate[-1] == pytest.approx(0, abs=1e-6) and rate[650] == pytest.approx(0.5)
    assert np.abs(np.diff(rate)).max() < 0.005  # without a jump
    assert training.schedule("constant", 0.7) == 1
    with pytest.raises(ValueError, match="'step'"):
        training.schedule("step", 0.5)


@pytest.mark.parametrize("name, kind", [
    ("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_optimisers_get_the_numbers_of_the_configuration(name, kind):
    config = TrainConfig(optimiser=name, lr=0.02, weight_decay=0.3, momentum=0.7)
    optimiser = training.make_optimiser(config, nn.Linear(2, 2).parameters())
    (group,) = optimiser.param_groups
    assert type(optimiser) is kind and (group["lr"], group["weight_decay"]) == (0.02, 0.3)
    assert name != "sgd" or group["momentum"] == 0.7
    with pytest.raises(ValueError, match="'lion'"):
        training.make_optimiser(replace(config, optimiser="lion"), nn.Linear(2, 2).parameters())


@pytest.mark.parametrize("change", [
    {"optimiser": "sgd", "momentum": 0.9}, {"optimiser": "adam"}, {"optimiser": "adamw"},
    {"model": "segnet", "channels": (5, 7)},
    {"model": "final", "channels": (4, 6, 8), "residual": True, "deep": 1},
], ids=lambda change: "-".join(map(str, change.values())))
def test_a_step_on_one_long_vector_is_that_of_the_single_layers(tiny, change):
    config, ends = replace(tiny, **change), []
    images, labels = torch.randn(2, 1, 32, 32), torch.randint(0, 4, (2, 32, 32))
    for as_one in (False, True):
        torch.manual_seed(3)
        net = build(config).to(memory_format=torch.channels_last)
        optimiser = training.make_optimiser(
            config, [training.as_one_vector(net)] if as_one else net.parameters())
        begin = [p.detach().clone() for p in net.parameters()]
        for _ in range(5):
            optimiser.zero_grad(set_to_none=False)
            training._loss(LOSSES["ce+dice"], net(images), labels, 1).backward()
            optimiser.step()
        ends.append(list(net.parameters()))
        assert not any(torch.equal(p, q) for p, q in zip(begin, ends[-1]) if p.dim() == 4)
    for one, other in zip(*ends):
        assert one.stride() == other.stride() and torch.equal(one, other)


# --- the loop ------------------------------------------------------------------------------------


def test_a_network_learns_the_made_up_hearts(tiny, root):
    config = replace(tiny, channels=(8, 16), epochs=30, lr=0.01)
    run = train(config, root)
    assert run.history["epoch"] == list(range(1, 31))
    assert run.history["loss"][-1] < 0.6 * run.history["loss"][0]
    assert min(run.history["dice"][-1]) > 0.6 and not run.model.training
    assert run.seconds > 0 and (run.precision, run.device) == ("fp32", "cpu")


def test_the_history_has_the_losses_the_rates_and_the_scores(tiny, root):
    config = replace(tiny, epochs=60)
    history = train(config, root).history
    assert {len(values) for values in history.values()} == {60}
    scored = [e for e, d in zip(history["epoch"], history["dice"]) if d is not None]
    assert scored == sorted(training.scored_epochs(60))
    # the rate of the last step: two batches of four an epoch
    expected = [config.lr * training.schedule("one-cycle", (e - 0.5) / 60) for e in range(1, 61)]
    assert history["lr"] == pytest.approx(expected)


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches(tiny, root, monkeypatch):
    seen = []

    def loss(logits, labels):
        seen.append((len(labels), float(len(seen))))
        return logits.sum() * 0 + seen[-1][1]

    monkeypatch.setitem(training.LOSSES, tiny.loss, loss)
    run = train(replace(tiny, batch=3, epochs=2), root)
    assert [n for n, _ in seen] == [3, 3, 2] * 2
    assert run.history["loss"] == pytest.approx([1, 4])
    seen.clear()
    train(replace(tiny, batch=3, epochs=1, drop_last=True), root)
    assert [n for n, _ in seen] == [3, 3]


def test_every_slice_is_seen_once_an_epoch_in_another_order(tiny, root, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "augment",
                        lambda x, y, names, rng: seen.append(y.sum((1, 2)).tolist()) or (x, y))
    slices, held_out = data.split(root, "val")
    slices.masks[:] = 0
    slices.masks[:, 0, :8] = np.tri(8, dtype=np.uint8)  # so that slice k has k + 1 pixels
    fit(replace(tiny, epochs=2), slices, held_out, precision="fp32")
    first, second = seen[0] + seen[1], seen[2] + seen[3]
    assert sorted(first) == sorted(second) == list(range(1, 9)) and first != second


def test_a_mirrored_set_has_every_slice_and_its_mirror_image(tiny, root, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "augment", lambda x, y, names, rng: seen.append((x, y)) or (x, y))
    slices, held_out = data.split(root, "val")
    fit(replace(tiny, epochs=1, mirrored_set=True, scale="raw"), slices, held_out, precision="fp32")
    x, y = (torch.cat(part) for part in zip(*seen))
    assert len(x) == 2 * len(slices)
    found = sorted((a.numpy().astype(np.uint8).tobytes(), b.numpy().astype(np.uint8).tobytes())
                   for a, b in zip(x[:, 0], y))
    expected = [(image[:, ::step].tobytes(), mask[:, ::step].tobytes())
                for image, mask in zip(slices.images, slices.masks) for step in (1, -1)]
    assert found == sorted(expected)


def test_training_slices_are_scored_when_asked(tiny, root):
    run = train(replace(tiny, epochs=12, lr=0.02), root, score_train=True)
    train_slices, _ = data.split(root, "val")
    pred = predict(run.model, train_slices.images)
    last = training.metrics.per_class(training.metrics.dice(pred, train_slices.masks))
    assert run.history["dice_train"][-1] == pytest.approx(last.tolist(), nan_ok=True)
    assert run.history["dice_train"][-1] != run.history["dice"][-1]
    assert train(tiny, root).history["dice_train"] == [None] * tiny.epochs


def test_one_seed_gives_one_network_and_another_seed_another(tiny, root):
    assert same(weights(train(tiny, root)), weights(train(tiny, root)))
    assert not same(weights(train(tiny, root)), weights(train(replace(tiny, seed=1), root)))


def test_held_out_slices_are_scored_but_never_trained_on(tiny, root):
    slices, held_out = data.split(root, "val")
    alone = fit(tiny, slices, precision="fp32")
    held_out.masks[:] = 1
    held_out.images[:] = 77
    scored = fit(tiny, slices, held_out, precision="fp32")
    assert same(weights(alone), weights(scored))
    assert alone.history["dice"] == [None, None] and None not in scored.history["dice"]


def test_the_score_is_the_dice_of_the_prediction(tiny, root):
    run = train(replace(tiny, channels=(8, 16), epochs=15, lr=0.01), root)
    held_out = data.load(root, "val")
    pred = predict(run.model, held_out.images)
    assert np.unique(pred).tolist() == [0, 1, 2, 3]
    for c, dice in enumerate(run.history["dice"][-1], start=1):
        a, b = pred == c, held_out.masks == c
        each = 2 * (a & b).sum((1, 2)) / (a.sum((1, 2)) + b.sum((1, 2)))
        assert dice == pytest.approx(each.mean())


def test_training_leaves_the_chance_of_others_alone(tiny, root):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(replace(tiny, dropout=0.3), root)
    assert torch.equal(torch.get_rng_state(), before)


def test_denormals_are_flushed(tiny, root):
    torch.set_flush_denormal(False)
    assert (torch.tensor([1e-38]) * 0.01).item() > 0
    train(replace(tiny, epochs=1), root)
    assert (torch.tensor([1e-38]) * 0.01).item() == 0


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_loss_that_is_no_number_names_the_epoch_the_slices_and_the_checkpoint(
    mirrored, tiny, root, tmp_path, monkeypatch
):
    slices, held_out = data.split(root, "val")
    slices.masks[:] = 0
    slices.masks[2] = slices.masks[5] = 1  # cmr7 and cmr10
    epochs = []

    def loss(logits, labels):
        ones = (labels == 1).flatten(1).any(1)
        epochs.append(int(ones.sum()))
        known = sum(epochs) > 2 * (1 + mirrored) and ones.any()
        return logits.mean() * (math.nan if known else 1)

    monkeypatch.setitem(training.LOSSES, tiny.loss, loss)
    config = replace(tiny, batch=1, epochs=3, mirrored_set=mirrored)
    with pytest.raises(FloatingPointError) as caught:
        fit(config, slices, held_out, precision="fp32", out=tmp_path)
    said, path = str(caught.value), tmp_path / training.CHECKPOINT
    assert said.startswith("the loss is nan in epoch 2, batch of cmr")
    assert ("batch of cmr7." in said) or ("batch of cmr10." in said)
    assert f"{path} is of epoch 1" in said and "smaller learning rate" in said
    with training.safe_open(path, "pt") as file:
        assert all(torch.isfinite(file.get_tensor(name)).all() for name in file.keys())  # noqa: SIM118


def test_without_an_epoch_or_a_folder_there_is_no_checkpoint_to_name(tiny, root, tmp_path, monkeypatch):
    monkeypatch.setitem(training.LOSSES, tiny.loss, lambda x, y: x.sum() * math.inf)
    for options in ({}, {"out": tmp_path}):
        with pytest.raises(FloatingPointError, match=r"in epoch 1, .*: there is none"):
            train(tiny, root, **options)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_weights_that_are_no_numbers_are_never_kept(ema, tiny, root, tmp_path, monkeypatch):
    """The loss of the only batch is sound, its gradient is not."""
    monkeypatch.setitem(training.LOSSES, tiny.loss, lambda logits, labels: (0 * logits.mean()).sqrt())
    config = replace(tiny, epochs=1, batch=8, ema=ema)
    with pytest.raises(FloatingPointError, match="a weight is no number in epoch 1, batch of cmr5, cmr6"):
        train(config, root, out=tmp_path)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("size", [27, 40])
def test_slices_of_any_size_can_be_trained_on(size, tiny):
    rng = np.random.default_rng(0)
    images, masks = rng.integers(0, 255, (2, 4, size, size + 3), dtype=np.uint8)
    slices = data.Slices(images, masks % 4, tuple("abcd"), np.arange(4))
    for skips in ("before", "after"):
        config = replace(tiny, channels=(2, 2, 4), skips=skips, epochs=1)
        run = fit(config, slices, slices, precision="fp32")
        assert math.isfinite(run.history["loss"][0])


# --- stopping and resuming -----------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_a_resumed_run_is_bit_for_bit_the_run_it_continues(optimiser, tiny, root, tmp_path):
    config = replace(tiny, epochs=5, optimiser=optimiser, momentum=0.9, dropout=0.2, lr=0.01, ema=0.9,
                     augment=("mirror", "affine", "intensity"))
    straight = train(config, root)

    def stop(history):
        if len(history["epoch"]) in (2, 4):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, root, out=tmp_path, resume=True, progress=stop)
    resumed = train(config, root, out=tmp_path, resume=True)
    assert same(weights(straight), weights(resumed))
    assert resumed.history == straight.history
    assert resumed.seconds > 0


def test_a_run_without_a_checkpoint_begins_and_a_finished_one_stays(tiny, root, tmp_path):
    run = train(tiny, root, out=tmp_path, resume=True)
    again = train(tiny, root, out=tmp_path, resume=True)
    assert same(weights(run), weights(again)) and again.history == run.history


@pytest.mark.parametrize("change", [{"lr": 0.5}, {"seed": 1}, {"channels": (4, 16)}, {"epochs": 9}])
def test_a_checkpoint_of_another_configuration_is_refused(change, tiny, root, tmp_path):
    train(tiny, root, out=tmp_path)
    with pytest.raises(BadInput, match=f"another {next(iter(change))}"):
        train(replace(tiny, **change), root, out=tmp_path, resume=True)


def test_a_checkpoint_of_other_slices_is_refused(tiny, root, tmp_path):
    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, root, out=tmp_path, progress=stop)
    slices, held_out = data.split(root, "val")
    turned = replace(held_out, masks=held_out.masks[:, ::-1])
    for learnt, judged in ((slices[:6], held_out), (slices, held_out[:1]), (slices, turned), (slices, None)):
        with pytest.raises(BadInput, match="other slices"):
            fit(tiny, learnt, judged, precision="fp32", out=tmp_path, resume=True)


def test_nothing_is_learnt_from_nothing(tiny, root):
    with pytest.raises(ValueError, match="no slices to learn from"):
        fit(tiny, data.load(root, "train")[:0])


@pytest.mark.parametrize("what", ["threads", "torch", "nothing", "unknown"])
def test_a_run_that_goes_on_under_other_conditions_says_so(what, tiny, root, tmp_path, capsys, monkeypatch):
    def stop(history):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny, root, out=tmp_path, progress=stop)
    path, before = tmp_path / training.CHECKPOINT, torch.__version__
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    elif what == "torch":
        monkeypatch.setattr(torch, "__version__", "99.0.0")
    elif what == "unknown":  # a checkpoint of an older version
        with training.safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert notes.pop("machine") == {"threads": 1, "torch": before}
        training.save_tensors(path, tensors, {"notes": json.dumps(notes)})
    assert train(tiny, root, out=tmp_path, resume=True).history["epoch"] == [1, 2]
    said = {"threads": "threads 1, now 7", "torch": f"torch {before}, now 99.0.0"}.get(what)
    lines = capsys.readouterr().err.splitlines()
    assert not lines if said is None else (
        len(lines) == 1 and lines[0].startswith(f"warning: {path} was made with {said}: "))


@pytest.mark.parametrize("length", [0, 7, 100, 2000, -1])
def test_a_torn_checkpoint_is_named(length, tiny, root, tmp_path):
    train(tiny, root, out=tmp_path)
    path = tmp_path / training.CHECKPOINT
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BadInput, match=r"checkpoint\.safetensors: is damaged"):
        train(tiny, root, out=tmp_path, resume=True)


@pytest.mark.parametrize(
    "harm", ["no notes", "deep notes", "no fields", "no machine", "no history", "history of gaps", "odd history", "no rng",
             "no weights", "no average", "no momentum"])
def test_a_checkpoint_that_lacks_something_is_named(harm, tiny, root, tmp_path):
    config = replace(tiny, ema=0.9)
    train(config, root, out=tmp_path)
    path = tmp_path / training.CHECKPOINT
    with training.safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["notes"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    gone = {"no rng": "rng.batches", "no weights": "model.", "no average": "average.",
            "no momentum": "optimiser."}
    notes.pop("history" if harm == "no history" else None, None)
    notes |= {"config": []} if harm == "no fields" else {"machine": 3} if harm == "no machine" else {}
    if harm == "history of gaps":
        notes["history"]["loss"] = []
    notes |= {"history": [1]} if harm == "odd history" else {}
    kept = {n: t for n, t in tensors.items() if not n.startswith(gone.get(harm, "nothing"))}
    text = "[" * 100_000 if harm == "deep notes" else json.dumps(notes)
    training.save_tensors(path, kept, {} if harm == "no notes" else {"notes": text})
    with pytest.raises(BadInput, match=r"checkpoint\.safetensors: is damaged"):
        train(replace(config, epochs=2), root, out=tmp_path, resume=True)


NOTES = {
    "time of text": lambda notes: notes.update(seconds="x"),
    "precision unheard of": lambda notes: notes.update(precision="fp8"),
    "score of text": lambda notes: notes["history"]["dice"].__setitem__(0, "abc"),
    "score of two classes": lambda notes: notes["history"]["dice"].__setitem__(0, [0.5, 0.5]),
    "loss of text": lambda notes: notes["history"]["loss"].__setitem__(0, "low"),
    "more epochs than asked for": lambda notes: [each.append(each[-1]) for each in notes["history"].values()],
    "an epoch left out": lambda notes: notes["history"]["epoch"].__setitem__(0, 2),
}


@pytest.mark.parametrize("harm", [*NOTES.values(), None], ids=[*NOTES, "weights that are no numbers"])
def test_a_checkpoint_that_says_what_cannot_be_is_named(harm, tiny, root, tmp_path):
    train(tiny, root, out=tmp_path)
    path = tmp_path / training.CHECKPOINT
    with training.safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["notes"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if harm:
        harm(notes)
    else:
        next(t for name, t in tensors.items() if name.endswith("weight")).fill_(math.nan)
    training.save_tensors(path, tensors, {"notes": json.dumps(notes)})
    with pytest.raises(BadInput, match=r"checkpoint\.safetensors: is damaged"):
        train(tiny, root, out=tmp_path, resume=True)


def test_a_stop_while_a_checkpoint_is_written_leaves_the_one_before(
    tiny, root, tmp_path, monkeypatch
):
    train(replace(tiny, epochs=1), root, out=tmp_path)
    before = (tmp_path / training.CHECKPOINT).read_bytes()

    def half(self, content):
        with self.open("wb") as file:
            file.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(KeyboardInterrupt):
        train(replace(tiny, epochs=1), root, out=tmp_path)
    assert (tmp_path / training.CHECKPOINT).read_bytes() == before
    assert files_in(tmp_path) == [training.CHECKPOINT]


# --- applying ------------------------------------------------------------------------------------


@pytest.mark.parametrize("skips", ["before", "after"])
@pytest.mark.parametrize("size", [(7, 13), (1, 5), (32, 32), (33, 31)])
def test_slices_of_any_size_are_padded_and_cropped_again(size, skips):
    model = training.build(TrainConfig(channels=(2, 4, 4), skips=skips))
    images = np.random.default_rng(0).integers(0, 256, (3, *size), dtype=np.uint8)
    p = training.probabilities(model, images)
    assert p.shape == (3, 4, *size) and p.dtype == np.float32
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    labels = predict(model, images)
    assert labels.dtype == np.uint8 and (labels == p.argmax(1)).all()


def test_a_prediction_does_not_depend_on_the_other_slices(root):
    model = training.build(TrainConfig(channels=(4, 8)))
    model.train()
    images, steps = data.load(root, "train").images, []
    together = training.probabilities(model, images, progress=steps.append)
    alone = training.probabilities(model, images, batch=1)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert steps == [8] and not model.training


class Coarse(nn.Module):
    """A network of stride 4 whose logits are those of the mean grey level, class by class."""

    stride, multiple = 4, 8

    def __init__(self):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor([0.0, 80, 160, 240]))

    def forward(self, x):
        grey = nn.functional.avg_pool2d(x, 4)
        return -((grey - self.levels.view(1, 4, 1, 1)) ** 2)


def test_a_coarse_output_is_enlarged_to_full_size():
    labels = np.random.default_rng(0).integers(0, 4, (2, 3, 5))
    images = (80 * labels.repeat(4, 1).repeat(4, 2)).astype(np.uint8)
    found = predict(Coarse(), images, "raw")
    np.testing.assert_array_equal(found, images // 80)


def test_a_coarse_network_learns_the_majority_of_each_square():
    labels = torch.tensor([[[1, 1, 0, 3], [1, 2, 3, 3], [2, 2, 0, 0], [2, 2, 0, 1]]])
    assert training._shrink(labels, 2).tolist() == [[[1, 3], [2, 0]]]
    assert torch.equal(training._shrink(labels, 1), labels)


# --- the machine and files -----------------------------------------------------------------------


def test_the_probe_measures_only_where_the_machine_claims_matrix_units(monkeypatch):
    assert training.probe_precision() in ("fp32", "bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert training.probe_precision() == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert training.probe_precision() in ("fp32", "bf16")


def test_both_precisions_train_and_say_so(tiny, root):
    slices, held_out = data.split(root, "val")
    runs = [fit(replace(tiny, epochs=1), slices[:4], held_out[:1], precision=p)
            for p in ("fp32", "bf16")]
    assert [run.precision for run in runs] == ["fp32", "bf16"]
    assert all(math.isfinite(run.history["loss"][0]) for run in runs)
    assert {p.dtype for run in runs for p in run.model.parameters()} == {torch.float32}


def test_a_saved_network_is_loaded_the_same(tiny, root, tmp_path):
    run = train(tiny, root)
    training.save(run, tmp_path / "a" / "b")
    again = training.load(tmp_path / "a" / "b")
    assert files_in(tmp_path / "a" / "b") == ["config.json", "model.safetensors"]
    assert again.config == tiny and same(weights(run), weights(again)) and not again.model.training
    images = data.load(root, "test").images
    np.testing.assert_array_equal(predict(again.model, images), predict(run.model, images))


def test_a_stop_while_a_network_is_saved_leaves_no_finished_run(tiny, root, tmp_path, monkeypatch):
    """What counts as finished is the model file, so nothing may be missing once it is there."""
    run = train(tiny, root)

    def stop(path, text):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "write_text", stop)
    with pytest.raises(KeyboardInterrupt):
        training.save(run, tmp_path)
    assert files_in(tmp_path) == []


def test_a_text_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    training.write_text(path, "old")

    def fail(*_):
        assert path.read_text() == "old"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        training.write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["config.json"]
