"""What chance decides in training: the images of each step and their augmentation."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from jaxlt.data.augment.crops import NUM_TRIES
from jaxlt.data.augment.policies import (
    NUM_MAGNITUDES,
    draw_autoaugment,
    draw_color_jitter,
    draw_randaugment,
)
from jaxlt.data.pipelines.batches import rows_of_shard
from jaxlt.data.sampling.random_numbers import random_integers, random_uniforms, stream_key
from jaxlt.data.sampling.samplers import Sampler
from jaxlt.errors import UsageError

Shift = Literal["none", "crop", "crop_flip", "resized_crop_flip"]
Policy = Literal["none", "autoaugment", "randaugment"]

# He et al., "Deep residual learning", CVPR 2016, section 4.2.
CROP_PAD = 4
# Images have less than 2**15 rows and columns, so that a place among them takes 31 bits.
_CUTOUT_PLACES = 2**16
_MAX_CUTOUT = 2**15

_EXAMPLES_AT_ONCE = 2048


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to each training image: shift, colour jitter, policy and Cutout, in this order.

    Attributes:
        shift: "crop" shifts by up to 4 pixels, "crop_flip" also mirrors half the images.
            "resized_crop_flip" enlarges a part of the image as it is stored, see
            `jaxlt.data.augment.crops`, and mirrors half of them.
        policy: "autoaugment" applies one of the 25 sub-policies for CIFAR-10, "randaugment"
            operations drawn from a list of 14; see `jaxlt.data.augment.policies`.
        randaugment_ops: RandAugment's N, operations an image.
        randaugment_magnitude: RandAugment's M, in 0..30.
        cutout: side in pixels of a black square with its centre at a uniform pixel, cut off at
            the image's borders; 0 for none (DeVries and Taylor, "Improved regularization of
            convolutional neural networks with cutout", 2017).
        color_jitter: brightness, contrast and saturation are multiplied, in random order, by
            factors uniform in 1 - color_jitter..1 + color_jitter; 0 for none.

    Raises:
        UsageError: a value is not one of these.
    """

    shift: Shift = "none"
    policy: Policy = "none"
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9
    cutout: int = 0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        shifts, policies = get_args(Shift), get_args(Policy)
        magnitude = self.randaugment_magnitude
        for name, holds, need in (
            ("shift", self.shift in shifts, f"be {' or '.join(shifts)}"),
            ("color_jitter", 0 <= self.color_jitter <= 1, "lie in 0..1"),
            ("policy", self.policy in policies, f"be {' or '.join(policies)}"),
            ("randaugment_ops", self.randaugment_ops >= 1, "be at least 1"),
            (
                "randaugment_magnitude",
                0 <= magnitude < NUM_MAGNITUDES,
                f"lie in 0..{NUM_MAGNITUDES - 1}",
            ),
            ("cutout", 0 <= self.cutout <= _MAX_CUTOUT, f"lie in 0..{_MAX_CUTOUT}"),
        ):
            if not holds:
                raise UsageError(f"{name} must {need}, got {getattr(self, name)!r}")

    @property
    def needing_pillow(self) -> tuple[str, ...]:
        """Names of what is done on the host by Pillow, and so to images of 1 or 3 channels."""
        named = {
            f"policy {self.policy}": self.policy != "none",
            f"augmentation {self.shift}": self.shift == "resized_crop_flip",
            f"color jitter {self.color_jitter:g}": self.color_jitter != 0,
        }
        return tuple(name for name, used in named.items() if used)


class Draws(NamedTuple):
    """The draws of some steps, arrays (steps, batch, ...); None where none are needed.

    Attributes:
        indices: int32, numbers of the images.
        top: int32, the first row of the crop in the image padded by `CROP_PAD` on every side.
        left: int32, the first column of the crop.
        crop_tries: float64 (..., NUM_TRIES, 2), see `jaxlt.data.augment.crops.resized_crop_box`.
        crop_place: float64 (..., 2), see there.
        flip: bool, whether the crop is mirrored left to right.
        operations: int32 (..., K), the operations of jitter and policy one after the other, as
            numbers in `jaxlt.data.augment.pillow_operations.OPERATIONS`.
        amounts: float32 (..., K), the amounts of the operations.
        cutout_row: int32, the row at the centre of the black square, see `cutout_start`.
        cutout_column: int32, the column there.
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


def cutout_start(centre: Any, extent: int, side: int) -> Any:
    """Returns the first row (or column) of a Cutout square, which may lie outside the image.

    Args:
        centre: `Draws.cutout_row` or `cutout_column`, an array of any library.
        extent: rows (or columns) of the image.
        side: of the square, in pixels.
    """
    return centre * extent // _CUTOUT_PLACES - side // 2


def cutout_hole(draws: Draws, shape: Any, side: int, arange: Callable[[Any], Any]) -> Any:
    """Returns where the images of one step are blackened, bool (B, H, W).

    Args:
        draws: of the step, arrays of any library.
        shape: (H, W).
        side: of the square, in pixels.
        arange: of the same library.
    """

    def covered(centre: Any, extent: Any) -> Any:
        distance = arange(extent) - cutout_start(centre, extent, side)[:, None]
        return (distance >= 0) & (distance < side)

    rows, columns = covered(draws.cutout_row, shape[0]), covered(draws.cutout_column, shape[1])
    return rows[:, :, None] & columns[:, None, :]


@dataclasses.dataclass(frozen=True, eq=False)
class DrawStream:
    """The endless stream of a training run's draws, a pure function of seed, sampler and step.

    Attributes:
        indices: integer array (n,), the images of the split.
        sampler: which place in `indices` stands at each position of the stream.
        batch_size: examples in the global batch.
        seed: any integer, the augmentation's; the order is the sampler's.
        augmentation: what is done to each image.
        shard: (i, n) draws only for the i-th of n equal contiguous parts of each batch.

    Raises:
        UsageError: the batch size is not positive or not divisible by n.
    """

    indices: np.ndarray
    sampler: Sampler
    batch_size: int
    seed: int
    augmentation: Augmentation
    shard: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        rows_of_shard(self.batch_size, self.shard)
        part, num_parts = self.shard
        if not 0 <= part < num_parts:
            raise ValueError(f"shard must lie in 0..{num_parts - 1}, got {part}")

    @property
    def rows(self) -> int:
        """Examples in this shard's part of a batch."""
        return self.batch_size // self.shard[1]

    def steps_at_once(self, chunk: int = 1) -> int:
        """Multiple of `chunk` steps to draw in one call, for which NumPy is efficient."""
        return chunk * max(1, _EXAMPLES_AT_ONCE // (chunk * self.rows))

    @property
    def is_whole(self) -> bool:
        """Whether the shard is all of each batch."""
        return self.rows == self.batch_size

    @property
    def whole(self) -> "DrawStream":
        """The stream of the whole batches."""
        return self if self.is_whole else dataclasses.replace(self, shard=(0, 1))

    def images(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the `indices` of what `draw` draws for the same steps, alone."""
        return self._images_at(self._positions(start_step, stop_step))

    def draw(self, start_step: int, stop_step: int) -> Draws:
        """Draws for steps `start_step` to `stop_step - 1`."""
        positions = self._positions(start_step, stop_step)
        draws = Draws(self._images_at(positions))
        for add in (self._with_shift, self._with_operations, self._with_cutout):
            draws = add(draws, positions)
        return draws

    def _positions(self, start_step: int, stop_step: int) -> np.ndarray:
        steps = np.arange(start_step, stop_step, dtype=np.int64)[:, np.newaxis]
        return steps * self.batch_size + self.shard[0] * self.rows + np.arange(self.rows)

    def _images_at(self, positions: np.ndarray) -> np.ndarray:
        return self.indices[self.sampler(positions)].astype(np.int32)

    def _with_shift(self, draws: Draws, positions: np.ndarray) -> Draws:
        shift = self.augmentation.shift
        if shift == "none":
            return draws
        if shift == "resized_crop_flip":
            draws = draws._replace(
                crop_tries=self._uniforms("resized crop shape", positions, (NUM_TRIES, 2)),
                crop_place=self._uniforms("resized crop place", positions, (2,)),
            )
        else:
            draws = draws._replace(
                top=self._integers("crop top", positions, 2 * CROP_PAD + 1),
                left=self._integers("crop left", positions, 2 * CROP_PAD + 1),
            )
        if shift == "crop":
            return draws
        return draws._replace(flip=self._integers("flip", positions, 2).astype(bool))

    def _with_operations(self, draws: Draws, positions: np.ndarray) -> Draws:
        chosen = self.augmentation
        drawn = []
        if chosen.color_jitter:
            drawn.append(draw_color_jitter(self.seed, positions, chosen.color_jitter))
        if chosen.policy == "autoaugment":
            drawn.append(draw_autoaugment(self.seed, positions))
        elif chosen.policy == "randaugment":
            count, magnitude = chosen.randaugment_ops, chosen.randaugment_magnitude
            drawn.append(draw_randaugment(self.seed, positions, count, magnitude))
        if not drawn:
            return draws
        operations, amounts = (np.concatenate(x, axis=-1) for x in zip(*drawn, strict=True))
        return draws._replace(operations=operations, amounts=amounts)

    def _with_cutout(self, draws: Draws, positions: np.ndarray) -> Draws:
        if self.augmentation.cutout == 0:
            return draws
        return draws._replace(
            cutout_row=self._integers("cutout row", positions, _CUTOUT_PLACES),
            cutout_column=self._integers("cutout column", positions, _CUTOUT_PLACES),
        )

    def _integers(self, use: str, positions: np.ndarray, bound: int) -> np.ndarray:
        return random_integers(stream_key(self.seed, use), positions, bound).astype(np.int32)

    def _uniforms(self, use: str, positions: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Draws an array of a shape for each position."""
        size = math.prod(shape)
        slots = positions[..., np.newaxis] * size + np.arange(size)
        uniforms = random_uniforms(stream_key(self.seed, use), slots)
        return uniforms.reshape(*positions.shape, *shape)
