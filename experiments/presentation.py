"""How the tables and pictures of this package show numbers: names, colors, deviations."""

import collections
import contextlib
import csv
import io
import logging
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

# Okabe and Ito's colors, told apart by color-blind readers; markers serve print without color.
COLORS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#999999")
MARKERS = "osD^vPX*"
LINES = ("-", "--", ":", "-.")
METHODS = {
    "sgd": "SGD",
    "sam": "SAM",
    "imb_sam": "ImbSAM",
    "sse_sam": "SSE-SAM",
    "focal_sam": "Focal-SAM",
    "cc_sam": "CC-SAM",
    "gradient_norm_penalty": "gradient-norm penalty",
    "random_perturbation": "random perturbation",
}
"""From a method in a recipe to its name, in the order of every table and picture; each has the
color and the marker of its place."""
MEASURES = {"many": "many", "medium": "medium", "few": "few", "accuracy": "all"}
"""From the name of an accuracy in a result to its heading: of a group of classes, or of all."""


_logger = logging.getLogger(__name__)

NO_GLYPH = "Glyph |Matplotlib currently does not support"
"""How matplotlib's warnings begin about a character that its fonts lack."""

# Controls and halves of characters, which XML has not, and of which a terminal may obey the former.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")  # what stands beside a name around
_EVALUATED = {"test": "test", "val": "validation"}
_LEGEND_LINE = 0.25  # inches
# So many times the one before must a marked class size be, for their numbers not to touch.
_APART = 1.4


def printable(text: str) -> str:
    """Returns a name in one line, with a sign in place of what neither XML nor a terminal shows.

    One that is written from right to left is kept from turning what stands beside it.
    """
    text = _UNFIT.sub("\N{REPLACEMENT CHARACTER}", " ".join(_TURNS.sub("", text).split()))
    if any(unicodedata.bidirectional(one) in ("R", "AL") for one in text):
        return f"\N{FIRST STRONG ISOLATE}{text}\N{POP DIRECTIONAL ISOLATE}"
    return text


def path_label(path: Path) -> str:
    """Returns a relative path as a label; matplotlib's legends leave out what begins with _."""
    return f"./{path}" if str(path).startswith("_") else str(path)


def evaluated_images(recipes: Iterable[Any]) -> str:
    """Returns in words which images recipes, of runs or not yet trained, are evaluated on."""
    kinds = {
        "held-out" if one.data.holds_out else _EVALUATED[one.evaluation.images] for one in recipes
    }
    return f"{kinds.pop() if len(kinds) == 1 else 'evaluated'} images"


def method_name(label: str) -> str:
    """Returns a label with a method in place of its recipe's word: Focal-SAM for focal_sam.

    What finetune puts behind the word stays, as in SGD baseline for sgd_baseline.
    """
    before, slash, last = label.rpartition("/")
    word, mark = _parted(last)
    return f"{before}{slash}{METHODS.get(word, word)}{mark.replace('_', ' ')}"


def _parted(name: str) -> tuple[str, str]:
    found = re.fullmatch(rf"({'|'.join(METHODS)})((?:_baseline)?(?:_[a-z]+_lr)?)", name)
    return (found[1], found[2]) if found else (name, "")


def place_of(method: str) -> int:
    """Returns where a method, named as a recipe or as a table does, stands; others come last.

    A label of a path is its last word's.
    """
    method = _parted(method.rpartition("/")[2])[0]
    orders = (list(METHODS), list(METHODS.values()))
    return next((order.index(method) for order in orders if method in order), len(METHODS))


def run_styles(names: Sequence[str]) -> list[dict[str, str]]:
    """Returns color, marker and line of each row, of whose methods these are the names.

    A method has its own color beside whatever else. Rows of one method differ in marker and line;
    where no row is of another, they are numbered through the colors. What is no method takes a
    color that is free. All are different up to the 32nd row of a method.
    """
    places = {name: place_of(name.partition(",")[0]) for name in names}
    free = [place for place in range(len(COLORS)) if place not in places.values()] or [0]
    others = [name for name, place in places.items() if place == len(METHODS)]
    places |= {name: free[number % len(free)] for number, name in enumerate(others)}
    seen: dict[int, int] = collections.Counter()
    styles = []
    for place in (places[name] for name in names):
        turns, before = divmod(seen[place], len(COLORS))
        seen[place] += 1
        number = (place + before) % len(COLORS)
        color, line = (number, turns) if len(places) == 1 else (place, before + turns)
        style = {"color": COLORS[color], "marker": MARKERS[number]}
        styles.append({**style, "linestyle": LINES[line % len(LINES)]})
    return styles


@contextlib.contextmanager
def picture(
    path: Path, lines: int, columns: int, figsize: tuple[float, float], **options: Any
) -> Iterator[tuple[Any, Any]]:
    """Yields a figure and its panels, (lines, columns) axes, and writes it as a PNG.

    Panels on which nothing is drawn are not shown. Further options are of `Figure.subplots`. Names
    may have characters that matplotlib's fonts lack, which the log says once; a dollar in one is no
    formula.
    """
    # After the flags are read: it takes its time.
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    figure = Figure(figsize, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, **options)
    yield figure, panels
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
    # Numbers at a logarithmic axis are formulas: they are written when the figure is drawn.
    for text in figure.findobj(Text):
        if text.get_text():
            text.set_parse_math(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", NO_GLYPH)
        figure.savefig(path, dpi=150)
    others = [one for one in caught if not re.match(NO_GLYPH, str(one.message))]
    for one in others:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if len(others) < len(caught):
        _logger.warning("%s shows boxes for characters that matplotlib's fonts lack", path)


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


def best_places(values: Sequence[Any] | np.ndarray, decimals: int) -> list[int]:
    """Returns which of several numbers are the highest as they are written; none of one or NaN."""
    rounded = np.round(np.array(values, float), decimals)
    if np.isfinite(rounded).sum() < 2:
        return []
    return np.flatnonzero(rounded == np.nanmax(rounded)).tolist()


def csv_writer(text: io.TextIOBase) -> Any:
    """Returns a writer with all texts in quotation marks: a name may hold line ends of any kind."""
    return csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[Any]], left: int = 1) -> str:
    """Renders rows as Markdown, of which the first columns, `left`, hold words.

    A name with a line end or a bar stays in its cell.
    """
    headers, *cells = [
        [printable(str(cell)).replace("|", r"\|") for cell in row] for row in (headers, *rows)
    ]
    alignment = ("left",) * left + ("right",) * (len(headers) - left)
    return tabulate(cells, headers, tablefmt="github", colalign=alignment, disable_numparse=True)
