"""Losses of groups of classes over planes, and trajectories of runs in planes of their own."""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.analyzed_run import ALL, AnalyzedRun, split_variables
from experiments.ticker import ticking
from jaxlt.analysis import (
    PrincipalPlane,
    filter_normalized,
    losses_over_plane,
    principal_plane,
    random_direction,
)
from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.recipes.trained_run import TrainedRun

# Of the trajectory's extent, beyond which its plane is shown.
_MARGIN = 0.25


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
