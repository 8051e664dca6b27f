"""Sections of tables: what was run, accuracy, cost; and pictures that were found beside runs."""

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.presentation import MEASURES, best_places, mean_and_deviation, printable
from experiments.report import panels
from experiments.report.figures import data_uri
from experiments.report.mistakes import mistakes
from experiments.report.page import Picture, Section, Table
from experiments.report.rows import (
    SeedsRow,
    by_classes,
    differing_fields,
    images_of,
    shared_fields,
)
from experiments.report.summary import comparable, summary
from jaxlt.errors import UsageError
from jaxlt.recipes.methods import SGD

_PROGRAMS = {
    "flatness": "The flatter a line around 0, the less the loss changes when the weights move.",
    "landscape": "Rings far apart are a flat minimum; the path is the one that training took.",
    "hessian": "Large eigenvalues are steep directions, negative ones lead down from a saddle.",
}


class _Shown(NamedTuple):
    """A number of the table of accuracies."""

    heading: str
    factor: int = 100
    decimals: int = 1
    best: float = 1.0
    """1 where higher is better, -1 where lower is, 0 where neither is."""


_NUMBERS = {
    **{name: _Shown(heading) for name, heading in MEASURES.items()},
    "balanced_accuracy": _Shown("balanced"),
    "ece": _Shown("ECE", best=-1),
    "test_loss": _Shown("loss", 1, 3, best=-1),
    "seconds": _Shown("seconds", 1, best=0),
}


def sections_of(
    rows: Sequence[SeedsRow], root: Path, *, predictions: bool = True, gallery: bool = True
) -> dict[str, Section]:
    """Returns all sections of a page, by a short name for links.

    Args:
        rows: of the page.
        root: directory of the pictures that other programs drew.
        predictions: whether networks are loaded, for confusion matrices.
        gallery: whether images are embedded.
    """
    # First, since a damaged one is refused.
    pictures = _found_pictures(rows, root)
    return {
        "summary": summary(rows),
        "runs": _what_was_run(rows),
        "accuracy": _accuracy(rows),
        "curves": panels.curves(rows),
        "classes": panels.by_class(rows),
        "confusion": panels.head_and_tail(rows),
        **({"mistakes": mistakes(rows, gallery=gallery)} if predictions else {}),
        "calibration": panels.calibration(rows),
        "sharpness": panels.sharpness(rows),
        "cost": _cost(rows),
        "pictures": pictures,
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
            ", ".join(dict.fromkeys(images_of([row]) for row in members)),
        ]
        for learned, members in by_classes(rows)
    ]
    headers = ["data set", "classes", "training images", "a class", "image", "network", "evaluated"]
    return Table("Data and network", headers, lines)


def _accuracy(rows: Sequence[SeedsRow]) -> Section:
    lines = [
        [
            row.label,
            *(
                mean_and_deviation(shown.factor * np.array(row.final(name)), shown.decimals)
                for name, shown in _NUMBERS.items()
            ),
            str(len(row.runs)),
        ]
        for row in rows
    ]
    text = (
        "Accuracies and expected calibration error (ECE) in percent, loss in nats, on "
        f"{images_of(rows)} at the end of training: mean ± sample deviation over seeds. Balanced "
        "is the mean over classes. Of rows that can be compared the best value is bold. "
    )
    (many, few), *others = {
        (row.recipe.evaluation.many_above, row.recipe.evaluation.few_below) for row in rows
    }
    if not others:
        text += (
            f"Many-shot classes have more than {many} training images, few-shot fewer than {few}."
        )
    headers = ["row", *(shown.heading for shown in _NUMBERS.values()), "seeds"]
    table = Table("Accuracy", headers, lines, best=_best_cells(rows))
    return Section("Accuracy", [text], [table])


def _best_cells(rows: Sequence[SeedsRow]) -> frozenset[tuple[int, int]]:
    """Returns line and column of each best number among the rows that can be compared."""
    found = set()
    for _, _, members in comparable(rows):
        for column, (name, shown) in enumerate(_NUMBERS.items(), start=1):
            means = [shown.best * shown.factor * np.mean(row.final(name)) for row in members]
            lines = best_places(means, shown.decimals) if shown.best else []
            found.update((rows.index(members[number]), column) for number in lines)
    return frozenset(found)


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
    for program, reading in _PROGRAMS.items():
        pictures = [
            _embedded(file, program, root, reading)
            for place in places
            for file in sorted((place / program).glob("*.png"))
            # What a killed process left of a picture.
            if not file.name.endswith(".partial.png")
        ]
        if pictures:
            parts.append(Section(program.capitalize(), pictures=pictures))
        else:
            missing.append(f"python -m experiments.{program}")
    if missing:
        parts.append(Section("", [f"Further pictures are drawn by {', '.join(missing)}."]))
    return Section("Loss landscape and curvature", subsections=parts)


def _embedded(file: Path, program: str, root: Path, reading: str) -> Picture:
    try:
        contents = file.read_bytes()
        with Image.open(io.BytesIO(contents), formats=["PNG"]) as image:
            image.verify()
    # Pillow's decoders raise whatever a broken file makes them stumble over.
    except Exception as error:
        raise UsageError(f"{file} must be a PNG file, got damage: {error}") from error
    name, uri = printable(str(file.relative_to(root))), data_uri(contents, "image/png")
    return Picture(uri, name, f"Picture of {program}: {name}", reading, wide=True)
