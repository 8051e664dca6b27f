"""Calibration: how far a classifier's confidence is from its accuracy."""

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

NUM_BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class ConfidenceBins:
    """Images of a test set by confidence, the largest softmax probability of their logits.

    Bin b of n holds the confidences in (b/n, (b+1)/n], bins of equal width that are closed on the
    right, as MiSLAS (Zhong et al., CVPR 2021) and the code of Guo et al. (ICML 2017) have them.
    Logits without a scale of their own, such as those of a cosine or a nearest-class-mean head,
    give confidences that are far too low, and so a large error, whatever the head's accuracy.

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
        """Expected calibration error, in [0, 1].

        It is `sum_b (n_b / N) |accuracy_b - confidence_b|` over bins of n_b of the N images
        (Guo et al., equation 3; Naeini et al., AAAI 2015).
        """
        return float(np.abs(self.correct - self.confidence_sums).sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, in [0, 1].

        It is the largest `|accuracy_b - confidence_b|` of a bin with images (Guo et al.,
        equation 5).
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
        them are classified correctly. Batches are added up.
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
