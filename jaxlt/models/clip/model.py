"""CLIP's image and text encoders (Radford et al., ICML 2021), and its image classifier.

Parameters have the names of Hugging Face's `CLIPModel` with "_" for "." in the blocks' numbers.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import EncoderAdaptation
from jaxlt.models.adaptation.modules import UNADAPTED, adapted, adapted_mlp, prompted
from jaxlt.models.adaptation.trainable import split, trainable
from jaxlt.models.clip.config import (
    ACTIVATIONS,
    ClipConfig,
    EncoderConfig,
    TextConfig,
    VisionConfig,
)
from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.layer_norm import LayerNorm
from jaxlt.models.networks.vit import attend, space_to_depth

normal = nn.initializers.normal


class _Part(nn.Module):
    """A part of an encoder of the sizes of `config`, with what `adaptation` adds to it."""

    config: EncoderConfig
    dtype: jnp.dtype | type = jnp.float32
    adaptation: EncoderAdaptation = UNADAPTED

    def _dense(self, name: str, width: int, deviation: float, x: jax.Array) -> jax.Array:
        y = nn.Dense(width, kernel_init=normal(deviation), dtype=self.dtype, name=name)(x)
        return adapted(self.adaptation, name, x, y)


class EncoderAttention(_Part):
    """Multi-head self-attention (Vaswani et al., NeurIPS 2017); for `causal` see `attend`."""

    causal: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        heads = self.config.num_attention_heads
        query, key, value = (
            self._dense(name, width, width**-0.5, x).reshape(*x.shape[:2], heads, width // heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        mixed = attend(query, key, value, causal=self.causal).reshape(x.shape)
        return self._dense("out_proj", width, (2 * depth * width) ** -0.5, mixed)


class FeedForward(_Part):
    """A block's MLP with one hidden layer."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies both layers."""
        width, depth = self.config.hidden_size, self.config.num_hidden_layers
        hidden = self._dense("fc1", self.config.intermediate_size, (2 * width) ** -0.5, x)
        hidden = ACTIVATIONS[self.config.hidden_act](hidden)
        return self._dense("fc2", width, (2 * depth * width) ** -0.5, hidden)


class Block(_Part):
    """Self-attention and an MLP, each after layer norm and added back; `number` is from 0."""

    causal: bool = False
    number: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies both, and may put learned tokens behind those of an image."""
        config, added = self.config, self.adaptation
        if isinstance(config, VisionConfig):
            tokens = 1 + config.grid**2
            x = prompted(added, x, block=self.number, tokens=tokens, patch=config.patch_size)
        attention = EncoderAttention(config, self.dtype, added, self.causal, name="self_attn")
        mlp = FeedForward(config, self.dtype, added, name="mlp")
        x = x + attention(self._normed("layer_norm1", x))
        return x + adapted_mlp(added, x, mlp(self._normed("layer_norm2", x)))

    def _normed(self, name: str, x: jax.Array) -> jax.Array:
        y = LayerNorm(self.config.layer_norm_eps, self.dtype, name=name)(x)
        return adapted(self.adaptation, name, x, y)


class VisionEmbeddings(nn.Module):
    """Class token and linear embeddings of patches, with learned positions."""

    config: VisionConfig
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` to `(B, 1 + patches, width)`, the class token first."""
        config = self.config
        width, expected = config.hidden_size, (config.image_size, config.image_size)
        if images.shape[1:3] != expected:
            raise ValueError(f"images must be of {expected} pixels, got {images.shape[1:3]}")
        x = space_to_depth(jnp.asarray(images, self.dtype), config.patch_size)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        # A product of matrices, where Hugging Face has a convolution over the same numbers.
        dense = partial(nn.Dense, use_bias=False, kernel_init=normal(0.02), dtype=self.dtype)
        x = dense(width, name="patch_embedding")(x)
        first = self.param("class_embedding", normal(width**-0.5), (width,), jnp.float32)
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([first, x], axis=1)
        positions = self.param("position_embedding", normal(0.02), x.shape[1:], jnp.float32)
        return x + positions.astype(self.dtype)


class ImageEncoder(nn.Module):
    """CLIP's vision transformer without the projection to the space of texts, or DINOv2's.

    Parameters and features are always float32. For `remat` see `ResNet`. The adaptation has its
    rank set.
    """

    config: VisionConfig
    dtype: jnp.dtype | type = jnp.float32
    remat: bool = False
    adaptation: EncoderAdaptation = UNADAPTED

    def setup(self):
        """Makes the parts."""
        block = nn.remat(Block) if self.remat else Block
        self.embeddings = VisionEmbeddings(self.config, self.dtype)
        if self.config.pre_layernorm:
            self.pre_layernorm = LayerNorm(self.config.layer_norm_eps, self.dtype)
        self.encoder_layers = [
            block(self.config, self.dtype, self.adaptation, number=number)
            for number in range(self.config.num_hidden_layers)
        ]
        self.post_layernorm = LayerNorm(self.config.layer_norm_eps)

    def tokens(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` to the last block's result, `(B, 1 + patches, width)`.

        Learned tokens, if there are any, come behind.
        """
        x = self.embeddings(images)
        if self.config.pre_layernorm:
            x = self.pre_layernorm(x)
        for block in self.encoder_layers:
            x = block(x)
        return x

    def __call__(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` to `(B, width)` float32: the class token, normalized.

        Images are normalized by the checkpoint's means and deviations: CLIP has its own, DINOv2 has
        ImageNet's. A `ValueError` says that their sides are not those of the configuration.
        """
        return self.post_layernorm(self.tokens(images)[:, 0])


class TextEmbeddings(nn.Module):
    """Embeddings of tokens, with learned positions."""

    config: TextConfig

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps `(B, T)` token numbers to `(B, T, width)`."""
        width, length = self.config.hidden_size, self.config.max_position_embeddings
        shape = (self.config.vocab_size, width)
        table = self.param("token_embedding", normal(0.02), shape, jnp.float32)
        positions = self.param("position_embedding", normal(0.01), (length, width), jnp.float32)
        return jnp.take(table, tokens, axis=0) + positions[: tokens.shape[1]]


class TextEncoder(nn.Module):
    """CLIP's text transformer without the projection to the space of images, in float32.

    A token sees itself and those before it alone. So what pads a prompt behind its end-of-text
    token has no effect.
    """

    config: TextConfig

    def setup(self):
        """Makes the parts."""
        self.embeddings = TextEmbeddings(self.config)
        self.encoder_layers = [
            Block(self.config, causal=True) for _ in range(self.config.num_hidden_layers)
        ]
        self.final_layer_norm = LayerNorm(self.config.layer_norm_eps)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps `(B, T)` tokens to `(B, width)`: the end-of-text token after layer norm, float32.

        There are at most `max_position_embeddings` tokens in a row.
        """
        x = self.embeddings(tokens)
        for block in self.encoder_layers:
            x = block(x)
        # Checkpoints from before Hugging Face's mending of 2023 say 2, which is another token of
        # OpenAI's vocabulary. Its end-of-text token is the one with the greatest number.
        end = self.config.eos_token_id
        ends = jnp.argmax(tokens if end == 2 else tokens == end, axis=-1)
        return self.final_layer_norm(x[jnp.arange(x.shape[0]), ends])


class ClipModel(nn.Module):
    """Both encoders, and the projections of their features to one space, in float32."""

    config: ClipConfig

    def setup(self):
        """Makes the parts."""
        self.vision_model = ImageEncoder(self.config.vision)
        self.text_model = TextEncoder(self.config.text)
        project = partial(nn.Dense, self.config.projection_dim, use_bias=False)
        vision, text = self.config.vision.hidden_size, self.config.text.hidden_size
        self.visual_projection = project(kernel_init=normal(vision**-0.5))
        self.text_projection = project(kernel_init=normal(text**-0.5))

    def image_embeddings(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` images to `(B, projection_dim)`, not normalized."""
        return self.visual_projection(self.vision_model(images))

    def text_embeddings(self, tokens: jax.Array) -> jax.Array:
        """Maps `(B, T)` tokens to `(B, projection_dim)`, not normalized."""
        return self.text_projection(self.text_model(tokens))

    def __call__(self, images: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the images' and the texts' embeddings."""
        return self.image_embeddings(images), self.text_embeddings(tokens)


class ClipClassifier(ImageClassifier, kw_only=True):
    """A classifier on the class token's features, before their projection to the space of texts.

    The encoder's parameters lie under `params["vision_model"]`, as a `ClipModel`'s do. Fields are
    as of `ImageEncoder`.
    """

    suits_loops = True

    config: VisionConfig
    adaptation: EncoderAdaptation = UNADAPTED
    remat: bool = False

    def setup(self):
        """Makes the encoder."""
        self.vision_model = ImageEncoder(self.config, self.dtype, self.remat, self.adaptation)

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, side, side, channels)` images to `(B, width)` float32 features.

        Gray images, of one channel, are shown to the encoder in each of its channels.
        """
        del train
        if images.shape[-1] == 1:
            images = jnp.repeat(images, self.config.num_channels, axis=-1)
        return self.vision_model(images)

    def split(self, params: Any) -> tuple[Any, Any]:
        """Returns what the adaptation trains and what it leaves frozen."""
        return split(params, trainable(self.adaptation, params))
