"""Image files in one directory a class."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.sources.array_images import SharedTensor
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_files import (
    class_images,
    log_passed_over,
    subdirectories,
)
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import Resize
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

# What the parts of a set are called, in any case.
_PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}

_logger = logging.getLogger(__name__)


class FileImages(EncodedImages):
    """Image files, one path for each image; see `EncodedImages` for the other arguments."""

    def __init__(
        self, paths: Sequence[str], labels: np.ndarray, image_size: int, resize: Resize
    ) -> None:
        super().__init__(labels, image_size, resize)
        self.names = paths
        # Bytes: a file system has names that are no UTF-8. (An empty list would be of numbers.)
        self._paths = SharedTensor(np.array([os.fsencode(path) for path in paths], object))

    def contents(self, number: tf.Tensor) -> tf.Tensor:
        """Reads the file of a number, scalar tensors both."""
        tf = import_tensorflow()
        return tf.io.read_file(tf.gather(self._paths.tensor, number))

    def name(self, number: int) -> str:
        """Returns the path."""
        return self.names[number]


def load_folder(directory: Path, image_size: int, resize: Resize = "stretch") -> LoadedImages:
    """Finds the images of `directory/train/CLASS/` and, where they are, of `val/` and `test/`.

    Without `train`, the directories in `directory` are the classes of training images. Classes are
    numbered in the order of their names, their images in that of their paths, also in further
    directories. What is no image file is passed over, and the log says so, see `image_files`.

    Args:
        directory: holds `train`, `val` and `test`, or the classes.
        image_size: side of the square to which every image is resized, whatever its own shape.
        resize: how, see `jaxlt.data.sources.resampling`.

    Raises:
        UsageError: a directory is missing or cannot be read, a class has no image or no name in
            UTF-8, or another part has a class that the training part lacks.
    """
    passed_over: Counter[str] = Counter()
    places = _parts(directory, passed_over)
    parts: dict[str, dict[str, list[Path]]] = {}
    for part, place in places.items():
        folders, beside = subdirectories(place, "a class")
        passed_over += beside
        parts[part] = {}
        for folder in folders:
            found = class_images(folder)
            passed_over += found.passed_over
            parts[part][folder.name] = found.paths
    train = parts["train"]
    _check_classes(directory, places, parts)
    log_passed_over(directory, passed_over)
    class_names = tuple(train)

    def images_of(files: dict[str, list[Path]]) -> FileImages:
        paths = [str(path) for name in class_names for path in files.get(name, [])]
        sizes = [len(files.get(name, [])) for name in class_names]
        labels = np.repeat(np.arange(len(class_names)), sizes)
        return FileImages(paths, labels, image_size, resize)

    val = images_of(parts["val"]) if "val" in parts else None
    return LoadedImages(class_names, images_of(train), images_of(parts.get("test", {})), val)


def _parts(directory: Path, passed_over: Counter[str]) -> dict[str, Path]:
    """Returns the directories of the parts there are; of the training part alone, itself."""
    inside, beside = subdirectories(directory, "a class, or train")
    places: dict[str, Path] = {}
    for part, names in _PARTS.items():
        named = [path for path in inside if path.name.lower() in names]
        if len(named) > 1:
            got = " and ".join(path.name for path in named)
            raise UsageError(f"image folder {directory} must hold one {part}, got {got}")
        if named:
            places[part] = named[0]
    if not places and len(inside) == 1:
        raise UsageError(
            f"image folder {directory} must hold a directory for each of two classes or more, got "
            f"{inside[0].name} alone; if train or the classes are in it, give folder:{inside[0]}"
        )
    if not places:
        return {"train": directory}
    if "train" not in places:
        first = next(iter(places.values())).name
        raise UsageError(
            f"image folder {directory} must hold train beside {first}, or classes alone, got none"
        )
    passed_over += beside
    others = [path.name for path in inside if path not in places.values()]
    passed_over.update(f"directory {name}" for name in others)
    return places


def _check_classes(
    directory: Path, places: dict[str, Path], parts: dict[str, dict[str, list[Path]]]
) -> None:
    """Raises UsageError for classes that have no name or no training image; logs nested images."""
    for part, classes in parts.items():
        for name in classes:
            if name not in parts["train"]:
                raise UsageError(
                    f"image folder {places[part]} must have the classes of {places['train']}, "
                    f"got {name!r}"
                )
            if not _is_text(name):
                raise UsageError(
                    f"class directory {places[part] / name} must have a name in UTF-8, as a run's "
                    "files are; rename it"
                )
    nested = sum(
        path.parent != places[part] / name
        for part, classes in parts.items()
        for name, paths in classes.items()
        for path in paths
    )
    if nested:
        _logger.info(
            "%s: %d images lie in directories of a class and count as of that class",
            directory,
            nested,
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
