"""Pictures of an evaluation on shifted images: errors by corruption, and reliability diagrams."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from experiments.ood.report import Report
from experiments.presentation import legend_beside, run_styles
from jaxlt.evaluation.reliability_diagram import MOST_NAMED, draw_diagram

mpl.use("Agg")
from matplotlib import pyplot as plt

_MOST_PANELS_IN_A_LINE = 4


def draw_corruptions(reports: Sequence[Report], path: Path) -> None:
    """Draws each run's errors by corruption, means over severities, and by severity."""
    figure, (by_name, by_severity) = plt.subplots(
        1, 2, figsize=(11, 5.5), width_ratios=(2, 1), layout="constrained"
    )
    names = list(reports[0].severities)
    for one, style in zip(reports, run_styles(), strict=False):
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
    legend_beside(figure, by_severity)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_reliability(reports: Sequence[Report], path: Path) -> None:
    """Draws a reliability diagram of each set of images."""
    names = list(reports[0].bins)
    lines = math.ceil(len(names) / _MOST_PANELS_IN_A_LINE)
    width = math.ceil(len(names) / lines)
    figure, panels = plt.subplots(
        lines, width, figsize=(1 + 3.6 * width, 3.8 * lines), squeeze=False, layout="constrained"
    )
    for name, axes in zip(names, panels.flat, strict=False):
        draw_diagram(axes, {one.label: one.bins[name] for one in reports})
        axes.set_title(name, fontsize="medium")
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    if len(reports) > MOST_NAMED:
        legend_beside(figure, panels[0, 0])
    figure.savefig(path, dpi=150)
    plt.close(figure)
