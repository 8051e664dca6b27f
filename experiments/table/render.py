"""A table as text: Markdown for people, CSV for programs."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tabulate import tabulate

from experiments.presentation import MEASURES, deviation, mean_and_deviation
from experiments.table.plan import SECONDS, Plan
from experiments.table.results import Entry

_DAGGER = "†"
_CSV_COLUMNS = (
    "recipe",
    "row",
    "column",
    "measure",
    "mean",
    "deviation",
    "seeds",
    "published",
    "code",
)


def format_markdown(
    plan: Plan, entries: Sequence[Entry], seeds: Sequence[int], present_code: str
) -> str:
    """Renders accuracies in percent: mean and sample deviation over seeds, published in brackets.

    Args:
        plan: of the table.
        entries: its numbers.
        seeds: those that were asked for; a cell with fewer says how many it has.
        present_code: version of the code; a cell of another, or of several, gets a dagger.
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
    alignment = ("left", *("right" for _ in headings))
    table = tabulate(
        rows, [plan.corner, *headings], tablefmt="github", colalign=alignment, disable_numparse=True
    )
    text = f"Accuracy in percent, mean ± sample deviation over {_listed(seeds, 'seed')}"
    if any(entry.published is not None for entry in entries):
        text += "; published in brackets"
    paragraphs = [plan.title, table, text + ".", *plan.notes, *_footnote(entries, present_code)]
    return "\n\n".join(paragraphs)


def heading(plan: Plan, entry: Entry) -> str:
    """Returns the heading of the column that an entry stands in."""
    return MEASURES.get(entry.measure, SECONDS) if plan.by_group else entry.cell.column


def _cell_text(plan: Plan, entry: Entry, wanted: int, present_code: str) -> str:
    values = list(entry.values.values())
    parts = [mean_and_deviation(values, plan.decimals)] if values else []
    if entry.published is not None:
        parts.append(f"({entry.published:.2f})")
    if len(entry.values) < wanted:
        parts.append(f"n={len(entry.values)}")
    if not entry.is_trained_by(present_code):
        parts.append(_DAGGER)
    return " ".join(parts)


def _footnote(entries: Sequence[Entry], present_code: str) -> list[str]:
    """Returns which runs another code than the present one trained, a line for each version."""
    runs: dict[tuple[str, ...], dict[str, list[int]]] = {}
    for entry in entries:
        for seed, versions in entry.code.items():
            if versions != (present_code,):
                found = runs.setdefault(versions, {}).setdefault(entry.cell.name, [])
                found += [] if seed in found else [seed]
    if not runs:
        return []
    lines = [
        f"- {' then '.join(versions) or 'unknown'}: "
        + ", ".join(f"{name} {_listed(seeds, 'seed')}" for name, seeds in of_version.items())
        for versions, of_version in runs.items()
    ]
    head = f"{_DAGGER} Not, or not alone, trained by the present version of the code, "
    return [f"{head}{present_code}:", "\n".join(lines)]


def _listed(numbers: Iterable[int], noun: str) -> str:
    words = [str(number) for number in numbers]
    return f"{noun}{'s' if len(words) > 1 else ''} {' '.join(words)}"


def write_csv(path: Path, entries: Iterable[Entry]) -> None:
    """Writes one line an entry; accuracies are in percent, and empty where there are none.

    `seeds` lists those that are finished; `code` the versions that trained each of them, joined by
    + where a run was trained by several.
    """
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_CSV_COLUMNS)
        writer.writerows(map(_csv_row, entries))


def _csv_row(entry: Entry) -> list[object]:
    cell, values = entry.cell, np.array(list(entry.values.values()))
    known = len(values) > 0 and not np.isnan(values).any()
    return [
        cell.key,
        cell.row,
        cell.column,
        entry.measure,
        f"{values.mean():.4f}" if known else "",
        f"{deviation(values):.4f}" if known and len(values) > 1 else "",
        " ".join(map(str, entry.values)),
        "" if entry.published is None else entry.published,
        " ".join("+".join(versions) for versions in entry.code.values()),
    ]
