"""How the tables and pictures of this package show numbers: names, colors, deviations."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

# Okabe and Ito's colors, told apart by color-blind readers; markers serve print without color.
COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#999999")
MARKERS = "osD^vPX*"
MEASURES = {"many": "many", "medium": "medium", "few": "few", "accuracy": "all"}
"""From the name of an accuracy in a result to its heading: of a group of classes, or of all."""

_LEGEND_LINE = 0.25  # inches
# So many times the one before must a marked class size be, for their numbers not to touch.
_APART = 1.4


def run_styles() -> Iterator[dict[str, str]]:
    """Yields a color and a marker for each run, the same again after the eighth."""
    for color, marker in itertools.cycle(zip(COLORS, MARKERS, strict=True)):
        yield {"color": color, "marker": marker}


@contextlib.contextmanager
def picture(
    path: Path, lines: int, columns: int, figsize: tuple[float, float], **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Yields a figure and its panels, (lines, columns) axes, and writes it as a PNG.

    Panels on which nothing is drawn are not shown. Further options are of `Figure.subplots`.
    """
    # After the flags are read: it takes its time.
    from matplotlib.figure import Figure

    figure = Figure(figsize, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, **options)
    yield figure, panels
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
    figure.savefig(path, dpi=150)


def lines_of_panels(number: int, most: int) -> tuple[int, int]:
    """Returns lines and columns for a number of panels, at most so many in a line."""
    lines = math.ceil(number / most)
    return lines, math.ceil(number / lines)


def legend_beside(figure: Any, axes: Any) -> None:
    """Puts the legend of `axes` beside all panels, in a figure that is high enough for it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.set_figheight(max(figure.get_figheight(), _LEGEND_LINE * (len(labels) + 1)))
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")


def mark_sizes(axes: Any, sizes: np.ndarray) -> None:
    """Marks the ends of an axis of class sizes, and between them 1, 2, 5 of each power of ten."""
    low, high = sizes.min(), sizes.max()
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    round_numbers = [digit * 10.0**exponent for exponent in exponents for digit in (1, 2, 5)]
    between = [one for one in round_numbers if low * _APART < one < high / _APART]
    marked = sorted({low, *between, high})
    axes.set_xticks(marked, [f"{number:.0f}" for number in marked])
    axes.minorticks_off()


def percent(value: float | None) -> float:
    """Returns a share in percent, NaN for the None of a group without class."""
    return float("nan") if value is None else 100 * value


def deviation(values: np.ndarray) -> np.ndarray:
    """Returns the sample deviation over the first axis, 0 for a single value."""
    return values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1:])


def mean_and_deviation(values: Sequence[float] | np.ndarray, decimals: int) -> str:
    """Writes `mean ± deviation`, the mean alone for a single value, and - where one is NaN."""
    array = np.array(values)
    if np.isnan(array).any():
        return "-"
    spread = f" ± {deviation(array):.{decimals}f}" if len(array) > 1 else ""
    return f"{array.mean():.{decimals}f}{spread}"


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Renders rows as Markdown, of which the first columns, `left`, hold words."""
    alignment = ("left",) * left + ("right",) * (len(headers) - left)
    return tabulate(rows, headers, tablefmt="github", colalign=alignment, disable_numparse=True)
