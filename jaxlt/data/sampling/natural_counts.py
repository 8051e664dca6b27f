"""What a profile that thins makes of classes that differ in size already."""

import logging

import numpy as np

from jaxlt.data.sampling.long_tail import Profile, Split, profile_counts
from jaxlt.errors import UsageError

_logger = logging.getLogger(__name__)


def with_remedy(
    error: UsageError, profile: Profile, available: np.ndarray, max_per_class: int
) -> UsageError:
    """Returns what to raise where a profile does not fit a source.

    If its classes differ in size, the message goes on to say that all images can be used, and how
    many the profile leaves out with the largest imbalance factor that it allows.

    Args:
        error: what `profile_counts` raised.
        profile: see there.
        available: integer array (C,), the images of each class.
        max_per_class: images of the head class, at most those of the smallest class.

    Example:
        >>> import numpy as np
        >>> from jaxlt import UsageError
        >>> error = UsageError("imbalance_factor must be at most 2, got 9")
        >>> print(with_remedy(error, "step", np.array([9, 4, 2]), 2))
        imbalance_factor must be at most 2, got 9; --data.profile native trains on all 15 images, \
step with imbalance factor 2 leaves out 10 of them, as no class keeps more than the smallest has, 2
    """
    if available.min() == available.max() or max_per_class < 1:
        return error
    total, smallest = int(available.sum()), int(available.min())
    try:
        kept = sum(profile_counts(profile, float(max_per_class), len(available), max_per_class))
    except UsageError:  # a profile that there is not
        return error
    return UsageError(
        f"{error}; --data.profile native trains on all {total} images, {profile} with imbalance "
        f"factor {max_per_class} leaves out {total - kept} of them, as no class keeps more than "
        f"the smallest has, {smallest}"
    )


def log_left_out(split: Split, labels: np.ndarray) -> None:
    """Logs how many images a split uses of a source whose classes differ in size."""
    _logger.warning(
        "profile %s uses %d of %d training images, as no class keeps more than the smallest has, "
        "%d; --data.profile native uses all",
        split.profile,
        len(split.indices),
        len(labels),
        np.bincount(labels).min(),
    )
