"""Apply each mutant of tests/mutants.toml to a copy of the code: its test must fail.

``python tools/mutants.py [WORD ...]`` takes those whose file or test contains a word; without words
all (an hour). A mutant is a file, a piece of it, what stands there instead, and the test that must
fail. The tests are run on the untouched code first: one that fails there notices nothing.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("cmrseg", "cmrtrial", "tests")  # the rest is linked
# No plug-ins: to load them takes longer than most of the tests. No bytecode: it would be stale.
QUICK = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def failed(place: Path, *tests: str) -> bool:
    """Whether a test fails in a copy; a test that does not end in time has noticed, too."""
    words = ["-m", "pytest", "-x", "-q", "-o", "addopts=", "-m", "", "-p", "no:cacheprovider"]
    environment = os.environ | QUICK | {"PYTHONPATH": str(place)}
    try:
        done = subprocess.run(
            [sys.executable, *words, *tests],
            cwd=place,
            env=environment,
            capture_output=True,
            timeout=600 * len(tests),
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode > 1:
        raise RuntimeError(done.stdout.decode(errors="replace"))
    return done.returncode == 1


def survives(mutant: dict) -> bool:
    """Whether the test passes on a copy with the mutant in it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "repository"
        place.mkdir()
        for path in ROOT.iterdir():
            if path.name in COPIED:
                shutil.copytree(path, place / path.name)
            else:
                (place / path.name).symlink_to(path)
        file = place / mutant["file"]
        text = file.read_text(encoding="utf-8")
        if text.count(mutant["old"]) != 1:
            raise ValueError(f"{mutant['file']}: {text.count(mutant['old'])} x {mutant['old']!r}")
        file.write_text(text.replace(mutant["old"], mutant["new"]), encoding="utf-8")
        return not failed(place, mutant["test"])


def main() -> int:
    mutants = tomllib.loads((ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8"))["mutant"]
    words = sys.argv[1:] or [""]
    chosen = [m for m in mutants if any(word in f"{m['file']} {m['test']}" for word in words)]
    if failed(ROOT, *dict.fromkeys(mutant["test"] for mutant in chosen)):
        sys.exit("error: a test fails on the code as it is")
    with ThreadPoolExecutor(2) as pool:
        living = [m for m, lives in zip(chosen, pool.map(survives, chosen)) if lives]
    for m in living:
        print(f"{m['file']}: {m['old']!r} -> {m['new']!r} survives {m['test']}")
    print(f"{len(chosen) - len(living)} of {len(chosen)} mutants are killed")
    return bool(living)


if __name__ == "__main__":
    sys.exit(main())
