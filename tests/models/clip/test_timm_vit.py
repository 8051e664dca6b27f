"""timm's plain transformers in CLIP's encoder: features of a forward pass in NumPy."""

import math

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlt import UsageError, recipes
from jaxlt.models import create_model
from jaxlt.models.adaptation.kinds import EncoderAdaptation
from jaxlt.models.clip.image_encoders import encoder_digest, load_encoder
from jaxlt.models.clip.model import ImageEncoder
from jaxlt.models.clip.timm_vit import load_vit, vit_config

WIDTH, PATCH, GRID, DEPTH, HIDDEN = 128, 4, 3, 2, 192
HEADS = WIDTH // 64


def tensors_of(width=WIDTH, seed=0):
    """Random tensors under timm's names, with a classifier."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + GRID**2, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (7, width),
        "head.bias": (7,),
    }
    for block in (f"blocks.{number}" for number in range(DEPTH)):
        shapes |= {
            f"{block}.{norm}.{leaf}": (width,)
            for norm in ("norm1", "norm2")
            for leaf in ("weight", "bias")
        }
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        layers |= {"mlp.fc1": (HIDDEN, width), "mlp.fc2": (width, HIDDEN)}
        for name, shape in layers.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def normed(x, weight, bias):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * weight + bias


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


_gelu = np.vectorize(lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))))


def forward(t, images):
    """timm's `forward_features` and the class token, of images (B, H, W, 3), in float64."""
    t = {name: x.astype(np.float64) for name, x in t.items()}
    batch = len(images)
    cut = images.reshape(batch, GRID, PATCH, GRID, PATCH, 3)
    x = np.einsum("bhiwjc,ocij->bhwo", cut, t["patch_embed.proj.weight"])
    x = x.reshape(batch, GRID**2, -1) + t["patch_embed.proj.bias"]
    first = np.broadcast_to(t["cls_token"], (batch, 1, WIDTH))
    if t["pos_embed"].shape[1] == GRID**2:
        x = np.concatenate([first, x + t["pos_embed"]], 1)
    else:
        x = np.concatenate([first, x], 1) + t["pos_embed"]
    for number in range(DEPTH):
        b = {n.removeprefix(f"blocks.{number}."): v for n, v in t.items()}
        y = normed(x, b["norm1.weight"], b["norm1.bias"])
        qkv = y @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]
        q, k, v = qkv.reshape(batch, -1, 3, HEADS, WIDTH // HEADS).transpose(2, 0, 3, 1, 4)
        mixed = softmax(q @ k.swapaxes(-1, -2) / math.sqrt(WIDTH // HEADS)) @ v
        mixed = mixed.swapaxes(1, 2).reshape(batch, -1, WIDTH)
        mixed = mixed @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        x = x + mixed * b.get("ls1.gamma", 1)
        y = normed(x, b["norm2.weight"], b["norm2.bias"])
        y = _gelu(y @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"])
        x = x + (y @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]) * b.get("ls2.gamma", 1)
    return normed(x, t["norm.weight"], t["norm.bias"])[:, 0]


def plain(tensors):
    """Nothing more: ViT-B/16 of ImageNet-21k is so."""


def of_before_2022(tensors):
    tensors["pre_logits.fc.weight"] = np.ones((WIDTH, WIDTH), np.float32)
    tensors["pre_logits.fc.bias"] = np.ones(WIDTH, np.float32)


def without_classifier(tensors):
    del tensors["head.weight"], tensors["head.bias"]


def with_layer_scale(tensors):
    rng = np.random.default_rng(1)
    for number in range(DEPTH):
        for scale in ("ls1", "ls2"):
            gamma = rng.normal(1, 0.5, WIDTH).astype(np.float32)
            tensors[f"blocks.{number}.{scale}.gamma"] = gamma


def without_position_of_the_class_token(tensors):
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:].copy()


@pytest.mark.parametrize(
    "change",
    [
        plain,
        of_before_2022,
        without_classifier,
        with_layer_scale,
        without_position_of_the_class_token,
    ],
)
def test_features_are_those_of_the_forward_pass_in_numpy(tmp_path, change):
    tensors = tensors_of()
    change(tensors)
    save_file(tensors, tmp_path / "vit.safetensors")
    config, params = load_vit(tmp_path / "vit.safetensors")
    assert (config.patch_size, config.image_size) == (PATCH, GRID * PATCH)
    assert (config.num_attention_heads, config.num_hidden_layers) == (HEADS, DEPTH)
    images = np.random.default_rng(2).normal(size=(3, GRID * PATCH, GRID * PATCH, 3))
    found = jax.jit(ImageEncoder(config).apply)({"params": params}, images.astype(np.float32))
    np.testing.assert_allclose(found, forward(tensors, images), rtol=2e-4, atol=2e-4)


def test_a_directory_and_parts_are_the_same_network(tmp_path):
    tensors = tensors_of()
    save_file(tensors, tmp_path / "vit.safetensors")
    (tmp_path / "snapshot").mkdir()
    save_file(tensors, tmp_path / "snapshot" / "model.safetensors")
    (tmp_path / "snapshot" / "config.json").write_text('{"architecture": "vit_base_patch16_224"}')
    file, directory = f"vit:{tmp_path}/vit.safetensors", f"vit:{tmp_path}/snapshot"
    assert encoder_digest(file) == encoder_digest(directory)
    larger = load_encoder(directory, (16, 16, 3))
    assert larger.config.image_size == 16
    assert larger.params["embeddings"]["position_embedding"].shape == (1 + 4**2, WIDTH)


@pytest.mark.parametrize(
    ("width", "heads"), [(192, 3), (384, 6), (768, 12), (1024, 16), (1280, 16), (1152, 0), (100, 0)]
)
def test_heads_are_those_of_timms_sizes(tmp_path, width, heads):
    tensors = {
        "patch_embed.proj.weight": np.zeros((width, 3, 14, 14), np.float32),
        "pos_embed": np.zeros((1, 257, width), np.float32),
        "blocks.0.mlp.fc1.weight": np.zeros((4, width), np.float32),
    }
    save_file(tensors, tmp_path / "vit.safetensors")
    if heads:
        assert vit_config(tmp_path / "vit.safetensors").num_attention_heads == heads
        return
    with pytest.raises(UsageError, match="of a width that tells the heads"):
        vit_config(tmp_path / "vit.safetensors")


def drop(name):
    return lambda tensors: tensors.pop(name)


def add(name, *shape):
    return lambda tensors: tensors.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop("pos_embed"), "in timm's names, got no tensor 'pos_embed'"),
        (drop("cls_token"), "must hold a tensor cls_token of shape .*, got none"),
        (
            drop("blocks.1.attn.qkv.bias"),
            r"blocks\.1\.attn\.qkv\.bias of 384 rows, got none",
        ),
        (drop("norm.weight"), r"must hold the network's tensor norm\.weight, got none"),
        (add("reg_token", 1, 4, WIDTH), r"tensors alone, got 1 others, .* reg_token"),
        (add("blocks.0.attn.q_norm.weight", 64), r"tensors alone, .* blocks\.0\.attn\.q_norm"),
        (add("patch_embed.proj.weight", WIDTH, 3), "got shapes of another network"),
    ],
)
def test_another_network_is_refused(tmp_path, change, words):
    tensors = tensors_of()
    change(tensors)
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(UsageError, match=words) as error:
        load_encoder(f"vit:{tmp_path}/vit.safetensors", (12, 12, 3))
    assert "\n" not in str(error.value)


def test_it_is_adapted_as_the_others_are(tmp_path):
    """LIFT's count: AdaptFormer in each block, and the classifier; the encoder is frozen."""
    save_file(tensors_of(), tmp_path / "vit.safetensors")
    place = f"vit:{tmp_path}/vit.safetensors"
    model = create_model(
        place, 5, image_shape=(12, 12, 3), adaptation=EncoderAdaptation(("adaptformer",), rank=2)
    )
    images = np.zeros((1, 12, 12, 3), np.float32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))["params"]
    trained, frozen = model.split(params)
    # Layer norm, down, up, and the factor.
    added = DEPTH * (2 * WIDTH + WIDTH * 2 + 2 + 2 * WIDTH + WIDTH + 1)
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
    assert count == added + 5 * WIDTH + 5
    loaded = load_encoder(place, (12, 12, 3)).params
    shapes = jax.tree.map(np.shape, loaded)
    assert shapes == jax.tree.map(lambda leaf: leaf.shape, frozen["vision_model"])


def test_a_recipe_trains_on_it(tmp_path):
    save_file(tensors_of(), tmp_path / "vit.safetensors")
    backbone = recipes.pretrained_backbone(f"vit:{tmp_path}/vit.safetensors")
    assert backbone[1:] == (GRID * PATCH, "half", PATCH)
    recipe = recipes.named("sgd_digits").shortened(1)
    data = recipe.data.replace(image_size=backbone.image_size)
    run = recipes.train(recipe.replace(data=data, network=backbone.network), tmp_path / "run")
    assert 0 <= run.result["accuracy"] <= 1
    assert run.predictor().image_shape == (12, 12, 1)
