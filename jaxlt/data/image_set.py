"""Sets of labelled images with random access."""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jaxlt.data.crops import cropped
from jaxlt.data.resampling import fit
from jaxlt.data.tensorflow_runtime import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_RESIZE_CHUNK = 1024
_LOAD_CHUNK = 64
_REPORTED = 5


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

    @abc.abstractmethod
    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Reads images by number; works eagerly and inside a `tf.data` map.

        Args:
            indices: integer tensor or array (B,) with values in [0, N).

        Returns:
            uint8 tensor (B, H, W, C).
        """

    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Reads a random crop of each image, resized to the shape of all.

        Args:
            indices: integer tensor or array (B,) with values in [0, N).
            tries: float64 tensor (B, NUM_TRIES, 2), see `jaxlt.data.crops.resized_crop_box`.
            places: float64 tensor (B, 2), see there.

        Returns:
            uint8 tensor (B, H, W, C).
        """
        tf = import_tensorflow()
        drawn = (self.read(indices), tries, places)
        return tf.map_fn(
            lambda x: fit(cropped(*x), self.image_shape[0]),
            drawn,
            fn_output_signature=tf.TensorSpec(self.image_shape, tf.uint8),
        )

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Reads images by number into memory.

        Args:
            indices: integer array (B,) with values in [0, N).

        Returns:
            uint8 array (B, H, W, C).

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
        """Names each image that cannot be decoded, with the reason.

        Images that are in memory already always can, so the base class names none.

        Args:
            indices: integer array (n,), the images to try; None tries all.
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
    """Images held in memory as one uint8 array (N, H, W, C)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.labels = labels.astype(np.int32)
        self.image_shape = (images.shape[1], images.shape[2], images.shape[3])
        self._images = images

    @functools.cached_property
    def _tensor(self) -> tf.Tensor:
        tf = import_tensorflow()
        # Made outside the graph that is being traced, the tensor is an input that every graph
        # shares; made inside it would be a constant copied into each one.
        with tf.init_scope():
            return tf.constant(self._images)

    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Gathers the images at `indices` (B,) into a uint8 tensor (B, H, W, C)."""
        return import_tensorflow().gather(self._tensor, indices)

    def load(self, indices: np.ndarray) -> np.ndarray:
        """Copies the images at `indices` (B,), without TensorFlow."""
        return self._images[indices]


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
        raise UsageError(f"image {found[0]}")
    if found:
        more = f"; and {len(found) - _REPORTED} more" if len(found) > _REPORTED else ""
        raise UsageError(f"{len(found)} images: {'; '.join(found[:_REPORTED])}{more}")
