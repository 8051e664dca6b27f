"""Linear and cosine classifiers, and their logits under a perturbation for each class.

The gradient of a class's loss in a classifier's kernel is a sum of outer products of features
and logit gradients over the class's own images. So inner products of features give the logits at
perturbed weights, and no kernel for each class is ever made.
"""

import dataclasses
from typing import NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp

# Below this norm a vector has no usable direction (PyTorch's `normalize` has the same bound).
_MIN_NORM = 1e-12


class ClassGradients(Protocol):
    """Gradients of all class losses in a classifier, and the logits when it moves along them."""

    @property
    def squared_norms(self) -> jax.Array:
        """(B, L) shares of each image in its class's squared gradient norm, leaf by leaf."""
        ...

    def perturbed_logits(self, classifier, features: jax.Array, factors: jax.Array) -> jax.Array:
        """Returns logits (B, C), each image's classifier at `w + factors * (its class's gradient)`.

        Gradients reach the classifier and the features; all else is a constant.

        Args:
            classifier: at w.
            features: (B, D).
            factors: (B, L), one for each image's class and each leaf.
        """
        ...


class Linear(NamedTuple):
    """Affine classifier, `features @ kernel + bias`.

    Attributes:
        kernel: (D, C).
        bias: (C,).

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> classifier = jaxlt.Linear(kernel=jnp.eye(2), bias=jnp.array([0.0, 10.0]))
        >>> print(classifier.logits(jnp.array([[3.0, 4.0]])))
        [[ 3. 14.]]
    """

    kernel: jax.Array
    bias: jax.Array

    def logits(self, features: jax.Array) -> jax.Array:
        """Maps features (B, D) to logits (B, C)."""
        return features @ self.kernel + self.bias

    def class_gradients(
        self, features: jax.Array, residuals: jax.Array, same_class: jax.Array
    ) -> ClassGradients:
        """Returns the gradients of the class losses.

        Args:
            features: (B, D).
            residuals: (B, C), gradient in each image's logits of its class's loss.
            same_class: (B, B), 1 where two images have the same class, else 0.
        """
        return _LinearGradients(features, residuals, same_class)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cosine:
    """Cosine classifier: logit j is the cosine of the features and column j of the kernel.

    Features or columns that are all zero give zero logits and zero gradients.

    Attributes:
        kernel: (D, C).
        scale: constant factor on the cosines.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> classifier = jaxlt.Cosine(kernel=jnp.eye(2), scale=10.0)
        >>> print(classifier.logits(jnp.array([[3.0, 4.0]])))
        [[6. 8.]]
    """

    kernel: jax.Array
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    def logits(self, features: jax.Array) -> jax.Array:
        """Maps features (B, D) to cosines times the scale, (B, C)."""
        cosines = unit_norm(features, axis=-1) @ unit_norm(self.kernel, axis=0)
        return self.scale * cosines

    def class_gradients(
        self, features: jax.Array, residuals: jax.Array, same_class: jax.Array
    ) -> ClassGradients:
        """Returns the gradients of the class losses; see `Linear.class_gradients`."""
        return _CosineGradients.at(self, features, self.scale * residuals, same_class)


def unit_norm(x: jax.Array, axis: int) -> jax.Array:
    """Scales vectors to unit Euclidean norm; a zero vector and its gradient stay zero.

    Args:
        x: array of any shape.
        axis: the axis along which its vectors lie.
    """
    return x * _reciprocal_norm(jnp.sum(jnp.square(x), axis=axis, keepdims=True))


def _reciprocal_norm(squared: jax.Array) -> jax.Array:
    """Returns `1 / sqrt(squared)`, or 0 with gradient 0 where there is no usable direction."""
    nonzero = squared > _MIN_NORM**2
    # The inner `where` keeps the derivative of rsqrt at 0, infinite, out of the gradient.
    return jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)


class _LinearGradients(NamedTuple):
    features: jax.Array
    residuals: jax.Array
    same_class: jax.Array

    @property
    def squared_norms(self) -> jax.Array:
        kernel, bias = self._logit_changes(self.features)
        return jnp.stack([(self.residuals * kernel).sum(1), (self.residuals * bias).sum(1)], axis=1)

    def perturbed_logits(self, classifier, features, factors):
        kernel, bias = self._logit_changes(features)
        return classifier.logits(features) + factors[:, :1] * kernel + factors[:, 1:] * bias

    def _logit_changes(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns what a unit of a class's kernel and bias gradients adds to its images' logits."""
        products = self.same_class * (features @ self.features.T)
        return products @ self.residuals, self.same_class @ self.residuals


class _CosineGradients(NamedTuple):
    """Constants of the clean pass; residuals are gradients in the cosines.

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
        features = unit_norm(features, axis=-1)
        scale = _reciprocal_norm(jnp.square(classifier.kernel).sum(0))
        directions = classifier.kernel * scale
        along = same_class @ (residuals * (features @ directions))
        sums = (same_class * (features @ features.T)) @ residuals
        # Rounding can push this difference of squares below zero.
        beside = jnp.maximum(same_class @ (residuals * sums) - jnp.square(along), 0)
        squares = beside * jnp.square(scale)
        return cls(features, directions, scale, residuals, same_class, along, squares)

    @property
    def squared_norms(self) -> jax.Array:
        members = self.same_class.sum(1)
        whole = self.squares.sum(1)
        return (whole / jnp.where(members > 0, members, 1))[:, None]

    def perturbed_logits(self, classifier, features, factors):
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
        return classifier.scale * numerators * _reciprocal_norm(squared)
