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
    """Computes how many images each class keeps, by rank: rank 0 is the head.

    "exponential" keeps `n_max * imbalance_factor ** (-rank / (num_classes - 1))` images and
    "step" keeps `n_max` in the first half of the ranks and `n_max / imbalance_factor` in the
    second (of an odd number, the larger half is the head's), both rounded down. "balanced"
    keeps `n_max` everywhere, whatever the factor.

    Args:
        profile: shape of the tail.
        imbalance_factor: images of the largest class over those of the smallest, at least 1.
        num_classes: number of classes.
        max_per_class: `n_max`, images of the head class.

    Returns:
        One count a rank, non-increasing.

    Raises:
        UsageError: an argument is out of range, or a class would be left with no image.

    References:
        Cao et al., "Learning imbalanced datasets with label-distribution-aware margin loss",
        NeurIPS 2019: the construction of CIFAR-10-LT and CIFAR-100-LT.
    """
    if not 1 <= imbalance_factor < float("inf"):
        raise UsageError(f"imbalance factor is {imbalance_factor}, it must be finite and >= 1")
    if max_per_class < 1:
        raise UsageError(f"max per class is {max_per_class}, it must be at least 1")
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
        raise UsageError(f"profile is {profile!r}, it must be exponential, step or balanced")
    if counts[-1] < 1:
        raise UsageError(
            f"imbalance factor is {imbalance_factor}, with {max_per_class} images in the head "
            f"class it must be at most {max_per_class}, or the tail class has no image"
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
    """Computes how many images each class keeps, by label.

    The head class keeps `max_per_class` images or as many as the smallest class has, whichever
    is less, so that no class is too small for its rank and the profile is exact.

    Args:
        labels: integer array (N,), the class of each image, in [0, num_classes).
        num_classes: number of classes.
        profile: see `profile_counts`.
        imbalance_factor: see `profile_counts`.
        max_per_class: upper bound on the images of the head class; None sets none.
        class_order: labels from head to tail; None is ascending order.

    Returns:
        One count a class.

    Raises:
        UsageError: a class has no image, `class_order` is no permutation of the classes, or
            `profile_counts` raises.
    """
    available = np.bincount(labels, minlength=num_classes)
    if not available.all():
        empty = int(np.flatnonzero(available == 0)[0])
        raise UsageError(f"class {empty} has no training image, every class must have one")
    order = list(range(num_classes)) if class_order is None else list(class_order)
    if sorted(order) != list(range(num_classes)):
        raise UsageError(
            f"class order has {len(order)} entries, {len(set(order))} of them different: "
            f"it must be a permutation of 0..{num_classes - 1}"
        )
    smallest = int(available.min())
    head = smallest if max_per_class is None else min(max_per_class, smallest)
    by_rank = profile_counts(profile, imbalance_factor, num_classes, head)
    counts = dict(zip(order, by_rank, strict=True))
    return tuple(counts[label] for label in range(num_classes))


def select_images(
    labels: np.ndarray, counts: Sequence[int], *, rule: SelectionRule, seed: int = 0
) -> np.ndarray:
    """Selects `counts[c]` images of each class c.

    "shuffled" takes, for a seed, the images that the code of LDAM-DRW takes, and with it that
    of MiSLAS, GCL, LIFT, Focal-SAM and others, whose seed is 0: class by class in ascending
    order the image numbers are shuffled by one NumPy Mersenne twister and the first are kept.
    "first" takes the first images of each class, as the code of ImbSAM and SSE-SAM does.

    Args:
        labels: integer array (N,), the class of each image.
        counts: number of images to keep of each class, by label.
        rule: which images.
        seed: of the "shuffled" rule, in [0, 2**32).

    Returns:
        int64 array (sum(counts),) of image numbers, classes in ascending order.

    Raises:
        UsageError: the rule is unknown, the seed out of range, or a class has too few images.
    """
    if rule not in ("shuffled", "first"):
        raise UsageError(f"selection rule is {rule!r}, it must be shuffled or first")
    if not 0 <= seed < 2**32:
        raise UsageError(f"selection seed is {seed}, it must lie in 0..{2**32 - 1}")
    # NumPy promises that this legacy generator's stream never changes: it is the published one.
    random = np.random.RandomState(seed)
    selected = []
    for label, count in enumerate(counts):
        candidates = np.flatnonzero(labels == label)
        if count > len(candidates):
            raise UsageError(
                f"class {label} has {len(candidates)} images, {count} are to be selected"
            )
        if rule == "shuffled":
            random.shuffle(candidates)
        selected.append(candidates[:count])
    return np.concatenate(selected)


def held_out_images(
    labels: np.ndarray, indices: np.ndarray, per_class: int, num_classes: int
) -> np.ndarray:
    """Selects the last images of each class among those that a split leaves out.

    Args:
        labels: integer array (N,), the class of each image of the whole set.
        indices: integer array (n,), the images of the split.
        per_class: number of images to hold out of each class.
        num_classes: number of classes, C.

    Returns:
        int64 array (C * per_class,) of image numbers, ascending within each class, classes in
        ascending order.

    Raises:
        UsageError: a class has fewer images outside the split, or `per_class` is negative.
    """
    if per_class < 0:
        raise UsageError(f"held_out is {per_class}, it must be at least 0")
    outside = np.ones(len(labels), bool)
    outside[indices] = False
    held_out = []
    for label in range(num_classes):
        candidates = np.flatnonzero(outside & (labels == label))
        first = len(candidates) - per_class
        if first < 0:
            raise UsageError(
                f"held_out is {per_class}, it must be at most {len(candidates)}: that many "
                f"images of class {label} are outside the split; lower --max-per-class"
            )
        held_out.append(candidates[first:])
    return np.concatenate(held_out)
