"""Pictures of an evaluation on shifted images: errors by corruption, and reliability diagrams."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.ood.report import Report
from experiments.presentation import COLOURS, MARKERS

mpl.use("Agg")
from matplotlib import pyplot as plt

_MOST_PANELS_IN_A_LINE = 4


def draw_corruptions(reports: Sequence[Report], path: Path) -> None:
    """Draws each run's errors by corruption, means over severities, and by severity."""
    figure, (by_name, by_severity) = plt.subplots(
        1, 2, figsize=(11, 5.5), width_ratios=(2, 1), layout="constrained"
    )
    names = list(reports[0].severities)
    for one, style in zip(reports, _styles(), strict=False):
        errors = 100 * np.array([one.severities[name] for name in names])
        by_name.plot(errors.mean(axis=1), range(len(names)), linestyle="", label=one.label, **style)
        by_severity.plot(range(1, 6), errors.mean(axis=0), label=one.label, **style)
    by_name.set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    by_name.invert_yaxis()
    by_name.set_xlabel("error, mean over severities (%)")
    by_severity.set_xlabel("severity")
    by_severity.set_xticks(range(1, 6))
    by_severity.set_ylabel("error, mean over corruptions (%)")
    for axes in (by_name, by_severity):
        axes.grid(alpha=0.3)
    by_severity.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_reliability(reports: Sequence[Report], path: Path) -> None:
    """Draws a reliability diagram of each set of images: accuracy by confidence, bin by bin.

    Where a line runs below the diagonal, the network is more confident than it is right. A
    marker's area grows with the share of the images that its bin holds.
    """
    names = list(reports[0].bins)
    lines = math.ceil(len(names) / _MOST_PANELS_IN_A_LINE)
    width = math.ceil(len(names) / lines)
    figure, panels = plt.subplots(
        lines, width, figsize=(1 + 3.6 * width, 3.8 * lines), squeeze=False, layout="constrained"
    )
    for name, axes in zip(names, panels.flat, strict=False):
        _draw_diagram(axes, reports, name)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_diagram(axes: Any, reports: Sequence[Report], name: str) -> None:
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    for one, style in zip(reports, _styles(), strict=False):
        bins = one.bins[name]
        filled = bins.counts > 0
        axes.plot(
            bins.confidence[filled],
            bins.accuracy[filled],
            color=style["color"],
            label=f"{one.label}: ECE {100 * bins.ece:.1f} %",
        )
        axes.scatter(
            bins.confidence[filled],
            bins.accuracy[filled],
            s=6 + 120 * bins.counts[filled] / bins.counts.sum(),
            **style,
        )
    axes.set_title(name, fontsize="medium")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left")


def _styles() -> Iterator[dict[str, str]]:
    for colour, marker in itertools.cycle(zip(COLOURS, MARKERS, strict=True)):
        yield {"color": colour, "marker": marker}
