"""Files that others wrote, read within bounds whatever is in them; JSON as typed structures."""

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np

from jaxlt.errors import UsageError

_Typed = TypeVar("_Typed")
_LARGEST_NUMBER = float(np.finfo(np.float32).max)
_SHOWN = 40
_KINDS = {
    "float": "a number",
    "int": "an integer",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_LARGEST_TEXT = 1 << 30
# More than any file has, and few enough that no value is too deep to be compared and shown.
_DEEPEST = 64

# So far float64, in which numbers are averaged and drawn, holds every integer.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class JsonError(ValueError):
    """A text is no JSON, for a reason that one line gives."""


def read_content(path: str | Path, largest: int | None = None) -> bytes:
    """Reads a regular file of at most so many bytes, or of what memory holds.

    Raises OSError, with a `strerror`, for all else: a device or a pipe may have no end.
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
    """Reads a text file of at most 1 GiB, with or without a byte order mark."""
    return read_content(path, _LARGEST_TEXT).decode("utf-8-sig")


def read_text(path: Path) -> str:
    """Reads a text file of a run's directory; raises UsageError where that cannot be done."""
    try:
        return read_utf8(path)
    except OSError as error:
        is_none = isinstance(error, (FileNotFoundError, NotADirectoryError))
        hint = "; give one that a run has written, such as runs/NAME/focal_sam/seed0" * is_none
        raise UsageError(
            f"run directory {path.parent} must hold a readable {path.name}: {error.strerror}{hint}"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} must be text, got damage: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of a run's directory; raises UsageError where there is none."""
    try:
        values = parse_json(read_text(path))
    except JsonError as error:
        raise UsageError(f"{path} must be JSON, got damage: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} must be a JSON object, got a {type(values).__name__}")
    return values


def parse_json(text: str) -> Any:
    """Parses JSON, in which NaN and Infinity are numbers, as Python writes them.

    Raises JsonError also where objects and arrays are nested more than 64 deep, an object has a
    name twice, or an integer has thousands of digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise JsonError(f"it is nested more than {_DEEPEST} deep") from error
    # Of json itself, of int for thousands of digits, and ours.
    except ValueError as error:
        raise JsonError(str(error)) from error
    _check_depth(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise JsonError(f"it has {name!r:.80} twice in one object")
        values[name] = value
    return values


def _check_depth(value: Any, levels_left: int = _DEEPEST) -> None:
    if not isinstance(value, (dict, list)):
        return
    if not levels_left:
        raise JsonError(f"it is nested more than {_DEEPEST} deep")
    for child in value.values() if isinstance(value, dict) else value:
        _check_depth(child, levels_left - 1)


def file_digest(what: str, path: Path) -> str:
    """Returns a file's SHA-256 in hexadecimal; UsageError says `what` cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"{what} {path} must be a readable file: {error.strerror}") from error


def joint_digest(what: str, paths: Iterable[Path]) -> str:
    """Returns "sha256:" and what the digests of several files make; see `file_digest`."""
    digests = "".join(file_digest(what, path) for path in paths)
    return f"sha256:{hashlib.sha256(digests.encode()).hexdigest()}"


class Number(float):
    """A number; NaN for null, and for what no float32 holds."""


def read_typed(path: Path, kind: type[_Typed]) -> _Typed:
    """Reads a file that holds one object, see `typed`."""
    return typed(read_json(path), kind, str(path))


def typed(values: Any, kind: type[_Typed], where: str) -> _Typed:
    """Checks JSON values, and returns them as a `msgspec.Struct`.

    A UsageError, which begins with `where`, says what is missing or not as it must be.
    """
    try:
        return msgspec.convert(values, kind, dec_hook=_number)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {_fault(str(error), values)}") from error


def _number(kind: type, value: Any) -> Any:
    if value is None:
        return Number("nan")
    if kind is not Number or type(value) not in (int, float):
        raise ValueError(f"Expected `float`, got `{type(value).__name__}`")
    return Number(value if abs(value) <= _LARGEST_NUMBER else "nan")


def _fault(message: str, values: Any) -> str:
    """Returns "NAME must be NEED, got VALUE" for a message of msgspec's."""
    text, _, path = message.partition(" - at ")
    path = path.strip("`")
    name = path.removeprefix("$").removeprefix(".")
    if found := re.fullmatch(r"Object missing required field `(\w+)`", text):
        return f"{name}{'.' * bool(name)}{found[1]} must be given, got nothing"
    if text.startswith("Expected"):
        need = re.sub(r"`([^`]+)`", _kinds, text.split(", got ")[0].removeprefix("Expected "))
        return f"{name or 'contents'} must be {need}, got {_shown(values, path)}"
    if text.startswith("Invalid"):
        return f"{name} must be one that jaxlt knows, got {_shown(values, path)}"
    if text.startswith("Object contains unknown field"):
        return f"{name or 'contents'} must have no other fields, got {text[30:]!r:.{_SHOWN}}"
    return text


def _kinds(found: re.Match[str]) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in str(found[1]).split(" | "))


def _shown(values: Any, path: str) -> str:
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        if name and isinstance(values, Mapping):
            values = values.get(name)
        elif number and isinstance(values, (list, tuple)):
            values = values[int(number)]
    shown = repr(values)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
