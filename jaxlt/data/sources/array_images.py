"""Images held in memory as one array."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from jaxlt.data.augment.crops import cropped
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.data.sources.resampling import fit, is_enlarged, resize, resize_array
from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

# Bytes from which on images are enlarged when they are read.
_LARGE = 2**30


class ArrayImages(ImageSet):
    """Images held in memory as one uint8 array.

    Images that are to be smaller are resized at once. Images that are to be larger are kept as they
    are, for crops. They are enlarged at once where that takes less than a gibibyte, otherwise when
    they are read: CIFAR's 60,000 would take 9 GB at 224 pixels.

    Args:
        images: uint8 array (N, H, W, C).
        labels: integer array (N,), the class of each image.
        image_size: side of the squares to which the images are resized; None keeps H and W.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, image_size: int | None = None
    ) -> None:
        self.labels = labels.astype(np.int32)
        height, width, channels = images.shape[1:]
        self.image_shape = (height, width, channels)
        self._stored = self._resized = SharedTensor(images)
        if image_size is None:
            return
        self.image_shape = (image_size, image_size, channels)
        if not is_enlarged((height, width), image_size):
            self._stored = self._resized = SharedTensor(resize_array(images, image_size))
            return
        self._fit = functools.partial(resize, size=image_size)
        is_large = len(images) * math.prod(self.image_shape) >= _LARGE
        self._resized = None if is_large else SharedTensor(resize_array(images, image_size))

    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Gathers the images at `indices` (B,), enlarged where they are to be; see `ImageSet`."""
        tf = import_tensorflow()
        if self._resized is not None:
            return tf.gather(self._resized.tensor, indices)
        return self._each(self._fit, tf.gather(self._stored.tensor, indices))

    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Cuts crops out of the images as they are stored, not enlarged; see `ImageSet`."""
        tf = import_tensorflow()
        drawn = (tf.gather(self._stored.tensor, indices), tries, places)
        return self._each(lambda x: fit(cropped(*x), self.image_shape[0]), drawn)

    def stored(self, number: int) -> bytes:
        """Returns pixels, not enlarged; see `ImageSet`."""
        return self._stored.array[number].tobytes()

    def five_crops(self, expand: int) -> Self:
        """Returns five crops of each image as it is stored; see `ImageSet`."""
        crops = super().five_crops(expand)
        crops._resized = None
        return crops

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Copies the images at `indices` (B,), without TensorFlow where they are at hand."""
        return super().load(indices) if self._resized is None else self._resized.array[indices]


class SharedTensor:
    """An array or a list, with one tensor of it for all copies of a set."""

    def __init__(self, array: Any) -> None:
        self.array = array

    @functools.cached_property
    def tensor(self) -> tf.Tensor:
        """The tensor, made when it is first asked for."""
        tf = import_tensorflow()
        # Made outside the graph that is being traced, the tensor is an input that every graph
        # shares; made inside it would be a constant copied into each one.
        with tf.init_scope():
            return tf.constant(self.array)
