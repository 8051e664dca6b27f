"""What chance decides in training: the images of each step and their augmentation."""

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np

from jaxlt.data.counter_random import random_integers, stream_key
from jaxlt.data.samplers import Sampler
from jaxlt.errors import UsageError

Augmentation = Literal["none", "crop", "crop_flip"]

# He et al., "Deep residual learning", CVPR 2016, section 4.2.
CROP_PAD = 4

_EXAMPLES_AT_ONCE = 2048


class Draws(NamedTuple):
    """The draws of some steps, one an example; None where the augmentation has no use for them.

    Attributes:
        indices: int32 array (steps, batch), numbers of the images.
        top: int32 array (steps, batch), the row of the image padded by `CROP_PAD` black pixels
            on every side at which its crop begins.
        left: int32 array (steps, batch), the column at which it begins.
        flip: bool array (steps, batch), whether the crop is mirrored left to right.
    """

    indices: np.ndarray
    top: np.ndarray | None = None
    left: np.ndarray | None = None
    flip: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class DrawStream:
    """The endless stream of a training run's draws, a pure function of seed, sampler and step.

    Attributes:
        indices: integer array (n,), the images of the split.
        sampler: which place in `indices` stands at each position of the stream.
        batch_size: examples in the global batch.
        seed: any integer, the augmentation's; the order is the sampler's.
        augmentation: "crop" shifts by up to 4 pixels, "crop_flip" also mirrors half the images.
        shard: (i, n) draws only for the i-th of n equal contiguous parts of each batch.

    Raises:
        UsageError: the batch size is not positive or not divisible by n, or the augmentation is
            unknown.
    """

    indices: np.ndarray
    sampler: Sampler
    batch_size: int
    seed: int
    augmentation: Augmentation
    shard: tuple[int, int]

    def __post_init__(self) -> None:
        part, num_parts = self.shard
        if self.batch_size < 1 or self.batch_size % num_parts:
            raise UsageError(
                f"batch size is {self.batch_size}, it must be positive and divisible by the "
                f"number of data shards, {num_parts}"
            )
        if self.augmentation not in (known := get_args(Augmentation)):
            raise UsageError(
                f"augmentation is {self.augmentation!r}, it must be {' or '.join(known)}"
            )
        if not 0 <= part < num_parts:
            raise ValueError(
                f"shard is {self.shard}, its first number must lie in 0..{num_parts - 1}"
            )

    @property
    def rows(self) -> int:
        """Examples in this shard's part of a batch."""
        return self.batch_size // self.shard[1]

    def steps_at_once(self, chunk: int = 1) -> int:
        """Multiple of `chunk` steps to draw in one call, for which NumPy is efficient."""
        return chunk * max(1, _EXAMPLES_AT_ONCE // (chunk * self.rows))

    def draw(self, start_step: int, stop_step: int) -> Draws:
        """Draws for steps `start_step` to `stop_step - 1`."""
        steps = np.arange(start_step, stop_step, dtype=np.int64)[:, np.newaxis]
        positions = steps * self.batch_size + self.shard[0] * self.rows + np.arange(self.rows)
        draws = Draws(self.indices[self.sampler(positions)].astype(np.int32))
        if self.augmentation == "none":
            return draws
        draws = draws._replace(
            top=self._integers("crop top", positions, 2 * CROP_PAD + 1),
            left=self._integers("crop left", positions, 2 * CROP_PAD + 1),
        )
        if self.augmentation == "crop":
            return draws
        return draws._replace(flip=self._integers("flip", positions, 2).astype(bool))

    def _integers(self, use: str, positions: np.ndarray, bound: int) -> np.ndarray:
        return random_integers(stream_key(self.seed, use), positions, bound).astype(np.int32)
