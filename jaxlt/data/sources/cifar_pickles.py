"""The pickles in which CIFAR's Python version lies, without running what they say."""

import math
from typing import Any

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.pickles import Built, Function, interpret

_BYTE = "u1"
_ARRAY_STATE = 5
_SHOWN = 120


def read_pickle(content: bytes, where: str) -> dict[str, Any]:
    """Reads a pickle of a dict of numbers, texts, lists and arrays of bytes.

    Python 2 wrote the published ones; those that Python 3 writes by protocols 2 to 4 will do too.
    Texts are Latin-1, as bytes of Python 2 are.

    Args:
        content: the pickle.
        where: what a message calls the file.

    Returns:
        The dict, arrays as read-only uint8 arrays.

    Raises:
        UsageError: it is damaged, or holds anything else.
    """
    try:
        value = interpret(content, _named, _refuse)
        if not isinstance(value, dict):
            raise TypeError(f"it is of a {type(value).__name__}")
        found = {_text(name): _plain(one) for name, one in value.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
        raise UsageError(f"{where} must be a pickle of CIFAR's, got another: {reason}") from error
    return found


def _named(module: str, name: str) -> Function:
    """Returns what stands for a function that a pickle of NumPy's arrays names."""
    functions = {
        "_reconstruct": lambda *_: _Array(),
        "dtype": lambda kind, *_: _Dtype(_text(kind)),
        "encode": _encoded,
    }
    modules = {"_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray")}
    modules |= {"dtype": ("numpy",), "encode": ("_codecs",)}
    known = module in modules.get(name, ())
    return Function(f"{module}.{name}", functions[name] if known else None)


def _encoded(text: Any, *_: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("bytes are of no text")
    return text.encode("latin-1")


def _refuse(reference: Any) -> Any:
    raise ValueError("it refers to something outside")


class _Dtype(Built):
    def __init__(self, kind: str):
        self.kind = kind

    def set_state(self, state: Any) -> None:
        """Does nothing: a byte has no order of bytes."""


class _Array(Built):
    """An array that has its numbers once the pickle gave it a state."""

    array: np.ndarray | None = None

    def set_state(self, state: Any) -> None:
        """Takes version, shape, type, order and bytes."""
        if not (isinstance(state, tuple) and len(state) == _ARRAY_STATE):
            raise TypeError("an array has no state of NumPy's")
        _, shape, dtype, by_columns, content = state
        if not (isinstance(dtype, _Dtype) and dtype.kind == _BYTE):
            raise TypeError("an array is not of bytes")
        content = content.encode("latin-1") if isinstance(content, str) else content
        if not isinstance(content, bytes) or type(shape) is not tuple:
            raise TypeError("an array has no bytes or no shape")
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("an array has a shape of other things than sizes")
        if math.prod(shape) != len(content) or len(shape) > 2:
            raise ValueError(f"an array has {len(content)} bytes, its shape is another")
        order = "F" if by_columns else "C"
        self.array = np.frombuffer(content, np.uint8).reshape(shape, order=order)


def _plain(value: Any) -> Any:
    if isinstance(value, _Array):
        if value.array is None:
            raise ValueError("an array has no numbers")
        return value.array
    return [_text(one) for one in value] if isinstance(value, list) else _text(value)


def _text(value: Any) -> Any:
    return value.decode("latin-1") if isinstance(value, bytes) else value
