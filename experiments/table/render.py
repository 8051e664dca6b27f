"""A table as text: Markdown for people, CSV for programs."""

import csv
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from experiments.presentation import MEASURES, deviation, markdown_table, mean_and_deviation
from experiments.table.plan import SECONDS, Plan
from experiments.table.results import Entry

_DAGGER = "†"


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
    text = f"Accuracy in percent, mean ± sample deviation over {_listed(seeds)}"
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
