"""The wheel: every file of both packages is in it, and it works where no checkout lies around."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

from conftest import REPOSITORY

PACKAGES = ("cmrseg", "cmrtrial")


def run(*command, **how):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **how)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_wheel_holds_every_file_and_trains_in_an_environment_of_its_own(tmp_path):
    source, wheels, there = tmp_path / "source", tmp_path / "wheels", tmp_path / "environment"
    skipped = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "--wheel-dir", wheels)
    (wheel,) = wheels.iterdir()
    files = {str(p.relative_to(source)) for name in PACKAGES for p in (source / name).rglob("*.*")}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(PACKAGES)}
    assert {name for name in held if "dist-info" not in name} == files - {"cmrseg.egg-info"}

    venv.create(there, symlinks=True)
    (site,) = there.glob("lib/python*/site-packages")
    # The dependencies are those of this environment; its checkout, in editable mode, is not seen.
    torch_lies_in = distribution("torch").locate_file("")
    (site / "dependencies.pth").write_text(f"{torch_lies_in}\n", encoding="utf-8")
    run(*pip, "install", "--no-deps", "--target", site, wheel)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CMRSEG_DATA")}
    python, how = there / "bin" / "python", {"cwd": tmp_path, "env": environment}
    code = "import cmrseg, cmrtrial; print(cmrseg.__file__, cmrtrial.__file__)"
    assert all(Path(path).is_relative_to(site) for path in run(python, "-c", code, **how).split())
    options = ("--data", "phantom", "--preset", "sprint", "--epochs", "2", "--out", "run")
    run(python, "-m", "cmrseg", "train", *options, **how)
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_what_is_imported_is_a_dependency_and_what_is_none_is_not():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = sum(project["optional-dependencies"].values(), project["dependencies"])
    modules = {re.match(r"[\w-]+", line)[0] for line in listed}
    modules = modules - {"opencv-python"} | {"cv2"}  # the only one of another name
    imported = set()
    for path in (path for name in PACKAGES for path in (REPOSITORY / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    foreign = imported - sys.stdlib_module_names - {*PACKAGES}
    assert foreign - modules == {"matplotlib_inline"}  # in a notebook, whose kernel brings it
    assert modules - foreign == {"onnxscript"}  # PyTorch imports it when it exports
