"""The precision that losses and norms are computed in."""

import jax
import jax.numpy as jnp


def at_least_32_bits(x: jax.Array) -> jax.Array:
    """Returns a floating array in float32, or as it is where it is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
