"""Sharpness by group of classes, against plain gradients of each group's images."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from small_problems import (
    COUNTS,
    NUM_CLASSES,
    batch,
    class_losses_fn_of,
    factored,
    initial_params,
    is_classifier,
    logits,
)

from jaxlt.analysis.group_sharpness import group_sharpness

# Overlapping, and one of a single rare class, of which batch 0 has no image.
GROUPS = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 1]], bool)
RADIUS = 0.3

pytestmark = pytest.mark.usefixtures("x64")


def group_loss(params, x, y, group):
    """Of the group's images alone, picked out of the batch."""
    chosen = np.flatnonzero(group[np.asarray(y)])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x[chosen]), y[chosen])
    return losses.mean()


def brute_force(params, x, y, mask):
    """Loss, gradient over all leaves of the mask, and sharpness of each group."""
    chosen = {name: np.float64(mask(params)[name] if mask else 1) for name in params}
    for group in GROUPS:
        loss, gradient = jax.value_and_grad(group_loss)(params, x, y, group)
        gradient = jax.tree.map(jnp.multiply, gradient, chosen)
        flat, unravel = ravel_pytree(gradient)
        eps = unravel(RADIUS * flat / np.linalg.norm(flat))
        moved = jax.tree.map(jnp.add, params, eps)
        yield float(loss), np.asarray(flat), float(group_loss(moved, x, y, group) - loss)


def measure(x, y, mask=None, losses_of=class_losses_fn_of):
    params = initial_params()
    return params, jax.jit(
        lambda params: group_sharpness(
            losses_of(x, y), params, jnp.array(GROUPS), radius=RADIUS, mask=mask
        )
    )(params)


@pytest.mark.parametrize("mask", [None, is_classifier])
@pytest.mark.parametrize("losses_of", [class_losses_fn_of, factored])
def test_every_number_is_that_of_plain_gradients(mask, losses_of):
    x, y = batch(2)
    params, measured = measure(x, y, mask, losses_of)
    losses, gradients, sharpness = zip(*brute_force(params, x, y, mask), strict=True)
    norms = np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(measured.loss, losses, rtol=1e-10)
    np.testing.assert_allclose(measured.gradient_norm, norms, rtol=1e-10)
    np.testing.assert_allclose(measured.sharpness, sharpness, rtol=1e-10)
    directions = np.array(gradients) / norms[:, None]
    np.testing.assert_allclose(measured.cosine, directions @ directions.T, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(measured.cosine, measured.cosine.T)
    np.testing.assert_allclose(np.diagonal(measured.cosine), 1, rtol=1e-12)
    assert (measured.sharpness > 0).all()


def test_a_group_without_image_is_nan_and_changes_no_other():
    x, y = batch(0)
    assert 4 not in y
    params, measured = measure(x, y)
    for values in measured[:3]:
        np.testing.assert_array_equal(np.isnan(values), [False, False, True])
    absent = np.zeros((3, 3), bool)
    absent[2], absent[:, 2] = True, True
    np.testing.assert_array_equal(np.isnan(measured.cosine), absent)
    for group in range(2):
        expected = group_loss(params, x, y, GROUPS[group])
        np.testing.assert_allclose(measured.loss[group], expected, rtol=1e-10)


def test_a_zero_gradient_has_no_angle_and_no_sharpness():
    """Of a constant loss, whose group has images all the same."""
    x, y = batch(2)
    losses_of = class_losses_fn_of(x, y)

    def constant_in_the_last(params):
        losses = losses_of(params)
        return type(losses)(losses.sums.at[4].set(2.0 * losses.counts[4]), losses.counts)

    measured = group_sharpness(constant_in_the_last, initial_params(), jnp.array(GROUPS))
    assert measured.loss[2] == 2
    assert measured.gradient_norm[2] == measured.sharpness[2] == 0
    assert np.isnan(measured.cosine[2]).all()
    assert np.isfinite(measured.cosine[:2, :2]).all()


@pytest.mark.usefixtures("unchecked_arrays")
def test_groups_of_another_number_of_classes_are_refused():
    x, y = batch(2)
    assert len(COUNTS) == NUM_CLASSES
    for groups in (np.ones((2, NUM_CLASSES + 1), bool), np.ones(NUM_CLASSES, bool)):
        with pytest.raises(ValueError, match=r"groups must have shape \(G, C\), with C = 5"):
            group_sharpness(class_losses_fn_of(x, y), initial_params(), groups)
