"""The section of what was measured during training: radii, sharpness and gradients of groups."""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from experiments.report.figures import Line, draw_lines, row_lines, row_styles
from experiments.report.page import Picture, Section, SectionPart
from experiments.report.rows import Curve, SeedsRow, curve, over_seeds
from jaxlt.runs.records import MeasurementRecord


def sharpness(rows: Sequence[SeedsRow]) -> Section:
    """Shows what was measured during training: radii, sharpness, cosines, missing groups."""
    title = "Radii and sharpness over time"
    if not any(run.files.measurements for row in rows for run in row.runs):
        text = (
            "These runs have no measurements. Training with --measure-every STEPS records "
            "perturbation norms, the sharpness of each group and gradient cosines between groups."
        )
        return Section("sharpness", title, [SectionPart(paragraphs=[text])])
    text = (
        "The norm of the weights' perturbation, the mean over the groups of the method. Where each "
        "class has its own, those of the batch are averaged apart by head and tail classes; the "
        "tail is the method's, or the few-shot classes where it has none."
    )
    norms = SectionPart("Perturbation", [text], pictures=_perturbation(rows))
    of_groups = SectionPart(
        "Sharpness of each group",
        ["How far a group's loss on a training batch rises by a step along its own gradient."],
        pictures=_measured(rows, "sharpness", "Sharpness: {}", "increase of the loss (nats)"),
    )
    cosines = SectionPart(
        "Agreement of groups",
        ["The cosine between the gradients of two groups' losses: below 0 they conflict."],
        pictures=_measured(rows, "cosine", "Gradients: {}", "cosine", (-1, 1)),
    )
    without = SectionPart(
        "Batches without a group",
        ["The share of batches since the last measurement that held no image of the group."],
        pictures=_measured(rows, "batches_without", "Without {}", "share of batches", (0, 1)),
    )
    parts = [part for part in (norms, of_groups, cosines, without) if part.pictures]
    return Section("sharpness", title, parts)


def _measured(
    rows: Sequence[SeedsRow],
    name: str,
    caption: str,
    unit: str,
    limits: tuple[float, float] | None = None,
) -> list[Picture]:
    parts = dict.fromkeys(
        part
        for row in rows
        for run in row.runs
        for record in run.files.measurements
        for part in getattr(record.measurement, name)
    )
    pictures = []
    for part in parts:
        number = functools.partial(_number, key=(name, part))
        lines = row_lines(
            rows, lambda row, of=number: curve([r.files.measurements for r in row.runs], of)
        )
        if lines:
            title = caption.format(part.replace("_", " and "))
            pictures.append(draw_lines(title, unit, lines, limits))
    return pictures


def _curve(row: SeedsRow, number: Callable[[MeasurementRecord], float]) -> Curve | None:
    return curve([run.files.measurements for run in row.runs], number)


def _number(record: MeasurementRecord, key: tuple[str, str]) -> float:
    name, part = key
    return getattr(record.measurement, name).get(part, float("nan"))


def _perturbation(rows: Sequence[SeedsRow]) -> list[Picture]:
    lines = []
    for row, style in zip(rows, row_styles(), strict=False):
        records = [run.files.measurements for run in row.runs]
        counts = np.array(row.learned.class_counts)
        tail = row.recipe.tail(counts)
        of_classes = any(
            len(one.measurement.perturbation_norm) == len(counts) for r in records for one in r
        )
        parts = {", head classes": ~tail, ", tail classes": tail} if of_classes else {"": None}
        for (name, mask), dash in zip(parts.items(), ("-", "--"), strict=False):
            found = _curve(row, functools.partial(_norm, mask=mask))
            if found is not None:
                shown = {**style, "linestyle": dash} if of_classes else style
                lines.append(Line(f"{row.label}{name}", found, shown))
    return [draw_lines("Perturbation norm", "norm ‖ε‖", lines)] if lines else []


def _norm(record: MeasurementRecord, mask: np.ndarray | None) -> float:
    norms = np.array(record.measurement.perturbation_norm)
    if mask is not None:
        norms = norms[mask] if len(norms) == len(mask) else norms[:0]
        # The batch had no image of a class without perturbation.
        norms = norms[norms > 0]
    return float(over_seeds(norms)[0])
