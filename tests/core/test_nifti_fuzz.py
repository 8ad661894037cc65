"""Made-up headers and names by the thousand: no traceback, and no label beside its voxel.

What is converted must show each label where its voxel was, by the headers; else it is refused in
one line. The slow test takes ten minutes, or as many seconds as the environment variable
CMRSEG_FUZZ says.
"""

import shutil
import struct
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion
from scipy.spatial.transform import Rotation
from test_fuzz import for_a_while
from volumes import AXES, LEVELS, heart, image, nibabel

from cmrseg.datasets.layouts import ACDC, MNMS

SIZE = 48


class Scene(NamedTuple):
    """Two NIfTI files and what is known of them.

    Attributes:
        files: name -> content of a volume and its labels.
        spacing: millimetres to convert with.
        masks: the right slices (X, Y, slices); None where a header lies or says nothing, so that
            only labels and voxels can be compared.
        apart: whether their grids are not one.
        sound: whether both still hold the voxels that they were made of.
    """

    files: dict[str, bytes]
    spacing: float
    masks: np.ndarray | None
    apart: bool
    sound: bool

    def __repr__(self):
        exact = self.masks is not None
        return f"{[*self.files]}, {self.spacing} mm, {exact=}, {self.apart=}, {self.sound=}"


NAMES = ["patient001", "A0S9V9", "Müller", "a_frame01", "x_la", "p.nii", "-", "p\n"]
NAMES = st.sampled_from(NAMES) | st.text(min_size=1, max_size=20).filter(lambda n: "/" not in n)
CODES = st.sampled_from([(1, 1), (0, 1), (2, 0), (1, 1), (4, 1), (0, 0)])


@st.composite
def geometry(draw):
    """Millimetres of a pixel's first side, an affine, often oblique, and whether pixels are square."""
    pixel = draw(st.sampled_from([2, 2.5, 3.1]))
    second = draw(st.sampled_from([pixel] * 3 + [1.5]))
    affine = np.diag([-pixel, -second, draw(st.sampled_from([8, 10, 12.5])), 1.0])
    rotation = draw(st.just((0, 0, 0)) | st.tuples(*[st.integers(-15, 15)] * 3))
    affine[:3, :3] = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = draw(st.just((0, 0, 0)) | st.tuples(*[st.floats(-300, 300)] * 3))
    return pixel, affine, pixel == second


@st.composite
def arrays(draw, order):
    """Labels of a heart, and as they are stored: grey levels and labels of any kind of number."""
    shape = draw(st.tuples(st.integers(28, 40), st.integers(28, 40), st.integers(1, 5)))
    middle = draw(st.tuples(st.integers(1, 7), st.integers(-4, 4)))
    labels = heart(shape, middle, radius=6, angle=draw(st.floats(-0.6, 0.6)))
    stored = np.array(order)[labels] * draw(st.sampled_from([1, 1, 0.999]))
    kind = draw(st.sampled_from(["u1", "<i2", ">i2", "f4", "f8"]))
    stored = stored.astype(kind if stored.dtype.kind == "i" or kind[0] == "f" else "f4")
    grey = LEVELS[labels].astype(draw(st.sampled_from(["<i2", ">i2", "u2", "f4", "f8"])))
    if draw(st.booleans()):
        grey, stored = grey[..., None], stored[..., None][..., *[None] * draw(st.integers(0, 1))]
    elif draw(st.booleans()):
        grey, stored = np.stack([grey] * 2, 3), np.stack([stored, stored * 0], 3)
    return labels, grey, stored


def file_of(values, affine, axes, codes, kind, scale):
    """The bytes of an image; its sform may be of a wrong scale."""
    file = image(values, affine, codes=codes, axes=axes, kind=kind)
    if scale:
        sform = file.header.get_sform()
        sform[:3, :3] /= np.linalg.norm(sform[:3, :3], axis=0)
        file.set_sform(sform, codes[0])
    return file.to_bytes()


@st.composite
def scenes(draw):
    order = draw(st.sampled_from([ACDC, MNMS]))
    labels, *values = draw(arrays(order))
    pixel, affine, square = draw(geometry())
    codes, axes = [draw(CODES), draw(CODES)], [draw(st.sampled_from(AXES))] * 2
    if draw(st.booleans()):
        codes[1] = codes[0]
    told = all(map(any, codes))
    if told:  # else the header does not say that the labels are stored another way
        axes[1] = draw(st.sampled_from(AXES))
    shift = draw(st.sampled_from([0] * 12 + [0.1, 0.5, 1, 3, 7.3]))
    own = affine.copy()
    own[:3, 3] += affine[:3, draw(st.integers(0, 2))] * shift
    kind = draw(st.sampled_from([nibabel.Nifti1Image] * 3 + [nibabel.Nifti2Image]))
    options = kind, draw(st.booleans())
    contents = [
        file_of(*how, *options) for how in zip(values, (affine, own), axes, codes, strict=True)
    ]
    exact, sound = told and square and not shift, True
    apart = (told and shift > 0.25) or any(codes[0]) != any(codes[1])
    if kind is nibabel.Nifti1Image and not draw(st.integers(0, 2)):
        exact, apart, i = False, False, draw(st.integers(0, 1))
        contents[i], sound = mutated(draw, contents[i])
    stem = f"{draw(NAMES)}_{'frame01' if order == ACDC else 'sa'}"
    ending = draw(st.sampled_from([".nii"] * 3 + [".NII", ".Nii"]))
    files = {f"{stem}{ending}": contents[0], f"{stem}_gt.nii": contents[1]}
    return Scene(files, pixel, labels if exact else None, apart, sound)


FIELDS = {"dim": (40, 56), "kind": (70, 74), "pixdim": (76, 108), "offset": (108, 112)}
FIELDS |= {"scale": (112, 120), "units": (123, 124), "forms": (252, 328), "any": (0, 352)}
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, 1, -1, 2, 3, 10, 1e-30, 1e30, np.nan, np.inf])


def mutated(draw, content):
    """A file with another header, and whether it still shows the same voxels in the same order."""
    content = bytearray(content)
    kind = draw(st.sampled_from([*FIELDS]))
    start, end = FIELDS[kind]
    order = "<" if content[:4] == struct.pack("<i", 348) else ">"
    for _ in range(draw(st.integers(1, 3))):
        if kind in ("pixdim", "scale", "offset", "forms") and draw(st.booleans()):
            at = draw(st.integers(0, (end - start) // 4 - 1)) * 4 + start
            content[at : at + 4] = struct.pack(f"{order}f", draw(NUMBERS))
        elif kind == "dim" and draw(st.booleans()):
            at = draw(st.integers(0, 7)) * 2 + start
            content[at : at + 2] = struct.pack(f"{order}h", draw(st.integers(-2, 70)))
        else:
            content[draw(st.integers(start, end - 1))] = draw(st.integers(0, 255))
    if not draw(st.integers(0, 9)):
        content = content[: draw(st.integers(0, len(content)))]
    return bytes(content), kind in ("pixdim", "units", "forms")


def check(scene, folder, command):
    """Convert a scene and look at what comes out."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "in").mkdir(parents=True)
    for name, stored in scene.files.items():
        try:
            (folder / "in" / name).write_bytes(stored)
        except (OSError, ValueError):  # no name of a file
            return
    words = ("--out", folder / "out", "--size", SIZE, "--spacing", scene.spacing)
    done = command("convert", folder / "in", *words)
    assert done.status in (0, 2), done
    lines = done.err.splitlines()
    if done.status:
        assert len(lines) == 1 and lines[0].startswith("error: ")
        assert not (folder / "out").exists()
        assert scene.masks is None or not ordinary(next(iter(scene.files))), lines
        return
    assert not scene.apart and all(line.startswith("warning: ") for line in lines)
    masks = pictures(folder.glob("out/*/mask/*.png"))
    images = pictures(folder.glob("out/*/image/*.png"))
    if scene.masks is not None:
        padding = [(SIZE - side) // 2 for side in scene.masks.shape[:2]]
        expected = np.zeros((SIZE, SIZE, len(masks)), np.uint8)
        within = tuple(slice(p, p + side) for p, side in zip(padding, scene.masks.shape))
        expected[within] = scene.masks
        np.testing.assert_array_equal(np.moveaxis(masks, 0, 2), expected)
    if scene.sound:
        assert_labels_lie_on_their_voxels(images, masks)


def pictures(paths):
    """Pictures (N, H, W) in the order of their numbers."""
    paths = sorted(paths, key=lambda path: int(path.stem.removesuffix("_mask")[3:]))
    return np.array([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths])


def ordinary(name):
    """Whether a name is none that stands for another or is hidden."""
    return not name.startswith(".") and name.split("_")[0] not in ("a", "x", "p.nii")


def assert_labels_lie_on_their_voxels(images, masks):
    """Each class has one grey level of its own, away from its border.

    Not the background: where a plane is filled up, there are grey levels of its edge.
    """
    levels = {}
    for c in (1, 2, 3):
        seen = images[binary_erosion(masks == c, np.ones((1, 3, 3)))]
        if len(seen):
            assert np.ptp(seen) <= 3, (c, np.unique(seen))
            levels[c] = int(seen[0])
    for cavity in {1, 3} & levels.keys() if 2 in levels else ():
        assert levels[cavity] > levels[2] + 10, levels


HOW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
HOW |= {"phases": [Phase.generate], "report_multiple_bugs": False}  # to shrink takes long


@settings(max_examples=60, derandomize=True, **HOW)
@given(scene=scenes())
def test_headers_and_names(scene, tmp_path, command):
    check(scene, tmp_path / "scene", command)


@pytest.mark.slow
@for_a_while(600, **HOW)
@given(scene=scenes())
def test_headers_and_names_for_a_while(scene, tmp_path, command):
    check(scene, tmp_path / "scene", command)
