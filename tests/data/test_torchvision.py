"""The transforms beside torchvision's own, where torchvision is installed."""

import numpy as np
import pytest
from PIL import Image

from jaxlt.data.augment.crops import NUM_TRIES, resized_crop_box
from jaxlt.data.augment.pillow_operations import OPERATIONS, apply_operations
from jaxlt.data.augment.policies import draw_color_jitter
from jaxlt.data.sources.resampling import fit, fit_five_crops
from jaxlt.devices.backends import import_tensorflow

torch = pytest.importorskip("torch")
try:
    from torchvision import transforms  # pyright: ignore[reportMissingImports]
    from torchvision.transforms import functional  # pyright: ignore[reportMissingImports]
except (ImportError, RuntimeError):
    pytest.skip("torchvision is not installed for this torch", allow_module_level=True)

BILINEAR = transforms.InterpolationMode.BILINEAR


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (256, 256), (301, 300), (230, 900)])
def test_the_test_transform_is_resize_256_and_center_crop_224(shape):
    pixels = picture(shape)
    image = transforms.CenterCrop(224)(transforms.Resize(256)(Image.fromarray(pixels)))
    found = fit(import_tensorflow().constant(pixels), 224, "center_crop").numpy()
    np.testing.assert_array_equal(found, np.asarray(image))


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (32, 32), (301, 300), (60, 211)])
@pytest.mark.parametrize("expand", [24, 21, 0])
def test_five_crops_are_resize_and_five_crop(shape, expand):
    pixels = picture(shape)
    image = transforms.Resize(224 + expand)(Image.fromarray(pixels))
    expected = np.concatenate([np.asarray(crop) for crop in transforms.FiveCrop(224)(image)])
    found = fit_five_crops(import_tensorflow().constant(pixels), 224, expand).numpy()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(375, 500), (333, 250), (60, 400), (400, 60), (32, 32)])
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
        crop = fit(tf.constant(pixels[top : top + rows, left : left + columns]), 224).numpy()
        expected = functional.resized_crop(image, *box, [224, 224], BILINEAR)
        np.testing.assert_array_equal(crop, np.asarray(expected))


def test_jitter_is_torchvisions():
    changes = {
        "brightness": functional.adjust_brightness,
        "contrast": functional.adjust_contrast,
        "color": functional.adjust_saturation,
    }
    pixels = np.stack([picture((50, 40), seed) for seed in range(12)])
    operations, amounts = draw_color_jitter(0, np.arange(12), 0.4)
    found = apply_operations(pixels, operations, amounts)
    for number, image in enumerate(map(Image.fromarray, pixels)):
        for kind, amount in zip(operations[number], amounts[number].tolist(), strict=True):
            image = changes[OPERATIONS[kind]](image, 1 + amount)
        np.testing.assert_array_equal(found[number], np.asarray(image))
