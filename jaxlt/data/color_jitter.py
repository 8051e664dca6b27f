"""Random changes of brightness, contrast and saturation, from draws made beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.counter_random import random_uniforms, stream_key
from jaxlt.data.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

_NUM_CHANGES = 3
# ITU-R 601-2 luma, as Pillow converts colours to grey.
_LUMA = (0.299, 0.587, 0.114)


def draw_color_jitter(
    seed: int, positions: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the order of the three changes and their factors, as torchvision's `ColorJitter`.

    Args:
        seed: any integer.
        positions: int64 array (...,), positions of the training stream.
        strength: factors are uniform in 1 - strength..1 + strength, at most 1.

    Returns:
        Order, int32 (..., 3), a permutation of 0 (brightness), 1 (contrast) and 2 (saturation),
        and the factor of each turn, float32 (..., 3).
    """
    slots = positions[..., np.newaxis] * _NUM_CHANGES + np.arange(_NUM_CHANGES)
    order = np.argsort(random_uniforms(stream_key(seed, "jitter order"), slots), axis=-1)
    uniforms = random_uniforms(stream_key(seed, "jitter factor"), slots)
    factors = 1 + strength * (2 * uniforms - 1)
    return order.astype(np.int32), factors.astype(np.float32)


def jitter_colors(images: tf.Tensor, order: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast and saturation of each image, clipping after each change.

    A factor f moves a pixel x to f x + (1 - f) y, where y is black for brightness, the image's
    mean grey for contrast and the pixel's own grey for saturation.

    Args:
        images: uint8 tensor (B, H, W, C) of 1 or 3 channels; one channel is its own grey.
        order: int32 tensor (B, 3), see `draw_color_jitter`.
        factors: float32 tensor (B, 3).

    Returns:
        uint8 tensor (B, H, W, C).
    """
    tf = import_tensorflow()
    weights = tf.constant(_LUMA if images.shape[-1] == len(_LUMA) else (1.0,))[:, tf.newaxis]

    def brightness(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return pixels * factor

    def contrast(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        mean = tf.reduce_mean(pixels, axis=0, keepdims=True) @ weights
        return pixels * factor + (1 - factor) * mean

    def saturation(pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
        return pixels * factor + pixels @ ((1 - factor) * weights)

    changes = (brightness, contrast, saturation)

    def jitter(drawn: tuple[tf.Tensor, tf.Tensor, tf.Tensor]) -> tf.Tensor:
        image, turns, amounts = drawn
        pixels = tf.cast(tf.reshape(image, (-1, images.shape[-1])), tf.float32)
        for turn in range(_NUM_CHANGES):
            branches = [lambda f=change, x=pixels, a=amounts[turn]: f(x, a) for change in changes]
            pixels = tf.clip_by_value(tf.switch_case(turns[turn], branches), 0.0, 255.0)
        return tf.reshape(tf.cast(tf.round(pixels), tf.uint8), tf.shape(image))

    spec = tf.TensorSpec(images.shape[1:], tf.uint8)
    return tf.map_fn(jitter, (images, order, factors), fn_output_signature=spec)
