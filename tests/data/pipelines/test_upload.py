from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxlt.data.pipelines.device_pipeline import upload
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 5, 4, 3), np.uint8)
LABELS = np.arange(30) % 7


def with_memory(monkeypatch, statistics):
    device = SimpleNamespace(memory_stats=lambda: statistics)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])


def test_the_chosen_images_are_uploaded_in_their_order():
    indices = np.array([4, 2, 29])
    resident = upload(ArrayImages(PIXELS, LABELS), indices)
    assert (resident.pixels.dtype, resident.labels.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(resident.pixels, PIXELS[indices])
    np.testing.assert_array_equal(resident.labels, LABELS[indices])


# 30 images of 60 bytes may take up half of the memory.
@pytest.mark.parametrize("statistics", [None, {}, {"bytes_limit": 3600}])
def test_images_that_fit_are_taken(monkeypatch, statistics):
    with_memory(monkeypatch, statistics)
    assert upload(ArrayImages(PIXELS, LABELS), np.arange(30)).pixels.shape == PIXELS.shape


def test_images_beyond_half_the_memory_are_refused_before_they_are_read(monkeypatch):
    with_memory(monkeypatch, {"bytes_limit": 15_000_000_000})
    # A million images of 100 by 100, of which none exists.
    images = SimpleNamespace(image_shape=(100, 100, 1))
    with pytest.raises(UsageError) as caught:
        upload(images, np.arange(1_000_000))  # pyright: ignore[reportArgumentType]
    assert str(caught.value) == (
        "images on the device must fit in 7.50 GB, half of its memory, got "
        "1000000 images of 10.00 GB: give --pipeline tf"
    )
