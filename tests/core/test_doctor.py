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
- warnings: drop any one function from audit.CHECKS; in near_duplicates(), drop ``| splits``
- healthy and real slices: in padded_images(), ``side % COARSEST`` -> ``side % 24``; in
  missing_classes(), ``if not (mask == c).any()`` -> ``if False``
- a class nowhere: in missing_classes(), ``- held`` -> ``- set()`` or ``and (path.parent, c) not in
  nowhere`` -> nothing
- islands and holes: in audit, ``NEIGHBOURS = np.ones((3, 3))`` -> ``None``; in holes(), drop
  ``& (mask == 0)``
- outliers: ``FAR = 3.5`` -> ``9``, or ``ENOUGH = 20`` -> ``3``, or ``max(np.median(away), 0.1)`` ->
  ``np.median(away)``; in odd_sizes(), ``(1, 2, 3)`` -> ``(1, 2)``
- altered copies: in likeness, ``SHIFTS`` -> ``(0,)``, ``ZOOMS`` -> ``(1,)``, or drop ``small -=
  small.mean(...)``, or in _points(), ``* side`` -> ``* 96`` (twice)
- siblings: in near_duplicates(), drop ``strangers |``, or ``!= patients`` -> ``== patients``
- strangers: in copy_limit(), ``norm.isf(0.01 / len(strangers))`` -> ``norm.isf(0.01)``, or the median of
  the deviations -> np.std(z)
- before a training: in audit.check(), ``_read(...)`` -> ``audit(folder)``
- the new kinds of the table: in data.NAME, ``[0-9]{1,9}`` -> ``\\d+``; in read_png(), drop ``and depth !=
  ...``, ``> 1`` frames -> ``> 9``, ``if max(picture.size) > LARGEST`` -> ``if False``; in _verify(), ``!=
  checksum`` -> ``!= checksum and not checksum``, or ``< needed`` -> ``< 0``; in BadInput, ``"".join(...)`` ->
  ``said``; in no_folder(), ``like = None``; in read_pngs(), drop the grey levels 0-3; in _wrong_labels(), ``> 20``
  -> ``> 999``
- patients again: ``utf-8-sig`` -> ``utf-8``; ``not who or`` dropped; ``setdefault(...) != who`` -> ``is
  None``;
  ``{1,18}`` -> ``{1,99}``; ``lexists`` -> ``isfile``, both
- negatives: in likeness, ``NEGATIVE = -0.4`` -> ``-2``; in inverted_images(), ``len(images) >= ENOUGH`` ->
  ``True``; ``and _around(mask, 3)[2] > 0.5`` dropped (swapped classes)
- all of a folder: in _each_or_all(), ``len(bad) > len(here) / 2`` -> ``False``
- what is ignored: in foreign_files(), ``inner and not`` -> ``False and not``, or ``!= ".png"`` -> ``== ".tif"``;
  ``NOTES`` without ``readme.*|``
- squeezed and copied images: ``FLAT = 32`` -> ``8``, or ``0 < levels`` -> ``levels``; in same_images(),
  ``range(4)`` -> ``range(1)``, or drop ``quarter or``
- too small: in audit._read(), drop ``*_too_small(found)``; there, ``place.name == "train" and`` dropped
- permissions: drop any one ``except PermissionError`` of data and audit
- thousands: in near_duplicates(), a loop over pairs
- for people: in cli.doctor(), ``2 if errors else 0`` -> ``0``
"""

import io
import json
import os
import shutil
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, files_in, fill, heart
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom

from cmrseg import audit, data
from cmrseg.likeness import copy_limit, likeness

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
    """Give a file a name: of text, or of bytes that are none."""

    def harm(folder):
        path = next(folder.glob("cmr5*.png"))
        os.rename(os.fsencode(path), os.path.join(os.fsencode(folder), os.fsencode(new)))
        return str(new).split("\n")[0] if isinstance(new, str) else "cmr"

    return harm


def replace_by(content, said=LAST):
    """Other bytes in the place of a file, and what is said of it."""

    def harm(folder):
        write(lambda old: content)(folder)
        return said

    return harm


def chunk(kind, content):
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def raw_png(width, height, bits=8, rows=None, more=b""):
    """A grey PNG by hand: also what no library would write."""
    rows = bytes(((width * bits + 7) // 8 + 1) * height) if rows is None else rows
    header = struct.pack(">2I5B", width, height, bits, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def flipped(folder):
    """The first bit whose loss Pillow lets pass, reading other pixels."""
    path = next(folder.glob(f"{LAST}*.png"))
    whole, pixels = path.read_bytes(), np.array(Image.open(path))
    for bit in range(8 * len(whole)):
        harmed = bytearray(whole)
        harmed[bit // 8] ^= 1 << bit % 8
        with suppress(Exception):
            found = np.array(Image.open(io.BytesIO(harmed)))
            if found.shape == pixels.shape and (found != pixels).any() and found.max() <= pixels.max():
                path.write_bytes(harmed)
                return "truncated or damaged"
    raise AssertionError("Pillow notices every bit now")


def animated(folder):
    path = next(folder.glob(f"{LAST}*.png"))
    picture = Image.open(path)
    picture.load()
    picture.save(path, save_all=True, append_images=[picture.rotate(90)])
    return "holds 2 pictures"


def same_bits_fewer(folder):
    """The same labels, or a ramp, as two bits a pixel: Pillow stretches them to 0, 85, 170, 255."""
    path = next(folder.glob(f"{LAST}*.png"))
    pixels = np.minimum(np.array(Image.open(path)), 3).reshape(32, 8, 4)
    packed = (pixels << np.array([6, 4, 2, 0])).sum(-1).astype(np.uint8)
    path.write_bytes(raw_png(32, 32, 2, b"".join(b"\0" + row.tobytes() for row in packed)))
    return "found 2-bit grey"


def circle(folder):
    path = next(folder.glob("cmr5*.png"))
    path.unlink()
    path.symlink_to(path)
    return path.name


def pipe(folder):
    path = next(folder.glob("cmr5*.png"))
    path.unlink()
    os.mkfifo(path)
    return path.name


def endless(folder):
    path = next(folder.glob("cmr5*.png"))
    path.unlink()
    path.symlink_to("/dev/zero")
    return path.name


def capital(folder):
    folder.rename(folder.with_name(folder.name.title()))
    return f"{folder}: no such folder, but there is {folder.name.title()}"


def file_in_its_place(folder):
    shutil.rmtree(folder)
    folder.write_text("slices")
    return f"{folder}: is not a folder"


def twin(folder):
    path = next(folder.glob("cmr5*.png"))
    shutil.copy(path, folder / path.name.replace("cmr", "CMR"))
    return path.name.replace("cmr", "CMR")


def picture(kind):
    def harm(folder):
        path = next(folder.glob(f"{LAST}*.png"))
        Image.fromarray(heart(12)[0]).save(path, format=kind)
        return path.name

    return harm


def other_kind(folder):
    """An image in the place of a mask, or the reverse."""
    image, mask = heart(12)
    path = next(folder.glob(f"{LAST}*.png"))
    data.write_png(path, image if path.stem.endswith("_mask") else mask)
    return "are image and mask swapped"


def stretched(folder):
    """A mask in the place of an image, its labels times 85."""
    data.write_png(next(folder.glob(f"{LAST}*.png")), heart(12)[1] * 85)
    return "has grey levels 0, 85, 170, 255 only"


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
    "digits of another script": rename("cmr٥.png"),
    "a number of sixty digits": rename(f"cmr{'5' * 60}.png"),
    "a negative number": rename("cmr-5.png"),
    "a name of two lines": rename("heart\nerror: all is well.png"),
    "a name that is no text": rename(b"cmr\xff.png"),
    "a twin in capitals": twin,
    "a folder in capitals": capital,
    "a file for a folder": file_in_its_place,
    "two bits": same_bits_fewer,
    "four bits": replace_by(raw_png(32, 32, 4), "found 4-bit grey"),
    "no pixels": replace_by(raw_png(0, 0)),
    "fewer rows than said": replace_by(raw_png(32, 32, 8, bytes(33 * 9)), "truncated or damaged"),
    "one flipped bit": flipped,
    "two frames": animated,
    "a bomb": replace_by(raw_png(12000, 12000), "over 4096 pixels"),
    "a slice too large": replace_by(raw_png(4097, 8), "over 4096 pixels"),
    "a bomb that says so": replace_by(raw_png(60000, 60000, 8, b""), "over 4096 pixels"),
    "a bomb of text": replace_by(raw_png(32, 32, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
                                 "truncated or damaged"),
    "a link in a circle": circle,
    "a link to something endless": endless,
    "a pipe": pipe,
    "BMP": picture("BMP"),
    "GIF": picture("GIF"),
    "TIFF": picture("TIFF"),
    "image for mask": other_kind,
}
IMAGES = ANY | {
    "JPEG": jpeg,
    "upper case": rename("cmr5.PNG"),
    "a mask": rename("cmr5_mask.png"),
    "labels stretched to be seen": stretched,
    "grey levels 0-1": replace_by(raw_png(32, 32, 8, (b"\0" + b"\1" * 32) * 32), "grey levels 0-3"),
}
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
    assert said.status == 2 and not said.err
    found = json.loads(said.out)
    assert any(name in "{file}: {problem}. {cure}".format(**error) for error in found["errors"])
    assert all(error["problem"] and error["cure"] for error in found["errors"])
    for_people = command("doctor", root)
    assert for_people.status == 2 and not for_people.err
    assert len(for_people.out.splitlines()) == 1 + len(found["errors"]) + len(found["warnings"])
    before = files_in(root)
    mistake("train", "--data", root, "--out", out, naming=root / "train")
    if kind == "image":
        mistake("predict", "--model", model, "--images", folder, "--out", out, naming=name)
    else:
        mistake("evaluate", "--pred", folder, "--truth", healthy, naming=name)
        mistake("evaluate", "--pred", healthy, "--truth", folder, naming=name)
        mistake("submit", "--masks", folder, "--out", out / "s.csv", naming=name)
    assert not out.exists() and files_in(root) == before


def test_the_table_holds_forty_kinds_and_more():
    assert len(set(IMAGES) | set(MASKS)) >= 40 and len(BROKEN) >= 80


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
    b"image;patient\n" + b"\n".join(b"cmr%d;1" % n for n in range(1, 13)),
    b"image,patient\n" + b"\n".join(b"cmr%d," % n for n in range(1, 13)),
    b"image,patient\n" + b"\n".join(b"cmr%d,%d" % (n, n) for n in [*range(1, 13), 7]) + b"\ncmr7,2",
    None,
], ids=["binary", "other columns", "too short", "one column", "semicolons", "no patients", "two for one",
        "a folder"])
def test_an_unreadable_patients_table_is_an_error(table, root, command, mistake, tmp_path):
    path = root / "patients.csv"
    path.mkdir() if table is None else path.write_bytes(table)
    said = command("doctor", root, "--json")
    assert said.status == 2
    files = [error["file"] for error in json.loads(said.out)["errors"]]
    assert files and set(files) == {str(root / "patients.csv")}
    mistake("train", "--data", root, "--out", tmp_path / "out", naming="patients.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "endless"])
def test_a_patients_table_without_an_end_is_not_waited_for(put, root):
    put(root / "patients.csv")
    assert {error.file for error in audit.audit(root)[0]} == {str(root / "patients.csv")}


def test_patients_may_have_a_byte_order_mark_and_numbers_too_long_to_count_with(root):
    rows = [f"cmr{n},{10**30 + n // 2}" for n in range(1, 13)]
    (root / "patients.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(["image,patient", *rows]).encode())
    assert audit.audit(root)[0] == []
    assert data.load(root, "train").patients.tolist() == [3, 4, 4, 5, 5, 6, 6, 7]


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


def test_slices_too_small_to_learn_from_are_refused_before_training(mistake, command, tmp_path):
    root = fill(tmp_path / "root", size=16)
    first = root / "train" / "image" / "cmr5.png"
    line = mistake("train", "--data", root, "--out", tmp_path / "out", naming=first)
    assert "16 x 16" in line and not (tmp_path / "out").exists()
    assert [error.file for error in audit.audit(root)[0]] == [str(first)]
    assert audit.audit(root / "test" / "image")[0] == []  # which can be predicted
    assert audit.audit(fill(tmp_path / "larger", size=17))[0] == []


def denied(path, *_, **__):
    raise PermissionError(13, "Permission denied", str(path))


def test_a_file_that_may_not_be_read_is_not_called_damaged(root, mistake, monkeypatch):
    closed, opens = root / "train" / "image" / "cmr7.png", Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (denied if self == closed else opens)(self, *a, **k))
    (error,) = (e for e in audit.audit(root)[0] if e.file == str(closed))
    assert "permission denied" in error.problem
    monkeypatch.undo()
    (root / "patients.csv").write_text("image,patient\n")
    closed = root / "patients.csv"
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: (denied if self == closed else opens)(self, *a, **k))
    assert {e.problem for e in audit.audit(root)[0]} == {error.problem}


@pytest.mark.parametrize("place", ["", "train", "train/image"])
def test_doctor_answers_in_json_of_a_folder_that_may_not_be_read(place, root, command, monkeypatch):
    closed, lists, asks = root / place, Path.iterdir, Path.is_dir
    monkeypatch.setattr(Path, "iterdir", lambda self: (denied if self == closed else lists)(self))
    if place != "train/image":  # nor what is in it asked for
        monkeypatch.setattr(Path, "is_dir", lambda self: (denied if closed in self.parents else asks)(self))
    done = command("doctor", root, "--json")
    assert done.status == 2 and not done.err
    assert ["permission denied" in e["problem"] for e in json.loads(done.out)["errors"]] == [True]


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


def test_texts_tables_and_hidden_files_may_lie_beside_slices(root):
    for folder in ("", "train", "train/image", "val/mask"):
        for name in ("README", "LICENCE", "license.rst", "notes.txt", "origin.csv", "Why.MD", ".DS_Store"):
            (root / folder / name).write_text("words")
    assert audit.audit(root) == ([], [])


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
    return "train/mask/cmr12_mask.png", "LV in 2 pieces, the smaller of 1 px"


def with_a_hole(root):
    path = root / "train" / "mask" / "cmr12_mask.png"
    mask = np.array(Image.open(path))
    mask[tuple(np.argwhere(mask == 3).mean(0).astype(int))] = 0
    data.write_png(path, mask)
    return "train/mask/cmr12_mask.png", "hole of 1 px in LV"


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


def ending(name):
    """An image whose name says it is something else."""

    def harm(root):
        (root / "test" / "image" / "cmr2.png").rename(root / "test" / "image" / name)
        return f"test/image/{name}", "is not a PNG and is ignored"

    harm.__name__ = repr(name)
    return harm


def in_the_root(root):
    shutil.copy(root / "train" / "image" / "cmr9.png", root)
    return "cmr9.png", "train, val, test are read here"


def beside_the_folders(root):
    shutil.copy(root / "train" / "image" / "cmr9.png", root / "train")
    return "train/cmr9.png", "image, mask are read here"


def a_split_more(root):
    shutil.copytree(root / "val", root / "valid")
    return "valid", "is ignored"


def capital_test(root):
    (root / "test").rename(root / "Test")
    return "Test", "is ignored"


def squeezed(root):
    path = root / "train" / "image" / "cmr7.png"
    data.write_png(path, 100 + np.array(Image.open(path)) // 9)
    return "train/image/cmr7.png", "flat: less than 32 grey levels"


def all_squeezed(root):
    for path in (root / "train" / "image").iterdir():
        data.write_png(path, np.array(Image.open(path)) // 9)
    return "train/image", "8 of 8 files are flat"


def copy_of_a_sibling(root):
    rows = [f"cmr{n},{(n + 1) // 2}" for n in range(1, 13)]
    (root / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    shutil.copy(root / "train" / "image" / "cmr9.png", root / "train" / "image" / "cmr10.png")
    return "train/image/cmr10.png", f"is the same image as {root}/train/image/cmr9.png"


def turned(root):
    data.write_png(root / "test/image/cmr2.png", np.rot90(np.array(Image.open(root / "train/image/cmr9.png"))))
    return "test/image/cmr2.png", "train/image/cmr9.png, turned"


def mirrored(root):
    data.write_png(root / "test/image/cmr2.png", np.array(Image.open(root / "train/image/cmr9.png"))[::-1])
    return "test/image/cmr2.png", "train/image/cmr9.png, mirrored"


def cut_at_a_threshold(root):
    path = root / "train/image/cmr9.png"
    data.write_png(path, np.where(np.array(Image.open(path)) > 150, 210, 60).astype(np.uint8))
    return "train/image/cmr9.png", "has 2 grey levels"


def twice_the_size(root):
    for path in (root / "test" / "image").iterdir():
        data.write_png(path, np.array(Image.open(path)).repeat(2, 0).repeat(2, 1))
    return "test/image/cmr1.png", "is 64 x 64 pixels, those to learn from 32 x 32"


def table_out(root):
    table = root.parent / f"{root.name}.csv"
    table.write_text("\n".join(["image,patient", *(f"cmr{n},{n}" for n in range(1, 13))]))
    (root / "patients.csv").symlink_to(table)
    return "patients.csv", "out of the folder"


def foreign_table(root):
    (root / "Patients.csv").write_text("image,patient\n")
    return "Patients.csv", "capitals"


def folder_within(root):
    shutil.copytree(root / "val" / "image", root / "train" / "image" / "more")
    return "train/image/more", "ignored"


def masks_of_test(root):
    shutil.copytree(root / "val" / "mask", root / "test" / "mask")
    return "test/mask", "ignored"


def link_out(root):
    path = root / "train" / "mask" / "cmr7_mask.png"
    shutil.move(path, root.parent / f"{root.name}.png")
    path.symlink_to(root.parent / f"{root.name}.png")
    return "train/mask/cmr7_mask.png", f"out of the folder, to {root.parent}"


def folder_out(root):
    shutil.move(root / "val" / "image", root.parent / f"{root.name}-image")
    (root / "val" / "image").symlink_to(root.parent / f"{root.name}-image")
    return "val/image", "out of the folder"


def one_patient_twice(root):
    rows = [f"cmr{n},{5 if n == 3 else n}" for n in range(1, 13)]
    (root / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    return "val/image/cmr3.png", "patient 5, as is"


def one_number_twice(root):
    for folder, end in (("image", ""), ("mask", "_mask")):
        (root / "val" / folder / f"cmr3{end}.png").rename(root / "val" / folder / f"cmr8{end}.png")
    return "val/image/cmr8.png", "patient 8, as is"


def inverted(root):
    path = root / "val" / "image" / "cmr4.png"
    data.write_png(path, 255 - np.array(Image.open(path)))
    return "val/image/cmr4.png", "inverted"


def all_inverted(root):
    for path in (root / "train" / "image").iterdir():
        data.write_png(path, 255 - np.array(Image.open(path)))
    return "train/image", "8 of 8 files are dark"


def labels(values, *folders):
    def harm(root):
        for folder in folders:
            for path in (root / folder).iterdir():
                data.write_png(path, np.array(values, np.uint8)[np.array(Image.open(path))])

    return harm


def cavity_and_wall(root):
    relabel((0, 1, 3, 2))(root / "train" / "mask")
    return "train/mask/cmr12_mask.png", "labelled Myo inside, LV around it"


def chambers_of_all(root):
    labels((0, 3, 2, 1), "train/mask")(root)
    return "train/mask", "8 of 8 files are labelled RV inside, Myo around it"


def wall_and_right(root):
    relabel((0, 2, 1, 3))(root / "train" / "mask")
    return "train/mask/cmr12_mask.png", "labelled LV inside, RV around it"


def salt(root):
    path = root / "train" / "mask" / "cmr12_mask.png"
    mask = np.array(Image.open(path))
    mask[::4, ::4][mask[::4, ::4] == 0] = 1
    data.write_png(path, mask)
    return "train/mask/cmr12_mask.png", "pieces, the smaller of 1, 1, 1, 1, 1, 1, ... px"


def one_mask_twice(root):
    shutil.copy(root / "train" / "mask" / "cmr9_mask.png", root / "train" / "mask" / "cmr12_mask.png")
    return "train/mask/cmr12_mask.png", "is the same mask as"


ODD = [blank, no_labels, no_rv, in_pieces, with_a_hole, odd_size, twice, foreign, foreign_table, folder_within,
       masks_of_test, link_out, folder_out, one_patient_twice, one_number_twice, inverted, all_inverted,
       cavity_and_wall, chambers_of_all, wall_and_right, salt, one_mask_twice, in_the_root, beside_the_folders,
       a_split_more, capital_test, squeezed, all_squeezed, copy_of_a_sibling, turned,
       mirrored, cut_at_a_threshold, twice_the_size, table_out,
       *(ending(f"cmr2{end}") for end in (".webp", ".npy", ".nii.gz", ".png.bak", ".png ", ""))]


@pytest.mark.parametrize("harm", ODD)
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


def test_a_class_that_no_mask_has_is_said_once_of_the_folder(root):
    for path in (root / "train" / "mask").iterdir():
        data.write_png(path, np.array([0, 1, 2, 2], np.uint8)[np.array(Image.open(path))])
    _, warnings = audit.audit(root)
    assert [(w.file, w.problem) for w in warnings] == [(str(root / "train" / "mask"), "holds no mask with LV")]


def masks_of(*masks):
    """A folder in memory, of masks only."""
    return audit.Folder([], [], [audit.Picture(f"{n}", mask, n) for n, mask in enumerate(masks)])


def test_pixels_that_touch_at_a_corner_are_no_island_and_a_bay_is_no_hole():
    corner, bay, gap = (np.zeros((9, 9), np.uint8) for _ in range(3))
    corner[[2, 3], [2, 3]] = 1
    bay[2:5, 2:5], bay[3, 3:5] = 1, 0
    gap[2:7, 2:7], gap[3:6, 3:6], gap[4, 4] = 1, 2, 0
    assert not [*audit.islands(masks_of(corner))]
    assert not [*audit.holes(masks_of(bay))]
    assert ["Myo" in finding.problem for finding in audit.holes(masks_of(bay, gap))] == [True]


def test_an_outlier_is_found_however_wild_and_never_among_few_or_equal():
    values = np.exp(np.random.default_rng(0).normal(5, 0.3, 60))
    assert not len(audit.outliers(values))
    values[[3, 9]] = 1e6, np.exp(5 - 4.5 * 0.3)  # 4.5 deviations below
    assert list(audit.outliers(values)) == [3, 9]
    values[9] = 0  # an absent class is another finding
    assert list(audit.outliers(values)) == [3]
    assert not len(audit.outliers(values[:19]))
    assert not len(audit.outliers(np.array([100.0] * 30 + [101, 110])))


def slices_of(count, size=48):
    """Made-up pictures of strangers: smooth noise, and something bright that all have in the middle."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size] / size - 0.5
    common = 50 * np.exp(-20 * (x**2 + y**2))
    noise = [gaussian_filter(rng.normal(size=(size, size)), size / 32) for _ in range(count)]
    images = [90 + rng.normal(0, 15) + common + 30 * n / n.std() for n in noise]
    return np.clip(images, 0, 255).astype(np.uint8)


def test_a_far_too_small_heart_and_a_far_too_dark_slice_are_named():
    rng = np.random.default_rng(0)
    radius = np.hypot(*(np.mgrid[:48, :48] - 24))
    sizes = rng.uniform(8, 12, 30)
    masks = [3 * (radius < r).astype(np.uint8) for r in [*sizes, 2]]
    (small,) = audit.odd_sizes(masks_of(*masks))
    assert small.file == "30" and "LV of" in small.problem
    pictures = [audit.Picture(f"{n}", image, n) for n, image in enumerate(slices_of(30))]
    assert not [*audit.odd_grey_levels(audit.Folder([], pictures, []))]
    pictures[4] = pictures[4]._replace(pixels=pictures[4].pixels // 8)
    (dark,) = audit.odd_grey_levels(audit.Folder([], pictures, []))
    assert dark.file == "4" and "mean grey level" in dark.problem


def test_a_negative_among_images_without_masks_is_named():
    pictures = [audit.Picture(Path(f"{n}"), heart(n)[0], n) for n in range(40)]
    assert not [*audit.inverted_images(audit.Folder([], pictures, []))]
    pictures[9] = pictures[9]._replace(pixels=255 - pictures[9].pixels)
    (found,) = audit.inverted_images(audit.Folder([], pictures, []))
    assert found.file == "9" and "inverted" in found.problem
    assert not [*audit.inverted_images(audit.Folder([], pictures[:19], []))]  # too few to tell


def test_thousands_of_slices_are_looked_at_in_seconds(tmp_path):
    """Five thousand take some twenty seconds of one slow core; here five hundred, and none of it by pairs
    of files: time by the processor, which other programs disturb less."""
    fill(tmp_path, {"train": range(1, 401), "val": range(401, 501)}, size=96)
    started = time.process_time()
    errors, _ = audit.audit(tmp_path)
    assert errors == [] and time.process_time() - started < 10


def test_doctor_asks_for_outliers_too(tmp_path):
    splits = {"train": range(1, 25), "val": range(25, 29)}
    root = fill(tmp_path, splits)
    path = root / "val" / "image" / "cmr27.png"
    data.write_png(path, np.array(Image.open(path)) // 6)
    path = root / "train" / "mask" / "cmr12_mask.png"
    mask = np.array(Image.open(path))
    y, x = np.argwhere(mask == 3)[0]
    mask[mask == 3] = 2
    mask[y : y + 2, x] = 3
    data.write_png(path, mask)
    found = {(w.file.removeprefix(str(root)), w.problem.split(" of ")[0]) for w in audit.audit(root)[1]}
    assert found == {("/val/image/cmr27.png", "has a mean grey level"),
                     ("/train/mask/cmr12_mask.png", "has LV")}


def enlarged(image, factor):
    """The same field of view on another number of pixels."""
    return np.clip(zoom(image.astype(float), factor, order=1), 0, 255).astype(np.uint8)


def cropped(image, factor):
    """Rescaled, and as many pixels as before."""
    big = np.pad(enlarged(image, factor), 8, mode="edge")
    start = (len(big) - len(image)) // 2
    return big[start : start + len(image), start : start + len(image)]


ALTERED = {
    "as it is": lambda image: image,
    "one pixel to the right": lambda image: np.roll(image, 1, 1),
    "one pixel up": lambda image: np.roll(image, -1, 0),
    "two pixels down, one left": lambda image: np.roll(image, (2, -1), (0, 1)),
    "5 % larger": lambda image: cropped(image, 1.05),
    "10 % larger": lambda image: cropped(image, 1.1),
    "10 % smaller": lambda image: cropped(image, 0.9),
    "brighter": lambda image: np.clip(image * 1.2 + 20, 0, 255).astype(np.uint8),
    "darker": lambda image: image // 3,
    "noisy": lambda image: np.clip(image + np.random.default_rng(2).normal(0, 8, image.shape), 0, 255
                                   ).astype(np.uint8),
    "on more pixels": lambda image: enlarged(image, 1.5),
}


@pytest.fixture(scope="module")
def strangers():
    return slices_of(40, size=96)


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_an_altered_copy_is_found_and_nothing_else(alter, strangers):
    pictures = [audit.Picture(Path(f"train/{n}"), image, n) for n, image in enumerate(strangers)]
    assert not [*audit.near_duplicates(audit.Folder([], pictures, []))]
    pictures.append(audit.Picture(Path("val/99"), alter(strangers[7]), 99))
    (found,) = audit.near_duplicates(audit.Folder([], pictures, []))
    assert Path(found.file) == Path("val/99") and "looks the same as train/7" in found.problem
    assert likeness([strangers[7], alter(strangers[7])])[0, 1] > 0.98


def test_siblings_are_expected_within_a_split_and_not_across(strangers):
    def found(place, patient):
        sibling = audit.Picture(Path(place), np.roll(strangers[7], 1, 1), patient)
        return [*audit.near_duplicates(audit.Folder([], [*pictures, sibling], []))]

    pictures = [audit.Picture(Path(f"train/{n}"), image, n) for n, image in enumerate(strangers)]
    assert not found("train/99", 7)
    assert len(found("train/99", 99)) == len(found("val/99", 7)) == len(found("val/99", 99)) == 1


def test_the_limit_follows_the_strangers_and_copies_among_them_do_not_move_it():
    z = np.random.default_rng(0).normal(0.4, 0.2, 5000)
    limit = copy_limit(np.tanh(z))
    assert np.tanh(0.4 + 4 * 0.2) < limit < np.tanh(0.4 + 5 * 0.2)  # 5000 pairs: 4.6 deviations
    assert abs(copy_limit(np.tanh(np.r_[z, np.full(100, 3)])) - limit) < 0.01
    assert copy_limit(np.tanh(z)[:50]) > 0.96
    assert copy_limit(np.random.default_rng(0).normal(0, 0.01, 5000)) > 0.5


def test_likeness_is_even_handed(strangers):
    alike = likeness(strangers[:5])
    assert np.array_equal(alike, alike.T) and np.allclose(np.diag(alike), 1, atol=1e-3)
    assert likeness(np.full((2, 48, 48), 7, np.uint8)).max() < 0.01  # blank pictures are like none
    mixed = likeness([strangers[0], enlarged(strangers[1], 1.5), strangers[1]])
    assert mixed[1, 2] > 0.97 > mixed[0, 2]


def test_a_training_waits_for_no_warning(root, monkeypatch):
    def late(found):
        raise AssertionError("a warning was looked for")

    monkeypatch.setattr(audit, "CHECKS", (late,))
    audit.check(root)
    with pytest.raises(AssertionError):
        audit.audit(root)


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


def test_the_record_of_the_real_slices_is_what_doctor_says(real, command, monkeypatch):
    monkeypatch.chdir(real)
    said = json.loads(command("doctor", ".", "--json").out)
    assert said == json.loads((REPOSITORY / "results" / "doctor-acdc96.json").read_text())


def test_two_real_test_patients_are_one_person(real):
    test = dict(zip(*(lambda s: (s.names, s.images))(data.load(real, "test"))))
    for a, b in (("cmr171", "cmr175"), ("cmr172", "cmr176")):
        assert np.array_equal(test[a][:, 1:], test[b][:, :-1])
