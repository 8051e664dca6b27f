"""Gradients of class losses in a classifier, and its logits when each class moves along its own.

The gradient of a class's loss in a classifier's kernel is a sum of outer products of features
and logit gradients over the class's own images. So inner products of features give the logits at
perturbed weights, and no kernel for each class is ever made.
"""

from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.classifiers import Cosine, Features, Linear, Pairs, reciprocal_norm, unit_norm

_OfClasses: TypeAlias = Float[Array, "batch classes"]


class LinearGradients(NamedTuple):
    """Constants of the clean pass of a `Linear`."""

    features: Float[Array, "batch features"]
    residuals: _OfClasses  # gradient in each image's logits of its class's loss
    same_class: Pairs  # 1 where two images have the same class, else 0

    @property
    def squared_norms(self) -> Float[Array, "batch leaves"]:
        """Shares of each image in its class's squared gradient norm, leaf by leaf."""
        kernel, bias = self._logit_changes(self.features)
        return jnp.stack([(self.residuals * kernel).sum(1), (self.residuals * bias).sum(1)], axis=1)

    def perturbed_logits(
        self, classifier: Linear, features: Features, factors: Float[Array, "batch leaves"]
    ) -> _OfClasses:
        """Returns logits, each image's classifier at `w + factors * (its class's gradient)`.

        Factors are of each image's class and each leaf. Gradients reach the classifier at w and the
        features; all else is a constant.
        """
        kernel, bias = self._logit_changes(features)
        return classifier.logits(features) + factors[:, :1] * kernel + factors[:, 1:] * bias

    def _logit_changes(self, features: Array) -> tuple[Array, Array]:
        """Returns what a unit of a class's kernel and bias gradients adds to its images' logits."""
        products = self.same_class * (features @ self.features.T)
        return products @ self.residuals, self.same_class @ self.residuals


class CosineGradients(NamedTuple):
    """Constants of the clean pass of a `Cosine`; residuals are gradients in the cosines.

    Column j of class c's gradient is `(a - u (u . a)) / |w_j|`. Here u is the kernel's unit column
    j, and `a` is the sum of the class's unit features, weighted by column j of the residuals.
    """

    features: Float[Array, "batch features"]  # unit
    directions: Float[Array, "features classes"]  # unit columns of the kernel
    scale: Float[Array, " classes"]  # 1 / |w_j|
    residuals: _OfClasses
    same_class: Pairs
    along: _OfClasses  # u_j . a of each image's class
    squares: _OfClasses  # squared norms of the columns of each image's class's gradient

    @classmethod
    def at(
        cls, classifier: Cosine, features: Features, residuals: _OfClasses, same_class: Pairs
    ) -> "CosineGradients":
        """Computes the constants at a classifier; see `Cosine.class_gradients`."""
        features = unit_norm(features, axis=-1)
        scale = reciprocal_norm(jnp.square(classifier.kernel).sum(0))
        directions = classifier.kernel * scale[None]
        along = same_class @ (residuals * (features @ directions))
        sums = (same_class * (features @ features.T)) @ residuals
        # Rounding can push this difference of squares below zero.
        beside = jnp.maximum(same_class @ (residuals * sums) - jnp.square(along), 0)
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
        features = unit_norm(features, axis=-1)
        kernel = classifier.kernel
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
