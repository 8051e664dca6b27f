"""What training and evaluation do about images that turn out not to be readable."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow
from jaxlt.data.sources.image_set import ImageSet

if TYPE_CHECKING:
    import tensorflow as tf

Unreadable = Literal["error", "skip"]

# More unreadable neighbours in a row mean that something else is wrong.
_MAX_TRIES = 8

_logger = logging.getLogger(__name__)


def successors(labels: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Returns the image that stands in for each image of a split, int32 (N,).

    It is the next image of its class in the split, and the first one after the last. An image
    outside the split has itself.

    Args:
        labels: integer array (N,), the class of each image of the whole set.
        indices: integer array (n,), the images of the split.
    """
    successor = np.arange(len(labels), dtype=np.int32)
    by_class = indices[np.argsort(labels[indices], kind="stable")]
    _, starts = np.unique(labels[by_class], return_index=True)
    following = np.roll(by_class, -1)
    ends = np.append(starts[1:], len(by_class)) - 1
    following[ends] = by_class[starts]
    successor[by_class] = following
    return successor


def candidates(successor: tf.Tensor, indices: tf.Tensor) -> tf.Tensor:
    """Returns the images (B,) followed by those that stand in for them, (B, tries)."""
    tf = import_tensorflow()
    tried = [indices]
    for _ in range(_MAX_TRIES - 1):
        tried.append(tf.gather(successor, tried[-1]))
    return tf.stack(tried, axis=1)


def first_readable(
    tried: tf.Tensor,
    read: Callable[..., tf.Tensor],
    *drawn: tf.Tensor,
    shape: tuple[int, int, int],
    blank: bool = False,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads of each row of images the first that can be read.

    Args:
        tried: int32 tensor (B, tries), numbers of images.
        read: reads images by numbers (1,) and one row of each of `drawn`, as uint8 (1, H, W, C).
        *drawn: tensors (B, ...).
        shape: H, W and C.
        blank: whether a row without a readable image gives zeros; otherwise it is an error.

    Returns:
        Images, uint8 (B, H, W, C), and their numbers, int32 (B,), -1 for zeros.
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
