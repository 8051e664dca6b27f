from functools import cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.errors import UsageError
from jaxlt.models import VisionTransformer, create_model


def _vit(**fields) -> Any:
    return VisionTransformer(num_classes=3, **fields)


@cache
def _variables() -> Any:
    """Variables of a small network, with every leaf away from its start at 0 or 1."""
    model = _vit(width=12, depth=2, heads=3, mlp_ratio=2)
    images = jnp.zeros((1, 8, 12, 2))
    variables = jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))
    generator = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.3 * generator.normal(size=leaf.shape), variables)


def _layer_norm(p, x):
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / deviation * p["scale"] + p["bias"]


def _dense(p, x):
    return x @ p["kernel"] + p["bias"]


def _attention(p, x):
    """Head by head, query by query."""
    result = np.tile(p["out"]["bias"], (len(x), 1))
    for head in range(p["out"]["kernel"].shape[0]):
        query, key, value = (
            x @ p[name]["kernel"][:, head] + p[name]["bias"][head]
            for name in ("query", "key", "value")
        )
        for position in range(len(x)):
            weights = np.exp(key @ query[position] / np.sqrt(key.shape[1]))
            mixed = weights @ value / weights.sum()
            result[position] += mixed @ p["out"]["kernel"][head]
    return result


def _gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _features_by_hand(p, image, patch, depth):
    height, width, _ = image.shape
    corners = [(r, c) for r in range(0, height, patch) for c in range(0, width, patch)]
    patches = [image[r : r + patch, c : c + patch].ravel() for r, c in corners]
    x = _dense(p["patch_embedding"], np.stack(patches)) + p["position_embedding"]
    for block in (p[f"block{index}"] for index in range(depth)):
        x = x + _attention(block["attention"], _layer_norm(block["norm1"], x))
        x = x + _dense(block["mlp2"], _gelu(_dense(block["mlp1"], _layer_norm(block["norm2"], x))))
    return _layer_norm(p["norm"], x).mean(0)


def test_features_are_those_of_the_equations():
    images = np.random.default_rng(1).normal(size=(2, 8, 12, 2)).astype(np.float32)
    params = jax.tree.map(np.float64, _variables()["params"])
    model = _vit(width=12, depth=2, heads=3, mlp_ratio=2)
    features = jax.jit(lambda x: model.apply(_variables(), x, train=True, method="features"))(
        images
    )
    for image, row in zip(images, features, strict=True):
        np.testing.assert_allclose(row, _features_by_hand(params, image, 4, 2), atol=2e-5)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (8, 20, 3)])
def test_small_vit_fits_the_images(shape):
    model: Any = create_model("small_vit", 10, image_shape=shape)
    images = jnp.zeros((2, *shape))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    # Patches, positions, four blocks of attention, MLP and two norms, the last norm, the head.
    expected = (16 * shape[2] + 1) * 64 + prod(shape[:2]) // 16 * 64
    expected += 4 * (4 * 65 * 64 + 65 * 256 + 257 * 64 + 4 * 64) + 2 * 64 + 65 * 10
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected
    logits = jax.eval_shape(lambda v: model.apply(v, images, train=True), variables)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)


@pytest.mark.parametrize("shape", [(30, 32, 3), (32, 6, 3)])
def test_images_that_patches_do_not_tile_are_the_users_mistake(shape):
    size = f"{shape[0]}x{shape[1]}"
    with pytest.raises(
        UsageError, match=f"images of small_vit must have .* multiples of 4, got {size}$"
    ):
        create_model("small_vit", 10, image_shape=shape)
