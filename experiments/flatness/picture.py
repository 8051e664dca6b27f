"""Loss against noise as a picture: ranges from top to bottom, groups of classes side by side."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from experiments.flatness.curves import Direction, NoiseCurves
from experiments.presentation import deviation, legend_beside, run_styles

mpl.use("Agg")
from matplotlib import pyplot as plt

# So many times the smallest loss must the largest be for a logarithmic axis.
_LOG_FROM = 100
# Of the mean: a deviation may be larger than it, and has no logarithm then.
_LOWEST_OF_BAND = 0.1


def draw(rows: Sequence[NoiseCurves], direction: Direction, scope: str, path: Path) -> None:
    """Draws the mean loss over runs and seeds, with its deviation as a band.

    Args:
        rows: at least one.
        direction: which curves.
        scope: what is perturbed.
        path: of the PNG.
    """
    ranges = list(rows[0].ratios)
    groups = list(rows[0].losses[direction][ranges[0]])
    figure, panels = plt.subplots(
        len(ranges),
        len(groups),
        figsize=(2 + 3.2 * len(groups), 3.2 * len(ranges)),
        squeeze=False,
        layout="constrained",
    )
    for name, line in zip(ranges, panels, strict=True):
        for group, axes in zip(groups, line, strict=True):
            for number, (row, style) in enumerate(zip(rows, run_styles(), strict=False)):
                losses = row.losses[direction][name][group]
                mean, spread = losses.mean(axis=0), deviation(losses)
                ratios = row.ratios[name]
                # Markers at different places, since lines may lie on each other.
                every = (number % 4, 4)
                axes.plot(ratios, mean, label=row.label, markersize=4, markevery=every, **style)
                lower = np.maximum(mean - spread, _LOWEST_OF_BAND * mean)
                axes.fill_between(ratios, lower, mean + spread, color=style["color"], alpha=0.12)
            means = [row.losses[direction][name][group].mean(axis=0) for row in rows]
            if np.max(means) > _LOG_FROM * np.min(means) > 0:
                axes.set_yscale("log")
            axes.set_title(f"{group}, {name} range", fontsize="medium")
            axes.grid(alpha=0.3)
    what = "classifier" if scope == "classifier" else "trained"
    figure.supxlabel("||ε|| / ||θ||" + f", θ: {what} parameters, {direction} ε", fontsize="medium")
    figure.supylabel("loss (nats)", fontsize="medium")
    legend_beside(figure, panels[0, 0])
    figure.savefig(path, dpi=150)
    plt.close(figure)
