"""The one equation as an optax transformation, on which all methods are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, Real

from jaxlt.batch.argument_checks import ScalarOrSchedule, at_step, check_not_negative
from jaxlt.methods.groups import Groups, Shares, constant_groups, without_others
from jaxlt.sharpness.class_wise import checked_chunk_size, class_wise_gradient
from jaxlt.sharpness.equation import Objective, ObjectiveFn, Perturbed, sharpness_aware_gradient
from jaxlt.sharpness.optax_link import sharpness_transformation
from jaxlt.sharpness.perturbation import (
    Mask,
    PerturbationRule,
    RadiusFn,
    Scope,
    constant_radius,
    norm,
)
from jaxlt.sharpness.state import StepContext

# One for all groups, or one each.
Radii: TypeAlias = ScalarOrSchedule | Real[ArrayLike, " groups"] | Sequence[ScalarOrSchedule]


def sharpness_aware(
    groups: Groups | Shares,
    rho: Radii,
    *,
    clean: Real[ArrayLike, " classes"] | None = None,
    max_relative_radius: ScalarOrSchedule | None = None,
    radius_fn: RadiusFn | None = None,
    adaptive: bool = False,
    per_leaf: bool = False,
    seed: Int[ArrayLike, ""] | None = None,
    reads_gradient: bool = True,
    chunk_size: int | None = None,
    mask: Mask = None,
) -> optax.GradientTransformationExtraArgs:
    """A sharpness-aware method of any groups of classes, each with a radius of its own.

    With `L_c` the part of class c in the batch-mean loss L and `L_g = sum_c A[g, c] L_c` it returns

        `grad L(w) + sum_g [grad L_g(w + eps_g) - grad L_g(w)]`,
        `eps_g = rho_g * d_g / ||d_g||`, `d_g = grad L_g(w)`,

    or with `adaptive` (ASAM; Kwon et al., ICML 2021) `rho_g * w**2 * d_g / ||abs(w) * d_g||`, with
    rho in other units. A class may be in several groups, or in none: then it is never perturbed. A
    group without an image in the batch, or without gradient, stays at w (not with `seed`).

    All methods of jaxlt are written on it. A step costs one forward pass at w, one backward pass
    there for each group, and one of each at every `w + eps_g`. One group of all classes follows the
    incoming gradient, and costs nothing at w.

    Args:
        groups: A (G, C), or (G, 1) where all classes weigh alike; or `Groups`, whose weights follow
            the batch or the step.
        rho: radii, at least 0: one for all groups, one each in a sequence, or a schedule of either,
            whose result is NaN from where it falls below 0. A group whose radius is the number 0 is
            taken at w, without a pass of its own.
        clean: share of each class in the loss at w, (C,). By default what no group takes.
        max_relative_radius: bound on `||eps_g|| / ||theta||`, or a schedule of it; with `adaptive`
            on `rho_g / ||theta||`.
        radius_fn: from one group's rho, `||d_g||`, `||theta||` and the number of scalars in theta
            to the radius, rho where None. Without gradient the norm is infinite.
        adaptive: whether radii are relative to each weight's magnitude, see above.
        per_leaf: whether each leaf has a norm and a radius of its own. `radius_fn` then gets all.
        seed: seed of random directions in place of the gradients. The same on every device.
        reads_gradient: whether it may read the incoming gradient, which saves passes. If False, any
            gradient may come in, and a step costs one pass more.
        chunk_size: where each class is a group: how many are perturbed at once, see `cc_sam`.
        mask: theta, the leaves to perturb: a prefix of bools, or a callable from params to one.

    Raises:
        ValueError: a shape or number does not fit; at `init` or `update`, the mask does not.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jnp.ones(2))
        >>> w = jnp.array([3.0, 4.0])
        >>> tx = jaxlt.sharpness_aware(groups=jnp.eye(2), rho=(0.5, 1.0))
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.75 2.5 ]
    """
    if not isinstance(groups, Groups):
        groups = constant_groups(groups, clean)
    elif clean is not None:
        raise ValueError("clean must be None where groups is a Groups, whose objective holds it")
    if max_relative_radius is not None:
        check_not_negative(max_relative_radius=max_relative_radius)
    if chunk_size is not None:
        chunk_size = checked_chunk_size(chunk_size, groups.each_class)
    num_groups = groups.num_groups
    _check_radii(rho, num_groups)
    moving = list(range(num_groups))
    if isinstance(rho, (list, tuple)) and not groups.each_class:
        resting = {g for g in moving if isinstance(rho[g], (int, float)) and rho[g] == 0}
        moving = [group for group in moving if group not in resting] or moving
    perturbed = groups if len(moving) == num_groups else without_others(groups, moving)
    radius_of = constant_radius if radius_fn is None else radius_fn

    def rule(step: StepContext) -> PerturbationRule:
        random_key = None if seed is None else step.random_key(seed)
        if max_relative_radius is None:
            return PerturbationRule(radius_of, adaptive, per_leaf, random_key)
        relative = at_step(max_relative_radius, step.number)

        def within_bound(rho, norms, theta_norm, size):
            radius = radius_of(rho, norms, theta_norm, size)
            bound = relative.astype(theta_norm.dtype) * theta_norm
            whole = jnp.linalg.norm(radius)
            return radius * jnp.where(whole > bound, bound / whole, 1)

        return PerturbationRule(within_bound, adaptive, per_leaf, random_key)

    def of_few_groups(step: StepContext) -> Perturbed:
        result = sharpness_aware_gradient(
            step.class_losses_fn,
            step.params,
            step.gradient if groups.sums_to_mean and reads_gradient else None,
            _objective_fn(perturbed, step.number),
            _radii(rho, num_groups, step.number)[jnp.array(moving)],
            rule=rule(step),
            mask=mask,
            disjoint=groups.disjoint,
            value=step.value,
            ascent_losses_fn=step.ascent_losses_fn,
        )
        if perturbed is groups:
            return result
        # Stacked, as XLA makes a loop of a scatter on some processors.
        norms, sharpness = (
            jnp.stack([measured[moving.index(g)] if g in moving else 0 for g in range(num_groups)])
            for measured in (result.perturbation_norm, result.sharpness)
        )
        return result._replace(perturbation_norm=norms, sharpness=sharpness)

    def of_each_class(step: StepContext) -> Perturbed:
        if step.ascent_losses_fn is not None:
            raise ValueError(
                "ascent_losses_fn must be None where each class is a group, got a function: a part "
                "of the batch lacks classes that the batch has"
            )
        return class_wise_gradient(
            step.class_losses_fn,
            step.params,
            _objective_fn(groups, step.number),
            _radii(rho, num_groups, step.number),
            rule=rule(step),
            mask=mask,
            chunk_size=chunk_size,
        )

    def gradient_fn(step: StepContext) -> Perturbed:
        result = of_each_class(step) if groups.each_class else of_few_groups(step)
        if max_relative_radius is None:
            return result
        norms = result.perturbation_norm
        bound = at_step(max_relative_radius, step.number).astype(norms.dtype)
        # ASAM's scaling, after the bound, hides it.
        full = norms >= (1 - 1e-4) * bound * norm(Scope(step.params, mask).theta).astype(
            norms.dtype
        )
        share = (full & (norms > 0)).sum() / jnp.maximum((norms > 0).sum(), 1)
        return result._replace(bounded=jnp.nan if adaptive else share)

    return sharpness_transformation(gradient_fn, num_groups, mask)


def _radii(rho: Radii, num_groups: int, step: Int[Array, ""]) -> Float[Array, " groups"]:
    if isinstance(rho, (list, tuple)):
        return jnp.stack([at_step(one, step) for one in rho])
    radii = jnp.asarray(rho(step) if callable(rho) else rho, float)
    return jnp.where(radii < 0, jnp.nan, jnp.broadcast_to(radii, (num_groups,)))


def _check_radii(rho: Radii, num_groups: int) -> None:
    if isinstance(rho, (list, tuple)):
        length = len(rho)
        check_not_negative(**{f"rho[{group}]": one for group, one in enumerate(rho)})
    else:
        first: Any = rho(jnp.zeros([], jnp.int32)) if callable(rho) else rho
        length = num_groups
        if getattr(first, "ndim", 0) == 0:
            check_not_negative(rho=rho)  # pyright: ignore[reportArgumentType]
        else:
            length = first.size
            if not any(jnp.issubdtype(first.dtype, kind) for kind in (jnp.integer, jnp.floating)):
                raise ValueError(f"rho must hold numbers, got {first}")
            if not isinstance(first, Tracer) and not ((first >= 0) & jnp.isfinite(first)).all():
                raise ValueError(f"rho must be at least 0 and finite, got {first}")
    if length != num_groups:
        raise ValueError(
            f"rho must hold one radius for each of the {num_groups} groups, got {length}"
        )


def _objective_fn(groups: Groups, step: Int[Array, ""]) -> ObjectiveFn:
    """Returns the objective of the batch's class counts at a step."""

    def objective_fn(counts: Float[Array, " classes"]) -> Objective:
        if groups.num_classes not in (None, counts.size):
            raise ValueError(
                f"class_losses_fn must return losses of {groups.num_classes} classes, as many as "
                f"class_counts or groups has, got {counts.size}"
            )
        # In the precision of the hyperparameters, which is JAX's own.
        objective = groups.objective_fn(counts.astype(float), step)
        rows = (counts.size,) if groups.each_class else (groups.num_groups, counts.size)
        clean = counts if objective.clean is None else objective.clean
        shapes = tuple(jnp.shape(array) for array in (clean, objective.groups, objective.mix))
        if shapes != (counts.shape, rows, (groups.num_groups,)):
            raise ValueError(
                "objective_fn must return clean, groups and mix of shapes "
                f"{counts.shape}, {rows} and {(groups.num_groups,)}, got {shapes}"
            )
        return objective

    return objective_fn
