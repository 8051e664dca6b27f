"""A file that a program is told to write: checked first, then written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from jaxlt.errors import UsageError
from jaxlt.files.directory import PARTIAL


def unwritable(directory: Path) -> Path | None:
    """Returns what stands in the way of writing to a directory, made or not; None for nothing."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    try:
        # Some file systems take nothing whatever the rights are.
        with tempfile.TemporaryFile(dir=existing):
            return None
    except OSError:
        return existing


def check_can_be_written(path: Path, name: str, *, makes_directory: bool = False) -> None:
    """Raises UsageError unless a file can be written.

    Args:
        path: of the file.
        name: what a message calls it.
        makes_directory: whether its directory will be made where there is none.
    """
    if path.exists() and not path.is_file():
        found = "a directory" if path.is_dir() else "something else"
        raise UsageError(f"{name} must be a file, got {path}, which is {found}")
    directory = path.resolve().parent
    if (obstacle := unwritable(directory)) is not None:
        remedy = f"{obstacle} is not a writable directory"
    elif makes_directory or directory.is_dir():
        return
    else:
        remedy = f"make {directory} first"
    raise UsageError(f"{name} must be a file in a writable directory, got {path}; {remedy}")


@contextlib.contextmanager
def whole_file(path: Path, name: str) -> Iterator[BinaryIO]:
    """Yields a file to write to, which has its name once all of it is on disk.

    Where something is raised meanwhile there is no new file, and an old one stays.

    Args:
        path: of the file; where it is a link, what it points to is replaced.
        name: what a message calls it.

    Raises:
        UsageError: it cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from jaxlt.files.whole_file import whole_file
        >>> with whole_file(Path("numbers.txt"), "output") as file:
        ...     _ = file.write(b"12")
        >>> Path("numbers.txt").read_text()
        '12'
    """
    check_can_be_written(path, name)
    path = path.resolve()
    partial = path.with_name(f".{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise UsageError(
            f"{name} must be a file that can be written, got {path}: {error.strerror}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)
