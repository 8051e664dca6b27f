"""Validation images from the training images that a long-tailed split leaves out."""

import numpy as np

from jaxlt.errors import UsageError


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
    """
    if per_class < 0:
        raise UsageError(f"validation_per_class must be at least 0, got {per_class}")
    outside = np.ones(len(labels), bool)
    outside[indices] = False
    chosen = []
    for label in range(num_classes):
        candidates = np.flatnonzero(outside & (labels == label))
        if len(candidates) < per_class:
            raise UsageError(
                f"validation_per_class must be at most {len(candidates)}, the images of class "
                f"{label} outside the split, got {per_class}: lower --max-per-class"
            )
        chosen.append(candidates[len(candidates) - per_class :])
    return np.concatenate(chosen)
