"""Image files in one directory a class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.sources.array_images import SharedTensor
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import Resize
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png"})


class FileImages(EncodedImages):
    """Image files, one path for each image; see `EncodedImages` for the other arguments."""

    def __init__(
        self, paths: Sequence[str], labels: np.ndarray, image_size: int, resize: Resize
    ) -> None:
        super().__init__(labels, image_size, resize)
        self._paths = SharedTensor(paths)

    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the file of a number, scalar tensors both."""
        tf = import_tensorflow()
        return tf.io.read_file(tf.gather(self._paths.tensor, number))

    def name(self, number: int) -> str:
        """Returns the path."""
        return self._paths.array[number]


def load_folder(directory: Path, image_size: int, resize: Resize = "stretch") -> LoadedImages:
    """Finds the images of `directory/train/CLASS/` and `directory/test/CLASS/`.

    Classes and images are numbered in the order of their names. Files other than BMP, JPEG and
    PNG are passed over.

    Args:
        directory: holds `train` and `test`.
        image_size: side of the square to which every image is resized, whatever its own shape.
        resize: how, see `jaxlt.data.sources.resampling`.

    Raises:
        UsageError: a directory is missing, a class has no image, or the test set has a class
            that the training set lacks.
    """
    train, test = (
        {path.name: images_in(path) for path in subdirectories(directory / part, "a class")}
        for part in ("train", "test")
    )
    if unknown := sorted(set(test) - set(train)):
        raise UsageError(
            f"image folder {directory / 'test'} must have the classes of {directory / 'train'}, "
            f"got {unknown[0]!r}"
        )
    class_names = tuple(train)

    def images_of(files: dict[str, list[Path]]) -> FileImages:
        paths = [str(path) for name in class_names for path in files.get(name, [])]
        sizes = [len(files.get(name, [])) for name in class_names]
        labels = np.repeat(np.arange(len(class_names)), sizes)
        return FileImages(paths, labels, image_size, resize)

    return LoadedImages(class_names, images_of(train), images_of(test))


def subdirectories(directory: Path, what: str) -> list[Path]:
    """Returns the directories, each for `what`, sorted; a `UsageError` says there are none."""
    if not directory.is_dir():
        raise UsageError(f"image folder {directory} must be a directory, got none")
    folders = sorted(path for path in directory.iterdir() if path.is_dir())
    if not folders:
        raise UsageError(f"image folder {directory} must hold one directory {what}, got none")
    return folders


def images_in(directory: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Returns the image files of a class, sorted; a `UsageError` says there are none."""
    files = sorted(path for path in directory.iterdir() if path.suffix.lower() in suffixes)
    if not files:
        raise UsageError(
            f"class directory {directory} must hold a {', '.join(sorted(suffixes))} image, got none"
        )
    return files
