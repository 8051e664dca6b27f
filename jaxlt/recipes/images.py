"""Which images a stage trains on and how it changes them: samplers and augmentation."""

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from jaxlt.recipes.part import BelowOne, Choice, Count, CountOrZero, NonNegative, Part, Share


class Sampler(Choice, frozen=True):
    """How often each class is seen."""

    def build(self, labels: np.ndarray, seed: int, num_classes: int, num_epochs: int) -> Any:
        """Builds the sampler of a split's labels (n,), see `jaxlt.data.create_sampler`."""
        from jaxlt.data import create_sampler

        tag: Any = type(self).__struct_config__.tag
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        return create_sampler(
            tag, labels, seed, num_classes=num_classes, num_epochs=num_epochs, **fields
        )


class InstanceBalanced(Sampler, frozen=True, tag="instance"):
    """As often as a class has images."""


class ClassBalancedSampler(Sampler, frozen=True, tag="class_balanced"):
    """All classes alike, drawn with replacement."""


class SquareRoot(Sampler, frozen=True, tag="square_root"):
    """By the square root of the class's images, drawn with replacement."""


class Progressive(Sampler, frozen=True, tag="progressive"):
    """From instance to class_balanced over the stage, drawn with replacement."""


class EffectiveNumber(Sampler, frozen=True, tag="effective_number"):
    """By the inverse of the effective number of images, drawn with replacement."""

    beta: BelowOne = 0.9999
    """Beta of the effective number."""


class ClassAware(Sampler, frozen=True, tag="class_aware"):
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
    magnitude: CountOrZero = 9
    """Their strength, 0 to 30."""


if TYPE_CHECKING:
    AnySampler: TypeAlias = Sampler
    AnyPolicy: TypeAlias = Policy
else:
    AnySampler = (
        InstanceBalanced
        | ClassBalancedSampler
        | SquareRoot
        | Progressive
        | EffectiveNumber
        | ClassAware
    )
    AnyPolicy = AutoAugment | RandAugment


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
        from jaxlt.data import Augmentation as Drawn

        policy: Any = self.policy
        name: Any = "none" if policy is None else type(policy).__struct_config__.tag
        strength: dict[str, Any] = {}
        if isinstance(policy, RandAugment):
            strength = {"randaugment_ops": policy.ops, "randaugment_magnitude": policy.magnitude}
        return Drawn(
            shift=self.shift,
            color_jitter=self.color_jitter,
            policy=name,
            cutout=self.cutout,
            **strength,
        )
