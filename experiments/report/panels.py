"""Sections of pictures: curves, classes, confusion of head and tail, calibration."""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from msgspec.structs import astuple

from experiments.presentation import COLOURS
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
from experiments.report.page import Picture, Section, SectionPart, Table
from experiments.report.rows import (
    Curve,
    SeedsRow,
    by_classes,
    curve,
    over_seeds,
)
from jaxlt.evaluation import ConfidenceBins
from jaxlt.evaluation.reliability_diagram import MOST_NAMED, draw_diagram
from jaxlt.runs.records import GROUPS, PLACES, EvaluationRecord, RecordedBins

_MOST_POINTS = 30
"""So many classes of different size are drawn one by one, more of them in bins of size."""
_BINS = 12


def curves(rows: Sequence[SeedsRow]) -> Section:
    """Shows losses and accuracies of the evaluations over steps."""
    pictures = [
        *_evaluated(rows, "Training loss", "loss (nats)", lambda one: one.train_loss),
        *_evaluated(rows, "Test loss", "loss (nats)", lambda one: one.test_loss),
        *_evaluated(rows, "Accuracy", "test accuracy (%)", lambda one: 100 * one.accuracy),
        *_evaluated(
            rows,
            "Accuracy of few-shot classes",
            "test accuracy (%)",
            lambda one: 100 * one.few,
        ),
    ]
    text = (
        "Lines are means over the members of a row, bands one sample deviation to either side "
        f"(not drawn for more than {MOST_BANDS} rows). Rows that were evaluated once are one point."
    )
    notes = [text]
    if not any(np.isfinite(row.final("few")).any() for row in rows):
        notes.append("No class is few-shot here.")
    return Section(
        "curves", "Curves over steps", [SectionPart(paragraphs=notes, pictures=pictures)]
    )


def _evaluated(
    rows: Sequence[SeedsRow], caption: str, unit: str, value: Callable[[EvaluationRecord], float]
) -> Iterator[Picture]:
    lines = row_lines(rows, lambda row: curve([run.files.evaluations for run in row.runs], value))
    if lines:
        yield draw_lines(caption, unit, lines)


def by_class(rows: Sequence[SeedsRow]) -> Section:
    """Shows each class's accuracy against its number of training images."""
    styles = {row.label: style for row, style in zip(rows, row_styles(), strict=False)}
    parts = []
    for learned, members in by_classes(rows):
        lines = [
            Line(row.label, one, styles[row.label])
            for row in members
            if (one := _by_size(row)) is not None
        ]
        binned = len(set(learned.class_counts)) > _MOST_POINTS
        points = f"classes in {_BINS} bins of size" if binned else "classes of one size"
        text = f"The head of the distribution is on the left. A point is the mean of the {points}."
        parts.append(
            SectionPart(
                title=learned.dataset,
                paragraphs=[text],
                tables=[_class_table(members)],
                pictures=[draw_by_size("Accuracy by class size", lines)] if lines else [],
            )
        )
    return Section("classes", "Accuracy by class against class size", parts)


def _by_size(row: SeedsRow) -> Curve | None:
    counts = np.array(row.learned.class_counts)
    accuracy = 100 * np.array(row.final("per_class"))
    sizes, bins = np.unique(counts, return_inverse=True)
    if len(sizes) > _MOST_POINTS:
        edges = np.geomspace(counts.min(), counts.max(), _BINS + 1)[1:-1]
        bins = np.unique(np.digitize(counts, edges), return_inverse=True)[1]
        # In the middle of a logarithmic axis.
        sizes = np.exp([np.log(counts[bins == number]).mean() for number in range(bins.max() + 1)])
    by_bin = [over_seeds(accuracy[:, bins == one].T)[0] for one in range(len(sizes))]
    mean, spread = over_seeds(np.stack(by_bin, axis=1))
    known = ~np.isnan(mean)
    return Curve(sizes[known], mean[known], spread[known]) if known.any() else None


def _class_table(rows: Sequence[SeedsRow]) -> Table:
    learned = rows[0].learned
    accuracies = [over_seeds(np.array(row.final("per_class")))[0] for row in rows]
    lines = [
        [
            f"{number}: {learned.class_names[number]}",
            str(learned.class_counts[number]),
            *(_percent(float(accuracy[number])) for accuracy in accuracies),
        ]
        for number in np.argsort(learned.class_counts, kind="stable")[::-1]
    ]
    headers = ["class", "training images", *(row.label for row in rows)]
    caption = "All classes: names, sizes, mean test accuracy (%)"
    return Table(caption, headers, lines, folded=True)


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


def head_and_tail(rows: Sequence[SeedsRow]) -> Section:
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
        "the same; means over members."
    )
    paragraphs = [text, *_missing(rows, shares, "group_confusion")]
    part = SectionPart(paragraphs=paragraphs, pictures=pictures)
    return Section("confusion", "Confusion of head and tail", [part])


def _group_confusion(row: SeedsRow) -> dict[str, dict[str, float]] | None:
    found = row.final("group_confusion")
    known = [one for one in found if one is not None]
    if len(known) < len(found):
        return None
    # The fields are in the order of GROUPS and PLACES.
    values = np.array([[astuple(group) for group in astuple(one)] for one in known])
    mean, _ = over_seeds(values)
    return {
        group: dict(zip(PLACES, shares.tolist(), strict=True))
        for group, shares in zip(GROUPS, mean, strict=True)
    }


def _missing(rows: Sequence[SeedsRow], known: Any, name: str) -> list[str]:
    lacking = [row.label for row in rows if row.label not in known]
    if not lacking:
        return []
    which = "any row" if len(lacking) == len(rows) else ", ".join(lacking)
    text = (
        f"Not of {which}: these runs were evaluated by an earlier version, which did not record "
        f"{name}. Runs of the present version do."
    )
    return [text]


def calibration(rows: Sequence[SeedsRow]) -> Section:
    """Shows reliability diagrams, the images of a row's members pooled."""
    pooled = {}
    for row in rows:
        bins = row.final("confidence_bins")
        known = [_bins(one) for one in bins if one is not None]
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
        "the share of the test images in its bin of confidence; members are pooled."
    )
    paragraphs = [text, *_missing(rows, pooled, "confidence_bins")]
    return Section(
        "calibration", "Calibration", [SectionPart(paragraphs=paragraphs, pictures=pictures)]
    )


def _bins(recorded: RecordedBins) -> ConfidenceBins:
    counts, correct = (np.array(one, np.int64) for one in (recorded.counts, recorded.correct))
    return ConfidenceBins(counts, np.nan_to_num(np.array(recorded.confidence_sums)), correct)
