"""The lines of a list file, `relative/path label` each: what they say, and which are bad."""

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

from jaxlt.data.sources.image_files import holds
from jaxlt.errors import UsageError, first_few, in_one_line
from jaxlt.files.foreign_files import read_utf8

_logger = logging.getLogger(__name__)

_REPORTED = 5
# A part of the path that is empty (so an absolute path), . or ..
_STRANGE_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_OTHER_FORM = ", whose accents are of another form of Unicode there"
_BACKSLASH = "; write / in place of \\"


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
    comma, is the label; all before it is the path, without a `./` at its head. Quotation marks may
    surround both as in CSV. A line is bad without either, with a label that is no number, or with a
    path that is absolute, has a part `.` or `..`, or came before. A `UsageError` says that the file
    cannot be read, is not UTF-8 or has no image.
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
            heading = "" if good or bad else "; if this is a heading, remove it"
            bad.append(BadLine(path, number, _reason(image, label, good, heading)))
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
    return _unquoted(image).removeprefix("./"), _unquoted(label)


def _unquoted(word: str) -> str:
    is_quoted = len(word) > 1 and word[0] == word[-1] == '"'
    return word[1:-1].replace('""', '"') if is_quoted else word


def _reason(image: str, label: str, good: dict[str, tuple[int, int]], heading: str) -> str:
    if not image:
        return f"must have a path and a label, got {label!r}{heading}"
    if not _NUMBER.fullmatch(label):
        return f"label must be a number, got {label!r}{heading}"
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
