"""Augmentation of whole batches, in which each example draws by its stream position alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxlt.data.counter_random import random_integers, stream_key
from jaxlt.data.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


def pad_crop(images: tf.Tensor, positions: tf.Tensor, seed: int, pad: int = 4) -> tf.Tensor:
    """Shifts each image by up to `pad` pixels each way, filling with black.

    The same as padding by `pad` zeros on every side and cropping at a uniformly random place,
    the augmentation of CIFAR since He et al., "Deep residual learning", CVPR 2016.

    Args:
        images: uint8 tensor (B, H, W, C).
        positions: int64 tensor (B,), each example's position in the training stream.
        seed: any integer.
        pad: greatest shift in pixels.

    Returns:
        uint8 tensor (B, H, W, C).
    """
    tf = import_tensorflow()
    height, width = images.shape[1:3]
    top = random_integers(stream_key(seed, "crop top"), positions, 2 * pad + 1)
    left = random_integers(stream_key(seed, "crop left"), positions, 2 * pad + 1)
    padded = tf.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = top[:, tf.newaxis] + tf.range(height, dtype=tf.int64)
    columns = left[:, tf.newaxis] + tf.range(width, dtype=tf.int64)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def random_flip(images: tf.Tensor, positions: tf.Tensor, seed: int) -> tf.Tensor:
    """Mirrors each image left to right with probability one half.

    Args:
        images: uint8 tensor (B, H, W, C).
        positions: int64 tensor (B,), each example's position in the training stream.
        seed: any integer.

    Returns:
        uint8 tensor (B, H, W, C).
    """
    tf = import_tensorflow()
    flips = random_integers(stream_key(seed, "flip"), positions, 2)
    # Picking whole rows is several times faster than tf.where over pixels or a [::-1] slice.
    both = tf.concat([images, tf.reverse(images, axis=[2])], axis=0)
    rows = tf.shape(images, tf.int64)[0]
    return tf.gather(both, tf.range(rows) + flips * rows)
