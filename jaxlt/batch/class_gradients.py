"""Gradients of class losses in a classifier, and its logits when each class moves along its own.

The gradient of a class's loss in a classifier's kernel is a sum of outer products of features
and logit gradients over the class's own images. So inner products of features give the logits at
perturbed weights, and no kernel for each class is ever made.
"""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from jaxlt.batch.classifiers import Cosine, reciprocal_norm, unit_norm


class LinearGradients(NamedTuple):
    """Constants of the clean pass of a `Linear`."""

    features: jax.Array  # (B, D)
    residuals: jax.Array  # (B, C), gradient in each image's logits of its class's loss
    same_class: jax.Array  # (B, B), 1 where two images have the same class, else 0

    @property
    def squared_norms(self) -> jax.Array:
        """(B, L) shares of each image in its class's squared gradient norm, leaf by leaf."""
        kernel, bias = self._logit_changes(self.features)
        return jnp.stack([(self.residuals * kernel).sum(1), (self.residuals * bias).sum(1)], axis=1)

    def perturbed_logits(self, classifier, features, factors):
        """Returns logits (B, C), each image's classifier at `w + factors * (its class's gradient)`.

        Factors (B, L) are of each image's class and each leaf. Gradients reach the classifier at w
        and the features (B, D); all else is a constant.
        """
        kernel, bias = self._logit_changes(features)
        return classifier.logits(features) + factors[:, :1] * kernel + factors[:, 1:] * bias

    def _logit_changes(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns what a unit of a class's kernel and bias gradients adds to its images' logits."""
        products = self.same_class * (features @ self.features.T)
        return products @ self.residuals, self.same_class @ self.residuals


class CosineGradients(NamedTuple):
    """Constants of the clean pass of a `Cosine`; residuals are gradients in the cosines.

    Column j of class c's gradient is `(a - u (u . a)) / |w_j|`. Here u is the kernel's unit column
    j, and `a` is the sum of the class's unit features, weighted by column j of the residuals.
    """

    features: jax.Array  # (B, D), unit
    directions: jax.Array  # (D, C), unit columns of the kernel
    scale: jax.Array  # (C,), 1 / |w_j|
    residuals: jax.Array
    same_class: jax.Array
    along: jax.Array  # (B, C), u_j . a of each image's class
    squares: jax.Array  # (B, C), squared norms of the columns of each image's class's gradient

    @classmethod
    def at(cls, classifier: Cosine, features, residuals, same_class) -> Self:
        """Computes the constants at a classifier; see `Cosine.class_gradients`."""
        features = unit_norm(features, axis=-1)
        scale = reciprocal_norm(jnp.square(classifier.kernel).sum(0))
        directions = classifier.kernel * scale
        along = same_class @ (residuals * (features @ directions))
        sums = (same_class * (features @ features.T)) @ residuals
        # Rounding can push this difference of squares below zero.
        beside = jnp.maximum(same_class @ (residuals * sums) - jnp.square(along), 0)
        squares = beside * jnp.square(scale)
        return cls(features, directions, scale, residuals, same_class, along, squares)

    @property
    def squared_norms(self) -> jax.Array:
        """(B, 1) shares, see `LinearGradients`."""
        members = self.same_class.sum(1)
        whole = self.squares.sum(1)
        return (whole / jnp.where(members > 0, members, 1))[:, None]

    def perturbed_logits(self, classifier, features, factors):
        """Returns logits (B, C), see `LinearGradients`."""
        features = unit_norm(features, axis=-1)
        kernel = classifier.kernel
        step = factors * self.scale
        products = (self.same_class * (features @ self.features.T)) @ self.residuals
        numerators = features @ kernel + step * (
            products - (features @ self.directions) * self.along
        )
        # w . eps is 0, but its gradient in w, which is eps, is not.
        moved = step * (
            self.same_class @ (self.residuals * (self.features @ kernel))
            - (kernel * self.directions).sum(0) * self.along
        )
        squared = jnp.square(kernel).sum(0) + 2 * moved + jnp.square(factors) * self.squares
        return classifier.scale * numerators * reciprocal_norm(squared)
