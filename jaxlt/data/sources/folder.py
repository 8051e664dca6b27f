"""Image files in one directory a class."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxlt.data.sources.array_images import SharedTensor
from jaxlt.data.sources.encoded_images import EncodedImages
from jaxlt.data.sources.image_files import (
    SearchedPlaces,
    check_apart,
    class_images,
    class_name,
    images_below,
    log_passed_over,
    subdirectories,
)
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import Resize
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError, first_few

if TYPE_CHECKING:
    import tensorflow as tf

PARTS = {
    "train": ("train", "training"),
    "val": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""What sets call their parts, in small letters, the usual name first."""
# Behind them in longer names, such as trainval and testset.
_SET = "(val|sets?|data|images?)?"
_UNLABELED = (
    "; move or rename {} if its images have no class: python3 -m experiments.predict RUN DIR "
    "classifies them"
)

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
            name in UTF-8, another part has a class that the training part lacks, or the classes
            seem to lie a directory deeper.
    """
    passed_over: Counter[str] = Counter()
    places = _parts(directory, passed_over)
    folders: dict[str, list[Path]] = {}
    for part, place in places.items():
        if part != "train" and not images_below(place).paths:
            passed_over[f"directory {place.name} without images"] += 1
            continue
        remedy = "" if part == "train" else _UNLABELED.format(place.name)
        of_part, beside = subdirectories(place, "a class", remedy)
        folders[part] = sorted(of_part, key=class_name)
        passed_over += beside
    for part, of_part in folders.items():
        # Validation and test images may be the same.
        check_apart(of_part if part == "train" else [*folders["train"], *of_part])
    searched = SearchedPlaces(itertools.chain.from_iterable(folders.values()))
    class_names = tuple(map(class_name, folders["train"]))
    _say_alike(directory, class_names)
    known, nested = set(class_names), 0
    parts: dict[str, defaultdict[str, list[Path]]] = {}
    for part, of_part in folders.items():
        parts[part] = defaultdict(list)
        for folder in of_part:
            found = class_images(folder, searched, may_be_empty=part != "train")
            passed_over += found.passed_over
            nested += sum(path.parent != folder for path in found.paths)
            if (name := class_name(folder)) not in known:
                raise UsageError(
                    f"image folder {places[part]} must have the classes of {places['train']}, got "
                    f"{name!r}"
                )
            parts[part][name] += found.paths
        if part == "train" and nested == sum(map(len, parts[part].values())):
            _check_depth(directory, places[part], of_part)
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
    if not places:
        return {"train": directory}
    if "train" not in places:
        first = next(iter(places.values())).name
        raise UsageError(
            f"image folder {directory} must hold train beside {first}, or classes alone, got none; "
            f"rename {first} if it is a class"
        )
    passed_over += beside
    others = [path for path in inside if path not in places.values()]
    # With val or test beside it, train is a part.
    filled = [path.name for path in others if len(places) == 1 and images_below(path).paths]
    if filled:
        train = places["train"].name
        raise UsageError(
            f"image folder {directory} must hold no images beside {train} alone, got those of "
            f"{first_few(filled)}; rename {train} if it is a class, or move out what is none"
        )
    passed_over.update(f"directory {path.name}" for path in others)
    return places


def _check_depth(directory: Path, place: Path, folders: Sequence[Path]) -> None:
    """Raises UsageError where class directories without images of their own seem to be no classes.

    Classes may have further directories, also of the same names.
    """
    if len(folders) == 1:
        remedy = f"train or the classes are in it, give folder:{folders[0]}"
        if place != directory:
            remedy = f"the classes are in it, move them up into {place}"
        raise UsageError(
            f"image folder {place} must hold a directory for each of two classes or more, got "
            f"{folders[0].name} alone; if {remedy}"
        )
    words = [word for folder in folders for word in re.findall("[a-z]+", folder.name.lower())]
    named = {
        part: any(re.fullmatch(f"({'|'.join(names)}){_SET}", word) for word in words)
        for part, names in PARTS.items()
    }
    if named["train"] and (named["val"] or named["test"]):
        got = first_few([folder.name for folder in folders])
        raise UsageError(
            f"image folder {place} must hold a directory a class, got {got}, none with an image of "
            "its own; rename them train, val and test, or otherwise if they are classes"
        )


def _say_alike(directory: Path, names: Sequence[str]) -> None:
    """Warns of classes whose names a reader could take for one; UsageError if two are the same."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[name.strip().casefold()].append(name)
    for some in alike.values():
        if len(set(some)) < len(some):
            raise UsageError(
                f"classes of {directory} must have different names, got two called {some[0]}, in "
                "two forms of its accents; move the images of one to the other"
            )
        if len(some) > 1:
            _logger.warning(
                "%s: %s are different classes, though their names differ in case or blanks alone",
                directory,
                " and ".join(map(repr, some)),
            )
