"""Checks of arguments: class counts, and hyperparameters that are numbers or schedules."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, Real

ScalarOrSchedule: TypeAlias = Real[ArrayLike, ""] | optax.Schedule | Callable[[Array], Array]
ClassCounts: TypeAlias = Sequence[Real[ArrayLike, ""]] | Real[ArrayLike, " classes"]


def at_step(value: ScalarOrSchedule, step: Int[Array, ""]) -> Float[Array, ""]:
    """Returns a number, or a schedule's value after so many steps, as a floating scalar.

    Below 0 it is NaN: a schedule's later values are seen in a program alone, which cannot raise.
    """
    number = jnp.asarray(value(step) if callable(value) else value, dtype=float)
    return jnp.where(number < 0, jnp.nan, number)


def check_not_negative(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError unless each number, or schedule's first value, is at least 0 and finite."""
    _check_range(hyperparameters, 0, sys.float_info.max, "be at least 0 and finite")


def check_positive(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError unless each number, or schedule's first value, is positive and finite."""
    _check_range(hyperparameters, sys.float_info.min, sys.float_info.max, "be positive and finite")


def check_share(**hyperparameters: ScalarOrSchedule) -> None:
    """Raises ValueError unless each number, or schedule's first value, lies in [0, 1]."""
    _check_range(hyperparameters, 0, 1, "lie in [0, 1]")


def check_whole(least: int, **numbers: Real[ArrayLike, ""]) -> None:
    """Raises ValueError unless each is a whole number, at least so large; none is a schedule."""
    for name, value in numbers.items():
        traced = isinstance(value, Tracer)
        if not _is_real(value) or (not traced and not (value >= least and value % 1 == 0)):
            raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}")


def check_threshold(**thresholds: Real[ArrayLike, ""]) -> None:
    """Raises ValueError unless each is a number, at least 0; none is a schedule."""
    for name, value in thresholds.items():
        if not _is_real(value) or (not isinstance(value, Tracer) and not value >= 0):
            raise ValueError(f"{name} must be a number of images, at least 0, got {value!r}")


def _check_range(
    hyperparameters: Mapping[str, ScalarOrSchedule], smallest: float, largest: float, need: str
) -> None:
    for name, value in hyperparameters.items():
        first = value(jnp.zeros([], jnp.int32)) if callable(value) else value
        if not _is_real(first):
            got = f"a schedule of {first!r}" if callable(value) else repr(value)
            raise ValueError(f"{name} must be one number, or a schedule of it, got {got}")
        if not isinstance(first, Tracer) and not smallest <= float(first) <= largest:
            raise ValueError(f"{name} must {need}, got {first}")


def _is_real(value: Any) -> TypeGuard[float | Array]:
    """Tells whether it is one integer or floating number, of Python or of an array."""
    if hasattr(value, "dtype"):
        kinds = (jnp.integer, jnp.floating)
        return value.shape == () and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError, which names the argument, unless the value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def check_class_counts(
    class_counts: ClassCounts, num_classes: int | None = None, *, whole: bool = True
) -> Float[Array, " classes"]:
    """Returns training-set class counts as a floating array.

    They are numbers of images, or without `whole` anything proportional to them. Traced counts
    (`optax.inject_hyperparams` traces arrays) are checked for their shape alone.

    Raises:
        ValueError: the counts are not one-dimensional, are empty, are not `num_classes` many where
            that is known, or hold one that is not a positive finite number, whole if it must be.
    """
    traced = isinstance(class_counts, Tracer)
    counts = jnp.asarray(
        class_counts if traced else _positive_numbers(class_counts, whole), dtype=float
    )
    if counts.ndim != 1:
        raise ValueError(f"class_counts must have shape (C,), got {counts.shape}")
    if num_classes not in (None, counts.size):
        wanted = f"one count for each of the {num_classes} classes"
        raise ValueError(f"class_counts must hold {wanted}, got {counts.size} counts")
    return counts


def _positive_numbers(class_counts: Any, whole: bool) -> list[Any]:
    values = class_counts.tolist() if hasattr(class_counts, "tolist") else class_counts
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"class_counts must hold one count for each class, got {class_counts!r}")
    for label, count in enumerate(values):
        number = count.item() if hasattr(count, "item") else count
        if not _is_real(number) or not 0 < number < float("inf") or (whole and number % 1):
            need = f"positive {'whole ' * whole}numbers"
            raise ValueError(f"class_counts must be {need}, got {number!r} for class {label}")
    return list(values)


def class_prior(class_counts: Float[Array, " classes"]) -> Float[Array, " classes"]:
    """Returns the prior `pi_c = N_c / sum N` of checked counts."""
    return class_counts / class_counts.sum()
