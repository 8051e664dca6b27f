"""The block that CLIP's towers are made of (Radford et al., ICML 2021).

Parameters have the names of Hugging Face's `CLIPModel`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import UNADAPTED, Adaptation
from jaxlt.models.adaptation.modules import adapted, adapted_mlp, prompted
from jaxlt.models.clip.config import ACTIVATIONS, TowerConfig
from jaxlt.models.networks.layer_norm import LayerNorm


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, heads: int, causal: bool
) -> jax.Array:
    """Scaled dot-product attention, `softmax(Q K^T / sqrt(d)) V`, with a float32 softmax.

    Args:
        query: `(B, tokens, width)`, heads side by side, each of `d = width / heads`.
        key: Of the same shape.
        value: Likewise.
        heads: Number of heads.
        causal: Whether a token sees itself and those before it alone.

    Returns:
        An array of the same shape and type.
    """
    batch, tokens, width = query.shape
    query, key, value = (
        x.reshape(batch, tokens, heads, width // heads) for x in (query, key, value)
    )
    logits = jnp.einsum("bqhd,bkhd->bhqk", query * (width // heads) ** -0.5, key)
    logits = logits.astype(jnp.float32)
    if causal:
        logits = jnp.where(jnp.tri(tokens, dtype=bool), logits, -jnp.inf)
    weights = jax.nn.softmax(logits).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(batch, tokens, width)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017).

    Attributes:
        config: Of the tower.
        causal: See `attend`.
        dtype: Type of the products and the result.
        adaptation: What is added to the projections.
    """

    config: TowerConfig
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

        query, key, value = (
            project(name, width**-0.5, x) for name in ("q_proj", "k_proj", "v_proj")
        )
        heads = self.config.num_attention_heads
        mixed = attend(query, key, value, heads=heads, causal=self.causal)
        return project("out_proj", (2 * depth * width) ** -0.5, mixed)


class FeedForward(nn.Module):
    """A block's MLP with one hidden layer.

    Attributes:
        config: Of the tower.
        dtype: Type of the computations.
        adaptation: What is added to the layers.
    """

    config: TowerConfig
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

    Attributes:
        config: Of the tower.
        causal: See `attend`.
        dtype: Type of the computations.
        adaptation: What is added to it.
        number: Of the block, from 0; for learned tokens, as are the next two.
        tokens: Of an image.
        patch: Side of a patch.
    """

    config: TowerConfig
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
        attention = SelfAttention(self.config, self.causal, self.dtype, added, name="self_attn")
        mlp = FeedForward(self.config, self.dtype, added, name="mlp")
        x = x + attention(self._normed("layer_norm1", x))
        return x + adapted_mlp(added, x, mlp(self._normed("layer_norm2", x)))

    def _normed(self, name: str, x: jax.Array) -> jax.Array:
        y = LayerNorm(self.config.layer_norm_eps, self.dtype, name=name)(x)
        return adapted(self.adaptation, name, x, y)


def _dense(width: int, deviation: float, dtype, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.normal(deviation), dtype=dtype, name=name)
