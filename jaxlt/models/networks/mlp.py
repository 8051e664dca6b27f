"""A network with one hidden layer, for the smallest experiments."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.networks.heads import ImageClassifier, kaiming_normal


class MLP(ImageClassifier, kw_only=True):
    """Flattened image, one hidden ReLU layer, classifier.

    Attributes:
        hidden: Number of features.
    """

    hidden: int = 256

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, hidden)` float32 features."""
        del train
        x = jnp.asarray(images, self.dtype)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, kernel_init=kaiming_normal, dtype=self.dtype)(x))
        return x.astype(jnp.float32)
