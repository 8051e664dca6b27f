"""Sums of a batch's losses by class: what every method differentiates."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlt.batch.precision import at_least_32_bits


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassLosses:
    """The losses of one batch, summed by class.

    Attributes:
        sums: (C,) sum of the losses of each class's images; 0 for a class without images.
        counts: (C,) images of each class in the batch, or sums of shares where labels are shares.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> losses = jaxlt.ClassLosses(sums=jnp.array([6.0, 4.0]), counts=jnp.array([3.0, 1.0]))
        >>> print(losses.mean())
        2.5
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
        labels: (B,) integer classes, or (B, C) shares of each image in each class (mixup: lam and
            1 - lam; padding: a row of zeros). An integer outside [0, C), such as -1, marks a row
            of padding, whose loss must still be finite.
        num_classes: C.
        axis_name: mapped axis or axes over which the batch is spread. Sums and counts are then
            those of the global batch, on every device. So are gradients under `jax.shard_map` with
            its default `check_vma=True`, but not without that check nor under `jax.pmap`, where
            JAX differentiates a sum over devices otherwise. `jaxlt.over_axis` works under all
            three; use that or this.

    Returns:
        The `ClassLosses` of the batch, accumulated in at least 32 bits.

    Raises:
        ValueError: the shapes of `per_example`, `labels` and `num_classes` do not fit together, or
            labels of shape (B,) are not integers.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> losses, labels = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0, 0, 0, 1])
        >>> print(jaxlt.class_losses(losses, labels, num_classes=3).sums)
        [6. 4. 0.]
    """
    per_example, labels = jnp.asarray(per_example), jnp.asarray(labels)
    if per_example.ndim != 1:
        raise ValueError(
            f"per_example must have shape (B,), one loss an example, got {per_example.shape}"
        )
    size = per_example.size
    if labels.shape not in ((size,), (size, num_classes)):
        raise ValueError(
            f"labels must have shape ({size},) or ({size}, {num_classes}), got {labels.shape}"
        )
    if labels.ndim == 1 and not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels of shape (B,) must be integers, got {labels.dtype}")
    per_example = at_least_32_bits(per_example)
    if labels.ndim == 1:
        shares = jax.nn.one_hot(labels, num_classes, dtype=per_example.dtype)
    else:
        shares = labels.astype(per_example.dtype)
    # Multiply and sum: segment_sum and a matrix product both fail on explicitly sharded meshes.
    sums = (shares * per_example[:, None]).sum(axis=0)
    counts = shares.sum(axis=0)
    if axis_name is not None:
        sums, counts = jax.lax.psum((sums, counts), axis_name)
    return ClassLosses(sums=sums, counts=counts)


def batch_size(counts: jax.Array) -> jax.Array:
    """Returns the number of images counted, or 1 where there are none and so all losses are 0."""
    total = counts.sum()
    return jnp.where(total > 0, total, 1)
