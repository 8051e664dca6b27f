"""Pictures of a page: small panels that a phone shows at full width, as SVG."""

import base64
import functools
import io
import textwrap
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from experiments.curves import Curve, Line, draw_class_sizes, draw_lines
from experiments.presentation import COLORS, NO_GLYPH
from experiments.report.page import Picture
from experiments.report.rows import SeedsRow

_WIDTH, _BROAD, _HEIGHT = 4.6, 10.0, 3.3  # inches
_LEGEND_LINE = 0.23  # inches
_LEGEND_WIDTH = 52  # letters
_LABEL_WIDTH = 26  # letters
_HALF = "\0"  # of a character that is as wide as two letters
_MARKERS_A_LINE = 8
_LOG_FROM = 100  # times the smallest number, from which the axis is logarithmic
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
    # The browser has fonts for all the scripts that names are written in.
    "svg.fonttype": "none",
    # Matplotlib measures texts by the first; where a browser lacks it, the others are no wider.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Roboto", "Arial"],
}
# Of the four places, correct first; the darkest is what the network gets wrong most.
_COLORS = {"correct": COLORS[3], "many": COLORS[6], "medium": COLORS[2], "few": COLORS[1]}
_SMALLEST_WRITTEN = 0.09  # a share whose bar has room for its number


def row_lines(rows: Sequence[SeedsRow], of: Callable[[SeedsRow], Curve | None]) -> list[Line]:
    """Returns a line for each row that `of` makes a curve of."""
    found = [(row, of(row)) for row in rows]
    return [Line(row.label, one, row.style) for row, one in found if one is not None]


def _stretched(text: str) -> str:
    return "".join(_HALF * (unicodedata.east_asian_width(one) in "WF") + one for one in text)


def filled(text: str, letters: int) -> str:
    """Breaks a text into lines of so many letters, as which Chinese characters count twice."""
    return textwrap.fill(_stretched(text), letters).replace(_HALF, "")


def shortened(text: str, letters: int) -> str:
    """Cuts a text to so many letters, as which Chinese characters count twice."""
    wide = _stretched(text)
    if len(wide) <= letters:
        return text
    return wide[: letters - 1].replace(_HALF, "").rstrip() + "\N{HORIZONTAL ELLIPSIS}"


def draw(
    caption: str,
    alternative: str,
    onto: Callable[[Any], None],
    reading: str,
    *,
    height: float = _HEIGHT,
    alone: bool = False,
) -> Picture:
    """Draws a panel by `onto`; what that labels gets a legend below, unless it makes its own.

    A picture that stands `alone` is drawn once more for the width of a desktop's page.
    """
    uri = _drawn(onto, _WIDTH, height)
    broad = _drawn(onto, _BROAD, height + 0.4) if alone else None
    return Picture(uri, caption, alternative, reading, broad_uri=broad)


def _drawn(onto: Callable[[Any], None], width: float, height: float) -> str:
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", NO_GLYPH)
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        onto(axes)
        if axes.get_legend() is None:
            _legend_below(figure, axes, int(_LEGEND_WIDTH * width / _WIDTH))
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri(file.getvalue(), "image/svg+xml")


def data_uri(contents: bytes, kind: str) -> str:
    """Returns an address that holds the contents themselves."""
    return f"data:{kind};base64,{base64.b64encode(contents).decode('ascii')}"


def _legend_below(figure: Figure, axes: Any, letters: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    labels = [filled(label, letters) for label in labels]
    longest = max(len(_stretched(line)) for label in labels for line in label.splitlines())
    columns = max(1, min(8, len(labels), letters // (longest + 6)))
    heights = [label.count("\n") + 1 for label in labels]
    lines = sum(max(heights[row : row + columns]) for row in range(0, len(heights), columns))
    figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * lines)
    # A legend fills columns, and is read line by line.
    order = [n for first in range(columns) for n in range(first, len(labels), columns)]
    figure.legend(
        [handles[number] for number in order],
        [labels[number] for number in order],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )


def draw_over_steps(
    caption: str,
    what: str,
    lines: Sequence[Line],
    reading: str,
    *,
    limits: tuple[float, float] | None = None,
    alone: bool = False,
) -> Picture:
    """Draws numbers over steps, within limits or those of the lines.

    Args:
        caption: of the picture.
        what: the numbers are, with their unit.
        lines: of means over seeds.
        reading: how to read it.
        limits: of the numbers, none for those of the lines.
        alone: as of `draw`.
    """
    values = np.concatenate([line.curve.mean for line in lines])
    logarithmic = 0 < _LOG_FROM * values.min() < values.max()
    # A deviation may exceed its mean, where a logarithmic axis has no end.
    floor = values.min() / 2 if logarithmic else -np.inf

    def onto(axes: Any) -> None:
        draw_lines(axes, lines, floor, _MARKERS_A_LINE)
        if logarithmic:
            axes.set_yscale("log")
            axes.set_ylim(bottom=floor)
            # The usual labels are formulas.
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        if limits is not None:
            margin = 0.04 * (limits[1] - limits[0])
            axes.set_ylim(limits[0] - margin, limits[1] + margin)
        axes.set(xlabel="training step", ylabel=what)

    last = ", ".join(f"{line.label} {line.curve.mean[-1]:.3g}" for line in lines)
    alternative = f"{caption} over training steps, {' '.join(what.split())}. At the end: {last}."
    return draw(caption, alternative, onto, reading, alone=alone)


def draw_by_size(caption: str, lines: Sequence[Line], images: str) -> Picture:
    """Draws accuracies on such images, in percent, against class sizes."""
    ends = ", ".join(
        f"{label} {mean[-1]:.3g} at {sizes[-1]:.3g} images and {mean[0]:.3g} at {sizes[0]:.3g}"
        for label, (sizes, mean, _), _ in lines
    )
    onto = functools.partial(draw_class_sizes, lines=lines, images=images)
    reading = (
        "Classes with the most training images are on the left: the less a line falls to the "
        "right, the better its rare classes."
    )
    return draw(caption, f"{caption} on {images}, in percent: {ends}.", onto, reading, alone=True)


def draw_places(caption: str, shares: Mapping[str, Mapping[str, float]], images: str) -> Picture:
    """Draws one stacked bar a row: shares of a group's images by where they are classified."""
    numbers = range(len(shares))

    def onto(axes: Any) -> None:
        left = np.zeros(len(shares))
        for place, color in _COLORS.items():
            widths = np.array([row[place] for row in shares.values()])
            label = place if place == "correct" else f"wrong, as {place}"
            bars = axes.barh(
                numbers, 100 * widths, left=100 * left, color=color, edgecolor="white", label=label
            )
            ink = "white" if place in ("correct", "many") else "black"
            texts = [f"{100 * one:.0f}" if one >= _SMALLEST_WRITTEN else "" for one in widths]
            axes.bar_label(bars, texts, label_type="center", color=ink, fontsize=9)
            left += widths
        axes.set_yticks(numbers, [filled(label, _LABEL_WIDTH) for label in shares])
        axes.set(ylim=(len(shares) - 0.5, -0.5), xlim=(0, 100))
        axes.set_xlabel(f"{images} of the group (%)")

    words = "; ".join(
        f"{label}: " + ", ".join(f"{place} {100 * share:.0f}" for place, share in row.items())
        for label, row in shares.items()
    )
    reading = "The longer the green part the better; the others say what the mistakes fall for."
    height = 1.3 + 0.34 * len(shares)
    return draw(caption, f"{caption}, in percent. {words}.", onto, reading, height=height)
