"""DINOv2 in CLIP's encoder: on a tiny checkpoint and features of Hugging Face's `Dinov2Model`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_snapshots import GOLDEN
from safetensors.numpy import load_file, save_file

from jaxlt.errors import UsageError
from jaxlt.models.clip.config import VisionConfig
from jaxlt.models.clip.dinov2 import load_dinov2
from jaxlt.models.clip.model import ClipClassifier, ImageEncoder

BLOCK = "encoder.layer.1"
SCALE = f"{BLOCK}.layer_scale2.lambda1"
QUERY = f"{BLOCK}.attention.attention.query"
POSITIONS = "embeddings.position_embeddings"
CLASS = "embeddings.cls_token"


def written(directory, *, config=None, tensors=None):
    """Writes the golden snapshot; functions change its config and its tensors in place."""
    values = json.loads((GOLDEN / "dinov2_config.json").read_text())
    arrays = load_file(GOLDEN / "dinov2.safetensors")
    for change, what in ((config, values), (tensors, arrays)):
        if change is not None:
            change(what)
    (directory / "config.json").write_text(json.dumps(values))
    save_file(arrays, directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "dinov2_io.npz")


def features(config, params, images):
    return jax.jit(ImageEncoder(config).apply)({"params": params}, images)


@pytest.mark.parametrize("side", [12, 20])
def test_the_class_tokens_are_the_golden_ones(tmp_path, golden, side):
    config, params = load_dinov2(written(tmp_path), image_size=side)
    assert config.image_size == side
    found = features(config, params, golden[f"pixel_values_nhwc_{side}"])
    np.testing.assert_allclose(found, golden[f"last_hidden_state_{side}"][:, 0], atol=1e-5)


def test_the_configuration_is_the_files(tmp_path):
    config, _ = load_dinov2(written(tmp_path))
    assert config == VisionConfig(
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        image_size=12,
        patch_size=4,
        pre_layernorm=False,
    )


def test_parameters_are_those_of_the_encoder(tmp_path):
    config, params = load_dinov2(written(tmp_path), image_size=20)
    expected = jax.eval_shape(
        ImageEncoder(config).init, jax.random.key(0), jnp.zeros((1, 20, 20, 3))
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), params) == jax.tree.map(
        lambda x: (x.shape, x.dtype), expected["params"]
    )
    assert "pre_layernorm" not in params


def test_a_classifier_takes_it(tmp_path, golden):
    config, params = load_dinov2(written(tmp_path))
    model, images = ClipClassifier(num_classes=5, config=config), golden["pixel_values_nhwc_12"]
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    assert jax.tree.map(jnp.shape, shapes["vision_model"]) == jax.tree.map(jnp.shape, params)
    found = jax.jit(lambda p: model.apply({"params": p}, images, train=True, method="features"))(
        {"vision_model": params}
    )
    np.testing.assert_allclose(found, golden["last_hidden_state_12"][:, 0], atol=1e-5)


def test_a_checkpoint_without_a_mask_token_does(tmp_path):
    (tmp_path / "with").mkdir()
    _, params = load_dinov2(written(tmp_path / "with"))
    (tmp_path / "without").mkdir()
    _, other = load_dinov2(
        written(tmp_path / "without", tensors=lambda t: t.pop("embeddings.mask_token"))
    )
    jax.tree.map(np.testing.assert_array_equal, params, other)


def test_what_a_configuration_leaves_out_is_vit_b_14(tmp_path):
    """The tensors tell that it was read as such a network: they are those of another."""
    written(tmp_path, config=lambda values: (values.clear(), values.update(model_type="dinov2")))
    expected = r"cls_token in .* must be of shape \(1, 1, 768\) .* got \(1, 1, 24\)"
    with pytest.raises(UsageError, match=expected):
        load_dinov2(tmp_path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"model_type": "dinov2_with_registers"},
            "model_type in .* must be 'dinov2', got 'dinov2_with_registers'",
        ),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn in .* must be False, got True"),
        ({"qkv_bias": False}, "qkv_bias in .* must be True, got False"),
        ({"mlp_ratio": "4"}, "mlp_ratio in .* must be a positive integer.*, got '4'"),
        ({"hidden_act": "gelu_new"}, "hidden_act must be one of .*, got 'gelu_new'"),
        ({"image_size": [12, 12]}, r"image_size must be a positive integer.*, got \[12, 12\]"),
        ({"num_attention_heads": 5}, "hidden_size must be a multiple of num_attention_h.*, got 24"),
    ],
)
def test_other_variants_are_refused(tmp_path, values, expected):
    written(tmp_path, config=lambda found: found.update(values))
    with pytest.raises(UsageError, match=expected) as error:
        load_dinov2(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda t: t.pop(SCALE), f"must hold the network's tensor {SCALE}, got none"),
        (
            lambda t: t.pop(f"{QUERY}.bias"),
            rf"must hold the network's tensor {QUERY}\.bias, got none",
        ),
        (
            lambda t: t.update({SCALE: t[SCALE][:-1].copy()}),
            rf"tensor {SCALE} in .* must be of shape \(24,\) .* got \(23,\)",
        ),
        (
            lambda t: t.update({POSITIONS: t[POSITIONS][:, :-1].copy()}),
            rf"tensor {POSITIONS} in .* must be of shape \(1, 10, 24\) .* got \(1, 9, 24\)",
        ),
        (
            lambda t: t.update({CLASS: t[CLASS][0, 0].copy()}),
            rf"tensor {CLASS} in .* must be of shape \(1, 1, 24\) .* got \(24,\)",
        ),
        (
            lambda t: t.update({"embeddings.register_tokens": t[CLASS].copy()}),
            "must hold this network's tensors alone, .*first of them embeddings.register_tokens",
        ),
    ],
)
def test_tensors_of_another_network_are_refused(tmp_path, change, expected):
    written(tmp_path, tensors=change)
    with pytest.raises(UsageError, match=expected) as error:
        load_dinov2(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("config.json", "config.json must be a readable"),
        ("model.safetensors", "must have one of model.safetensors"),
    ],
)
def test_a_missing_file_is_named(tmp_path, name, expected):
    (written(tmp_path) / name).unlink()
    with pytest.raises(UsageError, match=f"{tmp_path}.*{expected}") as error:
        load_dinov2(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [14, 0])
def test_an_image_size_that_does_not_fit_is_refused(tmp_path, side):
    with pytest.raises(UsageError, match=f"image_size must be a .* got {side}"):
        load_dinov2(written(tmp_path), image_size=side)


@pytest.mark.parametrize("side", [42, 56, 28])
def test_features_are_hugging_faces(tmp_path, side):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    network = transformers.Dinov2Model(
        transformers.Dinov2Config(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=42
        )
    ).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    network.save_pretrained(tmp_path)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).pooler_output
    config, params = load_dinov2(tmp_path, image_size=side)
    np.testing.assert_allclose(features(config, params, images), expected.numpy(), atol=1e-4)
