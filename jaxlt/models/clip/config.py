"""Sizes of a CLIP network, as the config.json of a Hugging Face snapshot gives them."""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import flax.linen as nn
import jax

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json, read_utf8


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x sigmoid(1.702 x)`, OpenAI's approximation of `gelu`."""
    return x * jax.nn.sigmoid(1.702 * x)


# Networks are traced before their weights are looked at: a file must not make that endless.
_MOST_LAYERS = 256
_LARGEST_SIZE = 1 << 20

ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": partial(nn.gelu, approximate=False)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The sizes of both encoders' blocks; names and defaults are Hugging Face's.

    Attributes:
        hidden_size: Width of a token.
        intermediate_size: Hidden units of a block's MLP.
        num_hidden_layers: Number of blocks.
        num_attention_heads: Heads of a block, a divisor of the width.
        hidden_act: The MLP's activation, a key of `ACTIVATIONS`.
        layer_norm_eps: Added to the variances of layer norms.

    Raises:
        UsageError: A value is not what it must be, or sizes do not fit together.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            largest = _MOST_LAYERS if field.name == "num_hidden_layers" else _LARGEST_SIZE
            if field.type is int and not (type(value) is int and 0 < value <= largest):
                raise UsageError(
                    f"{field.name} must be a positive integer, {largest} at most, got {value!r:.40}"
                )
        if self.hidden_act not in list(ACTIVATIONS):
            raise UsageError(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {self.hidden_act!r:.40}"
            )
        if type(self.layer_norm_eps) is not float or not 0 < self.layer_norm_eps < math.inf:
            raise UsageError(
                f"layer_norm_eps must be a positive number, got {self.layer_norm_eps!r:.40}"
            )
        self._check_divides("num_attention_heads", "hidden_size")

    def _check_divides(self, divisor: str, whole: str) -> None:
        if getattr(self, whole) % getattr(self, divisor):
            raise UsageError(
                f"{whole} must be a multiple of {divisor}, {getattr(self, divisor)}, got "
                f"{getattr(self, whole)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(EncoderConfig):
    """The sizes of the image encoder; the defaults are ViT-B/32's.

    Attributes:
        num_channels: Channels of an image.
        image_size: Side of the square images, a multiple of `patch_size`.
        patch_size: Side of the square patches.
        pre_layernorm: Whether a layer norm follows the embeddings, as in CLIP but not in DINOv2.
    """

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    pre_layernorm: bool = True

    def __post_init__(self):
        super().__post_init__()
        self._check_divides("patch_size", "image_size")

    @property
    def grid(self) -> int:
        """Patches along one side of an image."""
        return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(EncoderConfig):
    """The sizes of the text encoder.

    Attributes:
        vocab_size: Number of tokens known.
        max_position_embeddings: The context length, the most tokens of a prompt.
        eos_token_id: The end-of-text token; 2 is wrong in old checkpoints, see
            `jaxlt.models.clip.model.TextEncoder`.
    """

    hidden_size: int = 512
    intermediate_size: int = 2048
    num_attention_heads: int = 8
    vocab_size: int = 49408
    max_position_embeddings: int = 77
    eos_token_id: int = 49407


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """The sizes of both encoders, and that of the common space of their projections."""

    vision: VisionConfig = VisionConfig()
    text: TextConfig = TextConfig()
    projection_dim: int = 512

    def for_images_of(self, image_size: int) -> "ClipConfig":
        """Returns the network for square images of another side, a multiple of the patches'."""
        vision = dataclasses.replace(self.vision, image_size=image_size)
        return dataclasses.replace(self, vision=vision)


def read_config(path: str | Path) -> ClipConfig:
    """Reads a snapshot's config.json; what it leaves out has Hugging Face's default.

    A `UsageError` says that the file cannot be read, is of another kind of model, or gives sizes
    that fit no network.
    """
    values = read_values(path, "clip")
    projection = values.get("projection_dim", ClipConfig.projection_dim)
    if type(projection) is not int or not 0 < projection <= _LARGEST_SIZE:
        raise UsageError(
            f"projection_dim in {path} must be a positive integer, {_LARGEST_SIZE} at most, got "
            f"{projection!r:.40}"
        )
    return ClipConfig(
        vision=_encoder(path, values, "vision_config", VisionConfig),
        text=_encoder(path, values, "text_config", TextConfig),
        projection_dim=projection,
    )


def read_values(path: str | Path, model_type: str) -> dict[str, Any]:
    """Reads a config.json of Hugging Face's, or raises a `UsageError` for another `model_type`."""
    try:
        values = parse_json(read_utf8(path))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} must be a readable JSON file: {reason}") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind != model_type:
        raise UsageError(f"model_type in {path} must be {model_type!r}, got {kind!r:.40}")
    return values


_Encoder = TypeVar("_Encoder", bound=EncoderConfig)


def _encoder(
    path: str | Path, values: Mapping[str, Any], section: str, make: type[_Encoder]
) -> _Encoder:
    found = values.get(section)
    if not isinstance(found, dict):
        raise UsageError(f"{section} in {path} must be an object, got {found!r:.40}")
    # Whether there is that norm is no choice of a file: it is what makes the network CLIP's.
    names = {field.name for field in dataclasses.fields(make)} - {"pre_layernorm"}
    try:
        return make(**{name: value for name, value in found.items() if name in names})
    except UsageError as error:
        raise UsageError(f"{path}: {section}: {error}") from error
