"""Focal-SAM: sharpness weighted by class."""

import jax
import jax.numpy as jnp
import optax

from jaxlt.batch.argument_checks import ScalarOrSchedule, at_step, check_not_negative
from jaxlt.batch.class_counts import ClassCounts, check_class_counts, class_prior
from jaxlt.batch.class_losses import batch_size
from jaxlt.sharpness.objective import Objective
from jaxlt.sharpness.optax_link import objective_gradient_fn, sharpness_transformation
from jaxlt.sharpness.perturbation import Mask


def focal_sam(
    class_counts: ClassCounts,
    rho: ScalarOrSchedule,
    *,
    sharpness: ScalarOrSchedule,
    gamma: ScalarOrSchedule,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Focal-SAM (Li et al., ICML 2025, algorithm 1): class-wise weighted sharpness.

    With `a_c = sharpness * (1 - pi_c)**gamma` and `L_a = sum_c a_c L_c`, the gradient of
    `L(w) - L_a(w) + L_a(w + rho * grad L_a / ||grad L_a||)`: two forward and three backward
    passes whatever the number of classes.

    Args:
        class_counts: (C,) training images of each class, from which the prior pi follows.
        rho: radius, at least 0, or a schedule of it.
        sharpness: weight of the sharpness term (the paper's lambda), at least 0, or a schedule.
        gamma: focusing exponent, at least 0, or a schedule; 0 weighs all classes alike.
        mask: pytree prefix of bools, or a callable from params to one: the leaves to perturb.
        adaptive: ASAM: radius relative to each weight's magnitude.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative number or bad class counts; at `init` or `update` a mask that does
            not fit.
    """
    check_not_negative(rho=rho, sharpness=sharpness, gamma=gamma)
    prior = class_prior(check_class_counts(class_counts))

    def objective(counts: jax.Array, step: jax.Array) -> Objective:
        weights = at_step(sharpness, step) * jnp.power(1 - prior, at_step(gamma, step))
        size = batch_size(counts)
        return Objective((1 - weights) / size, weights[None] / size, jnp.ones(1))

    gradient_fn = objective_gradient_fn(
        objective, [rho], num_classes=prior.size, mask=mask, adaptive=adaptive
    )
    return sharpness_transformation(gradient_fn, 1, mask)
