"""Made-up submissions and pictures by the thousand: each is read or refused with one line.

Slow: half a minute for each test, or as many seconds as the environment variable CMRSEG_FUZZ says.
"""

import os
import re
import struct
import time
import zlib

import numpy as np
import pytest
from conftest import files_in, from_chunks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmrseg import data, rle
from cmrseg.datasets import doctor

pytestmark = pytest.mark.slow


def for_a_while(seconds, **options):
    """Run a test on new examples, of other chance each time, until the time is over."""
    seconds = float(os.environ.get("CMRSEG_FUZZ", seconds))

    def decorate(test):
        once = settings(max_examples=300, **options)(test)

        def run(tmp_path, capsys, command):
            end, rounds = time.time() + seconds, 0
            while time.time() < end:
                once(tmp_path=tmp_path, command=command)
                rounds += 1
            with capsys.disabled():
                print(f"\n{test.__name__}: {300 * rounds} examples in {seconds:.0f} s")

        run.__name__ = test.__name__
        return run

    return decorate


HOW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

# --- submissions ---------------------------------------------------------------------------------

ODD = [
    "",
    "\t",
    "9" * 400,
    *["nan", "inf", "1e9", "1.0", "+1", "0x1", "٣", "²", "1_0", "-0", "00001", "1,2"],
]
NUMBER = st.integers(0, 20).map(str) | st.integers(-3, 10**30).map(str) | st.sampled_from(ODD)
PAIR = st.tuples(NUMBER, NUMBER).map(" ".join)
CODE = st.lists(PAIR | NUMBER, max_size=3).map(" ".join) | st.text(max_size=9)
BASES = ["cmr3", "cmr01", "cmr", "../cmr3", "/tmp/cmr3", "cmr3/..", "CMR3", "cmr٣", "..\\cmr3"]
BASE = st.sampled_from([*BASES, "cmr" + "9" * 300, "cmr3\0"])
END = st.sampled_from(["_mask1", "_mask3", "_mask4", "", "_mask1.png", "_mask1/../x"])
NAME = st.tuples(BASE, END).map("".join) | st.text(max_size=12)
ODD_ROW = st.sampled_from(['"', '"a\n', ",,,", "\r", "\x0c"])
ROW = st.tuples(NAME, CODE).map(",".join) | st.text(max_size=30) | ODD_ROW


@st.composite
def submission(draw):
    """Bytes of a submission: sound rows, odd ones among them, odd bytes among those."""
    rows = [
        f"{name},{draw(CODE | st.just(code))}" if draw(st.booleans()) else f"{name},{code}"
        for base in ("cmr1", draw(st.just("cmr2") | BASE))
        for c in (1, 2, 3)
        for name, code in [(f"{base}_mask{c}", f"{c} 1")]
        if draw(st.integers(0, 19))
    ]
    for row in draw(st.just([]) | st.lists(ROW, max_size=4)):
        rows.insert(draw(st.integers(0, len(rows))), row)
    header = draw(st.sampled_from(["id,encoding"] * 20 + ["id;encoding", "", "encoding,id"]))
    text = draw(st.sampled_from(["\n", "\r\n", "\r"])).join([header, *rows])
    text += draw(st.sampled_from(["\n", ""]))
    coding = draw(st.sampled_from(["utf-8"] * 9 + ["utf-16"]))
    mark = draw(st.sampled_from([b""] * 9 + [b"\xef\xbb\xbf", b"\xff\xfe"]))
    content = mark + text.encode(coding, "surrogatepass")
    return mutated(draw, content) if not draw(st.integers(0, 3)) else content


def mutated(draw, content):
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        cut = draw(st.sampled_from([0, 1, 2, 50]))
        content = content[:at] + draw(st.binary(max_size=4)) + content[at + cut :]
    return content


@for_a_while(30, **HOW)
@given(content=submission())
def test_submissions(content, tmp_path, command):
    path, out = tmp_path / "in" / "s.csv", tmp_path / "in" / "out"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    for old in out.glob("*"):
        old.unlink()
    done = command("decode", "--submission", path, "--out", out, "--size", "4x4")
    assert done.status in (0, 2)
    written = [name for name in files_in(tmp_path) if name != "in/s.csv"]
    if done.status:
        assert len(done.err.splitlines()) == 1 and done.err.startswith("error: ") and written == []
    else:
        masks = rle.read_submission(path, (4, 4))
        assert written == sorted(f"in/out/{name}_mask.png" for name in masks) and written
        assert {c for mask in masks.values() for c in np.unique(mask)} <= {0, 1, 2, 3}
        rle.write_submission(masks, tmp_path / "again.csv")
        again = rle.read_submission(tmp_path / "again.csv", (4, 4))
        (tmp_path / "again.csv").unlink()
        assert all((again[name] == mask).all() for name, mask in masks.items())


# --- pictures ------------------------------------------------------------------------------------

SIZES = st.integers(0, 9) | st.sampled_from(
    [16, 32, 4095, 4097, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
)
KINDS = b"tRNS tEXt zTXt iTXt iCCP gAMA PLTE acTL fcTL fdAT eXIf sRGB pHYs IDAT IHDR IEND abcd sBIT"
KINDS = st.sampled_from([*KINDS.split(), bytes(4)])
FORMATS = [
    (1, 0),
    (2, 0),
    (4, 0),
    (16, 0),
    (8, 2),
    (8, 3),
    (8, 4),
    (8, 6),
    (3, 0),
    (0, 0),
    (255, 9),
]


@st.composite
def png(draw):
    """Bytes of a PNG: often sound, or sound in parts, mostly with checksums that fit."""
    width, height = draw(st.just(8) | SIZES), draw(st.just(8) | SIZES)
    bits, colour = draw(st.sampled_from([(8, 0)] * 6 + FORMATS))
    interlaced = draw(st.sampled_from([0] * 8 + [1, 7]))
    filters = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5, 255])
    pixels = st.binary(min_size=8, max_size=8) | st.just(bytes([1] * 8))
    height_there = range(draw(st.just(8) | st.integers(0, 10)))
    rows = b"".join(bytes([draw(filters)]) + draw(pixels) for _ in height_there)
    body = zlib.compress(rows) if draw(st.integers(0, 9)) else draw(st.binary(max_size=40))
    cut = draw(st.integers(0, len(body)))
    packing = draw(st.sampled_from([0] * 9 + [1]))
    header = struct.pack(">2I5B", width, height, bits, colour, packing, 0, interlaced)
    chunks = [(b"IHDR", header), (b"IDAT", body[:cut]), (b"IDAT", body[cut:]), (b"IEND", b"")]
    for extra in draw(st.lists(st.tuples(KINDS, st.binary(max_size=30)), max_size=3)):
        chunks.insert(draw(st.integers(0, len(chunks))), extra)
    if not draw(st.integers(0, 9)):
        del chunks[draw(st.integers(0, len(chunks) - 1))]
    content = from_chunks(*chunks)
    return mutated(draw, content) if not draw(st.integers(0, 2)) else content


@for_a_while(30, **HOW)
@given(content=png() | st.binary(max_size=60))
def test_pictures(content, tmp_path, command):
    folder = tmp_path / "slices"
    folder.mkdir(exist_ok=True)
    for mask, name in ((False, "cmr1.png"), (True, "cmr1_mask.png")):
        (folder / name).write_bytes(content)
        errors, warnings = doctor.examine(folder)
        for finding in errors + warnings:
            assert finding.problem and finding.cure and len(str(finding).splitlines()) == 1
        (folder / name).rename(tmp_path / name)
        try:
            pixels = data.read_png(tmp_path / name, mask)
        except data.BadInput as problem:
            assert errors and str(problem).count("\n") == 0
        else:
            assert not errors or re.search("grey levels 0-3|single pixel", errors[0].problem)
            assert pixels.dtype == np.uint8 and pixels.ndim == 2
            assert max(pixels.shape) <= data.LARGEST
            assert not mask or pixels.max(initial=0) <= 3
            assert content[24] == 8 and content[16:24] == struct.pack(">2I", *pixels.shape[::-1])
        (tmp_path / name).unlink()
