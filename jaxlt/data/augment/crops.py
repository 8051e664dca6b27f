"""Where random resized crops lie, from uniform numbers drawn beforehand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

NUM_TRIES = 10
_MIN_AREA = 0.08
_MIN_RATIO, _MAX_RATIO = 3 / 4, 4 / 3


def resized_crop_box(
    height: tf.Tensor, width: tf.Tensor, tries: tf.Tensor, place: tf.Tensor
) -> tf.Tensor:
    """Returns top, left, height and width of a random resized crop, an int32 tensor (4,).

    This is torchvision's `RandomResizedCrop` with its default scales and ratios (Szegedy et al.,
    "Going deeper with convolutions", CVPR 2015, section 6). A try has an area uniform in 0.08..1 of
    the image's and a ratio of width to height whose logarithm is uniform in log 3/4..log 4/3. The
    first try that fits is taken, at a uniform place. If none fits, the largest box of a permitted
    ratio is taken, in the middle.

    Args:
        height: int32 scalar, of the image.
        width: int32 scalar, of the image.
        tries: float64 tensor (NUM_TRIES, 2), uniform in [0, 1), for area and ratio.
        place: float64 tensor (2,), uniform in [0, 1), for top and left.
    """
    tf = import_tensorflow()
    whole = tf.cast(tf.stack((height, width)), tf.float64)
    area = tf.reduce_prod(whole) * (_MIN_AREA + tries[:, 0] * (1 - _MIN_AREA))
    low, high = math.log(_MIN_RATIO), math.log(_MAX_RATIO)
    ratio = tf.exp(low + tries[:, 1] * (high - low))
    tried = tf.round(tf.sqrt(tf.stack((area / ratio, area * ratio), axis=1)))
    fits = tf.reduce_all((tried > 0) & (tried <= whole), axis=1)
    found = tf.reduce_any(fits)
    size = tf.where(found, tried[tf.argmax(fits)], _fallback_size(whole))
    free = whole - size
    corner = tf.where(found, tf.floor(place * (free + 1)), tf.floor(free / 2))
    return tf.cast(tf.concat((corner, size), axis=0), tf.int32)


def cropped(image: tf.Tensor, tries: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Cuts `resized_crop_box` out of an image (H, W, C)."""
    tf = import_tensorflow()
    height, width, _ = tf.unstack(tf.shape(image))
    top, left, rows, columns = tf.unstack(resized_crop_box(height, width, tries, place))
    return image[top : top + rows, left : left + columns]


def _fallback_size(whole: tf.Tensor) -> tf.Tensor:
    tf = import_tensorflow()
    height, width = tf.unstack(whole)
    return tf.stack(
        (
            tf.minimum(height, tf.round(width / _MIN_RATIO)),
            tf.minimum(width, tf.round(height * _MAX_RATIO)),
        )
    )
