"""Each operation against its formula in NumPy, up to Pillow's rounding."""

import numpy as np
import pytest

from jaxlt.data.augment.pillow_operations import MAX_AMOUNTS, OPERATIONS, UNSIGNED, apply_operations

RNG = np.random.default_rng(0)
IMAGES = {
    # Of no full range, so that autocontrast and equalize have something to do.
    1: RNG.integers(40, 200, (4, 12, 10, 1), np.uint8),
    3: RNG.integers(40, 200, (4, 12, 10, 3), np.uint8),
}
WIDE = {channels: RNG.integers(0, 256, (4, 12, 10, channels), np.uint8) for channels in (1, 3)}


def apply(images, operation, amount=0.0):
    shape = (len(images), 1)
    number = OPERATIONS.index(operation)
    return apply_operations(images, np.full(shape, number), np.full(shape, amount, np.float32))


def gray(images):
    """The luma of ITU-R BT.601, rounded."""
    if images.shape[-1] == 1:
        return images.astype(float)
    return np.rint(images @ [0.299, 0.587, 0.114])[..., np.newaxis]


def blended(images, degenerate, amount):
    return np.clip(degenerate + (1 + amount) * (images.astype(float) - degenerate), 0, 255)


def smoothed(images):
    """Weights 5 for a pixel and 1 for its neighbors; the border is left as it is."""
    result = images.astype(float)
    total = 4 * result[:, 1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            total = total + images[:, y : y + 10, x : x + 8]
    result[:, 1:-1, 1:-1] = total / 13
    return np.rint(result)


def bicubic(distance):
    """The kernel of Keys (1981) with a = -1."""
    d = np.abs(distance)
    return np.where(d < 1, d**3 - 2 * d**2 + 1, -(d**3) + 5 * d**2 - 8 * d + 4)


def channel_by_channel(function, images):
    planes = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:3])
    done = np.stack([function(plane) for plane in planes])
    return np.moveaxis(done.reshape(len(images), -1, *images.shape[1:3]), 1, -1)


def stretched(plane):
    low, high = float(plane.min()), float(plane.max())
    return (plane - low) * 255 / (high - low)


def equalized(plane):
    """Histogram equalization in integers, which leaves the brightest level out of its step."""
    counts = np.bincount(plane.ravel(), minlength=256)
    step = (plane.size - counts[plane.max()]) // 255
    if step == 0:
        return plane
    below = np.cumsum(counts) - counts
    return np.clip((step // 2 + below) // step, 0, 255)[plane]


@pytest.mark.parametrize("channels", [1, 3])
class TestOperations:
    @pytest.mark.parametrize("amount", [-0.9, -0.4, 0.0, 0.3, 0.9])
    def test_enhancements_blend_with_their_degenerate_image(self, channels, amount):
        images = WIDE[channels]
        means = np.floor(gray(images).mean(axis=(1, 2, 3), keepdims=True) + 0.5)
        degenerate = {
            "brightness": 0.0,
            "color": gray(images),
            "contrast": means,
            "sharpness": smoothed(images),
        }
        for operation, other in degenerate.items():
            found = apply(images, operation, amount)
            np.testing.assert_allclose(found, blended(images, other, amount), atol=2.0)

    def test_color_leaves_a_gray_image_as_it_is(self, channels):
        images = np.repeat(WIDE[1], channels, axis=-1)
        np.testing.assert_allclose(apply(images, "color", 0.9), images, atol=1)

    def test_brightness_0_is_black(self, channels):
        assert not apply(WIDE[channels], "brightness", -1.0).any()

    def test_invert(self, channels):
        np.testing.assert_array_equal(apply(WIDE[channels], "invert"), 255 - WIDE[channels])

    @pytest.mark.parametrize("levels", [0.0, 0.4, 85.4, 128.0, 256.0])
    def test_solarize(self, channels, levels):
        images = WIDE[channels].astype(int)
        expected = np.where(images >= 256 - levels, 255 - images, images)
        np.testing.assert_array_equal(apply(WIDE[channels], "solarize", levels), expected)

    @pytest.mark.parametrize(("bits", "kept"), [(0, 8), (1.7, 6), (3.11, 5), (4, 4)])
    def test_posterize(self, channels, bits, kept):
        expected = WIDE[channels] // 2 ** (8 - kept) * 2 ** (8 - kept)
        np.testing.assert_array_equal(apply(WIDE[channels], "posterize", bits), expected)

    def test_autocontrast(self, channels):
        expected = channel_by_channel(stretched, IMAGES[channels])
        assert (apply(IMAGES[channels], "autocontrast") != IMAGES[channels]).any()
        np.testing.assert_allclose(apply(IMAGES[channels], "autocontrast"), expected, atol=1)

    def test_equalize(self, channels):
        # 256 pixels a level and more, or Pillow's step is 0 and nothing happens.
        images = RNG.integers(90, 130, (2, 30, 31, channels), np.uint8)
        expected = channel_by_channel(equalized, images)
        assert (expected != images).any()
        np.testing.assert_array_equal(apply(images, "equalize"), expected)
        flat = apply(IMAGES[channels], "equalize")
        np.testing.assert_array_equal(flat, channel_by_channel(equalized, IMAGES[channels]))

    @pytest.mark.parametrize("pixels", [-3, 0, 2])
    def test_translations_by_whole_pixels(self, channels, pixels):
        images = WIDE[channels]
        for operation, axis in (("translate_y", 1), ("translate_x", 2)):
            expected = np.roll(images, -pixels, axis)
            start, stop = (-pixels, None) if pixels > 0 else (0, -pixels)
            np.moveaxis(expected, axis, 0)[start:stop] = 128
            found = apply(images, operation, pixels / images.shape[axis])
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("shear", [-2, 2])
    def test_shears_by_whole_pixels(self, channels, shear):
        # The middle of row y lies at y + 1/2, so that it moves by 2 y + 1 pixels.
        images = WIDE[channels]
        for operation, sheared in (
            ("shear_x", images),
            ("shear_y", images.swapaxes(1, 2)),
        ):
            expected = np.full_like(sheared, 128)
            for y in range(sheared.shape[1]):
                for x in range(sheared.shape[2]):
                    source = x + shear * y + shear // 2
                    if 0 <= source < sheared.shape[2]:
                        expected[:, y, x] = sheared[:, y, source]
            if operation == "shear_y":
                expected = expected.swapaxes(1, 2)
            np.testing.assert_array_equal(apply(images, operation, shear), expected)

    @pytest.mark.parametrize("shear", [-0.3, 0.1, 0.3])
    def test_shears_by_parts_of_a_pixel_are_bicubic(self, channels, shear):
        images = WIDE[channels]
        found = apply(images, "shear_x", shear).astype(float)
        for y, x in np.ndindex(12, 10):
            middle = x + 0.5 + shear * (y + 0.5)
            if not 0 <= middle < 10:
                assert (found[:, y, x] == 128).all()
                continue
            first = int(np.floor(middle - 0.5)) - 1
            near = first + np.arange(4)
            weights = bicubic(middle - 0.5 - near)
            expected = np.clip(weights @ images[:, y, np.clip(near, 0, 9)].astype(float), 0, 255)
            np.testing.assert_allclose(found[:, y, x], expected, atol=1.5)

    @pytest.mark.parametrize("degrees", [-30.0, 10.0, 25.0])
    def test_rotation_is_counter_clockwise_about_the_middle(self, channels, degrees):
        images = WIDE[channels]
        angle = np.deg2rad(degrees)
        y, x = np.mgrid[:12, :10] + 0.5 - np.array([6, 5]).reshape(2, 1, 1)
        column = np.floor(np.cos(angle) * x - np.sin(angle) * y + 5).astype(int)
        row = np.floor(np.sin(angle) * x + np.cos(angle) * y + 6).astype(int)
        inside = (row >= 0) & (row < 12) & (column >= 0) & (column < 10)
        expected = np.full_like(images, 128)
        expected[:, inside] = images[:, row[inside], column[inside]]
        np.testing.assert_array_equal(apply(images, "rotate", degrees), expected)

    def test_amount_0_leaves_an_image_as_it_is(self, channels):
        for operation in (*MAX_AMOUNTS, "identity"):
            np.testing.assert_array_equal(apply(WIDE[channels], operation), WIDE[channels])

    def test_every_operation_at_its_limits_changes_images_or_their_colors(self, channels):
        for operation, limit in MAX_AMOUNTS.items():
            for amount in (limit,) if operation in UNSIGNED else (limit, -limit):
                changed = (apply(WIDE[channels], operation, amount) != WIDE[channels]).any()
                assert changed == (operation != "color" or channels == 3)

    def test_operations_follow_one_another_for_each_image(self, channels):
        images = WIDE[channels]
        numbers = RNG.integers(0, len(OPERATIONS), (4, 3))
        amounts = RNG.uniform(0, 0.3, (4, 3))
        expected = []
        for image, own, strengths in zip(images, numbers, amounts, strict=True):
            for number, amount in zip(own, strengths, strict=True):
                image = apply(image[np.newaxis], OPERATIONS[number], amount)[0]
            expected.append(image)
        np.testing.assert_array_equal(
            apply_operations(images, numbers, amounts.astype(np.float32)), expected
        )
