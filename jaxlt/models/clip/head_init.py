"""Initial weights of a classifier on pretrained features: from class texts or from class means."""

from typing import Any, Literal

import numpy as np

from jaxlt.errors import UsageError


def text_kernel(text_features: Any, projection: Any) -> np.ndarray:
    """Returns the kernel (D, C) whose unit columns are the classes' texts, seen as image features.

    This is LIFT's semantic-aware initialization: column c is `norm(P t_c)`, where t_c is the unit
    mean of the unit features of the class's texts (Shi et al., "Long-tail learning with foundation
    model: heavy fine-tuning hurts", ICML 2024).

    Args:
        text_features: (C, T, E), of T texts for each class, by label.
        projection: P, (D, E), from image features to those compared with texts.
    """
    texts = unit_rows(np.asarray(text_features)).mean(1)
    return unit_rows(unit_rows(texts) @ np.asarray(projection).T).astype(np.float32).T


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Scales each row of (..., D) to unit Euclidean norm; a row of zeros stays."""
    norms = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def members_by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Returns the places of each class's labels, in their order; a class must have one."""
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise UsageError(
            f"classes must have a training image each, got none of class {np.argmin(counts)}"
        )
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def class_mean_kernel(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the kernel (D, C) whose columns are the classes' mean features, of unit norm.

    Args:
        features: (N, D), of training images; sums are taken in float64.
        labels: (N,) integers in [0, C).
        num_classes: C.

    Raises:
        UsageError: a class has no image.
    """
    # Class by class: a float64 copy of all features may not fit.
    members = members_by_class(labels, num_classes)
    means = np.stack([features[rows].mean(axis=0, dtype=np.float64) for rows in members])
    return unit_rows(means).astype(np.float32).T


def classifier_params(
    kernel: np.ndarray, classifier: Literal["linear", "cosine"]
) -> dict[str, np.ndarray]:
    """Returns the parameters of a head with a given kernel (D, C); a linear head's bias is 0."""
    if classifier == "cosine":
        return {"kernel": kernel}
    return {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)}
