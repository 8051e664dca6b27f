"""Per-example losses for long-tailed classification, each `(B, C), (B,) -> (B,)`.

Logits are taken in at least 32 bits. A label outside [0, C), such as -1 for padding, costs 0;
give such rows no share in `jaxlt.class_losses`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from jaxlt.class_counts import ClassCounts, check_class_counts, class_prior


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, `-log p_y`.

    Args:
        logits: (B, C).
        labels: (B,) integers.

    Returns:
        (B,) losses in nats.
    """
    logits = _at_least_32_bits(logits)
    return optax.losses.softmax_cross_entropy(logits, _one_hot(labels, logits))


def focal(logits: jax.Array, labels: jax.Array, gamma: float) -> jax.Array:
    """Focal loss, `(1 - p_y)**gamma * -log p_y` (Lin et al., ICCV 2017, equation 4).

    Args:
        logits: (B, C).
        labels: (B,) integers.
        gamma: focusing exponent, at least 0; 0 gives cross-entropy.

    Returns:
        (B,) losses in nats.
    """
    loss = cross_entropy(logits, labels)
    miss = -jnp.expm1(-loss)
    # Where p_y rounds to 1 the derivative of miss**gamma is 0 * inf for gamma < 1.
    miss = jnp.where(miss > 0, miss, jnp.finfo(miss.dtype).tiny)
    return miss**gamma * loss


def ldam(
    logits: jax.Array,
    labels: jax.Array,
    class_counts: ClassCounts,
    max_margin: float = 0.5,
    scale: float = 30.0,
) -> jax.Array:
    """LDAM loss: cross-entropy of `scale * (x - m_y at the label)` (Cao et al., 2019, eq. 13).

    The margins are `m_c` proportional to `N_c**-0.25`, the largest equal to `max_margin`.

    Args:
        logits: (B, C) cosines, from a classifier with normalised features and weights.
        labels: (B,) integers.
        class_counts: (C,) training images of each class.
        max_margin: margin of the rarest class.
        scale: factor on the logits after the margin.

    Returns:
        (B,) losses in nats.

    Raises:
        ValueError: `class_counts` is not C positive numbers.
    """
    logits = _at_least_32_bits(logits)
    counts = check_class_counts(class_counts, logits.shape[-1]).astype(logits.dtype)
    margins = counts**-0.25
    margins = margins * (max_margin / margins.max())
    return cross_entropy(scale * (logits - margins[None] * _one_hot(labels, logits)), labels)


def logit_adjusted(
    logits: jax.Array, labels: jax.Array, class_counts: ClassCounts, tau: float = 1.0
) -> jax.Array:
    """Logit-adjusted loss: cross-entropy of `x + tau * log pi` (Menon et al., ICLR 2021, eq. 10).

    Args:
        logits: (B, C).
        labels: (B,) integers.
        class_counts: (C,) training images of each class; `pi_c = N_c / sum N`.
        tau: strength of the prior.

    Returns:
        (B,) losses in nats.

    Raises:
        ValueError: `class_counts` is not C positive numbers.
    """
    return vector_scaling(logits, labels, class_counts, gamma=0.0, tau=tau)


def balanced_softmax(logits: jax.Array, labels: jax.Array, class_counts: ClassCounts) -> jax.Array:
    """Balanced softmax (Ren et al., NeurIPS 2020, eq. 4): `logit_adjusted` with `tau = 1`."""
    return logit_adjusted(logits, labels, class_counts)


def vector_scaling(
    logits: jax.Array,
    labels: jax.Array,
    class_counts: ClassCounts,
    gamma: float,
    tau: float,
) -> jax.Array:
    """Vector-scaling loss: cross-entropy of `x / Delta + tau * log pi` (Kini et al., NeurIPS 2021).

    `Delta_c = (N_c / N_max)**-gamma`, 1 for the largest class and more for the rare ones.

    Args:
        logits: (B, C).
        labels: (B,) integers.
        class_counts: (C,) training images of each class.
        gamma: exponent of the multiplicative adjustment.
        tau: strength of the additive one.

    Returns:
        (B,) losses in nats.

    Raises:
        ValueError: `class_counts` is not C positive numbers.
    """
    logits = _at_least_32_bits(logits)
    counts = check_class_counts(class_counts, logits.shape[-1]).astype(logits.dtype)
    multiplier = (counts / counts.max()) ** gamma
    log_prior = jnp.log(class_prior(counts))
    return cross_entropy(logits * multiplier[None] + tau * log_prior[None], labels)


def class_balanced_weights(class_counts: ClassCounts, beta: float = 0.9999) -> jax.Array:
    """Class weights by effective number, `(1 - beta) / (1 - beta**N_c)` (Cui et al., CVPR 2019).

    Args:
        class_counts: (C,) training images of each class.
        beta: in [0, 1); 0 gives equal weights, values towards 1 the inverse counts.

    Returns:
        (C,) weights that sum to C.

    Raises:
        ValueError: `class_counts` is not C positive numbers, or `beta` lies outside [0, 1).
    """
    if not isinstance(beta, Tracer) and not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), got {beta}")
    counts = check_class_counts(class_counts)
    # Written out, 1 - beta**N loses half its digits in float32, and so does beta itself.
    log_beta = jnp.log(beta) if isinstance(beta, Tracer) else math.log(beta or math.ulp(0))
    weights = -1 / jnp.expm1(counts * log_beta)
    return weights * (counts.size / weights.sum())


def deferred_reweighting(
    class_counts: ClassCounts, start_step: int, beta: float = 0.9999
) -> Callable[[int | jax.Array], jax.Array]:
    """Deferred re-weighting (DRW; Cao et al., NeurIPS 2019, section 3.3) as a schedule.

    Multiply each example's loss by its class's entry before `jaxlt.class_losses`.

    Args:
        class_counts: (C,) training images of each class.
        start_step: first step with `class_balanced_weights`; before it every weight is 1.
        beta: of `class_balanced_weights`.

    Returns:
        A function from the step to (C,) class weights.

    Raises:
        ValueError: as `class_balanced_weights`.
    """
    weights = class_balanced_weights(class_counts, beta)

    def schedule(step: int | jax.Array) -> jax.Array:
        return jnp.where(step >= start_step, weights, jnp.ones_like(weights))

    return schedule


def _at_least_32_bits(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _one_hot(labels: jax.Array, logits: jax.Array) -> jax.Array:
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
