"""Losses of groups of classes over planes, and trajectories of runs in planes of their own."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.analysed_run import ALL, AnalysedRun, trajectory
from experiments.ticker import ticking
from jaxlt.analysis import (
    PrincipalPlane,
    filter_normalised,
    losses_over_plane,
    principal_plane,
    random_direction,
)
from jaxlt.errors import UsageError

_logger = logging.getLogger(__name__)

# Of the trajectory's extent, beyond which its plane is shown.
_MARGIN = 0.25


@dataclasses.dataclass(frozen=True, eq=False)
class Plane:
    """Losses over a plane through the trained parameters.

    Attributes:
        label: of the run.
        xs: (X,) distances along the first direction.
        ys: (Y,) along the second.
        losses: (Y, X) for each group, means over its images in nats.
    """

    label: str
    xs: np.ndarray
    ys: np.ndarray
    losses: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectory:
    """The way of a run in the plane of its principal directions.

    Attributes:
        plane: losses of all images; distances are Euclidean, the trained parameters lie at (0, 0).
        steps: (T,) of the checkpoints.
        coordinates: (T, 2) of the checkpoints.
        explained: (2,) share of the variance along each direction.
    """

    plane: Plane
    steps: list[int]
    coordinates: np.ndarray
    explained: np.ndarray


def check_same_network(analysed: Sequence[AnalysedRun]) -> None:
    """Raises UsageError unless the runs have parameters of one form, which share directions."""
    first = analysed[0]
    for one in analysed[1:]:
        if jax.tree.map(np.shape, one.theta) != jax.tree.map(np.shape, first.theta):
            raise UsageError(
                f"runs must have one network to share directions, {one.run.path} and "
                f"{first.run.path} have parameters of other shapes"
            )


def planes_of(analysed: Sequence[AnalysedRun], reach: float, points: int, seed: int) -> list[Plane]:
    """Evaluates each run over the same two random directions, normalised by its own filters."""
    axis = np.linspace(-reach, reach, points)
    keys = jax.random.split(jax.random.key(seed))
    planes = []
    with ticking("landscape", len(analysed) * points, "row") as tick:
        for one in analysed:
            first, second = (
                filter_normalised(random_direction(key, one.theta), one.theta) for key in keys
            )
            by_class = losses_over_plane(
                one.losses, one.theta, (first, second), axis, axis, on_row=lambda: tick(1)
            )
            planes.append(Plane(one.run.label, axis, axis, one.group_means(by_class)))
    return planes


def trajectories_of(analysed: Sequence[AnalysedRun], points: int) -> list[Trajectory]:
    """Evaluates each run around its checkpoints; those with fewer than three have no trajectory."""
    ways = [(one, steps, plane) for one in analysed for steps, plane in _principal_plane(one)]
    found = []
    with ticking("trajectory", len(ways) * points, "row") as tick:
        for one, steps, plane in ways:
            xs, ys = (_around(axis, points) for axis in plane.coordinates.T)
            by_class = losses_over_plane(
                one.losses, one.theta, plane.directions, xs, ys, on_row=lambda: tick(1)
            )
            losses = {ALL: one.group_means(by_class)[ALL]}
            found.append(
                Trajectory(
                    Plane(one.run.label, xs, ys, losses), steps, plane.coordinates, plane.explained
                )
            )
    return found


def _principal_plane(one: AnalysedRun) -> Iterator[tuple[list[int], PrincipalPlane]]:
    """Yields the steps of a run's checkpoints and their plane, or says why it has none."""
    kept = trajectory(one.run)
    try:
        yield list(kept), principal_plane(list(kept.values()))
    except ValueError as error:
        _logger.warning(
            "run %s is not drawn as a trajectory of its checkpoints: %s; training with more "
            "evaluations and --keep-checkpoints keeps more",
            one.run.label,
            error,
        )


def _around(coordinates: np.ndarray, points: int) -> np.ndarray:
    low, high = coordinates.min(), coordinates.max()
    margin = _MARGIN * (high - low)
    return np.linspace(low - margin, high + margin, points)


def values(planes: Sequence[Plane], trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Returns what is saved as JSON."""
    return {
        "planes": {plane.label: _plane_values(plane) for plane in planes},
        "trajectories": {
            one.plane.label: {
                **_plane_values(one.plane),
                "steps": one.steps,
                "coordinates": one.coordinates,
                "explained": one.explained,
            }
            for one in trajectories
        },
    }


def _plane_values(plane: Plane) -> dict[str, Any]:
    return {"xs": plane.xs, "ys": plane.ys, "losses": plane.losses}
