"""Losses of cosines less a margin for each class, fixed or drawn."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlt.batch.argument_checks import ClassCounts, check_class_counts
from jaxlt.batch.class_losses import AnyLabels, AnyLogits, Losses
from jaxlt.batch.precision import at_least_32_bits
from jaxlt.losses.softmax import cross_entropy, one_hot


def ldam(
    logits: AnyLogits,
    labels: AnyLabels,
    class_counts: ClassCounts,
    max_margin: float = 0.5,
    scale: float = 30.0,
) -> Losses:
    """LDAM loss: cross-entropy of `scale * (x - m_y at the label)` (Cao et al., 2019, eq. 13).

    The margins m_c are proportional to `N_c**-0.25`; the largest is `max_margin`.

    Args:
        logits: `(B, C)` cosines, from a classifier with normalized features and weights.
        labels: `(B,)` classes.
        class_counts: training images of each class; ValueError unless C positive numbers.
        max_margin: margin of the rarest class.
        scale: factor on the logits after the margin.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
        >>> print(jaxlt.losses.ldam(logits, labels, (160, 10), max_margin=0.5))
        [ 7.5 15. ]
    """
    logits = at_least_32_bits(logits)
    counts = check_class_counts(class_counts, logits.shape[-1], whole=False).astype(logits.dtype)
    margins = counts**-0.25
    margins = margins * (max_margin / margins.max())
    return cross_entropy(scale * (logits - margins[None] * one_hot(labels, logits)), labels)


def gcl(
    logits: AnyLogits,
    labels: AnyLabels,
    class_counts: ClassCounts,
    noise: AnyLogits,
    *,
    noise_scale: float = 0.5,
    margin: float = 0.0,
    scale: float = 30.0,
    focusing: float = 0.0,
) -> Losses:
    """Gaussian clouded logits: noise lowers a cosine the more, the rarer its class (GCL).

    The loss is the cross-entropy of `scale * z`, with
    `z_c = x_c - noise_scale * |noise_c| * d_c / max d`, less `margin` at the label, and
    `d_c = log N_max - log N_c` (Li et al., CVPR 2022). Classes of equal size have no noise. The
    second stage multiplies the loss by `(1 - p_y)**focusing`. Gradients take that factor for a
    constant, as in the authors' released code; `focal` differentiates it.

    Args:
        logits: `(B, C)` cosines, from a classifier with normalized features and weights.
        labels: `(B,)` classes.
        class_counts: training images of each class.
        noise: as `gcl_noise` draws it.
        noise_scale: the most that noise takes from a cosine of the rarest class.
        margin: fixed margin of the label's class.
        scale: factor on the logits after noise and margin.
        focusing: exponent of the factor, 0 for none.

    Raises:
        ValueError: `class_counts` is not C positive numbers, or `noise` has another shape.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
        >>> print(jaxlt.losses.gcl(logits, labels, (90, 10), jnp.ones((2, 2)), scale=1.0))
        [0.47 0.97]
    """
    logits, noise = at_least_32_bits(logits), jnp.asarray(noise)
    if noise.shape != logits.shape:
        raise ValueError(f"noise must have the logits' shape {logits.shape}, got {noise.shape}")
    counts = check_class_counts(class_counts, logits.shape[-1], whole=False)
    log_counts = jnp.log(counts.astype(logits.dtype))
    rarity = log_counts.max() - log_counts
    rarity = rarity / jnp.where(rarity.max() > 0, rarity.max(), 1)
    clouded = logits - noise_scale * jnp.abs(noise.astype(logits.dtype)) * rarity[None]
    loss = cross_entropy(scale * (clouded - margin * one_hot(labels, logits)), labels)
    return jax.lax.stop_gradient((-jnp.expm1(-loss)) ** focusing) * loss


def gcl_noise(key: PRNGKeyArray, shape: Sequence[int]) -> Float[Array, "batch classes"]:
    """Draws the noise of `gcl`: normal with standard deviation 1/3, clamped to [-1, 1].

    Args:
        key: a key of `jax.random`.
        shape: of the logits.

    Example:
        >>> import jax, jaxlt
        >>> jaxlt.losses.gcl_noise(jax.random.key(0), (2, 3)).shape
        (2, 3)
    """
    return jnp.clip(jax.random.normal(key, shape) / 3, -1, 1)
