"""Bilinear resampling with antialiasing, by Pillow as in torchvision's transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from jaxlt.data.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

Resize = Literal["stretch", "centre_crop"]


def stretch(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resizes an image to a height and a width, whatever its aspect ratio."""
    return image.resize((width, height), Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to 8/7 of `size`, then crops the middle, a square of side `size`.

    For 224 pixels this is the usual test transform of ImageNet, torchvision's `Resize(256)` and
    `CenterCrop(224)`: the longer side is rounded down, the crop's corner to even.
    """
    shorter = size * 8 // 7
    width, height = (shorter * side // min(image.size) for side in image.size)
    left, top = (round((side - size) / 2) for side in (width, height))
    return stretch(image, height, width).crop((left, top, left + size, top + size))


def fit(pixels: tf.Tensor, size: int, resize: Resize = "stretch") -> tf.Tensor:
    """Brings one image to (size, size, C); works inside a `tf.data` map.

    Args:
        pixels: uint8 tensor (H, W, C) of 1 or 3 channels.
        size: side of the result.
        resize: "stretch" or "centre_crop", see the functions of these names.

    Returns:
        uint8 tensor (size, size, C).
    """
    tf = import_tensorflow()

    def resample(array: np.ndarray) -> np.ndarray:
        image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        crops = resize == "centre_crop"
        fitted = centre_crop(image, size) if crops else stretch(image, size, size)
        return np.asarray(fitted).reshape(size, size, array.shape[-1])

    # tf.image.resize gives nearly the same numbers in more time, and Pillow's are torchvision's.
    resampled = tf.numpy_function(resample, (pixels,), tf.uint8)
    return tf.ensure_shape(resampled, (size, size, pixels.shape[-1]))
