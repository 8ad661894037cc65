"""Post-processing: from probabilities to label maps of one piece a class, with a filled ring."""

import cv2
import numpy as np

# Every network must have an answer to this picture.
PROBE_IMAGE = np.arange(32 * 48).astype(np.uint8).reshape(1, 32, 48)


def to_labels(probability: np.ndarray, postprocess: bool) -> np.ndarray:
    """The most probable class of each pixel (N, 4, H, W) -> uint8 (N, H, W).

    With ``postprocess`` through :func:`keep_largest_components`.
    """
    masks = probability.argmax(1).astype(np.uint8)
    return np.stack([keep_largest_components(mask) for mask in masks]) if postprocess else masks


def keep_largest_components(mask: np.ndarray) -> np.ndarray:
    """A label map (H, W) with one piece of each class, and the cavity nested in the wall.

    Of each class the largest piece stays, the others become background; a wall of one pixel that
    goes on over a corner is one piece. Whatever the myocardium and the left ventricle enclose, and
    is neither, becomes left ventricle.
    """
    cleaned = np.zeros_like(mask)
    for c in (1, 2, 3):
        _, pieces = cv2.connectedComponents((mask == c).astype(np.uint8), connectivity=8)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0  # what is not of this class
        if sizes.any():  # of two pieces as large, the upper one stays
            cleaned[pieces == pieces.flat[(sizes[pieces] == sizes.max()).argmax()]] = c
    ring = np.pad(cleaned >= 2, 1)
    _, parts = cv2.connectedComponents((~ring).astype(np.uint8), connectivity=4)
    enclosed = ~ring & (parts != parts[0, 0])
    cleaned[enclosed[1:-1, 1:-1]] = 3
    return cleaned
