"""Figures of single pages: that what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_rgb

from cmrtrial.figures.copies import ring


def test_a_ring_begins_at_twelve_and_joins_what_is_linked():
    figure, ax = plt.subplots()
    ring(ax, {"train": 4, "test": 4}, {"#ff0000": [(0, 4)], "#0000ff": [(1, 3)]})
    far, near = (patch.get_path().vertices for patch in ax.patches)
    np.testing.assert_allclose(far[[0, 2]], [[0, 1], [0, -1]], atol=1e-9)  # from twelve to six
    np.testing.assert_allclose(far[1], [0, 0], atol=1e-9)  # through the middle
    np.testing.assert_allclose(near[0], [np.sqrt(0.5)] * 2)
    assert near[1][0] > 0.3 and abs(near[1][1]) < 1e-9
    assert [to_rgb(patch.get_edgecolor()) for patch in ax.patches] == [(1, 0, 0), (0, 0, 1)]
    places = {text.get_text(): text.get_position()[0] for text in ax.texts}
    assert places["train"] > 0 > places["test"] and not ax.axison
    plt.close(figure)
