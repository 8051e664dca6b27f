"""The block that CLIP's encoders are made of (Radford et al., ICML 2021).

Parameters have the names of Hugging Face's `CLIPModel`. `config` has the encoder's sizes, `dtype`
is the type of the computations, and `adaptation` says what is added.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import UNADAPTED, Adaptation
from jaxlt.models.adaptation.modules import adapted, adapted_mlp, prompted
from jaxlt.models.clip.config import ACTIVATIONS, EncoderConfig
from jaxlt.models.networks.normalisation import LayerNorm
from jaxlt.models.networks.vit import attend


class EncoderAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017); for `causal` see `attend`."""

    config: EncoderConfig
    causal: bool
    dtype: jnp.dtype | type = jnp.float32
    adaptation: Adaptation = UNADAPTED

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers

        def project(name: str, deviation: float, x: jax.Array) -> jax.Array:
            y = _dense(width, deviation, self.dtype, name)(x)
            return adapted(self.adaptation, name, x, y)

        heads = self.config.num_attention_heads
        query, key, value = (
            project(name, width**-0.5, x).reshape(*x.shape[:2], heads, width // heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = attend(query, key, value, causal=self.causal).reshape(x.shape)
        return project("out_proj", (2 * depth * width) ** -0.5, mixed)


class FeedForward(nn.Module):
    """A block's MLP with one hidden layer."""

    config: EncoderConfig
    dtype: jnp.dtype | type = jnp.float32
    adaptation: Adaptation = UNADAPTED

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        hidden = self.config.intermediate_size
        y = _dense(hidden, (2 * width) ** -0.5, self.dtype, "fc1")(x)
        x = ACTIVATIONS[self.config.hidden_act](adapted(self.adaptation, "fc1", x, y))
        y = _dense(width, (2 * depth * width) ** -0.5, self.dtype, "fc2")(x)
        return adapted(self.adaptation, "fc2", x, y)


class Block(nn.Module):
    """Self-attention and an MLP, each after layer norm and added back.

    Learned tokens need `number`, the block's from 0, `tokens`, of an image, and `patch`, the side
    of a patch.
    """

    config: EncoderConfig
    causal: bool
    dtype: jnp.dtype | type = jnp.float32
    adaptation: Adaptation = UNADAPTED
    number: int = 0
    tokens: int = 0
    patch: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape, or one with learned tokens behind."""
        added = self.adaptation
        x = prompted(added, x, block=self.number, tokens=self.tokens, patch=self.patch)
        attention = EncoderAttention(self.config, self.causal, self.dtype, added, name="self_attn")
        mlp = FeedForward(self.config, self.dtype, added, name="mlp")
        x = x + attention(self._normed("layer_norm1", x))
        return x + adapted_mlp(added, x, mlp(self._normed("layer_norm2", x)))

    def _normed(self, name: str, x: jax.Array) -> jax.Array:
        y = LayerNorm(self.config.layer_norm_eps, self.dtype, name=name)(x)
        return adapted(self.adaptation, name, x, y)


def _dense(width: int, deviation: float, dtype, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.normal(deviation), dtype=dtype, name=name)
