"""The phantoms: the same everywhere, exact, and as broadly distributed as real slices."""

import hashlib
import time
import timeit

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from cmrseg.datasets import phantom

REAL_SHARES = (0.824, 0.053, 0.061, 0.063)  # of the classes in the 100 real training slices


@pytest.fixture(scope="module")
def slices():
    return phantom.make()


def area(masks, c):
    return (masks == c).sum((1, 2))


def test_the_default_slices_are_the_same_on_every_machine(slices):
    digest = hashlib.sha256(slices[0].tobytes() + slices[1].tobytes()).hexdigest()
    assert digest == "665576a07065a11c147b56268596de8ea34a9872ef16869af8b581839bebbd75"


def test_images_are_windowed_as_real_ones_and_masks_hold_four_labels(slices):
    images, masks = slices
    assert images.shape == masks.shape == (200, 96, 96)
    assert images.dtype == masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 1, 2, 3}
    assert (images.max((1, 2)) == 255).all()
    assert (images.min((1, 2)) < 5).all()


def test_a_patient_is_the_same_however_many_there_are_and_unlike_all_others(slices):
    few, others = phantom.make(patients=3), phantom.make(seed=1, patients=20)
    for part, whole, other in zip(few, slices, others):
        np.testing.assert_array_equal(part, whole[:6])
        assert len({picture.tobytes() for picture in (*whole, *other)}) == 240


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"seed": -1}])
def test_fewer_than_one_patient_and_a_negative_seed_are_refused(wrong):
    with pytest.raises(ValueError, match="expected at least"):
        phantom.make(**wrong)


def test_the_heart_contracts_and_its_wall_thickens(slices):
    masks = slices[1]
    inner = np.sqrt(area(masks, 3) / np.pi)
    wall = np.sqrt((area(masks, 3) + area(masks, 2)) / np.pi) - inner
    assert (inner[1::2] < inner[::2]).all()
    assert (wall[1::2] > wall[::2]).all()
    assert (area(masks, 1)[1::2] < area(masks, 1)[::2]).all()


def test_the_surroundings_stay_where_they_are(slices):
    images, masks = slices
    alike = []
    for ed, es, near in zip(images[::2], images[1::2], (masks[::2] + masks[1::2]) > 0):
        far = ~binary_dilation(near, iterations=8)
        alike.append(np.corrcoef(ed[far], es[far])[0, 1])
    assert np.median(alike) > 0.9


def test_the_myocardium_encloses_the_cavity(slices):
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
    for mask in slices[1]:
        around = binary_dilation(mask == 3, cross) & (mask != 3)
        assert (mask[around] == 2).all()  # no tolerance: the wall is at least 2 px


def test_classes_are_as_large_and_as_bright_as_in_real_slices(slices):
    images, masks = slices
    np.testing.assert_allclose(np.bincount(masks.ravel()) / masks.size, REAL_SHARES, atol=0.004)
    assert 1 <= (area(masks, 1) == 0).sum() <= 8  # slices that miss the RV
    grey = [images[masks == c].mean() for c in range(4)]
    assert grey[3] > grey[1] > 1.5 * grey[2]
    assert abs(images.mean() - 70) < 7  # of the real slices: 69


def test_twenty_patients_are_made_in_half_a_second():
    made = timeit.repeat(
        lambda: phantom.make(patients=20), timer=time.process_time, number=1, repeat=3
    )
    assert min(made) < 0.5  # a busy machine may spoil one
