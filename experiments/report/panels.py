"""Sections of pictures: curves, classes, confusion of head and tail, calibration, sharpness."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from msgspec.structs import astuple

from experiments.curves import MOST_BANDS, MOST_SIZES, SIZE_BINS, Line, by_class_size, over_seeds
from experiments.presentation import COLORS, best_places, mean_and_deviation
from experiments.report.figures import draw, draw_by_size, draw_over_steps, draw_places, row_lines
from experiments.report.page import Picture, Section, Table
from experiments.report.rows import SeedsRow, by_classes, curve, images_of
from jaxlt.evaluation import ConfidenceBins
from jaxlt.evaluation.calibration import MOST_NAMED, draw_diagram
from jaxlt.runs.reader import GROUPS, PLACES, EvaluationRecord, MeasurementRecord, RecordedBins


def curves(rows: Sequence[SeedsRow]) -> Section:
    """Shows losses and accuracies of the evaluations over steps."""
    images = images_of(rows)
    percent = f"accuracy on\n{images} (%)"
    higher = "Higher is better; where a line still rises at its end, more epochs may help."
    rare = (
        "Higher is better; compare with all classes, since a method may pay for one by the other."
    )
    fitted = "Lower is a better fit of the training images, which need not be a better network."
    lower = "Lower is better; a line that rises again has begun to fit the training images alone."
    pictures = [
        *_evaluated(rows, "Training loss", "loss (nats)", fitted, lambda one: one.train_loss),
        *_evaluated(rows, f"Loss on {images}", "loss (nats)", lower, lambda one: one.test_loss),
        *_evaluated(rows, "Accuracy", percent, higher, lambda one: 100 * one.accuracy),
        *_evaluated(rows, "Accuracy of few-shot classes", percent, rare, lambda one: 100 * one.few),
    ]
    text = (
        "Lines are means over the members of a row, bands one sample deviation to either side "
        f"(not drawn for more than {MOST_BANDS} rows). Rows that were evaluated once are one point."
    )
    has_few = any(np.isfinite(row.final("few")).any() for row in rows)
    notes = [text] if has_few else [text, "No class is few-shot here."]
    return Section("Curves over steps", notes, pictures=pictures)


def _evaluated(
    rows: Sequence[SeedsRow],
    caption: str,
    unit: str,
    reading: str,
    value: Callable[[EvaluationRecord], float],
) -> Iterator[Picture]:
    lines = row_lines(rows, lambda row: curve([run.files.evaluations for run in row.runs], value))
    if lines:
        yield draw_over_steps(caption, unit, lines, reading)


def by_class(rows: Sequence[SeedsRow]) -> Section:
    """Shows each class's accuracy against its number of training images."""
    parts = []
    for learned, members in by_classes(rows):
        lines = row_lines(
            members, lambda row: by_class_size(row.learned.class_counts, row.final("per_class"))
        )
        binned = len(set(learned.class_counts)) > MOST_SIZES
        points = f"classes in {SIZE_BINS} bins of size" if binned else "classes of one size"
        text = f"The head of the distribution is on the left. A point is the mean of the {points}."
        caption, images = "Accuracy by class size", images_of(members)
        pictures = [draw_by_size(caption, lines, images)] if lines else []
        parts.append(Section(learned.dataset, [text], [_class_table(members)], pictures))
    return Section("Accuracy by class against class size", subsections=parts)


def _class_table(rows: Sequence[SeedsRow]) -> Table:
    learned = rows[0].learned
    accuracies = [100 * over_seeds(np.array(row.final("per_class")))[0] for row in rows]
    order = np.argsort(learned.class_counts, kind="stable")[::-1]
    lines = [
        [
            f"{number}: {learned.class_names[number]}",
            str(learned.class_counts[number]),
            *(mean_and_deviation([float(accuracy[number])], 1) for accuracy in accuracies),
        ]
        for number in order
    ]
    best = {
        (line, 2 + row)
        for line, number in enumerate(order)
        for row in best_places([accuracy[number] for accuracy in accuracies], 1)
    }
    headers = ["class", "training images", *(row.label for row in rows)]
    caption = (
        f"All classes: names, sizes, mean accuracy on {images_of(rows)} (%); a click on a heading "
        "sorts"
    )
    return Table(caption, headers, lines, folded=True, best=frozenset(best), sortable=True)


def head_and_tail(rows: Sequence[SeedsRow]) -> Section:
    """Shows where the images of each shot group are classified."""
    images = images_of(rows)
    shares = {row.label: found for row in rows if (found := _group_confusion(row)) is not None}
    pictures = []
    for group in GROUPS:
        of_group = {label: of_row[group] for label, of_row in shares.items()}
        known = {label: one for label, one in of_group.items() if not np.isnan(one["correct"])}
        if known:
            pictures.append(draw_places(f"Images of {group}-shot classes", known, images))
    text = (
        f"For the {images} of each true group, the share that is classified correctly, and the "
        "shares that are wrong, by the group of the class they are taken for. Each class counts "
        "the same; means over members."
    )
    notes = [text, *_missing(rows, shares, "group_confusion")]
    return Section("Confusion of head and tail", notes, pictures=pictures)


def _group_confusion(row: SeedsRow) -> dict[str, dict[str, float]] | None:
    found = row.final("group_confusion")
    if None in found:
        return None
    # The fields are in the order of GROUPS and PLACES.
    mean, _ = over_seeds(np.array([[astuple(group) for group in astuple(one)] for one in found]))
    return {
        group: dict(zip(PLACES, shares.tolist(), strict=True))
        for group, shares in zip(GROUPS, mean, strict=True)
    }


def _missing(rows: Sequence[SeedsRow], known: Mapping[str, object], name: str) -> list[str]:
    lacking = [row.label for row in rows if row.label not in known]
    which = "any row" if len(lacking) == len(rows) else ", ".join(lacking)
    text = (
        f"Not of {which}: these runs were evaluated by an earlier version, which did not record "
        f"{name}. Runs of the present version do."
    )
    return [text] if lacking else []


def calibration(rows: Sequence[SeedsRow]) -> Section:
    """Shows reliability diagrams, the images of a row's members pooled."""
    pooled = {row.label: bins for row in rows if (bins := _pooled_bins(row)) is not None}
    styles = {row.label: row.style for row in rows}
    reading = "Below the dotted line the network is more confident than it is right."
    pictures = []
    # More lines would cover each other.
    for first in range(0, len(rows), len(COLORS)):
        some = [row.label for row in rows[first : first + len(COLORS)]]
        bins = {label: pooled[label] for label in some if label in pooled}
        if bins:
            errors = ", ".join(f"{label} {100 * one.ece:.1f}" for label, one in bins.items())
            alternative = f"Accuracy by confidence. ECE in percent: {errors}."
            onto = functools.partial(draw_diagram, bins=bins, styles=[styles[one] for one in bins])
            height = 4.2 if len(bins) <= MOST_NAMED else 3.6
            alone = len(rows) <= len(COLORS)
            picture = draw("Reliability", alternative, onto, reading, height=height, alone=alone)
            pictures.append(picture)
    text = (
        f"A marker grows with the share of the {images_of(rows)} in its bin of confidence; members "
        "are pooled."
    )
    notes = [text, *_missing(rows, pooled, "confidence_bins")]
    return Section("Calibration", notes, pictures=pictures)


def _pooled_bins(row: SeedsRow) -> ConfidenceBins | None:
    found: list[RecordedBins | None] = row.final("confidence_bins")
    known = [np.nan_to_num(np.array(astuple(one))) for one in found if one is not None]
    if len(known) < len(found) or len({one.shape for one in known}) > 1:
        return None
    return ConfidenceBins(*np.sum(known, axis=0))


def sharpness(rows: Sequence[SeedsRow]) -> Section:
    """Shows what was measured during training: radii, sharpness, cosines, missing groups."""
    title = "Radii and sharpness over time"
    if not any(records for row in rows for records in row.measurements):
        text = (
            "These runs have no measurements. Training with --measure-every STEPS records "
            "perturbation norms, the sharpness of each group and gradient cosines between groups."
        )
        return Section(title, [text])
    text = (
        "The norm of the weights' perturbation, the mean over the groups of the method. Where each "
        "class has its own, those of the batch are averaged apart by head and tail classes; the "
        "tail is the method's, or the few-shot classes where it has none."
    )
    flat = "Lower is flatter; compare rows at the same step."
    agree = "Above 0 a step for one group helps the other, below 0 it harms it."
    absent = "The higher, the rarer does the group take part in a step."
    parts = [
        Section("Perturbation", [text], pictures=_perturbation(rows)),
        Section(
            "Sharpness of each group",
            ["How far a group's loss on a training batch rises by a step along its own gradient."],
            pictures=_measured(
                rows, "sharpness", "Sharpness: {}", "increase of the loss (nats)", flat
            ),
        ),
        Section(
            "Agreement of groups",
            ["The cosine between the gradients of two groups' losses: below 0 they conflict."],
            pictures=_measured(rows, "cosine", "Gradients: {}", "cosine", agree, (-1, 1)),
        ),
        Section(
            "Batches without a group",
            ["The share of batches since the last measurement that held no image of the group."],
            pictures=_measured(
                rows, "batches_without", "Without {}", "share of batches", absent, (0, 1)
            ),
        ),
    ]
    return Section(title, subsections=[part for part in parts if part.pictures])


def _measured(
    rows: Sequence[SeedsRow],
    name: str,
    caption: str,
    unit: str,
    reading: str,
    limits: tuple[float, float] | None = None,
) -> list[Picture]:
    """Draws a picture for each group, or pair of them, of which the numbers were measured."""
    records = itertools.chain(*(of_run for row in rows for of_run in row.measurements))
    pictures = []
    for group in dict.fromkeys(itertools.chain(*(getattr(r.measurement, name) for r in records))):
        number = functools.partial(_number, name=name, group=group)
        lines = row_lines(rows, lambda row, of=number: curve(row.measurements, of))
        if lines:
            title = caption.format(group.replace("_", " and "))
            pictures.append(draw_over_steps(title, unit, lines, reading, limits=limits))
    return pictures


def _number(record: MeasurementRecord, name: str, group: str) -> float:
    return getattr(record.measurement, name).get(group, float("nan"))


def _perturbation(rows: Sequence[SeedsRow]) -> list[Picture]:
    lines = []
    for row in rows:
        tail = row.recipe.tail(np.array(row.learned.class_counts))
        records = itertools.chain(*row.measurements)
        of_classes = any(len(one.measurement.perturbation_norm) == len(tail) for one in records)
        masks = {", head classes": ~tail, ", tail classes": tail} if of_classes else {"": None}
        for (name, mask), dash in zip(masks.items(), ("-", "--"), strict=False):
            found = curve(row.measurements, lambda record, mask=mask: _norm(record, mask))
            if found is not None:
                style = {**row.style, "linestyle": dash} if of_classes else row.style
                lines.append(Line(f"{row.label}{name}", found, style))
    if not lines:
        return []
    reading = (
        "A line at 0 does not perturb: the higher, the further a step looks for the worst loss."
    )
    picture = draw_over_steps("Perturbation norm", "norm ‖ε‖", lines, reading, alone=True)
    return [picture]


def _norm(record: MeasurementRecord, mask: np.ndarray | None) -> float:
    norms = np.array(record.measurement.perturbation_norm)
    if mask is not None:
        norms = norms[mask] if len(norms) == len(mask) else norms[:0]
        # The batch had no image of a class without perturbation.
        norms = norms[norms > 0]
    return float(over_seeds(norms)[0])
