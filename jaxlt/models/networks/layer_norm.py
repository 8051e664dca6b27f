"""Layer and group norm in float32; not Flax's, for the reason that `convolution` gives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class GroupNorm(nn.Module):
    """Group norm of images (Wu and He, ECCV 2018).

    Attributes:
        groups: Number of groups of neighboring channels, a divisor of the channels.
        epsilon: Added to the variance.
        dtype: Type of the result; parameters are float32.
    """

    groups: int = 8
    epsilon: float = 1e-5
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes (B, H, W, C) over the pixels and the channels of each group."""
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"channels must be a multiple of {self.groups}, got {channels}")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)
        centered = x - self._group_means(x)[:, None, None]
        inverse_deviation = jax.lax.rsqrt(self._group_means(jnp.square(centered)) + self.epsilon)
        factor = (inverse_deviation * scale)[:, None, None]
        return (centered * factor + bias).astype(self.dtype)

    def _group_means(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, C): each channel's entry is the mean of its group."""
        size = x.shape[-1] // self.groups
        averaging = np.kron(np.eye(self.groups), np.full((size, size), 1 / size))
        # GPUs would round the factors to TensorFloat-32 otherwise.
        return jnp.matmul(x.mean((1, 2)), averaging.astype(np.float32), precision="highest")


class LayerNorm(nn.Module):
    """Layer norm over the last axis (Ba, Kiros and Hinton, 2016); fields as of `GroupNorm`."""

    epsilon: float = 1e-6
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes each row of (..., D)."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(jnp.float32)
        centered = x - x.mean(-1)[..., None]
        inverse_deviation = jax.lax.rsqrt(jnp.square(centered).mean(-1) + self.epsilon)
        return (centered * inverse_deviation[..., None] * scale + bias).astype(self.dtype)
