"""What pages fetch when they are read: samples with what the network draws, verdicts, experiments."""

import json

import numpy as np
import pytest
from conftest import REPOSITORY
from stand_in import make_static, network, served  # noqa: F401

from cmrseg.data import read_png
from cmrseg.deploy.weights import WEIGHTS
from cmrtrial import claims, compare


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_what_the_network_draws_on_a_sample_is_what_predict_says(static):
    draw = network(static)
    samples = sorted((static / "samples").glob("*.png"))
    assert len(samples) == 6
    for path in samples:
        (mask,) = draw(read_png(path)[None])
        assert "".join(map(str, mask.ravel())) == read(path.with_suffix(".json"))["network"]


def test_without_weights_nothing_is_made_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(served, "verdicts", dict)
    monkeypatch.setattr(served, "summary", dict)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small.onnx").write_text("of older weights", encoding="utf-8")
    served.make(tmp_path, tmp_path / "none.safetensors")
    about = read(tmp_path / "model" / "about.json")
    assert about["network"] is False and about["samples"] == 6 and "synthetic" in about["caption"]
    assert not (tmp_path / "model" / "small.onnx").exists()
    assert len(list((tmp_path / "samples").glob("*.png"))) == 6


def test_the_summary_of_experiments_is_small_and_whole(static):
    path = static / "experiments.json"
    assert path.stat().st_size < 300_000
    experiments = read(path)["experiments"]
    names = {setting["name"] for e in experiments for setting in e["settings"]}
    assert "with textbook decoder" in names and not any("skips" in name for name in names)
    (kernels,) = [
        e for e in experiments if (e["name"], e["protocol"]) == ("kernel-size", "replica")
    ]
    table = compare.compare_to_baseline("kernel-size", "3")
    for setting in kernels["settings"]:
        row = table.loc[setting["name"]]
        assert np.mean(setting["dice"]) == pytest.approx(row["dice"], abs=1e-4)
        assert sum(runs for runs, _ in setting["folds"].values()) == row["runs"]
    settings = [setting["name"] for setting in kernels["settings"]]
    row, second = table.loc["5"], settings.index("3")
    stored = kernels["settings"][settings.index("5")]["differences"][second]
    values = pytest.approx([*row[["difference", "low", "high"]]], abs=1e-6)
    assert settings == ["1", "3", "5"] and [*stored.values()][:3] == values


def test_every_card_has_claims_and_every_claim_is_there(static):
    verdicts = read(static / "verdicts.json")
    ids = [claim["id"] for claim in verdicts["claims"]]
    assert ids == [claim["id"] for claim in claims.claims()]
    assert len(verdicts["cards"]) == 8
    for card in verdicts["cards"]:
        assert card["claims"] and set(card["claims"]) <= set(ids)
    pages = [claim["page"]["path"] for claim in verdicts["claims"] if claim["page"]]
    assert pages
    for page in pages:
        assert (REPOSITORY / page).with_suffix(".py").is_file()
    judged = claims.judge().set_index("id")["verdict"]
    assert {c["id"]: c["verdict"] for c in verdicts["claims"]} == judged.to_dict()


def test_on_the_second_sample_the_network_is_sure_and_misses_a_third_of_the_right_ventricle(
    tmp_path,
):
    """What the first page has to show: a network can be sure and wrong. So this slice stays."""
    served.samples("phantom", tmp_path, WEIGHTS / "small.safetensors")
    known = read(tmp_path / "2.json")
    truth, drawn = (np.array(list(known[key]), int) == 1 for key in ("truth", "network"))
    assert (truth.sum(), drawn.sum()) == (246, 164) and round(known["sure"], 2) == 0.96
