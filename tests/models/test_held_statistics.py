"""Batch norm that holds the statistics of one pass for others."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.models import BatchNorm, CifarResNet

MEAN = np.array([0.5, -1, 2], np.float32)
VAR = np.array([0.25, 4, 1], np.float32)


def _batch_norm(**fields) -> Any:
    return BatchNorm(**{"use_running_average": False, **fields})


def _variables() -> dict[str, Any]:
    return {
        "params": {"scale": jnp.array([1.0, 2, 3]), "bias": jnp.array([0.1, 0.2, 0.3])},
        "batch_stats": {"mean": jnp.array([7.0, 8, 9]), "var": jnp.array([5.0, 6, 7])},
        "held_statistics": {"mean": jnp.asarray(MEAN), "var": jnp.asarray(VAR)},
    }


def _images(rows=6, channels=3):
    return np.random.default_rng(0).normal(1, 2, size=(rows, 8, 8, channels)).astype(np.float32)


def test_held_constants_take_the_place_of_the_batchs_statistics():
    x = _images()
    for module in (_batch_norm(), _batch_norm(use_running_average=True)):
        out, updated = module.apply(_variables(), x, mutable=["batch_stats", "held_statistics"])
        normalized = (np.float64(x) - MEAN) / np.sqrt(VAR + 1e-5)
        np.testing.assert_allclose(out, normalized * [1, 2, 3] + [0.1, 0.2, 0.3], atol=2e-5)
        kept = {name: _variables()[name] for name in updated}
        assert set(kept) == {"batch_stats", "held_statistics"}
        jax.tree.map(np.testing.assert_array_equal, updated, kept)


def test_gradients_treat_held_statistics_as_constants():
    def loss(variables, x):
        return jnp.sin(_batch_norm().apply(variables, x)).sum()

    x = _images()
    by_variables, by_x = jax.grad(loss, argnums=(0, 1))(_variables(), x)
    normalized = (np.float64(x) - MEAN) / np.sqrt(VAR + 1e-5)
    slope = np.cos(normalized * [1, 2, 3] + [0.1, 0.2, 0.3])
    np.testing.assert_allclose(by_x, slope * [1, 2, 3] / np.sqrt(VAR + 1e-5), atol=1e-4)
    params = by_variables["params"]
    np.testing.assert_allclose(params["bias"], slope.sum((0, 1, 2)), rtol=1e-4, atol=1e-3)
    scale_gradient = (slope * normalized).sum((0, 1, 2))
    np.testing.assert_allclose(params["scale"], scale_gradient, rtol=1e-4, atol=1e-3)
    for name in ("batch_stats", "held_statistics"):
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(by_variables[name]))


def test_a_pass_stores_the_statistics_of_its_own_batch_if_asked_to():
    variables, x = _variables(), _images()
    del variables["held_statistics"]
    out, updated = _batch_norm().apply(variables, x, mutable=["batch_stats", "held_statistics"])
    np.testing.assert_allclose(updated["held_statistics"]["mean"], x.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(updated["held_statistics"]["var"], x.var((0, 1, 2)), rtol=1e-4)
    unasked, updated_unasked = _batch_norm().apply(variables, x, mutable=["batch_stats"])
    np.testing.assert_array_equal(out, unasked)
    assert set(updated_unasked) == {"batch_stats"}
    jax.tree.map(
        np.testing.assert_array_equal, updated["batch_stats"], updated_unasked["batch_stats"]
    )
    # A network initialized in training mode must not come with statistics held for ever.
    assert set(_batch_norm().init(jax.random.key(0), x)) == {"params", "batch_stats"}


def _resnet8() -> Any:
    return CifarResNet(num_classes=3, blocks=(1, 1, 1), projection=True)


@cache
def _clean_pass():
    x = _images(rows=8)
    variables = jax.jit(lambda key: _resnet8().init(key, x, train=True))(jax.random.key(0))
    kept = ["batch_stats", "held_statistics"]
    logits, updated = jax.jit(
        lambda variables: _resnet8().apply(variables, x, train=True, mutable=kept)
    )(variables)
    return {**variables, "held_statistics": updated["held_statistics"]}, x, logits


@jax.jit
def _training_pass(variables, x):
    return _resnet8().apply(variables, x, train=True, mutable=["batch_stats"])


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=3, max_size=3))
def test_a_sub_batch_gets_what_the_whole_batch_gave_its_rows(rows):
    variables, x, logits = _clean_pass()
    part, updated = _training_pass(variables, x[rows])
    np.testing.assert_allclose(part, logits[np.array(rows)], rtol=1e-4, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


def test_gradients_of_class_wise_passes_add_up_to_that_of_the_whole_batch():
    variables, x, _ = _clean_pass()

    @jax.jit
    def gradient(params, x):
        def loss(params):
            return jnp.sin(_resnet8().apply({**variables, "params": params}, x, train=True)).sum()

        return jax.grad(loss)(params)

    whole = gradient(variables["params"], x)
    parts = [gradient(variables["params"], x[rows]) for rows in ([0, 3, 5, 6], [1, 2, 4, 7])]
    total = jax.tree.map(jnp.add, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), total, whole)
