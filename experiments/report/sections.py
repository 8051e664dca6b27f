"""Sections of tables: what was run, accuracy, cost; and pictures that were found beside runs."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.presentation import MEASURES, mean_and_deviation
from experiments.report import panels
from experiments.report.figures import data_uri
from experiments.report.page import Picture, Section, Table
from experiments.report.rows import SeedsRow, by_classes, differing_fields, printable, shared_fields
from jaxlt.errors import UsageError
from jaxlt.recipes.methods import SGD

_PROGRAMS = ("flatness", "landscape", "hessian")
_SHARES = {**MEASURES, "balanced_accuracy": "balanced", "ece": "ECE"}


def sections_of(rows: Sequence[SeedsRow], root: Path) -> dict[str, Section]:
    """Returns all sections of a page, by a short name for links; pictures are those in `root`."""
    return {
        "runs": _what_was_run(rows),
        "accuracy": _accuracy(rows),
        "curves": panels.curves(rows),
        "classes": panels.by_class(rows),
        "confusion": panels.head_and_tail(rows),
        "calibration": panels.calibration(rows),
        "sharpness": panels.sharpness(rows),
        "cost": _cost(rows),
        "pictures": _found_pictures(rows, root),
    }


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
    caption = f"The {len(shared)} fields that all recipes share"
    common = Table(caption, ["field", "value"], shared, folded=True)
    return Section("What was run", tables=[_data(rows), differences, common])


def _data(rows: Sequence[SeedsRow]) -> Table:
    lines = [
        [
            learned.dataset,
            str(len(learned.class_counts)),
            str(sum(learned.class_counts)),
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
    lines = [
        [
            row.label,
            *(mean_and_deviation(100 * np.array(row.final(name)), 1) for name in _SHARES),
            mean_and_deviation(row.final("test_loss"), 3),
            str(len(row.runs)),
            mean_and_deviation(row.final("seconds"), 1),
        ]
        for row in rows
    ]
    text = (
        "Accuracies and expected calibration error (ECE) in percent, test loss in nats, at the end "
        "of training: mean ± sample deviation over seeds. Balanced is the mean over classes. "
    )
    (many, few), *others = {
        (row.recipe.evaluation.many_above, row.recipe.evaluation.few_below) for row in rows
    }
    if not others:
        text += (
            f"Many-shot classes have more than {many} training images, few-shot fewer than {few}."
        )
    headers = ["row", *_SHARES.values(), "test loss", "seeds", "seconds"]
    return Section("Accuracy", [text], [Table("Accuracy", headers, lines)])


def _cost(rows: Sequence[SeedsRow]) -> Section:
    reference = next((row for row in rows if isinstance(row.recipe.method, SGD)), rows[0])
    unit = np.mean(_milliseconds(reference)) or np.nan
    lines = [
        [
            row.label,
            mean_and_deviation(row.final("seconds"), 1),
            " ".join(dict.fromkeys(map(str, row.final("step")))),
            mean_and_deviation(_milliseconds(row), 2),
            mean_and_deviation(_milliseconds(row) / unit, 2),
        ]
        for row in rows
    ]
    headers = ["row", "seconds", "steps", "ms a step", f"relative to {reference.label}"]
    text = (
        "Seconds of training, without evaluations and set-up, on whatever machine a run had: "
        "compare those of one machine. Runs that trained together share its time."
    )
    return Section("Cost", [text], [Table("Cost", headers, lines)])


def _milliseconds(row: SeedsRow) -> np.ndarray:
    steps = np.array(row.final("step"), float)
    return 1e3 * np.array(row.final("seconds")) / np.where(steps > 0, steps, np.nan)


def _found_pictures(rows: Sequence[SeedsRow], root: Path) -> Section:
    places = dict.fromkeys(
        place
        for row in rows
        for run in row.runs
        for place in (run.path, *run.path.parents)
        if place == root or root in place.parents
    )
    parts, missing = [], []
    for program in _PROGRAMS:
        pictures = [
            _embedded(file, program, root)
            for place in places
            for file in sorted((place / program).glob("*.png"))
            # What a killed process left of a picture.
            if not file.name.endswith(".partial.png")
        ]
        if pictures:
            text = "Colors of rows are each picture's own."
            parts.append(Section(program.capitalize(), [text], pictures=pictures))
        else:
            missing.append(f"python -m experiments.{program}")
    if missing:
        parts.append(Section("", [f"Further pictures are drawn by {', '.join(missing)}."]))
    return Section("Loss landscape and curvature", subsections=parts)


def _embedded(file: Path, program: str, root: Path) -> Picture:
    try:
        contents = file.read_bytes()
        with Image.open(io.BytesIO(contents), formats=["PNG"]) as image:
            image.verify()
    # Pillow's decoders raise whatever a broken file makes them stumble over.
    except Exception as error:
        raise UsageError(f"{file} must be a PNG file, got damage: {error}") from error
    name, uri = printable(str(file.relative_to(root))), data_uri(contents, "image/png")
    return Picture(uri, name, f"Picture of {program}: {name}", wide=True)
