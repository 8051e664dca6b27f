"""Sources given by list files, one `relative/path label` a line: ImageNet-LT and others like it."""

import dataclasses
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import numpy as np

from jaxlt.data.sources.folder import FileImages
from jaxlt.data.sources.image_files import holds
from jaxlt.data.sources.image_set import LoadedImages
from jaxlt.data.sources.resampling import Resize
from jaxlt.errors import UsageError, first_few, in_one_line
from jaxlt.files.directory import expanded
from jaxlt.files.foreign_files import read_utf8

_logger = logging.getLogger(__name__)

_PARTS = (("train",), ("train", "test"), ("train", "val", "test"), ("train", "val", "test", "open"))
_REPORTED = 5
# A part of the path that is empty (so an absolute path), . or ..
_STRANGE_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_OTHER_FORM = ", whose accents are of another form of Unicode there"
_BACKSLASH = "; write / in place of \\"
# A part of a specification between commas, or in quotation marks.
_PLACE = re.compile(r'(?:\A|,)(?:"((?:[^"]|"")*)"(?=,|\Z)|([^,]*))')


class BadLine(NamedTuple):
    """A line that cannot be used, and why."""

    file: Path
    line: int
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class ListFile:
    """The good lines of a list file: images below the root, int32 labels, and numbers from 1."""

    path: Path
    images: list[str]
    labels: np.ndarray
    lines: np.ndarray

    def bad_line(self, number: int, reason: str) -> BadLine:
        """Returns the line of an image, by its place in `images`, as one that cannot be used."""
        return BadLine(self.path, int(self.lines[number]), reason)


def read_list(path: Path) -> tuple[ListFile, list[BadLine]]:
    """Returns the good and the bad lines of a list file.

    Lines end with LF or CRLF; blank lines are passed over. The last word, behind a blank or a
    comma, is the label; all before it is the path. Quotation marks may surround both as in CSV. A
    line is bad without either, with a label that is no number, or with a path that is absolute, has
    a part `.` or `..`, or came before. A `UsageError` says that the file cannot be read, is not
    UTF-8 or has no image.
    """
    try:
        text = read_utf8(path)
    except OSError as error:
        raise UsageError(f"list file {path} must be readable: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"list file {path} must be UTF-8 text: {error}") from error
    good: dict[str, tuple[int, int]] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not (line := line.strip()):
            continue
        image, label = _image_and_label(line)
        if image and _NUMBER.fullmatch(label) and image not in good:
            good[image] = (int(label), number)
        else:
            bad.append(BadLine(path, number, _reason(image, label, good)))
    for image in [image for image in good if _STRANGE_PART.search(image)]:
        _, number = good.pop(image)
        reason = f"path must be relative and without . or .., got {image!r}"
        bad.append(BadLine(path, number, reason))
    if not good and not bad:
        raise UsageError(f"list file {path} must have a line for each image, got none")
    pairs = np.array(list(good.values()), np.int32).reshape(-1, 2)
    return ListFile(path, list(good), pairs[:, 0], pairs[:, 1]), bad


def _image_and_label(line: str) -> tuple[str, str]:
    end = max(line.rfind(" "), line.rfind("\t"))
    comma = line.rfind(",")
    if comma > end and _NUMBER.fullmatch(_unquoted(line[comma + 1 :])):
        end = comma
    image, label = line[: max(end, 0)].rstrip(" \t"), line[end + 1 :]
    # A comma and a blank may follow the quotation marks.
    image = image[:-1] if image.startswith('"') and image.endswith('",') else image
    return _unquoted(image), _unquoted(label)


def _unquoted(word: str) -> str:
    is_quoted = len(word) > 1 and word[0] == word[-1] == '"'
    return word[1:-1].replace('""', '"') if is_quoted else word


def _reason(image: str, label: str, good: dict[str, tuple[int, int]]) -> str:
    if not image:
        return f"must have a path and a label, got {label!r}"
    if not _NUMBER.fullmatch(label):
        return f"label must be a number, got {label!r}"
    return f"path must be new, got {image!r} of line {good[image][1]}"


def outside_labels(listed: ListFile, low: int, high: int) -> list[BadLine]:
    """Returns the lines whose label is not in low..high."""
    outside = np.flatnonzero((listed.labels < low) | (listed.labels > high)).tolist()
    must = f"be {low}" if low == high else f"lie in {low}..{high}"
    return [listed.bad_line(i, f"label must {must}, got {listed.labels[i]}") for i in outside]


def missing_images(root: Path, listed: ListFile) -> list[BadLine]:
    """Returns the lines whose image is no file below `root`, with one look at each directory.

    Symbolic links below the root are followed: data sets are composed of them, and whoever wrote
    the list cannot have made one.
    """
    by_directory: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for number, image in enumerate(listed.images):
        directory, _, name = image.rpartition("/")
        by_directory[directory].append((name, number))
    missing: list[BadLine] = []
    for directory, images in by_directory.items():
        try:
            with os.scandir(root / directory) as entries:
                files = {entry.name for entry in entries if holds(entry.is_file)}
        except (OSError, ValueError):
            files = set[str]()
        absent = [(name, number) for name, number in images if name not in files]
        # Some systems write an accent as a letter of its own.
        forms = {normalize("NFC", name) for name in files} if absent else ()
        for name, number in absent:
            image = listed.images[number]
            hint = _OTHER_FORM * (normalize("NFC", name) in forms) + _BACKSLASH * ("\\" in image)
            reason = f"image must be a file, got {root / image}{hint}"
            missing.append(listed.bad_line(number, reason))
    return missing


def refuse(bad: Iterable[BadLine]) -> None:
    """Raises one `UsageError` that counts all bad lines and shows the first, if there are any.

    Where there are more than it shows, all of them are logged before, each with file and line.
    """
    lines = sorted(bad, key=lambda x: (str(x.file), x.line))
    told = [f"{x.file}:{x.line} {x.reason}" for x in lines]
    above = ", see above" * (len(told) > _REPORTED)
    for line in told if above else ():
        _logger.error("%s", in_one_line(line))
    if told:
        shown = f"{first_few(told, _REPORTED, '; ')}{above}"
        got = f"{len(told)} bad line{'s' * (len(told) > 1)}"
        raise UsageError(f"list files must have no bad line, got {got}: {shown}")


def class_names(listed: ListFile) -> tuple[str, ...]:
    """Names each class after the directory of its images.

    The name is the last part of the directory that all images of the class share, or as many of
    the last parts as tell it from other classes. A class whose images lie in several directories,
    or in one with another class's, is named by its label. If two names are still the same, all
    labels are the names.
    """
    directories: defaultdict[int, set[str]] = defaultdict(set)
    for image, label in zip(listed.images, listed.labels.tolist(), strict=True):
        directories[label].add(image.rpartition("/")[0])
    owners = Counter(directory for owned in directories.values() for directory in owned)
    endings = {
        label: _endings(*owned)
        for label, owned in directories.items()
        if len(owned) == 1 and all(x and owners[x] == 1 for x in owned)
    }
    takers = Counter(ending for endings_of_class in endings.values() for ending in endings_of_class)
    names = {
        label: next((x for x in of_class if takers[x] == 1), of_class[-1])
        for label, of_class in endings.items()
    }
    labels = range(len(directories))
    chosen = tuple(names.get(label, str(label)) for label in labels)
    # A directory may be called as another class's label.
    return chosen if len(set(chosen)) == len(chosen) else tuple(map(str, labels))


def _endings(directory: str) -> list[str]:
    """Returns the last part of a directory, the last two parts, and so on to all of it."""
    parts = directory.split("/")
    return ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]


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
        raise UsageError(f"source must be {forms}, got {form.partition(':')[0]}:{place}")
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
