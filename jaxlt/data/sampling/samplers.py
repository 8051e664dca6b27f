"""Samplers: which image stands at each position of the endless training stream."""

import functools
from typing import Literal, Protocol, get_args

import numpy as np

from jaxlt.data.sampling.permutations import random_permutation
from jaxlt.data.sampling.random_numbers import random_words, stream_key
from jaxlt.errors import UsageError

SamplerName = Literal[
    "instance", "class_balanced", "square_root", "progressive", "effective_number", "class_aware"
]

REMEMBERED_EPOCHS = 2
"""A batch may span two epochs, and the next one starts where it ended."""


class Sampler(Protocol):
    """A pure function from positions of the training stream to images of a split.

    Example number `slot` of the batch of `step` stands at position `step * batch_size + slot`.
    Training can start anywhere, as the image depends on the position and on a seed alone.
    """

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in the split's list of images."""
        ...


class ShuffledCycles:
    """Visits the numbers below `size` once a cycle, in an order that is new each cycle."""

    def __init__(self, size: int, key: int) -> None:
        self._size = size
        self._key = key
        self._order = functools.lru_cache(REMEMBERED_EPOCHS)(self._order_of_cycle)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 numbers (...,)."""
        cycles, within = np.divmod(positions, self._size)
        numbers = np.empty(positions.shape, np.int64)
        for cycle in np.unique(cycles).tolist():
            here = cycles == cycle
            numbers[here] = self._order(cycle)[within[here]]
        return numbers

    def _order_of_cycle(self, cycle: int) -> np.ndarray:
        # Random words, because related keys such as 0, 1, 2, ... give related permutations.
        words = random_words(self._key, cycle * 3 + np.arange(3))
        return random_permutation(self._size, words)


class InstanceBalancedSampler(ShuffledCycles):
    """Visits every image once an epoch, in an order that is new each epoch.

    Args:
        num_examples: how many images, at least 1.
        seed: any integer, of the order.
    """

    def __init__(self, num_examples: int, seed: int) -> None:
        if num_examples < 1:
            raise ValueError(f"num_examples must be at least 1, got {num_examples}")
        super().__init__(num_examples, stream_key(seed, "instance-balanced order"))


def create_sampler(
    name: SamplerName,
    labels: np.ndarray,
    seed: int,
    *,
    num_classes: int,
    num_epochs: int,
    consecutive: int = 1,
    beta: float = 0.9999,
) -> Sampler:
    """Makes a sampler by its name; a `UsageError` says which argument is out of range.

    Args:
        name: "instance" is `InstanceBalancedSampler`, "class_aware" `ClassAwareSampler`. The
            others are `ClassProbability` with the distribution of their name.
        labels: integer array (n,), the class of each image of the split.
        seed: any integer.
        num_classes: number of classes, C.
        num_epochs: length of the training, for "progressive".
        consecutive: see `ClassAwareSampler`, at least 1.
        beta: see `effective_number_probabilities`, in [0, 1).

    Example:
        >>> import numpy as np, jaxlt.data as data
        >>> labels = np.array([0, 0, 0, 0, 1])
        >>> sampler = data.create_sampler("class_aware", labels, 0, num_classes=2, num_epochs=1)
        >>> print(labels[sampler(np.arange(8))])
        [0 1 0 1 1 0 1 0]
    """
    if name not in (known := get_args(SamplerName)):
        raise UsageError(f"sampler must be {' or '.join(known)}, got {name!r}")
    if consecutive < 1:
        raise UsageError(f"consecutive must be at least 1, got {consecutive}")
    if not 0 <= beta < 1:
        raise UsageError(f"beta must lie in [0, 1), got {beta}")
    if name == "instance":
        return InstanceBalancedSampler(len(labels), seed)
    from jaxlt.data.sampling.class_samplers import (
        ClassAwareSampler,
        ClassProbability,
        class_probabilities,
    )

    if name == "class_aware":
        return ClassAwareSampler(labels, seed, consecutive)
    counts = np.bincount(labels, minlength=num_classes)
    probabilities = class_probabilities(name, counts, num_epochs=num_epochs, beta=beta)
    return ClassProbability(labels, seed, probabilities)
