"""SAM: the neighbourhood's worst loss, over all classes."""

import optax

from jaxlt.batch.argument_checks import ScalarOrSchedule, check_not_negative
from jaxlt.sharpness.objective import batch_mean
from jaxlt.sharpness.optax_link import objective_gradient_fn, sharpness_transformation
from jaxlt.sharpness.perturbation import Mask


def sam(
    rho: ScalarOrSchedule, *, mask: Mask = None, adaptive: bool = False
) -> optax.GradientTransformationExtraArgs:
    """Sharpness-aware minimisation (Foret et al., ICLR 2021, equations 2-3).

    The gradient of L at `w + rho * grad L / ||grad L||`: two forward and two backward passes.

    Args:
        rho: radius, at least 0, or a schedule of it.
        mask: pytree prefix of bools, or a callable from params to one: the leaves to perturb.
        adaptive: ASAM (Kwon et al., ICML 2021): radius relative to each weight's magnitude.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative radius; at `init` or `update` a mask that does not fit.
    """
    check_not_negative(rho=rho)

    gradient_fn = objective_gradient_fn(batch_mean, [rho], mask=mask, adaptive=adaptive)
    return sharpness_transformation(gradient_fn, 1, mask)
