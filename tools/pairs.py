"""Write the .ipynb of each notebook from its .py: `python tools/pairs.py`, or --check for drift.

The .py is the source. Cell ids come from the position of the cell, so that the same source gives the
same bytes; outputs are never written.

Pages of the first part build on each other: a cell tagged ``pieces`` begins with lines ``# Built on earlier pages:``
and the names of functions and classes. The rest of it is copied from the cells, tagged ``piece``, that define them.
"""

import ast
import json
import re
import sys
from itertools import pairwise
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


BUILD = ROOT / "notebooks" / "build"
CELL = re.compile(r"(?m)^# %%.*$")
PIECES = re.compile(
    r'(?m)^(# %%.*"pieces".*\n(?:# Built on earlier pages:.*\n)+)((?:.|\n)*?)(?=^# %%|\Z)'
)


def pieces() -> dict[str, str]:
    """Every function and class that a page of the first part defines in a cell tagged ``piece``: name -> source."""
    found: dict[str, str] = {}
    for path in sorted(BUILD.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        starts = [match.start() for match in CELL.finditer(text)] + [len(text)]
        for start, end in pairwise(starts):
            cell = text[start:end]
            if '"piece"' not in cell.splitlines()[0] or path.stem == "whole":
                continue
            for node in ast.parse(cell).body:
                if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                    source = "\n".join(cell.splitlines()[first - 1 : node.end_lineno])
                    if found.setdefault(node.name, source) != source:
                        raise SystemExit(
                            f"error: {node.name} is a piece of two pages, and not the same in both"
                        )
    return found


def fill_in(text: str, known: dict[str, str]) -> str:
    """The text of a page with its cells of pieces filled in."""

    def body(match: re.Match) -> str:
        names = re.findall(r"\w+", " ".join(re.findall(r"earlier pages:(.*)", match[1])))
        if missing := [name for name in names if name not in known]:
            raise SystemExit(f"error: no page of the first part builds {missing[0]}")
        return match[1] + "\n\n".join("\n" + known[name] for name in names).lstrip("\n") + "\n\n"

    return PIECES.sub(body, text)


def main() -> int:
    drifted, known = [], pieces()
    for source in sorted(BUILD.glob("*.py")):
        text = source.read_text(encoding="utf-8")
        if (filled := fill_in(text, known)) != text:
            drifted.append(source.relative_to(ROOT))
            if "--check" not in sys.argv:
                source.write_text(filled, encoding="utf-8")
    for source in sorted((ROOT / "notebooks").rglob("*.py")):
        target, text = source.with_suffix(".ipynb"), as_ipynb(source)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            drifted.append(source.relative_to(ROOT))
            if "--check" not in sys.argv:
                target.write_text(text, encoding="utf-8")
    word = "differs from its .ipynb:" if "--check" in sys.argv else "wrote the pair of"
    for path in drifted:
        print(word, path)
    return 1 if drifted and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
