"""Training batches from images that stay on the device."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data.pipelines.batches import Chunk
from jaxlt.data.pipelines.draws import CROP_PAD, Draws, DrawStream, cutout_start
from jaxlt.data.pipelines.normalisation import scale_and_shift
from jaxlt.data.pipelines.resident import ResidentImages, upload
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.errors import UsageError


class DevicePipeline:
    """A `Pipeline` whose images stay on the device; the host sends the draws alone.

    The batches are those of `TfDataPipeline` with the same arguments.

    Attributes:
        resident: the images of the split, shared by the pipelines of `with_stream`.
    """

    def __init__(
        self,
        images: ImageSet,
        stream: DrawStream,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Puts the images of the stream's split on the device.

        Args:
            images: see `TfDataPipeline`, as for all that follow.
            stream: without a policy, resized crops and colour jitter.
            mean: per channel, in units where white is 1.
            std: per channel, in the same units.

        Raises:
            UsageError: the augmentation needs the host, the images do not fit the device, or an
                image file cannot be decoded.
        """
        self._indices = stream.indices
        self._stream = _numbered_by_place(stream)
        self._labels = images.labels[stream.indices]
        self._scale, self._shift = scale_and_shift(mean, std)
        self.resident = upload(images, stream.indices)

    def with_stream(self, stream: DrawStream) -> DevicePipeline:
        """Returns the pipeline of another stream over the same copy of the images.

        Raises:
            UsageError: the augmentation needs the host.
            ValueError: the stream's indices are not those of this pipeline.
        """
        if not np.array_equal(stream.indices, self._indices):
            raise ValueError("the stream draws from other images than those on the device")
        other = copy.copy(self)
        other._stream = _numbered_by_place(stream)
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
                step, labels = first + offset, self._labels[chunk.indices]
                if not self._stream.is_whole:
                    labels = self.labels(step, step + len(labels))
                yield Chunk(chunk, labels)

    def labels(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the labels of steps `start_step` to `stop_step - 1`; see `Pipeline`."""
        return self._labels[self._stream.whole.images(start_step, stop_step)]

    def image_numbers(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the images that the steps draw; see `Pipeline`."""
        return self._indices[self._stream.whole.images(start_step, stop_step)]

    def read(self, resident: ResidentImages, payload: Draws) -> tuple[jax.Array, jax.Array]:
        """Gathers, augments and normalises the images of one step; see `Pipeline`."""
        pixels = _shifted(resident.pixels, payload)
        if payload.cutout_row is not None:
            hole = _hole(payload, pixels.shape[1:3], self._stream.augmentation.cutout)
            pixels = jnp.where(hole[..., jnp.newaxis], 0, pixels)
        return pixels * self._scale + self._shift, resident.labels[payload.indices]


def _numbered_by_place(stream: DrawStream) -> DrawStream:
    """Returns a stream that numbers the images as the device does, by their places in the split."""
    for name in stream.augmentation.needing_pillow:
        raise UsageError(f"{name} needs the host: use --pipeline tf")
    return dataclasses.replace(stream, indices=np.arange(len(stream.indices)))


def _shifted(pixels: jax.Array, draws: Draws) -> jax.Array:
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


def _hole(draws: Draws, shape: tuple[int, ...], side: int) -> jax.Array:
    """Returns where the images of one step are blackened, bool (B, H, W)."""

    def covered(centre: np.ndarray | None, extent: int) -> jax.Array:
        distance = jnp.arange(extent) - cutout_start(centre, extent, side)[:, jnp.newaxis]
        return (distance >= 0) & (distance < side)

    rows, columns = covered(draws.cutout_row, shape[0]), covered(draws.cutout_column, shape[1])
    return rows[:, :, jnp.newaxis] & columns[:, jnp.newaxis, :]
