"""Sets of labelled images with random access."""

from __future__ import annotations

import abc
import contextlib
import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from jaxlt.data.augment.crops import cropped
from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow
from jaxlt.data.sources.resampling import NUM_CROPS, fit, fit_five_crops
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_RESIZE_CHUNK = 1024
_LOAD_CHUNK = 64
_REPORTED = 5
# Bytes from which on images are enlarged when they are read.
_LARGE = 2**30


class ImageSet(abc.ABC):
    """Labelled images of one shape, whose labels are known before any image is read.

    Attributes:
        labels: int32 array (N,), the class of each image.
        image_shape: height, width and channels of every image.
        is_decoded: whether images are decoded when they are read, which is worth every core.
    """

    labels: np.ndarray
    image_shape: tuple[int, int, int]
    is_decoded: bool = False
    # Brings an image as it is stored, uint8 (H, W, C), to `image_shape`; None where it has that.
    _fit: Callable[[tf.Tensor], tf.Tensor] | None = None

    @abc.abstractmethod
    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Reads images by number, eagerly or inside a `tf.data` map.

        Args:
            indices: integer tensor or array (B,) with values in [0, N).

        Returns:
            uint8 tensor (B, H, W, C).
        """

    @abc.abstractmethod
    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Reads a random crop of each image as it is stored, resized to the shape of all.

        Args:
            indices: integer tensor or array (B,) with values in [0, N).
            tries: float64 tensor (B, NUM_TRIES, 2), see `resized_crop_box`.
            places: float64 tensor (B, 2), see there.
        """

    def five_crops(self, expand: int) -> Self:
        """Returns a set of shape (5 S, S, C): of each image five crops one below the other.

        The shorter side of an image as it is stored is resized to S + `expand`, where S is the
        side of the set's images. The crops are the corners and the centre, see
        `resampling.five_crops`. Their mean prediction is the test-time augmentation of LIFT (Shi et
        al., "Long-tail learning with foundation model: heavy fine-tuning hurts", ICML 2024). The
        new set shares labels and storage with this one.

        Args:
            expand: pixels, at least 0. LIFT has 24 for S = 224, and 21 with patches of 14 pixels.

        Raises:
            UsageError: `expand` is negative, or the images are not square, grey or RGB.
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

    def _fitted(self, stored: tf.Tensor) -> tf.Tensor:
        return stored if self._fit is None else self._fit(stored)

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Reads the images at `indices`, integers (B,), into a uint8 array (B, H, W, C).

        Raises:
            UsageError: an image file cannot be decoded.
        """
        tf = import_tensorflow()
        pixels = np.empty((len(indices), *self.image_shape), np.uint8)
        chunks = (
            tf.data.Dataset.from_tensor_slices(indices)
            .batch(_LOAD_CHUNK)
            .map(self.read, num_parallel_calls=tf.data.AUTOTUNE)
        )
        with named_decoding_errors(self, lambda: indices):
            for number, chunk in enumerate(chunks.as_numpy_iterator()):
                start = number * _LOAD_CHUNK
                pixels[start : start + len(chunk)] = chunk
        return pixels

    def name(self, number: int) -> str:
        """Returns what a message calls an image."""
        return f"number {number}"

    def readable(self, indices: np.ndarray) -> np.ndarray:
        """Returns those of the image numbers (n,) whose images can be decoded, ascending."""
        return np.unique(indices)

    def undecodable(self, indices: np.ndarray | None = None) -> list[str]:
        """Names each image of `indices` (n,), or of all, that cannot be decoded, with the reason.

        Those in memory always can.
        """
        del indices
        return []


class LoadedImages(NamedTuple):
    """What every data format yields: the names of the classes and its sets of images."""

    class_names: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    val: ImageSet | None = None
    open: ImageSet | None = None


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
        if image_size is None or not is_enlarged(images.shape[1:], image_size):
            images = resize_array(images, image_size)
            self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
            self._stored = self._resized = _SharedArray(images)
            return
        self.image_shape = (image_size, image_size, images.shape[3])
        self._fit = functools.partial(resize, size=image_size)
        self._stored = _SharedArray(images)
        self._resized = None
        if len(images) * math.prod(self.image_shape) < _LARGE:
            self._resized = _SharedArray(resize_array(images, image_size))

    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Gathers the images at `indices` (B,), enlarged where they are to be; see `ImageSet`."""
        tf = import_tensorflow()
        if self._resized is not None:
            return tf.gather(self._resized.tensor, indices)
        stored = tf.gather(self._stored.tensor, indices)
        spec = tf.TensorSpec(self.image_shape, tf.uint8)
        return tf.map_fn(self._fitted, stored, fn_output_signature=spec)

    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Cuts crops out of the images as they are stored, not enlarged; see `ImageSet`."""
        tf = import_tensorflow()
        drawn = (tf.gather(self._stored.tensor, indices), tries, places)
        return tf.map_fn(
            lambda x: fit(cropped(*x), self.image_shape[0]),
            drawn,
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.uint8),
        )

    def five_crops(self, expand: int) -> Self:
        """Returns five crops of each image as it is stored; see `ImageSet`."""
        crops = super().five_crops(expand)
        crops._resized = None
        return crops

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Copies the images at `indices` (B,), without TensorFlow where they are at hand."""
        return super().load(indices) if self._resized is None else self._resized.array[indices]


class _SharedArray:
    """Images in memory, of which copies of a set share one tensor."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @functools.cached_property
    def tensor(self) -> tf.Tensor:
        tf = import_tensorflow()
        # Made outside the graph that is being traced, the tensor is an input that every graph
        # shares; made inside it would be a constant copied into each one.
        with tf.init_scope():
            return tf.constant(self.array)


def is_enlarged(shape: Sequence[int | None], size: int) -> bool:
    """Whether images of one shape (H, W, ...) have fewer pixels than squares of side `size`."""
    height, width = shape[:2]
    return height is not None and width is not None and height * width < size * size


def resize(images: tf.Tensor | np.ndarray, size: int) -> tf.Tensor:
    """Resizes uint8 images (..., H, W, C) to (..., size, size, C), bilinear and antialiased."""
    tf = import_tensorflow()
    resized = tf.image.resize(images, (size, size), antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def resize_array(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resizes a uint8 array (N, H, W, C) to squares of side `size`; None leaves it as it is."""
    if size is None or images.shape[1:3] == (size, size):
        return images
    # Whole-set resizing would hold a float32 copy of every image at once.
    starts = range(0, len(images), _RESIZE_CHUNK)
    chunks = [resize(images[start : start + _RESIZE_CHUNK], size).numpy() for start in starts]
    return np.concatenate(chunks)


@contextlib.contextmanager
def named_decoding_errors(images: ImageSet, suspects: Callable[[], np.ndarray]) -> Iterator[None]:
    """Turns TensorFlow's nameless decoding error into the `UsageError` that names the file.

    Args:
        images: the set that is read.
        suspects: returns the numbers of the images among which the bad one must be.
    """
    tf = import_tensorflow()
    try:
        yield
    except tf.errors.OpError:
        refuse_undecodable(images.undecodable(suspects()))
        raise


def refuse_undecodable(found: Sequence[str]) -> None:
    """Raises one `UsageError` for all images that `ImageSet.undecodable` names, if any."""
    if len(found) == 1:
        raise UsageError(f"image must be decodable, got {found[0]}")
    if found:
        more = f"; and {len(found) - _REPORTED} more" if len(found) > _REPORTED else ""
        raise UsageError(
            f"images must be decodable, got {len(found)} that are not: "
            f"{'; '.join(found[:_REPORTED])}{more}"
        )
