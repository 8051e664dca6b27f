"""Evaluation batches from images that stay on the device."""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data.pipelines.batches import Batch
from jaxlt.data.pipelines.normalisation import scale_and_shift
from jaxlt.data.pipelines.resident import upload
from jaxlt.data.pipelines.tf_pipeline import rows_of_shard
from jaxlt.data.sources.image_set import ImageSet


class DeviceEvaluation:
    """What `evaluation_batches` gives, from images put on the device once for all evaluations."""

    def __init__(
        self,
        images: ImageSet,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        indices: np.ndarray | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Puts the images on the device.

        Args:
            images: any set of images.
            batch_size: examples in every batch; the last is padded to it with zero images whose
                label is -1.
            mean: per channel, in units where white is 1.
            std: per channel, in the same units.
            indices: integer array (n,), the images to take; None takes all.
            shard: (i, n) for the i-th of n equal contiguous parts of each batch alone.

        Raises:
            UsageError: the batch size is not positive or not divisible by n, the images do not fit
                the device, or an image file cannot be decoded.
        """
        self._rows, self._part = rows_of_shard(batch_size, shard), shard[0]
        chosen = np.arange(len(images.labels)) if indices is None else indices
        self._batch_size = batch_size
        self._scale_and_shift = scale_and_shift(mean, std)
        self._pixels = upload(images, chosen).pixels
        missing = -len(chosen) % batch_size
        self._labels = np.pad(images.labels[chosen], (0, missing), constant_values=-1)

    def batches(self) -> Iterator[Batch]:
        """Yields the images once, in order and without augmentation."""
        for start in range(0, len(self._labels), self._batch_size):
            first = start + self._part * self._rows
            images = _read(self._pixels, first, *self._scale_and_shift, size=self._rows)
            yield Batch(images, self._labels[first : first + self._rows])


@functools.partial(jax.jit, static_argnames="size")
def _read(
    pixels: jax.Array, start: int, scale: jax.Array, shift: jax.Array, *, size: int
) -> jax.Array:
    numbers = start + jnp.arange(size)
    images = pixels.at[numbers].get(mode="clip") * scale + shift
    is_padding = (numbers >= len(pixels))[:, jnp.newaxis, jnp.newaxis, jnp.newaxis]
    return jnp.where(is_padding, 0, images)
