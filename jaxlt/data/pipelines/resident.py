"""Images that stay on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data.sources.image_set import ImageSet
from jaxlt.errors import UsageError

# The other half is for the network, its gradients and activations.
_SHARE_OF_DEVICE = 0.5


class ResidentImages(NamedTuple):
    """Labelled images on the device.

    Attributes:
        pixels: uint8 array (N, H, W, C).
        labels: int32 array (N,).
    """

    pixels: jax.Array
    labels: jax.Array


def upload(images: ImageSet, indices: np.ndarray) -> ResidentImages:
    """Reads images once and puts them on JAX's default device.

    Args:
        images: any set of images; TensorFlow is imported only for those that are in files or
            changed when they are read.
        indices: integer array (N,), the images to take.

    Returns:
        The images, in the order of `indices`.

    Raises:
        UsageError: they would take more than half of the device's memory, where the device tells
            how much it has, or an image file cannot be decoded.
    """
    needed = len(indices) * int(np.prod(images.image_shape))
    statistics = jax.local_devices()[0].memory_stats() or {}
    limit = statistics.get("bytes_limit", np.inf) * _SHARE_OF_DEVICE
    if needed > limit:
        raise UsageError(
            f"the {len(indices)} images take {needed / 1e9:.2f} GB on the device, they must fit "
            f"in {limit / 1e9:.2f} GB, half of its memory: use --pipeline tf"
        )
    return ResidentImages(jnp.asarray(images.load(indices)), jnp.asarray(images.labels[indices]))
