"""The types that numbers are computed in, and scaling that rounds nothing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact, Num


def of_one_type(*arrays: ArrayLike) -> list[Array]:
    """Casts arrays to the type that JAX promotes them to, also where it is told to refuse that."""
    with jax.numpy_dtype_promotion("standard"):
        dtype = jnp.result_type(*arrays)
    return [jnp.asarray(x, dtype) for x in arrays]


def at_least_32_bits(x: Num[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    """Returns an array in float32, or as it is where it is wider."""
    x = jnp.asarray(x)
    return x.astype(wide(x.dtype))


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """Returns float32 for types of fewer bits and for integers, else the type itself."""
    narrow = not jnp.issubdtype(dtype, jnp.inexact) or jnp.finfo(dtype).bits < 32
    return jnp.dtype(jnp.float32) if narrow else dtype


def powers_of_two(
    moduli: Float[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Returns 1 / s and s, with s the power of two nearest to each modulus, of those in range.

    To multiply by either rounds nothing, as s and 1 / s are normal floats. After the first, numbers
    up to the modulus are at most 4.
    """
    numbers = jnp.finfo(moduli.dtype)
    tiny = jnp.asarray(numbers.tiny, moduli.dtype)
    scale = jnp.clip(jax.lax.stop_gradient(moduli), tiny, 1 / tiny)
    # A GPU's quotient is not exact; rounded without digits it is.
    scale = jax.lax.reduce_precision(scale, numbers.nexp, 0)
    return jax.lax.reduce_precision(1 / scale, numbers.nexp, 0), scale
