from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.data.sampling.class_samplers import ClassAwareSampler, ClassProbability
from jaxlt.data.sampling.samplers import InstanceBalancedSampler, SamplerName, create_sampler
from jaxlt.errors import UsageError

# 30, 7, 2, 0 and 1 images of classes 0 to 4; those of class 2 are 1 and 9.
LABELS = np.full(40, 0)
LABELS[[0, 5, 11, 17, 21, 33, 38]] = 1
LABELS[[1, 9]] = 2
LABELS[26] = 4


def places(sampler, start, stop):
    return sampler(np.arange(start, stop))


def named(name, seed=0):
    return create_sampler(name, LABELS, seed, num_classes=5, num_epochs=6, consecutive=2)


def assert_distributed(counts, probabilities):
    assert not counts[probabilities == 0].any()
    expected = (counts.sum() * probabilities)[probabilities > 0]
    degrees = len(expected) - 1
    chi_squared = ((counts[probabilities > 0] - expected) ** 2 / expected).sum()
    assert chi_squared / degrees < 1 + 5 * np.sqrt(2 / degrees)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.integers(-(2**70), 2**70), st.integers(0, 2**35))
def test_an_epoch_visits_every_image_once(num_examples, seed, epoch):
    sampler = InstanceBalancedSampler(num_examples, seed)
    visited = places(sampler, epoch * num_examples, (epoch + 1) * num_examples)
    assert sorted(visited.tolist()) == list(range(num_examples))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 100), st.integers(1, 50), st.integers(5, 40))
def test_places_do_not_depend_on_how_positions_are_batched(start, size, num_examples):
    sampler = InstanceBalancedSampler(num_examples, 3)
    whole = places(sampler, 0, 150)
    np.testing.assert_array_equal(places(sampler, start, start + size), whole[start : start + size])


def test_places_have_the_shape_of_their_positions():
    sampler = InstanceBalancedSampler(40, 3)
    positions = np.arange(30, 150)
    grid = sampler(positions.reshape(4, 5, 6))
    np.testing.assert_array_equal(grid.ravel(), sampler(positions))
    assert grid.dtype == np.int64


@pytest.mark.parametrize(
    ("num_examples", "expected"),
    [
        (10, [0, 8, 4, 1, 7, 7, 7]),
        (10847, [6596, 3088, 2613, 10125, 9119, 8213, 10695]),
        (1281167, [382757, 955356, 441194, 936542, 932137, 530746, 1248515]),
    ],
)
def test_every_run_ever_started_keeps_its_order(num_examples, expected):
    n = num_examples
    positions = np.array([0, 1, 2, n - 1, n, 5 * n + 1, 10**12])
    assert InstanceBalancedSampler(n, 3)(positions).tolist() == expected


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(places(InstanceBalancedSampler(100, seed), epoch * 100, epoch * 100 + 100))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


def test_all_orders_are_equally_likely():
    num_examples, epochs = 10, 1000
    sampler = InstanceBalancedSampler(num_examples, 0)
    orders = places(sampler, 0, epochs * num_examples).reshape(epochs, num_examples)
    first, second = orders[:, 0], orders[:, 1]
    pairs = np.bincount(first * num_examples + second, minlength=num_examples**2)
    possible = pairs.reshape(num_examples, num_examples)[~np.eye(num_examples, dtype=bool)]
    expected = epochs / len(possible)
    degrees = len(possible) - 1
    # Seeds 0, 1, 2, ... given to the permutation as they are fail this by a factor of twenty.
    chi_squared = ((possible - expected) ** 2 / expected).sum()
    assert chi_squared / degrees < 1 + 5 * np.sqrt(2 / degrees)


def test_no_image_is_a_programming_error():
    with pytest.raises(ValueError, match="num_examples must be at least 1, got 0"):
        InstanceBalancedSampler(0, 0)


def test_a_class_aware_cycle_has_every_class_once_with_consecutive_images():
    for consecutive in (1, 3):
        sampler = ClassAwareSampler(LABELS, 0, consecutive)
        drawn = LABELS[places(sampler, 0, 40 * 4 * consecutive)].reshape(40, 4, consecutive)
        assert (drawn == drawn[:, :, :1]).all()
        for cycle in drawn[:, :, 0]:
            assert sorted(cycle) == [0, 1, 2, 4]
        assert len({tuple(cycle) for cycle in drawn[:, :, 0].tolist()}) > 10


@pytest.mark.parametrize("consecutive", [1, 3])
def test_each_class_walks_through_shuffled_cycles_of_its_images(consecutive):
    visited = places(ClassAwareSampler(LABELS, 0, consecutive), 0, 4 * 80 * consecutive)
    for label in (0, 1, 2, 4):
        images = np.flatnonzero(np.equal(LABELS, label))
        own = visited[LABELS[visited] == label]
        whole = own[: len(own) // len(images) * len(images)].reshape(-1, len(images))
        assert len(whole) > 1
        for cycle in whole:
            assert sorted(cycle) == images.tolist()
    # Images 1 and 9 of class 2 come in either order.
    pairs = visited[LABELS[visited] == 2].reshape(-1, 2)
    assert 0.25 < (pairs[:, 0] == 1).mean() < 0.75


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("class_balanced", [1 / 4, 1 / 4, 1 / 4, 0, 1 / 4]),
        ("square_root", np.sqrt([30, 7, 2, 0, 1]) / np.sqrt([30, 7, 2, 0, 1]).sum()),
        # 30 (1 - 0.9) / (1 - 0.9**30) and so on.
        ("effective_number", np.array([3.13277, 1.34176, 1.05263, 0, 1]) / 6.52716),
    ],
)
def test_classes_are_drawn_with_their_probabilities(distribution, expected):
    sampler = create_sampler(distribution, LABELS, 0, num_classes=5, num_epochs=3, beta=0.9)
    frequencies = np.bincount(LABELS[places(sampler, 0, 40_000)], minlength=5)
    assert_distributed(frequencies, np.asarray(expected))


def test_progressive_classes_change_from_epoch_to_epoch():
    labels = np.repeat([0, 1], [9000, 1000])
    sampler = create_sampler("progressive", labels, 0, num_classes=2, num_epochs=5)
    drawn = labels[places(sampler, 0, 60_000)].reshape(6, 10_000)
    for epoch, tail in zip(drawn, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5], strict=True):
        assert abs(epoch.mean() - tail) < 5 * np.sqrt(tail * (1 - tail) / 10_000)


def test_images_of_a_class_are_equally_likely_and_classes_independent():
    drawn = places(
        create_sampler("class_balanced", LABELS, 0, num_classes=5, num_epochs=1), 0, 40_000
    )
    own = drawn[LABELS[drawn] == 1]
    assert_distributed(np.bincount(own, minlength=40)[LABELS == 1], np.full(7, 1 / 7))
    classes = np.searchsorted([0, 1, 2, 4], LABELS[drawn])
    pairs = np.bincount(classes[:-1] * 4 + classes[1:], minlength=16)
    assert_distributed(pairs, np.full(16, 1 / 16))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(get_args(SamplerName)), st.integers(0, 300), st.integers(1, 50))
def test_every_sampler_is_a_function_of_the_position(name, start, size):
    whole = named(name)(np.arange(350))
    positions = np.arange(start, start + size)
    fresh = named(name)
    np.testing.assert_array_equal(fresh(positions[::-1])[::-1], whole[start : start + size])
    np.testing.assert_array_equal(fresh(positions.reshape(1, -1, 1)).ravel(), fresh(positions))
    assert fresh(positions).dtype == np.int64
    assert fresh(np.empty((0, 8), np.int64)).shape == (0, 8)


@pytest.mark.parametrize("name", get_args(SamplerName))
def test_seeds_have_samples_of_their_own(name):
    assert (named(name)(np.arange(200)) != named(name, seed=1)(np.arange(200))).mean() > 0.3


def test_every_run_ever_started_keeps_its_samples():
    positions = np.array([0, 1, 2, 39, 40, 10**12])
    expected = {
        "instance": [13, 15, 24, 38, 0, 29],
        "class_balanced": [26, 26, 1, 1, 5, 9],
        "progressive": [33, 5, 25, 35, 36, 9],
        "class_aware": [9, 1, 11, 9, 30, 26],
    }
    assert {name: named(name)(positions).tolist() for name in expected} == expected


def test_the_instance_sampler_is_that_of_plain_training():
    positions = np.arange(200)
    expected = InstanceBalancedSampler(len(LABELS), 4)(positions)
    np.testing.assert_array_equal(named("instance", seed=4)(positions), expected)


def test_thousands_of_classes_take_their_turns():
    # As many classes as iNaturalist 2018 has.
    labels = np.repeat(np.arange(8142), 20)
    drawn = labels[ClassAwareSampler(labels, 0, 4)(np.arange(8142 * 4))]
    np.testing.assert_array_equal(np.bincount(drawn), np.full(8142, 4))


def test_a_class_without_an_image_has_no_probability():
    sampler = ClassProbability(LABELS, 0, lambda _: np.full(5, 0.2))
    with pytest.raises(ValueError, match="must be 0 for classes without an image"):
        sampler(np.arange(3))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("random", {}, "sampler must be instance or class_balanced or .*_aware, got 'random'"),
        ("class_aware", {"consecutive": 0}, "consecutive must be at least 1, got 0"),
        ("effective_number", {"beta": 1.0}, r"beta must lie in \[0, 1\), got 1.0"),
        ("effective_number", {"beta": -0.1}, r"beta must lie in \[0, 1\), got -0.1"),
    ],
)
def test_bad_options_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        create_sampler(name, LABELS, 0, num_classes=5, num_epochs=1, **options)
