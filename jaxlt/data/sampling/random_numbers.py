"""Random numbers that depend on a seed, the name of their use and a counter alone."""

import hashlib

import numpy as np

_MASK = 2**64 - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_ROUNDS = 8
_MIN_BLOCK_BITS = 16
# The constants of SIMON's key schedule: c is all ones but the last two bits, z a fixed bit
# sequence, read from its lowest bit.
_C = 0xFFFFFFFC
_Z = 0x7369F885192C0EF5


def stream_key(seed: int, stream: str) -> int:
    """Returns the 64-bit key of one named use of a seed, so that two uses share no draws."""
    digest = hashlib.blake2b(f"{stream}/{seed}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def random_words(key: int, counters: np.ndarray) -> np.ndarray:
    """Returns the outputs number `counters` of SplitMix64 started at state `key`, uint64.

    Each element depends on its own counter alone. So processes may share a batch in any way, and
    training may begin anywhere in a stream. (Steele, Lea and Flood, "Fast splittable pseudorandom
    number generators", OOPSLA 2014.)

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 array of any shape, counting from 0.
    """

    def xor_shifted(z: np.ndarray, bits: int) -> np.ndarray:
        return z ^ (z >> np.uint64(bits))

    z = counters.astype(np.uint64) * np.uint64(_GOLDEN_GAMMA)
    z = z + np.uint64((key + _GOLDEN_GAMMA) & _MASK)
    z = xor_shifted(z, 30) * np.uint64(0xBF58476D1CE4E5B9)
    z = xor_shifted(z, 27) * np.uint64(0x94D049BB133111EB)
    return xor_shifted(z, 31)


def random_integers(key: int, counters: np.ndarray, bound: int | np.ndarray) -> np.ndarray:
    """Draws an int64 uniform over [0, bound) for each counter.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 array of any shape, counting from 0.
        bound: one for all, or an array of one for each. At most 2**32, so that the bias of the
            remainder stays below 2**-32.
    """
    return (random_words(key, counters) % np.asarray(bound, np.uint64)).astype(np.int64)


def random_uniforms(key: int, counters: np.ndarray) -> np.ndarray:
    """Draws a multiple of 2**-53 uniform over [0, 1) for each counter.

    Args:
        key: 64-bit state, see `stream_key`.
        counters: int64 array of any shape, counting from 0.
    """
    return (random_words(key, counters) >> np.uint64(11)) * 2.0**-53


def random_permutation(size: int, key: np.ndarray) -> np.ndarray:
    """Returns the permutation of range(size) that a key selects, an int64 array (size,).

    The block cipher SIMON with 8 rounds permutes all numbers of an even number of bits, at least
    16. Applying it to a number below `size` until the next such number comes (cycle walking)
    permutes those. TensorFlow's op RandomIndexShuffle gives the same permutations, except for
    sizes 4**k + 1 from 65537 on, where it repeats an index.

    Args:
        size: at least 1. Time and memory grow with at most 4 * size, or 65536.
        key: integers (3,), of which the low 32 bits count. Related keys, such as 0, 1, 2, ...,
            give related permutations.

    References:
        Beaulieu et al., "The SIMON and SPECK families of lightweight block ciphers", 2013.
        Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002.
    """
    half_bits = max((size - 1).bit_length() + 1, _MIN_BLOCK_BITS) // 2
    permutation = _encrypt_all_blocks(half_bits, _round_keys(key, half_bits)).astype(np.int64)
    # Walking all the way to `size` takes 2**16 / size steps and more, each after the other. Half
    # way, and from there half way again, a walk takes two steps on average.
    while len(permutation) > size:
        permutation = _first_returns(permutation, max(size, len(permutation) // 2))
    return permutation


def _first_returns(permutation: np.ndarray, size: int) -> np.ndarray:
    """Maps each number below `size` to the next such number in its cycle."""
    reached = permutation[:size].copy()
    outside = np.flatnonzero(reached >= size)
    while outside.size:
        reached[outside] = permutation[reached[outside]]
        outside = outside[reached[outside] >= size]
    return reached


def _round_keys(key: np.ndarray, half_bits: int) -> list[int]:
    mask = (1 << half_bits) - 1

    def rotated_right(word: int, bits: int) -> int:
        return (word >> bits | word << (half_bits - bits)) & mask

    keys = [int(word) & mask for word in key]
    for i in range(_ROUNDS - len(keys)):
        rotated = rotated_right(keys[-1], 3) ^ rotated_right(keys[-1], 4)
        keys.append(keys[-3] ^ rotated ^ (_C & mask) ^ (_Z >> i & 1))
    return keys


def _encrypt_all_blocks(half_bits: int, round_keys: list[int]) -> np.ndarray:
    dtype = np.min_scalar_type((1 << 2 * half_bits) - 1)
    mask = dtype.type((1 << half_bits) - 1)
    blocks = np.arange(1 << 2 * half_bits, dtype=dtype)
    left, right = blocks >> half_bits, blocks & mask
    for key in round_keys:
        # A word beside its own copy makes each rotation a shift; stray high bits go at the end.
        twice = right << half_bits | right
        mixed = twice >> (half_bits - 1) & twice >> (half_bits - 8) ^ twice >> (half_bits - 2)
        left, right = right, (left ^ mixed ^ dtype.type(key)) & mask
    return left << half_bits | right
