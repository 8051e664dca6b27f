"""Random words that depend on a seed, the name of their use and a counter, and on nothing else."""

import hashlib

import numpy as np

_MASK = 2**64 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def stream_key(seed: int, stream: str) -> int:
    """Returns the 64-bit key of one named use of a seed, so that two uses share no draws."""
    digest = hashlib.blake2b(f"{stream}/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def random_words(key: int, counters: np.ndarray) -> np.ndarray:
    """Computes the outputs number `counters` of SplitMix64 started at state `key`.

    Each element depends on its own counter alone, so a batch may be cut among processes
    anywhere, and a stream may be entered anywhere.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 array of any shape, counting from 0.

    Returns:
        uint64 array of the same shape, uniform over all 64-bit words.

    References:
        Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """

    def xor_shifted(z: np.ndarray, bits: int) -> np.ndarray:
        return z ^ (z >> np.uint64(bits))

    z = counters.astype(np.uint64) * np.uint64(_GOLDEN_GAMMA)
    z = z + np.uint64((key + _GOLDEN_GAMMA) & _MASK)
    z = xor_shifted(z, 30) * np.uint64(0xBF58476D1CE4E5B9)
    z = xor_shifted(z, 27) * np.uint64(0x94D049BB133111EB)
    return xor_shifted(z, 31)


def random_integers(key: int, counters: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Draws integers uniform over [0, bound), one for each counter.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 array of any shape, counting from 0.
        bound: one for all or an array of one for each, at most 2**32, which keeps the bias of
            the remainder below 2**-32.

    Returns:
        int64 array of the shape of `counters`.
    """
    return (random_words(key, counters) % np.asarray(bound, np.uint64)).astype(np.int64)


def random_uniforms(key: int, counters: np.ndarray) -> np.ndarray:
    """Draws multiples of 2**-53 uniform over [0, 1), one for each counter.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 array of any shape, counting from 0.

    Returns:
        float64 array of the shape of `counters`.
    """
    return (random_words(key, counters) >> np.uint64(11)) * 2.0**-53
