"""Image files in one directory a class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import Resize
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png"})


class FileImages(EncodedImages):
    """Image files, read when they are needed.

    Args:
        paths: one for each image.
        labels: integer array (N,), the class of each image.
        image_size: see `EncodedImages`.
        resize: see `EncodedImages`.
    """

    def __init__(
        self, paths: Sequence[str], labels: np.ndarray, image_size: int, resize: Resize
    ) -> None:
        super().__init__(labels, image_size, resize)
        self._paths = paths

    @functools.cached_property
    def _paths_tensor(self) -> tf.Tensor:
        tf = import_tensorflow()
        # Outside the graph being traced, as in ArrayImages: shared instead of copied into each.
        with tf.init_scope():
            return tf.constant(self._paths)

    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the file of a number, scalar tensors both."""
        tf = import_tensorflow()
        return tf.io.read_file(tf.gather(self._paths_tensor, number))

    def name(self, number: int) -> str:
        """Returns the path."""
        return self._paths[number]


def load_folder(directory: Path, image_size: int, resize: Resize = "stretch") -> LoadedImages:
    """Finds the images of `directory/train/CLASS/` and `directory/test/CLASS/`.

    Classes are numbered in the order of their names, images in the order of theirs. Files
    other than BMP, JPEG and PNG are passed over.

    Args:
        directory: the one that holds `train` and `test`.
        image_size: side to which every image is resized, whatever its own shape.
        resize: how, see `jaxlt.data.sources.resampling`.

    Returns:
        Images of shape (image_size, image_size, 3).

    Raises:
        UsageError: a directory is missing, a class has no image, or the test set has a class
            that the training set lacks.
    """
    train = _list_images(directory / "train")
    test = _list_images(directory / "test")
    if unknown := sorted(set(test) - set(train)):
        raise UsageError(
            f"image folder {directory / 'test'} has class {unknown[0]!r}, "
            f"which {directory / 'train'} lacks"
        )
    class_names = tuple(train)
    return LoadedImages(
        class_names,
        _file_images(train, class_names, image_size, resize),
        _file_images(test, class_names, image_size, resize),
    )


def _list_images(directory: Path) -> dict[str, list[str]]:
    if not directory.is_dir():
        raise UsageError(f"image folder {directory} does not exist or is no directory")
    classes = sorted(path for path in directory.iterdir() if path.is_dir())
    if not classes:
        raise UsageError(f"image folder {directory} must hold one directory a class, it has none")
    files = {path.name: _image_files(path) for path in classes}
    if empty := [name for name, paths in files.items() if not paths]:
        raise UsageError(
            f"class directory {directory / empty[0]} must hold a "
            f"{', '.join(sorted(_SUFFIXES))} image, it has none"
        )
    return files


def _image_files(directory: Path) -> list[str]:
    return sorted(str(path) for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES)


def _file_images(
    files: dict[str, list[str]], class_names: tuple[str, ...], image_size: int, resize: Resize
) -> FileImages:
    paths = [path for name in class_names for path in files.get(name, [])]
    sizes = [len(files.get(name, [])) for name in class_names]
    labels = np.repeat(np.arange(len(class_names)), sizes)
    return FileImages(paths, labels, image_size, resize)
