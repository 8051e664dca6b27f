"""Which files are images: their suffixes, what is passed over, and the line that says so."""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from jaxlt.errors import UsageError, in_one_line

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
    | {"#snapshot", "__pycache__", "@recently-snapshot", "@sharebin", "@tmp", "recycler", "cvs"}
    | {"network trash folder", "temporary items", "_gsdata_"}
)
# Numbered or named after a file: of a disk's repair, web servers, office programs, Syncthing.
_CLUTTER_LIKE = re.compile(r"found\.[0-9]{3}|_vti_.*|~\$.*|~syncthing~.*")
# Behind a file's name, of what a Synology keeps beside it.
_BESIDE = ("@synoeastream", "@synoresource")
# How all names with a dot in front are counted.
_HIDDEN = "hidden"
_NAMED = 6


class SearchedPlaces:
    """Directories that are searched by themselves, each for its own images.

    A link in one of them to another, into one or above one is not followed: what it leads to has
    its place already, or the link is a circle.
    """

    def __init__(self, directories: Iterable[Path]):
        self._places = {one.resolve() for one in directories}
        self._above = {above for one in self._places for above in one.parents}

    def overlap(self, link: Path) -> bool:
        """Whether a link to a directory leads to one of them, into one or above one."""
        place = link.resolve()
        return place in self._above or not self._places.isdisjoint((place, *place.parents))


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
    return name.startswith(".") or _is_left_by_a_system(name.lower())


def _is_left_by_a_system(small: str) -> bool:
    """Whether a name in small letters is on one of the lists of clutter."""
    listed = small in _CLUTTER or small.endswith(_BESIDE)
    return listed or _CLUTTER_LIKE.fullmatch(small) is not None


def class_name(directory: Path) -> str:
    """Returns the class that a directory is named after: file systems differ in accents.

    A `UsageError` says that the name is not UTF-8.
    """
    if directory.name.encode(errors="ignore").decode() != directory.name:
        raise UsageError(
            f"class directory {directory} must have a name in UTF-8, as a run's files are; rename "
            "it"
        )
    return normalize("NFC", directory.name)


def images_below(directory: Path, searched: SearchedPlaces | None = None) -> FoundImages:
    """Finds the image files of a directory and of the directories in it.

    A `UsageError` names a directory that cannot be read.

    Args:
        directory: where to look.
        searched: directories that links in it are not followed to; None for itself alone. Others
            are followed, to each directory once.
    """
    searched = searched or SearchedPlaces([directory])
    paths: list[Path] = []
    passed_over: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    waiting = [directory]
    while waiting:
        current = waiting.pop()
        status = current.stat()
        # Links elsewhere may lead to one place, or in a circle there.
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            folders, files = _split(current, passed_over, searched)
            waiting += reversed(folders)
            paths += files
    # Names of files keep the form of their accents, and their order does not follow it.
    paths.sort(key=lambda path: [normalize("NFC", part) for part in path.parts])
    return FoundImages(paths, passed_over)


def subdirectories(directory: Path, what: str, remedy: str = "") -> tuple[list[Path], Counter[str]]:
    """Returns the directories, each for `what`, sorted, and what else lies there.

    A `UsageError` says that there are none, and names the remedy.
    """
    if not directory.is_dir():
        got = "a file" if directory.exists() else "none"
        raise UsageError(f"image folder {directory} must be a directory, got {got}")
    passed_over: Counter[str] = Counter()
    folders, files = _split(directory, passed_over)
    passed_over.update(f"{path.suffix.lower()} beside the directories" for path in files)
    if not folders:
        got = ", ".join(_counted(passed_over)) or "none"
        raise UsageError(
            f"image folder {directory} must hold one directory {what}, got {got}{remedy}"
        )
    return folders, passed_over


def _split(
    directory: Path, passed_over: Counter[str], searched: SearchedPlaces | None = None
) -> tuple[list[Path], list[Path]]:
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
            _, at, behind = entry.name.rpartition("@")
            named = f"{at}{behind}" if behind.lower().startswith("syno") else entry.name
            passed_over[_HIDDEN if entry.name.startswith(".") else named] += 1
        elif holds(entry.is_dir):
            if searched is not None and entry.is_symlink() and searched.overlap(path):
                passed_over["link to a directory that is searched anyway"] += 1
            else:
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


def class_images(
    directory: Path, searched: SearchedPlaces, *, may_be_empty: bool = False
) -> FoundImages:
    """Finds the images of a class; a `UsageError` says that there are none, but what is there.

    Args:
        directory: the class's.
        searched: those of all classes, see `images_below`.
        may_be_empty: whether to count a class without images as passed over.
    """
    found = images_below(directory, searched)
    if not found.paths and may_be_empty:
        found.passed_over[f"class directory {directory.name} without images"] += 1
    elif not found.paths:
        got = ", ".join(_counted(found.passed_over)) or "none"
        raise UsageError(
            f"class directory {directory} must hold an image ({' '.join(sorted(SUFFIXES))}), "
            f"got {got}; remove the directory if it is no class"
        )
    return found


def check_apart(classes: Iterable[Path]) -> None:
    """Raises UsageError where a link makes two class directories have images in common."""
    owners: dict[Path, Path] = {}
    for directory in classes:
        if (owner := owners.setdefault(directory.resolve(), directory)) != directory:
            raise UsageError(_shared(owner, directory))
    for place, directory in owners.items():
        if above := next((one for one in place.parents if one in owners), None):
            raise UsageError(_shared(owners[above], directory))


def _shared(one: Path, other: Path) -> str:
    return (
        f"class directories must have images of their own, got {one} and {other}, which share "
        "some by a link; remove the link"
    )


def log_passed_over(directory: Path, passed_over: Counter[str]) -> None:
    """Says in one line of the log what below a directory was not read, and how many."""
    if passed_over:
        total = passed_over.total()
        shown = in_one_line(", ".join(_counted(passed_over)))
        entries = "entry" if total == 1 else "entries"
        _logger.warning("passed over in %s: %d %s: %s", directory, total, entries, shown)


def _counted(passed_over: Counter[str]) -> Iterator[str]:
    """Yields suffixes, then clutter, the commonest first, then how many the others are."""

    def order(item: tuple[str, int]) -> tuple[bool, int, str]:
        name, count = item
        return name == _HIDDEN or _is_left_by_a_system(name.lower()), -count, name

    ordered = sorted(passed_over.items(), key=order)
    yield from (f"{count} {name}" for name, count in ordered[:_NAMED])
    if rest := sum(count for _, count in ordered[_NAMED:]):
        yield f"{rest} others"
