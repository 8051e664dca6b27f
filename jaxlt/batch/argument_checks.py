"""Hyperparameters that are numbers or schedules, and checks of arguments."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

ScalarOrSchedule: TypeAlias = float | jax.Array | optax.Schedule | Callable[[jax.Array], jax.Array]


def at_step(value: ScalarOrSchedule, step: jax.Array) -> jax.Array:
    """Returns a number, or a schedule's value at the step, as a floating scalar.

    Args:
        value: the number or schedule.
        step: () steps taken before.
    """
    return jnp.asarray(value(step) if callable(value) else value, dtype=float)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tells whether a hyperparameter is a plain number, known before tracing."""
    return isinstance(value, (int, float))


def check_not_negative(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError unless each number, or schedule's first value, is at least 0 and finite."""
    for name, value in hyperparameters.items():
        check_in_range(name, value, sys.float_info.max, "be at least 0 and finite")


def check_positive(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError unless each number, or schedule's first value, is positive and finite."""
    smallest, largest = sys.float_info.min, sys.float_info.max
    for name, value in hyperparameters.items():
        check_in_range(name, value, largest, "be positive and finite", smallest)


def check_in_range(
    name: str, value: ScalarOrSchedule, largest: float, need: str, smallest: float = 0
) -> None:
    """Raises ValueError unless a number, or a schedule's first value, lies in a range.

    Args:
        name: the argument's name, for the message.
        value: the number or schedule. A traced one is not checked.
        largest: upper end of the range.
        need: what the message says that the value must do.
        smallest: lower end of the range.
    """
    first = at_step(value, jnp.zeros([], jnp.int32))
    if not isinstance(first, Tracer) and not smallest <= float(first) <= largest:
        raise ValueError(f"{name} must {need}, got {value if is_number(value) else first}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError unless the value is one of the choices.

    Args:
        name: the argument's name, for the message.
        value: what was given.
        choices: what may be given.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
