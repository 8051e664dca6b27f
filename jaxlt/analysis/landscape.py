"""Directions in the space of parameters, and losses along lines and over planes there."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, Real

from jaxlt.analysis.dataset_losses import DatasetLosses
from jaxlt.sharpness.perturbation import norm, standard_normal


def random_direction(key: PRNGKeyArray, theta: Any) -> Any:
    """Draws a direction of independent standard normal components.

    Args:
        key: PRNG key.
        theta: pytree of arrays, whose structure and shapes the direction has.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlt.analysis as analysis
        >>> analysis.random_direction(jax.random.key(0), {"bias": jnp.zeros(2)})["bias"].shape
        (2,)
    """
    leaves, treedef = jax.tree.flatten(theta)
    return jax.tree.unflatten(treedef, standard_normal(key, leaves))


def of_norm(direction: Any, length: Real[ArrayLike, ""]) -> Any:
    """Scales a direction to a Euclidean norm over all leaves; zero stays zero."""
    found = norm(direction)
    factor = jnp.where(found > 0, length / jnp.where(found > 0, found, 1), 0)
    return jax.tree.map(lambda leaf: (factor * leaf).astype(leaf.dtype), direction)


def filter_normalized(direction: Any, theta: Any) -> Any:
    """Scales each filter of a direction to the norm of theta's.

    That is section 4 of Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018.
    A filter is what makes one output of a kernel: all of a leaf but its last axis. Leaves of fewer
    than two axes, biases and the factors of normalizations, get no direction.
    Direction and theta are trees of one structure, see `random_direction`.

    Example:
        >>> import jax.numpy as jnp, jaxlt.analysis as analysis
        >>> theta = jnp.array([[3.0, 1.0], [4.0, 0.0]])
        >>> print(analysis.filter_normalized(jnp.array([[0.0, 1.0], [2.0, 0.0]]), theta))
        [[0. 1.]
         [5. 0.]]
    """

    def normalized(d: Float[Array, "*shape"], w: Float[Array, "*shape"]) -> Array:
        if w.ndim < 2:
            return jnp.zeros_like(w)
        axes = tuple(range(w.ndim - 1))
        length, wanted = (jnp.sqrt(jnp.square(x).sum(axes, keepdims=True)) for x in (d, w))
        return jnp.where(length > 0, wanted / jnp.where(length > 0, length, 1), 0) * d

    return jax.tree.map(normalized, direction, theta)


class PrincipalPlane(NamedTuple):
    """The plane of a trajectory's largest variance.

    Attributes:
        directions: two orthonormal directions, pytrees like theta.
        coordinates: of each point from the last one.
        explained: share of the variance around the last point along each direction.
    """

    directions: tuple[Any, Any]
    coordinates: Float[np.ndarray, "points 2"]
    explained: Float[np.ndarray, "2"]


def principal_plane(trajectory: Sequence[Any]) -> PrincipalPlane:
    """Finds the principal directions of the differences to the last point (Li et al., section 7).

    A ValueError says that the pytrees of `trajectory` are fewer than three or lie on a line.

    Example:
        >>> import jax.numpy as jnp, jaxlt.analysis as analysis
        >>> points = [jnp.array([3.0, 0.0]), jnp.array([0.0, 1.0]), jnp.zeros(2)]
        >>> print(analysis.principal_plane(points).explained)
        [0.9 0.1]
    """
    if len(trajectory) < 3:
        raise ValueError(f"trajectory must have at least 3 points, got {len(trajectory)}")
    last, unravel = ravel_pytree(trajectory[-1])
    points = np.stack([np.asarray(ravel_pytree(point)[0] - last) for point in trajectory[:-1]])
    left, values, right = np.linalg.svd(points.astype(np.float64), full_matrices=False)
    if values[1] <= 1e-7 * values[0]:
        raise ValueError("trajectory must not lie on a line, got one that does")
    coordinates = np.vstack([left[:, :2] * values[:2], np.zeros(2)])
    first, second = (unravel(jnp.asarray(row, last.dtype)) for row in right[:2])
    return PrincipalPlane((first, second), coordinates, values[:2] ** 2 / (values**2).sum())


def losses_along(
    losses: DatasetLosses, theta: Any, direction: Any, distances: Real[np.ndarray, " distances"]
) -> Float[np.ndarray, "distances classes"]:
    """Returns the mean losses of each class at `theta + t * direction`.

    The distances are values of t; for what else it takes see `losses_over_plane`. A class without
    image has NaN.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxlt.analysis as analysis
        >>> losses_fn = lambda w, rest, inputs, labels: (inputs @ w) ** 2 / 2
        >>> losses = analysis.DatasetLosses.of(losses_fn, np.diag([2.0, 1.0]), np.array([0, 1]), 2)
        >>> print(analysis.losses_along(losses, jnp.ones(2), jnp.eye(2)[0], np.array([0.0, 1.0])))
        [[2.  0.5]
         [8.  0.5]]
    """
    zero = jax.tree.map(jnp.zeros_like, direction)
    return np.asarray(_row(losses, theta, direction, zero, jnp.asarray(distances, float), 0.0))


def losses_over_plane(
    losses: DatasetLosses,
    theta: Any,
    directions: tuple[Any, Any],
    xs: Real[np.ndarray, " xs"],
    ys: Real[np.ndarray, " ys"],
    *,
    on_row: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "ys xs classes"]:
    """Returns the mean losses of each class at `theta + x * first + y * second`.

    A row of the plane is one program of the device, mapped over x. A class without image has NaN.

    Args:
        losses: of C classes.
        theta: parameters.
        directions: first and second, pytrees like theta.
        xs: values of x.
        ys: values of y, one a row.
        on_row: called after each y.

    Example:
        >>> import jax.numpy as jnp, numpy as np, jaxlt.analysis as analysis
        >>> losses_fn = lambda w, rest, inputs, labels: (inputs @ w) ** 2 / 2
        >>> losses = analysis.DatasetLosses.of(losses_fn, np.diag([2.0, 1.0]), np.array([0, 1]), 2)
        >>> xs, ys = np.ones(2), np.ones(1)
        >>> analysis.losses_over_plane(losses, jnp.ones(2), tuple(jnp.eye(2)), xs, ys).shape
        (1, 2, 2)
    """
    rows = []
    for y in ys:
        rows.append(np.asarray(_row(losses, theta, *directions, jnp.asarray(xs, float), float(y))))
        on_row()
    return np.stack(rows)


@jax.jit
def _row(
    losses: DatasetLosses, theta: Any, first: Any, second: Any, xs: Array, y: ArrayLike
) -> Float[Array, "xs classes"]:
    origin = jax.tree.map(partial(_moved, y), theta, second)

    def at(x: Float[Array, ""]) -> Float[Array, " classes"]:
        by_class = losses.by_class(jax.tree.map(partial(_moved, x), origin, first))
        present = by_class.counts > 0
        return jnp.where(present, by_class.sums / jnp.where(present, by_class.counts, 1), jnp.nan)

    return jax.lax.map(at, xs)


def _moved(distance: ArrayLike, leaf: Array, direction: Array) -> Array:
    return (leaf + distance * direction).astype(leaf.dtype)
