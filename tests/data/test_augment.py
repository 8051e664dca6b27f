from typing import Any

import numpy as np
import pytest

from jaxlt.data.augment import augment, flip_left_right, pad_crop
from jaxlt.data.draws import CROP_PAD

# Typed Any because NumPy arrays stand in for tensors, which TensorFlow's stubs do not allow.
RNG: Any = np.random.default_rng(0)
SIDE = 2 * CROP_PAD + 1
IMAGES: Any = RNG.integers(1, 256, (SIDE**2, 6, 5, 3), np.uint8)
TOP: Any = np.repeat(np.arange(SIDE, dtype=np.int32), SIDE)
LEFT: Any = np.tile(np.arange(SIDE, dtype=np.int32), SIDE)
FLIP: Any = RNG.integers(0, 2, SIDE**2).astype(bool)


def crop(image, top, left):
    padded = np.pad(image, ((CROP_PAD, CROP_PAD), (CROP_PAD, CROP_PAD), (0, 0)))
    return padded[top : top + 6, left : left + 5]


def test_every_crop_is_cut_from_the_padded_image():
    expected = [crop(*example) for example in zip(IMAGES, TOP, LEFT, strict=True)]
    np.testing.assert_array_equal(pad_crop(IMAGES, TOP, LEFT).numpy(), expected)


def test_a_crop_in_the_middle_is_the_image():
    middle: Any = np.full(SIDE**2, CROP_PAD, np.int32)
    np.testing.assert_array_equal(pad_crop(IMAGES, middle, middle).numpy(), IMAGES)


def test_images_are_mirrored_where_told():
    flipped = flip_left_right(IMAGES, FLIP).numpy()
    np.testing.assert_array_equal(flipped[FLIP], IMAGES[FLIP][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~FLIP], IMAGES[~FLIP])


@pytest.mark.parametrize("count", [0, 2, 3])
def test_augmentation_does_what_was_drawn(count):
    expected = IMAGES
    if count >= 2:
        expected = pad_crop(expected, TOP, LEFT)
    if count == 3:
        expected = flip_left_right(expected, FLIP)
    result: Any = augment(IMAGES, *(TOP, LEFT, FLIP)[:count])
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
