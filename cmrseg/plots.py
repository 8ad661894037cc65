"""Pictures: slices with their labels, curves, intervals. One colour per class, everywhere.

Figures have no background and grey text, so that they suit light and dark pages alike. Functions
draw into given axes, or make a figure and return it.
"""

import sys
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cmrseg import datasets

# Safe for colour-blind readers, and apart in lightness too.
CLASS_COLOURS = {"RV": "#648FFF", "Myo": "#FFB000", "LV": "#DC267F"}
GREY = "#808080"
ACCENT = "#785EF0"
CONTRAST = "#FE6100"  # the second colour: what the report said, what is wrong
LICENCE = "slices: ACDC, CC BY-NC-SA 4.0"
# Opaque: the ink on it has to suit both themes.
HEAT = LinearSegmentedColormap.from_list("heat", ["#E9E5FC", ACCENT, "#33238F"])
# From little to much, for lines: neither end sinks into a light page or a dark one.
SHADES = LinearSegmentedColormap.from_list("shades", [ACCENT, "#DC267F", CONTRAST, "#FFB000"])
LINES = (ACCENT, CONTRAST, "#00A078", GREY, "#5B8C9E", "#A0522D")
LABELS = ListedColormap([(0, 0, 0, 0), *(to_rgba(c) for c in CLASS_COLOURS.values())])


def style() -> None:
    """Set the look of every figure and table; call it once at the top of a notebook."""
    if "pandas" in sys.modules:
        sys.modules["pandas"].options.display.max_colwidth = None  # no verdict is cut in mid-word
    plt.rc("figure", facecolor="none", dpi=100)
    plt.rc("figure.constrained_layout", use=True, hspace=0.06)
    plt.rc("savefig", facecolor="none", bbox="tight")
    plt.rc("axes", facecolor="none", edgecolor=GREY, labelcolor=GREY, titlecolor=GREY)
    plt.rc("axes", titlesize=11, labelsize=10.5, grid=False, prop_cycle=plt.cycler(color=LINES))
    plt.rc("axes.spines", top=False, right=False)
    plt.rc(("xtick", "ytick", "text"), color=GREY)
    plt.rc("font", size=10.5)
    plt.rc("legend", fontsize=9.5, frameon=False)
    plt.rc("grid", color=GREY, alpha=0.2)
    plt.rc("lines", linewidth=2)
    plt.rc("image", cmap="gray")
    plt.rc("svg", hashsalt="cmrseg")
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython():  # a notebook
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")


def panels(columns: int, rows: int = 1, size: float = 2.3) -> tuple[Figure, np.ndarray]:
    """A figure of square panels without axes, for pictures: (figure, axes (rows * columns,))."""
    figure, axes = plt.subplots(rows, columns, figsize=(size * columns, size * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    return figure, axes.ravel()


def show(ax: Axes, image: np.ndarray, title: str = "") -> Axes:
    """Draw a slice (H, W) in grey; of real slices (``CMRSEG_DATA``), with their licence."""
    ax.imshow(image, cmap="gray", interpolation="nearest")
    ax.set_title(title)
    ax.axis("off")
    texts = [text.get_text() for text in ax.figure.texts]
    if datasets.acdc.is_acdc96(datasets.source()) and LICENCE not in texts:
        # Beside the figure, like a photo's credit.
        ax.figure.text(1.005, 0, LICENCE, fontsize=6.5, rotation=90)
    return ax


def overlay(
    ax: Axes, image: np.ndarray, mask: np.ndarray, title: str = "", alpha: float = 0.5
) -> Axes:
    """Draw a slice (H, W) with its label map (H, W) laid over in colour."""
    show(ax, image, title)
    ax.imshow(
        mask, cmap=LABELS, vmin=0, vmax=3, alpha=float(alpha) * (mask > 0), interpolation="nearest"
    )
    return ax


def contours(ax: Axes, mask: np.ndarray, width: float = 1.6) -> Axes:
    """Draw the outline of each class of a label map (H, W) in its colour."""
    for c, colour in enumerate(CLASS_COLOURS.values(), start=1):
        if (mask == c).any():
            ax.contour(mask == c, levels=[0.5], colors=[colour], linewidths=width)
    return ax


def class_legend(figure: Figure, **options) -> None:
    """A legend of the three classes under a figure."""
    names = {"RV": "right ventricle", "Myo": "myocardium", "LV": "left ventricle"}
    handles = [Patch(color=colour, label=names[name]) for name, colour in CLASS_COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, **options)


def learning_curve(ax: Axes, epochs, values, label: str = "", **options) -> Axes:
    """Draw a quantity against epochs; give ``label`` to name the line at its end."""
    (line,) = ax.plot(epochs, values, **options)
    if label:
        place = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(label, (epochs[-1], values[-1]), **place, color=line.get_color(), size=9.5)
    ax.set_xlabel("epoch")
    return ax


def intervals(ax: Axes, rows: dict[str, tuple[float, float, float]], colour: str = ACCENT) -> Axes:
    """Draw (estimate, low, high) of each row as a point on a line, the first row on top."""
    for y, (name, (centre, low, high)) in enumerate(rows.items()):
        shade = CLASS_COLOURS.get(name, colour)
        ax.plot([low, high], [y, y], color=shade, linewidth=2.5, solid_capstyle="round")
        ax.plot(centre, y, "o", color=shade, markersize=7)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.spines["left"].set_visible(False)
    ax.tick_params(left=False)
    return ax


def differences(ax: Axes, rows: dict) -> Axes:
    """Draw (difference, low, high) of each row, with zero and the margin that does not matter.

    It is the book's margin of Dice, ``cmrtrial.statistics.MARGIN``.
    """
    margin = 0.02
    ax.axvspan(-margin, margin, color=GREY, alpha=0.15, linewidth=0)
    ax.axvline(0, color=GREY, linewidth=1)
    return intervals(ax, rows)


def settings(
    ax: Axes,
    values: dict[str, Sequence[float]],
    reported: dict[str, float] | None = None,
    patients: dict[str, Sequence[float]] | None = None,
) -> Axes:
    """Draw every run's value of each setting as a dot, and their mean as a dash.

    Args:
        reported: the report's value, by setting: a cross.
        patients: the values of the patients, by setting: small grey dots.
    """
    few = {"color": ACCENT, "markersize": 5, "alpha": 0.5, "markeredgewidth": 0}
    many = {"color": GREY, "markersize": 4, "alpha": 0.45, "markeredgewidth": 0}
    for x, (name, runs) in enumerate(values.items()):
        if patients:
            ax.plot(np.full(len(patients[name]), x - 0.33), patients[name], ".", **many)
        ax.plot(np.full(len(runs), x), runs, "o", **few)
        ax.plot([x - 0.25, x + 0.25], [np.mean(runs)] * 2, color=ACCENT, solid_capstyle="round")
        if reported and name in reported:
            ax.plot(x + 0.33, reported[name], "x", color=CONTRAST, markersize=7, markeredgewidth=2)
    ax.set_xticks(range(len(values)), list(values))
    ax.set_xlim(-0.6, len(values) - 0.4)
    return ax


def settings_legend(ax: Axes) -> None:
    """Name the marks of :func:`settings` above the axes."""
    marks = [
        ("one run", {"marker": "o", "alpha": 0.5, "linestyle": ""}),
        ("their mean", {}),
        ("the report", {"marker": "x", "color": CONTRAST, "linestyle": "", "markeredgewidth": 2}),
        ("one patient", {"marker": ".", "color": GREY, "linestyle": ""}),
    ]
    handles = [Line2D([], [], label=name, **{"color": ACCENT} | look) for name, look in marks]
    ax.legend(handles=handles, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)


def boxes(ax: Axes, columns: dict[str, np.ndarray]) -> Axes:
    """Box plots of named columns (NaN left out) with every value beside its box."""
    for x, (name, values) in enumerate(columns.items()):
        values = np.asarray(values, float)
        values = values[~np.isnan(values)]
        colour = CLASS_COLOURS.get(name, ACCENT)
        ax.boxplot(
            values,
            positions=[x],
            widths=0.35,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour},
            medianprops={"color": colour, "linewidth": 2},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
        spread = np.random.default_rng(0).uniform(-0.08, 0.08, len(values))
        ax.plot(x + 0.34 + spread, values, "o", color=colour, markersize=3, alpha=0.6)
    ax.set_xticks(range(len(columns)), list(columns))
    return ax


def ink(share: float) -> str:
    """The ink that is read best on a cell of HEAT, 0 for the palest and 1 for the darkest."""
    colour = np.array(HEAT(float(share))[:3])
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    light = linear @ (0.2126, 0.7152, 0.0722)
    return "black" if light > 0.179 else "white"  # there both stand out alike


def grid(ax: Axes, table, bold=None, digits: int = 2, low: float = 0, high: float = 1) -> Axes:
    """Draw a table of scores as cells with their numbers, the darker the higher.

    An empty cell stays empty.

    Args:
        table: a DataFrame; its index and columns name the rows and columns.
        bold: which cells are printed in bold, an array of its shape.
        low, high: the scores of the palest and the darkest cell.
    """
    scores = table.to_numpy(float)
    ax.imshow(np.ma.masked_invalid(scores), cmap=HEAT, vmin=low, vmax=high, aspect="auto")
    for (y, x), score in np.ndenumerate(scores):
        if not np.isnan(score):
            weight = "bold" if bold is not None and bold[y, x] else None
            colour = ink((score - low) / (high - low))
            place = {"ha": "center", "va": "center"}
            ax.text(x, y, f"{score:.{digits}f}", fontweight=weight, color=colour, **place)
    ax.set_xticks(range(scores.shape[1]), table.columns)
    ax.set_yticks(range(scores.shape[0]), table.index)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
