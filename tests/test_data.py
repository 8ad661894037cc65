"""Slices: reading, ordering, patients, folds, and fetching.

Each group fails after any of these one-line changes of ``cmrseg/data.py``:

- order and reading: in list_pngs(), ``dict(sorted(found.items()))`` -> ``found``; in read_png(),
  ``np.array(picture)`` -> ``np.array(picture).T``, in _verify(), ``if w`` -> ``if True``,
  ``not content[28]`` -> ``True``, ``!= checksum`` -> ``!= checksum and not checksum``, or ``kind != b"IEND"`` ->
  ``at < len(content)``; in read_text(), ``not path.is_file()`` -> ``False``, or ``if len(content)`` -> ``if 0 *
  len(content)``; in read_png(), ``except Exception`` -> ``except OSError``; in
  write_bytes(), ``temporary = path.with_name(...)`` -> ``path``
- Slices: in __getitem__(), ``self.patients[index]`` -> ``self.patients``; in fingerprint, drop
  ``self.masks``
- patients: in patients_of(), ``(number + 1) // 2`` -> ``number // 2``, or ``for place in (folder,
  ...)`` -> ``(folder,)``, drop ``tables |= ...`` or ``+ max(...)``; in _numbers(), ``sorted(...)`` ->
  ``reversed(sorted(...))``
- splits and folds: in folds(), ``fold != k`` -> ``fold >= 0``, or ``slices.patients % FOLDS`` ->
  ``np.arange(len(slices)) % FOLDS``, and so in split(); there, drop ``slices = slices[~held_out]``,
  or ``permutation(len(slices)) % FOLDS`` -> ``// FOLDS``
- fewer patients, changed slices, phantoms: in split(), ``default_rng(k)`` -> ``default_rng(0)`` or
  ``default_rng()`` (larger splits no longer hold the smaller), drop ``slices = _changed(...)``, or swap
  the two phantom splits; in more_phantoms(), ``seed=1`` -> ``seed=0``
- sources: in source(), drop ``os.environ.get("CMRSEG_DATA") or``; in _phantom(), drop a
  ``.copy()``; in write_root(), ``{slices.patients[i]}`` -> ``{i}``
- fetching: in fetch(), ``f"sha256:{digest}"`` -> ``None``; ``except (RequestException, OSError)``
  -> ``except KeyError``; ``if "protocol" in str(error)`` -> ``if False``; drop
  ``target.parent.mkdir``; ``fname=target.name`` -> ``fname=None``
"""

import hashlib
import os
import struct
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import files_in, fill, heart
from sklearn.dummy import DummyClassifier
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_predict

from cmrseg import data
from cmrseg.data import BadInput, Slices
from cmrseg.shifts import CHANGES

FIRST_SLICE = "train/image/cmr1.png"


def some(numbers=range(1, 13), size=8):
    rng = np.random.default_rng(0)
    n = len(numbers)
    return Slices(rng.integers(0, 256, (n, size, size), dtype=np.uint8),
                  rng.integers(0, 4, (n, size, size), dtype=np.uint8),
                  tuple(f"cmr{k}" for k in numbers), (np.array(numbers) + 1) // 2)


# --- order and reading ---------------------------------------------------------------------------


def test_files_are_ordered_by_number_not_by_string(root):
    names = [f"cmr{n}" for n in range(5, 13)]
    assert list(data.load(root, "train").names) == names != sorted(names)
    assert list(data.read_masks(root / "train" / "mask")) == names
    assert list(data.list_pngs(root / "train" / "image")) == list(range(5, 13))


def test_every_image_meets_its_own_mask(root):
    slices = data.load(root, "train")
    for name, image, mask in zip(slices.names, slices.images, slices.masks):
        expected = heart(int(name[3:]))
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(mask, expected[1])
    assert slices.images.dtype == slices.masks.dtype == np.uint8


def test_the_test_split_has_no_masks_and_labelled_is_train_and_val(root):
    assert data.load(root, "test").masks is None
    assert data.load(root, "labelled").names == tuple(f"cmr{n}" for n in [*range(5, 13), 3, 4])
    with pytest.raises(ValueError, match="split 'all'"):
        data.load(root, "all")


@pytest.mark.parametrize("shape", [(5, 9), (1, 1), (96, 96)])
def test_a_written_png_is_read_back_the_same(shape, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data.write_png(tmp_path / "cmr1.png", pixels)
    np.testing.assert_array_equal(data.read_png(tmp_path / "cmr1.png"), pixels)
    assert os.listdir(tmp_path) == ["cmr1.png"]


@pytest.mark.parametrize("shape", [(96, 96), (1, 1), (2, 3), (5, 9), (7, 1), (13, 8)])
def test_an_interlaced_png_is_read_too(shape, tmp_path):
    """Written by hand, pass by pass: Pillow reads such files and writes none."""
    pixels, (height, width) = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), shape
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in data._PASSES]
    rows = [b"\0" + row.tobytes() for part in passes if part.size for row in part]
    for lacking in (0, 1):
        packed = zlib.compress(b"".join(rows[: len(rows) - lacking]))
        header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 1)
        chunks = [(b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")]
        (tmp_path / "cmr1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks))
        if lacking:
            with pytest.raises(BadInput, match="not a readable PNG"):
                data.read_png(tmp_path / "cmr1.png")
        else:
            np.testing.assert_array_equal(data.read_png(tmp_path / "cmr1.png"), pixels)


def test_a_png_torn_anywhere_is_refused_or_loses_no_pixel(tmp_path):
    whole, torn = tmp_path / "whole.png", tmp_path / "cmr1.png"
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    data.write_png(whole, pixels)
    content, refused = whole.read_bytes(), 0
    for length in range(len(content)):
        torn.write_bytes(content[:length])
        try:
            np.testing.assert_array_equal(data.read_png(torn), pixels)
        except BadInput as problem:
            refused += 1
            assert str(torn) in str(problem)
    assert refused >= len(content) - 30  # only what follows the pixels may be missing


def test_a_png_with_one_wrong_bit_or_byte_is_refused(tmp_path):
    path = tmp_path / "cmr1.png"
    data.write_png(path, np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8))
    content = path.read_bytes()
    for position, wrong in product(range(len(content)), [0x55, *(1 << bit for bit in range(8))]):
        harmed = bytearray(content)
        harmed[position] ^= wrong
        path.write_bytes(harmed)
        with pytest.raises(BadInput):
            data.read_png(path)


def test_what_lies_behind_the_end_of_a_png_is_not_read(tmp_path):
    path, pixels = tmp_path / "cmr1.png", np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    data.write_png(path, pixels)
    with path.open("ab") as file:
        file.write(bytes(100))
        file.truncate(10**9)
    started = time.process_time()
    np.testing.assert_array_equal(data.read_png(path), pixels)
    assert time.process_time() - started < 1


def test_a_file_of_text_is_plain_and_short(tmp_path):
    path = tmp_path / "notes"
    with pytest.raises(FileNotFoundError):
        data.read_text(path)
    path.write_bytes("\ufeffélan".encode())
    assert data.read_text(path) == "élan"
    os.truncate(path, 2**24 + 1)
    with pytest.raises(ValueError, match="16 MB"):
        data.read_text(path)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a plain file"):
            data.read_text(other)


def test_a_root_is_not_written_over_other_files(command, mistake, tmp_path):
    out = tmp_path / "own"
    (out / "train" / "image").mkdir(parents=True)
    data.write_png(out / "train/image/cmr1.png", np.full((96, 96), 7))
    before = (out / "train/image/cmr1.png").read_bytes()
    mistake("data", "--source", "phantom", "--out", out, naming="cmr1.png")
    assert files_in(out) == ["train/image/cmr1.png"]
    assert (out / "train/image/cmr1.png").read_bytes() == before
    for _ in range(2):  # a second time is no harm
        assert command("data", "--source", "phantom", "--out", tmp_path / "new").status == 0


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "cmr1.png"
    data.write_png(path, np.zeros((4, 4), np.uint8))
    before = path.read_bytes()

    def stop(self, content):
        with open(self, "wb") as file:
            file.write(content[:5])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        data.write_png(path, np.ones((4, 4), np.uint8))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["cmr1.png"]


# --- Slices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [slice(2, 5), [7, 0, 3], np.arange(12) % 3 == 0, np.array([1])])
def test_a_part_of_slices_keeps_everything_together(index):
    whole = some()
    part = whole[index]
    positions = [whole.names.index(name) for name in part.names]
    assert positions == list(np.arange(12)[index]) and len(part) == len(positions)
    for field in ("images", "masks", "patients"):
        np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[positions])


def test_adding_parts_gives_the_whole_and_masks_may_be_missing():
    whole = some()
    assert (whole[:5] + whole[5:]).fingerprint == whole.fingerprint
    bare = Slices(whole.images, None, whole.names, whole.patients)
    assert bare[:3].masks is None and (bare[:3] + bare[3:]).masks is None


def test_the_fingerprint_sees_every_change_and_nothing_else():
    one, prints = some(), set()
    for field in ("images", "masks", "patients"):
        other = some()
        getattr(other, field)[-1] += 1
        prints.add(other.fingerprint)
    prints.add(Slices(one.images, one.masks, ("cmr99", *one.names[1:]), one.patients).fingerprint)
    prints.add(Slices(one.images, None, one.names, one.patients).fingerprint)
    prints.add(Slices(one.images.reshape(12, 4, -1), one.masks, one.names, one.patients).fingerprint)
    prints.add(one[::-1].fingerprint)
    assert len(prints) == 7 and one.fingerprint not in prints
    patients = one.patients.astype(np.int32)
    again = Slices(np.asfortranarray(one.images), one.masks, one.names, patients)
    assert again.fingerprint == one.fingerprint == some().fingerprint
    assert len(one.fingerprint) == 12 and int(one.fingerprint, 16) >= 0


# --- patients ------------------------------------------------------------------------------------


def test_in_a_folder_that_is_not_ours_each_image_is_its_own_patient(root):
    assert data.load(root, "labelled").patients.tolist() == [*range(5, 13), 3, 4]


@pytest.mark.parametrize("place", ["", "train", "train/image"])
def test_a_table_of_patients_is_found_in_the_folder_and_above_it(place, root):
    rows = [f"cmr{n},{n // 4}" for n in reversed(range(1, 13))]
    (root / place / "patients.csv").write_text("\n".join(["image,patient", *rows]) + "\n")
    assert data.load(root, "train").patients.tolist() == [1, 1, 1, 2, 2, 2, 2, 3]


def test_a_table_of_patients_counts_for_masks_and_may_hold_names(root):
    rows = [f"cmr{n}.png,{'P-b' if n % 2 else 'P-a'}" for n in range(1, 13)]
    (root / "patients.csv").write_text("\n".join(["image,patient", *rows]) + "\n")
    paths = data.list_pngs(root / "train" / "mask", mask=True)
    assert data.patients_of(paths).tolist() == [2, 1, 2, 1, 2, 1, 2, 1]
    assert data.load(root, "val").patients.tolist() == [2, 1]  # numbered alike in every split


@pytest.mark.parametrize("kind", ["", "image"])
def test_a_name_is_one_patient_in_the_tables_of_all_splits(kind, root):
    """Without a table of its own, an image is none of the patients of the others."""
    for split, rows in {"train": [f"cmr{n},P-{n}" for n in range(5, 13)], "val": ["cmr3,P-7", "cmr4,A"]}.items():
        (root / split / kind / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    train, val, test = (data.load(root, split).patients.tolist() for split in data.SPLITS)
    assert len(set(train)) == 8 and val == [train[2], 1]
    assert len({*train, *val, *test}) == 8 + 1 + 2
    (root / "val" / kind / "patients.csv").write_text("image,patient\ncmr3,7\ncmr4,8\n")  # numbers are names too
    assert not set(data.load(root, "train").patients) & set(data.load(root, "val").patients)


def test_real_slices_come_in_pairs_of_one_patient(real):
    labelled, test = data.load(real, "labelled"), data.load(real, "test")
    assert labelled.patients.tolist() == [k for k in range(1, 61) for _ in "ab"]
    assert test.patients.tolist() == [k for k in range(61, 101) for _ in "ab"]
    assert data.patients_of(data.list_pngs(real / "val" / "mask", mask=True)).tolist() == [
        k for k in range(51, 61) for _ in "ab"]
    assert labelled.names == tuple(f"cmr{n}" for n in range(1, 121))
    assert test.names == tuple(f"cmr{n}" for n in range(121, 201))


def test_a_part_of_the_real_slices_is_still_known(real, tmp_path):
    for number in (1, 2, 7):
        name = f"cmr{number}.png"
        (tmp_path / name).write_bytes((real / "train" / "image" / name).read_bytes())
    assert data.read_images(tmp_path).patients.tolist() == [1, 1, 4]


@pytest.mark.parametrize("altered, expected", [((1,), [1, 1, 2, 2]), ((1, 2), [1, 2, 3, 4])])
def test_one_altered_slice_does_not_make_the_real_ones_strangers(altered, expected, real, tmp_path):
    for number in range(1, 5):
        name = f"cmr{number}.png"
        (tmp_path / name).write_bytes((real / "train" / "image" / name).read_bytes())
        if number in altered:
            data.write_png(tmp_path / name, data.read_png(tmp_path / name) // 2)
    assert data.read_images(tmp_path).patients.tolist() == expected


@pytest.mark.parametrize("patients, name, problem", [(5, "fold0", "nobody to learn from"), (6, "fold0", "nobody to hold out")])
def test_a_fold_without_anybody_is_refused(patients, name, problem, root):
    rows = [f"cmr{n},{patients}" for n in range(1, 13)]
    (root / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    with pytest.raises(BadInput, match=f"has {problem} in {name}"):
        data.split(root, name)


def test_the_list_of_hashes_is_that_of_the_real_slices(real):
    hashes = data.acdc96_hashes()
    assert len(hashes) == 320 and sorted(hashes) == files_in(real)
    assert not any(name.startswith("test/mask") for name in hashes)
    for name in (FIRST_SLICE, "val/mask/cmr120_mask.png"):
        assert hashlib.sha256((real / name).read_bytes()).hexdigest() == hashes[name]


# --- splits and folds ----------------------------------------------------------------------------


def test_folds_are_those_of_scikit_learn_left_out_by_group():
    slices = some(range(1, 121))
    expected = LeaveOneGroupOut().split(slices.images, groups=slices.patients % 5)
    for (train, held), (train_, held_) in zip(data.folds(slices), expected, strict=True):
        np.testing.assert_array_equal(train, train_)
        np.testing.assert_array_equal(held, held_)


def test_folds_hold_every_slice_out_once_and_never_split_a_patient():
    slices = some(range(1, 121))
    found = data.folds(slices)
    # scikit-learn refuses folds that are no partition of the samples.
    x, y = slices.images.reshape(120, -1), slices.patients
    assert len(cross_val_predict(DummyClassifier(), x, y, cv=found)) == 120
    sizes = sorted(len(held) for _, held in GroupKFold(5).split(x, groups=y))
    assert sorted(len(held) for _, held in found) == sizes
    for train, held in found:
        assert not set(slices.patients[train]) & set(slices.patients[held])
        assert sorted([*train, *held]) == list(range(120))


def pairs(tmp_path):
    """A root of sixty slices of thirty patients, 25 of them for training."""
    fill(tmp_path, {"train": range(1, 51), "val": range(51, 61), "test": range(61, 63)}, size=8)
    rows = [f"cmr{n},{(n + 1) // 2}" for n in range(1, 63)]
    (tmp_path / "patients.csv").write_text("\n".join(["image,patient", *rows]))
    return tmp_path


def test_every_named_split_holds_whole_patients_out(tmp_path):
    root = pairs(tmp_path)
    train, labelled = (set(data.load(root, s).patients) for s in ("train", "labelled"))
    for name, patients in (("fold", labelled), ("train-fold", train)):
        held_out = []
        for k in range(5):
            rest, held = data.split(root, f"{name}{k}")
            assert set(rest.patients) | set(held.patients) == patients
            assert not set(rest.patients) & set(held.patients)
            assert (held.patients % 5 == k).all()
            held_out += held.names
        assert len(held_out) == len(set(held_out)) == 2 * len(patients)


def test_inner_splits_tune_within_the_training_part_of_a_fold(tmp_path):
    root = pairs(tmp_path)
    for k in range(5):
        rest, held = data.split(root, f"inner{k}")
        outer, outer_held = data.split(root, f"fold{k}")
        assert {*rest.names, *held.names} == set(outer.names)
        assert not set(rest.patients) & set(held.patients)
        assert not set(held.patients) & set(outer_held.patients)
        assert 0.15 < len(held) / len(outer) < 0.35


def test_random_splits_partition_the_slices_but_share_patients(tmp_path):
    root = pairs(tmp_path)
    parts = [data.split(root, f"random{k}") for k in range(5)]
    assert sorted(n for _, held in parts for n in held.names) == sorted(
        data.load(root, "labelled").names)
    for rest, held in parts:
        assert not set(rest.names) & set(held.names)
        assert set(rest.patients) & set(held.patients)  # the leak they are there to show


def test_a_split_with_fewer_patients_holds_the_same_ones_out(tmp_path):
    root = pairs(tmp_path)
    few = []
    for k in range(5):
        whole, held = data.split(root, f"fold{k}")
        trains = [data.split(root, f"fold{k}@{n}") for n in (3, 7, 24)]
        assert all(h.fingerprint == held.fingerprint for _, h in trains)
        assert [len(set(t.patients)) for t, _ in trains] == [3, 7, 24] and len(trains[0][0]) == 6
        names = [set(t.names) for t, _ in trains]
        assert names[0] < names[1] < names[2] == set(whole.names)
        few.append(tuple(np.searchsorted(np.unique(whole.patients), np.unique(trains[0][0].patients))))
    assert len(set(few)) > 1  # each fold chooses anew


def test_changed_slices_are_split_as_they_are(tmp_path):
    fill(tmp_path)
    whole = data.load(tmp_path, "labelled")
    for name, change in CHANGES.items():
        expected = change(whole)
        rest, held = data.split(tmp_path, f"fold3+{name}")
        assert held.fingerprint == expected[expected.patients % 5 == 3].fingerprint
        assert (rest + held).fingerprint != data.load(tmp_path, "labelled").fingerprint
        assert set(rest.names) == set(data.split(tmp_path, "fold3")[0].names)


def test_phantoms_teach_patients_and_the_reverse(root):
    rest, held = data.split(root, "from-phantom")
    assert len(rest) == 400 and held.fingerprint == data.load(root, "labelled").fingerprint
    patients, phantoms = data.split(root, "to-phantom")
    assert patients.fingerprint == data.load(root, "train").fingerprint
    assert phantoms.fingerprint == rest.fingerprint
    known = {image.tobytes() for s in data.SPLITS for image in data.load("phantom", s).images}
    assert not known & {image.tobytes() for image in phantoms.images}


def test_val_is_the_split_of_the_report_and_other_names_are_refused(root):
    rest, held = data.split(root, "val")
    assert rest.names == tuple(f"cmr{n}" for n in range(5, 13)) and held.names == ("cmr3", "cmr4")
    with pytest.raises(ValueError, match="shuffled or equalised"):
        data.split(root, "fold0+blurred")
    for name in ("test", "fold5", "fold", "outer0", "fold0@", "fold0@3+shuffled"):
        with pytest.raises(ValueError, match="expected val"):
            data.split(root, name)


# --- sources -------------------------------------------------------------------------------------


def test_the_source_is_what_the_environment_says_else_phantom(monkeypatch):
    assert data.source() == "phantom"
    monkeypatch.setenv("CMRSEG_DATA", "")
    assert data.source() == "phantom"
    monkeypatch.setenv("CMRSEG_DATA", "/some/folder")
    assert data.source() == "/some/folder"


def test_a_source_that_is_not_there_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "home", lambda: tmp_path)
    with pytest.raises(BadInput, match="data --source acdc96"):
        data.load("acdc96", "train")
    with pytest.raises(BadInput, match="no such data"):
        data.load(tmp_path / "nowhere", "train")


def test_the_phantom_is_a_source_like_another_and_is_not_shared():
    train, val, test = (data.load("phantom", s) for s in data.SPLITS)
    assert [len(s) for s in (train, val, test)] == [100, 20, 80] and test.masks is None
    assert train.patients.tolist() == [k for k in range(1, 51) for _ in "ab"]
    assert test.names[0] == "cmr121" and test.patients[-1] == 100
    before = train.fingerprint
    train.images[:] = 0
    assert data.load("phantom", "train").fingerprint == before


def test_a_written_source_is_read_back_the_same_with_its_patients(tmp_path):
    data.write_root(tmp_path / "phantom", "phantom")
    for split in data.SPLITS:
        assert data.load(tmp_path / "phantom", split).fingerprint == data.load(
            "phantom", split).fingerprint
    assert len(files_in(tmp_path)) == 320 + 1  # and patients.csv


# --- fetching ------------------------------------------------------------------------------------


@pytest.fixture
def server():
    """A server of ``files`` {path: bytes} that keeps the paths it was asked for, and may be bad:
    ``broken[path]`` is "torn", "changed", or an HTTP status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/data/")
            here.asked.append(name)
            how, content = here.broken.get(name), here.files.get(name)
            if content is None or isinstance(how, int):
                return self.send_error(how or 404)
            body = content[:-3] if how == "torn" else content
            body = body[:-1] + bytes([body[-1] ^ 1]) if how == "changed" else body
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    here = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.asked, here.broken, here.files = [], {}, {}
    here.url = f"http://127.0.0.1:{here.server_port}/data"
    thread = threading.Thread(target=here.serve_forever, args=(0.01,))
    thread.start()
    yield here
    here.shutdown()
    thread.join()
    here.server_close()


@pytest.fixture
def offered(server, root, monkeypatch):
    """The server offers the made-up slices, and their hashes are known."""
    server.files = {name: (root / name).read_bytes() for name in files_in(root)}
    hashes = {n: hashlib.sha256(content).hexdigest() for n, content in server.files.items()}
    monkeypatch.setattr(data, "acdc96_hashes", lambda: hashes)
    monkeypatch.setenv("CMRSEG_DATA_URL", server.url)
    return server


def test_every_file_is_fetched_and_a_second_time_nothing(offered, root, tmp_path):
    out = tmp_path / "fetched"
    assert data.fetch(out, progress=False) == out
    assert files_in(out) == files_in(root) == sorted(offered.asked)
    assert all((out / n).read_bytes() == content for n, content in offered.files.items())
    data.fetch(out, progress=False)
    assert len(offered.asked) == len(offered.files)


def test_only_what_is_missing_or_damaged_is_fetched_again(offered, root, tmp_path):
    out = tmp_path / "fetched"
    data.fetch(out, progress=False)
    offered.asked.clear()
    (out / "train/image/cmr7.png").unlink()
    (out / "val/mask/cmr3_mask.png").write_bytes(b"half")
    data.fetch(out, progress=False)
    assert sorted(offered.asked) == ["train/image/cmr7.png", "val/mask/cmr3_mask.png"]
    assert all((out / n).read_bytes() == content for n, content in offered.files.items())


def test_another_slice_in_the_place_of_a_fetched_one_stays(offered, root, mistake, tmp_path):
    out = tmp_path / "mine"
    (out / "train/image").mkdir(parents=True)
    data.write_png(out / "train/image/cmr5.png", np.full((9, 9), 77))
    before = (out / "train/image/cmr5.png").read_bytes()
    mistake("data", "--source", "acdc96", "--out", out, naming="cmr5.png")
    assert (out / "train/image/cmr5.png").read_bytes() == before


def test_a_half_fetched_set_says_how_to_go_on(offered, monkeypatch, mistake, tmp_path):
    monkeypatch.setattr(data, "home", lambda: tmp_path)
    data.fetch(progress=False)
    (tmp_path / "acdc96/val/mask/cmr3_mask.png").unlink()
    line = mistake("train", "--data", "acdc96", "--out", tmp_path / "run", naming="cmr3_mask.png")
    assert "data --source acdc96" in line


@pytest.mark.parametrize("how, word", [
    ("changed", "SHA-256"), ("torn", "broke off"), (404, "404"), (500, "500")])
def test_a_bad_file_is_named_and_nothing_of_it_kept(how, word, offered, mistake, tmp_path):
    bad, out = "train/image/cmr9.png", tmp_path / "fetched"
    offered.broken[bad] = how
    line = mistake("data", "--source", "acdc96", "--out", out, naming=f"{offered.url}/{bad}")
    assert word in line
    assert all((out / name).read_bytes() == offered.files[name] for name in files_in(out))
    assert bad not in files_in(out)
    offered.broken.clear()
    data.fetch(out, progress=False)  # and then it goes on where it stopped
    assert files_in(out) == sorted(offered.files)


def test_a_server_that_is_gone_is_named(offered, mistake, tmp_path, monkeypatch):
    monkeypatch.setenv("CMRSEG_DATA_URL", "http://127.0.0.1:9/data")  # nobody listens there
    line = mistake("data", "--source", "acdc96", "--out", tmp_path / "out", naming="127.0.0.1:9")
    assert "cannot be reached" in line and "CMRSEG_DATA_URL" in line
    assert files_in(tmp_path / "out") == []


@pytest.mark.parametrize("address", ["data/mirror", "htp://127.0.0.1/data"])
def test_an_address_that_is_none_is_not_called_a_changed_file(
    address, offered, mistake, tmp_path, monkeypatch
):
    monkeypatch.setenv("CMRSEG_DATA_URL", address)
    line = mistake("data", "--source", "acdc96", "--out", tmp_path / "out", naming=address)
    assert "SHA-256" not in line and files_in(tmp_path / "out") == []


def test_a_place_that_cannot_be_written_is_not_called_a_network(offered, mistake, tmp_path):
    (tmp_path / "out").write_text("mine")
    line = mistake("data", "--source", "acdc96", "--out", tmp_path / "out", naming=tmp_path / "out")
    assert "reached" not in line and (tmp_path / "out").read_text() == "mine"


def test_the_real_slices_are_fetched_and_checked(real, server, monkeypatch, tmp_path):
    server.files = {name: (real / name).read_bytes() for name in files_in(real)}
    monkeypatch.setenv("CMRSEG_DATA_URL", server.url)
    data.fetch(tmp_path, progress=False)
    assert files_in(tmp_path) == files_in(real) and len(server.asked) == 320
    data.fetch(tmp_path, progress=False)
    assert len(server.asked) == 320
    assert data.load(tmp_path, "labelled").fingerprint == data.load(real, "labelled").fingerprint
