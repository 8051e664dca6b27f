"""SAM: descends on the worst loss near the parameters."""

from __future__ import annotations

import optax

from jaxlt.batch.argument_checks import ScalarOrSchedule, check_not_negative
from jaxlt.methods.sharpness_aware import sharpness_aware
from jaxlt.sharpness.perturbation import Mask

# One group of all classes, which weigh alike.
ALL_CLASSES = [[1.0]]


def sam(
    rho: ScalarOrSchedule = 0.05, *, mask: Mask = None, adaptive: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimization (Foret et al., ICLR 2021, equations 2-3).

    It returns the gradient of L at `w + rho * grad L / ||grad L||`. A step costs two forward and
    two backward passes.

    Args:
        rho: radius, at least 0, or a schedule of it.
        mask: the leaves to perturb: a pytree prefix of bools, or a callable from params to one.
        adaptive: whether the radius is relative to each weight (ASAM; Kwon et al., ICML 2021).

    Raises:
        ValueError: the radius is negative; at `init` or `update`, the mask does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.sam(rho=0.5)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.65 2.2 ]
    """
    check_not_negative(rho=rho)
    return sharpness_aware(ALL_CLASSES, rho, mask=mask, adaptive=adaptive)
