from typing import Any

import numpy as np
import pytest

from jaxlt.data.augment import pad_crop, random_flip

# Typed Any because NumPy arrays stand in for tensors, which TensorFlow's stubs do not allow.
IMAGES: Any = np.random.default_rng(0).integers(1, 256, (64, 6, 5, 3), np.uint8)
POSITIONS: Any = np.arange(1000, 1064)


def crops(image, pad):
    """Returns every crop of one image, by (top, left)."""
    height, width, _ = image.shape
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    side = range(2 * pad + 1)
    return {(t, s): padded[t : t + height, s : s + width] for t in side for s in side}


@pytest.mark.parametrize("pad", [0, 2, 4])
def test_every_crop_is_one_of_the_padded_image(pad):
    cropped = pad_crop(IMAGES, POSITIONS, 7, pad).numpy()
    for image, result in zip(IMAGES, cropped, strict=True):
        matches = [place for place, crop in crops(image, pad).items() if (crop == result).all()]
        assert matches


def test_crop_places_are_uniform():
    # One bright pixel in the middle of a 9 by 9 image shows where each crop began.
    images: Any = np.zeros((8100, 9, 9, 1), np.uint8)
    images[:, 4, 4] = 255
    positions: Any = np.arange(8100)
    cropped = pad_crop(images, positions, 0).numpy()
    counts = (cropped[..., 0] > 0).sum(axis=0)
    assert counts.sum() == 8100
    chi_squared = ((counts - 100) ** 2 / 100).sum()
    assert chi_squared / 80 < 1 + 5 * np.sqrt(2 / 80)


def test_half_the_images_are_mirrored():
    originals: Any = np.tile(IMAGES, (20, 1, 1, 1))
    positions: Any = np.arange(1280)
    flipped = random_flip(originals, positions, 3).numpy()
    kept = (flipped == originals).all(axis=(1, 2, 3))
    mirrored = (flipped == originals[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert abs(kept.sum() - 640) < 5 * np.sqrt(1280 / 4)


@pytest.mark.parametrize("augment", [pad_crop, random_flip])
def test_an_example_draws_by_its_seed_and_position_alone(augment):
    whole = augment(IMAGES, POSITIONS, 5).numpy()
    order = np.random.default_rng(1).permutation(64)[:23]
    np.testing.assert_array_equal(augment(IMAGES[order], POSITIONS[order], 5).numpy(), whole[order])
    assert (augment(IMAGES, POSITIONS, 6).numpy() != whole).any()
    assert (augment(IMAGES, POSITIONS + 1, 5).numpy() != whole).any()
