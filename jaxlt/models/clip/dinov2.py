"""DINOv2's image encoders (Oquab et al., TMLR 2024), made to fit CLIP's.

DINOv2's blocks multiply what attention and the MLP add to a token by a learned factor for each
channel, LayerScale (Touvron et al., ICCV 2021), and its patch embedding has a bias. Here the
factors are folded into the linear layers before them, and the bias into the positions after it.
Features are the same up to rounding, and training sees one parameter instead of two.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.models.clip.config import VisionConfig, check_size, read_values
from jaxlt.models.clip.model import ImageEncoder
from jaxlt.models.clip.snapshot import in_flax_order, interpolate_positions, weights_of
from jaxlt.models.weights.pretrained import fill_tree
from jaxlt.models.weights.torch_files import read_tensors

# Of Hugging Face's `Dinov2Config`, where they are others than CLIP's.
_DEFAULTS: dict[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-6, "patch_size": 14}
_LARGEST_RATIO = 64
# Variants whose blocks are others than the encoder's.
_FIXED = {"use_swiglu_ffn": False, "qkv_bias": True}
_LAYER_SCALES = ("layer_scale1", "layer_scale2")
# Stands for hidden patches in DINOv2's own training.
_IGNORED = "embeddings.mask_token"
# By the parts of a parameter's name.
_THEIRS = {
    "class_embedding": "cls_token",
    "position_embedding": "position_embeddings",
    "patch_embedding": "patch_embeddings.projection",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn": "attention",
    "q_proj": "attention.query",
    "k_proj": "attention.key",
    "v_proj": "attention.value",
    "out_proj": "output.dense",
    "post_layernorm": "layernorm",
    "kernel": "weight",
    "scale": "weight",
}


def load_dinov2(
    directory: str | Path, *, image_size: int | None = None
) -> tuple[VisionConfig, dict[str, Any]]:
    """Loads an encoder in the format of Hugging Face's `Dinov2Model`.

    Args:
        directory: Has config.json and the weights, see `weights_of`.
        image_size: See `jaxlt.models.clip.snapshot.load_clip`.

    Returns:
        The configuration, with the image size that was asked for, and the float32 parameters of
        `ImageEncoder(configuration)`.

    Raises:
        UsageError: A file is missing, damaged or of another kind of network, SwiGLU and registers
            among them, a tensor is missing, too many or of another shape, or the image size does
            not fit.
    """
    directory = Path(directory)
    config = read_dinov2_config(directory / "config.json")
    asked = config
    if image_size is not None:
        asked = dataclasses.replace(config, image_size=image_size)
    path = weights_of(directory)
    tensors = {name: x for name, x in read_tensors(path).items() if name != _IGNORED}
    params = fill_tree(path, tensors, _stored_shapes(config), _tensor_name, _arranged)
    for number in range(config.num_hidden_layers):
        block = params[f"encoder_layers_{number}"]
        scaled = (block["self_attn"]["out_proj"], block["mlp"]["fc2"])
        for scale, layer in zip(_LAYER_SCALES, scaled, strict=True):
            factors = block.pop(scale)["lambda1"]
            layer.update(kernel=layer["kernel"] * factors, bias=layer["bias"] * factors)
    stored = params["embeddings"]
    positions = jnp.asarray(interpolate_positions(stored["position_embedding"][0], asked.grid))
    stored["position_embedding"] = positions.at[1:].add(stored["patch_embedding"].pop("bias"))
    stored["class_embedding"] = stored["class_embedding"][0, 0]
    return asked, params


def read_dinov2_config(path: Path) -> VisionConfig:
    """Reads a snapshot's config.json, as `read_config` reads CLIP's."""
    values = read_values(path, "dinov2")
    for name, needed in _FIXED.items():
        if values.get(name, needed) != needed:
            raise UsageError(f"{name} in {path} must be {needed}, got {values[name]!r:.40}")
    ratio = values.get("mlp_ratio", 4)
    check_size(f"mlp_ratio in {path}", ratio, _LARGEST_RATIO)
    fixed = {"intermediate_size", "pre_layernorm"}
    names = {field.name for field in dataclasses.fields(VisionConfig)} - fixed
    sizes = _DEFAULTS | {name: value for name, value in values.items() if name in names}
    try:
        config = VisionConfig(**sizes, pre_layernorm=False)
        return dataclasses.replace(config, intermediate_size=config.hidden_size * ratio)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _stored_shapes(config: VisionConfig) -> dict[str, Any]:
    """Returns the shapes of what a file holds, in a tree like the encoder's parameters."""

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.float32)

    width, images = config.hidden_size, shape(*config.image_shape)
    shapes = jax.eval_shape(ImageEncoder(config).init, jax.random.key(0), images)["params"]
    shapes["embeddings"]["class_embedding"] = shape(1, 1, width)
    shapes["embeddings"]["position_embedding"] = shape(1, 1 + config.grid**2, width)
    shapes["embeddings"]["patch_embedding"]["bias"] = shape(width)
    for number in range(config.num_hidden_layers):
        for scale in _LAYER_SCALES:
            shapes[f"encoder_layers_{number}"][scale] = {"lambda1": shape(width)}
    return shapes


def _tensor_name(keys: tuple[str, ...]) -> str:
    name = ".".join(_THEIRS.get(key, key) for key in keys)
    return re.sub(r"encoder_layers_(\d+)", r"encoder.layer.\1", name)


def _arranged(name: str, value: np.ndarray) -> np.ndarray:
    return value if value.ndim == 3 else in_flax_order(name, value)
