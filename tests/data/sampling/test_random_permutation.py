import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.data.sampling.permutations import random_permutation
from jaxlt.devices.backends import import_tensorflow

RNG = np.random.default_rng(0)
KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=3, max_size=3)


def key_of(words):
    return np.array(words, np.uint64)


def tensorflows(size, key, indices):
    """Where TensorFlow's op puts `indices`."""
    tf = import_tensorflow()
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.constant(indices, tf.int64),
        seed=np.tile(key, (len(indices), 1)),
        max_index=tf.constant(size - 1, tf.int64),
        rounds=8,
    ).numpy()


# Sizes around the powers of two, where the block grows, with published ones.
SIZES = [1, 2, 3, 10, 10847, 1281167]
SIZES += [2**k + d for k in (8, 13, 14, 15, 16, 17, 18, 19) for d in (-1, 0, 1)]


@pytest.mark.parametrize("size", sorted(set(SIZES) - {2**16 + 1, 2**18 + 1}))
def test_permutations_are_those_of_tensorflows_op(size):
    for key in RNG.integers(0, 2**64, (2, 3), np.uint64):
        indices = np.append(RNG.integers(0, size, 300), [0, size - 1])
        expected = tensorflows(size, key, indices)
        np.testing.assert_array_equal(random_permutation(size, key)[indices], expected)


@pytest.mark.parametrize("size", [2**16 + 1, 2**18 + 1])
def test_sizes_for_which_tensorflows_op_repeats_an_index_are_permuted_too(size):
    key = RNG.integers(0, 2**64, 3, np.uint64)
    assert len(set(tensorflows(size, key, np.arange(size)).tolist())) < size
    np.testing.assert_array_equal(np.sort(random_permutation(size, key)), np.arange(size))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 2**17), KEYS)
def test_every_number_comes_once(size, words):
    permutation = random_permutation(size, key_of(words))
    assert permutation.dtype == np.int64
    np.testing.assert_array_equal(np.sort(permutation), np.arange(size))
