"""Losses of the softmax: cross-entropy, and logits adjusted by the prior."""

import jax
import jax.numpy as jnp
import optax

from jaxlt.batch.argument_checks import ClassCounts, check_class_counts, class_prior
from jaxlt.batch.class_losses import AnyLabels, AnyLogits, Logits, Losses
from jaxlt.batch.precision import at_least_32_bits


def cross_entropy(logits: AnyLogits, labels: AnyLabels) -> Losses:
    """Softmax cross-entropy, `-log p_y`.

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> print(jaxlt.losses.cross_entropy(jnp.zeros((2, 2)), jnp.array([0, 1])))
        [0.69 0.69]
    """
    logits = at_least_32_bits(logits)
    return optax.losses.softmax_cross_entropy(logits, one_hot(labels, logits))


def logit_adjusted(
    logits: AnyLogits, labels: AnyLabels, class_counts: ClassCounts, tau: float = 1.0
) -> Losses:
    """Logit-adjusted loss: cross-entropy of `x + tau * log pi` (Menon et al., ICLR 2021, eq. 10).

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.
        class_counts: training images N_c, `pi_c = N_c / sum N`; ValueError unless positive.
        tau: strength of the prior.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
        >>> print(jaxlt.losses.logit_adjusted(logits, labels, (90, 10), tau=1.0))
        [0.11 2.3 ]
    """
    return vector_scaling(logits, labels, class_counts, gamma=0.0, tau=tau)


def balanced_softmax(logits: AnyLogits, labels: AnyLabels, class_counts: ClassCounts) -> Losses:
    """Balanced softmax (Ren et al., NeurIPS 2020, eq. 4): `logit_adjusted` with `tau = 1`.

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.
        class_counts: training images of each class; ValueError unless C positive numbers.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> print(jaxlt.losses.balanced_softmax(jnp.zeros((2, 2)), jnp.array([0, 1]), (90, 10)))
        [0.11 2.3 ]
    """
    return logit_adjusted(logits, labels, class_counts)


def vector_scaling(
    logits: AnyLogits, labels: AnyLabels, class_counts: ClassCounts, gamma: float, tau: float
) -> Losses:
    """Vector-scaling loss: cross-entropy of `x / Delta + tau * log pi` (Kini et al., NeurIPS 2021).

    `Delta_c = (N_c / N_max)**-gamma` is 1 for the largest class and more for the rare ones.

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.
        class_counts: training images of each class; ValueError unless C positive numbers.
        gamma: exponent of the multiplicative adjustment.
        tau: strength of the additive adjustment.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> logits, labels = jnp.zeros((2, 2)), jnp.array([0, 1])
        >>> print(jaxlt.losses.vector_scaling(logits, labels, (90, 10), gamma=0.2, tau=1.0))
        [0.11 2.3 ]
    """
    logits = at_least_32_bits(logits)
    counts = check_class_counts(class_counts, logits.shape[-1], whole=False).astype(logits.dtype)
    multiplier = (counts / counts.max()) ** gamma
    log_prior = jnp.log(class_prior(counts))
    return cross_entropy(logits * multiplier[None] + tau * log_prior[None], labels)


def one_hot(labels: AnyLabels, logits: Logits) -> Logits:
    """Returns 1 at each row's label, else 0, in the logits' precision; padding has none."""
    return jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
