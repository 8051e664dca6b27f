"""Image files that a user names: by path, by directory, by a pattern in quotation marks."""

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxlt.data.sources.image_files import (
    SUFFIXES,
    images_below,
    is_clutter,
    log_passed_over,
)
from jaxlt.errors import UsageError
from jaxlt.files.directory import expanded


def find_images(words: Sequence[str]) -> list[Path]:
    """Returns the image files that paths, directories and patterns name, in their order.

    Args:
        words: a path is taken as it is, whatever its suffix; in a directory the images in it and
            below are found by theirs, sorted, and the log counts what is passed over; a pattern
            such as `photos/*.jpg` or `photos/**/*.png` stands for what it matches but clutter.

    Raises:
        UsageError: there is nothing at one of them.
    """
    return [path for word in words for path in _named(word)]


def source_of(word: str) -> str:
    """Returns the specification of a data set, see `jaxlt.data.load_source`, that a user means.

    Args:
        word: the same, or a directory of images, which is `folder:DIR`.
    """
    return f"folder:{word}" if word and expanded(word).is_dir() else word


def check_is_no_image(file: Path, name: str, images: Sequence[Path] = ()) -> None:
    """Raises UsageError where a file that a program is told to write is an image that is there.

    Args:
        file: that would be written over.
        name: what a message calls it.
        images: that are images, whatever their suffix.
    """
    if not file.exists():
        return
    if file.resolve().suffix.lower() in SUFFIXES or any(map(file.samefile, images)):
        raise UsageError(
            f"{name} must be a file of its own, got the image {file}; give a path that ends in "
            f".{name}"
        )


def _named(word: str) -> Iterator[Path]:
    path = expanded(word)
    if word and path.is_dir():
        yield from _below(path)
    elif word and path.exists():
        yield path
    elif word and glob.has_magic(word):
        yield from _matching(path)
    else:
        raise UsageError(f"IMAGE must be a file, a directory or a pattern, got {word!r}: not there")


def _matching(pattern: Path) -> Iterator[Path]:
    plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))
    # Path.glob takes no pattern of a whole path.
    matches = map(Path, sorted(glob.glob(str(pattern), recursive=True)))  # noqa: PTH207
    found = [one for one in matches if not any(map(is_clutter, one.parts[len(plain) :]))]
    if "**" in pattern.parts:
        # Which matches also what is in the directories that it matches.
        found = [one for one in found if not one.is_dir()]
    if not found:
        raise UsageError(f"IMAGE must be a pattern that files match, got {pattern}: none does")
    for one in found:
        yield from _below(one) if one.is_dir() else [one]


def _below(directory: Path) -> list[Path]:
    found = images_below(directory)
    log_passed_over(directory, found.passed_over)
    if not found.paths:
        raise UsageError(f"IMAGE must be a directory with images in it, got {directory}")
    return found.paths


def shown(path: Path | str) -> str:
    """Returns a path as a line can show it, with what cannot be printed escaped."""
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
