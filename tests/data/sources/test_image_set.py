import tracemalloc
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxlt.data.augment.crops import NUM_TRIES, resized_crop_box
from jaxlt.data.pipelines.device_pipeline import DeviceEvaluation, DevicePipeline
from jaxlt.data.pipelines.draws import DrawStream, ImageAugmentation
from jaxlt.data.pipelines.tf_pipeline import TfDataPipeline, evaluation_batches
from jaxlt.data.sampling.samplers import InstanceBalancedSampler
from jaxlt.data.sources import array_images
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.data.sources.resampling import resize_array
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

# Whose normalized pixels are the pixels themselves.
STATISTICS: Any = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def labels(count):
    return np.arange(count) % 3


def test_reading_an_array_in_a_graph_copies_it_into_no_constant():
    tf = import_tensorflow()
    images = ArrayImages(np.zeros((1000, 32, 32, 3), np.uint8), np.zeros(1000, int))
    graph = tf.function(images.read).get_concrete_function(tf.TensorSpec((4,), tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < 10_000


def test_an_array_is_loaded_as_it_is_read():
    images = ArrayImages(noise(9, 2, 2, 1), np.zeros(9, int))
    indices = np.array([8, 0, 3])
    np.testing.assert_array_equal(images.load(indices), images.read(indices).numpy())


def test_resizing_in_chunks_covers_every_image():
    images = np.arange(2500, dtype=np.uint16)[:, None, None, None] % 251
    images = np.broadcast_to(images, (2500, 2, 2, 1)).astype(np.uint8)
    resized = resize_array(images, 3)
    assert resized.shape == (2500, 3, 3, 1)
    assert (resized == images[:, :1, :1]).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((32, 32, 3), 224),
        ((28, 28, 1), 31),
        ((8, 5, 3), 9),
        ((8, 5, 3), 7),
        ((6, 9, 1), 4),
        ((5, 5, 3), 5),
    ],
)
@pytest.mark.parametrize("large", [0, 2**30])
def test_resized_arrays_have_the_bits_of_resizing_all_at_once(monkeypatch, shape, size, large):
    monkeypatch.setattr(array_images, "_LARGE", large)
    tf = import_tensorflow()
    pixels = noise(70, *shape)
    images = ArrayImages(pixels, labels(70), size)
    # Both round halves to even.
    resized = tf.image.resize(pixels, (size, size), antialias=True).numpy()
    expected = np.rint(resized).astype(np.uint8)
    assert images.image_shape == expected.shape[1:]
    indices = np.random.default_rng(1).permutation(70)
    np.testing.assert_array_equal(images.load(indices), expected[indices])
    np.testing.assert_array_equal(images.read(indices[:9]), expected[indices[:9]])
    in_graph = tf.data.Dataset.from_tensors(indices[:5]).map(images.read)
    assert in_graph.element_spec.shape == (5, *expected.shape[1:])
    np.testing.assert_array_equal(next(iter(in_graph)), expected[indices[:5]])


def test_large_arrays_are_not_enlarged_before_they_are_read(monkeypatch):
    pixels = noise(2000, 32, 32, 3)
    monkeypatch.setattr(array_images, "_LARGE", 2000 * 224 * 224 * 3)
    tracemalloc.start()
    images = ArrayImages(pixels, np.zeros(2000, int), 224)
    images.load(np.arange(10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # TensorFlow's own bookkeeping takes some; the images enlarged would take 301 MB.
    assert peak < 30e6


def crop_draws(count):
    random = np.random.default_rng(3)
    return random.random((count, NUM_TRIES, 2)), random.random((count, 2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("large", [0, 2**30])
def test_random_crops_of_enlarged_arrays_are_cut_out_of_the_original_pixels(
    monkeypatch, channels, large
):
    monkeypatch.setattr(array_images, "_LARGE", large)
    tf = import_tensorflow()
    pixels = noise(20, 32, 32, channels)
    tries, places = crop_draws(20)
    images = ArrayImages(pixels, labels(20), 96)
    found = images.read_crops(np.arange(20), tries, places).numpy()
    for number, original in enumerate(pixels):
        side = tf.constant(32)
        box = resized_crop_box(side, side, tf.constant(tries[number]), tf.constant(places[number]))
        top, left, rows, columns = box.numpy().tolist()
        crop = original[top : top + rows, left : left + columns].squeeze()
        resized = Image.fromarray(crop).resize((96, 96), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(found[number].squeeze(), np.asarray(resized))


@pytest.mark.parametrize(
    "augmentation", [ImageAugmentation(), ImageAugmentation("crop_flip", cutout=5)]
)
@pytest.mark.parametrize("kind", [TfDataPipeline, DevicePipeline])
def test_training_batches_are_those_of_images_enlarged_beforehand(monkeypatch, kind, augmentation):
    monkeypatch.setattr(array_images, "_LARGE", 0)
    pixels = noise(30, 6, 6, 3)

    def batches(images):
        stream = DrawStream(np.arange(30), InstanceBalancedSampler(30, 0), 8, 0, augmentation)
        pipeline = kind(images, stream, **STATISTICS)
        for chunk in pipeline.chunks(0, 3, 1):
            yield pipeline.read(pipeline.resident, jax.tree.map(lambda x: x[0], chunk.payload))

    enlarged = ArrayImages(resize_array(pixels, 11), labels(30))
    found = batches(ArrayImages(pixels, labels(30), 11))
    for ours, theirs in zip(found, batches(enlarged), strict=True):
        assert ours[0].shape == (8, 11, 11, 3)
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def evaluated(images, on_device):
    """Returns pixels and labels of all evaluation batches, the padding included."""
    if on_device:
        batches = list(DeviceEvaluation(images, batch_size=4, **STATISTICS).batches())
    else:
        batches = list(evaluation_batches(images, batch_size=4, **STATISTICS))
    pixels = np.concatenate([np.asarray(batch.images) for batch in batches])
    return np.rint(pixels).astype(int), np.concatenate([batch.labels for batch in batches])


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("image_size", [None, 11])
def test_evaluation_batches_hold_five_crops_of_the_stored_pixels(image_size, on_device):
    pixels = noise(6, 8, 8, 3)
    size = image_size or 8
    images = ArrayImages(pixels, labels(6), image_size)
    crops = images.five_crops(3)
    assert crops.image_shape == (5 * size, size, 3)
    found, found_labels = evaluated(crops, on_device)
    assert found_labels.tolist() == [0, 1, 2, 0, 1, 2, -1, -1]
    assert (found[6:] == 0).all()
    for tall, original in zip(found, pixels, strict=False):
        shape = (size + 3, size + 3)
        whole = np.asarray(Image.fromarray(original).resize(shape, Image.Resampling.BILINEAR))
        # Half of 3 pixels is rounded to 2.
        corners = [(0, 0), (0, 3), (3, 0), (3, 3), (2, 2)]
        expected = [whole[top : top + size, left : left + size] for top, left in corners]
        np.testing.assert_array_equal(tall, np.concatenate(expected))


def test_a_set_and_its_five_crops_are_read_from_one_tensor():
    tf = import_tensorflow()
    images = ArrayImages(noise(6, 8, 8, 3), labels(6))
    crops = images.five_crops(0)
    spec = tf.TensorSpec((2,), tf.int64)
    captured = [
        tf.function(each.read).get_concrete_function(spec).captured_inputs
        for each in (crops, images)
    ]
    assert captured[0][0] is captured[1][0]
    assert images.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(images.load(np.arange(6)), noise(6, 8, 8, 3))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 5))
def test_five_crops_of_one_color_are_of_that_color(side, size, expand):
    pixels = np.full((1, side, side, 1), 93, np.uint8)
    crops = ArrayImages(pixels, np.zeros(1, int), size).five_crops(expand)
    found = crops.load(np.arange(1))
    assert found.shape == (1, 5 * size, size, 1)
    assert (found == 93).all()


@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 8, 4), (40, 8, 3)])
def test_five_crops_of_other_shapes_are_refused(shape):
    with pytest.raises(
        UsageError, match=r"must be square and have 1 or 3 channels .* got shape \("
    ):
        ArrayImages(noise(2, *shape), labels(2)).five_crops(24)


def test_five_crops_of_a_smaller_image_are_refused():
    with pytest.raises(UsageError, match="expand must be at least 0, got -1"):
        ArrayImages(noise(2, 8, 8, 3), labels(2)).five_crops(-1)
