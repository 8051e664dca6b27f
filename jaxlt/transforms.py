"""SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM as optax gradient transformations.

Each is a link of `optax.chain` and stands first: it takes the gradient of the batch-mean loss
and returns the sharpness-aware gradient of the batch whose `class_losses_fn` is given to
`update`; what follows (clipping, weight decay, momentum) acts on that. The incoming gradient must
be that of `class_losses_fn(params).mean()` and nothing more: `sam`, `imb_sam` and `focal_sam` read
it as such, the others do not read it, so penalties belong behind the method. Passes are counted
with the caller's own: under one `jax.jit` XLA merges the forward passes at w into one.

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
from jaxlt.sharpness import Mask, Objective
from jaxlt.transformation import (
    ScalarOrSchedule,
    at_step,
    check_not_negative,
    is_number,
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

    def objective(counts: jax.Array, step: jax.Array) -> Objective:
        del step
        everything = jnp.ones((1, counts.size), counts.dtype)
        return Objective(None, everything / batch_size(counts), jnp.ones(1))

    return sharpness_transformation(objective, [rho], mask=mask, adaptive=adaptive)


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

    return sharpness_transformation(
        objective,
        [rho],
        num_classes=tail.size,
        sums_to_mean=not group_mean,
        mask=mask,
        adaptive=adaptive,
    )


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
    group's gradient: three forward and four backward passes. With the number 0 for `head_rho` it
    is built as ImbSAM, at ImbSAM's cost.

    Args:
        class_counts: (C,) training images of each class.
        head_rho: radius of the head, at least 0, or a schedule of it.
        tail_rho: radius of the tail, likewise.
        tail_threshold: a class is tail if it has strictly fewer training images.
        switch_step: first step of the second stage, in which the head's radius is 0; None for none.
        mask: pytree prefix of bools, or a callable from params to one: the leaves to perturb.
        adaptive: ASAM: radius relative to each weight's magnitude.

    Returns:
        A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
        ValueError: a negative radius or bad class counts; at `init` or `update` a mask that does
            not fit.
    """
    check_not_negative(head_rho=head_rho, tail_rho=tail_rho)
    if is_number(head_rho) and head_rho == 0:
        return imb_sam(
            class_counts, tail_rho, tail_threshold=tail_threshold, mask=mask, adaptive=adaptive
        )
    tail = _tail(class_counts, tail_threshold)

    def objective(counts: jax.Array, step: jax.Array) -> Objective:
        del step
        return Objective(None, jnp.stack([1 - tail, tail]) / batch_size(counts), jnp.ones(2))

    def stagewise_head_rho(step: jax.Array) -> jax.Array:
        head = at_step(head_rho, step)
        return head if switch_step is None else jnp.where(step < switch_step, head, 0)

    return sharpness_transformation(
        objective,
        [stagewise_head_rho, tail_rho],
        num_classes=tail.size,
        mask=mask,
        adaptive=adaptive,
    )


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

    return sharpness_transformation(
        objective,
        [rho],
        num_classes=prior.size,
        mask=mask,
        adaptive=adaptive,
    )


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
