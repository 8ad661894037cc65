"""Networks averaged over views, cleaned up, and kept in one file.

Each group fails after any of these one-line changes in ensemble.py:

- average: ``.mean(0)`` -> ``[0]``; ``/ len(views)`` dropped
- views: ``-degrees`` -> ``degrees``; ``answer.flip(-1) if mirrored else answer`` -> ``answer``;
  ``x.flip(-1) if mirrored else x`` -> ``x``; in turn(), swap the two signs, or the two ratios
- clean: ``sizes.argmax()`` -> ``sizes.argmin()``; ``& ~ring`` dropped; ``cleaned >= 2`` -> ``cleaned == 2``
  (a cavity beside the wall); in label(), drop the square of ones
- files: ``t.half()`` -> ``t``; drop the check of the digest; ``_sums(path.parent) |`` dropped;
  ``not torch.isfinite(t).all()`` -> ``False``
- ways in a file: in Ways.from_dict(), ``not turns`` or ``not all(...)`` -> ``False``, or ``<= 360`` dropped, or
  ``{*map(type, switches)} != {bool}`` -> ``False``; in TrainConfig.from_dict(), drop ``isinstance``
"""

import hashlib
import json
import math
import subprocess

import numpy as np
import pytest
import torch
from conftest import files_in, heart
from safetensors.torch import load_file, save_file
from torch import nn

from cmrseg import data, ensemble, runtime, training
from cmrseg.augment import normalise
from cmrseg.ensemble import Ensemble, Ways, turn
from cmrseg.models import build
from cmrseg.runtime import clean, decide


class Fixed(nn.Module):
    """The same logits for every pixel and image."""

    multiple = stride = 1

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, x):
        return self.logits.view(1, 4, 1, 1).expand(len(x), 4, *x.shape[2:])


class Pixelwise(nn.Module):
    """Class 3 where it is bright, else background."""

    multiple = stride = 1

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.cat([-4 * x, 0 * x - 50, 0 * x - 50, 4 * x], 1)


class Sided(Pixelwise):
    """Class 3 in the left half of the picture, whatever it shows."""

    def forward(self, x):
        left = torch.where(torch.arange(x.shape[-1]) < x.shape[-1] // 2, 9.0, -9.0).expand_as(x)
        return torch.cat([0 * x, 0 * x - 50, 0 * x - 50, left], 1)


def images(count=3, size=32):
    return np.stack([heart(n, size)[0] for n in range(1, count + 1)])


def blob(height=40, width=40, y=12, x=24):
    """A smooth bright spot away from the middle, as images uint8 (1, H, W)."""
    rows, columns = np.mgrid[:height, :width]
    return (250 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 40)).astype(np.uint8)[None]


# --- views ---------------------------------------------------------------------------------------


def test_one_network_looking_once_says_what_it_says_alone(model):
    run = training.load(model)
    alone = training.probabilities(run.model, images(), run.config.scale)
    np.testing.assert_array_equal(ensemble.probabilities(Ensemble([run.model], run.config), images()), alone)


def test_several_networks_are_averaged_as_probabilities(tiny):
    nets = [Fixed(9.0, 0.0, 0.0, 0.0), Fixed(0.0, 9.0, 0.0, 0.0), Fixed(0.0, 9.0, 0.0, 0.0)]
    found = ensemble.probabilities(Ensemble(nets, tiny), images(1))
    expected = np.mean([torch.softmax(n.logits, 0).detach().numpy() for n in nets], axis=0)
    np.testing.assert_allclose(found[0, :, 5, 5], expected, rtol=1e-6)
    assert ensemble.predict(Ensemble(nets, tiny), images(1)).max() == 1


@pytest.mark.parametrize("ways", [Ways((-20.0, 0.0, 20.0)), Ways(mirror=True), Ways((15.0,), mirror=True)])
def test_an_answer_that_follows_the_picture_is_the_same_from_every_view(tiny, ways):
    once = ensemble.probabilities(Ensemble([Pixelwise()], tiny), blob())
    seen = ensemble.probabilities(Ensemble([Pixelwise()], tiny, ways), blob())
    assert once[0, 3].max() > 0.9
    assert np.abs(seen - once)[..., 6:-6, 6:-6].max() < 0.08
    np.testing.assert_allclose(seen.sum(1), 1, rtol=1e-5)


def test_a_network_that_prefers_a_side_is_told_so_by_the_mirror(tiny):
    found = ensemble.probabilities(Ensemble([Sided()], tiny, Ways(mirror=True)), images(1))
    np.testing.assert_allclose(found[0, 3], found[0, 3, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(found[0, 3].mean(), 0.5, atol=1e-3)


def test_a_mirrored_picture_is_what_the_network_sees(tiny):
    seen = []

    class Watcher(Pixelwise):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    ensemble.probabilities(Ensemble([Watcher()], tiny, Ways(mirror=True)), images(1))
    assert torch.equal(seen[1], seen[0].flip(-1)) and not torch.equal(seen[1], seen[0])


def test_a_turn_goes_against_the_clock_and_keeps_shapes():
    x = torch.zeros(1, 1, 21, 21)
    x[0, 0, 10, 18] = 1  # at three o'clock
    turned = turn(x, 90.0)
    assert turned[0, 0, 2, 10] > 0.99  # at twelve
    assert turn(x, 0.0) is x


def test_a_turn_does_not_stretch_a_slice_that_is_not_square():
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 28] = 1  # eight right of the middle
    assert turn(x, 90.0)[0, 0, 2, 20] > 0.99  # eight above


def test_progress_counts_slices(tiny):
    counted = []
    ensemble.predict(Ensemble([Fixed(1.0, 0.0, 0.0, 0.0)], tiny), images(5), batch=2, progress=counted.append)
    assert counted == [2, 2, 1]


# --- cleaning ------------------------------------------------------------------------------------


def drawn(picture):
    return np.array([[int(c) if c != "." else 0 for c in line] for line in picture.split()], np.uint8)


@pytest.mark.parametrize(("before", "after"), [
    ("11..1 11... ....1", "11... 11... ....."),  # islands of one class
    ("2222.3 2332.. 2222.3", "2222.. 2332.. 2222.."),  # of the cavity
    ("2222. 2.32. 2222.", "2222. 2332. 2222."),  # a hole in the ring
    ("222.. 2.3.. 223..", "222.. 233.. 223.."),  # wall and cavity enclose it together
    ("2222. 2.... 2222.", "2222. 2.... 2222."),  # open: nothing is enclosed
    (".22.. 2332. .22.2", ".22.. 2332. .22.2"),  # a thin wall goes on over a corner
    ("..... ..... .....", "..... ..... ....."),
])
def test_one_piece_of_each_class_and_no_hole(before, after):
    np.testing.assert_array_equal(clean(drawn(before)), drawn(after))


def test_the_right_ventricle_inside_the_ring_gives_way_but_keeps_its_other_piece():
    before = drawn("22222.. 21.32.1 22222.1")
    np.testing.assert_array_equal(clean(before), drawn("22222.. 23332.1 22222.1"))


def test_cleaning_is_done_only_where_it_is_asked_for():
    probability = np.zeros((1, 4, 1, 5), np.float32)
    for x, c in enumerate((1, 1, 0, 1, 0)):
        probability[0, c, 0, x] = 1
    assert decide(probability, False).tolist() == [[[1, 1, 0, 1, 0]]]
    assert decide(probability, True).tolist() == [[[1, 1, 0, 0, 0]]]


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path, tiny):
    """Two untrained networks in a file."""
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        runs.append(training.Run(build(tiny).eval(), tiny))
    path = tmp_path / "weights" / "two.safetensors"
    ways = Ways((-10.0, 0.0, 10.0), True, True)
    ensemble.save(path, runs, ways)
    return path, runs, ways


def test_what_was_saved_comes_back_in_half_the_size(kept, tiny):
    path, runs, ways = kept
    found = ensemble.load(path)
    assert (found.config, found.ways, len(found.models)) == (tiny, ways, 2)
    for run, model in zip(runs, found.models):
        for name, t in run.model.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], t, rtol=1e-3, atol=1e-4)
        assert not model.training
    assert path.stat().st_size < 2.5 * sum(p.numel() for r in runs for p in r.model.parameters()) + 8000
    assert {t.dtype for t in load_file(path).values()} == {torch.float16, torch.int64}
    before = ensemble.probabilities(Ensemble([r.model for r in runs], tiny, ways), images())
    np.testing.assert_allclose(ensemble.probabilities(found, images()), before, atol=0.01)


def test_the_list_of_checksums_is_what_sha256sum_checks(kept, tiny):
    path, runs, ways = kept
    ensemble.save(path.with_name("one.safetensors"), runs[:1], ways)
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split() == ["one.safetensors:", "OK", "two.safetensors:", "OK"]
    assert files_in(path.parent) == ["SHA256SUMS", "one.safetensors", "two.safetensors"]


def test_a_changed_file_is_refused_even_where_it_can_be_read(kept):
    path, _, _ = kept
    tensors = load_file(path)
    with training.safe_open(path, "pt") as file:
        notes = file.metadata()
    bias = next(name for name in tensors if name.endswith("bias"))
    tensors[bias] = tensors[bias] + 1
    save_file(tensors, path, notes)
    with pytest.raises(data.BadInput, match="SHA256SUMS"):
        ensemble.load(path)


@pytest.mark.parametrize("harm", ["cut", "text", "no notes", "deep notes", "no fields", "other network", "fewer"])
def test_a_file_without_checksum_is_still_refused_when_it_is_damaged(kept, harm):
    path, _, _ = kept
    (path.parent / "SHA256SUMS").unlink()
    tensors = load_file(path)
    with training.safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["notes"])
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif harm == "text":
        path.write_text("not a network")
    elif harm == "no notes":
        save_file(tensors, path)
    elif harm == "deep notes":
        save_file(tensors, path, {"notes": "[" * 100_000})
    elif harm == "no fields":
        save_file(tensors, path, {"notes": json.dumps(notes | {"config": []})})
    elif harm == "other network":
        notes["config"]["channels"] = [4, 8, 16]
        save_file(tensors, path, {"notes": json.dumps(notes)})
    else:
        notes["networks"] = 3
        save_file(tensors, path, {"notes": json.dumps(notes)})
    with pytest.raises(data.BadInput, match="damaged"):
        ensemble.load(path)


@pytest.mark.parametrize("change", [
    {"turns": "abc"}, {"turns": []}, {"turns": [0.0, math.inf]}, {"turns": [math.nan]}, {"turns": [10**400]},
    {"mirror": "no"}, {"clean": 1}], ids=lambda change: str(change)[:30])
def test_ways_that_are_none_are_refused(kept, change):
    path, _, _ = kept
    (path.parent / "SHA256SUMS").unlink()
    with training.safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()["notes"])
    notes["ways"] |= change
    save_file(load_file(path), path, {"notes": json.dumps(notes)})
    with pytest.raises(data.BadInput, match="damaged"):
        ensemble.load(path)


def test_weights_that_half_precision_cannot_hold_are_not_saved(tmp_path, tiny):
    run = training.Run(build(tiny), tiny)
    next(run.model.parameters()).data[:] = 1e6
    with pytest.raises(ValueError, match="half precision"):
        ensemble.save(tmp_path / "large.safetensors", [run], Ways())
    assert files_in(tmp_path) == []


def test_predict_takes_a_file_of_networks_and_delivered_names(
    kept, root, command, mistake, tmp_path, monkeypatch
):
    path, _, _ = kept
    options = ("--images", root / "test" / "image", "--out")
    assert command("predict", "--model", path, *options, tmp_path / "a").status == 0
    expected = ensemble.predict(ensemble.load(path), data.read_images(root / "test" / "image").images)
    found = data.read_masks(tmp_path / "a")
    np.testing.assert_array_equal(np.stack([found["cmr1"], found["cmr2"]]), expected)
    for module in (ensemble, runtime):
        monkeypatch.setattr(module, "WEIGHTS", path.parent)
    mistake("predict", "--model", "final", *options, tmp_path / "b", naming="final.safetensors")
    runtime.enlist(path.rename(path.with_name("final.safetensors")))
    assert command("predict", "--model", "final", *options, tmp_path / "b").status == 0
    assert hashlib.sha256((tmp_path / "a" / "cmr1_mask.png").read_bytes()).digest() == \
        hashlib.sha256((tmp_path / "b" / "cmr1_mask.png").read_bytes()).digest()


def test_slices_are_normalised_before_they_are_turned(tiny):
    """What a turn brings in from outside the picture must not change the scale of what is inside."""
    seen = []

    class Watcher(Pixelwise):
        def forward(self, x):
            seen.append(x.clone())
            return super().forward(x)

    ensemble.probabilities(Ensemble([Watcher()], tiny, Ways((30.0,))), images(1))
    torch.testing.assert_close(seen[0], turn(normalise(images(1)), 30.0))
