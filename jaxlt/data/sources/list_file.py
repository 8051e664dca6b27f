"""List files of the published long-tailed sets: one `relative/path label` a line."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
from collections import defaultdict
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
# NumPy would read +1 and 1_0 too.
_SIGNED_DIGITS = re.compile(r"[-0-9]+")
_LONGEST_NUMBER = 10


class BadLine(NamedTuple):
    """A line that cannot be used, and why."""

    file: Path
    line: int
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class ListFile:
    """The good lines of a list file.

    Attributes:
        path: of the file.
        images: the path of each image, relative to the root.
        labels: int32 array (N,).
        lines: int32 array (N,), numbers of the lines, counted from 1.
    """

    path: Path
    images: list[str]
    labels: np.ndarray
    lines: np.ndarray

    def bad_line(self, number: int, reason: str) -> BadLine:
        """Returns the line of an image, as one that cannot be used for a reason."""
        return BadLine(self.path, int(self.lines[number]), reason)


def read_list(path: Path) -> tuple[ListFile, list[BadLine]]:
    """Returns the good and the bad lines of a list file.

    Lines end with LF or CRLF; blank lines are passed over. A line is bad without a label or with
    more than that, with a label that is no number, or with a path that is absolute, has a part `.`
    or `..`, or came before. No image is looked for, and labels may be any integers: see
    `missing_images` and `outside_labels`. Half a million lines take less than a second.

    Raises:
        UsageError: the file cannot be read, is not UTF-8 or has no image.
    """
    try:
        text = read_utf8(path)
    except OSError as error:
        raise UsageError(f"list file {path} must be readable: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"list file {path} must be UTF-8 text: {error}") from error
    listed = _parse_flawless(path, text)
    return (listed, []) if listed else _parse_lines(path, text)


def _parse_flawless(path: Path, text: str) -> ListFile | None:
    """Parses a file without bad or blank lines, three times as fast as line by line."""
    text = text.replace("\r\n", "\n").removesuffix("\n")
    words = text.split()
    images, numbers = words[::2], words[1::2]
    if (
        len(images) != len(numbers)
        or len(set(images)) < len(images)
        or any(strange in text for strange in ("//", "/.", "\n.", "\n/", "/ "))
        or text.startswith((".", "/"))
        or "\n".join(map(" ".join, zip(images, numbers, strict=True))) != text
        or not _SIGNED_DIGITS.fullmatch("".join(numbers))
        # NumPy would make room for the longest in each of them.
        or max(map(len, numbers)) > _LONGEST_NUMBER
    ):
        return None
    try:
        labels = np.array(numbers, np.bytes_).astype(np.int32)
    except (ValueError, OverflowError):
        return None
    return ListFile(path, images, labels, np.arange(1, len(images) + 1, dtype=np.int32))


def _parse_lines(path: Path, text: str) -> tuple[ListFile, list[BadLine]]:
    good: dict[str, tuple[int, int]] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if len(words) == 2 and _NUMBER.fullmatch(words[1]) and words[0] not in good:
            good[words[0]] = (int(words[1]), number)
        elif words:
            bad.append(BadLine(path, number, _reason(words, good)))
    strange = [image for image in good if _STRANGE_PART.search(image)]
    for image in strange:
        _, number = good.pop(image)
        reason = f"path must be relative and without . or .., got {image!r}"
        bad.append(BadLine(path, number, reason))
    if not good and not bad:
        raise UsageError(f"list file {path} must have a line for each image, got none")
    pairs = np.array(list(good.values()), np.int32).reshape(-1, 2)
    return ListFile(path, list(good), pairs[:, 0], pairs[:, 1]), bad


def _reason(words: Sequence[str], good: dict[str, tuple[int, int]]) -> str:
    if len(words) == 1:
        return f"must have a path and a label, got {words[0]!r}"
    if len(words) > 2:
        return f"must have a path and a label, got {len(words)} words"
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
        files = _files(root / directory)
        missing += [number for name, number in images if name not in files]
    return [
        BadLine(
            listed.path,
            int(listed.lines[i]),
            f"image must be a file, got {root / listed.images[i]}",
        )
        for i in missing
    ]


def _files(directory: Path) -> frozenset[str]:
    try:
        with os.scandir(directory) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except (OSError, ValueError):
        return frozenset()


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
    noun = "line" if len(lines) == 1 else "lines"
    raise UsageError(
        f"list files must have no bad line, got {len(lines)} bad {noun}: {shown}{more}"
    )


def class_names(listed: ListFile) -> tuple[str, ...]:
    """Names each class after the directory of its images.

    The name is the last part of the directory that all images of the class share, or as many of
    the last parts as tell it from other classes. A class whose images lie in several directories,
    or in one with another class's, is named by its label. If two names are still the same, all
    labels are the names. `listed` has training images, with labels from 0 on.
    """
    directories = [image.rpartition("/")[0] for image in listed.images]
    owners: dict[str, int] = {}
    shared: dict[int, str] = {}
    ambiguous: set[int] = set()
    for directory, label in zip(directories, listed.labels.tolist(), strict=True):
        owner = owners.setdefault(directory, label)
        if owner != label:
            ambiguous |= {owner, label}
        if shared.setdefault(label, directory) != directory:
            ambiguous.add(label)
    parts = {
        label: directory.split("/")
        for label, directory in shared.items()
        if directory and label not in ambiguous
    }
    names = {label: str(label) for label in shared}
    names |= _shortest_distinct(parts)
    if len(set(names.values())) < len(names):  # a directory is called as another class's label
        names = {label: str(label) for label in names}
    return tuple(names[label] for label in range(len(names)))


def _shortest_distinct(parts: dict[int, list[str]]) -> dict[int, str]:
    names: dict[int, str] = {}
    depth = 1
    while len(names) < len(parts):
        takers: defaultdict[str, list[int]] = defaultdict(list)
        for label, words in parts.items():
            takers["/".join(words[-depth:])].append(label)
        for name, labels in takers.items():
            if len(labels) == 1:
                names.setdefault(labels[0], name)
        depth += 1
    return names
