"""bfloat16 in the backbone's matrix products and convolutions, float32 around them."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxlt.models import create_model

NUM_CLASSES = 7  # a size that no layer of a backbone has
# How many of the forward pass's products, and of its convolutions, belong to the backbone.
FORWARD = {"small_vit": (1 + 4 * (4 + 2 + 2), 0), "resnet32": (0, 31)}
OPERATION = re.compile(r"stablehlo\.(dot_general|convolution)\b.*?: \((.*?)\) -> (tensor<[^>]*>)")


def _value_and_gradient(name):
    model: Any = create_model(name, NUM_CLASSES, dtype=jnp.bfloat16, image_shape=(32, 32, 3))
    images = jnp.zeros((2, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))

    def loss(params, variables, images):
        logits, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return jnp.square(logits).sum(), logits

    function = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return function, (variables["params"], variables, images)


@pytest.mark.parametrize("name", FORWARD)
def test_the_backbone_computes_in_bfloat16_and_the_rest_in_float32(name):
    function, arguments = _value_and_gradient(name)
    (_, logits), gradients = jax.eval_shape(function, *arguments)
    leaves = [logits, *jax.tree.leaves((gradients, arguments[1]))]
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}

    head, backbone = [], {"dot_general": [], "convolution": []}
    for kind, operands, result in OPERATION.findall(function.lower(*arguments).as_text()):
        types = f"{operands}, {result}"
        is_head = re.search(rf"[<x]{NUM_CLASSES}x", types)
        (head if is_head else backbone[kind]).append(types)
    assert len(head) == 3
    assert all("bf16" not in types for types in head)
    for kind, forward in zip(backbone, FORWARD[name], strict=True):
        # The backward pass has two for each, save the image's own gradient, which nobody needs.
        assert len(backbone[kind]) == max(3 * forward - 1, 0)
        assert all("f32" not in types for types in backbone[kind])
