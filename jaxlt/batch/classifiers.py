"""The linear classifier."""

from typing import NamedTuple, TypeAlias

import jax
from jaxtyping import Array, ArrayLike, Float

from jaxlt.batch.precision import of_one_type

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
