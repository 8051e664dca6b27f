"""Sections of pictures: curves, classes, confusion of head and tail, calibration."""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.presentation import COLOURS
from experiments.reliability_diagram import MOST_NAMED, draw_diagram
from experiments.report.figures import (
    MOST_BANDS,
    Line,
    draw,
    draw_by_size,
    draw_lines,
    draw_places,
    row_lines,
    row_styles,
)
from experiments.report.page import Part, Picture, Section, Table
from experiments.report.reading import GROUPS, PLACES, Evaluation
from experiments.report.rows import (
    Curve,
    Row,
    curve,
    over_replicas,
    tasks_of,
)

_MOST_POINTS = 30
"""So many classes of different size are drawn one by one, more of them in bins of size."""
_BINS = 12


def curves(rows: Sequence[Row]) -> Section:
    """Shows losses and accuracies of the evaluations over steps."""
    pictures = [
        *_evaluated(rows, "Training loss", "loss (nats)", lambda one: one.numbers["train_loss"]),
        *_evaluated(rows, "Test loss", "loss (nats)", lambda one: one.numbers["test_loss"]),
        *_evaluated(
            rows, "Accuracy", "test accuracy (%)", lambda one: 100 * one.numbers["accuracy"]
        ),
        *_evaluated(
            rows,
            "Accuracy of few-shot classes",
            "test accuracy (%)",
            lambda one: 100 * one.numbers["few"],
        ),
    ]
    text = (
        "Lines are means over the replicas of a row, bands one sample deviation to either side "
        f"(not drawn for more than {MOST_BANDS} rows). Rows that were evaluated once are one point."
    )
    notes = [text]
    if not any(np.isfinite(row.final("few")).any() for row in rows):
        notes.append("No class is few-shot here.")
    return Section("curves", "Curves over steps", [Part(paragraphs=notes, pictures=pictures)])


def _evaluated(
    rows: Sequence[Row], caption: str, unit: str, value: Callable[[Evaluation], float]
) -> Iterator[Picture]:
    lines = row_lines(rows, lambda row: curve([run.evaluations for run in row.runs], value))
    if lines:
        yield draw_lines(caption, unit, lines)


def by_class(rows: Sequence[Row]) -> Section:
    """Shows each class's accuracy against its number of training images."""
    styles = {row.label: style for row, style in zip(rows, row_styles(), strict=False)}
    parts = []
    for task, members in tasks_of(rows):
        lines = [
            Line(row.label, one, styles[row.label])
            for row in members
            if (one := _by_size(row)) is not None
        ]
        binned = len(set(task.class_counts)) > _MOST_POINTS
        points = f"classes in {_BINS} bins of size" if binned else "classes of one size"
        text = f"The head of the distribution is on the left. A point is the mean of the {points}."
        parts.append(
            Part(
                title=task.dataset,
                paragraphs=[text],
                tables=[_class_table(members)],
                pictures=[draw_by_size("Accuracy by class size", lines)] if lines else [],
            )
        )
    return Section("classes", "Accuracy by class against class size", parts)


def _by_size(row: Row) -> Curve | None:
    counts = np.array(row.task.class_counts)
    accuracy = 100 * np.stack([run.result.per_class for run in row.runs])
    sizes, bins = np.unique(counts, return_inverse=True)
    if len(sizes) > _MOST_POINTS:
        edges = np.geomspace(counts.min(), counts.max(), _BINS + 1)[1:-1]
        bins = np.unique(np.digitize(counts, edges), return_inverse=True)[1]
        # In the middle of a logarithmic axis.
        sizes = np.exp([np.log(counts[bins == number]).mean() for number in range(bins.max() + 1)])
    by_bin = [over_replicas(accuracy[:, bins == one].T)[0] for one in range(len(sizes))]
    mean, spread = over_replicas(np.stack(by_bin, axis=1))
    known = ~np.isnan(mean)
    return Curve(sizes[known], mean[known], spread[known]) if known.any() else None


def _class_table(rows: Sequence[Row]) -> Table:
    task = rows[0].task
    accuracies = [
        over_replicas(np.stack([r.result.per_class for r in row.runs]))[0] for row in rows
    ]
    lines = [
        [
            f"{number}: {task.class_names[number]}",
            str(task.class_counts[number]),
            *(_percent(float(accuracy[number])) for accuracy in accuracies),
        ]
        for number in np.argsort(task.class_counts, kind="stable")[::-1]
    ]
    headers = ["class", "training images", *(row.label for row in rows)]
    caption = "All classes: names, sizes, mean test accuracy (%)"
    return Table(caption, headers, lines, folded=True)


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def head_and_tail(rows: Sequence[Row]) -> Section:
    """Shows where the images of each shot group are classified."""
    shares = {row.label: found for row in rows if (found := _group_confusion(row)) is not None}
    pictures = []
    for group in GROUPS:
        known = {
            label: of_row[group]
            for label, of_row in shares.items()
            if not np.isnan(of_row[group]["correct"])
        }
        if known:
            pictures.append(draw_places(f"Images of {group}-shot classes", known))
    text = (
        "For the test images of each true group, the share that is classified correctly, and the "
        "shares that are wrong, by the group of the class they are taken for. Each class counts "
        "the same; means over replicas."
    )
    paragraphs = [text, *_missing(rows, shares, "group_confusion")]
    part = Part(paragraphs=paragraphs, pictures=pictures)
    return Section("confusion", "Confusion of head and tail", [part])


def _group_confusion(row: Row) -> dict[str, dict[str, float]] | None:
    found = [run.result.group_confusion for run in row.runs]
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    values = np.array([[[one[group][p] for p in PLACES] for group in GROUPS] for one in known])
    mean, _ = over_replicas(values)
    return {
        group: dict(zip(PLACES, shares.tolist(), strict=True))
        for group, shares in zip(GROUPS, mean, strict=True)
    }


def _missing(rows: Sequence[Row], known: Any, name: str) -> list[str]:
    lacking = [row.label for row in rows if row.label not in known]
    if not lacking:
        return []
    which = "any row" if len(lacking) == len(rows) else ", ".join(lacking)
    text = (
        f"Not of {which}: these runs were evaluated by an earlier version, which did not record "
        f"{name}. Runs of the present version do."
    )
    return [text]


def calibration(rows: Sequence[Row]) -> Section:
    """Shows reliability diagrams, the images of a row's replicas pooled."""
    pooled = {}
    for row in rows:
        bins = [run.result.bins for run in row.runs]
        known = [one for one in bins if one is not None]
        if len(known) == len(bins) and len({len(one.counts) for one in known}) == 1:
            pooled[row.label] = functools.reduce(operator.add, known)
    pictures = []
    # Colours are those of the other pictures, which begin again after the last.
    for first in range(0, len(rows), len(COLOURS)):
        labels = [row.label for row in rows[first : first + len(COLOURS)]]
        bins = {label: pooled[label] for label in labels if label in pooled}
        if bins:
            errors = ", ".join(f"{label} {100 * one.ece:.1f}" for label, one in bins.items())
            alternative = f"Accuracy by confidence. ECE in percent: {errors}."
            onto = functools.partial(draw_diagram, bins=bins)
            height = 4.2 if len(bins) <= MOST_NAMED else 3.6
            pictures.append(draw("Reliability", alternative, onto, height=height))
    text = (
        "Below the diagonal the network is more confident than it is right. A marker grows with "
        "the share of the test images in its bin of confidence; replicas are pooled."
    )
    paragraphs = [text, *_missing(rows, pooled, "confidence_bins")]
    return Section("calibration", "Calibration", [Part(paragraphs=paragraphs, pictures=pictures)])
