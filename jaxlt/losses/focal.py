"""Focal loss: images that are classified well count for less."""

import jax.numpy as jnp

from jaxlt.batch.class_losses import AnyLabels, AnyLogits, Losses
from jaxlt.losses.softmax import cross_entropy


def focal(logits: AnyLogits, labels: AnyLabels, gamma: float) -> Losses:
    """Focal loss, `(1 - p_y)**gamma * -log p_y` (Lin et al., ICCV 2017, equation 4).

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.
        gamma: focusing exponent, at least 0. 0 gives cross-entropy.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> print(jaxlt.losses.focal(jnp.zeros((2, 2)), jnp.array([0, 1]), gamma=2.0))
        [0.17 0.17]
    """
    loss = cross_entropy(logits, labels)
    miss = -jnp.expm1(-loss)
    # Where p_y rounds to 1 the derivative of miss**gamma is 0 * inf for gamma < 1.
    miss = jnp.where(miss > 0, miss, jnp.finfo(miss.dtype).tiny)
    return miss**gamma * loss
