"""Images kept as encoded files of any size, decoded when they are needed."""

from __future__ import annotations

import abc
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlt.data.sources.decoding import decode, decoded, decoded_crop, reason
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.data.sources.resampling import Resize, fit
from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf


class EncodedImages(ImageSet):
    """Images of any format of `decoding`, decoded to RGB and brought to one square shape.

    Gray images give three equal channels. A truncated file is unreadable, but for crops from the
    part of a JPEG that is there. `resize` is how `read` brings an image to its size, see
    `resampling`.
    """

    is_decoded = True

    def __init__(self, labels: np.ndarray, image_size: int, resize: Resize) -> None:
        self.labels = labels.astype(np.int32)
        self.image_shape = (image_size, image_size, 3)
        self._fit = functools.partial(fit, size=image_size, resize=resize)

    @abc.abstractmethod
    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the encoded image of a number, scalar tensors both."""

    def read(self, indices: tf.Tensor | np.ndarray) -> tf.Tensor:
        """Decodes the images at `indices` (B,) whole, into a uint8 tensor (B, H, W, 3)."""
        return self._each(lambda number: self._fit(decoded(self.contents(number))), indices)

    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Decodes of each image no more than its crop; see `ImageSet`."""
        return self._each(lambda x: self._read_crop(*x), (indices, tries, places))

    def stored(self, number: int) -> bytes:
        """Returns the encoded image, nothing for one that cannot be read; see `ImageSet`."""
        tf = import_tensorflow()
        try:
            return bytes(self.contents(tf.constant(number)).numpy())
        # OSError of what Python reads.
        except (tf.errors.OpError, OSError):
            return b""

    def undecodable(self, indices: np.ndarray | None = None) -> list[str]:
        """Names what cannot be decoded, in the time of as many images' decoding; see `ImageSet`."""
        numbers = np.arange(len(self.labels)) if indices is None else np.unique(indices)
        bad = np.setdiff1d(numbers, self.readable(numbers)).tolist()
        return [f"{self.name(x)} cannot be decoded: {self._reason(x)}" for x in bad]

    def readable(self, indices: np.ndarray) -> np.ndarray:
        """Tries to decode images; see `ImageSet`."""
        tf = import_tensorflow()

        def tried(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # What is not handed out would not be computed.
            return number, tf.reduce_max(decoded(self.contents(number)))

        numbers = tf.data.Dataset.from_tensor_slices(indices).map(tried, tf.data.AUTOTUNE)
        readable = [number for number, _ in numbers.ignore_errors().as_numpy_iterator()]
        return np.unique(np.array(readable, np.int64))

    def _reason(self, number: int) -> str:
        tf = import_tensorflow()
        try:
            contents: Any = self.contents(tf.constant(number)).numpy()
            decode(contents)
        except tf.errors.OpError as error:
            return reason(error)
        except OSError as error:
            return str(error.strerror)
        except ValueError as error:
            return str(error)
        return "it could not be read a moment ago"

    def _read_crop(self, number: tf.Tensor, tries: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        crop = decoded_crop(self.contents(number), tries, place)
        return fit(crop, self.image_shape[0])
