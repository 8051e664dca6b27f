"""Directions: lengths by NumPy, principal planes by scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from sklearn.decomposition import TruncatedSVD

from jaxlt.analysis import filter_normalized, principal_plane, random_direction
from jaxlt.analysis.landscape import of_norm


def parameters():
    rng = np.random.default_rng(0)
    shapes = {"conv": (3, 3, 2, 4), "dense": (5, 3), "bias": (4,)}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


def test_random_directions_are_of_their_key_alone():
    theta = parameters()
    one, same = (random_direction(jax.random.key(1), theta) for _ in range(2))
    other = random_direction(jax.random.key(2), theta)
    flat = np.asarray(ravel_pytree(one)[0])
    np.testing.assert_array_equal(flat, ravel_pytree(same)[0])
    assert not np.isclose(flat, ravel_pytree(other)[0]).any()
    assert jax.tree.map(np.shape, one) == jax.tree.map(np.shape, theta)


def test_length_is_over_all_leaves():
    theta = parameters()
    scaled = ravel_pytree(of_norm(theta, 2.5))[0]
    assert np.linalg.norm(scaled) == pytest.approx(2.5, rel=1e-6)
    zero = jax.tree.map(jnp.zeros_like, theta)
    assert not ravel_pytree(of_norm(zero, 2.5))[0].any()


def test_each_filter_has_the_norm_of_the_trained_one():
    theta = parameters()
    direction = random_direction(jax.random.key(0), theta)
    found = filter_normalized(direction, theta)
    for name in ("conv", "dense"):
        for output in range(theta[name].shape[-1]):
            length = np.linalg.norm(found[name][..., output])
            assert length == pytest.approx(np.linalg.norm(theta[name][..., output]), rel=1e-5)
            # The direction itself is kept.
            cosine = np.vdot(found[name][..., output], direction[name][..., output]) / (
                length * np.linalg.norm(direction[name][..., output])
            )
            assert cosine == pytest.approx(1, rel=1e-5)
    assert not found["bias"].any()


def test_principal_plane_is_that_of_a_library():
    rng = np.random.default_rng(1)
    points = [
        {
            "a": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
            "b": jnp.asarray(rng.normal(size=4), jnp.float32),
        }
        for _ in range(6)
    ]
    plane = principal_plane(points)
    flat = np.stack([np.asarray(ravel_pytree(point)[0]) for point in points])
    offsets = (flat - flat[-1]).astype(np.float64)
    library = TruncatedSVD(2, algorithm="arpack").fit(offsets[:-1])
    directions = np.stack([ravel_pytree(one)[0] for one in plane.directions])
    cosines = np.abs((directions * library.components_).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, rtol=1e-5)
    np.testing.assert_allclose(plane.coordinates, offsets @ directions.T, atol=1e-5)
    np.testing.assert_allclose(
        plane.explained, library.singular_values_**2 / (offsets**2).sum(), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([0.0, 1.0], "at least 3 points, got 2"),
        ([0.0, 1.0, 2.0, 5.0], "must not lie on a line"),
        ([1.0, 1.0, 1.0], "must not lie on a line"),
    ],
)
def test_trajectories_without_a_plane_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        principal_plane([{"w": jnp.full(3, point)} for point in points])
