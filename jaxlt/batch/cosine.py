"""The cosine classifier."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from jaxlt.batch.precision import of_one_type, powers_of_two

# Below this norm a vector has no usable direction (PyTorch's `normalize` has the same bound).
_MIN_NORM = 1e-12


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cosine:
    """Cosine classifier: logit j is the cosine of the features and column j of the kernel.

    Features or columns that are all zero give zero logits and zero gradients.

    Attributes:
        kernel: one column for each class.
        scale: constant factor on the cosines.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> classifier = jaxlt.Cosine(kernel=jnp.eye(2), scale=10.0)
        >>> print(classifier.logits(jnp.array([[3.0, 4.0]])))
        [[6. 8.]]
    """

    kernel: Float[Array, "features classes"]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})

    def logits(self, features: Float[ArrayLike, "batch features"]) -> Float[Array, "batch classes"]:
        """Maps features to cosines times the scale."""
        features, directions = of_one_type(
            unit_norm(features, axis=-1), unit_norm(self.kernel, axis=0)
        )
        return self.scale * (features @ directions)


def unit_norm(x: Float[ArrayLike, "*shape"], axis: int) -> Float[Array, "*shape"]:
    """Scales the vectors along an axis to unit Euclidean norm; zero ones and gradients stay 0.

    It computes in at least 32 bits, and no square leaves the range of floats.
    """
    wide, _ = of_one_type(x, jnp.float32(0))
    largest = jnp.abs(wide).max(axis, keepdims=True, initial=_MIN_NORM)
    shrink, _ = powers_of_two(largest)
    shrunk = shrink * wide
    squared = jnp.sum(jnp.square(shrunk), axis=axis, keepdims=True)
    return (shrunk * reciprocal_norm(squared, _MIN_NORM * shrink)).astype(jnp.result_type(x))


def reciprocal_norm(
    squared: Float[Array, "*shape"], smallest: Float[ArrayLike, "*shape"] = _MIN_NORM
) -> Float[Array, "*shape"]:
    """Returns `1 / sqrt(squared)`, or 0 with gradient 0 where there is no usable direction."""
    nonzero = squared > jnp.square(smallest)
    # The inner `where` keeps the derivative of rsqrt at 0, infinite, out of the gradient.
    return jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)
