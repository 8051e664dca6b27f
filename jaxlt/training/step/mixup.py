"""Mixup, and what a mixed image contributes to which class."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlt.batch.class_losses import ClassLosses, class_losses


class MixedBatch(NamedTuple):
    """Images (B, H, W, C), `share * x_i + (1 - share) * x_partner`, and the labels (B,) of both."""

    images: jax.Array
    labels: jax.Array
    partners: jax.Array
    share: jax.Array


def mixup(key: jax.Array, images: jax.Array, labels: jax.Array, alpha: float) -> MixedBatch:
    """Mixes each image with another of the batch (Zhang et al., ICLR 2018).

    Args:
        key: PRNG key of the share and of the partners, a random permutation.
        images: (B, H, W, C).
        labels: (B,) integers.
        alpha: positive; the share is drawn once a batch from Beta(alpha, alpha).
    """
    share_key, partner_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha, dtype=images.dtype)
    partner = jax.random.permutation(partner_key, len(labels))
    mixed = share * images + (1 - share) * images[partner]
    return MixedBatch(mixed, labels, labels[partner], share)


def mixed_class_losses(
    loss_fn: Callable[[jax.Array], jax.Array], batch: MixedBatch, num_classes: int
) -> ClassLosses:
    """Sums the losses of a mixed batch by class.

    Mixed image i adds `share * l(z_i, y_i)` to its own class, of which it is `share` images, and
    `(1 - share) * l(z_i, y_partner)` to its partner's, of which it is the rest. The counts thus add
    up to B, and the mean is mixup's loss. CC-SAM's released code differs: it gives the whole image
    to its own class.

    Args:
        loss_fn: from labels (B,) to the losses (B,) of the mixed images under them.
        batch: the mixed batch.
        num_classes: C.
    """
    own = batch.share * jax.nn.one_hot(batch.labels, num_classes)
    partners = (1 - batch.share) * jax.nn.one_hot(batch.partners, num_classes)
    shares = jnp.concatenate([own, partners])
    losses = jnp.concatenate([loss_fn(batch.labels), loss_fn(batch.partners)])
    return class_losses(losses, shares, num_classes)
