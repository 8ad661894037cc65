"""The command line, ``python -m cmrseg``: thin wrappers of the package.

For its exit statuses see :mod:`cmrseg.cli.console`.
"""

import json
import sys
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from tqdm import tqdm

from cmrseg.cli import console, runs
from cmrseg.config import PRESETS
from cmrseg.data import BadInput, read_png, write_png

app = typer.Typer(
    help="Segment cardiac MR slices: train a U-Net, predict, evaluate, submit. Start with: "
    "python -m cmrseg train --preset book --out runs/first",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Option = typer.Option
Json = Annotated[bool, Option("--json", help="Print JSON for a program to read.")]
Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)
Precision = Enum("Precision", {name: name for name in ("fp32", "bf16")}, type=str)
Device = Enum("Device", {name: name for name in ("auto", "cpu", "cuda")}, type=str)
By = Enum("By", {name: name for name in ("slice", "volume")}, type=str)
Source = Enum("Source", {name: name for name in ("acdc96", "phantom")}, type=str)


@app.command(epilog="Example: python -m cmrseg data --source acdc96")
def data(
    source: Annotated[
        Source,
        Option(
            help="acdc96: download the real slices, each file checked. phantom: write the "
            "synthetic ones."
        ),
    ],
    out: Annotated[Optional[Path], Option(help="Folder to fill. [default: data/SOURCE]")] = None,
) -> None:
    """Put a data set into a folder {train,val,test}/{image,mask}; existing files are kept."""
    from cmrseg import datasets

    out = out or datasets.home() / source.value
    if source.value == "acdc96":
        datasets.acdc.fetch(out, progress=sys.stderr.isatty())
    else:
        datasets.write_root(out, "phantom")
    print(f"{source.value} is in {out}")


@app.command(epilog="Example: python -m cmrseg convert ACDC/database --out data/mine")
def convert(
    nifti: Annotated[Path, typer.Argument(help="Folder with the NIfTI volumes of ACDC or M&Ms.")],
    out: Annotated[Path, Option(help="Folder for the slices, in the layout of a data root.")],
    spacing: Annotated[float, Option(min=0.1, max=20, help="Millimetres of a pixel.")] = 1.8,
    size: Annotated[int, Option(min=16, max=1024, help="Pixels of a side.")] = 96,
) -> None:
    """Turn NIfTI volumes into slices to train on: every fifth labelled patient into val.

    Patients without labels go into test. Files are known by the names of ACDC
    (patient001_frame01.nii.gz, labels RV 1, Myo 2, LV 3) or M&Ms (A0S9V9_sa.nii.gz, labels LV 1,
    Myo 2, RV 3), labels by _gt before the ending; other names are refused.

    Of a header it is assumed that sform or qform tell where left, back and up are, that pixdim
    tells millimetres, and that slices lie along the widest spacing. Slices come out as ACDC's
    arrays are stored: rows to the left, columns to the back, the RV above the LV.
    """
    if not find_spec("nibabel"):
        raise BadInput(nifti, "NIfTI files need nibabel", "pip install 'cmrseg[nifti]'")
    from cmrseg.datasets import folders, layouts
    from cmrseg.datasets.nifti import read

    cohort = layouts.find(nifti)
    progress = partial(tqdm, desc="convert", unit="volume", disable=None)
    splits = read(cohort, spacing, size, progress)
    with console.hint(lambda: f"stopped; the slices in {out} are not all: convert again"):
        folders.write_slices(out, splits, spacing)
    for note in cohort.notes:
        print(f"warning: {note}", file=sys.stderr)
    print(f"{layouts.summary(cohort, splits)}; they are in {out}")


@app.command(epilog="Example: python -m cmrseg train --preset book --out runs/first")
def train(
    out: Annotated[Path, Option(help="Folder for the trained network, new or unfinished.")],
    preset: Annotated[
        Preset,
        Option(
            help="The recipe: book (the one to start with), modern (the same, narrower), report "
            "(the 2020 report's, slow), replica (the report's, narrower), sprint (seconds)."
        ),
    ] = Preset.book,
    data: Annotated[
        Optional[str],
        Option(help="phantom, acdc96 or a data root. [default: CMRSEG_DATA, else phantom]"),
    ] = None,
    epochs: Annotated[Optional[int], Option(min=1, help="Epochs, if not the preset's.")] = None,
    seed: Annotated[int, Option(min=0, max=2**63 - 1, help="Random seed.")] = 0,
    threads: Annotated[
        Optional[int], Option(min=1, max=1024, help="CPU threads. [default: all cores it may use]")
    ] = None,
    device: Annotated[
        Device, Option(help="auto: a GPU, where PyTorch finds one; else the CPU.")
    ] = Device.auto,
    precision: Annotated[
        Precision, Option(help="bf16 is faster where the machine has units for it.")
    ] = Precision.fp32,
    resume: Annotated[bool, Option("--resume", help="Continue an unfinished run.")] = False,
) -> None:
    """Train a network on the train split and score it on val; everything lands in --out."""
    from cmrseg import datasets
    from cmrseg.datasets import doctor
    from cmrseg.record import make_record
    from cmrseg.train import fit

    source = data or datasets.source()
    if source not in ("phantom", "acdc96"):
        doctor.check(Path(source))
    recipe = PRESETS[preset.value]
    config = replace(recipe, seed=seed, epochs=epochs or recipe.epochs)
    finished = runs.is_finished(out, resume)
    train_slices, held_out = datasets.split(source, "val")
    fingerprint = (train_slices + held_out).fingerprint
    if finished:
        runs.check_finished_run(out, config, fingerprint, precision.value)
        print(f"{out} holds this run already, finished")
        return
    runs.warn_of_shared(train_slices, held_out)
    runs.select_device(device.value, threads)
    out.mkdir(parents=True, exist_ok=True)
    with (
        console.hint(lambda: runs.stop_message(out)),
        runs.run_lock(out),
        runs.progress(preset.value, config) as show,
    ):
        options = {"precision": precision.value, "device": device.value, "callback": show}
        result = fit(config, train_slices, held_out, out=out, resume=resume, **options)
        record = make_record(result, train_slices, held_out, "val", fingerprint, preset.value)
        runs.save_run(out, result, record, train_slices.images.shape[1:])
    dice = "undefined" if record["dice_last"] is None else f"{record['dice_last']:.4f}"
    spent = f"{config.epochs} epochs, {result.seconds:.0f} s in {result.precision}"
    print(f"validation Dice {dice} after {spent}; the network is in {out}")


@app.command(epilog="Example: python -m cmrseg predict --model small --images slices --out masks")
def predict(
    model: Annotated[
        str,
        Option(
            help="final (the best), small (one network), a folder that train --out made, or a "
            "file that export wrote."
        ),
    ],
    images: Annotated[Path, Option(help="Folder of 8-bit grey PNG files cmrN.png.")],
    out: Annotated[Path, Option(help="Folder for the masks cmrN_mask.png, values 0-3.")],
    resize: Annotated[
        bool,
        Option("--resize", help="Show the network slices of the size that it knows."),
    ] = False,
    device: Annotated[
        Device, Option(help="auto: the CPU for ONNX files, else a GPU, where PyTorch finds one.")
    ] = Device.auto,
) -> None:
    """Segment every image of a folder; each mask is named after its own image."""
    from cmrseg.cli import scores
    from cmrseg.datasets import checks, folders
    from cmrseg.deploy import sizes, weights

    if device is Device.cuda:
        runs.select_device("cuda", None)
    network = weights.find(model, device.value)
    if resize:
        network = sizes.resized(network, model)
    by_number = folders.check_images(images)
    for note in checks.foreign_files(checks.Folder([images], [], [])):
        print(f"warning: {note}", file=sys.stderr)
    paths, mm = [*by_number.values()], None
    with suppress(BadInput):  # a table of other slices
        mm = scores.spacing(by_number, None)
    if out.resolve() == images.resolve():
        raise BadInput(out, "is the folder of the images", "Give another folder to --out")
    folders.make_mask_folder(out, [path.stem for path in paths])
    shape = read_png(paths[0]).shape
    if warning := sizes.warning(model, shape, None if mm is None else float(np.median(mm)), resize):
        print(f"warning: {images}: {warning}", file=sys.stderr)
    count = max(1, min(AT_ONCE, PIXELS_AT_ONCE // (shape[0] * shape[1])))
    stopped = f"stopped; the masks in {out} are whole, but not all: predict again"
    with (
        console.hint(lambda: stopped),
        tqdm(total=len(paths), desc="predict", unit="slice", disable=None) as bar,
    ):
        for start in range(0, len(paths), count):  # a few at a time: the folder may be large
            few = paths[start : start + count]
            masks = network(np.stack([read_png(path) for path in few]))
            for path, mask in zip(few, masks):
                write_png(out / f"{path.stem}_mask.png", mask)
            bar.update(len(few))
    print(f"{len(paths)} masks are in {out}")


AT_ONCE, PIXELS_AT_ONCE = 20, 20 * 256**2  # slices that a network is given together, and pixels


@app.command(epilog="Example: python -m cmrseg export --model small --out small.onnx")
def export(
    model: Annotated[
        str,
        Option(
            help="final (the best), small (one network), a file in their format, or a folder that "
            "train --out made."
        ),
    ],
    out: Annotated[Path, Option(help="ONNX file to write, such as small.onnx.")],
) -> None:
    """Write a network as one ONNX file, for programs without PyTorch and for browsers.

    Its input "image" takes grey levels 0 to 255 as they are stored, float32 (N, 1, H, W), any
    number and size of slices; normalisation and padding are inside. Its output "probability",
    float32 (N, 4, H, W), says how likely background, RV, Myo and LV are; the largest is the label.
    With onnxruntime: InferenceSession("small.onnx").run(None, {"image": x})[0].argmax(1).
    """
    if missing := [name for name in ("onnx", "onnxscript") if not find_spec(name)]:
        raise BadInput("export", f"needs {' and '.join(missing)}", "pip install 'cmrseg[onnx]'")
    from cmrseg.deploy import sizes, weights
    from cmrseg.deploy.export import export as write

    if out.is_dir():
        raise BadInput(out, "is a folder", "Give a file, such as small.onnx")
    if out.suffix != ".onnx":  # by which predict knows it
        raise BadInput(out, "does not end in .onnx", f"Call it {out.name}.onnx")
    ensemble = weights.find_ensemble(model)
    write(ensemble, out)
    if known := sizes.read_size(model):
        sizes.write_size(out, **known)
    note = (
        "; predict also cleans up its masks, its graph does not" if ensemble.tta.postprocess else ""
    )
    print(f"{out} holds {model}, {out.stat().st_size / 1e6:.1f} MB{note}")


@app.command(epilog="Example: python -m cmrseg evaluate --pred masks --truth data/acdc96/val/mask")
def evaluate(
    pred: Annotated[Path, Option(help="Folder of predicted masks cmrN_mask.png.")],
    truth: Annotated[Path, Option(help="Folder of true masks cmrN_mask.png.")],
    spacing: Annotated[
        Optional[float],
        Option(min=0.01, max=100, help="Millimetres of a pixel. [default: spacing.csv, if any]"),
    ] = None,
    by: Annotated[
        By, Option(help="volume: Dice over the labelled, converted slices of a patient and moment.")
    ] = By.slice,
    as_json: Json = False,
) -> None:
    """Dice of predicted against true masks: each class, their mean, and 95 % intervals.

    With millimetres also HD95 in them, and surface Dice within 2 mm. Volumes are those of the
    origin.csv that convert wrote; what it cropped and slices without labels are left out, so that
    their Dice is not the official score of ACDC.
    """
    from cmrseg import datasets, metrics
    from cmrseg.cli import scores
    from cmrseg.data import CLASSES

    p, t = datasets.folders.read_pairs(pred, truth)
    if pred.resolve() == truth.resolve():
        print(f"warning: {pred} is compared with itself", file=sys.stderr)
    paths = datasets.folders.list_pngs(truth, mask=True)
    patients, mm = datasets.known_patients(paths), scores.spacing(paths, spacing)
    shown = metrics.dice_summary(metrics.dice(p, t), patients)
    summary, of = {"images": len(t), **shown}, f"{len(t)} slices"
    if by is By.volume:
        volumes, first = scores.volumes(paths, patients)
        shown = metrics.dice_summary(metrics.volume_dice(p, t, volumes), patients[first])
        summary["by_volume"] = {"volumes": len(first), **shown}
        of = f"{len(first)} volumes (the labelled, converted slices of a patient and moment)"
    tables = {name: metric(p, t) for name, metric in metrics.METRICS.items()} if as_json else {}
    tables |= {} if mm is None else metrics.in_mm(p, t, mm)
    means = {name: metrics.per_class(table).tolist() for name, table in tables.items()}
    if as_json:
        summary["metrics"] = {
            name: {c: None if np.isnan(m) else m for c, m in zip(CLASSES[1:], mean)}
            for name, mean in means.items()
        }
        print(json.dumps(summary))
        return
    print(f"{of} of {len(set(patients))} patients")
    scores.show(shown)
    for name, mean in means.items():
        print(f"{name}: " + ", ".join(f"{c} {m:.2f}" for c, m in zip(CLASSES[1:], mean)))


@app.command(epilog="Example: python -m cmrseg submit --masks masks --out submission.csv")
def submit(
    masks: Annotated[Path, Option(help="Folder of masks cmrN_mask.png.")],
    out: Annotated[Path, Option(help="CSV file to write.")],
) -> None:
    """Write masks as a submission file: run-length codes, three rows a slice."""
    from cmrseg import rle
    from cmrseg.datasets.folders import read_masks

    by_name = read_masks(masks)
    out.parent.mkdir(parents=True, exist_ok=True)
    rle.write_submission(by_name, out)
    print(f"{3 * len(by_name)} rows for {len(by_name)} slices are in {out}")


@app.command(epilog="Example: python -m cmrseg decode --submission submission.csv --out masks")
def decode(
    submission: Annotated[Path, Option(help="CSV file that submit wrote.")],
    out: Annotated[Path, Option(help="Folder for the masks.")],
    size: Annotated[str, Option(help="Width x height of the slices.")] = "96x96",
) -> None:
    """Turn a submission file back into masks."""
    from cmrseg import rle
    from cmrseg.datasets.folders import make_mask_folder

    try:
        width, height = (int(part) for part in size.lower().split("x"))
        if not (0 < width <= 4096 and 0 < height <= 4096):
            raise ValueError
    except ValueError:
        raise BadInput(
            f"--size {size}", "is not a size", "Give width x height, such as 96x96"
        ) from None
    # All are looked at before the first is written.
    names = [name for name, _ in rle.each_mask(submission, (height, width))]
    make_mask_folder(out, names)
    for name, mask in rle.each_mask(submission, (height, width)):
        write_png(out / f"{name}_mask.png", mask)
    print(f"{len(names)} masks are in {out}")


@app.command(epilog="Example: python -m cmrseg doctor data/acdc96")
def doctor(
    folder: Annotated[Path, typer.Argument(help="A data root, or one folder of images or masks.")],
    as_json: Json = False,
) -> None:
    """Say what is wrong with a folder before a training does. Errors exit with status 2."""
    from cmrseg.datasets.doctor import examine

    errors, warnings = examine(folder)
    if as_json:
        keys, findings = ("file", "problem", "cure"), {"errors": errors, "warnings": warnings}
        output = {
            kind: [{k: getattr(f, k) for k in keys} for f in findings[kind]] for kind in findings
        }
        print(json.dumps(output))
    else:
        for finding in errors:
            print(f"error: {finding}")
        for finding in warnings:
            print(f"warning: {finding}")
        print(f"{len(errors)} errors, {len(warnings)} warnings in {folder}")
    raise typer.Exit(2 if errors else 0)


def main() -> None:
    """Run ``python -m cmrseg``."""
    if sys.argv[1:2] in (["sweep"], ["results"]):
        print(
            f"error: {sys.argv[1]} is a command of the trial. Run python -m cmrtrial {sys.argv[1]}",
            file=sys.stderr,
        )
        sys.exit(2)
    console.run(app)
