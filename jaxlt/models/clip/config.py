"""Sizes of a CLIP network, as the config.json of a Hugging Face snapshot gives them."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json, read_utf8


def _quick_gelu(x: jax.Array) -> jax.Array:
    """OpenAI's approximation of `gelu`."""
    return x * jax.nn.sigmoid(1.702 * x)


# Networks are traced before their weights are looked at: a file must not make that endless.
_MOST_LAYERS = 256
_LARGEST_SIZE = 1 << 20
_VISION_ONLY = "clip_vision_model"
ACTIVATIONS = {"quick_gelu": _quick_gelu, "gelu": partial(nn.gelu, approximate=False)}


def check_size(name: str, value: object, largest: int = _LARGEST_SIZE) -> None:
    """Raises a `UsageError` for a value of a config.json that is no integer from 1 to `largest`."""
    if not (type(value) is int and 0 < value <= largest):
        raise UsageError(f"{name} must be a positive integer, {largest} at most, got {value!r:.40}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The sizes of both encoders' blocks; names and defaults are Hugging Face's.

    A token is `hidden_size` wide, a multiple of the heads, and a block's MLP has
    `intermediate_size` hidden units. A `UsageError` says that sizes are wrong or do not fit.
    """

    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_hidden_layers: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field.type is int:
                largest = _MOST_LAYERS if field.name == "num_hidden_layers" else _LARGEST_SIZE
                check_size(field.name, getattr(self, field.name), largest)
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
        part, size = getattr(self, divisor), getattr(self, whole)
        if size % part:
            raise UsageError(f"{whole} must be a multiple of {divisor}, {part}, got {size}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionConfig(EncoderConfig):
    """The sizes of the image encoder; the defaults are ViT-B/32's.

    The sides of square images, `image_size`, are a multiple of those of their patches. In CLIP but
    not in DINOv2 a layer norm follows the embeddings, `pre_layernorm`.
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

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """The shape of a batch of one image."""
        return 1, self.image_size, self.image_size, self.num_channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(EncoderConfig):
    """The sizes of the text encoder.

    The context length, `max_position_embeddings`, is the most tokens of a prompt. In old
    checkpoints the end-of-text token, `eos_token_id`, is 2, which is wrong: see `TextEncoder`.
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

    That of a `CLIPVisionModel` has the sizes of the image encoder alone. A `UsageError` says that
    the file cannot be read, is of another kind of model, or gives sizes that fit no network.
    """
    values = read_values(path, "clip", _VISION_ONLY)
    if values["model_type"] == _VISION_ONLY:
        values = {**values, "vision_config": values, "text_config": {}}
    projection = values.get("projection_dim", ClipConfig.projection_dim)
    check_size(f"projection_dim in {path}", projection)
    encoders: dict[str, Any] = {}
    for encoder, make in (("vision", VisionConfig), ("text", TextConfig)):
        section = f"{encoder}_config"
        found = values.get(section)
        if not isinstance(found, dict):
            raise UsageError(f"{section} in {path} must be an object, got {found!r:.40}")
        # Whether there is that norm is no choice of a file: it is what makes the network CLIP's.
        names = {field.name for field in dataclasses.fields(make)} - {"pre_layernorm"}
        try:
            encoders[encoder] = make(**{name: x for name, x in found.items() if name in names})
        except UsageError as error:
            raise UsageError(f"{path}: {section}: {error}") from error
    return ClipConfig(**encoders, projection_dim=projection)


def read_values(path: str | Path, *model_types: str) -> dict[str, Any]:
    """Reads a config.json of Hugging Face's, or raises a `UsageError` for another `model_type`."""
    try:
        values = parse_json(read_utf8(path))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} must be a readable JSON file: {reason}") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if kind not in model_types:
        need = " or ".join(map(repr, model_types))
        raise UsageError(f"model_type in {path} must be {need}, got {kind!r:.40}")
    return values
