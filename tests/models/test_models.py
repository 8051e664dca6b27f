"""What every network must hold to, and create_model."""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlt.errors import UsageError
from jaxlt.models import MLP, CifarResNet, SmallConvNet, VisionTransformer, create_model

# Parameters in millions with 10 classes: He et al. (CVPR 2016), table 6.
PUBLISHED_SIZES = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
}
NETWORKS = {
    "resnet8": partial(CifarResNet, blocks=(1, 1, 1)),
    "resnet8_gn": partial(CifarResNet, blocks=(1, 1, 1), norm="group"),
    "vit": partial(VisionTransformer, depth=2),
    "small_conv": partial(SmallConvNet, patch=2),
    "mlp": MLP,
}
SHAPES = {name: (6, 4, 3) if name == "mlp" else (8, 8, 1) for name in NETWORKS}
WIDTHS = {name: 256 if name == "mlp" else 64 for name in NETWORKS}


def _create(name, **choices) -> Any:
    return NETWORKS[name](num_classes=3, **choices)


@cache
def _variables(name, classifier="linear") -> Any:
    model = _create(name, classifier=classifier)
    return model.init(jax.random.key(0), _batch(name), train=False)


def _num_params(model, image_shape):
    images = jnp.zeros((1, *image_shape))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def _batch(name, rows=4):
    return np.random.default_rng(0).normal(size=(rows, *SHAPES[name])).astype(np.float32)


@pytest.mark.parametrize("name", PUBLISHED_SIZES)
def test_resnets_have_the_published_size(name):
    size = _num_params(create_model(name, 10, image_shape=(32, 32, 3)), (32, 32, 3)) / 1e6
    assert round(size, 1 if size > 1 else 2) == PUBLISHED_SIZES[name]


def test_resnet34_is_imagenets_with_a_smaller_stem():
    # torchvision's 21,797,672 less a 7x7 stem for a 3x3 one and 1000 classes for 10.
    expected = 21_797_672 - 3 * 64 * (7 * 7 - 3 * 3) - 513 * (1000 - 10)
    assert (
        _num_params(create_model("resnet34", 10, image_shape=(32, 32, 3)), (32, 32, 3)) == expected
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("classifier", "dtype"), [("linear", jnp.bfloat16), ("cosine", jnp.float32)]
)
def test_every_leaf_gets_a_gradient_and_stays_float32(name, classifier, dtype):
    model = _create(name, classifier=classifier, dtype=dtype)
    x, labels = _batch(name), jnp.array([0, 1, 2, 0])
    variables = _variables(name, classifier)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
        )
        assert logits.dtype == jnp.float32
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(4), labels])

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(gradient).all(), path
        # A key's bias adds the same to all logits of a query: the softmax does not see it.
        assert np.any(gradient) or "['key']['bias']" in jax.tree_util.keystr(path)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_lies_under_classifier_and_maps_the_features(name):
    model = _create(name)
    x = _batch(name)
    variables = _variables(name)
    features = model.apply(variables, x, train=False, method="features")
    assert features.shape == (4, WIDTHS[name])
    head = variables["params"]["classifier"]
    assert {key: leaf.shape for key, leaf in head.items()} == {
        "kernel": (WIDTHS[name], 3),
        "bias": (3,),
    }
    np.testing.assert_allclose(
        model.apply(variables, x, train=False),
        features @ head["kernel"] + head["bias"],
        atol=1e-5,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_rounds_the_backbone_and_nothing_else(name):
    full = _create(name)
    mixed = _create(name, dtype=jnp.bfloat16)
    x = _batch(name)
    variables = _variables(name)
    reference = full.apply(variables, x, train=False)
    logits, state = mixed.apply(
        variables, x, train=False, capture_intermediates=True, mutable=["intermediates"]
    )
    error = np.abs(logits - reference).max()
    assert 0 < error < 0.05 * np.abs(reference).max()
    layers = {
        jax.tree_util.keystr(path): leaf.dtype
        for path, leaf in jax.tree_util.tree_leaves_with_path(state["intermediates"])
        if len(path) > 2 and path[0].key != "classifier"
    }
    assert set(layers.values()) == {jnp.dtype("bfloat16")}, layers
    features = mixed.apply(variables, x, train=False, method="features")
    assert features.dtype == logits.dtype == jnp.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_couples_examples_says_whether_other_rows_matter(name):
    model, x, variables = _create(name), _batch(name), _variables(name)

    @jax.jit
    def first_logits(x):
        return model.apply(variables, x, train=True, mutable=["batch_stats"])[0][0]

    other = np.concatenate([x[:1], 1 - x[1:]])
    changed = np.abs(first_logits(x) - first_logits(other)).max() > 1e-4
    assert changed == model.couples_examples
    assert model.couples_examples == (name == "resnet8")


@pytest.mark.parametrize(
    ("name", "suits"), [("small_vit", True), ("mlp", False), ("small_conv", False)]
)
def test_which_networks_suit_loops(name, suits):
    assert create_model(name, 3, image_shape=(8, 8, 1)).suits_loops == suits


def test_create_model_passes_its_choices_on():
    choices = {"classifier": "cosine", "dtype": jnp.bfloat16}
    for name, expected in (
        ("resnet8", CifarResNet(num_classes=7, blocks=(1, 1, 1), **choices)),
        ("resnet20", CifarResNet(num_classes=7, blocks=(3, 3, 3), **choices)),
        ("resnet20_gn", CifarResNet(num_classes=7, blocks=(3, 3, 3), norm="group", **choices)),
        ("resnet32_gn", CifarResNet(num_classes=7, norm="group", **choices)),
        ("small_vit", VisionTransformer(num_classes=7, **choices)),
        ("small_conv", SmallConvNet(num_classes=7, patch=2, **choices)),
        ("mlp", MLP(num_classes=7, **choices)),
    ):
        assert create_model(name, 7, image_shape=(8, 8, 1), **choices) == expected


@pytest.mark.parametrize(
    ("shape", "patch"), [((8, 8, 1), 2), ((28, 28, 1), 4), ((32, 32, 3), 4), ((9, 7, 1), 1)]
)
def test_small_conv_fits_its_patch_to_the_images(shape, patch):
    model = create_model("small_conv", 10, image_shape=shape)
    assert isinstance(model, SmallConvNet)
    assert model.patch == patch
    # Two convolutions, the hidden layer on the pooled map, the head; counted by hand.
    positions = (shape[0] // patch // 2) * (shape[1] // patch // 2)
    expected = 9 * shape[2] * patch**2 * 32 + 32
    expected += 9 * 32 * 64 + 64 + positions * 64 * 64 + 64 + 64 * 10 + 10
    assert _num_params(model, shape) == expected


def test_mistaken_choices_are_usage_errors():
    with pytest.raises(
        UsageError, match=r"model must be one of resnet8, .*mlp, clip:.*, got 'resnet33'"
    ):
        create_model("resnet33", 10, image_shape=(32, 32, 3))
    with pytest.raises(UsageError, match=r"images of small_conv must be at least 4x4, got 3x8"):
        create_model("small_conv", 10, image_shape=(3, 8, 1))
