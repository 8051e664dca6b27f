"""CLIP's image and text encoders (Radford et al., ICML 2021), and its image classifier.

Parameters have the names of Hugging Face's `CLIPModel` with "_" for "." in the blocks' numbers.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import UNADAPTED, Adaptation
from jaxlt.models.adaptation.trainable import split, trainable
from jaxlt.models.clip.block import Block
from jaxlt.models.clip.config import ClipConfig, EncoderConfig, TextConfig, VisionConfig
from jaxlt.models.networks.heads import ImageClassifier
from jaxlt.models.networks.normalisation import LayerNorm
from jaxlt.models.networks.vit import space_to_depth

normal = nn.initializers.normal


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
        embed = nn.Dense(
            width,
            use_bias=False,
            kernel_init=normal(0.02),
            dtype=self.dtype,
            name="patch_embedding",
        )
        first = self.param("class_embedding", normal(width**-0.5), (width,), jnp.float32)
        first = jnp.broadcast_to(first.astype(self.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([first, embed(x)], axis=1)
        positions = self.param("position_embedding", normal(0.02), x.shape[1:], jnp.float32)
        return x + positions.astype(self.dtype)


class ImageEncoder(nn.Module):
    """CLIP's vision transformer without the projection to the space of texts, or DINOv2's.

    Attributes:
        config: Its sizes.
        dtype: Type of the computations; parameters and features are always float32.
        remat: Keeps the input of each block alone for the backward pass and computes the rest
            again there: less memory for about a third more work, and the same results.
        adaptation: What is added to the blocks, its rank set.
    """

    config: VisionConfig
    dtype: jnp.dtype | type = jnp.float32
    remat: bool = False
    adaptation: Adaptation = UNADAPTED

    def setup(self):
        """Makes the parts."""
        block = nn.remat(Block) if self.remat else Block
        self.embeddings = VisionEmbeddings(self.config, self.dtype)
        if self.config.pre_layernorm:
            self.pre_layernorm = LayerNorm(self.config.layer_norm_eps, self.dtype)
        self.encoder_layers = [
            block(
                self.config,
                causal=False,
                dtype=self.dtype,
                adaptation=self.adaptation,
                number=number,
                tokens=1 + self.config.grid**2,
                patch=self.config.patch_size,
            )
            for number in range(self.config.num_hidden_layers)
        ]
        self.post_layernorm = LayerNorm(self.config.layer_norm_eps)

    def tokens(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` to the last block's result, `(B, 1 + patches, width)`.

        Learned tokens, if there are any, come behind. Raises as `features`.
        """
        x = self.embeddings(images)
        if self.config.pre_layernorm:
            x = self.pre_layernorm(x)
        for block in self.encoder_layers:
            x = block(x)
        return x

    def features(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` to `(B, width)` float32: the class token, normalised.

        Args:
            images: Normalised by the checkpoint's means and deviations: CLIP has its own, DINOv2
                has ImageNet's.

        Raises:
            ValueError: The images' sides are not those of the configuration.
        """
        return self.post_layernorm(self.tokens(images)[:, 0])

    def __call__(self, images: jax.Array) -> jax.Array:
        """Returns `features`."""
        return self.features(images)


class TextEmbeddings(nn.Module):
    """Embeddings of tokens, with learned positions."""

    config: TextConfig
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps `(B, T)` token numbers to `(B, T, width)`."""
        width, length = self.config.hidden_size, self.config.max_position_embeddings
        shape = (self.config.vocab_size, width)
        table = self.param("token_embedding", normal(0.02), shape, jnp.float32)
        positions = self.param("position_embedding", normal(0.01), (length, width), jnp.float32)
        return (jnp.take(table, tokens, axis=0) + positions[: tokens.shape[1]]).astype(self.dtype)


class TextEncoder(nn.Module):
    """CLIP's text transformer without the projection to the space of images.

    A token sees itself and those before it alone. So what pads a prompt behind its end-of-text
    token has no effect.

    Attributes:
        config: Its sizes.
        dtype: Type of the computations; parameters and features are always float32.
    """

    config: TextConfig
    dtype: jnp.dtype | type = jnp.float32

    def setup(self):
        """Makes the parts."""
        self.embeddings = TextEmbeddings(self.config, self.dtype)
        self.encoder_layers = [
            Block(self.config, causal=True, dtype=self.dtype)
            for _ in range(self.config.num_hidden_layers)
        ]
        self.final_layer_norm = LayerNorm(self.config.layer_norm_eps)

    def features(self, tokens: jax.Array) -> jax.Array:
        """Maps `(B, T)` tokens to `(B, width)`: the end-of-text token after layer norm, float32.

        There are at most `max_position_embeddings` tokens in a row.
        """
        x = self.embeddings(tokens)
        for block in self.encoder_layers:
            x = block(x)
        return self.final_layer_norm(x[jnp.arange(x.shape[0]), self._ends(tokens)])

    def _ends(self, tokens: jax.Array) -> jax.Array:
        # Checkpoints from before Hugging Face's mending of 2023 say 2, which is another token of
        # OpenAI's vocabulary. Its end-of-text token is the one with the greatest number.
        if self.config.eos_token_id == 2:
            return jnp.argmax(tokens, axis=-1)
        return jnp.argmax(tokens == self.config.eos_token_id, axis=-1)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Returns `features`."""
        return self.features(tokens)


class Clip(nn.Module):
    """Both encoders, and the projections of their features to one space.

    `dtype` is the type of the computations; parameters, features and embeddings are float32.
    """

    config: ClipConfig
    dtype: jnp.dtype | type = jnp.float32

    def setup(self):
        """Makes the parts."""
        self.vision_model = ImageEncoder(self.config.vision, self.dtype)
        self.text_model = TextEncoder(self.config.text, self.dtype)
        self.visual_projection = self._projection(self.config.vision)
        self.text_projection = self._projection(self.config.text)

    def _projection(self, encoder: EncoderConfig) -> nn.Dense:
        init = normal(encoder.hidden_size**-0.5)
        return nn.Dense(self.config.projection_dim, use_bias=False, kernel_init=init)

    def image_embeddings(self, images: jax.Array) -> jax.Array:
        """Maps `(B, side, side, channels)` images to `(B, projection_dim)`, not normalised."""
        return self.visual_projection(self.vision_model(images))

    def text_embeddings(self, tokens: jax.Array) -> jax.Array:
        """Maps `(B, T)` tokens to `(B, projection_dim)`, not normalised."""
        return self.text_projection(self.text_model(tokens))

    def __call__(self, images: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the images' and the texts' embeddings."""
        return self.image_embeddings(images), self.text_embeddings(tokens)


class ClipClassifier(ImageClassifier, kw_only=True):
    """A classifier on the class token's features, before their projection to the space of texts.

    The encoder's parameters lie under `params["vision_model"]`, as a `Clip`'s do. The fields are
    those of `ImageEncoder`.
    """

    config: VisionConfig
    adaptation: Adaptation = UNADAPTED
    remat: bool = False

    def setup(self):
        """Makes the encoder."""
        self.vision_model = ImageEncoder(self.config, self.dtype, self.remat, self.adaptation)

    @property
    def suits_loops(self) -> bool:
        """True: it is made of matrix products."""
        return True

    def features(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps `(B, side, side, channels)` images to `(B, width)` float32 features.

        Grey images, of one channel, are shown to the encoder in each of its channels.
        """
        del train
        if images.shape[-1] == 1:
            images = jnp.repeat(images, self.config.num_channels, axis=-1)
        return self.vision_model(images)

    def split(self, params: Any) -> tuple[Any, Any]:
        """Returns what the adaptation trains and what it leaves frozen."""
        return split(params, trainable(self.adaptation, params))
