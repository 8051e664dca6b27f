import itertools

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxlt.data.color_jitter import draw_color_jitter, jitter_colors
from jaxlt.data.tensorflow_runtime import import_tensorflow

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
PERMUTATIONS = np.array(list(itertools.permutations(range(3))), np.int32)


def images(count, channels=3):
    random = np.random.default_rng(0)
    # Of every darkness, so that some pixels are clipped and some images are not.
    scale = np.linspace(0.2, 1, count)[:, None, None, None]
    return (random.integers(0, 256, (count, 20, 30, channels)) * scale).astype(np.uint8)


def jittered(pixels, order, factors):
    tf = import_tensorflow()
    return jitter_colors(tf.constant(pixels), tf.constant(order), tf.constant(factors)).numpy()


@pytest.mark.parametrize("channels", [1, 3])
def test_changes_are_pillows_within_rounding(channels):
    pixels = images(60, channels)
    order = np.tile(PERMUTATIONS, (10, 1))
    factors = np.random.default_rng(1).uniform(0.6, 1.4, (60, 3)).astype(np.float32)
    found = jittered(pixels, order, factors)
    for number in range(60):
        image = Image.fromarray(pixels[number].squeeze())
        for kind, factor in zip(order[number], factors[number].tolist(), strict=True):
            image = ENHANCERS[kind](image).enhance(factor)
        difference = found[number].squeeze() - np.asarray(image, int)
        # Pillow rounds down after each of the three changes.
        assert np.abs(difference).max() <= 4
        assert np.abs(difference).mean() < 2


def test_factors_of_one_change_nothing():
    pixels = images(6)
    np.testing.assert_array_equal(jittered(pixels, PERMUTATIONS, np.ones((6, 3), "f4")), pixels)


def test_draws_are_permutations_and_uniform_factors():
    order, factors = draw_color_jitter(3, np.arange(12_000).reshape(60, 200), 0.4)
    assert order.shape == factors.shape == (60, 200, 3)
    np.testing.assert_array_equal(np.sort(order, axis=-1), np.broadcast_to(range(3), order.shape))
    codes = order.reshape(-1, 3) @ np.array([9, 3, 1])
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 1800
    assert 0.6 <= factors.min() < 0.601
    assert 1.399 < factors.max() <= 1.4
    assert abs(factors.mean() - 1) < 0.005
    assert abs(np.corrcoef(factors.reshape(-1, 3).T) - np.eye(3)).max() < 0.03
