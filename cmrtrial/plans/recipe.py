"""Plans of the book's own recipe, and of the pages of its first two parts."""

from cmrtrial.spec import FOLDS, RANDOM, TRAIN_FOLDS, TUNE, each, experiment, runs

# The recipe that the book began with, on the way to its own.
FIRST = {"epochs": 30, "augment": ("affine", "intensity")}


@experiment("book-learning-rate")
def book_learning_rate():
    """The peak learning rate, chosen within the training part of one fold."""
    return runs("book", TUNE, settings=each("lr", 0.0015, 0.003, 0.006, **FIRST))


@experiment("book-first")
def book_first():
    """The first recipe on the report's split: it missed 0.86, so a better one was looked for."""
    return runs("book", ["val"], range(3), {"first recipe": FIRST})


@experiment("book-recipe")
def book_recipe():
    """What to change in the first recipe, chosen by five folds within the training patients."""
    mirror, strong_affine = ("mirror", "affine", "intensity"), ("strong-affine", "intensity")
    strong_intensity, strong = ("affine", "strong-intensity"), ("strong-affine", "strong-intensity")
    settings = {
        "as it was": {},
        "batch 2": {"batch": 2},
        "60 epochs": {"epochs": 60},
        "mirrored": {"augment": mirror},
        "strong affine": {"augment": strong_affine},
        "strong intensity": {"augment": strong_intensity},
        "60 epochs, strong intensity": {"epochs": 60, "augment": strong_intensity},
        "60 epochs, strong": {"epochs": 60, "augment": strong},
        "60 epochs, strong, mirrored": {"epochs": 60, "augment": ("mirror", *strong)},
    }
    return runs("modern", TRAIN_FOLDS, settings={n: FIRST | c for n, c in settings.items()})


@experiment("book")
def book():
    """The network a reader trains, on the report's split."""
    return runs("book", ["val"], range(3))


@experiment("as-published")
def as_published():
    """The report's own recipe, once, at full size."""
    return runs("report", ["val"])


@experiment("late-start")
def late_start():
    """The same recipe, narrower: the collapse and the late start."""
    return runs("replica", ["val"], range(3))


@experiment("leakage")
def leakage():
    """One network, two ways to hold slices out: by patient, and by slice at random."""
    return runs("modern", FOLDS) + runs("modern", RANDOM)
