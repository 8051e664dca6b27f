"""Gradients of class losses in a classifier, and its logits when each class moves along its own.

The gradient of a class's loss in a classifier's kernel is a sum of outer products of features
and logit gradients over the class's own images. So inner products of features give the logits at
perturbed weights, and no kernel for each class is ever made. All is computed in the type of the
residuals, which has at least 32 bits. On an explicitly sharded mesh the constants are on every
device, and pairs of images spread by the first of the two.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from jaxlt.batch.class_losses import Features, Linear
from jaxlt.batch.cosine import Cosine, reciprocal_norm, unit_norm

# One number for each pair of images.
_Pairs: TypeAlias = Float[Array, "batch batch"]
_OfClasses: TypeAlias = Float[Array, "batch classes"]


class LinearGradients(NamedTuple):
    """Constants of the clean pass of a `Linear`."""

    features: Float[Array, "batch features"]
    residuals: _OfClasses  # gradient in each image's logits of its class's loss
    same_class: _Pairs  # 1 where two images have the same class, else 0
    has_bias: bool

    @property
    def squared_norms(self) -> Float[Array, "batch leaves"]:
        """Shares of each image in its class's squared gradient norm, leaf by leaf."""
        changes = self._logit_changes(self.features)
        return jnp.stack([(self.residuals * change).sum(1) for change in changes], axis=1)

    def perturbed_logits(
        self, classifier: Linear, features: Features, factors: Float[Array, "batch leaves"]
    ) -> _OfClasses:
        """Returns logits, each image's classifier at `w + factors * (its class's gradient)`.

        Factors are of each image's class and each leaf. Gradients reach the classifier at w and the
        features; all else is a constant.
        """
        changes = self._logit_changes(features.astype(self.features.dtype))
        logits = classifier.logits(features).astype(self.residuals.dtype)
        for leaf, change in enumerate(changes):
            logits = logits + factors[:, leaf : leaf + 1] * change
        return logits

    def _logit_changes(self, features: Array) -> list[Array]:
        """Returns what a unit of a class's gradient in each leaf adds to its images' logits."""
        products = self.same_class * (features @ self.features.T)
        return [
            pairs @ self.residuals for pairs in (products, self.same_class)[: 1 + self.has_bias]
        ]


class CosineGradients(NamedTuple):
    """Constants of the clean pass of a `Cosine`; residuals are gradients in the cosines.

    Column j of class c's gradient is `(a - u (u . a)) / |w_j|`. Here u is the kernel's unit column
    j, and `a` is the sum of the class's unit features, weighted by column j of the residuals.
    """

    features: Float[Array, "batch features"]  # unit
    directions: Float[Array, "features classes"]  # unit columns of the kernel
    scale: Float[Array, " classes"]  # 1 / |w_j|
    residuals: _OfClasses
    same_class: _Pairs
    along: _OfClasses  # u_j . a of each image's class
    squares: _OfClasses  # squared norms of the columns of each image's class's gradient

    @classmethod
    def at(
        cls, classifier: Cosine, features: Features, residuals: _OfClasses, same_class: _Pairs
    ) -> "CosineGradients":
        """Computes the constants at a classifier; residuals are gradients in its logits."""
        residuals = classifier.scale * residuals
        features = unit_norm(features, axis=-1)
        kernel = classifier.kernel.astype(residuals.dtype)
        scale = reciprocal_norm(jnp.square(kernel).sum(0))
        directions = kernel * scale[None]
        along = same_class @ (residuals * (features @ directions))
        sums = (same_class * (features @ features.T)) @ residuals
        # Rounding can push this difference of squares below zero.
        whole = same_class @ on_every_device(residuals * sums)
        beside = jnp.maximum(whole - jnp.square(along), 0)
        squares = beside * jnp.square(scale)[None]
        return cls(features, directions, scale, residuals, same_class, along, squares)

    @property
    def squared_norms(self) -> Float[Array, "batch 1"]:
        """Shares, see `LinearGradients`."""
        members = self.same_class.sum(1)
        whole = self.squares.sum(1)
        return (whole / jnp.where(members > 0, members, 1))[:, None]

    def perturbed_logits(
        self, classifier: Cosine, features: Features, factors: Float[Array, "batch 1"]
    ) -> _OfClasses:
        """Returns logits, see `LinearGradients`."""
        features = unit_norm(features.astype(self.features.dtype), axis=-1)
        kernel = classifier.kernel.astype(self.features.dtype)
        step = factors * self.scale[None]
        products = (self.same_class * (features @ self.features.T)) @ self.residuals
        numerators = features @ kernel + step * (
            products - (features @ self.directions) * self.along
        )
        # w . eps is 0, but its gradient in w, which is eps, is not.
        moved = step * (
            self.same_class @ (self.residuals * (self.features @ kernel))
            - (kernel * self.directions).sum(0)[None] * self.along
        )
        squares = jnp.square(kernel).sum(0)[None]
        squared = squares + 2 * moved + jnp.square(factors) * self.squares
        return classifier.scale * numerators * reciprocal_norm(squared)


def class_gradients(
    classifier: Linear | Cosine, features: Features, residuals: _OfClasses, same_class: _Pairs
) -> LinearGradients | CosineGradients:
    """Returns the gradients of the class losses; for the arguments see `LinearGradients`."""
    if isinstance(classifier, Cosine):
        return CosineGradients.at(classifier, features, residuals, same_class)
    return LinearGradients(features, residuals, same_class, classifier.bias is not None)


def on_every_device(x: Array) -> Array:
    """Gathers an array that is spread over an explicitly sharded mesh; others stay as they are."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))
