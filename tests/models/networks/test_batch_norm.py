from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.models import BatchNorm


@pytest.mark.parametrize("use_running_average", [False, True])
def test_equals_flax_in_outputs_statistics_and_gradients(use_running_average):
    x = 3 * jax.random.normal(jax.random.key(0), (8, 5, 5, 6)) + 1
    ours = BatchNorm(use_running_average)
    theirs = nn.BatchNorm(use_running_average, momentum=0.9)
    variables = ours.init(jax.random.key(1), x)
    assert jax.tree.structure(variables) == jax.tree.structure(theirs.init(jax.random.key(1), x))
    variables = jax.tree.map(lambda v: v + 0.1 * jnp.arange(6), variables)

    def run(module, params, x):
        out, updated = module.apply({**variables, "params": params}, x, mutable=["batch_stats"])
        return jnp.sin(out).sum(), (out, updated)

    results = [
        jax.value_and_grad(lambda p, x, m=module: run(m, p, x), argnums=(0, 1), has_aux=True)(
            variables["params"], x
        )
        for module in (ours, theirs)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *results)


def test_computes_in_float32_and_returns_the_asked_type():
    x = jnp.full((4, 2), 1000, jnp.bfloat16) + jnp.arange(4, dtype=jnp.bfloat16)[:, None] * 8
    module: Any = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    out, updated = module.apply(variables, x, mutable=["batch_stats"])
    assert out.dtype == jnp.bfloat16
    assert updated["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(out, np.float32).std(axis=0), 1, rtol=0.02)
