"""Copy the repository's address from pyproject.toml to every place that must name it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACES = [ROOT / "_config.yml", ROOT / "CITATION.cff", *(ROOT / "notebooks").rglob("*.py")]


def main() -> None:
    new = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    old = re.search(r"^  url: (\S+)$", (ROOT / "_config.yml").read_text(), re.M)[1]
    for path in PLACES:
        path.write_text(path.read_text().replace(old, new))


if __name__ == "__main__":
    main()
