"""Records: what is in one, how it is filed and refused, and that committed ones hold together."""

import json
import os
import random
from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cmrseg import datasets, metrics
from cmrseg.config import TrainConfig, TrainingResult
from cmrseg.data import BadInput, Slices
from cmrseg.models import build
from cmrseg.predict import predict
from cmrseg.record import VERSION, image_table, make_record, read_record, sealed
from cmrseg.train import fit
from cmrtrial import records
from cmrtrial.compare import run_variance
from cmrtrial.corruptions import LEVELS
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.second import plan as second
from cmrtrial.spec import ACDC96
from cmrtrial.splits import split

SCORES = [None, [0.2, 0.4, 0.9], None, [0.6, None, 0.8], [0.5, 0.6, 0.7]]  # means 0.5, 0.7, 0.6


@pytest.fixture
def result(tiny):
    """A network that was never trained, with a history that says otherwise."""
    torch.manual_seed(0)
    history = {"epoch": [1, 2, 3, 4, 5], "loss": [5.0, 4, 3, 2, 1], "lr": [0.1] * 5}
    history |= {"dice": SCORES, "dice_train": [None] * 5}
    return TrainingResult(build(tiny).eval(), tiny, history, 1.234, 2.345, "fp32", "cpu")


@pytest.fixture
def record(result, root):
    return make_record(result, *split(root, "val"), "val", "0123456789ab", "modern")


def test_the_table_of_slices_holds_what_the_metrics_give():
    truth = np.zeros((2, 12, 12), np.uint8)
    truth[0, 2:8, 2:8] = 3
    truth[1, 4, 4] = 1
    pred = np.zeros_like(truth)
    pred[0, 2:8, 4:10] = 3
    table = image_table(pred, Slices(truth, truth, ("cmr9", "cmr10"), np.array([5, 5])))
    assert table["name"] == ["cmr9", "cmr10"] and table["patient"] == [5, 5]
    assert table["dice"] == [[None, None, round(2 * 24 / 72, 5)], [0, None, None]]
    assert table["area_true"] == [[0, 0, 36], [1, 0, 0]]
    assert table["area_pred"] == [[0, 0, 36], [0, 0, 0]]
    assert table["hd95"] == [[None, None, 2], [round(float(np.hypot(12, 12)), 5), None, None]]
    one, two = table["surface_dice_1px"][0][2], table["surface_dice_2px"][0][2]
    assert one < two == 1 and one == round(float(metrics.surface_dice(pred, truth, 1)[0, 2]), 5)
    assert json.loads(json.dumps(table, allow_nan=False)) == table


def test_a_record_has_everything_a_page_may_say(result, root, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")  # pip may call it 2.13.0
    train, held_out = (datasets.load(root, part) for part in ("train", "val"))
    record = make_record(result, train, held_out, "fold3", "0123456789ab", "modern")
    expected = {"split": "fold3", "seed": 0, "fingerprint": "0123456789ab", "protocol": "modern"}
    expected |= {"config": asdict(result.config), "history": result.history, "seconds": 1.23}
    expected |= {"key": result.config.key("fold3", "0123456789ab"), "precision": "fp32"}
    expected |= {"dice_best": pytest.approx(0.7), "epoch_best": 4, "version": VERSION}
    assert {name: record[name] for name in expected} == expected
    of_train = metrics.dice(predict(result.model, train.images), train.masks)
    assert record["dice_train"] == pytest.approx(metrics.per_class(of_train).tolist())
    assert record["threads"] == torch.get_num_threads() and record["cpu_seconds"] in (2.34, 2.35)
    assert record["device"].startswith("cpu: ")
    assert record["versions"]["torch"] == "2.13.0+cu130" and record["commit"]
    assert set(record["versions"]) >= {"python", "torch", "numpy"}
    pred = predict(result.model, held_out.images)
    assert record["images"] == image_table(pred, held_out)
    assert record["distinct_masks"] == len({mask.tobytes() for mask in pred})
    dice = metrics.mean(metrics.dice(pred, held_out.masks))
    assert record["dice_last"] == pytest.approx(dice, abs=1e-4)
    json.dumps(record, allow_nan=False)


def test_a_run_without_any_heart_still_gives_a_record_of_plain_json(tiny, root):
    slices, held_out = split(root, "val")
    slices.masks[:] = held_out.masks[:] = 0
    result = fit(replace(tiny, epochs=12, lr=0.02), slices, held_out)
    record = make_record(result, slices, held_out, "val", "0123456789ab", "modern")
    assert record["history"]["dice"][-1] == [None] * 3
    json.dumps(record, allow_nan=False)


def test_a_first_score_without_any_class_is_not_the_best(result, root):
    result.history["dice"] = [None, [None] * 3, None, [0.6, None, 0.8], [0.5, 0.6, 0.7]]
    record = make_record(result, *split(root, "val"), "val", "0123456789ab", "modern")
    assert (record["dice_best"], record["epoch_best"]) == (pytest.approx(0.7), 4)


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def filed(record, tmp_path):
    """The path of a record, and what it holds."""
    record["images"]["dice"][0][2] = 0.75
    dice = metrics.mean(np.array(record["images"]["dice"], dtype=float))
    path = records.write_record(record | {"dice_last": dice}, tmp_path)
    return path, json.loads(path.read_text(encoding="utf-8"))


def test_a_record_is_filed_under_its_protocol_and_key(record, tmp_path):
    path = records.write_record(record, tmp_path)
    assert path == records.path_of("modern", record["key"], tmp_path)
    assert path == tmp_path / "modern" / f"{record['key']}.json"
    assert read_record(path) == json.loads(json.dumps(sealed(record)))
    with pytest.raises(BadInput, match="renamed"):
        read_record(path.rename(path.with_stem("0" * 16)))


TTA = {"turns": [5.0], "mirror": False, "clean": False, "seeds": [0], "shift": None}
EDITS = {  # what is said of it, and whether it is sealed again, so that its digest does not tell
    "config": (lambda r: r["config"].update(lr=0.9), "its key", True),
    "split": (lambda r: r.update(split="fold1"), "its key", True),
    "seed": (lambda r: r.update(seed=3), "its key", True),
    "slices": (lambda r: r.update(fingerprint="ba9876543210"), "its key", True),
    "key": (lambda r: r.update(key="0" * 16), "renamed", True),
    "dice": (lambda r: r.update(dice_last=0.99), "its Dice", True),
    "table": (lambda r: r["images"]["dice"][1].__setitem__(2, 0.99), "its Dice", True),
    "ways": (lambda r: r.update(ways=TTA), "its key", True),
    "history": (lambda r: r["history"]["loss"].__setitem__(0, 0.5), "its digest", False),
    "more": (lambda r: r.update(note="good"), "its digest", False),
    "less": (lambda r: r.pop("threads"), "its digest", False),
    "no digest": (lambda r: r.pop("digest"), "its digest", False),
    "version": (lambda r: r.update(version=float("nan")), "is not a record", True),
    "no version": (lambda r: r.update(version=0), "is not a record", True),
    "newer": (lambda r: r.update(version=2), "newer than this package", True),
}


@pytest.mark.parametrize("edit, problem, sealing", EDITS.values(), ids=EDITS)
def test_an_edited_record_is_refused(edit, problem, sealing, filed):
    path, record = filed
    # its layout does not matter
    path.write_text(json.dumps(record, indent=1, sort_keys=True), encoding="utf-8")
    assert read_record(path) == record
    edit(record)
    path.write_text(json.dumps(sealed(record) if sealing else record), encoding="utf-8")
    with pytest.raises(BadInput, match=problem) as caught:
        read_record(path)
    assert caught.value.file == str(path)


HUGE = '{"version": 1, "config": {}, "images": {"dice": [[1%s]]}}' % ("0" * 400)
NO_KEY = '{"version": 1, "config": {}, "images": {"dice": [[1, 1, 1]]}, "seed": 0}'
TORN = ['{"version": 1, "key": "0', "", "{}", "[1]", "\x00\xff", "[" * 10**5, HUGE, NO_KEY]


@pytest.mark.parametrize("text", TORN, ids=lambda text: text[:30])
def test_a_torn_record_is_refused(text, tmp_path):
    path = tmp_path / "1.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match="not a record"):
        read_record(path)


def test_a_failed_write_leaves_the_old_record(filed, tmp_path, monkeypatch):
    path, old = filed

    def fail(source, target):
        new = json.loads(Path(source).read_text(encoding="utf-8"))
        assert read_record(path) == old and new["seconds"] == 9
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match=path.name):  # the full disk itself names no file
        records.write_record(old | {"seconds": 9}, tmp_path)
    assert read_record(path) == old and os.listdir(path.parent) == [path.name]


# --- tables --------------------------------------------------------------------------------------


def test_the_table_of_dice_and_the_curve_have_a_row_for_what_was_scored(record):
    record = json.loads(json.dumps(record))
    table = records.dice_table(record)
    assert list(table) == ["name", "patient", "RV", "Myo", "LV"]
    assert table["name"].tolist() == ["cmr3", "cmr4"] and table["patient"].tolist() == [3, 4]
    classes = records.class_table(record)
    rows = [(name, c) for name in ("cmr3", "cmr4") for c in records.CLASSES]
    assert list(zip(classes["name"], classes["class"])) == rows
    assert classes["patient"].tolist() == [3] * 3 + [4] * 3
    for measure in ("dice", "hd95", "surface_dice_1px", "area_true", "area_pred"):
        values = np.array(record["images"][measure], float).ravel()
        np.testing.assert_array_equal(classes[measure], values)
    curve = records.curve(record)
    assert list(curve) == ["epoch", "loss", "RV", "Myo", "LV", "mean"]
    assert curve["epoch"].tolist() == [2, 4, 5] and curve["loss"].tolist() == [4, 2, 1]
    assert curve["mean"].tolist() == pytest.approx([0.5, 0.7, 0.6])
    assert curve["Myo"].isna().tolist() == [False, True, False]


# --- the committed records -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    """The committed records by path; reading checks keys, tables and digests."""
    paths = records.STORE.glob("*/*.json")
    return {path: read_record(path) for path in paths if not path.name.endswith(".failed.json")}


def test_committed_records_stand_where_their_plan_says(committed):
    """read_record() has compared the key with configuration, split, slices and name of the file."""
    planned = {spec.path() for plan in (*EXPERIMENTS.values(), second.PLAN) for spec in plan}
    assert len(committed) >= 1616 and set(committed) <= planned
    assert all(record["protocol"] == path.parent.name for path, record in committed.items())


def numbers_that_do_not_follow(record):
    """Which numbers of a record are at odds with its own tables."""
    images, history = record["images"], record["history"]
    checks = {"slices": {len(column) for column in images.values()} == {len(set(images["name"]))}}
    scored = [(e, d) for e, d in zip(history["epoch"], history["dice"]) if d is not None]
    if not scored:  # a network that is kept is judged when it is ready, once
        checks["dice_best"] = record["dice_best"] == record["dice_last"]
        return [name for name, ok in checks.items() if not ok]
    means = {epoch: np.mean([x for x in dice if x is not None]) for epoch, dice in scored}
    best = max(means.values())
    last = np.mean(history["dice"][-1])
    checks |= {
        "last score": record["dice_last"] == pytest.approx(last, abs=1e-4),
        "dice_best": record["dice_best"] == pytest.approx(best),
        "epoch_best": means[record["epoch_best"]] == best,
        "epochs": history["epoch"] == list(range(1, record["config"]["epochs"] + 1)),
        "history": {len(column) for column in history.values()} == {len(history["epoch"])},
    }
    return [name for name, ok in checks.items() if not ok]


def test_numbers_of_committed_records_follow_from_their_own_tables(committed):
    wrong = {p.name: odd for p, r in committed.items() if (odd := numbers_that_do_not_follow(r))}
    assert not wrong


def test_committed_records_are_of_the_slices_their_split_holds_out(committed, real):
    by_slices, wrong = defaultdict(list), []
    for path, record in committed.items():
        shift = record.get("ways", {}).get("shift")
        by_slices[record["split"], shift and tuple(shift)].append(path)
    for (name, shift), paths in by_slices.items():
        _, held_out = split(real, name)
        if shift:
            held_out = LEVELS[shift[0]][0](held_out, shift[1])
        expected = {"name": list(held_out.names), "patient": held_out.patients.tolist()}
        expected["area_true"] = metrics.areas(held_out.masks).tolist()
        wrong += [p.name for p in paths if not expected.items() <= committed[p]["images"].items()]
    assert not wrong


@pytest.mark.slow
def test_records_come_out_again(real, committed):
    """To the last digit the quickest, on the machine that made it; three others nearly."""

    def plain(record):
        short = record["config"]["epochs"] <= 100 and not record["config"].get("start")
        return short and record["protocol"] in ("replica", "modern") and "ways" not in record

    plain = {path: record for path, record in committed.items() if plain(record)}
    quickest = min(plain, key=lambda path: plain[path]["seconds"])
    for path in (quickest, *random.sample(sorted(plain), 3)):
        record, config = plain[path], TrainConfig.from_dict(plain[path]["config"])
        train, held_out = split(real, record["split"])
        torch.set_num_threads(record["threads"])
        result = fit(config, train, held_out, precision=record["precision"])
        again = make_record(result, train, held_out, record["split"], ACDC96, record["protocol"])
        torch.set_num_threads(1)
        if all(again[what] == record[what] for what in ("device", "versions")):
            assert again["images"] == record["images"] or path != quickest
        spread = run_variance(record["protocol"], model=config.model)[0] ** 0.5
        assert abs(again["dice_last"] - record["dice_last"]) <= 3 * spread, path
