"""Small networks: one for 8x8 and 28x28 images, and one for the smallest experiments."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.networks.heads import ImageClassifier, kaiming_normal
from jaxlt.models.networks.vit import space_to_depth


class SmallConvNet(ImageClassifier, kw_only=True):
    """Space-to-depth, two 3x3 convolutions, 2x2 max pooling and a hidden layer; no batch norm.

    Space-to-depth makes the convolutions few and wide, which keeps an epoch short on a CPU.

    Attributes:
        patch: Side of the squares that become one position, a divisor of both image sides;
            2 suits 8x8 images and 4 suits 28x28.
        widths: Channels of the two convolutions.
        hidden: Number of features.
    """

    patch: int
    widths: tuple[int, int] = (32, 64)
    hidden: int = 64

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, hidden)` float32 features."""
        del train
        x = space_to_depth(jnp.asarray(images, self.dtype), self.patch)
        for width in self.widths:
            conv = nn.Conv(width, (3, 3), kernel_init=kaiming_normal, dtype=self.dtype)
            x = nn.relu(conv(x))
        x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, kernel_init=kaiming_normal, dtype=self.dtype)(x))
        return x.astype(jnp.float32)


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
