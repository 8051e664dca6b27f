"""Samplers that choose the class of each example before its image."""

import functools
from collections.abc import Callable

import numpy as np

from jaxlt.data.sampling.random_numbers import (
    random_integers,
    random_uniforms,
    random_words,
    stream_key,
)
from jaxlt.data.sampling.samplers import REMEMBERED_EPOCHS, SamplerName, ShuffledCycles


class ClassAwareSampler:
    """Walks through the classes in shuffled cycles, and through the images of each class.

    Each cycle takes every class that has images once, with `consecutive` of its images. These come
    from shuffled cycles of the class's own. Each cycle has a new order. (Shen, Lin and Huang,
    "Relay backpropagation for effective learning of deep convolutional neural networks", ECCV 2016.
    The code of Kang et al., ICLR 2020, takes 4 consecutive images.) Labels are those of the split.
    """

    def __init__(self, labels: np.ndarray, seed: int, consecutive: int = 1) -> None:
        self._counts = np.bincount(labels)
        self._places = np.split(np.argsort(labels, kind="stable"), np.cumsum(self._counts)[:-1])
        self._present = np.flatnonzero(self._counts)
        self._seed = seed
        self._consecutive = consecutive
        key = stream_key(seed, "class-aware order of classes")
        self._class_cycles = ShuffledCycles(len(self._present), key)
        # Every class is in the midst of a cycle of its own, or passes from one to the next.
        size = REMEMBERED_EPOCHS * len(self._present)
        self._order = functools.lru_cache(size)(self._order_of_images)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions to int64 places; see `Sampler`."""
        turns, repeats = np.divmod(positions, self._consecutive)
        classes = self._present[self._class_cycles(turns)]
        # Each class had one turn in every cycle before.
        draws = turns // len(self._present) * self._consecutive + repeats
        cycles, within = np.divmod(draws, self._counts[classes])
        examples = np.stack((classes, cycles, within), axis=-1).reshape(-1, 3).tolist()
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
        self._places = np.argsort(labels, kind="stable")
        self._counts = np.bincount(labels)
        self._starts = np.cumsum(self._counts) - self._counts
        self._probabilities = probabilities
        self._class_key = stream_key(seed, "class of an example")
        self._image_key = stream_key(seed, "image of its class")
        self._cumulative = functools.lru_cache(REMEMBERED_EPOCHS)(self._cumulative_of_epoch)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Maps int64 positions to int64 places; see `Sampler`."""
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
        if np.delete(probabilities, np.flatnonzero(self._counts)).any():
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


def class_probabilities(
    name: SamplerName, class_counts: np.ndarray, *, num_epochs: int, beta: float
) -> Callable[[int], np.ndarray]:
    """Returns the function from an epoch to the probabilities that a sampler is named by."""
    if name == "progressive":
        return lambda epoch: progressive_probabilities(class_counts, epoch, num_epochs)
    constant = {
        "class_balanced": balanced_probabilities,
        "square_root": square_root_probabilities,
        "effective_number": functools.partial(effective_number_probabilities, beta=beta),
    }
    return lambda _: constant[name](class_counts)
