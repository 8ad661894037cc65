"""The house: who may import whom, and how long a file and a function may be."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

FILES = sorted(p for name in ("cmrseg", "cmrtrial") for p in (REPOSITORY / name).rglob("*.py"))
# From the ground up: a module may import what stands on an earlier line, or in its own folder.
STOREYS = [
    ["data", "machine"],
    ["models", "losses", "metrics", "rle", "augment", "postprocess", "datasets", "config"],
    ["predict", "plots"],
    ["checkpoint", "record"],
    ["train"],
    ["deploy"],
    ["cli"],
    ["__main__", "cmrtrial"],
]
LEVEL = {name: n for n, storey in enumerate(STOREYS) for name in storey}


MODULES = {
    ".".join(p.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): p
    for p in FILES
}


def storey(module):
    """``"cmrseg.models.unet"`` -> ``"models"``; all of ``cmrtrial`` is one storey."""
    package, _, rest = module.partition(".")
    return package if package == "cmrtrial" else rest.partition(".")[0]


def imported(node):
    """The dotted names that a node imports, by a statement or by ``import_module("a.name")``."""
    if isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: a relative import says less than a name"
        return [f"{node.module}.{a.name}" for a in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [a.value for a in node.args if isinstance(a, ast.Constant)]
    return [a.name for a in node.names] if isinstance(node, ast.Import) else []


def imports(path):
    """Modules of ours that a file imports, also inside functions: (line, dotted name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        ours = [name for name in imported(node) if name.split(".")[0] in ("cmrseg", "cmrtrial")]
        yield from ((node.lineno, name) for name in ours)


def test_imports_go_one_way_only():
    assert {storey(module) for module in MODULES} - {""} <= LEVEL.keys()
    wrong = []
    for module, path in MODULES.items():
        for line, name in imports(path):
            here, there = storey(module), storey(name)
            if here and there in LEVEL and here != there and LEVEL[there] >= LEVEL[here]:
                wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_way_to_import_is_overlooked():
    for code in ("import cmrseg.cli", "from cmrseg import cli", "import_module('cmrseg.cli')"):
        names = [name for node in ast.walk(ast.parse(code)) for name in imported(node)]
        assert names == ["cmrseg.cli"], code
    for code in ("from ..train import fit", "from .. import cli"):
        with pytest.raises(AssertionError, match="relative"):
            imported(ast.parse(code).body[0])


def test_the_first_trial_stands_without_the_second():
    # What both share lies in the second's statistics, since there it was registered.
    allowed = {"cmrtrial.cli": {"cmrtrial.second.plan"}}  # results say how far it is
    for module, path in MODULES.items():
        names = {name for _, name in imports(path) if name.startswith("cmrtrial.second")}
        names = {name for name in names if not name.startswith("cmrtrial.second.statistics")}
        assert module.startswith("cmrtrial.second") or names <= allowed.get(module, set()), module


def test_the_machine_and_its_tests_need_nothing_of_the_trials():
    wrong = r"^\s*(import|from) (pandas|ray)\b"
    texts = {path: path.read_text(encoding="utf-8") for path in FILES}
    ours = {path for path, text in texts.items() if re.search(wrong, text, re.M)}
    assert ours and all("cmrtrial" in path.relative_to(REPOSITORY).parts for path in ours)
    tests = (REPOSITORY / "tests" / "core").glob("*.py")
    names = {name.partition(".")[0] for path in tests for _, name in imports(path)}
    assert names == {"cmrseg"}


def test_imports_make_no_circle():
    graph = {}
    for module, path in MODULES.items():
        names = {name for _, name in imports(path)}
        graph[module] = {n if n in MODULES else n.rpartition(".")[0] for n in names} - {module}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_file_and_no_function_is_long_and_each_file_says_what_it_is():
    wrong = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        tree, name = ast.parse(text), path.relative_to(REPOSITORY)
        if text.count("\n") > 400:
            wrong.append(f"{name} has {text.count(chr(10))} lines")
        if not ast.get_docstring(tree):
            wrong.append(f"{name} does not say what it is")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                wrong.append(f"{name}: {node.name} is longer than 60 lines")
    assert not wrong, "\n".join(wrong)


def opens_text(call):
    """Whether a call opens a text file and says no encoding: then it is the locale's, as on Windows."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if any(k.arg in ("encoding", None) for k in call.keywords) or owner in ("data", "os", "Image"):
        return False
    if name in ("read_text", "write_text") and owner:
        return len(call.args) <= (name == "write_text")
    modes = call.args[not owner :][:1] + [k.value for k in call.keywords if k.arg == "mode"]
    return name == "open" and all("b" not in getattr(m, "value", "b") for m in modes)


def test_text_is_utf_8_on_every_system():
    places = ("cmrseg", "cmrtrial", "tests", "tools", "benchmarks", "book", "notebooks")
    wrong = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for place in places
        for path in (REPOSITORY / place).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and opens_text(node)
    ]
    assert not wrong, "\n".join(wrong)
    for text, lacks in {
        "open(p)": True,
        "open(p, 'w', newline='')": True,
        "p.open()": True,
        "p.open('rb')": False,
        "p.read_text()": True,
        "p.write_text(text)": True,
        "p.read_text('utf-8')": False,
        "write_text(p, text)": False,
    }.items():
        assert opens_text(ast.parse(text, mode="eval").body) is lacks, text


@pytest.mark.parametrize("words", [["-c", "import cmrseg"], ["-m", "cmrseg", "--help"]])
def test_help_is_there_without_pytorch_and_pictures_without_pillow(words):
    words = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(words, cwd=REPOSITORY, text=True, capture_output=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "PIL", "matplotlib", "pandas"}
