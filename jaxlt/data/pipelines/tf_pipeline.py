"""The pipelines of tf.data that feed training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxlt.data.augment.batch_augmentation import augment, normalize
from jaxlt.data.pipelines.batches import Batch, Chunk, Draws
from jaxlt.data.pipelines.draws import DrawStream, rows_of_shard
from jaxlt.data.sources.image_set import ImageSet, refuse_undecodable
from jaxlt.data.sources.source import scale_and_shift
from jaxlt.data.sources.unreadable import SkipLog, Substitutes, Unreadable, first_readable
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_MAX_THREADS = 8
_PREFETCHED_BATCHES = 2


class TfDataPipeline:
    """A `Pipeline` of tf.data: the host makes whole batches, in threads of its own.

    A `UsageError` says that the augmentation does not know images of so many channels.

    Args:
        images: training images of a source.
        stream: which of them each batch has, and how they are augmented.
        mean, std: per channel, in units where white is 1.
        unreadable: "error" ends with a `UsageError` that names the image. "skip" takes the next
            image of its class in the split instead, under the same augmentation, and logs it.
    """

    resident = ()

    def __init__(
        self,
        images: ImageSet,
        stream: DrawStream,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        unreadable: Unreadable = "error",
    ) -> None:
        if (channels := images.image_shape[-1]) not in (1, 3):
            for name in stream.augmentation.needing_pillow:
                raise UsageError(f"images must have 1 or 3 channels for {name}, got {channels}")
        self._stream = stream
        self._images = images
        self._scale, self._shift = scale_and_shift(mean, std)
        self._skips = self._substitutes = None
        if unreadable == "skip":
            self._skips, self._substitutes = SkipLog(images), Substitutes(images, stream.indices)

    def chunks(self, start_step: int, stop_step: int, size: int) -> Iterator[Chunk]:
        """Yields steps `start_step` to `stop_step - 1`, as `Batch`es (K, B, ...); see `Pipeline`.

        A `UsageError` names an image that cannot be decoded and has no readable substitute.
        """
        tf = import_tensorflow()
        all_labels = tf.constant(self._images.labels)

        def batch(used: dict[str, Any]) -> tuple[tf.Tensor, ...]:
            draws: Any = Draws(**used)  # of tensors, in a map
            read, drawn = self._images.read, ()
            if draws.crop_tries is not None:
                read, drawn = self._images.read_crops, (draws.crop_tries, draws.crop_place)
            if self._substitutes is None:
                chosen, skipped = read(draws.indices, *drawn), tf.fill(tf.shape(draws.indices), -1)
            else:
                chosen, skipped = self._substitutes.read(read, draws.indices, *drawn)
            pixels = augment(chosen, draws, self._stream.augmentation.cutout)
            return pixels, tf.gather(all_labels, draws.indices), skipped

        def suspects(number: int) -> np.ndarray:
            first = start_step + number * size
            return self._stream.draw(first, min(first + size, stop_step)).indices.ravel()

        draws, step = _draws_dataset(self._stream, start_step, stop_step), start_step
        for images, labels, skipped in _iterate(self._images, draws, batch, suspects, size):
            if self._skips:
                self._skips.add(skipped)
            whole, step = labels, step + len(labels)
            if self._stream.shard[1] > 1:
                whole = self.labels(step - len(labels), step)
            yield Chunk(Batch(images, labels), whole)

    def labels(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the labels of the steps' whole batches; see `Pipeline`."""
        return self._images.labels[self.image_numbers(start_step, stop_step)]

    def image_numbers(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the images that the steps draw, readable or not; see `Pipeline`."""
        return self._stream.whole.images(start_step, stop_step)

    def read(self, resident: tuple[()], payload: Any) -> tuple[jax.Array, jax.Array]:
        """Normalizes the images of one step's `Batch`; see `Pipeline`."""
        return payload.images * self._scale + self._shift, payload.labels


def evaluation_batches(
    images: ImageSet,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    indices: np.ndarray | None = None,
    unreadable: Unreadable = "error",
    skips: SkipLog | None = None,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yields the images once, in order and without augmentation.

    A `UsageError` says that the batch size is not positive or not divisible by the shards, or,
    while iterating, that an image cannot be decoded and is not to be skipped.

    Args:
        images: any set of images.
        batch_size: examples in every batch; the last has zero images with label -1 at its end.
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
        indices: integer array (n,), the images to take; None takes all.
        unreadable: "error", or "skip" to give zeros with label -1 for what cannot be decoded.
        skips: counts and logs what is skipped, see `data.sources.unreadable`; None for a new one.
        shard: (i, n) yields only the i-th of n equal contiguous parts of each batch.

    Example:
        >>> from jaxlt.data import evaluation_batches, load_source
        >>> digits = load_source("digits")
        >>> of = {"batch_size": 256, "mean": digits.mean, "std": digits.std}
        >>> [batch.images.shape for batch in evaluation_batches(digits.test, **of)]
        [(256, 8, 8, 1), (256, 8, 8, 1), (256, 8, 8, 1)]
    """
    rows = rows_of_shard(batch_size, shard)
    tf = import_tensorflow()
    numbers = np.arange(len(images.labels)) if indices is None else indices
    order, all_labels = tf.constant(numbers, tf.int32), tf.constant(images.labels)
    if unreadable == "skip":
        skips = skips or SkipLog(images)

    def batch(start: tf.Tensor) -> tuple[tf.Tensor, ...]:
        first = start + shard[0] * rows
        chosen = order[first : first + rows]
        labels, skipped = tf.gather(all_labels, chosen), tf.fill(tf.shape(chosen), -1)
        if unreadable == "skip":
            pixels, taken = first_readable(
                chosen[:, tf.newaxis], images.read, shape=images.image_shape, blank=True
            )
            labels, skipped = tf.where(taken < 0, -1, labels), tf.where(taken < 0, chosen, -1)
        else:
            pixels = images.read(chosen)
        present = tf.cast(labels >= 0, tf.float32)[:, tf.newaxis, tf.newaxis, tf.newaxis]
        normalized = normalize(pixels, mean, std) * present
        missing = rows - tf.size(chosen)
        padded = tf.pad(normalized, [(0, missing), (0, 0), (0, 0), (0, 0)])
        return padded, tf.pad(labels, [(0, missing)], constant_values=-1), skipped

    def suspects(number: int) -> np.ndarray:
        first = number * batch_size + shard[0] * rows
        return numbers[first : first + rows]

    def read() -> Iterator[Batch]:
        starts = tf.data.Dataset.range(0, len(order), batch_size)
        for pixels, labels, skipped in _iterate(images, starts, batch, suspects):
            if skips:
                skips.add(skipped)
            yield Batch(pixels[0], labels[0])

    return read()


def _draws_dataset(stream: DrawStream, start_step: int, stop_step: int) -> Any:
    """Makes the dataset of each step's draws, by name, without those that are not used."""
    tf = import_tensorflow()
    together = stream.steps_at_once()
    used = {name: x for name, x in stream.draw(0, 0)._asdict().items() if x is not None}

    def draw(first: np.ndarray) -> list[np.ndarray]:
        draws = stream.draw(int(first), min(int(first) + together, stop_step))
        return [getattr(draws, name) for name in used]

    def drawn(first: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = tf.numpy_function(draw, [first], [values.dtype for values in used.values()])
        return {
            name: tf.ensure_shape(tensor, (None, *values.shape[1:]))
            for (name, values), tensor in zip(used.items(), tensors, strict=True)
        }

    return tf.data.Dataset.range(start_step, stop_step, together).map(drawn).prefetch(1).unbatch()


def _iterate(
    images: ImageSet,
    steps: Any,
    batch: Callable[..., Any],
    suspects: Callable[[int], np.ndarray],
    size: int = 1,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields what `batch` makes of each step, `size` stacked; of yield k, images `suspects(k)`."""
    tf = import_tensorflow()
    # Batches are made side by side, each by one thread. Half the cores are left to XLA, except
    # where decoding takes longer than a step of the network; there one more makes up for turns
    # at Python's lock, around Pillow.
    cores = os.cpu_count() or 1
    threads = min(_MAX_THREADS, cores + 1 if images.is_decoded else max(1, cores // 2))
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    dataset = steps.map(batch, num_parallel_calls=threads, deterministic=True)
    if size > 1:
        dataset = dataset.batch(size)
    dataset = dataset.prefetch(_PREFETCHED_BATCHES).with_options(options)
    yielded = 0
    try:
        for arrays in dataset.as_numpy_iterator():
            # tf.data would copy a batch to give it an axis of length 1.
            yield arrays if size > 1 else tuple(array[np.newaxis] for array in arrays)
            yielded += 1
    except tf.errors.OpError:
        refuse_undecodable(images.undecodable(suspects(yielded)))
        raise
