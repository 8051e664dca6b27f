"""Random words that depend on a seed, the name of their use and a counter, and on nothing else."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from jaxlt.data.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

_MASK = 2**64 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def stream_key(seed: int, stream: str) -> int:
    """Returns the 64-bit key of one named use of a seed, so that two uses share no draws."""
    digest = hashlib.blake2b(f"{stream}/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def random_words(key: int, counters: tf.Tensor) -> tf.Tensor:
    """Computes the outputs number `counters` of SplitMix64 started at state `key`.

    TensorFlow's stateless generators take one seed for a whole tensor, which ties an example's
    draw to its place in the batch. Here each element depends on its own counter alone, so a
    batch may be cut among processes anywhere.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 tensor of any shape, counting from 0.

    Returns:
        uint64 tensor of the same shape, uniform over all 64-bit words.

    References:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    tf = import_tensorflow()

    def word(value: int) -> tf.Tensor:
        return tf.constant(value & _MASK, tf.uint64)

    def xor_shifted(z: tf.Tensor, bits: int) -> tf.Tensor:
        return tf.bitwise.bitwise_xor(z, tf.bitwise.right_shift(z, word(bits)))

    z = tf.cast(counters, tf.uint64) * word(_GOLDEN_GAMMA) + word(key + _GOLDEN_GAMMA)
    z = xor_shifted(z, 30) * word(0xBF58476D1CE4E5B9)
    z = xor_shifted(z, 27) * word(0x94D049BB133111EB)
    return xor_shifted(z, 31)


def random_integers(key: int, counters: tf.Tensor, bound: int) -> tf.Tensor:
    """Draws integers uniform over [0, bound), one for each counter.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 tensor of any shape, counting from 0.
        bound: at most 2**32, which keeps the bias of the remainder below 2**-32.

    Returns:
        int64 tensor of the shape of `counters`.
    """
    tf = import_tensorflow()
    return tf.cast(random_words(key, counters) % tf.constant(bound, tf.uint64), tf.int64)
