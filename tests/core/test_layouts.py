"""Folders of NIfTI files as users have them: what is found, paired, placed, named or refused."""

import gzip
import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from volumes import LEVELS, acdc, heart, pair, save

from cmrseg import data, datasets
from cmrseg.data import BadInput
from cmrseg.datasets import doctor, folders, layouts, nifti

MNMS = np.array(layouts.MNMS, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Six patients of ACDC, one moment each."""
    return acdc(tmp_path / "in", 6)


def read(folder):
    """Slices of a folder by name: (image, mask or None, patient); what was found, and the splits."""
    cohort = layouts.find(folder)
    splits, slices = nifti.read(cohort, 2.0, 64), {}
    for part in splits.values():
        masks = [None] * len(part) if part.masks is None else part.masks
        slices |= dict(zip(part.names, zip(part.images, masks, part.patients)))
    return slices, cohort, splits


def assert_whole(folder, patients):
    """That so many patients lie there, each with the three slices of a heart."""
    slices, cohort, _ = read(folder)
    assert len(cohort.patients) == len({p for *_, p in slices.values()}) == patients
    assert len(slices) == 3 * patients
    for name, (pixels, mask, _) in slices.items():
        assert pixels[mask == 3].min() > pixels[mask == 1].max() > pixels[mask == 2].max() > 40
        np.testing.assert_array_equal(mask[:, 2:62], heart()[:, :, int(name[-1])])


# --- found, whatever their names and places -------------------------------------------------------


def rename(change):
    """Rename all files of a folder."""

    def renamed(folder):
        for path in sorted(folder.rglob("*.nii*")):
            path.rename(path.with_name(change(path.name)))

    return renamed


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


def unpack(path, folder=None):
    """Unpack a file, by default beside itself."""
    content = gzip.decompress(path.read_bytes())
    target = (folder or path.parent) / path.stem
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(content)


def folder_around(folder):
    """As unpacking sometimes leaves them: patient001_frame01.nii/patient001_frame01.nii."""
    for path in list(folder.rglob("*.nii.gz")):
        unpack(path, path.with_suffix(""))
        path.unlink()


def flat(folder):
    for path in list(folder.rglob("*.nii.gz")):
        path.rename(folder / path.name)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def composed(name):
    """Labels and volumes in the two ways to write an umlaut."""
    form = "NFD" if "_gt" in name else "NFC"
    return unicodedata.normalize(form, name.replace("patient", "pätiént"))


def beside(folder):
    """What lies beside the volumes in ACDC and elsewhere."""
    for place in folder.iterdir():
        (place / "Info.cfg").write_text("ED: 1\nES: 12\nGroup: DCM\n", encoding="utf-8")
        save(place / f"{place.name}_4d.nii.gz", np.zeros((9, 9, 2, 3), np.float32))
    (folder / "readme.txt").write_text("words", encoding="utf-8")


SOUND = {
    "capitals": rename(str.upper),
    "capitals of labels": rename(lambda n: n.upper() if "_gt" in n else n),
    "packed under a plain ending": rename(lambda n: n.replace(".gz", "")),
    "packed capitals": rename(lambda n: n.replace(".nii.gz", ".NII.Gz")),
    "linked files": link_files,
    "linked folders": link_folders,  # case N07
    "links back": link_back,
    "hidden": hide,
    "folders around": folder_around,
    "flat": flat,
    "letters": rename(composed),
    "blanks": rename(lambda n: n.replace("patient", "Doe, J. \n'\" ")),
    "deeper": lambda f: shutil.move(f / "patient003", f / "more" / "training" / "patient003"),
    "beside": beside,
}


@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
def test_all_patients_are_found(change, folder, command):
    change(folder)
    assert_whole(folder, 6)
    out = folder.parent / "out"
    done = command("convert", folder, "--out", out, "--spacing", 2, "--size", 64)
    assert (done.status, done.err) == (0, "")
    assert "18 slices of 6 patients of 6 found (5 train, 1 val)" in done.out
    assert {*datasets.load(out, "labelled").patients} == {*range(1, 7)}


@pytest.mark.parametrize("names", ["{0}/{0}_sa", "Training/Labeled/{0}/{0}_sa", "{0}/{0}_SA_ED"])
def test_mnms_is_known_by_its_names(names, tmp_path):
    for code in ("A0S9V9", "B1", "C2"):
        pair(tmp_path / names.format(code), labels=MNMS[heart()])
    assert_whole(tmp_path, 3)


def test_what_is_left_out_on_purpose_is_counted(folder):
    beside(folder)
    grey = np.stack([LEVELS[heart()]] * 4, 3)
    masks = np.stack([heart() * 0, heart() * np.uint8([1, 1, 0])] * 2, 3)
    pair(folder / "A0S9V9" / "A0S9V9_sa", grey, MNMS[masks])
    save(folder / "A0S9V9" / "A0S9V9_la.nii.gz", grey[..., 0])
    save(folder / "B1" / "B1_sa.nii.gz", grey)  # without labels, all moments count
    slices, cohort, splits = read(folder)
    names = [f"A0S9V9_sa_time{t}_slice{z}" for t in (1, 3) for z in (0, 1)]
    assert [name for name in slices if name.startswith("A0")] == names
    assert len(slices) == 6 * 3 + 4 + len(splits["test"]) and len(splits["test"]) == 4 * 3
    summary = layouts.summary(cohort, splits)
    assert summary.startswith(
        "34 slices of 8 patients of 8 found (6 train, 1 val, 1 test); left out: "
    )
    for part in ("7 cine or long-axis files", "2 moments without", "2 slices without"):
        assert part in summary
    assert cohort.notes == []


def test_a_frame_that_its_table_does_not_name_and_files_of_other_formats_are_named(folder):
    (folder / "patient002" / "Info.cfg").write_text("ED: 2\nES: 12\n", encoding="utf-8")
    others = ("patient003_frame09.hdr", "patient004.zip", "patient005.tar.gz", "1.dcm", "2.dcm")
    for name in others:
        (folder / "patient003" / name).write_bytes(b"")
    notes = [f"{Path(note.file).name} {note.problem}" for note in layouts.find(folder).notes]
    *left_out, other = notes
    assert "1.dcm is left out, and so are 1 more .dcm files here" in left_out.pop(0)
    for name in others[:3]:
        assert f"{name} is left out:" in left_out.pop(0)
    assert not left_out and "patient002_frame01.nii.gz is neither ED nor ES" in other


def test_patients_are_placed_or_named(folder, command):
    out = folder.parent / "out"
    two, three, four, five = (folder / f"patient{n:03}" for n in range(2, 6))
    (two / "patient002_frame01_gt.nii.gz").unlink()  # nobody's labels: into test
    save(three / "patient003_frame12.nii.gz", LEVELS[heart()])  # a moment without labels: named
    save(four / "patient004_frame01_gt.nii.gz", heart() * 0)  # no label: named
    (five / "patient005_frame01_gt.nii.gz").unlink()  # a cine alone: named
    (five / "patient005_frame01.nii.gz").rename(five / "patient005_4d.nii.gz")
    (folder / "patient007").mkdir()  # nothing: named
    done = command("convert", folder, "--out", out, "--spacing", 2, "--size", 64)
    assert done.status == 0, done.err
    assert "12 slices of 4 patients of 6 found (2 train, 1 val, 1 test)" in done.out
    assert set(datasets.load(out, "test").patients) == {2}
    names = ("patient003_frame12", "patient004_frame01", "patient005", "patient007")
    warned = done.err.splitlines()
    assert len(warned) == 4 and all(line.startswith("warning: ") for line in warned)
    assert all(any(name in line for line in warned) for name in names)
    for path in folder.rglob("*_gt.nii.gz"):  # without any labels, all volumes count
        path.unlink()
    assert {split: len(part) for split, part in read(folder)[2].items()} == {"test": 6 * 3}


@pytest.mark.parametrize(("patients", "val"), [(1, []), (2, [2]), (4, [4]), (10, [5, 10])])
def test_every_fifth_patient_goes_into_val_or_the_last_of_few(patients, val, tmp_path):
    _, cohort, splits = read(acdc(tmp_path, patients))
    held_out = sorted({*splits["val"].patients}) if val else []
    assert held_out == val and ("val" in splits) == bool(val) == (cohort.notes == [])
    assert len({*splits["train"].patients}) == patients - len(val)


# --- refused, with the file named -----------------------------------------------------------------


def by_kind(folder):
    """nnU-Net's folders (case N04)."""
    for place in list(folder.iterdir()):
        for path in place.iterdir():
            kind = "labelsTr" if "_gt" in path.name else "imagesTr"
            (folder / kind).mkdir(exist_ok=True)
            path.rename(folder / kind / f"{place.name}.nii.gz")
        place.rmdir()


def labels_apart(folder):
    (folder / "gt").mkdir()
    for path in list(folder.glob("patient*/*_gt*")):
        path.rename(folder / "gt" / path.name)


def queue(folder):
    (folder / VOLUME).unlink()
    os.mkfifo(folder / VOLUME)


def nothing(folder):
    for place in folder.iterdir():
        place.rename(folder / f".{place.name}")


VOLUME = "patient002/patient002_frame01.nii.gz"
LABELS = VOLUME.replace("01.nii", "01_gt.nii")
REFUSED = {
    # case N03: packed and unpacked
    "twice": (lambda f: unpack(f / VOLUME), "frame01.nii.* is the same volume as .*2_frame01.nii"),
    "capitals": (lambda f: pair(f / "patient002/Patient002_frame01"), "is the same volume as"),
    "two labels": (lambda f: unpack(f / LABELS), "frame01_gt.nii.* is the same volume as"),
    "_seg": (rename(lambda n: n.replace("_gt", "_seg")), "_seg.* neither layout"),
    "labelsTr": (by_kind, "imagesTr.* neither layout"),
    "labels apart": (labels_apart, "of a patient with other files in"),
    "labels alone": (lambda f: (f / VOLUME).unlink(), "frame01_gt.nii.gz: has no volume"),
    "one name": (
        lambda f: pair(f / "x" / "PATIENT003_frame02"),
        "PATIENT003.* other files in .*patient003",
    ),
    "link to nowhere": (lambda f: (f / "patient009").symlink_to(f / "x"), "patient009: is a link"),
    "queue": (queue, "no file"),
    "nothing": (nothing, "holds no NIfTI volume"),
    "no folder": (shutil.rmtree, "no such folder"),
}


@pytest.mark.parametrize(("change", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_fits_no_layout_is_refused_by_name(change, problem, folder, mistake):
    change(folder)
    message = mistake("convert", folder, "--out", folder.parent / "out")
    assert re.search(problem, message) and not re.search(r"\b(remove|delete)\b", message)
    assert not (folder.parent / "out").exists()


def test_a_folder_of_another_conversion_stays_as_it_is(folder, mistake, command, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other"
    for _ in range(2):  # the same once more is no harm
        assert command("convert", folder, "--out", out).status == 0
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    mistake("convert", folder, "--out", out, "--size", 64, naming=out)  # other pictures
    shutil.rmtree(folder / "patient006")
    mistake("convert", folder, "--out", out, naming=out)  # fewer of them
    assert before == {path: path.read_bytes() for path in out.rglob("*.*")}
    for name in ("origin.csv", "patients.csv", "train/image/cmr900.png"):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text("mine", encoding="utf-8")
        mistake("convert", folder, "--out", other, naming=name)
        (other / name).unlink()


def test_a_conversion_that_was_stopped_is_not_taken_for_whole(command, tmp_path, monkeypatch):
    folder = acdc(tmp_path / "in", 2)
    whole, out, write = tmp_path / "whole", tmp_path / "out", data.write_bytes
    assert command("convert", folder, "--out", whole).status == 0
    files = [path for path in whole.rglob("*") if path.is_file()]
    for count in range(len(files)):
        left = iter(range(count))

        def stop(path, content, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(folders, "write_bytes", stop)
            done = command("convert", folder, "--out", out)
        assert done.status == 130 and "convert again" in done.err
        assert not out.exists() or doctor.examine(out)[0]
    assert command("convert", folder, "--out", out).status == 0
    assert {p.relative_to(out) for p in out.rglob("*")} == {
        p.relative_to(whole) for p in whole.rglob("*")
    }


def test_a_patient_who_may_not_be_read_is_named(folder, deny):
    deny("open", folder / VOLUME)
    with pytest.raises(BadInput, match=r"patient002_frame01.*permission"):
        read(folder)


def test_without_nibabel_it_is_said_how_to_get_it(folder, mistake, monkeypatch):
    monkeypatch.setattr("cmrseg.cli.find_spec", lambda name: None)
    mistake("convert", folder, "--out", folder.parent / "out", naming="pip install")
