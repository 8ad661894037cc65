"""Write the .ipynb of each notebook from its .py: `python tools/pairs.py`, or --check for drift.

The .py is the source. Cell ids come from the position of the cell, so that the same source gives the
same bytes; outputs are never written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jupytext

ROOT = Path(__file__).resolve().parents[1]


def as_ipynb(source: Path) -> str:
    """The text of the .ipynb that belongs to a .py:percent file."""
    notebook = jupytext.read(source)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k in ("tags", "mystnb")}
    notebook.metadata = {"kernelspec": kernel}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    drifted = []
    for source in sorted((ROOT / "notebooks").rglob("*.py")):
        target, text = source.with_suffix(".ipynb"), as_ipynb(source)
        if not target.exists() or target.read_text() != text:
            drifted.append(source.relative_to(ROOT))
            if "--check" not in sys.argv:
                target.write_text(text)
    word = "differs from its .ipynb:" if "--check" in sys.argv else "wrote the pair of"
    for path in drifted:
        print(word, path)
    return 1 if drifted and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
