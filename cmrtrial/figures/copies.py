"""A map of near-duplicates: slices on a circle, linked where they are alike."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from cmrseg.plots import GREY


def ring(ax: Axes, parts: dict[str, int], links: dict[str, list[tuple[int, int]]]) -> Axes:
    """Draw slices on a circle, from twelve o'clock on, and a line between every two linked ones.

    Args:
        ax: axes without a frame.
        parts: how many slices an arc of the ring has, by its name.
        links: positions of linked slices, from 0 on round the whole ring, by colour.
    """
    count = sum(parts.values())

    def place(position, radius: float = 1.0):
        angle = 2 * np.pi * np.asarray(position) / count
        return radius * np.sin(angle), radius * np.cos(angle)

    start = 0
    for name, size in parts.items():
        arc = place(np.linspace(start - 0.2, start + size - 0.8, 100), 1.04)
        ax.plot(*arc, color=GREY, linewidth=4, solid_capstyle="butt")
        x, y = place(start + (size - 1) / 2, 1.12)
        across = "center" if abs(x) < 0.3 else "left" if x > 0 else "right"
        ax.text(
            x, y, name, ha=across, va="center" if abs(y) < 0.7 else "bottom" if y > 0 else "top"
        )
        start += size
    for colour, pairs in links.items():
        for a, b in pairs:
            depth = 1 - min(abs(a - b), count - abs(a - b)) * 2 / count  # far ones pass the middle
            bend = place((a + b) / 2 + (count / 2 if abs(a - b) > count / 2 else 0), 0.94 * depth)
            line = Path([place(a), bend, place(b)], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
            ax.add_patch(PathPatch(line, facecolor="none", edgecolor=colour, linewidth=1.5))
            ax.plot(*place([a, b]), "o", color=colour, markersize=2.5)
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    ax.axis("off")
    return ax
