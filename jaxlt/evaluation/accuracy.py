"""Top-1 accuracy over images, over classes, and over many-, medium- and few-shot classes."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlt.errors import UsageError
from jaxlt.evaluation.calibration import NUM_BINS, ConfidenceBins, count_confidences


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
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
    """What stays on the device from batch to batch: a confusion matrix, and bins as they are.

    The images of a bin are counted in float32, exactly up to 2**24 of them.
    """

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
) -> Evaluation:
    """Runs a classifier over a test set and counts its predictions.

    Args:
        logits_fn: Maps a batch of images to (B, num_classes) logits. It is called as it is:
            compile it once outside, so that a later evaluation with other weights need not.
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
                f"logits were of shape {logits.shape}, must be {(len(labels), num_classes)}"
            )
        counts, batch_loss = _count(counts, logits, labels)
        # Fetched one batch late: the device stays busy, yet the host cannot run far ahead and
        # fill the device's memory with images.
        loss += float(pending)
        pending = batch_loss
    confusion = np.asarray(counts.confusion, np.int64)
    if not confusion.any():
        raise ValueError("the test set had no labelled image, must have at least one")
    members, confidence_sums, correct = np.asarray(counts.bins, np.float64)
    return Evaluation(
        confusion,
        (loss + float(pending)) / int(confusion.sum()),
        ConfidenceBins(members.astype(np.int64), confidence_sums, correct.astype(np.int64)),
    )


def _check_labels(labels: np.ndarray, num_classes: int) -> None:
    # A scatter on the device would drop a label that is too large without a word.
    if labels.size and not -1 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels ran from {labels.min()} to {labels.max()}, must lie in -1..{num_classes - 1}"
        )


@dataclasses.dataclass(frozen=True)
class ShotGroups:
    """Thresholds on a class's number of training images n.

    Many-shot means n > many_above, few-shot n < few_below, medium-shot the rest. The defaults are
    those of Kang et al. (ICLR 2020) and most later work. OLTR (Liu et al., CVPR 2019) and CC-SAM
    put n = 100 into many and n = 20 into few: ShotGroups(many_above=99, few_below=21).

    Attributes:
        many_above: Largest n that is not many-shot.
        few_below: Smallest n that is not few-shot.

    Raises:
        UsageError: Some n would be both many-shot and few-shot.
    """

    many_above: int = 100
    few_below: int = 20

    def __post_init__(self):
        if self.few_below > self.many_above + 1:
            raise UsageError(
                f"few_below was {self.few_below}, must be at most many_above + 1, "
                f"{self.many_above + 1}"
            )

    def assign(self, class_counts: np.ndarray) -> dict[str, np.ndarray]:
        """Masks of the classes in each group.

        Args:
            class_counts: (C,) training images of each class.

        Returns:
            (C,) bool arrays under "many", "medium" and "few"; each class is in exactly one.
        """
        counts = np.asarray(class_counts)
        many, few = counts > self.many_above, counts < self.few_below
        return {"many": many, "medium": ~(many | few), "few": few}


def group_accuracy(
    per_class: np.ndarray, class_counts: np.ndarray, groups: ShotGroups
) -> dict[str, float]:
    """Unweighted mean of the per-class accuracies in each shot group.

    Args:
        per_class: (C,) accuracies, `Evaluation.per_class`; NaN entries are left out.
        class_counts: (C,) training images of each class.
        groups: The thresholds.

    Returns:
        Accuracies under "many", "medium" and "few", NaN for a group without a class to average.
        (Some published code reports 0 there, which reads as a failure.)
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
    """Where the test images of each shot group are classified.

    A class's row of the confusion matrix is divided by the class's test images, and a group's
    shares are the unweighted mean over its classes, as in `group_accuracy`; classes without test
    images are left out.

    Args:
        confusion: (C, C) images of class i predicted as class j, `Evaluation.confusion`.
        class_counts: (C,) training images of each class.
        groups: The thresholds.

    Returns:
        For each true group, "many", "medium" and "few", the share of its images that are
        "correct", and of those that are wrong the shares in a class of "many", "medium" and "few".
        The four add up to 1; they are NaN for a group without a class to average.
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
