"""Focal-SAM: sharpness weighted by class."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from jaxlt.batch.argument_checks import (
    ClassCounts,
    ScalarOrSchedule,
    at_step,
    check_class_counts,
    check_not_negative,
    class_prior,
)
from jaxlt.methods.groups import Groups
from jaxlt.methods.sharpness_aware import sharpness_aware
from jaxlt.sharpness.equation import Objective
from jaxlt.sharpness.perturbation import Mask


def focal_sam(
    class_counts: ClassCounts,
    rho: ScalarOrSchedule = 0.05,
    *,
    sharpness_weight: ScalarOrSchedule = 0.8,
    gamma: ScalarOrSchedule = 3.0,
    mask: Mask = None,
    adaptive: bool = False,
    sharpness: ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Focal-SAM (Li et al., ICML 2025, algorithm 1): sharpness weighted by class.

    With `a_c = sharpness_weight * (1 - pi_c)**gamma` and `L_a = sum_c a_c L_c`, it returns the
    gradient of `L(w) - L_a(w) + L_a(w + rho * grad L_a / ||grad L_a||)`. A step costs two forward
    and three backward passes, whatever the number of classes.

    Args:
        class_counts: training images of each class; the prior is `pi_c = N_c / sum N`.
        rho: radius, at least 0, or a schedule of it.
        sharpness_weight: weight of sharpness (the paper's lambda), at least 0, or a schedule of it.
        gamma: focusing exponent, at least 0, or a schedule of it. 0 weighs all classes alike.
        mask: the leaves to perturb: a pytree prefix of bools, or a callable from params to one.
        adaptive: whether the radius is relative to each weight's magnitude (ASAM).
        sharpness: deprecated name of `sharpness_weight`.

    Raises:
        ValueError: a number is negative, `sharpness_weight` is given under both names, or the
            class counts are bad; at `init` or `update`, the mask does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.focal_sam((90, 10), rho=0.5, sharpness_weight=1, gamma=1)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.5  2.22]
    """
    if sharpness is not None:
        if not isinstance(sharpness_weight, Tracer) and sharpness_weight != 0.8:
            raise ValueError(
                "sharpness_weight must be given once, got it and its old name sharpness: drop "
                "sharpness="
            )
        warnings.warn(
            "focal_sam's sharpness= is deprecated: give sharpness_weight=",
            DeprecationWarning,
            stacklevel=2,
        )
        sharpness_weight = sharpness
    weight = sharpness_weight
    check_not_negative(rho=rho, sharpness_weight=weight, gamma=gamma)
    prior = class_prior(check_class_counts(class_counts))

    def objective(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        weights = at_step(weight, step) * jnp.power(1 - prior, at_step(gamma, step))
        return Objective.of_shares(weights[None], counts)

    groups = Groups(objective, 1, prior.size, sums_to_mean=True)
    return sharpness_aware(groups, rho, mask=mask, adaptive=adaptive)
