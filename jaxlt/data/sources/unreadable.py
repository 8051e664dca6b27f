"""How training and evaluation skip images that turn out not to be readable."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxlt.data.sources.image_set import ImageSet
from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

Unreadable = Literal["error", "skip"]

# More unreadable neighbors in a row mean that something else is wrong.
_MAX_TRIES = 8

_logger = logging.getLogger(__name__)


def successors(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Returns for each image, int32 (N,), the next of its class in the split, or itself outside."""
    successor = np.arange(len(labels), dtype=np.int32)
    by_class = indices[np.argsort(labels[indices], kind="stable")]
    _, starts = np.unique(labels[by_class], return_index=True)
    for of_class in np.split(by_class, starts[1:]):
        successor[of_class] = np.roll(of_class, -1)
    return successor


def first_readable(
    tried: tf.Tensor,
    read: Callable[..., tf.Tensor],
    *drawn: tf.Tensor,
    shape: tuple[int, int, int],
    blank: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads of each row of images, int32 numbers (B, tries), the first that can be read.

    `read` reads one by its number (1,) and a row of each of `drawn`, as uint8 (1, H, W, C). A row
    without a readable image gives zeros if `blank`; otherwise it is an error. Returns the images
    and their numbers, int32 (B,), -1 for zeros.
    """
    tf = import_tensorflow()

    def read_row(row: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
        numbers, *values = (part[tf.newaxis] for part in row)

        def read_one(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return read(number[tf.newaxis], *values)[0], number

        # A failing operation cannot be caught in a graph, but a data set can leave it out.
        images = tf.data.Dataset.from_tensor_slices(numbers[0]).map(read_one).ignore_errors()
        if blank:
            nothing = (tf.zeros(shape, tf.uint8), tf.constant(-1))
            images = images.concatenate(tf.data.Dataset.from_tensors(nothing))
        return images.take(1).get_single_element()

    specs = (tf.TensorSpec(shape, tf.uint8), tf.TensorSpec((), tf.int32))
    return tf.map_fn(read_row, (tried, *drawn), fn_output_signature=specs)


class Substitutes:
    """Reads the images of a split, for an unreadable one the next of its class."""

    def __init__(self, images: ImageSet, indices: np.ndarray) -> None:
        self._shape = images.image_shape
        self._successor = successors(images.labels, indices)

    def read(
        self, read: Callable[..., tf.Tensor], indices: tf.Tensor, *drawn: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns images, see `first_readable`, and which `indices` were skipped, -1 for others."""
        tf = import_tensorflow()
        tried = [indices]
        for _ in range(_MAX_TRIES - 1):
            tried.append(tf.gather(self._successor, tried[-1]))
        pixels, taken = first_readable(tf.stack(tried, axis=1), read, *drawn, shape=self._shape)
        return pixels, tf.where(taken == indices, -1, indices)


class SkipLog:
    """Counts skipped images and names each of them once in the log; `count` is how often."""

    def __init__(self, images: ImageSet) -> None:
        self.count = 0
        self._images = images
        self._named: set[int] = set()

    def add(self, numbers: np.ndarray) -> None:
        """Takes note of skipped images, integers of any shape, -1 for none."""
        skipped = numbers[numbers >= 0].tolist()
        self.count += len(skipped)
        for number in sorted(set(skipped) - self._named):
            self._named.add(number)
            _logger.warning(
                "image %s cannot be decoded and is skipped: %d unreadable images so far",
                self._images.name(number),
                len(self._named),
            )
