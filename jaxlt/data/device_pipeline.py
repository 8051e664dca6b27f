"""Training batches from images that stay on the device."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data.draws import CROP_PAD, Augmentation, Draws, DrawStream
from jaxlt.data.image_set import ImageSet
from jaxlt.data.normalisation import scale_and_shift
from jaxlt.data.pipeline import Chunk
from jaxlt.data.resident import ResidentImages, upload
from jaxlt.data.samplers import Sampler


class DevicePipeline:
    """A `Pipeline` whose images stay on the device; the host sends the draws alone.

    The batches are those of `TfDataPipeline` with the same arguments.

    Attributes:
        resident: the images of the split, shared by the pipelines of `with_seed`.
    """

    def __init__(
        self,
        images: ImageSet,
        indices: np.ndarray,
        *,
        sampler: Sampler,
        batch_size: int,
        seed: int,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation = "crop_flip",
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Puts the images of the split on the device.

        Args:
            images: see `TfDataPipeline`, as for all that follow.
            indices: integer array (n,).
            sampler: places in `indices` by position of the stream.
            batch_size: examples in the global batch.
            seed: any integer.
            mean: per channel, in units where white is 1.
            std: per channel, in the same units.
            augmentation: "none", "crop" or "crop_flip".
            shard: (i, n), which part of each batch.

        Raises:
            UsageError: as for `TfDataPipeline`, or the images do not fit the device, or an image
                file cannot be decoded.
        """
        # The device holds the split alone, so its images are numbered by their places in it.
        places = np.arange(len(indices))
        self._stream = DrawStream(places, sampler, batch_size, seed, augmentation, shard)
        self._labels = images.labels[indices]
        self._scale, self._shift = scale_and_shift(mean, std)
        self.resident = upload(images, indices)

    def with_seed(self, seed: int, sampler: Sampler) -> DevicePipeline:
        """Returns the pipeline of another seed over the same copy of the images."""
        other = copy.copy(self)
        other._stream = dataclasses.replace(self._stream, seed=seed, sampler=sampler)
        return other

    def chunks(self, start_step: int, stop_step: int, size: int) -> Iterator[Chunk]:
        """Yields steps `start_step` to `stop_step - 1`; see `Pipeline`.

        The payload is the `Draws`, arrays (K, B).
        """
        together = self._stream.steps_at_once(size)
        for first in range(start_step, stop_step, together):
            draws = self._stream.draw(first, min(first + together, stop_step))
            for offset in range(0, len(draws.indices), size):
                here = slice(offset, offset + size)
                chunk: Draws = jax.tree.map(operator.itemgetter(here), draws)
                yield Chunk(chunk, self._labels[chunk.indices])

    def read(self, resident: ResidentImages, payload: Draws) -> tuple[jax.Array, jax.Array]:
        """Gathers, augments and normalises the images of one step; see `Pipeline`."""
        pixels = _augmented(resident.pixels, payload)
        return pixels * self._scale + self._shift, resident.labels[payload.indices]


def _augmented(pixels: jax.Array, draws: Draws) -> jax.Array:
    if draws.top is None or draws.left is None:
        return pixels[draws.indices]
    height, width = pixels.shape[1:3]
    columns = jnp.arange(width)
    if draws.flip is not None:
        columns = jnp.where(draws.flip[:, jnp.newaxis], columns[::-1], columns)
    rows = (draws.top - CROP_PAD)[:, jnp.newaxis] + jnp.arange(height)
    columns = (draws.left - CROP_PAD)[:, jnp.newaxis] + columns
    # One gather from the whole set, in which the padding is what lies outside an image: nothing
    # between the resident pixels and the batch is ever stored.
    return pixels.at[
        draws.indices[:, jnp.newaxis, jnp.newaxis],
        rows[:, :, jnp.newaxis],
        columns[:, jnp.newaxis, :],
    ].get(mode="fill", fill_value=0, wrap_negative_indices=False)
