"""Layer normalisation whose forward pass XLA recognises when it meets it twice."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
    """Layer norm over the last axis (Ba, Kiros and Hinton, 2016), in float32.

    Computes what `flax.linen.LayerNorm` does, under the same names. That one takes the inverse
    root of a variance with a last axis of size 1, and XLA moves such reshapes about depending on
    whether a backward pass follows (see `BatchNorm`): a SAM step costs 2.33 SGD steps, not 2.

    Attributes:
        epsilon: Added to the variance.
        dtype: Type of the result; parameters are float32.
    """

    epsilon: float = 1e-6
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises each row of (..., D)."""
        width = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (width,))
        bias = self.param("bias", nn.initializers.zeros, (width,))
        x = x.astype(jnp.float32)
        centred = x - x.mean(-1)[..., None]
        inverse_deviation = jax.lax.rsqrt(jnp.square(centred).mean(-1) + self.epsilon)
        return (centred * inverse_deviation[..., None] * scale + bias).astype(self.dtype)
