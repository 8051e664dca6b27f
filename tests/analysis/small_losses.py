"""A network so small that its Hessian can be written down, in any precision."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlt.analysis import DatasetLosses

CLASSES, WIDTH, HIDDEN = 4, 5, 6
COUNTS = (12, 7, 3, 0)


def losses_fn(theta, rest, inputs, labels):
    hidden = jnp.tanh(inputs @ theta["hidden"]["kernel"] + rest["shift"])
    logits = hidden @ theta["classifier"]["kernel"] + theta["classifier"]["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def small_losses(dtype, batch_size=16):
    """Returns losses of 22 images in 4 classes, the last without image, and parameters."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(CLASSES), COUNTS))
    inputs = rng.normal(size=(len(labels), WIDTH)).astype(dtype)
    theta = {
        "hidden": {"kernel": rng.normal(size=(WIDTH, HIDDEN))},
        "classifier": {"kernel": rng.normal(size=(HIDDEN, CLASSES)), "bias": rng.normal(size=4)},
    }
    theta = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), theta)
    rest = {"shift": jnp.asarray(rng.normal(size=HIDDEN), dtype)}
    losses = DatasetLosses.of(losses_fn, inputs, labels, CLASSES, rest=rest, batch_size=batch_size)
    return losses, theta, (inputs, labels)
