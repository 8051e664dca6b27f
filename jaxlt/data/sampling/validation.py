"""Training images that are held out, to be evaluated in place of test images."""

import copy
import dataclasses
import logging
from collections.abc import Callable
from typing import NoReturn

import numpy as np

from jaxlt.data.sampling.long_tail import Split, labels_digest
from jaxlt.data.sources.source import Source
from jaxlt.errors import UsageError, counted, first_few

_logger = logging.getLogger(__name__)


def held_out_images(
    labels: np.ndarray, share: float, num_classes: int, *, seed: int = 0
) -> np.ndarray:
    """Selects a share of each class to hold out of training, ascending.

    Of a class of n images `share * n` are drawn, rounded, but at least one and at most n - 1: so a
    class of one image keeps it for training. What is drawn of a class depends on the seed and on
    how many images it has, not on the other classes. A `UsageError` says that no class has two
    images, or an argument is out of range.

    Args:
        labels: integer array (N,), the class of each image.
        share: in (0, 1).
        num_classes: number of classes, C.
        seed: of the draw, in [0, 2**32).

    Example:
        >>> import numpy as np, jaxlt.data as data
        >>> labels = np.array([0] * 10 + [1] * 2 + [2])
        >>> print(np.bincount(labels[data.held_out_images(labels, 0.3, 3)], minlength=3))
        [3 1 0]
    """
    if not 0 < share < 1:
        raise UsageError(f"validation must be in (0, 1) to hold images out, got {share}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed of the validation part must lie in 0..{2**32 - 1}, got {seed}")
    chosen = [np.zeros(0, np.int64)]
    for label in range(num_classes):
        images = np.flatnonzero(labels == label)
        if count := held_out_count(len(images), share):
            # NumPy promises that this legacy generator's stream never changes.
            chosen.append(np.random.RandomState(seed).permutation(images)[:count])
    if len(chosen) == 1:
        raise UsageError(
            f"data.validation must be 0 where no class has two training images, got {share}: "
            "evaluate images of their own, as the source's test or validation images"
        )
    return np.sort(np.concatenate(chosen))


def held_out_count(images: int, share: float) -> int:
    """Returns how many of a class's images `held_out_images` selects."""
    return max(min(max(int(share * images + 0.5), 1), images - 1), 0)


def split_of_rest(source: Source, share: float, make: Callable[[Source], Split]) -> Split:
    """Makes a split of the images that `held_out_images` leaves, and logs what is held out.

    Args:
        source: the data.
        share: of the training images.
        make: the split of a source; it is given one without the images that are held out.

    Returns:
        The split, with the image numbers of the whole source.
    """
    labels = source.train.labels
    held_out = held_out_images(labels, share, source.num_classes)
    rest = np.delete(np.arange(len(labels)), held_out)
    images = copy.copy(source.train)
    images.labels = labels[rest]
    split = make(dataclasses.replace(source, train=images))
    _log_held_out(source, held_out, share)
    return dataclasses.replace(
        split,
        num_images=len(labels),
        labels_sha256=labels_digest(labels),
        indices=rest[split.indices],
    )


def check_split_file(path: str, split: Split, source: Source, share: float) -> None:
    """Raises a `UsageError` if a split that was read has images that are to be held out."""
    held_out = held_out_images(source.train.labels, share, source.num_classes)
    if count := len(np.intersect1d(held_out, split.indices)):
        raise UsageError(
            f"split file {path} must have no image that data.validation {share:g} holds out, got "
            f"{count} of {len(held_out)}: it was made with another validation part; give a file "
            "that does not exist yet, or --data.validation 0"
        )
    _log_held_out(source, held_out, share)


def _log_held_out(source: Source, held_out: np.ndarray, share: float) -> None:
    labels = source.train.labels
    counts = np.bincount(labels, minlength=source.num_classes)
    alone = [source.class_names[label] for label in np.flatnonzero(counts == 1)]
    shown = first_few(alone)
    none = f"; none of {counted(len(alone), 'class')} of one image: {shown}" if alone else ""
    _logger.info(
        "validation %g: %d of %d training images are held out and evaluated%s",
        share,
        len(held_out),
        len(labels),
        none,
    )


def validation_images(
    labels: np.ndarray, indices: np.ndarray, per_class: int, num_classes: int
) -> np.ndarray:
    """Selects the last images of each class among those that a split leaves out, ascending.

    A `UsageError` says that a class has fewer outside the split, or `per_class` is negative.

    Args:
        labels: integer array (N,), the class of each image of the whole set.
        indices: integer array (n,), the images of the split.
        per_class: number of validation images of each class.
        num_classes: number of classes, C.

    Example:
        >>> import numpy as np, jaxlt.data as data
        >>> print(data.validation_images(np.array([0, 1, 0, 1, 0, 1]), np.array([0, 1]), 1, 2))
        [4 5]
    """
    if per_class < 0:
        raise UsageError(f"validation_per_class must be at least 0, got {per_class}")
    outside = np.ones(len(labels), bool)
    outside[indices] = False
    lower = "lower --data.profile.max-per-class, or " if outside.any() else ""
    chosen = []
    for label in range(num_classes):
        candidates = np.flatnonzero(outside & (labels == label))
        if len(candidates) < per_class:
            raise UsageError(
                f"validation_per_class must be at most {len(candidates)}, the images of class "
                f"{label} outside the split, got {per_class}: {lower}hold out a share of each "
                "class by --data.validation 0.2"
            )
        chosen.append(candidates[len(candidates) - per_class :])
    return np.concatenate(chosen)


def refuse_without(images: str, source: Source) -> NoReturn:
    """Raises a `UsageError` that says what to do where a source has no "test" or "val" images."""
    if images == "val":
        need = "evaluation.images must be test, got val"
        raise UsageError(f"{need}: {source.name} has no validation images")
    raise UsageError(
        f"data.source must have test images, got {source.name} without: hold out a share of the "
        "training images by --data.validation 0.2, or so many of each class that the split leaves "
        "out by --data.validation-per-class"
    )
