import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.augment.cutout import cutout_start
from jaxlt.data.pipelines.draws import CROP_PAD, DrawStream, ImageAugmentation
from jaxlt.data.sampling.samplers import InstanceBalancedSampler
from jaxlt.errors import UsageError

INDICES = np.random.default_rng(0).permutation(90)[:70]


STRONG = ImageAugmentation("crop_flip", policy="autoaugment", cutout=16)
POLICY = ("operations", "amounts")
SHAPES = {
    **dict.fromkeys(POLICY, (2,)),
    "crop_tries": (10, 2),
    "crop_place": (2,),
}
DTYPES = {
    "flip": bool,
    "amounts": np.float32,
    **dict.fromkeys(("crop_tries", "crop_place"), np.float64),
}


EVERYTHING = dataclasses.replace(STRONG, shift="resized_crop_flip", color_jitter=0.4)


def used(draws):
    return [values for values in draws if values is not None]


def stream(*, seed=0, batch_size=8, augmentation=STRONG, shard=(0, 1)) -> Any:
    sampler = InstanceBalancedSampler(len(INDICES), seed)
    return DrawStream(INDICES, sampler, batch_size, seed, augmentation, shard)


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("augmentation", "used"),
    [
        (ImageAugmentation(), set()),
        (ImageAugmentation("crop"), {"top", "left"}),
        (ImageAugmentation("crop_flip"), {"top", "left", "flip"}),
        (ImageAugmentation(policy="autoaugment"), {"operations", "amounts"}),
        (ImageAugmentation(policy="randaugment"), {"operations", "amounts"}),
        (ImageAugmentation(cutout=3), {"cutout_row", "cutout_column"}),
        (STRONG, {"top", "left", "flip", *POLICY, "cutout_row", "cutout_column"}),
        (ImageAugmentation("resized_crop_flip"), {"crop_tries", "crop_place", "flip"}),
    ],
)
def test_an_augmentation_draws_what_it_uses_alone(augmentation, used):
    draws = stream(augmentation=augmentation).draw(3, 9)._asdict()
    assert {name for name, values in draws.items() if values is not None} == used | {"indices"}
    crops = stream(augmentation=ImageAugmentation("resized_crop_flip")).draw(3, 9)
    full = stream(augmentation=STRONG).draw(3, 9)._asdict() | {
        "crop_tries": crops.crop_tries,
        "crop_place": crops.crop_place,
    }
    for name in used | {"indices"}:
        per_example = SHAPES.get(name, ())
        assert draws[name].shape == (6, 8, *per_example)
        assert draws[name].dtype == DTYPES.get(name, np.int32)
        if augmentation.policy != "randaugment":
            np.testing.assert_array_equal(draws[name], full[name])


def test_jitter_comes_before_the_policy():
    both = ImageAugmentation(policy="autoaugment", color_jitter=0.4)
    jittered, policy, draws = (
        stream(augmentation=chosen).draw(3, 9)
        for chosen in (
            ImageAugmentation(color_jitter=0.4),
            ImageAugmentation(policy="autoaugment"),
            both,
        )
    )
    for name in POLICY:
        parts = getattr(jittered, name), getattr(policy, name)
        assert [part.shape for part in parts] == [(6, 8, 3), (6, 8, 2)]
        np.testing.assert_array_equal(getattr(draws, name), np.concatenate(parts, axis=-1))


def test_randaugment_draws_as_many_operations_as_it_is_told():
    augmentation = ImageAugmentation(policy="randaugment", randaugment_ops=5)
    draws = stream(augmentation=augmentation).draw(0, 0)
    assert draws.operations.shape == draws.amounts.shape == (0, 8, 5)


def test_images_are_those_that_the_sampler_names():
    indices = stream(augmentation=ImageAugmentation()).draw(0, 35).indices
    places = InstanceBalancedSampler(70, 0)(np.arange(35 * 8))
    np.testing.assert_array_equal(indices.ravel(), INDICES[places])
    for epoch in indices.reshape(4, 70):
        assert set(epoch) == set(INDICES)


def test_crops_are_uniform_and_half_the_images_flipped():
    draws = stream(batch_size=50).draw(0, 200)
    side = 2 * CROP_PAD + 1
    counts = np.bincount((draws.top * side + draws.left).ravel(), minlength=side**2)
    assert len(counts) == side**2
    expected = 10_000 / side**2
    degrees = side**2 - 1
    assert ((counts - expected) ** 2 / expected).sum() / degrees < 1 + 5 * np.sqrt(2 / degrees)
    assert abs(draws.flip.sum() - 5000) < 5 * np.sqrt(10_000 / 4)


@pytest.mark.parametrize("extent", [28, 32])
def test_cutout_is_centered_at_uniform_pixels(extent):
    draws = stream(batch_size=50).draw(0, 1000)
    # A square of side 1 starts at its center.
    rows = cutout_start(draws.cutout_row, extent, 1).ravel()
    columns = cutout_start(draws.cutout_column, extent, 1).ravel()
    counts = np.bincount(rows * extent + columns, minlength=extent**2)
    assert len(counts) == extent**2
    expected = 50_000 / extent**2
    degrees = extent**2 - 1
    assert ((counts - expected) ** 2 / expected).sum() / degrees < 1 + 5 * np.sqrt(2 / degrees)


@pytest.mark.parametrize(("side", "start"), [(1, 7), (2, 6), (5, 5), (16, -1)])
def test_cutout_surrounds_its_center(side, start):
    # Row 7 of 32.
    assert cutout_start(np.array(7 * 2**11), 32, side) == start


@given(st.integers(0, 10**12), st.integers(1, 5), st.sampled_from([(0, 1), (1, 2), (3, 4)]))
def test_a_step_draws_the_same_wherever_drawing_starts(start, steps, shard):
    sharded = stream(shard=shard)
    whole = stream().draw(start, start + steps)
    first, count = shard[0] * sharded.rows, sharded.rows
    one_by_one = [sharded.draw(step, step + 1) for step in range(start, start + steps)]
    joined = (np.concatenate(column) for column in zip(*map(used, one_by_one), strict=True))
    assert_same(joined, [values[:, first : first + count] for values in used(whole)])


def test_every_run_ever_started_keeps_its_draws():
    draws = stream(seed=5, batch_size=6).draw(2, 3)
    assert draws.top.tolist() == [[2, 7, 4, 7, 3, 5]]
    assert draws.left.tolist() == [[2, 2, 0, 3, 1, 0]]
    assert draws.flip.tolist() == [[False, True, False, True, True, False]]
    assert draws.indices.tolist() == [INDICES[[1, 68, 31, 54, 59, 57]].tolist()]


def test_seeds_have_draws_of_their_own():
    both = (used(stream(seed=seed, augmentation=EVERYTHING).draw(0, 20)) for seed in (0, 1))
    for ours, others in zip(*both, strict=True):
        # Half of AutoAugment's operations are not applied, many have no amount.
        assert (ours != others).mean() > 0.3


@pytest.mark.parametrize("chunk", [1, 7, 5000])
@pytest.mark.parametrize("batch_size", [1, 8, 100_000])
def test_steps_are_drawn_in_whole_chunks(chunk, batch_size):
    together = stream(batch_size=batch_size).steps_at_once(chunk)
    assert together % chunk == 0
    assert together >= chunk
    assert together == chunk or together * batch_size <= 2048


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be positive .*, got 0"),
        (
            {"shard": (0, 3)},
            "batch_size must be .* divisible by the number of data shards, 3, got 8",
        ),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        stream(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"shift": "flip"},
            "shift must be none or crop or crop_flip or resized_crop_flip, got 'flip'",
        ),
        ({"color_jitter": 1.5}, "color_jitter must lie in 0..1, got 1.5"),
        ({"policy": "auto"}, "policy must be none or autoaugment or randaugment, got 'auto'"),
        ({"randaugment_ops": 0}, "randaugment_ops must be at least 1, got 0"),
        ({"randaugment_magnitude": 31}, "randaugment_magnitude must lie in 0..30, got 31"),
        ({"randaugment_magnitude": -1}, "randaugment_magnitude must lie in 0..30, got -1"),
        ({"cutout": -1}, "cutout must lie in 0..32768, got -1"),
        ({"cutout": 10**10}, "cutout must lie in 0..32768, got 10000000000"),
    ],
)
def test_an_augmentation_checks_itself(options, message):
    with pytest.raises(UsageError) as caught:
        ImageAugmentation(**options)
    assert str(caught.value) == message


def test_a_shard_beyond_the_last_is_a_programming_error():
    with pytest.raises(ValueError, match=r"shard must lie in 0\.\.1, got 2"):
        stream(shard=(2, 2))


@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_images_are_those_of_the_draws(shard):
    one = stream(shard=shard)
    np.testing.assert_array_equal(one.images(3, 30), one.draw(3, 30).indices)
