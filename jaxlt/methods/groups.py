"""Groups of classes: what of a batch's losses is perturbed together."""

from __future__ import annotations

import contextlib
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
        sums_to_mean: whether the objective at `eps = 0` is the batch-mean loss. The incoming
            gradient, which then is that of the objective, saves a pass.
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
    sums_to_mean: bool = True
    disjoint: bool = False
    each_class: bool = False


def constant_groups(shares: Shares, clean: Real[ArrayLike, " classes"] | None) -> Groups:
    """Returns groups of constant shares; what is known of them saves passes."""
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((shares, clean)))
    # Constants are known also where `jax.jit` traces.
    with contextlib.nullcontext() if traced else jax.ensure_compile_time_eval():
        try:
            shares = jnp.asarray(shares, float)
        except (TypeError, ValueError):
            raise ValueError(
                f"groups must hold numbers, one a group and class, got {shares!r}"
            ) from None
        if shares.ndim != 2 or not shares.size:
            raise ValueError(
                "groups must have shape (G, C), a row of class weights for each group, got "
                f"{shares.shape}"
            )
        num_groups, num_classes = shares.shape
        taken = shares.sum(0)
        rest = 1 - taken if clean is None else jnp.asarray(clean, float)
        if rest.shape != (num_classes,):
            raise ValueError(
                f"clean must have shape ({num_classes},), as groups has, got {rest.shape}"
            )
        if not traced and not (jnp.isfinite(shares).all() and jnp.isfinite(rest).all()):
            raise ValueError(f"groups and clean must be finite, got {shares} and {rest}")
        nothing_clean = not traced and not rest.any()
        sums_to_mean = clean is None or (not traced and bool((rest + taken == 1).all()))
        in_one = (shares >= 0).all() & ((shares > 0).sum(0) <= 1).all()
        # One group of all classes has the whole batch: no part of it to pass over.
        apart = in_one & ((num_groups > 1) | (shares == 0).any())
        disjoint = not traced and bool(apart)

    def objective_fn(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        size = batch_size(counts)
        weights = jnp.broadcast_to(shares.astype(size.dtype), (num_groups, counts.size)) / size
        at_w = jnp.broadcast_to(rest.astype(size.dtype), counts.shape) / size
        return Objective(None if nothing_clean else at_w, weights, jnp.ones(num_groups))

    any_number = None if num_classes == 1 else num_classes
    return Groups(objective_fn, num_groups, any_number, sums_to_mean, disjoint)


def without_others(groups: Groups, moving: list[int]) -> Groups:
    """Returns some of the groups; the others are taken at w."""
    others = [group for group in range(groups.num_groups) if group not in moving]

    def objective_fn(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        clean, shares, mix = groups.objective_fn(counts, step)
        rows, resting = jnp.array(moving), jnp.array(others)
        at_w = (mix[:, None] * shares)[resting].sum(0)
        return Objective(at_w if clean is None else clean + at_w, shares[rows], mix[rows])

    return groups._replace(objective_fn=objective_fn, num_groups=len(moving))
