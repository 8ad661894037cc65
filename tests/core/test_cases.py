"""Inputs on which this software once failed: kinds of faults reported of other software.

Hearts of NIfTI volumes and PNG slices are made up here. Only the command line and public functions
are used, so that what counts is the behaviour.
"""

import gzip
import inspect
import os
import re
import shutil
import subprocess
import sys

import cv2
import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch

from conftest import REPOSITORY, linux

from cmrseg import datasets, rle, train

AFFINE = np.diag([-1.8, -1.8, 10.0, 1.0])  # first axis to the left, second to the back: as in ACDC


def heart(shape=(120, 140, 4), centre=None, radii=(30, 20, 16), seed=0):
    """Grey levels float32 and labels uint8 (1 RV, 2 Myo, 3 LV), the RV at lower first indices."""
    cx, cy = centre or (shape[0] / 2, shape[1] / 2)
    x, y = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    labels = np.zeros(shape[:2], np.uint8)
    labels[np.hypot(x - cx + radii[0], y - cy - 6) < radii[2]] = 1
    labels[np.hypot(x - cx, y - cy) < radii[0] * 0.75] = 2
    labels[np.hypot(x - cx, y - cy) < radii[0] * 0.5] = 3
    labels = np.stack([labels] * shape[2], 2)
    grey = np.array([60, 700, 200, 900])[labels] + np.random.default_rng(seed).normal(
        0, 20, labels.shape
    )
    return (grey + 2 * x[:, :, None]).astype(np.float32), labels


def write(path, values, affine=AFFINE):
    """A NIfTI file, and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def acdc(root, patients, **how):
    """Patients in ACDC's layout, each with one labelled frame."""
    for n in range(1, patients + 1):
        for end, values in zip(("", "_gt"), heart(seed=n, **how)):
            write(root / f"patient{n:03}" / f"patient{n:03}_frame01{end}.nii.gz", values)
    return root


def slices_in(folder):
    """Relative path -> pixels of every slice that a conversion wrote."""
    return {
        p.relative_to(folder).as_posix(): cv2.imread(str(p), cv2.IMREAD_UNCHANGED)
        for p in sorted(folder.rglob("*.png"))
    }


def pairs_in(folder):
    """Images with their masks, in order."""
    found = slices_in(folder)
    return [
        (found[name], mask)
        for path, mask in found.items()
        if path.endswith("_mask.png")
        for name in [path.replace("/mask/", "/image/").replace("_mask.png", ".png")]
    ]


def patients_in(folder):
    """The patients that a conversion names in its patients.csv files."""
    tables = [p.read_text(encoding="utf-8").split() for p in folder.rglob("patients.csv")]
    return {line.split(",")[1] for lines in tables for line in lines[1:]}


@pytest.fixture
def converted(command, tmp_path):
    """Convert a folder: the outcome of the command, and the folder it wrote."""

    def run(source):
        return command("convert", source, "--out", tmp_path / "converted"), tmp_path / "converted"

    return run


def one_line(done):
    """Whether a command refused in one line."""
    return (
        done.status == 2
        and len(done.err.strip().splitlines()) == 1
        and done.err.startswith("error: ")
    )


# --- the converter --------------------------------------------------------------------------------


def test_a_volume_that_lies_there_twice_is_read_once_or_refused(converted, tmp_path):
    """N03: packed and unpacked."""
    source = acdc(tmp_path / "in", 6)
    for path in list(source.rglob("*.nii.gz")):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    done, out = converted(source)
    assert one_line(done) or len(pairs_in(out)) == 6 * 4


@pytest.mark.parametrize(
    "layout",
    [
        ("imagesTr/heart_{:03}_0000", "labelsTr/heart_{:03}"),
        ("p{0:03}/p{0:03}_frame01", "p{0:03}/p{0:03}_frame01_seg"),
    ],
)
def test_labels_under_other_names_are_labels_or_refused(converted, tmp_path, layout):
    """N04: nnU-Net's folders, and _seg beside the volume."""
    for n in range(1, 6):
        for name, values in zip(layout, heart(seed=n)):
            write(tmp_path / "in" / f"{name.format(n)}.nii.gz", values)
    done, out = converted(tmp_path / "in")
    assert one_line(done) or (len(pairs_in(out)) == 20 and len(patients_in(out)) == 5)


def test_labels_of_another_affine_lie_on_their_voxels(converted, tmp_path):
    """N06: the same labels, stored mirrored, as their header says."""
    for n in range(1, 6):
        grey, labels = heart(centre=(52, 70), seed=n)
        mirrored = AFFINE @ np.diag([-1, 1, 1, 1.0])
        mirrored[0, 3] = AFFINE[0, 0] * (grey.shape[0] - 1)
        write(tmp_path / "in" / f"patient{n:03}" / f"patient{n:03}_frame01.nii.gz", grey)
        write(
            tmp_path / "in" / f"patient{n:03}" / f"patient{n:03}_frame01_gt.nii.gz",
            labels[::-1],
            mirrored,
        )
    done, out = converted(tmp_path / "in")
    assert one_line(done) or all(image[mask == 3].mean() > 220 for image, mask in pairs_in(out))


def test_links_to_patients_elsewhere_are_followed(converted, tmp_path):
    """N07: the standard library follows no links."""
    store, source = acdc(tmp_path / "store", 6), acdc(tmp_path / "in", 2)
    for n in range(3, 7):
        os.symlink(store / f"patient{n:03}", source / f"patient{n:03}")
    _, out = converted(source)
    assert len(patients_in(out)) == 6


def test_labels_that_are_cut_off_are_said_to_be(converted, tmp_path):
    """N09: a heart far from the middle of the plane."""
    source = acdc(tmp_path / "in", 5)
    for end, values in zip(("", "_gt"), heart((200, 220, 3), centre=(60, 50))):
        write(source / "patient006" / f"patient006_frame01{end}.nii.gz", values)
    done, _ = converted(source)
    assert "patient006_frame01" in done.out + done.err


def test_one_heart_in_three_orientations_comes_out_as_one(converted, tmp_path):
    """N13: and with the RV above the LV, as the delivered networks know hearts."""
    grey, labels = heart((120, 120, 3))
    for n, axes in enumerate(("LPS", "PLS", "RAS", "LPS", "SPL"), start=1):
        for end, values in (("", grey), ("_gt", labels)):
            image = nib.Nifti1Image(values, AFFINE)
            turn = nib.orientations.ornt_transform(
                nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axes))
            )
            path = tmp_path / "in" / f"patient{n:03}" / f"patient{n:03}_frame01{end}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image.as_reoriented(turn), path)
    _, out = converted(tmp_path / "in")
    away = [
        np.array(np.nonzero(mask == 1)).mean(1) - np.array(np.nonzero(mask == 3)).mean(1)
        for _, mask in pairs_in(out)
    ]
    assert len(away) == 15
    assert np.allclose(away, away[0], atol=0.5)
    assert away[0][0] < -10 and 0 < away[0][1] < 10


# --- predictions and submissions ------------------------------------------------------------------


def png_slices(folder, name, side=96, count=2):
    """Slices and masks of made-up hearts."""
    for n in range(1, count + 1):
        grey, labels = heart((side, side, 1), radii=(side * 0.2, side * 0.2, side * 0.12), seed=n)
        for kind, pixels, end in (
            ("image", np.clip(grey / 4, 0, 255).astype(np.uint8), ""),
            ("mask", labels, "_mask"),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{name.format(n)}{end}.png"), pixels[:, :, 0])
    return folder


def test_an_id_in_a_submission_is_the_name_of_the_file(command, tmp_path):
    """D2: cmr001.png, not cmr1."""
    png_slices(tmp_path, "cmr{:03}")
    done = command("submit", "--masks", tmp_path / "mask", "--out", tmp_path / "s.csv")
    assert one_line(done) or "cmr001_mask1" in (tmp_path / "s.csv").read_text(encoding="utf-8")


def test_what_export_writes_predict_reads(command, tmp_path):
    """E1: a file without an ending is taken for a pickle."""
    png_slices(tmp_path, "cmr{}")
    done = command("export", "--model", "small", "--out", tmp_path / "net")
    assert (one_line(done) and ".onnx" in done.err) or not command(
        "predict",
        "--model",
        tmp_path / "net",
        "--images",
        tmp_path / "image",
        "--out",
        tmp_path / "o",
    ).status


def test_a_failing_onnxruntime_is_no_damage(command, tmp_path, monkeypatch):
    """O1: a runtime older than the file's format; PyTorch can do it."""

    def session(*_, **__):
        raise RuntimeError("Unsupported model IR version: 10, max supported IR version: 9")

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    png_slices(tmp_path, "cmr{}")
    done = command(
        "predict", "--model", "small", "--images", tmp_path / "image", "--out", tmp_path / "o"
    )
    assert done.status == 0 and len(list((tmp_path / "o").glob("*.png"))) == 2


def test_slices_of_another_size_than_the_network_knows_are_warned_of(command, tmp_path):
    """P1: 256 pixels a side, where the delivered networks know 96."""
    png_slices(tmp_path, "cmr{}", side=256)
    done = command(
        "predict", "--model", "small", "--images", tmp_path / "image", "--out", tmp_path / "o"
    )
    assert "warning" in done.err and "256" in done.err


@pytest.mark.parametrize("code", ["1 0", "0 0"])
def test_a_run_of_no_length_is_called_that(code):
    """R1: how some encoders write nothing."""
    with pytest.raises(ValueError, match="length"):
        rle.decode(code)


# --- devices --------------------------------------------------------------------------------------


def test_single_precision_unless_asked():
    """T1: a card that emulates bf16 says it has it."""
    assert inspect.signature(train.fit).parameters["precision"].default == "fp32"


@pytest.mark.usefixtures("tiny_presets")
def test_another_precision_on_resuming_is_not_ignored(command, root, tmp_path, monkeypatch):
    """T23: begun in bf16, continued with --precision fp32."""
    words = ("train", "--data", root, "--out", tmp_path / "run")

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "score", stop)  # in the first scored epoch: none is finished before
        patch.setattr(train, "scored_epochs", lambda epochs, _=None: {epochs})
        assert command(*words, "--precision", "bf16").status == 130
    done = command(*words, "--resume", "--precision", "fp32")
    assert "bf16" in done.err


@linux
def test_threads_are_those_that_this_process_may_use():
    """T9: one core allotted, of 64."""
    lines = """
        import os, onnxruntime
        os.environ.pop("OMP_NUM_THREADS", None)
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        os.cpu_count = lambda: 64
        made, real = [], onnxruntime.InferenceSession
        onnxruntime.InferenceSession = lambda path, options, **k: (
            made.append(options.intra_op_num_threads), real(path, options, **k))[1]
        import sys, tempfile, cv2, numpy
        folder = tempfile.mkdtemp()
        cv2.imwrite(f"{folder}/cmr1.png", numpy.eye(96, dtype="uint8") * 9)
        sys.argv = ["cmrseg", "predict", "--model", "small", "--images", folder]
        sys.argv += ["--out", f"{folder}/o"]
        from cmrseg import cli
        try:
            cli.main()
        except SystemExit:
            print(made)
    """
    done = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(lines)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert "[1]" in done.stdout, done.stderr


def test_a_checkpoint_of_a_cpu_continues_on_a_gpu(root, tmp_path, tiny, monkeypatch):
    """T2: it holds no random state of a GPU, and is whole. The GPU is made of the CPU here."""

    class Stop(Exception):
        pass

    def stop(_):
        raise Stop

    slices = datasets.load(root, "train")
    with pytest.raises(Stop):
        train.fit(tiny, slices, out=tmp_path, device="cpu", callback=stop)
    real_to = torch.nn.Module.to
    monkeypatch.setattr(
        torch.nn.Module, "to", lambda self, device, **how: real_to(self, "cpu", **how)
    )
    real_tensor = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda self, device, *a, **how: real_tensor(
            self, "cpu" if device == "cuda" else device, *a, **how
        ),
    )
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda *_: None)
    train.fit(tiny, slices, out=tmp_path, device="cuda", resume=True)


# --- the build ------------------------------------------------------------------------------------


@linux
def test_a_blank_in_the_path_of_the_slices_reaches_the_build_whole(tmp_path):
    """B1: My Drive, My Documents."""
    (tmp_path / "my slices").mkdir()
    (tmp_path / "show").write_text('show:\n\t@echo "[$$CMRSEG_DATA]"\n', encoding="utf-8")
    done = subprocess.run(
        ["make", "-s", "-f", REPOSITORY / "Makefile", "-f", tmp_path / "show", "show"],
        cwd=REPOSITORY,
        env=os.environ | {"CMRSEG_DATA": str(tmp_path / "my slices")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"[{tmp_path / 'my slices'}]"


def test_a_notebook_that_was_renamed_after_a_build_is_forgotten(tmp_path):
    """B2: its record in the cache leads nowhere."""
    for name in (
        "tools",
        "cmrseg",
        "cmrtrial",
        "notebooks/build",
        "requirements.txt",
        "results/report-2020.toml",
    ):
        source, target = REPOSITORY / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    lines = """
        import shutil, os, prepare
        from jupyter_cache import get_cache
        shutil.copy("notebooks/build/whole.ipynb", "notebooks/build/draft.ipynb")
        get_cache("_build/.jupyter_cache").add_nb_to_project("notebooks/build/draft.ipynb")
        os.rename("notebooks/build/draft.ipynb", "notebooks/build/final.ipynb")
        prepare.load_executor = lambda *a: exit("fine: would run the notebooks now")
        prepare.execute()
    """
    done = subprocess.run(
        [sys.executable, "-c", inspect.cleandoc(lines)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'tools'}"},
    )
    assert re.search("fine: would run", done.stderr), done.stderr[-500:]
