"""Open-set recognition as a picture: F-measures by threshold, and what rejecting costs."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from experiments.presentation import COLOURS, legend_beside

mpl.use("Agg")
from matplotlib import pyplot as plt

_LINES = ("-", "--", ":", "-.")


def draw(curves: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Draws one line a run.

    Args:
        curves: for each run's label its `threshold_curve`.
        path: of the PNG.
    """
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained")
    oltr, balms, trade = panels
    styles = ((line, colour) for line in itertools.cycle(_LINES) for colour in COLOURS)
    for (label, curve), (line, colour) in zip(curves.items(), styles, strict=False):
        style = {"linestyle": line, "color": colour, "label": label}
        oltr.plot(curve["threshold"], curve["f_oltr"], **style)
        balms.plot(curve["threshold"], curve["f_balms"], **style)
        trade.plot(100 * curve["open_accuracy"], 100 * curve["accuracy"], **style)
    for axes, name in ((oltr, "oltr"), (balms, "balms")):
        axes.set_xlabel("threshold on the score")
        axes.set_ylabel(f"F-measure ({name})")
    trade.set_xlabel("open images rejected (%)")
    trade.set_ylabel("closed images classified correctly (%)")
    for axes in panels:
        axes.grid(alpha=0.3)
    legend_beside(figure, trade)
    figure.savefig(path, dpi=150)
    plt.close(figure)
