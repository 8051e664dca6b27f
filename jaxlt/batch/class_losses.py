"""The losses of a batch by class: what every method differentiates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Integer, Real

from jaxlt.batch.cosine import Cosine
from jaxlt.batch.passes import Blocks, Passes
from jaxlt.batch.precision import at_least_32_bits, of_one_type

Features: TypeAlias = Float[Array, "batch features"]
Logits: TypeAlias = Float[Array, "batch classes"]
Labels: TypeAlias = Integer[Array, " batch"]
Losses: TypeAlias = Float[Array, " batch"]
# NumPy's arrays too.
AnyFeatures: TypeAlias = Float[ArrayLike, "batch features"]
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


class Linear(NamedTuple):
    """Affine classifier, `features @ kernel + bias`, or without a bias where that is None.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> classifier = jaxlt.Linear(kernel=jnp.eye(2), bias=jnp.array([0.0, 10.0]))
        >>> print(classifier.logits(jnp.array([[3.0, 4.0]])))
        [[ 3. 14.]]
    """

    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"] | None = None

    def logits(self, features: AnyFeatures) -> Float[Array, "batch classes"]:
        """Maps features to logits, of the widest type among features, kernel and bias."""
        features, *leaves = of_one_type(features, *jax.tree.leaves(self))
        logits = features @ leaves[0]
        return logits if self.bias is None else logits + leaves[1][None]


@dataclasses.dataclass(frozen=True)
class FactoredLosses:
    """A `class_losses_fn` that lets the methods skip work.

    Every method takes it in place of a plain function from params to `ClassLosses`. `cc_sam` then
    perturbs a classifier in closed form, at the cost of SGD for any number of classes. With
    `independent`, `imb_sam`, `sse_sam` and `cc_sam` evaluate each group of classes on its own
    images alone; on an explicitly sharded mesh, where none can be picked out, on the whole batch.

    Attributes:
        features_fn: from params and images to features, for any number of images; with `has_aux`
            to a pair of them and anything else, which `jaxlt.value_and_grad` returns.
        classifier_fn: from params to a `Linear` or `Cosine`. The closed form needs leaves of params
            as they are, which `features_fn` does not read; any others are perturbed class by class.
        loss_fn: from logits and labels to losses, each of its own row alone.
        images: pytree of arrays (B, ...), whatever `features_fn` takes.
        labels: `(B,)` classes. A label outside [0, C), such as -1, marks padding.
        num_classes: C.
        independent: whether an image's features depend on that image alone. Dropout breaks this,
            and so does batch norm unless its statistics are held fixed.
        passes: how methods pass over part of a batch. None makes those with one group or two take
            all of it, which can be faster where the network is made of convolutions.
        has_aux: whether `features_fn` returns something beside, such as new batch statistics.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> losses_fn = jaxlt.FactoredLosses(
        ...     features_fn=lambda params, images: images,  # a network without its last layer
        ...     classifier_fn=lambda params: jaxlt.Linear(params["kernel"], params["bias"]),
        ...     loss_fn=jaxlt.losses.cross_entropy,
        ...     images=jnp.ones((4, 2)), labels=jnp.array([0, 0, 0, 1]), num_classes=3,
        ... )
        >>> print(losses_fn({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}).counts)
        [3. 1. 0.]
    """

    features_fn: Callable[[Any, Any], Any]
    classifier_fn: Callable[[Any], Linear | Cosine]
    loss_fn: LossFn
    images: Any
    labels: Labels
    num_classes: int
    independent: bool = False
    passes: Passes | None = dataclasses.field(default_factory=Blocks)
    has_aux: bool = False

    def __post_init__(self):
        labels = jnp.shape(self.labels), jnp.result_type(self.labels)
        if len(labels[0]) != 1 or not jnp.issubdtype(labels[1], jnp.integer):
            wanted = "be integers of shape (B,), and shares go to jaxlt.class_losses"
            raise ValueError(f"labels must {wanted}, got {labels[1]} of shape {labels[0]}")
        for images in jax.tree.leaves(self.images):
            rows = labels[0] + jnp.shape(images)[1:]
            check_shape("images must, as labels, have", images, rows)

    @property
    def in_parts(self) -> bool:
        """Whether a pass may take part of the images, which an explicit sharding forbids."""
        arrays = jax.tree.leaves((self.images, self.labels))
        return self.independent and not any(any(jax.typeof(x).sharding.spec) for x in arrays)

    def __call__(self, params: Any) -> ClassLosses:
        """Returns the losses of the batch, summed by class."""
        losses = self.losses(params, self.images, self.labels)
        return class_losses(losses, self.labels, self.num_classes)

    def losses(self, params: Any, images: Any, labels: AnyLabels) -> Losses:
        """Returns the loss of each image, of any number of them; see `FactoredLosses`."""
        features, _ = self.features_and_aux(params, images)
        return self.loss(self.logits(self.classifier_fn(params), features, labels), labels)

    def features_and_aux(self, params: Any, images: Any) -> tuple[Float[Array, "*shape"], Any]:
        """Returns the features of images, and None or what is beside; see `FactoredLosses`."""
        result = self.features_fn(params, images)
        return result if self.has_aux else (result, None)

    def logits(self, classifier: Linear | Cosine, features: Array, labels: AnyLabels) -> Logits:
        """Returns the logits of each image; see `FactoredLosses`."""
        (rows,), shape = jnp.shape(labels), jnp.shape(features)
        if len(shape) != 2 or shape[0] != rows:
            raise ValueError(f"features_fn must return shape ({rows}, D), got {shape}")
        kernel = shape[1], self.num_classes
        if not isinstance(classifier, Linear | Cosine):
            need, got = "jaxlt.Linear or jaxlt.Cosine", type(classifier).__name__
            raise TypeError(f"classifier_fn must return {need}, got {got}")
        for leaf, wanted in zip(jax.tree.leaves(classifier), (kernel, kernel[1:]), strict=False):
            check_shape("classifier_fn must return a leaf of", leaf, wanted)
        return classifier.logits(features)

    def loss(self, logits: Logits, labels: AnyLabels) -> Losses:
        """Returns the loss of each row in at least 32 bits; see `FactoredLosses`."""
        losses = at_least_32_bits(self.loss_fn(logits, jnp.asarray(labels)))
        check_shape("loss_fn must return a loss a row, of", losses, jnp.shape(labels))
        return losses


def check_shape(name: str, array: ArrayLike, *shapes: tuple[int, ...]) -> None:
    """Raises ValueError, which begins with the name, unless an array has one of some shapes."""
    if jnp.shape(array) not in shapes:
        wanted = " or ".join(map(str, shapes))
        raise ValueError(f"{name} shape {wanted}, got {jnp.shape(array)}")
