"""The block that CLIP's towers are made of (Radford et al., ICML 2021).

Parameters have the names of Hugging Face's `CLIPModel`.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.clip_config import ACTIVATIONS, TowerConfig
from jaxlt.models.layer_norm import LayerNorm


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
    """

    config: TowerConfig
    causal: bool
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        project = partial(_dense, width, width**-0.5, self.dtype)
        query = project("q_proj")(x)
        key = project("k_proj")(x)
        value = project("v_proj")(x)
        heads = self.config.num_attention_heads
        mixed = attend(query, key, value, heads=heads, causal=self.causal)
        return _dense(width, (2 * depth * width) ** -0.5, self.dtype, "out_proj")(mixed)


class FeedForward(nn.Module):
    """A block's MLP with one hidden layer.

    Attributes:
        config: Of the tower.
        dtype: Type of the computations.
    """

    config: TowerConfig
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        hidden = self.config.intermediate_size
        y = _dense(hidden, (2 * width) ** -0.5, self.dtype, "fc1")(x)
        y = ACTIVATIONS[self.config.hidden_act](y)
        return _dense(width, (2 * depth * width) ** -0.5, self.dtype, "fc2")(y)


class Block(nn.Module):
    """Self-attention and an MLP, each after layer norm and added back.

    Attributes:
        config: Of the tower.
        causal: See `attend`.
        dtype: Type of the computations.
    """

    config: TowerConfig
    causal: bool
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        norm = partial(LayerNorm, self.config.layer_norm_eps, self.dtype)
        attention = SelfAttention(self.config, self.causal, self.dtype, name="self_attn")
        mlp = FeedForward(self.config, self.dtype, name="mlp")
        x = x + attention(norm(name="layer_norm1")(x))
        return x + mlp(norm(name="layer_norm2")(x))


def _dense(width: int, deviation: float, dtype, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.normal(deviation), dtype=dtype, name=name)
