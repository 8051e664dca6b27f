"""Top-1 accuracy over images, classes and shot groups."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlt.errors import UsageError
from jaxlt.evaluation.calibration import NUM_BINS, ConfidenceBins, count_confidences, ratio


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
        return ratio(np.diagonal(self.confusion), self.confusion.sum(axis=1))

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the per-class accuracies, over the classes that have test images."""
        return float(np.nanmean(self.per_class))


@partial(jax.jit, donate_argnums=(0, 1))
def _count(
    confusion: jax.Array, bins: jax.Array, logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adds one batch to the counts; returns them with the batch's summed loss."""
    real = labels >= 0
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), jnp.where(real, labels, 0)
    )
    predictions = jnp.argmax(logits, axis=-1)
    confusion = confusion.at[labels, predictions].add(real.astype(jnp.int32))
    return confusion, bins + count_confidences(logits, labels), jnp.sum(jnp.where(real, losses, 0))


def evaluate(
    logits_fn: Callable[[np.ndarray], jax.Array],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    num_classes: int,
) -> Evaluated:
    """Runs a classifier over a test set and counts its predictions.

    Args:
        logits_fn: Maps a batch of images to (B, num_classes) logits; compiled once, by the caller.
        batches: Pairs of images and (B,) labels. A row with label -1 is padding and not counted.
        num_classes: C, the number of classes.

    Raises:
        ValueError: A label or the logits' width does not fit `num_classes`, or there is no image.

    Example:
        >>> import numpy as np, jaxlt.evaluation as evaluation
        >>> logits, labels = np.eye(3), np.array([0, 1, 1])
        >>> result = evaluation.evaluate(lambda images: images, [(logits, labels)], num_classes=3)
        >>> result.confusion.tolist(), result.balanced_accuracy
        ([[1, 0, 0], [0, 1, 1], [0, 0, 0]], 0.75)
    """
    confusion = jnp.zeros((num_classes, num_classes), jnp.int32)
    # In float32 they count exactly up to 2**24 images.
    bins = jnp.zeros((3, NUM_BINS), jnp.float32)
    loss, pending = 0.0, 0.0
    for images, labels in batches:
        labels = np.asarray(labels)
        # A scatter on the device would drop a label that is too large without a word.
        if labels.size and not -1 <= labels.min() <= labels.max() < num_classes:
            raise ValueError(
                f"labels must lie in -1..{num_classes - 1}, got {labels.min()} to {labels.max()}"
            )
        logits, shape = logits_fn(images), (len(labels), num_classes)
        if logits.shape != shape:
            raise ValueError(f"logits must be of shape {shape}, got {logits.shape}")
        # Fetched one batch late: the device stays busy, yet the host cannot run far ahead and
        # fill the device's memory with images.
        loss += float(pending)
        confusion, bins, pending = _count(confusion, bins, logits, labels)
    total = np.asarray(confusion, np.int64)
    if not total.any():
        raise ValueError("test set must have at least one labeled image, got none")
    counts, sums, correct = np.asarray(bins, np.float64)
    calibration = ConfidenceBins(counts.astype(np.int64), sums, correct.astype(np.int64))
    return Evaluated(total, (loss + float(pending)) / int(total.sum()), calibration)


@dataclasses.dataclass(frozen=True)
class ShotGroups:
    """Thresholds on a class's number of training images n.

    Many-shot means n > many_above, few-shot n < few_below, medium-shot the rest; no n may be both.
    The defaults are those of Kang et al. (ICLR 2020) and most later work. OLTR (Liu et al., CVPR
    2019) and CC-SAM put n = 100 into many and n = 20 into few: ShotGroups(many_above=99,
    few_below=21).
    """

    many_above: int = 100
    few_below: int = 20

    def __post_init__(self):
        most = self.many_above + 1
        if self.few_below > most:
            raise UsageError(
                f"few_below must be at most many_above + 1, {most}, got {self.few_below}"
            )

    def assign(self, class_counts: np.ndarray) -> dict[str, np.ndarray]:
        """Maps (C,) counts to (C,) masks of the classes in "many", "medium", "few", each in one."""
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

    Example:
        >>> import numpy as np, jaxlt.evaluation as evaluation
        >>> per_class, counts = np.array([0.9, 0.7, 0.4]), np.array([500, 50, 5])
        >>> evaluation.group_accuracy(per_class, counts, evaluation.ShotGroups())
        {'many': 0.9, 'medium': 0.7, 'few': 0.4}
    """
    means = {}
    for name, mask in groups.assign(class_counts).items():
        known = per_class[mask & ~np.isnan(per_class)]
        means[name] = float(known.mean()) if len(known) else float("nan")
    return means


def group_confusion(
    confusion: np.ndarray, class_counts: np.ndarray, groups: ShotGroups
) -> dict[str, dict[str, float]]:
    """Returns where the test images of each shot group are classified.

    For each true group, "many", "medium" and "few", that is the share of its images that are
    "correct", and of the wrong ones the shares in a class of "many", "medium" and "few". The four
    add up to 1; each is the mean over the group's classes, as in `group_accuracy`.

    Args:
        confusion: (C, C) images of class i predicted as class j, `Evaluated.confusion`.
        class_counts: (C,) training images of each class.
        groups: The thresholds.

    Example:
        >>> import numpy as np, jaxlt.evaluation as evaluation
        >>> confusion, counts = np.array([[9, 1, 0], [2, 8, 0], [5, 0, 5]]), np.array([500, 50, 5])
        >>> evaluation.group_confusion(confusion, counts, evaluation.ShotGroups())["few"]
        {'correct': 0.5, 'many': 0.5, 'medium': 0.0, 'few': 0.0}
    """
    masks, correct = groups.assign(class_counts), np.diagonal(confusion)
    wrong = confusion - np.diag(correct)
    places = {"correct": correct, **{name: wrong[:, m].sum(axis=1) for name, m in masks.items()}}
    shares = {
        place: group_accuracy(ratio(images, confusion.sum(axis=1)), class_counts, groups)
        for place, images in places.items()
    }
    return {group: {place: shares[place][group] for place in places} for group in masks}
