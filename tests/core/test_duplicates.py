"""Near-duplicates: altered copies are found, and strangers are not taken for copies."""

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom

from cmrseg.datasets import checks
from cmrseg.datasets.duplicates import copy_limit, similarity


@pytest.fixture(scope="module")
def strangers(count=25, size=96):
    """Made-up pictures: smooth noise, and something bright that all have in the middle."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:size, :size] / size - 0.5
    common = 50 * np.exp(-20 * (x**2 + y**2))
    noise = [gaussian_filter(rng.normal(size=(size, size)), size / 32) for _ in range(count)]
    images = [90 + rng.normal(0, 15) + common + 30 * n / n.std() for n in noise]
    return np.clip(images, 0, 255).astype(np.uint8)


def noisy(image):
    noise = np.random.default_rng(2).normal(0, 8, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def enlarged(image, factor=1.5):
    """The same field of view on another number of pixels."""
    return np.clip(zoom(image.astype(float), factor, order=1), 0, 255).astype(np.uint8)


def cropped(image, factor):
    """Rescaled, and as many pixels as before."""
    big = np.pad(enlarged(image, factor), 8, mode="edge")
    start = (len(big) - len(image)) // 2
    return big[start : start + len(image), start : start + len(image)]


ALTERED = {
    "as it is": lambda image: image,
    "one pixel to the right": lambda image: np.roll(image, 1, 1),
    "one pixel up": lambda image: np.roll(image, -1, 0),
    "two pixels down, one left": lambda image: np.roll(image, (2, -1), (0, 1)),
    "5 % larger": lambda image: cropped(image, 1.05),
    "10 % larger": lambda image: cropped(image, 1.1),
    "10 % smaller": lambda image: cropped(image, 0.9),
    "brighter": lambda image: np.clip(image * 1.2 + 20, 0, 255).astype(np.uint8),
    "darker": lambda image: image // 3,
    "noisy": noisy,
    "on more pixels": enlarged,
}


def duplicates(strangers, *more):
    """What is found among strangers and further pictures (place, pixels, patient)."""
    pictures = [checks.Picture(Path(f"train/{n}"), image, n) for n, image in enumerate(strangers)]
    pictures += [checks.Picture(Path(place), *picture) for place, *picture in more]
    return [*checks.near_duplicates(checks.Folder([], pictures, []))]


@pytest.mark.parametrize("alter", ALTERED.values(), ids=ALTERED)
def test_an_altered_copy_is_found_and_nothing_else(alter, strangers):
    copy = alter(strangers[7])
    (warning,) = duplicates(strangers, ("val/99", copy, 99))
    assert Path(warning.file) == Path("val/99") and "looks the same as train/7" in warning.problem
    assert similarity([strangers[7], copy])[0, 1] > 0.98


def test_siblings_are_expected_within_a_split_and_not_across(strangers):
    sibling = np.roll(strangers[7], 1, 1)
    assert not duplicates(strangers) and not duplicates(strangers, ("train/99", sibling, 7))
    for place, patient in (("train/99", 99), ("val/99", 7), ("val/99", 99)):
        assert len(duplicates(strangers, (place, sibling, patient))) == 1


def test_the_limit_follows_the_strangers_and_copies_among_them_do_not_move_it():
    z = np.random.default_rng(0).normal(0.4, 0.2, 5000)
    limit = copy_limit(np.tanh(z))
    assert np.tanh(0.4 + 4 * 0.2) < limit < np.tanh(0.4 + 5 * 0.2)  # 5000 pairs: 4.6 deviations
    assert abs(copy_limit(np.tanh(np.r_[z, np.full(100, 3)])) - limit) < 0.01
    assert copy_limit(np.tanh(z)[:50]) > 0.96
    assert copy_limit(np.random.default_rng(0).normal(0, 0.01, 5000)) > 0.5
