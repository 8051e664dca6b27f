"""Sharpness of the loss of each group of classes on one batch, cheap enough to be taken often."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from jaxlt.batch.class_losses import ClassLossesFn
from jaxlt.sharpness.equation import class_sums_fn
from jaxlt.sharpness.perturbation import Mask, PerturbationRule, Scope, add, inner, norm


class GroupSharpness(NamedTuple):
    """What a batch says of G groups of classes; NaN where it has no image of a group.

    Attributes:
        loss: mean loss L_g of the group's images.
        gradient_norm: `||d_g||`, d_g being the gradient of L_g.
        sharpness: `L_g(w + radius * d_g / ||d_g||) - L_g(w)`.
        cosine: of the angles between the d_g; NaN with one that is 0 too.
    """

    loss: Float[Array, " groups"]
    gradient_norm: Float[Array, " groups"]
    sharpness: Float[Array, " groups"]
    cosine: Float[Array, "groups groups"]


def group_sharpness(
    class_losses_fn: ClassLossesFn,
    params: Any,
    groups: Bool[ArrayLike, "groups classes"],
    *,
    radius: float = 0.05,
    mask: Mask = None,
) -> GroupSharpness:
    """Measures the loss of each group of classes at `params` and one step of ascent away.

    The sharpness is SAM's inner maximum by its linear solution (Foret et al., "Sharpness-aware
    minimization for efficiently improving generalization", ICLR 2021, equation 2), with the loss of
    one group in place of the batch's. It takes one forward pass, and a backward and a forward pass
    for each group.

    Args:
        class_losses_fn: from params to the batch's `ClassLosses`; deterministic, counts fixed.
        params: pytree of floating arrays, w.
        groups: whether a class is in a group; groups may overlap.
        radius: of the ascent, in units of the parameters; the same for all groups.
        mask: the leaves along which gradients are taken and perturbed, all by default.

    Raises:
        ValueError: `groups` has another shape, or as `jaxlt.sam` for mask and losses.

    Example:
        >>> import jax.numpy as jnp, jaxlt, jaxlt.analysis as analysis
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jnp.ones(2))
        >>> found = analysis.group_sharpness(losses_fn, jnp.array([3.0, 4.0]), jnp.eye(2) > 0)
        >>> print(found.loss, found.sharpness)
        [4.5 8. ] [0.15 0.2 ]
    """
    scope, groups = Scope(params, mask), jnp.asarray(groups)
    class_sums = class_sums_fn(class_losses_fn, scope)
    sums, pullback, losses = jax.vjp(
        lambda theta: class_sums(theta, scope.rest), scope.theta, has_aux=True
    )
    if groups.ndim != 2 or groups.shape[1] != sums.size:
        raise ValueError(
            f"groups must have shape (G, C), with C = {sums.size} as the losses, got {groups.shape}"
        )
    # Multiply and sum, here as below: by default GPUs round the factors of a product to 10 bits.
    images = (groups * losses.counts).sum(axis=1)
    weights = (groups / jnp.maximum(images, 1)[:, None]).astype(sums.dtype)
    at_w = (weights * sums).sum(axis=1)
    gradients = [pullback(row)[0] for row in weights]
    rule, away = PerturbationRule(), []
    for group, (row, gradient) in enumerate(zip(weights, gradients, strict=True)):
        eps = rule.perturbation(gradient, scope.theta, jnp.asarray(radius), group)
        moved = add(scope.theta, eps)
        if away:
            # Adds nothing, but makes this pass begin after the one before it, as all at once
            # would take the memory of all.
            moved = [w + 0 * away[-1].astype(w.dtype) for w in moved]
        away.append((row * class_sums(moved, scope.rest)[0]).sum())
    norms = jnp.stack([norm(gradient) for gradient in gradients])
    products = jnp.stack([jnp.stack([inner(a, b) for b in gradients]) for a in gradients])
    present = images > 0
    return GroupSharpness(
        loss=jnp.where(present, at_w, jnp.nan),
        gradient_norm=jnp.where(present, norms, jnp.nan),
        sharpness=jnp.where(present, jnp.stack(away) - at_w, jnp.nan),
        # A group without image has a gradient of 0, and 0 / 0 is NaN.
        cosine=products / (norms[:, None] * norms),
    )
