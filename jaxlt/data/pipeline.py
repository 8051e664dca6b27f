"""What a pipeline is, and the pipelines of tf.data that feed training and evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxlt.data.augment import augment
from jaxlt.data.draws import Draws, DrawStream
from jaxlt.data.image_set import ImageSet, named_decoding_errors
from jaxlt.data.normalisation import scale_and_shift
from jaxlt.data.tensorflow_runtime import import_tensorflow
from jaxlt.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

_MAX_THREADS = 8
_PREFETCHED_BATCHES = 2


class Chunk(NamedTuple):
    """Some steps' worth of training data, as the host hands it to a compiled program.

    Attributes:
        payload: what `Pipeline.read` takes, of each step: a pytree of arrays (K, B, ...) for K
            steps of B examples.
        labels: int32 array (K, B), the labels that `read` will give, known on the host.
    """

    payload: Any
    labels: np.ndarray


class Pipeline(Protocol):
    """Training data, divided between the host and the compiled program.

    The batch of a step is a pure function of the pipeline and the step, however the steps are
    cut into chunks. The stream is endless, so a batch may span two epochs.
    """

    @property
    def resident(self) -> Any:
        """Pytree of device arrays that every call of the compiled program is handed."""
        ...

    def chunks(self, start_step: int, stop_step: int, size: int) -> Iterator[Chunk]:
        """Yields steps `start_step` to `stop_step - 1`, `size` a chunk, the last maybe fewer."""
        ...

    def read(self, resident: Any, payload: Any) -> tuple[jax.Array, jax.Array]:
        """Makes one step's batch; pure, for use under `jit` and `vmap`.

        Args:
            resident: the property `resident`.
            payload: one step of a chunk's payload, without the leading axis.

        Returns:
            Images, float32 (B, H, W, C), normalised per channel, and their labels, int32 (B,).
        """
        ...


class Batch(NamedTuple):
    """One batch, or several stacked along a leading axis.

    Attributes:
        images: float32 array (B, H, W, C), normalised per channel, on the host or the device.
        labels: int32 array (B,), on the host; -1 marks the padding of a last evaluation batch.
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray


class TfDataPipeline:
    """A `Pipeline` of tf.data: the host makes whole batches, in threads of its own.

    Attributes:
        resident: nothing.
    """

    resident = ()

    def __init__(
        self,
        images: ImageSet,
        stream: DrawStream,
        *,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        """Prepares the stream of training batches.

        Args:
            images: training images of a source.
            stream: which of them each batch has, and how they are augmented.
            mean: per channel, in units where white is 1.
            std: per channel, in the same units.

        Raises:
            UsageError: the images have a number of channels that the policy does not know.
        """
        policy, channels = stream.augmentation.policy, images.image_shape[-1]
        if policy != "none" and channels not in (1, 3):
            raise UsageError(
                f"policy {policy} is given images of {channels} channels, it must be 1 or 3"
            )
        self._stream = stream
        self._images = images
        self._statistics = (mean, std)

    def chunks(self, start_step: int, stop_step: int, size: int) -> Iterator[Chunk]:
        """Yields steps `start_step` to `stop_step - 1`; see `Pipeline`.

        The payload is a `Batch` of arrays (K, B, ...).

        Raises:
            UsageError: an image file cannot be decoded.
        """
        tf = import_tensorflow()
        all_labels = tf.constant(self._images.labels)

        def batch(used: dict[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
            draws = Draws(**used)
            chosen = self._images.read(draws.indices)
            pixels = augment(chosen, draws, self._stream.augmentation.cutout)
            return _normalise(pixels, *self._statistics), tf.gather(all_labels, draws.indices)

        draws = _draws_dataset(self._stream, start_step, stop_step)
        for images, labels in _iterate(self._images, draws, batch, size):
            yield Chunk(Batch(images, labels), labels)

    def read(self, resident: tuple[()], payload: Any) -> tuple[jax.Array, jax.Array]:
        """Returns the images and labels of one step's `Batch`; see `Pipeline`."""
        del resident
        return payload.images, payload.labels


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

    starts = tf.data.Dataset.range(0, len(order), batch_size)
    return (Batch(x[0], y[0]) for x, y in _iterate(images, starts, batch))


def _normalise(pixels: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    tf = import_tensorflow()
    scale, shift = scale_and_shift(mean, std)
    return tf.cast(pixels, tf.float32) * scale + shift


def _draws_dataset(stream: DrawStream, start_step: int, stop_step: int) -> Any:
    """Makes the dataset of each step's draws, by name, without those that are not used."""
    tf = import_tensorflow()
    together = stream.steps_at_once()
    none = stream.draw(0, 0)._asdict()
    used = {name: values for name, values in none.items() if values is not None}

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
    images: ImageSet, steps: Any, batch: Callable[..., Any], size: int = 1
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images and labels that `batch` makes of each step, `size` of them stacked."""
    tf = import_tensorflow()
    # Half the cores are left to XLA. Batches are made side by side, each by one thread.
    threads = min(_MAX_THREADS, max(1, (os.cpu_count() or 1) // 2))
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    dataset = steps.map(batch, num_parallel_calls=threads, deterministic=True)
    if size > 1:
        dataset = dataset.batch(size)
    dataset = dataset.prefetch(_PREFETCHED_BATCHES).with_options(options)
    with named_decoding_errors(images):
        for pixels, labels in dataset.as_numpy_iterator():
            # tf.data would copy a batch to give it an axis of length 1.
            yield (pixels, labels) if size > 1 else (pixels[np.newaxis], labels[np.newaxis])
