"""Groups of classes: what of a batch's losses is perturbed together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from jaxlt.batch.class_losses import batch_size
from jaxlt.sharpness.equation import Objective

Shares: TypeAlias = (
    Real[ArrayLike, "groups classes"] | Bool[ArrayLike, "groups classes"] | Sequence[Any]
)


class Groups(NamedTuple):
    """Groups of classes whose weights follow the batch or the step.

    Attributes:
        objective_fn: from the batch's class counts (C,) and the step to an `Objective`.
        num_groups: G.
        num_classes: C, or None where any will do.
        sums_to_mean: whether `clean` and the rows of `groups` add up to `1 / B` for each class,
            whatever the batch and `mix`. The incoming gradient then saves a pass.
        disjoint: whether no class is in two groups.
        each_class: whether each class is a group; `Objective.groups` then is its diagonal (C,).

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> def objective_fn(counts, step):  # of two classes the second, more with each step
        ...     shares = jnp.array([[0, jnp.minimum(step / 100, 1)]])
        ...     return jaxlt.Objective.of_shares(shares, counts)
        >>> tx = jaxlt.sharpness_aware(jaxlt.Groups(objective_fn, num_groups=1), rho=0.05)
    """

    objective_fn: Callable[[Float[Array, " classes"], Int[Array, ""]], Objective]
    num_groups: int
    num_classes: int | None = None
    sums_to_mean: bool = False
    disjoint: bool = False
    each_class: bool = False


def constant_groups(shares: Shares, clean: Real[ArrayLike, " classes"] | None) -> Groups:
    """Returns groups of constant shares; what is known of them saves passes.

    Raises:
        ValueError: shares or clean are not numbers of shapes (G, C) and (C,), or not finite.
    """
    (num_groups, num_classes), nothing_clean = _checked_shape(shares, clean), False

    def objective_fn(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        size = batch_size(counts)
        weights = jnp.broadcast_to(jnp.asarray(shares, size.dtype), (num_groups, counts.size))
        rest = 1 - weights.sum(0) if clean is None else jnp.asarray(clean, size.dtype)
        at_w = None if nothing_clean else jnp.broadcast_to(rest, counts.shape) / size
        return Objective(at_w, weights / size, jnp.ones(num_groups))

    any_number = None if num_classes == 1 else num_classes
    groups = Groups(objective_fn, num_groups, any_number, sums_to_mean=clean is None)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((shares, clean))):
        return groups
    # In Python's numbers, which are known also where `jax.jit` traces all others.
    rows = [_numbers("groups", row) for row in _listed(shares)]
    columns = list(zip(*rows, strict=True))
    taken = [sum(column) for column in columns]
    rest = [1 - share for share in taken] if clean is None else _numbers("clean", _listed(clean))
    nothing_clean = not any(rest)
    apart = all(sum(map(bool, column)) <= 1 and min(column) >= 0 for column in columns)
    return groups._replace(
        sums_to_mean=all(one + other == 1 for one, other in zip(rest, taken, strict=True)),
        # One group of all classes has the whole batch: no part of it to pass over.
        disjoint=apart and (num_groups > 1 or not all(rows[0])),
    )


def _checked_shape(shares: Any, clean: Any) -> tuple[int, ...]:
    shape, given = _shape(shares), None if clean is None else _shape(clean)
    if len(shape) != 2 or 0 in shape:
        need = "shape (G, C), a row of class weights for each group"
        raise ValueError(f"groups must have {need}, got {shape}")
    if given not in (None, shape[1:]):
        raise ValueError(f"clean must have shape {shape[1:]}, as groups has, got {given}")
    return shape


def _shape(array: Any) -> tuple[int, ...]:
    if hasattr(array, "shape"):
        return tuple(array.shape)
    if not isinstance(array, (list, tuple)):
        return ()
    rows = {_shape(row) for row in array}
    # Rows of several lengths make no array.
    return (len(array), *(rows.pop() if len(rows) == 1 else ()))


def _listed(array: Any) -> Any:
    return array.tolist() if hasattr(array, "tolist") else array


def _numbers(name: str, values: Any) -> list[float]:
    numbers = [one.item() if hasattr(one, "item") else one for one in _listed(values)]
    if not all(isinstance(one, (bool, int, float)) and math.isfinite(one) for one in numbers):
        raise ValueError(f"{name} must hold finite numbers, got {numbers}")
    return [float(one) for one in numbers]


def without_others(groups: Groups, moving: list[int]) -> Groups:
    """Returns some of the groups; the others are taken at w."""
    others = [group for group in range(groups.num_groups) if group not in moving]

    def objective_fn(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        clean, shares, mix = groups.objective_fn(counts, step)
        rows, resting = jnp.array(moving), jnp.array(others)
        at_w = (mix[:, None] * shares)[resting].sum(0)
        return Objective(at_w if clean is None else clean + at_w, shares[rows], mix[rows])

    return groups._replace(objective_fn=objective_fn, num_groups=len(moving))
