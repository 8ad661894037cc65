"""Copy the repository's address from pyproject.toml to every place that must name it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = ["_config.yml", "CITATION.cff", *(str(p.relative_to(ROOT)) for p in (ROOT / "notebooks").rglob("*.py"))]
ADDRESS = re.compile(r"https://github\.com/[\w.-]+/cmr-segmentation-book\b")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for place in PLACES:
        path = ROOT / place
        path.write_text(ADDRESS.sub(project["urls"]["Repository"], path.read_text()))


if __name__ == "__main__":
    main()
