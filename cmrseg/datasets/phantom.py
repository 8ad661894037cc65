"""Synthetic short-axis cine MR slices with exact masks: the embedded default data.

A patient is a handful of drawn numbers. Every structure is a *signed distance* (96, 96) in pixels,
negative inside, painted over what lies behind it; the label maps are the signs of the same
distances, so they are exact. The plane is complex: a point is ``column + 1j * row``, a direction
``exp(1j * angle)``, and to turn is to multiply.

Fat is painted with a negative signal, for in the balanced sequences of cine MR it is opposed to
water: the magnitude at the end then draws the dark line between the two that real slices have.

Nothing here was learned from real slices but broad statistics: class shares, sizes, positions, and
how bright each class is.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter, shift

SIZE = 96
PLANE = np.arange(SIZE) + 1j * np.arange(SIZE)[:, None]

# The five groups of ACDC, equally frequent: mean and deviation of cavity radius and wall at
# end-diastole (px), range of the part of the cavity's area left at end-systole, size of the RV.
GROUPS = (
    ((14.5, 1.5), (4.3, 0.5), (0.35, 0.60), 1.0),  # healthy
    ((15.8, 1.8), (4.5, 0.7), (0.50, 0.85), 1.0),  # infarcted
    ((18.1, 1.7), (4.2, 0.7), (0.70, 0.96), 1.0),  # dilated LV
    ((13.0, 1.6), (6.6, 1.5), (0.08, 0.50), 0.9),  # hypertrophic
    ((12.5, 1.6), (4.1, 0.6), (0.35, 0.70), 1.2),  # abnormal RV
)
TRIANGLE = np.array([0, 0, 0.03, 0])  # harmonics of an outline, which the RV's resembles


@dataclass(frozen=True)
class Heart:
    """One frame of a heart; lengths in pixels, angles in radians, points complex."""

    centre: complex
    septum: float  # direction from the left to the right ventricle
    radius: float  # of the epicardium
    wall: float
    outline: np.ndarray  # harmonics of the epicardium, complex, see wave()
    thickness: np.ndarray  # harmonics of the wall
    rv_depth: float  # how far the right ventricle reaches beyond the epicardium
    rv_width: float  # its half width along the septum
    rv_roundness: float  # from a crescent to a bulging disc
    rv_outline: np.ndarray
    papillary: np.ndarray  # (n, 3): angle, distance from the centre (cavity radii), radius
    blood: float  # signal, in units of the myocardium's
    rv_blood: float


def make(seed: int = 0, patients: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Slices of synthetic patients.

    Args:
        seed: chooses the patients, 0 or more; patient k is the same however many are made.
        patients: how many, at least 1.

    Returns:
        images uint8 (2 * patients, 96, 96), grey levels, and masks uint8 of the same shape,
        0 background, 1 RV, 2 Myo, 3 LV. Slices 2k and 2k + 1 are the end-diastolic (ED) and the
        end-systolic (ES) frame of patient k + 1. Pixels are thought about 1.8 mm wide.

    Raises:
        ValueError: ``patients`` below 1 or ``seed`` below 0.
    """
    if patients < 1 or seed < 0:
        raise ValueError(f"patients={patients}, seed={seed}: expected at least 1 and at least 0")
    seeds = (np.random.SeedSequence([seed, k]) for k in range(patients))
    pairs = [patient(np.random.Generator(np.random.PCG64(s))) for s in seeds]
    images, masks = (np.concatenate(stack) for stack in zip(*pairs))
    return images, masks


def patient(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The ED and the ES frame of a new patient: images and masks, both uint8 (2, 96, 96)."""
    heart, left = anatomy(rng)
    fat = -rng.uniform(1.8, 3.6) * (1 + 0.15 * texture(rng, 1.6) + 0.15 * texture(rng, 5))
    behind = surroundings(heart, fat, rng)
    inside = chambers(fat, rng)
    scan = scanner(heart.septum, rng)
    drift = shift(behind, rng.normal(0, 0.5, 2), order=1, mode="nearest")
    frames = [inside(behind, heart), inside(drift, contract(heart, left, rng))]
    return np.stack([scan(signal) for signal, _ in frames]), np.stack([mask for _, mask in frames])


# --- drawing -------------------------------------------------------------------------------------


def blob(centre, radius, flatness=1.0, angle=0.0, outline=(), plane=PLANE):
    """Signed distance to an ellipse with a wavy outline, ``flatness`` times as long towards
    ``angle`` as across; nearly a distance in pixels, exactly one for a circle."""
    point = plane - centre
    if flatness != 1:
        point = point * np.exp(-1j * angle)
        point = point.real / flatness**0.5 + 1j * point.imag * flatness**0.5
    distance = np.abs(point)
    if len(outline):
        radius = radius * (1 + wave(point / (distance + 1e-9), outline))
    return distance - radius


def wave(unit, harmonics):
    """A periodic function of direction: the real part of sum_k harmonics[k] * unit**(k + 1)."""
    total = np.zeros_like(unit)
    for c in reversed(harmonics):
        total = (total + c) * unit
    return total.real


def harmonics(rng, *sizes):
    """Random complex coefficients for wave(), each with its standard deviation."""
    return np.array(sizes) * (rng.normal(size=len(sizes)) + 1j * rng.normal(size=len(sizes)))


def union(a, b, width):
    """Signed distance to two shapes together, the notch between them filled over ``width``."""
    return np.minimum(a, b) - np.maximum(width - np.abs(a - b), 0) ** 2 / (4 * width)


def texture(rng, sigma):
    """Smooth noise (96, 96), standard deviation 1, grains some 2 * sigma pixels wide."""
    noise = gaussian_filter(rng.normal(size=(SIZE, SIZE)), sigma, mode="wrap")
    return noise * (2 * sigma * np.pi**0.5)


def paint(signal, distance, value):
    """Lay ``value`` over ``signal`` where ``distance`` is negative; the edge is 1.4 px wide."""
    return signal + np.clip(0.5 - distance / 1.4, 0, 1) * (value - signal)


# --- anatomy -------------------------------------------------------------------------------------


def anatomy(rng):
    """A heart at end-diastole, and the part of its cavity's area that is left at end-systole."""
    cavity, wall, left, rv = GROUPS[rng.integers(len(GROUPS))]
    size = np.exp(rng.normal(0, 0.06))
    apical = rng.random() < 0.1  # a slice near the tip: small, with little or no RV
    wall = max(size * rng.normal(*wall), 2.6)
    cavity = max(size * rng.normal(*cavity) * (0.85 if apical else 1), 8.5)
    septum = np.radians(rng.normal(-76, 28))
    blood = rng.uniform(2.2, 5.0)
    papillary = [
        (
            septum + side * np.radians(rng.normal(115, 22)),
            rng.uniform(0.6, 0.85),
            rng.uniform(1.6, 3.5),
        )
        for side in (1, -1)
        for _ in range(rng.integers(1, 4))
    ]
    heart = Heart(
        centre=rng.normal(46, 4.7) + 1j * rng.normal(51, 5.5),
        septum=septum,
        radius=cavity + wall,
        wall=wall,
        outline=harmonics(rng, 0, 0.035, 0.012, 0.008, 0.005),
        thickness=harmonics(rng, 0.08, 0.06, 0.04),
        rv_depth=size * rv * rng.normal(16.8, 4.0) * (rng.uniform(0.1, 0.6) if apical else 1),
        rv_width=(0.78 * (cavity + wall) + 4.2) * rng.normal(0.85 if apical else 1, 0.12) * rv,
        rv_roundness=rng.uniform(0.6, 1.0),
        rv_outline=TRIANGLE + harmonics(rng, 0.02, 0.04, 0.05, 0.01),
        papillary=np.array(papillary),
        blood=blood,
        rv_blood=blood * rng.uniform(0.5, 0.95),
    )
    # Whoever plans a scan keeps the heart in the picture: the RV's far end, above all.
    tip = heart.centre + np.exp(1j * septum) * (heart.radius + heart.rv_depth)
    inside = np.clip(tip.real, 6, SIZE - 7) + 1j * np.clip(tip.imag, 6, SIZE - 7)
    return replace(heart, centre=heart.centre + inside - tip), rng.uniform(*left)


def contract(heart, left, rng):
    """The heart at end-systole: ``left`` of its cavity's area remains, and the wall thickens."""
    cavity = heart.radius - heart.wall
    muscle = (heart.radius**2 - cavity**2) * (1 + 0.55 * (1 - left))
    radius = (cavity**2 * left + muscle) ** 0.5
    # Muscle from above and below may enter the slice and dim the blood, in either ventricle.
    dim, rv_dim = 1 - np.maximum(rng.uniform(-0.6, 0.9, 2), 0) * (1 - left)
    return replace(
        heart,
        radius=radius,
        wall=radius - cavity * left**0.5,
        centre=heart.centre + complex(*rng.normal(0, 0.6, 2)),
        rv_depth=heart.rv_depth * (1 - rng.uniform(0.2, 1.3) * (1 - left)) - rng.uniform(0, 1.5),
        rv_width=heart.rv_width * (1 - 0.2 * (1 - left)),
        blood=1 + (heart.blood - 1) * dim,
        rv_blood=1 + (heart.rv_blood - 1) * rv_dim,
    )


def surroundings(heart, fat, rng):
    """The signal (96, 96) behind the heart: lung, belly and chest wall."""
    muscle, organs, air = rng.uniform(0.7, 1.2), rng.uniform(0.8, 1.6), rng.uniform(0.05, 0.6)
    fine, coarse, cloud = texture(rng, 0.8), texture(rng, 1.6), texture(rng, 5)
    up = np.exp(1j * (heart.septum + np.radians(rng.normal(-8, 14))))
    plane = PLANE + sum(  # bent by slow waves, so that no organ is a perfect ellipse
        complex(*rng.normal(0, 1.1, 2))
        * np.sin((PLANE * np.exp(2j * np.pi * rng.random())).real / rng.uniform(4, 14) + 6 * k)
        for k in range(5)
    )

    def near(low, high, distance):
        """A point so far from the epicardium, between two angles (degrees) from up, clockwise."""
        rotation = np.exp(1j * np.radians(rng.uniform(low, high)))
        return heart.centre + up * rotation * (heart.radius + distance)

    signal = air * (1 + 0.2 * cloud)
    signal = paint(signal, 2.7 - fine - 0.6 * cloud, heart.blood)  # vessels of the lung, clustered
    if rng.random() < 0.06:  # a slice without lung
        signal = 0.7 * fat

    radius = rng.uniform(30, 70)
    belly = blob(near(70, 120, radius + rng.uniform(0, 4)), radius, plane=plane)
    liver = paint(organs * (1 + 0.08 * coarse), 1.9 - coarse - 0.4 * cloud, 0.6 * heart.blood)
    signal = paint(signal, belly - rng.uniform(-2, 1.5), fat)
    signal = paint(signal, belly + 0.5, liver)
    radius = rng.uniform(8, 26)
    bowel = blob(near(110, 165, rng.uniform(8, 16) + radius), radius, plane=plane)
    signal = paint(signal, bowel, fat * (0.6 + 0.5 * np.abs(coarse)))
    for _ in range(rng.integers(1, 5)):  # spleen, stomach, vessels
        radius = rng.uniform(4, 12)
        centre = near(80, 165, radius + rng.uniform(2, 22))
        shape = rng.uniform(1, 1.9), rng.uniform(0, 3.1), harmonics(rng, 0, 0.05, 0.05)
        organ = blob(centre, radius, *shape, plane)
        level = 1.1 * heart.blood if rng.random() < 0.2 else organs * rng.uniform(0.5, 1.3)
        signal = paint(signal, organ - rng.uniform(-3, 1.8), fat)
        signal = paint(signal, organ, level * (1 + 0.1 * coarse))

    bend, depth = rng.uniform(55, 120), 0.0
    hub = heart.centre + up * (heart.radius + heart.rv_depth + rng.uniform(2, 7) - bend)
    chest = blob(hub, bend, plane=plane)
    layers = (muscle, 1, 4), (fat, 0, 5), (0.8 * muscle, 1, 6), (fat, 2, 20), (0.3 * air, 0, 0)
    for value, thin, thick in layers:  # from the inside out, to the air before the chest
        signal = paint(signal, depth - chest + rng.uniform(0, 1.2) * cloud, value)
        depth += rng.uniform(thin, thick)
    for angle in np.cumsum(rng.uniform(8, 14, 5)) / bend - rng.uniform(0.2, 0.8):
        centre = hub + up * (bend + 3) * np.exp(1j * angle)
        rib = blob(centre, rng.uniform(1.5, 3.2), 1.3, rng.uniform(0, 3.1), plane=plane)
        signal = paint(signal, rib - 1, 0.15 * muscle)
        signal = paint(signal, rib + 1, muscle * rng.uniform(0.5, 1.5))
    return signal * (1 + 0.08 * fine)


def chambers(fat, rng):
    """A function that paints a frame of one patient's heart over its surroundings, and labels it.

    It maps a signal (96, 96) and a Heart to the signal with the heart in it and the label map
    uint8 (96, 96).
    """
    pad, pads = rng.uniform(-1.5, 2), harmonics(rng, 1, 0.7, 0.5)
    rv_wall, strands, grain = rng.uniform(1, 2.2), texture(rng, 1.2), texture(rng, 2.2)
    rough, flow = np.maximum(strands, 0), 1 + 0.07 * grain + 0.04 * strands
    muscle = 1 + 0.05 * grain + 0.06 * strands

    def inside(signal, heart):
        axis = np.exp(1j * heart.septum)
        spoke = (PLANE - heart.centre) / axis
        towards = spoke / (np.abs(spoke) + 1e-9)  # 1 at the septum, -1 at the free wall
        epicardium = blob(heart.centre, heart.radius, outline=heart.outline)
        uneven = min(heart.wall, heart.radius - heart.wall) * wave(towards, heart.thickness)
        cavity = epicardium + np.maximum(heart.wall + uneven, 2)
        height = max(heart.rv_depth, heart.rv_roundness * heart.rv_width)
        rv = blob(
            heart.centre + axis * (heart.radius + heart.rv_depth - height),
            (heart.rv_width * height) ** 0.5,
            height / heart.rv_width,
            heart.septum,
            heart.rv_outline,
        )
        rv = np.maximum(union(rv, epicardium + 2, 4), 0.35 * heart.radius - spoke.real)
        if heart.rv_depth < 2:  # nobody would outline so thin a sliver: the slice misses the RV
            rv = rv + SIZE
        labels = np.select([cavity < 0, epicardium < 0, rv < 0], [3, 2, 1]).astype(np.uint8)

        outside = np.minimum(epicardium, rv - rv_wall)
        cushion = pad * (1 + wave(towards, pads)) + 0.6 * grain
        signal = paint(signal, outside - cushion, fat)
        signal = paint(signal, outside, muscle)
        # Trabeculae roughen the free walls; only the images show them, as in ACDC's contours.
        sponge = np.maximum(rv + 3.5 * rough, 3 * (strands + 0.5 * grain - 1.9))
        signal = paint(signal, sponge, heart.rv_blood * (2 * flow - 1))
        signal = paint(signal, epicardium, muscle)
        free = 0.5 - 0.5 * towards.real
        signal = paint(signal, cavity + 4 * free * rough, heart.blood * flow)
        for angle, depth, radius in heart.papillary:
            tip = heart.centre + depth * (heart.radius - heart.wall) * np.exp(1j * angle)
            signal = paint(signal, np.maximum(blob(tip, radius) + 0.6 * strands, cavity), muscle)
        return signal, labels

    return inside


# --- acquisition ---------------------------------------------------------------------------------


def scanner(septum, rng):
    """A function from signal (96, 96) to image uint8 (96, 96): one examination's coil, resolution,
    noise and grey window. The chest, near the coil, lies towards the ``septum``."""
    z = (PLANE - PLANE.mean()) / (SIZE / 2) / np.exp(1j * septum)
    coil = np.exp(
        rng.normal(0.25, 0.2) * z.real
        + rng.normal(0, 0.2) * z.imag
        + wave(z, harmonics(rng, 0, 0.15))
    )
    # A finite part of frequency space: partial volume, and ringing along sharp edges.
    fx, fy = np.fft.fftfreq(SIZE), np.fft.fftfreq(SIZE)[:, None]
    band = np.exp(-2 * (np.pi * rng.uniform(0.1, 0.75)) ** 2 * (fx**2 + fy**2))
    band = band * (np.abs(fx) < rng.uniform(0.4, 0.5)) * (np.abs(fy) < rng.uniform(0.4, 0.5))
    noise, white = rng.uniform(0.04, 0.14), rng.uniform(97.5, 99.8)

    def scan(signal):
        real, imaginary = noise * rng.normal(size=(2, SIZE, SIZE))
        image = np.abs(np.fft.ifft2(np.fft.fft2(signal * coil + real + 1j * imaginary) * band))
        return np.clip(np.rint(image * (255 / np.percentile(image, white))), 0, 255).astype("u1")

    return scan
