"""A run's directory: recipe, evaluations and measurements one JSON line each, result."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlt.devices.processes import by_first, in_agreement
from jaxlt.errors import UsageError
from jaxlt.files.directory_lock import LOCK_FILE
from jaxlt.files.json_files import (
    PARTIAL,
    claim_directory,
    read_json,
    without_nan,
    write_atomically,
    write_json,
)
from jaxlt.runs.differences import differences
from jaxlt.runs.reader import RunReader


class Workdir(RunReader):
    """The directory of one run of one recipe.

    Holds `recipe.json` (the resolved recipe), `metrics.jsonl` (one line an evaluation or a
    measurement, nothing in it depends on when the run was interrupted), `result.json`,
    `checkpoints/`, `tensorboard/`, `lock` (see `lock_directory`).

    Of several processes the first alone makes it; all must see it.

    Args:
        path: created if missing.
        recipe: JSON values that determine the run's numbers, with their `format`.
        code: version of the code that trains, for the record; empty if unknown.

    Raises:
        UsageError: the directory cannot be written, or holds something that is no run of this
            recipe. It is left as it was.
    """

    def __init__(
        self,
        path: Path,
        recipe: dict[str, Any],
        code: str = "",
    ):
        super().__init__(path)
        self.code = [code] if code else []
        by_first(lambda: self._claim(recipe))
        # On a file system of its own a process would find nothing here.
        in_agreement(lambda: check_identity(path, recipe))

    def _claim(self, recipe: dict[str, Any]) -> None:
        path = self.path
        if not self.recipe_file.exists():
            if path.is_dir() and not all(map(_left_by_a_kill, path.iterdir())):
                raise UsageError(
                    f"workdir {path} must be new, empty or a run's, it holds something else"
                )
            claim_directory(path)
            write_json(self.recipe_file, recipe)
        check_identity(path, recipe)
        claim_directory(path)

    @property
    def tensorboard(self) -> Path:
        """Directory of the TensorBoard events."""
        return self.path / "tensorboard"

    def keep_metrics_until(self, step: int) -> None:
        """Drops what was recorded after a step: the run resumes there and will do it again.

        That step's own evaluation has been made, its measurement comes before the next step.
        """
        records = [
            record
            for record in self.read_lines()
            if record["step"] < step or (record["step"] == step and "measurement" not in record)
        ]
        lines = "".join(json.dumps(record) + "\n" for record in records)
        write_atomically(self.metrics_file, lines)

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Appends one evaluation or measurement, on disk when this returns."""
        with self.metrics_file.open("a") as file:
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
        write_json(self.result_file, result)


def check_identity(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raises UsageError, saying what differs, unless a directory holds the run of a recipe."""
    file = path / "recipe.json"
    found, wanted = read_json(file), json.loads(json.dumps(recipe))
    if found.get("format") != wanted.get("format"):
        raise UsageError(
            f"{file} must have format {wanted.get('format')}, got {found.get('format')!r:.20}: "
            "another version of jaxlt wrote it; give another --workdir"
        )
    shown = [
        f"{name} is {there!r} there and {here!r} here"
        for name, (there, here) in differences([found, wanted]).items()
    ]
    if shown:
        raise UsageError(
            f"workdir {path} must be new or hold a run of this recipe, got another: "
            f"{'; '.join(shown)}; give --workdir for a second run"
        )


def _left_by_a_kill(file: Path) -> bool:
    """Whether a run may have left the file before it had a recipe."""
    return file.suffix == PARTIAL or file.name == LOCK_FILE
