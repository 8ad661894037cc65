"""The command line: from a folder of slices to a submission, and what it answers to mistakes."""

import json
import os
import pickle
import shutil
import tracemalloc

import numpy as np
import pytest
import torch
from conftest import files_in, fill, instead, linux
from safetensors.torch import load_file

from cmrseg import checkpoint, datasets
from cmrseg.checkpoint import CHECKPOINT, MODEL
from cmrseg.data import write_png
from cmrseg.datasets.folders import read_masks
from cmrseg.losses import LOSSES
from cmrseg.metrics import METRICS

COMMANDS = [
    "data",
    "train",
    "predict",
    "evaluate",
    "submit",
    "decode",
    "doctor",
    "export",
    "convert",
]


# --- the way through -----------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_from_slices_to_a_submission_and_back(root, command, tmp_path):
    """Case D2: a slice keeps the name of its file, with zeros before its number."""
    run, masks, back = tmp_path / "runs" / "first", tmp_path / "masks", tmp_path / "back"
    options = ("--preset", "modern", "--epochs", 3, "--seed", 4, "--threads", 1)
    done = command("train", "--data", root, "--out", run, *options)
    assert done.status == 0, done.err
    assert "validation Dice" in done.out and "epoch 3/3 loss" in done.err
    assert files_in(run) == ["config.json", MODEL, "model.size.json", "record.json"]
    assert len({(run / name).stat().st_mode for name in files_in(run)}) == 1
    config, record = (
        json.loads((run / f"{n}.json").read_text(encoding="utf-8")) for n in ("config", "record")
    )
    assert (config["epochs"], config["seed"]) == (3, 4) and record["config"] == config
    assert record["precision"] == "fp32" and record["split"] == "val"
    assert record["images"]["name"] == ["cmr3", "cmr4"] and {*METRICS} < {*record["images"]}
    assert record["fingerprint"] == datasets.load(root, "labelled").fingerprint

    images = root / "val/image"
    for path in list(images.iterdir()):
        path.rename(images / f"cmr00{path.stem[3:]}.png")
    (images / "cmr009.tif").write_bytes(b"II*")
    done = command("predict", "--model", run, "--images", images, "--out", masks)
    assert done.status == 0 and "cmr009.tif: is not a PNG and is ignored" in done.err
    assert files_in(masks) == ["cmr003_mask.png", "cmr004_mask.png"]
    path = tmp_path / "new" / "s.csv"
    assert command("submit", "--masks", masks, "--out", path).status == 0
    ids = [line.split(",")[0] for line in path.read_text(encoding="utf-8").splitlines()]
    assert ids == ["id", *(f"cmr00{n}_mask{c}" for n in (3, 4) for c in (1, 2, 3))]
    done = command("decode", "--submission", path, "--out", back, "--size", "32x32")
    assert done.status == 0 and files_in(back) == files_in(masks)
    for name in files_in(masks):
        assert (back / name).read_bytes() == (masks / name).read_bytes()
    done = command("evaluate", "--pred", masks, "--truth", root / "val/mask", "--json")
    assert json.loads(done.out)["images"] == 2  # paired by number


def test_evaluate_as_json_has_plain_numbers_in_the_agreed_shape(tmp_path, command):
    """Two slices, 4 x 1 pixels. RV: Dice 2*1/(2+1) = 2/3 and 0. Myo: 1 and absent from both, so
    left out. LV: absent everywhere. Mean of the classes there: (1/3 + 1) / 2 = 2/3."""
    truth, pred = [[1, 1, 2, 0], [1, 0, 0, 0]], [[1, 0, 2, 0], [0, 1, 0, 0]]
    for folder, rows in {"truth": truth, "pred": pred}.items():
        (tmp_path / folder).mkdir()
        for number, row in enumerate(rows, start=9):  # 9 and 10: ordered by number
            path = tmp_path / folder / f"cmr{number}_mask.png"
            write_png(path, np.array([row], np.uint8))
    words = ("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth")
    summary = json.loads(command(*words, "--json").out, parse_constant=pytest.fail)
    assert list(summary) == ["images", "dice", "interval", "absent", "metrics"]
    assert "compared with itself" in command(*words[:3], "--truth", tmp_path / "pred").err
    means = {"RV": pytest.approx(1 / 3), "Myo": 1, "LV": None}
    assert summary["images"] == 2 and summary["dice"] == means | {"mean": pytest.approx(2 / 3)}
    assert summary["absent"] == {"RV": 0, "Myo": 1, "LV": 2} and summary["interval"]["LV"] is None
    for name in ("RV", "Myo", "mean"):
        low, high = summary["interval"][name]
        assert 0 <= low <= summary["dice"][name] <= high <= 1
    assert list(summary["metrics"]) == [*METRICS] and summary["metrics"]["dice"] == means
    lines = command(*words).out.splitlines()
    assert lines[0] == "2 slices of 2 patients" and "0.3333  [" in lines[1]
    assert "1 left out" in lines[2] and "in no mask" in lines[3] and "2 left out" in lines[3]


# --- mistakes: masks and submissions -------------------------------------------------------------


@pytest.mark.parametrize("side", ["pred", "truth"])
def test_evaluate_wants_the_same_slices_on_both_sides_and_one_size(side, root, mistake, tmp_path):
    folders = {name: tmp_path / name for name in ("pred", "truth")}
    for folder in folders.values():
        shutil.copytree(root / "train" / "mask", folder)
    words = [f"--{name}={folder}" for name, folder in folders.items()]
    lost = folders[side] / "cmr7_mask.png"
    lost.unlink()
    mistake("evaluate", *words, naming=lost)
    small = fill(tmp_path / "small", size=16) / "train" / "mask"
    line = mistake("evaluate", "--pred", small, "--truth", root / "train/mask", naming=small)
    assert "16 x 16" in line and "32 x 32" in line


GOOD = [f"cmr{n}_mask{c},{5 * c} 2" for n in (1, 2) for c in (1, 2, 3)]


def submission(path, rows, header="id,encoding"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_submission_may_have_a_byte_order_mark_and_dos_lines(tmp_path, command):
    path = tmp_path / "s.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["id,encoding", *GOOD, ""]).encode())
    assert command("decode", "--submission", path, "--out", tmp_path / "out").status == 0
    for mask in read_masks(tmp_path / "out").values():
        assert mask.shape == (96, 96)
        assert mask[:16, 0].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 2, 2, 0, 0, 0, 3, 3]
    command("decode", "--submission", path, "--out", tmp_path / "small", "--size", "20x10")
    assert read_masks(tmp_path / "small")["cmr1"].shape == (10, 20)  # width by height


LAST_ROWS = [
    "cmr2_mask3,10 2",  # a pixel of two classes
    "cmr2_mask3,9216 2",  # past the end
    "cmr2_mask3," + "9" * 5000 + " 1",
    "../../cmr2_mask3,20 1",
    f"cmr{'2' * 5000}_mask3,20 1",
    "cmr2_mask3\0,20 1",
    "cmr2_mask4,20 1",
    "cmr2_mask3,20 1,7",
    "cmr2_mask3",
]
WRONG = [([*GOOD[:5], row], "line 7") for row in LAST_ROWS]
WRONG += [
    ([*GOOD, "cmr2_mask2,50 2"], "line 8: repeats cmr2_mask2"),
    ([*GOOD, *(row.replace("cmr2", "cmr02") for row in GOOD[3:])], "cmr"),  # one number twice
    (GOOD[:5], "cmr2_mask3"),  # a row is missing
    ([], ""),
]


@pytest.mark.parametrize("rows, word", WRONG)
def test_a_wrong_submission_gets_one_line_and_no_masks(rows, word, tmp_path, mistake):
    path = submission(tmp_path / "s.csv", rows)
    words = ("decode", "--out", tmp_path / "out", "--submission")
    line = mistake(*words, path, naming=path)
    assert word in line and len(line) < 1000
    path.write_bytes(b"\xff\xfe\0")
    mistake(*words, path, naming=path)
    mistake(*words, tmp_path / "none.csv", naming=tmp_path / "none.csv")
    assert os.listdir(tmp_path) == ["s.csv"]


def test_a_wrong_size_is_refused(tmp_path, mistake):
    path = submission(tmp_path / "s.csv", GOOD)
    for size in ("96", "0x96", "-1x5", "axb", "9x9x9", "1e3x5", "99999x1"):
        words = ("decode", "--submission", path, "--out", tmp_path / "out", "--size", size)
        mistake(*words, naming="size")
    assert os.listdir(tmp_path) == ["s.csv"]


# --- mistakes: networks --------------------------------------------------------------------------


def put(content):
    return lambda path: path.write_bytes(content)


def fields(**values):
    return lambda path: path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8"
    )


def tensors(change):
    """A change of each tensor with a fraction, by its name and value."""

    def harm(path):
        state = load_file(path).items()
        changed = {n: change(n, t) if t.is_floating_point() else t for n, t in state}
        checkpoint.save_tensors(path, changed, {})

    return harm


class Trap:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def pickled(path):
    path.write_bytes(pickle.dumps(Trap(f"{path}.opened")))


HARMS = {
    "config.json": {
        "none": lambda path: path.unlink(),
        "torn": put(b'{"model": "un'),
        "deep": put(b"[" * 100_000),
        "a pipe": instead(os.mkfifo),
        "endless": instead(lambda path: path.symlink_to("/dev/zero")),
        "a folder": instead(os.mkdir),
        "an unknown field": fields(attention=True),
        "an unknown model": fields(model="segnet-9"),
        "an unknown activation": fields(activation="swish"),
        "an unknown scale": fields(scale="minmax"),
        "no channels": fields(channels=[]),
        "other channels": fields(channels=[4, 16]),
        "channels without end": fields(channels=[4, 10**9]),
        "convolutions without end": fields(convolutions=10**9),
    },
    MODEL: {
        "none": lambda path: path.unlink(),
        "torn": lambda path: path.write_bytes(path.read_bytes()[:-9]),
        "a pickle": pickled,
        "no numbers": tensors(lambda name, t: t * np.nan),
        "infinite": tensors(lambda name, t: t / 0),
        "complex": tensors(lambda name, t: t.to(torch.complex64)),
        "whole": tensors(lambda name, t: t.to(torch.int32)),
        "leading to no numbers": tensors(lambda name, t: t * 0 + 3e38),
        "a negative variance": tensors(lambda name, t: -t if "running_var" in name else t),
        "three classes": tensors(lambda name, t: t[:3] if "head" in name else t),
    },
}
CASES = [(file, harm) for file, harms in HARMS.items() for harm in harms]


@pytest.mark.parametrize("file, harm", CASES)
def test_a_wrong_network_gets_one_line_and_no_masks(file, harm, model, root, mistake, tmp_path):
    run = shutil.copytree(model, tmp_path / "run")
    HARMS[file][harm](run / file)
    words = ("predict", "--images", root / "test/image", "--out", tmp_path / "out", "--model")
    mistake(*words, run, naming=run)
    mistake(*words, tmp_path / "none", naming=tmp_path / "none")
    assert os.listdir(tmp_path) == ["run"] and len(files_in(run)) <= 3


@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize(
    "name", [CHECKPOINT, MODEL, "config.json", "record.json", "net.onnx", "net.safetensors"]
)
def test_a_network_or_record_that_may_not_be_read_is_not_called_damaged(
    name, root, model, mistake, deny, tmp_path
):
    run = shutil.copytree(model, tmp_path / "run")
    file, images = run / name, root / "test" / "image"
    file.touch()
    words = ("predict", "--images", images, "--out", tmp_path / "masks", "--model")
    words += (file if name.startswith("net") else run,)
    if name in (CHECKPOINT, "record.json"):
        words = ("train", "--data", root, "--epochs", 8, "--out", run, "--resume")
    if name == CHECKPOINT:
        (run / MODEL).unlink()
    deny("read_bytes", file)
    deny("open", file)
    line = mistake(*words, naming=file)
    assert "ermission" in line and "damaged" not in line and "emove" not in line


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors", "model"])
def test_a_pickle_is_refused_unopened(name, root, mistake, tmp_path):
    pickled(tmp_path / name)
    words = ("predict", "--images", root / "test/image", "--out", tmp_path / "out", "--model")
    line = mistake(*words, tmp_path / name, naming=name)
    assert ("is damaged" if name.endswith(".safetensors") else "can run code") in line
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["net", "net.pt", "net.ONNX", "net.safetensors", "net.onnx.bak"])
def test_export_asks_for_the_ending_by_which_predict_knows_a_file(name, model, mistake, tmp_path):
    """Case E1: predict would take a file without an ending for a pickle."""
    words = ("export", "--model", model, "--out", tmp_path / name)
    assert f"{name}.onnx" in mistake(*words, naming=tmp_path / name)
    assert files_in(tmp_path) == []


def test_a_folder_may_be_called_as_it_likes(model, root, command, tmp_path):
    for name in ("run.onnx", "run.safetensors", "run.pt"):
        run, out = shutil.copytree(model, tmp_path / name), tmp_path / f"{name}-masks"
        done = command("predict", "--model", run, "--images", root / "test/image", "--out", out)
        assert done.status == 0 and len(files_in(out)) == 2


# --- mistakes: too much at once -------------------------------------------------------------------


def test_a_submission_is_decoded_mask_by_mask(tmp_path, command):
    rows = [f"cmr{n}_mask{c},{5 * c} 2" for n in range(1, 41) for c in (1, 2, 3)]
    path, out = submission(tmp_path / "s.csv", rows), tmp_path / "out"
    tracemalloc.start()
    done = command("decode", "--submission", path, "--out", out, "--size", "1000x1000")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.status == 0 and len(files_in(out)) == 40 and most < 20e6


# --- mistakes: where to write --------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_a_run_is_not_overwritten(root, command, mistake, tmp_path):
    run, other = tmp_path / "run", fill(tmp_path / "other", size=64)
    words = ("train", "--out", run, "--data")
    run.mkdir()
    (run / CHECKPOINT).write_bytes(b"epochs of work")
    assert "--resume" in mistake(*words, root, naming=run)
    assert "damaged" in mistake(*words, root, "--resume", naming=CHECKPOINT)
    assert (run / CHECKPOINT).read_bytes() == b"epochs of work"
    (run / CHECKPOINT).unlink()
    assert command(*words, root).status == 0
    before = {name: (run / name).read_bytes() for name in files_in(run)}
    mistake(*words, root, naming=run)
    done = command(*words, root, "--resume")
    assert done.status == 0 and "finished" in done.out
    assert "seed" in mistake(*words, root, "--resume", "--seed", 9, naming=run)
    assert "slices" in mistake(*words, other, "--resume", naming=run)
    assert {name: (run / name).read_bytes() for name in files_in(run)} == before
    no_end = (os.mkfifo, lambda path: path.symlink_to("/dev/zero"))  # that one could wait for
    for harm in (put(b'{"seed": '), *map(instead, no_end)):
        harm(run / "record.json")
        assert "another --out" in mistake(*words, root, "--resume", naming="record.json")


@pytest.mark.usefixtures("tiny_presets")
def test_a_finished_run_in_another_precision_is_said_to_be(root, command, tmp_path):
    words = ("train", "--data", root, "--out", tmp_path / "run")
    assert command(*words, "--precision", "bf16").status == 0
    assert "bf16" in command(*words, "--resume").err
    assert "warning" not in command(*words, "--resume", "--precision", "bf16").err


def test_masks_go_neither_among_others_nor_among_images(root, model, mistake, command, tmp_path):
    out, images = tmp_path / "masks", root / "test" / "image"
    words = ("predict", "--model", model, "--images")
    for _ in range(2):  # the same slices again may be replaced
        assert command(*words, root / "val/image", "--out", out).status == 0
    before = files_in(out)
    mistake(*words, images, "--out", out, naming=before[0])
    mistake(*words, images, "--out", images, naming=images)
    assert files_in(out) == before and files_in(images) == ["cmr1.png", "cmr2.png"]


@pytest.mark.usefixtures("tiny_presets")
def test_an_out_that_is_a_file_or_below_one_is_named(root, model, mistake, tmp_path):
    file, path = tmp_path / "file", submission(tmp_path / "s.csv", GOOD)
    file.write_text("mine", encoding="utf-8")
    for out in (file, file / "below"):
        images = root / "test/image"
        mistake("train", "--data", root, "--out", out, naming=file)
        mistake("predict", "--model", model, "--images", images, "--out", out, naming=file)
        mistake("decode", "--submission", path, "--out", out, naming=file)
        mistake("data", "--source", "phantom", "--out", out, naming=file)
    mistake("submit", "--masks", root / "val/mask", "--out", file / "s.csv", naming=file)
    mistake("submit", "--masks", root / "val/mask", "--out", tmp_path, naming=tmp_path)
    assert file.read_text(encoding="utf-8") == "mine" and sorted(os.listdir(tmp_path)) == [
        "file",
        "s.csv",
    ]


@linux
def test_a_name_that_is_no_text_is_shown_as_far_as_it_goes(root, command, tmp_path):
    odd = root.rename(tmp_path / os.fsdecode(b"b\xff"))
    done = command("doctor", odd)
    assert done.status == 0 and done.out.endswith(f"0 warnings in {tmp_path}/b\\udcff\n")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    out = tmp_path / "file" / odd.name / "s.csv"
    done = command("submit", "--masks", odd / "val/mask", "--out", out)
    assert done.status == 2 and "file/b\\udcff: Not a directory" in done.err


# --- the parser ----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--help",), *((name, "--help") for name in COMMANDS)])
def test_help_exits_with_zero(words, command):
    done = command(*words)
    assert done.status == 0 and "Usage" in done.out and not done.err
    if len(words) == 2:
        assert f"Example: python -m cmrseg {words[0]} " in done.out
    else:
        assert all(name in done.out for name in COMMANDS)


WRONG_OPTIONS = {
    "fly": "fly",
    "sweep all": "python -m cmrtrial sweep",
    "train --fast": "--fast",
    "train": "--out",
    "train --out x --preset best": "best",
    "train --out x --epochs 0": "--epochs",
    "train --out x --seed -1": "--seed",
    f"train --out x --seed {'9' * 30} --data phantom": "--seed",
    "train --out x --threads 0": "--threads",
    "train --out x --threads 99999": "--threads",
    "train --out x --precision auto": "auto",
    "data --source mnist": "mnist",
    "doctor": "folder",
    "evaluate --pred": "--pred",
}


@pytest.mark.parametrize("words, named", WRONG_OPTIONS.items(), ids=WRONG_OPTIONS)
def test_a_wrong_option_gets_one_line(words, named, mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mistake(*words.split(), naming=named)
    assert os.listdir(tmp_path) == []


# --- diverged, stopped ---------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny_presets")
def test_a_training_without_one_epoch_leaves_nothing(root, command, mistake, tmp_path, monkeypatch):
    run = tmp_path / "run"
    words = ("train", "--data", root, "--out", run)
    monkeypatch.setitem(LOSSES, "ce+dice", lambda logits, labels: logits.mean() * np.nan)
    assert "the loss is" in mistake(*words, naming="nan in epoch 1")
    assert files_in(tmp_path) == []

    def stop(*_, **__):
        for name in kept:
            (run / name).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("cmrseg.train.fit", stop)
    for kept, message in (([], "nothing is kept"), ([CHECKPOINT], "continue with --resume")):
        done = command(*words)
        assert done.status == 130 and message in done.err
        assert run.exists() == bool(kept) and files_in(run) == kept
