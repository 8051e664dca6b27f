"""Vision transformer (Dosovitskiy et al., ICLR 2021)."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.errors import UsageError
from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.layer_norm import LayerNorm

_xavier_uniform = nn.initializers.xavier_uniform()
_dense = partial(nn.Dense, kernel_init=_xavier_uniform)


def space_to_depth(images: jax.Array, patch: int) -> jax.Array:
    """Moves each patch x patch square of `(B, H, W, channels)` into one position's channels.

    The pixels of a square come row by row. Both sides are multiples of `patch`.
    """
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // patch, width // patch, -1)


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False
) -> jax.Array:
    """Scaled dot-product attention, `softmax(Q K^T / sqrt(d)) V`, of `(B, tokens, heads, d)`.

    The softmax is in float32: in Flax's own, bfloat16 means a bfloat16 softmax or a float32
    product after it. If `causal`, a token sees itself and those before it alone.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    logits = logits.astype(jnp.float32)
    if causal:
        logits = jnp.where(jnp.tri(query.shape[1], dtype=bool), logits, -jnp.inf)
    weights = jax.nn.softmax(logits).astype(value.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


_attention = partial(
    nn.MultiHeadDotProductAttention, kernel_init=_xavier_uniform, attention_fn=attend
)


class TransformerBlock(nn.Module):
    """Self-attention and an MLP, whose hidden layer is `mlp_ratio` times as wide as a token."""

    heads: int
    mlp_ratio: int
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(B, tokens, width)` to the same shape."""
        width = x.shape[-1]
        attention = _attention(self.heads, dtype=self.dtype, name="attention")
        x = x + attention(LayerNorm(dtype=self.dtype, name="norm1")(x))
        y = LayerNorm(dtype=self.dtype, name="norm2")(x)
        y = nn.gelu(_dense(self.mlp_ratio * width, dtype=self.dtype, name="mlp1")(y))
        return x + _dense(width, dtype=self.dtype, name="mlp2")(y)


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

    suits_loops = True

    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 4

    @nn.compact
    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, H, W, channels)` images to `(B, width)` float32 features."""
        del train
        x = space_to_depth(jnp.asarray(images, self.dtype), self.patch)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        x = _dense(self.width, dtype=self.dtype, name="patch_embedding")(x)
        init = nn.initializers.normal(0.02)
        positions = self.param("position_embedding", init, x.shape[1:], jnp.float32)
        x = x + positions.astype(self.dtype)
        for index in range(self.depth):
            x = TransformerBlock(self.heads, self.mlp_ratio, self.dtype, name=f"block{index}")(x)
        x = LayerNorm(dtype=self.dtype, name="norm")(x)
        return jnp.mean(x.astype(jnp.float32), axis=1)


def check_patches(image_shape: tuple[int, int, int]) -> None:
    """Raises a `UsageError` where images do not divide into the patches of "small_vit"."""
    height, width, _ = image_shape
    if height % VisionTransformer.patch or width % VisionTransformer.patch:
        raise UsageError(
            f"images of small_vit must have sides that are multiples of {VisionTransformer.patch}, "
            f"got {height}x{width}"
        )
