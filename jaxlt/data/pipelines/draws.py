"""What chance decides in training: the images of each step and their augmentation."""

import dataclasses
from typing import Any, Literal, Self, get_args

import numpy as np

from jaxlt.data.pipelines.batches import Draws
from jaxlt.data.sampling.random_numbers import random_integers, stream_key
from jaxlt.data.sampling.samplers import Sampler
from jaxlt.errors import UsageError

Shift = Literal["none", "crop", "crop_flip", "resized_crop_flip"]
Policy = Literal["none", "autoaugment", "randaugment"]

# He et al., "Deep residual learning", CVPR 2016, section 4.2.
CROP_PAD = 4
# RandAugment's magnitudes as torchvision counts them. Its paper counts to 10 in places.
MAX_MAGNITUDE = 30
_MAX_CUTOUT = 2**15
_EXAMPLES_AT_ONCE = 2048


@dataclasses.dataclass(frozen=True)
class ImageAugmentation:
    """What is done to each training image: shift, color jitter, policy and Cutout, in this order.

    Attributes:
        shift: "crop" shifts by up to 4 pixels, "crop_flip" also mirrors half the images.
            "resized_crop_flip" enlarges a part of the image as it is stored, see
            `jaxlt.data.augment.crops`, and mirrors half of them.
        policy: "autoaugment" or "randaugment", see `jaxlt.data.augment.policies`.
        randaugment_ops: RandAugment's N, operations an image.
        randaugment_magnitude: RandAugment's M, in 0..30.
        cutout: side in pixels of the black square of `jaxlt.data.augment.cutout`; 0 for none.
        color_jitter: brightness, contrast and saturation are multiplied, in random order, by
            factors uniform in 1 - color_jitter..1 + color_jitter; 0 for none.
    """

    shift: Shift = "none"
    policy: Policy = "none"
    randaugment_ops: int = 2
    randaugment_magnitude: int = 9
    cutout: int = 0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        shifts, policies = get_args(Shift), get_args(Policy)
        magnitude_holds = 0 <= self.randaugment_magnitude <= MAX_MAGNITUDE
        for name, holds, need in (
            ("shift", self.shift in shifts, f"be {' or '.join(shifts)}"),
            ("color_jitter", 0 <= self.color_jitter <= 1, "lie in 0..1"),
            ("policy", self.policy in policies, f"be {' or '.join(policies)}"),
            ("randaugment_ops", self.randaugment_ops >= 1, "be at least 1"),
            ("randaugment_magnitude", magnitude_holds, f"lie in 0..{MAX_MAGNITUDE}"),
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


@dataclasses.dataclass(frozen=True, eq=False)
class DrawStream:
    """The endless stream of a training run's draws, a pure function of seed, sampler and step.

    Attributes:
        indices: integer array (n,), the images of the split.
        sampler: which place in `indices` stands at each position of the stream.
        batch_size: examples in the global batch.
        seed: any integer, the augmentation's; the order is the sampler's.
        augmentation: what is done to each image.
        shard: (i, n) draws only for the i-th of n equal contiguous parts of each batch. A
            `UsageError` says that the batch size is not positive or not divisible by n.
    """

    indices: np.ndarray
    sampler: Sampler
    batch_size: int
    seed: int
    augmentation: ImageAugmentation
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
    def whole(self) -> Self:
        """The stream of the whole batches."""
        return dataclasses.replace(self, shard=(0, 1))

    def images(self, start_step: int, stop_step: int) -> np.ndarray:
        """Returns the `indices` of what `draw` draws, alone; Args as of `Pipeline.chunks`."""
        positions = self._positions(start_step, stop_step)
        return self.indices[self.sampler(positions)].astype(np.int32)

    def draw(self, start_step: int, stop_step: int) -> Draws:
        """Draws for some steps; Args as of `Pipeline.chunks`."""
        positions = self._positions(start_step, stop_step)
        drawn: dict[str, Any] = {"indices": self.images(start_step, stop_step)}
        chosen = self.augmentation
        if chosen.shift == "resized_crop_flip":
            from jaxlt.data.augment.crops import draw_crops

            drawn |= draw_crops(self.seed, positions)
        elif chosen.shift != "none":
            drawn["top"] = self._integers("crop top", positions, 2 * CROP_PAD + 1)
            drawn["left"] = self._integers("crop left", positions, 2 * CROP_PAD + 1)
        if chosen.shift.endswith("flip"):
            drawn["flip"] = self._integers("flip", positions, 2).astype(bool)
        if chosen.color_jitter or chosen.policy != "none":
            from jaxlt.data.augment.policies import draw_operations

            drawn |= draw_operations(self.seed, positions, chosen)
        if chosen.cutout:
            from jaxlt.data.augment.cutout import draw_cutout

            drawn |= draw_cutout(self.seed, positions)
        return Draws(**drawn)

    def _positions(self, start_step: int, stop_step: int) -> np.ndarray:
        steps = np.arange(start_step, stop_step, dtype=np.int64)[:, np.newaxis]
        return steps * self.batch_size + self.shard[0] * self.rows + np.arange(self.rows)

    def _integers(self, use: str, positions: np.ndarray, bound: int) -> np.ndarray:
        return random_integers(stream_key(self.seed, use), positions, bound).astype(np.int32)


def rows_of_shard(batch_size: int, shard: tuple[int, int]) -> int:
    """Returns how many examples of each batch a shard has, the i-th of n parts, if n divides it."""
    if batch_size < 1 or batch_size % shard[1]:
        raise UsageError(
            f"batch_size must be positive and divisible by the number of data shards, {shard[1]}, "
            f"got {batch_size}"
        )
    return batch_size // shard[1]
