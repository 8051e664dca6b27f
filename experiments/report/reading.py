"""Finished runs as a report needs them: their records, without network, checkpoint or images."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from experiments.fields import Fields
from jaxlt.errors import UsageError
from jaxlt.evaluation import ConfidenceBins
from jaxlt.files.json_files import read_text

_logger = logging.getLogger(__name__)

GROUPS = ("many", "medium", "few")
PLACES = ("correct", *GROUPS)
_SHARES = ("accuracy", "balanced_accuracy", *GROUPS)
_OPTIONAL = ("train_loss", "test_loss", "ece")


class Moment(NamedTuple):
    """When a record was made: stages are numbered from 0, steps over all of them."""

    stage: int
    step: int


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """One evaluation of C classes.

    Attributes:
        moment: when.
        numbers: losses, accuracies in [0, 1], ECE; NaN for what was not recorded.
        per_class: (C,) accuracies, NaN for a class without test images.
        group_confusion: see `jaxlt.evaluation.group_confusion`; None where it was not recorded.
        bins: images by confidence; None where they were not recorded.
    """

    moment: Moment
    numbers: dict[str, float]
    per_class: np.ndarray
    group_confusion: dict[str, dict[str, float]] | None
    bins: ConfidenceBins | None

    @classmethod
    def from_fields(cls, fields: Fields, num_classes: int) -> Self:
        """Reads a line of `metrics.jsonl`, or `result.json`."""
        numbers = {name: fields.number(name) for name in _SHARES}
        for name in _OPTIONAL:
            numbers[name] = fields.number(name) if name in fields else float("nan")
        return cls(
            _moment(fields),
            numbers,
            fields.numbers("per_class", num_classes),
            _group_confusion(fields.object("group_confusion"))
            if "group_confusion" in fields
            else None,
            _bins(fields.object("confidence_bins")) if "confidence_bins" in fields else None,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured at one training step.

    Attributes:
        moment: when.
        numbers: by name and part, such as `("sharpness", "few")`; NaN for what a batch could not
            tell, such as the sharpness of a group without an image in it.
        perturbation_norm: one number a group of the method; none where the method has none.
    """

    moment: Moment
    numbers: dict[tuple[str, str], float]
    perturbation_norm: np.ndarray

    @classmethod
    def from_fields(cls, fields: Fields) -> Self:
        """Reads a line of `metrics.jsonl` that has a `measurement`."""
        measured = fields.object("measurement")
        numbers = {
            (name, part): measured.object(name).number(part)
            for name in ("sharpness", "cosine", "batches_without")
            if name in measured
            for part in measured.object(name).values
        }
        known = "perturbation_norm" in measured
        norms = measured.numbers("perturbation_norm") if known else np.empty(0)
        return cls(_moment(fields), numbers, norms)


@dataclasses.dataclass(frozen=True)
class Task:
    """What was learned: C classes of a data set.

    Attributes:
        dataset: as the recipe names it.
        class_names: of each class.
        class_counts: training images of each class.
        image_shape: height, width, channels.
    """

    dataset: str
    class_names: tuple[str, ...]
    class_counts: tuple[int, ...]
    image_shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        path: its directory, absolute.
        recipe: contents of its `recipe.json`.
        task: what it learned.
        evaluations: in the order of steps.
        measurements: likewise.
        result: its last evaluation.
        seconds: of training.
        code: versions of the code that trained it.
    """

    path: Path
    recipe: dict[str, Any]
    task: Task
    evaluations: list[Evaluation]
    measurements: list[Measurement]
    result: Evaluation
    seconds: float
    code: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a directory.

        Raises:
            UsageError: it holds no finished run, or a damaged one.
        """
        if not (path / "result.json").is_file():
            raise UsageError(f"run {path} must be finished, it has no result.json")
        recipe, result = (Fields.read(path / f"{name}.json") for name in ("recipe", "result"))
        for name in ("seed", "many_above", "few_below", "tail_threshold"):
            recipe.count(name)
        for name in ("method", "model"):
            recipe.text(name)
        task = _task(path, recipe)
        evaluations, measurements = _records(path / "metrics.jsonl", len(task.class_counts))
        return cls(
            path,
            dict(recipe.values),
            task,
            evaluations,
            measurements,
            Evaluation.from_fields(result, len(task.class_counts)),
            result.number("seconds"),
            result.texts("code") if "code" in result else (),
        )


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Reads runs and the finished ones of directories of runs, each once.

    Args:
        paths: absolute.

    Raises:
        UsageError: one of `paths` has no finished run, or one is damaged.
    """
    if not paths:
        raise UsageError("run must name at least one directory, got none")
    found = dict.fromkeys(run for path in paths for run in _directories(path))
    return [Run.read(path) for path in found]


def _directories(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UsageError(f"run {path} must be a directory, it is none")
    if (path / "recipe.json").exists():
        return [path]
    begun = sorted(file.parent for file in path.rglob("recipe.json"))
    finished = [run for run in begun if (run / "result.json").exists()]
    if not finished:
        raise UsageError(f"run {path} must be a finished run or hold some, it holds none")
    for run in begun:
        if run not in finished:
            _logger.info("%s is not finished and is left out", run)
    return finished


def _task(path: Path, recipe: Fields) -> Task:
    model, split = Fields.read(path / "model.json"), Fields.read(path / "split.json")
    names = model.texts("class_names")
    counts = split.counts("class_counts").tolist()
    if len(counts) != len(names) or not counts:
        raise UsageError(
            f"{path / 'split.json'} must have a count for each of the {len(names)} classes in "
            f"model.json, it has {len(counts)}"
        )
    if min(counts) < 1:
        raise UsageError(
            f"{path / 'split.json'} must have class_counts of at least 1, it has {min(counts)}"
        )
    shape = tuple(model.counts("image_shape").tolist())
    return Task(recipe.text("dataset"), names, tuple(counts), shape)


def _records(path: Path, num_classes: int) -> tuple[list[Evaluation], list[Measurement]]:
    evaluations: dict[Moment, Evaluation] = {}
    measurements: dict[Moment, Measurement] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        fields = Fields.parse(line, f"{path} line {number}")
        if "measurement" in fields:
            measurement = Measurement.from_fields(fields)
            measurements[measurement.moment] = measurement
        else:
            evaluation = Evaluation.from_fields(fields, num_classes)
            evaluations[evaluation.moment] = evaluation
    if not evaluations:
        raise UsageError(f"{path} must hold the run's evaluations, it holds none")
    return (
        [evaluations[moment] for moment in sorted(evaluations)],
        [measurements[moment] for moment in sorted(measurements)],
    )


def _moment(fields: Fields) -> Moment:
    return Moment(fields.count("stage") if "stage" in fields else 0, fields.count("step"))


def _group_confusion(fields: Fields) -> dict[str, dict[str, float]]:
    rows = {group: fields.object(group) for group in GROUPS}
    return {group: {place: row.number(place) for place in PLACES} for group, row in rows.items()}


def _bins(fields: Fields) -> ConfidenceBins:
    counts, correct = fields.counts("counts"), fields.counts("correct")
    sums = fields.numbers("confidence_sums", len(counts))
    if len(correct) != len(counts) or not counts.sum():
        raise UsageError(
            f"{fields.where} must have as many counts as correct, and images in them, it has "
            f"{len(counts)} and {len(correct)}, of {counts.sum()} images"
        )
    return ConfidenceBins(counts, np.nan_to_num(sums), correct)
