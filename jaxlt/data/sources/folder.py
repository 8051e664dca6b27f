"""Image files in one directory a class."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

import numpy as np

from jaxlt.data.sources.array_images import SharedTensor
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_files import (
    SearchedPlaces,
    check_apart,
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

PARTS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What sets call their parts, in small letters, the usual name first."""

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
        UsageError: a directory is missing or cannot be read, a class has no training image or no
            name in UTF-8, or another part has a class that the training part lacks.
    """
    passed_over: Counter[str] = Counter()
    places = _parts(directory, passed_over)
    folders: dict[str, list[Path]] = {}
    for part, place in places.items():
        folders[part], beside = subdirectories(place, "a class")
        passed_over += beside
    for part, of_part in folders.items():
        # Validation and test images may be the same.
        check_apart(of_part if part == "train" else [*folders["train"], *of_part])
    searched = SearchedPlaces(itertools.chain.from_iterable(folders.values()))
    class_names = tuple(folder.name for folder in folders["train"])
    known, nested = set(class_names), 0
    parts: dict[str, defaultdict[str, list[Path]]] = {}
    for part, of_part in folders.items():
        parts[part] = defaultdict(list)
        for folder in of_part:
            found = class_images(folder, searched, may_be_empty=part != "train")
            passed_over += found.passed_over
            nested += sum(path.parent != folder for path in found.paths)
            parts[part][_known_name(folder, known, places["train"])] += found.paths
    _say_alike(directory, class_names)
    if nested:
        told = "%s: %d images lie in directories of a class and count as of that class"
        _logger.info(told, directory, nested)
    log_passed_over(directory, passed_over)

    def images_of(files: Mapping[str, list[Path]]) -> FileImages:
        paths = [str(path) for name in class_names for path in files.get(name, [])]
        sizes = [len(files.get(name, [])) for name in class_names]
        labels = np.repeat(np.arange(len(class_names)), sizes)
        return FileImages(paths, labels, image_size, resize)

    val = images_of(parts["val"]) if any(parts.get("val", {}).values()) else None
    return LoadedImages(
        class_names, images_of(parts["train"]), images_of(parts.get("test", {})), val
    )


def _parts(directory: Path, passed_over: Counter[str]) -> dict[str, Path]:
    """Returns the directories of the parts there are; of the training part alone, itself."""
    inside, beside = subdirectories(directory, "a class, or train")
    places: dict[str, Path] = {}
    for part, names in PARTS.items():
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
            f"image folder {directory} must hold train beside {first}, or classes alone, got none; "
            f"rename {first} if it is a class"
        )
    passed_over += beside
    others = [path.name for path in inside if path not in places.values()]
    passed_over.update(f"directory {name}" for name in others)
    return places


def _known_name(folder: Path, known: Collection[str], train: Path) -> str:
    """Returns a class's name as the training part has it: file systems differ in accents."""
    if folder.name.encode(errors="ignore").decode() != folder.name:
        raise UsageError(
            f"class directory {folder} must have a name in UTF-8, as a run's files are; rename it"
        )
    if folder.name in known:
        return folder.name
    form = normalize("NFC", folder.name)
    alike = [name for name in known if normalize("NFC", name) == form]
    if len(alike) != 1:
        raise UsageError(
            f"image folder {folder.parent} must have the classes of {train}, got {folder.name!r}"
        )
    return alike[0]


def _say_alike(directory: Path, names: Iterable[str]) -> None:
    """Warns of classes whose names a reader could take for one."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[normalize("NFC", name).strip().casefold()].append(name)
    for some in alike.values():
        if len(some) > 1:
            _logger.warning(
                "%s: %s are different classes, though their names differ in case, blanks or the "
                "form of accents alone",
                directory,
                " and ".join(map(repr, some)),
            )
