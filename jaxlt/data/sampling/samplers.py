"""Samplers: which image stands at each position of the endless training stream."""

import functools
from collections.abc import Callable
from typing import Literal, Protocol, get_args

import numpy as np

from jaxlt.data.sampling.random_numbers import (
    random_integers,
    random_permutation,
    random_uniforms,
    random_words,
    stream_key,
)
from jaxlt.errors import UsageError

SamplerName = Literal[
    "instance", "class_balanced", "square_root", "progressive", "effective_number", "class_aware"
]

# A batch may span two epochs, and the next one starts where it ended.
_REMEMBERED_EPOCHS = 2


class Sampler(Protocol):
    """A pure function from positions of the training stream to images of a split.

    Example number `slot` of the batch of `step` stands at position `step * batch_size + slot`.
    The image there depends on the position and on a seed alone, so that training can start
    anywhere in the stream.
    """

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in the split's list of images."""
        ...


class InstanceBalanced:
    """Visits every image once an epoch, in an order that is new each epoch."""

    def __init__(self, num_examples: int, seed: int) -> None:
        if num_examples < 1:
            raise ValueError(f"num_examples must be at least 1, got {num_examples}")
        self._cycles = _ShuffledCycles(num_examples, stream_key(seed, "instance-balanced order"))

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in [0, num_examples)."""
        return self._cycles(positions)


class ClassAware:
    """Walks through the classes in shuffled cycles, and through the images of each class.

    Each cycle takes every class that has images once, with `consecutive` of its images. These come
    from shuffled cycles of the class's own. Each cycle has a new order. (Shen, Lin and Huang,
    "Relay backpropagation for effective learning of deep convolutional neural networks", ECCV 2016.
    The code of Kang et al., ICLR 2020, takes 4 consecutive images.)

    Args:
        labels: integer array (n,), the class of each image of the split.
        seed: any integer.
        consecutive: images of a class one after the other.
    """

    def __init__(self, labels: np.ndarray, seed: int, consecutive: int = 1) -> None:
        self._places = _places_by_class(labels)
        self._present = np.flatnonzero([len(places) for places in self._places])
        self._counts = np.array([len(places) for places in self._places])
        self._seed = seed
        self._consecutive = consecutive
        key = stream_key(seed, "class-aware order of classes")
        self._class_cycles = _ShuffledCycles(len(self._present), key)
        # Every class is in the midst of a cycle of its own, or passes from one to the next.
        size = _REMEMBERED_EPOCHS * len(self._present)
        self._order = functools.lru_cache(size)(self._order_of_images)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in the split's list of images."""
        turns, repeats = np.divmod(positions, self._consecutive)
        classes = self._present[self._class_cycles(turns)]
        # Each class had one turn in every cycle before.
        draws = turns // len(self._present) * self._consecutive + repeats
        cycles, within = np.divmod(draws, self._counts[classes])
        examples = zip(
            classes.ravel().tolist(), cycles.ravel().tolist(), within.ravel().tolist(), strict=True
        )
        places = [self._order(label, cycle)[place] for label, cycle, place in examples]
        return np.array(places, np.int64).reshape(positions.shape)

    def _order_of_images(self, label: int, cycle: int) -> np.ndarray:
        places = self._places[label]
        key = stream_key(self._seed, f"class-aware order of images of class {label}")
        # Cheaper than `random_permutation`, whose cost is that of 65536 images at least.
        words = random_words(key, cycle * len(places) + np.arange(len(places)))
        return places[np.argsort(words)]


class ClassProbability:
    """Draws a class from a distribution, then one of its images uniformly, with replacement.

    Args:
        labels: integer array (n,), the class of each image of the split.
        seed: any integer.
        probabilities: gives for an epoch of n positions, counted from 0, the probability of each
            class, an array (C,) that sums to 1; 0 for a class without an image.
    """

    def __init__(
        self, labels: np.ndarray, seed: int, probabilities: Callable[[int], np.ndarray]
    ) -> None:
        by_class = _places_by_class(labels)
        self._places = np.concatenate(by_class)
        self._counts = np.array([len(places) for places in by_class])
        self._starts = np.cumsum(self._counts) - self._counts
        self._probabilities = probabilities
        self._class_key = stream_key(seed, "class of an example")
        self._image_key = stream_key(seed, "image of its class")
        self._cumulative = functools.lru_cache(_REMEMBERED_EPOCHS)(self._cumulative_of_epoch)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions (...,) to int64 places (...,) in the split's list of images."""
        epochs = positions // len(self._places)
        uniforms = random_uniforms(self._class_key, positions)
        classes = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            classes[here] = np.searchsorted(self._cumulative(epoch), uniforms[here], side="right")
        within = random_integers(self._image_key, positions, self._counts[classes])
        return self._places[self._starts[classes] + within]

    def _cumulative_of_epoch(self, epoch: int) -> np.ndarray:
        probabilities = self._probabilities(epoch)
        seen = np.zeros(len(probabilities), bool)
        seen[np.flatnonzero(self._counts)] = True
        if (probabilities[~seen] != 0).any():
            raise ValueError("probabilities must be 0 for classes without an image, got another")
        cumulative = np.cumsum(probabilities)
        # Exactly 1 at the end, so that no uniform number lies beyond it.
        return cumulative / cumulative[-1]


def instance_probabilities(class_counts: np.ndarray) -> np.ndarray:
    """Returns n_c / N: every image is equally likely.

    Args:
        class_counts: integer array (C,), images of each class. A class without an image has
            probability 0 here and in the distributions that follow.
    """
    return class_counts / class_counts.sum()


def square_root_probabilities(class_counts: np.ndarray) -> np.ndarray:
    """Returns probabilities proportional to the square root of n_c (Mahajan et al., ECCV 2018)."""
    return instance_probabilities(np.sqrt(class_counts))


def balanced_probabilities(class_counts: np.ndarray) -> np.ndarray:
    """Returns 1 / C for the C classes that have images."""
    return instance_probabilities(class_counts > 0)


def progressive_probabilities(class_counts: np.ndarray, epoch: int, num_epochs: int) -> np.ndarray:
    """Returns (1 - t) n_c / N + t / C, where t = epoch / (num_epochs - 1) goes from 0 to 1.

    Kang et al., "Decoupling representation and classifier for long-tailed recognition", ICLR 2020.

    Args:
        class_counts: see `instance_probabilities`.
        epoch: counted from 0; those beyond the last are balanced like it.
        num_epochs: length of the training; a single epoch is balanced.
    """
    balance = min(epoch / (num_epochs - 1), 1.0) if num_epochs > 1 else 1.0
    instance = instance_probabilities(class_counts)
    return (1 - balance) * instance + balance * balanced_probabilities(class_counts)


def effective_number_probabilities(class_counts: np.ndarray, beta: float = 0.9999) -> np.ndarray:
    """Returns probabilities proportional to n_c (1 - beta) / (1 - beta**n_c).

    Each image is weighted by the inverse of its class's effective number (Cui et al., "Class-
    balanced loss based on effective number of samples", CVPR 2019). The code of LDAM (Cao et al.,
    NeurIPS 2019) has a sampler with these weights of images.

    Args:
        class_counts: see `instance_probabilities`.
        beta: in [0, 1); 0 makes all images equally likely, and near 1 all classes are.
    """
    effective_numbers = (1 - beta**class_counts) / (1 - beta)
    # The class without an image has effective number 0, and must have no weight.
    weights = 1 / np.where(class_counts > 0, effective_numbers, 1)
    return instance_probabilities(class_counts * weights)


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
    """Makes a sampler by its name.

    Args:
        name: "instance" is `InstanceBalanced`, "class_aware" is `ClassAware`. The others are
            `ClassProbability` with the distribution of their name.
        labels: integer array (n,), the class of each image of the split.
        seed: any integer.
        num_classes: number of classes, C.
        num_epochs: length of the training, for "progressive".
        consecutive: see `ClassAware`.
        beta: see `effective_number_probabilities`.

    Raises:
        UsageError: the name is unknown, `consecutive` is below 1 or `beta` outside [0, 1).
    """
    if name not in (known := get_args(SamplerName)):
        raise UsageError(f"sampler must be {' or '.join(known)}, got {name!r}")
    if consecutive < 1:
        raise UsageError(f"consecutive must be at least 1, got {consecutive}")
    if not 0 <= beta < 1:
        raise UsageError(f"sampler_beta must lie in [0, 1), got {beta}")
    if name == "instance":
        return InstanceBalanced(len(labels), seed)
    if name == "class_aware":
        return ClassAware(labels, seed, consecutive)
    counts = np.bincount(labels, minlength=num_classes)
    constant = {
        "class_balanced": balanced_probabilities,
        "square_root": square_root_probabilities,
        "effective_number": functools.partial(effective_number_probabilities, beta=beta),
    }
    if name == "progressive":
        return ClassProbability(
            labels, seed, lambda epoch: progressive_probabilities(counts, epoch, num_epochs)
        )
    return ClassProbability(labels, seed, lambda _: constant[name](counts))


class _ShuffledCycles:
    """Visits the numbers below `size` once a cycle, in an order that is new each cycle."""

    def __init__(self, size: int, key: int) -> None:
        self._size = size
        self._key = key
        self._order = functools.lru_cache(_REMEMBERED_EPOCHS)(self._order_of_cycle)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
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


def _places_by_class(labels: np.ndarray) -> list[np.ndarray]:
    """Returns the places of each class in ascending order, for the labels up to the largest."""
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
