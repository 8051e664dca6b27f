"""Augmentation of whole batches in TensorFlow, by draws made beforehand, and normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxlt.data.pipelines.draws import CROP_PAD
from jaxlt.data.sources.source import scale_and_shift
from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

LARGE_IMAGE = 2**15
"""Pixels and channels from which on a batch does not fit the cache and one image does."""


def augment(images: tf.Tensor, draws: Any, cutout: int = 0) -> tf.Tensor:
    """Does to uint8 images (B, H, W, C) what the `Draws` of one step say, but for resized crops.

    The side of the black square, `cutout`, is in pixels.
    """
    if draws.top is not None:
        images = pad_crop(images, draws.top, draws.left)
    if draws.flip is not None:
        images = flip_left_right(images, draws.flip)
    if draws.operations is not None:
        from jaxlt.data.augment.pillow_operations import apply_operations

        tf, shape = import_tensorflow(), images.shape
        drawn = (images, draws.operations, draws.amounts)
        images = tf.ensure_shape(tf.numpy_function(apply_operations, drawn, tf.uint8), shape)
    if draws.cutout_row is not None:
        images = cut_out(images, draws, cutout)
    return images


def pad_crop(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Pads each image with black by `CROP_PAD` on every side and crops it to its own size.

    Args:
        images: uint8 tensor (B, H, W, C).
        top: int32 tensor (B,), first row of each crop, in [0, 2 * CROP_PAD].
        left: int32 tensor (B,), first column of each crop, in the same range.
    """
    tf = import_tensorflow()
    height, width = images.shape[1:3]
    padded = tf.pad(images, ((0, 0), (CROP_PAD, CROP_PAD), (CROP_PAD, CROP_PAD), (0, 0)))
    rows = top[:, tf.newaxis] + tf.range(height)
    columns = left[:, tf.newaxis] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def flip_left_right(images: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Mirrors left to right the images (B, H, W, C) for which `flip`, bool (B,), is true."""
    tf = import_tensorflow()
    if math.prod(side or 0 for side in images.shape[1:]) >= LARGE_IMAGE:
        return tf.map_fn(
            lambda x: tf.cond(x[1], lambda: tf.reverse(x[0], axis=[1]), lambda: x[0]),
            (images, flip),
            fn_output_signature=tf.TensorSpec(images.shape[1:], images.dtype),
        )
    # Picking whole rows is several times faster than tf.where over pixels or a [::-1] slice.
    both = tf.concat([images, tf.reverse(images, axis=[2])], axis=0)
    rows = tf.shape(images)[0]
    return tf.gather(both, tf.range(rows) + tf.cast(flip, tf.int32) * rows)


def cut_out(images: tf.Tensor, draws: Any, side: int) -> tf.Tensor:
    """Blackens a square of each image (B, H, W, C), see `cutout_hole`."""
    from jaxlt.data.augment.cutout import cutout_hole

    tf = import_tensorflow()
    hole = cutout_hole(draws, images.shape[1:3], side, tf.range)
    return tf.where(hole[..., tf.newaxis], tf.zeros_like(images), images)


def normalize(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """Maps uint8 (B, H, W, C), of which H, W and C are known, to (pixel / 255 - mean) / std."""
    tf = import_tensorflow()
    scale, shift = scale_and_shift(mean, std)
    if (pixels.shape[1:].num_elements() or 0) < LARGE_IMAGE:
        return tf.cast(pixels, tf.float32) * scale + shift
    return tf.map_fn(
        lambda image: tf.cast(image, tf.float32) * scale + shift,
        pixels,
        fn_output_signature=tf.TensorSpec(pixels.shape[1:], tf.float32),
    )
