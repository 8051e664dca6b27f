"""The rows of a report: finished runs, by their records alone, averaged over a recipe's seeds."""

import dataclasses
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from experiments.curves import Curve, curve_of
from experiments.presentation import (
    METHODS,
    evaluated_images,
    method_name,
    path_label,
    place_of,
    printable,
    run_styles,
)
from jaxlt.errors import UsageError, counted
from jaxlt.recipes.in_words import shown
from jaxlt.recipes.recorded import RecordedRecipe, TrainedRun
from jaxlt.runs.differences import differences, flattened, key_but_for_seed, shared_by_seeds
from jaxlt.runs.reader import EvaluationRecord, MeasurementRecord

_logger = logging.getLogger(__name__)

_Record = TypeVar("_Record", EvaluationRecord, MeasurementRecord)


class LearnedClasses(NamedTuple):
    """What was learned: C classes of a data set, with training images of each, printable."""

    dataset: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    image_shape: tuple[int, ...]


def learned_by(run: TrainedRun) -> LearnedClasses:
    """Returns what a run learned."""
    network, counts = run.files.description, tuple(run.class_counts.tolist())
    names = tuple(map(printable, network.class_names))
    return LearnedClasses(printable(run.recorded.data.name), names, counts, network.image_shape)


def read_run(path: Path, dataset: str | None = None) -> TrainedRun:
    """Reads all that a report shows of a run; UsageError for one that is damaged or unfinished."""
    run = TrainedRun(path, dataset=dataset)
    run.files.check_finished()
    _ = run.files.seed, learned_by(run), run.files.evaluations, run.files.result
    return run


def read_runs(paths: Sequence[Path], dataset: str | None = None) -> list[TrainedRun]:
    """Reads runs and the finished ones of directories of runs, each once; paths are absolute.

    Of a directory the runs below `trials` count only where it holds no others. `dataset` is where
    the images are now, None for where they were.
    """
    found = dict.fromkeys(run for path in paths for run in _directories(path))
    return [read_run(path, dataset) for path in found]


def _directories(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UsageError(f"run {path} must be a directory, got none")
    if (path / "recipe.json").exists():
        return [path]
    below = sorted(file.parent for file in path.rglob("recipe.json"))
    # What short runs chose was trained in full beside them, by finetune.
    begun = [run for run in below if "trials" not in run.relative_to(path).parts] or below
    finished = [run for run in begun if (run / "result.json").exists()]
    if not finished:
        raise UsageError(f"run {path} must be a finished run or hold some, got none")
    if short := len(below) - len(begun):
        _logger.info("left out of %s: %s, below trials", path, counted(short, "short run"))
    for run in sorted(set(begun) - set(finished)):
        _logger.info("%s is not finished and is left out", run)
    return finished


@dataclasses.dataclass(frozen=True, eq=False)
class SeedsRow:
    """Runs, its members, whose recipes are equal but for the seed and the images it draws."""

    label: str
    runs: list[TrainedRun]
    style: Mapping[str, str]

    @property
    def learned(self) -> LearnedClasses:
        """What all members learned."""
        return learned_by(self.runs[0])

    @property
    def recipe(self) -> RecordedRecipe:
        """The recipe that the members share."""
        return self.runs[0].recorded

    @property
    def measurements(self) -> list[list[MeasurementRecord]]:
        """What was measured of each member."""
        return [run.files.measurements for run in self.runs]

    def final(self, name: str) -> list[Any]:
        """Returns a number of each member's last evaluation."""
        return [getattr(run.files.result, name) for run in self.runs]


def curve(records: Sequence[Sequence[_Record]], value: Callable[[_Record], float]) -> Curve | None:
    """Averages a value, or NaN, of the records of each member at the moments that all have."""
    by_moment = [{record.time: value(record) for record in member} for member in records]
    moments = sorted(set.intersection(*(set(member) for member in by_moment)))
    values = np.array([[member[moment] for moment in moments] for member in by_moment])
    return curve_of(np.array([moment.step for moment in moments]), values)


def rows_of(runs: Sequence[TrainedRun], root: Path) -> list[SeedsRow]:
    """Groups runs, which are in directory `root`, by recipe; SGD first, then the other methods."""
    groups: dict[object, list[TrainedRun]] = {}
    for run in runs:
        groups.setdefault((key_but_for_seed(run.files.identity), learned_by(run)), []).append(run)
    ordered = sorted(groups.values(), key=lambda members: place_of(_method(members)))
    styles = run_styles([METHODS.get(_method(members), _method(members)) for members in ordered])
    rows = [
        SeedsRow(_path_label(members, root), members, style)
        for members, style in zip(ordered, styles, strict=True)
    ]
    labels = [method_name(row.label) for row in rows]
    if len(set(labels)) < len(rows):
        labels = _recipe_labels(rows)
    if len(set(labels)) < len(rows):
        # Other data under one name: their recipes are equal.
        labels = [f"{one} ({labels[: n + 1].count(one)})" for n, one in enumerate(labels)]
    named = zip(rows, map(printable, labels), strict=True)
    return [dataclasses.replace(row, label=label) for row, label in named]


def _method(members: Sequence[TrainedRun]) -> str:
    return members[0].recorded.method_name


def _path_label(runs: Sequence[TrainedRun], root: Path) -> str:
    common = Path(os.path.commonpath([run.path for run in runs]))
    # A run of METHOD/seedN alone is the method's.
    if len(runs) == 1 and common.name == f"seed{runs[0].files.seed}":
        common = common.parent
    return path_label(common.relative_to(root if root in common.parents else common.parent))


def _recipe_labels(rows: Sequence[SeedsRow]) -> list[str]:
    """Returns the method, and so many further fields as it takes to tell the rows apart."""
    labels = [method_name(row.recipe.method_name) for row in rows]
    for name, values in differing_fields(rows).items():
        longer = [f"{label}, {name} {one}" for label, one in zip(labels, values, strict=True)]
        if name != "method" and len(set(longer)) > len(set(labels)):
            labels = longer
    return labels


def differing_fields(rows: Sequence[SeedsRow]) -> dict[str, list[str]]:
    """Returns the flags in which the rows' recipes differ, with each row's value as text."""
    found = differences([shared_by_seeds(row.runs[0].files.identity) for row in rows])
    return {name: list(map(shown, values)) for name, values in found.items()}


def shared_fields(rows: Sequence[SeedsRow]) -> dict[str, str]:
    """Returns the flags in which no two rows' recipes differ, as text."""
    first, *others = (flattened(shared_by_seeds(row.runs[0].files.identity)) for row in rows)
    return {
        name: shown(value)
        for name, value in first.items()
        if all(name in one and one[name] == value for one in others)
    }


def images_of(rows: Sequence[SeedsRow]) -> str:
    """Returns which images rows were evaluated on, in words."""
    return evaluated_images(row.recipe for row in rows)


def by_classes(rows: Sequence[SeedsRow]) -> Iterator[tuple[LearnedClasses, list[SeedsRow]]]:
    """Yields what was learned, each with its rows."""
    for learned in dict.fromkeys(row.learned for row in rows):
        yield learned, [row for row in rows if row.learned == learned]
