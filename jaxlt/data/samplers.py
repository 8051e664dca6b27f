"""Samplers: which image stands at each position of the endless training stream."""

import functools
from typing import Protocol

import numpy as np

from jaxlt.data.counter_random import random_words, stream_key
from jaxlt.data.permutation import random_permutation

# A batch may span two epochs, and the next one starts where it ended.
_REMEMBERED_EPOCHS = 2


class Sampler(Protocol):
    """A pure function from positions of the training stream to images of a split.

    Example number `slot` of the batch of `step` stands at position `step * batch_size + slot`.
    What stands there may depend on the position and on a seed fixed at construction, on
    nothing else, so training can start anywhere in the stream.
    """

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in the split's list of images."""
        ...


class InstanceBalanced:
    """Visits every image once an epoch, in an order that is new each epoch."""

    def __init__(self, num_examples: int, seed: int) -> None:
        if num_examples < 1:
            raise ValueError(f"num_examples is {num_examples}, it must be at least 1")
        self._num_examples = num_examples
        self._key = stream_key(seed, "instance-balanced order")
        self._order = functools.lru_cache(_REMEMBERED_EPOCHS)(self._order_of_epoch)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in [0, num_examples)."""
        epochs, within = np.divmod(positions, self._num_examples)
        places = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            places[here] = self._order(epoch)[within[here]]
        return places

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        # Random words, because related keys such as 0, 1, 2, ... give related permutations.
        words = random_words(self._key, epoch * 3 + np.arange(3))
        return random_permutation(self._num_examples, words)
