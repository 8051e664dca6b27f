"""Per-class sums of a batch's losses: the one thing that every method of jaxlt differentiates."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassLosses:
    """The losses of one batch, summed by class.

    Attributes:
        sums: (C,) sum of the losses of each class's images; 0 for a class without image.
        counts: (C,) number of images of each class in the batch (a share where labels are shares).
    """

    sums: jax.Array
    counts: jax.Array

    def mean(self) -> jax.Array:
        """Returns the batch-mean loss, a scalar; 0 for a batch of nothing but padding."""
        return self.sums.sum() / batch_size(self.counts)


ClassLossesFn: TypeAlias = Callable[[Any], ClassLosses]


def class_losses(
    per_example: jax.Array,
    labels: jax.Array,
    num_classes: int,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> ClassLosses:
    """Sums per-example losses by class.

    Args:
        per_example: (B,) losses, any weighting already applied.
        labels: (B,) integer classes, or (B, C) shares of each image that belong to each class
            (mixup: lam and 1 - lam; padding: a row of zeros). An integer outside [0, C), such as
            -1, marks a row of padding, whose loss must still be finite.
        num_classes: C.
        axis_name: mapped axis or axes over which the batch is spread and to sum over, so that every
            device holds the sums and counts of the global batch. Gradients through it are those of
            the global batch under `jax.shard_map` with its default `check_vma=True` alone: under
            `jax.pmap`, or without that check, the derivative of a sum over devices is another.
            `jaxlt.over_axis` gives the global batch's under all three; use that or this.

    Returns:
        The `ClassLosses` of the batch, accumulated in at least 32 bits.

    Raises:
        ValueError: the shapes of `per_example`, `labels` and `num_classes` do not fit together, or
            classes are given as other than integers.
    """
    per_example, labels = jnp.asarray(per_example), jnp.asarray(labels)
    if per_example.ndim != 1:
        raise ValueError(
            f"per_example must have shape (B,), one loss an example, got {per_example.shape}"
        )
    batch_size = per_example.shape[0]
    if labels.shape not in ((batch_size,), (batch_size, num_classes)):
        raise ValueError(
            f"labels must have shape ({batch_size},) or ({batch_size}, "
            f"{num_classes}), got {labels.shape}"
        )
    if labels.ndim == 1 and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels of shape (B,) must be integers, got {labels.dtype}")
    dtype = jnp.promote_types(per_example.dtype, jnp.float32)
    if labels.ndim == 1:
        shares = jax.nn.one_hot(labels, num_classes, dtype=dtype)
    else:
        shares = labels.astype(dtype)
    # Multiply and sum: segment_sum and a matrix product both fail on explicitly sharded meshes.
    sums = (shares * per_example.astype(dtype)[:, None]).sum(axis=0)
    counts = shares.sum(axis=0)
    if axis_name is not None:
        sums, counts = jax.lax.psum((sums, counts), axis_name)
    return ClassLosses(sums=sums, counts=counts)


def batch_size(counts: jax.Array) -> jax.Array:
    """Returns the number of images counted, or 1 where there is none: their losses are 0 then."""
    total = counts.sum()
    return jnp.where(total > 0, total, 1)
