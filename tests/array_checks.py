"""Shapes and dtypes of arrays, checked by beartype as the annotations of the packages state them.

Whoever imports jaxlt afterwards gets functions that check the arrays that they are handed and
those that they return. In the tests alone: a run pays nothing. What is no array is not checked,
since tests hand over stand-ins.
"""

import typing
from typing import Any

import beartype
import jaxtyping

PACKAGES = (
    "jaxlt.analysis",
    "jaxlt.batch",
    "jaxlt.losses",
    "jaxlt.methods",
    "jaxlt.sharpness",
    "jaxlt.training.step",
)

# An int will do for a float, as it does for type checkers.
_checked: Any = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))


def checked(function: Any) -> Any:
    """Returns a function that checks the arrays among its arguments and results."""
    # Constructors are left alone: JAX builds the classes that are pytrees around anything.
    if function.__name__ == "__init__":
        return function
    hints = [(name, _evaluated(hint, function)) for name, hint in function.__annotations__.items()]
    function.__annotations__ = {name: hint for name, hint in hints if _of_arrays(hint)}
    return _checked(function)


def _evaluated(hint: Any, function: Any) -> Any:
    """Returns what a postponed annotation names; names within it may be for type checkers alone."""
    if not isinstance(hint, str):
        return hint
    try:
        return eval(hint, function.__globals__)
    except NameError:
        return Any


def _of_arrays(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_of_arrays(part) for part in typing.get_args(hint))


jaxtyping.install_import_hook(PACKAGES, "array_checks.checked")
