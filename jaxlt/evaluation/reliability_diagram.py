"""Reliability diagrams: accuracy by confidence, bin by bin (Guo et al., ICML 2017, figure 1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from jaxlt.evaluation.accuracy import ConfidenceBins
from jaxlt.evaluation.plot_styles import run_styles

mpl.use("Agg")
from matplotlib import pyplot as plt

MOST_NAMED = 4
"""So many classifiers are named in a panel; a legend of more would cover the lines."""


def draw_diagram(axes: Any, bins: Mapping[str, ConfidenceBins]) -> None:
    """Draws one line a classifier.

    Where a line runs below the diagonal, the network is more confident than it is right. A
    marker's area grows with the share of the images that its bin holds.

    Args:
        axes: of the panel.
        bins: of each classifier, by its name.
    """
    named = len(bins) <= MOST_NAMED
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    for (name, one), style in zip(bins.items(), run_styles(), strict=False):
        filled = one.counts > 0
        confidence, accuracy = one.confidence[filled], one.accuracy[filled]
        label = f"{name}: ECE {100 * one.ece:.1f} %" if named else name
        axes.plot(confidence, accuracy, color=style["color"], label=label)
        sizes = 6 + 120 * one.counts[filled] / one.counts.sum()
        axes.scatter(confidence, accuracy, s=sizes, **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    if named:
        axes.legend(fontsize="small", loc="upper left")


def draw_run(name: str, recorded: Mapping[str, Sequence[float]], path: Path) -> None:
    """Writes one classifier's diagram as a PNG.

    Args:
        name: of the classifier.
        recorded: fields of its `ConfidenceBins`, as its evaluation has them.
        path: of the picture.
    """
    bins = ConfidenceBins(**{field: np.array(values) for field, values in recorded.items()})
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    draw_diagram(axes, {name: bins})
    # Of a process that is killed no half of a picture may stay.
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=150)
    partial.replace(path)
    plt.close(figure)
