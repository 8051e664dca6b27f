"""Flatter minima of the batch-mean loss without classes: what CC-SAM's paper compares (figure 2).

Links of `optax.chain` as `jaxlt.methods` says of all; the figure's adversarial perturbation of the
model is `jaxlt.sam`.
"""

import jax
import optax

from jaxlt.batch.argument_checks import (
    ScalarOrSchedule,
    at_step,
    check_not_negative,
    check_positive,
)
from jaxlt.sharpness.objective import Perturbed, batch_mean
from jaxlt.sharpness.optax_link import Step, objective_gradient_fn, sharpness_transformation
from jaxlt.sharpness.perturbation import Mask


def gradient_norm_penalty(
    penalty: ScalarOrSchedule,
    rho: ScalarOrSchedule,
    *,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Gradient of `L + penalty * ||grad L||` (Zhao et al., ICML 2022, algorithm 1).

    The Hessian in it is taken as a difference over the distance rho, which gives
    `(1 - a) * grad L(w) + a * grad L(w + rho * grad L / ||grad L||)` with `a = penalty / rho`: two
    forward and two backward passes. With `penalty = rho` it is SAM. It reads the incoming gradient.

    Args:
        penalty: weight of the gradient's norm, at least 0, or a schedule of it.
        rho: distance of the difference, positive, or a schedule of it that is positive throughout.
        mask: pytree prefix of bools, or a callable from params to one: the leaves over which the
            norm is taken.
        adaptive: ASAM: distance relative to each weight's magnitude.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative penalty or a rho that is not positive; at `init` or `update` a mask
            that does not fit.
    """
    check_not_negative(penalty=penalty)
    check_positive(rho=rho)
    perturbed_gradient = objective_gradient_fn(batch_mean, [rho], mask=mask, adaptive=adaptive)

    def gradient_fn(step: Step) -> Perturbed:
        result = perturbed_gradient(step)
        share = at_step(penalty, step.number) / at_step(rho, step.number)
        gradient = jax.tree.map(
            lambda at_w, moved: (1 - share) * at_w + share * moved, step.gradient, result.gradient
        )
        return result._replace(gradient=gradient)

    return sharpness_transformation(gradient_fn, 1, mask)


def random_perturbation(
    rho: ScalarOrSchedule, seed: int, *, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """Gradient of L at `w + rho * xi / ||xi||`, xi standard normal: SAM in a random direction.

    One forward and one backward pass where nothing else uses the incoming gradient, which it does
    not read. xi is drawn from the seed and the step count, afresh at each step and the same on
    every device.

    Args:
        rho: radius, at least 0, or a schedule of it.
        seed: of the directions. Give `update` a `key=` of your run to have it decide with it.
        mask: pytree prefix of bools, or a callable from params to one: the leaves to perturb.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative radius; at `init` or `update` a mask that does not fit.
    """
    check_not_negative(rho=rho)
    gradient_fn = objective_gradient_fn(batch_mean, [rho], mask=mask, seed=seed)
    return sharpness_transformation(gradient_fn, 1, mask)
