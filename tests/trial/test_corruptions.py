"""Corruptions: slices as another scanner or an experimenter would give them, image and mask."""

import numpy as np
import pytest
from conftest import heart
from scipy import ndimage

from cmrseg.data import Slices
from cmrtrial import corruptions


def slices_of(images, masks):
    names = tuple(f"cmr{n}" for n in range(len(images)))
    return Slices(images, masks, names, np.zeros(len(images)))


def slices(count=4, size=64):
    images, masks = zip(*(heart(n, size) for n in range(1, count + 1)))
    return slices_of(np.stack(images), np.stack(masks))


def middle(mask):
    return np.array(ndimage.center_of_mass(mask > 0))


@pytest.mark.parametrize("name", corruptions.LEVELS)
def test_the_first_level_changes_nothing_and_each_further_one_more(name):
    change, levels = corruptions.LEVELS[name]
    before = slices()
    first = change(before, levels[0])
    np.testing.assert_array_equal(first.images, before.images)
    np.testing.assert_array_equal(first.masks, before.masks)
    for level in levels[1:]:
        after = change(before, level)
        assert after.images.dtype == after.masks.dtype == np.uint8
        assert after.images.shape == before.images.shape and after.names == before.names
        assert set(np.unique(after.masks)) <= {0, 1, 2, 3}
        assert np.abs(after.images.astype(int) - before.images).mean() > 0.3
        assert (after.masks != before.masks).any() == (name in ("rotation", "zoom"))


def test_blur_stays_within_its_slice():
    before = slices()
    before.images[1] = 0
    after = corruptions.blur(before, 2.0)
    assert after.images[1].max() == 0
    assert after.images[0].astype(float).std() < before.images[0].std()


def test_noise_is_as_strong_as_it_says_whatever_the_contrast():
    flat = np.full((2, 64, 64), 128, np.uint8)
    flat[0, :, ::2] += 20
    flat[1, :, ::2] += 40
    after = corruptions.noise(slices_of(flat, flat % 2), 0.5)
    grain = (after.images.astype(float) - flat).std((1, 2))
    np.testing.assert_allclose(grain, [5, 10], rtol=0.06)


def test_a_bias_field_is_bright_on_the_left():
    flat = slices_of(np.full((1, 8, 9), 100, np.uint8), np.zeros((1, 8, 9), np.uint8))
    after = corruptions.bias_field(flat, 0.4).images[0, 0]
    assert after.tolist() == [140, 130, 120, 110, 100, 90, 80, 70, 60]
    assert corruptions.bias_field(flat, 0.056).images[0, 0, 1] == 104


def test_a_rotation_goes_against_the_clock_with_its_mask():
    mask = np.zeros((1, 21, 21), np.uint8)
    mask[0, 9:12, 17:20] = 3  # at three o'clock
    after = corruptions.rotation(slices_of(mask * 80, mask), 90)
    assert after.masks[0, 1:4, 9:12].all() and after.masks.sum() == mask.sum()
    assert after.images[0, 2, 10] == 240
    assert set(np.unique(corruptions.rotation(slices_of(mask, mask), 30).masks)) == {0, 3}


def test_a_zoom_makes_the_heart_larger_and_keeps_the_middle():
    before = slices()
    for factor in (1.25, 0.8):
        after = corruptions.zoom(before, factor)
        ratio = (after.masks > 0).sum((1, 2)) / (before.masks > 0).sum((1, 2))
        np.testing.assert_allclose(ratio, factor**2, rtol=0.06)
    dot = np.zeros((1, 21, 21), np.uint8)
    dot[0, 9:12, 9:12] = 1
    assert middle(corruptions.zoom(slices_of(dot, dot), 3).masks[0]).tolist() == [10, 10]


def test_shuffled_hearts_lie_anywhere_but_whole():
    before = slices(40, 96)
    after = corruptions.shuffle_positions(before)
    np.testing.assert_array_equal((after.masks > 0).sum((1, 2)), (before.masks > 0).sum((1, 2)))
    moves = np.array([middle(a) - middle(b) for a, b in zip(after.masks, before.masks)])
    assert (moves.min(0) < -6).all() and (moves.max(0) > 6).all() and np.abs(moves).max() <= 16
    assert not after.masks[:, :4].any() and not after.masks[:, :, -4:].any()
    for c in (1, 2, 3):  # the image moves with its mask
        for n in range(40):
            greys = (s.images[n][s.masks[n] == c] for s in (before, after))
            np.testing.assert_array_equal(*map(np.sort, greys))


def test_a_heart_at_the_edge_stays_where_it_is_or_comes_in():
    mask = np.zeros((30, 40, 40), np.uint8)
    mask[:, 0:6, 10:30] = 1
    after = corruptions.shuffle_positions(slices_of(mask * 9, mask))
    assert (after.masks.sum((1, 2)) == mask.sum((1, 2))).all()


def test_the_right_ventricle_takes_the_grey_of_what_lies_round_it():
    before = slices()
    after = corruptions.equalise_grey(before)
    for n in range(len(before)):
        ventricle = before.masks[n] == 1
        near = ndimage.binary_dilation(ventricle, iterations=8) & (before.masks[n] == 0)
        assert abs(before.images[n][ventricle].mean() - before.images[n][near].mean()) > 30
        assert abs(after.images[n][ventricle].mean() - before.images[n][near].mean()) < 1
        np.testing.assert_array_equal(after.images[n][~ventricle], before.images[n][~ventricle])
    np.testing.assert_array_equal(after.masks, before.masks)
