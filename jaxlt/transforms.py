"""SAM, ImbSAM, SSE-SAM, Focal-SAM and CC-SAM as optax gradient transformations.

Each is a link of `optax.chain` and stands first: it takes the gradient of the batch-mean loss
and returns the sharpness-aware gradient of the batch whose `class_losses_fn` is given to
`update`; what follows (clipping, weight decay, momentum) acts on that. A transformation placed
before it would change the part of the gradient that the equation takes at w, and with `cc_sam`
nothing at all. Passes are counted with the caller's own: under one `jax.jit` XLA merges the
forward passes at w into one.

Composition with optax:

* `optax.chain`, `optax.apply_if_finite` and `optax.inject_hyperparams` work on each. The last
  takes every callable for a schedule, so list `mask` in its `static_args` when it is a callable.
* `optax.masked` and `optax.multi_transform` hand their members a pruned tree, at which no
  `class_losses_fn` can be evaluated: place the method before them and give it its own `mask`.
* `optax.MultiSteps` belongs behind the method: chain the method with
  `optax.GradientTransformationExtraArgs(*optax.MultiSteps(...).gradient_transformation())`.
"""

import warnings
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from jaxlt.class_counts import ClassCounts, check_class_counts, class_prior
from jaxlt.sharpness import Mask, Objective, RadiusFn
from jaxlt.transformation import (
    ScalarOrSchedule,
    at_step,
    check_choice,
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
        return Objective(None, everything / _batch_size(counts), jnp.ones(1))

    return sharpness_transformation(
        objective, lambda step: [at_step(rho, step)], num_groups=1, mask=mask, adaptive=adaptive
    )


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
            head_size, tail_size = _batch_size(head * counts), _batch_size(tail * counts)
        else:
            head_size = tail_size = _batch_size(counts)
        return Objective(head / head_size, tail[None] / tail_size, jnp.ones(1))

    return sharpness_transformation(
        objective,
        lambda step: [at_step(rho, step)],
        num_groups=1,
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
    if isinstance(head_rho, (int, float)) and head_rho == 0:
        return imb_sam(
            class_counts, tail_rho, tail_threshold=tail_threshold, mask=mask, adaptive=adaptive
        )
    tail = _tail(class_counts, tail_threshold)

    def objective(counts: jax.Array, step: jax.Array) -> Objective:
        del step
        return Objective(None, jnp.stack([1 - tail, tail]) / _batch_size(counts), jnp.ones(2))

    def radii(step: jax.Array) -> list[jax.Array]:
        head = at_step(head_rho, step)
        if switch_step is not None:
            head = jnp.where(step < switch_step, head, 0.0)
        return [head, at_step(tail_rho, step)]

    return sharpness_transformation(
        objective, radii, num_groups=2, num_classes=tail.size, mask=mask, adaptive=adaptive
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
        size = _batch_size(counts)
        return Objective((1 - weights) / size, weights[None] / size, jnp.ones(1))

    return sharpness_transformation(
        objective,
        lambda step: [at_step(rho, step)],
        num_groups=1,
        num_classes=prior.size,
        mask=mask,
        adaptive=adaptive,
    )


def cc_sam(
    class_counts: ClassCounts,
    *,
    radius_scale: ScalarOrSchedule = 1.0,
    flat_ratio: ScalarOrSchedule = 1.0,
    max_relative_radius: ScalarOrSchedule | None = None,
    grad_norm: Literal["global", "per_leaf"] = "global",
    class_weighting: Literal["sample", "class"] = "sample",
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """CC-SAM, first stage (Zhou et al., CVPR 2023, equations 7-11): a perturbation for each class.

    Class c is perturbed along the gradient d_c of its mean loss m_c, by the characteristic radius

        `||eps_c|| = radius_scale * sqrt(||theta|| / (2 ||d_c||)) * (k / (N_c - 1))**0.25`

    with k scalars in theta, and the result is the gradient of `(1 - flat_ratio) * L(w) +
    flat_ratio * sum_c (n_c / B) m_c(w + eps_c)`. `N_c - 1` counts as 1 for a class of one image.
    The radius grows without bound as a class becomes well fitted; `max_relative_radius` bounds it.

    All classes run under one `vmap`. With a `mask` that selects the classifier, as the authors'
    experiments do, the trunk is evaluated once; perturbing a whole network costs a pass a class.

    Args:
      class_counts: (C,) training images of each class, N_c.
      radius_scale: factor on the radius, at least 0: 1 in the paper, 1e-6 in the released
        configurations.
      flat_ratio: weight of the perturbed losses, in [0, 1]: 1 in the paper, 0.3 or 0.5 released.
      max_relative_radius: bound on `||eps_c|| / ||theta||`, None for the bare formula.
      grad_norm: "global" takes one norm of d_c over theta (the paper), "per_leaf" one norm and
        one radius for each leaf (the released code).
      class_weighting: "sample" weighs class c by its share of the batch; "class" gives each class
        present in the batch weight 1 (`sum_c m_c(w + eps_c)`, equation 4 read literally).
      mask: pytree prefix of bools, or a callable from params to one: theta.
      adaptive: ASAM: d_c is scaled by |w| in norm and direction. `max_relative_radius` then
        bounds the radius before that scaling.

    Returns:
      A transformation whose `update` takes `params` and the keyword `class_losses_fn`.

    Raises:
      ValueError: a number out of range, an unknown option or bad class counts; at `init` or
        `update` a mask that does not fit.
    """
    check_not_negative(
        radius_scale=radius_scale,
        flat_ratio=flat_ratio,
        max_relative_radius=0 if max_relative_radius is None else max_relative_radius,
    )
    check_choice("grad_norm", grad_norm, ("global", "per_leaf"))
    check_choice("class_weighting", class_weighting, ("sample", "class"))
    if is_number(flat_ratio) and flat_ratio > 1:
        raise ValueError(f"flat_ratio must lie in [0, 1], got {flat_ratio}")
    train_counts = check_class_counts(class_counts)
    confidence = jnp.power(jnp.maximum(train_counts - 1, 1), -0.25)

    def objective(counts: jax.Array, step: jax.Array) -> Objective:
        ratio = at_step(flat_ratio, step)
        size = _batch_size(counts)
        # Without the clean term its pass through the network is not even built.
        everything_flat = is_number(flat_ratio) and flat_ratio == 1
        clean = None if everything_flat else jnp.full_like(counts, (1 - ratio) / size)
        means = jnp.diag(1 / jnp.where(counts > 0, counts, 1))
        weights = counts / size if class_weighting == "sample" else jnp.sign(counts)
        return Objective(clean, means, ratio * weights)

    def radii(step: jax.Array) -> jax.Array:
        return at_step(radius_scale, step) * confidence

    def radius_fn_at(step: jax.Array) -> RadiusFn:
        def radius_fn(rho, norms, theta_norm, size):
            radius = rho * jnp.sqrt(theta_norm / (2 * norms)) * size**0.25
            if max_relative_radius is None:
                return radius
            bound = at_step(max_relative_radius, step) * theta_norm
            whole = jnp.linalg.norm(radius)
            return radius * jnp.where(whole > bound, bound / whole, 1)

        return radius_fn

    return sharpness_transformation(
        objective,
        radii,
        num_groups=train_counts.size,
        num_classes=train_counts.size,
        radius_fn_at=radius_fn_at,
        per_leaf=grad_norm == "per_leaf",
        vectorize=True,
        mask=mask,
        adaptive=adaptive,
    )


def _batch_size(counts: jax.Array) -> jax.Array:
    """Number of images counted, or 1 where there is none: their losses are 0 then."""
    total = counts.sum()
    return jnp.where(total > 0, total, 1)


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
