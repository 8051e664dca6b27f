"""A disk that is full or read-only, as one line that says which."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from jaxlt.errors import UsageError

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextlib.contextmanager
def disk_errors_explained(directory: Path) -> Iterator[None]:
    """Turns what a disk that takes no more raises, in any library, into a UsageError.

    Args:
        directory: that is written to.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = _reason(error)
        if reason is None:
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
