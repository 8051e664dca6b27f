"""JSON values as typed structures, checked with one line for each fault."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import read_json

_Typed = TypeVar("_Typed")
_LARGEST = float(np.finfo(np.float32).max)
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

# So far float64, in which numbers are averaged and drawn, holds every integer.
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


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
    return Number(value if abs(value) <= _LARGEST else "nan")


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
