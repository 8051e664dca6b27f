"""Images kept as encoded files of any size, decoded when they are needed."""

from __future__ import annotations

import abc
import functools
import re
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.augment.crops import cropped, resized_crop_box
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.data.sources.resampling import Resize, fit
from jaxlt.devices.backends import import_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

# Pillow's and so torchvision's: TensorFlow's own default differs by several gray levels.
_DCT = "INTEGER_ACCURATE"


class EncodedImages(ImageSet):
    """BMP, GIF, JPEG and PNG images, decoded to RGB and brought to one square shape.

    Gray JPEG files give three equal channels. CMYK and YCCK files, of which ImageNet has some, are
    read by the plain formula R = C K / 255 of inverted inks (Adobe's), as Pillow does. A truncated
    file is unreadable, but for crops from the part that is there. `resize` is how `read` brings an
    image to its size, see `resampling`.
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
        return self._each(lambda number: self._fit(_decoded(self.contents(number))), indices)

    def read_crops(
        self, indices: tf.Tensor | np.ndarray, tries: tf.Tensor, places: tf.Tensor
    ) -> tf.Tensor:
        """Decodes of each image no more than its crop; see `ImageSet`."""
        return self._each(lambda x: self._read_crop(*x), (indices, tries, places))

    def undecodable(self, indices: np.ndarray | None = None) -> list[str]:
        """Names what cannot be decoded, in the time of as many images' decoding; see `ImageSet`."""
        numbers = np.arange(len(self.labels)) if indices is None else np.unique(indices)
        bad = np.setdiff1d(numbers, self.readable(numbers)).tolist()
        return [f"{self.name(x)} cannot be decoded: {self._reason(x)}" for x in bad]

    def readable(self, indices: np.ndarray) -> np.ndarray:
        """Tries to decode images; see `ImageSet`."""
        tf = import_tensorflow()

        def decoded(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # What is not handed out would not be computed.
            return number, tf.reduce_max(_decoded(self.contents(number)))

        tried = tf.data.Dataset.from_tensor_slices(indices).map(decoded, tf.data.AUTOTUNE)
        readable = [number for number, _ in tried.ignore_errors().as_numpy_iterator()]
        return np.unique(np.array(readable, np.int64))

    def _reason(self, number: int) -> str:
        tf = import_tensorflow()
        try:
            _decoded(self.contents(tf.constant(number)))
        except tf.errors.OpError as error:
            message = str(error.message).splitlines()[0]
            # TensorFlow says in braces and brackets in which of its operations it was.
            return re.sub(r"\s*(\{\{.*?\}\}|\[Op:.*?\]( name:)?)\s*", "", message)
        return "it could not be read a moment ago"

    def _read_crop(self, number: tf.Tensor, tries: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        tf = import_tensorflow()
        contents = self.contents(number)

        def from_jpeg() -> tf.Tensor:
            height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(contents))
            box = resized_crop_box(height, width, tries, place)
            return tf.io.decode_and_crop_jpeg(contents, box, channels=3, dct_method=_DCT)

        def from_others() -> tf.Tensor:
            return cropped(_decode_image(contents), tries, place)

        crop = tf.cond(tf.io.is_jpeg(contents), from_jpeg, from_others)
        return fit(crop, self.image_shape[0])


def _decoded(contents: tf.Tensor) -> tf.Tensor:
    tf = import_tensorflow()
    return tf.cond(
        tf.io.is_jpeg(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method=_DCT),
        lambda: _decode_image(contents),
    )


def _decode_image(contents: tf.Tensor) -> tf.Tensor:
    tf = import_tensorflow()
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))
