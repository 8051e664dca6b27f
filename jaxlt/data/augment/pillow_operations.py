"""The image operations of color jitter, AutoAugment and RandAugment, by Pillow.

Shears are bicubic; rotations and translations take the nearest pixel. What lies outside the image
is mid-gray (128), as in the code of Balanced Meta-Softmax (Ren et al., NeurIPS 2020). AutoAugment's
own code fills with the mean of each channel.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

# At amount 0 each operation leaves an image as it is, except the three that take no amount.
MAX_AMOUNTS: dict[str, float] = {
    "posterize": 4.0,  # bits of 8 taken away, rounded
    "solarize": 256.0,  # gray levels, counted from the brightest, that are inverted
    "color": 0.9,  # saturation added, in parts of the image's own
    "contrast": 0.9,  # in parts of the image's own
    "brightness": 0.9,  # in parts of the image's own
    "sharpness": 0.9,  # in parts of the image's difference from its smoothed copy
    "rotate": 30.0,  # degrees
    "shear_x": 0.3,  # columns a row
    "shear_y": 0.3,  # rows a column
    "translate_x": 150 / 331,  # in parts of the width
    "translate_y": 150 / 331,  # in parts of the height
}
UNSIGNED: tuple[str, ...] = ("posterize", "solarize")

_GREY = 128


def apply_operations(images: np.ndarray, operations: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Applies to each of the uint8 images (B, H, W, C) its own operations, one after the other.

    These are numbers in `OPERATIONS` (B, K), and amounts up to `MAX_AMOUNTS` in magnitude.
    """
    result = np.empty_like(images)
    gray = images.shape[-1] == 1
    for number, pixels in enumerate(images):
        image = Image.fromarray(pixels[:, :, 0] if gray else pixels)
        for operation, amount in zip(
            operations[number].tolist(), amounts[number].tolist(), strict=True
        ):
            image = _FUNCTIONS[OPERATIONS[operation]](image, amount)
        result[number] = np.asarray(image).reshape(pixels.shape)
    return result


def _affine(
    image: Image.Image,
    coefficients: tuple[float, float, float, float, float, float],
    resampling: Image.Resampling = Image.Resampling.NEAREST,
) -> Image.Image:
    """Takes the pixel of row y and column x from column a x + b y + c and row d x + e y + f."""
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, resampling, fillcolor=_fill(image)
    )


def _fill(image: Image.Image) -> int | tuple[int, int, int]:
    return _GREY if image.mode == "L" else (_GREY, _GREY, _GREY)


def _enhance(enhancement: Any) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, amount: enhancement(image).enhance(1 + amount)


_BICUBIC = Image.Resampling.BICUBIC
_FUNCTIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, 8 - round(bits)),
    "solarize": lambda image, levels: ImageOps.solarize(image, math.ceil(256 - levels)),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "rotate": lambda image, degrees: image.rotate(degrees, fillcolor=_fill(image)),
    "shear_x": lambda image, shear: _affine(image, (1, shear, 0, 0, 1, 0), _BICUBIC),
    "shear_y": lambda image, shear: _affine(image, (1, 0, 0, shear, 1, 0), _BICUBIC),
    "translate_x": lambda image, part: _affine(image, (1, 0, part * image.width, 0, 1, 0)),
    "translate_y": lambda image, part: _affine(image, (1, 0, 0, 0, 1, part * image.height)),
}
OPERATIONS = tuple(_FUNCTIONS)
"""The names by number, which draws hold."""
