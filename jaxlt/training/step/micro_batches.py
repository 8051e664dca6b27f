"""Gradient accumulation: the images of a batch pass through the network in turns."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array


def in_turns(function: Callable[[Array], Array], images: Array, size: int) -> Array:
    """Applies a function of images, `size` at a time, keeping nothing for the backward pass."""
    function = jax.checkpoint(function)
    turns = len(images) // size
    whole, rest = images[: turns * size], images[turns * size :]
    # Every so many-th image, so that each device has its part of every turn.
    parts = whole.reshape(size, turns, *images.shape[1:]).swapaxes(0, 1)
    outputs = jax.lax.map(function, parts).swapaxes(0, 1)
    outputs = outputs.reshape(turns * size, *outputs.shape[2:])
    return jnp.concatenate([outputs, function(rest)]) if len(rest) else outputs
