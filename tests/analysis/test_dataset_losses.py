"""Losses of a whole data set, against all of it at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from small_losses import CLASSES, COUNTS, losses_fn, small_losses

from jaxlt.analysis import DatasetLosses


@pytest.fixture(autouse=True, scope="module")
def double():
    with jax.enable_x64(True):
        yield


def direct_mean(losses, data):
    """The mean loss as a function of flat parameters, without batches or padding."""
    inputs, labels = data
    return lambda theta: losses_fn(theta, losses.rest, inputs, labels).mean()


@pytest.mark.parametrize("batch_size", [16, 128], ids=["two batches", "one padded batch"])
def test_losses_are_those_of_each_image(batch_size):
    losses, theta, (inputs, labels) = small_losses(np.float64, batch_size)
    by_class = losses.by_class(theta)
    each = np.asarray(losses_fn(theta, losses.rest, inputs, labels))
    sums = [each[labels == c].sum() for c in range(CLASSES)]
    np.testing.assert_allclose(by_class.sums, sums, rtol=1e-12)
    np.testing.assert_array_equal(by_class.counts, COUNTS)
    np.testing.assert_array_equal(losses.counts, COUNTS)
    assert float(losses.mean(theta)) == pytest.approx(each.mean(), rel=1e-12)


def test_gradient_and_hessian_products_are_those_of_the_mean():
    losses, theta, data = small_losses(np.float64)
    assert len(losses.labels) == 2
    flat, unravel = ravel_pytree(theta)
    mean = direct_mean(losses, data)
    gradient = ravel_pytree(losses.gradient(theta))[0]
    np.testing.assert_allclose(gradient, ravel_pytree(jax.grad(mean)(theta))[0], rtol=1e-10)
    dense = jax.hessian(lambda flat: mean(unravel(flat)))(flat)
    vector = jnp.asarray(np.random.default_rng(1).normal(size=flat.size))
    product = losses.hessian_vector_product(theta, unravel(vector))
    np.testing.assert_allclose(ravel_pytree(product)[0], dense @ vector, rtol=1e-10, atol=1e-12)


def test_some_classes_are_the_images_of_those_alone():
    losses, theta, (inputs, labels) = small_losses(np.float64)
    chosen = np.array([False, True, True, False])
    some = losses.of_classes(chosen)
    each = np.asarray(losses_fn(theta, losses.rest, inputs, labels))
    assert float(some.mean(theta)) == pytest.approx(each[chosen[labels]].mean(), rel=1e-12)
    np.testing.assert_array_equal(some.counts, [0, 7, 3, 0])


def test_what_is_no_data_set_is_refused():
    losses, _, (inputs, labels) = small_losses(np.float64)
    with pytest.raises(ValueError, match="at least one image, got none"):
        losses.of_classes(np.array([False, False, False, True]))
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0 to 2"):
        DatasetLosses.of(losses_fn, inputs, labels, 2)
