"""The losses of a batch by class: what every method differentiates."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Integer, Num, Real

Logits: TypeAlias = Float[Array, "batch classes"]
Labels: TypeAlias = Integer[Array, " batch"]
Losses: TypeAlias = Float[Array, " batch"]
# NumPy's arrays too.
AnyLogits: TypeAlias = Float[ArrayLike, "batch classes"]
AnyLabels: TypeAlias = Integer[ArrayLike, " batch"]
LossFn: TypeAlias = Callable[[Logits, Labels], Losses]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassLosses:
    """The losses of one batch, summed by class.

    Attributes:
        sums: sum of the losses of each class's images; 0 for a class without images.
        counts: images of each class in the batch, or sums of shares where labels are shares.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> losses = jaxlt.ClassLosses(sums=jnp.array([6.0, 4.0]), counts=jnp.array([3.0, 1.0]))
        >>> print(losses.mean())
        2.5
    """

    sums: Float[Array, " classes"]
    counts: Real[Array, " classes"]

    def mean(self) -> Float[Array, ""]:
        """Returns the batch-mean loss; 0 for a batch of nothing but padding."""
        sums = at_least_32_bits(self.sums)
        return sums.sum() / batch_size(self.counts.astype(sums.dtype))


ClassLossesFn: TypeAlias = Callable[[Any], ClassLosses]


def class_losses(
    per_example: Real[ArrayLike, " batch"],
    labels: AnyLabels | Real[ArrayLike, "batch classes"],
    num_classes: int,
    *,
    axis_name: str | tuple[str, ...] | None = None,
) -> ClassLosses:
    """Sums per-example losses by class, in at least 32 bits.

    Args:
        per_example: losses, any weighting already applied.
        labels: classes (B,), or shares (B, C) of each image in each class (mixup: lam and
            1 - lam; padding: a row of zeros). An integer outside [0, C), such as -1, marks a row
            of padding, whose loss must still be finite.
        num_classes: C.
        axis_name: mapped axis or axes over which the batch is spread. Sums and counts are then
            those of the global batch, on every device. So are gradients under `jax.shard_map` with
            its default `check_vma=True`, but not without that check nor under `jax.pmap`.
            `jaxlt.over_axis` works under all three; use that or this.

    Raises:
        ValueError: the arguments' shapes do not fit together, or labels (B,) are not integers.

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
    check_shape("labels must have", labels, (size,), (size, num_classes))
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


def check_class_losses(losses: Any, function: str = "class_losses_fn") -> ClassLosses:
    """Returns what a function returned.

    Raises:
        TypeError: it is no `ClassLosses`.
        ValueError: its arrays are not of shape (C,).
    """
    if not isinstance(losses, ClassLosses):
        array = isinstance(losses, jax.Array)
        got = f"an array of shape {losses.shape}" if array else type(losses).__name__
        raise TypeError(
            f"{function} must return jaxlt.ClassLosses, got {got}: return "
            "jaxlt.class_losses(per_example, labels, num_classes) of the losses of all images"
        )
    if losses.sums.ndim != 1 or losses.sums.shape != losses.counts.shape:
        raise ValueError(
            f"{function} must return sums and counts of shape (C,), got sums "
            f"{losses.sums.shape} and counts {losses.counts.shape}"
        )
    return losses


def batch_size(counts: Real[Array, " classes"]) -> Real[Array, ""]:
    """Returns the number of images counted, or 1 where there are none and so all losses are 0."""
    total = counts.sum()
    return jnp.where(total > 0, total, 1)


def at_least_32_bits(x: Num[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    """Returns an array in float32, or as it is where it is wider."""
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype))


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """Returns float32 for types of fewer bits and for integers, else the type itself."""
    narrow = not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32) if narrow else dtype


def check_shape(name: str, array: ArrayLike, *shapes: tuple[int, ...]) -> None:
    """Raises ValueError, which begins with the name, unless an array has one of some shapes."""
    if jnp.shape(array) not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{name} shape {wanted}, got {jnp.shape(array)}")
