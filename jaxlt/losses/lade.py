"""LADE: balanced softmax with a regularizer that couples the images of a batch."""

import jax
import jax.numpy as jnp

from jaxlt.batch.argument_checks import ClassCounts, check_class_counts, class_prior
from jaxlt.batch.class_losses import AnyLabels, AnyLogits, Losses
from jaxlt.batch.precision import at_least_32_bits
from jaxlt.losses.softmax import balanced_softmax, one_hot


def lade(
    logits: AnyLogits,
    labels: AnyLabels,
    class_counts: ClassCounts,
    *,
    weight: float = 0.1,
    regularization: float = 0.1,
) -> Losses:
    """LADE loss: balanced softmax plus `weight * R` (Hong et al., CVPR 2021).

    R draws each logit to its class's log density ratio `log p(x | c) / p(x)` under a uniform
    prior, by a regularized Donsker-Varadhan bound for each class. With
    `q_ic = x_ic - log pi_c - log C` and `e_c = log mean_i exp(q_ic)` over the batch,

        `R = -sum_c pi_c * (mean of x_ic over the batch's images of class c - e_c
                            - regularization * e_c**2)`

    where the mean is 0 for a class without images in the batch. R is one number for the batch. It
    is added to the loss of each image, so that the batch mean is the paper's objective; class c
    bears `n_c / B` of it. Rows of padding cost 0 and are left out of R. A `FactoredLosses` takes
    rows apart, so it cannot hold this loss.

    Args:
        logits: `(B, C)`, a row an image.
        labels: `(B,)` classes.
        class_counts: training images N_c, `pi_c = N_c / sum N`; ValueError unless positive.
        weight: weight of R.
        regularization: weight of the square in R.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> print(jaxlt.losses.lade(jnp.zeros((2, 2)), jnp.array([0, 1]), (90, 10)))
        [0.07 2.27]
    """
    logits = at_least_32_bits(logits)
    num_classes = logits.shape[-1]
    counts = check_class_counts(class_counts, num_classes, whole=False)
    prior = class_prior(counts).astype(logits.dtype)
    members = one_hot(labels, logits)
    sizes = members.sum(0)
    own = (members * logits).sum(0) / jnp.where(sizes > 0, sizes, 1)

    real = members.any(1)
    # A batch of nothing but padding would have no term in its sum of exponentials.
    counted = (real | ~real.any())[:, None]
    ratio = logits - (jnp.log(prior) + jnp.log(num_classes))[None]
    num_images = counted.sum(dtype=logits.dtype)
    log_mean = jax.nn.logsumexp(ratio, axis=0, where=counted) - jnp.log(num_images)

    bound = own - log_mean - regularization * jnp.square(log_mean)
    regularizer = -(prior * bound).sum()
    per_image = balanced_softmax(logits, labels, class_counts) + weight * regularizer
    return jnp.where(real, per_image, 0)
