"""The linear classifier."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Num

Features: TypeAlias = Float[Array, "batch features"]
AnyFeatures: TypeAlias = Float[ArrayLike, "batch features"]


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


def of_one_type(*arrays: ArrayLike) -> list[Array]:
    """Casts arrays to the type that JAX promotes them to, also where it is told to refuse that."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    return [jnp.asarray(x, dtype) for x in arrays]


def at_least_32_bits(x: Num[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    """Returns an array in float32, or as it is where it is wider."""
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype))


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """Returns float32 for types of fewer bits and for integers, else the type itself."""
    narrow = not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32) if narrow else dtype
