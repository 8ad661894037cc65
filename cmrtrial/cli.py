"""The trial's command line, ``python -m cmrtrial``: compute what is missing, say what there is."""

import json
import sys
import time
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Optional

import typer
from tqdm import tqdm

from cmrseg import machine
from cmrseg.cli import console
from cmrseg.config import PRESETS
from cmrseg.data import BadInput

app = typer.Typer(
    help="The trial of the 2020 report: what was run, and what is missing.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Option = typer.Option
Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)
Engine = Enum("Engine", {name: name for name in ("local", "ray")}, type=str)
Store = Annotated[Optional[Path], Option(help="Folder of the records. [default: results]")]


@app.command(epilog="Example: python -m cmrtrial sweep kernel-size --data acdc96 --workers 2")
def sweep(
    name: Annotated[str, typer.Argument(help="An experiment, or all; results NAME shows it.")],
    protocol: Annotated[Optional[Preset], Option(help="Only the runs of this recipe.")] = None,
    data: Annotated[
        Optional[str],
        Option(help="phantom, acdc96 or a data root. [default: CMRSEG_DATA, else phantom]"),
    ] = None,
    workers: Annotated[
        Optional[int],
        Option(min=1, help="Processes, one thread each. [default: one for each core it may use]"),
    ] = None,
    engine: Annotated[
        Engine, Option(help="Processes here, or tasks of a Ray cluster (RAY_ADDRESS).")
    ] = Engine.local,
    limit_minutes: Annotated[Optional[float], Option(help="Begin no run after so long.")] = None,
    store: Store = None,
    retry: Annotated[bool, Option("--retry", help="Try again what failed before.")] = False,
) -> None:
    """Compute the runs of an experiment that have no record yet. Safe to stop at any moment."""
    from cmrseg import datasets
    from cmrtrial import runner
    from cmrtrial.records import STORE

    store, source = store or STORE, data or datasets.source()
    plan = _planned(name, protocol)
    if limit_minutes is not None and not limit_minutes >= 0:
        cure = "Give a number of minutes, 0 or more"
        raise BadInput(f"--limit-minutes {limit_minutes:g}", "is no time", cure)
    if engine is Engine.ray and not find_spec("ray"):
        raise BadInput("--engine ray", "Ray is not installed", "pip install 'cmrseg[cluster]'")
    stopped = "stopped; finished runs are kept: the same command goes on"
    with (
        console.hint(lambda: stopped),
        tqdm(desc=name, unit="run", disable=None) as bar,
    ):
        workers = workers or machine.cores()
        show = _progress(name, bar)
        left = runner.run_missing(
            plan, source, store, workers, limit_minutes, retry, show, engine.value
        )
    said = f"{left} runs are still missing; the same command goes on"
    said = said if left else "nothing is missing"
    fingerprint = datasets.load(source, "labelled").fingerprint
    if failed := runner.failed_runs(plan, fingerprint, store):
        reason = json.loads(failed[0].read_text(encoding="utf-8"))["reason"]
        if len(failed) == len(plan):
            problem = f"is why this run failed, and so did all: {reason}"
            raise BadInput(failed[0], problem, "With --retry they are tried again")
        first = f"{reason} ({failed[0]}; --retry tries them again)"
        said += f"; {len(failed)} failed, the first for: {first}"
    print(f"{name}: {said}")


def _planned(name: str, protocol: Preset | None) -> list:
    """The runs of the experiments of a name, of one recipe or of all."""
    from cmrtrial.plans import EXPERIMENTS

    specs = [spec for n in _named(name) for spec in EXPERIMENTS[n]]
    plan = [spec for spec in specs if protocol is None or spec.protocol == protocol.value]
    if not plan:
        has = ", ".join(dict.fromkeys(spec.protocol for spec in specs))
        problem = f"{name} has no run of this recipe"
        raise BadInput(f"--protocol {protocol.value}", problem, f"It has: {has}")
    return plan


def _progress(name: str, bar: tqdm):
    """A function that shows how many runs are done: a bar; where nobody looks, lines."""
    started = time.monotonic()

    def show(done: int, planned: int) -> None:
        if bar.disable and done > bar.n:
            left = (time.monotonic() - started) / done * (planned - done) / 60
            line = f"{name}: {done} of {planned} runs, about {left:.0f} min left"
            print(line, file=sys.stderr, flush=True)
        bar.n, bar.total = done, planned
        bar.refresh()

    return show


@app.command(epilog="Example: python -m cmrtrial results kernel-size")
def results(
    name: Annotated[
        str, typer.Argument(help="An experiment, in every recipe that it has, or all.")
    ] = "all",
    protocol: Annotated[
        Optional[Preset], Option(help="Only this recipe. [default for all: replica and modern]")
    ] = None,
    store: Store = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """What each experiment has and lacks on the real slices."""
    from cmrtrial.plans import EXPERIMENTS
    from cmrtrial.records import STORE
    from cmrtrial.runner import overview
    from cmrtrial.second import plan

    store = store or STORE
    rows = []
    for n in _named(name):
        has = dict.fromkeys(spec.protocol for spec in EXPERIMENTS[n])
        shown = has if name != "all" else ("replica", "modern")
        shown = (protocol.value,) if protocol else shown
        rows += [overview(n, p, store) for p in shown if p in has]
    second = plan.in_words(store) if name == "all" and protocol is None else None
    if as_json:
        print(json.dumps(rows))
        if second:  # what is read by a program stays the first trial alone
            print(second, file=sys.stderr)
        return
    print(f"{'experiment':24} {'protocol':9} settings  runs  missing  failed")
    line = "{experiment:24} {protocol:9} {settings:8} {runs:5} {missing:8} {failed:7}"
    for row in rows:
        print(line.format(**row))
    if second:
        print(second)


@app.command(epilog="Example: python -m cmrtrial verdicts --json")
def verdicts(
    store: Store = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON for a program to read.")] = False,
) -> None:
    """What the first trial says of each claim of the 2020 report."""
    from cmrtrial.claims import judge
    from cmrtrial.records import STORE

    columns = ["id", "verdict", "estimate", "low", "high", "against", "text"]
    table = judge(store or STORE).reindex(columns=columns)
    if as_json:
        print(table.to_json(orient="records"))
        return
    for row in table.itertuples():
        print(f"{row.id:28} {row.verdict:14} {row.text}")


def _named(name: str) -> list[str]:
    from cmrtrial.plans import EXPERIMENTS

    if name == "all":
        return list(EXPERIMENTS)
    if name not in EXPERIMENTS:
        one_of = f"One of: all, {', '.join(EXPERIMENTS)}"
        raise BadInput(name, "no such experiment", one_of)
    return [name]


def main() -> None:
    """Run ``python -m cmrtrial``."""
    console.run(app)
