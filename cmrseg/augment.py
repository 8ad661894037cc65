"""From stored grey levels to a batch the network sees: normalise, then vary.

Everything works on a whole batch of tensors at once, image and mask together: images float32
(N, 1, H, W), labels int64 (N, H, W). Chance comes from a generator that is passed in, so that a
run can be repeated. :data:`AUGMENTATIONS` names the variations for a configuration.
"""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor


def normalise(images: np.ndarray, scale: str = "zscore") -> Tensor:
    """Stored grey levels uint8 (N, H, W) -> float32 (N, 1, H, W), see :func:`rescale`."""
    return rescale(torch.from_numpy(np.ascontiguousarray(images)).float().unsqueeze(1), scale)


def rescale(x: Tensor, scale: str) -> Tensor:
    """Grey levels 0 to 255, float32 (N, 1, H, W) -> what a network sees, of the same shape.

    Args:
        x: grey levels as stored.
        scale: ``"zscore"``: each slice gets mean 0 and standard deviation 1, so that the brightness
            of a scan does not matter; ``"raw"``: 0 to 255 as they are, as the 2020 report did.

    Raises:
        ValueError: an unknown ``scale``.
    """
    if scale == "raw":
        return x
    if scale == "zscore":
        mean, std = x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
        return (x - mean) / (std + 1e-6)
    raise ValueError(f"scale={scale!r}: expected raw or zscore")


def uniform(n: int, low: float, high: float, rng: Generator) -> Tensor:
    """n numbers, evenly spread between low and high: float32 (n,)."""
    return low + (high - low) * torch.rand(n, generator=rng)


def mirror(images: Tensor, labels: Tensor, rng: Generator) -> tuple[Tensor, Tensor]:
    """Flip each slice left to right with probability one half."""
    flip = (torch.rand(len(images), generator=rng) < 0.5).to(images.device)
    return (
        torch.where(flip[:, None, None, None], images.flip(-1), images),
        torch.where(flip[:, None, None], labels.flip(-1), labels),
    )


def affine(
    images: Tensor,
    labels: Tensor,
    rng: Generator,
    degrees: float = 30.0,
    zoom: float = 1.25,
    shift: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Rotate by up to ``degrees``, zoom by up to ``zoom`` either way, shift by a part of the width.

    Images are interpolated linearly and continue at their edges; labels take the nearest pixel,
    and what comes from outside is background.
    """
    n = len(images)
    angle = uniform(n, -math.radians(degrees), math.radians(degrees), rng)
    size = torch.exp(uniform(n, -math.log(zoom), math.log(zoom), rng))
    x, y = uniform(n, -2 * shift, 2 * shift, rng), uniform(n, -2 * shift, 2 * shift, rng)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    matrix = torch.stack([cos, -sin, x, sin, cos, y], 1).view(n, 2, 3).to(images.device)
    return warp(images, labels, F.affine_grid(matrix, list(images.shape), align_corners=False))


def warp(images: Tensor, labels: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Sample images and labels at one grid (N, H, W, 2) of points in -1..1."""
    moved = F.grid_sample(images, grid, "bilinear", "border", align_corners=False)
    moved_labels = F.grid_sample(
        labels[:, None].float(), grid, "nearest", "zeros", align_corners=False
    )
    return moved, moved_labels[:, 0].long()


def intensity(
    images: Tensor, labels: Tensor, rng: Generator, amount: float = 0.2, noise: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Change contrast and brightness by up to ``amount`` and add Gaussian noise, in units of the
    slice's own standard deviation; labels stay."""
    n = len(images)
    spread = images.std((1, 2, 3), keepdim=True)
    gain = uniform(n, 1 - amount, 1 + amount, rng).view(n, 1, 1, 1).to(images.device)
    offset = uniform(n, -amount, amount, rng).view(n, 1, 1, 1).to(images.device)
    level = uniform(n, 0, noise, rng).view(n, 1, 1, 1)
    grain = (level * torch.randn(images.shape, generator=rng)).to(images.device)
    return images * gain + (offset + grain) * spread, labels


def elastic(
    images: Tensor, labels: Tensor, rng: Generator, amount: float = 0.04, knots: int = 5
) -> tuple[Tensor, Tensor]:
    """Bend slices softly by a field of random arrows, drawn out smoothly (Simard et al. 2003).

    The arrows stand on ``knots`` x ``knots`` points, with a standard deviation of ``amount`` of the
    width."""
    n, _, height, width = images.shape
    arrows = 2 * amount * torch.randn(n, 2, knots, knots, generator=rng)
    smooth = F.interpolate(arrows, (height, width), mode="bicubic", align_corners=True)
    still = F.affine_grid(
        torch.eye(2, 3).expand(n, 2, 3), [n, 1, height, width], align_corners=False
    )
    return warp(images, labels, (still + smooth.permute(0, 2, 3, 1)).to(images.device))


def gamma(
    images: Tensor, labels: Tensor, rng: Generator, most: float = 1.6
) -> tuple[Tensor, Tensor]:
    """Raise grey levels, scaled to 0..1, to a power between 1 / ``most`` and ``most``: dark tissue
    moves against bright."""
    n = len(images)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    power = (
        torch.exp(uniform(n, -math.log(most), math.log(most), rng))
        .view(n, 1, 1, 1)
        .to(images.device)
    )
    scaled = (images - low) / (high - low).clamp_min(1e-6)
    return _like(scaled**power, images), labels


def bias_field(
    images: Tensor, labels: Tensor, rng: Generator, amount: float = 0.3
) -> tuple[Tensor, Tensor]:
    """Brighten one side and darken another, smoothly, as a receive coil does; labels stay."""
    n, _, height, width = images.shape
    knots = amount * torch.randn(n, 1, 3, 3, generator=rng)
    field = torch.exp(F.interpolate(knots, (height, width), mode="bicubic", align_corners=True))
    return _like(
        (images - images.amin((1, 2, 3), keepdim=True)) * field.to(images.device), images
    ), labels


def low_resolution(
    images: Tensor, labels: Tensor, rng: Generator, most: float = 2.0, chance: float = 0.25
) -> tuple[Tensor, Tensor]:
    """Reduce some slices by up to ``most`` and enlarge them again, as if scanned more coarsely."""
    coarser = images.clone()
    for k in range(len(images)):
        happens, factor = torch.rand(1, generator=rng).item(), uniform(1, 1, most, rng).item()
        if happens < chance:
            size = [round(side / factor) for side in images.shape[2:]]
            small = F.interpolate(images[k : k + 1], size, mode="area")
            coarser[k : k + 1] = F.interpolate(
                small, images.shape[2:], mode="bilinear", align_corners=False
            )
    return coarser, labels


def _like(changed: Tensor, images: Tensor) -> Tensor:
    """``changed`` with the mean and standard deviation that each slice of ``images`` has."""
    means, spreads = (f((1, 2, 3), keepdim=True) for f in (changed.mean, changed.std))
    unit = (changed - means) / spreads.clamp_min(1e-6)
    return unit * images.std((1, 2, 3), keepdim=True) + images.mean((1, 2, 3), keepdim=True)


AUGMENTATIONS = {
    "mirror": mirror,
    "affine": affine,
    "strong-affine": partial(affine, degrees=60.0, zoom=1.5, shift=0.15),
    "intensity": intensity,
    "strong-intensity": partial(intensity, amount=0.5, noise=0.2),
    "elastic": elastic,
    "gamma": gamma,
    "bias-field": bias_field,
    "low-resolution": low_resolution,
}


def augment(images: Tensor, labels: Tensor, names, rng: Generator) -> tuple[Tensor, Tensor]:
    """Apply the named variations in turn."""
    for name in names:
        images, labels = AUGMENTATIONS[name](images, labels, rng)
    return images, labels
