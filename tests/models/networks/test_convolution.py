"""Convolution and batch norm: Flax's own numbers, and what XLA makes of a gradient."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.models import BatchNorm, CifarResNet, Conv, compiler_options


@pytest.mark.parametrize("use_running_average", [False, True])
def test_batch_norm_equals_flax_in_outputs_statistics_and_gradients(use_running_average):
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


def test_batch_norm_computes_in_float32_and_returns_the_asked_type():
    x = jnp.full((4, 2), 1000, jnp.bfloat16) + jnp.arange(4, dtype=jnp.bfloat16)[:, None] * 8
    module: Any = BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    out, updated = module.apply(variables, x, mutable=["batch_stats"])
    assert out.dtype == jnp.bfloat16
    assert updated["batch_stats"]["mean"].dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(out, np.float32).std(axis=0), 1, rtol=0.02)


CONVOLUTIONS = {
    "plain": {},
    "strided, no bias": {"strides": 2, "padding": 1, "use_bias": False},
    "grouped": {"feature_group_count": 2},
    "16 bits": {"dtype": jnp.bfloat16},
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_is_that_of_flax_to_the_bit(name):
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 4))
    ours, theirs = (kind(8, (3, 3), **CONVOLUTIONS[name]) for kind in (Conv, nn.Conv))
    params = ours.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(jax.random.key(1), x))
    compute = jax.jit(
        lambda module, params: jax.value_and_grad(
            lambda params: jnp.sin(module.apply(params, x).astype(jnp.float32)).sum()
        )(params),
        static_argnums=0,
        compiler_options=compiler_options(),
    )
    jax.tree.map(np.testing.assert_array_equal, compute(ours, params), compute(theirs, params))


@pytest.mark.parametrize("transform", ["vmap", "jvp of grad"])
def test_convolution_goes_through_transformations(transform):
    x, ours = jnp.linspace(-1, 1, 2 * 5 * 5 * 3).reshape(2, 5, 5, 3), Conv(4, (3, 3))
    params = ours.init(jax.random.key(0), x)

    def gradient(module, params, x):
        return jax.grad(lambda p: jnp.sin(module.apply(p, x)).sum())(params)

    def transformed(module):
        if transform == "vmap":
            return jax.vmap(lambda x: gradient(module, params, x[None]))(x)
        return jax.jvp(lambda p: gradient(module, p, x), (params,), (params,))[1]

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        transformed(ours),
        transformed(nn.Conv(4, (3, 3))),
    )


def most_fused_into_a_transposing_copy(program: str) -> int:
    """Counts, in HLO text, the instructions of the largest fusion that ends in such a copy."""
    fused = re.findall(r"^%fused\S* .*?\{\n(.*?)^\}", program, re.MULTILINE | re.DOTALL)
    assert fused, program[:1000]
    sizes = [
        len(body.splitlines()) for body in fused if re.search(r"ROOT \S*(copy|transpose)", body)
    ]
    return max(sizes, default=0)


def test_gradients_by_kernels_compute_no_block_again():
    """What a convolution's input was computed from is not part of the copy that transposes it."""
    model = CifarResNet(num_classes=10, blocks=(1, 1, 1))
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)

    def loss(params, variables, images):
        logits, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.square(logits).sum()

    jitted = jax.jit(jax.grad(loss), compiler_options=compiler_options())
    program: Any = jitted.lower(variables["params"], variables, images).compile()
    assert most_fused_into_a_transposing_copy(program.as_text()) <= 5
