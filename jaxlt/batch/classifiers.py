"""The linear classifier, and what classifiers share."""

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

if TYPE_CHECKING:
    from jaxlt.batch.class_gradients import LinearGradients

Features: TypeAlias = Float[Array, "batch features"]
AnyFeatures: TypeAlias = Float[ArrayLike, "batch features"]
# One number for each pair of images.
Pairs: TypeAlias = Float[Array, "batch batch"]

# Below this norm a vector has no usable direction (PyTorch's `normalize` has the same bound).
_MIN_NORM = 1e-12


class Linear(NamedTuple):
    """Affine classifier, `features @ kernel + bias`, or without a bias where that is None.

    Example:
        >>> import jax.numpy as jnp, jaxlt
        >>> classifier = jaxlt.Linear(kernel=jnp.eye(2), bias=jnp.array([0.0, 10.0]))
        >>> print(classifier.logits(jnp.array([[3.0, 4.0]])))
        [[ 3. 14.]]
    """

    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"] | None = None

    def logits(self, features: AnyFeatures) -> Float[Array, "batch classes"]:
        """Maps features to logits, of the widest type among features, kernel and bias."""
        features, *leaves = of_one_type(features, *jax.tree.leaves(self))
        logits = features @ leaves[0]
        return logits if self.bias is None else logits + leaves[1][None]

    def class_gradients(
        self, features: AnyFeatures, residuals: Float[Array, "batch classes"], same_class: Pairs
    ) -> "LinearGradients":
        """Returns the gradients of the class losses; for the arguments see `LinearGradients`."""
        from jaxlt.batch.class_gradients import LinearGradients

        has_bias = self.bias is not None
        return LinearGradients(jnp.asarray(features), residuals, same_class, has_bias)


def of_one_type(*arrays: ArrayLike) -> list[Array]:
    """Casts arrays to the type that JAX promotes them to, also where it is told to refuse that."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    return [jnp.asarray(x, dtype) for x in arrays]


def unit_norm(x: Float[ArrayLike, "*shape"], axis: int) -> Float[Array, "*shape"]:
    """Scales the vectors along an axis to unit Euclidean norm; zero ones and gradients stay 0."""
    x = jnp.asarray(x)
    return x * reciprocal_norm(jnp.sum(jnp.square(x), axis=axis, keepdims=True))


def reciprocal_norm(squared: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns `1 / sqrt(squared)`, or 0 with gradient 0 where there is no usable direction."""
    nonzero = squared > _MIN_NORM**2
    # The inner `where` keeps the derivative of rsqrt at 0, infinite, out of the gradient.
    return jnp.where(nonzero, jax.lax.rsqrt(jnp.where(nonzero, squared, 1.0)), 0.0)
