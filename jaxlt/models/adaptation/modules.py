"""The modules that an `EncoderAdaptation` adds to a vision transformer, and where it adds them.

The modules map `(..., features)` to the same shape and type, if they do not say otherwise. The
functions are called in the compact methods of a block, whose modules then hold what is added. The
adaptation has its rank set.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlt.models.adaptation.kinds import EncoderAdaptation
from jaxlt.models.networks.layer_norm import LayerNorm

UNADAPTED = EncoderAdaptation(("linear_probe",))
"""Adds nothing to a network."""

# PyTorch's Kaiming-normal with a = sqrt(5), untruncated: a variance of 1 / (3 fan_in).
_down_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "normal")
_ssf_init = nn.initializers.normal(0.02)


def _uniform(bound: float) -> nn.initializers.Initializer:
    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


class Adapter(nn.Module):
    """Bottleneck `Up(ReLU(Down(LN(x))))` of `rank` units, zero at first, with LIFT's layer norm.

    That of an MLP's output is added to it (Houlsby et al., ICML 2019). AdaptFormer adds to it that
    of the MLP's input before the layer norm, times a factor that LIFT learns, `scaled` (Chen et
    al., NeurIPS 2022, section 3.2, where it is constant).
    """

    rank: int
    scaled: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns what is added."""
        width, dtype = x.shape[-1], x.dtype
        # The epsilon of PyTorch's layer norm.
        y = LayerNorm(epsilon=1e-5, dtype=dtype, name="norm")(x)
        y = nn.relu(nn.Dense(self.rank, kernel_init=_down_init, dtype=dtype, name="down")(y))
        y = nn.Dense(width, kernel_init=nn.initializers.zeros, dtype=dtype, name="up")(y)
        if self.scaled:
            y = self.param("scale", nn.initializers.ones, ()).astype(dtype) * y
        return y


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
        """Scales and shifts."""
        shape = x.shape[-1:]
        scale = self.param("scale", lambda *args: 1 + _ssf_init(*args), shape, jnp.float32)
        shift = self.param("shift", _ssf_init, shape, jnp.float32)
        return x * scale.astype(x.dtype) + shift.astype(x.dtype)


class Prompts(nn.Module):
    """VPT's learned tokens (Jia et al., ECCV 2022), behind those of the image, as in LIFT.

    There are `length` of them. They start uniform within sqrt(6 / (3 patch**2 + width)), where
    `patch` is the side of the transformer's patches, of images with three channels.
    """

    length: int
    patch: int

    @nn.compact
    def __call__(self, x: jax.Array, tokens: int) -> jax.Array:
        """Maps `(B, any, width)` to `(B, tokens + length, width)`.

        The image's own tokens stay, and what earlier prompts have become behind them goes.
        """
        batch, _, width = x.shape
        bound = math.sqrt(6 / (3 * self.patch**2 + width))
        prompts = self.param("prompts", _uniform(bound), (self.length, width), jnp.float32)
        prompts = jnp.broadcast_to(prompts.astype(x.dtype), (batch, self.length, width))
        return jnp.concatenate([x[:, :tokens], prompts], axis=1)


def prompted(
    adaptation: EncoderAdaptation, x: jax.Array, *, block: int, tokens: int, patch: int
) -> jax.Array:
    """Returns a block's input: `x`, with `Prompts` behind it if the block, from 0, has any."""
    if "vpt_deep" in adaptation or ("vpt_shallow" in adaptation and block == 0):
        return Prompts(adaptation.prompt_length, patch, name="prompts")(x, tokens)
    return x


def adapted(adaptation: EncoderAdaptation, operation: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns what a block's layer norm or `Projection` makes of x with LoRA and SSF, y without."""
    if "lora" in adaptation and operation in adaptation.lora_projections:
        y = y + LowRank(adaptation.set_rank, y.shape[-1], name=f"lora_{operation}")(x)
    if "ssf" in adaptation:
        y = ScaleShift(name=f"ssf_{operation}")(y)
    return y


def adapted_mlp(adaptation: EncoderAdaptation, stream: jax.Array, y: jax.Array) -> jax.Array:
    """Returns what is added to the stream (before the second layer norm) for an MLP's output y."""
    if "adapter" in adaptation:
        y = y + Adapter(adaptation.set_rank, name="adapter")(y)
    if "adaptformer" in adaptation:
        y = y + Adapter(adaptation.set_rank, scaled=True, name="adaptformer")(stream)
    return y
