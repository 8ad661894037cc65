"""The script that part I ends with: it trains as the package does, writes its files, and pages hold its pieces."""

import ast
import json
import os
import subprocess
import sys
from collections import defaultdict

import jupytext
import numpy as np
import pytest
import torch
from conftest import REPOSITORY, files_in

from cmrseg import data, rle
from cmrseg.config import TrainConfig
from cmrseg.datasets import folders, phantom
from cmrseg.predict import predict
from cmrseg.train import fit

BUILD = REPOSITORY / "notebooks" / "build"
WHOLE = BUILD / "whole.py"


def cells(path, tag):
    """The code of the cells of a page that have this tag."""
    code_cells = jupytext.read(path).cells
    return [cell.source for cell in code_cells if tag in cell.metadata.get("tags", [])]


def run_pieces(change=str):
    """The names that the script's imports and pieces define; nothing is trained."""
    code = [cell.source for cell in jupytext.read(WHOLE).cells]
    names: dict = {}
    for source in [s for s in code if s.startswith("import argparse")] + cells(WHOLE, "piece"):
        exec(change(source), names)
    return names


@pytest.fixture
def few(tmp_path):
    """Ten phantoms as Slices and as files: the last batch is smaller than the others."""
    images, masks = phantom.make(patients=5)
    names = tuple(f"cmr{n + 1}" for n in range(10))
    slices = data.Slices(images, masks, names, np.arange(10) // 2)
    folders.write_slices(tmp_path, {"train": slices})
    return slices, tmp_path / "train"


RECIPE = {"loss": "ce+dice", "optimiser": "adamw", "lr": 0.003, "weight_decay": 0.01, "batch": 4}
RECIPE |= {"augment": ("affine", "strong-intensity"), "schedule": "one-cycle"}


def test_the_script_trains_the_weights_that_fit_does(few):
    slices, folder = few
    script, seen = run_pieces(), []
    options = {"after_epoch": lambda *now: seen.append(now[1:])}
    ours = script["train"](script["Hearts"](folder), (4, 8, 16), 2, **options)
    config = TrainConfig(channels=(4, 8, 16), epochs=2, **RECIPE)
    run = fit(config, slices, precision="fp32", device="cpu")
    assert ours.state_dict().keys() == run.model.state_dict().keys()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert [epoch for epoch, _ in seen] == run.history["epoch"]
    assert [loss for _, loss in seen] == pytest.approx(run.history["loss"])
    masks = script["predict"](ours, script["Hearts"](folder))
    assert masks.dtype == np.uint8
    assert (masks != predict(run.model, slices.images)).mean() < 1e-4


WRITTEN = ["curve.png", "submission.csv", "val/cmr3_mask.png", "val/cmr4_mask.png", "weights.pt"]


def test_as_a_script_it_writes_files_that_the_package_takes_and_does_without_the_package(
    root, tmp_path, command
):
    none, here = tmp_path / "none", tmp_path / "here"
    none.mkdir()
    here.mkdir()
    (none / "cmrseg.py").write_text(
        "raise ImportError('the script is to do without')", encoding="utf-8"
    )
    words = [sys.executable, WHOLE, "--data", root, "--out", "runs/whole"]
    settings = {"CMRSEG_BUDGET": "smoke", "PYTHONPATH": str(none), "OMP_NUM_THREADS": "1"}
    pipes = {"capture_output": True, "text": True}
    done = subprocess.run(words, cwd=here, env=os.environ | settings, **pipes)
    assert done.returncode == 0, done.stderr
    assert "epoch   1" in done.stdout and "my_" not in done.stdout
    out = here / "runs" / "whole"
    assert files_in(out) == WRITTEN and len(files_in(here)) == len(WRITTEN)
    done = command("evaluate", "--pred", out / "val", "--truth", root / "val" / "mask", "--json")
    assert done.status == 0 and json.loads(done.out)["images"] == 2
    masks = folders.read_masks(out / "val")
    sent = rle.read_submission(out / "submission.csv", (32, 32))
    assert masks.keys() == sent.keys() and all((masks[name] == sent[name]).all() for name in masks)
    weights = torch.load(out / "weights.pt", weights_only=True)
    run_pieces()["UNet"]((8, 16, 32, 64, 128)).load_state_dict(weights, strict=True)


def test_the_script_is_short():
    """Statements up to its end, a line each however they are wrapped; without docstrings."""
    script = [cell for cell in jupytext.read(WHOLE).cells if cell.cell_type == "code"]
    script = [c.source for c in script if "remove-cell" not in c.metadata.get("tags", [])]
    end = next(n for n, source in enumerate(script) if "sys.exit()" in source)
    nodes = [*ast.walk(ast.parse("\n".join(script[: end + 1])))]
    defined = (ast.FunctionDef, ast.ClassDef)
    docstrings = sum(isinstance(n, defined) and bool(ast.get_docstring(n)) for n in nodes)
    assert sum(isinstance(node, ast.stmt) for node in nodes) - docstrings <= 175


def definitions(path):
    """Every function and class in the cells of a page that are tagged piece: name -> its code."""
    nodes = [node for source in cells(path, "piece") for node in ast.parse(source).body]
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: ast.unparse(node) for node in nodes if isinstance(node, kinds)}


def test_what_two_pages_define_is_the_scripts_and_each_of_its_pieces_is_built_on_a_page():
    whole, pages = definitions(WHOLE), defaultdict(dict)
    for path in sorted({*BUILD.glob("*.py")} - {WHOLE}):
        for name, source in definitions(path).items():
            pages[name][path.stem] = source
    assert whole and not whole.keys() - pages.keys(), "no page builds these pieces of the script"
    for name, sources in pages.items():
        assert len(sources) == 1 or name in whole, f"{name} is on {[*sources]}, not in the script"
        for page, source in sources.items():
            assert source == whole.get(name, source), f"{name} on {page} is not the script's"


TAKEN_OUT = [  # a line, what stands there instead, and how that ends
    (".float()[None]", ".float()", NotImplementedError),
    (", key=lambda p: int(p.stem[3:])", "", None),
    ("(read_png(mask)).long()", "(read_png(mask))", "the same"),
    ("        model.train()\n", "", None),
    ("            optimiser.zero_grad()\n", "", None),
    (".permute(0, 3, 1, 2)", "", RuntimeError),
    ("    model.eval()\n", "", None),
]


@pytest.mark.parametrize(("line", "instead", "ends"), TAKEN_OUT)
def test_lines_that_an_exercise_takes_out_fail_as_its_solution_says(few, line, instead, ends):
    assert any(line in source for source in cells(WHOLE, "piece"))

    def weights(change):
        script = run_pieces(change)
        learn = script["Hearts"](few[1])
        options = {"after_epoch": lambda model, *_: script["predict"](model, learn)}
        model = script["train"](learn, (4, 8), 3, **options)
        return torch.cat([tensor.float().ravel() for tensor in model.state_dict().values()])

    if isinstance(ends, type):
        with pytest.raises(ends):
            weights(lambda source: source.replace(line, instead))
    else:
        same = torch.equal(weights(str), weights(lambda source: source.replace(line, instead)))
        assert same is (ends == "the same")
