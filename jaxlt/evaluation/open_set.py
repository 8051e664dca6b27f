"""Open-set recognition: which images of unknown classes a closed classifier turns away.

The protocol is that of OLTR (Liu et al., CVPR 2019). A test set of the training classes, the closed
set, and images of other classes, the open set with label -1, are classified alike; an image whose
score is below a threshold is rejected, that is, its prediction becomes -1.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from sklearn.metrics import roc_auc_score

from jaxlt.models.clip.head_init import unit_rows
from jaxlt.training.step.decoupling import nearest_class_mean

REJECTED = -1
FMeasure = Literal["oltr", "balms"]
F_MEASURES: tuple[FMeasure, ...] = get_args(FMeasure)
_CURVE_POINTS = 201


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """A classifier's answers for N images, before any is rejected.

    Attributes:
        labels: (N,) integers, REJECTED for the open set.
        predictions: (N,) integers, classes.
        scores: (N,) floats; images with low scores are rejected.
    """

    labels: np.ndarray
    predictions: np.ndarray
    scores: np.ndarray

    def decided(self, threshold: float) -> np.ndarray:
        """Returns (N,) predictions, REJECTED where the score is below the threshold."""
        return np.where(self.scores < threshold, REJECTED, self.predictions)


def softmax_scores(logits: np.ndarray) -> np.ndarray:
    """OLTR's score: the largest softmax probability of each row.

    It is never below 1/C, so that OLTR's threshold of 0.1 rejects nothing with ten classes.

    Args:
        logits: (N, C).

    Returns:
        (N,) float64 in [1/C, 1].
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return 1 / np.exp(shifted).sum(axis=1)


class Prototypes:
    """The non-learnable prototype metric of CC-SAM (Zhou et al., CVPR 2023, section 4.2).

    The paper says no more than that "a simple, non-learnable prototype-based metric" tells closed
    from open images, and its code has none. This reading of it computes, from the training images
    alone, one prototype a class: the mean of the class's features after all features were centred
    and scaled to unit norm, which are the centres of `nearest_class_mean`. Features that follow a
    ReLU are all in one orthant, where without the centring every cosine would be large. An image's
    score is its largest cosine similarity to a prototype, which ranks images as the Euclidean
    distance between unit vectors does and needs no temperature.

    The metric decides about rejection alone, and the network's own classifier about the class:
    in the paper's open-set table CC-SAM's accuracies are those of its closed-set table.

    Args:
        features: (N, D) of the training images.
        labels: (N,) integers in [0, num_classes).
        num_classes: C.

    Raises:
        UsageError: a class has no image.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray, num_classes: int):
        means = nearest_class_mean(features, labels, num_classes)
        self._mean = means["mean"].astype(np.float64)
        self._prototypes = unit_rows(means["centres"].astype(np.float64))

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Maps (N, D) features to (N,) largest cosine similarities, float64 in [-1, 1]."""
        return (unit_rows(features - self._mean) @ self._prototypes.T).max(axis=1)


def accepting_threshold(scores: np.ndarray, share: float) -> float:
    """Returns the largest threshold at which at least `share` of the images are accepted.

    Args:
        scores: (N,), of images that are known to be of the closed set.
        share: in (0, 1].
    """
    accepted = int(np.ceil(share * len(scores)))
    return float(np.sort(scores)[len(scores) - accepted])


def f_measure(labels: np.ndarray, predictions: np.ndarray, definition: FMeasure) -> float:
    """Computes one of the two published open-set F-measures, `2 P R / (P + R)`.

    Precision is `P = TP / (TP + FP)` and recall `R = TP / (TP + FN)`. In both definitions TP are
    the closed images that are classified correctly, and FN the open images that are accepted: no
    closed image is ever a false negative, whatever the name says. They differ in FP. In the code of
    OLTR ("oltr") FP are all other closed images, rejected ones among them, so that P is the closed
    accuracy. In the code of Kang et al. and of BALMS ("balms") FP are the closed images that are
    given a wrong class, and a rejected closed image counts nowhere. "balms" is therefore never
    below "oltr", and reaches 1 where all but one correct image are rejected, so it means little
    without the closed accuracy beside it; the two agree where no closed image is rejected. Papers
    seldom say which one they print.

    Args:
        labels: (N,), REJECTED for open images.
        predictions: (N,), REJECTED for rejected images.
        definition: "oltr" or "balms".

    Returns:
        A number in [0, 1]; 0 where no closed image is classified correctly.
    """
    closed = labels != REJECTED
    right = int((closed & (predictions == labels)).sum())
    wrong = closed & (predictions != labels)
    if definition == "balms":
        wrong &= predictions != REJECTED
    return float(_f(right, int(wrong.sum()), int((~closed & (predictions != REJECTED)).sum())))


def per_class_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Each class's accuracy, rejected images being wrong, (C,); NaN for a class without image."""
    closed = labels != REJECTED
    images = np.bincount(labels[closed], minlength=num_classes)
    correct = np.bincount(labels[closed & (predictions == labels)], minlength=num_classes)
    return np.divide(correct, images, out=np.full(num_classes, np.nan), where=images > 0)


def open_set_measures(answers: Answers, threshold: float) -> dict[str, float]:
    """Computes the protocol's numbers at one threshold.

    Args:
        answers: for the closed and the open set.
        threshold: images of lower scores are rejected.

    Returns:
        Under "accuracy" the share of closed images that are classified correctly and not rejected;
        under "rejected" the share of closed images that are rejected; under "open_accuracy" the
        share of open images that are; the F-measures under "f_oltr" and "f_balms"; under "auroc"
        the probability that a closed image scores higher than an open one.
    """
    decided, closed = answers.decided(threshold), answers.labels != REJECTED
    return {
        "accuracy": float(np.mean(decided[closed] == answers.labels[closed])),
        "rejected": float(np.mean(decided[closed] == REJECTED)),
        "open_accuracy": float(np.mean(decided[~closed] == REJECTED)),
        **{f"f_{name}": f_measure(answers.labels, decided, name) for name in F_MEASURES},
        "auroc": float(roc_auc_score(closed, answers.scores)),
    }


def threshold_curve(answers: Answers) -> Mapping[str, np.ndarray]:
    """Computes the measures that depend on the threshold for many of them at once.

    Args:
        answers: for the closed and the open set.

    Returns:
        (T,) arrays under "threshold" (quantiles of all scores, ascending: from one that rejects
        nothing to one that accepts the highest score alone), "accuracy", "open_accuracy",
        "f_oltr" and "f_balms", as in `open_set_measures`.
    """
    closed = answers.labels != REJECTED
    right = closed & (answers.predictions == answers.labels)
    thresholds = np.unique(
        np.quantile(answers.scores, np.linspace(0, 1, _CURVE_POINTS), method="lower")
    )
    accepted_right, accepted_closed, accepted_open = (
        _accepted(answers.scores[mask], thresholds) for mask in (right, closed, ~closed)
    )
    return {
        "threshold": thresholds,
        "accuracy": accepted_right / closed.sum(),
        "open_accuracy": 1 - accepted_open / (~closed).sum(),
        "f_oltr": _f(accepted_right, closed.sum() - accepted_right, accepted_open),
        "f_balms": _f(accepted_right, accepted_closed - accepted_right, accepted_open),
    }


def _accepted(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")


def _f(
    right: np.ndarray | int, wrong: np.ndarray | int, accepted_open: np.ndarray | int
) -> np.ndarray:
    # 2PR / (P + R) with P = TP / (TP + FP) and R = TP / (TP + FN), without dividing zero by zero.
    total = np.asarray(2 * right + wrong + accepted_open)
    return np.where(total > 0, 2 * np.asarray(right) / np.maximum(total, 1), 0.0)
