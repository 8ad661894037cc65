"""Draw the cover picture from synthetic slices: `python tools/cover.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt

from cmrseg import datasets, plots
from cmrseg.config import TrainConfig
from cmrseg.predict import predict
from cmrseg.train import fit

COVER = Path(__file__).resolve().parents[1] / "book" / "assets" / "cover.png"
SLICES = (0, 1, 2, 4)  # of the validation split: the first patient twice, then the next two


def main() -> None:
    train, val = datasets.split("phantom", "val")
    run = fit(TrainConfig(channels=(8, 16, 32, 64, 128), epochs=25), train, precision="fp32")
    masks = predict(run.model, val.images)
    plots.style()
    figure, axes = plots.panels(len(SLICES), 2, size=3)
    for column, i in enumerate(SLICES):
        plots.show(axes[column], val.images[i])
        under = axes[column + len(SLICES)]
        plots.contours(
            plots.overlay(under, val.images[i], masks[i], alpha=0.55), val.masks[i], width=2
        )
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    plt.savefig(COVER, dpi=110)


if __name__ == "__main__":
    main()
