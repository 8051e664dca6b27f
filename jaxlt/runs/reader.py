"""The one reader of a run's directory: recipe, split, typed records, network, checkpoints."""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from unicodedata import normalize

import msgspec
import numpy as np
from msgspec import Meta

from jaxlt.errors import UsageError, first_few
from jaxlt.files.foreign_files import Count, Number, read_json, read_typed, typed
from jaxlt.runs.metrics_file import records
from jaxlt.runs.workdir import RunFiles, is_step

if TYPE_CHECKING:
    from jaxlt.runs.model_description import ModelDescription

GROUPS = ("many", "medium", "few")
PLACES = ("correct", *GROUPS)
_UNKNOWN = Number("nan")
# Of runs below a directory, as in runs/TABLE/trials/NAME/seedN.
_DEEPEST = 4


class RecordTime(NamedTuple):
    """When a record was made: stages are numbered from 0, steps over all of them."""

    stage: int
    step: int


class GroupShares(msgspec.Struct, frozen=True):
    """Where the images of a shot group are classified, see `jaxlt.evaluation.group_confusion`."""

    correct: Number
    many: Number
    medium: Number
    few: Number


class RecordedConfusion(msgspec.Struct, frozen=True):
    """The shares of each shot group."""

    many: GroupShares
    medium: GroupShares
    few: GroupShares


class RecordedBins(msgspec.Struct, frozen=True):
    """Images by confidence, see `jaxlt.evaluation.ConfidenceBins`."""

    counts: tuple[Count, ...]
    confidence_sums: tuple[Number, ...]
    correct: tuple[Count, ...]

    def __post_init__(self):
        lengths = [len(self.counts), len(self.confidence_sums), len(self.correct)]
        if len(set(lengths)) > 1 or not sum(self.counts):
            raise UsageError(
                "confidence_bins must have as many counts as confidence_sums and correct, and "
                f"images in them, got {lengths} of {sum(self.counts)} images"
            )


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `metrics.jsonl`."""

    step: Count
    stage: Count = 0

    @property
    def time(self) -> RecordTime:
        """When it was made."""
        return RecordTime(self.stage, self.step)


class EvaluationRecord(_Record, frozen=True, kw_only=True):
    """One evaluation of C classes.

    Accuracies are in [0, 1], losses in nats; NaN is what was not recorded.
    """

    accuracy: Number
    balanced_accuracy: Number
    many: Number
    medium: Number
    few: Number
    per_class: tuple[Number, ...]
    train_loss: Number = _UNKNOWN
    test_loss: Number = _UNKNOWN
    ece: Number = _UNKNOWN
    group_confusion: RecordedConfusion | None = None
    confidence_bins: RecordedBins | None = None


class ResultRecord(EvaluationRecord, frozen=True, kw_only=True):
    """A run's last evaluation: `result.json`."""

    seconds: Number
    """Of training."""
    code: tuple[str, ...] = ()
    """Versions of the code that trained it, in the order of first use."""


class MeasuredNumbers(msgspec.Struct, frozen=True):
    """What was measured at one step; NaN is what a batch could not tell."""

    sharpness: dict[str, Number] = {}
    cosine: dict[str, Number] = {}
    batches_without: dict[str, Number] = {}
    perturbation_norm: tuple[Number, ...] = ()
    """One number a group of the method."""


class MeasurementRecord(_Record, frozen=True, kw_only=True):
    """One measurement."""

    measurement: MeasuredNumbers


class SplitRecord(msgspec.Struct, frozen=True):
    """What of `split.json` can be understood without the data set."""

    class_counts: Annotated[tuple[Annotated[int, Meta(ge=1, lt=2**53)], ...], Meta(min_length=1)]
    """Training images of each class."""


class SeedRecord(msgspec.Struct, frozen=True):
    """What of `recipe.json` is not the recipe."""

    seed: Count


def directory_and_step(path: Path) -> tuple[Path, int | None]:
    """Tells a run's directory, of no step, from one of its `checkpoints/STEP`.

    UsageError says that it is neither, or names the runs that a directory above them holds.
    """
    if path.parent.name != "checkpoints" or (path / "model.json").exists():
        _check_is_no_parent(path)
        return path, None
    if not is_step(path.name):
        raise UsageError(f"checkpoint {path} must be named by its step, a number")
    return path.parent.parent, int(path.name)


def _check_is_no_parent(path: Path) -> None:
    marks = ("recipe.json", "model.json")
    # Path's own raises where it may not look.
    if any(os.path.exists(path / mark) for mark in marks):  # noqa: PTH110
        return
    # No deeper: whatever else lies there may be large.
    depths = (f"{'*/' * depth}{mark}" for depth in range(1, _DEEPEST + 1) for mark in marks)
    below = sorted({str(file.parent) for depth in depths for file in path.glob(depth)})
    # What short runs chose was trained in full beside them, by finetune.
    if below := [run for run in below if "/trials/" not in run[len(str(path)) :]] or below:
        raise UsageError(
            f"run {path} must be the directory of one run, got one that holds {len(below)}: "
            f"{first_few(below, 3)}; give {'one of them' if len(below) > 1 else 'it'}"
        )


class RunReader(RunFiles):
    """A run's directory, read as asked for; UsageError where a file is not there or not right."""

    def check_finished(self) -> None:
        """Raises UsageError unless the run is finished."""
        if not self.result_file.is_file():
            raise UsageError(f"run {self.path} must be finished, got one without result.json")

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Contents of `recipe.json`; `jaxlt.recipes` makes a recipe of them."""
        return read_json(self.recipe_file)

    @property
    def seed(self) -> int:
        """Seed of parameters, order and augmentation."""
        return typed(self.identity, SeedRecord, str(self.recipe_file)).seed

    @functools.cached_property
    def description(self) -> "ModelDescription":
        """What its network is."""
        # With the networks, of which most programs have no need before they have read their flags.
        from jaxlt.runs.model_description import ModelDescription

        found = read_typed(self.path / "model.json", ModelDescription)
        # Earlier versions kept the names as the file system had them.
        names = tuple(normalize("NFC", name) for name in found.class_names)
        return msgspec.structs.replace(found, class_names=names)

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """Training images of each class, (C,) int64."""
        counts = read_typed(self.split_file, SplitRecord).class_counts
        if len(counts) != (classes := self.description.num_classes):
            raise UsageError(
                f"{self.split_file} must have a count for each of the {classes} classes in "
                f"model.json, got {len(counts)}"
            )
        return np.array(counts, np.int64)

    @functools.cached_property
    def result(self) -> ResultRecord:
        """The last evaluation, with the time and the versions of the code."""
        self.check_finished()
        result = read_typed(self.result_file, ResultRecord)
        self._check_classes(result, str(self.result_file))
        return result

    @property
    def evaluations(self) -> list[EvaluationRecord]:
        """Evaluations of a finished run, at least one, in the order of steps."""
        return self._records[0]

    @property
    def measurements(self) -> list[MeasurementRecord]:
        """Measurements of a finished run, in the order of steps."""
        return self._records[1]

    @functools.cached_property
    def _records(self) -> tuple[list[EvaluationRecord], list[MeasurementRecord]]:
        evaluations: list[EvaluationRecord] = []
        measurements: list[MeasurementRecord] = []
        for where, values in records(self.metrics_file):
            if "measurement" in values:
                measurements.append(typed(values, MeasurementRecord, where))
            else:
                evaluations.append(typed(values, EvaluationRecord, where))
                self._check_classes(evaluations[-1], where)
        if not evaluations:
            raise UsageError(f"{self.metrics_file} must hold the run's evaluations, got none")
        return _in_order(evaluations), _in_order(measurements)

    def _check_classes(self, record: EvaluationRecord, where: str) -> None:
        if len(record.per_class) != (classes := self.description.num_classes):
            raise UsageError(
                f"{where}: per_class must be a list of {classes} numbers, got "
                f"{len(record.per_class)}"
            )

    def variables(self, step: int | None = None) -> Any:
        """Restores the trained `params` and `batch_stats` of a step, None for the newest whole."""
        import jax

        from jaxlt.runs.rebuilt_network import variable_shapes
        from jaxlt.runs.restore import newest_whole, restore_arrays

        steps = self.saved_steps()
        if step is not None and step not in steps:
            raise UsageError(
                f"step must be that of a checkpoint of run {self.path}, "
                f"{' or '.join(map(str, reversed(steps))) or 'none is there'}, got {step}"
            )
        if not steps:
            raise UsageError(
                f"{self.path} must have a checkpoint, got none in {self.checkpoints.name}"
            )
        steps = steps if step is None else [step]
        shapes, _ = variable_shapes(self.description)
        variables, damaged = newest_whole(
            self.checkpoints, steps, lambda one: restore_arrays(self.checkpoints / str(one), shapes)
        )
        if variables is None:
            raise UsageError(
                f"checkpoints in {self.checkpoints} must be readable, got {len(damaged)} that are "
                "not"
            )
        return jax.device_put(variables)


def _in_order(records: list[Any]) -> list[Any]:
    """Returns the last record of each moment, in the order of steps."""
    of_time = {record.time: record for record in records}
    return [of_time[time] for time in sorted(of_time)]
