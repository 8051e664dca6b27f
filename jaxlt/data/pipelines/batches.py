"""What a pipeline is, and the pieces in which it hands over its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxlt.errors import UsageError


class Chunk(NamedTuple):
    """The training data of some steps, as the host hands them to a compiled program.

    Attributes:
        payload: what `Pipeline.read` takes, for each step: a pytree of arrays (K, B, ...) for K
            steps of B examples. A pipeline of one part of each batch gives the rows of that part.
        labels: int32 array (K, B), the labels of the whole batches, known on every host.
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

    def labels(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the labels (K, B) of the same steps' whole batches, without their images."""
        ...

    def image_numbers(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns which images (K, B) of the training set the same steps see."""
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
        images: float32 array (B, H, W, C), normalised per channel. In the payload of a
            `TfDataPipeline` uint8, to be normalised on the device.
        labels: int32 array (B,), on the host; -1 marks the padding of a last evaluation batch.
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns (a, b), float32 (C,), so that a * pixel + b is (pixel / 255 - mean) / std.

    Args:
        mean: per channel, in units where white is 1.
        std: per channel, in the same units.
    """
    scale = 1 / (255 * np.asarray(std))
    shift = -np.asarray(mean) / np.asarray(std)
    return scale.astype(np.float32), shift.astype(np.float32)


def rows_of_shard(batch_size: int, shard: tuple[int, int], name: str = "batch_size") -> int:
    """Returns how many examples of each batch a shard has.

    Args:
        batch_size: examples in the whole batch.
        shard: (i, n) for the i-th of n equal contiguous parts of each batch.
        name: of the batch size, for messages.

    Raises:
        UsageError: the batch size is not positive or not divisible by n.
    """
    if batch_size < 1 or batch_size % shard[1]:
        raise UsageError(
            f"{name} must be positive and divisible by the number of data shards, {shard[1]}, "
            f"got {batch_size}"
        )
    return batch_size // shard[1]
