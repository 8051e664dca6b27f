"""Files that others wrote, read within bounds that do not depend on what is in them."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

_LARGEST_TEXT = 1 << 30
# More than any file has, and few enough that values can be compared and shown without recursing
# too deeply wherever they are handed.
_DEEPEST = 64


class JsonError(ValueError):
    """A text is no JSON, for a reason that one line gives."""


def read_content(path: str | Path, largest: int | None = None) -> bytes:
    """Reads a regular file.

    Args:
        path: the file.
        largest: number of bytes that it may have; None for what memory holds.

    Raises:
        OSError: it cannot be read, is a directory, a device or a pipe, which may have no end, or is
            too large. It has a `strerror`.
    """
    path = Path(path)
    try:
        # Before it is opened: a pipe would be waited for.
        status = path.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise OSError(errno.EINVAL, "it is no regular file")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if largest is not None and size > largest:
                raise OSError(errno.EFBIG, f"it has {size} bytes, at most {largest} are read")
            # No more than it had a moment ago, should it grow meanwhile.
            return file.read(size)
    except ValueError as error:  # a NUL in the path
        raise OSError(errno.EINVAL, str(error)) from error
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "it does not fit in memory") from error


def read_utf8(path: str | Path) -> str:
    """Reads a text file of at most 1 GiB, with or without a byte order mark.

    Raises:
        OSError: as for `read_content`.
        ValueError: it is not UTF-8.
    """
    return read_content(path, _LARGEST_TEXT).decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """Parses JSON; objects and arrays are nested 64 deep at most.

    NaN and Infinity are numbers here, as Python writes them.

    Raises:
        JsonError: it is damaged, nested too deeply, has a name twice in an object or an integer of
            thousands of digits. The message is one line.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise JsonError(f"it is nested more than {_DEEPEST} deep") from error
    except JsonError:
        raise
    # Of json itself, and of int for thousands of digits.
    except ValueError as error:
        raise JsonError(str(error)) from error
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise JsonError(f"it has {twice!r:.80} twice in one object")
    return values


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            child
            for parent in level
            if isinstance(parent, (dict, list))
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise JsonError(f"it is nested more than {_DEEPEST} deep")
