"""Copy the repository's address from pyproject.toml to every place that must name it."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("_config.yml", "CITATION.cff", "CHANGELOG.md", "README.md")


def places() -> list[Path]:
    """Every file that names the address; the notebooks' pairs are written by `make pairs`."""
    return [*(ROOT / name for name in FILES), *sorted((ROOT / "notebooks").rglob("*.py"))]


def main() -> None:
    new = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"][
        "Repository"
    ]
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)", new):
        print(
            f"error: pyproject.toml: Repository {new!r} is not an address that Colab can open. "
            "Write https://github.com/OWNER/NAME, without .git and a slash at its end.",
            file=sys.stderr,
        )
        sys.exit(2)
    old = re.search(r"^  url: (\S+)$", (ROOT / "_config.yml").read_text(encoding="utf-8"), re.M)[1]
    for path in places():
        text = path.read_text(encoding="utf-8")
        if old != new and old in text:
            path.write_text(text.replace(old, new), encoding="utf-8")


if __name__ == "__main__":
    main()
