"""Landscapes as pictures: contours, surfaces, and trajectories on contours."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.landscape.planes import Plane, Trajectory
from experiments.presentation import COLOURS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import LogNorm

# Told apart by colour-blind readers, and in print.
_COLOUR_MAP = "viridis"
_LEVELS = 16
_MOST_PANELS_IN_A_LINE = 3


def draw_contours(planes: Sequence[Plane], path: Path) -> None:
    """Draws a line of panels a run, a panel a group; each group has one scale for all runs."""
    groups = list(planes[0].losses)
    figure, panels = plt.subplots(
        len(planes),
        len(groups),
        figsize=(1 + 3.3 * len(groups), 0.5 + 2.9 * len(planes)),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for group, column in zip(groups, panels.T, strict=True):
        levels = _levels([plane.losses[group] for plane in planes])
        drawn: Any = None
        for plane, axes in zip(planes, column, strict=True):
            drawn = _contours(axes, plane, group, levels)
            axes.plot(0, 0, marker="+", color="white", markersize=8)
        column[0].set_title(group, fontsize="medium")
        _colour_bar(figure, drawn, list(column), levels)
    for plane, axes in zip(planes, panels[:, 0], strict=True):
        axes.set_ylabel(f"{plane.label}\nsecond direction", fontsize="medium")
    for axes in panels[-1]:
        axes.set_xlabel("first direction", fontsize="medium")
    figure.suptitle("Loss by distance in norms of the trained filters", fontsize="medium")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_surfaces(planes: Sequence[Plane], path: Path) -> None:
    """Draws the same as surfaces, their height on a logarithmic scale."""
    groups = list(planes[0].losses)
    figure, panels = plt.subplots(
        len(planes),
        len(groups),
        figsize=(1 + 3.6 * len(groups), 0.5 + 3.2 * len(planes)),
        squeeze=False,
        subplot_kw={"projection": "3d"},
        layout="constrained",
    )
    for group, column in zip(groups, panels.T, strict=True):
        heights = [np.log10(_positive(plane.losses[group])) for plane in planes]
        low, high = np.min(heights), np.max(heights)
        for plane, height, axes in zip(planes, heights, column, strict=True):
            x, y = np.meshgrid(plane.xs, plane.ys)
            axes.plot_surface(x, y, height, cmap=_COLOUR_MAP, vmin=low, vmax=high, linewidth=0)
            axes.set_zlim(low, high)
            axes.set_xticks([plane.xs[0], 0, plane.xs[-1]])
            axes.set_yticks([plane.ys[0], 0, plane.ys[-1]])
            axes.set_xlabel("first", fontsize="small", labelpad=-6)
            axes.set_ylabel("second", fontsize="small", labelpad=-6)
            axes.tick_params(labelsize="small", pad=-2)
            axes.set_title(f"{plane.label}\n{group}: log10 loss", fontsize="small")
    figure.supxlabel("first and second direction, in norms of the trained filters")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_trajectories(trajectories: Sequence[Trajectory], path: Path) -> None:
    """Draws each run's checkpoints over the loss of all images in their principal plane."""
    lines = math.ceil(len(trajectories) / _MOST_PANELS_IN_A_LINE)
    width = math.ceil(len(trajectories) / lines)
    figure, panels = plt.subplots(
        lines, width, figsize=(5 * width, 4.2 * lines), squeeze=False, layout="constrained"
    )
    for one, axes in zip(trajectories, panels.flat, strict=False):
        (group,) = one.plane.losses
        levels = _levels([one.plane.losses[group]])
        drawn = _contours(axes, one.plane, group, levels)
        x, y = one.coordinates.T
        axes.plot(x, y, color="white", linewidth=2.5)
        axes.plot(x, y, color=COLOURS[5], marker="o", markersize=4, linewidth=1.2)
        for number in (0, len(x) - 1):
            # Towards the middle, where there is room.
            right = x[number] > one.plane.xs.mean()
            axes.annotate(
                f"step {one.steps[number]}",
                (x[number], y[number]),
                xytext=(-6 if right else 6, 6),
                textcoords="offset points",
                horizontalalignment="right" if right else "left",
                fontsize="small",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1.5},
            )
        for set_label, share, name in zip(
            (axes.set_xlabel, axes.set_ylabel), one.explained, ("first", "second"), strict=True
        ):
            set_label(f"{name} principal direction, {100 * share:.0f} % of variance")
        axes.set_title(one.plane.label, fontsize="medium")
        _colour_bar(figure, drawn, [axes], levels)
    for axes in panels.flat[len(trajectories) :]:
        axes.set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _levels(losses: Sequence[np.ndarray]) -> np.ndarray:
    """Returns levels in equal factors from the least to the greatest loss."""
    positive = [_positive(one) for one in losses]
    low, high = min(one.min() for one in positive), max(one.max() for one in positive)
    # The contours of a plane without hills need levels all the same.
    return np.geomspace(low, max(high, 1.01 * low), _LEVELS)


def _positive(losses: np.ndarray) -> np.ndarray:
    """Returns losses that have logarithms: finite ones, above the rounding of float32."""
    losses = np.maximum(losses, 1e-7)
    return np.where(np.isfinite(losses), losses, losses[np.isfinite(losses)].max())


def _contours(axes: Any, plane: Plane, group: str, levels: np.ndarray) -> Any:
    return axes.contourf(
        plane.xs,
        plane.ys,
        _positive(plane.losses[group]),
        levels=levels,
        norm=LogNorm(levels[0], levels[-1]),
        cmap=_COLOUR_MAP,
        extend="both",
    )


def _colour_bar(figure: Any, drawn: Any, axes: list[Any], levels: np.ndarray) -> None:
    bar = figure.colorbar(drawn, ax=axes, location="bottom" if len(axes) > 1 else "right")
    ticks = levels[:: _LEVELS // 4]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.set_label("loss (nats)", fontsize="small")
