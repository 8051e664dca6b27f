"""What a method keeps from one step to the next, and what it is given at a step."""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from jaxlt.batch.class_losses import ClassLossesFn


class SharpnessState(NamedTuple):
    """State of every method: small, and never a copy of the parameters.

    Attributes:
        count: steps taken; the argument of the schedules.
        loss: batch-mean loss at w in the last step: the method's own measurement, else `value`,
            else NaN. Methods that do not read the incoming gradient need one forward pass less
            where you log this one instead of your own.
        perturbation_norm: `||eps_g||` of the last step for each group of classes. SAM, ImbSAM
            and Focal-SAM have one group, SSE-SAM two (head, tail), CC-SAM one for each class.
        sharpness: each group's loss at `w + eps_g` minus its loss at w, in the last step. SAM has
            the loss at w from `value` alone, and NaN without it.
        bounded: share of the perturbed groups whose radius is `max_relative_radius`'s, not the
            method's own; 0 without that bound, NaN with `adaptive`. At 1 the bound is the method.

    Example:
        >>> import jax, jaxlt
        >>> state = jaxlt.sam(rho=0.1).init(jax.numpy.ones(3))
        >>> isinstance(state, jaxlt.SharpnessState), int(state.count)
        (True, 0)
    """

    count: Int[Array, ""]  # pyright: ignore[reportIncompatibleMethodOverride] (optax's name)
    loss: Float[Array, ""]
    perturbation_norm: Float[Array, " groups"]
    sharpness: Float[Array, " groups"]
    bounded: Float[Array, ""]


class StepContext(NamedTuple):
    """What a method computes a step's gradient from."""

    class_losses_fn: ClassLossesFn
    params: Any
    gradient: Any  # the incoming one
    number: Int[Array, ""]  # steps taken before
    key: PRNGKeyArray | None  # the caller's, for random draws
    value: Float[ArrayLike, ""] | None  # batch-mean loss at w
    ascent_losses_fn: ClassLossesFn | None  # of part of the batch

    def random_key(self, seed: Int[ArrayLike, ""]) -> PRNGKeyArray:
        """Returns the key of this step's random directions, made of the caller's key if any."""
        run = jax.random.key(seed) if self.key is None else jax.random.fold_in(self.key, seed)
        return jax.random.fold_in(run, self.number)
