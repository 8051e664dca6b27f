"""The data of a recipe: the source, its long-tailed profile, and how images are read."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from jaxlt.recipes.part import Choice, Count, CountOrZero, Part, check, part_name

_logger = logging.getLogger(__name__)


class Source(Choice, frozen=True):
    """Where labelled images come from; `specification` is what `jaxlt.data.load_source` takes."""

    @property
    def specification(self) -> str:
        """NAME, or NAME:PLACE."""
        place = ":".join(str(getattr(self, name)) for name in self.__struct_fields__)
        return f"{part_name(self)}:{place}" if place else part_name(self)


class Digits(Source, frozen=True, tag="digits"):
    """scikit-learn's 8x8 digits, offline."""


class IDX(Source, frozen=True, tag="idx"):
    """MNIST's file format, gzip or not."""

    directory: str
    """Directory of the four files."""


class TFDS(Source, frozen=True, tag="tfds"):
    """tensorflow-datasets, or list files over what it keeps."""

    dataset: str
    """NAME, or NAME,TRAIN[,VAL][,TEST][,OPEN] with list files."""


class Folder(Source, frozen=True, tag="folder"):
    """Image files in DIRECTORY/train/CLASS and DIRECTORY/test/CLASS."""

    directory: str
    """Directory of train and test."""


class Lists(Source, frozen=True, tag="list"):
    """Image files named by list files."""

    lists: str
    """ROOT,TRAIN or ROOT,TRAIN,TEST or ROOT,TRAIN,VAL,TEST or ROOT,TRAIN,VAL,TEST,OPEN."""


class Profile(Choice, frozen=True):
    """How many images each class keeps, and which."""

    def build(self, source: Any) -> Any:
        """Makes the split of a source.

        Raises:
            UsageError: the profile does not fit the data.
        """
        from jaxlt.data import long_tailed_split

        name: Any = part_name(self)
        if isinstance(self, Native):
            return long_tailed_split(source, profile=name)
        fields = {field: getattr(self, field) for field in self.__struct_fields__}
        fields.setdefault("imbalance_factor", 1.0)
        rule, seed = fields.pop("selection"), fields.pop("seed")
        return long_tailed_split(source, profile=name, rule=rule, seed=seed, **fields)


class Native(Profile, frozen=True, tag="native"):
    """All images, as many as there are."""


class _Thinned(Profile, frozen=True):
    """A profile that leaves images out."""

    max_per_class: Count | None = None
    """Images of the largest class; none for as many as every class has."""
    class_order: tuple[CountOrZero, ...] | None = None
    """Classes from head to tail; none for 0, 1, 2, ..."""
    selection: Literal["shuffled", "first"] = "shuffled"
    """Which images of a class: those that LDAM-DRW's shuffle leaves first, or the first."""
    seed: CountOrZero = 0
    """Seed of the selection."""


class Exponential(_Thinned, frozen=True, tag="exponential"):
    """Class counts that fall exponentially from head to tail."""

    imbalance_factor: float = 100.0
    """Images of the largest class over images of the smallest, at least 1."""


class Step(_Thinned, frozen=True, tag="step"):
    """One count for the first half of the classes and one for the second."""

    imbalance_factor: float = 100.0
    """Images of a head class over images of a tail class, at least 1."""


class Balanced(_Thinned, frozen=True, tag="balanced"):
    """As many images of each class."""


if TYPE_CHECKING:
    AnySource: TypeAlias = Source
    AnyProfile: TypeAlias = Profile
else:
    AnySource = Digits | IDX | TFDS | Folder | Lists
    AnyProfile = Exponential | Step | Balanced | Native


class Data(Part, frozen=True):
    """What is trained on and evaluated."""

    source: AnySource = TFDS(dataset="cifar10")
    """Data set: digits, idx:DIR, tfds:NAME[,LISTS], folder:DIR or list:ROOT,LISTS."""
    profile: AnyProfile = Exponential()
    """Shape of the class counts from head to tail; native for all images."""
    split_file: str | None = None
    """File with the selected images: read, in place of profile, if it exists; else written."""
    validation_per_class: CountOrZero = 0
    """Evaluate so many training images of each class, outside the split, not the test images. To
    choose hyperparameters by."""
    image_size: Count | None = None
    """Side in pixels that images are resized to; none keeps them (image files: 32)."""
    resize: Literal["stretch", "centre_crop"] = "stretch"
    """How image files are resized. stretch: to a square. centre_crop: the shorter side to 8/7 of
    image_size, of which the middle is taken."""
    normalization: Literal["dataset", "imagenet", "inaturalist2018", "clip"] = "dataset"
    """Mean and deviation of pixels: the data set's own, or those published."""
    relabel: Literal["none", "by_size"] = "none"
    """by_size numbers the classes by their training images, the largest first, as MiSLAS does."""
    unreadable: Literal["error", "skip"] = "error"
    """An image file that cannot be decoded. skip: another of its class takes its place in training;
    it does not count in evaluation."""

    @property
    def name(self) -> str:
        """The source's specification."""
        return self.source.specification

    def load(self, *, skip_unreadable: bool = False) -> Any:
        """Loads the source.

        Args:
            skip_unreadable: leave out what cannot be decoded, whatever the recipe says.

        Raises:
            UsageError: the data are missing or damaged, or the options do not fit them.
        """
        from jaxlt.data import load_source

        return load_source(
            self.name,
            image_size=self.image_size,
            resize=self.resize,
            normalization=self.normalization,
            unreadable="skip" if skip_unreadable else self.unreadable,
            relabel=self.relabel,
        )

    def split(self, source: Any) -> Any:
        """Makes the split of a loaded source, or reads it from the split file.

        Raises:
            UsageError: the profile, or the file, does not fit the data.
        """
        from jaxlt.data import Split

        file = self.split_path
        if file is None or not file.exists():
            return self.profile.build(source)
        split = Split.read(file, source)
        _logger.info(
            "%s rules: %s, imbalance factor %g, %s images of each class with seed %d",
            file,
            split.profile,
            split.imbalance_factor,
            split.rule,
            split.seed,
        )
        return split

    @property
    def split_path(self) -> Path | None:
        """Path of the split file, None for none."""
        return Path(self.split_file) if self.split_file else None


def source(specification: str) -> Source:
    """Returns the source that a specification names, such as "idx:DIR".

    Raises:
        UsageError: it names none.
    """
    kind, _, place = specification.partition(":")
    kinds: dict[str, Callable[..., Source]] = {
        str(part_name(one)): one for one in (Digits, IDX, TFDS, Folder, Lists)
    }
    fields = () if kind not in kinds else kinds[kind].__struct_fields__  # pyright: ignore[reportFunctionMemberAccess]
    check(
        "source",
        specification,
        kind in kinds and bool(place) == bool(fields),
        "digits, idx:DIR, tfds:NAME, folder:DIR or list:ROOT,LISTS",
    )
    return kinds[kind](**dict(zip(fields, (place,), strict=False)))
