"""Faults that give no sign, or a wrong one: kinds of them that people reported of other software.

Their first cases are in test_cases.py.
"""

import errno
import os
from pathlib import Path

import pytest
from conftest import files_in, linux

from cmrseg import train
from cmrseg.checkpoint import MODEL
from cmrseg.deploy import weights

# --- files that are open, and systems without locks ----------------------------------------------


@linux
@pytest.mark.usefixtures("tiny_presets")
@pytest.mark.parametrize("said", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_in_the_file_system_a_file_is_one(
    said, root, command, mistake, tmp_path, monkeypatch
):
    """A network share, for instance."""

    def flock(*_):
        raise OSError(said, os.strerror(said))

    monkeypatch.setattr("fcntl.flock", flock)
    words, seen = ("train", "--data", root, "--out", tmp_path / "run"), []

    def epoch(*arguments, whole=train.train_epoch):
        if not seen:
            seen.append(mistake(*words))
        return whole(*arguments)

    monkeypatch.setattr(train, "train_epoch", epoch)
    assert command(*words).status == 0 and "another process" in seen[0]
    assert files_in(tmp_path / "run") == ["config.json", MODEL, "record.json"]


@linux
@pytest.mark.usefixtures("tiny_presets")
def test_no_open_file_is_removed(root, command, tmp_path, monkeypatch):
    """On Windows that fails: a lock goes after its release there."""
    remove, lock, refused = Path.unlink, tmp_path / "run" / ".lock", []

    def unlink(path, missing_ok=False):
        held = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
        if path.exists() and os.path.realpath(path) in held:
            refused.append(path)
            raise PermissionError(13, "The process cannot access the file", str(path))
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert command("train", "--data", root, "--out", tmp_path / "run").status == 0
    assert refused == [lock] and not lock.exists()


@linux
def test_no_weight_is_mapped_from_its_file():
    """On Windows such a file can't be replaced; elsewhere a weight would change with it."""
    ensemble = weights.load_ensemble(weights.WEIGHTS / "small.safetensors")
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert ensemble.models and "small.safetensors" not in maps
