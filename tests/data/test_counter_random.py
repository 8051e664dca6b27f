import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.counter_random import random_integers, random_words, stream_key


def words(key, counters):
    return random_words(key, np.array(counters))


def test_words_are_the_published_splitmix64_sequence():
    # The check values for seed 1234567 that go round with Vigna's reference code.
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert words(1234567, range(5)).tolist() == expected


def test_every_run_ever_started_keeps_its_draws():
    key = stream_key(7, "crop top")
    counters = np.array([0, 1, 2, 10**12, 2**62])
    assert key == 828566796873577591
    assert random_words(key, counters).tolist() == [
        12120384958202333509,
        13844241552925496065,
        13914902638642769938,
        15344974119460682137,
        8094845202777827853,
    ]
    assert random_integers(key, counters, 9).tolist() == [7, 4, 1, 4, 6]


@given(st.integers(0, 2**40), st.integers(0, 2**64 - 1))
def test_a_word_depends_on_its_own_counter_alone(counter, key):
    assert words(key, [counter])[0] == words(key, [[counter + 7], [counter], [3]])[1, 0]


@pytest.mark.parametrize("bound", [2, 9])
def test_integers_are_uniform_and_neighbours_independent(bound):
    draws = random_integers(stream_key(0, "test"), np.arange(20000), bound)
    pairs = np.bincount(draws[:-1] * bound + draws[1:], minlength=bound**2)
    expected = pairs.sum() / bound**2
    assert draws.min() == 0
    assert draws.max() == bound - 1
    # Mean of a chi-squared variable over its degrees of freedom is 1, its spread sqrt(2 / df).
    degrees = bound**2 - 1
    assert ((pairs - expected) ** 2 / expected).sum() / degrees < 1 + 5 * np.sqrt(2 / degrees)


def test_streams_and_seeds_have_keys_of_their_own():
    keys = {stream_key(seed, stream) for seed in (0, 1, -1, 2**63) for stream in ("a", "b")}
    assert len(keys) == 8
