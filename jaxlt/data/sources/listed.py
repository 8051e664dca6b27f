"""Sources given by list files, one `relative/path label` a line: ImageNet-LT and others like it."""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxlt.data.sources.folder import FileImages
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.list_lines import (
    BadLine,
    ListFile,
    class_names,
    missing_images,
    outside_labels,
    read_list,
    refuse,
)
from jaxlt.data.sources.resampling import Resize
from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded

_PARTS = (("train",), ("train", "test"), ("train", "val", "test"), ("train", "val", "test", "open"))
# A part of a specification between commas, or in quotation marks.
_PLACE = re.compile(r'(?:\A|,)(?:"((?:[^"]|"")*)"(?=,|\Z)|([^,]*))')


class ListedImages(FileImages):
    """Image files of a list, which messages name by their lines."""

    def __init__(self, root: Path, listed: ListFile, image_size: int, resize: Resize) -> None:
        paths = [f"{root}/{image}" for image in listed.images]
        super().__init__(paths, listed.labels, image_size, resize)
        self._listed = listed

    def name(self, number: int) -> str:
        """Returns the list file, the line in it and the path."""
        return f"{self._listed.path}:{self._listed.lines[number]} {super().name(number)}"


def load_listed(place: str, image_size: int, resize: Resize) -> LoadedImages:
    """Loads the images that the official list files of a long-tailed set name.

    There are as many classes as the largest training label says, named by `class_names`. Every file
    must exist; whether it can be decoded is not checked, see `ImageSet.undecodable`.

    Args:
        place: ROOT,TRAIN or ROOT,TRAIN,TEST or ROOT,TRAIN,VAL,TEST or ROOT,TRAIN,VAL,TEST,OPEN:
            the directory to which paths in the lists are relative, and the list files; one with
            a comma in quotation marks. All labels in OPEN are -1. Without TEST there are no test
            images.
        image_size: side to which every image is brought, whatever its own shape.
        resize: how, see `jaxlt.data.sources.resampling`.

    Raises:
        UsageError: `place` is of another form, a list cannot be read, lines are bad, or a class
            has no training image.
    """
    root = expanded(named := _places(place)[0])
    if named and not root.is_dir():
        raise UsageError(f"root of dataset list:{place} must be a directory, got {named}")
    _, lists, bad = read_lists("list:ROOT", place)
    for listed in lists.values():
        bad += missing_images(root, listed)
    refuse(bad)
    sets = {part: ListedImages(root, listed, image_size, resize) for part, listed in lists.items()}
    return LoadedImages(class_names(lists["train"]), **sets)


def _places(place: str) -> list[str]:
    """Splits a specification at its commas, but for those in quotation marks."""
    return [quoted.replace('""', '"') or plain for quoted, plain in _PLACE.findall(place)]


def read_lists(form: str, place: str) -> tuple[str, dict[str, ListFile], list[BadLine]]:
    """Reads the list files of a `place`, see `load_listed`, which begins with `form` in messages.

    Returns where the images are, the lists by the names of `LoadedImages`, and the bad lines of
    all: those of `read_list`, and those whose label is outside those of the training list (-1 in
    OPEN) or above one that no training image has, or whose image is in the training list too.
    """
    images, *names = _places(place)
    if not images or not 1 <= len(names) <= len(_PARTS) or not all(names):
        forms = " or ".join(",".join((form, *map(str.upper, parts))) for parts in _PARTS)
        got = f"{form.partition(':')[0]}:{place}; put a part with a comma in quotation marks"
        raise UsageError(f"source must be {forms}, got {got}")
    lists, bad = {}, []
    for part, name in zip(_PARTS[len(names) - 1], names, strict=True):
        lists[part], wrong = read_list(expanded(name))
        bad += wrong
    if "test" not in lists:
        none = np.zeros(0, np.int32)
        lists["test"] = ListFile(lists["train"].path, [], none, none)
    return images, lists, bad + _wrong_labels(lists, bad) + _also_trained_on(lists)


def _wrong_labels(lists: dict[str, ListFile], before: Iterable[BadLine]) -> list[BadLine]:
    train = lists["train"]
    lost = sum(line.file == train.path for line in before)
    # Every class needs an image, so no label can be as large as the number of images.
    bad = outside_labels(train, 0, max(len(train.labels) + lost - 1, 0))
    # Which classes have none is not known before all lines are good.
    if bad or lost:
        return bad
    highest = int(train.labels.max())
    empty = np.flatnonzero(np.bincount(train.labels) == 0)
    if len(empty):
        reason = (
            f"label must have all from 0 on below it in the list, got {highest} and no {empty[0]}"
        )
        bad.append(train.bad_line(int(train.labels.argmax()), reason))
    for part, listed in lists.items():
        if part != "train":
            low, high = (-1, -1) if part == "open" else (0, highest)
            bad += outside_labels(listed, low, high)
    return bad


def _also_trained_on(lists: dict[str, ListFile]) -> list[BadLine]:
    trained = set(lists["train"].images)
    return [
        listed.bad_line(i, f"path must not be in the training list, got {image!r}")
        for part, listed in lists.items()
        if part != "train"
        for i, image in enumerate(listed.images)
        if image in trained
    ]
