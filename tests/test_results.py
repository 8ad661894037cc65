"""Records: what is in one, how it is filed, and that the committed ones hold together.

Each group fails after any of these one-line changes of ``cmrseg/results.py``:

- the table: in image_table(), ``surface_dice(pred, truth, 2)`` -> ``1``, or ``areas(pred)`` ->
  ``areas(truth)``
- a record: ``means[best]`` -> ``means[-1]``; ``epochs[best]`` -> ``best``; drop ``"commit"``; in
  _number(), ``None if np.isnan(value) else value`` -> ``value``
- files: in write(), ``write_text(path, ...)`` -> ``path.write_text(...)``, or drop
  ``found["protocol"]``; in read(), ``> VERSION`` -> ``> 9 * VERSION``, or drop ``LookupError``,
  ``ArithmeticError`` or ``RecursionError``, or the check of the digest; in sealed(), ``sort_keys=True`` ->
  ``False``
- tables: in curve(), drop ``if d is not None``
- committed records: in training.TrainConfig, ``lr: float = 0.003`` -> ``0.004``; a digit of a
  record
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from cmrseg import data, experiments, metrics, results, training
from cmrseg.data import BadInput, Slices
from cmrseg.ensemble import Ways
from cmrseg.shifts import LEVELS
from cmrseg.training import Run, TrainConfig

COMMITTED = sorted(results.STORE.glob("*/*.json"))
BY_NAME = [pytest.param(path, id=f"{path.parent.name}/{path.stem}") for path in COMMITTED]
SCORES = [None, [0.2, 0.4, 0.9], None, [0.6, None, 0.8], [0.5, 0.6, 0.7]]  # means 0.5, 0.7, 0.6


@pytest.fixture
def run(tiny):
    """A network that was never trained, with a history that says otherwise."""
    torch.manual_seed(0)
    history = {"epoch": [1, 2, 3, 4, 5], "loss": [5.0, 4, 3, 2, 1], "lr": [0.1] * 5, "dice": SCORES,
               "dice_train": [None] * 5}
    return Run(training.build(tiny).eval(), tiny, history, 1.234, 2.345, "fp32", "cpu")


def test_the_table_of_slices_holds_what_the_metrics_give():
    truth = np.zeros((2, 12, 12), np.uint8)
    truth[0, 2:8, 2:8] = 3
    truth[1, 4, 4] = 1
    pred = np.zeros_like(truth)
    pred[0, 2:8, 4:10] = 3
    held_out = Slices(truth, truth, ("cmr9", "cmr10"), np.array([5, 5]))
    table = results.image_table(pred, held_out)
    assert table["name"] == ["cmr9", "cmr10"] and table["patient"] == [5, 5]
    assert table["dice"] == [[None, None, round(2 * 24 / 72, 5)], [0, None, None]]
    assert table["area_true"] == [[0, 0, 36], [1, 0, 0]]
    assert table["area_pred"] == [[0, 0, 36], [0, 0, 0]]
    assert table["hd95"] == [[None, None, 2], [round(float(np.hypot(12, 12)), 5), None, None]]
    one, two = table["surface_dice_1px"][0][2], table["surface_dice_2px"][0][2]
    assert one < two == 1 and one == round(
        float(metrics.surface_dice(pred, truth, 1)[0, 2]), 5)
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_record_has_everything_a_page_may_say(run, root, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")  # the package itself may call it 2.13.0
    held_out = data.load(root, "val")
    train = data.load(root, "train")
    found = results.record(run, train, held_out, "fold3", "0123456789ab", "modern")
    assert found["config"] == json.loads(json.dumps(asdict(run.config))) | {
        "channels": (4, 8), "augment": ("affine", "intensity")}
    assert (found["split"], found["seed"], found["fingerprint"], found["protocol"]) == (
        "fold3", 0, "0123456789ab", "modern")
    assert found["key"] == run.config.key("fold3", "0123456789ab")
    assert (found["dice_best"], found["epoch_best"]) == (pytest.approx(0.7), 4)
    assert found["history"] == run.history and found["seconds"] == 1.23
    assert found["cpu_seconds"] in (2.34, 2.35)
    learnt = metrics.dice(training.predict(run.model, train.images), train.masks)
    assert found["dice_train"] == pytest.approx(metrics.per_class(learnt).tolist())
    assert found["device"].startswith("cpu: ") and found["threads"] == torch.get_num_threads()
    assert found["precision"] == "fp32" and found["versions"]["torch"] == "2.13.0+cu130"
    assert set(found["versions"]) >= {"python", "torch", "numpy"} and found["commit"]
    assert found["version"] == results.VERSION
    pred = training.predict(run.model, held_out.images)
    assert found["images"] == results.image_table(pred, held_out)
    assert found["distinct_masks"] == len({mask.tobytes() for mask in pred})
    assert found["dice_last"] == pytest.approx(
        metrics.mean(metrics.dice(pred, held_out.masks)), abs=1e-4)
    json.dumps(found, allow_nan=False)


def test_a_run_without_any_heart_still_gives_a_record_of_plain_json(tiny, root):
    slices, held_out = data.split(root, "val")
    slices.masks[:] = held_out.masks[:] = 0
    run = training.fit(training.replace(tiny, epochs=12, lr=0.02), slices, held_out,
                       precision="fp32")
    found = results.record(run, slices, held_out, "val", "0123456789ab", "modern")
    assert found["history"]["dice"][-1] == [None] * 3
    json.dumps(found, allow_nan=False)


def test_a_first_score_without_any_class_is_not_the_best(run, root):
    run.history["dice"] = [None, [None, None, None], None, [0.6, None, 0.8], [0.5, 0.6, 0.7]]
    found = results.record(run, *data.split(root, "val"), "val", "0123456789ab", "modern")
    assert (found["dice_best"], found["epoch_best"]) == (pytest.approx(0.7), 4)


# --- files ---------------------------------------------------------------------------------------


def test_a_record_is_filed_under_its_protocol_and_key(run, root, tmp_path):
    found = results.record(run, *data.split(root, "val"), "val", "0123456789ab", "modern")
    path = results.write(found, tmp_path)
    assert path == results.path_of("modern", found["key"], tmp_path)
    assert path == tmp_path / "modern" / f"{found['key']}.json"
    assert results.read(path) == json.loads(json.dumps(results.sealed(found)))


@pytest.fixture
def filed(run, root, tmp_path):
    """The path of a record, and what it holds."""
    found = results.record(run, *data.split(root, "val"), "val", "0123456789ab", "modern")
    found["images"]["dice"][0][2], found["dice_last"] = 0.75, None
    table = results._floats(found["images"]["dice"])
    path = results.write(found | {"dice_last": results._number(metrics.mean(table))}, tmp_path)
    return path, json.loads(path.read_text())


EDITS = {"config": lambda f: f["config"].update(lr=0.9), "split": lambda f: f.update(split="fold1"),
         "seed": lambda f: f.update(seed=3), "slices": lambda f: f.update(fingerprint="ba9876543210"),
         "key": lambda f: f.update(key="0" * 16), "dice": lambda f: f.update(dice_last=0.99),
         "table": lambda f: f["images"]["dice"][1].__setitem__(2, 0.99),
         "ways": lambda f: f.update(ways={"turns": [5.0], "mirror": False, "clean": False, "seeds": [0],
                                          "shift": None})}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_an_edited_record_is_refused(edit, filed):
    path, found = filed
    assert results.read(path) == found
    edit(found)
    path.write_text(json.dumps(results.sealed(found)))  # the digest would find them all
    with pytest.raises(BadInput, match=r"was edited: its (?!digest)|renamed") as caught:
        results.read(path)
    assert caught.value.file == str(path)


EVERYTHING_ELSE = {
    "history": lambda f: f["history"]["loss"].__setitem__(0, 0.5), "seconds": lambda f: f.update(seconds=9),
    "a distance": lambda f: f["images"]["hd95"][0].__setitem__(2, 0.5),
    "an area": lambda f: f["images"]["area_pred"][0].__setitem__(2, 7),
    "what was learnt": lambda f: f.update(dice_train=[1.0, 1.0, 1.0]), "more": lambda f: f.update(note="good"),
    "less": lambda f: f.pop("threads"), "the digest": lambda f: f.update(digest=None),
    "no digest": lambda f: f.pop("digest")}


@pytest.mark.parametrize("edit", EVERYTHING_ELSE.values(), ids=EVERYTHING_ELSE)
def test_a_record_is_refused_whatever_was_edited(edit, filed):
    path, found = filed
    path.write_text(json.dumps(found, indent=1, sort_keys=True))  # how it is laid out does not matter
    assert results.read(path) == found
    edit(found)
    path.write_text(json.dumps(found))
    with pytest.raises(BadInput, match="its digest"):
        results.read(path)


@pytest.mark.parametrize("version", [float("nan"), -5, 0, True, "1", None])
def test_a_version_that_is_none_is_refused(version, filed):
    path, found = filed
    path.write_text(json.dumps(results.sealed(found | {"version": version})))
    with pytest.raises(BadInput, match="is not a record"):
        results.read(path)


def test_a_record_under_another_key_is_refused(filed):
    path, _ = filed
    path.rename(path.with_name(f"{'0' * 16}.json"))
    with pytest.raises(BadInput, match="renamed"):
        results.read(path.with_name(f"{'0' * 16}.json"))


def test_a_failed_write_leaves_the_old_record(filed, tmp_path, monkeypatch):
    path, old = filed

    def fail(source, target):
        assert results.read(path) == old and json.loads(Path(source).read_text())["seconds"] == 9
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=path.name):  # the full disk itself names no file
        results.write(old | {"seconds": 9}, tmp_path)
    assert results.read(path) == old and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("text, word", [
    ('{"version": 2}', "newer than this package"), ('{"version": 1, "key": "0', "not a record"),
    ("", "not a record"), ("{}", "not a record"), ("[1]", "not a record"), ("7", "not a record"),
    ('{"version": "new"}', "not a record"), ("\x00\xff", "not a record"), ("[" * 100_000, "not a record"),
    ('{"version": 1, "config": {}, "images": {"dice": [[1%s]]}}' % ("0" * 400), "not a record"),
    ('{"version": 1, "config": {}, "images": {"dice": [[1, 1, 1]]}, "key": "", "split": "", "fingerprint": "", '
     '"seed": 0}', "not a record")], ids=lambda value: value[:30])
def test_a_newer_or_torn_record_is_refused(text, word, tmp_path):
    path = tmp_path / "1.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=word) as caught:
        results.read(path)
    assert caught.value.file == str(path)


# --- tables --------------------------------------------------------------------------------------


def test_the_table_of_dice_and_the_curve_have_a_row_for_what_was_scored(run, root):
    found = results.record(run, *data.split(root, "val"), "val", "0123456789ab", "modern")
    found = json.loads(json.dumps(found))
    table = results.dice_table(found)
    assert list(table) == ["name", "patient", "RV", "Myo", "LV"]
    assert table["name"].tolist() == ["cmr3", "cmr4"] and table["patient"].tolist() == [3, 4]
    classes = results.class_table(found)
    assert list(zip(classes["name"], classes["class"])) == [(n, c) for n in ("cmr3", "cmr4")
                                                            for c in results.CLASSES]
    assert classes["patient"].tolist() == [3] * 3 + [4] * 3
    for measure in ("dice", "hd95", "surface_dice_1px", "area_true", "area_pred"):
        np.testing.assert_array_equal(classes[measure], np.array(found["images"][measure], float).ravel())
    curve = results.curve(found)
    assert list(curve) == ["epoch", "loss", "RV", "Myo", "LV", "mean"]
    assert curve["epoch"].tolist() == [2, 4, 5] and curve["loss"].tolist() == [4, 2, 1]
    assert curve["mean"].tolist() == pytest.approx([0.5, 0.7, 0.6])
    assert curve["Myo"].isna().tolist() == [False, True, False]


# --- the committed records -----------------------------------------------------------------------


@pytest.mark.parametrize("path", BY_NAME)
def test_a_committed_record_stands_where_its_content_says(path):
    found = results.read(path)
    config = TrainConfig.from_dict(found["config"])
    key = config.key(found["split"], found["fingerprint"])
    if ways := found.get("ways"):
        key = Ways.from_dict(ways).key(key, ways["seeds"], ways["shift"])
    assert path.stem == found["key"] == key
    assert path.parent.name == found["protocol"] and found["seed"] == config.seed
    assert found["fingerprint"] == experiments.ACDC96


@pytest.mark.parametrize("path", BY_NAME)
def test_the_numbers_of_a_committed_record_follow_from_its_own_tables(path):
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    images, history = found["images"], found["history"]
    table = np.array(images["dice"], float)
    by_class = [np.nanmean(column) for column in table.T if not np.isnan(column).all()]
    assert found["dice_last"] == pytest.approx(np.mean(by_class), abs=1e-9)
    if history["dice"] == [None] * len(history["epoch"]):  # a network that is kept is judged when it is ready, once
        assert found["dice_best"] == found["dice_last"]
        return
    assert found["dice_last"] == pytest.approx(np.mean(history["dice"][-1]), abs=1e-4)
    means = {e: np.mean([x for x in d if x is not None])
             for e, d in zip(history["epoch"], history["dice"]) if d is not None}
    assert found["dice_best"] == pytest.approx(max(means.values()))
    assert means[found["epoch_best"]] == max(means.values())
    assert history["epoch"] == list(range(1, found["config"]["epochs"] + 1))
    assert {len(column) for column in images.values()} == {len(images["name"])}
    assert {len(column) for column in history.values()} == {len(history["epoch"])}
    assert len(set(images["name"])) == len(images["name"])


@pytest.mark.parametrize("path", BY_NAME)
def test_a_committed_record_is_of_the_slices_its_split_holds_out(path, real):
    found = results.read(path)
    _, held_out = data.split(real, found["split"])
    if shift := found.get("ways", {}).get("shift"):
        held_out = LEVELS[shift[0]][0](held_out, shift[1])
    assert found["images"]["name"] == list(held_out.names)
    assert found["images"]["patient"] == held_out.patients.tolist()
    assert found["images"]["area_true"] == metrics.areas(held_out.masks).tolist()


@pytest.mark.slow
def test_a_committed_record_is_computed_again(real):
    """On the machine that made it, to the last digit; elsewhere rounding differs and adds up."""
    if not COMMITTED:
        pytest.skip("no records yet")
    found = min(map(results.read, COMMITTED), key=lambda record: record["seconds"])
    config, (train, held_out) = TrainConfig.from_dict(found["config"]), data.split(
        real, found["split"])
    torch.set_num_threads(found["threads"])
    run = training.fit(config, train, held_out, precision=found["precision"])
    again = results.record(run, train, held_out, *(found[k] for k in ("split", "fingerprint", "protocol")))
    torch.set_num_threads(1)
    if all(again[what] == found[what] for what in ("device", "versions")):
        assert again["images"] == found["images"]
    assert again["dice_last"] == pytest.approx(found["dice_last"], abs=0.03)
