"""Pictures: that what is drawn is what was given."""

import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.contour import ContourSet

from cmrseg import plots
from cmrseg.datasets import acdc

IMAGE = np.arange(100, dtype=np.uint8).reshape(10, 10)
MASK = np.zeros((10, 10), np.uint8)
MASK[2:8, 2:8], MASK[4:6, 4:6], MASK[0:2, 0:2] = 2, 3, 1


@pytest.fixture(autouse=True)
def closed():
    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.figure().add_subplot()


def test_an_overlay_shows_each_class_in_its_colour_and_the_image_elsewhere(ax):
    plots.overlay(ax, IMAGE, MASK, "a slice", alpha=1)
    below, above = ax.images
    np.testing.assert_array_equal(below.get_array(), IMAGE)
    colours = above.to_rgba(above.get_array())
    for c, colour in enumerate(plots.CLASS_COLOURS.values(), start=1):
        found = colours[np.where(MASK == c)][:, :3]  # noqa: SIM300
        np.testing.assert_allclose(found, np.broadcast_to(to_rgb(colour), found.shape))
    np.testing.assert_array_equal(above.get_alpha() > 0, MASK > 0)
    assert ax.get_title() == "a slice" and not ax.axison
    assert list(plots.CLASS_COLOURS) == ["RV", "Myo", "LV"]
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("source", "marks"), [("acdc96", 1), ("../slices/acdc96/", 1), ("phantom", 0), ("mine", 0)]
)
def test_a_figure_of_real_slices_carries_their_licence_once(monkeypatch, source, marks):
    monkeypatch.setenv("CMRSEG_DATA", source)
    figure, axes = plots.panels(3)
    for ax in axes:
        plots.overlay(ax, IMAGE, MASK)
    assert [text.get_text() for text in figure.texts] == [plots.LICENCE] * marks


def test_the_real_slices_are_known_under_another_name(real, tmp_path):
    (tmp_path / "val" / "image").mkdir(parents=True)
    shutil.copy(real / "val" / "image" / "cmr101.png", tmp_path / "val" / "image" / "cmr1.png")
    assert acdc.is_acdc96(str(tmp_path))


def test_class_colours_differ_in_lightness_too():
    red, green, blue = np.array([to_rgb(c) for c in plots.CLASS_COLOURS.values()]).T
    lightness = np.sort(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    assert (np.diff(lightness) > 0.1).all()


def test_contours_outline_the_classes_that_are_there(ax):
    plots.contours(ax, np.where(MASK == 1, 0, MASK))
    sets = [c for c in ax.get_children() if isinstance(c, ContourSet)]
    assert [to_rgb(s.get_edgecolor()[0]) for s in sets] == [
        to_rgb(plots.CLASS_COLOURS[n]) for n in ("Myo", "LV")
    ]
    low, high = (f(next(p.vertices for p in sets[1].get_paths()), axis=0) for f in (np.min, np.max))
    np.testing.assert_allclose((low, high), ([3.5, 3.5], [5.5, 5.5]))


def test_a_curve_draws_its_values_and_names_itself_at_its_end(ax):
    plots.learning_curve(ax, [1, 2, 3], [0.1, 0.5, 0.8], "LV")
    assert ax.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.5], [3, 0.8]]
    assert (ax.texts[0].get_text(), ax.texts[0].xy) == ("LV", (3, 0.8))
    assert ax.get_xlabel() == "epoch"
    plots.learning_curve(ax, [1], [2])
    assert len(ax.texts) == 1


def test_intervals_are_drawn_with_the_first_row_on_top(ax):
    plots.intervals(ax, {"RV": (0.8, 0.7, 0.9), "other": (0.5, 0.4, 0.6)})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["RV", "other"]
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert [line.get_xdata(orig=False).tolist() for line in ax.lines] == [
        [0.7, 0.9],
        [0.8],
        [0.4, 0.6],
        [0.5],
    ]
    assert to_rgb(ax.lines[0].get_color()) == to_rgb(plots.CLASS_COLOURS["RV"])


def test_boxes_show_every_value_but_nan(ax):
    columns = {"RV": np.array([0.1, np.nan, 0.5, 0.9]), "LV": [0.8, 0.9, 1.0]}
    plots.boxes(ax, columns)
    points = [line.get_ydata() for line in ax.lines if line.get_marker() == "o"]
    assert [p.tolist() for p in points] == [[0.1, 0.5, 0.9], [0.8, 0.9, 1.0]]
    assert any(np.array_equal(line.get_ydata(), [0.5, 0.5]) for line in ax.lines)  # a median
    assert [label.get_text() for label in ax.get_xticklabels()] == ["RV", "LV"]


def test_panels_are_bare_and_come_as_a_row_of_axes():
    figure, axes = plots.panels(3, 2)
    assert axes.shape == (6,) and not any(a.axison for a in axes)
    plots.class_legend(figure)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["right ventricle", "myocardium", "left ventricle"]
    assert plots.panels(1)[1].shape == (1,)


def test_figures_suit_light_and_dark_pages(tmp_path):
    plots.style()
    figure, axes = plots.panels(1)
    plots.show(axes[0], IMAGE)
    figure.savefig(tmp_path / "a.png")
    corner = plt.imread(tmp_path / "a.png")[0, 0]
    assert corner[3] == 0  # transparent


def test_style_in_a_plain_script_starts_no_notebook_machinery():
    script = (
        "import sys, matplotlib; matplotlib.use('Agg');"
        "from cmrseg import plots; plots.style();"
        "shell = sys.modules.get('IPython.core.interactiveshell');"
        "sys.exit(bool(shell and shell.InteractiveShell.initialized()))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_numbers_on_a_heat_map_are_legible_on_pages_of_either_theme():
    def light(colour):
        parts = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)
        ]
        return np.dot(parts, (0.2126, 0.7152, 0.0722)) + 0.05

    for share in np.linspace(0, 1, 101):
        cell = plots.HEAT(share)
        contrast = light(plots.ink(share)) / light(cell[:3])
        assert cell[3] == 1 and max(contrast, 1 / contrast) >= 4.5


def test_a_grid_prints_each_score_and_leaves_empty_cells_empty():
    table = pd.DataFrame([[0.1, np.nan], [0.5, 0.9]], index=["a", "b"], columns=["x", "y"])
    figure, ax = plt.subplots()
    plots.grid(ax, table, bold=np.array([[False, False], [True, False]]))
    cells = {text.get_text(): text for text in ax.texts}
    assert list(cells) == ["0.10", "0.50", "0.90"]
    assert [c.get_fontweight() == "bold" for c in cells.values()] == [False, True, False]
    assert cells["0.10"].get_color() == "black" and cells["0.90"].get_color() == "white"
    assert cells["0.90"].get_position() == (1, 1)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    plt.close(figure)
