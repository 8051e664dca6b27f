"""Linear and cosine classifiers."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxlt.batch.class_gradients import CosineGradients, LinearGradients

# Below this norm a vector has no usable direction (PyTorch's `normalize` has the same bound).
_MIN_NORM = 1e-12


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
    ) -> "LinearGradients":
        """Returns the gradients of the class losses.

        Args:
            features: (B, D).
            residuals: (B, C), gradient in each image's logits of its class's loss.
            same_class: (B, B), 1 where two images have the same class, else 0.
        """
        from jaxlt.batch.class_gradients import LinearGradients

        return LinearGradients(features, residuals, same_class)


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
    ) -> "CosineGradients":
        """Returns the gradients of the class losses; see `Linear.class_gradients`."""
        from jaxlt.batch.class_gradients import CosineGradients

        return CosineGradients.at(self, features, self.scale * residuals, same_class)


def unit_norm(x: jax.Array, axis: int) -> jax.Array:
    """Scales the vectors along an axis to unit Euclidean norm; zero ones and gradients stay 0."""
    return x * reciprocal_norm(jnp.sum(jnp.square(x), axis=axis, keepdims=True))


def reciprocal_norm(squared: jax.Array) -> jax.Array:
    """Returns `1 / sqrt(squared)`, or 0 with gradient 0 where there is no usable direction."""
    nonzero = squared > _MIN_NORM**2
    # The inner `where` keeps the derivative of rsqrt at 0, infinite, out of the gradient.
    return jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)
