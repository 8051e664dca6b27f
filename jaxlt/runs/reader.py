"""The one reader of a run's directory: recipe, records, result, split, network, checkpoints."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json
from jaxlt.files.json_files import read_json, read_text
from jaxlt.files.typed_json import read_typed, typed
from jaxlt.runs.records import (
    EvaluationRecord,
    MeasurementRecord,
    ResultRecord,
    SeedRecord,
    SplitRecord,
)

if TYPE_CHECKING:
    from jaxlt.runs.model_description import ModelDescription


class RunReader:
    """A run's directory; what is asked for is read and checked then.

    Every method and property raises UsageError where a file is missing, damaged, or says what
    cannot be.

    Attributes:
        path: the directory.
        recipe_file: of the recipe, the seed and a digest of the images.
        result_file: of the last evaluation, the mark of a finished run.
        split_file: of the training images' numbers.
        metrics_file: of the evaluations and measurements, one a line.
        checkpoints: directory of the checkpoints.
    """

    def __init__(self, path: Path):
        self.path, self.checkpoints = path, path / "checkpoints"
        self.recipe_file, self.result_file = path / "recipe.json", path / "result.json"
        self.split_file, self.metrics_file = path / "split.json", path / "metrics.jsonl"

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

        return ModelDescription.read(self.path / "model.json")

    @functools.cached_property
    def class_counts(self) -> np.ndarray:
        """Training images of each class, (C,) int64."""
        counts = read_typed(self.split_file, SplitRecord).class_counts
        classes = self.description.num_classes
        if len(counts) != classes:
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
        for where, values in self._lines():
            if "measurement" in values:
                measurements.append(typed(values, MeasurementRecord, where))
            else:
                evaluations.append(typed(values, EvaluationRecord, where))
                self._check_classes(evaluations[-1], where)
        if not evaluations:
            raise UsageError(f"{self.metrics_file} must hold the run's evaluations, it holds none")
        return _in_order(evaluations), _in_order(measurements)

    def _check_classes(self, record: EvaluationRecord, where: str) -> None:
        if len(record.per_class) != (classes := self.description.num_classes):
            raise UsageError(
                f"{where}: per_class must be a list of {classes} numbers, got "
                f"{len(record.per_class)}"
            )

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the evaluations so far as they are written.

        A line cut short by a kill ends the list.
        """
        return [record for record in self.read_lines() if "measurement" not in record]

    def read_measurements(self) -> list[dict[str, Any]]:
        """Returns the measurements so far, which have their numbers under `measurement`."""
        return [record for record in self.read_lines() if "measurement" in record]

    def read_lines(self) -> list[dict[str, Any]]:
        """Returns the evaluations and measurements so far, as they are written."""
        if not self.metrics_file.exists():
            return []
        return [record for _, record in self._lines(until_damaged=True)]

    def _lines(self, *, until_damaged: bool = False) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields each record with what an error names."""
        for number, line in enumerate(read_text(self.metrics_file).splitlines(), 1):
            where = f"{self.metrics_file} line {number}"
            try:
                record = parse_json(line)
            except ValueError as error:
                if until_damaged:
                    return
                raise UsageError(f"{where} must be JSON, it is damaged: {error}") from error
            if not isinstance(record, dict) or type(record.get("step")) is not int:
                raise UsageError(f"{where} must be an object with a step, it is {line:.80}")
            yield where, record

    def read_result(self) -> dict[str, Any] | None:
        """Returns `result.json` as it is written, None for a run that is not finished."""
        return read_json(self.result_file) if self.result_file.exists() else None

    def saved_steps(self) -> list[int]:
        """Returns the steps of the checkpoints, ascending."""
        return saved_steps(self.checkpoints)

    def variables(self, step: int | None = None) -> Any:
        """Restores `params`, those that are trained, and `batch_stats`.

        Args:
            step: of the checkpoint; None for the newest that is whole.
        """
        import jax

        from jaxlt.runs.stored_arrays import newest_whole, restore_arrays

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
        shapes, _ = self.description.shapes()
        variables, damaged = newest_whole(
            self.checkpoints, steps, lambda one: restore_arrays(self.checkpoints / str(one), shapes)
        )
        if variables is None:
            raise UsageError(
                f"checkpoints in {self.checkpoints} must be readable, got {len(damaged)} that are "
                "not"
            )
        return jax.device_put(variables)


def saved_steps(checkpoints: Path) -> list[int]:
    """Returns the steps of the checkpoints in a directory, ascending; none where there is none."""
    return sorted(int(file.name) for file in checkpoints.glob("*") if is_step(file.name))


def is_step(name: str) -> bool:
    """Whether a directory's name is a step's number, as a checkpoint's is."""
    # Unicode has further digits, and zeros in front would make two names of one number.
    return re.fullmatch(r"0|[1-9][0-9]{0,17}", name) is not None


def _in_order(records: list[Any]) -> list[Any]:
    """Returns the last record of each moment, in the order of steps."""
    of_time = {record.time: record for record in records}
    return [of_time[time] for time in sorted(of_time)]
