"""How passes over part of a batch take its images, where those do not depend on each other."""

import dataclasses
import itertools
from typing import TypeAlias


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Passes over part of a batch that loop over blocks of images.

    Choose this for networks of matrix products. XLA runs loops of convolutions slowly on a CPU.

    Attributes:
        sizes: images in a block, descending. What one size leaves over goes to the next smaller.

    Raises:
        ValueError: `sizes` is empty, not positive or not descending.

    Example:
        >>> import jaxlt
        >>> jaxlt.Blocks((32, 8, 1)).sizes  # 75 images take blocks of 32, 32, 8, 1, 1 and 1
        (32, 8, 1)
    """

    sizes: tuple[int, ...] = (8, 2)

    def __post_init__(self):
        descending = all(a > b for a, b in itertools.pairwise((*self.sizes, 0)))
        if not (self.sizes and descending):
            raise ValueError(f"Blocks.sizes must be positive and descending, got {self.sizes}")


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Passes over part of a batch that take a fixed number of its images, without a loop.

    It serves methods with one group of classes, such as ImbSAM's tail. Methods with two groups then
    pass over the whole batch, and `cc_sam` takes `Blocks`.

    Attributes:
        images: how many; a constant of the compiled program. Count the labels on the host to make
            sure that the group has no more: if it has, the result is NaN.

    Raises:
        ValueError: `images` is not positive.

    Example:
        >>> import jaxlt
        >>> jaxlt.Capacity(16)
        Capacity(images=16)
    """

    images: int

    def __post_init__(self):
        if self.images < 1:
            raise ValueError(f"Capacity.images must be at least 1, got {self.images}")


Passes: TypeAlias = Blocks | Capacity
