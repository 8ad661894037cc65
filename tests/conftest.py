"""Small made-up slices, a tiny recipe, the command line in this process, and the real slices."""

import os
import signal
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

# Before torch: training takes a GPU where it sees one, tests compare the CPU's numbers.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

import cmrseg
from cmrseg import checkpoint, cli, datasets
from cmrseg.config import PRESETS, TrainConfig
from cmrseg.data import write_png
from cmrseg.deploy import sizes
from cmrseg.train import fit

REPOSITORY = Path(cmrseg.__file__).resolve().parents[1]
SPLITS = {"train": range(5, 13), "val": range(3, 5), "test": range(1, 3)}  # 5..12: 10 after 9
SIZE = 32

torch.set_num_threads(1)

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into or leans on Linux")
if os.name == "nt":  # a test that makes what Windows lacks is left out there
    os.mkfifo = lambda *_: pytest.skip("Windows has no such files")


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch):
    """No test sees the settings of the shell it is started from, or of the test before it."""
    names = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    for name in ("CMRSEG_DATA", "CMRSEG_DATA_URL", *names):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    torch.set_flush_denormal(False)


def raising(problem):
    """A function that fails so, whatever it is given."""

    def fail(*_, **__):
        raise problem

    return fail


def instead(make):
    """Make something in the place of a file."""
    return lambda path: (path.unlink(), make(path))


def png(width, height, bits=8, colour=0, rows=None, interlaced=0, more=()):
    """A PNG by hand: also what no library would write."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    rows = bytes(((width * bits * channels + 7) // 8 + 1) * height) if rows is None else rows
    header = struct.pack(">2I5B", width, height, bits, colour, 0, 0, interlaced)
    return from_chunks((b"IHDR", header), *more, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))


def from_chunks(*chunks):
    """The bytes of a PNG of these chunks, with checksums that fit."""
    checked = [(len(c).to_bytes(4), k + c, zlib.crc32(k + c).to_bytes(4)) for k, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(b"".join(chunk) for chunk in checked)


def heart(number, size=SIZE):
    """One made-up slice and its label map: a cavity in a wall, and a blob beside it."""
    y, x = np.mgrid[:size, :size] - size / 2
    x = x - (number // 4 % 7 - 3) / 2  # no two masks are alike
    shift = number % 4 - 1.5
    radius = np.hypot(y - shift, x - 3)
    mask = np.zeros((size, size), np.uint8)
    mask[np.hypot(y - shift, x + 6) < size / 5] = 1
    mask[radius < size / 4.5] = 2
    mask[radius < size / 8] = 3
    rng = np.random.default_rng(number)
    coils = zoom(rng.normal(0, 40, (5, 5)), size / 5, order=1)  # so that no two look alike
    image = np.array([60, 190, 110, 220])[mask] + coils + rng.normal(0, 6, mask.shape)
    return image.clip(0, 255).astype(np.uint8), mask


def fill(root, splits=SPLITS, size=SIZE):
    """Write a data root of made-up slices."""
    for split, numbers in splits.items():
        for folder in ("image", "mask")[: 1 if split == "test" else 2]:
            (root / split / folder).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            image, mask = heart(number, size)
            write_png(root / split / "image" / f"cmr{number}.png", image)
            if split != "test":
                write_png(root / split / "mask" / f"cmr{number}_mask.png", mask)
    return root


@pytest.fixture
def root(tmp_path_factory):
    """A data root of twelve made-up slices: train 5-12, val 3-4, test 1-2."""
    return fill(tmp_path_factory.mktemp("slices"))


@pytest.fixture
def slices(root):
    """Eight slices to learn from, and two that are held out."""
    return datasets.split(root, "val")


@pytest.fixture
def tiny():
    """A recipe that trains in a blink."""
    return TrainConfig(channels=(4, 8), epochs=2)


@pytest.fixture
def tiny_presets(monkeypatch, tiny):
    """The command line's presets, made tiny."""
    for name in PRESETS:
        monkeypatch.setitem(PRESETS, name, tiny)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a tiny trained network; copy it before you harm it."""
    folder = tmp_path_factory.mktemp("model")
    root = fill(folder / "root")
    config = TrainConfig(channels=(4, 8), epochs=8)
    train, held_out = datasets.split(root, "val")
    checkpoint.save(fit(config, train, held_out), folder / "run")
    sizes.write_size(folder / "run" / checkpoint.MODEL, train.images.shape[1:])
    return folder / "run"


@pytest.fixture
def command(monkeypatch, capsys):
    """Run a command line in this process: ``command("doctor", folder)`` -> status, out, err.

    ``main`` is that of another package than cmrseg.
    """
    before = signal.getsignal(signal.SIGTERM)

    def run(*words, main=cli.main):
        monkeypatch.setattr(sys, "argv", ["cmrseg", *map(str, words)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def mistake(command):
    """Run a command line that must fail as a user's mistake does, and return its one line."""

    def run(*words, naming=""):
        done = command(*words)
        assert done.status == 2, (done.status, done.out, done.err)
        assert len(done.err.splitlines()) == 1, done.err
        assert done.err.startswith("error: ")
        assert str(naming) in done.err
        return done.err

    return run


@pytest.fixture
def deny(monkeypatch):
    """``deny("open", path)`` makes that method fail for a path, or for what lies ``within`` it."""

    def closed(method, *places, within=False):
        allowed = getattr(Path, method)

        def ask(path, *arguments, **options):
            if not {*(path.parents if within else [path])}.isdisjoint(places):
                raise PermissionError(13, "Permission denied", str(path))
            return allowed(path, *arguments, **options)

        monkeypatch.setattr(Path, method, ask)

    return closed


@pytest.fixture(scope="session")
def real():
    """The folder of the real slices, where they are."""
    place = os.environ.get("CMRSEG_REAL") or REPOSITORY.parent / "shared" / "data" / "acdc96"
    if not Path(place).is_dir():
        pytest.skip("the real slices are not here: set CMRSEG_REAL to their folder")
    return Path(place)


def files_in(folder):
    """Every file under a folder, as paths relative to it."""
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if not p.is_dir())
