"""Image encoders by name: those of pretrained snapshots, and random ones for trials without any."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import joint_digest
from jaxlt.models.adaptation.kinds import EncoderAdaptation
from jaxlt.models.clip.config import VisionConfig, read_config
from jaxlt.models.clip.dinov2 import load_dinov2, read_dinov2_config
from jaxlt.models.clip.model import ClipClassifier, ImageEncoder
from jaxlt.models.clip.snapshot import ClipSnapshot, find_snapshot, load_clip, weights_of
from jaxlt.models.clip.timm_vit import find_vit, load_vit, vit_config
from jaxlt.models.weights.torch_files import files_of_weights

RANDOM = {
    "tiny": VisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_attention_heads=4,
        num_hidden_layers=4,
        image_size=28,
        patch_size=4,
    ),
    "vit_b32": VisionConfig(),
    "vit_b16": VisionConfig(patch_size=16),
    "vit_l14": VisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=16,
        num_hidden_layers=24,
        patch_size=14,
    ),
}
"""Sizes of encoders with random weights: a tiny one, and CLIP's three."""


class PretrainedEncoder(NamedTuple):
    """Float32 parameters of `ImageEncoder(config)`, and the CLIP network that it is part of."""

    config: VisionConfig
    params: dict[str, Any]
    snapshot: ClipSnapshot | None = None


def encoder_config(model: str, image_shape: tuple[int, int, int]) -> VisionConfig:
    """Returns the sizes of an encoder for images of a shape, or raises a `UsageError`.

    The model is "clip:SNAPSHOT" or "dinov2:SNAPSHOT", see `find_snapshot`, "vit:PLACE", see
    `find_vit`, or "random:SIZE" with a key of `RANDOM`. Gray images are shown to it in each
    channel.
    """
    config = stored_config(model)
    height, width, channels = image_shape
    if height != width or height % config.patch_size or channels not in (1, config.num_channels):
        raise UsageError(
            f"images for {model} must be squares whose side is a multiple of {config.patch_size}, "
            f"gray or of {config.num_channels} channels, got {height}x{width}x{channels}"
        )
    return dataclasses.replace(config, image_size=height)


def stored_config(model: str) -> VisionConfig:
    """Returns the sizes of an encoder for the images that it was trained on."""
    kind, place = _kind_and_place(model)
    if kind == "random":
        return RANDOM[place]
    if kind == "vit":
        return vit_config(place)
    path = find_snapshot(place) / "config.json"
    return read_config(path).vision if kind == "clip" else read_dinov2_config(path)


def create_encoder(
    model: str,
    image_shape: tuple[int, int, int],
    adaptation: EncoderAdaptation | None,
    **fields: Any,
) -> ClipClassifier:
    """Builds a classifier on an encoder; for the arguments see `create_model`."""
    config = encoder_config(model, image_shape)
    added = adaptation or EncoderAdaptation(("full",))
    added = added.with_rank(fields["num_classes"], config.num_hidden_layers)
    return ClipClassifier(config=config, adaptation=added, **fields)


def _kind_and_place(model: str) -> tuple[str, str]:
    kind, _, place = model.partition(":")
    if (kind in ("clip", "dinov2", "vit") and place) or (kind == "random" and place in RANDOM):
        return kind, place
    sizes = ", ".join(f"random:{size}" for size in RANDOM)
    raise UsageError(
        f"model must be clip:SNAPSHOT, dinov2:SNAPSHOT, vit:FILE or one of {sizes}, got {model!r}"
    )


def load_encoder(model: str, image_shape: tuple[int, int, int]) -> PretrainedEncoder:
    """Loads an encoder; arguments and errors as of `encoder_config`, `load_clip` and its like.

    Random weights are the same each time, as if they were a checkpoint's.
    """
    config = encoder_config(model, image_shape)
    kind, place = _kind_and_place(model)
    if kind == "clip":
        snapshot = load_clip(place, image_size=config.image_size)
        return PretrainedEncoder(config, snapshot.params["vision_model"], snapshot)
    if kind == "vit":
        return PretrainedEncoder(*load_vit(place, image_size=config.image_size))
    if kind == "dinov2":
        return PretrainedEncoder(*load_dinov2(find_snapshot(place), image_size=config.image_size))
    init = jax.jit(ImageEncoder(config).init)
    params = init(jax.random.key(0), jnp.zeros(config.image_shape))["params"]
    return PretrainedEncoder(config, params)


def encoder_digest(model: str) -> str:
    """Returns "sha256:" and the hash of an encoder's config.json, if any, and weights.

    A random encoder has its own name. A `UsageError` says that a file cannot be read.
    """
    kind, place = _kind_and_place(model)
    if kind == "random":
        return model
    if kind == "vit":
        files = files_of_weights(find_vit(place))
    else:
        directory = find_snapshot(place)
        files = [directory / "config.json", *files_of_weights(weights_of(directory))]
    return joint_digest("model's file", files)
