"""Pictures of a page: small panels that a phone shows at full width, as SVG."""

import base64
import dataclasses
import io
import itertools
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.presentation import COLOURS, mark_sizes, run_styles
from experiments.report.page import Picture
from experiments.report.rows import Curve, SeedsRow

_WIDTH, _HEIGHT = 4.6, 3.3  # inches
_LEGEND_LINE = 0.23  # inches
_LEGEND_WIDTH = 52  # letters
_LABEL_WIDTH = 26  # letters
_MARKERS_A_LINE = 8
MOST_BANDS = len(COLOURS)
"""Bands of more lines would cover each other."""
_LOG_FROM = 100
"""So many times the smallest number must the largest be for a logarithmic axis."""
_LINES = ("-", "--", ":", "-.")
_SETTINGS: dict[Any, Any] = {
    "font.size": 11,
    "legend.fontsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.6,
    # A dollar in a directory's name is no formula.
    "text.parse_math": False,
    # The same runs give the same bytes.
    "svg.hashsalt": "jaxlt",
}
# Of the four places, correct first; the darkest is what the network gets wrong most.
_PLACE_COLOURS = {
    "correct": COLOURS[3],
    "many": COLOURS[6],
    "medium": COLOURS[2],
    "few": COLOURS[1],
}
_SMALLEST_WRITTEN = 0.09
"""Shares from here on leave room for their number."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a panel.

    Attributes:
        label: in the legend.
        curve: what it shows.
        style: of `row_styles`.
    """

    label: str
    curve: Curve
    style: Mapping[str, str]


def row_styles() -> Iterator[dict[str, str]]:
    """Yields a colour, a marker and a dash for each row, all different up to the 32nd."""
    for number, style in enumerate(run_styles()):
        yield {**style, "linestyle": _LINES[number // len(COLOURS) % len(_LINES)]}


def row_lines(rows: Sequence[SeedsRow], of: Callable[[SeedsRow], Curve | None]) -> list[Line]:
    """Returns a line for each row that `of` makes a curve of."""
    found = [(row, of(row), style) for row, style in zip(rows, row_styles(), strict=False)]
    return [Line(row.label, one, style) for row, one, style in found if one is not None]


def draw(
    caption: str, alternative: str, onto: Callable[[Any], None], height: float = _HEIGHT
) -> Picture:
    """Draws a panel.

    Args:
        caption: of the picture.
        alternative: what it shows, in words.
        onto: draws on the axes. What it labels gets a legend below, unless it makes its own.
        height: in inches, without legend.
    """
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        onto(axes)
        if axes.get_legend() is None:
            _legend_below(figure, axes)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return Picture(data_uri(file.getvalue(), "image/svg+xml"), caption, alternative)


def data_uri(contents: bytes, kind: str) -> str:
    """Returns an address that holds the contents themselves."""
    return f"data:{kind};base64,{base64.b64encode(contents).decode('ascii')}"


def draw_lines(
    caption: str, unit: str, lines: Sequence[Line], limits: tuple[float, float] | None = None
) -> Picture:
    """Draws numbers over steps, with bands of one deviation to either side.

    Args:
        caption: of the picture.
        unit: what the numbers are, for the axis.
        lines: at least one.
        limits: of the numbers; None for those of the lines.
    """
    values = np.concatenate([line.curve.mean for line in lines])
    logarithmic = 0 < _LOG_FROM * values.min() < values.max()
    # A deviation may exceed its mean, where a logarithmic axis has no end.
    floor = values.min() / 2 if logarithmic else -np.inf

    def onto(axes: Any) -> None:
        for line in lines:
            steps, mean, _ = line.curve
            every = max(1, math.ceil(len(steps) / _MARKERS_A_LINE))
            axes.plot(steps, mean, label=line.label, markevery=every, **line.style)
            _draw_band(axes, line, len(lines), floor)
        if logarithmic:
            axes.set_yscale("log")
            axes.set_ylim(bottom=floor)
            # The usual labels are formulas.
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        if limits is not None:
            margin = 0.04 * (limits[1] - limits[0])
            axes.set_ylim(limits[0] - margin, limits[1] + margin)
        axes.set_xlabel("training step")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)

    last = ", ".join(f"{line.label} {line.curve.mean[-1]:.3g}" for line in lines)
    return draw(caption, f"{caption} over training steps, {unit}. At the end: {last}.", onto)


def draw_by_size(caption: str, lines: Sequence[Line]) -> Picture:
    """Draws accuracies in percent against class sizes, which stand in place of steps."""

    def onto(axes: Any) -> None:
        for line in lines:
            axes.plot(line.curve.steps, line.curve.mean, label=line.label, **line.style)
            _draw_band(axes, line, len(lines))
        axes.set_xscale("log")
        axes.invert_xaxis()
        mark_sizes(axes, np.unique(np.concatenate([line.curve.steps for line in lines])))
        axes.set_xlabel("training images of the class (log scale)")
        axes.set_ylabel("test accuracy of the class (%)")
        axes.set_ylim(-3, 103)
        axes.grid(alpha=0.3)

    ends = ", ".join(
        f"{line.label} {line.curve.mean[-1]:.3g} at {line.curve.steps[-1]:.3g} images and "
        f"{line.curve.mean[0]:.3g} at {line.curve.steps[0]:.3g}"
        for line in lines
    )
    return draw(caption, f"{caption}, in percent: {ends}.", onto)


def _draw_band(axes: Any, line: Line, number_of_lines: int, floor: float = -np.inf) -> None:
    if number_of_lines <= MOST_BANDS:
        x, mean, spread = line.curve
        lower, upper = np.maximum(mean - spread, floor), mean + spread
        axes.fill_between(x, lower, upper, color=line.style["color"], alpha=0.15, lw=0)


def draw_places(caption: str, shares: Mapping[str, Mapping[str, float]]) -> Picture:
    """Draws one stacked bar a row: shares of a group's images by where they are classified.

    Args:
        caption: of the picture.
        shares: for each row's label the shares under "correct", "many", "medium" and "few".
    """

    def onto(axes: Any) -> None:
        left = np.zeros(len(shares))
        for place, colour in _PLACE_COLOURS.items():
            widths = np.array([row[place] for row in shares.values()])
            label = place if place == "correct" else f"wrong, as {place}"
            axes.barh(
                range(len(shares)),
                100 * widths,
                left=100 * left,
                color=colour,
                edgecolor="white",
                label=label,
            )
            for number, (start, width) in enumerate(zip(left, widths, strict=True)):
                if width >= _SMALLEST_WRITTEN:
                    ink = "white" if place in ("correct", "many") else "black"
                    middle = 100 * (start + width / 2)
                    text = f"{100 * width:.0f}"
                    axes.text(middle, number, text, ha="center", va="center", color=ink, fontsize=9)
            left += widths
        labels = [textwrap.fill(label, _LABEL_WIDTH) for label in shares]
        axes.set_yticks(range(len(shares)), labels)
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("test images of the group (%)")

    words = "; ".join(
        f"{label}: " + ", ".join(f"{place} {100 * share:.0f}" for place, share in row.items())
        for label, row in shares.items()
    )
    return draw(caption, f"{caption}, in percent. {words}.", onto, height=1.3 + 0.34 * len(shares))


def _legend_below(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    labels = [textwrap.fill(label, _LEGEND_WIDTH) for label in labels]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = max(1, min(4, len(labels), _LEGEND_WIDTH // (longest + 6)))
    heights = [label.count("\n") + 1 for label in labels]
    lines = sum(max(heights[row : row + columns]) for row in range(0, len(heights), columns))
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * lines)
    figure.legend(
        *_by_line(handles, labels, columns),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )


def _by_line(handles: list[Any], labels: list[str], columns: int) -> tuple[list[Any], list[str]]:
    """Orders entries so that a legend, which fills columns, is read line by line."""
    pairs = list(zip(handles, labels, strict=True))
    ordered = list(itertools.chain.from_iterable(pairs[first::columns] for first in range(columns)))
    return [handle for handle, _ in ordered], [label for _, label in ordered]
