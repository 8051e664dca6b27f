"""A run's directory: recipe, evaluations and measurements one JSON line each, result."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxlt.errors import UsageError
from jaxlt.files.foreign_files import parse_json
from jaxlt.files.json_files import PARTIAL, claim_directory, read_json, read_text, without_nan, write_atomically, write_json
from jaxlt.files.directory_lock import LOCK_FILE
from jaxlt.files.disk_errors import disk_errors_explained
from jaxlt.devices.processes import by_first, in_agreement


class Workdir:
    """The directory of one run of one recipe.

    Holds `recipe.json` (the resolved recipe), `metrics.jsonl` (one line an evaluation or a
    measurement, nothing in it depends on when the run was interrupted), `result.json`,
    `checkpoints/`, `tensorboard/`, `lock` (see `lock_directory`).

    Of several processes the first alone makes it; all must see it.

    Args:
        path: created if missing.
        recipe: JSON values that determine the run's numbers.
        code: version of the code that trains, for the record; empty if unknown.
        defaults: values of fields that the recipe of an earlier version may lack.

    Raises:
        UsageError: the directory cannot be written, or holds something that is no run of this
            recipe. It is left as it was.
    """

    def __init__(
        self,
        path: Path,
        recipe: dict[str, Any],
        code: str = "",
        defaults: Mapping[str, Any] = MappingProxyType({}),
    ):
        self.path, self.code = path, [code] if code else []
        self._defaults = _as_json(defaults)
        by_first(lambda: self._claim(recipe))
        # On a file system of its own a process would find nothing here.
        in_agreement(lambda: self._check(recipe))

    def _claim(self, recipe: dict[str, Any]) -> None:
        path, recipe_file = self.path, self.path / "recipe.json"
        if not recipe_file.exists():
            if path.is_dir() and not all(map(_left_by_a_kill, path.iterdir())):
                raise UsageError(
                    f"workdir {path} must be new, empty or a run's, it holds something else"
                )
            claim_directory(path)
            write_json(recipe_file, recipe)
        self._check(recipe)
        claim_directory(path)

    def _check(self, recipe: dict[str, Any]) -> None:
        found = {**self._defaults, **read_json(self.path / "recipe.json")}
        _check_same_recipe(self.path, found, _as_json(recipe))

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Directory of the TensorBoard events."""
        return self.path / "tensorboard"

    def saved_steps(self) -> list[int]:
        """Returns the steps of the checkpoints, ascending."""
        return saved_steps(self.checkpoints)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the evaluations so far; a line cut short by a kill ends the list."""
        return [record for record in self._read_lines() if "measurement" not in record]

    def read_measurements(self) -> list[dict[str, Any]]:
        """Returns the measurements so far, which have their numbers under `measurement`."""
        return [record for record in self._read_lines() if "measurement" in record]

    def _read_lines(self) -> list[dict[str, Any]]:
        records = []
        if self._metrics_file.exists():
            for number, line in enumerate(read_text(self._metrics_file).splitlines(), 1):
                try:
                    record = parse_json(line)
                except ValueError:
                    break
                if not isinstance(record, dict) or type(record.get("step")) is not int:
                    raise UsageError(
                        f"{self._metrics_file} line {number} must be an object with a step, it is "
                        f"{line:.80}"
                    )
                records.append(record)
        return records

    def keep_metrics_until(self, step: int) -> None:
        """Drops what was recorded after a step: the run resumes there and will do it again.

        That step's own evaluation has been made, its measurement comes before the next step.
        """
        records = [
            record
            for record in self._read_lines()
            if record["step"] < step or (record["step"] == step and "measurement" not in record)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self._metrics_file, lines)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Appends one evaluation or measurement, on disk when this returns."""
        with self._metrics_file.open("a") as file:
            file.write(json.dumps(without_nan(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def nonfinite_batch(self) -> Path:
        """File of the batch of the latest step without a finite loss."""
        return self.path / "nonfinite_batch.json"

    def write_nonfinite_batch(self, batch: Mapping[str, Any]) -> None:
        """Writes `nonfinite_batch`."""
        write_json(self.nonfinite_batch, batch)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, the mark of a finished run."""
        write_json(self.path / "result.json", result)

    def read_result(self) -> dict[str, Any] | None:
        """Returns `result.json`, None for a run that is not finished."""
        file = self.path / "result.json"
        return read_json(file) if file.exists() else None

    @property
    def _metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"


def saved_steps(checkpoints: Path) -> list[int]:
    """Returns the steps of the checkpoints in a directory, ascending; none where there is none."""
    return sorted(int(file.name) for file in checkpoints.glob("*") if is_step(file.name))


def is_step(name: str) -> bool:
    """Whether a directory's name is a step's number, as a checkpoint's is."""
    # Unicode has further digits, and zeros in front would make two names of one number.
    return re.fullmatch(r"0|[1-9][0-9]{0,17}", name) is not None


def _left_by_a_kill(file: Path) -> bool:
    """Whether a run may have left the file before it had a recipe."""
    return file.suffix == PARTIAL or file.name == LOCK_FILE


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(dict(values)))


def _check_same_recipe(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differences = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    if differences:
        raise UsageError(f"workdir {path} holds a run of another recipe: {'; '.join(differences)}")
