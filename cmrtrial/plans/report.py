"""Plans of the report on trial: what carries most comes first."""

from dataclasses import replace

from cmrseg.config import PRESETS
from cmrtrial.spec import FOLDS, TUNE, RunSpec, cumulative, each, experiment, grid, prefixed, runs

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


@experiment("baseline", pools_seeds=True)
def baseline():
    """Five seeds of both recipes on every fold."""
    return runs("replica", FOLDS, range(5)) + runs("modern", FOLDS, range(5))


@experiment("noise-floor")
def noise_floor():
    """The report's own split: how large a difference did chance make there?"""
    return runs("replica", ["val"], range(10))


@experiment("architectures-tuning")
def architectures_tuning():
    """Three rates for each network; the best, by Dice after the last epoch, is used below.

    Where it lay at the edge, one more was added beyond it, for all where the U-Net's did.
    """
    tried = {"replica": (0.0003, 0.001, 0.003, 0.01), "modern": (0.001, 0.003, 0.01)}
    specs = [
        spec
        for protocol, rates in tried.items()
        for net, changes in NETS.items()
        for spec in runs(protocol, TUNE, settings=prefixed(net, each("lr", *rates, **changes)))
    ]
    with_sgd = each("lr", 0.001, 0.01, 0.1, 1, **ALEXNET, **SGD)
    more = prefixed("AlexNet, SGD", with_sgd) | prefixed("Ning", each("lr", 0.0001, **NING))
    specs += runs("replica", TUNE, settings=more)
    return specs + runs("modern", TUNE, settings=prefixed("Ning", each("lr", 0.03, **NING)))


@experiment("optimiser-tuning")
def optimiser_tuning():
    """Rates for each optimiser; chosen as in "architectures-tuning"."""
    settings = (
        prefixed("SGD", each("lr", 0.01, 0.1, 1, 3, **SGD))
        | prefixed("SGD with momentum", each("lr", 0.001, 0.01, 0.1, 0.3, **MOMENTUM))
        | prefixed("Adam", each("lr", 0.0003, 0.001, 0.003, 0.01))
        | prefixed("AdamW", each("lr", 0.0003, 0.001, 0.003, 0.01, **ADAMW))
    )
    return runs("replica", TUNE, settings=settings)


def _at_best_rate(protocol: str, nets: dict) -> dict:
    return {net: changes | {"lr": RATES[protocol][net]} for net, changes in nets.items()}


@experiment("architectures", pools_seeds=True)
def architectures():
    """The networks; what carries a headline has three seeds, the rest asks what size, epochs and
    dropout would change."""
    nets = _at_best_rate("replica", NETS | {"AlexNet, SGD": ALEXNET | SGD})
    matched = _at_best_rate("replica", MATCHED)
    variants = {f"{net}, {what}": nets[net] | changes for (net, what), changes in VARIANTS.items()}
    return (
        runs("replica", FOLDS, range(3), nets)
        + runs("replica", FOLDS, settings={f"{net}, matched": c for net, c in matched.items()})
        + runs("replica", FOLDS, settings=variants)
        + runs("modern", FOLDS, range(3), _at_best_rate("modern", NETS))
    )


@experiment("repairs")
def repairs():
    """One fix at a time, one fix alone, and all but one."""
    so_far = cumulative(REPAIRS)
    return (
        runs("replica", FOLDS, range(3))
        + runs("replica", FOLDS, settings={f"with {name}": fix for name, fix in REPAIRS.items()})
        + runs("replica", FOLDS, settings={f"up to {n}": so_far[n] for n in ("loss", "skips")})
        + runs("modern", FOLDS, range(3))
        + runs("modern", FOLDS, settings={f"without {name}": c for name, c in UNREPAIRED.items()})
    )


@experiment("optimiser")
def optimiser():
    """SGD, Adam and AdamW, at the report's rate and at their own."""
    own = {f"{name}, own rate": changes for name, changes in OWN_RATES.items()}
    modern = {"AdamW": {}}
    modern |= {n: {"optimiser": n.lower(), "weight_decay": 0.0} for n in ("Adam", "SGD")}
    return grid("replica", {"SGD": SGD, "Adam": {}, "AdamW": ADAMW} | own) + grid("modern", modern)


# --- one choice at a time ------------------------------------------------------------------------


@experiment("batch-size")
def batch_size():
    """Batches of 2 to 32, for as many epochs or steps; and without a short last one."""
    longest = "32, equal updates"
    main = each("batch", 2, 8, 32) | {longest: EQUAL_UPDATES[longest]}
    extra = each("batch", 4, 16) | {n: c for n, c in EQUAL_UPDATES.items() if n != longest}
    of_100 = {"32 of 100": {"batch": 32}, "32 of 100, drop last": {"batch": 32, "drop_last": True}}
    return (
        grid("replica", main, extra)
        + runs("replica", ["val"], range(3), of_100)
        + grid("modern", each("batch", 4, 2, 32))
    )


@experiment("activation")
def activation():
    """Five activation functions."""
    return grid(
        "replica", each("activation", "sigmoid", "leaky-relu", "relu", "tanh", "hardtanh")
    ) + grid("modern", each("activation", "relu", "sigmoid", "tanh"))


@experiment("kernel-size")
def kernel_size():
    """Kernels of 1, 3 and 5 pixels."""
    return grid("replica", each("kernel", 1, 3, 5)) + grid("modern", each("kernel", 1, 3, 5))


@experiment("dropout")
def dropout():
    """Dropout from 0 to a half."""
    return grid("replica", each("dropout", 0.0, 0.1, 0.3, 0.5), each("dropout", 0.2, 0.4)) + grid(
        "modern", each("dropout", 0.0, 0.1, 0.5)
    )


@experiment("augmentation")
def augmentation():
    """None, the report's doubled set of mirrored slices, and random changes."""
    affine, doubled = {"augment": ("affine",)}, {"mirrored_set": True}
    return grid(
        "replica",
        {"none": {}, "mirrored, doubled": doubled},
        {"affine": affine, "affine + intensity": AUGMENT},
    ) + grid(
        "modern",
        {
            "none": {"augment": ()},
            "mirrored, doubled": {"augment": ()} | doubled,
            "affine": affine,
            "affine + intensity": {},
        },
    )


@experiment("learning-rate-wide")
def learning_rate_wide():
    """The report's wide grid: its 28 rates on one fold, those that claims name on five."""
    wide = [*(n / 1000 for n in range(2, 10)), *(n / 100 for n in range(1, 10))]
    extra = each("lr", *wide, 0.1, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9)
    return (
        grid("replica", each("lr", 0.001, 0.2, 0.6, 1.0), extra, FOLDS[:1])
        + runs("replica", FOLDS, (1, 2), each("lr", 0.6))  # is it a share of runs that collapses?
        + grid("modern", each("lr", 0.003, 0.2, 0.6))
    )


@experiment("learning-rate-narrow")
def learning_rate_narrow():
    """The report's narrow grid."""
    return grid("replica", each("lr", 0.001, 0.01, 0.025), each("lr", 0.005, 0.015, 0.02)) + grid(
        "modern", each("lr", 0.003, 0.001, 0.025)
    )


@experiment("learning-rate-small")
def learning_rate_small():
    """The report's grid of small rates."""
    return grid(
        "replica", each("lr", 0.0001, 0.0005, 0.001, 0.0025), each("lr", 0.0015, 0.002)
    ) + grid("modern", each("lr", 0.003, 0.0001, 0.0005))


@experiment("channels")
def channels():
    """Four levels of width, from 1 to 32 channels at the finest."""
    main = {name: c for name, c in FOUR_LEVELS.items() if name in MAIN_CHANNELS}
    extra = {name: c for name, c in FOUR_LEVELS.items() if name not in MAIN_CHANNELS}
    return (
        grid("replica", main, extra)
        + runs("replica", FOLDS, (1, 2), {"1-2-4-8": FOUR_LEVELS["1-2-4-8"]})
        + grid("modern", main)
    )


@experiment("topology")
def topology():
    """Two to five blocks of two to four convolutions."""
    main = {name: TOPOLOGIES[name] for name in ("2 x 2", "5 x 2")}
    extra = {name: c for name, c in TOPOLOGIES.items() if name not in main}
    return grid("replica", main, extra) + grid("modern", main)


@experiment("depth")
def depth():
    """Two to six convolutions in a block."""
    ends = each("convolutions", 2, 6)
    return grid("replica", ends, each("convolutions", 3, 4, 5)) + grid("modern", ends)


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


@experiment("patients")
def patients():
    """Trainings with some of the 48 patients of a fold, and about as many steps as with all of
    them; the same begun with phantoms; phantoms alone; and patients judged on phantoms."""
    specs = []
    for count in (5, 10, 20, 35, 48):
        splits = FOLDS if count == 48 else [f"{fold}@{count}" for fold in FOLDS]
        longer = {"epochs": round(PRESETS["modern"].epochs * 48 / count)}
        settings = {f"{count}": longer, f"{count}, {PHANTOMS} first": longer | {"start": PHANTOMS}}
        specs += runs("modern", splits, settings=settings)
    specs += [replace(ON_PHANTOMS, config=replace(ON_PHANTOMS.config, seed=s)) for s in range(5)]
    return specs + runs("modern", ["to-phantom"], range(3), {"patients, judged on phantoms": {}})


@experiment("where-it-fails")
def where_it_fails():
    """Is the right ventricle hard because of its place, or because of its grey level?"""
    specs = []
    for protocol in ("replica", "modern"):
        specs += runs(protocol, FOLDS, range(5), {"RV": {}})
        for change, name in (
            ("shuffled", "positions shuffled"),
            ("equalised", "grey levels equalised"),
        ):
            splits = [f"{fold}+{change}" for fold in FOLDS]
            specs += runs(protocol, splits, settings={f"RV, {name}": {}})
    return specs
