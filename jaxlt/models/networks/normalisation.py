"""Batch, group and layer norm whose forward pass XLA recognises when it meets it twice.

They compute what Flax's do, under the same names. Flax's reshape the statistics, and XLA moves such
reshapes about depending on whether a backward pass follows. Two forward passes at the same
parameters then count as different programs, and a SAM step costs 2.33 SGD steps instead of 2.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

HELD_STATISTICS = "held_statistics"


class BatchNorm(nn.Module):
    """Batch norm over all but the last axis (Ioffe and Szegedy, ICML 2015), in at least 32 bits.

    The defaults are PyTorch's momentum 0.1 and epsilon. PyTorch's running variance is n/(n-1) times
    this one's, with n = B*H*W: 0.01% more for 128 images of 8x8.

    A training-mode pass with the collection "held_statistics" mutable stores the batch's mean and
    variance there, and lets no gradient flow through them. A pass that finds the collection among
    its variables normalises by these constants, in training mode too, and leaves the running
    statistics as they are. No example's result depends on another's then: a pass over some rows of
    the batch gives them what the pass over all rows gave.

    Attributes:
        use_running_average: Normalise by the running statistics and leave them as they are.
        momentum: Share of the running statistics that one batch keeps.
        epsilon: Added to the variance.
        dtype: Type of the result; parameters and statistics are float32.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises (..., C)."""
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (channels,))
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.has_variable(HELD_STATISTICS, "mean"):
            mean, var = self._held_statistics()
        elif self.use_running_average:
            mean, var = running_mean.value, running_var.value
        else:
            mean, var = _batch_statistics(x)
            if not self.is_initializing():
                running_mean.value = self._average(running_mean.value, mean)
                running_var.value = self._average(running_var.value, var)
                mean, var = self._hold(mean, var)
        return ((x - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias).astype(self.dtype)

    def _held_statistics(self) -> tuple[jax.Array, jax.Array]:
        mean = self.get_variable(HELD_STATISTICS, "mean")
        var = self.get_variable(HELD_STATISTICS, "var")
        return jax.lax.stop_gradient((mean, var))

    def _hold(self, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.is_mutable_collection(HELD_STATISTICS):
            return mean, var
        self.put_variable(HELD_STATISTICS, "mean", mean)
        self.put_variable(HELD_STATISTICS, "var", var)
        # The same function as the passes that will hold them, so with the same gradient.
        return jax.lax.stop_gradient((mean, var))

    def _average(self, running: jax.Array, batch: jax.Array) -> jax.Array:
        return self.momentum * running + (1 - self.momentum) * batch


def _batch_statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance (C,) of (..., C) over all other axes."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    # Rounding can push this difference of squares below zero.
    return mean, jnp.maximum(jnp.square(x).mean(axes) - jnp.square(mean), 0)


class GroupNorm(nn.Module):
    """Group norm of images (Wu and He, ECCV 2018), in float32.

    Attributes:
        groups: Number of groups of neighbouring channels, a divisor of the channels.
        epsilon: Added to the variance.
        dtype: Type of the result; parameters are float32.
    """

    groups: int = 8
    epsilon: float = 1e-5
    dtype: jnp.dtype | type = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises (B, H, W, C) over the pixels and the channels of each group."""
        channels = x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"channels must be a multiple of {self.groups}, got {channels}")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        x = x.astype(jnp.float32)
        centred = x - self._group_means(x)[:, None, None]
        inverse_deviation = jax.lax.rsqrt(self._group_means(jnp.square(centred)) + self.epsilon)
        factor = (inverse_deviation * scale)[:, None, None]
        return (centred * factor + bias).astype(self.dtype)

    def _group_means(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, C): each channel's entry is the mean of its group."""
        size = x.shape[-1] // self.groups
        averaging = np.kron(np.eye(self.groups), np.full((size, size), 1 / size))
        # GPUs would round the factors to TensorFloat-32 otherwise.
        return jnp.matmul(x.mean((1, 2)), averaging.astype(np.float32), precision="highest")


class LayerNorm(nn.Module):
    """Layer norm over the last axis (Ba, Kiros and Hinton, 2016), in float32.

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
