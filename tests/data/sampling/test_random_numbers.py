import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlt.data.sampling.random_numbers import (
    random_integers,
    random_uniforms,
    random_words,
    stream_key,
)


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
def test_integers_are_uniform_and_neighbors_independent(bound):
    draws = random_integers(stream_key(0, "test"), np.arange(20000), bound)
    pairs = np.bincount(draws[:-1] * bound + draws[1:], minlength=bound**2)
    expected = pairs.sum() / bound**2
    assert draws.min() == 0
    assert draws.max() == bound - 1
    # Mean of a chi-squared variable over its degrees of freedom is 1, its spread sqrt(2 / df).
    degrees = bound**2 - 1
    assert ((pairs - expected) ** 2 / expected).sum() / degrees < 1 + 5 * np.sqrt(2 / degrees)


def test_each_integer_may_have_a_bound_of_its_own():
    key, counters = stream_key(0, "test"), np.arange(100)
    bounds = counters + 1
    expected = [random_integers(key, counters, i + 1)[i] for i in range(100)]
    assert random_integers(key, counters, bounds).tolist() == expected


def test_uniforms_fill_the_unit_interval_evenly():
    draws = random_uniforms(stream_key(0, "test"), np.arange(20000))
    assert ((draws >= 0) & (draws < 1)).all()
    # The Kolmogorov-Smirnov statistic exceeds 1.95 / sqrt(n) once in a thousand times.
    steps = np.arange(1, 20001) / 20000
    assert np.abs(np.sort(draws) - steps).max() < 1.95 / np.sqrt(20000)


def test_the_largest_word_gives_a_uniform_below_one(monkeypatch):
    words = np.array([0, 2**64 - 1], np.uint64)
    monkeypatch.setattr("jaxlt.data.sampling.random_numbers.random_words", lambda *_: words)
    assert random_uniforms(0, np.arange(2)).tolist() == [0.0, 1 - 2.0**-53]


def test_streams_and_seeds_have_keys_of_their_own():
    keys = {stream_key(seed, stream) for seed in (0, 1, -1, 2**63) for stream in ("a", "b")}
    assert len(keys) == 8
