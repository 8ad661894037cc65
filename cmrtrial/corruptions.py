"""Corruptions: slices as another scanner, another patient or an experimenter would give them.

Each function takes slices and returns changed ones, image and mask together. The levels are in
:data:`LEVELS`, from nothing to more than a scanner does.
"""

from dataclasses import replace
from functools import partial

import numpy as np
from scipy import ndimage

from cmrseg.data import Slices


def _uint8(images: np.ndarray) -> np.ndarray:
    return np.rint(images).clip(0, 255).astype(np.uint8)


def blur(slices: Slices, sigma: float) -> Slices:
    """Smooth with a Gaussian of ``sigma`` pixels."""
    images = slices.images.astype(float)
    return replace(slices, images=_uint8(ndimage.gaussian_filter(images, (0, sigma, sigma))))


def noise(slices: Slices, level: float, seed: int = 0) -> Slices:
    """Add Gaussian noise of ``level`` times each slice's own standard deviation."""
    images = slices.images.astype(float)
    grain = np.random.default_rng(seed).standard_normal(images.shape)
    return replace(
        slices, images=_uint8(images + level * images.std((1, 2), keepdims=True) * grain)
    )


def bias_field(slices: Slices, amount: float) -> Slices:
    """Brighten the left and darken the right, up to ``1 + amount`` and ``1 - amount`` times."""
    slope = np.linspace(1 + amount, 1 - amount, slices.images.shape[2])
    return replace(slices, images=_uint8(slices.images * slope))


def rotation(slices: Slices, degrees: float) -> Slices:
    """Turn about the middle, anticlockwise as one looks at it."""
    return _resampled(slices, partial(ndimage.rotate, angle=degrees, axes=(1, 2), reshape=False))


def zoom(slices: Slices, factor: float) -> Slices:
    """Enlarge (above 1) or reduce (below 1) about the middle, at the same size of picture."""
    middle = (np.array(slices.images.shape) - 1) / 2
    scale = np.array([1, 1 / factor, 1 / factor])  # the first axis is that of the slices
    zoomed = partial(ndimage.affine_transform, matrix=scale, offset=middle * (1 - scale))
    return _resampled(slices, zoomed)


def _resampled(slices: Slices, move) -> Slices:
    """Images linearly, continued at their edges; masks by the nearest pixel, background beyond."""
    masks = slices.masks
    return replace(
        slices,
        images=_uint8(move(slices.images.astype(float), order=1, mode="nearest")),
        masks=None if masks is None else move(masks, order=0, mode="constant", cval=0),
    )


def shuffle_positions(slices: Slices, most: int = 16, margin: int = 4, seed: int = 0) -> Slices:
    """Move each slice by up to ``most`` pixels either way, so that a heart's place says nothing.

    What comes from outside is mirrored in the edge. A labelled heart stays ``margin`` pixels
    inside.
    """
    rng, images, masks = np.random.default_rng(seed), slices.images.copy(), slices.masks.copy()
    for n, mask in enumerate(slices.masks):
        by = []
        for axis, length in enumerate(mask.shape):
            (used,) = mask.any(1 - axis).nonzero()
            low, high = (used.min(), used.max()) if len(used) else (margin, length - 1 - margin)
            least, greatest = min(0, margin - low), max(0, length - 1 - margin - high)
            by.append(np.clip(rng.integers(-most, most + 1), least, greatest))
        images[n] = ndimage.shift(slices.images[n], by, order=0, mode="reflect")
        masks[n] = ndimage.shift(mask, by, order=0, mode="constant")
    return replace(slices, images=images, masks=masks)


def around(mask: np.ndarray, reach: int = 8) -> np.ndarray:
    """The background within ``reach`` pixels of the right ventricle of a label map: bool (H, W)."""
    return ndimage.binary_dilation(mask == 1, iterations=reach) & (mask == 0)


def equalise_grey(slices: Slices, reach: int = 8) -> Slices:
    """Give the right ventricle the mean grey level of the background within ``reach`` pixels."""
    images = slices.images.astype(float)
    for image, mask in zip(images, slices.masks):
        ventricle = mask == 1
        near = around(mask, reach)
        if ventricle.any() and near.any():
            image[ventricle] += image[near].mean() - image[ventricle].mean()
    return replace(slices, images=_uint8(images))


# name -> the function and its levels; the first changes nothing.
LEVELS = {
    "blur": (blur, (0.0, 0.5, 1.0, 1.5, 2.0)),  # pixels
    "noise": (noise, (0.0, 0.1, 0.2, 0.4, 0.8)),  # standard deviations
    "bias field": (bias_field, (0.0, 0.2, 0.4, 0.6, 0.8)),  # either way
    "rotation": (rotation, (0, 15, 30, 60, 90)),  # degrees
    "zoom": (zoom, (1.0, 0.9, 0.75, 1.15, 1.35)),  # times
}
CHANGES = {"shuffled": shuffle_positions, "equalised": equalise_grey}
