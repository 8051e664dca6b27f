"""What a pipeline is, and the pieces in which it hands over its data."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np


class Chunk(NamedTuple):
    """The training data of K steps of B examples, as the host hands them to a compiled program.

    Attributes:
        payload: a pytree of arrays (K, B, ...); `Pipeline.read` takes that of one step. A pipeline
            of one part of each batch gives the rows of that part.
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
        """Yields the batches of consecutive steps in chunks.

        Args:
            start_step: the first step.
            stop_step: one after the last step.
            size: steps a chunk; the last chunk may have fewer.
        """
        ...

    def labels(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the labels (K, B) of the same steps' whole batches; Args as of `chunks`."""
        ...

    def image_numbers(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns which images (K, B), readable or not, the steps see; Args as of `chunks`."""
        ...

    def read(self, resident: Any, payload: Any) -> tuple[jax.Array, jax.Array]:
        """Makes one step's batch; pure, for use under `jit` and `vmap`.

        Args:
            resident: the property `resident`.
            payload: one step of a chunk's payload, without the leading axis.

        Returns:
            Images, float32 (B, H, W, C), normalized per channel, and their labels, int32 (B,).
        """
        ...


class Batch(NamedTuple):
    """One batch, or several stacked along a leading axis.

    Attributes:
        images: float32 array (B, H, W, C), normalized per channel. In the payload of a
            `TfDataPipeline` uint8, to be normalized on the device.
        labels: int32 array (B,), on the host; -1 marks the padding of a last evaluation batch.
    """

    images: np.ndarray | jax.Array
    labels: np.ndarray


class Draws(NamedTuple):
    """The draws of some steps, arrays (steps, batch, ...); None where none are needed.

    Attributes:
        indices: int32, numbers of the images.
        top, left: int32, corner of the crop in the image padded by `draws.CROP_PAD` on every side.
        crop_tries, crop_place: float64 (..., NUM_TRIES, 2) and (..., 2), see `augment.crops`.
        flip: bool, whether the crop is mirrored left to right.
        operations, amounts: int32 and float32 (..., K), see `augment.policies`.
        cutout_row, cutout_column: int32, the square's center, see `augment.cutout`.
    """

    indices: np.ndarray
    top: np.ndarray | None = None
    left: np.ndarray | None = None
    crop_tries: np.ndarray | None = None
    crop_place: np.ndarray | None = None
    flip: np.ndarray | None = None
    operations: np.ndarray | None = None
    amounts: np.ndarray | None = None
    cutout_row: np.ndarray | None = None
    cutout_column: np.ndarray | None = None
