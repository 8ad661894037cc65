"""The real slices of the 2020 report, from ACDC (Bernard et al. 2018): known by hash, and fetched.

There are 200 images and 120 masks of 96 x 96 pixels; images 2k - 1 and 2k are of patient k.
"""

import hashlib
import os
import re
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path

from cmrseg.data import DAMAGED, BadInput, read_png
from cmrseg.datasets.folders import taken

URL = (
    "https://raw.githubusercontent.com/AlexandruNst/CNN-Image-Segmentation/"
    "030cfbd53a39eab3d2e7c01c4c4a5a65ba15fb6d/data/"
)


@lru_cache
def acdc96_hashes() -> dict[str, str]:
    """SHA-256 of every file of the real data set: ``{"train/image/cmr1.png": "...", ...}``."""
    lines = files("cmrseg.datasets").joinpath("acdc96.sha256").read_text("utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def number(path: Path) -> int | None:
    """The number of the real slice, image or mask, that a file is a copy of, by its hash."""
    return _number(path, path.stat().st_mtime_ns) if path.is_file() else None


@cache
def _number(path: Path, _changed: int) -> int | None:
    """A number, cached for each state of a file: every split asks for those of all splits."""
    return _numbers().get(_sha256(path))


@lru_cache
def _numbers() -> dict[str, int]:
    names = acdc96_hashes().items()
    return {digest: int(re.search(r"cmr(\d+)", name)[1]) for name, digest in names}


@lru_cache
def is_acdc96(source: str) -> bool:
    """Whether a source is the real slices, by its name or its first picture.

    Their licence is to stand beside what is shown.
    """
    picture = next(iter(sorted(Path(source).glob("*/image/*.png"))), None)
    by_name = os.path.basename(source.rstrip("/")) == "acdc96"
    return by_name or (picture is not None and _sha256(picture) in acdc96_hashes().values())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(out: Path, progress: bool = True) -> Path:
    """Download the real slices into ``out``, each file checked.

    Files already there with the right hash are not downloaded again. ``CMRSEG_DATA_URL`` replaces
    the base address, for mirrors and tests.

    Raises:
        BadInput: a file that is missing at the source, or arrives torn or changed; or another file
            in the place of one of them.
    """
    import pooch
    from requests.exceptions import RequestException
    from tqdm import tqdm

    base = os.environ.get("CMRSEG_DATA_URL", URL).rstrip("/") + "/"
    pooch.get_logger().setLevel("ERROR")
    names = tqdm(acdc96_hashes().items(), "acdc96", unit="file", disable=not progress)
    for name, digest in names:
        target = out / name
        if _is_another_slice(target, digest):
            raise taken(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            pooch.retrieve(base + name, f"sha256:{digest}", fname=target.name, path=target.parent)
        except ValueError as error:
            if "protocol" in str(error):
                cure = "Set CMRSEG_DATA_URL to http://..."
                raise BadInput(base, "is not an address", cure) from None
            cure = "Try again; if it stays, the source has changed: use a mirror by CMRSEG_DATA_URL"
            problem = "arrived torn or changed (its SHA-256 differs)"
            raise BadInput(base + name, problem, cure) from None
        except RequestException as error:
            cure = (
                "Check the network, or set CMRSEG_DATA_URL to a mirror; "
                "files already fetched are kept"
            )
            raise BadInput(base + name, _trouble(error), cure) from None
    return out


def _is_another_slice(path: Path, digest: str) -> bool:
    """Whether something else lies there than the expected slice; a torn one may be replaced."""
    try:
        read_png(path)
    except BadInput as problem:
        return path.exists() and problem.problem != DAMAGED[0]
    return _sha256(path) != digest


def _trouble(error: Exception) -> str:
    """What went wrong with a download."""
    from requests.exceptions import ConnectionError, ConnectTimeout

    if status := getattr(error.response, "status_code", None):
        return f"the server answered {status}"
    if isinstance(error, (ConnectTimeout, ConnectionError)):
        return "the server cannot be reached"
    return "the download broke off"
