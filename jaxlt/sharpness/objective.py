"""The weights of the one equation that each method chooses, and what computing it yields.

`jaxlt.sharpness.equation` states the equation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import ClassLosses, ClassLossesFn, batch_size
from jaxlt.sharpness.perturbation import Leaves, Scope

ClassSumsFn: TypeAlias = Callable[[Leaves, Leaves], tuple[jax.Array, ClassLosses]]


class Objective(NamedTuple):
    """Weights of the class sums in the objective of one batch.

    Attributes:
        clean: (C,) weights of the sums taken at w, or None where nothing is.
        groups: (G, C) weights of the class sums in the loss of each group; or (C,), where each
            class is a group of its own.
        mix: (G,) weights of the groups' losses, taken at their own perturbed parameters.
    """

    clean: jax.Array | None
    groups: jax.Array
    mix: jax.Array


ObjectiveFn: TypeAlias = Callable[[jax.Array], Objective]


class Perturbed(NamedTuple):
    """A sharpness-aware gradient and what was measured on the way.

    Attributes:
        gradient: pytree like the parameters.
        loss: () batch-mean loss at w.
        perturbation_norm: (G,) `||eps_g||`.
        sharpness: (G,) group loss at `w + eps_g` minus group loss at w.
    """

    gradient: Any
    loss: jax.Array
    perturbation_norm: jax.Array
    sharpness: jax.Array


def all_groups(groups: jax.Array, counts: jax.Array) -> Objective:
    """Returns the objective `sum_g L_g(w + eps_g)` of groups that make up the batch-mean loss.

    Args:
        groups: (G, C) share of each class in each group, `A[g, c]`; each class's shares sum to 1.
        counts: (C,) images of each class in the batch.
    """
    return Objective(None, groups / batch_size(counts), jnp.ones(len(groups)))


def one_group(weights: jax.Array, counts: jax.Array) -> Objective:
    """Returns the objective `L(w) - L_a(w) + L_a(w + eps)` of one group that holds part of L.

    Args:
        weights: (C,) share of each class in the group, `a_c`.
        counts: (C,) images of each class in the batch.
    """
    size = batch_size(counts)
    return Objective((1 - weights) / size, weights[None] / size, jnp.ones(1))


def batch_mean(counts: jax.Array, step: jax.Array) -> Objective:
    """Returns SAM's objective, the batch-mean loss at perturbed parameters, at every step."""
    del step
    return all_groups(jnp.ones((1, counts.size), counts.dtype), counts)


def class_sums_fn(class_losses_fn: ClassLossesFn, scope: Scope) -> ClassSumsFn:
    """Splits the argument of `class_losses_fn` into (theta, rest), for differentiation.

    Args:
        class_losses_fn: from params to the batch's `ClassLosses`.
        scope: the parameters and which of them are perturbed (theta).

    Returns:
        A function to the sums (C,) and, as an auxiliary output, the `ClassLosses` with counts in
        at least 32 bits.

    Raises:
        TypeError: when called, `class_losses_fn` returns no `ClassLosses`.
        ValueError: when called, its arrays are not of shape (C,).
    """

    def class_sums(theta: Leaves, rest: Leaves) -> tuple[jax.Array, ClassLosses]:
        losses = class_losses_fn(scope.join(theta, rest))
        if not isinstance(losses, ClassLosses):
            raise TypeError(
                "class_losses_fn must return jaxlt.ClassLosses (see jaxlt.class_losses), got "
                f"{type(losses).__name__}"
            )
        if losses.sums.ndim != 1 or losses.sums.shape != losses.counts.shape:
            raise ValueError(
                "class_losses_fn must return sums and counts of shape (C,), got sums "
                f"{losses.sums.shape} and counts {losses.counts.shape}"
            )
        dtype = jnp.promote_types(losses.sums.dtype, jnp.float32)
        return losses.sums, ClassLosses(losses.sums, losses.counts.astype(dtype))

    return class_sums
