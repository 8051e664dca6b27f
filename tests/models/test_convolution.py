import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.models.convolution import Conv


@pytest.mark.parametrize("strides", [1, 2])
def test_is_flax_s_convolution(strides):
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 2))
    ours = Conv(4, (3, 3), strides=strides, padding=1)
    theirs = nn.Conv(4, (3, 3), strides=strides, padding=1)
    params = theirs.init(jax.random.key(1), x)

    def value_and_gradients(conv):
        return jax.jit(
            jax.value_and_grad(lambda p, x: jnp.square(conv.apply(p, x)).sum(), argnums=(0, 1))
        )(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        value_and_gradients(ours),
        value_and_gradients(theirs),
    )


def test_gradients_of_gradients():
    """The barrier has derivatives of every order, forward and reverse."""
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 1))
    conv = Conv(1, (3, 3))
    params = conv.init(jax.random.key(1), x)

    def loss(p):
        return jnp.tanh(conv.apply(p, x)).sum()

    _, product = jax.jvp(jax.grad(loss), (params,), (params,))
    step = 1e-2
    ahead, behind = (
        jax.grad(loss)(jax.tree.map(lambda w, s=s: w + s * w, params)) for s in (step, -step)
    )
    jax.tree.map(
        lambda hv, a, b: np.testing.assert_allclose(hv, (a - b) / (2 * step), atol=2e-2),
        product,
        ahead,
        behind,
    )


def test_under_vmap():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 1))
    conv = Conv(2, (3, 3))
    params = jax.vmap(lambda key, x: conv.init(key, x))(jax.random.split(jax.random.key(1)), x)
    together = jax.vmap(lambda p, x: conv.apply(p, x))(params, x)
    apart = [conv.apply(jax.tree.map(lambda w, i=i: w[i], params), x[i]) for i in range(2)]
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-5, atol=1e-6)
