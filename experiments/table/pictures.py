"""A table as a picture, a panel for each of its columns; and methods compared class by class."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.curves import Line, by_class_size, draw_class_sizes
from experiments.presentation import COLORS, deviation, lines_of_panels, picture, run_styles
from experiments.table.plan import SECONDS, Plan
from experiments.table.render import heading
from experiments.table.results import Entry

_MOST_PANELS_IN_A_LINE = 4
_OURS = {"fmt": "o", "markersize": 5, "color": COLORS[6], "capsize": 3, "label": "ours"}
_PUBLISHED = {"markersize": 6, "color": COLORS[5], "fillstyle": "none"}


def draw_table(plan: Plan, entries: Sequence[Entry], path: Path) -> None:
    """Draws means with sample deviations, and published numbers beside them, as a PNG."""
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    entries = [entry for entry in entries if entry.measure != SECONDS]
    panels = list(dict.fromkeys(heading(plan, entry) for entry in entries))
    lines, width = lines_of_panels(len(panels), _MOST_PANELS_IN_A_LINE)
    figure = Figure((2.5 + 2.6 * width, lines * (1.3 + 0.3 * len(rows))), layout="constrained")
    axes = figure.subplots(lines, width, sharey=True, squeeze=False)
    for panel, place in zip(panels, axes.flat, strict=False):
        shown = [entry for entry in entries if heading(plan, entry) == panel]
        _draw_ours(place, rows, shown)
        if plan.comparable:
            _draw_published(place, rows, shown)
        place.set_title(panel, fontsize="medium")
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    figure.suptitle(plan.title)
    figure.supxlabel("test accuracy (%)", fontsize="medium")
    handles = {
        label: handle
        for place in axes.flat
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower right")
    figure.savefig(path, dpi=150)


def _draw_ours(axes: Any, rows: list[str], entries: Sequence[Entry]) -> None:
    for entry in entries:
        values = np.array(list(entry.values.values()))
        if len(values) and not np.isnan(values).any():
            spread = deviation(values) if len(values) > 1 else None
            axes.errorbar(values.mean(), rows.index(entry.cell.row), xerr=spread, **_OURS)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3)


def _draw_published(axes: Any, rows: list[str], entries: Sequence[Entry]) -> None:
    known = [entry for entry in entries if entry.published is not None]
    numbers = [entry.published for entry in known]
    places = [rows.index(entry.cell.row) for entry in known]
    axes.plot(numbers, places, "D", label="published" if known else None, **_PUBLISHED)


def draw_by_class(
    class_counts: Sequence[int], runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path
) -> None:
    """Draws accuracy by class size as a PNG, one line for the results under each method's label."""
    lines = []
    for (label, results), style in zip(runs.items(), run_styles(), strict=False):
        curve = by_class_size(class_counts, [run["per_class"] for run in results])
        lines += [Line(label, curve, style)] if curve is not None else []
    with picture(path, 1, 1, (8, 5)) as (_, [[axes]]):
        draw_class_sizes(axes, lines)
        seeds = max(map(len, runs.values()))
        axes.set_title(f"Accuracy by class, mean and deviation over {seeds} seeds")
        axes.legend()
