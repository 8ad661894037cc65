"""Augmentation: image and mask move together, by as much as is said, and by chance that repeats."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter, minimum_filter

from cmrseg.augment import (
    AUGMENTATIONS,
    affine,
    augment,
    bias_field,
    elastic,
    gamma,
    intensity,
    low_resolution,
    mirror,
    normalise,
    warp,
)

SEEDS = st.integers(0, 2**32)
STEP = 60.0  # grey levels from one label to the next


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def hearts(n=3, size=48):
    """Images that are their label maps times STEP: (n, 1, size, size) and (n, size, size)."""
    y, x = np.mgrid[:size, :size] - size / 2.0
    labels = np.zeros((n, size, size), int)
    for k in range(n):
        far = np.hypot(y - k % 3, x - 6)
        labels[k][np.hypot(y + k % 3, x + 14) < 5.5] = 1  # apart from the others, and nothing thin
        labels[k][far < 11.5] = 2
        labels[k][far < 6.5] = 3
    labels = torch.from_numpy(labels)
    return labels[:, None].float() * STEP, labels


def inside(labels, reach=5):
    """Where a label map is the same all round: away from every boundary and from the edge."""
    low, high = (
        f(labels.numpy(), (1, reach, reach), mode="constant", cval=9)
        for f in (minimum_filter, maximum_filter)
    )
    return torch.from_numpy(low == high)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, name=st.sampled_from(["affine", "strong-affine", "elastic"]))
def test_a_warped_image_still_equals_its_mask_away_from_boundaries(seed, name):
    images, labels = hearts()
    moved, kept = AUGMENTATIONS[name](images, labels, rng(seed))
    where = inside(kept)
    assert where.float().mean() > 0.3 and not torch.equal(kept, labels)
    assert torch.equal((moved[:, 0] / STEP).round().long()[where], kept[where])
    assert set(kept.unique().tolist()) <= {0, 1, 2, 3} and kept.dtype == torch.int64
    # Boundaries agree to a pixel: where they differ, they differ by less than the step across.
    assert ((moved[:, 0] / STEP - kept).abs() > 0.6).float().mean() < 0.08


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, name=st.sampled_from(["affine", "strong-affine", "elastic"]))
def test_a_warp_invents_no_class_between_two_others(seed, name):
    images, labels = hearts()
    _, kept = AUGMENTATIONS[name](images, torch.where(labels > 1, 3, 0), rng(seed))
    assert set(kept.unique().tolist()) == {0, 3}


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_a_mirrored_image_is_exactly_its_mask_and_each_slice_has_its_own_chance(seed):
    images, labels = hearts(40)
    moved, kept = mirror(images, labels, rng(seed))
    assert torch.equal(moved[:, 0], kept * STEP)
    flipped = (kept == labels.flip(-1)).all((1, 2))
    assert torch.equal(flipped, ~(kept == labels).all((1, 2)))
    assert 5 < flipped.sum() < 35


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, name=st.sampled_from(["intensity", "strong-intensity", "gamma", "bias-field"]))
def test_intensity_leaves_labels_alone_and_changes_every_image(seed, name):
    images, labels = hearts()
    before = labels.clone()
    changed, kept = AUGMENTATIONS[name](images, labels, rng(seed))
    assert torch.equal(kept, before)
    assert ((changed - images).abs().mean((1, 2, 3)) > 0).all()


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_intensity_without_noise_is_a_gain_and_an_offset_within_the_limits(seed):
    images, labels = hearts()
    images = images / 900  # offsets count in the slice's standard deviations
    changed, _ = intensity(images, labels, rng(seed), amount=0.2, noise=0.0)
    for x, y in zip(images.flatten(1).double(), changed.flatten(1).double()):
        gain, offset = np.polyfit(x, y, 1)
        assert 0.8 - 1e-4 <= gain <= 1.2 + 1e-4
        assert abs(offset) <= 0.2 * x.std() + 1e-3
        np.testing.assert_allclose(y, gain * x + offset, atol=1e-3)


def centre(mask):
    return torch.nonzero(mask).double().mean(0)


def test_a_shift_goes_as_far_as_said_and_no_farther():
    images, labels = hearts(200, 100)
    labels = (labels[:1] == 3).long().expand(200, -1, -1).contiguous()
    _, kept = affine(images, labels, rng(), degrees=0, zoom=1, shift=0.1)
    moves = torch.stack([centre(k) - centre(labels[0]) for k in kept]).abs()
    assert moves.max() <= 10.6 and moves.amax(0).min() > 8.5


def test_a_zoom_goes_as_far_as_said_and_no_farther():
    images, labels = hearts(200, 100)
    labels = (labels[:1] > 0).long().expand(200, -1, -1).contiguous()
    _, kept = affine(images, labels, rng(), degrees=0, zoom=1.25, shift=0)
    ratio = kept.sum((1, 2)) / labels[0].sum()
    assert 0.58 < ratio.min() < 0.70 and 1.45 < ratio.max() < 1.62
    assert 0.9 < ratio.log().exp().median() < 1.1  # as often larger as smaller


def test_a_rotation_goes_as_far_as_said_and_no_farther():
    bar = torch.zeros(100, 99, 99, dtype=torch.long)
    bar[:, 49, 49:90] = 1  # from the centre to the right
    _, kept = affine(bar[:, None].float(), bar, rng(), degrees=30, zoom=1, shift=0)
    y, x = torch.stack([centre(k) - 49 for k in kept]).T
    angles = torch.rad2deg(torch.atan2(y, x))
    assert angles.abs().max() < 31 and angles.max() > 25 and angles.min() < -25


def test_beyond_the_edge_an_image_goes_on_and_labels_are_background():
    images, labels = torch.full((1, 1, 8, 8), 7.0), torch.full((1, 8, 8), 2)
    grid = torch.full((1, 8, 8, 2), 0.0)
    grid[:, :, 4:] = 3.0  # far outside
    moved, kept = warp(images, labels, grid)
    assert (moved == 7).all()
    assert (kept[:, :, :4] == 2).all() and (kept[:, :, 4:] == 0).all()


@pytest.mark.parametrize("name", ["gamma", "bias-field"])
def test_a_changed_image_keeps_its_mean_and_spread_and_the_units_do_not_matter(name):
    images, labels = hearts(8)
    images += torch.randn(images.shape, generator=rng(9))
    changed, _ = AUGMENTATIONS[name](images, labels, rng(3))
    torch.testing.assert_close(
        changed.mean((1, 2, 3)), images.mean((1, 2, 3)), rtol=1e-3, atol=1e-2
    )
    torch.testing.assert_close(changed.std((1, 2, 3)), images.std((1, 2, 3)), rtol=1e-3, atol=1e-2)
    large, _ = AUGMENTATIONS[name](100 * images + 7, labels, rng(3))
    torch.testing.assert_close(large, 100 * changed + 7, rtol=1e-3, atol=1)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_gamma_keeps_the_order_of_grey_levels_within_its_power(seed):
    ramp = torch.linspace(-2, 5, 64).view(1, 1, 8, 8)
    changed, _ = gamma(ramp, torch.zeros(1, 8, 8), rng(seed), most=2.0)
    assert (changed.flatten().diff() > 0).all()
    unit = ((changed - changed.min()) / (changed.max() - changed.min())).flatten()[31].item()
    assert (31 / 63) ** 2 - 1e-4 <= unit <= (31 / 63) ** 0.5 + 1e-4


def test_a_bias_field_is_smooth_and_differs_from_side_to_side():
    flat = torch.ones(20, 1, 48, 48)
    flat[:, :, 0, 0] = 0  # something to be darkest
    changed, _ = bias_field(flat, torch.zeros(20, 48, 48), rng())
    inner = changed[:, 0, 1:, 1:]
    step = inner.diff(dim=-1).abs().amax((1, 2))
    assert (step < 0.15 * (inner.amax((1, 2)) - inner.amin((1, 2)))).all()


def test_low_resolution_blurs_a_quarter_of_the_slices_and_leaves_the_others():
    images = torch.randn(400, 1, 24, 24, generator=rng(1))
    changed, _ = low_resolution(images, torch.zeros(400, 24, 24), rng())
    untouched = (changed == images).all((1, 2, 3))
    assert 0.68 < untouched.float().mean() < 0.82
    assert (changed[~untouched].std((1, 2, 3)) < images[~untouched].std((1, 2, 3))).all()


def test_an_elastic_map_moves_as_far_as_said():
    images, labels = hearts(1, 96)
    labels = (labels[:1] == 3).long().expand(300, -1, -1).contiguous()
    _, kept = elastic(images.expand(300, 1, 96, 96), labels, rng(), amount=0.04)
    moves = torch.stack([centre(k) - centre(labels[0]) for k in kept])
    assert 2 < moves.std() < 4.5  # an arrow's 3.8 pixels, averaged over the disc


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_chance_comes_from_the_generator_alone(name):
    images, labels = hearts(8)
    images += torch.randn(images.shape, generator=rng(9))
    torch.manual_seed(1)
    first = AUGMENTATIONS[name](images, labels, rng(5))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again, other = (AUGMENTATIONS[name](images, labels, rng(seed)) for seed in (5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_named_variations_are_applied_in_turn_and_the_originals_stay():
    images, labels = hearts()
    before = images.clone(), labels.clone()
    both = augment(images, labels, ("mirror", "affine"), rng(4))
    one = rng(4)
    expected = affine(*mirror(images, labels, one), one)
    assert all(torch.equal(a, b) for a, b in zip(both, expected))
    assert all(torch.equal(a, b) for a, b in zip((images, labels), before))
    assert all(torch.equal(a, b) for a, b in zip(augment(images, labels, (), rng()), before))


# --- normalise -----------------------------------------------------------------------------------


def greys(n=3):
    return np.random.default_rng(0).integers(0, 100, (n, 9, 7), dtype=np.uint8)


def test_zscore_gives_each_slice_mean_zero_and_deviation_one():
    x = normalise(greys() + np.arange(0, 60, 20, dtype=np.uint8)[:, None, None])
    assert x.shape == (3, 1, 9, 7) and x.dtype == torch.float32
    torch.testing.assert_close(x.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((1, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_raw_keeps_the_grey_levels_and_a_blank_slice_is_finite():
    np.testing.assert_array_equal(normalise(greys(), "raw")[:, 0], greys())
    assert normalise(np.full((1, 4, 4), 9, np.uint8)).isfinite().all()
    with pytest.raises(ValueError, match="'minmax'"):
        normalise(greys(), "minmax")
