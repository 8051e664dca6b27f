"""Images cut into square patches."""

import jax


def space_to_depth(images: jax.Array, patch: int) -> jax.Array:
    """Moves each patch x patch square of pixels into the channels of one position.

    Args:
        images: `(B, H, W, channels)`, both sides multiples of `patch`.
        patch: Side of a square.

    Returns:
        `(B, H/patch, W/patch, patch**2 * channels)`, pixels of a square row by row.
    """
    batch, height, width, channels = images.shape
    x = images.reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // patch, width // patch, -1)
