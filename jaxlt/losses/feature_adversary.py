"""CC-SAM's second stage: training a classifier on adversarial features of a frozen backbone.

It follows Zhou et al., CVPR 2023, equations 12-14, and their released code, which differs.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from jaxlt.batch.argument_checks import (
    ClassCounts,
    check_choice,
    check_class_counts,
    check_positive,
)
from jaxlt.batch.class_losses import AnyFeatures, AnyLabels, Linear, Losses, LossFn
from jaxlt.batch.cosine import Cosine
from jaxlt.batch.precision import at_least_32_bits

Grouping: TypeAlias = Literal["example", "class"]


def adversarial_features(
    features: AnyFeatures,
    classifier: Linear | Cosine,
    loss_fn: LossFn,
    labels: AnyLabels,
    num_classes: int,
    *,
    radius: Real[ArrayLike, ""] | Real[ArrayLike, " classes"],
    grouping: Grouping = "example",
) -> Float[Array, "batch features"]:
    """Moves features to where the loss is higher: `z + radius * grad_z L / ||grad_z L||`.

    See CC-SAM's paper, equations 12-14. The result is a constant to whatever differentiates it.
    Features with a zero gradient stay where they are, and so does padding.

    Args:
        features: z.
        classifier: maps features to logits, such as a `jaxlt.Linear`.
        loss_fn: from logits and labels to losses, each of its own row alone.
        labels: `(B,)` classes. A label outside [0, C), such as -1, marks padding.
        num_classes: C.
        radius: distance, or (C,) one for each class.
        grouping: "example" divides each row's gradient by its own norm (the paper). "class"
            divides by the norm over all rows of its class (the released code): the class as a
            whole moves by the radius, and each of its images by less.

    Raises:
        ValueError: the grouping is unknown, or the radius is neither one number nor C.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> z, labels = jnp.array([[3.0, 4.0]]), jnp.array([0])
        >>> classifier = jaxlt.Linear(kernel=jnp.eye(2), bias=jnp.zeros(2))
        >>> loss_fn = jaxlt.losses.cross_entropy
        >>> print(jaxlt.losses.adversarial_features(z, classifier, loss_fn, labels, 2, radius=1.0))
        [[2.29 4.71]]
    """
    check_choice("grouping", grouping, ("example", "class"))
    features, labels = jnp.asarray(features), jnp.asarray(labels)
    radius = _of_each_class("radius", radius, num_classes)
    gradient = jax.grad(lambda z: loss_fn(classifier.logits(z), labels).sum())(features)
    gradient = at_least_32_bits(gradient)
    members = jax.nn.one_hot(labels, num_classes, dtype=gradient.dtype)
    squares = jnp.square(gradient).sum(1)
    if grouping == "class":
        # Of the class-mean loss both gradient and norm would be smaller by the class's size.
        squares = (members * (members * squares[:, None]).sum(0)[None]).sum(1)
    norms = jnp.sqrt(jnp.where(squares > 0, squares, jnp.inf))
    steps = (members * radius[None].astype(members.dtype)).sum(1) / norms
    moved = features + (steps[:, None] * gradient).astype(features.dtype)
    return jax.lax.stop_gradient(moved)


def adversarial_losses(
    features: AnyFeatures,
    classifier: Linear | Cosine,
    loss_fn: LossFn,
    labels: AnyLabels,
    num_classes: int,
    *,
    ratio: float | Real[Array, ""],
    radius: Real[ArrayLike, ""] | Real[ArrayLike, " classes"],
    grouping: Grouping = "example",
    class_weights: Real[ArrayLike, " classes"] | None = None,
) -> Losses:
    """Mixes losses at features and adversarial ones: `(1 - ratio) * l(z) + ratio * w_y * l(z_adv)`.

    See CC-SAM's paper, equations 12-14, where the ratio rises from 0 to 1 over the stage. Gradients
    reach the classifier through both terms, but not through the making of z_adv. They never reach
    the features. A row of padding has the loss `(1 - ratio) * l(z)`, 0 for those of `jaxlt.losses`.

    Args:
        features: z.
        classifier: see `adversarial_features`, as loss_fn, labels, radius and grouping.
        loss_fn: see there.
        labels: see there.
        num_classes: C.
        ratio: weight of the adversarial term, in [0, 1].
        radius: see there.
        grouping: see there.
        class_weights: w, which multiply the radius of each class too, such as
            `released_class_weights`. None for 1, as in the paper.

    Raises:
        ValueError: see `adversarial_features`; or the weights are not C numbers.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> z, labels = jnp.array([[3.0, 4.0]]), jnp.array([0])
        >>> classifier = jaxlt.Linear(kernel=jnp.eye(2), bias=jnp.zeros(2))
        >>> loss_fn, how = jaxlt.losses.cross_entropy, {"ratio": 0.5, "radius": 1.0}
        >>> print(jaxlt.losses.adversarial_losses(z, classifier, loss_fn, labels, 2, **how))
        [1.91]
    """
    weights = 1.0 if class_weights is None else class_weights
    weights = _of_each_class("class_weights", weights, num_classes)
    features, labels = jax.lax.stop_gradient(jnp.asarray(features)), jnp.asarray(labels)
    radius = _of_each_class("radius", radius, num_classes) * weights
    adversarial = adversarial_features(
        features, classifier, loss_fn, labels, num_classes, radius=radius, grouping=grouping
    )
    clean, moved = (loss_fn(classifier.logits(z), labels) for z in (features, adversarial))
    members = jax.nn.one_hot(labels, num_classes, dtype=moved.dtype)
    weight = (members * weights[None].astype(moved.dtype)).sum(1)
    if isinstance(ratio, Array):
        ratio = ratio.astype(moved.dtype)
    return (1 - ratio) * clean + ratio * weight * moved


def released_class_weights(
    class_counts: ClassCounts, divisor: float = 2.0
) -> Float[Array, " classes"]:
    """Class weights of the released second stage, `log(N_max / N_c + 0.01) / divisor`.

    Args:
        class_counts: training images of each class.
        divisor: positive; 2 in most of the released configurations.

    Raises:
        ValueError: `class_counts` is not C positive numbers, or the divisor is not positive.

    Example:
        >>> import jaxlt
        >>> print(jaxlt.losses.released_class_weights((90, 10)))
        [0.  1.1]
    """
    check_positive(divisor=divisor)
    counts = check_class_counts(class_counts, whole=False)
    return jnp.log(counts.max() / counts + 0.01) / divisor


def _of_each_class(name: str, value: ArrayLike, num_classes: int) -> Array:
    value = jnp.asarray(value, dtype=float)
    if value.shape not in ((), (num_classes,)):
        raise ValueError(f"{name} must have shape () or ({num_classes},), got {value.shape}")
    return jnp.broadcast_to(value, (num_classes,))
