"""From an encoded image to its pixels: the one way in which training and prediction read a file."""

from __future__ import annotations

import functools
import io
import re
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image

from jaxlt.data.augment.crops import cropped, resized_crop_box
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import first_line

if TYPE_CHECKING:
    import tensorflow as tf

# No other: some formats that Pillow knows start programs.
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Pillow's and so torchvision's: TensorFlow's own default differs by several gray levels.
_DCT = "INTEGER_ACCURATE"
# Modes of more than 8 bits whose range is known, so that the upper 8 are the image.
_DEEP = "I;16"
# Modes whose range no file tells.
_UNBOUNDED = ("I", "F")
# Segments of a JPEG file: frames that TensorFlow reads, and Exif's or XMP's.
_FRAMES, _APP1 = (0xC0, 0xC1, 0xC2), 0xE1
# How an image of an orientation in Exif is brought upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(contents: bytes) -> np.ndarray:
    """Decodes an image as `decoded` does, into uint8 (H, W, 3).

    Raises:
        ValueError: it cannot be decoded; the reason is one line.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> from jaxlt.data.sources.decoding import decode
        >>> file = io.BytesIO()
        >>> Image.new("RGBA", (2, 1), (255, 0, 7, 0)).save(file, "PNG")
        >>> decode(file.getvalue()).tolist()
        [[[255, 0, 7], [255, 0, 7]]]
    """
    if not _is_plain_jpeg(contents):
        return decode_by_pillow(contents)
    tf = import_tensorflow()
    try:
        return tf.io.decode_jpeg(contents, channels=3, dct_method=_DCT).numpy()
    except tf.errors.OpError as error:
        raise ValueError(reason(error)) from error


def reason(error: tf.errors.OpError) -> str:
    """Returns what an operation of TensorFlow complains of, in one line."""
    message = str(error.message).splitlines()[0]
    # TensorFlow says in braces and brackets in which of its operations it was.
    return re.sub(r"\s*(\{\{.*?\}\}|\[Op:.*?\]( name:)?)\s*", "", message)


def decode_by_pillow(contents: bytes) -> np.ndarray:
    """Decodes an image of any of the formats, into uint8 (H, W, 3).

    The image stands upright as its Exif orientation says. It is the first of an animation. Alpha is
    dropped, which leaves the color below it. Of 16 bits the upper 8 are taken. Color profiles and
    gamma do nothing.

    Raises:
        ValueError: the bytes are no such image, or pixels of an unknown range; the reason is one
            line.
    """
    try:
        with Image.open(io.BytesIO(contents), formats=_formats()) as file:
            file.load()
            image = _of_eight_bits(file)
            orientation = _orientation(file)
            # It would be dropped with a warning.
            image.info.pop("transparency", None)
            image = image.convert("RGB")
    except Image.UnidentifiedImageError:
        named = f"it is no image of a format that is read: {', '.join(_formats())}"
        raise ValueError(named if contents else "it is empty") from None
    # Pillow's decoders raise whatever a broken file makes them stumble over.
    except Exception as error:
        raise ValueError(first_line(error)) from error
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return np.asarray(image)


def shorter_side(contents: bytes) -> int:
    """Returns the smaller of an image's height and width, without decoding it; errors likewise."""
    try:
        with Image.open(io.BytesIO(contents), formats=_formats()) as file:
            return min(file.size)
    except Exception as error:
        raise ValueError(first_line(error)) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Returns the formats that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _of_eight_bits(image: Image.Image) -> Image.Image:
    is_deep = image.mode.startswith(_DEEP) or (image.mode == "I" and image.format == "PPM")
    if image.mode in _UNBOUNDED and not is_deep:
        raise ValueError(f"pixels must have 8 or 16 bits a channel, got mode {image.mode}")
    if not is_deep:
        return image
    # Pillow's own conversion would make all but the darkest of 16-bit grays white.
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # What cannot be read says nothing.
    except Exception:
        return 1


def _is_plain_jpeg(contents: bytes) -> bool:
    """Whether TensorFlow decodes a file as Pillow would: a JPEG that says nothing of orientation.

    It is of 8 bits and Huffman's codes, baseline or progressive, gray, in color or in CMYK.
    """
    place, is_turned = 2, None
    if not contents.startswith(b"\xff\xd8\xff"):
        return False
    while place + 10 <= len(contents) and contents[place] == 0xFF:
        marker, (length,) = contents[place + 1], struct.unpack_from(">H", contents, place + 2)
        if marker in _FRAMES:
            precision, components = contents[place + 4], contents[place + 9]
            return precision == 8 and components in (1, 3, 4) and not is_turned
        # Once, which reads all of these segments.
        if marker == _APP1 and is_turned is None:
            is_turned = _is_turned(contents)
        # Fill bytes may lie between segments.
        place += 1 if marker == 0xFF else 2 + length
    return False


def _is_turned(contents: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(contents), formats=("JPEG",)) as file:
            return _orientation(file) in _UPRIGHT
    # What Pillow cannot open is left to it, which says why.
    except Exception:
        return True


def decoded(contents: tf.Tensor) -> tf.Tensor:
    """Decodes an encoded image, a scalar string, into uint8 (H, W, 3); works in a `tf.data` map."""
    tf = import_tensorflow()
    return tf.cond(
        _is_plain(contents),
        lambda: tf.io.decode_jpeg(contents, channels=3, dct_method=_DCT),
        lambda: _by_pillow(contents),
    )


def decoded_crop(contents: tf.Tensor, tries: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Cuts `resized_crop_box` out of an encoded image, of a plain JPEG without decoding the rest.

    It is what is cut out of `decoded` but at the borders, where JPEG's colors are interpolated. Of
    a truncated JPEG there are crops from the part that is there.
    """
    tf = import_tensorflow()

    def from_jpeg() -> tf.Tensor:
        height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(contents))
        box = resized_crop_box(height, width, tries, place)
        return tf.io.decode_and_crop_jpeg(contents, box, channels=3, dct_method=_DCT)

    return tf.cond(
        _is_plain(contents), from_jpeg, lambda: cropped(_by_pillow(contents), tries, place)
    )


def _is_plain(contents: tf.Tensor) -> tf.Tensor:
    tf = import_tensorflow()
    return tf.ensure_shape(_of_bytes(_is_plain_jpeg, contents, tf.bool), ())


def _by_pillow(contents: tf.Tensor) -> tf.Tensor:
    tf = import_tensorflow()
    return tf.ensure_shape(_of_bytes(decode_by_pillow, contents, tf.uint8), (None, None, 3))


def _of_bytes(function: Callable[[bytes], Any], contents: tf.Tensor, dtype: Any) -> tf.Tensor:
    """Applies a function of Python, which is not to become a graph, to a scalar string."""
    tf = import_tensorflow()

    @tf.autograph.experimental.do_not_convert
    def applied(string: Any) -> np.ndarray:
        # Bytes in a graph, elsewhere an array. Bytes of NumPy's would lose zeros at the end.
        return np.asarray(function(string if isinstance(string, bytes) else string.item()))

    return tf.numpy_function(applied, (contents,), dtype)
