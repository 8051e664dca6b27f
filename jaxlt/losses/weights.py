"""Weights of the classes' losses, and the schedule that defers them."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Integer

from jaxlt.batch.argument_checks import ClassCounts, check_class_counts


def class_balanced_weights(
    class_counts: ClassCounts, beta: float | Float[Array, ""] = 0.9999
) -> Float[Array, " classes"]:
    """Class weights by effective number, `(1 - beta) / (1 - beta**N_c)` (Cui et al., CVPR 2019).

    The weights sum to C.

    Args:
        class_counts: training images of each class.
        beta: in [0, 1). 0 gives equal weights, values near 1 almost the inverse counts.

    Raises:
        ValueError: `class_counts` is not C positive numbers, or `beta` lies outside [0, 1).

    Example:
        >>> import jaxlt
        >>> print(jaxlt.losses.class_balanced_weights((90, 10), beta=0.99))
        [0.28 1.72]
    """
    if not isinstance(beta, Tracer) and not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta}")
    counts = check_class_counts(class_counts)
    # Written out, 1 - beta**N loses half its digits in float32, and so does beta itself.
    if isinstance(beta, Tracer):
        log_beta = jnp.log(beta.astype(counts.dtype))
    else:
        log_beta = math.log(beta or math.ulp(0))
    weights = -1 / jnp.expm1(counts * log_beta)
    return weights * (counts.size / weights.sum())


def deferred_reweighting(
    class_counts: ClassCounts, start_step: int, beta: float | Float[Array, ""] = 0.9999
) -> Callable[[int | Integer[Array, ""]], Float[Array, " classes"]]:
    """Deferred re-weighting (DRW; Cao et al., NeurIPS 2019, section 3.3) as a schedule.

    Returns a function from the step to class weights. Multiply each example's loss by its
    class's entry before `jaxlt.class_losses`.

    Args:
        class_counts: training images of each class.
        start_step: first step with `class_balanced_weights`. Before it every weight is 1.
        beta: see `class_balanced_weights`, also for what is raised.

    Example:
        >>> import jaxlt
        >>> weights = jaxlt.losses.deferred_reweighting((90, 10), start_step=10, beta=0.99)
        >>> print(weights(9), weights(10))
        [1. 1.] [0.28 1.72]
    """
    weights = class_balanced_weights(class_counts, beta)
    return lambda step: jnp.where(step >= start_step, weights, jnp.ones_like(weights))
