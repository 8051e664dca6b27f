"""Open-set recognition: which images of unknown classes a closed classifier turns away.

The protocol is OLTR's (Liu et al., CVPR 2019). The closed set has test images of the training
classes, the open set images of other classes, with label -1. Both are classified alike. An image
whose score is below a threshold is rejected: its prediction becomes -1.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from sklearn.metrics import roc_auc_score

from jaxlt.evaluation.calibration import ratio
from jaxlt.models.clip.head_init import unit_rows
from jaxlt.training.step.decoupling import nearest_class_mean

REJECTED = -1
FMeasure = Literal["oltr", "balms"]
F_MEASURES: tuple[FMeasure, ...] = get_args(FMeasure)
_CURVE_POINTS = 201


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """A classifier's answers for N images before any is rejected; open labels are REJECTED."""

    labels: np.ndarray
    predictions: np.ndarray
    scores: np.ndarray

    def decided(self, threshold: float) -> np.ndarray:
        """Returns (N,) predictions, REJECTED where the score is below the threshold."""
        return np.where(self.scores < threshold, REJECTED, self.predictions)


def softmax_scores(logits: np.ndarray) -> np.ndarray:
    """Returns OLTR's score, the largest softmax probability of each row (N, C), as (N,) float64.

    It is never below 1/C, so OLTR's threshold of 0.1 rejects nothing with ten classes.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return 1 / np.exp(shifted).sum(axis=1)


class Prototypes:
    """The non-learnable prototype metric of CC-SAM (Zhou et al., CVPR 2023, section 4.2).

    The paper says no more than that "a simple, non-learnable prototype-based metric" tells closed
    from open images, and its code has none. Here a class's prototype is the mean of its training
    features after all were centered and scaled to unit norm, as in `nearest_class_mean`. (Features
    that follow a ReLU are all in one orthant: uncentered, every cosine would be large.) An
    image's score is its largest cosine similarity to a prototype. The metric decides about
    rejection alone, and the network's own classifier about the class: in the paper's open-set table
    CC-SAM's accuracies are those of its closed-set table.

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
        self._prototypes = unit_rows(means["centers"].astype(np.float64))

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
    """Returns one of the two published open-set F-measures, `2 P R / (P + R)`, in [0, 1].

    Precision is `P = TP / (TP + FP)` and recall `R = TP / (TP + FN)`. TP are the closed images that
    are classified correctly, and FN the open images that are accepted. In the code of OLTR ("oltr")
    FP are all other closed images, rejected ones among them, so that P is the closed accuracy. In
    the code of Kang et al. and of BALMS ("balms") FP are the closed images that are given a wrong
    class, and a rejected closed image counts nowhere. So "balms" is never below "oltr", and means
    little without the closed accuracy beside it: it reaches 1 where all but one correct image are
    rejected. The two agree where no closed image is rejected. Papers seldom say which one they
    print. Without a correct closed image both are 0.

    Args:
        labels: (N,), REJECTED for open images.
        predictions: (N,), REJECTED for rejected images.
        definition: "oltr" or "balms".
    """
    closed, accepted = labels != REJECTED, predictions != REJECTED
    right = closed & (predictions == labels)
    wrong = closed & ~right & (accepted | (definition == "oltr"))
    return float(_f(right.sum(), wrong.sum(), (~closed & accepted).sum()))


def per_class_accuracy(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Each class's accuracy, rejected images being wrong, (C,); NaN for a class without image."""
    closed = labels != REJECTED
    images = np.bincount(labels[closed], minlength=num_classes)
    correct = np.bincount(labels[closed & (predictions == labels)], minlength=num_classes)
    return ratio(correct, images)


def open_set_measures(answers: Answers, threshold: float) -> dict[str, float]:
    """Returns the protocol's numbers at one threshold.

    "accuracy" is the share of closed images that are classified correctly and not rejected,
    "rejected" the share of closed images that are rejected, "open_accuracy" the share of open
    images that are. "f_oltr" and "f_balms" are the F-measures. "auroc" is the probability that a
    closed image scores higher than an open one.

    Args:
        answers: for the closed and the open set.
        threshold: images of lower scores are rejected.
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
    """Returns the measures that depend on the threshold for many thresholds, arrays (T,).

    "threshold" has quantiles of all scores, from one that rejects nothing to one that accepts the
    highest score alone. The others are as in `open_set_measures`.
    """
    closed = answers.labels != REJECTED
    right = closed & (answers.predictions == answers.labels)
    shares = np.linspace(0, 1, _CURVE_POINTS)
    thresholds = np.unique(np.quantile(answers.scores, shares, method="lower"))
    accepted_right, accepted_closed, accepted_open = (
        mask.sum() - np.searchsorted(np.sort(answers.scores[mask]), thresholds)
        for mask in (right, closed, ~closed)
    )
    return {
        "threshold": thresholds,
        "accuracy": accepted_right / closed.sum(),
        "open_accuracy": 1 - accepted_open / (~closed).sum(),
        "f_oltr": _f(accepted_right, closed.sum() - accepted_right, accepted_open),
        "f_balms": _f(accepted_right, accepted_closed - accepted_right, accepted_open),
    }


def _f(right: np.ndarray, wrong: np.ndarray, accepted_open: np.ndarray) -> np.ndarray:
    # 2PR / (P + R) with P = TP / (TP + FP) and R = TP / (TP + FN), without dividing zero by zero.
    total = 2 * right + wrong + accepted_open
    return np.where(total > 0, 2 * right / np.maximum(total, 1), 0.0)
