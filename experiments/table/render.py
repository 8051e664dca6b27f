"""A table as text, Markdown for people and CSV for programs, and as a picture."""

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.curves import Line, by_class_size, draw_class_sizes
from experiments.presentation import (
    COLORS,
    MEASURES,
    deviation,
    evaluated_images,
    lines_of_panels,
    markdown_table,
    mean_and_deviation,
    picture,
    run_styles,
)
from experiments.table.plan import SECONDS, Entry, Plan

_DAGGER = "†"
_MOST_PANELS_IN_A_LINE = 4
_OURS = {"fmt": "o", "markersize": 5, "color": COLORS[6], "capsize": 3, "label": "ours"}
_PUBLISHED = {"markersize": 6, "color": COLORS[5], "fillstyle": "none"}


def format_markdown(
    plan: Plan, entries: Sequence[Entry], seeds: Sequence[int], present_code: str
) -> str:
    """Renders accuracies in percent: mean and sample deviation over seeds, published in brackets.

    A cell of fewer than all `seeds` says how many; one of other code than the present, a dagger.
    """
    headings = list(dict.fromkeys(heading(plan, entry) for entry in entries))
    texts = {
        (entry.cell.row, heading(plan, entry)): _cell_text(plan, entry, len(seeds), present_code)
        for entry in entries
    }
    rows = [
        [row, *(texts.get((row, column), "") for column in headings)]
        for row in dict.fromkeys(cell.row for cell in plan.cells)
    ]
    table = markdown_table(["method" if plan.compares_methods else "", *headings], rows)
    over = ", mean ± sample deviation over" if len(seeds) > 1 else " of"
    text = f"Accuracy in percent{over} {_listed(seeds)}"
    if any(entry.published is not None for entry in entries):
        text += "; published in brackets"
    paragraphs = [plan.title, table, text + ".", *plan.notes, *_footnote(entries, present_code)]
    return "\n\n".join(paragraphs)


def heading(plan: Plan, entry: Entry) -> str:
    """Returns the heading of the column that an entry stands in."""
    return MEASURES.get(entry.measure, SECONDS) if plan.by_group else entry.cell.column


def _cell_text(plan: Plan, entry: Entry, wanted: int, present_code: str) -> str:
    values = list(entry.values.values())
    parts = [mean_and_deviation(values, 1 if plan.compares_methods else 2)] if values else []
    if entry.published is not None:
        parts.append(f"({entry.published:.2f})")
    if len(entry.values) < wanted:
        parts.append(f"n={len(entry.values)}")
    if any(versions != (present_code,) for versions in entry.code.values()):
        parts.append(_DAGGER)
    return " ".join(parts)


def _footnote(entries: Sequence[Entry], present_code: str) -> list[str]:
    """Returns which runs another code than the present one trained, a line for each version."""
    runs: dict[tuple[str, ...], dict[str, dict[int, None]]] = {}
    for entry in entries:
        for seed, versions in entry.code.items():
            if versions != (present_code,):
                runs.setdefault(versions, {}).setdefault(entry.cell.name, {})[seed] = None
    lines = [
        f"- {' then '.join(versions) or 'unknown'}: "
        + ", ".join(f"{name} {_listed(seeds)}" for name, seeds in of_version.items())
        for versions, of_version in runs.items()
    ]
    head = f"{_DAGGER} Not, or not alone, trained by the present version of the code, "
    return [f"{head}{present_code}:", "\n".join(lines)] if runs else []


def _listed(seeds: Collection[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}"


def write_csv(path: Path, entries: Iterable[Entry]) -> None:
    """Writes one line an entry; versions of the code that trained one run are joined by +."""
    lines = [_csv_line(entry) for entry in entries]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def _csv_line(entry: Entry) -> dict[str, object]:
    cell, values = entry.cell, np.array(list(entry.values.values()))
    known = len(values) > 0 and not np.isnan(values).any()
    return {
        "recipe": cell.key,
        "row": cell.row,
        "column": cell.column,
        "measure": entry.measure,
        "mean": f"{values.mean():.4f}" if known else "",
        "deviation": f"{deviation(values):.4f}" if known and len(values) > 1 else "",
        "seeds": " ".join(map(str, entry.values)),
        "published": "" if entry.published is None else entry.published,
        "code": " ".join("+".join(versions) for versions in entry.code.values()),
    }


def draw_table(plan: Plan, entries: Sequence[Entry], path: Path) -> None:
    """Draws means with sample deviations, and published numbers beside them, as a PNG."""
    rows = list(dict.fromkeys(cell.row for cell in plan.cells))
    entries = [entry for entry in entries if entry.measure != SECONDS]
    panels = list(dict.fromkeys(heading(plan, entry) for entry in entries))
    lines, width = lines_of_panels(len(panels), _MOST_PANELS_IN_A_LINE)
    size = (2.5 + 2.6 * width, lines * (1.3 + 0.3 * len(rows)))
    with picture(path, lines, width, size, sharey=True) as (figure, axes):
        for panel, place in zip(panels, axes.flat, strict=False):
            shown = [entry for entry in entries if heading(plan, entry) == panel]
            _draw_ours(place, rows, shown)
            _draw_published(place, rows, shown if plan.comparable else [])
            place.set_title(panel, fontsize="medium")
        figure.suptitle(plan.title)
        images = evaluated_images(plan.recipes.values())
        figure.supxlabel(f"accuracy on {images} (%)", fontsize="medium")
        handles = {
            label: handle
            for place in axes.flat
            for handle, label in zip(*place.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower right")


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
    class_counts: Sequence[int],
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    path: Path,
    images: str,
) -> None:
    """Draws accuracy on such images by class size as a PNG, a line for each method's results."""
    lines = []
    for (label, results), style in zip(runs.items(), run_styles(list(runs)), strict=True):
        curve = by_class_size(class_counts, [run["per_class"] for run in results])
        lines += [Line(label, curve, style)] if curve is not None else []
    with picture(path, 1, 1, (8, 5)) as (_, [[axes]]):
        draw_class_sizes(axes, lines, images)
        seeds = max(map(len, runs.values()))
        over = f", mean and deviation over {seeds} seeds" if seeds > 1 else ""
        axes.set_title(f"Accuracy by class{over}")
        axes.legend()
