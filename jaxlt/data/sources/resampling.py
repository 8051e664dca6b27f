"""Bilinear resampling with antialiasing, by Pillow as in torchvision's transforms."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

Resize = Literal["stretch", "centre_crop"]
NUM_CROPS = 5


def stretch(image: Image.Image, height: int, width: int) -> Image.Image:
    """Resizes an image to a height and a width, whatever its aspect ratio."""
    return image.resize((width, height), Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to 8/7 of `size`, then crops the middle, a square of side `size`.

    For 224 pixels this is the usual test transform of ImageNet, torchvision's `Resize(256)` and
    `CenterCrop(224)`: the longer side is rounded down, the crop's corner to even.
    """
    whole = _resize_shorter(image, size * 8 // 7)
    return _square(whole, *_middle(whole, size), size)


def five_crops(image: Image.Image, size: int, expand: int) -> Image.Image:
    """Resizes the shorter side to `size + expand`, then crops five squares of side `size`.

    These are torchvision's `Resize(size + expand)` and `FiveCrop(size)`: the longer side is
    rounded down, the corner of the last crop to even. The crops lie one below the other: top left,
    top right, bottom left, bottom right and centre.

    Args:
        image: any mode.
        size: side of the squares.
        expand: pixels by which the resized image's shorter side exceeds `size`.
    """
    whole = _resize_shorter(image, size + expand)
    right, bottom = (side - size for side in whole.size)
    corners = ((0, 0), (right, 0), (0, bottom), (right, bottom), _middle(whole, size))
    tall = Image.new(whole.mode, (size, NUM_CROPS * size))
    for number, corner in enumerate(corners):
        tall.paste(_square(whole, *corner, size), (0, number * size))
    return tall


def fit(pixels: tf.Tensor, size: int, resize: Resize = "stretch") -> tf.Tensor:
    """Brings one image to (size, size, C); works inside a `tf.data` map.

    Args:
        pixels: uint8 tensor (H, W, C) of 1 or 3 channels.
        size: side of the result.
        resize: "stretch" or "centre_crop", see the functions of these names.
    """
    change = functools.partial(stretch, height=size, width=size)
    if resize == "centre_crop":
        change = functools.partial(centre_crop, size=size)
    return _by_pillow(pixels, change, (size, size))


def fit_five_crops(pixels: tf.Tensor, size: int, expand: int) -> tf.Tensor:
    """Cuts `five_crops` out of one image; works inside a `tf.data` map.

    Args:
        pixels: uint8 tensor (H, W, C) of 1 or 3 channels.
        size: see `five_crops`.
        expand: see `five_crops`.
    """
    change = functools.partial(five_crops, size=size, expand=expand)
    return _by_pillow(pixels, change, (NUM_CROPS * size, size))


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


def _square(image: Image.Image, left: int, top: int, size: int) -> Image.Image:
    return image.crop((left, top, left + size, top + size))
