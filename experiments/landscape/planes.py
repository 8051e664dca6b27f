"""Losses over planes, and trajectories of runs in planes of their own, with their pictures."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.colors import LogNorm

from experiments.analyzed_run import ALL, AnalyzedRun, split_variables, ticking
from experiments.presentation import COLORS, lines_of_panels, picture
from jaxlt.analysis import (
    PrincipalPlane,
    filter_normalized,
    losses_over_plane,
    principal_plane,
    random_direction,
)
from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.recipes.recorded import TrainedRun

# Of the trajectory's extent, beyond which its plane is shown.
_MARGIN = 0.25
# Told apart by color-blind readers, and in print.
_COLOR_MAP = "viridis"
_LEVELS = 16
_MOST_PANELS_IN_A_LINE = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """Each group's mean losses in nats, (Y, X), over distances (X,) and (Y,) along directions."""

    label: str
    xs: np.ndarray
    ys: np.ndarray
    losses: dict[str, np.ndarray]

    def values(self) -> dict[str, Any]:
        """Returns what is saved as JSON, under its label."""
        return {name: value for name, value in vars(self).items() if name != "label"}


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory(Plane):
    """The way of a run in the plane of its principal directions, with losses of all images.

    Distances are Euclidean, the trained parameters lie at (0, 0). The T checkpoints have
    coordinates (T, 2); each direction explains a share of their variance, (2,).
    """

    steps: list[int]
    coordinates: np.ndarray
    explained: np.ndarray


def planes_of(analyzed: Sequence[AnalyzedRun], reach: float, points: int, seed: int) -> list[Plane]:
    """Evaluates each run over the same two random directions, normalized by its own filters."""
    first, *others = analyzed
    for one in others:
        if jax.tree.map(np.shape, one.theta) != jax.tree.map(np.shape, first.theta):
            raise UsageError(
                f"runs must have one network to share directions, {one.run.path} and "
                f"{first.run.path} have parameters of other shapes"
            )
    axis = np.linspace(-reach, reach, points)
    keys = jax.random.split(jax.random.key(seed))
    planes = []
    with ticking("landscape", len(analyzed) * points, "row") as tick:
        for one in analyzed:
            across, up = (
                filter_normalized(random_direction(key, one.theta), one.theta) for key in keys
            )
            by_class = losses_over_plane(
                one.losses, one.theta, (across, up), axis, axis, on_row=lambda: tick(1)
            )
            planes.append(Plane(one.run.label, axis, axis, one.group_means(by_class)))
    return planes


def trajectories_of(analyzed: Sequence[AnalyzedRun], points: int) -> list[Trajectory]:
    """Evaluates each run around its checkpoints; those with fewer than three have no trajectory."""
    ways = [(one, *way) for one in analyzed if (way := _way(one.run)) is not None]
    found = []
    with ticking("trajectory", len(ways) * points, "row") as tick:
        for one, steps, plane in ways:
            xs, ys = (_around(axis, points) for axis in plane.coordinates.T)
            by_class = losses_over_plane(
                one.losses, one.theta, plane.directions, xs, ys, on_row=lambda: tick(1)
            )
            losses = {ALL: one.group_means(by_class)[ALL]}
            way = (steps, plane.coordinates, plane.explained)
            found.append(Trajectory(one.run.label, xs, ys, losses, *way))
    return found


def _way(run: TrainedRun) -> tuple[list[int], PrincipalPlane] | None:
    """Returns the steps of a run's checkpoints and their plane, or says why it has none."""
    last, kept = split_variables(run.predictor())[0], {}
    for step in run.files.saved_steps():
        if run.step is not None and step > run.step:
            continue
        try:
            theta = split_variables(Predictor.load(run.path, step))[0]
        except UsageError:
            # Reported in the log; a trajectory can do without one of its points.
            continue
        # Another stage may have had another classifier.
        if jax.tree.map(np.shape, theta) == jax.tree.map(np.shape, last):
            kept[step] = theta
    try:
        return list(kept), principal_plane(list(kept.values()))
    except ValueError as error:
        logging.getLogger(__name__).warning(
            "run %s is not drawn as a trajectory of its checkpoints: %s; training with more "
            "evaluations and --keep-checkpoints keeps more",
            run.label,
            error,
        )
        return None


def _around(coordinates: np.ndarray, points: int) -> np.ndarray:
    low, high = coordinates.min(), coordinates.max()
    margin = _MARGIN * (high - low)
    return np.linspace(low - margin, high + margin, points)


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
