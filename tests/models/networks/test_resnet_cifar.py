from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.models import CifarResNet
from jaxlt.models.networks.resnet_cifar import _subsample_and_pad


def _resnet8(dtype=jnp.float32) -> Any:
    return CifarResNet(num_classes=2, blocks=(1, 1, 1), dtype=dtype)


@cache
def _variables() -> Any:
    return _resnet8().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)


def test_resnet32_has_464154_parameters_and_a_backbone_of_463504():
    model = CifarResNet(num_classes=10)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 464_154
    del params["classifier"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 463_504


def test_convolutions_start_kaiming_normal_with_fan_in():
    kernel = _variables()["params"]["layer3_0"]["conv1"]["kernel"]
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.02)


def test_option_a_shortcut_keeps_every_second_pixel_between_zero_channels():
    x = np.random.default_rng(0).normal(size=(2, 7, 7, 16)).astype(np.float32)
    shortcut = _subsample_and_pad(jnp.asarray(x), 32, 2)
    assert shortcut.shape == (2, 4, 4, 32)
    np.testing.assert_array_equal(shortcut[..., 8:24], x[:, ::2, ::2])
    assert not np.any(shortcut[..., :8])
    assert not np.any(shortcut[..., 24:])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_running_statistics_move_a_tenth_of_the_way_in_train_mode_alone(dtype):
    model = _resnet8(dtype)
    x = np.random.default_rng(0).normal(3, 2, size=(4, 8, 8, 3)).astype(np.float32)
    variables = _variables()
    kept = ["batch_stats", "intermediates"]
    _, state = model.apply(variables, x, train=True, mutable=kept, capture_intermediates=True)
    stem = np.float64(np.asarray(state["intermediates"]["conv1"]["__call__"][0], np.float32))
    moved = state["batch_stats"]["bn1"]
    np.testing.assert_allclose(moved["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-3)
    assert {leaf.dtype for leaf in jax.tree.leaves(state["batch_stats"])} == {jnp.dtype("float32")}

    _, state = model.apply(variables, x, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], variables["batch_stats"])
