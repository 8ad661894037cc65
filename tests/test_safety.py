"""Nothing that could run what a file says: no pickle, no eval, no shell. And a page that says so.

The first test fails when ``import pickle``, ``eval("1")``, ``torch.load(path)``, ``os.system("ls")`` or
``subprocess.run("ls", shell=True)`` is added anywhere in cmrseg; the one on downloads after
``f"sha256:{digest}"`` -> ``None`` in data.fetch(); the last after a name in SECURITY.md is misspelt.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import cmrseg
from cmrseg import data

PACKAGE = Path(cmrseg.__file__).parent
ROOT = PACKAGE.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "pty", "yaml", "xml"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.save",
         "np.load", "numpy.load", "pd.read_pickle", "subprocess.getoutput", "subprocess.getstatusoutput",
         "builtins.eval", "builtins.exec"}
OPTIONS = {"shell", "allow_pickle"}


def dangers(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in MODULES else []
            found += [f"{node.module}.{alias.name}" for alias in node.names
                      if f"{node.module}.{alias.name}" in CALLS]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in CALLS or called.startswith(("os.exec", "os.spawn")) else []
            found += [f"{called}({o.arg}=...)" for o in node.keywords if o.arg in OPTIONS]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_in_the_package_runs_what_a_file_says(path):
    assert dangers(path.read_text()) == []


@pytest.mark.parametrize("line", [
    "import pickle", "from pickle import loads", "import torch\ntorch.load('m.pt')", "eval('1')", "exec(text)",
    "import os\nos.system('ls')", "subprocess.run('ls', shell=True)", "from torch import load",
    "np.load('a.npy', allow_pickle=True)", "os.execv('a', [])"])
def test_the_search_finds_what_it_looks_for(line):
    assert dangers(line)


def test_what_is_downloaded_is_checked_before_it_is_used():
    """Each call of pooch names a hash; tests/test_data.py offers it torn and changed files."""
    tree = ast.parse(inspect.getsource(data.fetch))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
             and ast.unparse(node.func) == "pooch.retrieve"]
    assert len(calls) == 1 and "sha256:" in ast.unparse(calls[0].args[1])
    fetching = re.compile(r"urllib|urlopen|urlretrieve|requests\.(get|post)|hf_hub|torch\.hub")
    assert [path.name for path in SOURCES if fetching.search(path.read_text())] == []


def test_the_page_on_security_names_what_exists():
    page = (ROOT / "SECURITY.md").read_text()
    names = re.findall(r"`((?:cmrseg|tests|tools)/[\w./]+)`", page)
    assert len(names) >= 4 and all((ROOT / name).exists() for name in names)
