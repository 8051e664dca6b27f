"""The modules that an `Adaptation` adds to a vision transformer, and where it adds them."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import Adaptation
from jaxlt.models.networks.normalisation import LayerNorm

# PyTorch's Kaiming-normal with a = sqrt(5), untruncated: a variance of 1 / (3 fan_in).
_down_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "normal")
_ssf_init = nn.initializers.normal(0.02)


def _uniform(bound: float) -> nn.initializers.Initializer:
    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def _bottleneck(x: jax.Array, rank: int) -> jax.Array:
    """Adds layer norm, a ReLU layer of `rank` units and a way back, at first 0, to a module."""
    width, dtype = x.shape[-1], x.dtype
    # The epsilon of PyTorch's layer norm.
    y = LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(x)
    y = nn.relu(nn.Dense(rank, kernel_init=_down_init, dtype=dtype, name="down")(y))
    return nn.Dense(width, kernel_init=nn.initializers.zeros, dtype=dtype, name="up")(y)


class AdaptFormer(nn.Module):
    """AdaptFormer's bottleneck, `s Up(ReLU(Down(LN(x))))`, added to the output of a block's MLP.

    x is the stream before the block's second layer norm. The result starts at zero. LIFT learns s
    and has the layer norm; in the paper s is constant (Chen et al., NeurIPS 2022, section 3.2).
    """

    rank: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(..., width)` to the same shape and type."""
        scale = self.param("scale", nn.initializers.ones, ())
        return scale.astype(x.dtype) * _bottleneck(x, self.rank)


class Adapter(nn.Module):
    """Bottleneck `Up(ReLU(Down(LN(x))))` of an MLP's output, added to it; zero at first.

    Houlsby et al., ICML 2019, with the layer norm of LIFT.
    """

    rank: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(..., width)` to the same shape and type."""
        return _bottleneck(x, self.rank)


class LowRank(nn.Module):
    """LoRA's `(1/rank) x A B`, added to what a dense layer makes of x; zero at first.

    Hu et al., ICLR 2022, section 4.1, with alpha = 1. LIFT takes the fan of A from its second axis,
    the rank. `features` is the size of the dense layer's output.
    """

    rank: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(..., inputs)` to `(..., features)` of the same type."""
        a = self.param("A", _uniform(self.rank**-0.5), (x.shape[-1], self.rank), jnp.float32)
        b = self.param("B", nn.initializers.zeros, (self.rank, self.features), jnp.float32)
        return (x @ a.astype(x.dtype)) @ b.astype(x.dtype) / self.rank


class ScaleShift(nn.Module):
    """A factor and a shift for each feature, SSF (Lian et al., NeurIPS 2022).

    Factors start N(1, 0.02**2) and shifts N(0, 0.02**2): nearly the identity.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `(..., features)` to the same shape and type."""
        shape = x.shape[-1:]
        scale = self.param("scale", lambda *args: 1 + _ssf_init(*args), shape, jnp.float32)
        shift = self.param("shift", _ssf_init, shape, jnp.float32)
        return x * scale.astype(x.dtype) + shift.astype(x.dtype)


class Prompts(nn.Module):
    """Learned tokens, VPT (Jia et al., ECCV 2022), after those of the image, as in LIFT.

    They start uniform within sqrt(6 / (3 patch**2 + width)).

    Attributes:
        length: Number of learned tokens.
        patch: Side of the transformer's patches, of images with three channels.
    """

    length: int
    patch: int

    @nn.compact
    def __call__(self, x: jax.Array, tokens: int) -> jax.Array:
        """Maps `(B, any, width)` to `(B, tokens + length, width)`.

        Args:
            x: The image's tokens, and behind them whatever earlier prompts have become.
            tokens: Number of the image's own tokens, the class token included.
        """
        batch, _, width = x.shape
        bound = math.sqrt(6 / (3 * self.patch**2 + width))
        prompts = self.param("prompts", _uniform(bound), (self.length, width), jnp.float32)
        prompts = jnp.broadcast_to(prompts.astype(x.dtype), (batch, self.length, width))
        return jnp.concatenate([x[:, :tokens], prompts], axis=1)


# To be called in the compact methods of a block, whose modules then hold what is added.


def prompted(
    adaptation: Adaptation, x: jax.Array, *, block: int, tokens: int, patch: int
) -> jax.Array:
    """Returns the input of a block: `x`, with VPT's prompts behind it if the block has any.

    Args:
        adaptation: of the network.
        x: `(B, any, width)`, the output of the block before.
        block: the block's number, from 0.
        tokens: see `Prompts`.
        patch: see `Prompts`.
    """
    if "vpt_deep" in adaptation or ("vpt_shallow" in adaptation and block == 0):
        return Prompts(adaptation.prompt_length, patch, name="prompts")(x, tokens)
    return x


def adapted(adaptation: Adaptation, operation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns what one operation of a block gives, with LoRA and SSF.

    Args:
        adaptation: of the network, its rank set.
        operation: "layer_norm1", "layer_norm2" or a `jaxlt.models.adaptation.kinds.Projection`.
        x: `(..., inputs)`, the operation's input.
        y: `(..., features)`, its result.
    """
    if "lora" in adaptation and operation in adaptation.lora_projections:
        y = y + LowRank(adaptation.set_rank, y.shape[-1], name=f"lora_{operation}")(x)
    if "ssf" in adaptation:
        y = ScaleShift(name=f"ssf_{operation}")(y)
    return y


def adapted_mlp(adaptation: Adaptation, stream: jax.Array, y: jax.Array) -> jax.Array:
    """Returns what is added to the stream after a block's MLP, with adapter and AdaptFormer.

    Args:
        adaptation: of the network, its rank set.
        stream: `(..., width)` before the block's second layer norm.
        y: `(..., width)`, the MLP's output.
    """
    if "adapter" in adaptation:
        y = y + Adapter(adaptation.set_rank, name="adapter")(y)
    if "adaptformer" in adaptation:
        y = y + AdaptFormer(adaptation.set_rank, name="adaptformer")(stream)
    return y
