"""Slices and their label maps, and the files that hold them: grey PNG pictures and short texts.

Where slices come from, and how folders of them are read, is in :mod:`cmrseg.datasets`.
"""

import hashlib
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

CLASSES = ("background", "RV", "Myo", "LV")
SPLITS = ("train", "val", "test")
FOLDS = 5
LARGEST = 4096  # pixels of a side; a larger picture is no slice, and may be a decompression bomb


class BadInput(ValueError):
    """A user's file or folder is not what it should be: which one, what is wrong, what cures it."""

    def __init__(self, file, problem: str, cure: str):
        line = f"{file}: {problem}. {cure}."
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))
        self.file, self.problem, self.cure = str(file), problem, cure

    def __reduce__(self):  # so that a worker's complaint reaches its parent
        return BadInput, (self.file, self.problem, self.cure)


@dataclass(frozen=True)
class Slices:
    """A stack of slices.

    Attributes:
        images: uint8 (N, H, W), grey levels as stored.
        masks: uint8 (N, H, W) label maps 0 background, 1 RV, 2 Myo, 3 LV; or None (test split).
        names: N names without ending, such as ``"cmr7"``.
        patients: int64 (N,), the patient each slice belongs to: the unit of every statistic.

    Raises:
        ValueError: arrays that do not fit together, or masks that are no whole numbers.
    """

    images: np.ndarray
    masks: np.ndarray | None
    names: tuple[str, ...]
    patients: np.ndarray

    def __post_init__(self):
        if self.images.ndim != 3:
            raise ValueError(f"images {self.images.shape}: expected (N, H, W)")
        if self.masks is not None and self.masks.shape != self.images.shape:
            shapes = f"images {self.images.shape} and masks {self.masks.shape}"
            raise ValueError(f"{shapes} differ in shape")
        if self.masks is not None and self.masks.dtype.kind not in "iu":
            raise ValueError(f"masks of {self.masks.dtype}: expected whole numbers, the labels")
        if not len(self.images) == len(self.names) == len(self.patients):
            counts = f"{len(self.names)} names, {len(self.patients)} patients"
            raise ValueError(f"{len(self.images)} images, {counts}: expected one of each")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> "Slices":
        """The slices at ``index`` (a list of positions, a slice or a boolean mask), as Slices."""
        index = np.arange(len(self))[index]
        masks = None if self.masks is None else self.masks[index]
        names = tuple(self.names[i] for i in index)
        return Slices(self.images[index], masks, names, self.patients[index])

    def __add__(self, other: "Slices") -> "Slices":
        images = np.concatenate([self.images, other.images])
        masks = None if self.masks is None else np.concatenate([self.masks, other.masks])
        patients = np.concatenate([self.patients, other.patients])
        return Slices(images, masks, self.names + other.names, patients)

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits of a SHA-256 over pixels, labels, names and patients."""
        digest = hashlib.sha256(repr((self.images.shape, self.names)).encode())
        for array in (self.images, self.masks, self.patients.astype("<i8")):
            digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:12]


# --- pictures ------------------------------------------------------------------------------------

FORMATS = {b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF8": "GIF", b"RIFF": "WEBP"}
FORMATS |= {b"II*\0": "TIFF", b"MM\0*": "TIFF"}
COLOURS = {2: "RGB colour", 3: "a colour palette", 4: "grey with alpha", 6: "RGB colour with alpha"}
DAMAGED = ("not a readable PNG (truncated or damaged)", "Copy or download it again")
STRETCHED = {0, 85, 170, 255}  # labels times 85, to be seen


def read_png(path: Path, mask: bool = False) -> np.ndarray:
    """Read one 8-bit grey PNG as uint8 (H, W); a mask may hold the values 0 to 3 only.

    Raises:
        BadInput: a missing, truncated or mis-typed file, colour, 16 bit, or a wrong mask value.
    """
    if path.is_symlink() and not path.exists():
        raise BadInput(path, "a link to nowhere", "Put the file itself there, or mend the link")
    if not path.is_file():
        kind = "mask" if mask else "image"
        raise BadInput(path, f"no such {kind}", "Check the path, or put the file there")
    try:
        with path.open("rb") as file:
            content = file.read(33)
            unfit = _unfit(content, mask)
            if unfit is None:
                content, unfit = _chunks_of_pixels(file, content)
    except PermissionError:
        raise not_allowed(path) from None
    if unfit:
        raise BadInput(path, *unfit)
    with _muted_stderr():
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise BadInput(path, *DAMAGED)
    if mask and pixels.max() > 3:
        raise BadInput(path, *_wrong_labels(np.unique(pixels)))
    return pixels


def _unfit(head: bytes, mask: bool) -> tuple[str, str] | None:
    """Problem and cure of a file that OpenCV would read without a word, and that is no slice."""
    for signature, name in FORMATS.items():
        if head.startswith(signature):
            cure = "Save it as PNG: renaming does not convert it"
            return f"a {name} file with the name of a PNG", cure
    header = head[12:29]
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[29:33] != zlib.crc32(header).to_bytes(4):
        return DAMAGED
    width, height, bits, colour = struct.unpack_from(">2I2B", header, 4)
    if max(width, height) > LARGEST:
        problem = f"far too large for a slice: over {LARGEST} pixels a side"
        return problem, "Crop or resample it"
    if (bits, colour) != (8, 0):
        grey = "1-bit black and white" if bits == 1 else f"{bits}-bit grey"
        cure = "Convert it to 8-bit grey" + (" label values 0-3" if mask else "")
        return f"expected 8-bit grey, found {COLOURS.get(colour, grey)}", cure
    return None


def _chunks_of_pixels(file: BinaryIO, head: bytes) -> tuple[bytes, tuple[str, str] | None]:
    """A PNG without the chunks that only say how to show it; and what is wrong with it, or None.

    Those may turn, colour or fade it (eXIf, gAMA, tRNS), or be texts that OpenCV finds too long.
    """
    kind = b""
    while kind != b"IEND":
        start = file.read(8)
        length, kind = int.from_bytes(start[:4]), start[4:]
        if kind == b"acTL":  # an animation
            count = int.from_bytes(file.read(4))
            return b"", (f"holds {count} pictures", "Store each in a file of its own")
        if kind[:1].islower():
            file.seek(length + 4, os.SEEK_CUR)
            continue
        # Twice what any slice takes. OpenCV would allocate what a chunk says it holds, up to 2 GB.
        too_long = len(head) + length > 2 * LARGEST**2
        if too_long or len(chunk := file.read(length + 4)) < length + 4:
            return b"", DAMAGED
        head += start + chunk
    return head, None


def _wrong_labels(values: np.ndarray) -> tuple[str, str]:
    """Problem and cure of a mask with these values."""
    shown = ", ".join(map(str, values[:6])) + (", ..." if len(values) > 6 else "")
    if {85, 170} & {*values} and {*values} <= STRETCHED:  # 0 and 255 may be any one class
        cure = "These are labels stretched for viewing: divide by 85"
    elif len(values) > 20:
        cure = "It looks like an image: are image and mask swapped"
    else:
        cure = "Store labels, not colours: 0 background, 1 RV, 2 Myo, 3 LV"
    return f"mask values {shown}, expected 0-3", cure


_ALONE = threading.Lock()  # standard error is the whole process's


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Keep back what libpng itself prints of a damaged file, past Python."""
    with _ALONE, open(os.devnull, "wb") as nowhere:
        try:
            stderr = os.dup(2)
        except OSError:  # there is none
            yield
            return
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def encode_png(pixels: np.ndarray) -> bytes:
    """The bytes of an 8-bit grey PNG of uint8 (H, W)."""
    return cv2.imencode(".png", np.ascontiguousarray(pixels, dtype=np.uint8))[1].tobytes()


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W) as an 8-bit grey PNG."""
    write_bytes(path, encode_png(pixels))


# --- files ---------------------------------------------------------------------------------------


def not_allowed(path) -> BadInput:
    """The complaint about a file or folder that is there and closed to this user."""
    cure = "Change its permissions, or ask its owner"
    return BadInput(path, "can't be read: permission denied", cure)


def read_text(path: Path) -> str:
    """The text of a file that is never long: a table of patients, a configuration, a record.

    Raises:
        OSError: no such file; or a pipe, a device or a folder, which one could read forever.
        ValueError: not UTF-8, or over 16 MB.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a plain file")
    with path.open("rb") as file:
        content = file.read(2**24 + 1)
    if len(content) > 2**24:
        raise ValueError("over 16 MB")
    return content.decode("utf-8-sig")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        OSError: it can't be written, on a full disk for instance; the error names the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as problem:  # a full disk names no file
        raise OSError(problem.errno, problem.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    write_bytes(path, text.encode())
