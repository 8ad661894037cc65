"""Made-up headers and names by the thousand: no traceback, and no label beside its voxel.

What is converted must show each label where its voxel was, by the headers; else it is refused in
one line. The slow test takes ten minutes, or as many seconds as the environment variable
CMRSEG_FUZZ says.
"""

import os
import shutil
import struct
import time
from itertools import permutations, product
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation

from cmrseg.datasets.layouts import ACDC, MNMS

nibabel = pytest.importorskip("nibabel")
LEVELS = np.array([60, 700, 200, 900], np.float32)  # of background, RV, Myo, LV
SIZE = 48
AXES = ["".join(signs) for order in permutations(("LR", "PA", "SI")) for signs in product(*order)]


class Scene:
    """Two NIfTI files, the spacing to convert with, and what is known of them.

    ``masks`` are the right slices (X, Y, slices); None where a header lies or says nothing, so
    that only labels and voxels can be compared. ``apart``: their grids are not one. ``sound``:
    both still hold the voxels that they were made of.
    """

    def __init__(self, files, spacing, masks, apart, sound):
        self.files, self.spacing, self.masks = files, spacing, masks
        self.apart, self.sound = apart, sound

    def __repr__(self):
        exact = self.masks is not None
        return f"{[*self.files]}, {self.spacing} mm, {exact=}, {self.apart=}, {self.sound=}"


def heart(shape, angle, middle):
    """Labels (X, Y, Z), no two slices alike, the RV above the LV."""
    x, y = np.meshgrid(*(np.arange(n) - n / 2 for n in shape[:2]), indexing="ij")
    x, y = x - middle[0] - 3, y - middle[1]
    slices = []
    for z in range(shape[2]):
        labels = np.zeros(shape[:2], np.uint8)
        labels[np.hypot(x + 8 * np.cos(angle), y - 8 * np.sin(angle)) < 4 + z % 2] = 1
        labels[np.hypot(x, y) < 7 + z / 2] = 2
        labels[np.hypot(x, y) < 4 + z / 2] = 3
        slices.append(labels)
    return np.stack(slices, 2)


def image(values, affine, axes, codes, scale, version):
    """A NIfTI image stored along these axes; its sform may be of a wrong scale."""
    file = version(values, affine)
    now = nibabel.io_orientation(affine)
    to = nibabel.orientations.axcodes2ornt(tuple(axes))
    file = file.as_reoriented(nibabel.orientations.ornt_transform(now, to))
    right, sides = file.affine.copy(), nibabel.affines.voxel_sizes(file.affine)
    file.set_qform(right, codes[1])
    sform = right.copy()
    if scale:
        sform[:3, :3] /= sides
    file.set_sform(sform, codes[0])
    file.header["pixdim"][1:4] = sides
    return file


NAMES = st.sampled_from(
    ["patient001", "A0S9V9", "Müller", "a_frame01", "x_la", "p.nii", "-", "p\n"]
)
NAMES |= st.text(min_size=1, max_size=20).filter(lambda name: "/" not in name)  # no folder
CODES = st.sampled_from([(1, 1), (0, 1), (2, 0), (1, 1), (4, 1), (0, 0)])


@st.composite
def scene(draw):
    shape = draw(st.tuples(st.integers(28, 40), st.integers(28, 40), st.integers(1, 5)))
    pixel = draw(st.sampled_from([2, 2.5, 3.1]))
    pixels = (pixel, draw(st.sampled_from([pixel] * 3 + [1.5])))
    affine = np.diag([-pixels[0], -pixels[1], draw(st.sampled_from([8, 10, 12.5])), 1.0])
    rotation = draw(st.just((0, 0, 0)) | st.tuples(*[st.integers(-15, 15)] * 3))
    affine[:3, :3] = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = draw(st.just((0, 0, 0)) | st.tuples(*[st.floats(-300, 300)] * 3))
    labels = heart(
        shape, draw(st.floats(-0.6, 0.6)), draw(st.tuples(st.integers(-2, 4), st.integers(-4, 4)))
    )
    codes, axes = [draw(CODES), draw(CODES)], [draw(st.sampled_from(AXES))] * 2
    if draw(st.booleans()):
        codes[1] = codes[0]
    told = all(map(any, codes))
    if told:  # else the header does not say that the labels are stored another way
        axes[1] = draw(st.sampled_from(AXES))
    shift = draw(st.sampled_from([0] * 12 + [0.1, 0.5, 1, 3, 7.3]))
    own = affine.copy()
    own[:3, 3] += affine[:3, draw(st.integers(0, 2))] * shift
    order = draw(st.sampled_from([ACDC, MNMS]))
    stored = np.array(order)[labels]
    stored = stored * draw(st.sampled_from([1, 1, 0.999]))
    kind = draw(st.sampled_from(["u1", "<i2", ">i2", "f4", "f8"]))
    stored = stored.astype(kind if stored.dtype.kind == "i" or kind[0] == "f" else "f4")
    grey = LEVELS[labels].astype(draw(st.sampled_from(["<i2", ">i2", "u2", "f4", "f8"])))
    if draw(st.booleans()):
        grey, stored = grey[..., None], stored[..., None][..., *[None] * draw(st.integers(0, 1))]
    elif draw(st.booleans()):
        grey, stored = np.stack([grey] * 2, 3), np.stack([stored, stored * 0], 3)
    version = draw(st.sampled_from([nibabel.Nifti1Image] * 3 + [nibabel.Nifti2Image]))
    scale = draw(st.booleans())
    contents = [
        image(*how, scale, version).to_bytes()
        for how in ((grey, affine, axes[0], codes[0]), (stored, own, axes[1], codes[1]))
    ]
    exact = told and pixels[0] == pixels[1] and not shift
    apart = (told and shift > 0.25) or any(codes[0]) != any(codes[1])
    sound = True
    if version is nibabel.Nifti1Image and not draw(st.integers(0, 2)):
        exact, apart, i = False, False, draw(st.integers(0, 1))
        contents[i], sound = mutated(draw, contents[i])
    name = draw(NAMES)
    stem = f"{name}_{'frame01' if order == ACDC else 'sa'}"
    ending = draw(st.sampled_from([".nii"] * 3 + [".NII", ".Nii"]))
    files = {f"{stem}{ending}": contents[0], f"{stem}_gt.nii": contents[1]}
    return Scene(
        files,
        pixel,
        labels if exact else None,
        apart,
        sound,
    )


FIELDS = {"dim": (40, 56), "kind": (70, 74), "pixdim": (76, 108), "offset": (108, 112)}
FIELDS |= {"scale": (112, 120), "units": (123, 124), "forms": (252, 328), "any": (0, 352)}
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1, -1, 2, 3, 10, 1e-30, 1e30, np.nan, np.inf])


def mutated(draw, content):
    """A file with another header, and whether it still shows the same voxels in the same order."""
    content = bytearray(content)
    kind = draw(st.sampled_from([*FIELDS]))
    start, end = FIELDS[kind]
    for _ in range(draw(st.integers(1, 3))):
        if kind in ("pixdim", "scale", "offset", "forms") and draw(st.booleans()):
            at = draw(st.integers(0, (end - start) // 4 - 1)) * 4 + start
            content[at : at + 4] = struct.pack(content_order(content) + "f", draw(NUMBERS))
        elif kind == "dim" and draw(st.booleans()):
            at = draw(st.integers(0, 7)) * 2 + start
            content[at : at + 2] = struct.pack(
                content_order(content) + "h", draw(st.integers(-2, 70))
            )
        else:
            content[draw(st.integers(start, end - 1))] = draw(st.integers(0, 255))
    if not draw(st.integers(0, 9)):
        content = content[: draw(st.integers(0, len(content)))]
    return bytes(content), kind in ("pixdim", "units", "forms")


def content_order(content):
    return "<" if content[:4] == struct.pack("<i", 348) else ">"


def check(scene, folder, command):
    """Convert a scene and look at what comes out."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for name, content in scene.files.items():
        try:
            (folder / "in" / name).write_bytes(content)
        except (OSError, ValueError):  # no name of a file
            return
    words = ("--out", folder / "out", "--size", SIZE, "--spacing", scene.spacing)
    done = command("convert", folder / "in", *words)
    assert done.status in (0, 2), done
    said = done.err.splitlines()
    if done.status:
        assert len(said) == 1 and said[0].startswith("error: ")
        assert not (folder / "out").exists()
        assert scene.masks is None or not ordinary(scene), said
        return
    assert not scene.apart and all(line.startswith("warning: ") for line in said)
    paths = sorted(folder.glob("out/*/mask/*.png"), key=lambda p: int(p.stem[3:-5]))
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]
    images = [cv2.imread(str(image_of(path)), cv2.IMREAD_UNCHANGED) for path in paths]
    if scene.masks is not None:
        expected = np.zeros((len(masks), SIZE, SIZE), np.uint8)
        x, y = ((SIZE - side) // 2 for side in scene.masks.shape[:2])
        expected[:, x : x + scene.masks.shape[0], y : y + scene.masks.shape[1]] = np.moveaxis(
            scene.masks, 2, 0
        )
        np.testing.assert_array_equal(masks, expected)
    if scene.sound:
        assert_labels_lie_on_their_voxels(images, masks)


def ordinary(scene):
    """Whether a name is none that stands for another or is hidden."""
    name = next(iter(scene.files))
    return not name.startswith(".") and name.split("_")[0] not in ("a", "x", "p.nii")


def image_of(path):
    return path.parents[1] / "image" / path.name.replace("_mask", "")


def assert_labels_lie_on_their_voxels(images, masks):
    """Each class has one grey level of its own, away from its border.

    Not the background: where a plane is filled up, there are grey levels of its edge.
    """
    levels = {}
    for c in (1, 2, 3):
        inside = [binary_erosion(mask == c, np.ones((3, 3))) for mask in masks]
        seen = np.concatenate([image[where] for image, where in zip(images, inside)])
        if len(seen):
            assert np.ptp(seen) <= 3, (c, np.unique(seen))
            levels[c] = int(seen[0])
    for cavity in {1, 3} & levels.keys() if 2 in levels else ():
        assert levels[cavity] > levels[2] + 10, levels


HOW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
HOW |= {"phases": [Phase.generate], "report_multiple_bugs": False}  # to shrink takes long


@settings(max_examples=60, derandomize=True, **HOW)
@given(scene=scene())
def test_headers_and_names(scene, tmp_path, command):
    check(scene, tmp_path / "scene", command)


@pytest.mark.slow
def test_headers_and_names_for_a_while(tmp_path, capsys, command):
    end, count = time.time() + float(os.environ.get("CMRSEG_FUZZ", "600")), 0

    @settings(max_examples=300, **HOW)  # each call begins with other chance
    @given(scene=scene())
    def some(scene):
        nonlocal count
        count += 1
        check(scene, Path(tmp_path) / "scene", command)

    while time.time() < end:
        some()
    with capsys.disabled():
        print(f"\n{count} headers and names")
