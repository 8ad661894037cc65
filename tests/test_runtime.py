"""Prediction without PyTorch, a few slices at a time.

What makes each test fail (each was seen to fail), in cmrseg/runtime.py unless said otherwise:

- agreement: in from_onnx(), ``cleaned`` -> ``False``; in export(), note the opposite of ``ways.clean``
- no PyTorch: import cmrseg.ensemble at the head of the file
- refusals: drop the trial of a network; drop ``verify``; drop ``isfinite``
- lists: in LISTED, `` [ *]`` -> two blanks, or `` +``; in _sums(), ``raise ...`` -> ``continue``; in verify(),
  ``expected is None`` -> ``False``, or drop ``path.stem in DELIVERED and``
- delivered: in find(), ``file.is_file() or`` dropped; ``f"{model}.onnx"`` -> ``f"{model}.on"``
- a few at a time: in cli.predict(), ``start + AT_ONCE`` -> ``start + AT_ONCE - 1``; zip with ``numbers``
- memory: in cli.predict(), keep the masks in a list (slow)
"""

import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import onnx
import pytest
from conftest import REPOSITORY, fill, heart
from onnx import TensorProto, helper

from cmrseg import cli, data, ensemble, export, runtime, training
from cmrseg.ensemble import Ensemble, Ways


@pytest.fixture(scope="module")
def kept(model, tmp_path_factory):
    """small.safetensors and small.onnx of one network that cleans up, listed with their checksums."""
    folder = tmp_path_factory.mktemp("weights")
    ensemble.save(folder / "small.safetensors", [training.load(model)], Ways(mirror=True, clean=True))
    export.export(ensemble.load(folder / "small.safetensors"), folder / "small.onnx")
    runtime.enlist(folder / "small.onnx")
    return folder


def hearts(count, size=32):
    return np.stack([heart(n, size)[0] for n in range(count)])


def test_onnxruntime_draws_what_pytorch_draws_and_cleans_up_too(kept):
    images = hearts(8)
    networks = ensemble.load(kept / "small.safetensors")
    found, expected = runtime.from_onnx(kept / "small.onnx")(images), ensemble.predict(networks, images)
    assert found.dtype == np.uint8 and found.shape == images.shape
    assert (found == expected).mean() > 0.999
    as_it_is = Ensemble(networks.models, networks.config, Ways(mirror=True))
    assert (ensemble.predict(as_it_is, images) != expected).any()  # there was something to clean up
    export.export(as_it_is, kept.parent / "raw.onnx")
    raw = runtime.from_onnx(kept.parent / "raw.onnx")(images)
    assert (raw == ensemble.predict(as_it_is, images)).mean() > 0.999


def test_a_file_for_onnxruntime_needs_no_pytorch(kept, root, tmp_path):
    code = ("import sys\nfrom cmrseg import cli\ntry:\n    cli.main()\nfinally:\n"
            "    print(sorted({'torch', 'pandas', 'matplotlib'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code, "predict", "--model", kept / "small.onnx", "--images",
                           root / "train" / "image", "--out", tmp_path / "masks"], text=True,
                          capture_output=True, cwd=REPOSITORY)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done
    assert len(data.read_masks(tmp_path / "masks")) == 8


def test_a_delivered_network_is_run_by_onnxruntime_where_its_file_lies(kept, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "WEIGHTS", kept)
    monkeypatch.setattr(ensemble, "WEIGHTS", kept)
    images, looked = hearts(3), []
    expected = ensemble.predict(ensemble.load(kept / "small.safetensors"), images)
    monkeypatch.setattr(ensemble, "predict", lambda networks, x: looked.append(len(x)) or expected)
    np.testing.assert_array_equal(runtime.find("small")(images), expected)
    assert not looked
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)  # not installed: PyTorch does it
    np.testing.assert_array_equal(runtime.find("small")(images), expected)
    assert looked == [3]
    with pytest.raises(data.BadInput, match=r"onnxruntime.*pip install"):
        runtime.find(str(kept / "small.onnx"))
    with pytest.raises(data.BadInput, match=r"final\.safetensors: no such file"):
        runtime.find("final")


def a_graph(path, operation, **attributes):
    """A file whose graph is a single operation from image to probability, noted as one of ours."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", "c", "h", "w"])
             for n in ("image", "probability")]
    node = helper.make_node(operation, ["image"], ["probability"], **attributes)
    model = helper.make_model(helper.make_graph([node], "g", value[:1], value[1:]),
                              opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="clean", value="no")
    onnx.save(model, path)


@pytest.mark.parametrize("bad", ["missing", "folder", "empty", "text", "half", "no note", "one class", "nan",
                                 "edited"])
def test_what_is_no_network_is_refused(kept, bad, tmp_path, mistake, root):
    path = tmp_path / "net.onnx"
    whole = (kept / "small.onnx").read_bytes()
    if bad == "folder":
        path.mkdir()
    elif bad in ("empty", "text", "half"):
        path.write_bytes({"empty": b"", "text": b"a network", "half": whole[: len(whole) // 2]}[bad])
    elif bad == "no note":
        model = onnx.load(kept / "small.onnx")
        del model.metadata_props[:]
        onnx.save(model, path)
    elif bad == "one class":
        a_graph(path, "Identity")
    elif bad == "nan":
        a_graph(path, "Concat", axis=1)
        model = onnx.load(path)
        model.graph.node[0].input[:] = ["bad"] * 4
        model.graph.node.insert(0, helper.make_node("Div", ["image", "image"], ["bad"]))  # 0 / 0
        onnx.save(model, path)
    elif bad == "edited":
        (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  net.onnx\n")
        path.write_bytes(whole)
    mistake("predict", "--model", path, "--images", root / "test" / "image", "--out", tmp_path / "out",
            naming=path)


@pytest.mark.parametrize(("lines", "word"), [
    (b"\n", "is not a list"), (b"word\n", "is not a list"), (b"\xff\xfe", "is not a list"),
    (b"0" * 64 + b"  net.onnx\n\n", "is not a list"), (b"0" * 63 + b"  net.onnx\n", "is not a list"),
    (b"0" * 64 + b" *net.onnx\n", "is not the file"), (b"0" * 64 + b"  net.onnx\r\n", "is not the file"),
])
def test_a_list_of_checksums_that_is_none_or_of_another_file_is_refused(
    lines, word, kept, tmp_path, mistake, root
):
    shutil.copy(kept / "small.onnx", tmp_path / "net.onnx")
    (tmp_path / "SHA256SUMS").write_bytes(lines)
    words = ("predict", "--model", tmp_path / "net.onnx", "--images", root / "test" / "image", "--out")
    assert word in mistake(*words, tmp_path / "out", naming=tmp_path)
    with pytest.raises(data.BadInput) if "list" in word else nullcontext():  # nor is it added to
        runtime.enlist(tmp_path / "net.onnx")


def test_a_file_may_be_listed_in_binary_mode_and_among_others(kept, tmp_path):
    shutil.copy(kept / "small.onnx", tmp_path / "my net.onnx")
    digest = hashlib.sha256((kept / "small.onnx").read_bytes()).hexdigest()
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  two  words\n{digest} *my net.onnx\n")
    runtime.from_onnx(tmp_path / "my net.onnx")


@pytest.mark.parametrize("lines", [None, "", f"{'0' * 64}  final.safetensors\n"])
def test_what_was_delivered_must_be_listed_and_what_lies_beside_it_need_not(
    lines, kept, tmp_path, monkeypatch, mistake, root
):
    monkeypatch.setattr(runtime, "WEIGHTS", tmp_path)
    for name in ("small.onnx", "mine.onnx"):
        shutil.copy(kept / "small.onnx", tmp_path / name)
    if lines is not None:
        (tmp_path / "SHA256SUMS").write_text(lines)
    runtime.from_onnx(tmp_path / "mine.onnx")
    assert "does not list small.onnx" in mistake(
        "predict", "--model", "small", "--images", root / "test" / "image", "--out", tmp_path / "out",
        naming=tmp_path / "SHA256SUMS")


def test_a_folder_is_predicted_a_few_slices_at_a_time(kept, tmp_path, command, monkeypatch):
    fill(tmp_path, {"test": range(1, 12)})
    monkeypatch.setattr(cli, "AT_ONCE", 4)
    seen, network = [], runtime.from_onnx(kept / "small.onnx")
    monkeypatch.setattr(runtime, "find", lambda name: lambda x: seen.append(len(x)) or network(x))
    done = command("predict", "--model", "small", "--images", tmp_path / "test" / "image", "--out",
                   tmp_path / "masks")
    assert done.status == 0 and "11 masks" in done.out and seen == [4, 4, 3]
    found = data.read_masks(tmp_path / "masks")
    for number, mask in found.items():
        np.testing.assert_array_equal(mask, network(heart(int(number[3:]))[0][None])[0])


def test_a_bad_slice_at_the_end_is_found_before_any_mask_is_written(kept, tmp_path, mistake, monkeypatch):
    fill(tmp_path, {"test": range(1, 7)})
    monkeypatch.setattr(cli, "AT_ONCE", 2)
    bad = tmp_path / "test" / "image" / "cmr6.png"
    for spoil in (lambda: data.write_png(bad, heart(6, 40)[0]), lambda: bad.write_bytes(b"no PNG")):
        spoil()
        mistake("predict", "--model", kept / "small.onnx", "--images", bad.parent, "--out", tmp_path / "out",
                naming=bad)
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ten_thousand_slices_need_no_more_memory_than_some_hundred(kept, tmp_path):
    names = [tmp_path / "images" / f"cmr{n}.png" for n in range(1, 10_001)]
    names[0].parent.mkdir()
    for name, content in zip(names, range(10_000)):
        if content < 50:
            data.write_png(name, heart(content, 96)[0])
        else:
            os.link(names[content % 50], name)
    # A child counts what its parent held when it was made, so its parent must be small.
    parent = ("import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", parent, sys.executable, "-m", "cmrseg", "predict", "--model",
                           kept / "small.onnx", "--images", names[0].parent, "--out", tmp_path / "masks"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and len(list((tmp_path / "masks").iterdir())) == 10_000
    most = int(done.stdout.splitlines()[-1]) / 1024
    assert 50 < most < 400
