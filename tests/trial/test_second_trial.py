"""The second trial: its runs, its claims, and the script that computes it."""

import copy
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY

from cmrseg import train as training
from cmrseg.config import TrainConfig
from cmrseg.data import BadInput
from cmrseg.record import make_record
from cmrseg.train import fit
from cmrtrial import claims as first_claims
from cmrtrial import cli, runner, spec
from cmrtrial import records as results
from cmrtrial.second import claims
from cmrtrial.second import plan as second_trial
from cmrtrial.second.statistics import Pairs, p_values
from cmrtrial.splits import split

STORE = results.STORE / "second"

# --- the runs ------------------------------------------------------------------------------------


def test_no_run_changes():
    """The plan is registered: its runs, their order and their milestones (test_golden: the first)."""
    words = [f"{p.setting} {p.key()} {p.milestones} {p.score_every}" for p in second_trial.PLAN]
    digest = hashlib.sha256("".join(words).encode()).hexdigest()
    assert digest == "e6bd857f18da1ba37fb5fef71a8d02679fb79bbea87854939762851f44ed337f"


SHORTER = [
    {"dropout": 0.3, "augment": ("affine", "strong-intensity")},
    {
        "optimiser": "sgd",
        "momentum": 0.9,
        "model": "report-unet",
        "windows": 2,
        "poolings": 2,
        "skips": "before",
    },
]


@pytest.mark.parametrize("changes", SHORTER, ids=str)
def test_a_milestone_is_the_end_of_a_shorter_run(root, changes):
    train, held_out = split(str(root), "val")
    config = TrainConfig(channels=(2, 4, 4), schedule="constant", lr=0.01, **changes)

    def recorded(epochs, milestones):
        options = {"score_every": 2, "milestones": milestones, "precision": "fp32"}
        run = fit(replace(config, epochs=epochs), train, held_out, **options)
        return make_record(run, train, held_out, "val", "0", "second")

    long, short = recorded(6, (2, 4, 6)), recorded(4, (4,))
    end = short["milestones"][-1]
    assert [m["epoch"] for m in long["milestones"]] == [2, 4, 6]
    assert long["milestones"][1] == end and end["dice"] == short["images"]["dice"]
    assert end["dice_train"] == pytest.approx(short["dice_train"])
    assert end["distinct_masks"] == short["distinct_masks"]
    assert long["history"]["dice"][:4] == short["history"]["dice"]
    assert long["milestones"][-1]["loss"] == long["history"]["loss"][-1] != end["loss"]


# --- claims --------------------------------------------------------------------------------------


def test_every_claim_of_the_first_trial_has_a_successor_with_a_reason():
    asked = tomllib.loads((results.STORE / "claims-2.toml").read_text(encoding="utf-8"))["claim"]
    first = {c["id"]: c for c in first_claims.claims()}
    assert {c["first"] for c in asked} == set(first) and len(first) == 61
    assert len({c["id"] for c in asked}) == len(asked)
    for claim in asked:
        assert claim["changed"] and claim["source"] == first[claim["first"]]["source"], claim["id"]
        assert ("family" in claim) != ("verdict" in claim), claim["id"]
        assert claim.get("family", "dice") in claims.FAMILIES


def made_up(planned, rng, dice):
    """A record as a run of the plan would leave it, of made-up numbers."""
    fold, epochs = int(planned.fold[4]), planned.config.epochs
    patients = np.repeat([p for p in range(1, 61) if p % 5 == fold], 2)
    table = (dice + rng.normal(0, 0.02, (len(patients), 3)) + rng.normal(0, 0.005)).clip(0, 1)
    table = table.round(5).tolist()
    means = [float(m) for m in np.mean(table, 0)]
    scored = training.scored_epochs(epochs, planned.score_every)
    curve = [means if e in scored else None for e in range(1, epochs + 1)]
    history = {"epoch": list(range(1, epochs + 1)), "loss": [0.1] * epochs, "dice": curve}
    milestone = {"dice": table, "distinct_masks": 24, "dice_train": [0.9] * 3, "loss": 0.1}
    return {
        "split": planned.split,
        "seed": planned.config.seed,
        "dice_last": float(np.mean(table)),
        "images": {"patient": patients.tolist(), "dice": table},
        "history": history,
        "milestones": [{"epoch": m, **milestone} for m in planned.milestones],
    }


@pytest.fixture(scope="module")
def whole_trial():
    """The whole plan's records: each setting at 0.8, sigmoid far below, SGD drawing nothing."""
    rng, found = np.random.default_rng(0), {}
    for planned in second_trial.PLAN:
        dice = {"sigmoid": 0.6, "SGD": 0.0}.get(planned.setting, 0.8)
        found.setdefault(planned.setting, []).append(made_up(planned, rng, dice))
    return found


VERDICTS = {
    "sigmoid-ends-lower": ("confirmed", -0.2),
    "leaky-is-relu": ("confirmed", 0),
    "dropout-hurts": ("equivalent", 0),
    "gap-opens": ("inconclusive", 0),  # 0.9 - 0.8, less the level 0.1
    "too-narrow": ("contradicted", None),
    "ning-loss-near-zero": ("contradicted", None),
    "kernel-five-slower": ("confirmed", None),  # the first trial's clock
    "kaggle": ("not testable here", None),
    "mirror-no-gain": ("ambiguous", None),
}


def test_a_whole_trial_is_judged_by_families_with_the_margin_of_each_claim(
    whole_trial, monkeypatch
):
    margins, sizes, test, holm = [], [], claims.p_values, claims.holm
    monkeypatch.setattr(claims, "p_values", lambda *a: margins.append(a[2]) or test(*a))
    monkeypatch.setattr(claims, "holm", lambda family: sizes.append(len(family)) or holm(family))
    table = claims.judge(whole_trial)
    assert len(table) == len(claims.claims())
    for name, (verdict, estimate) in VERDICTS.items():
        assert name == "gap-opens" or table.loc[name, "verdict"] == verdict
        assert estimate is None or table.loc[name, "estimate"] == pytest.approx(estimate, abs=0.02)
    row = table.loc["mirror-no-gain"]
    assert np.isfinite(row["estimate"]) and np.isnan(row["p"])  # computed, and not tested
    assert (table["low"].dropna() <= table["estimate"].dropna()).all()
    asked = [c for c in claims.claims() if "endpoint" in c and "verdict" not in c]
    assert margins == [c.get("margin", 0.02) for c in asked]
    families = Counter(c["family"] for c in asked)
    assert sorted(sizes) == sorted(families.values()) == [4, 7, 12, 20, 28]


def the(name):
    return next(claim for claim in claims.claims() if claim["id"] == name)


def changed(whole_trial, setting, change):
    """The trial with a change to each record of a setting; the change gets a copy and its number."""
    runs = copy.deepcopy(whole_trial[setting])
    for number, run in enumerate(runs):
        change(run, number)
    return whole_trial | {setting: runs}


def judged(found, monkeypatch, *names):
    """Verdicts on these claims alone, each in a family of those of them that are of its family."""
    few = [the(name) for name in names]
    monkeypatch.setattr(claims, "claims", lambda store: few)
    return claims.judge(found)


def curve(run, value):
    """Give a run another curve: the Dice of an epoch, where it was scored."""
    history = run["history"]
    history["dice"] = [
        d if d is None else [value(e)] * 3 for e, d in zip(history["epoch"], history["dice"])
    ]


@pytest.mark.parametrize("name, sides", [("rv-position", "ab"), ("more-epochs-no-gain", "a")])
def test_a_setting_that_still_rises_is_noticed(whole_trial, name, sides):
    claim = the(name)
    assert claims.estimate(claim, whole_trial).rising == (False, False)

    def rising(run, _):
        curve(run, lambda epoch: 0.7 + 0.1 * (epoch > 0.85 * claim["epochs"]))

    for side in sides:
        found = changed(whole_trial, claim[side], rising)
        assert claims.estimate(claim, found).rising == (side == "a", side == "b")


def test_sides_are_compared_at_the_epochs_that_are_said(whole_trial):
    def later(run, _):
        for milestone in run["milestones"]:
            if milestone["epoch"] < 1000:
                milestone["dice"] = [[0.1] * 3] * len(milestone["dice"])

    claim = the("unet-over-ning")
    assert (claim["epochs"], claim["epochs_b"]) == (500, 1000)
    found = changed(whole_trial, "Ning", later)
    assert claims.estimate(claim, found).mean == pytest.approx(0.0, abs=0.02)


def test_epochs_are_judged_by_pairs_and_their_means_are_told(whole_trial, monkeypatch):
    def leaves_at(epoch, of_first):
        def change(run, number):
            begin = {0: of_first, 1: 200}.get(number, epoch)
            curve(run, lambda e: 0.8 if e >= begin else 0.0)

        return change

    found = changed(whole_trial, "tanh", leaves_at(100, 400))
    found = changed(found, "baseline", leaves_at(200, 200))
    for name in ("relu-steadiest", "batch-large-loss"):
        assert isinstance(claims.estimate(the(name), found), Pairs)
    p = p_values(claims.estimate(the("tanh-starts-first"), found), "less", 5)
    row = judged(found, monkeypatch, "tanh-starts-first").loc["tanh-starts-first"]
    assert (row["less"], row["more"], row["verdict"]) == (13, 1, "confirmed")  # and one tie
    assert row["estimate"] == pytest.approx((13 * 100 + 200 + 400) / 15 - 200)
    assert row["p"] == p["confirmed"]


# --- runs that learn nothing, and runs that fail -------------------------------------------------


def nothing(run, number):
    """One run of the setting draws nothing."""
    for milestone in run["milestones"] if number == 0 else ():
        milestone["dice"] = [[0.0] * 3] * len(milestone["dice"])


def test_a_setting_with_a_run_that_learnt_nothing_is_neither_ahead_nor_equal(
    whole_trial, monkeypatch
):
    one = changed(whole_trial, "tanh", nothing)
    every = changed(whole_trial, "tanh", lambda run, _: nothing(run, 0))
    for found, rising in ((one, (True, False)), (every, (False, False))):
        assert claims.estimate(the("tanh-ends-lower"), found).rising == rising
    row = judged(one, monkeypatch, "tanh-ends-lower").loc["tanh-ends-lower"]
    assert (row["dead_a"], row["dead_b"], row["verdict"]) == (1, 0, "inconclusive")
    row = claims.judge(every).loc["tanh-ends-lower"]
    assert (row["dead_a"], row["verdict"]) == (15, "confirmed")


def test_a_gap_of_runs_that_learnt_nothing_is_withheld_and_stays_in_its_family(
    whole_trial, monkeypatch
):
    found = changed(changed(whole_trial, "SegNet", nothing), "AlexNet", nothing)
    with pytest.raises(claims.Withheld):
        claims.estimate(the("alexnet-epochs"), found)
    sizes, holm = [], claims.holm
    monkeypatch.setattr(claims, "holm", lambda family: sizes.append(len(family)) or holm(family))
    rows = judged(found, monkeypatch, "segnet-not-overfitted", "gap-opens")
    row = rows.loc["segnet-not-overfitted"]
    assert row["verdict"] == "inconclusive" and row["why"] == "1 of 15 runs learnt nothing: SegNet"
    assert sizes == [2] and np.isnan(row["estimate"])


@pytest.fixture
def filed(whole_trial, tmp_path, monkeypatch):
    """A store of every planned run, read as made-up records; give it runs to let them fail."""
    counted, content = Counter(), {}
    for planned in second_trial.PLAN:
        path = planned.path(store=tmp_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        content[path] = whole_trial[planned.setting][counted[planned.setting]]
        counted[planned.setting] += 1
    read = results.read_record  # of the first trial's clock
    monkeypatch.setattr(results, "read_record", lambda path: content.get(path) or read(path))

    def fail(setting, number=None, reason="the loss is nan in epoch 3, batch of a slice."):
        for planned in [p for p in second_trial.PLAN if p.setting == setting][slice(number)]:
            planned.path(store=tmp_path).unlink()
            note = runner.failure_note(planned, spec.ACDC96, tmp_path)
            note.write_text(json.dumps({"reason": reason}), encoding="utf-8")

    return SimpleNamespace(store=tmp_path, fail=fail)


def test_a_trial_with_runs_that_diverged_is_complete_and_judged(filed, whole_trial, monkeypatch):
    assert claims.records(filed.store) == whole_trial
    filed.fail("rate 0.6")
    for setting in ("batch 32", "batch 8", "hardtanh"):
        filed.fail(setting, 1)
    words = second_trial.in_words(filed.store)
    assert words == "second trial: 707 of 725 runs, 18 failed, complete"
    found = claims.records(filed.store)
    assert [*map(len, found.values())] == [*map(len, whole_trial.values())]
    withheld = {"batch-large-loss": "batch 32", "batch-bursts": "batch 8"}
    withheld |= {"hardtanh-overfits": "hardtanh"}
    rows = judged(found, monkeypatch, *withheld, "rate-zero-was-an-error", "hardtanh-ends-lower")
    for name, setting in withheld.items():
        row = rows.loc[name]
        assert row["verdict"] == "inconclusive" and row["why"] == f"1 of 15 runs failed: {setting}"
    row = rows.loc["rate-zero-was-an-error"]  # all draw nothing
    assert (row["verdict"], row["estimate"]) == ("contradicted", 0.5)
    row = rows.loc["hardtanh-ends-lower"]  # Dice 0 for 12 patients
    assert row["dead_a"] == 1 and row["estimate"] == pytest.approx(-0.8 / 15, abs=0.01)
    failed = next(run for run in found["hardtanh"] if run.get("failed"))
    expected = {"epoch>0.1": [500], "epoch-95": [500], "static": [True], "zero": [True]}
    for name, value in (expected | {"dice": [0] * 12}).items():
        assert list(claims.endpoint(failed, name, 500)) == value


def test_a_trial_that_lacks_a_run_or_has_one_that_failed_otherwise_is_not_judged(filed):
    filed.fail("rate 0.6", 1, reason="not enough memory")
    with pytest.raises(BadInput, match="did not diverge"):
        claims.records(filed.store)
    second_trial.PLAN[0].path(store=filed.store).unlink()
    with pytest.raises(BadInput, match="723 of 725 runs, 1 failed, 1 missing: not counted until"):
        claims.records(filed.store)


def test_a_run_that_diverges_leaves_the_note_that_counts(root, tmp_path):
    config = TrainConfig(channels=(2, 4), epochs=3, lr=1e30, optimiser="sgd")
    note = runner.run_one(spec.RunSpec("x", config, "val", "second"), str(root), tmp_path)
    assert note.name.endswith(".failed.json")
    assert json.loads(note.read_text(encoding="utf-8"))["reason"].startswith(claims.DIVERGED)


ENDPOINTS = [  # name, epochs, since, value
    ("dice", 20, None, (0.7 + 0.7 + 0.85) / 3),  # RV of the slice that has one
    ("RV-Myo", 20, None, 0.0),
    ("LV", 20, None, 0.85),
    ("gap", 20, None, 0.9 - 0.75),
    ("gain", 20, 10, 0.15),
    ("loss", 20, None, 0.5),
    ("epoch>0.5", 20, None, 10),
    ("epoch>0.9", 20, None, 20),
    ("epoch-95", 20, None, 20),
    ("epoch-95", 10, None, 10),
    ("falls", 20, None, 0.1),
    ("falls", 20, 15, 0.0),
    ("static", 20, None, True),
    ("static", 10, None, False),
    ("collapsed", 20, None, False),
    ("zero", 20, None, False),
]


def test_endpoints_by_hand():
    scores = {5: 0.2, 10: 0.74, 15: 0.64, 20: 0.8}
    dice = [[scores[e]] * 3 if e in scores else None for e in range(1, 21)]
    history = {"epoch": list(range(1, 21)), "loss": [0.5] * 20, "dice": dice}
    end = {"epoch": 20, "dice": [[0.7, 0.8, 0.9], [None, 0.6, 0.8]], "distinct_masks": 1}
    end |= {"dice_train": [0.9] * 3, "loss": 0.5}
    milestones = [end | {"epoch": 10, "dice": [[0.6] * 3] * 2, "distinct_masks": 2}, end]
    record = {"images": {"patient": [7, 7]}, "history": history, "milestones": milestones}
    for name, epochs, since, value in ENDPOINTS:
        found = claims.endpoint(record, name, epochs, since)
        assert list(found) == pytest.approx([value]), name
    assert (claims.COLLAPSED, claims.ZERO) == (0.1, 0.01)
    assert claims.rise(record, 20) == pytest.approx(0.16)


# --- the records that are there, and how they come -----------------------------------------------


def test_records_of_the_second_trial_are_whole():
    """The plan's own are compared in test_records; these are of the registered commit, too."""
    registered, wrong = (STORE / "REGISTERED").read_text(encoding="utf-8").strip(), []
    milestones = {p.path(): list(p.milestones) for p in second_trial.PLAN}
    for path in STORE.glob("*.json"):
        if path.name.endswith(".failed.json"):
            planned = path.with_name(path.name.replace(".failed", ""))
            wrong += [] if planned in milestones else [path.name]
            continue
        record = results.read_record(path)
        table = record["milestones"]
        if (
            [m["epoch"] for m in table] != milestones.get(path)
            or table[-1]["dice"] != record["images"]["dice"]
            or record["commit"] != registered
        ):
            wrong.append(path.name)
    assert not wrong


def test_results_tells_of_the_second_trial_in_a_line_of_its_own(command):
    done = command("results", main=cli.main)
    assert done.status == 0 and done.out.splitlines()[-1].startswith("second trial: ")
    done = command("results", "--json", main=cli.main)
    assert (
        done.status == 0
        and {row["experiment"] for row in json.loads(done.out)} <= spec.EXPERIMENTS.keys()
    )
    assert done.err.startswith("second trial: ")


PROGRAM = """import os, sys, time, pathlib
store = pathlib.Path(sys.argv[sys.argv.index('--store') + 1]) / 'second'
for n in range(8):
    path = store / f'{n:016x}.json'
    if not path.exists():
        time.sleep(0.2)
        with open(store / 'made', 'a') as log: log.write(f'{n} {os.nice(0)}\\n')
        path.with_suffix('.part').write_text('{}'); path.with_suffix('.part').rename(path)
"""


class Clone:
    """A small repository with the script, a stand-in for what it runs, and a folder of slices."""

    def __init__(self, home):
        self.home, self.store = home, home / "results" / "second"
        self.code = home / "cmrtrial" / "second_trial.py"

    def git(self, *words):
        options = {"cwd": self.home, "check": True, "text": True, "capture_output": True}
        return subprocess.run(["git", *words], **options).stdout.strip()

    def register(self, program=PROGRAM):
        """Commit what is there with this program, and register the commit."""
        self.code.write_text(program, encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-qm", "code")
        commit = self.git("rev-parse", "HEAD")
        (self.store / "REGISTERED").write_text(f"{commit}\n", encoding="utf-8")
        self.git("add", "-A")
        self.git("commit", "-qm", "registered")

    def start(self, *words, **environment):
        environment |= {**os.environ, "SECOND_TRIAL_PYTHON": sys.executable}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        words, options = ["tools/second_trial.sh", *words], {"start_new_session": True}
        return subprocess.Popen(words, cwd=self.home, env=environment, **options, **pipes)

    def sweep(self, *words, **environment):
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=60)
        return SimpleNamespace(status=process.returncode, out=out, err=err)

    def until(self, process, count):
        """Wait until so many records are there."""
        while len(list(self.store.glob("*.json"))) < count:
            assert process.poll() is None
            time.sleep(0.05)

    def made(self):
        """Number and priority of each run, in the order in which they were made."""
        lines = (self.store / "made").read_text(encoding="utf-8").splitlines()
        return [tuple(map(int, line.split())) for line in lines]


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path / "repo")
    for folder in ("tools", "cmrtrial", "data/acdc96", "results/second"):
        (clone.home / folder).mkdir(parents=True)
    shutil.copy(REPOSITORY / "tools" / "second_trial.sh", clone.home / "tools")
    (clone.home / "cmrtrial" / "__init__.py").touch()
    (clone.home / "requirements.txt").touch()
    ignored = "runs/\ndata/\n*.part\nresults/second/made\n__pycache__/\n"
    (clone.home / ".gitignore").write_text(ignored, encoding="utf-8")
    clone.git("init", "-q", "-b", "main")
    clone.git("config", "user.email", "a@b")
    clone.git("config", "user.name", "a")
    clone.register()
    return clone


def test_a_sweep_that_is_killed_goes_on_and_does_nothing_twice(clone, tmp_path):
    process = clone.start()
    clone.until(process, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    committed = clone.git("ls-files", "results/second").splitlines()
    assert len(committed) >= 4 and clone.git("status", "--porcelain") == ""
    again = Clone(tmp_path / "again")  # a fresh clone goes on from what was committed
    who = ("-c", "user.email=a@b", "-c", "user.name=a")
    clone.git("clone", "-q", *who, clone.home, again.home)
    (again.home / "data" / "acdc96").mkdir(parents=True)
    done = again.sweep()
    assert done.status == 0, done.err
    assert len(list(again.store.glob("*.json"))) == 8
    assert sorted(n for n, _ in again.made()) == list(range(len(committed) - 1, 8))


def test_after_kill_9_the_sweep_ends_and_the_next_start_commits_what_it_left(clone):
    waits = "60 if n == 4 and not (store.parent.parent / 'runs' / 'again').exists() else 0.2"
    clone.register(PROGRAM.replace("0.2", waits))  # stays with its fifth run, as real ones
    process = clone.start()
    clone.until(process, 4)
    beside = clone.sweep(SECOND_TRIAL_WAIT="1")
    assert beside.status == 2 and "runs already" in beside.err
    group = int((clone.home / "runs" / "second" / "pid").read_text(encoding="utf-8"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    (clone.home / "runs" / "again").touch()
    assert clone.git("ls-files", "results/second") == "results/second/REGISTERED"
    done = clone.sweep()  # waits until the first has ended
    assert done.status == 0, done.err
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert len(clone.git("ls-files", "results/second").splitlines()) == 9
    said = clone.git("log", "-2", "--format=%s").splitlines()
    assert said == ["results: add 4 runs of the second trial"] * 2
    assert [n for n, _ in clone.made()] == list(range(8))  # each once, no two sweeps side by side


def test_a_sweep_runs_at_the_lowest_priority_and_commits_records_on_the_way_and_nothing_else(clone):
    """Also a record that was added and not committed; and where git knows nobody."""
    (clone.home / "draft.txt").write_text("mine", encoding="utf-8")
    (clone.home / "requirements.txt").write_text("changed\n", encoding="utf-8")
    (clone.store / f"{8:016x}.json").write_text("{}", encoding="utf-8")
    clone.git("add", "draft.txt", "results/second")
    (clone.store / f"{9:016x}.failed.json").write_text("{}", encoding="utf-8")
    for name in ("name", "email"):
        clone.git("config", "--unset", f"user.{name}")
    clone.git("config", "user.useConfigOnly", "true")
    before = clone.git("rev-parse", "HEAD")
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = clone.sweep(SECOND_TRIAL_EVERY="1", **nobody)
    assert (done.status, done.err) == (0, "")
    assert {nice for _, nice in clone.made()} == {19}
    since = ("log", f"{before}..")
    assert set(clone.git(*since, "--format=%an").splitlines()) == {"second trial"}
    said = clone.git(*since, "--format=%s").splitlines()
    assert len(said) > 1 and all(line.startswith("results: add ") for line in said)
    assert said[-1] == "results: add 1 run of the second trial, and the note of 1 that failed"
    names = clone.git(*since, "--name-only", "--format=").split()
    kinds = [*(f"{n:016x}.json" for n in range(9)), f"{9:016x}.failed.json"]
    assert sorted(names) == [f"results/second/{name}" for name in kinds]
    assert clone.git("diff", "--cached", "--name-only") == "draft.txt"


def test_a_mistake_and_another_commit_are_refused_in_one_line(clone):
    def refused(*words):
        done = clone.sweep(*words)
        assert done.status == 2 and len(done.err.splitlines()) == 1
        return done.err

    assert "needs a number" in refused("--hours", "soon") and "no option" in refused("--fast")
    clone.register("")
    assert clone.sweep().status == 0
    place = clone.home / "runs" / "second"
    worktree = Clone(next(p for p in place.iterdir() if len(p.name) == 40))
    worktree.code.write_text("print('something else')\n", encoding="utf-8")
    assert "not the registered commit" in refused()
    worktree.git("checkout", "-q", ".")
    worktree.git("checkout", "-q", "--detach", "main")  # whole, but another commit
    assert "not the registered commit" in refused()
    (clone.store / "REGISTERED").write_text("0" * 40 + "\n", encoding="utf-8")
    assert "not in this branch" in refused()
    (clone.home / "data" / "acdc96").rmdir()
    clone.git("checkout", "-q", ".")
    assert "real slices" in refused()
