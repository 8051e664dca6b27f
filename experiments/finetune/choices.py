"""What is chosen for a user who names only the images: one pure rule, with a reason for each."""

import math
from collections.abc import Sequence
from typing import NamedTuple

# Images seen in training, all epochs together, and the bounds on epochs: a small network that
# starts from nothing, and a pretrained one.
_SEEN_FROM_NOTHING, _EPOCHS_FROM_NOTHING = 60_000, (10, 80)
_SEEN_PRETRAINED, _EPOCHS_PRETRAINED = 20_000, (4, 30)
# A small network has no normalization: from 0.035 it diverged on 64 pixels within three epochs.
_LR_FROM_NOTHING, _LR_PRETRAINED = 0.02, 0.01
_BATCH_OF_LR = 128
_LARGEST_BATCH, _LARGEST_ON_ACCELERATOR = 128, 512
_STEPS_AN_EPOCH = 8
_LARGEST_FROM_NOTHING, _SMALLEST_SIDE, _STEP_OF_SIDES = 64, 8, 4
# More pixels than a photo has tell a network nothing, but a patch must not hold half of it.
_ENLARGED = 1.5
_FEWEST_PATCHES = 3
_LARGEST_ON_CPU = 112
_MANY_ABOVE, _FEW_BELOW = 100, 20


class Needs(NamedTuple):
    """What a pretrained backbone was trained with: a square's side, and what divides it."""

    image_size: int
    multiple_of: int


class Choices(NamedTuple):
    """Numbers of a recipe; `reasons` has a line for each."""

    image_size: int
    batch_size: int
    epochs: int
    lr: float
    reasons: tuple[str, ...]


class Limits(NamedTuple):
    """Which classes are many-shot and which few-shot, and why."""

    many_above: int
    few_below: int
    reason: str


def chosen(
    num_images: int,
    num_classes: int,
    side: int,
    backbone: Needs | None = None,
    *,
    on_accelerator: bool = False,
) -> Choices:
    """Chooses image size, batch size, epochs and learning rate.

    Args:
        num_images: training images.
        num_classes: classes.
        side: median of the images' shorter sides, in pixels.
        backbone: what a pretrained network needs; None for a small one from random weights.
        on_accelerator: whether training is on one; a CPU gets smaller images and batches.

    Example:
        >>> choices = chosen(2478, 10, 28)
        >>> choices.image_size, choices.batch_size, choices.epochs, choices.lr
        (28, 128, 24, 0.02)
    """
    size, why_size = _image_size(side, backbone, on_accelerator=on_accelerator)
    batch = _batch_size(num_images, on_accelerator=on_accelerator)
    seen, (fewest, most) = (
        (_SEEN_FROM_NOTHING, _EPOCHS_FROM_NOTHING)
        if backbone is None
        else (_SEEN_PRETRAINED, _EPOCHS_PRETRAINED)
    )
    epochs = min(most, max(fewest, round(seen / num_images)))
    peak = _LR_FROM_NOTHING if backbone is None else _LR_PRETRAINED
    lr = float(f"{peak * math.sqrt(batch / _BATCH_OF_LR):.2g}")
    begins = "from random weights" if backbone is None else "from pretrained weights"
    steps = f"{_STEPS_AN_EPOCH} steps an epoch or more with {num_images} images"
    reasons = (
        f"image size {size}: {why_size}",
        f"batch size {batch}: a power of two that leaves {steps}",
        f"{epochs} epochs: about {seen} images are seen {begins}, in {fewest} to {most} epochs",
        f"learning rate {lr:g}: {peak:g} for batches of {_BATCH_OF_LR}, by the root of their size",
    )
    return Choices(size, batch, epochs, lr, reasons)


def _image_size(side: int, backbone: Needs | None, *, on_accelerator: bool) -> tuple[int, str]:
    if backbone is None:
        most = min(side, _LARGEST_FROM_NOTHING)
        size = max(_SMALLEST_SIDE, most // _STEP_OF_SIDES * _STEP_OF_SIDES)
        return size, f"a small network needs no more; half of the images have {side} pixels or more"
    patch = backbone.multiple_of
    enlarged = math.ceil(_ENLARGED * side / patch) * patch
    size = min(backbone.image_size, max(enlarged, _FEWEST_PATCHES * patch))
    why = f"the backbone's own is {backbone.image_size}, half of the images have {side} or more"
    largest = max(_LARGEST_ON_CPU // patch, _FEWEST_PATCHES) * patch
    if not on_accelerator and size > largest:
        return largest, f"{why}; no more on a CPU, for the time (--data.image-size changes it)"
    return size, why


def _batch_size(num_images: int, *, on_accelerator: bool) -> int:
    most = _LARGEST_ON_ACCELERATOR if on_accelerator else _LARGEST_BATCH
    return min(most, 2 ** int(math.log2(max(1, num_images // _STEPS_AN_EPOCH))))


def shot_limits(class_counts: Sequence[int]) -> Limits:
    """Returns which classes count as many-shot and few-shot, by their training images.

    Example:
        >>> shot_limits([40, 20, 10, 8, 5, 4])
        Limits(many_above=10, few_below=8, reason='no class has more than 100 training images, so \
the largest third of the classes, above 10, are many-shot and the smallest, below 8, few-shot')
    """
    if max(class_counts) > _MANY_ABOVE:
        why = (
            f"above {_MANY_ABOVE} training images a class is many-shot, below {_FEW_BELOW} few-shot"
        )
        return Limits(_MANY_ABOVE, _FEW_BELOW, why)
    ordered, third = sorted(class_counts), len(class_counts) // 3
    few, many = ordered[third], ordered[len(ordered) - third - 1]
    why = (
        f"no class has more than {_MANY_ABOVE} training images, so the largest third of the "
        f"classes, above {many}, are many-shot and the smallest, below {few}, few-shot"
    )
    return Limits(many, few, why)
