"""The runner computes what is missing of a list of runs, in processes here or on a Ray cluster.

A run's record is filed under its key, so a run that two experiments need is computed and stored
once, and running an experiment again only fills gaps. Several processes may work on one list: a
lock file per key keeps them from doing the same run twice, and a lock dies with its process.
"""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import torch
from filelock import Timeout

from cmrseg import datasets
from cmrseg.data import BadInput, write_text
from cmrseg.machine import locked, trouble
from cmrseg.record import read_record
from cmrtrial.networks import train_and_evaluate
from cmrtrial.plans import EXPERIMENTS
from cmrtrial.records import STORE, write_record
from cmrtrial.spec import ACDC96, RunSpec

# --- what a store holds --------------------------------------------------------------------------


def failure_note(spec: RunSpec, fingerprint: str = ACDC96, store: Path = STORE) -> Path:
    """Path of the note that says why a run failed."""
    return spec.path(fingerprint, store).with_suffix(".failed.json")


def failed_runs(plan: list[RunSpec], fingerprint: str = ACDC96, store: Path = STORE) -> list[Path]:
    """The notes of the runs of a plan that failed and have no record."""
    notes = {failure_note(s, fingerprint, store): s.path(fingerprint, store) for s in plan}
    return [note for note, path in notes.items() if note.is_file() and not path.is_file()]


def missing(plan: list[RunSpec], fingerprint: str = ACDC96, store: Path = STORE) -> list[RunSpec]:
    """The runs of a plan, once each, without record or note of failure."""
    by_path = {spec.path(fingerprint, store): spec for spec in plan}
    return [
        spec
        for path, spec in by_path.items()
        if not path.is_file() and not failure_note(spec, fingerprint, store).is_file()
    ]


def check_records(plan: list[RunSpec], fingerprint: str = ACDC96, store: Path = STORE) -> None:
    """Read every record of a plan that is there.

    Raises:
        BadInput: a record is torn, edited, or of a newer version.
    """
    for path in {spec.path(fingerprint, store) for spec in plan}:
        if path.is_file():
            read_record(path)


def overview(name: str, protocol: str, store: Path = STORE) -> dict:
    """Counts of an experiment's runs under one protocol on the real slices: done, missing, failed.

    Raises:
        BadInput: a damaged record.
    """
    plan = [spec for spec in EXPERIMENTS[name] if spec.protocol == protocol]
    check_records(plan, ACDC96, store)
    lacking, failed = len(missing(plan, ACDC96, store)), len(failed_runs(plan, ACDC96, store))
    planned = {spec.path(ACDC96, store) for spec in plan}
    return {
        "experiment": name,
        "protocol": protocol,
        "settings": len({spec.setting for spec in plan}),
        "runs": len(planned) - lacking - failed,
        "missing": lacking,
        "failed": failed,
    }


# --- one run -------------------------------------------------------------------------------------


def run_one(spec: RunSpec, source: str, store: Path = STORE) -> Path | None:
    """Train one planned run and file its record, unless it is there or being made elsewhere.

    A run that fails leaves a note with the reason in the place of its record, and is not tried
    again as long as the note lies there.

    Returns:
        The path of the record or note, or None where another process holds the run.

    Raises:
        BadInput: a file the run needs is damaged, or memory or a device is lacking.
    """
    fingerprint = datasets.load(source, "labelled").fingerprint
    path, note = spec.path(fingerprint, store), failure_note(spec, fingerprint, store)
    lock = store / ".locks" / f"{path.stem}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with locked(lock, timeout=0):
            if path.is_file() or note.is_file():
                return path if path.is_file() else note
            try:
                record = train_and_evaluate(spec, source, store)
            except BadInput:  # nothing that trying again would show
                raise
            except (ArithmeticError, RuntimeError, ValueError) as error:
                if lacks := trouble(error):  # which says nothing of the run
                    raise BadInput(spec.setting, *lacks) from None
                path.parent.mkdir(parents=True, exist_ok=True)
                reason = {"key": path.stem, "setting": spec.setting, "reason": str(error)}
                write_text(note, json.dumps(reason) + "\n")
                return note
            write_record(record, store)
    except Timeout:
        return None
    return path


def run_in_turn(
    plan: Iterable[RunSpec],
    source: str,
    store: Path = STORE,
    deadline: float | None = None,
    wait: bool = False,
) -> None:
    """Run a plan with one thread; after the deadline no new run is begun.

    What another process holds is passed over, or with ``wait`` tried again every second.
    """
    torch.set_num_threads(1)
    for spec in plan:
        while deadline is None or time.time() < deadline:
            if run_one(spec, source, store) is not None or not wait:
                break
            time.sleep(1)


# --- many runs -----------------------------------------------------------------------------------


def run_missing(
    plan: list[RunSpec],
    source: str,
    store: Path = STORE,
    workers: int = 1,
    limit_minutes: float | None = None,
    retry: bool = False,
    progress: Callable[[int, int], None] = lambda done, planned: None,
    engine: str = "local",
) -> int:
    """Compute what is missing of a plan, one process per worker with one thread each.

    Every worker goes through the same list and skips what it finds done or locked. At the time
    limit no new run is begun. ``progress`` is called with (done, planned) once a second. With
    ``engine="ray"`` the runs are tasks of a Ray cluster (``RAY_ADDRESS``, else one on this machine)
    that are tried again when their node is lost; ``workers`` is then the number of local ones.

    Returns:
        How many runs are still missing.

    Raises:
        BadInput: a record in the store, or a file that a run needs, is damaged; or a worker was
            killed.
        OSError: a worker could not write, such as on a full disk.
    """
    deadline = None if limit_minutes is None else time.time() + 60 * limit_minutes
    fingerprint = datasets.load(source, "labelled").fingerprint
    check_records(plan, fingerprint, store)
    for note in failed_runs(plan, fingerprint, store) if retry else ():
        note.unlink(missing_ok=True)  # what failed before is missing from now on
    todo = missing(plan, fingerprint, store)
    if not todo:
        return 0
    run = {"local": _run_in_processes, "ray": _run_on_ray}[engine]
    with closing(run(todo, source, store, deadline, min(workers, len(todo)))) as seconds:
        for _ in seconds:
            progress(len(todo) - len(missing(todo, fingerprint, store)), len(todo))
            time.sleep(1)
    left = len(missing(todo, fingerprint, store))
    progress(len(todo) - left, len(todo))
    return left


def _run_in_processes(todo: list[RunSpec], source: str, store: Path, deadline, workers: int):
    """Start processes, and yield as long as any is alive; when closed, they are stopped."""
    context = multiprocessing.get_context("spawn")
    troubles = context.SimpleQueue()
    args = (todo, source, store, deadline, troubles)
    processes = [context.Process(target=_work, args=args, daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    try:
        alive = True
        while alive:
            yield
            alive = any(process.is_alive() for process in processes)
            if not troubles.empty():
                raise troubles.get()
        if lost := [process.exitcode for process in processes if process.exitcode]:
            cure = "Perhaps memory is short: the same command goes on, with fewer --workers"
            if lost[0] > 0:  # it ended by itself, and not by the system's hand
                cure = "It said why; a script that starts workers needs if __name__ == '__main__':"
            raise BadInput("sweep", f"a worker ended with status {lost[0]}", cure)
    finally:
        for process in processes:
            process.terminate()  # on Ctrl-C; a worker that is through does not mind
            process.join()


def _work(todo: list[RunSpec], source: str, store: Path, deadline, troubles) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends its workers
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    try:
        run_in_turn(todo, source, store, deadline)
    except (BadInput, OSError) as problem:  # the other runs would meet it too
        troubles.put(problem)


def _die_with(parent) -> None:
    parent.join()
    os._exit(1)  # nothing is lost: a record is written whole or not at all


def _run_on_ray(todo: list[RunSpec], source: str, store: Path, deadline, workers: int):
    """As :func:`_run_in_processes`, as tasks of a Ray cluster that shares the store's folder."""
    import ray

    at = os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized():
        count = None if at else workers
        ray.init(address=at, num_cpus=count, log_to_driver=False, logging_level="ERROR")
    # a run may be held by the lost node's worker, which will not live long: so a task waits
    task = ray.remote(num_cpus=1, max_retries=5)(run_in_turn)
    tasks = [task.remote([spec], source, store, deadline, wait=True) for spec in todo]
    try:
        while tasks:
            yield
            done, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=0)
            ray.get(done)
    except ray.exceptions.RayTaskError as problem:  # which says and knows less than its cause
        raise problem.cause from problem
    finally:
        ray.shutdown()
