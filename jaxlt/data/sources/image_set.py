"""Sets of labeled images with random access."""

from __future__ import annotations

import abc
import copy
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from jaxlt.data.sources.resampling import NUM_CROPS, fit_five_crops
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError, first_few

if TYPE_CHECKING:
    import tensorflow as tf

_LOAD_CHUNK = 64
_REMEDY = "remove what is damaged, or train with --data.unreadable skip"


class ImageSet(abc.ABC):
    """Labeled images of one shape, whose labels are known before any image is read.

    Attributes:
        labels: int32 array (N,), the class of each image.
        image_shape: height, width and channels of every image.
        is_decoded: whether images are decoded when they are read, which is worth every core.
        names: paths of the images' files, or names that come with them; none for an array.
    """

    labels: np.ndarray
    image_shape: tuple[int, int, int]
    is_decoded: bool = False
    names: Sequence[str] = ()
    # Brings an image as it is stored, uint8 (H, W, C), to `image_shape` where it has another.
    _fit: Callable[[tf.Tensor], tf.Tensor]

    @abc.abstractmethod
    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Reads images by integers (B,) in [0, N), uint8 (B, H, W, C); works in a `tf.data` map."""

    @abc.abstractmethod
    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Reads a random crop of each image as it is stored, resized to the shape of all.

        Args:
            indices: integer array (B,), which images.
            tries: float64 (B, NUM_TRIES, 2), see `resized_crop_box`.
            places: float64 (B, 2), likewise.
        """

    @abc.abstractmethod
    def stored(self, number: int) -> bytes:
        """Returns an image as it is stored: the bytes of its file, or its pixels."""

    def five_crops(self, expand: int) -> Self:
        """Returns a set of shape (5 S, S, C): of each image five crops one below the other.

        The shorter side of an image as it is stored is resized to S + `expand`, where S is the side
        of the set's images; the crops are those of `resampling.five_crops`. Their mean prediction
        is the test-time augmentation of LIFT (Shi et al., "Long-tail learning with foundation
        model: heavy fine-tuning hurts", ICML 2024), where `expand` is 24 for S = 224, and 21 with
        patches of 14 pixels. The new set shares labels and storage with this one. A `UsageError`
        says that `expand` is negative, or the images are not square, gray or RGB.
        """
        height, width, channels = self.image_shape
        if height != width or channels not in (1, 3):
            raise UsageError(
                "images must be square and have 1 or 3 channels for five crops, got shape "
                f"{self.image_shape}"
            )
        if expand < 0:
            raise UsageError(f"expand must be at least 0, got {expand}")
        crops = copy.copy(self)
        crops.image_shape = (NUM_CROPS * height, width, channels)
        crops._fit = functools.partial(fit_five_crops, size=height, expand=expand)
        return crops

    def _each(self, read_one: Callable[[Any], tf.Tensor], elements: Any) -> tf.Tensor:
        """Reads an image, uint8 (H, W, C), for each of the elements."""
        tf = import_tensorflow()
        spec = tf.TensorSpec(self.image_shape, tf.uint8)
        return tf.map_fn(read_one, elements, fn_output_signature=spec)

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at `indices`, integers (B,), into a uint8 array (B, H, W, C).

        A `UsageError` names an image file that cannot be decoded.
        """
        tf = import_tensorflow()
        pixels = np.empty((len(indices), *self.image_shape), np.uint8)
        numbers = tf.data.Dataset.from_tensor_slices(indices).batch(_LOAD_CHUNK)
        chunks = numbers.map(self.read, num_parallel_calls=tf.data.AUTOTUNE)
        try:
            for number, chunk in enumerate(chunks.as_numpy_iterator()):
                start = number * _LOAD_CHUNK
                pixels[start : start + len(chunk)] = chunk
        except tf.errors.OpError:
            refuse_undecodable(self.undecodable(indices))
            raise
        return pixels

    def name(self, number: int) -> str:
        """Returns what a message calls an image."""
        return f"number {number}"

    def readable(self, indices: np.ndarray) -> np.ndarray:
        """Returns those of the image numbers (n,) whose images can be decoded, ascending."""
        return np.unique(indices)

    def undecodable(self, indices: np.ndarray | None = None) -> list[str]:
        """Names those of `indices` (n,), or of all, that cannot be decoded, with the reason."""
        return []


class LoadedImages(NamedTuple):
    """What every data format yields: the names of the classes and its sets of images."""

    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    val: ImageSet | None = None
    open: ImageSet | None = None

    def relabeled_by_size(self) -> tuple[LoadedImages, tuple[int, ...]]:
        """Numbers the classes by their training images, the largest first, equal ones as before.

        Returns the images, whose labels are changed in place, and the numbers of before.
        """
        counts = np.bincount(self.train.labels, minlength=len(self.class_names))
        old = np.argsort(-counts, kind="stable")
        # Label -1, of no class, finds the last entry and stays.
        labels = np.full(len(old) + 1, -1, np.int32)
        labels[old] = np.arange(len(old))
        for images in (self.train, self.test, self.val, self.open):
            if images is not None:
                images.labels = labels[images.labels]
        class_names = tuple(self.class_names[number] for number in old)
        return self._replace(class_names=class_names), tuple(old.tolist())


def refuse_undecodable(found: Sequence[str]) -> None:
    """Raises one `UsageError` for all images that `ImageSet.undecodable` names, if any."""
    if len(found) == 1:
        raise UsageError(f"image must be decodable, got {found[0]}; {_REMEDY}")
    if found:
        raise UsageError(
            f"images must be decodable, got {len(found)} that are not: "
            f"{first_few(found, between='; ')}; {_REMEDY}"
        )
