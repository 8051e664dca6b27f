"""CC-SAM: a perturbation for each class."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int

from jaxlt.batch.argument_checks import (
    ClassCounts,
    ScalarOrSchedule,
    at_step,
    check_choice,
    check_class_counts,
    check_not_negative,
    check_share,
)
from jaxlt.batch.class_losses import batch_size
from jaxlt.methods.groups import Groups
from jaxlt.methods.sharpness_aware import sharpness_aware
from jaxlt.sharpness.equation import Objective
from jaxlt.sharpness.perturbation import Mask


def cc_sam(
    class_counts: ClassCounts,
    *,
    radius_scale: ScalarOrSchedule = 1.0,
    flat_ratio: ScalarOrSchedule = 1.0,
    max_relative_radius: ScalarOrSchedule | None = 0.05,
    grad_norm: Literal["global", "per_leaf"] = "global",
    class_weighting: Literal["sample", "class"] = "sample",
    direction: Literal["gradient", "random"] = "gradient",
    magnitude: Literal["characteristic", "constant"] = "characteristic",
    seed: Int[ArrayLike, ""] = 0,
    chunk_size: int | None = None,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """CC-SAM, first stage (Zhou et al., CVPR 2023, equations 7-11): a perturbation for each class.

    Class c moves along the gradient d_c of its mean loss m_c, by the characteristic radius

        `||eps_c|| = radius_scale * sqrt(||theta|| / (2 ||d_c||)) * (k / (N_c - 1))**0.25`

    with k scalars in theta. The result is the gradient of `(1 - flat_ratio) * L(w) + flat_ratio *
    sum_c (n_c / B) m_c(w + eps_c)`. For a class of one image `N_c - 1` counts as 1. The radius
    grows without bound as a class becomes well fitted, and training then diverges;
    `max_relative_radius` bounds it. Where `bounded` of the state stays 1 the bound decides for all
    classes, and the formula for none: lower `radius_scale` if you want the formula.
    `direction` and `magnitude` each take one part away (the paper's Table 2): the direction of d_c,
    or the characteristic radius. A class without gradient is never perturbed.

    What a step costs depends on theta:

    * The classifier alone, by a `mask`, as in the authors' experiments: one forward and one
      backward pass. With a `FactoredLosses` and the gradients' directions this is a closed form,
      else a `vmap` over classes that evaluates the backbone once.
    * More than the classifier: with a `FactoredLosses` whose images do not depend on each other,
      passes over each class's own images; else passes over the batch for each class in it.

    Args:
        class_counts: training images of each class, N_c.
        radius_scale: factor on the radius, at least 0, or a schedule of it. The paper has 1, the
            released configurations 1e-6.
        flat_ratio: weight of the perturbed losses, in [0, 1], or a schedule of it. The paper has 1,
            the released configurations 0.3 or 0.5.
        max_relative_radius: bound on `||eps_c|| / ||theta||`, None for the paper's bare formula.
        grad_norm: "global" takes one norm of d_c over theta (the paper). "per_leaf" takes one norm
            and one radius for each leaf (the released code).
        class_weighting: "sample" weighs class c by its share of the batch. "class" gives each class
            in the batch weight 1 (`sum_c m_c(w + eps_c)`, equation 4 read literally).
        direction: "gradient" perturbs class c along d_c, "random" along standard normal numbers
            over theta, drawn afresh for each class and step.
        magnitude: "constant" makes `||eps_c|| = radius_scale` for all classes.
        seed: seed of the random directions, which are the same on every device. To let your run
            decide too, give `update` a `key=` of it.
        chunk_size: classes perturbed at once, which bounds memory, where each class costs passes
            over the batch. None takes all at once where the mask leaves parameters out, and else
            one after the other.
        mask: theta, the leaves to perturb: a prefix of bools, or a callable from params to one.
        adaptive: whether |w| scales d_c in norm and direction (ASAM). `max_relative_radius` then
            bounds the radius before that scaling.

    Raises:
        ValueError: a number is out of range, an option is unknown, or the class counts are bad; at
            `init` or `update`, the mask does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.cc_sam((90, 10), max_relative_radius=0.1)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.68 2.25]
    """
    check_not_negative(radius_scale=radius_scale)
    check_choice("grad_norm", grad_norm, ("global", "per_leaf"))
    check_choice("class_weighting", class_weighting, ("sample", "class"))
    check_choice("direction", direction, ("gradient", "random"))
    check_choice("magnitude", magnitude, ("characteristic", "constant"))
    check_share(flat_ratio=flat_ratio)
    train_counts = check_class_counts(class_counts)
    constant = magnitude == "constant"
    confidence = jnp.power(jnp.maximum(train_counts - 1, 1), -0.25)
    scale = jnp.ones_like(train_counts) if constant else confidence

    def objective(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        ratio = at_step(flat_ratio, step)
        ratio = jnp.where(ratio > 1, jnp.nan, ratio)
        size = batch_size(counts)
        # Without the clean term its pass through the network is not even built.
        everything_flat = isinstance(flat_ratio, (int, float)) and flat_ratio == 1
        clean = None if everything_flat else jnp.full_like(counts, (1 - ratio) / size)
        means = 1 / jnp.where(counts > 0, counts, 1)
        weights = counts / size if class_weighting == "sample" else jnp.sign(counts)
        return Objective(clean, means, ratio * weights)

    def radii(step: Int[Array, ""]) -> Float[Array, " classes"]:
        return scale * at_step(radius_scale, step)

    def radius_fn(rho, norms, theta_norm, size):
        if constant:
            # A class without gradient has an infinite norm, which a random direction has not.
            return jnp.where(jnp.isfinite(norms), rho, 0)
        return rho * jnp.sqrt(theta_norm / (2 * norms)) * size**0.25

    return sharpness_aware(
        Groups(objective, scale.size, scale.size, sums_to_mean=False, each_class=True),
        radii,
        max_relative_radius=max_relative_radius,
        radius_fn=radius_fn,
        adaptive=adaptive,
        per_leaf=grad_norm == "per_leaf",
        seed=seed if direction == "random" else None,
        chunk_size=chunk_size,
        mask=mask,
    )
