"""Long-tailed profiles and the selection of images that gives a data set that profile."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxlt.errors import UsageError

Profile = Literal["exponential", "step", "balanced", "native"]
SelectionRule = Literal["shuffled", "first"]


def profile_counts(
    profile: Profile, imbalance_factor: float, num_classes: int, max_per_class: int
) -> tuple[int, ...]:
    """Returns how many images each class keeps, by rank: rank 0 is the head.

    "exponential" keeps `n_max * imbalance_factor ** (-rank / (num_classes - 1))` images. "step"
    keeps `n_max` in the first half of the ranks, the larger one if they differ, and
    `n_max / imbalance_factor` in the second. Both round down, as in CIFAR-10-LT and CIFAR-100-LT
    (Cao et al., LDAM, NeurIPS 2019). "balanced" keeps `n_max` everywhere.

    Args:
        profile: shape of the tail.
        imbalance_factor: images of the largest class over those of the smallest, at least 1.
        num_classes: number of classes.
        max_per_class: `n_max`, images of the head class.

    Raises:
        UsageError: an argument is out of range, or a class would be left with no image.
    """
    if not 1 <= imbalance_factor < float("inf"):
        raise UsageError(f"imbalance_factor must be finite and at least 1, got {imbalance_factor}")
    if max_per_class < 1:
        raise UsageError(f"max_per_class must be at least 1, got {max_per_class}")
    ranks = range(num_classes)
    if profile == "exponential":
        last = max(num_classes - 1, 1)
        counts = tuple(int(max_per_class / imbalance_factor ** (rank / last)) for rank in ranks)
    elif profile == "step":
        num_head = num_classes - num_classes // 2
        tail_count = int(max_per_class / imbalance_factor)
        counts = tuple(max_per_class if rank < num_head else tail_count for rank in ranks)
    elif profile == "balanced":
        counts = (max_per_class,) * num_classes
    else:
        raise UsageError(f"profile must be exponential, step or balanced, got {profile!r}")
    if counts[-1] < 1:
        raise UsageError(
            f"imbalance_factor must be at most {max_per_class}, the images of the head class, for "
            f"the tail class to have an image, got {imbalance_factor}"
        )
    return counts


def long_tailed_counts(
    labels: np.ndarray,
    num_classes: int,
    *,
    profile: Profile,
    imbalance_factor: float,
    max_per_class: int | None = None,
    class_order: Sequence[int] | None = None,
) -> tuple[int, ...]:
    """Returns how many images each class keeps, by label.

    The head class keeps `max_per_class` images or as many as the smallest class has, whichever
    is less. So no class is too small for its rank, and the profile is exact.

    Args:
        labels: integer array (N,), the class of each image, in [0, num_classes).
        num_classes: number of classes.
        profile: see `profile_counts`.
        imbalance_factor: see `profile_counts`.
        max_per_class: upper bound on the images of the head class; None sets none.
        class_order: labels from head to tail; None is ascending order.

    Raises:
        UsageError: a class has no image, `class_order` is no permutation of the classes, or
            `profile_counts` raises.
    """
    available = np.bincount(labels, minlength=num_classes)
    refuse_empty_class(available)
    order = list(range(num_classes)) if class_order is None else list(class_order)
    if sorted(order) != list(range(num_classes)):
        raise UsageError(
            f"class_order must be a permutation of 0..{num_classes - 1}, got {len(order)} entries, "
            f"{len(set(order))} of them different"
        )
    smallest = int(available.min())
    head = smallest if max_per_class is None else min(max_per_class, smallest)
    by_rank = profile_counts(profile, imbalance_factor, num_classes, head)
    counts = dict(zip(order, by_rank, strict=True))
    return tuple(counts[label] for label in range(num_classes))


def select_images(
    labels: np.ndarray, counts: Sequence[int], *, rule: SelectionRule, seed: int = 0
) -> np.ndarray:
    """Selects `counts[c]` images of each class c, classes in ascending order.

    "shuffled" with seed 0 takes the images that the code of LDAM-DRW, MiSLAS, GCL, LIFT, Focal-SAM
    and others takes: one NumPy Mersenne twister shuffles the images of each class, in ascending
    order of classes, and the first ones are kept. "first" takes the first images of each class, as
    the code of ImbSAM and SSE-SAM does.

    Args:
        labels: integer array (N,), the class of each image.
        counts: number of images to keep of each class, by label.
        rule: which images.
        seed: of the "shuffled" rule, in [0, 2**32).

    Raises:
        UsageError: the rule is unknown, the seed out of range, or a class has too few images.
    """
    if rule not in ("shuffled", "first"):
        raise UsageError(f"rule must be shuffled or first, got {rule!r}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed of the selection must lie in 0..{2**32 - 1}, got {seed}")
    # NumPy promises that this legacy generator's stream never changes: it is the published one.
    random = np.random.RandomState(seed)
    selected = []
    for label, count in enumerate(counts):
        candidates = np.flatnonzero(labels == label)
        if count > len(candidates):
            raise UsageError(
                f"count of class {label} must be at most {len(candidates)}, its images, got {count}"
            )
        if rule == "shuffled":
            random.shuffle(candidates)
        selected.append(candidates[:count])
    return np.concatenate(selected)


def validation_images(
    labels: np.ndarray, indices: np.ndarray, per_class: int, num_classes: int
) -> np.ndarray:
    """Selects the last images of each class among those that a split leaves out.

    They are ascending within each class, and the classes are too.

    Args:
        labels: integer array (N,), the class of each image of the whole set.
        indices: integer array (n,), the images of the split.
        per_class: number of validation images of each class.
        num_classes: number of classes, C.

    Raises:
        UsageError: a class has fewer images outside the split, or `per_class` is negative.
    """
    if per_class < 0:
        raise UsageError(f"validation_per_class must be at least 0, got {per_class}")
    outside = np.ones(len(labels), bool)
    outside[indices] = False
    chosen = []
    for label in range(num_classes):
        candidates = np.flatnonzero(outside & (labels == label))
        first = len(candidates) - per_class
        if first < 0:
            raise UsageError(
                f"validation_per_class must be at most {len(candidates)}, the images of class "
                f"{label} outside the split, got {per_class}: lower --max-per-class"
            )
        chosen.append(candidates[first:])
    return np.concatenate(chosen)


def refuse_empty_class(class_counts: np.ndarray) -> None:
    """Raises a `UsageError` if one of the classes has no training image."""
    if not class_counts.all():
        empty = int(np.flatnonzero(class_counts == 0)[0])
        raise UsageError(f"classes must have a training image each, got none of class {empty}")
