"""Shapes and dtypes of arrays, checked by beartype as the annotations of the packages state them.

Whoever imports jaxlt afterwards gets functions that check what they are handed and what they
return. In the tests alone: a run pays nothing.
"""

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
    """Returns a function that checks its arguments and its result."""
    # Constructors are left alone: JAX builds the classes that are pytrees around anything.
    return function if function.__name__ == "__init__" else _checked(function)


jaxtyping.install_import_hook(PACKAGES, "array_checks.checked")
