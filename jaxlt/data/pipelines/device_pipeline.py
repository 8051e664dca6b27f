"""Training and evaluation batches from images that stay on the device."""

import copy
import dataclasses
import functools
import operator
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data.augment.cutout import cutout_hole
from jaxlt.data.pipelines.batches import Batch, Chunk, Draws
from jaxlt.data.pipelines.draws import CROP_PAD, DrawStream, rows_of_shard
from jaxlt.data.sources.image_set import ImageSet
from jaxlt.data.sources.source import scale_and_shift
from jaxlt.errors import UsageError

# The other half is for the network, its gradients and activations.
_SHARE_OF_DEVICE = 0.5


class ResidentImages(NamedTuple):
    """Labeled images on the device: uint8 (N, H, W, C), and their int32 labels (N,)."""

    pixels: jax.Array
    labels: jax.Array


def upload(images: ImageSet, indices: np.ndarray) -> ResidentImages:
    """Reads images by their numbers (N,), in this order, and puts them on JAX's default device.

    A `UsageError` says that they would take more than half of its memory, where that is known.
    """
    needed = len(indices) * int(np.prod(images.image_shape))
    statistics = jax.local_devices()[0].memory_stats() or {}
    limit = statistics.get("bytes_limit", np.inf) * _SHARE_OF_DEVICE
    if needed > limit:
        raise UsageError(
            f"images on the device must fit in {limit / 1e9:.2f} GB, half of its memory, got "
            f"{len(indices)} images of {needed / 1e9:.2f} GB: give --pipeline tf"
        )
    return ResidentImages(jnp.asarray(images.load(indices)), jnp.asarray(images.labels[indices]))


class DevicePipeline:
    """A `Pipeline` whose images stay on the device; the host sends the draws alone.

    The batches are those of `TfDataPipeline`; Args as there, but the stream has no policy, resized
    crops or color jitter. Attribute `resident` holds the images of the split, shared by the
    pipelines of `with_stream`.

    Raises:
        UsageError: the augmentation needs the host, or the images half of the device's memory.
    """

    def __init__(
        self, images: ImageSet, stream: DrawStream, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self._indices = stream.indices
        self._stream = _numbered_by_place(stream)
        self._labels = images.labels[stream.indices]
        self._scale, self._shift = scale_and_shift(mean, std)
        self.resident = upload(images, stream.indices)

    def with_stream(self, stream: DrawStream) -> Self:
        """Returns the pipeline of another stream over the same copy of the same images."""
        if not np.array_equal(stream.indices, self._indices):
            raise ValueError("stream must draw from the images on the device, got others")
        other = copy.copy(self)
        other._stream = _numbered_by_place(stream)
        return other

    def chunks(self, start_step: int, stop_step: int, size: int) -> Iterator[Chunk]:
        """Yields steps `start_step` to `stop_step - 1`, as `Draws` (K, B); see `Pipeline`."""
        together = self._stream.steps_at_once(size)
        for first in range(start_step, stop_step, together):
            draws = self._stream.draw(first, min(first + together, stop_step))
            for offset in range(0, len(draws.indices), size):
                here = slice(offset, offset + size)
                chunk: Draws = jax.tree.map(operator.itemgetter(here), draws)
                step, labels = first + offset, self._labels[chunk.indices]
                if self._stream.shard[1] > 1:
                    labels = self.labels(step, step + len(labels))
                yield Chunk(chunk, labels)

    def labels(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the labels of the steps' whole batches; see `Pipeline`."""
        return self._labels[self._stream.whole.images(start_step, stop_step)]

    def image_numbers(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the images that the steps draw; see `Pipeline`."""
        return self._indices[self._stream.whole.images(start_step, stop_step)]

    def read(self, resident: ResidentImages, payload: Draws) -> tuple[jax.Array, jax.Array]:
        """Gathers, augments and normalizes the images of one step; see `Pipeline`."""
        pixels = _shifted(resident.pixels, payload)
        if payload.cutout_row is not None:
            side = self._stream.augmentation.cutout
            hole = cutout_hole(payload, pixels.shape[1:3], side, jnp.arange)
            pixels = jnp.where(hole[..., jnp.newaxis], 0, pixels)
        return pixels * self._scale + self._shift, resident.labels[payload.indices]


class DeviceEvaluation:
    """The batches of `evaluation_batches` from images on the device; Args as there."""

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


def _numbered_by_place(stream: DrawStream) -> DrawStream:
    """Returns a stream that numbers the images as the device does, by their places in the split."""
    for name in stream.augmentation.needing_pillow:
        raise UsageError(f"pipeline must be tf for {name}, got device: give --pipeline tf")
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


@functools.partial(jax.jit, static_argnames="size")
def _read(
    pixels: jax.Array, start: int, scale: jax.Array, shift: jax.Array, *, size: int
) -> jax.Array:
    numbers = start + jnp.arange(size)
    images = pixels.at[numbers].get(mode="clip") * scale + shift
    is_padding = (numbers >= len(pixels))[:, jnp.newaxis, jnp.newaxis, jnp.newaxis]
    return jnp.where(is_padding, 0, images)
