"""Which files are images: their suffixes, what is passed over, and the line that says so."""

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxlt.errors import UsageError

_logger = logging.getLogger(__name__)

# Of the formats that `decoding` reads, in any case.
SUFFIXES = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm"}
    | {".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
# What file systems, notebooks and network drives leave beside the images; in small letters.
_CLUTTER = frozenset(
    {"__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information"}
    | {"lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
_NAMED = 6


class FoundImages(NamedTuple):
    """Image files below a directory, sorted by their path there, and what else lies there.

    Attributes:
        paths: the images.
        passed_over: how many files of each suffix are no images, and of each name are clutter.
    """

    paths: list[Path]
    passed_over: Counter[str]


def is_clutter(name: str) -> bool:
    """Whether a file or directory is hidden, or left there by a system and no one's data.

    Example:
        >>> from jaxlt.data.sources.image_files import is_clutter
        >>> [is_clutter(name) for name in ("._a.jpg", "Thumbs.db", "a.jpg")]
        [True, True, False]
    """
    return name.startswith(".") or name.lower() in _CLUTTER


def images_below(directory: Path) -> FoundImages:
    """Finds the image files of a directory and of the directories in it.

    Symbolic links are followed, to each directory once. A `UsageError` names a directory that
    cannot be read.
    """
    paths: list[Path] = []
    passed_over: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        status = current.stat()
        # A link may lead back to where it lies.
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            folders, files = _split(current, passed_over)
            waiting += reversed(folders)
            paths += files
    return FoundImages(sorted(paths, key=lambda path: path.parts), passed_over)


def subdirectories(directory: Path, what: str) -> tuple[list[Path], Counter[str]]:
    """Returns the directories, each for `what`, sorted, and what else lies there.

    A `UsageError` says that there are none.
    """
    if not directory.is_dir():
        got = "a file" if directory.exists() else "none"
        raise UsageError(f"image folder {directory} must be a directory, got {got}")
    passed_over: Counter[str] = Counter()
    folders, files = _split(directory, passed_over)
    passed_over.update(f"{path.suffix.lower()} beside the directories" for path in files)
    if not folders:
        got = ", ".join(_counted(passed_over)) or "none"
        raise UsageError(f"image folder {directory} must hold one directory {what}, got {got}")
    return folders, passed_over


def _split(directory: Path, passed_over: Counter[str]) -> tuple[list[Path], list[Path]]:
    """Returns directories and images of a directory, sorted, and counts all else."""
    folders, files = [], []
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"directory {directory} must be readable: {error.strerror}") from error
    for entry in found:
        path = directory / entry.name
        if is_clutter(entry.name):
            passed_over[entry.name] += 1
        elif holds(entry.is_dir):
            folders.append(path)
        elif path.suffix.lower() not in SUFFIXES:
            passed_over[path.suffix.lower() or "without a suffix"] += 1
        elif holds(entry.is_file):
            files.append(path)
        else:
            is_link = entry.is_symlink()
            passed_over[f"{path.suffix} that {'leads nowhere' if is_link else 'is no file'}"] += 1
    return folders, files


def holds(test: Callable[[], bool]) -> bool:
    """Whether a test of a directory's entry holds; it does not where the entry cannot be seen."""
    try:
        return test()
    except OSError:  # a link in a circle
        return False


def class_images(directory: Path) -> FoundImages:
    """Finds the images of a class; a `UsageError` says that there are none, but what is there."""
    found = images_below(directory)
    if not found.paths:
        got = ", ".join(_counted(found.passed_over)) or "none"
        raise UsageError(
            f"class directory {directory} must hold an image ({' '.join(sorted(SUFFIXES))}), "
            f"got {got}"
        )
    return found


def log_passed_over(directory: Path, passed_over: Counter[str]) -> None:
    """Says in one line of the log what below a directory was not read, and how many."""
    if passed_over:
        total = passed_over.total()
        shown = ", ".join(_counted(passed_over))
        entries = "entry" if total == 1 else "entries"
        _logger.warning("passed over in %s: %d %s: %s", directory, total, entries, shown)


def _counted(passed_over: Counter[str]) -> Iterator[str]:
    """Yields the commonest with their numbers, then how many the others are."""
    ordered = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    yield from (f"{count} {name}" for name, count in ordered[:_NAMED])
    if rest := sum(count for _, count in ordered[_NAMED:]):
        yield f"{rest} others"
