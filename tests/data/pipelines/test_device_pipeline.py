import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jaxlt.data.pipelines.device_pipeline import DevicePipeline
from jaxlt.data.pipelines.draws import DrawStream, ImageAugmentation
from jaxlt.data.pipelines.tf_pipeline import TfDataPipeline
from jaxlt.data.sampling.samplers import InstanceBalancedSampler
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = ArrayImages(RNG.integers(0, 256, (50, 6, 9, 3), np.uint8), RNG.integers(0, 5, 50))
INDICES = RNG.permutation(50)[:23]
STATISTICS = {"mean": (0.5, 0.25, 0.75), "std": (0.25, 0.5, 0.2)}
# Whose normalized pixels are the pixels themselves, so that nothing is rounded.
AS_THEY_ARE = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}
CROP_FLIP = ImageAugmentation("crop_flip")
AUGMENTATIONS = [
    ImageAugmentation(),
    ImageAugmentation("crop"),
    CROP_FLIP,
    ImageAugmentation(cutout=4),
    ImageAugmentation("crop_flip", cutout=5),
]


def draw_stream(*, indices=INDICES, seed=0, augmentation=CROP_FLIP, shard=(0, 1)):
    sampler = InstanceBalancedSampler(len(indices), seed)
    return DrawStream(indices, sampler, 8, seed, augmentation, shard)


def build(kind, *, statistics=STATISTICS, **options):
    return kind(IMAGES, draw_stream(**options), **statistics)


def step_of(payload, i):
    return jax.tree.map(lambda x: x[i], payload)


def batches(pipeline, start=0, stop=7, *, size=1, read=None):
    """Returns images (steps, B, H, W, C) and labels (steps, B), read step by step."""
    read = read or pipeline.read
    steps = [
        read(pipeline.resident, step_of(chunk.payload, i))
        for chunk in pipeline.chunks(start, stop, size)
        for i in range(len(chunk.labels))
    ]
    return tuple(np.stack(column) for column in zip(*steps, strict=True))


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_pixels_are_exactly_those_of_tf_data(augmentation, shard):
    options = {"statistics": AS_THEY_ARE, "augmentation": augmentation, "shard": shard}
    expected, labels = batches(build(TfDataPipeline, **options))
    assert len(np.unique(expected)) > 200
    for start, size in ((0, 1), (0, 3), (0, 20), (5, 2)):
        device = batches(build(DevicePipeline, **options), start, size=size)
        np.testing.assert_array_equal(device[0], expected[start:])
        np.testing.assert_array_equal(device[1], labels[start:])


@pytest.mark.parametrize("kind", [TfDataPipeline, DevicePipeline])
def test_labels_are_those_of_the_chunks(kind):
    pipeline = build(kind)
    chunks = [chunk.labels for chunk in pipeline.chunks(2, 9, 3)]
    np.testing.assert_array_equal(pipeline.labels(2, 9), np.concatenate(chunks))


@pytest.mark.parametrize("kind", [TfDataPipeline, DevicePipeline])
def test_image_numbers_are_those_of_the_training_set(kind):
    expected = build(TfDataPipeline)._stream.images(2, 9)
    np.testing.assert_array_equal(build(kind).image_numbers(2, 9), expected)


@pytest.mark.parametrize("kind", [TfDataPipeline, DevicePipeline])
def test_a_part_of_the_batches_knows_the_labels_and_images_of_whole_ones(kind):
    whole, part = build(kind), build(kind, shard=(1, 2))
    np.testing.assert_array_equal(part.labels(2, 9), whole.labels(2, 9))
    np.testing.assert_array_equal(part.image_numbers(2, 9), whole.image_numbers(2, 9))
    chunks = [chunk.labels for chunk in part.chunks(2, 9, 3)]
    np.testing.assert_array_equal(np.concatenate(chunks), whole.labels(2, 9))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_normalized_images_are_those_of_tf_data_under_jit_and_vmap(augmentation):
    expected, labels = batches(build(TfDataPipeline, augmentation=augmentation))
    pipeline = build(DevicePipeline, augmentation=augmentation)
    (chunk,) = pipeline.chunks(0, 7, 7)
    over_steps = jax.vmap(pipeline.read, in_axes=(None, 0))
    for images, read_labels in (
        batches(pipeline),
        batches(pipeline, read=jax.jit(pipeline.read)),
        over_steps(pipeline.resident, chunk.payload),
        jax.jit(over_steps)(pipeline.resident, chunk.payload),
    ):
        assert (images.dtype, read_labels.dtype) == (np.float32, np.int32)
        np.testing.assert_allclose(images, expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(read_labels, labels)


def test_the_host_knows_the_labels_that_the_device_reads():
    pipeline = build(DevicePipeline)
    chunks = list(pipeline.chunks(0, 7, 3))
    assert [chunk.labels.shape for chunk in chunks] == [(3, 8), (3, 8), (1, 8)]
    assert {chunk.labels.dtype for chunk in chunks} == {np.dtype(np.int32)}
    _, labels = batches(pipeline)
    np.testing.assert_array_equal(np.concatenate([chunk.labels for chunk in chunks]), labels)


def test_seeds_share_one_copy_of_the_images():
    first = build(DevicePipeline)
    second = first.with_stream(draw_stream(seed=1))
    assert second.resident is first.resident
    for ours, alone in zip(batches(second), batches(build(DevicePipeline, seed=1)), strict=True):
        np.testing.assert_array_equal(ours, alone)
    assert (batches(first)[0] != batches(second)[0]).any()


def test_a_stream_of_other_images_has_no_place_on_the_device():
    with pytest.raises(ValueError, match="must draw from the images on the device"):
        build(DevicePipeline).with_stream(draw_stream(indices=INDICES[::-1]))


@pytest.mark.parametrize(
    ("augmentation", "named"),
    [
        (ImageAugmentation(policy="autoaugment"), "policy autoaugment"),
        (ImageAugmentation("resized_crop_flip"), "augmentation resized_crop_flip"),
        (ImageAugmentation(color_jitter=0.4), "color jitter 0.4"),
    ],
)
def test_some_augmentations_need_the_host(augmentation, named):
    strong = draw_stream(augmentation=augmentation)
    for made in (
        lambda: DevicePipeline(IMAGES, strong, **STATISTICS),
        lambda: build(DevicePipeline).with_stream(strong),
    ):
        with pytest.raises(UsageError) as caught:
            made()
        assert (
            str(caught.value) == f"pipeline must be tf for {named}, got device: give --pipeline tf"
        )


def test_late_steps_of_a_long_run_start_at_once():
    late = 10**12
    expected = batches(build(TfDataPipeline), late, late + 2)
    for ours, theirs in zip(batches(build(DevicePipeline), late, late + 2), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    assert list(build(DevicePipeline).chunks(4, 4, 2)) == []


def test_bad_options_are_refused():
    with pytest.raises(UsageError, match="divisible by the number of data shards, 3"):
        build(DevicePipeline, shard=(0, 3))


def test_sets_in_memory_need_no_tensorflow():
    code = """
        import sys
        import jax
        import numpy as np
        sys.modules["tensorflow"] = None  # importing it fails
        from jaxlt.data import ImageAugmentation, DeviceEvaluation, DevicePipeline, DrawStream
        from jaxlt.data import InstanceBalancedSampler, load_source

        source = load_source("digits")
        statistics = dict(mean=source.mean, std=source.std)
        sampler, crops = InstanceBalancedSampler(99, 0), ImageAugmentation("crop")
        stream = DrawStream(np.arange(99), sampler, 8, 0, crops)
        pipeline = DevicePipeline(source.train, stream, **statistics)
        (chunk,) = pipeline.chunks(0, 1, 1)
        step = jax.tree.map(lambda x: x[0], chunk.payload)
        images, _ = pipeline.read(pipeline.resident, step)
        assert images.shape == (8, 8, 8, 1)
        evaluation = DeviceEvaluation(source.test, batch_size=500, **statistics)
        assert len(list(evaluation.batches())) == 2
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
