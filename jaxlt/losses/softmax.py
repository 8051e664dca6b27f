"""Losses of the softmax: cross-entropy, focal loss and those that adjust logits by the prior."""

import jax
import jax.numpy as jnp
import optax

from jaxlt.batch.class_counts import ClassCounts, check_class_counts, class_prior


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy, `-log p_y`.

    Args:
        logits: (B, C).
        labels: (B,) integers.

    Returns:
        (B,) losses in nats.
    """
    logits = at_least_32_bits(logits)
    return optax.losses.softmax_cross_entropy(logits, one_hot(labels, logits))


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
    logits = at_least_32_bits(logits)
    counts = check_class_counts(class_counts, logits.shape[-1]).astype(logits.dtype)
    multiplier = (counts / counts.max()) ** gamma
    log_prior = jnp.log(class_prior(counts))
    return cross_entropy(logits * multiplier[None] + tau * log_prior[None], labels)


def at_least_32_bits(logits: jax.Array) -> jax.Array:
    """Returns the logits in the precision that losses are computed in."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def one_hot(labels: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns 1 at each row's label and else 0, (B, C); a row of zeros for padding."""
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
