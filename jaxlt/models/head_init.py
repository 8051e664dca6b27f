"""Initial weights of a classifier on pretrained features: from class texts or from class means."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxlt.errors import UsageError


def text_kernel(
    text_features: Mapping[str, Any], names: Sequence[str], projection: Any
) -> np.ndarray:
    """Returns the kernel (D, C) whose unit columns are the classes' texts, seen as image features.

    LIFT's semantic-aware initialisation: column c is `norm(P t_c)`, t_c the unit mean of the unit
    features of the class's texts (Shi et al., "Long-tail learning with foundation model: heavy
    fine-tuning hurts", ICML 2024).

    Args:
        text_features: from each class's name to the features (T, E) of its T texts.
        names: of the classes, by label.
        projection: P, (D, E), from image features to those compared with texts.

    Raises:
        UsageError: two classes have the same name, or one has no text.
    """
    (name, classes), *_ = Counter(names).most_common(1)
    if classes > 1:
        raise UsageError(f"names of classes must differ, {name!r} is the name of {classes}")
    missing = next((name for name in names if name not in text_features), None)
    if missing is not None:
        raise UsageError(f"class {missing!r} must have a text, it has none")
    # On the host: thousands of classes, each with its own number of texts.
    texts = np.stack([_unit(np.asarray(text_features[name])).mean(0) for name in names])
    return _unit(_unit(texts) @ np.asarray(projection).T).astype(np.float32).T


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def class_mean_kernel(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns the kernel (D, C) whose columns are the classes' mean features, of unit norm.

    Args:
        features: (N, D), of training images; sums are taken in float64.
        labels: (N,) integers in [0, C).
        num_classes: C.

    Raises:
        UsageError: a class has no image.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise UsageError(
            f"class {np.argmin(counts)} had no training image, must have at least one for its mean"
        )
    # Class by class: a float64 copy of all features may not fit.
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    means = np.stack([features[rows].mean(axis=0, dtype=np.float64) for rows in members])
    return _unit(means).astype(np.float32).T


def classifier_params(
    kernel: np.ndarray, classifier: Literal["linear", "cosine"]
) -> dict[str, np.ndarray]:
    """Returns the parameters of a head with a given kernel (D, C); a linear head's bias is 0."""
    if classifier == "cosine":
        return {"kernel": kernel}
    return {"kernel": kernel, "bias": np.zeros(kernel.shape[1], np.float32)}
