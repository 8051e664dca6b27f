import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.data.samplers import InstanceBalanced


def places(sampler, start, stop):
    return sampler(np.arange(start, stop))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 200), st.integers(-(2**70), 2**70), st.integers(0, 2**35))
def test_an_epoch_visits_every_image_once(num_examples, seed, epoch):
    sampler = InstanceBalanced(num_examples, seed)
    visited = places(sampler, epoch * num_examples, (epoch + 1) * num_examples)
    assert sorted(visited.tolist()) == list(range(num_examples))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 100), st.integers(1, 50), st.integers(5, 40))
def test_places_do_not_depend_on_how_positions_are_batched(start, size, num_examples):
    sampler = InstanceBalanced(num_examples, 3)
    whole = places(sampler, 0, 150)
    np.testing.assert_array_equal(places(sampler, start, start + size), whole[start : start + size])


def test_places_have_the_shape_of_their_positions():
    sampler = InstanceBalanced(40, 3)
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
    assert InstanceBalanced(n, 3)(positions).tolist() == expected


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(places(InstanceBalanced(100, seed), epoch * 100, epoch * 100 + 100))
        for seed in range(3)
        for epoch in range(3)
    ]
    assert len(set(orders)) == 9


def test_all_orders_are_equally_likely():
    num_examples, epochs = 10, 1000
    sampler = InstanceBalanced(num_examples, 0)
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
    with pytest.raises(ValueError, match="num_examples is 0"):
        InstanceBalanced(0, 0)
