"""ImbSAM: plain descent on the head, SAM on the tail."""

from __future__ import annotations

import warnings

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Int, Real

from jaxlt.batch.argument_checks import (
    ClassCounts,
    ScalarOrSchedule,
    check_class_counts,
    check_not_negative,
    check_threshold,
)
from jaxlt.batch.class_losses import batch_size
from jaxlt.methods.groups import Groups
from jaxlt.methods.sharpness_aware import sharpness_aware
from jaxlt.sharpness.equation import Objective
from jaxlt.sharpness.perturbation import Mask


def imb_sam(
    class_counts: ClassCounts,
    rho: ScalarOrSchedule = 0.05,
    *,
    tail_threshold: Real[ArrayLike, ""] = 20,
    group_mean: bool = False,
    mask: Mask = None,
    adaptive: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """ImbSAM (Zhou et al., ICCV 2023): plain descent on the head, SAM on the tail.

    It returns the gradient of `L_head(w) + L_tail(w + rho * grad L_tail / ||grad L_tail||)`. Each
    loss is a sum over its group divided by the batch size. A step costs two forward and three
    backward passes. The authors' first repository also doubles the tail loss; this does not.

    Args:
        class_counts: training images of each class.
        rho: radius of the tail, at least 0, or a schedule of it.
        tail_threshold: a class is tail if it has strictly fewer training images.
        group_mean: whether to divide each group's loss by its own number of images in the batch
            in place of the batch size. This weighs the tail more; one released repository does it.
        mask: the leaves to perturb: a pytree prefix of bools, or a callable from params to one.
        adaptive: whether the radius is relative to each weight's magnitude (ASAM).

    Raises:
        ValueError: negative radius or bad counts; at `init` or `update`, a mask that does not fit.

    Example:
        >>> import jax, jaxlt
        >>> def losses_fn(w):  # class c loses w[c]**2 / 2
        ...     return jaxlt.ClassLosses(w**2 / 2, counts=jax.numpy.ones(2))
        >>> w = jax.numpy.array([3.0, 4.0])
        >>> tx = jaxlt.imb_sam((90, 10), rho=0.5, tail_threshold=20)
        >>> gradient = jax.grad(lambda w: losses_fn(w).mean())(w)
        >>> print(tx.update(gradient, tx.init(w), w, class_losses_fn=losses_fn)[0])
        [1.5  2.25]
    """
    check_not_negative(rho=rho)
    tail = tail_classes(class_counts, tail_threshold)

    def objective(counts: Float[Array, " classes"], step: Int[Array, ""]) -> Objective:
        if not group_mean:
            return Objective.of_shares(tail[None], counts)
        head = 1 - tail
        head_size, tail_size = batch_size(head * counts), batch_size(tail * counts)
        return Objective(head / head_size, tail[None] / tail_size, jnp.ones(1))

    groups = Groups(objective, 1, tail.size, sums_to_mean=not group_mean, disjoint=True)
    return sharpness_aware(groups, rho, mask=mask, adaptive=adaptive)


def tail_classes(
    class_counts: ClassCounts, tail_threshold: Real[ArrayLike, ""]
) -> Float[Array, " classes"]:
    """Returns 1 for each class with fewer images than the threshold, else 0; warns if all agree."""
    check_threshold(tail_threshold=tail_threshold)
    counts = check_class_counts(class_counts)
    tail = (counts < tail_threshold).astype(counts.dtype)
    if isinstance(tail, Tracer):
        return tail
    if not tail.any():
        need = f"above the rarest class's {int(counts.min())} images for any class to be tail"
        warnings.warn(f"tail_threshold must be {need}, got {tail_threshold}", stacklevel=3)
    elif tail.all():
        need = f"at most the largest class's {int(counts.max())} images for any class to be head"
        warnings.warn(f"tail_threshold must be {need}, got {tail_threshold}", stacklevel=3)
    return tail
