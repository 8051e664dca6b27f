"""Open-set recognition as a picture: F-measures by threshold, and what rejecting costs."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from experiments.presentation import COLOURS

mpl.use("Agg")
from matplotlib import pyplot as plt

_LINES = {"f_oltr": "-", "f_balms": "--"}


def draw(curves: Mapping[str, Mapping[str, np.ndarray]], path: Path) -> None:
    """Draws one colour a run.

    Args:
        curves: for each run's label its `threshold_curve`.
        path: of the PNG.
    """
    figure, (measures, trade) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    for (label, curve), colour in zip(curves.items(), itertools.cycle(COLOURS), strict=False):
        for name, line in _LINES.items():
            measures.plot(
                curve["threshold"],
                curve[name],
                line,
                color=colour,
                label=f"{label}, {name.removeprefix('f_')}",
            )
        trade.plot(100 * curve["open_accuracy"], 100 * curve["accuracy"], color=colour, label=label)
    measures.set_xlabel("threshold on the score")
    measures.set_ylabel("F-measure")
    trade.set_xlabel("open images rejected (%)")
    trade.set_ylabel("closed images classified correctly (%)")
    for axes in (measures, trade):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)
