"""The cosine classifier."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlt.batch.classifiers import AnyFeatures, Pairs, of_one_type, unit_norm

if TYPE_CHECKING:
    from jaxlt.batch.class_gradients import CosineGradients


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

    def logits(self, features: AnyFeatures) -> Float[Array, "batch classes"]:
        """Maps features to cosines times the scale."""
        features, directions = of_one_type(
            unit_norm(features, axis=-1), unit_norm(self.kernel, axis=0)
        )
        return self.scale * (features @ directions)

    def class_gradients(
        self, features: AnyFeatures, residuals: Float[Array, "batch classes"], same_class: Pairs
    ) -> "CosineGradients":
        """Returns the gradients of the class losses; see `Linear.class_gradients`."""
        from jaxlt.batch.class_gradients import CosineGradients

        return CosineGradients.at(self, jnp.asarray(features), self.scale * residuals, same_class)
