"""Losses along lines and over planes in the space of parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.analysis.dataset_losses import DatasetLosses


def losses_along(
    losses: DatasetLosses, theta: Any, direction: Any, distances: np.ndarray
) -> np.ndarray:
    """Returns the losses of each class at `theta + t * direction`.

    Args:
        losses: of C classes.
        theta: parameters.
        direction: pytree like theta.
        distances: (T,) values of t.

    Returns:
        (T, C) mean losses; NaN for a class without image.
    """
    zero = jax.tree.map(jnp.zeros_like, direction)
    return np.asarray(_row(losses, theta, direction, zero, jnp.asarray(distances, float), 0.0))


def losses_over_plane(
    losses: DatasetLosses,
    theta: Any,
    directions: tuple[Any, Any],
    xs: np.ndarray,
    ys: np.ndarray,
    *,
    on_row: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """Returns the losses of each class at `theta + x * first + y * second`.

    A row of the plane is one program of the device, mapped over x.

    Args:
        losses: of C classes.
        theta: parameters.
        directions: first and second, pytrees like theta.
        xs: (X,).
        ys: (Y,).
        on_row: called after each y.

    Returns:
        (Y, X, C) mean losses; NaN for a class without image.
    """
    rows = []
    for y in ys:
        rows.append(np.asarray(_row(losses, theta, *directions, jnp.asarray(xs, float), float(y))))
        on_row()
    return np.stack(rows)


@jax.jit
def _row(
    losses: DatasetLosses, theta: Any, first: Any, second: Any, xs: jax.Array, y: jax.Array | float
) -> jax.Array:
    origin = jax.tree.map(partial(_moved, y), theta, second)

    def at(x: jax.Array) -> jax.Array:
        by_class = losses.by_class(jax.tree.map(partial(_moved, x), origin, first))
        present = by_class.counts > 0
        return jnp.where(present, by_class.sums / jnp.where(present, by_class.counts, 1), jnp.nan)

    return jax.lax.map(at, xs)


def _moved(distance: jax.Array | float, leaf: jax.Array, direction: jax.Array) -> jax.Array:
    return (leaf + distance * direction).astype(leaf.dtype)
