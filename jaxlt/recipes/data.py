"""The images of a recipe: source, long-tailed profile, samplers, augmentation."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np

from jaxlt.recipes.part import (
    AtLeastOne,
    BelowOne,
    Choice,
    Count,
    CountOrZero,
    NonNegative,
    Part,
    Share,
    part_name,
)

_logger = logging.getLogger(__name__)


class NamedSource(Choice, frozen=True):
    """Where labeled images come from; `specification` is what `jaxlt.data.load_source` takes."""

    @property
    def specification(self) -> str:
        """NAME, or NAME:PLACE."""
        place = ":".join(str(getattr(self, name)) for name in self.__struct_fields__)
        return f"{part_name(self)}:{place}" if place else part_name(self)


class Digits(NamedSource, frozen=True, tag="digits"):
    """scikit-learn's 8x8 digits, offline."""


class IDX(NamedSource, frozen=True, tag="idx"):
    """MNIST's file format, gzip or not."""

    directory: str
    """Directory of the four files."""


class TFDS(NamedSource, frozen=True, tag="tfds"):
    """tensorflow-datasets, or list files over what it keeps."""

    dataset: str
    """NAME, or NAME,TRAIN[,VAL][,TEST][,OPEN] with list files."""


class Folder(NamedSource, frozen=True, tag="folder"):
    """Image files in DIRECTORY/train/CLASS, and val and test likewise, or DIRECTORY/CLASS."""

    directory: str
    """Directory of train, val and test, or of the classes."""


class Lists(NamedSource, frozen=True, tag="list"):
    """Image files named by list files."""

    lists: str
    """ROOT,TRAIN or ROOT,TRAIN,TEST or ROOT,TRAIN,VAL,TEST or ROOT,TRAIN,VAL,TEST,OPEN."""


class Profile(Choice, frozen=True):
    """How many images each class keeps, and which."""

    def build(self, source: Any) -> Any:
        """Makes the split of a source; UsageError if the profile does not fit it."""
        from jaxlt.data import long_tailed_split

        fields: dict[str, Any] = {"profile": part_name(self), **msgspec.structs.asdict(self)}
        if isinstance(self, Thinned):
            fields["rule"] = fields.pop("selection")
            fields.setdefault("imbalance_factor", 1.0)
        return long_tailed_split(source, **fields)


class Native(Profile, frozen=True, tag="native"):
    """All images, as many as there are."""


class Thinned(Profile, frozen=True):
    """A profile that leaves images out."""

    max_per_class: Count | None = None
    """Images of the largest class; none for as many as every class has."""
    class_order: tuple[CountOrZero, ...] | None = None
    """Classes from head to tail; none for 0, 1, 2, ..."""
    selection: Literal["shuffled", "first"] = "shuffled"
    """Which images of a class: those that LDAM-DRW's shuffle leaves first, or the first."""
    seed: CountOrZero = 0
    """Seed of the selection."""


class Exponential(Thinned, frozen=True, tag="exponential"):
    """Class counts that fall exponentially from head to tail."""

    imbalance_factor: AtLeastOne = 100.0
    """Images of the largest class over images of the smallest, at least 1."""


class Step(Thinned, frozen=True, tag="step"):
    """One count for the first half of the classes and one for the second."""

    imbalance_factor: AtLeastOne = 100.0
    """Images of a head class over images of a tail class, at least 1."""


class Balanced(Thinned, frozen=True, tag="balanced"):
    """As many images of each class."""


class Sampling(Choice, frozen=True):
    """How often each class is seen."""

    def build(self, labels: np.ndarray, seed: int, num_classes: int, num_epochs: int) -> Any:
        """Builds the sampler; Args as of `jaxlt.data.create_sampler`."""
        from jaxlt.data import create_sampler

        name: Any = part_name(self)
        fields = msgspec.structs.asdict(self)
        return create_sampler(
            name, labels, seed, num_classes=num_classes, num_epochs=num_epochs, **fields
        )


class InstanceBalanced(Sampling, frozen=True, tag="instance"):
    """As often as a class has images."""


class ClassBalancedSampler(Sampling, frozen=True, tag="class_balanced"):
    """All classes alike, drawn with replacement."""


class SquareRoot(Sampling, frozen=True, tag="square_root"):
    """By the square root of the class's images, drawn with replacement."""


class Progressive(Sampling, frozen=True, tag="progressive"):
    """From instance to class_balanced over the stage, drawn with replacement."""


class EffectiveNumber(Sampling, frozen=True, tag="effective_number"):
    """By the inverse of the effective number of images, drawn with replacement."""

    beta: BelowOne = 0.9999
    """Beta of the effective number."""


class ClassAware(Sampling, frozen=True, tag="class_aware"):
    """Walks through all classes, then through each one's images."""

    consecutive: Count = 1
    """Images of one class drawn one after the other."""


class Policy(Choice, frozen=True):
    """Further augmentation by operations on an image."""


class AutoAugment(Policy, frozen=True, tag="autoaugment"):
    """The CIFAR-10 policy of AutoAugment."""


class RandAugment(Policy, frozen=True, tag="randaugment"):
    """RandAugment."""

    ops: Count = 2
    """Operations an image."""
    magnitude: Annotated[int, msgspec.Meta(ge=0, le=30, extra={"need": "in 0..30"})] = 9
    """Their strength, 0 to 30."""


if TYPE_CHECKING:
    AnySource: TypeAlias = NamedSource
    AnyProfile: TypeAlias = Profile
    AnySampler: TypeAlias = Sampling
    AnyPolicy: TypeAlias = Policy
else:
    AnySource = Digits | IDX | TFDS | Folder | Lists
    AnyProfile = Exponential | Step | Balanced | Native
    AnySampler = InstanceBalanced | ClassBalancedSampler | SquareRoot | Progressive
    AnySampler |= EffectiveNumber | ClassAware
    AnyPolicy = AutoAugment | RandAugment


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
    resize: Literal["stretch", "center_crop"] = "stretch"
    """How image files are resized. stretch: to a square. center_crop: the shorter side to 8/7 of
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
        """Loads the source, without what cannot be decoded if the recipe or the caller says so.

        UsageError says that the data are missing or damaged, or the options do not fit them.
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
        """Makes a source's split, or reads it from the file; UsageError if either does not fit."""
        from jaxlt.data import Split

        if self.split_file is None or not Path(self.split_file).exists():
            return self.profile.build(source)
        split = Split.read(Path(self.split_file), source)
        shape = f"{split.profile}, imbalance factor {split.imbalance_factor:g}"
        selection = f"{split.rule} images of each class with seed {split.seed}"
        _logger.info("%s rules: %s, %s", self.split_file, shape, selection)
        return split


class Augmentation(Part, frozen=True):
    """Random changes of the training images."""

    shift: Literal["crop_flip", "crop", "resized_crop_flip", "none"] = "crop_flip"
    """crop_flip: crop after padding by 4 pixels, and mirror; crop: without mirror.
    resized_crop_flip: a part of the image file, 8% to 100% of its area, in place of the crop."""
    color_jitter: Share = 0.0
    """Largest change of brightness, contrast and saturation, in parts of their own."""
    policy: AnyPolicy | None = None
    """autoaugment, randaugment or none."""
    cutout: CountOrZero = 0
    """Side in pixels of the square that Cutout blackens; 0 for none."""
    mixup: NonNegative = 0.0
    """Alpha of mixup's Beta(alpha, alpha), drawn once a batch; 0 for none."""

    def build(self) -> Any:
        """Builds the augmentation that images are drawn with; mixup belongs to the step."""
        from jaxlt.data import ImageAugmentation

        fields: dict[str, Any] = msgspec.structs.asdict(self)
        del fields["mixup"]
        fields["policy"] = "none" if self.policy is None else part_name(self.policy)
        if isinstance(self.policy, RandAugment):
            fields["randaugment_ops"] = self.policy.ops
            fields["randaugment_magnitude"] = self.policy.magnitude
        return ImageAugmentation(**fields)
