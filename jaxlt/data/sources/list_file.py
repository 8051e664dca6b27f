"""List files of the published long-tailed sets: one `relative/path label` a line."""

import dataclasses
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import read_utf8

_logger = logging.getLogger(__name__)

_REPORTED = 5
# A part of the path that is empty (so an absolute path), . or ..
_STRANGE_PART = re.compile(r"(?:^|/)\.{0,2}(?:/|$)")
_NUMBER = re.compile(r"-?[0-9]{1,9}")


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

    Lines end with LF or CRLF; blank lines are passed over. A line is bad without a label or with
    more than that, with a label that is no number, or with a path that is absolute, has a part `.`
    or `..`, or came before. A `UsageError` says that the file cannot be read, is not UTF-8 or has
    no image.
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
        words = line.split()
        if len(words) == 2 and _NUMBER.fullmatch(words[1]) and words[0] not in good:
            good[words[0]] = (int(words[1]), number)
        elif words:
            bad.append(BadLine(path, number, _reason(words, good)))
    for image in [image for image in good if _STRANGE_PART.search(image)]:
        _, number = good.pop(image)
        reason = f"path must be relative and without . or .., got {image!r}"
        bad.append(BadLine(path, number, reason))
    if not good and not bad:
        raise UsageError(f"list file {path} must have a line for each image, got none")
    pairs = np.array(list(good.values()), np.int32).reshape(-1, 2)
    return ListFile(path, list(good), pairs[:, 0], pairs[:, 1]), bad


def _reason(words: Sequence[str], good: dict[str, tuple[int, int]]) -> str:
    if len(words) != 2:
        got = repr(words[0]) if len(words) == 1 else f"{len(words)} words"
        return f"must have a path and a label, got {got}"
    if not _NUMBER.fullmatch(words[1]):
        return f"label must be a number, got {words[1]!r}"
    return f"path must be new, got {words[0]!r} of line {good[words[0]][1]}"


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
    missing = []
    for directory, images in by_directory.items():
        try:
            with os.scandir(root / directory) as entries:
                files = {entry.name for entry in entries if entry.is_file()}
        except (OSError, ValueError):
            files = set[str]()
        missing += [number for name, number in images if name not in files]
    return [
        listed.bad_line(i, f"image must be a file, got {root / listed.images[i]}") for i in missing
    ]


def refuse(bad: Iterable[BadLine]) -> None:
    """Raises one `UsageError` that counts all bad lines and shows the first, if there are any.

    Where there are more than it shows, all of them are logged before, each with file and line.
    """
    lines = sorted(bad, key=lambda x: (str(x.file), x.line))
    if not lines:
        return
    shown = "; ".join(f"{x.file}:{x.line} {x.reason}" for x in lines[:_REPORTED])
    more = ""
    if len(lines) > _REPORTED:
        more = f"; and {len(lines) - _REPORTED} more, see above"
        for x in lines:
            _logger.error("%s:%d %s", x.file, x.line, x.reason)
    got = f"{len(lines)} bad {'line' if len(lines) == 1 else 'lines'}"
    raise UsageError(f"list files must have no bad line, got {got}: {shown}{more}")


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
