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
from test_exercises import of

from cmrseg import data, rle
from cmrseg.config import TrainConfig
from cmrseg.datasets import folders, phantom
from cmrseg.predict import predict
from cmrseg.train import fit

BUILD = REPOSITORY / "notebooks" / "build"
WHOLE = BUILD / "whole.py"


def cells(path, tag):
    """The code of the cells of a page that have this tag."""
    return [
        cell.source for cell in jupytext.read(path).cells if tag in cell.metadata.get("tags", [])
    ]


def run_pieces(change=str):
    """The names that the script's imports and pieces define; nothing is trained."""
    code = [
        cell.source
        for cell in jupytext.read(WHOLE).cells
        if cell.source.startswith("import argparse")
    ]
    names: dict = {}
    for source in code + cells(WHOLE, "piece"):
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


def test_the_script_trains_the_weights_that_fit_does(few):
    slices, folder = few
    script = run_pieces()
    seen = []
    ours = script["train"](
        script["Hearts"](folder), (4, 8, 16), 2, after_epoch=lambda *now: seen.append(now[1:])
    )
    config = TrainConfig(
        channels=(4, 8, 16),
        epochs=2,
        augment=("affine", "strong-intensity"),
        loss="ce+dice",
        optimiser="adamw",
        lr=0.003,
        weight_decay=0.01,
        schedule="one-cycle",
        batch=4,
    )
    run = fit(config, slices, precision="fp32", device="cpu")
    assert ours.state_dict().keys() == run.model.state_dict().keys()
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor), name
    assert [epoch for epoch, _ in seen] == run.history["epoch"]
    assert [loss for _, loss in seen] == pytest.approx(run.history["loss"])
    masks = script["predict"](ours, script["Hearts"](folder))
    assert masks.dtype == np.uint8
    assert (masks != predict(run.model, slices.images)).mean() < 1e-4


def test_as_a_script_it_writes_files_that_the_package_takes_and_does_without_the_package(
    root, tmp_path, command
):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "cmrseg.py").write_text("raise ImportError('the script is to do without')")
    here = tmp_path / "here"
    here.mkdir()
    settings = os.environ | {
        "CMRSEG_BUDGET": "smoke",
        "PYTHONPATH": str(tmp_path / "none"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, WHOLE, "--data", root, "--out", "runs/whole"],
        cwd=here,
        env=settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch   1" in done.stdout and "my_" not in done.stdout
    out = here / "runs" / "whole"
    assert files_in(here) == [
        f"runs/whole/{name}"
        for name in (
            "curve.png",
            "submission.csv",
            "val/cmr3_mask.png",
            "val/cmr4_mask.png",
            "weights.pt",
        )
    ]
    found = command("evaluate", "--pred", out / "val", "--truth", root / "val" / "mask", "--json")
    assert found.status == 0 and json.loads(found.out)["images"] == 2
    masks, sent = (
        folders.read_masks(out / "val"),
        rle.read_submission(out / "submission.csv", (32, 32)),
    )
    assert masks.keys() == sent.keys() and all((masks[name] == sent[name]).all() for name in masks)
    weights = torch.load(out / "weights.pt", weights_only=True)
    run_pieces()["UNet"]((8, 16, 32, 64, 128)).load_state_dict(weights, strict=True)


def definitions(path):
    """Every function and class in the cells of a page that are tagged piece: name -> source."""
    return {
        node.name: "\n".join(
            source.splitlines()[
                min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1 : node.end_lineno
            ]
        )
        for source in cells(path, "piece")
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


def test_the_script_is_short():
    """Statements up to its end, a line each however they are wrapped; without docstrings."""
    script = [
        cell.source
        for cell in jupytext.read(WHOLE).cells
        if cell.cell_type == "code" and "remove-cell" not in cell.metadata.get("tags", [])
    ]
    end = next(n for n, source in enumerate(script) if "sys.exit()" in source)
    tree = ast.parse("\n".join(script[: end + 1]))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:]
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) <= 175


def test_what_two_pages_define_is_the_scripts_and_each_of_its_pieces_is_built_on_a_page():
    whole, pages = definitions(WHOLE), defaultdict(dict)
    for path in sorted(BUILD.glob("*.py")):
        if path != WHOLE:
            for name, source in definitions(path).items():
                pages[name][path.stem] = source
    assert whole
    for name, sources in pages.items():
        assert len(sources) == 1 or name in whole, (
            f"{name} is a piece of {', '.join(sources)}, and not of the script"
        )
        for page, source in sources.items():
            assert source == whole.get(name, source), f"{name} on {page} is not the script's"
    assert not whole.keys() - pages.keys(), "no page builds these pieces of the script"


@pytest.mark.parametrize(
    ("line", "instead", "ends"),
    [
        (".float()[None]", ".float()", NotImplementedError),
        (", key=lambda p: int(p.stem[3:])", "", None),
        ("(read_png(mask)).long()", "(read_png(mask))", "the same"),
        ("        model.train()\n", "", None),
        ("            optimiser.zero_grad()\n", "", None),
        (".permute(0, 3, 1, 2)", "", RuntimeError),
        ("    model.eval()\n", "", None),
    ],
)
def test_lines_that_an_exercise_takes_out_fail_as_its_solution_says(few, line, instead, ends):
    assert any(line in source for source in cells(WHOLE, "piece"))

    def weights(change):
        script = run_pieces(change)
        learn = script["Hearts"](few[1])
        model = script["train"](
            learn, (4, 8), 3, after_epoch=lambda model, *_: script["predict"](model, learn)
        )
        return torch.cat([tensor.float().ravel() for tensor in model.state_dict().values()])

    if isinstance(ends, type):
        with pytest.raises(ends):
            weights(lambda source: source.replace(line, instead))
    else:
        same = torch.equal(weights(str), weights(lambda source: source.replace(line, instead)))
        assert same is (ends == "the same")


def assert_says(said, expected):
    assert said == expected if expected == "right" else expected in said


def step(zero="first", divide=None, steps="end", returns="mean", loss_of=None):
    """An answer to the exercise on accumulated gradients, right by default."""

    def mine(model, optimiser, loss_of, batches):
        losses = []
        for n, (x, y) in enumerate(batches):
            if zero == "each" or (zero == "first" and n == 0):
                optimiser.zero_grad()
            loss = loss_of(model(x), y)
            (loss / (divide or len(batches))).backward()
            losses.append(loss.item())
            if steps == "each":
                optimiser.step()
        if steps == "end":
            optimiser.step()
        answers = {
            "mean": np.mean(losses),
            "sum": sum(losses),
            "last": losses[-1],
            "part": np.mean(losses) / 3,
        }
        return answers.get(returns)

    return mine


def only_the_first(part):
    return lambda model, optimiser, loss_of, batches: step(divide=part)(
        model, optimiser, loss_of, batches[:1]
    )


def one_large_batch(model, optimiser, loss_of, batches):
    x, y = (torch.cat(part) for part in zip(*batches))
    loss = loss_of(model(x), y)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return loss


def mean_of_losses(model, optimiser, loss_of, batches):
    model.zero_grad()
    loss = sum(loss_of(model(x), y) for x, y in batches) / len(batches)
    loss.backward()
    optimiser.step()
    return loss.detach()


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (step(), "right"),
        (one_large_batch, "right"),
        (mean_of_losses, "right"),
        (step(divide=1), "the sum of the gradients"),
        (step(zero="never"), "earlier step are still in it"),
        (step(zero="never", divide=1), "earlier step are still in it"),
        (step(zero="each"), "only the last batch"),
        (step(zero="each", divide=1), "only the last batch"),
        (step(steps="each"), "a step for each batch"),
        (step(steps="each", divide=1), "a step for each batch"),
        (step(steps="each", zero="each"), "a step for each batch"),
        (step(steps="each", zero="each", divide=1), "a step for each batch"),
        (step(steps="never"), "hasn't moved"),
        (step(steps="each", zero="never"), "a step for each"),
        (step(steps="each", zero="never", divide=1), "a step for each"),
        (only_the_first(1), "only the first batch"),
        (only_the_first(3), "only the first batch"),
        (step(returns="part"), "a part of the mean loss"),
        (lambda *a: step()(*a) and 12.5 / 3, "a part of the last loss"),
        (step(divide=3), "wrong with two batches"),
        (step(divide=4), "isn't always 4"),
        (step(returns="sum"), "the sum of the losses"),
        (step(returns="last"), "the last loss"),
        (step(returns="none"), "now return"),
        (step(returns="none", divide=1), "the sum of the gradients"),
        (step(divide=2), "a gradient of 21.00"),
        (lambda m, o, f, b: (o.step(), 1.0)[1], "where is backward"),
        (lambda *a: 1 / 0, "raises ZeroDivisionError"),
        (lambda *a: "five", "raises TypeError"),
        (lambda *a: None, "it returns nothing yet"),
    ],
)
def test_the_check_of_a_step_says_what_is_wrong(mine, says):
    assert_says(of("build/batches_and_the_loop")[0](mine), says)


def painted(code, shape, first=1, longer=0, end=False, order="F", keep=slice(None)):
    flat = np.zeros(shape[0] * shape[1] + 9, bool)
    numbers = [int(word) for word in code.split()]
    for start, number in list(zip(numbers[::2], numbers[1::2]))[keep]:
        flat[start - first : number if end else start - first + number + longer] = True
    return flat[: shape[0] * shape[1]].reshape(shape, order=order)


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (painted, "right"),
        (lambda c, s: painted(c, s).astype(np.uint8), "right"),
        (lambda c, s: painted(c, s).tolist(), "right"),
        (lambda c, s: torch.from_numpy(painted(c, s).copy()), "right"),
        (lambda c, s: rle.decode(c, s), "right"),
        (lambda c, s: painted(c, s, first=0), "subtract 1"),
        (lambda c, s: painted(c, s, order="C"), "down the columns"),
        (lambda c, s: painted(c, s, first=2), "not at 2"),
        (lambda c, s: painted(c, s, first=0, order="C"), "subtract 1 from each start; and"),
        (lambda c, s: painted(c, s, end=True), "is a length"),
        (lambda c, s: painted(c, s, longer=1), "too long"),
        (lambda c, s: painted(c, s, longer=-1), "too short"),
        (lambda c, s: painted(c, s).T, "height comes first"),
        (lambda c, s: painted(c, s, keep=slice(-1)), "last run is missing"),
        (lambda c, s: ~painted(c, s), "changed places"),
        (lambda c, s: painted("3 1 12 1", s), "only the first pixel"),
        (lambda c, s: painted(c, s, keep=slice(-1, None)), "only the last run"),
        (lambda c, s: painted(c, s).ravel(), "reshape it"),
        (lambda c, s: painted(c, s) * 255, "not just 0 and 1"),
        (lambda c, s: np.zeros(s, bool), "no run was painted"),
        (lambda c, s: painted(c, (3, 4)), "of another shape"),
        (lambda c, s: painted(c or "1 1", s), "of an empty code"),
        (lambda c, s: int(c), "raises ValueError"),
        (lambda c, s: None, "it returns nothing yet"),
    ],
)
def test_the_check_of_a_decoder_says_what_is_wrong(mine, says):
    assert_says(of("build/predict_and_submit")[0](mine), says)


def largest(mask, connectivity=8, classes=(1, 2, 3), pick=lambda sizes: 1 + np.argmax(sizes[1:])):
    import cv2

    kept = np.zeros_like(mask)
    for c in classes:
        count, pieces, stats, _ = cv2.connectedComponentsWithStats(
            (mask == c).astype(np.uint8), connectivity=connectivity
        )
        if count > 1:
            kept[(pieces == pick(stats[:, 4])) & (mask == c)] = c
    return kept


def largest_or_error(mask):
    if not (mask == 3).any():
        raise ValueError("attempt to get argmax of an empty sequence")
    return largest(mask)


def scipys(mask):
    from scipy import ndimage

    kept = np.zeros(mask.shape, int)
    for c in np.unique(mask)[1:]:
        pieces, _ = ndimage.label(mask == c)
        kept[pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])] = c
    return kept


@pytest.mark.parametrize(
    ("mine", "says"),
    [
        (largest, "right"),
        (lambda m: largest(m, 4), "right"),
        (scipys, "right"),
        (lambda m: m, "nothing has been removed"),
        (lambda m: m * (largest((m > 0).astype(np.uint8)) > 0), "all classes together"),
        (lambda m: largest(m, pick=lambda sizes: 1 + np.argmin(sizes[1:])), "the smallest"),
        (lambda m: largest(m, pick=lambda sizes: 1), "the first piece"),
        (lambda m: m - largest(m), "removes the largest"),
        (lambda m: largest(m, pick=lambda sizes: len(sizes) - 1), "the last piece"),
        (lambda m: largest(m, pick=np.argmax), "piece 0"),
        (lambda m: (largest(m) > 0) * 1, "labels are lost"),
        (lambda m: largest(m, classes=(1, 2)), "pixels are wrong"),
        (lambda m: largest(m).ravel(), "its shape"),
        (largest_or_error, "of a mask without LV it raises"),
        (lambda m: None, "it returns nothing yet"),
        (lambda m: m.undo(), "raises AttributeError"),
    ],
)
def test_the_check_of_the_largest_piece_says_what_is_wrong(mine, says):
    assert_says(of("build/whole")[0](mine), says)


@pytest.mark.parametrize("page", ["batches_and_the_loop", "predict_and_submit", "whole"])
def test_a_starter_returns_nothing_and_a_solution_is_right(page, capsys):
    check, starter, solution = of(f"build/{page}")
    assert (check(starter), check(solution)) == ("it returns nothing yet", "right")
