"""Random numbers that depend on a seed, the name of their use and a counter alone."""

import hashlib

import numpy as np

_MASK = 2**64 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


def stream_key(seed: int, stream: str) -> int:
    """Returns the 64-bit key of one named use of a seed, so that two uses share no draws."""
    digest = hashlib.blake2b(f"{stream}/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def random_words(key: int, counters: np.ndarray) -> np.ndarray:
    """Returns the outputs number `counters`, int64 (...,) from 0, of SplitMix64 from state `key`.

    Each element, uint64, depends on its own counter alone. So processes may share a batch in any
    way, and training may begin anywhere in a stream. (Steele, Lea and Flood, "Fast splittable
    pseudorandom number generators", OOPSLA 2014.)
    """
    z = counters.astype(np.uint64) * np.uint64(_GOLDEN_GAMMA)
    z = z + np.uint64((key + _GOLDEN_GAMMA) & _MASK)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def random_integers(key: int, counters: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Draws an int64 uniform over [0, bound) for each counter, with a bias below 2**-32.

    There is one bound for all counters or one for each, at most 2**32.
    """
    return (random_words(key, counters) % np.asarray(bound, np.uint64)).astype(np.int64)


def random_uniforms(key: int, counters: np.ndarray) -> np.ndarray:
    """Draws a multiple of 2**-53 uniform over [0, 1) for each counter."""
    return (random_words(key, counters) >> np.uint64(11)) * 2.0**-53
