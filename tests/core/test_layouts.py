"""Folders of NIfTI files as users have them: what is found, paired, placed, named or refused."""

import gzip
import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from cmrseg import datasets
from cmrseg.data import BadInput
from cmrseg.datasets import layouts, nifti

nibabel = pytest.importorskip("nibabel")
AFFINE = np.diag([-2.0, -2, 10, 1])  # axes L, P, S, as ACDC's
LEVELS = np.array([60, 700, 200, 900], np.float32)  # of background, RV, Myo, LV


def labels(shape=(64, 60, 3)):
    """A heart, uint8: the RV at lower first and higher second indices than the LV."""
    x, y = np.meshgrid(*(np.arange(n) - n / 2 for n in shape[:2]), indexing="ij")
    heart = np.zeros(shape[:2], np.uint8)
    heart[np.hypot(x + 15, y - 3) < 8] = 1
    heart[np.hypot(x, y) < 12] = 2
    heart[np.hypot(x, y) < 7] = 3
    return np.stack([heart] * shape[2], 2)


def save(path, values, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def pair(stem, ending=".nii.gz", order=(0, 1, 2, 3)):
    """A volume and its labels, which count the classes as ``order`` says."""
    heart = labels()
    save(stem.with_name(stem.name + ending), LEVELS[heart])
    save(stem.with_name(stem.name + "_gt" + ending), np.array(order, np.uint8)[heart])


@pytest.fixture
def folder(tmp_path):
    """Six patients of ACDC, one moment each."""
    for n in range(1, 7):
        pair(tmp_path / "in" / f"patient{n:03}" / f"patient{n:03}_frame01")
    return tmp_path / "in"


def read(folder):
    """All slices of a folder by name of the file: image, mask or None, patient; and what is said."""
    found = layouts.find(folder)
    splits = nifti.read(found, 2.0, 64)
    slices = {}
    for part in splits.values():
        masks = [None] * len(part) if part.masks is None else part.masks
        slices |= dict(zip(part.names, zip(part.images, masks, part.patients)))
    return slices, found, splits


def assert_whole(folder, patients=6, each=3):
    """That so many patients lie there, all right."""
    slices, found, _ = read(folder)
    assert len(found.patients) == len({p for *_, p in slices.values()}) == patients
    assert len(slices) == patients * each
    for image, mask, _ in slices.values():
        assert image[mask == 3].min() > image[mask == 1].max() > image[mask == 2].max() > 40
        np.testing.assert_array_equal(mask[:, 2:62], labels()[:, :, 0])
    return found


# --- found, whatever their names and places -------------------------------------------------------


def rename(folder, change):
    for path in sorted(folder.rglob("*.nii*")):
        path.rename(path.with_name(change(path.name)))


def link_files(folder):
    store = folder.parent / "store"
    store.mkdir()
    for n, path in enumerate(sorted(folder.rglob("*.nii.gz"))):
        path.rename(store / f"blob{n}.nii.gz")
        path.symlink_to(store / f"blob{n}.nii.gz")


def link_folders(folder):
    folder.rename(folder.parent / "store")
    folder.mkdir()
    for path in (folder.parent / "store").iterdir():
        (folder / path.name).symlink_to(path)


def link_back(folder):
    (folder / "patient001" / "up").symlink_to(folder)
    (folder / "latest").symlink_to(folder / "patient002")


def hide(folder):
    for path in list(folder.rglob("*.nii.gz")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    pair(folder / ".trash" / "patient009_frame01")


def folder_around(folder):
    """As unpacking sometimes leaves them: patient001_frame01.nii/patient001_frame01.nii."""
    for path in list(folder.rglob("*.nii.gz")):
        content = gzip.decompress(path.read_bytes())
        around = path.with_suffix("")
        around.mkdir()
        (around / around.name).write_bytes(content)
        path.unlink()


def flat(folder):
    for path in list(folder.rglob("*.nii.gz")):
        path.rename(folder / path.name)
    for path in folder.iterdir():
        if path.is_dir():
            path.rmdir()


def composed_two_ways(folder):
    for path in list(folder.rglob("*.nii.gz")):
        form = "NFD" if "_gt" in path.name else "NFC"
        name = path.name.replace("patient", "pätiént")
        path.rename(path.with_name(unicodedata.normalize(form, name)))


def beside(folder):
    """What lies beside the volumes in ACDC and elsewhere."""
    for place in folder.iterdir():
        (place / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n", encoding="utf-8")
        save(place / f"{place.name}_4d.nii.gz", np.zeros((9, 9, 2, 3), np.float32))
    (folder / "readme.txt").write_text("words", encoding="utf-8")
    (folder / ".DS_Store").write_bytes(b"\0")


SOUND = {
    "capitals": lambda f: rename(f, str.upper),
    "capitals of labels": lambda f: rename(f, lambda n: n.upper() if "_gt" in n else n),
    "mixed capitals": lambda f: rename(f, lambda n: n.replace(".nii.gz", ".Nii.Gz")),
    "packed under a plain ending": lambda f: rename(f, lambda n: n.replace(".gz", "")),
    "packed capitals": lambda f: rename(f, lambda n: n.replace(".nii.gz", ".NII.GZ")),
    "linked files": link_files,
    "linked folders": link_folders,
    "links back": link_back,
    "hidden": hide,
    "folders around": folder_around,
    "flat": flat,
    "letters": composed_two_ways,
    "blanks": lambda f: rename(f, lambda n: n.replace("patient", "Doe, J. \n'\" ")),
    "deeper": lambda f: shutil.move(f / "patient003", f / "more" / "training" / "patient003"),
    "beside": beside,
}


@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
def test_all_patients_are_found(change, folder, command):
    change(folder)
    assert_whole(folder)
    out = folder.parent / "out"
    done = command("convert", folder, "--out", out, "--spacing", 2, "--size", 64)
    assert done.status == 0 and "18 slices of 6 patients of 6 found (5 train, 1 val)" in done.out
    assert done.err == ""
    assert {*datasets.load(out, "val").patients, *datasets.load(out, "train").patients} == {
        *range(1, 7)
    }


def test_what_is_left_out_on_purpose_is_counted(folder):
    beside(folder)
    grey = np.stack([LEVELS[labels()]] * 4, 3)
    masks = np.stack([labels() * 0, labels() * [1, 1, 0]] * 2, 3)
    save(folder / "A0S9V9" / "A0S9V9_sa.nii.gz", grey)
    save(folder / "A0S9V9" / "A0S9V9_sa_gt.nii.gz", np.array(layouts.MNMS, np.uint8)[masks])
    save(folder / "A0S9V9" / "A0S9V9_la.nii.gz", grey[..., 0])
    slices, found, splits = read(folder)
    assert len(slices) == 6 * 3 + 2 * 2
    said = layouts.summary(found, splits)
    assert said.startswith("22 slices of 7 patients of 7 found (6 train, 1 val); left out: ")
    for part in ("7 cine or long-axis files", "2 moments without", "2 slices without"):
        assert part in said
    assert found.notes == []


@pytest.mark.parametrize("names", ["{0}/{0}_sa", "Training/Labeled/{0}/{0}_sa", "{0}/{0}_SA_ED"])
def test_mnms_is_known_by_its_names(names, tmp_path):
    for code in ("A0S9V9", "B1", "C2"):
        pair(tmp_path / names.format(code), order=layouts.MNMS)
    assert_whole(tmp_path, patients=3)


def test_patients_are_placed_or_named(folder, command):
    out = folder.parent / "out"
    for path in folder.rglob("patient002*_gt*"):  # nobody's labels: into test
        path.unlink()
    pair(folder / "patient003" / "patient003_frame12")  # a moment without labels: named
    (folder / "patient003" / "patient003_frame12_gt.nii.gz").unlink()
    save(folder / "patient004" / "patient004_frame01_gt.nii.gz", labels() * 0)  # no label: named
    (folder / "patient005" / "patient005_frame01.nii.gz").rename(
        folder / "patient005" / "patient005_4d.nii.gz"
    )
    (folder / "patient005" / "patient005_frame01_gt.nii.gz").unlink()  # a cine alone: named
    (folder / "patient007").mkdir()  # nothing: named
    done = command("convert", folder, "--out", out, "--spacing", 2, "--size", 64)
    assert done.status == 0, done.err
    assert "12 slices of 4 patients of 6 found (2 train, 1 val, 1 test)" in done.out
    assert set(datasets.load(out, "test").patients) == {2}
    names = ("patient003_frame12", "patient004_frame01", "patient005", "patient007")
    warned = done.err.splitlines()
    assert len(warned) == 4 and all(line.startswith("warning: ") for line in warned)
    assert all(any(name in line for line in warned) for name in names)


@pytest.mark.parametrize(("patients", "held_out"), [(1, 0), (2, 1), (4, 1), (5, 1), (10, 2)])
def test_few_patients_have_a_val_too(patients, held_out, tmp_path):
    for n in range(patients):
        pair(tmp_path / f"p{n:02}" / f"p{n:02}_frame01")
    _, found, splits = read(tmp_path)
    assert len(set(splits["train"].patients)) == patients - held_out
    assert ("val" in splits) == (held_out > 0) == (found.notes == [])
    assert not held_out or len(set(splits["val"].patients)) == held_out


# --- refused, with the file named -----------------------------------------------------------------


def twice(folder):
    path = folder / "patient002" / "patient002_frame01.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def two_labels(folder):
    path = folder / "patient002" / "patient002_frame01_gt.nii.gz"
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))


def by_kind(folder):
    """nnU-Net's folders."""
    for place in list(folder.iterdir()):
        for path in place.iterdir():
            kind = "labelsTr" if "_gt" in path.name else "imagesTr"
            (folder / kind).mkdir(exist_ok=True)
            path.rename(folder / kind / f"{place.name}.nii.gz")
        place.rmdir()


def labels_apart(folder):
    for path in list(folder.rglob("*_gt*")):
        (folder.parent / "in" / "gt").mkdir(exist_ok=True)
        path.rename(folder / "gt" / path.name)


def queue(folder):
    (folder / "patient002" / "patient002_frame01.nii.gz").unlink()
    os.mkfifo(folder / "patient002" / "patient002_frame01.nii.gz")


def two_of_one_name(folder):
    pair(folder / "elsewhere" / "Patient003" / "PATIENT003_frame02")


REFUSED = {
    "twice": (twice, "patient002_frame01.nii.* is the same volume as .*patient002_frame01.nii"),
    "capitals": (lambda f: pair(f / "patient002/Patient002_frame01"), "is the same volume as"),
    "two labels": (two_labels, "patient002_frame01_gt.nii.* is the same volume as"),
    "_seg": (lambda f: rename(f, lambda n: n.replace("_gt", "_seg")), "_seg.* neither layout"),
    "labelsTr": (by_kind, "imagesTr.* neither layout"),
    "labels apart": (labels_apart, "of a patient with other files in"),
    "one prediction": (
        lambda f: save(f / "patient002/patient002_frame01_pred.nii", labels()),
        "frame01_pred.nii: has a name of neither layout",
    ),
    "plain names": (lambda f: rename(f, lambda n: n[11:]), "neither layout"),
    "labels alone": (
        lambda f: (f / "patient002/patient002_frame01.nii.gz").unlink(),
        "patient002_frame01_gt.nii.gz: has no volume",
    ),
    "one name": (two_of_one_name, "patient003.*is of a patient with other files in .*Patient003"),
    "link to nowhere": (lambda f: (f / "patient009").symlink_to(f / "x"), "patient009: is a link"),
    "queue": (queue, "no file"),
    "nothing": (lambda f: shutil.rmtree(f / "patient002") or hide_all(f), "holds no NIfTI volume"),
}


def hide_all(folder):
    for place in folder.iterdir():
        place.rename(folder / f".{place.name}")


@pytest.mark.parametrize(("change", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_fits_no_layout_is_refused_by_name(change, problem, folder, mistake):
    change(folder)
    said = mistake("convert", folder, "--out", folder.parent / "out")
    assert re.search(problem, said)
    assert not (folder.parent / "out").exists()
    assert not re.search(r"\b(remove|delete)\b", said)


def test_a_folder_of_another_conversion_stays_as_it_is(folder, mistake, command, tmp_path):
    out = tmp_path / "out"
    assert command("convert", folder, "--out", out).status == 0
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    mistake("convert", folder, "--out", out, "--size", 64, naming=out)  # other pictures
    shutil.rmtree(folder / "patient006")
    mistake("convert", folder, "--out", out, naming=out)  # fewer of them
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}
    for name in ("origin.csv", "patients.csv"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text("mine", encoding="utf-8")
        mistake("convert", folder, "--out", tmp_path / "other", naming=name)
        (tmp_path / "other" / name).unlink()
    (tmp_path / "other" / "train" / "image").mkdir(parents=True)
    (tmp_path / "other" / "train" / "image" / "cmr900.png").write_bytes(b"mine")
    mistake("convert", folder, "--out", tmp_path / "other", naming="cmr900.png")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    mistake("convert", folder, "--out", tmp_path / "file")


def test_a_patient_who_may_not_be_read_is_named(folder, monkeypatch):
    closed = folder / "patient002" / "patient002_frame01.nii.gz"
    read_bytes = Path.read_bytes

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BadInput, match=r"patient002_frame01.*permission"):
        read(folder)
