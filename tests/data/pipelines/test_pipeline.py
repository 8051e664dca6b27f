import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.data.augment.pillow_operations import apply_operations
from jaxlt.data.pipelines.draws import DrawStream, ImageAugmentation
from jaxlt.data.pipelines.tf_pipeline import TfDataPipeline, evaluation_batches
from jaxlt.data.sampling.samplers import InstanceBalancedSampler
from jaxlt.data.sources.array_images import ArrayImages
from jaxlt.errors import UsageError

RNG = np.random.default_rng(0)
IMAGES = ArrayImages(RNG.integers(0, 256, (50, 6, 6, 3), np.uint8), RNG.integers(0, 5, 50))
INDICES = RNG.permutation(50)[:23]
MEAN, STD = (0.5, 0.25, 0.75), (0.25, 0.5, 0.2)
PIXELS = IMAGES.load(np.arange(50))
NORMALIZED = (PIXELS / 255 - MEAN) / STD


CROP_FLIP = ImageAugmentation("crop_flip")
STRONG = ImageAugmentation("crop_flip", "autoaugment", cutout=3)


def pipeline(*, images=IMAGES, seed=0, batch_size=8, augmentation=CROP_FLIP, shard=(0, 1)):
    sampler = InstanceBalancedSampler(len(INDICES), seed)
    stream = DrawStream(INDICES, sampler, batch_size, seed, augmentation, shard)
    return TfDataPipeline(images, stream, mean=MEAN, std=STD)


def batches(start=0, stop=6, *, size=1, **options):
    """Returns images and labels of every step, as a compiled program would see them."""
    made = pipeline(**options)
    return [
        made.read(made.resident, type(chunk.payload)(*(x[i] for x in chunk.payload)))
        for chunk in made.chunks(start, stop, size)
        for i in range(len(chunk.labels))
    ]


def joined(stream):
    return tuple(np.concatenate(column) for column in zip(*stream, strict=True))


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_plain_batches_are_the_normalized_images_the_sampler_names():
    images, labels = joined(batches(augmentation=ImageAugmentation()))
    chosen = INDICES[InstanceBalancedSampler(len(INDICES), 0)(np.arange(48))]
    assert images.dtype == np.float32
    assert labels.dtype == np.int32
    np.testing.assert_allclose(images, NORMALIZED[chosen], atol=2e-6)
    np.testing.assert_array_equal(labels, IMAGES.labels[chosen])


def test_an_epoch_visits_the_split_once_across_batch_borders():
    images, _ = joined(batches(0, 23, augmentation=ImageAugmentation()))
    for epoch in images.reshape(8, 23, -1):
        rows = sorted(map(tuple, epoch.round(4).tolist()))
        split = sorted(
            map(tuple, NORMALIZED[INDICES].reshape(23, -1).astype("f4").round(4).tolist())
        )
        np.testing.assert_allclose(rows, split, atol=1e-3)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 5), st.sampled_from([ImageAugmentation(), ImageAugmentation("crop"), STRONG]))
def test_starting_at_a_step_equals_reaching_it(start, augmentation):
    reached = batches(augmentation=augmentation)[start:]
    assert_same(joined(batches(start, augmentation=augmentation)), joined(reached))


@pytest.mark.parametrize(("size", "steps"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (9, [7])])
def test_chunks_are_the_same_steps_stacked(size, steps):
    chunks = list(pipeline().chunks(2, 9, size))
    assert [chunk.labels.shape for chunk in chunks] == [(count, 8) for count in steps]
    for chunk in chunks:
        np.testing.assert_array_equal(chunk.labels, chunk.payload.labels)
    assert_same(joined(batches(2, 9, size=size)), joined(batches(0, 9)[2:]))


def test_steps_drawn_together_continue_those_before():
    # 40 steps of 100 examples are drawn in several goes.
    one, other = (joined(batches(0, 40, batch_size=100, size=size)) for size in (1, 40))
    assert_same(one, other)
    late = joined(batches(30, 40, batch_size=100))
    assert_same(late, [column[30 * 100 :] for column in one])


def test_late_steps_of_a_long_run_start_at_once():
    late = batches(10**12, 10**12 + 1)
    assert late[0][0].shape == (8, 6, 6, 3)
    assert batches(4, 4) == []


@pytest.mark.parametrize("num_shards", [2, 4, 8])
def test_shards_put_together_are_the_global_batch(num_shards):
    shards = [batches(shard=(part, num_shards)) for part in range(num_shards)]
    for step, whole in enumerate(batches()):
        assert_same(joined(shard[step] for shard in shards), whole)


def test_the_seed_decides_the_augmentation():
    plain, cropped, flipped = (
        joined(batches(augmentation=ImageAugmentation(shift)))[0]
        for shift in ("none", "crop", "crop_flip")
    )
    assert_same(joined(batches()), joined(batches()))
    changed = (cropped != plain).any(axis=(1, 2, 3))
    assert changed.mean() > 0.8
    mirrored = (flipped == cropped[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (flipped == cropped).all(axis=(1, 2, 3))
    assert (mirrored | kept).all()
    assert 10 < mirrored.sum() < 38
    assert (joined(batches(seed=1))[0] != flipped).any()


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment"])
def test_a_policy_comes_after_the_shift_and_before_cutout(policy):
    augmentation = ImageAugmentation("crop_flip", policy, cutout=3)
    shifted = joined(batches())[0].reshape(48, 6, 6, 3)
    pixels = np.rint((shifted * STD + MEAN) * 255).astype(np.uint8)
    stream = DrawStream(INDICES, InstanceBalancedSampler(len(INDICES), 0), 8, 0, augmentation)
    draws = stream.draw(0, 6)
    operations, amounts = draws.operations, draws.amounts
    assert operations is not None
    assert amounts is not None
    expected = apply_operations(pixels, operations.reshape(48, 2), amounts.reshape(48, 2))
    assert (expected != pixels).any()
    images = joined(batches(augmentation=augmentation))[0]
    found = np.rint((images * STD + MEAN) * 255).astype(np.uint8)
    black = (found == 0).all(axis=-1)
    np.testing.assert_array_equal(found[~black], expected[~black])
    assert (black.sum(axis=(1, 2)) >= 4).all()


def test_images_of_one_channel_have_policies_and_those_of_two_have_none():
    def images(channels):
        pixels = RNG.integers(0, 256, (50, 6, 6, channels), np.uint8)
        return ArrayImages(pixels, IMAGES.labels)

    stream = DrawStream(INDICES, InstanceBalancedSampler(len(INDICES), 0), 8, 0, STRONG)
    gray = TfDataPipeline(images(1), stream, mean=(0.5,), std=(0.5,))
    assert next(gray.chunks(0, 1, 1)).payload.images.shape == (1, 8, 6, 6, 1)
    for channels in (2, 4):
        with pytest.raises(UsageError) as caught:
            pipeline(images=images(channels), augmentation=STRONG)
        assert str(caught.value) == (
            f"images must have 1 or 3 channels for policy autoaugment, got {channels}"
        )
        assert pipeline(images=images(channels))


def test_bad_options_are_refused_before_the_first_batch():
    with pytest.raises(UsageError, match=r"batch_size must be positive .*, got 0"):
        pipeline(batch_size=0)


@pytest.mark.parametrize("batch_size", [1, 7, 25, 50, 64])
@pytest.mark.parametrize("indices", [None, INDICES])
def test_evaluation_covers_every_image_once_in_order(batch_size, indices):
    order = np.arange(50) if indices is None else indices
    stream = list(
        evaluation_batches(IMAGES, batch_size=batch_size, mean=MEAN, std=STD, indices=indices)
    )
    assert len(stream) == -(-len(order) // batch_size)
    assert {batch.images.shape for batch in stream} == {(batch_size, 6, 6, 3)}
    images, labels = joined(stream)
    np.testing.assert_allclose(images[: len(order)], NORMALIZED[order], atol=2e-6)
    np.testing.assert_array_equal(labels[: len(order)], IMAGES.labels[order])
    assert (labels[len(order) :] == -1).all()
    assert (images[len(order) :] == 0).all()


@pytest.mark.parametrize("num_shards", [2, 4])
def test_evaluation_in_shards_put_together_is_the_whole(num_shards):
    """Of 50 images the last shards of the last batch have none."""
    options = {"batch_size": 16, "mean": MEAN, "std": STD}
    shards = [
        list(evaluation_batches(IMAGES, **options, shard=(part, num_shards)))
        for part in range(num_shards)
    ]
    whole = list(evaluation_batches(IMAGES, **options))
    assert [len(shard) for shard in shards] == [len(whole)] * num_shards
    for step, batch in enumerate(whole):
        assert_same(joined(shard[step] for shard in shards), batch)


def test_evaluation_refuses_an_empty_batch():
    with pytest.raises(UsageError, match=r"batch_size must be positive .* got 0"):
        evaluation_batches(IMAGES, batch_size=0, mean=MEAN, std=STD)


def test_a_stream_may_be_left_early():
    endless = pipeline().chunks(0, 2**40, 1)
    labels = np.concatenate([chunk.labels[0] for chunk in itertools.islice(endless, 6)])
    np.testing.assert_array_equal(labels, joined(batches())[1])
