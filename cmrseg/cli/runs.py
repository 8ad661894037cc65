"""A run in the folder of ``train --out``: its checks, lock, progress bar and files."""

import json
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm import tqdm

from cmrseg.data import BadInput, write_text
from cmrseg.machine import cores, locked


def is_finished(out: Path, resume: bool) -> bool:
    """Whether a folder to train into holds a finished run; without ``resume`` it may hold none.

    Raises:
        BadInput: training would overwrite a run, or ``out`` is a file.
    """
    from cmrseg.checkpoint import CHECKPOINT, MODEL

    if out.exists() and not out.is_dir():
        raise BadInput(out, "is a file", "Give a folder to train into")
    finished, begun = (out / MODEL).exists(), (out / CHECKPOINT).exists()
    if (finished or begun) and not resume:
        what = "a finished" if finished else "an unfinished"
        cure = "Choose another --out" + ("" if finished else ", or add --resume")
        raise BadInput(out, f"holds {what} run", cure)
    return finished


def check_finished_run(out: Path, config, fingerprint: str, precision: str) -> None:
    """Check that a finished run is the one that is asked for, and remove its leftovers.

    Raises:
        BadInput: it has another configuration, or was made with other slices.
    """
    from cmrseg.checkpoint import CHECKPOINT, CONFIG, read_config, require_same
    from cmrseg.record import RECORD, read_record

    require_same(out / CONFIG, read_config(out / CONFIG), config)
    record = read_record(out / RECORD)
    if record["fingerprint"] != fingerprint:
        raise BadInput(out / RECORD, "was made with other slices", "Train into another --out")
    if record["precision"] != precision:
        warning = f"warning: {out} was trained in {record['precision']}, not in {precision}"
        print(warning, file=sys.stderr)
    for name in (CHECKPOINT, ".lock", ".lock.soft"):  # of a process that was killed as it finished
        (out / name).unlink(missing_ok=True)


def select_device(device: str, threads: int | None) -> None:
    """Check that the device exists, and set the number of threads: as asked for, or as allowed.

    Raises:
        BadInput: no GPU that PyTorch can use.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda", "PyTorch finds no GPU that it can use", "Say --device cpu")
    if threads or torch.get_num_threads() > cores():
        torch.set_num_threads(threads or cores())


def warn_of_shared(train, held_out) -> None:
    """Say which patient, or else image, is on both sides of a split: the Dice is too good then."""
    both = train, held_out
    images = [[image.tobytes() for image in s.images] for s in both]
    for kind, relation, (here, there) in (
        ("patients", "of one patient", [s.patients.tolist() for s in both]),
        ("images", "the same image", images),
    ):
        if shared := sorted({*here} & {*there}):
            more = f", and so on for {len(shared)} {kind}" if shared[1:] else ""
            names = train.names[here.index(shared[0])], held_out.names[there.index(shared[0])]
            problem = f"{names[0]} of train and {names[1]} of val are {relation}{more}"
            cure = "The score will be too good; doctor lists all, and patients.csv says who is who"
            print(f"warning: {problem}. {cure}", file=sys.stderr)
            break


def save_run(out: Path, result, record: dict, pixels: tuple[int, int]) -> None:
    """Write the network, record and slice size of a finished training; remove its checkpoint."""
    from cmrseg import checkpoint
    from cmrseg.deploy.sizes import write_size
    from cmrseg.record import RECORD, sealed

    write_text(out / RECORD, json.dumps(sealed(record), indent=1) + "\n")
    write_size(out / checkpoint.MODEL, pixels)
    checkpoint.save(result, out)
    (out / checkpoint.CHECKPOINT).unlink(missing_ok=True)


@contextmanager
def run_lock(out: Path):
    """Lock a folder that is trained into, and remove the partial files that killed processes left.

    Raises:
        BadInput: another process is training into it.
    """
    from filelock import Timeout

    with ExitStack() as stack:
        try:
            stack.enter_context(locked(out / ".lock", timeout=0, remove=True))
        except Timeout:
            cure = "Wait for it, or choose another --out"
            raise BadInput(out, "another process is training into it", cure) from None
        for torn in out.glob(".*.part"):
            torn.unlink(missing_ok=True)
        yield


@contextmanager
def progress(preset: str, config):
    """A callback that moves a progress bar, or prints scored epochs where nobody looks."""
    from cmrseg.record import mean_dice

    def show(history: dict[str, list]) -> None:
        dice = next((d for d in reversed(history["dice"]) if d is not None), None)
        shown = "not yet" if dice is None else f"{mean_dice(dice):.3f}"
        scores = f"loss {history['loss'][-1]:.4f}, val Dice {shown}"
        bar.update(len(history["epoch"]) - bar.n)
        bar.set_postfix_str(scores)
        if bar.disable and history["dice"][-1] is not None:
            line = f"epoch {history['epoch'][-1]}/{config.epochs} {scores.replace(',', '')}"
            print(line, file=sys.stderr, flush=True)

    description = f"{preset}, seed {config.seed}"
    with tqdm(total=config.epochs, desc=description, unit="epoch", disable=None) as bar:
        yield show


def stop_message(out: Path) -> str:
    """The message about what Ctrl-C leaves of a training; an empty folder is removed."""
    if any(out.iterdir()):
        return f"stopped; the finished epochs are in {out}: continue with --resume"
    out.rmdir()
    return "stopped before the first epoch was finished: nothing is kept"
