"""Plans of the report on trial: what carries most comes first."""

from dataclasses import replace

from cmrseg.config import PRESETS
from cmrtrial.spec import EXPERIMENTS, FOLDS, TUNE, RunSpec, cumulative, grid, prefixed, runs, vary

# --- what is changed -----------------------------------------------------------------------------

# Five levels of width everywhere but in "channels", where the report has four.
WIDTHS = (8, 16, 32, 64, 128)
FOUR_LEVELS = {
    "-".join(map(str, widths)): {"channels": widths}
    for widths in ((n, 2 * n, 4 * n, 8 * n) for n in (1, 4, 8, 16, 32))
}
MAIN_CHANNELS = ("1-2-4-8", "4-8-16-32", "16-32-64-128")

# Blocks x convolutions in each.
TOPOLOGIES = {
    f"{blocks} x {depth}": {"channels": WIDTHS[:blocks], "convolutions": depth}
    for blocks in (2, 3, 4, 5)
    for depth in (2, 3, 4)
}

# A batch of 2 takes 48 steps an epoch on a fold; so many epochs give larger ones as many steps.
EQUAL_UPDATES = {
    f"{batch}, equal updates": {"batch": batch, "epochs": 100 * batch // 2}
    for batch in (4, 8, 16, 32)
}

SGD, MOMENTUM = {"optimiser": "sgd"}, {"optimiser": "sgd", "momentum": 0.9}
ADAMW = {"optimiser": "adamw", "weight_decay": 0.01}
# Each optimiser at the best of the rates tried in "optimiser-tuning".
OWN_RATES = {
    "SGD": SGD | {"lr": 3},
    "SGD with momentum": MOMENTUM | {"lr": 0.3},
    "Adam": {"lr": 0.003},
    "AdamW": ADAMW | {"lr": 0.01},
}
AUGMENT = {"augment": ("affine", "strong-intensity")}

# The rivals at a quarter of their width, as the replica is of the report's U-Net; Ning's is small.
SEGNET = {"model": "segnet", "channels": (16, 32, 64, 128, 128)}
ALEXNET = {"model": "alexnet", "channels": (24, 64, 96, 96, 64, 256), "dropout": 0.5}
NING = {"model": "ning", "channels": (6, 16, 40)}
NETS = {"U-Net": {}, "SegNet": SEGNET, "AlexNet": ALEXNET, "Ning": NING}
# The same with as many parameters as the replica's U-Net, half a million.
MATCHED = {
    "SegNet": SEGNET | {"channels": (9, 18, 37, 74, 74)},
    "AlexNet": ALEXNET | {"channels": (30, 80, 120, 120, 80, 320)},
    "Ning": NING | {"channels": (32, 84, 212)},
}
# What the report tried, or might have: more epochs, more dropout, the full width.
VARIANTS = {
    ("SegNet", "long"): {"epochs": 200},
    ("AlexNet", "long"): {"epochs": 300},
    ("AlexNet", "dropout 0.7"): {"dropout": 0.7},
    ("AlexNet", "full width"): {"channels": (96, 256, 384, 384, 256, 1024)},
    ("Ning", "long"): {"epochs": 500},
}
# The best of the rates tried in "architectures-tuning", by Dice after the last epoch.
RATES = {
    "replica": {
        "U-Net": 0.003,
        "SegNet": 0.001,
        "AlexNet": 0.001,
        "AlexNet, SGD": 0.1,
        "Ning": 0.0003,
    },
    "modern": {"U-Net": 0.003, "SegNet": 0.003, "AlexNet": 0.003, "Ning": 0.03},
}

# From the report's recipe to the modern one: five repairs that together make the one of the other.
REPAIRS = {
    "scale": {"scale": "zscore"},
    "loss": {"loss": "ce+dice"},
    "skips": {"skips": "before"},
    "schedule": ADAMW | {"lr": 0.003, "schedule": "one-cycle", "batch": 4, "epochs": 60},
    "augmentation": AUGMENT,
}
UNREPAIRED = {
    name: {field: getattr(PRESETS["replica"], field) for field in repair}
    for name, repair in REPAIRS.items()
}


# --- baselines, networks and optimisers ----------------------------------------------------------

# Five seeds of both recipes on every fold.
EXPERIMENTS["baseline"] = runs("replica", FOLDS, range(5)) + runs("modern", FOLDS, range(5))

# The report's own split: how large a difference did chance make there?
EXPERIMENTS["noise-floor"] = runs("replica", ["val"], range(10))

# Three rates for each network; the best, by Dice after the last epoch, is used below. Where it lay
# at the edge, one more was added beyond it, for all where the U-Net's did.
_TRIED = {"replica": (0.0003, 0.001, 0.003, 0.01), "modern": (0.001, 0.003, 0.01)}
EXPERIMENTS["architectures-tuning"] = [
    *(
        spec
        for protocol, rates in _TRIED.items()
        for net, changes in NETS.items()
        for spec in runs(protocol, TUNE, settings=prefixed(net, vary("lr", *rates, **changes)))
    ),
    *runs(
        "replica",
        TUNE,
        settings=prefixed("AlexNet, SGD", vary("lr", 0.001, 0.01, 0.1, 1, **ALEXNET, **SGD))
        | prefixed("Ning", vary("lr", 0.0001, **NING)),
    ),
    *runs("modern", TUNE, settings=prefixed("Ning", vary("lr", 0.03, **NING))),
]

# Rates for each optimiser; chosen as in "architectures-tuning".
EXPERIMENTS["optimiser-tuning"] = runs(
    "replica",
    TUNE,
    settings=prefixed("SGD", vary("lr", 0.01, 0.1, 1, 3, **SGD))
    | prefixed("SGD with momentum", vary("lr", 0.001, 0.01, 0.1, 0.3, **MOMENTUM))
    | prefixed("Adam", vary("lr", 0.0003, 0.001, 0.003, 0.01))
    | prefixed("AdamW", vary("lr", 0.0003, 0.001, 0.003, 0.01, **ADAMW)),
)


def _at_best_rate(protocol: str, nets: dict) -> dict:
    return {net: changes | {"lr": RATES[protocol][net]} for net, changes in nets.items()}


# The networks; what carries a headline has three seeds, the rest asks what size, epochs and dropout
# would change.
_NETS = _at_best_rate("replica", NETS | {"AlexNet, SGD": ALEXNET | SGD})
_MATCHED = {f"{net}, matched": c for net, c in _at_best_rate("replica", MATCHED).items()}
_VARIANTS = {f"{net}, {what}": _NETS[net] | changes for (net, what), changes in VARIANTS.items()}
EXPERIMENTS["architectures"] = (
    runs("replica", FOLDS, range(3), _NETS)
    + runs("replica", FOLDS, settings=_MATCHED | _VARIANTS)
    + runs("modern", FOLDS, range(3), _at_best_rate("modern", NETS))
)

# One fix at a time, one fix alone, and all but one.
_SO_FAR = cumulative(REPAIRS)
EXPERIMENTS["repairs"] = (
    runs("replica", FOLDS, range(3))
    + runs("replica", FOLDS, settings={f"with {name}": fix for name, fix in REPAIRS.items()})
    + runs("replica", FOLDS, settings={f"up to {n}": _SO_FAR[n] for n in ("loss", "skips")})
    + runs("modern", FOLDS, range(3))
    + runs("modern", FOLDS, settings={f"without {name}": c for name, c in UNREPAIRED.items()})
)

# SGD, Adam and AdamW, at the report's rate and at their own.
EXPERIMENTS["optimiser"] = grid(
    "replica",
    {"SGD": SGD, "Adam": {}, "AdamW": ADAMW}
    | {f"{name}, own rate": changes for name, changes in OWN_RATES.items()},
) + grid(
    "modern",
    {"AdamW": {}}
    | {name: {"optimiser": name.lower(), "weight_decay": 0.0} for name in ("Adam", "SGD")},
)


# --- one choice at a time ------------------------------------------------------------------------

# Batches of 2 to 32, for as many epochs or steps; and without a short last one.
_LONGEST = {"32, equal updates": EQUAL_UPDATES["32, equal updates"]}
_SHORTER = {name: c for name, c in EQUAL_UPDATES.items() if name not in _LONGEST}
EXPERIMENTS["batch-size"] = (
    grid("replica", vary("batch", 2, 8, 32) | _LONGEST, vary("batch", 4, 16) | _SHORTER)
    + runs(
        "replica",
        ["val"],
        range(3),
        {"32 of 100": {"batch": 32}, "32 of 100, drop last": {"batch": 32, "drop_last": True}},
    )
    + grid("modern", vary("batch", 4, 2, 32))
)

# Five activation functions.
EXPERIMENTS["activation"] = grid(
    "replica", vary("activation", "sigmoid", "leaky-relu", "relu", "tanh", "hardtanh")
) + grid("modern", vary("activation", "relu", "sigmoid", "tanh"))

# Kernels of 1, 3 and 5 pixels.
_KERNELS = vary("kernel", 1, 3, 5)
EXPERIMENTS["kernel-size"] = grid("replica", _KERNELS) + grid("modern", _KERNELS)

# Dropout from 0 to a half.
EXPERIMENTS["dropout"] = grid(
    "replica", vary("dropout", 0.0, 0.1, 0.3, 0.5), vary("dropout", 0.2, 0.4)
) + grid("modern", vary("dropout", 0.0, 0.1, 0.5))

# None, the report's doubled set of mirrored slices, and random changes.
_AFFINE, _DOUBLED = {"augment": ("affine",)}, {"mirrored_set": True}
EXPERIMENTS["augmentation"] = grid(
    "replica",
    {"none": {}, "mirrored, doubled": _DOUBLED},
    {"affine": _AFFINE, "affine + intensity": AUGMENT},
) + grid(
    "modern",
    {
        "none": {"augment": ()},
        "mirrored, doubled": {"augment": ()} | _DOUBLED,
        "affine": _AFFINE,
        "affine + intensity": {},
    },
)

# The report's wide grid: its 28 rates on one fold, those that claims name on five.
_WIDE = [*(n / 1000 for n in range(2, 10)), *(n / 100 for n in range(1, 10))]
_WIDE += [0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9]
EXPERIMENTS["learning-rate-wide"] = (
    grid("replica", vary("lr", 0.001, 0.2, 0.6, 1.0), vary("lr", *_WIDE), FOLDS[:1])
    + runs("replica", FOLDS, (1, 2), vary("lr", 0.6))  # is it a share of runs that collapses?
    + grid("modern", vary("lr", 0.003, 0.2, 0.6))
)

# The report's narrow grid.
EXPERIMENTS["learning-rate-narrow"] = grid(
    "replica", vary("lr", 0.001, 0.01, 0.025), vary("lr", 0.005, 0.015, 0.02)
) + grid("modern", vary("lr", 0.003, 0.001, 0.025))

# The report's grid of small rates.
EXPERIMENTS["learning-rate-small"] = grid(
    "replica", vary("lr", 0.0001, 0.0005, 0.001, 0.0025), vary("lr", 0.0015, 0.002)
) + grid("modern", vary("lr", 0.003, 0.0001, 0.0005))

# Four levels of width, from 1 to 32 channels at the finest.
_CHANNELS = {name: FOUR_LEVELS[name] for name in MAIN_CHANNELS}
EXPERIMENTS["channels"] = (
    grid("replica", _CHANNELS, {n: c for n, c in FOUR_LEVELS.items() if n not in _CHANNELS})
    + runs("replica", FOLDS, (1, 2), {"1-2-4-8": FOUR_LEVELS["1-2-4-8"]})
    + grid("modern", _CHANNELS)
)

# Two to five blocks of two to four convolutions.
_ENDS = {name: TOPOLOGIES[name] for name in ("2 x 2", "5 x 2")}
EXPERIMENTS["topology"] = grid(
    "replica", _ENDS, {name: c for name, c in TOPOLOGIES.items() if name not in _ENDS}
) + grid("modern", _ENDS)

# Two to six convolutions in a block.
EXPERIMENTS["depth"] = grid(
    "replica", vary("convolutions", 2, 6), vary("convolutions", 3, 4, 5)
) + grid("modern", vary("convolutions", 2, 6))


# --- patients, and where networks fail -----------------------------------------------------------

# Twice the steps of the modern recipe, on many phantoms: a network that a training may begin with.
PHANTOMS = "phantoms"
ON_PHANTOMS = RunSpec(
    f"{PHANTOMS} only",
    replace(PRESETS["modern"], epochs=30),
    "from-phantom",
    "modern",
    keep=True,
)


def _some_of_48(count: int) -> list[RunSpec]:
    """As many of the 48 patients of a fold, for about as many steps as with all of them."""
    splits = FOLDS if count == 48 else [f"{fold}@{count}" for fold in FOLDS]
    longer = {"epochs": round(PRESETS["modern"].epochs * 48 / count)}
    settings = {f"{count}": longer, f"{count}, {PHANTOMS} first": longer | {"start": PHANTOMS}}
    return runs("modern", splits, settings=settings)


# Trainings with some of the patients; the same begun with phantoms; phantoms alone; and patients
# judged on phantoms.
EXPERIMENTS["patients"] = [
    *(spec for count in (5, 10, 20, 35, 48) for spec in _some_of_48(count)),
    *(replace(ON_PHANTOMS, config=replace(ON_PHANTOMS.config, seed=s)) for s in range(5)),
    *runs("modern", ["to-phantom"], range(3), {"patients, judged on phantoms": {}}),
]

# Is the right ventricle hard because of its place, or because of its grey level?
_RV = {
    "RV": ("", range(5)),
    "RV, positions shuffled": ("+shuffled", (0,)),
    "RV, grey levels equalised": ("+equalised", (0,)),
}
EXPERIMENTS["where-it-fails"] = [
    spec
    for protocol in ("replica", "modern")
    for setting, (change, seeds) in _RV.items()
    for spec in runs(protocol, [fold + change for fold in FOLDS], seeds, {setting: {}})
]
