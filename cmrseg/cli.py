"""The command line, ``python -m cmrseg``: thin wrappers of the package.

Exit status: 0; 2 for a user's mistake, with one line that names the file and the cure; 130 or 143
when stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Optional

import numpy as np
import typer
from tqdm import tqdm

from cmrseg.data import BadInput

app = typer.Typer(
    help="Segment cardiac MR slices: train a U-Net, predict, evaluate, submit. Start with: "
    "python -m cmrseg train --preset book --out runs/first",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
Preset = Enum("Preset", {name: name for name in ("report", "replica", "modern", "book", "sprint")}, type=str)
Precision = Enum("Precision", {name: name for name in ("auto", "fp32", "bf16")}, type=str)
Engine = Enum("Engine", {name: name for name in ("local", "ray")}, type=str)
Source = Enum("Source", {name: name for name in ("acdc96", "phantom")}, type=str)


@app.command()
def data(
    source: Annotated[Source, typer.Option(help="acdc96: download the real slices, each file "
                                           "checked. phantom: write the synthetic ones.")],
    out: Annotated[Optional[Path], typer.Option(help="Folder to fill. [default: data/SOURCE]")] = None,
) -> None:
    """Put a data set into a folder {train,val,test}/{image,mask}; files that are there stay."""
    from cmrseg import data as slices

    out = out or slices.home() / source.value
    if source.value == "acdc96":
        slices.fetch(out, progress=sys.stderr.isatty())
    else:
        slices.write_root(out, "phantom")
    print(f"{source.value} is in {out}")


@app.command()
def convert(
    nifti: Annotated[Path, typer.Argument(help="Folder with the NIfTI volumes of ACDC or M&Ms.")],
    out: Annotated[Path, typer.Option(help="Folder for the slices, in the layout of a data root.")],
    spacing: Annotated[float, typer.Option(min=0.1, max=20, help="Millimetres of a pixel.")] = 1.8,
    size: Annotated[int, typer.Option(min=16, max=1024, help="Pixels of a side.")] = 96,
) -> None:
    """Turn NIfTI volumes into slices to train on: every fifth patient into val. Slices without labels
    go into test."""
    from cmrseg import data as slices
    from cmrseg import volumes

    with tqdm(total=len(volumes.find(nifti)), desc="convert", unit="volume", disable=None) as bar:
        found = volumes.read(nifti, spacing, size, bar.update)
    held_out = found.patients % 5 == 0
    parts = {"test": found} if found.masks is None else {"train": found[~held_out], "val": found[held_out]}
    origin = ["image,slice"]
    for split, part in parts.items():
        names = tuple(f"cmr{n}" for n in range(len(origin), len(origin) + len(part)))
        origin += [f"{new},{old}" for new, old in zip(names, part.names)]
        parts[split] = replace(part, names=names)
    slices.write_slices(out, parts)
    slices.write_bytes(out / "origin.csv", ("\n".join(origin) + "\n").encode())
    print(f"{len(found)} slices of {len(set(found.patients))} patients are in {out}")


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for the trained network, new or unfinished.")],
    preset: Annotated[Preset, typer.Option(help="The recipe: book (the one to start with), modern "
                                           "(the same, narrower), report (the 2020 report's, slow), replica "
                                           "(the report's, narrower), sprint (seconds).")] = Preset.book,
    data: Annotated[Optional[str], typer.Option(help="phantom, acdc96 or a data root. "
                                                "[default: CMRSEG_DATA, else phantom]")] = None,
    epochs: Annotated[Optional[int], typer.Option(min=1, help="Epochs, if not the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all that chance does.")] = 0,
    threads: Annotated[Optional[int], typer.Option(min=1, help="CPU threads. [default: all cores]")] = None,
    precision: Annotated[Precision, typer.Option(help="auto takes bf16 where it is faster.")] = Precision.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")] = False,
) -> None:
    """Train a network on the train split and score it on val; everything lands in --out."""
    from cmrseg import audit, results, training
    from cmrseg import data as slices

    source = data or slices.source()
    if source not in ("phantom", "acdc96"):
        audit.check(Path(source))
    config = replace(training.PRESETS[preset.value], seed=seed)
    config = replace(config, epochs=epochs) if epochs else config
    finished = _claim(out, resume)
    train_slices, held_out = slices.split(source, "val")
    fingerprint = (train_slices + held_out).fingerprint
    if finished:
        training.require_same(out / training.CONFIG, training.read_config(out / training.CONFIG), config)
        if results.read(out / RECORD)["fingerprint"] != fingerprint:
            raise BadInput(out / RECORD, "was made with other slices", "Train into another --out")
        for name in (training.CHECKPOINT, ".lock"):  # of a process that was killed as it finished
            (out / name).unlink(missing_ok=True)
        print(f"{out} holds this run already, finished")
        return
    if threads:
        _threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=config.epochs, desc=f"{preset.value}, seed {seed}", unit="epoch", disable=None)

    def show(history: dict[str, list]) -> None:
        dice = next((d for d in reversed(history["dice"]) if d is not None), None)
        shown = "not yet" if dice is None else f"{results.mean_dice(dice):.3f}"
        bar.update(len(history["epoch"]) - bar.n)
        bar.set_postfix_str(f"loss {history['loss'][-1]:.4f}, val Dice {shown}")
        if bar.disable and history["dice"][-1] is not None:
            print(f"epoch {history['epoch'][-1]}/{config.epochs} loss {history['loss'][-1]:.4f} "
                  f"val Dice {shown}", file=sys.stderr, flush=True)

    with _hint(lambda: _stopped(out)), _alone(out), bar:
        run = training.fit(config, train_slices, held_out, out=out, resume=resume,
                           precision=precision.value, progress=show)
        found = results.record(run, train_slices, held_out, "val", fingerprint, preset.value)
        training.write_text(out / RECORD, json.dumps(results.sealed(found), indent=1) + "\n")
        training.save(run, out)
        (out / training.CHECKPOINT).unlink(missing_ok=True)
    dice = "undefined" if found["dice_last"] is None else f"{found['dice_last']:.4f}"
    print(f"validation Dice {dice} after {config.epochs} epochs, "
          f"{run.seconds:.0f} s in {run.precision}; the network is in {out}")


RECORD = "record.json"


def _claim(out: Path, resume: bool) -> bool:
    """Whether a finished run lies there; an error where training would overwrite something."""
    from cmrseg import training

    if out.exists() and not out.is_dir():
        raise BadInput(out, "is a file", "Give a folder to train into")
    finished, begun = (out / training.MODEL).exists(), (out / training.CHECKPOINT).exists()
    if (finished or begun) and not resume:
        what = "a finished" if finished else "an unfinished"
        cure = "Choose another --out, or remove it" + ("" if finished else ", or add --resume")
        raise BadInput(out, f"holds {what} run", cure)
    return finished


@contextmanager
def _alone(out: Path):
    """Keep other processes out of a folder that is trained into, and what killed ones left."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BadInput(out, "another process is training into it", "Wait for it, or choose another --out"
                       ) from None
    try:
        for torn in out.glob(".*.part"):
            torn.unlink(missing_ok=True)
        yield
    finally:
        (out / ".lock").unlink(missing_ok=True)
        lock.release()


def _stopped(out: Path) -> str:
    """What Ctrl-C leaves of a training; an empty folder goes."""
    if any(out.iterdir()):
        return f"stopped; the finished epochs are in {out}: continue with --resume"
    out.rmdir()
    return "stopped before the first epoch was finished: nothing is kept"


def _threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


@app.command()
def predict(
    model: Annotated[str, typer.Option(help="final (the best), small (one network), a folder that train "
                                       "--out made, or a file that export wrote.")],
    images: Annotated[Path, typer.Option(help="Folder of 8-bit grey PNG files cmrN.png.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks cmrN_mask.png, values 0-3.")],
) -> None:
    """Segment every image of a folder; each mask is named after its own image."""
    from cmrseg import data as slices
    from cmrseg import runtime

    network = runtime.find(model)
    paths = slices.check_images(images)
    if out.resolve() == images.resolve():
        raise BadInput(out, "is the folder of the images", "Give another folder to --out")
    _mask_folder(out, [path.stem for path in paths.values()])
    numbers = list(paths)
    count = max(1, min(AT_ONCE, PIXELS_AT_ONCE // slices.read_png(paths[numbers[0]]).size))
    with _hint(lambda: f"stopped; the masks in {out} are whole, but not all: predict again"), tqdm(
        total=len(paths), desc="predict", unit="slice", disable=None
    ) as bar:
        for start in range(0, len(numbers), count):  # a few at a time: the folder may be large
            few = slices.read_pngs({n: paths[n] for n in numbers[start : start + count]})
            masks = network(np.stack(list(few.values())))
            _write_masks({paths[n].stem: mask for n, mask in zip(few, masks)}, out)
            bar.update(len(few))
    print(f"{len(paths)} masks are in {out}")


AT_ONCE, PIXELS_AT_ONCE = 20, 20 * 256**2  # slices that a network is given together, and pixels


@app.command()
def export(
    model: Annotated[str, typer.Option(help="final (the best), small (one network), a file in their format, "
                                       "or a folder that train --out made.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write, such as small.onnx.")],
) -> None:
    """Write a network as one ONNX file, for programs without PyTorch and for browsers.

    Its input "image" takes grey levels 0 to 255 as they are stored, float32 (N, 1, H, W), any number and
    size of slices; normalisation and padding are inside. Its output "probability", float32 (N, 4, H, W),
    says how likely background, RV, Myo and LV are; the largest is the label. With onnxruntime:
    InferenceSession("small.onnx").run(None, {"image": x})[0].argmax(1).
    """
    from cmrseg import ensemble

    if missing := [name for name in ("onnx", "onnxscript") if not find_spec(name)]:
        raise BadInput("export", f"needs {' and '.join(missing)}", "pip install 'cmrseg[onnx]'")
    from cmrseg.export import export as write

    if out.is_dir():
        raise BadInput(out, "is a folder", "Give a file, such as small.onnx")
    networks = ensemble.find(model)
    write(networks, out)
    note = "; predict also cleans up its masks, its graph does not" if networks.ways.clean else ""
    print(f"{out} holds {model}, {out.stat().st_size / 1e6:.1f} MB{note}")


def _mask_folder(out: Path, names) -> None:
    """Refuse a file, and a folder where masks of other slices lie: they would be scored or sent too."""
    if out.exists() and not out.is_dir():
        raise BadInput(out, "is a file", "Give a folder for the masks")
    others = sorted({path.name for path in out.glob("*_mask.png")} - {f"{name}_mask.png" for name in names})
    if others:
        raise BadInput(out / others[0], "is there already, of another slice",
                       "Choose an empty --out, or remove the old masks")


def _write_masks(masks: dict, out: Path) -> None:
    from cmrseg.data import write_png

    out.mkdir(parents=True, exist_ok=True)
    for name, mask in masks.items():
        write_png(out / f"{name}_mask.png", mask)


@app.command()
def evaluate(
    pred: Annotated[Path, typer.Option(help="Folder of predicted masks cmrN_mask.png.")],
    truth: Annotated[Path, typer.Option(help="Folder of true masks cmrN_mask.png.")],
    as_json: Json = False,
) -> None:
    """Dice of predicted against true masks: each class, their mean, and 95 % intervals."""
    from cmrseg import data as slices
    from cmrseg import metrics, statistics

    true, found = slices.read_masks(truth), slices.read_masks(pred)
    for name in true:
        if name not in found:
            raise BadInput(pred / f"{name}_mask.png", "no such mask, but there is a true one",
                           "Predict every slice of the truth")
    for name in found:
        if name not in true:
            raise BadInput(truth / f"{name}_mask.png", "no such mask, but it is predicted",
                           "Compare folders with the same slices")
    t, p = np.stack(list(true.values())), np.stack([found[name] for name in true])
    if t.shape != p.shape:
        sizes = [f"{a.shape[2]} x {a.shape[1]}" for a in (p, t)]
        raise BadInput(pred, f"masks are {sizes[0]} pixels, the true ones {sizes[1]}",
                       "Predict at the size of the truth")
    patients = slices.patients_of(slices.list_pngs(truth, mask=True))
    summary = {"images": len(t), **statistics.dice_summary(metrics.dice(p, t), patients)}
    if as_json:
        print(json.dumps(summary))
        return
    print(f"{len(t)} slices of {len(set(patients))} patients")
    for name, dice in summary["dice"].items():
        low, high = summary["interval"][name] or (float("nan"), float("nan"))
        absent = summary["absent"].get(name)
        note = f"   ({absent} left out: in neither mask)" if absent else ""
        value = "in no mask" if dice is None else f"{dice:.4f}  [{low:.4f}, {high:.4f}]"
        print(f"{name:>5}  {value}{note}")


@app.command()
def submit(
    masks: Annotated[Path, typer.Option(help="Folder of masks cmrN_mask.png.")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
) -> None:
    """Write masks as a submission file: run-length codes, three rows a slice."""
    from cmrseg import data as slices
    from cmrseg import rle

    found = slices.read_masks(masks)
    out.parent.mkdir(parents=True, exist_ok=True)
    rle.write_submission(found, out)
    print(f"{3 * len(found)} rows for {len(found)} slices are in {out}")


@app.command()
def decode(
    submission: Annotated[Path, typer.Option(help="CSV file that submit wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")],
    size: Annotated[str, typer.Option(help="Width x height of the slices.")] = "96x96",
) -> None:
    """Turn a submission file back into masks."""
    from cmrseg import rle

    try:
        width, height = (int(part) for part in size.lower().split("x"))
        if not (0 < width <= 4096 and 0 < height <= 4096):
            raise ValueError
    except ValueError:
        raise BadInput(f"--size {size}", "is not a size", "Give width x height, such as 96x96") from None
    names = [name for name, _ in rle.each_mask(submission, (height, width))]  # all are sound, then written
    _mask_folder(out, names)
    for name, mask in rle.each_mask(submission, (height, width)):
        _write_masks({name: mask}, out)
    print(f"{len(names)} masks are in {out}")


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="A data root, or one folder of images or masks.")],
    as_json: Json = False,
) -> None:
    """Say what is wrong with a folder before a training does. Errors exit with status 2."""
    from cmrseg import audit

    errors, warnings = audit.audit(folder)
    if as_json:
        print(json.dumps({kind: [{"file": f.file, "problem": f.problem, "cure": f.cure} for f in found]
                          for kind, found in (("errors", errors), ("warnings", warnings))}))
    else:
        for kind, found in (("error", errors), ("warning", warnings)):
            for finding in found:
                print(f"{kind}: {finding}")
        print(f"{len(errors)} errors, {len(warnings)} warnings in {folder}")
    raise typer.Exit(2 if errors else 0)


@app.command()
def sweep(
    name: Annotated[str, typer.Argument(help="An experiment, or all; results lists them.")],
    protocol: Annotated[Optional[Preset], typer.Option(help="Only the runs of this recipe.")] = None,
    data: Annotated[Optional[str], typer.Option(help="phantom, acdc96 or a data root. "
                                                "[default: CMRSEG_DATA, else phantom]")] = None,
    workers: Annotated[Optional[int], typer.Option(min=1, help="Processes, one thread each. [default: one for "
                                                   "each core]")] = None,
    engine: Annotated[Engine, typer.Option(help="Processes here, or tasks of a Ray cluster (RAY_ADDRESS).")
                      ] = Engine.local,
    limit_minutes: Annotated[Optional[float], typer.Option(help="Begin no run after so long.")] = None,
    store: Annotated[Optional[Path], typer.Option(help="Folder of the records. [default: results]")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try again what failed before.")] = False,
) -> None:
    """Compute the runs of an experiment that have no record yet. Safe to stop at any moment."""
    from cmrseg import data as slices
    from cmrseg import experiments, results

    store, source = store or results.STORE, data or slices.source()
    plan = [p for n in _named(name) for p in experiments.EXPERIMENTS[n]
            if protocol is None or p.protocol == protocol.value]
    if not plan:
        has = ", ".join(dict.fromkeys(p.protocol for n in _named(name) for p in experiments.EXPERIMENTS[n]))
        raise BadInput(f"--protocol {protocol.value}", f"{name} has no run of this recipe", f"It has: {has}")
    if limit_minutes is not None and not limit_minutes >= 0:
        raise BadInput(f"--limit-minutes {limit_minutes:g}", "is no time", "Give a number of minutes, 0 or more")
    if engine is Engine.ray and not find_spec("ray"):
        raise BadInput("--engine ray", "Ray is not installed", "pip install 'cmrseg[cluster]'")
    bar, started, known = tqdm(desc=name, unit="run", disable=None), time.monotonic(), -1

    def show(done: int, planned: int) -> None:
        nonlocal known
        bar.total = planned
        bar.update(done - bar.n)
        if bar.disable and done > max(known, 0):  # not a terminal: a line for each run
            left = (time.monotonic() - started) / done * (planned - done) / 60
            print(f"{name}: {done} of {planned} runs, about {left:.0f} min left", file=sys.stderr, flush=True)
        known = done

    with _hint(lambda: "stopped; finished runs are kept: the same command goes on"), bar:
        left = experiments.run_missing(plan, source, store, workers or os.cpu_count() or 1, limit_minutes, retry,
                                       show, engine.value)
    said = "nothing is missing" if not left else f"{left} runs are still missing; the same command goes on"
    if failed := experiments.failed_runs(plan, slices.load(source, "labelled").fingerprint, store):
        reason = json.loads(slices.read_text(failed[0]))["reason"]
        if len(failed) == len(plan):
            raise BadInput(failed[0], f"is why this run failed, and so did all: {reason}", "With --retry they are tried again")
        said += f"; {len(failed)} failed, the first for: {reason} ({failed[0]}; --retry tries them again)"
    print(f"{name}: {said}")


@app.command()
def results(
    name: Annotated[str, typer.Argument(help="An experiment, or all.")] = "all",
    protocol: Annotated[Optional[Preset], typer.Option(help="Only this recipe. [default for all: replica and "
                                                       "modern]")] = None,
    store: Annotated[Optional[Path], typer.Option(help="Folder of the records. [default: results]")] = None,
    as_json: Json = False,
) -> None:
    """What each experiment has and lacks on the real slices."""
    from cmrseg import experiments
    from cmrseg import results as records
    from cmrtrial import second_trial

    shown = [protocol.value] if protocol else ["replica", "modern"]
    if protocol is None and name != "all":
        shown = list(dict.fromkeys(p.protocol for n in _named(name) for p in experiments.EXPERIMENTS[n]))
    rows = [experiments.overview(n, recipe, store or records.STORE) for n in _named(name)
            for recipe in shown if any(p.protocol == recipe for p in experiments.EXPERIMENTS[n])]
    second = second_trial.in_words(store or records.STORE) if name == "all" and protocol is None else None
    if as_json:
        print(json.dumps(rows))
        if second:
            print(second, file=sys.stderr)  # what is read by a program stays the first trial alone
        return
    print(f"{'experiment':24} {'protocol':9} settings  runs  missing  failed")
    for row in rows:
        print("{experiment:24} {protocol:9} {settings:8} {runs:5} {missing:8} {failed:7}".format(**row))
    if second:
        print(second)


def _named(name: str) -> list[str]:
    from cmrseg import experiments

    if name == "all":
        return list(experiments.EXPERIMENTS)
    if name not in experiments.EXPERIMENTS:
        raise BadInput(name, "no such experiment", f"One of: all, {', '.join(experiments.EXPERIMENTS)}")
    return [name]


@contextmanager
def _hint(message):
    """Say what to do next, which ``message`` returns, when the work inside is stopped."""
    try:
        yield
    except (KeyboardInterrupt, _Terminated):
        print(message(), file=sys.stderr)
        raise


class _Terminated(BaseException):
    """SIGTERM; not a KeyboardInterrupt, of which typer makes an exit of its own."""


def _on_sigterm(*_) -> None:
    raise _Terminated


def main() -> None:
    """Run the command line; a user's mistake is one line and status 2, never a traceback."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    # Threads that wait should soon sleep: spinning, they take the cores that other programs need. But not at once: that
    # makes a small training twice as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name need not be text, nor the terminal know it
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except (BadInput, FloatingPointError) as problem:
        sys.exit(_complain(str(problem)))
    except typer.Exit as exit_:
        sys.exit(exit_.exit_code)
    except _Terminated:
        sys.exit(143)
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as problem:
        sys.exit(_complain(f"{problem.filename or 'output'}: {problem.strerror}. "
                           "Check the path, its permissions and the space left"))
    except Exception as problem:
        if isinstance(problem, MemoryError) or "allocate memory" in str(problem):  # as PyTorch and onnxruntime say
            sys.exit(_complain("out of memory. Give fewer or smaller slices at once, or take a larger machine"))
        if not hasattr(problem, "format_message"):  # not an error of the command line's parser
            raise
        sys.exit(_complain(f"{problem.format_message().rstrip('.?')}. See --help"))


def _complain(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2
