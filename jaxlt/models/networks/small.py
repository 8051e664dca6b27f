"""Small networks: one for 8x8 and 28x28 images, and one for the smallest experiments."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.errors import UsageError
from jaxlt.models.networks.convolution import Conv
from jaxlt.models.networks.heads import ImageClassifier, kaiming_normal
from jaxlt.models.networks.vit import space_to_depth


class SmallConvNet(ImageClassifier, kw_only=True):
    """Space-to-depth, two 3x3 convolutions, 2x2 max pooling and a hidden layer; no batch norm.

    Space-to-depth makes the convolutions few and wide, which keeps an epoch short on a CPU.

    Attributes:
        patch: Side of the squares that become one position, a divisor of both image sides.
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
            x = nn.relu(Conv(width, (3, 3), kernel_init=kaiming_normal, dtype=self.dtype)(x))
        x = nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
        return _hidden_layer(x, self.hidden, self.dtype)


def patch_for(image_shape: tuple[int, int, int]) -> int:
    """Returns `SmallConvNet`'s largest patch that leaves its convolutions 4x4 positions or more."""
    height, width, _ = image_shape
    if min(height, width) < 4:
        raise UsageError(f"images of small_conv must be at least 4x4, got {height}x{width}")
    fitting = (p for p in (4, 2, 1) if height % p == width % p == 0)
    return next(patch for patch in fitting if min(height, width) // patch >= 4)


class MLP(ImageClassifier, kw_only=True):
    """Flattened image, one hidden ReLU layer of `hidden` units, classifier."""

    hidden: int = 256

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, hidden)` float32 features."""
        del train
        return _hidden_layer(jnp.asarray(images, self.dtype), self.hidden, self.dtype)


def _hidden_layer(x: jax.Array, width: int, dtype: jnp.dtype | type) -> jax.Array:
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(nn.Dense(width, kernel_init=kaiming_normal, dtype=dtype)(x))
    return x.astype(jnp.float32)
