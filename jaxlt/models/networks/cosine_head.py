"""The cosine classifier as a head of a network."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.batch.cosine import Cosine, unit_norm


class CosineClassifier(nn.Module):
    """Cosine classifier: logit j is the cosine of the features and column j of the kernel.

    The kernel starts uniform with unit columns, as the NormedLinear of LDAM-DRW. `scale` is a
    factor on the cosines, such as LIFT's 25; 1 for losses with a scale of their own (30 for LDAM).
    """

    num_classes: int
    scale: float = 1.0

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `(B, D)` features to `(B, num_classes)` float32 cosines times the scale."""

        def unit_columns(key, shape, dtype):
            return unit_norm(jax.random.uniform(key, shape, dtype, -1.0, 1.0), axis=0)

        features = jnp.asarray(features, jnp.float32)
        shape = (features.shape[-1], self.num_classes)
        kernel = self.param("kernel", unit_columns, shape, jnp.float32)
        return Cosine(kernel, self.scale).logits(features)
