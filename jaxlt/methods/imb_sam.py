"""ImbSAM: plain descent on the head, SAM on the tail."""

import jax
import jax.numpy as jnp
import optax

from jaxlt.batch.argument_checks import ScalarOrSchedule, check_not_negative
from jaxlt.batch.class_counts import ClassCounts, tail_classes
from jaxlt.batch.class_losses import batch_size
from jaxlt.sharpness.objective import Objective
from jaxlt.sharpness.optax_link import objective_gradient_fn, sharpness_transformation
from jaxlt.sharpness.perturbation import Mask


def imb_sam(
    class_counts: ClassCounts,
    rho: ScalarOrSchedule,
    *,
    tail_threshold: float,
    group_mean: bool = False,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """ImbSAM (Zhou et al., ICCV 2023): plain descent on the head, SAM on the tail.

    The gradient of `L_head(w) + L_tail(w + rho * grad L_tail / ||grad L_tail||)`: two forward
    and three backward passes. Both losses are sums over the group divided by the batch size; the
    authors' first repository doubles the tail loss besides, which this does not.

    Args:
        class_counts: (C,) training images of each class.
        rho: radius of the tail, at least 0, or a schedule of it.
        tail_threshold: a class is tail if it has strictly fewer training images.
        group_mean: divide each group's loss by its own number of images in the batch in place of
            the batch size, as one released repository does; weighs the tail more.
        mask: pytree prefix of bools, or a callable from params to one: the leaves to perturb.
        adaptive: ASAM: radius relative to each weight's magnitude.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative radius or bad class counts; at `init` or `update` a mask that does
            not fit.
    """
    check_not_negative(rho=rho)
    tail = tail_classes(class_counts, tail_threshold)

    def objective(counts: jax.Array, step: jax.Array) -> Objective:
        del step
        head = 1 - tail
        if group_mean:
            head_size, tail_size = batch_size(head * counts), batch_size(tail * counts)
        else:
            head_size = tail_size = batch_size(counts)
        return Objective(head / head_size, tail[None] / tail_size, jnp.ones(1))

    gradient_fn = objective_gradient_fn(
        objective,
        [rho],
        num_classes=tail.size,
        sums_to_mean=not group_mean,
        disjoint=True,
        mask=mask,
        adaptive=adaptive,
    )
    return sharpness_transformation(gradient_fn, 1, mask)
