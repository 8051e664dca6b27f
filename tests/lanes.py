"""Cases of a test that both lanes take, and cases for the soak lane alone."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def soak_but(fast: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Returns the cases for `parametrize`: those of `fast` for both lanes, the others to soak.

    A case of several arguments is a tuple.
    """
    cases = list(cases)
    missing = [case for case in fast if case not in cases]
    assert not missing, f"fast must be among the cases, got {missing}"
    return [
        case
        if case in fast
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.soak)
        for case in cases
    ]
