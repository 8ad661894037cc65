"""Synthetic short-axis cine MR slices with exact masks: the embedded default data.

A patient is a handful of drawn numbers. Every structure is a *signed distance* (96, 96) in pixels,
negative inside, painted over what lies behind it; the label maps are the signs of the same
distances, so they are exact. The plane is complex: a point is ``column + 1j * row``, a direction
``exp(1j * angle)``, and turning is multiplying.

Fat is painted with a negative signal, for in a balanced steady-state sequence it is opposed to
water: the magnitude at the end draws the dark line between the two that real slices have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter, shift

SIZE = 96
PLANE = np.arange(SIZE) + 1j * np.arange(SIZE)[:, None]

# What the five groups of ACDC look like at end-diastole: how often (%), cavity radius and wall (px),
# the part of the cavity's area left at end-systole, and the size of the right ventricle.
GROUPS = (
    (0.22, (14.2, 1.5), (4.1, 0.5), (0.35, 0.60), 1.00),  # healthy
    (0.20, (15.5, 1.8), (4.3, 0.7), (0.55, 0.85), 0.95),  # infarcted
    (0.20, (18.3, 1.6), (4.0, 0.7), (0.72, 0.96), 0.90),  # dilated
    (0.20, (12.8, 1.6), (6.2, 1.3), (0.15, 0.50), 0.90),  # hypertrophic
    (0.18, (12.2, 1.6), (3.9, 0.6), (0.38, 0.70), 1.25),  # abnormal right ventricle
)


@dataclass(frozen=True)
class Heart:
    """One frame of a heart; lengths in pixels, angles in radians, points complex."""

    centre: complex
    septum: float  # the direction from the left to the right ventricle
    radius: float  # of the epicardium
    wall: float
    shape: np.ndarray  # harmonics of the outline, complex
    thickness: np.ndarray  # harmonics of the wall
    rv_distance: float
    rv_radius: float
    rv_aspect: float
    rv_turn: float
    rv_shape: np.ndarray
    papillary: np.ndarray  # (n, 3): angle, depth as a part of the radius, radius


def make(seed: int = 0, patients: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Slices of ``patients`` synthetic patients.

    Args:
        seed: chooses the patients; patient k is the same however many are made.
        patients: how many, at least 1.

    Returns:
        images uint8 (2 * patients, 96, 96), grey levels, and masks uint8 of the same shape,
        0 background, 1 RV, 2 Myo, 3 LV. Slices 2k and 2k + 1 are the end-diastolic (ED) and the
        end-systolic (ES) frame of patient k + 1.

    Raises:
        ValueError: ``patients`` below 1 or a negative ``seed``.
    """
    if patients < 1:
        raise ValueError(f"patients={patients}: expected 1 or more")
    images = np.empty((2 * patients, SIZE, SIZE), np.uint8)
    masks = np.empty_like(images)
    for k in range(patients):
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, k])))
        images[2 * k : 2 * k + 2], masks[2 * k : 2 * k + 2] = patient(rng)
    return images, masks


def patient(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The ED and ES frame of a new patient: images and masks, uint8 (2, 96, 96)."""
    heart, left = anatomy(rng)
    tissue = dict(
        blood=rng.uniform(2.4, 4.0), rv=rng.uniform(0.75, 1.05), fat=-rng.uniform(2.2, 4.2),
        muscle=rng.uniform(0.7, 1.1), lung=rng.uniform(0.03, 0.35), liver=rng.uniform(0.8, 1.5),
    )
    behind = surroundings(heart, tissue, rng)
    grain, strands = texture(rng, 2.0), texture(rng, 1.1)
    scan = scanner(heart, rng)
    frames = []
    for frame in (heart, contract(heart, left, rng)):
        moved = shift(behind, rng.normal(0, 0.5, 2) * (frame is not heart), order=1, mode="nearest")
        signal, mask = paint_heart(moved, frame, tissue, grain, strands, rng)
        frames.append((scan(signal, rng), mask))
    return np.stack([i for i, _ in frames]), np.stack([m for _, m in frames])


# --- geometry ------------------------------------------------------------------------------------


def blob(centre, radius, aspect=1.0, angle=0.0, shape=(), plane=PLANE):
    """Signed distance to an ellipse with a wavy outline; its long axis (aspect > 1) at ``angle``."""
    w = (plane - centre) * np.exp(-1j * angle)
    w = w.real / aspect**0.5 + 1j * w.imag * aspect**0.5
    rho = np.abs(w)
    return rho - radius * (1 + wave(w / (rho + 1e-9), shape))


def wave(unit, harmonics):
    """The real part of sum_k harmonics[k] * unit**(k + 1): a closed curve's periodic function."""
    total = np.zeros_like(unit)
    for c in reversed(harmonics):
        total = (total + c) * unit
    return total.real


def harmonics(rng, *size):
    """Random complex coefficients, the k-th with standard deviation size[k]."""
    return np.array(size) * (rng.normal(size=len(size)) + 1j * rng.normal(size=len(size)))


def texture(rng, sigma):
    """Smooth noise (96, 96) of standard deviation 1, its grain about 2 * sigma pixels wide."""
    return gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma, mode="wrap") * sigma * np.pi**0.5 * 2


def paint(signal, distance, value, soft=0.7):
    """Lay ``value`` over ``signal`` where ``distance`` is negative, with an edge 2 * soft wide."""
    cover = np.clip(0.5 - distance / (2 * soft), 0, 1)
    return signal + cover * (value - signal)


# --- anatomy -------------------------------------------------------------------------------------


def anatomy(rng):
    """A heart at end-diastole and the part of its cavity's area that is left at end-systole."""
    odds = np.cumsum([g[0] for g in GROUPS])
    _, cavity, wall, left, rv = GROUPS[int(np.searchsorted(odds, rng.random() * odds[-1]))]
    size, apical = np.exp(rng.normal(0, 0.06)), rng.random() < 0.06
    cavity = max(size * rng.normal(*cavity) * (0.8 if apical else 1), 8.5)
    wall = max(size * rng.normal(*wall), 2.6)
    radius, septum = cavity + wall, np.radians(rng.normal(-77, 28))
    rv_radius = size * (0.6 if apical else rv) * rng.normal(16.5, 1.8)
    papillary = [
        (septum + side * np.radians(rng.normal(115, 18)) + rng.normal(0, 0.25),
         rng.uniform(0.6, 0.85), rng.uniform(1.2, 3.0))
        for side in (1, -1) for _ in range(rng.integers(1, 4))
    ]
    heart = Heart(
        centre=rng.normal(46, 5) + 1j * rng.normal(51, 5.5),
        septum=septum, radius=radius, wall=wall,
        shape=harmonics(rng, 0, 0.035, 0.012, 0.008, 0.005),
        thickness=harmonics(rng, 0.08, 0.06, 0.04),
        rv_distance=radius * rng.normal(0.75, 0.12), rv_radius=rv_radius,
        rv_aspect=rng.uniform(0.6, 0.95), rv_turn=rng.normal(0, 0.15),
        rv_shape=harmonics(rng, 0.03, 0.04, 0.05, 0.02),
        papillary=np.array(papillary),
    )
    return heart, rng.uniform(*left)


def contract(heart, left, rng):
    """The heart at end-systole: ``left`` of the cavity's area remains and the wall thickens."""
    inner = heart.radius - heart.wall
    muscle = (heart.radius**2 - inner**2) * (1 + 0.5 * (1 - left))
    radius = (inner**2 * left + muscle) ** 0.5
    return replace(
        heart, radius=radius, wall=radius - inner * left**0.5,
        centre=heart.centre + complex(*rng.normal(0, 0.6, 2)),
        rv_distance=heart.rv_distance * radius / heart.radius - rng.uniform(0, 2),
        rv_radius=heart.rv_radius * (1 - rng.uniform(0.1, 0.35) * (1 - left)),
    )


def surroundings(heart, tissue, rng):
    """The signal (96, 96) behind the heart: lung, abdomen and chest wall."""
    fat, muscle = tissue["fat"], tissue["muscle"]
    warp = sum(
        complex(*rng.normal(0, 1.2, 2)) * np.sin((PLANE * np.exp(1j * rng.uniform(0, 6.3))).real
                                                / rng.uniform(5, 14) + rng.uniform(0, 6.3))
        for _ in range(4)
    )
    plane = PLANE + warp
    up = np.exp(1j * (heart.septum + np.radians(rng.normal(-8, 15))))
    reach = heart.rv_distance + heart.rv_radius * heart.rv_aspect**0.5
    speckle = texture(rng, 0.8)

    signal = tissue["lung"] * (1 + 0.3 * texture(rng, 4))
    signal = paint(signal, 2.3 + rng.normal(0, 0.2) - speckle, tissue["blood"], 0.4)  # lung vessels

    # Below the diaphragm: fat with the liver, spleen and stomach in it.
    below = up * np.exp(1j * np.radians(rng.normal(112, 14)))
    dome = rng.uniform(35, 70)
    diaphragm = blob(heart.centre + below * (heart.radius + dome + rng.uniform(0, 5)), dome, plane=plane)
    signal = paint(signal, diaphragm, fat * rng.uniform(0.6, 1))
    liver = tissue["liver"] * (1 + 0.08 * texture(rng, 1.5))
    liver = paint(liver, 2.0 - texture(rng, 1.2), tissue["blood"] * 0.7, 0.4)
    side = below * np.exp(-1j * np.radians(rng.uniform(15, 45)))
    signal = paint(signal, blob(heart.centre + side * (heart.radius + rng.uniform(30, 36)),
                                rng.uniform(24, 32), rng.uniform(1, 1.6), rng.uniform(0, 3), plane=plane), liver)
    for _ in range(rng.integers(1, 5)):
        turn = below * np.exp(1j * np.radians(rng.uniform(-20, 60)))
        organ = blob(heart.centre + turn * (heart.radius + rng.uniform(10, 34)), rng.uniform(5, 13),
                     rng.uniform(1, 1.8), rng.uniform(0, 3), harmonics(rng, 0, .05, .05), plane)
        level = tissue["liver"] * rng.uniform(0.7, 1.4) if rng.random() < 0.75 else tissue["blood"] * 1.3
        signal = paint(signal, organ, level * (1 + 0.12 * speckle))

    # The chest wall in layers, from the inside: muscle with the ribs, fat, muscle, skin, air.
    bend = rng.uniform(60, 130)
    chest = -blob(heart.centre + up * (reach + rng.uniform(3, 9) - bend), bend, plane=plane)
    chest = -chest
    depth = 0.0
    for value, low, high in ((muscle, 2, 5), (fat, 1, 6), (muscle * 0.7, 1, 7), (fat * 1.3, 4, 14)):
        signal = paint(signal, depth - chest, value)
        depth += rng.uniform(low, high)
    along = np.angle((plane - heart.centre) / up) * bend / rng.uniform(9, 13)
    rib = np.hypot((chest - 4) / 2.5, (along - np.round(along)) * 4) - 1
    signal = paint(signal, rib * 2.5, muscle * 0.4)
    return paint(signal, depth - chest, 0.05 * tissue["lung"])


def paint_heart(signal, heart, tissue, grain, strands, rng):
    """A heart over its surroundings: the signal (96, 96) and the label map uint8 (96, 96)."""
    axis = np.exp(1j * heart.septum)
    unit = (PLANE - heart.centre) / (np.abs(PLANE - heart.centre) + 1e-9)
    epi = blob(heart.centre, heart.radius, shape=heart.shape)
    endo = epi + np.maximum(heart.wall * (1 + wave(unit, heart.thickness)), 2)
    rv = blob(heart.centre + axis * heart.rv_distance, heart.rv_radius, heart.rv_aspect,
              heart.septum + heart.rv_turn, heart.rv_shape)
    outside = np.minimum(epi, rv - 2)
    signal = paint(signal, outside - 2 - 2 * wave(unit, heart.thickness * 10), tissue["fat"])
    signal = paint(signal, outside, 1 + 0.05 * grain)
    blood = tissue["blood"] * (1 + 0.07 * grain)
    signal = paint(signal, np.maximum(rv + 1.2 * np.maximum(strands, 0), 0 - epi), blood * tissue["rv"])
    signal = paint(signal, epi, 1 + 0.05 * grain)
    free = (1 - (unit / axis).real) / 2  # 1 at the free wall, 0 at the septum
    signal = paint(signal, endo + 2.2 * free * np.maximum(strands, 0), blood)
    inner = heart.radius - heart.wall
    for angle, depth, radius in heart.papillary:
        signal = paint(signal, np.maximum(blob(heart.centre + depth * inner * np.exp(1j * angle), radius),
                                          endo), 1.0)
    mask = np.select([endo < 0, epi < 0, rv < 0], [3, 2, 1]).astype(np.uint8)
    return signal, mask


# --- acquisition ---------------------------------------------------------------------------------


def scanner(heart, rng):
    """A function from signal to image, with the coil, blur and noise of one examination."""
    up = np.exp(1j * heart.septum)
    z = (PLANE - PLANE.mean()) / 48 / up
    coil = np.exp(rng.normal(0.25, 0.2) * z.real + rng.normal(0, 0.2) * z.imag
                  + rng.normal(0, 0.15) * (z**2).real + rng.normal(0, 0.15) * (z**2).imag)
    fy, fx = np.meshgrid(np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE), indexing="ij")
    band = 1 / (1 + ((fx / rng.uniform(0.38, 0.5)) ** 2) ** 8) / (1 + ((fy / rng.uniform(0.38, 0.5)) ** 2) ** 8)
    noise, window = rng.uniform(0.05, 0.16), rng.uniform(97.5, 99.7)

    def scan(signal, rng):
        grain = rng.normal(size=(2, SIZE, SIZE)) * noise
        space = np.fft.fft2(signal * coil + grain[0] + 1j * grain[1]) * band
        image = np.abs(np.fft.ifft2(space))
        return np.clip(np.rint(image * (255 / np.percentile(image, window))), 0, 255).astype(np.uint8)

    return scan
