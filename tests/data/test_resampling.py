import numpy as np
import pytest
from PIL import Image

from jaxlt.data.resampling import centre_crop, stretch
from jaxlt.data.tensorflow_runtime import import_tensorflow

SHAPES = [(375, 500), (500, 333), (224, 224), (40, 61), (256, 300), (900, 230)]


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def assert_close(found, expected):
    """Two roundings of nearly the same numbers: very rarely both go the other way."""
    difference = np.abs(found - expected)
    assert difference.max() <= 2
    assert (difference > 1).mean() < 1e-3


def pillow_centre_crop(pixels, size):
    height, width = pixels.shape[:2]
    short = size * 8 // 7
    if height <= width:
        new_height, new_width = short, int(short * width / height)
    else:
        new_height, new_width = int(short * height / width), short
    image = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.BILINEAR)
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)), int)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [224, 32])
def test_stretching_is_pillows_within_a_grey_level(shape, size):
    pixels = noise(shape)
    image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    found = stretch(import_tensorflow().constant(pixels), size).numpy()
    assert_close(found, np.asarray(image, int))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [224, 32])
def test_the_centre_crop_is_pillows_within_a_grey_level(shape, size):
    pixels = noise(shape)
    found = centre_crop(import_tensorflow().constant(pixels), size).numpy()
    assert found.shape == (size, size, 3)
    assert_close(found, pillow_centre_crop(pixels, size))


def test_stretching_is_tensorflows_antialiased_resize():
    tf = import_tensorflow()
    pixels = noise((131, 77))
    expected = tf.image.resize(pixels, (50, 50), antialias=True).numpy()
    assert np.abs(stretch(tf.constant(pixels), 50).numpy() - expected).max() < 1.01
