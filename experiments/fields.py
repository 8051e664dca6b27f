"""Values of a JSON object, checked as they are taken: a run's files may come from anywhere."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeGuard

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json
from jaxlt.files.json_files import read_json

_LARGEST_INTEGER = 2**53
"""So far float64, in which numbers are averaged and drawn, holds every integer."""
_LARGEST = float(np.finfo(np.float32).max)
_SHOWN = 40


@dataclasses.dataclass(frozen=True)
class Fields:
    """A JSON object and the file that it is from. All methods raise UsageError.

    Attributes:
        values: contents.
        where: what an error names, such as a path.
    """

    values: Mapping[str, Any]
    where: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a file that holds one object."""
        return cls(read_json(path), str(path))

    @classmethod
    def parse(cls, line: str, where: str) -> Self:
        """Reads one line of a file of objects."""
        try:
            values = parse_json(line)
        except ValueError as error:
            raise UsageError(f"{where} must be JSON, it is damaged: {error}") from error
        if not isinstance(values, dict):
            raise UsageError(f"{where} must be a JSON object, it is a {type(values).__name__}")
        return cls(values, where)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def number(self, name: str) -> float:
        """Returns a number, NaN for null and for what no float32 holds."""
        value = self._value(name)
        if value is None:
            return float("nan")
        self._check(name, _is_number(value), "a number", value)
        return _finite(value)

    def count(self, name: str) -> int:
        """Returns an integer that is not negative."""
        value = self._value(name)
        self._check(name, _is_count(value), "an integer, not negative,", value)
        return value

    def text(self, name: str) -> str:
        """Returns a string."""
        value = self._value(name)
        self._check(name, isinstance(value, str), "a string", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Returns a list of strings."""
        value = self._value(name)
        strings = isinstance(value, list) and all(isinstance(one, str) for one in value)
        self._check(name, strings, "a list of strings", value)
        return tuple(value)

    def numbers(self, name: str, length: int | None = None) -> np.ndarray:
        """Returns a list of numbers, of any or of one length, as float64; null becomes NaN."""
        value = self._value(name)
        numbers = isinstance(value, list) and all(one is None or _is_number(one) for one in value)
        fits = numbers and length in (None, len(value))
        many = "" if length is None else f"{length} "
        self._check(name, fits, f"a list of {many}numbers", value)
        return np.array([np.nan if one is None else _finite(one) for one in value], np.float64)

    def counts(self, name: str) -> np.ndarray:
        """Returns a list of integers that are not negative, as int64."""
        value = self._value(name)
        counts = isinstance(value, list) and all(_is_count(one) for one in value)
        self._check(name, counts, "a list of integers, not negative,", value)
        return np.array(value, np.int64)

    def object(self, name: str) -> Self:
        """Returns an object within this one."""
        value = self._value(name)
        self._check(name, isinstance(value, dict), "an object", value)
        return type(self)(value, f"{self.where}: {name}")

    def _value(self, name: str) -> Any:
        if name not in self.values:
            raise UsageError(f"{self.where} must say {name}, it does not")
        return self.values[name]

    def _check(self, name: str, holds: bool, need: str, value: Any) -> None:
        if not holds:
            shown = repr(value)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
            raise UsageError(f"{self.where} must have {need} as {name}, it has {shown}")


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST_INTEGER


def _finite(value: float) -> float:
    return float(value) if abs(value) <= _LARGEST else float("nan")
