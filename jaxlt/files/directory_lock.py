"""The lock of a directory in which one process at a time may train."""

import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import TextIO

from jaxlt.errors import UsageError

LOCK_FILE = "lock"

_logger = logging.getLogger(__name__)


def lock_directory(directory: Path) -> TextIO:
    """Takes a directory for this process, until the file returned is closed or the process ends.

    The file `lock` in it stays and says who took the directory last. On a file system without
    locks a warning says so and nothing keeps a second process out.

    Raises:
        UsageError: another process has it, or it cannot be written to.
    """
    try:
        # Emptied only once the lock is held: until then it speaks of whoever holds it.
        file = (directory / LOCK_FILE).open("a+")
    except OSError as error:
        raise UsageError(
            f"workdir {directory} must be a writable directory: {error.strerror}"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            holder = file.read().strip() or "another process"
        raise UsageError(
            f"workdir {directory} must be used by one process at a time, {holder} is at work in it"
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
