"""Networks as files: weights with checksums, and ONNX, where onnxruntime says what PyTorch says."""

import hashlib
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import REPOSITORY, files_in, fill, heart, raising
from onnx import TensorProto, helper
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cmrseg import checkpoint, cli, data
from cmrseg.config import TrainConfig, TrainingResult
from cmrseg.data import BadInput
from cmrseg.datasets.folders import read_images, read_masks
from cmrseg.deploy import sizes, weights
from cmrseg.deploy.export import export
from cmrseg.deploy.onnx_runner import from_onnx
from cmrseg.models import build
from cmrseg.predict import TTA, Ensemble


def hearts(count, size=32):
    return np.stack([heart(n, size)[0] for n in range(count)])


# --- files of weights ----------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path, tiny):
    """The path of a file with two untrained networks, the networks, and their views."""
    results, tta = [], TTA((-10.0, 0.0, 10.0), True, True)
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(TrainingResult(build(tiny).eval(), tiny))
    path = tmp_path / "weights" / "two.safetensors"
    weights.save_ensemble(path, results, tta)
    return path, results, tta


def test_what_was_saved_comes_back_in_half_the_size(two):
    path, results, tta = two
    ensemble = weights.load_ensemble(path)
    assert (ensemble.scale, ensemble.tta, len(ensemble.models)) == ("zscore", tta, 2)
    for result, model in zip(results, ensemble.models):
        for name, t in result.model.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], t, rtol=1e-3, atol=1e-4)
        assert not model.training
    count = sum(p.numel() for r in results for p in r.model.parameters())
    assert path.stat().st_size < 2.5 * count + 8000
    assert {t.dtype for t in load_file(path).values()} == {torch.float16, torch.int64}
    before = Ensemble([r.model for r in results], "zscore", tta).probabilities(hearts(3))
    np.testing.assert_allclose(ensemble.probabilities(hearts(3)), before, atol=0.01)


def test_the_list_of_checksums_is_what_sha256sum_checks(two):
    path, results, tta = two
    weights.save_ensemble(path.with_name("one.safetensors"), results[:1], tta)
    words = ["sha256sum", "-c", "SHA256SUMS"]
    done = subprocess.run(words, cwd=path.parent, capture_output=True, text=True)
    assert done.stdout.split() == ["one.safetensors:", "OK", "two.safetensors:", "OK"]
    assert files_in(path.parent) == ["SHA256SUMS", "one.safetensors", "two.safetensors"]


def test_a_changed_file_is_refused_even_where_it_can_be_read(two):
    path, _, _ = two
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    save_file({name: t + 1 for name, t in tensors.items()}, path, notes)
    with pytest.raises(BadInput, match="SHA256SUMS"):
        weights.load_ensemble(path)


def no_numbers(tensors, notes):
    tensors |= {n: t / 0 for n, t in tensors.items() if t.is_floating_point()}


HARMS = {
    "other network": lambda tensors, notes: notes["config"].update(channels=[4, 8, 16]),
    "no fields": lambda tensors, notes: notes.update(config=[]),
    "more networks": lambda tensors, notes: notes.update(networks=3),
    "no views": lambda tensors, notes: notes["ways"].update(turns=[]),
    "no notes": lambda tensors, notes: notes.clear(),
    "no numbers": no_numbers,
}


@pytest.mark.parametrize("harm", ["cut", *HARMS])
def test_a_file_without_checksum_is_still_refused_when_it_is_damaged(two, harm):
    path, _, _ = two
    (path.parent / "SHA256SUMS").unlink()
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["notes"])
        HARMS[harm](tensors, notes)
        save_file(tensors, path, {"notes": json.dumps(notes)})
    problems = {"no numbers": "no numbers", "cut": "damaged"}
    with pytest.raises(BadInput, match=problems.get(harm, "not an ensemble")):
        weights.load_ensemble(path)


def test_weights_that_half_precision_cannot_hold_are_not_saved(tmp_path, tiny):
    result = TrainingResult(build(tiny), tiny)
    next(result.model.parameters()).data[:] = 1e6
    with pytest.raises(ValueError, match="half precision"):
        weights.save_ensemble(tmp_path / "large.safetensors", [result], TTA())
    assert files_in(tmp_path) == []


def test_predict_takes_a_file_of_networks_and_delivered_names(
    two, root, command, mistake, tmp_path, monkeypatch
):
    path, _, _ = two
    options = ("--images", root / "test" / "image", "--out")
    assert command("predict", "--model", path, *options, tmp_path / "a").status == 0
    ensemble = weights.load_ensemble(path)
    expected = ensemble.predict(read_images(root / "test" / "image").images)
    np.testing.assert_array_equal(np.stack([*read_masks(tmp_path / "a").values()]), expected)
    monkeypatch.setattr(weights, "WEIGHTS", path.parent)
    final = path.with_name("final.safetensors")
    mistake("predict", "--model", "final", *options, tmp_path / "b", naming=final)
    path.rename(final)
    line = mistake("predict", "--model", "final", *options, tmp_path / "b", naming="SHA256SUMS")
    assert "does not list final.safetensors" in line  # what was delivered must be listed
    weights.add_checksum(final)
    assert command("predict", "--model", "final", *options, tmp_path / "b").status == 0
    np.testing.assert_array_equal(np.stack([*read_masks(tmp_path / "b").values()]), expected)


# --- ONNX ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(model, tmp_path_factory):
    """The folder of one network that cleans up, in both forms, listed with their checksums."""
    folder = tmp_path_factory.mktemp("weights")
    tta = TTA(flip=True, postprocess=True)
    weights.save_ensemble(folder / "small.safetensors", [checkpoint.load(model)], tta)
    export(weights.load_ensemble(folder / "small.safetensors"), folder / "small.onnx")
    weights.add_checksum(folder / "small.onnx")
    return folder


def ask(path, images):
    session = onnxruntime.InferenceSession(path)
    return session.run(["probability"], {"image": images[:, None].astype(np.float32)})[0]


ONE_PIXEL = np.full((1, 96, 96), 100, np.uint8)
ONE_PIXEL[0, 40, 50] = 101
IMAGES = {
    "five": hearts(5, 96),
    "33x20": hearts(1, 33)[:, :, :20],
    "200x200": hearts(1, 200),
    "black": np.zeros((2, 96, 96), np.uint8),
    "one pixel": ONE_PIXEL,
    "3x3": hearts(1, 3),
}


@pytest.mark.parametrize("images", IMAGES.values(), ids=IMAGES)
def test_onnxruntime_says_what_torch_says(small, images):
    expected = weights.load_ensemble(small / "small.safetensors").probabilities(images)
    p = ask(small / "small.onnx", images)
    assert p.shape == expected.shape
    np.testing.assert_allclose(p, expected, atol=1e-4)
    assert (p.argmax(1) == expected.argmax(1)).mean() >= 0.999


def test_onnxruntime_draws_what_pytorch_draws_and_cleans_up_only_where_it_should(small, tmp_path):
    images, ensemble = hearts(8), weights.load_ensemble(small / "small.safetensors")
    masks = from_onnx(small / "small.onnx")(images)
    assert masks.dtype == np.uint8 and masks.shape == images.shape
    assert (masks == ensemble.predict(images)).mean() > 0.999
    raw = Ensemble(ensemble.models, ensemble.scale, TTA(flip=True))
    assert (raw.predict(images) != ensemble.predict(images)).any()  # there was something to clean
    model = onnx.load(small / "small.onnx")
    model.metadata_props[0].value = "no"
    onnx.save(model, tmp_path / "raw.onnx")
    assert (from_onnx(tmp_path / "raw.onnx")(images) == raw.predict(images)).mean() > 0.999


def stored(path):
    return [onnx.numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer]


def test_weights_are_stored_in_half_precision_where_nothing_is_lost(small, tmp_path):
    floats = [w for w in stored(small / "small.onnx") if w.size > 16 and w.dtype.kind == "f"]
    assert {w.dtype for w in floats} == {np.dtype(np.float16)}
    net = torch.nn.Conv2d(1, 4, 3, padding=1)
    net.multiple = net.stride = 1
    ensemble = Ensemble([net], "zscore", TTA())
    export(ensemble, tmp_path / "run.onnx")
    assert onnx.load(tmp_path / "run.onnx").metadata_props[0].value == "no"  # to clean up
    expected = ensemble.probabilities(hearts(3))
    np.testing.assert_allclose(ask(tmp_path / "run.onnx", hearts(3)), expected, atol=1e-5)
    assert any(w.dtype == np.float32 and w.size > 16 for w in stored(tmp_path / "run.onnx"))


def test_it_is_one_file_and_names_no_path(small):
    assert files_in(small) == ["SHA256SUMS", "small.onnx", "small.safetensors"]
    content = (small / "small.onnx").read_bytes()
    for word in (str(REPOSITORY), "site-packages", "/cmrseg/", ".py"):
        assert word.encode() not in content, word


EXPORTED = {
    "report's U-Net": ({"skips": "after", "scale": "raw"}, TTA()),
    "SegNet": ({"model": "segnet", "channels": (4, 8, 8)}, TTA()),
    "AlexNet": ({"model": "alexnet", "channels": (4, 8, 8, 8, 8, 16)}, TTA()),
    "Ning": ({"model": "ning", "channels": (4, 8, 8)}, TTA()),
    "final": ({"model": "final", "residual": True, "deep": 1}, TTA()),
    "sprint": ({"model": "sprint"}, TTA()),
    "turned": ({}, TTA((0.0, 10.0, -10.0), flip=True)),
}


@pytest.mark.slow
@pytest.mark.parametrize("change, tta", EXPORTED.values(), ids=EXPORTED)
def test_every_network_and_every_view_can_be_exported(change, tta, tmp_path):
    config = TrainConfig(**({"channels": (4, 8)} | change))
    ensemble = Ensemble([build(config).eval()], config.scale, tta)
    export(ensemble, tmp_path / "net.onnx")
    for size in (96, 50):
        images = hearts(3, size)[:, : size - 5]
        expected = ensemble.probabilities(images)
        np.testing.assert_allclose(ask(tmp_path / "net.onnx", images), expected, atol=1e-3)


def test_the_command_export(command, mistake, model, tmp_path, monkeypatch):
    words = ("export", "--model", model, "--out")
    none = tmp_path / "none"
    mistake("export", "--model", none, "--out", tmp_path / "x.onnx", naming=none)
    mistake(*words, tmp_path, naming=tmp_path)
    write = lambda _, out: out.write_bytes(b"1")  # noqa: E731
    monkeypatch.setattr("cmrseg.deploy.export.export", write)
    done = command(*words, tmp_path / "x.onnx")
    assert done.status == 0 and str(tmp_path / "x.onnx") in done.out
    assert sizes.read_size(str(tmp_path / "x.onnx")) == {"pixels": [32, 32], "spacing_mm": None}
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    mistake(*words, tmp_path / "x.onnx", naming="pip install")


# --- prediction without PyTorch ------------------------------------------------------------------


LOADED = """import sys
from cmrseg import cli
try:
    cli.main()
finally:
    print(sorted({'torch', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)))
"""


def test_a_file_for_onnxruntime_needs_no_pytorch(small, root, tmp_path):
    images, masks = root / "train" / "image", tmp_path / "masks"
    words = ["predict", "--model", small / "small.onnx", "--images", images, "--out", masks]
    options = {"text": True, "capture_output": True, "cwd": REPOSITORY}
    done = subprocess.run([sys.executable, "-c", LOADED, *words], **options)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done
    assert len(read_masks(masks)) == 8


def test_a_delivered_network_is_run_by_onnxruntime_where_its_file_lies(small, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", small)
    expected = weights.load_ensemble(small / "small.safetensors").predict(hearts(3))
    with monkeypatch.context() as patch:
        patch.delattr(weights, "find_ensemble")
        np.testing.assert_array_equal(weights.find("small")(hearts(3)), expected)
    monkeypatch.setattr(weights, "find_spec", lambda name: None)  # not installed: PyTorch does it
    np.testing.assert_array_equal(weights.find("small")(hearts(3)), expected)
    with pytest.raises(BadInput, match=r"onnxruntime.*pip install"):
        weights.find(str(small / "small.onnx"))
    with pytest.raises(BadInput, match=r"final\.safetensors: no such file"):
        weights.find("final")


@pytest.mark.parametrize("problem", [
    RuntimeError("[ONNXRuntimeError] : 1 : FAIL : Unsupported model IR version: 99, max 9"),
    RuntimeError("pthread_create failed: Resource temporarily unavailable"),
    ImportError("DLL load failed while importing onnxruntime_pybind11_state"),
    MemoryError(),
])  # fmt: skip
def test_pytorch_does_what_onnxruntime_cannot(problem, command, mistake, tmp_path, monkeypatch):
    """Case O1: a runtime older than the format of the file."""
    monkeypatch.setattr("onnxruntime.InferenceSession", raising(problem))
    images = fill(tmp_path, {"test": range(1, 3)}, 96) / "test" / "image"
    words = ("predict", "--images", images, "--out", tmp_path / "out", "--model")
    done = command(*words, "small")
    assert done.status == 0 and "warning" in done.err and "damaged" not in done.err
    own = shutil.copy(weights.WEIGHTS / "small.onnx", tmp_path / "net.onnx")
    assert "damaged" not in mistake(*words, own, naming=str(problem)[:40])


def one_node(path, *nodes):
    """A file of these nodes from image to probability, noted as one of ours."""
    ends = ("image", "probability")
    shape = ["n", "c", "h", "w"]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ends]
    graph = helper.make_graph(nodes, "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="clean", value="no")
    onnx.save(model, path)


def no_note(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


node = helper.make_node
NAN = [node("Div", ["image", "image"], ["bad"])]  # 0 / 0
NAN += [node("Concat", ["bad"] * 4, ["probability"], axis=1)]
NO_NETWORK = {
    "missing": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "text": lambda path: path.write_bytes(b"a network"),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no note": no_note,
    "no numbers": lambda path: one_node(path, *NAN),
    "one class": lambda path: one_node(path, node("Identity", ["image"], ["probability"])),
}


@pytest.mark.parametrize("harm", NO_NETWORK.values(), ids=NO_NETWORK)
def test_what_is_no_network_is_refused(harm, small, tmp_path, mistake, root):
    path = shutil.copy(small / "small.onnx", tmp_path / "net.onnx")
    harm(path)
    images, out = root / "test" / "image", tmp_path / "out"
    mistake("predict", "--model", path, "--images", images, "--out", out, naming=path)


LISTS = [
    (b"\n", "is not a list"),
    (b"\xff\xfe", "is not a list"),
    (b"0" * 64 + b"  net.onnx\n\n", "is not a list"),
    (b"0" * 63 + b"  net.onnx\n", "is not a list"),
    (b"0" * 64 + b" *net.onnx\n", "is not the file"),
    (b"0" * 64 + b"  net.onnx\r\n", "is not the file"),
]


@pytest.mark.parametrize("lines, word", LISTS)
def test_a_list_of_checksums_that_is_none_or_another_is_refused(lines, word, small, tmp_path):
    path = shutil.copy(small / "small.onnx", tmp_path / "net.onnx")
    (tmp_path / "SHA256SUMS").write_bytes(lines)
    with pytest.raises(BadInput, match=word):
        weights.find(str(path))
    with pytest.raises(BadInput) if "list" in word else nullcontext():  # nor is it added to
        weights.add_checksum(path)


def test_a_file_may_be_listed_in_binary_mode_or_not_at_all(small, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    path = shutil.copy(small / "small.onnx", tmp_path / "my net.onnx")
    weights.verify(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(
        f"{'0' * 64}  two  words\n{digest} *my net.onnx\n", encoding="utf-8"
    )
    weights.verify(path)


# --- many slices ---------------------------------------------------------------------------------


def test_slices_are_predicted_a_few_at_a_time_and_large_ones_alone(tmp_path, command, monkeypatch):
    counts = []

    def network(images):
        counts.append(len(images))
        return images // 64

    monkeypatch.setattr(cli, "AT_ONCE", 4)
    monkeypatch.setattr(cli, "PIXELS_AT_ONCE", 2 * 64 * 64)
    monkeypatch.setattr(weights, "find", lambda *_: network)
    for size, expected in ((32, [4, 1]), (64, [2, 2, 1]), (128, [1] * 5)):
        fill(tmp_path / f"{size}", {"test": range(1, 6)}, size)
        images, masks = tmp_path / f"{size}" / "test" / "image", tmp_path / f"{size}" / "masks"
        done = command("predict", "--model", "small", "--images", images, "--out", masks)
        assert done.status == 0 and "5 masks" in done.out and counts == expected
        for name, mask in read_masks(masks).items():
            np.testing.assert_array_equal(mask, heart(int(name[3:]), size)[0] // 64)
        counts.clear()


def test_a_bad_slice_at_the_end_is_found_before_any_mask_is_written(small, tmp_path, mistake):
    fill(tmp_path, {"test": range(1, 7)})
    bad, out = tmp_path / "test" / "image" / "cmr6.png", tmp_path / "out"
    words = ("predict", "--model", small / "small.onnx", "--images", bad.parent, "--out", out)
    for spoil in (lambda: data.write_png(bad, heart(6, 40)[0]), lambda: bad.write_bytes(b"no PNG")):
        spoil()
        mistake(*words, naming=bad)
        assert not out.exists()
