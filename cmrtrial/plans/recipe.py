"""Plans of the book's own recipe, and of the pages of its first two parts."""

from cmrtrial.spec import EXPERIMENTS, FOLDS, RANDOM, TRAIN_FOLDS, TUNE, runs, vary

# The recipe that the book began with, on the way to its own.
FIRST = {"epochs": 30, "augment": ("affine", "intensity")}

# The peak learning rate, chosen within the training part of one fold.
EXPERIMENTS["book-learning-rate"] = runs(
    "book", TUNE, settings=vary("lr", 0.0015, 0.003, 0.006, **FIRST)
)

# The first recipe on the report's split: it missed 0.86, so a better one was looked for.
EXPERIMENTS["book-first"] = runs("book", ["val"], range(3), {"first recipe": FIRST})

# What to change in the first recipe, chosen by five folds within the training patients.
_STRONG_INTENSITY, _STRONG = ("affine", "strong-intensity"), ("strong-affine", "strong-intensity")
_CHANGES = {
    "as it was": {},
    "batch 2": {"batch": 2},
    "60 epochs": {"epochs": 60},
    "mirrored": {"augment": ("mirror", "affine", "intensity")},
    "strong affine": {"augment": ("strong-affine", "intensity")},
    "strong intensity": {"augment": _STRONG_INTENSITY},
    "60 epochs, strong intensity": {"epochs": 60, "augment": _STRONG_INTENSITY},
    "60 epochs, strong": {"epochs": 60, "augment": _STRONG},
    "60 epochs, strong, mirrored": {"epochs": 60, "augment": ("mirror", *_STRONG)},
}
EXPERIMENTS["book-recipe"] = runs(
    "modern", TRAIN_FOLDS, settings={name: FIRST | c for name, c in _CHANGES.items()}
)

# The network a reader trains, on the report's split.
EXPERIMENTS["book"] = runs("book", ["val"], range(3))

# The report's own recipe, once, at full size.
EXPERIMENTS["as-published"] = runs("report", ["val"])

# The same recipe, narrower: the collapse and the late start.
EXPERIMENTS["late-start"] = runs("replica", ["val"], range(3))

# One network, two ways to hold slices out: by patient, and by slice at random.
EXPERIMENTS["leakage"] = runs("modern", FOLDS) + runs("modern", RANDOM)
