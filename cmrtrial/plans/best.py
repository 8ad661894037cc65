"""Plans towards the best model: a ladder of recipes, and ways to predict with its networks."""

from dataclasses import replace

from cmrseg.config import PRESETS
from cmrseg.predict import TTA
from cmrtrial.corruptions import LEVELS
from cmrtrial.spec import EXPERIMENTS, TRAIN_FOLDS, RunSpec, cumulative, runs

# Each step keeps what the steps before it brought. The one with the highest mean Dice on the five
# folds within the training patients becomes the recipe.
SHAPES = ("strong-affine", "elastic", "strong-intensity")
GREYS = ("gamma", "bias-field", "low-resolution")
LADDER_STEPS = {
    "book": {},
    "+ averaged weights": {"ema": 0.99},
    "+ residual blocks": {"model": "final", "residual": True, "channels": (16, 32, 64, 128, 192)},
    "+ deep supervision": {"deep": 2},
    "+ 120 epochs": {"epochs": 120},
    "+ more shapes": {"augment": SHAPES},
    "+ more greys": {"augment": SHAPES + GREYS},
    "+ mirrored": {"augment": ("mirror", *SHAPES, *GREYS)},
    "+ 300 epochs": {"epochs": 300},
}
CUMULATIVE = cumulative(LADDER_STEPS)
_GREYS, _MIRRORED = CUMULATIVE["+ more greys"], CUMULATIVE["+ mirrored"]
_PLAIN_UNET = {
    "model": "unet",
    "residual": False,
    "channels": PRESETS["book"].channels,
    "deep": 0,
}
_LONG = {"epochs": 1000, "loss": "ce+dice each"}
LADDER = CUMULATIVE | {
    "300 epochs, not mirrored": _GREYS | {"epochs": 300},
    "120 epochs, at half the resolution": _GREYS | {"strided": True},
    "120 epochs, Dice of each slice": _GREYS | {"loss": "ce+dice each"},
    "120 epochs, the plain U-Net": _GREYS | _PLAIN_UNET,
    "1000 epochs, Dice of each slice": _MIRRORED | _LONG,
    "1000 epochs, half as wide": _MIRRORED | _LONG | {"channels": (8, 16, 32, 64, 96)},
}

# One recipe ran with three seeds: what is luck worth here, and do such networks agree?
REPEATED = "120 epochs, Dice of each slice"

# The recipe and the test-time augmentation with the highest mean Dice on the folds within the
# training patients.
FINAL = "1000 epochs, Dice of each slice"
_ROTATIONS = (-10.0, 0.0, 10.0)
TTAS = {
    "as it is": TTA(),
    "mirrored": TTA(flip=True),
    "turned": TTA(_ROTATIONS),
    "turned, cleaned": TTA(_ROTATIONS, postprocess=True),
    "mirrored, turned": TTA(_ROTATIONS, flip=True),
    "mirrored, turned, cleaned": TTA(_ROTATIONS, flip=True, postprocess=True),
}
FINAL_TTA = TTAS["mirrored, turned, cleaned"]
# The small network is there to be fast: a quarter of the work and one view. Should its mean on the
# same folds be more than 0.01 below the recipe's, then it is of the recipe's size.
SMALL, SMALL_TTA = "1000 epochs, half as wide", TTA(postprocess=FINAL_TTA.postprocess)


def with_networks(
    setting: str, recipe: str, tta: TTA, splits=TRAIN_FOLDS, **options
) -> list[RunSpec]:
    """The kept networks of a recipe of the ladder, predicting in this way."""
    config = replace(PRESETS["book"], **LADDER[recipe])
    return [RunSpec(setting, config, split, "final", tta=tta, **options) for split in splits]


# The recipes; their networks are kept.
EXPERIMENTS["final-ladder"] = [
    replace(spec, protocol="final", keep=True)
    for spec in runs("book", TRAIN_FOLDS, settings=LADDER)
    + runs("book", TRAIN_FOLDS, (1, 2), {REPEATED: LADDER[REPEATED]})
]

# Test-time augmentation and post-processing of the best recipe.
EXPERIMENTS["final-ways"] = [
    spec for name, tta in TTAS.items() for spec in with_networks(name, FINAL, tta, seeds=(0,))
]

# Does a network know when it is wrong? One of a recipe with three seeds, and all three.
EXPERIMENTS["final-trust"] = [
    spec
    for name in ("as it is", "turned")
    for count, seeds in (("one network", (0,)), ("three networks", (0, 1, 2)))
    for spec in with_networks(f"{count}, {name}", REPEATED, TTAS[name], seeds=seeds)
]

# Slices as another scanner or another patient would give them.
EXPERIMENTS["final-shifts"] = [
    spec
    for recipe in ("book", FINAL)
    for change, (_, levels) in LEVELS.items()
    for level in levels
    for spec in with_networks(
        f"{recipe}, {change} {level:g}",
        recipe,
        TTA(),
        seeds=(0,),
        shift=(change, float(level)),
    )
]

# The validation slices, once: five networks, one of each fold; and one of all slices.
EXPERIMENTS["final"] = [
    *with_networks("final", FINAL, FINAL_TTA, ["val"], seeds=(0,)),
    *with_networks("small", SMALL, SMALL_TTA, ["val"]),
]
