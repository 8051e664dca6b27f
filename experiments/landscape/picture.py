"""Landscapes as pictures: contours, surfaces, and trajectories on contours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm

from experiments.landscape.planes import Plane, Trajectory
from experiments.presentation import COLORS, lines_of_panels, picture

# Told apart by color-blind readers, and in print.
_COLOR_MAP = "viridis"
_LEVELS = 16
_MOST_PANELS_IN_A_LINE = 3


def draw_contours(planes: Sequence[Plane], path: Path) -> None:
    """Draws a line of panels a run, a panel a group; each group has one scale for all runs."""
    groups = list(planes[0].losses)
    shape = len(planes), len(groups)
    size = (1 + 3.3 * len(groups), 0.5 + 2.9 * len(planes))
    with picture(path, *shape, size, sharex=True, sharey=True) as (figure, panels):
        for group, column in zip(groups, panels.T, strict=True):
            for axes in column:
                axes.plot(0, 0, marker="+", color="white", markersize=8)
            _draw_contours(figure, list(column), planes, group)
            column[0].set_title(group, fontsize="medium")
        for plane, axes in zip(planes, panels[:, 0], strict=True):
            axes.set_ylabel(f"{plane.label}\nsecond direction", fontsize="medium")
        for axes in panels[-1]:
            axes.set_xlabel("first direction", fontsize="medium")
        figure.suptitle("Loss by distance in norms of the trained filters", fontsize="medium")


def draw_surfaces(planes: Sequence[Plane], path: Path) -> None:
    """Draws the same as surfaces, their height on a logarithmic scale."""
    groups = list(planes[0].losses)
    shape = len(planes), len(groups)
    size = (1 + 3.6 * len(groups), 0.5 + 3.2 * len(planes))
    with picture(path, *shape, size, subplot_kw={"projection": "3d"}) as (figure, panels):
        for group, column in zip(groups, panels.T, strict=True):
            heights = [np.log10(_positive(plane.losses[group])) for plane in planes]
            low, high = np.min(heights), np.max(heights)
            for plane, height, axes in zip(planes, heights, column, strict=True):
                x, y = np.meshgrid(plane.xs, plane.ys)
                axes.plot_surface(x, y, height, cmap=_COLOR_MAP, vmin=low, vmax=high, linewidth=0)
                axes.set_zlim(low, high)
                axes.set_xticks([plane.xs[0], 0, plane.xs[-1]])
                axes.set_yticks([plane.ys[0], 0, plane.ys[-1]])
                axes.set_xlabel("first", fontsize="small", labelpad=-6)
                axes.set_ylabel("second", fontsize="small", labelpad=-6)
                axes.tick_params(labelsize="small", pad=-2)
                axes.set_title(f"{plane.label}\n{group}: log10 loss", fontsize="small")
        figure.supxlabel("first and second direction, in norms of the trained filters")


def draw_trajectories(trajectories: Sequence[Trajectory], path: Path) -> None:
    """Draws each run's checkpoints over the loss of all images in their principal plane."""
    lines, width = lines_of_panels(len(trajectories), _MOST_PANELS_IN_A_LINE)
    with picture(path, lines, width, (5 * width, 4.2 * lines)) as (figure, panels):
        for one, axes in zip(trajectories, panels.flat, strict=False):
            (group,) = one.losses
            _draw_contours(figure, [axes], [one], group)
            _draw_way(axes, one)
            axes.set_title(one.label, fontsize="medium")


def _draw_way(axes: Any, one: Trajectory) -> None:
    x, y = one.coordinates.T
    axes.plot(x, y, color="white", linewidth=2.5)
    axes.plot(x, y, color=COLORS[5], marker="o", markersize=4, linewidth=1.2)
    for number in (0, len(x) - 1):
        # Towards the middle, where there is room.
        right = x[number] > one.xs.mean()
        axes.annotate(
            f"step {one.steps[number]}",
            (x[number], y[number]),
            xytext=(-6 if right else 6, 6),
            textcoords="offset points",
            horizontalalignment="right" if right else "left",
            fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5},
        )
    first, second = (f"{100 * share:.0f} % of variance" for share in one.explained)
    axes.set_xlabel(f"first principal direction, {first}")
    axes.set_ylabel(f"second principal direction, {second}")


def _draw_contours(figure: Any, panels: list[Any], planes: Sequence[Plane], group: str) -> None:
    """Draws planes below each other, with one bar of levels: equal factors of the loss."""
    losses = [_positive(plane.losses[group]) for plane in planes]
    low, high = np.min(losses), np.max(losses)
    # The contours of a plane without hills need levels all the same.
    levels = np.geomspace(low, max(high, 1.01 * low), _LEVELS)
    drawn: Any = None
    for plane, some, axes in zip(planes, losses, panels, strict=True):
        style = {"norm": LogNorm(levels[0], levels[-1]), "cmap": _COLOR_MAP, "extend": "both"}
        drawn = axes.contourf(plane.xs, plane.ys, some, levels=levels, **style)
    bar = figure.colorbar(drawn, ax=panels, location="bottom" if len(panels) > 1 else "right")
    ticks = levels[:: _LEVELS // 4]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.set_label("loss (nats)", fontsize="small")


def _positive(losses: np.ndarray) -> np.ndarray:
    """Returns losses that have logarithms: finite ones, above the rounding of float32."""
    losses = np.maximum(losses, 1e-7)
    return np.where(np.isfinite(losses), losses, losses[np.isfinite(losses)].max())
