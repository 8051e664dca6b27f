"""Initial weights of a classifier on pretrained features: from class texts or from class means.

A text's weights go to the class that it names by the name itself, never by its place in a list.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jaxlt.errors import UsageError

PROMPT = "a photo of a {}."


def names_by_label(names: Mapping[str, str], class_names: Sequence[str]) -> tuple[str, ...]:
    """Returns the name in words of each class, by label.

    Args:
        names: from what a data source calls a class (a directory, a WordNet or category number) to
            its name in words, in any order; further classes do no harm.
        class_names: of the data source, by label.

    Raises:
        UsageError: a class has no name in words.
    """
    for label, class_name in enumerate(class_names):
        if class_name not in names:
            raise UsageError(
                f"names of classes must have one for class {class_name!r} of label {label}, they "
                f"have {len(names)} others"
            )
    return tuple(names[class_name] for class_name in class_names)


def check_aligned(listed: Sequence[str], class_names: Sequence[str]) -> None:
    """Checks that a list of names, one a label, is in the order of the labels.

    Underscores are blanks and case does not count. A list of words for classes that the data source
    knows by numbers alone is refused, as nothing tells its order: see `names_by_label`.

    Args:
        listed: names in words, by label.
        class_names: of the data source, by label.

    Raises:
        UsageError: the lists differ.
    """
    if len(listed) != len(class_names):
        raise UsageError(
            f"list of class names must have {len(class_names)} names, got {len(listed)}"
        )
    ours, theirs = ([_plain(name) for name in names] for names in (listed, class_names))
    for label, (name, expected) in enumerate(zip(ours, theirs, strict=True)):
        if name != expected:
            reason = "; the names are the same in another order" * (sorted(ours) == sorted(theirs))
            raise UsageError(
                f"list of class names must have {class_names[label]!r} for label {label}, got "
                f"{listed[label]!r}{reason}"
            )


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def prompt(name: str, template: str = PROMPT) -> str:
    """Returns the text for a class, its name put for the template's `{}`, underscores blanks."""
    return template.format(name.replace("_", " "))


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
