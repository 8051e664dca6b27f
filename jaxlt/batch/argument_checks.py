"""Hyperparameters that are numbers or schedules, and the checks of arguments."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

ScalarOrSchedule: TypeAlias = float | jax.Array | optax.Schedule | Callable[[jax.Array], jax.Array]


def at_step(value: ScalarOrSchedule, step: jax.Array) -> jax.Array:
    """Returns a number, or what a schedule gives at the step, as a floating scalar."""
    return jnp.asarray(value(step) if callable(value) else value, dtype=float)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a hyperparameter is a plain number, known before tracing."""
    return isinstance(value, (int, float))


def check_not_negative(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError for a number, or a schedule's first, that is negative or not finite."""
    for name, value in hyperparameters.items():
        check_in_range(name, value, sys.float_info.max, "be at least 0 and finite")


def check_positive(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError for a number, or a schedule's first, that is not positive and finite."""
    smallest, largest = sys.float_info.min, sys.float_info.max
    for name, value in hyperparameters.items():
        check_in_range(name, value, largest, "be positive and finite", smallest)


def check_in_range(
    name: str, value: ScalarOrSchedule, largest: float, need: str, smallest: float = 0
) -> None:
    """Raises ValueError unless a number, or a schedule's first, lies in [smallest, largest]."""
    first = at_step(value, jnp.zeros([], jnp.int32))
    if not isinstance(first, Tracer) and not smallest <= float(first) <= largest:
        raise ValueError(f"{name} must {need}, got {value if is_number(value) else first}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
