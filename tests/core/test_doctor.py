"""Broken folders: what is wrong with one is said in one line, whoever meets it first."""

import json
import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, fill, heart, instead, png

from cmrseg import data, datasets
from cmrseg.data import BadInput
from cmrseg.datasets import checks, doctor, folders

LAST = "cmr12"  # of the train split


def picture(ending):
    return cv2.imencode(ending, heart(12)[0])[1].tobytes()


SLICE = data.encode_png(heart(12)[0])
DAMAGED = "not a readable PNG (truncated or damaged)"
CONTENTS = {  # of a file: what is said of it
    "RGB": (png(32, 32, colour=2), "found RGB colour."),
    "palette": (png(32, 32, colour=3, more=[(b"PLTE", bytes(3))]), "found a colour palette"),
    "alpha": (png(32, 32, colour=4), "found grey with alpha"),
    "16 bit": (png(32, 32, 16), "found 16-bit grey"),
    "1 bit": (png(32, 32, 1), "found 1-bit black and white"),
    "two bits": (png(32, 32, 2), "found 2-bit grey"),
    "two frames": (png(32, 32, more=[(b"acTL", bytes([0, 0, 0, 2] * 2))]), "holds 2 pictures"),
    "zero bytes": (b"", DAMAGED),
    "torn after the header": (SLICE[:33], DAMAGED),
    "torn in the pixels": (SLICE[: len(SLICE) // 2], DAMAGED),
    "one flipped bit": (SLICE[:99] + bytes([SLICE[99] ^ 1]) + SLICE[100:], DAMAGED),
    "fewer rows than said": (png(32, 32, rows=bytes(33 * 9)), DAMAGED),
    "no pixels": (png(0, 0), DAMAGED),
    "a bomb": (png(12000, 12000), "over 4096 pixels"),
    "a slice too large": (png(4097, 8), "over 4096 pixels"),
    "JPEG": (picture(".jpg"), "a JPEG file with the name of a PNG"),
    "BMP": (picture(".bmp"), "a BMP file with the name of a PNG"),
    "GIF": (b"GIF89a" + bytes(99), "a GIF file with the name of a PNG"),
}
IMAGES = {
    "a mask": (data.encode_png(heart(12)[1]), "are image and mask swapped"),
    "a mask to be seen": (data.encode_png(heart(12)[1] * 85), "has grey levels 0, 85, 170, 255"),
    "grey levels 0-1": (data.encode_png(np.ones((32, 32))), "has grey levels 0-3 only"),
    "a pixel": (data.encode_png(np.full((1, 1), 9)), "is a single pixel"),
    "another size": (data.encode_png(heart(12)[0][:-2]), "is 32 x 30 pixels, expected 32 x 32"),
}
MASKS = {
    "an image": (SLICE, "are image and mask swapped"),
    "labels to be seen": (data.encode_png(heart(12)[1] * 85), "divide by 85"),
    "one class to be seen": (data.encode_png(heart(12)[1] // 3 * 255), "Store labels"),
    "a label 7": (data.encode_png(heart(12)[1] // 3 * 7), "mask values 0, 7, expected 0-3"),
    "another size": (data.encode_png(heart(12)[1][:-2]), "is 32 x 30 pixels, expected 32 x 32"),
}
BROKEN = [
    pytest.param(kind, *case, id=f"{kind}: {name}")
    for kind, table in (("image", CONTENTS | IMAGES), ("mask", CONTENTS | MASKS))
    for name, case in table.items()
]


def said_of(root, kind):
    """What the doctor says of a root, the readers of one of its folders in the same words."""
    errors, _ = doctor.examine(root)
    assert all(error.problem and error.cure for error in errors)
    with pytest.raises(BadInput) as refused:
        (folders.check_images if kind == "image" else folders.read_masks)(root / "train" / kind)
    assert str(refused.value) in [str(error) for error in errors]
    return [str(error) for error in errors]


@pytest.mark.parametrize(("kind", "content", "problem"), BROKEN)
def test_a_file_that_is_no_slice_is_named(kind, content, problem, root):
    path = next((root / "train" / kind).glob(f"{LAST}*"))
    path.write_bytes(content)
    (line,) = said_of(root, kind)
    assert line.startswith(f"{path}: ") and problem in line


def renamed(name):
    return lambda path: os.rename(path, os.path.join(os.fsencode(path.parent), os.fsencode(name)))


def twin(name):
    return lambda path: shutil.copy(path, path.with_name(path.name.replace(LAST, name)))


def file_for_a_folder(path):
    shutil.rmtree(path.parent)
    path.parent.write_text("slices", encoding="utf-8")


def capital(path):
    path.parent.rename(path.parent.with_name(path.parent.name.title()))


PLACES = {  # what can happen to a file or its folder, and what is said
    "a missing folder": (lambda path: shutil.rmtree(path.parent), "no such folder"),
    "a folder in capitals": (capital, "no such folder, but there is "),
    "a file for a folder": (file_for_a_folder, "is not a folder"),
    "an empty folder": (lambda path: [p.unlink() for p in path.parent.iterdir()], "holds no cmrN"),
    "one number twice": (twin("cmr012"), "has the same number as cmr012"),
    "a link to nowhere": (instead(lambda p: p.symlink_to("nowhere.png")), "a link to nowhere"),
    "a link in a circle": (instead(lambda path: path.symlink_to(path)), "a link to nowhere"),
    "an endless link": (instead(lambda path: path.symlink_to("/dev/zero")), "no such "),
    "a directory": (instead(Path.mkdir), "no such "),
    "a pipe": (instead(os.mkfifo), "no such "),
    "a foreign name": (renamed("heart.png"), "heart.png: expected a name like cmrN"),
    "digits of another script": (renamed("cmr\u0665.png"), "expected a name"),
    "a negative number": (renamed("cmr-5.png"), "cmr-5.png: expected a name"),
    "a name of two lines": (renamed("heart\nerror: all is well.png"), "heart\\nerror"),
    "a name that is no text": (renamed(b"cmr\xff.png"), "expected a name"),
}


@pytest.mark.parametrize("kind", ["image", "mask"])
@pytest.mark.parametrize(("harm", "problem"), PLACES.values(), ids=PLACES)
def test_a_folder_that_holds_something_else_is_refused(harm, problem, kind, root):
    harm(next((root / "train" / kind).glob(f"{LAST}*")))
    line = said_of(root, kind)[0]
    assert line.startswith(str(root / "train" / kind)) and problem in line
    assert len(line.splitlines()) == 1


def test_doctor_says_to_people_and_programs_what_training_says_first(
    root, command, mistake, tmp_path
):
    for name in ("cmr7", "cmr12"):
        (root / "train" / "image" / f"{name}.png").write_bytes(png(32, 32, colour=2))
    data.write_png(root / "val" / "image" / "cmr4.png", np.full((32, 32), 9))
    done = command("doctor", root)
    lines = done.out.splitlines()
    assert done.status == 2 and not done.err
    assert lines[0].startswith(f"error: {root}/train/image/cmr7.png: expected 8-bit grey")
    assert lines[2].startswith(f"warning: {root}/val/image/cmr4.png: is blank")
    assert lines[3:] == [f"2 errors, 1 warnings in {root}"]
    first, *more = json.loads(command("doctor", root, "--json").out)["errors"]
    line = mistake("train", "--data", root, "--out", tmp_path / "out", naming=first["file"])
    assert first["problem"] in line and first["cure"] in line and f"{len(more)} more" in line
    assert not (tmp_path / "out").exists()


def errors_in(root):
    """The errors of a root: file and problem, the first as training would say it."""
    errors, _ = doctor.examine(root)
    with pytest.raises(BadInput) as refused:
        doctor.check(root)
    assert (refused.value.file, refused.value.problem) == (errors[0].file, errors[0].problem)
    return [(error.file.removeprefix(f"{root}/"), error.problem) for error in errors]


def edit(*names, change):
    """Change the pixels of files, or of all in a folder."""

    def harm(root):
        for place in [root / name for name in names]:
            for path in [*place.iterdir()] if place.is_dir() else [place]:
                data.write_png(path, change(data.read_png(path)))

    return harm


def test_every_error_is_found_in_the_order_of_splits_and_numbers(root):
    for name in ("train/image/cmr10.png", "train/image/cmr9.png"):
        (root / name).write_bytes(png(32, 32, colour=2))
    edit(M12, change=lambda mask: mask * 3)(root)
    (root / "val" / "mask" / "cmr3_mask.png").write_bytes(b"")
    names = ["train/image/cmr9.png", "train/image/cmr10.png", M12, "val/mask/cmr3_mask.png"]
    assert [file for file, _ in errors_in(root)] == names


@pytest.mark.parametrize(("kind", "other"), [("image", "mask"), ("mask", "image")])
def test_an_image_and_its_mask_come_together(kind, other, root):
    next((root / "val" / kind).glob("cmr3*.png")).unlink()
    ((file, problem),) = errors_in(root)
    assert file.startswith(f"val/{other}/cmr3") and problem == f"has no {kind}"
    with pytest.raises(BadInput, match=problem):
        datasets.load(root, "val")


def test_masks_and_splits_are_of_one_size(root):
    edit("val/mask", change=lambda mask: mask[:-2])(root)
    assert errors_in(root)[0][0] == "val/mask/cmr3_mask.png"
    assert "is 32 x 30 pixels, expected 32 x 32" in errors_in(root)[0][1]
    with pytest.raises(BadInput, match="32 x 30"):
        datasets.load(root, "val")
    edit("val/image", change=lambda image: image[:-2])(root)
    assert [file for file, _ in errors_in(root)] == ["val/image/cmr3.png"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_root_needs_both_labelled_splits(split, root, tmp_path):
    shutil.rmtree(root / split)
    assert errors_in(root) == [(split, "no such folder")]
    assert errors_in(tmp_path / "nowhere") == [(str(tmp_path / "nowhere"), "no such folder")]


def test_slices_too_small_to_learn_from_are_refused_before_training(tmp_path):
    root = fill(tmp_path / "root", size=16)
    problem = "is 16 x 16 pixels, too small to learn from"
    assert errors_in(root) == [("train/image/cmr5.png", problem)]
    assert doctor.examine(root / "test" / "image")[0] == []  # which can be predicted
    assert doctor.examine(fill(tmp_path / "larger", size=17))[0] == []


ROWS = [f"cmr{n},{n}" for n in range(1, 13)]
TABLES = {
    "binary": b"\xff\xfe\x00\x01",
    "other columns": b"slice,person\ncmr5,1\n",
    "too short": b"image,patient\ncmr5,1\n",
    "one column": b"image,patient\ncmr5\ncmr6\n",
    "semicolons": "\n".join(["image;patient", *ROWS]).replace(",", ";").encode(),
    "no patients": "\n".join(["image,patient", *ROWS[:-1], "cmr12,"]).encode(),
    "two for one": "\n".join(["image,patient", *ROWS, "cmr7,2"]).encode(),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "endless": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_an_unreadable_table_of_patients_is_an_error(table, root):
    path = root / "patients.csv"
    table(path) if callable(table) else path.write_bytes(table)
    errors = errors_in(root)
    assert {file for file, _ in errors} == {"patients.csv"} and len({*errors}) == len(errors)
    with pytest.raises(BadInput, match="patients"):
        datasets.load(root, "train")
    alone = shutil.copytree(root / "train" / "image", root / "alone")  # no split of a data root
    with pytest.raises(BadInput, match="patients"):
        datasets.known_patients(folders.list_pngs(alone))


def test_patients_may_have_a_byte_order_mark_and_numbers_too_long_to_count_with(root):
    rows = [f"cmr{n},{10**30 + n // 2}" for n in range(1, 13)]
    content = "\ufeff" + "\r\n".join(["image,patient", *rows])
    (root / "patients.csv").write_bytes(content.encode())
    assert doctor.examine(root)[0] == []
    assert datasets.load(root, "train").patients.tolist() == [3, 4, 4, 5, 5, 6, 6, 7]


@pytest.mark.parametrize("name", ["train/image/cmr7.png", "patients.csv"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(name, root, deny):
    (root / "patients.csv").write_text("\n".join(["image,patient", *ROWS]), encoding="utf-8")
    deny("open", root / name)
    assert (name, "can't be read: permission denied") in errors_in(root)


@pytest.mark.parametrize("place", ["", "train", "train/image"])
def test_doctor_answers_in_json_of_a_folder_that_may_not_be_read(place, root, command, deny):
    deny("iterdir", root / place)
    if place != "train/image":  # nor what is in it asked for
        deny("is_dir", root / place, within=True)
    done = command("doctor", root, "--json")
    assert done.status == 2 and not done.err
    assert ["permission denied" in e["problem"] for e in json.loads(done.out)["errors"]] == [True]


def test_a_healthy_root_has_no_findings(root, command):
    for folder in ("", "train", "train/image", "val/mask"):  # texts, tables and hidden files
        for name in ("README", "LICENCE", "license.rst", "notes.txt", "o.csv", "Why.MD", ".DS"):
            (root / folder / name).write_text("words", encoding="utf-8")
    for place in (root, root / "test" / "image", root / "train" / "mask"):
        assert doctor.examine(place) == ([], [])
    assert doctor.check(root) is None
    masks = datasets.load(root, "train").masks
    for path in (root / "train" / "mask").glob("cmr?_mask.png"):  # paired by number
        path.rename(path.with_name(f"cmr00{path.name[3:]}"))
    done = command("doctor", root, "--json")
    assert done.status == 0 and json.loads(done.out) == {"errors": [], "warnings": []}
    assert (datasets.load(root, "train").masks == masks).all()


def copy(name, target, change=lambda pixels: pixels):
    def harm(root):
        if (root / name).is_dir():
            shutil.copytree(root / name, root / target)
        else:
            data.write_png(root / target, change(data.read_png(root / name)))

    return harm


def move(*pairs):
    return lambda root: [(root / name).rename(root / target) for name, target in pairs]


def write(name):
    return lambda root: (root / name).write_text("image,patient\n", encoding="utf-8")


def outside(name):
    """Move something out of the root, and link to it."""

    def harm(root):
        away = root.parent / f"{root.name}-{Path(name).name}"
        shutil.move(root / name, away)
        (root / name).symlink_to(away)

    return harm


def table(patient, then=lambda root: None):
    """Write a table of patients, and do something else."""

    def harm(root):
        rows = [f"cmr{n},{patient(n)}" for n in range(1, 13)]
        (root / "patients.csv").write_text("\n".join(["image,patient", *rows]), encoding="utf-8")
        then(root)

    return harm


def relabelled(*labels):
    return lambda mask: np.array(labels, np.uint8)[mask]


def stray(mask):
    mask[0, 0] = 3
    return mask


def pierced(mask):
    mask[tuple(np.argwhere(mask == 3).mean(0).astype(int))] = 0
    return mask


def salted(mask):
    mask[::4, ::4][mask[::4, ::4] == 0] = 1
    return mask


I7, I9, M12 = "train/image/cmr7.png", "train/image/cmr9.png", "train/mask/cmr12_mask.png"
T1, T2, V4 = "test/image/cmr1.png", "test/image/cmr2.png", "val/image/cmr4.png"
I10, M4 = "train/image/cmr10.png", "val/mask/cmr4_mask.png"
ENDINGS = (".webp", ".npy", ".tif", ".nii.gz", ".png.bak", ".png ", "")
NEIGHBOURS = [
    (f"val/{kind}/cmr3{end}.png", f"val/{kind}/cmr8{end}.png")
    for kind, end in (("image", ""), ("mask", "_mask"))
]
ODD = [  # what is done, the file that is named, and what is said of it
    (edit(V4, change=lambda image: image * 0 + 9), V4, "blank"),
    (edit(I9, change=lambda image: np.where(image > 150, 210, 60)), I9, "has 2 grey levels"),
    (edit(I7, change=lambda image: 100 + image // 9), I7, "flat: less than 32 grey levels"),
    (edit("train/image", change=lambda i: i // 9), "train/image", "8 of 8 files are flat"),
    (edit(V4, change=lambda image: 255 - image), V4, "inverted"),
    (edit("train/image", change=lambda i: 255 - i), "train/image", "8 of 8 files are dark"),
    (edit("test/image", change=lambda image: image[:, :-1]), T1, "padded"),
    (edit("test/image", change=lambda i: i.repeat(2, 0).repeat(2, 1)), T1, "is 64 x 64 pixels"),
    (edit(M4, change=lambda mask: mask * 0), M4, "background only"),
    (edit(M12, change=relabelled(0, 0, 2, 3)), M12, "no RV"),
    (edit("train/mask", change=relabelled(0, 1, 2, 2)), "train/mask", "holds no mask with LV"),
    (edit(M12, change=stray), M12, "LV in 2 pieces, the smaller of 1 px"),
    (edit(M12, change=salted), M12, "pieces, the smaller of 1, 1, 1, 1, 1, 1, ... px"),
    (edit(M12, change=pierced), M12, "hole of 1 px in LV"),
    (edit(M12, change=relabelled(0, 1, 3, 2)), M12, "labelled Myo inside, LV around it"),
    (edit(M12, change=relabelled(0, 2, 1, 3)), M12, "labelled LV inside, RV around it"),
    (edit("train/mask", change=relabelled(0, 3, 2, 1)), "train/mask", "8 of 8 files are labelled"),
    (copy("train/mask/cmr9_mask.png", M12), M12, "is the same mask as"),
    (copy(I9, T2), T2, I9),
    (copy(I9, T2, np.rot90), T2, f"{I9}, turned"),
    (copy(I9, T2, np.flipud), T2, f"{I9}, mirrored"),
    (table(lambda n: (n + 1) // 2, copy(I9, I10)), I10, "is the same image as"),
    (table(lambda n: 5 if n == 3 else n), "val/image/cmr3.png", "is of one patient with"),
    (move(*NEIGHBOURS), "val/image/cmr8.png", "is of one patient with"),
    (copy(I9, "cmr9.png"), "cmr9.png", "train, val, test are read here"),
    (copy(I9, "train/cmr9.png"), "train/cmr9.png", "image, mask are read here"),
    (copy("val", "valid"), "valid", "is ignored"),
    (move(("test", "Test")), "Test", "is ignored"),
    (copy("val/image", "train/image/more"), "train/image/more", "ignored"),
    (copy("val/mask", "test/mask"), "test/mask", "ignored"),
    (write("Patients.csv"), "Patients.csv", "capitals"),
    *((move((T2, T2[:-4] + e)), T2[:-4] + e, "is not a PNG and is ignored") for e in ENDINGS),
    (outside("train/mask/cmr7_mask.png"), "train/mask/cmr7_mask.png", "out of the folder, to "),
    (outside("val/image"), "val/image", "out of the folder"),
    (table(lambda n: n, outside("patients.csv")), "patients.csv", "out of the folder"),
]


@pytest.mark.parametrize(("harm", "file", "problem"), ODD)
def test_what_is_odd_is_a_warning_that_names_the_file(harm, file, problem, root):
    harm(root)
    errors, warnings = doctor.examine(root)
    assert errors == [] and [warning.file for warning in warnings] == [str(root / file)]
    assert problem in warnings[0].problem and warnings[0].cure


def test_the_same_slice_in_two_splits_is_a_warning_even_under_one_number(root):
    for kind in ("image", "mask"):
        shutil.copy(next((root / "train" / kind).glob("cmr9*.png")), root / "val" / kind)
    (copy,) = [w for w in doctor.examine(root)[1] if "looks the same" in w.problem]
    assert copy.file == str(root / "val/image/cmr9.png")


def test_masks_alone_are_looked_at_too_and_a_training_waits_for_no_warning(root, monkeypatch):
    edit(M12, change=relabelled(0, 1, 2, 2))(root)
    assert [w.file for w in doctor.examine(root / "train" / "mask")[1]] == [str(root / M12)]
    monkeypatch.setattr(doctor, "CHECKS", (lambda folder: 1 / 0,))
    doctor.check(root)
    with pytest.raises(ZeroDivisionError):
        doctor.examine(root)


def folder_of(images=(), masks=()):
    """A folder in memory."""
    pictures = [
        [checks.Picture(Path(f"{n}"), p, n) for n, p in enumerate(s)] for s in (images, masks)
    ]
    return checks.Folder([], *pictures)


def test_pixels_that_touch_at_a_corner_are_no_island_and_a_bay_is_no_hole():
    corner, bay, gap = (np.zeros((9, 9), np.uint8) for _ in range(3))
    corner[[2, 3], [2, 3]] = 1
    bay[2:5, 2:5], bay[3, 3:5] = 1, 0
    gap[2:7, 2:7], gap[3:6, 3:6], gap[4, 4] = 1, 2, 0
    assert not [*checks.islands(folder_of(masks=[corner]))]
    assert not [*checks.holes(folder_of(masks=[bay]))]
    (hole,) = checks.holes(folder_of(masks=[bay, gap]))
    assert hole.problem == "has a hole of 1 px in Myo"


def test_an_outlier_is_found_however_wild_and_never_among_few_or_equal():
    values = np.exp(np.random.default_rng(0).normal(5, 0.3, 60))
    assert not len(checks.outliers(values))
    values[[3, 9]] = 1e6, np.exp(5 - 4.5 * 0.3)  # 4.5 deviations below
    assert list(checks.outliers(values)) == [3, 9]
    values[9] = 0  # an absent class is another finding
    assert list(checks.outliers(values)) == [3]
    assert not len(checks.outliers(values[:19]))
    assert not len(checks.outliers(np.array([100.0] * 30 + [101, 110])))


def test_a_negative_among_images_without_masks_is_named():
    images = [heart(n)[0] for n in range(40)]
    assert not [*checks.inverted_images(folder_of(images))]
    images[9] = 255 - images[9]
    (negative,) = checks.inverted_images(folder_of(images))
    assert negative.file == "9" and "inverted" in negative.problem
    assert not [*checks.inverted_images(folder_of(images[:19]))]  # too few to tell


def test_a_far_too_dark_slice_and_a_far_too_small_chamber_are_named(tmp_path):
    root = fill(tmp_path, {"train": range(1, 25), "val": range(25, 29)})
    assert doctor.examine(root) == ([], [])
    edit("val/image/cmr27.png", change=lambda image: image // 6)(root)
    mask = heart(12)[1]
    y, x = np.argwhere(mask == 3)[0]
    mask[mask == 3] = 2
    mask[y : y + 2, x] = 3
    data.write_png(root / M12, mask)
    warnings = {(w.file.removeprefix(f"{root}/"), w.problem[:10]) for w in doctor.examine(root)[1]}
    assert warnings == {("val/image/cmr27.png", "has a mean"), (M12, "has LV of ")}


def test_hundreds_of_slices_are_looked_at_in_seconds(tmp_path):
    """None of it goes by pairs of files. Time by the processor, which others disturb less."""
    fill(tmp_path, {"train": range(1, 201), "val": range(201, 251)}, size=96)
    started = time.process_time()
    errors, _ = doctor.examine(tmp_path)
    assert errors == [] and time.process_time() - started < 5


def test_the_record_of_the_real_slices_is_what_doctor_says(real, command, monkeypatch):
    monkeypatch.chdir(real)
    findings = json.loads(command("doctor", ".", "--json").out)
    assert findings == json.loads(
        (REPOSITORY / "results" / "doctor-acdc96.json").read_text(encoding="utf-8")
    )
    assert findings["errors"] == []
    assert all((real / warning["file"]).is_file() for warning in findings["warnings"])
