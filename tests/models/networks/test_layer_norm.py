"""Layer norm and group norm against Flax's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.models import GroupNorm, LayerNorm

PAIRS = {
    "layer": (LayerNorm(), nn.LayerNorm(), (8, 5, 16)),
    "group": (GroupNorm(), nn.GroupNorm(8, epsilon=1e-5), (8, 5, 3, 16)),
    "4 groups": (GroupNorm(4), nn.GroupNorm(4, epsilon=1e-5), (3, 2, 2, 12)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_equals_flax_in_outputs_and_gradients(name):
    ours, theirs, shape = PAIRS[name]
    x = 3 * jax.random.normal(jax.random.key(0), shape) + 1
    # Small enough for epsilon to matter in one example.
    x = x.at[0].multiply(1e-3)
    params = ours.init(jax.random.key(1), x)
    assert jax.tree.structure(params) == jax.tree.structure(theirs.init(jax.random.key(1), x))
    params = jax.tree.map(lambda p: p + 0.1 * jnp.arange(shape[-1]), params)

    def run(module):
        def loss(params, x):
            out = module.apply(params, x)
            return jnp.sin(out).sum(), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x)

    (_, out), (by_params, by_x) = run(ours)
    (_, out_flax), (by_params_flax, by_x_flax) = run(theirs)
    np.testing.assert_allclose(out, out_flax, rtol=1e-4, atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3),
        by_params,
        by_params_flax,
    )
    scale = np.abs(by_x_flax).max(axis=tuple(range(1, x.ndim)), keepdims=True)
    np.testing.assert_allclose(by_x / scale, by_x_flax / scale, atol=2e-4)


@pytest.mark.parametrize("module", [LayerNorm, GroupNorm])
def test_computes_in_float32_and_returns_the_asked_type(module):
    # bfloat16 has no numbers between 1000 and 1004: statistics in it would be far off.
    x = 1000 + 8 * np.random.default_rng(0).integers(0, 9, size=(4, 6, 6, 16))
    norm = module(dtype=jnp.bfloat16)
    params = norm.init(jax.random.key(0), jnp.asarray(x, jnp.bfloat16))
    out = norm.apply(params, jnp.asarray(x, jnp.bfloat16))
    assert out.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    exact = module().apply(params, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(np.float32(out), exact, rtol=2**-8, atol=1e-3)


def test_channels_that_groups_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="channels must be a multiple of 8, got 12"):
        GroupNorm().init(jax.random.key(0), jnp.zeros((1, 2, 2, 12)))
