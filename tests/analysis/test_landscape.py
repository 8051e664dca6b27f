"""Losses along lines and over planes, against one evaluation after the other."""

import jax
import jax.numpy as jnp
import numpy as np
from small_losses import CLASSES, losses_fn, small_losses

from jaxlt.analysis import DatasetLosses, losses_along, losses_over_plane, random_direction


def class_means(losses, theta, data):
    inputs, labels = data
    each = np.asarray(losses_fn(theta, losses.rest, inputs, labels))
    return [each[labels == c].mean() if (labels == c).any() else np.nan for c in range(CLASSES)]


def test_line_and_plane_are_evaluations_one_by_one():
    losses, theta, data = small_losses(np.float32)
    first, second = (random_direction(jax.random.key(n), theta) for n in range(2))
    xs, ys = np.array([-0.5, 0.0, 1.0]), np.array([0.0, 0.25])
    rows = []
    plane = losses_over_plane(losses, theta, (first, second), xs, ys, on_row=lambda: rows.append(1))
    assert plane.shape == (2, 3, CLASSES)
    assert len(rows) == 2
    for row, y in zip(plane, ys, strict=True):
        for found, x in zip(row, xs, strict=True):
            moved = jax.tree.map(lambda w, a, b, x=x, y=y: w + x * a + y * b, theta, first, second)
            np.testing.assert_allclose(found, class_means(losses, moved, data), rtol=2e-5)
    np.testing.assert_allclose(losses_along(losses, theta, first, xs), plane[0], rtol=1e-6)


def test_loss_of_a_quadratic_is_a_parabola():
    losses = DatasetLosses.of(
        lambda theta, rest, inputs, labels: (inputs[:, 0] - theta) ** 2,
        np.full((20, 1), 3.0, np.float32),
        np.zeros(20, int),
        1,
    )
    distances = np.linspace(-2, 2, 5)
    found = losses_along(losses, jnp.float32(1.0), jnp.float32(2.0), distances)
    np.testing.assert_allclose(found[:, 0], (2 - 2 * distances) ** 2, rtol=1e-6)
