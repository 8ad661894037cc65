"""Apply each mutant of tests/mutants.toml to a copy of the code and see whether its test fails, as it must.

``python tools/mutants.py [WORD ...]`` takes those whose file or test contains a word; without words all (an hour).
A mutant is a file, a piece of it, what stands there instead, and the test that must fail.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "cmrseg",
    "cmrtrial",
    "tests",
    "tools",
    "benchmarks",
    "notebooks",
    "book",
    "results",
    "weights",
)


def survives(mutant: dict) -> str:
    """Why a mutant lives on, or nothing: its test fails, as it must."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        copy.mkdir()
        for path in ROOT.iterdir():
            (copy / path.name).symlink_to(path)
        top = Path(mutant["file"]).parts[0]
        (copy / top).unlink()
        shutil.copytree(ROOT / top, copy / top) if (ROOT / top).is_dir() else shutil.copy(
            ROOT / top, copy / top
        )
        text = (copy / mutant["file"]).read_text(encoding="utf-8")
        if text.count(mutant["old"]) != 1:
            return f"{text.count(mutant['old'])} places hold {mutant['old']!r}"
        (copy / mutant["file"]).write_text(
            text.replace(mutant["old"], mutant["new"]), encoding="utf-8"
        )
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            mutant["test"],
        ]
        done = subprocess.run(
            words,
            cwd=copy,
            env={**__import__("os").environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            timeout=900,
        )
        return "" if done.returncode == 1 else f"pytest says {done.returncode}"


def main() -> int:
    mutants = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    chosen = [
        m
        for m in mutants
        if not sys.argv[1:] or any(w in m["file"] + m["test"] for w in sys.argv[1:])
    ]
    with ThreadPoolExecutor(2) as pool:
        reasons = list(pool.map(survives, chosen))
    for mutant, reason in zip(chosen, reasons):
        if reason:
            print(
                f"{mutant['file']}: {mutant['old']!r} -> {mutant['new']!r} survives {mutant['test']}: {reason}"
            )
    print(f"{sum(not r for r in reasons)} of {len(chosen)} mutants are killed")
    return any(reasons)


if __name__ == "__main__":
    sys.exit(main())
