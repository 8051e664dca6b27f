"""Augmentation of a recipe's images by operations of Pillow."""

from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from jaxlt.recipes.part import Choice, Count


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
    AnyPolicy: TypeAlias = Policy
else:
    AnyPolicy = AutoAugment | RandAugment
