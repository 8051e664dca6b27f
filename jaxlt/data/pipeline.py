"""The tf.data pipelines that feed training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from jaxlt.data.augment import pad_crop, random_flip
from jaxlt.data.image_set import ImageSet, named_decoding_errors
from jaxlt.data.samplers import Sampler
from jaxlt.data.tensorflow_runtime import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

Augmentation = Literal["none", "crop", "crop_flip"]

_MAX_THREADS = 8
_PREFETCHED_BATCHES = 2


class Batch(NamedTuple):
    """One batch on the host.

    Attributes:
        images: float32 array (B, H, W, C), normalised per channel.
        labels: int32 array (B,); -1 marks the padding of a last evaluation batch.
    """

    images: np.ndarray
    labels: np.ndarray


def training_batches(
    images: ImageSet,
    indices: np.ndarray,
    *,
    sampler: Sampler,
    batch_size: int,
    seed: int,
    start_step: int,
    stop_step: int,
    mean: Sequence[float],
    std: Sequence[float],
    augmentation: Augmentation = "crop_flip",
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Yields the training batches of steps `start_step` to `stop_step - 1`.

    A batch is a pure function of the seed and the step: starting late yields the same batches
    as having come there, and costs no more. The stream is endless, so a batch may span two
    epochs. The order of the images is the sampler's, the seed here is the augmentation's.

    Args:
        images: training images of a source.
        indices: integer array (n,), the images of the split.
        sampler: which place in `indices` stands at each position of the stream.
        batch_size: examples in the global batch.
        seed: any integer.
        start_step: first step, from 0.
        stop_step: one past the last step.
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
        augmentation: "crop" shifts by up to 4 pixels, "crop_flip" also mirrors half the images.
        shard: (i, n) yields only the i-th of n equal contiguous parts of each batch.

    Returns:
        Iterator over batches of `batch_size / n` examples.

    Raises:
        UsageError: the batch size is not positive or not divisible by n, the augmentation is
            unknown, or, while iterating, an image file cannot be decoded.
    """
    part, num_parts = shard
    if batch_size < 1 or batch_size % num_parts:
        raise UsageError(
            f"batch size is {batch_size}, it must be positive and divisible by the number of "
            f"data shards, {num_parts}"
        )
    if augmentation not in get_args(Augmentation):
        raise UsageError(
            f"augmentation is {augmentation!r}, it must be {' or '.join(get_args(Augmentation))}"
        )
    if not 0 <= part < num_parts:
        raise ValueError(f"shard is {shard}, its first number must lie in 0..{num_parts - 1}")
    tf = import_tensorflow()
    rows = batch_size // num_parts
    pool, labels = tf.constant(indices, tf.int64), tf.constant(images.labels)

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        positions = step * batch_size + part * rows + tf.range(rows, dtype=tf.int64)
        chosen = tf.gather(pool, sampler(positions))
        pixels = images.read(chosen)
        if augmentation != "none":
            pixels = pad_crop(pixels, positions, seed)
        if augmentation == "crop_flip":
            pixels = random_flip(pixels, positions, seed)
        return _normalise(pixels, mean, std), tf.gather(labels, chosen)

    return _iterate(images, tf.data.Dataset.range(start_step, stop_step), batch)


def evaluation_batches(
    images: ImageSet,
    *,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    indices: np.ndarray | None = None,
) -> Iterator[Batch]:
    """Yields the images once, in order and without augmentation.

    Args:
        images: any set of images.
        batch_size: examples in every batch; the last is padded to it with zero images whose
            label is -1.
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
        indices: integer array (n,), the images to take; None takes all.

    Returns:
        Iterator over batches.

    Raises:
        UsageError: the batch size is not positive, or, while iterating, an image file cannot
            be decoded.
    """
    if batch_size < 1:
        raise UsageError(f"evaluation batch size is {batch_size}, it must be positive")
    tf = import_tensorflow()
    order = tf.constant(np.arange(len(images.labels)) if indices is None else indices, tf.int64)
    labels = tf.constant(images.labels)

    def batch(start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        chosen = order[start : start + batch_size]
        missing = batch_size - tf.size(chosen)
        pixels = _normalise(images.read(chosen), mean, std)
        padded = tf.pad(pixels, [(0, missing), (0, 0), (0, 0), (0, 0)])
        return padded, tf.pad(tf.gather(labels, chosen), [(0, missing)], constant_values=-1)

    return _iterate(images, tf.data.Dataset.range(0, len(order), batch_size), batch)


def _normalise(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    tf = import_tensorflow()
    scale = 1 / (255 * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return tf.cast(pixels, tf.float32) * scale.astype(np.float32) + shift.astype(np.float32)


def _iterate(images: ImageSet, steps: Any, batch: Any) -> Iterator[Batch]:
    tf = import_tensorflow()
    # Half the cores are left to XLA. Batches are made side by side, each by one thread.
    threads = min(_MAX_THREADS, max(1, (os.cpu_count() or 1) // 2))
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    dataset = (
        steps.map(batch, num_parallel_calls=threads, deterministic=True)
        .prefetch(_PREFETCHED_BATCHES)
        .with_options(options)
    )
    with named_decoding_errors(images):
        for pixels, labels in dataset.as_numpy_iterator():
            yield Batch(pixels, labels)
