"""Sections of tables: what was run, accuracy, cost; and pictures that were found beside runs."""

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.presentation import MEASURES, mean_and_deviation, percent
from experiments.report import panels
from experiments.report.figures import data_uri
from experiments.report.page import Picture, Section, SectionPart, Table
from experiments.report.rows import (
    SeedsRow,
    by_classes,
    differing_fields,
    printable,
    shared_fields,
)
from experiments.report.sharpness import sharpness
from jaxlt.errors import UsageError
from jaxlt.recipes.methods import SGD

_PROGRAMS = ("flatness", "landscape", "hessian")


def sections_of(rows: Sequence[SeedsRow], root: Path) -> list[Section]:
    """Returns all sections of a page.

    Args:
        rows: at least one.
        root: directory that all runs are in.

    Raises:
        UsageError: a picture beside a run is damaged.
    """
    return [
        _what_was_run(rows),
        _accuracy(rows),
        panels.curves(rows),
        panels.by_class(rows),
        panels.head_and_tail(rows),
        panels.calibration(rows),
        sharpness(rows),
        _cost(rows),
        _found_pictures(rows, root),
    ]


def _what_was_run(rows: Sequence[SeedsRow]) -> Section:
    different = differing_fields(rows)
    lines = [
        [
            row.label,
            " ".join(str(run.files.seed) for run in row.runs),
            " ".join(dict.fromkeys(itertools.chain(*row.final("code")))) or "-",
            *(values[number] for values in different.values()),
        ]
        for number, row in enumerate(rows)
    ]
    caption = "Rows, and the fields in which their recipes differ"
    differences = Table(caption, ["row", "seeds", "code", *different], lines)
    shared = list(shared_fields(rows).items())
    common = Table(
        f"The {len(shared)} fields that all recipes share", ["field", "value"], shared, folded=True
    )
    return Section("runs", "What was run", [SectionPart(tables=[_data(rows), differences, common])])


def _data(rows: Sequence[SeedsRow]) -> Table:
    lines = [
        [
            learned.dataset,
            str(len(learned.class_counts)),
            f"{sum(learned.class_counts)}",
            f"{max(learned.class_counts)} to {min(learned.class_counts)}",
            " x ".join(map(str, learned.image_shape)),
            ", ".join(dict.fromkeys(row.recipe.network.label for row in members)),
            ", ".join(dict.fromkeys(map(_evaluated_images, members))),
        ]
        for learned, members in by_classes(rows)
    ]
    headers = ["data set", "classes", "training images", "a class", "image", "network", "evaluated"]
    return Table("Data and network", headers, lines)


def _evaluated_images(row: SeedsRow) -> str:
    if row.recipe.data.validation_per_class:
        return "validation images of the training set"
    return "validation images" if row.recipe.evaluation.images == "val" else "test images"


def _accuracy(rows: Sequence[SeedsRow]) -> Section:
    columns: dict[str, Callable[[SeedsRow], str]] = {
        heading: lambda row, name=name: _percent(row, name) for name, heading in MEASURES.items()
    }
    columns["balanced"] = lambda row: _percent(row, "balanced_accuracy")
    columns["ECE"] = lambda row: _percent(row, "ece")
    columns["test loss"] = lambda row: mean_and_deviation(row.final("test_loss"), 3)
    columns["seeds"] = lambda row: str(len(row.runs))
    columns["seconds"] = lambda row: mean_and_deviation(row.final("seconds"), 1)
    lines = [[row.label, *(cell(row) for cell in columns.values())] for row in rows]
    text = (
        "Accuracies and expected calibration error (ECE) in percent, test loss in nats, at the end "
        "of training: mean ± sample deviation over seeds. Balanced is the mean over classes. "
    )
    thresholds = {
        (row.recipe.evaluation.many_above, row.recipe.evaluation.few_below) for row in rows
    }
    if len(thresholds) == 1:
        many, few = thresholds.pop()
        text += (
            f"Many-shot classes have more than {many} training images, few-shot fewer than {few}."
        )
    table = Table("Accuracy", ["row", *columns], lines)
    return Section("accuracy", "Accuracy", [SectionPart(paragraphs=[text], tables=[table])])


def _percent(row: SeedsRow, name: str) -> str:
    return mean_and_deviation([percent(value) for value in row.final(name)], 1)


def _cost(rows: Sequence[SeedsRow]) -> Section:
    reference = next((row for row in rows if isinstance(row.recipe.method, SGD)), rows[0])
    unit = float(np.mean(_milliseconds(reference)))
    lines = []
    for row in rows:
        times = _milliseconds(row)
        lines.append(
            [
                row.label,
                mean_and_deviation(row.final("seconds"), 1),
                " ".join(dict.fromkeys(str(run.files.result.step) for run in row.runs)),
                mean_and_deviation(times, 2),
                mean_and_deviation([time / unit if unit else float("nan") for time in times], 2),
            ]
        )
    headers = ["row", "seconds", "steps", "ms a step", f"relative to {reference.label}"]
    text = (
        "Seconds of training, without evaluations and set-up, on whatever machine a run had: "
        "compare those of one machine. Runs that trained together share its time."
    )
    part = SectionPart(paragraphs=[text], tables=[Table("Cost", headers, lines)])
    return Section("cost", "Cost", [part])


def _milliseconds(row: SeedsRow) -> list[float]:
    results = [run.files.result for run in row.runs]
    return [1e3 * one.seconds / one.step if one.step else float("nan") for one in results]


def _found_pictures(rows: Sequence[SeedsRow], root: Path) -> Section:
    places = dict.fromkeys(
        place
        for row in rows
        for run in row.runs
        for place in (run.path, *run.path.parents)
        if place == root or root in place.parents
    )
    parts = []
    for program in _PROGRAMS:
        files = [
            file
            for place in places
            for file in sorted((place / program).glob("*.png"))
            # What a killed process left of a picture.
            if not file.name.endswith(".partial.png")
        ]
        if files:
            pictures = [_embedded(file, program, root) for file in files]
            text = "Colours of rows are each picture's own."
            parts.append(SectionPart(program.capitalize(), [text], pictures=pictures))
    missing = [program for program in _PROGRAMS if program.capitalize() not in _titles(parts)]
    if missing:
        commands = ", ".join(f"python -m experiments.{program}" for program in missing)
        parts.append(SectionPart(paragraphs=[f"Further pictures are drawn by {commands}."]))
    return Section("pictures", "Loss landscape and curvature", parts)


def _titles(parts: Sequence[SectionPart]) -> Iterator[str]:
    return (part.title for part in parts)


def _embedded(file: Path, program: str, root: Path) -> Picture:
    try:
        contents = file.read_bytes()
        with Image.open(io.BytesIO(contents), formats=["PNG"]) as image:
            image.verify()
    # Pillow's decoders raise whatever a broken file makes them stumble over.
    except Exception as error:
        raise UsageError(f"{file} must be a PNG file, it is damaged: {error}") from error
    name = printable(str(file.relative_to(root)))
    return Picture(
        data_uri(contents, "image/png"), name, f"Picture of {program}: {name}", wide=True
    )
