"""Whether several processes train one run, and what each of them does alone.

`in_agreement` and `by_first` must not be within one another. A `UsageError` there is one of all
processes. Whatever else one raises ends that one, and then the others, who wait for it in vain.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxlt.errors import UsageError

_Value = TypeVar("_Value")


def are_several() -> bool:
    """Whether more than one process trains; does not touch a device if none has joined."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this is process 0, the one that logs and writes."""
    return not are_several() or jax.process_index() == 0


def in_agreement(action: Callable[[], _Value]) -> _Value:
    """Does the same on every process and returns its result when all have done it."""
    if not are_several():
        return action()
    from jaxlt.devices.cluster import done_by_all

    return done_by_all(action)


def by_first(action: Callable[[], object]) -> None:
    """Does something on process 0 alone; all go on when it is done."""
    in_agreement(action if is_first() else lambda: None)


def on_all_processes(error: UsageError) -> UsageError:
    """Marks an error that every process raises at the same point."""
    error.on_all_processes = True
    return error


def as_first_says(number: int) -> int:
    """Returns process 0's number, or truth, on all."""
    if not are_several():
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def rows_of_all(rows: np.ndarray) -> np.ndarray:
    """Joins what each process has of an array along its first axis."""
    return multihost_utils.process_allgather(rows, tiled=True) if are_several() else rows
