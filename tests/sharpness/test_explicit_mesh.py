"""Factored losses of a batch that is spread by JAX's explicit sharding, against the same at home.

One device will do: what may not be sorted or multiplied is decided by the types of the arrays.
"""

import functools

import jax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from small_problems import (
    METHODS,
    assert_close,
    batch,
    factored,
    initial_params,
    is_classifier,
)

import jaxlt


def cosine(params):
    return jaxlt.Cosine(params["classifier.kernel"], 5.0)


def update(name, x, y, *, place=lambda tree: tree, **fields):
    params = initial_params()
    if fields:
        del params["classifier.bias"]
    tx = METHODS[name](mask=is_classifier(params) if name == "cc_sam" else None)

    def step(params, x, y):
        obj = factored(x, y, jaxlt.Blocks(), **fields)
        loss, gradient = jax.value_and_grad(lambda p: obj(p).mean())(params)
        # Parts of the batch do not measure its loss.
        return tx.update(gradient, tx.init(params), params, value=loss, class_losses_fn=obj)

    return jax.device_get(jax.jit(step)(place(params), x, y))


@pytest.mark.usefixtures("x64")
class TestExplicitMesh:
    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("imb_sam", {}),
            ("cc_sam", {}),
            ("cc_sam", {"classifier_fn": cosine}),
            pytest.param(
                "cc_sam",
                {"classifier_fn": lambda p: jaxlt.Linear(2 * p["classifier.kernel"])},
                marks=pytest.mark.skipif(
                    jax.__version_info__ < (0, 10, 2),
                    reason="the gradient of a product under vmap loses its sharding in JAX 0.10.0",
                ),
            ),
        ],
    )
    def test_update(self, name, fields):
        mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Explicit,))
        expected = update(name, *batch(2), **fields)
        with jax.set_mesh(mesh):
            spread = jax.device_put(batch(2), NamedSharding(mesh, PartitionSpec("batch")))
            whole = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec()))
            actual = update(name, *spread, place=whole, **fields)
        assert_close(actual[0], expected[0], 1e-14)
        assert_close(actual[1], expected[1], 1e-6)
