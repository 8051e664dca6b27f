"""Mixup, and what a mixed image contributes to which class."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxlt.batch.class_losses import ClassLosses, Labels, Losses, class_losses


class MixedBatch(NamedTuple):
    """Images, `share * x_i + (1 - share) * x_partner`, and the labels of both."""

    images: Float[Array, "batch ..."]
    labels: Labels
    partners: Labels
    share: Float[Array, ""]


def mixup(
    key: PRNGKeyArray, images: Float[Array, "batch ..."], labels: Labels, alpha: float
) -> MixedBatch:
    """Mixes each image with another of the batch (Zhang et al., ICLR 2018).

    The share is drawn once a batch from Beta(alpha, alpha), the partners are a random permutation.
    """
    share_key, partner_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha, dtype=images.dtype)
    partner = jax.random.permutation(partner_key, len(labels))
    mixed = share * images + (1 - share) * images[partner]
    return MixedBatch(mixed, labels, labels[partner], share)


def mixed_class_losses(
    loss_fn: Callable[[Labels], Losses], batch: MixedBatch, num_classes: int
) -> ClassLosses:
    """Sums the losses of a mixed batch by class.

    Mixed image i adds `share * l(z_i, y_i)` to its own class, of which it is `share` images, and
    `(1 - share) * l(z_i, y_partner)` to its partner's, of which it is the rest. The counts thus add
    up to B, and the mean is mixup's loss. CC-SAM's released code differs: it gives the whole image
    to its own class. `loss_fn` gives the losses of the mixed images under other labels.
    """
    own = batch.share * jax.nn.one_hot(batch.labels, num_classes)
    partners = (1 - batch.share) * jax.nn.one_hot(batch.partners, num_classes)
    shares = jnp.concatenate([own, partners])
    losses = jnp.concatenate([loss_fn(batch.labels), loss_fn(batch.partners)])
    return class_losses(losses, shares, num_classes)
