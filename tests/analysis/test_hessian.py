"""Spectra against the dense Hessian of a small network, and against matrices made to measure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from small_losses import losses_fn, small_losses

from jaxlt.analysis import DatasetLosses, hessian_product, spectrum, trace
from jaxlt.losses import cross_entropy


def dense_hessian(losses, theta, data):
    inputs, labels = data
    flat, unravel = ravel_pytree(theta)
    return jax.hessian(lambda x: losses_fn(unravel(x), losses.rest, inputs, labels).mean())(flat)


@pytest.fixture(scope="module")
def network():
    with jax.enable_x64(True):
        losses, theta, data = small_losses(np.float64)
        dense = np.asarray(dense_hessian(losses, theta, data))
        yield hessian_product(losses, theta), dense


@pytest.mark.usefixtures("x64")
class TestInDoublePrecision:
    def test_as_many_steps_as_parameters_find_every_eigenvalue(self, network):
        (product, size), dense = network
        eigenvalues = np.linalg.eigvalsh(dense)
        found = spectrum(product, size, jax.random.key(0), num_steps=1000, dtype=jnp.float64)
        assert found.ritz_values.shape == (1, size) == (1, len(dense))
        # Each is found once, and so is 0, which is one several times over.
        distances = np.abs(found.ritz_values[0][:, np.newaxis] - eigenvalues)
        assert distances.min(axis=0).max() < 1e-9
        assert distances.min(axis=1).max() < 1e-9
        ratio = abs(eigenvalues[0] / eigenvalues[-1])
        assert found.saddle_measure == pytest.approx(ratio, rel=1e-8)
        assert eigenvalues[0] < -0.01, "the oracle must have negative curvature"

    def test_few_steps_find_the_extreme_ones_within_the_bound(self, network):
        (product, size), dense = network
        eigenvalues = np.linalg.eigvalsh(dense)
        found = spectrum(
            product, size, jax.random.key(1), num_steps=12, num_vectors=2, dtype=jnp.float64
        )
        assert eigenvalues[0] <= found.smallest <= eigenvalues[0] + found.residual
        assert eigenvalues[-1] - found.residual <= found.largest <= eigenvalues[-1]
        assert 1e-12 < found.residual < 0.1 * found.largest
        # Each Ritz value, not the extreme ones alone, has an eigenvalue within its bound.
        distances = np.abs(found.ritz_values[..., np.newaxis] - eigenvalues).min(axis=-1)
        assert (distances <= found.residuals + 1e-12).all()

    def test_density_is_that_of_the_starting_vectors(self, network):
        """Quadrature with a step for each parameter is exact: a dense decomposition knows it."""
        (product, size), dense = network
        key = jax.random.key(2)
        found = spectrum(product, size, key, num_steps=size, num_vectors=2, dtype=jnp.float64)
        eigenvalues, eigenvectors = np.linalg.eigh(dense)
        starts = [
            np.asarray(jax.random.rademacher(one, (size,), jnp.float64))
            for one in jax.random.split(key, 2)
        ]
        weights = np.mean([(start @ eigenvectors) ** 2 / size for start in starts], axis=0)
        grid = np.linspace(eigenvalues[0] - 0.1, eigenvalues[-1] + 0.1, 5001)
        distances = grid[:, np.newaxis] - eigenvalues
        variance = 1e-5 * max(1, eigenvalues[-1] - eigenvalues[0])
        gaussians = np.exp(-(distances**2) / 2 / variance) / np.sqrt(2 * np.pi * variance)
        density = found.density(grid)
        np.testing.assert_allclose(density, gaussians @ weights, rtol=1e-6, atol=1e-6)
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-6)

    def test_trace_is_within_its_error(self, network):
        (product, size), dense = network
        found = trace(product, size, jax.random.key(3), num_samples=100, dtype=jnp.float64)
        assert abs(found.mean - np.trace(dense)) < 4 * found.standard_error
        # Hutchinson's variance with random signs: twice the squares off the diagonal.
        off_diagonal = dense - np.diag(np.diag(dense))
        expected = np.sqrt(2 * (off_diagonal**2).sum() / 100)
        assert found.standard_error == pytest.approx(expected, rel=0.4)


def test_single_precision_agrees(network):
    _, dense = network
    losses, theta, _ = small_losses(np.float32)
    product, size = hessian_product(losses, theta)
    found = spectrum(product, size, jax.random.key(0), num_steps=size)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert found.largest == pytest.approx(eigenvalues[-1], rel=1e-5)
    assert found.smallest == pytest.approx(eigenvalues[0], rel=1e-4)


def test_orthogonality_is_kept_where_lanczos_alone_loses_it():
    """Without re-orthogonalization the largest eigenvalue comes again and again: ghosts."""
    eigenvalues = np.concatenate([[1000.0, 500.0], np.linspace(-1, 1, 198)])
    diagonal = jnp.asarray(eigenvalues, jnp.float32)
    found = spectrum(lambda v: diagonal * v, 200, jax.random.key(0), num_steps=60)
    assert (found.ritz_values > 2).sum() == 2
    assert found.largest == pytest.approx(1000, rel=1e-5)


def low_rank():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 3)))[0]
    return basis @ np.diag([100.0, 5.0, -3.0]) @ basis.T


@pytest.mark.parametrize(
    ("matrix", "smallest", "largest"),
    [(low_rank(), -3, 100), (np.eye(60), 1, 1), (np.zeros((60, 60)), 0, 0)],
    ids=["rank 3", "identity", "zero"],
)
def test_nothing_is_found_where_there_is_nothing_more(matrix, smallest, largest):
    """Steps after the last direction that the matrix has yield rounding, of whatever size."""
    matrix = jnp.asarray(matrix, jnp.float32)
    found = spectrum(jax.jit(lambda v: matrix @ v), 60, jax.random.key(0), num_steps=40)
    assert found.ritz_values.shape == (1, 40)
    assert found.smallest == pytest.approx(smallest, abs=1e-4)
    assert found.largest == pytest.approx(largest, abs=1e-4)
    assert found.residual < 1e-3
    assert found.weights.sum() == pytest.approx(1, abs=1e-6)
    assert np.isnan(found.saddle_measure) == (largest == 0)


def test_a_convex_loss_of_few_images_has_no_negative_curvature():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(3, 10)).astype(np.float32), np.array([2, 2, 2])
    losses = DatasetLosses.of(
        lambda theta, rest, inputs, labels: cross_entropy(inputs @ theta, labels),
        features,
        labels,
        4,
    )
    theta = jnp.asarray(rng.normal(size=(10, 4)), jnp.float32)
    product, size = hessian_product(losses, theta)
    found = spectrum(product, size, jax.random.key(0), num_steps=size)
    dense = jax.hessian(lambda x: losses.mean(x.reshape(10, 4)))(theta.ravel())
    assert found.largest == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-5)
    assert abs(found.smallest) < 1e-5 * found.largest


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**16), steps=st.sampled_from([1, 3, 6]))
def test_ritz_values_lie_within_the_spectrum_and_weights_are_a_distribution(seed, steps):
    with jax.enable_x64(True):
        matrix = np.random.default_rng(seed).normal(size=(6, 6))
        matrix = jnp.asarray(matrix + matrix.T)
        found = spectrum(
            lambda v: matrix @ v, 6, jax.random.key(seed), num_steps=steps, dtype=jnp.float64
        )
        eigenvalues = np.linalg.eigvalsh(matrix)
    assert found.weights.sum() == pytest.approx(1)
    assert found.smallest >= eigenvalues[0] - 1e-9
    assert found.largest <= eigenvalues[-1] + 1e-9
