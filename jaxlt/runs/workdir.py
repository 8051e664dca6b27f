"""A run's directory: recipe, evaluations and measurements one JSON line each, result."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlt.devices.processes import are_several, by_first, in_agreement
from jaxlt.errors import UsageError
from jaxlt.files.directory import (
    LOCK_FILE,
    PARTIAL,
    claim_directory,
    without_nan,
    write_atomically,
    write_json,
)
from jaxlt.files.foreign_files import read_json
from jaxlt.runs.metrics_file import records


class RunFiles:
    """The files of a run's directory, as they are written; UsageError where one cannot be read."""

    def __init__(self, path: str | Path):
        self.path = path = Path(path)
        self.checkpoints = path / "checkpoints"
        self.recipe_file, self.result_file = path / "recipe.json", path / "result.json"
        self.split_file, self.metrics_file = path / "split.json", path / "metrics.jsonl"

    def read_result(self) -> dict[str, Any] | None:
        """Returns `result.json`, None for a run that is not finished."""
        return read_json(self.result_file) if self.result_file.exists() else None

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the evaluations so far; a line cut short by a kill ends the list."""
        return [record for record in self.read_lines() if "measurement" not in record]

    def read_lines(self) -> list[dict[str, Any]]:
        """Returns the evaluations, and the measurements with their numbers under `measurement`."""
        if not self.metrics_file.exists():
            return []
        return [record for _, record in records(self.metrics_file, until_damaged=True)]

    def saved_steps(self) -> list[int]:
        """Returns the steps of the checkpoints, ascending."""
        return sorted(int(file.name) for file in self.checkpoints.glob("*") if is_step(file.name))


class Workdir(RunFiles):
    """The directory of one run of one recipe, to train in.

    Holds `recipe.json` (the resolved recipe, the seed and a digest of the images), `split.json`
    (the training images' numbers), `metrics.jsonl` (evaluations and measurements; nothing in it
    depends on when the run was interrupted), `result.json` (the last evaluation, the mark of a
    finished run), `checkpoints/`, `tensorboard/`, `lock` (see `lock_directory`). Of several
    processes the first alone makes it; all must see it.

    Args:
        path: created if missing.
        recipe: JSON values that determine the run's numbers; a run of other values is refused.
        code: version of the code that trains, for the record; empty if unknown.

    Raises:
        UsageError: it cannot be written, or holds no run of this recipe; it is left as it was.
    """

    def __init__(self, path: Path, recipe: dict[str, Any], code: str = ""):
        super().__init__(path)
        self.code = [code] if code else []
        self._result: dict[str, Any] | None = None
        by_first(lambda: self._claim(recipe))
        if are_several():
            # On a file system of its own a process would find nothing here.
            in_agreement(lambda: check_identity(path, recipe))

    def _claim(self, recipe: dict[str, Any]) -> None:
        place = str(self.path.absolute())
        if place.encode(errors="ignore").decode() != place:
            raise UsageError(f"workdir must have a path in UTF-8, as its files need, got {place}")
        is_begun = self.recipe_file.exists()
        if is_begun:
            check_identity(self.path, recipe)
        # A run that was killed before it had a recipe leaves these alone.
        elif self.path.is_dir() and not all(
            file.suffix == PARTIAL or file.name == LOCK_FILE for file in self.path.iterdir()
        ):
            raise UsageError(
                f"workdir must be new, empty or a run's, got {self.path}: it holds something else"
            )
        claim_directory(self.path)
        if not is_begun:
            write_json(self.recipe_file, recipe)

    def keep_metrics_until(self, step: int) -> None:
        """Drops what was recorded after a step: the run resumes there and will do it again.

        That step's own evaluation has been made, its measurement comes before the next step.
        """
        lines = "".join(
            json.dumps(record) + "\n"
            for record in self.read_lines()
            if record["step"] < step or (record["step"] == step and "measurement" not in record)
        )
        write_atomically(self.metrics_file, lines)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Appends one evaluation or measurement, on disk when this returns."""
        with self.metrics_file.open("a") as file:
            file.write(json.dumps(without_nan(record)) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes `result.json`, the mark of a finished run."""
        write_json(self.result_file, result)
        self._result = dict(result)

    def read_result(self) -> dict[str, Any] | None:
        """Returns the result, None for a run that is not finished."""
        return self._result or super().read_result()


def check_identity(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raises UsageError, saying what differs, unless a directory holds the run of a recipe."""
    found, wanted = read_json(path / "recipe.json"), json.loads(json.dumps(recipe))
    if found != wanted:
        from jaxlt.runs.differences import refuse_another_run

        refuse_another_run(path, found, wanted)


def is_step(name: str) -> bool:
    """Whether a directory's name is a step's number, as a checkpoint's is."""
    # Unicode has further digits, and zeros in front would make two names of one number.
    return re.fullmatch(r"0|[1-9][0-9]{0,17}", name) is not None
