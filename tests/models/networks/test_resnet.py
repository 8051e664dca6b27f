"""ResNet and ResNeXt against PyTorch, the published sizes, and their own options."""

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.errors import UsageError
from jaxlt.models import ResNet, compiler_options, create_model, load_torch_weights

GOLDEN = Path(__file__).parents[2] / "golden" / "models"
SMALL = {
    "resnet_bottleneck": {"blocks": (1, 2, 1, 1), "width": 8},
    "resnext_bottleneck": {"blocks": (1, 1, 2, 1), "width": 8, "groups": 4, "width_per_group": 32},
}
# Parameters with 1000 classes as torchvision counts them; ResNet-10 by hand.
SIZES = {
    "resnet10": 5_418_792,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
}
tiny = partial(ResNet, num_classes=3, blocks=(1, 1, 1, 2), width=4)


def shapes(model, size=64):
    images = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def initialized(model, size=32):
    images = jnp.zeros((1, size, size, 3))
    return jax.jit(lambda key: model.init(key, images, train=False))(jax.random.key(0))


@cache
def variables() -> Any:
    return initialized(tiny())


def images(rows=4, size=32):
    drawn = np.random.default_rng(0).normal(size=(rows, size, size, 3))
    return jnp.asarray(drawn, jnp.float32)


@pytest.mark.parametrize("name", SMALL)
def test_features_and_logits_match_pytorch(name):
    model: Any = ResNet(num_classes=7, **SMALL[name])
    loaded = load_torch_weights(GOLDEN / f"{name}.safetensors", shapes(model))
    golden = np.load(GOLDEN / f"{name}_io.npz")
    features = jax.jit(lambda x: model.apply(loaded, x, train=False, method="features"))(
        golden["images_nhwc"]
    )
    np.testing.assert_allclose(features, golden["features"], atol=1e-4)
    logits = model.apply(loaded, features, method="logits_of")
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_as_many_as_published(name):
    model = create_model(name, 1000, image_shape=(224, 224, 3))
    params = shapes(model)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == SIZES[name]
    width = 512 if name == "resnet10" else 2048
    assert params["classifier"]["kernel"].shape == (width, 1000)


def test_convolutions_start_kaiming_normal_with_fan_out():
    drawn = initialized(ResNet(num_classes=2, blocks=(1, 1), width=16, groups=2))["params"]
    for kernel, fan_out in (
        (drawn["conv1"]["kernel"], 49 * 16),
        (drawn["layer2_0"]["conv2"]["kernel"], 9 * 64),
        (drawn["layer2_0"]["downsample_0"]["kernel"], 128),
    ):
        assert np.std(kernel) == pytest.approx(np.sqrt(2 / fan_out), rel=0.06)
    basic = initialized(tiny(bottleneck=False))["params"]["layer4_0"]
    assert np.std(basic["conv1"]["kernel"]) == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.06)
    assert np.std(basic["downsample_0"]["kernel"]) == pytest.approx(np.sqrt(2 / 32), rel=0.1)


def gradient_fn(model):
    def loss(params, batch_stats, x):
        logits, state = model.apply(
            {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
        )
        return jnp.square(logits).sum(), state

    return jax.jit(jax.grad(loss, has_aux=True))


@pytest.mark.soak
@pytest.mark.parametrize("bottleneck", [True, False])
def test_remat_changes_no_result(bottleneck):
    plain, remat = (tiny(bottleneck=bottleneck, remat=remat) for remat in (False, True))
    drawn, again = initialized(plain), initialized(remat)
    jax.tree.map(np.testing.assert_array_equal, drawn, again)
    arguments = drawn["params"], drawn["batch_stats"], images()
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5 * np.abs(x).max()),
        gradient_fn(plain)(*arguments),
        gradient_fn(remat)(*arguments),
    )


@pytest.mark.soak
def test_remat_takes_less_memory_and_more_work():
    """As training compiles it: by itself the CPU's compiler would merge both computations."""
    temporaries, flops = {}, {}
    for remat in (False, True):
        model = tiny(blocks=(2, 2, 2, 2), width=8, remat=remat)
        given = shapes(model)
        program: Any = (
            gradient_fn(model)
            .lower(given["params"], given["batch_stats"], images(16, 64))
            .compile(compiler_options())
        )
        temporaries[remat] = program.memory_analysis().temp_size_in_bytes
        flops[remat] = program.cost_analysis()["flops"]
    assert temporaries[True] < 0.6 * temporaries[False]
    assert 1.15 < flops[True] / flops[False] < 4 / 3


def kept_by(model, x, train):
    kept, weights = ["intermediates", "batch_stats"], variables()

    @jax.jit
    def apply(x):
        return model.apply(weights, x, train=train, mutable=kept, capture_intermediates=True)

    return apply(x)[1]


def test_a_frozen_backbones_statistics_stay_and_are_what_it_normalizes_by():
    x, frozen = 3 * images() + 1, tiny(frozen_backbone_norm=True)
    in_training, in_evaluation, unfrozen = (
        kept_by(*choice) for choice in ((frozen, x, True), (frozen, x, False), (tiny(), x, True))
    )
    before = variables()["batch_stats"]
    for name, found in in_training["batch_stats"].items():
        moved = [
            not np.array_equal(*pair)
            for pair in zip(*map(jax.tree.leaves, (found, before[name])), strict=True)
        ]
        assert all(moved) if name == "layer4_1" else not any(moved), name
    trained, evaluated, other = (
        state["intermediates"]["layer4_0"]["__call__"][0]
        for state in (in_training, in_evaluation, unfrozen)
    )
    np.testing.assert_allclose(trained, evaluated, atol=1e-5)
    assert not np.allclose(trained, other, atol=0.1)


@pytest.mark.parametrize(
    ("choice", "called"),
    [
        ("remat", "remat"),
        ("frozen_backbone_norm", "batch norm that is frozen below the last block"),
    ],
)
def test_other_networks_have_no_such_choices(choice, called):
    model = create_model("resnet10", 3, image_shape=(64, 64, 3), **{choice: True})
    assert getattr(model, choice)
    with pytest.raises(
        UsageError, match=rf"must be one of resnet10, .*32x4d with {called}, got 'mlp'$"
    ):
        create_model("mlp", 3, image_shape=(8, 8, 3), **{choice: True})
