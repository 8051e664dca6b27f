from typing import Any

import numpy as np
import pytest

from jaxlt.data.augment.batch_augmentation import (
    LARGE_IMAGE,
    augment,
    cut_out,
    flip_left_right,
    pad_crop,
)
from jaxlt.data.augment.pillow_operations import OPERATIONS, apply_operations
from jaxlt.data.pipelines.batches import Draws
from jaxlt.data.pipelines.draws import CROP_PAD

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


def test_large_images_are_mirrored_alike():
    images: Any = np.random.default_rng(0).integers(0, 256, (5, 110, 100, 3), np.uint8)
    flip: Any = np.array([True, False, False, True, True])
    assert images[0].size >= LARGE_IMAGE
    expected = np.where(flip[:, None, None, None], images[:, :, ::-1], images)
    np.testing.assert_array_equal(flip_left_right(images, flip).numpy(), expected)


def squares(row, column):
    return Draws(row, cutout_row=row, cutout_column=column)


@pytest.mark.parametrize("side", [1, 4, 5, 40])
def test_a_black_square_is_cut_out_around_each_center(side):
    # Centers at every pixel of 6 rows and 5 columns, whatever the fraction of a pixel.
    rows: Any = np.repeat(np.arange(6), 5)
    columns: Any = np.tile(np.arange(5), 6)
    row, column = (-(-k * 2**16 // n) for k, n in ((rows, 6), (columns, 5)))
    cut = cut_out(IMAGES[:30], squares(row.astype(np.int32), column.astype(np.int32)), side).numpy()
    expected = IMAGES[:30].copy()
    for image, r, c in zip(expected, rows, columns, strict=True):
        top, left = r - side // 2, c - side // 2
        image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
    np.testing.assert_array_equal(cut, expected)
    areas = (cut == 0).all(axis=-1).sum(axis=(1, 2))
    assert areas.max() == min(side, 6) * min(side, 5)
    if side > 1:
        assert areas[0] == min(-(-side // 2), 6) * min(-(-side // 2), 5)


@pytest.mark.parametrize("count", [0, 2, 3, 5, 7])
def test_augmentation_does_what_was_drawn(count):
    operations: Any = RNG.integers(0, len(OPERATIONS), (SIDE**2, 2))
    amounts: Any = RNG.random((SIDE**2, 2), np.float32)
    row, column = (RNG.integers(0, 2**16, SIDE**2, np.int32) for _ in range(2))
    drawn = {
        "top": TOP,
        "left": LEFT,
        "flip": FLIP,
        "operations": operations,
        "amounts": amounts,
        "cutout_row": row,
        "cutout_column": column,
    }
    expected: Any = IMAGES
    if count >= 2:
        expected = pad_crop(expected, TOP, LEFT)
    if count >= 3:
        expected = flip_left_right(expected, FLIP)
    if count >= 5:
        expected = apply_operations(np.asarray(expected), operations, amounts)
    if count >= 7:
        expected = cut_out(expected, squares(row, column), 3)
    draws = Draws(np.arange(SIDE**2), **dict(list(drawn.items())[:count]))
    result: Any = augment(IMAGES, draws, 3)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
