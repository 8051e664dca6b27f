"""Top-1 accuracy over images, classes and shot groups, and the calibration of confidences."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlt.errors import UsageError

NUM_BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class ConfidenceBins:
    """Images of a test set by confidence, the largest softmax probability of their logits.

    Bin b of n holds the confidences in (b/n, (b+1)/n], as in MiSLAS (Zhong et al., CVPR 2021) and
    the code of Guo et al. (ICML 2017). The logits of a cosine or a nearest-class-mean head have no
    scale, so their confidences are far too low and the error is large, whatever the accuracy.

    Attributes:
        counts: (n,) int64, images of each bin.
        confidence_sums: (n,) float64, sum of their confidences.
        correct: (n,) int64, how many of them were classified correctly.
    """

    counts: np.ndarray
    confidence_sums: np.ndarray
    correct: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """Mean confidence of each bin, (n,) float64; NaN for an empty bin."""
        return _ratio(self.confidence_sums, self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each bin's images that are correct, (n,) float64; NaN for an empty bin."""
        return _ratio(self.correct, self.counts)

    @property
    def ece(self) -> float:
        """Expected calibration error, `sum_b (n_b / N) |accuracy_b - confidence_b|`, in [0, 1].

        Guo et al., equation 3; Naeini et al., AAAI 2015.
        """
        return float(np.abs(self.correct - self.confidence_sums).sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, the largest `|accuracy_b - confidence_b|`, in [0, 1].

        Guo et al., equation 5; over the bins that have images.
        """
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))

    def __add__(self, other: Self) -> Self:
        """Returns the bins of both sets of images together."""
        return type(self)(
            self.counts + other.counts,
            self.confidence_sums + other.confidence_sums,
            self.correct + other.correct,
        )

    @property
    def edges(self) -> np.ndarray:
        """Bounds of the bins, (n + 1,) float64 from 0 to 1."""
        return np.linspace(0, 1, len(self.counts) + 1)


def count_confidences(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sorts one batch into bins of confidence; for use under `jit`.

    Args:
        logits: (B, C) of any floating type.
        labels: (B,) integers; a row with label -1 is padding and counts for nothing.

    Returns:
        float32 (3, NUM_BINS): images of each bin, the sum of their confidences, and how many of
        them are classified correctly.
    """
    confidence = jnp.max(jax.nn.softmax(logits.astype(jnp.float32), axis=-1), axis=-1)
    correct = jnp.argmax(logits, axis=-1) == labels
    inner_edges = jnp.linspace(0.0, 1.0, NUM_BINS + 1)[1:-1]
    # On the left of an edge that it equals, which closes bins on the right.
    numbers = jnp.searchsorted(inner_edges, confidence, side="left")
    # A sum over rows and no scatter, whose order of additions a GPU leaves open.
    members = (numbers[:, jnp.newaxis] == jnp.arange(NUM_BINS)) & (labels >= 0)[:, jnp.newaxis]
    rows = (jnp.ones_like(confidence), confidence, correct.astype(jnp.float32))
    return jnp.stack([jnp.sum(jnp.where(members, row[:, jnp.newaxis], 0), axis=0) for row in rows])


def _ratio(numerator: np.ndarray, counts: np.ndarray) -> np.ndarray:
    empty = np.full(len(counts), np.nan)
    return np.divide(numerator, counts, out=empty, where=counts > 0, dtype=np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
    """What a classifier did on a test set of C classes. Accuracies are fractions in [0, 1].

    Attributes:
        confusion: (C, C) int64; entry (i, j) counts the images of class i predicted as class j.
        loss: Cross-entropy of the logits in nats, the mean over images.
        calibration: The images by the confidence with which they were classified.
    """

    confusion: np.ndarray
    loss: float
    calibration: ConfidenceBins

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy over images."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @cached_property
    def per_class(self) -> np.ndarray:
        """Each class's accuracy, (C,) float64; NaN for a class without test images."""
        images = self.confusion.sum(axis=1)
        correct = np.diagonal(self.confusion).astype(np.float64)
        return np.divide(correct, images, out=np.full(len(images), np.nan), where=images > 0)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the per-class accuracies, over the classes that have test images."""
        return float(np.nanmean(self.per_class))


class _Counts(NamedTuple):
    """What stays on the device from batch to batch; bins count exactly up to 2**24 images."""

    confusion: jax.Array
    bins: jax.Array


@partial(jax.jit, donate_argnums=0)
def _count(counts: _Counts, logits: jax.Array, labels: jax.Array) -> tuple[_Counts, jax.Array]:
    """Adds one batch to the counts; returns them with the batch's summed loss."""
    real = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(real, labels, 0)
    )
    predictions = jnp.argmax(logits, axis=-1)
    confusion = counts.confusion.at[labels, predictions].add(real.astype(jnp.int32))
    bins = counts.bins + count_confidences(logits, labels)
    return _Counts(confusion, bins), jnp.sum(jnp.where(real, losses, 0.0))


def evaluate(
    logits_fn: Callable[[np.ndarray], jax.Array],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
) -> Evaluated:
    """Runs a classifier over a test set and counts its predictions.

    Args:
        logits_fn: Maps a batch of images to (B, num_classes) logits. Compile it once outside, so
            that a later evaluation with other weights need not.
        batches: Pairs of images and (B,) integer labels. A row with label -1 is padding and
            counts for nothing.
        num_classes: C, the number of classes.

    Raises:
        ValueError: A label or the logits' width does not fit `num_classes`, or there is no image.
    """
    counts = _Counts(
        jnp.zeros((num_classes, num_classes), jnp.int32), jnp.zeros((3, NUM_BINS), jnp.float32)
    )
    loss, pending = 0.0, 0.0
    for images, labels in batches:
        labels = np.asarray(labels)
        _check_labels(labels, num_classes)
        logits = logits_fn(images)
        if logits.shape != (len(labels), num_classes):
            raise ValueError(
                f"logits must be of shape {(len(labels), num_classes)}, got {logits.shape}"
            )
        counts, batch_loss = _count(counts, logits, labels)
        # Fetched one batch late: the device stays busy, yet the host cannot run far ahead and
        # fill the device's memory with images.
        loss += float(pending)
        pending = batch_loss
    confusion = np.asarray(counts.confusion, np.int64)
    if not confusion.any():
        raise ValueError("test set must have at least one labelled image, got none")
    members, confidence_sums, correct = np.asarray(counts.bins, np.float64)
    return Evaluated(
        confusion,
        (loss + float(pending)) / int(confusion.sum()),
        ConfidenceBins(members.astype(np.int64), confidence_sums, correct.astype(np.int64)),
    )


def _check_labels(labels: np.ndarray, num_classes: int) -> None:
    # A scatter on the device would drop a label that is too large without a word.
    if labels.size and not -1 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels must lie in -1..{num_classes - 1}, got {labels.min()} to {labels.max()}"
        )


@dataclasses.dataclass(frozen=True)
class ShotGroups:
    """Thresholds on a class's number of training images n.

    Many-shot means n > many_above, few-shot n < few_below, medium-shot the rest; no n may be both.
    The defaults are those of Kang et al. (ICLR 2020) and most later work. OLTR (Liu et al., CVPR
    2019) and CC-SAM put n = 100 into many and n = 20 into few: ShotGroups(many_above=99,
    few_below=21).

    Attributes:
        many_above: Largest n that is not many-shot.
        few_below: Smallest n that is not few-shot.
    """

    many_above: int = 100
    few_below: int = 20

    def __post_init__(self):
        if self.few_below > self.many_above + 1:
            raise UsageError(
                f"few_below must be at most many_above + 1, {self.many_above + 1}, got "
                f"{self.few_below}"
            )

    def assign(self, class_counts: np.ndarray) -> dict[str, np.ndarray]:
        """Returns (C,) bool masks of the classes in "many", "medium" and "few", each in one.

        `class_counts` (C,) has the training images of each class.
        """
        counts = np.asarray(class_counts)
        many, few = counts > self.many_above, counts < self.few_below
        return {"many": many, "medium": ~(many | few), "few": few}


def group_accuracy(
    per_class: np.ndarray, class_counts: np.ndarray, groups: ShotGroups
) -> dict[str, float]:
    """Returns the unweighted mean of the per-class accuracies in "many", "medium" and "few".

    A group without a class to average has NaN. (Some published code reports 0 there.)

    Args:
        per_class: (C,) accuracies, `Evaluated.per_class`; NaN entries are left out.
        class_counts: (C,) training images of each class.
        groups: The thresholds.
    """
    present = ~np.isnan(per_class)
    masks = {name: mask & present for name, mask in groups.assign(class_counts).items()}
    return {
        name: float(per_class[mask].mean()) if mask.any() else float("nan")
        for name, mask in masks.items()
    }


def group_confusion(
    confusion: np.ndarray, class_counts: np.ndarray, groups: ShotGroups
) -> dict[str, dict[str, float]]:
    """Returns where the test images of each shot group are classified.

    For each true group, "many", "medium" and "few", that is the share of its images that are
    "correct", and of the wrong ones the shares in a class of "many", "medium" and "few". The four
    add up to 1. A class's shares are over its test images, and a group's are the unweighted mean
    over its classes that have any; NaN without such a class.

    Args:
        confusion: (C, C) images of class i predicted as class j, `Evaluated.confusion`.
        class_counts: (C,) training images of each class.
        groups: The thresholds.
    """
    confusion = np.asarray(confusion, np.float64)
    images = confusion.sum(axis=1)
    masks = groups.assign(class_counts)
    wrong = confusion - np.diag(np.diagonal(confusion))
    columns = {"correct": np.diagonal(confusion)}
    columns |= {name: wrong[:, mask].sum(axis=1) for name, mask in masks.items()}
    shares: dict[str, dict[str, float]] = {}
    for name, mask in masks.items():
        members = mask & (images > 0)
        shares[name] = {
            place: float((column[members] / images[members]).mean())
            if members.any()
            else float("nan")
            for place, column in columns.items()
        }
    return shares
