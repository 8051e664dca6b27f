"""Vision transformer (Dosovitskiy et al., ICLR 2021)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.normalisation import LayerNorm

xavier_uniform = nn.initializers.xavier_uniform()


def space_to_depth(images: jax.Array, patch: int) -> jax.Array:
    """Moves each patch x patch square of pixels into the channels of one position, row by row.

    Args:
        images: `(B, H, W, channels)`, both sides multiples of `patch`.
        patch: Side of a square.
    """
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // patch, width // patch, -1)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False
) -> jax.Array:
    """Scaled dot-product attention, `softmax(Q K^T / sqrt(d)) V`, with a float32 softmax.

    Args:
        query: `(B, tokens, heads, d)`.
        key: Of the same shape.
        value: Likewise.
        causal: Whether a token sees itself and those before it alone.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    logits = logits.astype(jnp.float32)
    if causal:
        logits = jnp.where(jnp.tri(query.shape[1], dtype=bool), logits, -jnp.inf)
    weights = jax.nn.softmax(logits).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


class SelfAttention(nn.Module):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017).

    Parameters have the names of `flax.linen.MultiHeadDotProductAttention`, for which bfloat16 means
    either a bfloat16 softmax or a float32 product after it. Here the softmax is float32 and both
    products are of `dtype`. `heads` is a divisor of the width.
    """

    heads: int
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width = x.shape[-1]
        size = width // self.heads
        project = partial(nn.DenseGeneral, kernel_init=xavier_uniform, dtype=self.dtype)
        query, key, value = (
            project((self.heads, size), name=name)(x) for name in ("query", "key", "value")
        )
        return project(width, axis=(-2, -1), name="out")(attend(query, key, value))


class TransformerBlock(nn.Module):
    """Self-attention and an MLP with one hidden layer, each after layer norm and added back.

    The MLP has `mlp_ratio` hidden units for each unit of width.
    """

    heads: int
    mlp_ratio: int
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width = x.shape[-1]
        y = LayerNorm(dtype=self.dtype, name="norm1")(x)
        x = x + SelfAttention(self.heads, self.dtype, name="attention")(y)
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(_dense(self.mlp_ratio * width, self.dtype, "mlp1")(y))
        return x + _dense(width, self.dtype, "mlp2")(y)


def _dense(width: int, dtype, name: str) -> nn.Dense:
    return nn.Dense(width, kernel_init=xavier_uniform, dtype=dtype, name=name)


class VisionTransformer(ImageClassifier, kw_only=True):
    """Pre-norm ViT: linear patch embedding, learned positions, blocks, layer norm, mean of tokens.

    The mean of the tokens replaces the paper's class token: it is simpler, and about as accurate at
    its own learning rate (appendix D.3). All work is in matrix products, and no example's output
    depends on another's. The defaults are "small_vit".

    Attributes:
        patch: Side of the square patches, a divisor of both image sides.
        width: Size of a token, the number of features.
        depth: Number of blocks.
        heads: Attention heads, a divisor of `width`.
        mlp_ratio: Hidden units of a block's MLP for each unit of width.
    """

    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 4

    @property
    def suits_loops(self) -> bool:
        """True."""
        return True

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, width)` float32 features."""
        del train
        x = space_to_depth(jnp.asarray(images, self.dtype), self.patch)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = _dense(self.width, self.dtype, "patch_embedding")(x)
        positions = self.param(
            "position_embedding", nn.initializers.normal(0.02), x.shape[1:], jnp.float32
        )
        x = x + positions.astype(self.dtype)
        for index in range(self.depth):
            x = TransformerBlock(self.heads, self.mlp_ratio, self.dtype, name=f"block{index}")(x)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        return jnp.mean(x.astype(jnp.float32), axis=1)
