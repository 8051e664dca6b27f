"""Where the programs that evaluate finished runs write: a table, its numbers, pictures."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.files.json_files import claim_directory, without_nan, write_json
from jaxlt.recipes.trained_run import TrainedRun

_Result = TypeVar("_Result")


def destinations(
    runs: Sequence[TrainedRun], output: Path | None, name: str
) -> dict[Path, list[int]]:
    """Returns which runs, by number, are reported in which directory.

    That is `output` for all of them, or without it `RUN/name` for each of its own.

    Raises:
        UsageError: a directory cannot be written to. Nothing is created yet.
    """
    if output is not None:
        places = {output: list(range(len(runs)))}
    else:
        places = {run.path / name: [number] for number, run in enumerate(runs)}
    for place in places:
        _check_writable(place)
    return places


def common_destination(runs: Sequence[TrainedRun], output: Path | None, name: str) -> Path:
    """Returns the one directory in which all runs are reported.

    That is `output`, or without it `RUN/name` of a single run and `name` in the directory that
    several have in common.

    Raises:
        UsageError: it cannot be written to. It is not created yet.
    """
    if output is None:
        paths = [run.path.absolute() for run in runs]
        parents = paths if len(set(paths)) == 1 else [path.parent for path in paths]
        output = Path(os.path.commonpath(parents)) / name
    _check_writable(output)
    return output


def _check_writable(place: Path) -> None:
    existing = next(path for path in (place, *place.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UsageError(f"output {place} must be a writable directory, {existing} is none")


def write_reports(
    places: Mapping[Path, Sequence[int]],
    results: Sequence[_Result],
    write: Callable[[Path, list[_Result]], None],
) -> None:
    """Creates each directory and lets `write` fill it with the results of its runs."""
    for place, numbers in places.items():
        claim_directory(place)
        write(place, [results[number] for number in numbers])


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON: lists for arrays, null for NaN."""
    write_json(path, without_nan(_listed(values)))


def _listed(value: Any) -> Any:
    # Unlike jax.tree.map, this keeps the order of names.
    if isinstance(value, Mapping):
        return {name: _listed(item) for name, item in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
