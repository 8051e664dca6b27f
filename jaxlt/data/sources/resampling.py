"""Bilinear resampling with antialiasing, by Pillow as in torchvision, or for arrays TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

Resize = Literal["stretch", "center_crop"]
NUM_CROPS = 5
_RESIZE_CHUNK = 1024


def stretch(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resizes an image to a height and a width, whatever its aspect ratio."""
    return image.resize((width, height), Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to 8/7 of `size`, then crops the middle, a square of side `size`.

    For 224 pixels this is the usual test transform of ImageNet, torchvision's `Resize(256)` and
    `CenterCrop(224)`: the longer side is rounded down, the crop's corner to even.
    """
    whole = _resize_shorter(image, size * 8 // 7)
    left, top = _middle(whole, size)
    return whole.crop((left, top, left + size, top + size))


def five_crops(image: Image.Image, size: int, expand: int) -> Image.Image:
    """Resizes the shorter side to `size + expand`, then crops five squares of side `size`.

    These are torchvision's `Resize(size + expand)` and `FiveCrop(size)`: the longer side is
    rounded down, the corner of the last crop to even. The crops lie one below the other: top left,
    top right, bottom left, bottom right and center.
    """
    whole = _resize_shorter(image, size + expand)
    right, bottom = (side - size for side in whole.size)
    corners = ((0, 0), (right, 0), (0, bottom), (right, bottom), _middle(whole, size))
    tall = Image.new(whole.mode, (size, NUM_CROPS * size))
    for number, (left, top) in enumerate(corners):
        tall.paste(whole.crop((left, top, left + size, top + size)), (0, number * size))
    return tall


def fit(pixels: tf.Tensor, size: int, resize: Resize = "stretch") -> tf.Tensor:
    """Brings a uint8 image (H, W, C) of 1 or 3 channels to (size, size, C), in a `tf.data` map."""
    if resize == "center_crop":
        return _by_pillow(pixels, lambda image: center_crop(image, size), (size, size))
    return _by_pillow(pixels, lambda image: stretch(image, size, size), (size, size))


def fit_five_crops(pixels: tf.Tensor, size: int, expand: int) -> tf.Tensor:
    """Cuts `five_crops` out of one uint8 image (H, W, C) of 1 or 3 channels, like `fit`."""
    shape = (NUM_CROPS * size, size)
    return _by_pillow(pixels, lambda image: five_crops(image, size, expand), shape)


def _by_pillow(
    pixels: tf.Tensor, change: Callable[[Image.Image], Image.Image], shape: tuple[int, int]
) -> tf.Tensor:
    """Applies `change`, whose result is of height and width `shape`, to an image (H, W, C)."""
    tf = import_tensorflow()

    def changed(array: np.ndarray) -> np.ndarray:
        image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
        return np.asarray(change(image)).reshape(*shape, array.shape[-1])

    # tf.image.resize gives nearly the same numbers in more time, and Pillow's are torchvision's.
    found = tf.numpy_function(changed, (pixels,), tf.uint8)
    return tf.ensure_shape(found, (*shape, pixels.shape[-1]))


def _resize_shorter(image: Image.Image, size: int) -> Image.Image:
    width, height = (size * side // min(image.size) for side in image.size)
    return stretch(image, height, width)


def _middle(image: Image.Image, size: int) -> tuple[int, int]:
    """Returns left and top of the square of side `size` in the middle."""
    left, top = (round((side - size) / 2) for side in image.size)
    return left, top


def is_enlarged(shape: Sequence[int | None], size: int) -> bool:
    """Whether images of one shape (H, W, ...) have fewer pixels than squares of side `size`."""
    height, width = shape[:2]
    return height is not None and width is not None and height * width < size * size


def resize(images: tf.Tensor | np.ndarray, size: int) -> tf.Tensor:
    """Resizes uint8 images (..., H, W, C) to (..., size, size, C), by TensorFlow."""
    tf = import_tensorflow()
    resized = tf.image.resize(images, (size, size), antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def resize_array(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes a uint8 array (N, H, W, C) to squares of side `size`, as `resize` does."""
    if images.shape[1:3] == (size, size):
        return images
    # Whole-set resizing would hold a float32 copy of every image at once.
    starts = range(0, len(images), _RESIZE_CHUNK)
    chunks = [resize(images[start : start + _RESIZE_CHUNK], size).numpy() for start in starts]
    return np.concatenate(chunks)
