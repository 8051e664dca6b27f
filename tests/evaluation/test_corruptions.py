import sys

import imagecorruptions
import numpy as np
import pytest
from PIL import Image

from jaxlt.data.sampling.random_numbers import stream_key
from jaxlt.errors import UsageError
from jaxlt.evaluation.corruptions import CORRUPTIONS, SEVERITIES, VALIDATION_CORRUPTIONS, Corruption

AT_OWN_SIZE = ("gaussian_noise", "shot_noise", "impulse_noise", "brightness", "contrast")


def picture(height, width, channels, seed=0):
    """Smooth, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)[..., :channels]


def test_the_benchmarks_corruptions_are_the_librarys():
    assert imagecorruptions.get_corruption_names("common") == list(CORRUPTIONS)
    assert imagecorruptions.get_corruption_names("validation") == list(VALIDATION_CORRUPTIONS)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_large_images_are_corrupted_as_the_library_does(name):
    image, severity, seed, number = picture(160, 170, 3), 3, 7, 5
    found = Corruption(name, severity, seed)(image, number)
    drawn = stream_key(seed, f"corruption {name} {severity} {number}") % 2**32
    np.random.seed(drawn)  # noqa: NPY002
    options = {"seed": drawn} if name in ("impulse_noise", "glass_blur") else {}
    expected = imagecorruptions.corrupt(image, severity=severity, corruption_name=name, **options)
    np.testing.assert_array_equal(found, expected)
    assert (found != image).any()


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 24, 3)])
def test_small_images_keep_their_shape_and_draws_depend_on_seed_and_number_alone(name, shape):
    image = picture(*shape)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    corruption = Corruption(name, 3, seed=1)
    first = corruption(image, 0)
    assert first.shape == shape
    assert first.dtype == np.uint8
    corruption(image, 9)
    np.testing.assert_array_equal(corruption(image, 0), first)
    np.testing.assert_array_equal(Corruption(name, 3, seed=1)(image, 0), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    if name.endswith(("noise", "elastic_transform", "fog")):
        assert (corruption(image, 1) != first).any()
        assert (Corruption(name, 3, seed=2)(image, 0) != first).any()


@pytest.mark.parametrize("name", AT_OWN_SIZE)
def test_gray_images_are_corrupted_as_gray(name):
    image = np.full((28, 28, 1), 100, np.uint8)
    corrupted = Corruption(name, 5, seed=0)(image, 0) / 255
    if name == "gaussian_noise":
        inner = corrupted[(corrupted > 0) & (corrupted < 1)]
        assert len(inner) > 500
        # The standard deviation of severity 5 is 0.38, less what clipping at black takes.
        assert 0.25 < corrupted.std() < 0.38
    if name == "brightness":
        np.testing.assert_allclose(corrupted, 100 / 255 + 0.5, atol=1 / 255)
    if name == "contrast":
        np.testing.assert_allclose(corrupted, 100 / 255, atol=1 / 255)


def test_blur_is_as_wide_as_on_a_large_image():
    """Of one picture, small and large, the blurred copies are the same but for sampling."""
    small = picture(28, 28, 3)
    large = small.repeat(8, axis=0).repeat(8, axis=1)
    blur = Corruption("defocus_blur", 5, seed=0)
    expected = blur(large, 0).reshape(28, 8, 28, 8, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(blur(small, 0), expected, atol=0.5)


def test_what_is_not_changed_comes_back_bit_for_bit(monkeypatch):
    monkeypatch.setitem(imagecorruptions.corruption_dict, "fog", lambda image, _: image)
    for shape in ((28, 28, 3), (20, 33, 3), (64, 64, 3), (28, 28, 1)):
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        np.testing.assert_array_equal(Corruption("fog", 1, seed=0)(image, 0), image)


def test_every_severity_is_stronger_than_the_last():
    image = picture(28, 28, 1).astype(float)
    for name in ("gaussian_noise", "contrast", "brightness"):
        distances = [
            np.abs(Corruption(name, severity, seed=0)(image.astype(np.uint8), 0) - image).mean()
            for severity in SEVERITIES
        ]
        assert distances == sorted(distances)


def test_mistakes(monkeypatch):
    with pytest.raises(UsageError, match=r"corruption must be one of gaussian_noise.*got 'rain'"):
        Corruption("rain", 1, seed=0)
    with pytest.raises(UsageError, match=r"severity must lie in 1..5, got 6"):
        Corruption("fog", 6, seed=0)
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(UsageError, match=r"pip install 'jaxlt\[ood\]'"):
        Corruption("fog", 1, seed=0)
