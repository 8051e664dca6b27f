"""Image files and arrays, converted to the shape of the images that a network takes."""

from pathlib import Path

import numpy as np
from PIL import Image

from jaxlt.data.sources.resampling import Resize, centre_crop, stretch
from jaxlt.errors import UsageError, first_line

_MODES = {1: "L", 3: "RGB"}


def read_image(path: Path, shape: tuple[int, int, int], resize: Resize = "stretch") -> np.ndarray:
    """Reads a file of any format that Pillow reads, as a uint8 array.

    Args:
        path: the file.
        shape: height, width and channels to convert the image to, see `fit_image`.
        resize: how to bring it to this size, see `jaxlt.data.sources.resampling`.

    Raises:
        UsageError: the file cannot be read as an image, or `shape` is neither grey nor RGB.
    """
    mode = _mode(shape, "the run's images")
    try:
        with Image.open(path) as file:
            image = _eight_bits(file).convert(mode)
    # Pillow's decoders raise whatever a broken file makes them stumble over.
    except Exception as error:
        raise UsageError(
            f"image {path} must be a file that Pillow reads: {first_line(error)}"
        ) from error
    if resize == "centre_crop":
        image = centre_crop(image, shape[0])
    return _stretched(image, shape)


def fit_image(image: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Converts an image to other channels and another size (bilinear, antialiased).

    Args:
        image: uint8 (H, W, C). Grey is repeated, RGB becomes luma (ITU-R 601); others are refused.
        shape: height, width and channels of the result.
    """
    _mode(image.shape, "images to convert")
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    return _stretched(Image.fromarray(pixels).convert(_mode(shape, "the run's images")), shape)


def _mode(shape: tuple[int, ...], whose: str) -> str:
    if shape[-1] not in _MODES:
        raise UsageError(f"{whose} must have 1 or 3 channels, got {shape[-1]}")
    return _MODES[shape[-1]]


def _stretched(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    return np.asarray(stretch(image, *shape[:2])).reshape(shape)


def _eight_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion would make all but the darkest of 16-bit greys white.
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image
