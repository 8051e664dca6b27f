"""Training-set class counts: their check, and the prior and the tail that follow from them."""

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer

# NumPy arrays too, which the core does not import to name.
ClassCounts: TypeAlias = Sequence[int] | jax.Array


def check_class_counts(class_counts: ClassCounts, num_classes: int | None = None) -> jax.Array:
    """Returns training-set class counts as a floating (C,) array.

    Traced counts (`optax.inject_hyperparams` traces arrays) are checked for their shape alone.

    Args:
        class_counts: (C,) training images of each class.
        num_classes: C, where the caller knows it.

    Raises:
        ValueError: the counts are not one-dimensional, are empty, are not `num_classes` many, or
            hold one that is not a positive finite number.
    """
    if not isinstance(class_counts, Tracer):
        class_counts = jnp.asarray(_checked_values(class_counts), dtype=float)
    if class_counts.ndim != 1:
        raise ValueError(f"class_counts must have shape (C,), got {class_counts.shape}")
    if num_classes not in (None, class_counts.size):
        raise ValueError(
            f"class_counts must hold one count for each of the {num_classes} classes, got "
            f"{class_counts.size} counts"
        )
    return jnp.asarray(class_counts, dtype=float)


def class_prior(class_counts: jax.Array) -> jax.Array:
    """Returns the prior `pi_c = N_c / sum N`, (C,), of checked counts."""
    return class_counts / class_counts.sum()


def tail_classes(class_counts: ClassCounts, tail_threshold: float) -> jax.Array:
    """Returns 1 for each class with fewer images than the threshold, else 0, (C,).

    Warns where no class is tail.

    Args:
        class_counts: (C,) training images of each class.
        tail_threshold: the number of images that a tail class does not reach.
    """
    counts = check_class_counts(class_counts)
    tail = (counts < tail_threshold).astype(counts.dtype)
    if not isinstance(tail, Tracer) and not tail.any():
        warnings.warn(
            f"tail_threshold must be above the rarest class's {int(counts.min())} images for any "
            f"class to be tail, got {tail_threshold}",
            stacklevel=3,
        )
    return tail


def _checked_values(class_counts: Any) -> list[float]:
    values = class_counts.tolist() if hasattr(class_counts, "tolist") else class_counts
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"class_counts must hold one count for each class, got {class_counts!r}")
    for label, count in enumerate(values):
        number = count.item() if hasattr(count, "item") else count
        if not isinstance(number, (int, float)) or not 0 < number < float("inf"):
            raise ValueError(
                f"class_counts must be positive numbers, got {number!r} for class {label}"
            )
    return list(values)
