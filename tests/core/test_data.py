"""Slices: pictures and files, folders, patients, folds, sources, and fetching the real slices."""

import hashlib
import os
import re
import shutil
import threading
import time
import zlib
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import files_in, fill, heart, png
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from cmrseg import data, datasets
from cmrseg.data import SPLITS, BadInput, Slices
from cmrseg.datasets import acdc, folders


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def some(count=12, size=8):
    images, numbers = noise(count, size, size), np.arange(count) + 1
    return Slices(images, images % 4, tuple(f"cmr{n}" for n in numbers), (numbers + 1) // 2)


@pytest.mark.parametrize("shape", [(5, 9), (1, 1), (96, 96)])
def test_a_written_png_is_read_back_the_same(shape, tmp_path):
    data.write_png(tmp_path / "cmr1.png", noise(*shape))
    np.testing.assert_array_equal(data.read_png(tmp_path / "cmr1.png"), noise(*shape))
    assert os.listdir(tmp_path) == ["cmr1.png"]


def unfiltered(pixels):
    """Pixels as they are in a PNG before it is packed."""
    return b"".join(b"\0" + row.tobytes() for row in pixels)


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]


@pytest.mark.parametrize("shape", [(96, 96), (1, 1), (2, 3), (5, 9), (7, 1), (13, 8)])
def test_an_interlaced_png_is_read_unless_a_row_is_missing(shape, tmp_path):
    path, pixels = tmp_path / "cmr1.png", noise(*shape)
    parts = [pixels[y::dy, x::dx] for x, y, dx, dy in [*ADAM7, (0, 1, 1, 2)]]
    rows = [unfiltered([row]) for part in parts if part.size for row in part]
    path.write_bytes(png(*shape[::-1], rows=b"".join(rows), interlaced=1))
    np.testing.assert_array_equal(data.read_png(path), pixels)
    path.write_bytes(png(*shape[::-1], rows=b"".join(rows[:-1]), interlaced=1))
    with pytest.raises(BadInput, match="not a readable PNG"):
        data.read_png(path)


def test_a_png_torn_or_with_a_wrong_bit_is_refused_or_loses_no_pixel(tmp_path, capfd):
    path, pixels = tmp_path / "cmr1.png", noise(8, 8)
    data.write_png(path, pixels)
    content, kept = path.read_bytes(), []
    harmed = [content[:length] for length in range(len(content))]
    for at, wrong in product(range(len(content)), [1 << bit for bit in range(8)]):
        harmed.append(content[:at] + bytes([content[at] ^ wrong]) + content[at + 1 :])
    for other in harmed:
        path.write_bytes(other)
        try:
            np.testing.assert_array_equal(data.read_png(path), pixels)
            kept.append(other)
        except BadInput as problem:
            assert str(path) in str(problem)
    assert len(kept) == 32  # the bits of the last checksum: of a chunk that holds nothing
    assert capfd.readouterr() == ("", "")  # libpng is not heard


def test_a_chunk_longer_than_its_file_or_than_any_slice_is_refused_undecoded(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    path, content, longest = tmp_path / "cmr1.png", data.encode_png(heart(1)[0]), 2 * 4096**2
    path.write_bytes(content[:-1])
    with pytest.raises(BadInput, match="not a readable PNG"):
        data.read_png(path)
    with path.open("wb") as file:  # OpenCV would take as much memory as the chunk says
        file.write(content[:33] + longest.to_bytes(4) + b"IDAT")
        file.seek(longest + 4, os.SEEK_CUR)
        file.write(content[-12:])
    with pytest.raises(BadInput, match="not a readable PNG"):
        data.read_png(path)


def test_a_long_text_in_a_png_and_bytes_behind_it_are_not_read(tmp_path, monkeypatch):
    path, (pixels, _) = tmp_path / "cmr1.png", heart(1)
    text = (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))
    path.write_bytes(png(32, 32, rows=unfiltered(pixels), more=[text]))
    with path.open("ab") as file:
        file.truncate(10**9)
    started = time.process_time()
    np.testing.assert_array_equal(data.read_png(path), pixels)
    assert time.process_time() - started < 1
    monkeypatch.setattr(os, "dup", lambda _: os.read(-1, 0))  # no standard error to mute
    np.testing.assert_array_equal(data.read_png(path), pixels)


def test_what_only_says_how_to_show_a_png_is_not_even_decoded(tmp_path, monkeypatch):
    """Longer than OpenCV takes, or turning and colouring what a viewer shows."""
    path, pixels = tmp_path / "cmr1.png", noise(5, 9)
    more = [(b"tEXt", b"a\0" + b"x" * 4 * 10**7), (b"eXIf", b"MM"), (b"tRNS", b"\0\5")]
    path.write_bytes(png(9, 5, rows=unfiltered(pixels), more=more))
    given, decode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda c, *how: given.append(len(c)) or decode(c, *how))
    np.testing.assert_array_equal(data.read_png(path), pixels)
    assert given[0] < 200
    path.write_bytes(png(9, 5, rows=unfiltered(pixels), more=[(b"ABCd", b"")]))
    with pytest.raises(BadInput, match="not a readable PNG"):  # what pixels may depend on is kept
        data.read_png(path)


def test_a_file_of_text_is_plain_and_short(tmp_path):
    path = tmp_path / "notes"
    with pytest.raises(FileNotFoundError):
        data.read_text(path)
    path.write_bytes("\ufeff\u00e9lan".encode())
    assert data.read_text(path) == "\u00e9lan"
    os.truncate(path, 2**24 + 1)
    with pytest.raises(ValueError, match="16 MB"):
        data.read_text(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (Path("/dev/zero"), tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match="not a plain file"):
            data.read_text(other)


@pytest.mark.parametrize("index", [slice(2, 5), [7, 0, 3], np.arange(12) % 3 == 0, np.array([1])])
def test_a_part_of_slices_keeps_everything_together(index):
    whole = some()
    part, positions = whole[index], np.arange(12)[index]
    assert part.names == tuple(whole.names[i] for i in positions) and len(part) == len(positions)
    for field in ("images", "masks", "patients"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[positions])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"images": np.zeros((3, 4, 4, 3), np.uint8)}, "expected (N, H, W)"),
        ({"masks": np.zeros((3, 2, 4), np.uint8)}, "differ in shape"),
        ({"masks": np.zeros((3, 4, 4))}, "masks of float64"),
        ({"names": ("a", "b")}, "3 images, 2 names, 3 patients"),
        ({"patients": np.arange(4)}, "3 images, 3 names, 4 patients"),
    ],
)
def test_slices_whose_parts_do_not_fit_together_are_refused(change, message):
    pixels = np.zeros((3, 4, 4), np.uint8)
    whole = Slices(pixels, pixels, ("a", "b", "c"), np.arange(3))
    with pytest.raises(ValueError, match=re.escape(message)):
        replace(whole, **change)


def test_adding_parts_gives_the_whole_and_masks_may_be_missing():
    whole, bare = some(), replace(some(), masks=None)
    assert (whole[:5] + whole[5:]).fingerprint == whole.fingerprint
    assert bare[:3].masks is None and (bare[:3] + bare[3:]).masks is None


def test_the_fingerprint_sees_every_change_and_nothing_else():
    one, prints = some(), {some()[::-1].fingerprint}
    for field in ("images", "masks", "patients"):
        other = some()
        getattr(other, field)[-1] += 1
        prints.add(other.fingerprint)
    prints.add(replace(one, names=("cmr99", *one.names[1:])).fingerprint)
    prints.add(replace(one, masks=None).fingerprint)
    images, masks = (pixels.reshape(12, 4, -1) for pixels in (one.images, one.masks))
    prints.add(replace(one, images=images, masks=masks).fingerprint)
    assert len(prints) == 7 and one.fingerprint not in prints
    fortran = replace(one, images=np.asfortranarray(one.images), patients=np.int32(one.patients))
    assert fortran.fingerprint == one.fingerprint == some().fingerprint
    assert len(one.fingerprint) == 12 and int(one.fingerprint, 16) >= 0


def test_splits_are_ordered_by_number_and_images_meet_their_masks(root):
    slices, names = datasets.load(root, "train"), [f"cmr{n}" for n in range(5, 13)]
    assert list(slices.names) == names != sorted(names)
    assert list(folders.read_masks(root / "train" / "mask")) == names
    for number, image, mask in zip(range(5, 13), slices.images, slices.masks):
        np.testing.assert_array_equal([image, mask], heart(number))
    assert slices.images.dtype == slices.masks.dtype == np.uint8
    assert datasets.load(root, "test").masks is None
    assert datasets.load(root, "labelled").names == (*names, "cmr3", "cmr4")
    with pytest.raises(ValueError, match="split 'all'"):
        datasets.load(root, "all")


def write_table(folder, patient_of):
    rows = ["image,patient", *(f"{image},{patient}" for image, patient in patient_of.items())]
    (folder / "patients.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize("place", ["", "train", "train/image"])
def test_a_table_of_patients_is_found_in_the_folder_and_above_it(place, root):
    """Without one, each image is its own patient."""
    assert datasets.load(root, "train").patients.tolist() == [*range(5, 13)]
    write_table(root / place, {f"cmr{n}": n // 4 for n in reversed(range(1, 13))})
    assert datasets.load(root, "train").patients.tolist() == [1, 1, 1, 2, 2, 2, 2, 3]


@pytest.mark.parametrize(("name", "other"), [("01", "1"), ("1", "1.0"), ("P-07", "p-7")])
def test_one_patient_in_two_spellings_is_refused_also_in_two_splits(name, other, root):
    """Else nobody would see that a patient is in both."""
    write_table(root / "train", {f"cmr{n}": name if n < 9 else "70" for n in range(5, 13)})
    write_table(root / "val", {"cmr3": other, "cmr4": "100"})
    with pytest.raises(BadInput, match="one in two spellings"):
        datasets.load(root, "train")


def test_a_table_of_patients_counts_for_masks_and_may_hold_names(root):
    write_table(root, {f"cmr{n}.png": "P-b" if n % 2 else "P-a" for n in range(1, 13)})
    paths = folders.list_pngs(root / "train" / "mask", mask=True)
    assert folders.patients_of(paths).tolist() == [2, 1, 2, 1, 2, 1, 2, 1]
    assert datasets.load(root, "val").patients.tolist() == [2, 1]  # numbered alike in every split


@pytest.mark.parametrize("kind", ["", "image"])
def test_a_name_is_one_patient_in_the_tables_of_all_splits(kind, root):
    """Without a table of its own, an image is none of the patients of the others."""
    write_table(root / "train" / kind, {f"cmr{n}": f"P-{n}" for n in range(5, 13)})
    write_table(root / "val" / kind, {"cmr3": "P-7", "cmr4": "A"})
    train, val, test = (datasets.load(root, split).patients.tolist() for split in SPLITS)
    assert len(set(train)) == 8 and val == [train[2], 1]
    assert len({*train, *val, *test}) == 8 + 1 + 2
    write_table(root / "val" / kind, {"cmr3": 7, "cmr4": 8})  # numbers are names too
    train, val = (datasets.load(root, split).patients for split in SPLITS[:2])
    assert not set(train) & set(val)


def test_real_slices_come_in_pairs_of_one_patient_and_all_hashes_are_known(real):
    slices = datasets.load(real, "labelled"), datasets.load(real, "test")
    assert sum((s.names for s in slices), ()) == tuple(f"cmr{n}" for n in range(1, 201))
    patients = [k for k in range(1, 101) for _ in "ab"]
    assert np.concatenate([s.patients for s in slices]).tolist() == patients
    masks = folders.list_pngs(real / "val" / "mask", mask=True)
    assert datasets.known_patients(masks).tolist() == patients[100:120]
    digests = {n: hashlib.sha256((real / n).read_bytes()).hexdigest() for n in files_in(real)}
    assert acdc.acdc96_hashes() == digests


@pytest.mark.parametrize(("altered", "patients"), [([1], [1, 1, 2, 2]), ([1, 2], [101, 102, 2, 2])])
def test_real_slices_are_known_though_one_was_altered(altered, patients, real, tmp_path):
    for number in range(1, 5):
        original = real / "train" / "image" / f"cmr{number}.png"
        shutil.copy(original, tmp_path)
        if number in altered:
            data.write_png(tmp_path / original.name, data.read_png(original) // 2)
    assert datasets.known_patients(folders.list_pngs(tmp_path)).tolist() == patients


def test_folds_are_those_of_scikit_learn_left_out_by_group():
    slices = some(120)
    expected = LeaveOneGroupOut().split(slices.images, groups=slices.patients % 5)
    for (train, held), (train_, held_) in zip(datasets.folds(slices), expected, strict=True):
        assert train.tolist() == train_.tolist() and held.tolist() == held_.tolist()
    # scikit-learn refuses folds that are no partition of the samples.
    x, y = slices.images.reshape(120, -1), slices.patients
    assert len(cross_val_predict(DummyClassifier(), x, y, cv=datasets.folds(slices))) == 120


def test_val_is_the_split_of_the_report_and_folds_hold_a_fifth_of_the_patients_out(tmp_path):
    fill(tmp_path, {"train": range(1, 51), "val": range(51, 61), "test": range(61, 63)}, size=8)
    write_table(tmp_path, {f"cmr{n}": (n + 1) // 2 for n in range(1, 63)})
    assert [len(part) for part in datasets.split(tmp_path, "val")] == [50, 10]
    labelled, held_out = datasets.load(tmp_path, "labelled"), []
    for k in range(5):
        rest, held = datasets.split(tmp_path, f"fold{k}")
        assert {*rest.names, *held.names} == {*labelled.names}
        assert (held.patients % 5 == k).all() and not (rest.patients % 5 == k).any()
        held_out += held.names
    assert sorted(held_out) == sorted(labelled.names)
    for name in ("test", "fold5", "fold", "fold0@3"):
        with pytest.raises(ValueError, match="expected val"):
            datasets.split(tmp_path, name)


@pytest.mark.parametrize(("patient", "lack"), [(5, "learn from"), (6, "hold out")])
def test_a_fold_without_anybody_is_refused(patient, lack, root):
    write_table(root, {f"cmr{n}": patient for n in range(1, 13)})
    with pytest.raises(BadInput, match=f"has nobody to {lack} in fold0"):
        datasets.split(root, "fold0")


def test_the_source_is_what_the_environment_says_else_phantom(monkeypatch):
    for value in ("", "/some/folder"):
        monkeypatch.setenv("CMRSEG_DATA", value)
        assert datasets.source() == (value or "phantom")


def test_a_source_that_is_not_there_or_not_whole_says_how_to_get_it(offered, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "home", lambda: tmp_path)
    with pytest.raises(BadInput, match="data --source acdc96"):
        datasets.load("acdc96", "train")
    with pytest.raises(BadInput, match="no such data"):
        datasets.load(tmp_path / "nowhere", "train")
    acdc.fetch(tmp_path / "acdc96", progress=False)
    (tmp_path / "acdc96/val/mask/cmr3_mask.png").unlink()
    with pytest.raises(BadInput, match=r"cmr3_mask.png: is missing.* data --source acdc96"):
        datasets.load("acdc96", "train")


def test_the_phantom_is_a_source_like_another_and_is_not_shared():
    train, val, test = (datasets.load("phantom", split) for split in SPLITS)
    assert [len(s) for s in (train, val, test)] == [100, 20, 80] and test.masks is None
    assert train.patients.tolist() == [k for k in range(1, 51) for _ in "ab"]
    assert test.names[0] == "cmr121" and test.patients[-1] == 100
    train.images[:], train.masks[:] = 0, 0
    again = datasets.load("phantom", "train")
    assert again.images.any() and again.masks.any()


def test_a_written_source_is_read_back_the_same_and_not_written_over_other_files(tmp_path):
    for _ in range(2):  # a second time is no harm
        datasets.write_root(tmp_path / "whole", "phantom")
    for split in SPLITS:
        written, made = (datasets.load(root, split) for root in (tmp_path / "whole", "phantom"))
        assert written.fingerprint == made.fingerprint
    assert len(files_in(tmp_path / "whole")) == 320 + 1  # and patients.csv
    mine = tmp_path / "mine" / "val" / "image" / "cmr101.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match="cmr101"):
        datasets.write_root(tmp_path / "mine", "phantom")
    assert mine.read_text(encoding="utf-8") == "mine" and len(files_in(tmp_path / "mine")) == 1


@pytest.fixture
def server(monkeypatch):
    """A server of ``files``; ``broken[path]`` may be "torn", "changed" or an HTTP status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/data/")
            here.asked.append(name)
            how, content = here.broken.get(name), here.files.get(name)
            if content is None or isinstance(how, int):
                return self.send_error(how or 404)
            last = bytes([content[-1] ^ (how == "changed")])
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:-3] if how == "torn" else content[:-1] + last)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as here:
        here.asked, here.broken, here.files = [], {}, {}
        here.url = f"http://127.0.0.1:{here.server_port}/data"
        monkeypatch.setenv("CMRSEG_DATA_URL", here.url)
        threading.Thread(target=here.serve_forever, args=(0.01,), daemon=True).start()
        yield here
        here.shutdown()


@pytest.fixture
def offered(server, root, monkeypatch):
    """The server offers the made-up slices, and their hashes are known."""
    server.files = {name: (root / name).read_bytes() for name in files_in(root)}
    hashes = {n: hashlib.sha256(content).hexdigest() for n, content in server.files.items()}
    monkeypatch.setattr(acdc, "acdc96_hashes", lambda: hashes)
    return server


def test_every_file_is_fetched_and_then_only_what_is_missing_or_damaged(offered, tmp_path):
    for asked in (sorted(offered.files), [], ["train/image/cmr7.png", "val/mask/cmr3_mask.png"]):
        if asked == asked[:2] != []:
            (tmp_path / asked[0]).unlink()
            (tmp_path / asked[1]).write_bytes(b"half")
        assert acdc.fetch(tmp_path, progress=False) == tmp_path
        assert sorted(offered.asked) == asked
        assert files_in(tmp_path) == sorted(offered.files)
        assert all((tmp_path / n).read_bytes() == content for n, content in offered.files.items())
        offered.asked.clear()


@pytest.mark.parametrize(
    ("how", "word"), [("changed", "SHA-256"), ("torn", "broke off"), (404, "404"), (500, "500")]
)
def test_a_bad_file_is_named_and_nothing_of_it_kept(how, word, offered, mistake, tmp_path):
    bad = "train/image/cmr9.png"
    offered.broken[bad] = how
    line = mistake("data", "--source", "acdc96", "--out", tmp_path, naming=f"{offered.url}/{bad}")
    assert word in line
    assert all((tmp_path / name).read_bytes() == offered.files[name] for name in files_in(tmp_path))
    offered.broken.clear()
    acdc.fetch(tmp_path, progress=False)  # and then it goes on where it stopped
    assert files_in(tmp_path) == sorted(offered.files)


def test_what_lies_in_the_place_of_a_fetched_slice_stays_unless_it_is_torn(tmp_path):
    path, whole = tmp_path / "cmr1.png", data.encode_png(heart(1)[0])
    for content, stays in {
        whole: True,
        whole[:-20]: False,
        b"\xff\xd8\xff a photograph": True,
        data.encode_png(np.zeros((9000, 1), np.uint8)): True,
    }.items():
        path.write_bytes(content)
        assert acdc._is_another_slice(path, "0" * 64) is stays
    assert not acdc._is_another_slice(tmp_path / "none.png", "0" * 64)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("http://127.0.0.1:9/data", "cannot be reached"),  # nobody listens there
        ("data/mirror", "is not an address"),
        ("htp://127.0.0.1/data", "is not an address"),
    ],
)
def test_an_address_that_leads_nowhere_is_named(address, word, mistake, tmp_path, monkeypatch):
    monkeypatch.setenv("CMRSEG_DATA_URL", address)
    line = mistake("data", "--source", "acdc96", "--out", tmp_path, naming=address)
    assert word in line and "CMRSEG_DATA_URL" in line and files_in(tmp_path) == []
