"""Augmentation of whole batches in TensorFlow, by draws made beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxlt.data.draws import CROP_PAD
from jaxlt.data.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


def augment(
    images: tf.Tensor,
    top: tf.Tensor | None = None,
    left: tf.Tensor | None = None,
    flip: tf.Tensor | None = None,
) -> tf.Tensor:
    """Crops and mirrors the images (B, H, W, C) of one step as its `Draws` (B,) say."""
    if top is not None and left is not None:
        images = pad_crop(images, top, left)
    return images if flip is None else flip_left_right(images, flip)


def pad_crop(images: tf.Tensor, top: tf.Tensor, left: tf.Tensor) -> tf.Tensor:
    """Pads each image with black by `CROP_PAD` on every side and crops it to its own size.

    The augmentation of CIFAR since He et al., "Deep residual learning", CVPR 2016.

    Args:
        images: uint8 tensor (B, H, W, C).
        top: int32 tensor (B,), first row of each crop, in [0, 2 * CROP_PAD].
        left: int32 tensor (B,), first column of each crop, in the same range.

    Returns:
        uint8 tensor (B, H, W, C).
    """
    tf = import_tensorflow()
    height, width = images.shape[1:3]
    margin = (CROP_PAD, CROP_PAD)
    padded = tf.pad(images, ((0, 0), margin, margin, (0, 0)))
    rows = top[:, tf.newaxis] + tf.range(height)
    columns = left[:, tf.newaxis] + tf.range(width)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def flip_left_right(images: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Mirrors left to right the images (B, H, W, C) for which `flip`, bool (B,), is true."""
    tf = import_tensorflow()
    # Picking whole rows is several times faster than tf.where over pixels or a [::-1] slice.
    both = tf.concat([images, tf.reverse(images, axis=[2])], axis=0)
    rows = tf.shape(images)[0]
    return tf.gather(both, tf.range(rows) + tf.cast(flip, tf.int32) * rows)
