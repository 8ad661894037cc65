"""Before the book is built: check the slices, bring the optional JavaScript, run what is not in the cache.

- A source that cannot be read stops the build with one line, before any notebook runs.
- vendor/ (ignored by git) gets MathJax, mermaid and onnxruntime-web by `npm pack`, and axe-core for the tests.
  Without npm or a network it stays empty, and the pages say what is missing.
- _build/made gets what pages fetch when they are read, see served.py.
- The execution cache of the book looks at notebooks only. A hash of everything else an output depends
  on (package, environment, records, data source) lies beside it; when it changes, the cache goes.
- Notebooks that are not in the cache run side by side, one on each core; the build then only reads.
"""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import served
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor

from cmrseg import data, datasets

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "vendor"
SECOND = (
    ROOT / "results" / "second"
)  # grows while the second trial runs; no page reads it before it is complete
PACKAGES = {
    "mathjax": ("mathjax@3.2.2", ["es5/tex-mml-chtml.js", "es5/output/chtml/fonts/woff-v2"]),
    "mermaid": ("mermaid@11.17.2", ["dist/mermaid.esm.min.mjs", "dist/chunks/mermaid.esm.min"]),
    "onnxruntime": (
        "onnxruntime-web@1.30.0",
        ["dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"],
    ),
    "axe": ("axe-core@4.14.1", ["package/axe.min.js"]),
}


def vendor(folder: str, package: str, wanted: list[str]) -> None:
    """Put the wanted parts of an npm package into vendor/folder, whole or not at all."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            ["npm", "pack", "--silent", package],
            cwd=scratch,
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # not in every 3.11
            archive.extractall(scratch)
        staged = Path(scratch) / "staged"
        for part in wanted:
            source = Path(scratch) / "package" / part.removeprefix("package/")
            target = staged / Path(part).relative_to(Path(part).parts[0])
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.map"))
            else:
                shutil.copy(source, target)
        shutil.move(staged, VENDOR / folder)


def fingerprint() -> str:
    """A hash of what page outputs depend on besides the notebooks."""
    digest = hashlib.sha256(os.environ.get("CMRSEG_DATA", "").encode())
    digest.update(os.environ.get("CMRSEG_BUDGET", "").encode())
    digest.update((ROOT / "requirements.txt").read_bytes() + Path(served.__file__).read_bytes())
    folders = [
        *(ROOT / name for name in ("cmrseg", "cmrtrial", "results", "weights")),
        Path(os.environ.get("CMRSEG_DATA") or "phantom"),
    ]
    for path in sorted(p for folder in folders if folder.is_dir() for p in folder.rglob("*")):
        if path.is_file() and path.suffix not in (".pyc", ".lock") and path.parent != SECOND:
            digest.update(f"{path.name}".encode() + path.read_bytes())
    return digest.hexdigest()


def execute() -> None:
    """Run the notebooks that the cache lacks. One that fails twice is reported by the build, which tries it too."""
    cache = get_cache(ROOT / "_build" / ".jupyter_cache")
    paths = [str(path) for path in sorted((ROOT / "notebooks").rglob("*.ipynb"))]
    paths = [path for path in paths if ".ipynb_checkpoints" not in path]
    for record in cache.list_project_records():
        # Renamed or deleted since, or of the checkout that this one is a copy of.
        if record.uri not in paths:
            cache.remove_nb_from_project(record.pk)
    for path in paths:
        cache.add_nb_to_project(path)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for again in (
        "",
        " again",
    ):  # something else may have taken a port that was chosen for a kernel
        if todo := cache.list_unexecuted():
            print(f"running {len(todo)} notebooks{again}")
            load_executor("local-parallel", cache, logging.getLogger("notebooks")).run_and_cache(
                timeout=600
            )


def main() -> None:
    try:
        datasets.load(datasets.source(), "labelled")
    except data.BadInput as problem:
        sys.exit(f"error: {problem}")
    VENDOR.mkdir(exist_ok=True)
    for folder, (package, wanted) in PACKAGES.items():
        if not (VENDOR / folder).exists():
            try:
                vendor(folder, package, wanted)
            except (OSError, subprocess.SubprocessError, StopIteration, tarfile.TarError):
                print(f"{folder} could not be fetched (no npm, or no network): pages go without it")
    note, made, now = ROOT / "_build" / ".depends-on", ROOT / "_build" / "made", fingerprint()
    changed = not note.exists() or note.read_text(encoding="utf-8") != now
    if changed:
        shutil.rmtree(ROOT / "_build" / ".jupyter_cache", ignore_errors=True)
    # Folders too: in them a page that was renamed or deleted leaves the only trace.
    pages = [path for folder in ("notebooks", "book") for path in (ROOT / folder).rglob("*")]
    sources = [VENDOR, *(p for p in pages if p.is_dir() or p.suffix in (".py", ".md"))]
    if (
        changed
        or not made.exists()
        or made.stat().st_mtime < max(p.stat().st_mtime for p in sources)
    ):
        served.make(made)
        os.utime(made)
        note.parent.mkdir(exist_ok=True)
        note.write_text(now, encoding="utf-8")
    execute()


if __name__ == "__main__":
    main()
