"""Random resized crops: what is drawn for them, and where they lie.

These are torchvision's `RandomResizedCrop` with its default scales and ratios (Szegedy et al.,
"Going deeper with convolutions", CVPR 2015, section 6). A try has an area uniform in 0.08..1 of the
image's and a ratio of width to height whose logarithm is uniform in log 3/4..log 4/3. The first try
that fits is taken, at a uniform place. If none fits, the largest box of a permitted ratio is taken,
in the middle.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.sampling.random_numbers import random_uniforms, stream_key
from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

NUM_TRIES = 10
_MIN_AREA = 0.08
_MIN_RATIO, _MAX_RATIO = 3 / 4, 4 / 3


def draw_crops(seed: int, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Draws tries and places, two fields of `Draws`, for int64 positions (...,)."""

    def uniforms(use: str, size: int) -> np.ndarray:
        slots = positions[..., np.newaxis] * size + np.arange(size)
        return random_uniforms(stream_key(seed, use), slots)

    tries = uniforms("resized crop shape", NUM_TRIES * 2)
    return {
        "crop_tries": tries.reshape(*positions.shape, NUM_TRIES, 2),
        "crop_place": uniforms("resized crop place", 2),
    }


def resized_crop_box(
    height: tf.Tensor, width: tf.Tensor, tries: tf.Tensor, place: tf.Tensor
) -> tf.Tensor:
    """Returns top, left, height and width of a crop, an int32 tensor (4,).

    The draws are float64, uniform in [0, 1): `tries` (NUM_TRIES, 2) of area and ratio, and `place`
    (2,) of top and left.
    """
    tf = import_tensorflow()
    whole = tf.cast(tf.stack((height, width)), tf.float64)
    area = tf.reduce_prod(whole) * (_MIN_AREA + tries[:, 0] * (1 - _MIN_AREA))
    low, high = math.log(_MIN_RATIO), math.log(_MAX_RATIO)
    ratio = tf.exp(low + tries[:, 1] * (high - low))
    tried = tf.round(tf.sqrt(tf.stack((area / ratio, area * ratio), axis=1)))
    fits = tf.reduce_all((tried > 0) & (tried <= whole), axis=1)
    found = tf.reduce_any(fits)
    most = tf.stack((whole[1] / _MIN_RATIO, whole[0] * _MAX_RATIO))
    size = tf.where(found, tried[tf.argmax(fits)], tf.minimum(whole, tf.round(most)))
    free = whole - size
    corner = tf.where(found, tf.floor(place * (free + 1)), tf.floor(free / 2))
    return tf.cast(tf.concat((corner, size), axis=0), tf.int32)


def cropped(image: tf.Tensor, tries: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Cuts `resized_crop_box` out of an image (H, W, C)."""
    tf = import_tensorflow()
    height, width, _ = tf.unstack(tf.shape(image))
    top, left, rows, columns = tf.unstack(resized_crop_box(height, width, tries, place))
    return image[top : top + rows, left : left + columns]
