"""A table as a picture: a panel for each of its columns, methods from top to bottom."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from experiments.presentation import COLOURS, deviation
from experiments.table.plan import SECONDS, Plan
from experiments.table.render import heading
from experiments.table.results import Entry

mpl.use("Agg")
from matplotlib import pyplot as plt

_MOST_PANELS_IN_A_LINE = 4
_OURS, _PUBLISHED = COLOURS[6], COLOURS[5]


def draw(plan: Plan, entries: Sequence[Entry], path: Path) -> None:
    """Draws means with sample deviations, and published numbers beside them.

    Args:
        plan: of the table.
        entries: its numbers.
        path: of the PNG.
    """
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    entries = [entry for entry in entries if entry.measure != SECONDS]
    panels = list(dict.fromkeys(heading(plan, entry) for entry in entries))
    lines = math.ceil(len(panels) / _MOST_PANELS_IN_A_LINE)
    width = math.ceil(len(panels) / lines)
    figure, axes = plt.subplots(
        lines,
        width,
        figsize=(2.5 + 2.6 * width, lines * (1.3 + 0.3 * len(rows))),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
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
    plt.close(figure)


def _draw_ours(axes: Any, rows: list[str], entries: Sequence[Entry]) -> None:
    for entry in entries:
        values = np.array(list(entry.values.values()))
        if len(values) and not np.isnan(values).any():
            axes.errorbar(
                values.mean(),
                rows.index(entry.cell.row),
                xerr=deviation(values) if len(values) > 1 else None,
                fmt="o",
                markersize=5,
                color=_OURS,
                capsize=3,
                label="ours",
            )
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(alpha=0.3)


def _draw_published(axes: Any, rows: list[str], entries: Sequence[Entry]) -> None:
    known = [entry for entry in entries if entry.published is not None]
    axes.plot(
        [entry.published for entry in known],
        [rows.index(entry.cell.row) for entry in known],
        "D",
        markersize=6,
        color=_PUBLISHED,
        fillstyle="none",
        label="published" if known else None,
    )
