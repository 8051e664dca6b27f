"""The transforms beside torchvision's own, where torchvision is installed."""

import numpy as np
import pytest
from PIL import Image

from jaxlt.data.color_jitter import jitter_colors
from jaxlt.data.crops import NUM_TRIES, resized_crop_box
from jaxlt.data.resampling import centre_crop, stretch
from jaxlt.data.tensorflow_runtime import import_tensorflow

torch = pytest.importorskip("torch")
try:
    from torchvision import transforms
    from torchvision.transforms import functional
except (ImportError, RuntimeError):
    pytest.skip("torchvision is not installed for this torch", allow_module_level=True)

BILINEAR = transforms.InterpolationMode.BILINEAR


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (256, 256), (301, 300), (230, 900)])
def test_the_test_transform_is_resize_256_and_centre_crop_224(shape):
    pixels = picture(shape)
    image = transforms.CenterCrop(224)(transforms.Resize(256)(Image.fromarray(pixels)))
    found = centre_crop(import_tensorflow().constant(pixels), 224).numpy()
    assert np.abs(found - np.asarray(image, int)).max() <= 2


@pytest.mark.parametrize("shape", [(375, 500), (333, 250), (60, 400), (400, 60)])
def test_resized_crops_are_those_of_the_same_uniform_numbers(shape, monkeypatch):
    tf = import_tensorflow()
    for seed in range(8):
        random = np.random.default_rng(seed)
        tries, place = random.random((NUM_TRIES, 2)), random.random(2)
        uniforms, corners = iter(tries.ravel().tolist()), iter(place.tolist())
        with monkeypatch.context() as patched:
            patched.setattr(
                torch.Tensor,
                "uniform_",
                lambda self, low, high, u=uniforms: self.double().fill_(
                    low + next(u) * (high - low)
                ),
            )
            patched.setattr(
                torch,
                "randint",
                lambda low, high, size, c=corners: torch.tensor(int(next(c) * high)),
            )
            pixels = picture(shape, seed)
            image = Image.fromarray(pixels)
            box = transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
        height, width = map(tf.constant, shape)
        found = resized_crop_box(height, width, tf.constant(tries), tf.constant(place)).numpy()
        assert found.tolist() == list(map(int, box))
        top, left, rows, columns = found.tolist()
        crop = stretch(tf.constant(pixels[top : top + rows, left : left + columns]), 224).numpy()
        expected = functional.resized_crop(image, *box, [224, 224], BILINEAR)
        assert np.abs(crop - np.asarray(expected, int)).max() <= 2


def test_jitter_is_torchvisions_within_rounding():
    tf = import_tensorflow()
    random = np.random.default_rng(0)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
    )
    for seed in range(12):
        pixels = picture((50, 40), seed)
        order = random.permutation(3).astype(np.int32)
        factors = random.uniform(0.6, 1.4, 3).astype(np.float32)
        image = Image.fromarray(pixels)
        for kind, factor in zip(order, factors.tolist(), strict=True):
            image = changes[kind](image, factor)
        drawn = (tf.constant(values[None]) for values in (pixels, order, factors))
        found = jitter_colors(*drawn).numpy()[0]
        assert np.abs(found - np.asarray(image, int)).max() <= 4
