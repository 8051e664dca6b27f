"""Samplers: which image stands at each position of the endless training stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jaxlt.data.counter_random import random_words, stream_key
from jaxlt.data.tensorflow_runtime import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

_ROUNDS = 8


class Sampler(Protocol):
    """A pure function from positions of the training stream to images of a split.

    Example number `slot` of the batch of `step` stands at position `step * batch_size + slot`.
    What stands there may depend on the position and on a seed fixed at construction, on
    nothing else, so training can start anywhere in the stream.
    """

    def __call__(self, positions: tf.Tensor) -> tf.Tensor:
        """Maps int64 positions (B,) to int64 places (B,) in the split's list of images."""
        ...


class InstanceBalanced:
    """Visits every image once an epoch, in an order that is new each epoch."""

    def __init__(self, num_examples: int, seed: int) -> None:
        if num_examples < 1:
            raise ValueError(f"num_examples is {num_examples}, it must be at least 1")
        self._num_examples = num_examples
        self._key = stream_key(seed, "instance-balanced order")

    def __call__(self, positions: tf.Tensor) -> tf.Tensor:
        """Maps int64 positions (B,) to int64 places (B,) in [0, num_examples)."""
        tf = import_tensorflow()
        epochs = positions // self._num_examples
        # The cipher behind the op gives related permutations for related seeds, such as 0, 1,
        # 2, ...; and the op itself, unlike tf.random.experimental.index_shuffle around it,
        # takes one seed an element, which a batch across the border of two epochs needs.
        words = random_words(self._key, epochs[:, tf.newaxis] * 3 + tf.range(3, dtype=tf.int64))
        return tf.raw_ops.RandomIndexShuffle(
            index=tf.math.floormod(positions, self._num_examples),
            seed=words,
            max_index=tf.constant(self._num_examples - 1, tf.int64),
            rounds=_ROUNDS,
        )
