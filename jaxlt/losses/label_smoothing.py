"""Label-aware smoothing: the more images a class has, the softer its labels."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.argument_checks import ClassCounts, check_choice, check_class_counts, check_share
from jaxlt.batch.class_losses import AnyLabels, AnyLogits, Losses
from jaxlt.batch.precision import at_least_32_bits
from jaxlt.losses.softmax import cross_entropy, one_hot

SmoothingShape: TypeAlias = Literal["concave", "linear", "convex"]


def label_aware_smoothing(
    logits: AnyLogits,
    labels: AnyLabels,
    class_counts: ClassCounts,
    head: float,
    tail: float,
    shape: SmoothingShape = "concave",
) -> Losses:
    """Label-aware smoothing, `(1 - eps_y) * -log p_y + eps_y * mean_c(-log p_c)`.

    The second stage of MiSLAS (Zhong et al., CVPR 2021) trains with it.

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.
        class_counts: training images of each class.
        head: smoothing of the largest class, in [0, 1].
        tail: smoothing of the rarest class, in [0, 1].
        shape: see `smoothing_factors`.

    Raises:
        ValueError: see `smoothing_factors`, or `class_counts` holds another number of classes.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> logits, labels = jnp.array([[2.0, 0.0], [0.0, 2.0]]), jnp.array([0, 1])
        >>> print(jaxlt.losses.label_aware_smoothing(logits, labels, (90, 10), 0.4, 0.1))
        [0.53 0.23]
    """
    logits = at_least_32_bits(logits)
    check_class_counts(class_counts, logits.shape[-1], whole=False)
    factors = smoothing_factors(class_counts, head, tail, shape).astype(logits.dtype)
    factor = (one_hot(labels, logits) * factors[None]).sum(1)
    uniform = -jax.nn.log_softmax(logits).mean(1)
    return (1 - factor) * cross_entropy(logits, labels) + factor * uniform


def smoothing_factors(
    class_counts: ClassCounts, head: float, tail: float, shape: SmoothingShape = "concave"
) -> Float[Array, " classes"]:
    """Smoothing of each class's labels, from `tail` at the rarest to `head` at the largest.

    With `t = (N_c - N_min) / (N_max - N_min)`, the factor is

        concave: `tail + (head - tail) * sin(pi t / 2)`
        linear: `tail + (head - tail) * t`
        convex: `head + (head - tail) * sin(3 pi / 2 + pi t / 2)`

    Classes of equal size all have `head`.

    Args:
        class_counts: training images of each class.
        head: smoothing of the largest class, in [0, 1].
        tail: smoothing of the rarest class, in [0, 1].
        shape: how the factor grows with the class's size.

    Raises:
        ValueError: a factor outside [0, 1], an unknown shape, or counts not C positive numbers.

    Example:
        >>> import jaxlt
        >>> print(jaxlt.losses.smoothing_factors((90, 50, 10), 0.4, 0.2, "linear"))
        [0.4 0.3 0.2]
    """
    check_share(head=head, tail=tail)
    check_choice("shape", shape, ("concave", "linear", "convex"))
    counts = check_class_counts(class_counts, whole=False)
    span = counts.max() - counts.min()
    size = jnp.where(span > 0, (counts - counts.min()) / jnp.where(span > 0, span, 1), 1)
    if shape == "concave":
        size = jnp.sin(jnp.pi / 2 * size)
    elif shape == "convex":
        size = 1 - jnp.cos(jnp.pi / 2 * size)
    return tail + (head - tail) * size
