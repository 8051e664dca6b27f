"""SSE-SAM: SAM on head and tail apart, later on the tail alone."""

import jax
import jax.numpy as jnp
import optax

from jaxlt.batch.argument_checks import ScalarOrSchedule, check_not_negative, is_number
from jaxlt.batch.class_counts import ClassCounts, tail_classes
from jaxlt.batch.class_losses import batch_size
from jaxlt.sharpness.objective import Objective, Perturbed
from jaxlt.sharpness.optax_link import Step, objective_gradient_fn, sharpness_transformation
from jaxlt.sharpness.perturbation import Mask


def sse_sam(
    class_counts: ClassCounts,
    head_rho: ScalarOrSchedule,
    tail_rho: ScalarOrSchedule,
    *,
    tail_threshold: float,
    switch_step: int | None = None,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """SSE-SAM (Lyu et al., AAAI 2025): SAM on head and tail apart, later on the tail alone.

    The gradient of `L_head(w + eps_head) + L_tail(w + eps_tail)`, each perturbation along its own
    group's gradient: three forward and four backward passes. In the second stage the head's radius
    is 0 and the method is ImbSAM, at ImbSAM's cost.

    With `switch_step` one program holds both stages and a conditional runs one of them. XLA runs
    convolutions inside a conditional slowly on a CPU: there, compile one step with `None` and one
    with `switch_step=0` and change from one to the other; both have the same state.

    Args:
        class_counts: (C,) training images of each class.
        head_rho: radius of the head, at least 0, or a schedule of it. The number 0 is the second
            stage from the first step on.
        tail_rho: radius of the tail, likewise.
        tail_threshold: a class is tail if it has strictly fewer training images.
        switch_step: first step of the second stage; 0 builds that stage alone, None the first.
        mask: pytree prefix of bools, or a callable from params to one: the leaves to perturb.
        adaptive: ASAM: radius relative to each weight's magnitude.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative radius or bad class counts; at `init` or `update` a mask that does
            not fit.
    """
    check_not_negative(head_rho=head_rho, tail_rho=tail_rho)
    tail = tail_classes(class_counts, tail_threshold)
    options = {"num_classes": tail.size, "disjoint": True, "mask": mask, "adaptive": adaptive}

    def first_objective(counts: jax.Array, step: jax.Array) -> Objective:
        del step
        return Objective(None, jnp.stack([1 - tail, tail]) / batch_size(counts), jnp.ones(2))

    def second_objective(counts: jax.Array, step: jax.Array) -> Objective:
        del step
        size = batch_size(counts)
        return Objective((1 - tail) / size, tail[None] / size, jnp.ones(1))

    first_stage = objective_gradient_fn(first_objective, [head_rho, tail_rho], **options)

    def second_stage(step: Step, *, sums_to_mean: bool = True) -> Perturbed:
        result = objective_gradient_fn(
            second_objective, [tail_rho], sums_to_mean=sums_to_mean, **options
        )(step)
        return result._replace(
            perturbation_norm=jnp.pad(result.perturbation_norm, (1, 0)),
            sharpness=jnp.pad(result.sharpness, (1, 0)),
        )

    if switch_step == 0 or (is_number(head_rho) and head_rho == 0):
        return sharpness_transformation(second_stage, 2, mask)
    if switch_step is None:
        return sharpness_transformation(first_stage, 2, mask)

    def either_stage(step: Step) -> Perturbed:
        # Reading the incoming gradient would make the first stage pay for it too.
        return jax.lax.cond(
            step.number < switch_step,
            lambda: first_stage(step),
            lambda: second_stage(step, sums_to_mean=False),
        )

    return sharpness_transformation(either_stage, 2, mask)
