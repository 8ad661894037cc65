"""Nothing that could run what a file says: no pickle, no eval, no shell; and a page on it."""

import ast
import re
from pathlib import Path

import cmrseg

ROOT = Path(cmrseg.__file__).parents[1]
SOURCES = sorted(path for name in ("cmrseg", "cmrtrial") for path in (ROOT / name).rglob("*.py"))
MODULES = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "pty", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec"}
CALLS |= {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
CALLS |= {"torch.load", "np.load", "numpy.load", "pd.read_pickle"}
SAFE = {"pickle.UnpicklingError"}  # the name of an error


def dangers(source: str) -> list[str]:
    """Names in a source that could run what a file says."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
            some = (node.module or "").split(".")[0] in MODULES
            names += [name for name in imported if some or name in CALLS]
        elif isinstance(node, ast.Call):
            called, options = ast.unparse(node.func), {o.arg: o.value for o in node.keywords}
            weights = ast.unparse(options.get("weights_only", ast.Constant(None))) == "True"
            if not (called == "torch.load" and weights):
                names += [called] if called in CALLS else []
            names += [called] if called.startswith(("os.exec", "os.spawn")) else []
            names += [f"{called}({o}=...)" for o in options if o in ("shell", "allow_pickle")]
    return [name for name in names if name not in SAFE]


def test_nothing_in_the_packages_runs_what_a_file_says():
    found = {str(path): dangers(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {} and len(found) > 30


DANGEROUS = """import pickle
from pickle import loads
torch.load('m.pt')
torch.load('m.pt', weights_only=False)
eval('1')
exec(text)
os.system('ls')
subprocess.run('ls', shell=True)
from torch import load
np.load('a.npy', allow_pickle=True)
os.execv('a', [])"""


def test_the_search_finds_what_it_looks_for():
    assert all(dangers(line) for line in DANGEROUS.splitlines())


def test_the_page_on_security_names_what_exists():
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    names = re.findall(r"`((?:cmrseg|cmrtrial|tests|tools)/[\w./]+)`", page)
    assert len(names) >= 4 and [name for name in names if not (ROOT / name).exists()] == []
