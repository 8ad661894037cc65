"""What pages fetch, as tools/served.py makes it, of a small stand-in for the delivered network."""

import shutil
import sys

import pytest
from conftest import REPOSITORY

from cmrseg import checkpoint
from cmrseg.deploy.weights import find, save_ensemble
from cmrseg.predict import TTA

sys.path.insert(0, str(REPOSITORY / "tools"))
import served

ASSETS, VENDOR = REPOSITORY / "book" / "assets", REPOSITORY / "vendor"


@pytest.fixture(scope="session", name="static")
def make_static(model, tmp_path_factory):
    """The folder _static of a book with all that is made for readers."""
    folder = tmp_path_factory.mktemp("site") / "_static"
    shutil.copytree(ASSETS, folder)
    weights = folder.parent / "weights" / "small.safetensors"
    save_ensemble(weights, [checkpoint.load(model)], TTA(flip=True, postprocess=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CMRSEG_DATA", raising=False)
        served.make(folder, weights)
    return folder


def network(static):
    """The stand-in, as ``predict --model FILE`` finds it."""
    return find(str(static.parent / "weights" / "small.safetensors"))
