"""Broken folders: what is wrong with one is said in one line, whoever meets it first.

Each group fails after any of these one-line changes:

- a table of broken folders: in data.read_png(), ``if picture.mode != "L"`` -> ``if False``, or
  ``pixels.max(initial=0) > 3`` -> ``> 255``; in data.list_pngs(), ``elif int(match[1]) in found``
  -> ``elif False``
- train asks the doctor: in cli.train(), ``audit.check(Path(source))`` -> ``pass``
- images and masks together: in data.read_split(), ``mask_paths.keys() - paths.keys() if paths else
  ()`` -> ``()``, or ``images[n].shape != masks[n].shape`` -> ``False``; in audit.audit(), drop
  ``errors += _sizes(found)``
- patients.csv: in data._slices(), ``report(problem)`` -> ``raise``
- every error: in data.read_pngs(), ``report(problem)`` -> ``raise``
- missing splits: in audit(), ``for split in ("train", "val")`` -> ``()``
- warnings: in audit._content(), ``if image.min() == image.max()`` -> ``if False``; ``SAME_PICTURE =
  0.97`` -> ``2``; in _labels(), ``> 1`` -> ``> 9``; in _lookalikes(), drop ``| (places[...] ...)``
- healthy and real slices: in audit._content(), ``side % COARSEST`` -> ``side % 24``; in _labels(),
  ``if not (mask == c).any()`` -> ``if False``
- for people: in cli.doctor(), ``2 if errors else 0`` -> ``0``
"""

import json
import shutil

import numpy as np
import pytest
from conftest import files_in, heart
from PIL import Image

from cmrseg import audit, data

LAST = "cmr12"  # of the train split


def save_as(mode, name=LAST):
    """Replace a file by the same picture in another mode."""

    def harm(folder):
        path = next(folder.glob(f"{name}*.png"))
        pixels = np.array(Image.open(path))
        if mode == "I;16":
            Image.fromarray(pixels.astype(np.uint16) * 257).save(path)
        else:
            Image.open(path).convert(mode).save(path)
        return path.name

    return harm


def write(content, name=LAST):
    """Replace the bytes of a file; ``content`` maps the old ones to the new."""

    def harm(folder):
        path = next(folder.glob(f"{name}*.png"))
        path.write_bytes(content(path.read_bytes()))
        return path.name

    return harm


def jpeg(folder):
    Image.fromarray(heart(12)[0]).save(folder / "cmr12.png", format="JPEG")
    return "cmr12.png"


def relabel(values):
    def harm(folder):
        path = folder / "cmr12_mask.png"
        data.write_png(path, np.array(values, np.uint8)[np.array(Image.open(path))])
        return path.name

    return harm


def resize_one(folder):
    path = next(folder.glob("cmr7*.png"))
    data.write_png(path, np.array(Image.open(path))[:-2])
    return path.name


def resize_all(folder):
    for path in folder.glob("*.png"):
        data.write_png(path, np.array(Image.open(path))[:-2])
    return "cmr5"


def same_number(folder):
    path = next(folder.glob("cmr5*.png"))
    shutil.copy(path, folder / path.name.replace("cmr5", "cmr05"))
    return path.name


def dangling(folder):
    path = next(folder.glob("cmr5*.png"))
    path.unlink()
    path.symlink_to(folder / "nowhere.png")
    return path.name


def directory(folder):
    path = next(folder.glob("cmr5*.png"))
    path.unlink()
    path.mkdir()
    return path.name


def rename(new):
    def harm(folder):
        path = next(folder.glob("cmr5*.png"))
        path.rename(folder / new)
        return new

    return harm


def empty(folder):
    for path in folder.iterdir():
        path.unlink()
    return str(folder)


def missing(folder):
    shutil.rmtree(folder)
    return str(folder)


ANY = {  # what can happen to images and to masks
    "missing folder": missing,
    "empty folder": empty,
    "RGB": save_as("RGB"),
    "RGBA": save_as("RGBA"),
    "palette": save_as("P"),
    "16 bit": save_as("I;16"),
    "1 bit": save_as("1"),
    "zero bytes": write(lambda old: b""),
    "text": write(lambda old: b"cmr12 is a nice slice\n"),
    "a header only": write(lambda old: old[:8]),
    "torn in the header": write(lambda old: old[:20]),
    "torn after the header": write(lambda old: old[:33]),
    "torn in the pixels": write(lambda old: old[: len(old) // 2]),
    "torn near the end": write(lambda old: old[: len(old) - 30]),
    "two sizes": resize_one,
    "two files with one number": same_number,
    "a link to nowhere": dangling,
    "a directory": directory,
    "a foreign name": rename("heart.png"),
    "no number": rename("cmr.png"),
}
IMAGES = ANY | {"JPEG": jpeg, "upper case": rename("cmr5.PNG"), "a mask": rename("cmr5_mask.png")}
MASKS = ANY | {
    "stretched labels": relabel((0, 85, 170, 255)),
    "a label 7": relabel((0, 1, 2, 7)),
    "upper case": rename("cmr5_mask.PNG"),
    "an image": rename("cmr5.png"),
}
BROKEN = [pytest.param(kind, harm, id=f"{kind}: {name}")
          for kind, table in (("image", IMAGES), ("mask", MASKS)) for name, harm in table.items()]


@pytest.mark.parametrize("kind, harm", BROKEN)
def test_a_broken_folder_gets_one_line_from_every_command(
    kind, harm, root, model, command, mistake, tmp_path
):
    folder, out = root / "train" / kind, tmp_path / "out"
    healthy = shutil.copytree(folder, tmp_path / "healthy")
    name = harm(folder)
    said = command("doctor", root, "--json")
    assert said.status == 2
    assert any(name in error["file"] for error in json.loads(said.out)["errors"])
    assert all(error["problem"] and error["cure"] for error in json.loads(said.out)["errors"])
    before = files_in(root)
    mistake("train", "--data", root, "--out", out, naming=root / "train")
    if kind == "image":
        mistake("predict", "--model", model, "--images", folder, "--out", out, naming=name)
    else:
        mistake("evaluate", "--pred", folder, "--truth", healthy, naming=name)
        mistake("evaluate", "--pred", healthy, "--truth", folder, naming=name)
        mistake("submit", "--masks", folder, "--out", out / "s.csv", naming=name)
    assert not out.exists() and files_in(root) == before


def test_train_names_the_file_that_doctor_names_first(root, command, mistake, tmp_path):
    for harm in (save_as("RGB", "cmr7"), write(lambda old: b"", "cmr9")):
        harm(root / "train" / "image")
    first = json.loads(command("doctor", root, "--json").out)["errors"][0]
    line = mistake("train", "--data", root, "--out", tmp_path / "out", naming=first["file"])
    assert first["problem"] in line and first["cure"] in line
    assert "1 more" in line


@pytest.mark.parametrize("kind, other", [("image", "mask"), ("mask", "image")])
def test_an_image_and_its_mask_come_together(kind, other, root, command, mistake, tmp_path):
    next((root / "val" / kind).glob("cmr3*.png")).unlink()
    lonely = next((root / "val" / other).glob("cmr3*.png"))
    errors = json.loads(command("doctor", root, "--json").out)["errors"]
    assert [error["file"] for error in errors] == [str(lonely)]
    mistake("train", "--data", root, "--out", tmp_path / "out", naming=lonely)
    assert not (tmp_path / "out").exists()


def test_masks_of_another_size_than_their_images_are_refused(root, mistake, tmp_path):
    resize_all(root / "train" / "mask")
    line = mistake("train", "--data", root, "--out", tmp_path / "out", naming="cmr5_mask.png")
    assert "32 x 30" in line and "32 x 32" in line
    assert not (tmp_path / "out").exists()


def test_a_split_of_another_size_is_refused_before_training(root, mistake, tmp_path):
    resize_all(root / "val" / "mask")
    resize_all(root / "val" / "image")
    mistake("train", "--data", root, "--out", tmp_path / "out", naming=root / "val")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("table", [
    b"\xff\xfe\x00\x01", b"slice,person\ncmr5,1\n", b"image,patient\ncmr5,1\n",
    b"image,patient\n" + b"\n".join(b"cmr%d" % n for n in range(1, 13)),
], ids=["binary", "other columns", "too short", "one column"])
def test_an_unreadable_patients_table_is_an_error(table, root, command, mistake, tmp_path):
    (root / "patients.csv").write_bytes(table)
    said = command("doctor", root, "--json")
    assert said.status == 2
    files = [error["file"] for error in json.loads(said.out)["errors"]]
    assert files and set(files) == {str(root / "patients.csv")}
    mistake("train", "--data", root, "--out", tmp_path / "out", naming="patients.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [("doctor",), ("train", "--data")])
def test_a_missing_root_is_named(words, mistake, command, tmp_path):
    nowhere = tmp_path / "nowhere"
    if words == ("doctor",):
        done = command("doctor", nowhere)
        assert done.status == 2 and str(nowhere) in done.out
    else:
        mistake(*words, nowhere, "--out", tmp_path / "out", naming=nowhere)
        assert not (tmp_path / "out").exists()


def test_a_root_without_a_val_split_is_refused(root, mistake, tmp_path):
    shutil.rmtree(root / "val")
    mistake("train", "--data", root, "--out", tmp_path / "out", naming=root / "val")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_doctor_misses_a_split_as_training_would(split, root, command):
    shutil.rmtree(root / split)
    done = command("doctor", root, "--json")
    assert done.status == 2 and str(root / split) in {e["file"] for e in json.loads(done.out)["errors"]}


def test_masks_alone_are_looked_at_too(root):
    relabel((0, 1, 2, 2))(root / "train" / "mask")
    _, warnings = audit.audit(root / "train" / "mask")
    assert [w.file for w in warnings] == [str(root / "train" / "mask" / f"{LAST}_mask.png")]


def test_every_error_is_found_in_the_order_of_splits_and_numbers(root):
    save_as("RGB", "cmr9")(root / "train" / "image")
    save_as("RGB", "cmr10")(root / "train" / "image")
    relabel((0, 1, 2, 7))(root / "train" / "mask")
    write(lambda old: b"", "cmr3")(root / "val" / "mask")
    errors, _ = audit.audit(root)
    names = [error.file.removeprefix(str(root)) for error in errors]
    assert names == ["/train/image/cmr9.png", "/train/image/cmr10.png",
                     "/train/mask/cmr12_mask.png", "/val/mask/cmr3_mask.png"]


def test_a_healthy_root_has_no_findings(root, command):
    assert audit.audit(root) == ([], [])
    assert audit.audit(root / "test" / "image") == ([], [])
    assert audit.audit(root / "train" / "mask") == ([], [])
    assert audit.check(root) is None
    done = command("doctor", root, "--json")
    assert done.status == 0 and json.loads(done.out) == {"errors": [], "warnings": []}


def blank(root):
    data.write_png(root / "val" / "image" / "cmr4.png", np.full((32, 32), 9, np.uint8))
    return "val/image/cmr4.png", "blank"


def no_labels(root):
    data.write_png(root / "val" / "mask" / "cmr4_mask.png", np.zeros((32, 32), np.uint8))
    return "val/mask/cmr4_mask.png", "background only"


def no_rv(root):
    relabel((0, 0, 2, 3))(root / "train" / "mask")
    return "train/mask/cmr12_mask.png", "no RV"


def in_pieces(root):
    path = root / "train" / "mask" / "cmr12_mask.png"
    mask = np.array(Image.open(path))
    mask[0, 0] = 3
    data.write_png(path, mask)
    return "train/mask/cmr12_mask.png", "LV in 2 pieces"


def odd_size(root):
    for path in (root / "test" / "image").iterdir():
        data.write_png(path, np.array(Image.open(path))[:, :-1])
    return "test/image/cmr1.png", "padded"


def twice(root):
    shutil.copy(root / "train" / "image" / "cmr9.png", root / "test" / "image" / "cmr2.png")
    return "test/image/cmr2.png", "train/image/cmr9.png"


def foreign(root):
    (root / "train" / "image" / "cmr9.tif").write_bytes(b"II*")
    return "train/image/cmr9.tif", "not a PNG"


@pytest.mark.parametrize("harm", [blank, no_labels, no_rv, in_pieces, odd_size, twice, foreign])
def test_what_is_odd_is_a_warning_that_names_the_file(harm, root, command):
    name, word = harm(root)
    done = command("doctor", root, "--json")
    said = json.loads(done.out)
    assert done.status == 0 and said["errors"] == []
    assert [w["file"] for w in said["warnings"]] == [str(root / name)]
    assert word in said["warnings"][0]["problem"] and said["warnings"][0]["cure"]


def test_the_same_slice_in_two_splits_is_a_warning_even_under_one_number(root):
    for kind in ("image", "mask"):
        path = next((root / "train" / kind).glob("cmr9*.png"))
        shutil.copy(path, root / "val" / kind)
    _, warnings = audit.audit(root)
    assert any("val" in w.file and "cmr9" in w.file for w in warnings)


def test_doctor_for_people_says_the_same(root, command):
    blank(root)
    save_as("RGB")(root / "train" / "image")
    done = command("doctor", root)
    assert done.status == 2
    lines = done.out.splitlines()
    assert lines[0].startswith(f"error: {root}/train/image/cmr12.png: expected 8-bit grey")
    assert lines[1].startswith(f"warning: {root}/val/image/cmr4.png: is blank")
    assert lines[-1] == f"1 errors, 1 warnings in {root}"


def test_the_real_slices_have_no_errors_and_warnings_name_files(real):
    errors, warnings = audit.audit(real)
    assert errors == []
    assert any(w.file.endswith("train/mask/cmr24_mask.png") and "no RV" in w.problem
               for w in warnings)
    assert all((real / w.file).is_file() for w in warnings)
