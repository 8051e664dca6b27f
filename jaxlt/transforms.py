"""SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM as optax gradient transformations.

Each is a link of `optax.chain` and stands first: it takes the gradient of the batch-mean loss
and returns the sharpness-aware gradient of the batch whose `class_losses_fn` is given to
`update`; what follows (clipping, weight decay, momentum) acts on that. The incoming gradient must
be that of `class_losses_fn(params).mean()` and nothing more: `sam`, `imb_sam`, `focal_sam` and
SSE-SAM's second stage read it as such, the others do not read it, so penalties belong behind the
method. Passes are counted with the caller's own: under one `jax.jit` XLA merges the forward passes
at w into one. Where `class_losses_fn` is a `jaxlt.FactoredLosses`, methods take the passes that
its docstring names, with the same result.

Composition with optax:

* `optax.chain`, `optax.apply_if_finite` and `optax.inject_hyperparams` work on each. The last
  takes every callable for a schedule, so list `mask` in its `static_args` when it is a callable.
  `apply_if_finite` looks at the incoming gradient alone: put it around what follows the method to
  have it look at the method's.
* `optax.masked` and `optax.multi_transform` hand their members a pruned tree, at which no
  `class_losses_fn` can be evaluated: place the method before them and give it its own `mask`.
* `optax.MultiSteps` belongs behind the method: chain the method with
  `optax.GradientTransformationExtraArgs(*optax.MultiSteps(...).gradient_transformation())`.
"""

import warnings

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from jaxlt.class_conditional import cc_sam as cc_sam
from jaxlt.class_counts import ClassCounts, check_class_counts, class_prior
from jaxlt.class_losses import batch_size
from jaxlt.objective import Objective, Perturbed, batch_mean
from jaxlt.perturbation import Mask
from jaxlt.transformation import (
    ScalarOrSchedule,
    Step,
    at_step,
    check_not_negative,
    is_number,
    objective_gradient_fn,
    sharpness_transformation,
)


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
    tail = _tail(class_counts, tail_threshold)

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
    tail = _tail(class_counts, tail_threshold)
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


def _tail(class_counts: ClassCounts, tail_threshold: float) -> jax.Array:
    """Returns 1 for each class with fewer images than the threshold, else 0, (C,)."""
    counts = check_class_counts(class_counts)
    tail = (counts < tail_threshold).astype(counts.dtype)
    if not isinstance(tail, Tracer) and not tail.any():
        warnings.warn(
            f"tail_threshold {tail_threshold} makes no class tail: the smallest has "
            f"{int(counts.min())} images",
            stacklevel=3,
        )
    return tail
