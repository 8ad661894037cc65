"""Every notebook alone, as the button *Colab* opens it.

An environment has the book's torch, another numpy than the book's (a newer one, where there is one for this
Python) and what else Colab brings, but no cmrseg. One notebook lies alone in an empty folder. The address of the
repository leads to a copy of this one. CMRSEG_COLAB_PYTHON names another Python to make the environment of.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
from conftest import REPOSITORY

NOTEBOOKS = sorted(p.with_suffix(".ipynb") for p in (REPOSITORY / "notebooks").rglob("*.py"))
# Colab has OpenCV in three forms; the package asks for this one.
COLAB = (
    *("ipykernel", "matplotlib", "nbclient", "opencv-python", "pandas", "pooch", "requests"),
    *("safetensors", "scipy", "tqdm", "typer"),
)
pytestmark = pytest.mark.slow


def run(*words, **options):
    done = subprocess.run([*map(str, words)], text=True, capture_output=True, **options)
    assert done.returncode == 0, (
        f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


def installed(python):
    code = "import json; from importlib.metadata import distributions as all; "
    return json.loads(
        run(python, "-I", "-c", code + "print(json.dumps({d.name: d.version for d in all()}))")
    )


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """The Python of an environment like Colab's."""
    folder = tmp_path_factory.mktemp("colab") / "env"
    run(os.environ.get("CMRSEG_COLAB_PYTHON", sys.executable), "-m", "venv", folder)
    pip = (folder / "bin" / "python", "-m", "pip", "install", "-q")
    run(*pip, f"torch=={version('torch').split('+')[0]}", f"numpy!={version('numpy')}", *COLAB)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """Settings of git with which the repository's address leads to a copy of this repository."""
    copy = tmp_path_factory.mktemp("origin") / "repository"
    names = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY
    )
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, copy / name)
    git = ("git", "-c", "user.name=a reader", "-c", "user.email=reader@example.org", "-C", copy)
    run(*git, "init", "-q")
    run(*git, "add", "-A", "-f")
    run(*git, "commit", "-q", "-m", "as it is")
    address = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "urls"
    ]["Repository"]
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs_alone_and_leaves_what_colab_brings_as_it_is(
    path, colab, elsewhere, tmp_path
):
    shutil.copy(path, tmp_path)
    before = installed(colab)
    assert "cmrseg" not in before and before["numpy"] != version("numpy")
    quiet = {
        k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("CMRSEG_")
    }
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)  # Colab's kernel has a module of its own, by which pages know it
    (startup / "colab.py").write_text(
        "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n",
        encoding="utf-8",
    )
    settings = quiet | elsewhere | {"CMRSEG_BUDGET": "smoke", "IPYTHONDIR": startup.parents[1]}
    try:
        run(
            colab.with_name("jupyter-execute"),
            "--timeout=600",
            path.name,
            cwd=tmp_path,
            env=settings,
        )
        after = installed(colab)
    finally:
        run(colab, "-m", "pip", "uninstall", "-q", "-y", "cmrseg")
    assert after.pop("cmrseg") and after == before
    assert (tmp_path / "book" / "cmrseg").is_dir()
