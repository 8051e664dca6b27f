"""timm's plain vision transformers (Dosovitskiy et al., ICLR 2021), made to fit CLIP's.

LIFT's second backbone is one: ViT-B/16, trained on ImageNet-21k. Their features are the class token
after the last layer norm. One matrix there makes queries, keys and values; here it is cut in three.
The patch embedding's bias and LayerScale, where there is one, are folded as DINOv2's are.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded
from jaxlt.models.clip.config import VisionConfig
from jaxlt.models.clip.model import ImageEncoder
from jaxlt.models.clip.snapshot import (
    find_snapshot,
    in_flax_order,
    interpolate_positions,
    weights_of,
)
from jaxlt.models.weights.pretrained import fill_tree
from jaxlt.models.weights.torch_files import files_of_weights, read_tensors

# Files do not say how many heads there are. Up to this width timm's are 64 wide, and the one size
# beyond that is plain has 16.
_HEAD_WIDTH, _WIDEST = 64, 1024
_HUGE, _HEADS_OF_HUGE = 1280, 16
_PATCHES, _POSITIONS = "patch_embed.proj.weight", "pos_embed"
# A classifier, and what stood before it in networks of before 2022.
_IGNORED = re.compile(r"(head|pre_logits(\.fc)?|head_dist)\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.(\d+)\.")
# By the parts of a parameter's name.
_THEIRS = {
    "class_embedding": "cls_token",
    "position_embedding": _POSITIONS,
    "patch_embedding": "patch_embed.proj",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn": "attn",
    "out_proj": "proj",
    "post_layernorm": "norm",
    "kernel": "weight",
    "scale": "weight",
}


def find_vit(place: str | Path) -> Path:
    """Returns the file of weights of a file, a directory or a name on the Hugging Face hub.

    UsageError says that there is none.
    """
    path = expanded(place)
    return path if path.is_file() else weights_of(find_snapshot(place))


def vit_config(place: str | Path) -> VisionConfig:
    """Returns the sizes of a network, by the shapes in its file; UsageError if they are none."""
    path = find_vit(place)
    times = tuple(file.stat().st_mtime_ns for file in files_of_weights(path) if file.exists())
    return _config_of(path, times)


@functools.lru_cache(maxsize=8)
def _config_of(path: Path, times: tuple[int, ...]) -> VisionConfig:
    return _config(path, _read(path))


def load_vit(
    place: str | Path, *, image_size: int | None = None
) -> tuple[VisionConfig, dict[str, Any]]:
    """Loads an encoder in timm's names.

    Args:
        place: see `find_vit`.
        image_size: see `jaxlt.models.clip.snapshot.load_clip`.

    Returns:
        The configuration, with the image size that was asked for, and the float32 parameters of
        `ImageEncoder(configuration)`.

    Raises:
        UsageError: there is no file, it is damaged or of another kind of network, or the image
            size does not fit.
    """
    path = find_vit(place)
    tensors = _read(path)
    config = _config(path, tensors)
    asked = config
    if image_size is not None:
        asked = dataclasses.replace(config, image_size=image_size)
    shapes = jax.eval_shape(
        ImageEncoder(config).init,
        jax.random.key(0),
        jax.ShapeDtypeStruct(config.image_shape, jnp.float32),
    )["params"]
    params = fill_tree(path, _as_ours(path, config, tensors), shapes, _tensor_name, _arranged)
    embeddings = params["embeddings"]
    positions = jnp.asarray(interpolate_positions(embeddings["position_embedding"], asked.grid))
    bias = jnp.asarray(tensors["patch_embed.proj.bias"], jnp.float32)
    embeddings["position_embedding"] = positions.at[1:].add(bias)
    return asked, params


def _read(path: Path) -> dict[str, np.ndarray]:
    return {name: x for name, x in read_tensors(path).items() if not _IGNORED.fullmatch(name)}


def _config(path: Path, tensors: Mapping[str, np.ndarray]) -> VisionConfig:
    need = f"{path} must hold a plain vision transformer in timm's names"
    try:
        width, channels, patch, _ = tensors[_PATCHES].shape
        _, positions, _ = tensors[_POSITIONS].shape
        hidden, _ = tensors["blocks.0.mlp.fc1.weight"].shape
    except KeyError as error:
        raise UsageError(f"{need}, got no tensor {error}") from error
    except ValueError as error:
        raise UsageError(f"{need}, got shapes of another network: {error}") from error
    blocks = {int(found[1]) for name in tensors if (found := _BLOCK.match(name))}
    heads = _HEADS_OF_HUGE if width == _HUGE else width // _HEAD_WIDTH
    if (width > _WIDEST and width != _HUGE) or width % _HEAD_WIDTH:
        raise UsageError(
            f"{need}, of a width that tells the heads: {_HUGE}, or at most {_WIDEST} and a "
            f"multiple of {_HEAD_WIDTH}, got {width}"
        )
    try:
        return VisionConfig(
            hidden_size=width,
            intermediate_size=hidden,
            num_attention_heads=heads,
            num_hidden_layers=1 + max(blocks),
            hidden_act="gelu",
            layer_norm_eps=1e-6,
            num_channels=channels,
            image_size=math.isqrt(positions) * patch,
            patch_size=patch,
            pre_layernorm=False,
        )
    except UsageError as error:
        raise UsageError(f"{need}: {error}") from error


def _as_ours(
    path: Path, config: VisionConfig, tensors: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the tensors that the encoder has, in PyTorch's order of axes."""
    ours, width = dict(tensors), config.hidden_size
    bias = ours.pop("patch_embed.proj.bias", None)
    token = ours.get("cls_token")
    for name, value, shape in (
        ("patch_embed.proj.bias", bias, (width,)),
        ("cls_token", token, (1, 1, width)),
    ):
        if value is None or value.shape != shape:
            got = "none" if value is None else str(value.shape)
            raise UsageError(f"{path} must hold a tensor {name} of shape {shape}, got {got}")
    assert token is not None, "looked at above"
    ours["cls_token"] = token[0, 0]
    positions = ours[_POSITIONS][0]
    if len(positions) == config.grid**2:
        # In some networks the class token has none.
        positions = np.concatenate([np.zeros_like(positions[:1]), positions])
    ours[_POSITIONS] = positions
    for number in range(config.num_hidden_layers):
        block = f"blocks.{number}"
        for leaf in ("weight", "bias"):
            name = f"{block}.attn.qkv.{leaf}"
            if name not in ours or len(ours[name]) != 3 * width:
                got = ours[name].shape if name in ours else "none"
                raise UsageError(f"{path} must hold a tensor {name} of {3 * width} rows, got {got}")
            parts = np.split(ours.pop(name), 3)
            for part, value in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                ours[f"{block}.attn.{part}.{leaf}"] = value
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            factors = ours.pop(f"{block}.{scale}.gamma", None)
            for leaf in ("weight", "bias"):
                name = f"{block}.{layer}.{leaf}"
                if factors is not None and name in ours:
                    x = np.asarray(ours[name], np.float32)
                    ours[name] = x * np.reshape(factors, (-1,) + (1,) * (x.ndim - 1))
    return ours


def _tensor_name(keys: tuple[str, ...]) -> str:
    names = [_THEIRS.get(key, key) for key in keys if key != "embeddings"]
    return re.sub(r"encoder_layers_(\d+)", r"blocks.\1", ".".join(names))


def _arranged(name: str, value: np.ndarray) -> np.ndarray:
    return value if name == _POSITIONS else in_flax_order(name, value)
