"""Means over seeds as the lines of a picture, with bands of one deviation to either side."""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.presentation import COLORS, mark_sizes

MOST_BANDS = len(COLORS)  # of more lines they would cover each other
MOST_SIZES = 30  # of classes drawn one by one, more of them in bins of size
SIZE_BINS = 12


def over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (...) means of (R, ...) numbers that are not NaN, and sample deviations, 0 of one."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)
    return mean, np.nan_to_num(spread)


class Curve(NamedTuple):
    """Means over seeds at n ascending steps or class sizes x, and their sample deviations."""

    x: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


class Line(NamedTuple):
    """One line of a panel: its name in the legend, what it shows, how it looks."""

    label: str
    curve: Curve
    style: Mapping[str, str]


def curve_of(x: np.ndarray, values: np.ndarray) -> Curve | None:
    """Averages (R, n) numbers where any seed knows them; None if no seed knows any."""
    mean, spread = over_seeds(values)
    known = ~np.isnan(mean)
    return Curve(x[known], mean[known], spread[known]) if known.any() else None


def by_class_size(
    class_counts: Sequence[int], per_class: Sequence[Sequence[float]]
) -> Curve | None:
    """Averages (R, C) accuracies, in percent, over classes of one size, or bin of many sizes."""
    counts, accuracy = np.array(class_counts), 100 * np.array(per_class, dtype=float)
    sizes, bins = np.unique(counts, return_inverse=True)
    if len(sizes) > MOST_SIZES:
        edges = np.geomspace(counts.min(), counts.max(), SIZE_BINS + 1)[1:-1]
        bins = np.unique(np.digitize(counts, edges), return_inverse=True)[1]
        # In the middle of a logarithmic axis.
        sizes = np.exp([np.log(counts[bins == number]).mean() for number in range(bins.max() + 1)])
    of_bins = [over_seeds(accuracy[:, bins == one].T)[0] for one in range(len(sizes))]
    return curve_of(sizes, np.stack(of_bins, axis=1))


def draw_lines(
    axes: Any, lines: Sequence[Line], floor: float = -np.inf, most_markers: int = MOST_SIZES
) -> None:
    """Draws lines, with bands of one deviation, from `floor` on, unless they are too many."""
    for line in lines:
        x, mean, spread = line.curve
        every = max(1, math.ceil(len(x) / most_markers))
        axes.plot(x, mean, label=line.label, markevery=every, **line.style)
        if len(lines) <= MOST_BANDS:
            lower, upper = np.maximum(mean - spread, floor), mean + spread
            axes.fill_between(x, lower, upper, color=line.style["color"], alpha=0.15, lw=0)
    axes.grid(alpha=0.3)


def draw_class_sizes(axes: Any, lines: Sequence[Line], images: str) -> None:
    """Draws accuracies on such images, in percent, by class size, the head's on the left."""
    draw_lines(axes, lines)
    axes.set_xscale("log")
    axes.invert_xaxis()
    mark_sizes(axes, np.unique(np.concatenate([line.curve.x for line in lines])))
    axes.set_xlabel("training images of the class (log scale)")
    axes.set(ylabel=f"accuracy of the class\non {images} (%)", ylim=(-3, 103))
