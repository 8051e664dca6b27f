"""Per-channel normalisation of 8-bit pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

LARGE_IMAGE = 2**15
"""Pixels and channels from which on a batch does not fit the cache and one image does."""


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a, b), float32 (C,), so that a * pixel + b is (pixel / 255 - mean) / std.

    Args:
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
    """
    scale = 1 / (255 * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return scale.astype(np.float32), shift.astype(np.float32)


def normalise(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """Maps a uint8 tensor (B, H, W, C) to (pixel / 255 - mean) / std in float32.

    Args:
        pixels: images of known height, width and channels.
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
    """
    tf = import_tensorflow()
    scale, shift = scale_and_shift(mean, std)
    if (pixels.shape[1:].num_elements() or 0) < LARGE_IMAGE:
        return tf.cast(pixels, tf.float32) * scale + shift
    return tf.map_fn(
        lambda image: tf.cast(image, tf.float32) * scale + shift,
        pixels,
        fn_output_signature=tf.TensorSpec(pixels.shape[1:], tf.float32),
    )
