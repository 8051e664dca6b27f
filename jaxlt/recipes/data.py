"""The images of a recipe: source, long-tailed profile, samplers, augmentation."""

import logging
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

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
    check,
    part_name,
    part_word,
)
from jaxlt.recipes.policies import AnyPolicy, RandAugment
from jaxlt.recipes.sources import TFDS, AnySource

_logger = logging.getLogger(__name__)

_ONE_OF_TWO = "0 where validation_per_class is not"


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


if TYPE_CHECKING:
    AnyProfile: TypeAlias = Profile
    AnySampler: TypeAlias = Sampling
else:
    AnyProfile = Exponential | Step | Balanced | Native
    AnySampler = InstanceBalanced | ClassBalancedSampler | SquareRoot | Progressive
    AnySampler |= EffectiveNumber | ClassAware


class Data(Part, frozen=True):
    """What is trained on and evaluated."""

    source: AnySource = TFDS(dataset="cifar10")
    """Data set: digits, idx:DIR, cifar:PATH, tfds:NAME[,LISTS], folder:DIR, hf:NAME or
    list:ROOT,LISTS."""
    profile: AnyProfile = Exponential()
    """Shape of the class counts from head to tail; native for all images."""
    split_file: str | None = None
    """Selected images: read in place of profile if it exists, else written."""
    validation: BelowOne = 0.0
    """Share of each class to hold out of training and evaluate. At least one image, none of a class
    of one; the same for all seeds and methods. Test images are not evaluated then."""
    validation_per_class: CountOrZero = 0
    """Evaluate so many of each class that the split leaves out. Training images, in place of the
    test images, to choose hyperparameters by."""
    image_size: Count | None = None
    """Side in pixels that images are resized to; none keeps them (image files: 32)."""
    resize: Literal["stretch", "center_crop"] = "stretch"
    """How image files are resized. stretch: to a square. center_crop: the shorter side to 8/7 of
    image_size, of which the middle is taken."""
    normalization: Literal["dataset", "imagenet", "inaturalist2018", "clip", "half"] = "dataset"
    """Mean and deviation of pixels. The data set's own, those published, or half for 0.5."""
    relabel: Literal["none", "by_size"] = "none"
    """Whether classes get new numbers. by_size: by their training images, the largest first, as
    MiSLAS does."""
    unreadable: Literal["error", "skip"] = "error"
    """An image file that cannot be decoded. skip: another of its class takes its place in training;
    it does not count in evaluation."""

    def __post_init__(self):
        super().__post_init__()
        self.check("validation", not (self.validation and self.validation_per_class), _ONE_OF_TWO)

    @property
    def holds_out(self) -> bool:
        """Whether training images are evaluated."""
        return bool(self.validation or self.validation_per_class)

    @property
    def name(self) -> str:
        """The source's specification."""
        return part_word(self.source)

    def load(self, place: str | None = None, *, skip_unreadable: bool = False) -> Any:
        """Loads the source or one at `place`, maybe without unreadable images; see `load_source`.

        UsageError says that the data are missing or damaged, or the options do not fit them.
        """
        from jaxlt.data import load_source

        source = load_source(
            place or self.name,
            image_size=self.image_size,
            resize=self.resize,
            normalization=self.normalization,
            unreadable="skip" if skip_unreadable else self.unreadable,
            relabel=self.relabel,
        )
        check("source", source.name, source.num_classes > 1, "of two classes or more")
        return source

    def split(self, source: Any) -> Any:
        """Makes a source's split, or reads it from the file; UsageError if either does not fit."""
        from jaxlt.data import Split
        from jaxlt.data.sampling import natural_counts, validation
        from jaxlt.files.directory import expanded

        if self.split_file is None or not expanded(self.split_file).exists():
            if self.validation:
                split = validation.split_of_rest(source, self.validation, self.profile.build)
            else:
                split = self.profile.build(source)
            counts = np.bincount(source.train.labels)
            if counts.max() > 2 * counts.min() and 2 * sum(split.class_counts) < sum(counts):
                natural_counts.log_left_out(split, source.train.labels)
            return split
        split = Split.read(expanded(self.split_file), source)
        if self.validation:
            validation.check_split_file(self.split_file, split, source, self.validation)
        shape = f"{split.profile}, imbalance factor {split.imbalance_factor:g}"
        selection = f"{split.rule} images of each class with seed {split.seed}"
        _logger.info("%s rules: %s, %s", self.split_file, shape, selection)
        return split

    def validation_images(self, source: Any, split: Any) -> np.ndarray | None:
        """Returns the numbers of held-out training images or None; Args as of `evaluated`."""
        from jaxlt.data.sampling.validation import held_out_images, validation_images

        labels = source.train.labels
        if self.validation:
            return held_out_images(labels, self.validation, source.num_classes)
        per_class = self.validation_per_class
        if not per_class:
            return None
        return validation_images(labels, split.indices, per_class, source.num_classes)

    def evaluated(self, source: Any, split: Any, images: str) -> tuple[Any, np.ndarray | None]:
        """Returns the images that are evaluated, and the numbers of some of them or None for all.

        Args as of `split`, its result, and "test" or "val". UsageError: the source has none of it.
        """
        from jaxlt.data.sampling.validation import refuse_without

        if (held_out := self.validation_images(source, split)) is not None:
            return source.train, held_out
        found = source.val if images == "val" else source.test
        if found is None or len(found.labels) == 0:
            refuse_without(images, source)
        return found, None


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
