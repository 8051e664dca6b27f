"""A directory that a program writes to: claimed, locked, its files whole, a full disk explained."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from jaxlt.errors import UsageError

LOCK_FILE, PARTIAL = "lock", ".partial"
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)

_logger = logging.getLogger(__name__)


def expanded(place: str | Path) -> Path:
    """Returns a path in which a leading `~` is the home; UsageError if none may look there."""
    path = Path(os.path.expanduser(place))  # noqa: PTH111 (Path's own raises for `~nobody`)
    try:
        path.exists()
    except OSError as error:
        raise UsageError(f"path must be reachable, got {path}: {error.strerror}") from error
    return path


def claim_directory(path: Path) -> None:
    """Creates a directory where there is none; raises UsageError where it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"workdir {path} must be a writable directory, got a read-only one")


def lock_directory(directory: Path) -> TextIO:
    """Takes a directory for this process, until the file returned is closed or the process ends.

    The file `lock` in it stays and says who took it last. Raises UsageError where another process
    has it; on a file system without locks nothing but a warning keeps a second process out.
    """
    try:
        # Emptied only once the lock is held: until then it speaks of whoever holds it.
        file = (directory / LOCK_FILE).open("a+")
    except OSError as error:
        raise _not_writable(directory, error) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.read().strip() or "another process"
        raise UsageError(
            f"workdir {directory} must be used by one process at a time, got {holder} at work in it"
        ) from None
    except OSError as error:
        _logger.warning(
            "%s cannot be locked (%s): see to it that no other process trains in it",
            directory,
            error.strerror,
        )
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def _not_writable(directory: Path, error: OSError) -> UsageError:
    return UsageError(f"workdir {directory} must be a writable directory: {error.strerror}")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON so that the file is either the old or the new one, whole."""
    write_atomically(path, json.dumps(values, indent=2) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Writes a text so that the file is either the old or the new one, whole."""
    partial = path.with_name(path.name + PARTIAL)
    with disk_errors_explained(path.parent):
        with partial.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def without_nan(value: Any) -> Any:
    """Replaces NaN by null: JSON has none."""
    if isinstance(value, Mapping):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if value != value else value


@contextlib.contextmanager
def disk_errors_explained(directory: Path) -> Iterator[None]:
    """Turns what a disk that takes no more raises, in any library, into a UsageError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        if (reason := _reason(error)) is None:
            raise
        raise UsageError(
            f"workdir {directory} must have room for the run: {reason}; the checkpoints in it "
            "stay as they are, and the run goes on from the newest when it is started again"
        ) from error


def _reason(error: BaseException) -> str | None:
    """Returns what the disk says; TensorStore, which has no OSError, tells it in its message."""
    for number in _OF_THE_DISK:
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return os.strerror(number)
    return None if error.__context__ is None else _reason(error.__context__)
