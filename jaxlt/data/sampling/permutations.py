"""Permutations of range(n), each selected by a key, by the block cipher SIMON."""

import numpy as np

_ROUNDS = 8
_MIN_BLOCK_BITS = 16
# The constants of SIMON's key schedule: c is all ones but the last two bits, z a fixed bit
# sequence, read from its lowest bit.
_C = 0xFFFFFFFC
_Z = 0x7369F885192C0EF5


def random_permutation(size: int, key: np.ndarray) -> np.ndarray:
    """Returns the permutation of range(size) that a key selects, an int64 array (size,).

    The block cipher SIMON with 8 rounds permutes all numbers of an even number of bits, at least
    16. Applying it to a number below `size` until the next such number comes (cycle walking)
    permutes those. TensorFlow's op RandomIndexShuffle gives the same permutations, except for
    sizes 4**k + 1 from 65537 on, where it repeats an index. (Beaulieu et al., "The SIMON and SPECK
    families of lightweight block ciphers", 2013. Black and Rogaway, "Ciphers with arbitrary finite
    domains", CT-RSA 2002.)

    The size is at least 1; time and memory grow with at most 4 * size, or 65536. The key is
    integers (3,), of which the low 32 bits count; related keys give related permutations.
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
