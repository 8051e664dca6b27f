"""Ways to flat minima that know no classes, of CC-SAM's figure 2; its adversarial one is `sam`."""

import jax
import optax

from jaxlt.batch.argument_checks import (
    ScalarOrSchedule,
    at_step,
    check_not_negative,
    check_positive,
)
from jaxlt.batch.class_losses import at_least_32_bits
from jaxlt.methods.sam import batch_mean
from jaxlt.sharpness.equation import Perturbed
from jaxlt.sharpness.optax_link import StepContext, objective_gradient_fn, sharpness_transformation
from jaxlt.sharpness.perturbation import Mask


def gradient_norm_penalty(
    penalty: ScalarOrSchedule, rho: ScalarOrSchedule, *, mask: Mask = None, adaptive: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Descends on `L + penalty * ||grad L||` (Zhao et al., ICML 2022, algorithm 1).

    A difference over the distance rho replaces the Hessian. With `a = penalty / rho` it returns
    `(1 - a) * grad L(w) + a * grad L(w + rho * grad L / ||grad L||)`. A step costs two forward and
    two backward passes. With `penalty = rho` it is SAM. It reads the incoming gradient.

    Args:
        penalty: weight of the gradient's norm, at least 0, or a schedule of it.
        rho: distance of the difference, positive, or a schedule of it that is always positive.
        mask: the leaves in the norm: a pytree prefix of bools, or a callable from params to one.
        adaptive: whether the distance is relative to each weight's magnitude (ASAM).

    Raises:
        ValueError: the penalty is negative or rho is not positive; at `init` or `update`, the mask
            does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.gradient_norm_penalty(penalty=0.1, rho=0.5)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.53 2.04]
    """
    check_not_negative(penalty=penalty)
    check_positive(rho=rho)
    perturbed_gradient = objective_gradient_fn(batch_mean, [rho], mask=mask, adaptive=adaptive)

    def gradient_fn(step: StepContext) -> Perturbed:
        result = perturbed_gradient(step)
        share = at_step(penalty, step.number) / at_step(rho, step.number)

        def between(at_w, moved):
            at_w, moved = at_least_32_bits(at_w), at_least_32_bits(moved)
            part = share.astype(at_w.dtype)
            return (1 - part) * at_w + part * moved

        return result._replace(gradient=jax.tree.map(between, step.gradient, result.gradient))

    return sharpness_transformation(gradient_fn, 1, mask)


def random_perturbation(
    rho: ScalarOrSchedule, seed: int, *, mask: Mask = None
) -> optax.GradientTransformationExtraArgs:
    """SAM in a random direction: the gradient of L at `w + rho * xi / ||xi||`, xi standard normal.

    The seed and the step count decide xi, which differs from step to step and is the same on every
    device. It does not read the incoming gradient. A step costs one forward and one backward pass
    where nothing else uses that gradient.

    Args:
        rho: radius, at least 0, or a schedule of it.
        seed: seed of the directions. To let your run decide too, give `update` a `key=` of it.
        mask: the leaves to perturb: a pytree prefix of bools, or a callable from params to one.

    Raises:
        ValueError: the radius is negative; at `init` or `update`, the mask does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.random_perturbation(rho=0.5, seed=0)
        >>> _, state = tx.update(w, tx.init(w), w, class_losses_fn=losses_fn)
        >>> print(state.perturbation_norm)
        [0.5]
    """
    check_not_negative(rho=rho)
    gradient_fn = objective_gradient_fn(batch_mean, [rho], mask=mask, seed=seed)
    return sharpness_transformation(gradient_fn, 1, mask)
