import numpy as np
import pytest
from PIL import Image

from jaxlt.data.sources.resampling import fit, fit_five_crops
from jaxlt.devices.backends import import_tensorflow

SHAPES = [(375, 500), (500, 333), (224, 224), (40, 61), (256, 300), (900, 230)]


def noise(shape, channels=3):
    return np.random.default_rng(0).integers(0, 256, (*shape, channels), np.uint8)


def fitted(pixels, size, resize="stretch"):
    return fit(import_tensorflow().constant(pixels), size, resize).numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [224, 32])
def test_stretching_is_tensorflows_antialiased_resize(shape, size):
    tf = import_tensorflow()
    pixels = noise(shape)
    expected = tf.image.resize(pixels, (size, size), antialias=True).numpy()
    # Pillow rounds to whole gray levels between rows and columns, TensorFlow does not.
    assert np.abs(fitted(pixels, size) - expected).max() < 1.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [224, 32])
def test_the_center_crop_is_the_middle_of_an_image_whose_shorter_side_is_larger(shape, size):
    pixels = noise(shape)
    short = size * 8 // 7
    height, width = (
        short if side == min(shape) else int(short * side / min(shape)) for side in shape
    )
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = whole[top : top + size, left : left + size]
    np.testing.assert_array_equal(fitted(pixels, size, "center_crop"), expected)


@pytest.mark.parametrize("shape", [*SHAPES, (32, 32), (1, 3)])
@pytest.mark.parametrize(("size", "expand"), [(224, 24), (32, 5), (32, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_five_crops_are_corners_and_center_of_an_image_whose_shorter_side_is_larger(
    shape, size, expand, channels
):
    pixels = noise(shape, channels)
    short = size + expand
    height, width = (
        short if side == min(shape) else int(short * side / min(shape)) for side in shape
    )
    image = Image.fromarray(pixels.squeeze(axis=-1) if channels == 1 else pixels)
    whole = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    whole = whole.reshape(height, width, channels)
    top, left = round((height - size) / 2), round((width - size) / 2)
    expected = np.stack(
        [
            whole[:size, :size],
            whole[:size, width - size :],
            whole[height - size :, :size],
            whole[height - size :, width - size :],
            whole[top : top + size, left : left + size],
        ]
    )
    found = fit_five_crops(import_tensorflow().constant(pixels), size, expand).numpy()
    assert found.shape == (5 * size, size, channels)
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@pytest.mark.parametrize("resize", ["stretch", "center_crop"])
def test_gray_images_are_those_of_three_equal_channels(resize):
    pixels = noise((50, 31), channels=1)
    colored = fitted(np.repeat(pixels, 3, axis=-1), 28, resize)
    np.testing.assert_array_equal(fitted(pixels, 28, resize), colored[..., :1])


def test_images_of_many_sizes_are_fitted_inside_a_data_set():
    tf = import_tensorflow()
    pixels = [noise(shape) for shape in SHAPES]
    images = tf.data.Dataset.from_generator(
        lambda: iter(pixels), output_signature=tf.TensorSpec((None, None, 3), tf.uint8)
    )
    found = images.map(lambda image: fit(image, 32), num_parallel_calls=2)
    assert found.element_spec.shape == (32, 32, 3)
    for image, one in zip(pixels, found.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(one, fitted(image, 32))
