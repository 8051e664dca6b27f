"""What the methods are made of: the weights of the one equation, and what computing it yields.

The equation is that of `jaxlt.sharpness.equation`.
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


def batch_mean(counts: jax.Array, step: jax.Array) -> Objective:
    """Returns SAM's objective, the batch-mean loss at perturbed parameters, at every step."""
    del step
    everything = jnp.ones((1, counts.size), counts.dtype)
    return Objective(None, everything / batch_size(counts), jnp.ones(1))


def class_sums_fn(class_losses_fn: ClassLossesFn, scope: Scope) -> ClassSumsFn:
    """Splits the argument of `class_losses_fn` into (theta, rest), for differentiation.

    Returns:
        A function to the sums (C,) and, as what differentiation leaves alone, the `ClassLosses`
        with counts in at least 32 bits.

    Raises:
        TypeError: when called, if `class_losses_fn` returns no `ClassLosses`.
        ValueError: likewise, if its arrays are not of shape (C,).
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
