"""Calibration (Guo et al., ICML 2017): images by confidence, and their reliability diagram."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

NUM_BINS = 15
MOST_NAMED = 4
"""So many classifiers are named in a panel; a legend of more would cover the lines."""


@dataclasses.dataclass(frozen=True, eq=False)
class ConfidenceBins:
    """Images of a test set by confidence, the largest softmax probability of their logits.

    Bin b of n holds the confidences in (b/n, (b+1)/n], as in MiSLAS (Zhong et al., CVPR 2021) and
    the code of Guo et al. The logits of a cosine or a nearest-class-mean head have no scale, so
    their confidences are far too low and the error is large, whatever the accuracy.

    Attributes:
        counts: (n,) int64, images of each bin.
        confidence_sums: (n,) float64, sum of their confidences.
        correct: (n,) int64, how many of them were classified correctly.
    """

    counts: np.ndarray
    confidence_sums: np.ndarray
    correct: np.ndarray

    @property
    def edges(self) -> np.ndarray:
        """Bounds of the bins, (n + 1,) float64 from 0 to 1."""
        return np.linspace(0, 1, len(self.counts) + 1)

    @property
    def confidence(self) -> np.ndarray:
        """Mean confidence of each bin, (n,) float64; NaN for an empty bin."""
        return ratio(self.confidence_sums, self.counts)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of each bin's images that are correct, (n,) float64; NaN for an empty bin."""
        return ratio(self.correct, self.counts)

    @property
    def ece(self) -> float:
        """Expected calibration error, `sum_b (n_b / N) |accuracy_b - confidence_b|`, equation 3."""
        return float(np.abs(self.correct - self.confidence_sums).sum() / self.counts.sum())

    @property
    def mce(self) -> float:
        """Maximum calibration error, the largest `|accuracy_b - confidence_b|`, equation 5."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))

    def __add__(self, other: Self) -> Self:
        """Returns the bins of both sets of images together."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return type(self)(*(own + more for own, more in pairs))


def ratio(numerator: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Divides (n,) by (n,) into float64; NaN where a count is 0."""
    empty = np.full(len(counts), np.nan)
    return np.divide(numerator, counts, out=empty, where=counts > 0, dtype=np.float64)


def count_confidences(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Sorts a batch, (B, C) and (B,), into the fields of `ConfidenceBins`, float32 (3, NUM_BINS).

    A row with label -1 is padding and counts for nothing.
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


def draw_diagram(
    axes: Any, bins: Mapping[str, ConfidenceBins], styles: Iterable[Mapping[str, str]]
) -> None:
    """Draws a line of accuracy by confidence for each classifier.

    Below the diagonal the network is more confident than it is right. A marker's area grows with
    the share of the images that its bin holds. Styles are the `color` and `marker` of each.
    """
    named = len(bins) <= MOST_NAMED
    axes.plot([0, 1], [0, 1], color="#999999", linestyle=":")
    for (name, one), style in zip(bins.items(), styles, strict=False):
        filled = one.counts > 0
        confidence, accuracy = one.confidence[filled], one.accuracy[filled]
        label = f"{name}: ECE {100 * one.ece:.1f} %" if named else name
        axes.plot(confidence, accuracy, color=style["color"], label=label)
        sizes = 6 + 120 * one.counts[filled] / one.counts.sum()
        points = {"color": style["color"], "marker": style["marker"], "clip_on": False}
        axes.scatter(confidence, accuracy, s=sizes, **points)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axes.grid(alpha=0.3)
    if named:
        axes.legend(fontsize="small", loc="upper left")


def draw_run(name: str, recorded: Mapping[str, Sequence[float]], path: Path) -> None:
    """Writes one classifier's diagram as a PNG, from the fields that its result records."""
    # Of which training has no need.
    from matplotlib import figure, rc_context

    bins = ConfidenceBins(**{field: np.array(values) for field, values in recorded.items()})
    # Of a process that is killed no half of a picture may stay. The name may have any sign.
    partial = path.with_suffix(".partial.png")
    with rc_context({"text.parse_math": False}), warnings.catch_warnings(action="ignore"):
        drawn = figure.Figure(figsize=(5, 5), layout="constrained")
        draw_diagram(drawn.add_subplot(), {name: bins}, [{"color": "#000000", "marker": "o"}])
        drawn.savefig(partial, dpi=150)
    partial.replace(path)
