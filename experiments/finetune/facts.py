"""What is known of a user's images before anything is chosen for them."""

import contextlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxlt.data.sources.image_set import ImageSet
from jaxlt.errors import UsageError, counted
from jaxlt.recipes.data import AnySource, Data
from jaxlt.runs.differences import ImagesRecord

_LOOKED_AT = 64
# Where none of those looked at can be read.
_UNKNOWN_SIDE = 224


class Facts(NamedTuple):
    """Of a source: its classes in order, their training images, what else it has.

    They decide what is recommended, and whether images are those that a workdir was begun with:
    whatever of them differs, wherever they lie, makes others.

    Attributes:
        class_names: by label.
        class_counts: training images of each class.
        side: median of the shorter sides, in pixels.
        channels: of an image.
        are_files: whether images are files, each of a size of its own.
        num_val, num_test: validation images, and test images; 0 where there is no such part.
        known_by: digests of each part that there is, as a run's `recipe.json` has them.
    """

    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    side: int
    channels: int
    are_files: bool
    num_val: int
    num_test: int
    known_by: Mapping[str, ImagesRecord]

    @property
    def num_images(self) -> int:
        """Training images."""
        return sum(self.class_counts)

    @property
    def shown(self) -> str:
        """In words."""
        most, fewest = max(self.class_counts), min(self.class_counts)
        numbers = (("val", self.num_val), ("test", self.num_test))
        parts = [f"{number} {name}" for name, number in numbers if number]
        beside = f"; also {' and '.join(parts)} images" if parts else ""
        return (
            f"{counted(self.num_images, 'training image')} in "
            f"{counted(len(self.class_names), 'class')}, {most} to "
            f"{fewest} a class{beside}"
        )


def facts_of(place: AnySource, *, skip_unreadable: bool = False, decode: bool = False) -> Facts:
    """Looks at a source.

    Args:
        place: the source.
        skip_unreadable: whether training will skip images that cannot be read.
        decode: whether to decode all images, so that none stops the training later.

    Raises:
        UsageError: the source cannot be read, a class has no image, or one cannot be decoded.
    """
    from jaxlt.data.sources.source import is_of_files
    from jaxlt.recipes.run_directory import known_by

    are_files = is_of_files(Data(source=place).name)
    # Published statistics spare the decoding of a thousand files, of which nothing is used.
    data = Data(source=place, normalization="imagenet" if are_files else "dataset")
    source = data.load(skip_unreadable=skip_unreadable)
    counts = np.bincount(source.train.labels, minlength=source.num_classes)
    if not counts.all():
        name = source.class_names[counts.argmin()]
        raise UsageError(f"class {name} must have a training image, got none in {source.name}")
    found = {"training": source.train, "val": source.val, "test": source.test}
    parts = {name: one for name, one in found.items() if one is not None and len(one.labels)}
    if decode and are_files:
        _decode(parts.values())
    return Facts(
        class_names=tuple(source.class_names),
        class_counts=tuple(counts.tolist()),
        side=_median_side(source.train, are_files=are_files),
        channels=source.image_shape[2],
        are_files=are_files,
        num_val=0 if source.val is None else len(source.val.labels),
        num_test=len(source.test.labels),
        known_by={
            name: ImagesRecord(**known_by(images, np.arange(len(images.labels))))
            for name, images in parts.items()
        },
    )


def _decode(parts: Collection[ImageSet]) -> None:
    from experiments.analyzed_run import ticking
    from experiments.loaded_runs import chunks
    from jaxlt.data.sources.image_set import refuse_undecodable

    bad: list[str] = []
    with ticking("decoding all once", sum(len(one.labels) for one in parts), "image") as tick:
        for images in parts:
            for numbers in chunks(np.arange(len(images.labels))):
                bad += images.undecodable(numbers)
                tick(len(numbers))
    refuse_undecodable(bad)


def _median_side(images: Any, *, are_files: bool) -> int:
    """Returns the median of the shorter sides of some images, evenly spaced."""
    from jaxlt.data.sources.decoding import shorter_side

    if not are_files:
        return min(images.image_shape[:2])
    number = min(len(images.labels), _LOOKED_AT)
    numbers = np.linspace(0, len(images.labels) - 1, number, dtype=np.int64)
    sides = []
    for one in numbers.tolist():
        # Training says what cannot be decoded.
        with contextlib.suppress(ValueError):
            sides.append(shorter_side(images.stored(one)))
    return int(np.median(sides)) if sides else _UNKNOWN_SIDE
