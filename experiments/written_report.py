"""Where the programs that evaluate finished runs write: a table, its numbers, pictures."""

import json
import logging
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from experiments.command_line import say_next
from experiments.loaded_runs import directory_and_step
from jaxlt.errors import UsageError
from jaxlt.files.directory import claim_directory, without_nan, write_json
from jaxlt.recipes.trained_run import TrainedRun

_Result = TypeVar("_Result")


def destinations(
    runs: Sequence[TrainedRun], output: Path | None, name: str
) -> dict[Path, list[int]]:
    """Returns which runs, by number, are reported in which writable directory, not made yet.

    That is `output` for all of them, or without it `RUN/name` for each of its own.
    """
    places = {run.path / name: [number] for number, run in enumerate(runs)}
    if output is not None:
        places = {output: list(range(len(runs)))}
    for place in places:
        _check_writable(place)
    return places


def common_destination(runs: Sequence[TrainedRun], output: Path | None, name: str) -> Path:
    """Returns the one directory for all runs: `output`, or `name` in what their paths share."""
    if output is None:
        paths = [run.path.absolute() for run in runs]
        parents = paths if len(set(paths)) == 1 else [path.parent for path in paths]
        output = Path(os.path.commonpath(parents)) / name
    _check_writable(output)
    return output


def _check_writable(place: Path) -> None:
    if (obstacle := unwritable(place)) is not None:
        raise UsageError(f"output {place} must be a writable directory, {obstacle} is none")


def unwritable(directory: Path) -> Path | None:
    """Returns what stands in the way of writing to a directory, made or not; None for nothing."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return None if existing.is_dir() and os.access(existing, os.W_OK) else existing


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
    listed = json.loads(json.dumps(values, default=np.ndarray.tolist))
    write_json(path, without_nan(listed))


def say_written(places: Iterable[Path], checkpoints: Sequence[Path], *programs: str) -> None:
    """Says where the files are, and which `programs` and flags the runs may be handed to next."""
    logging.getLogger(__name__).info("written to %s", ", ".join(map(str, places)))
    runs = dict.fromkeys(str(directory_and_step(path)[0]) for path in checkpoints)
    same = shlex.join(map(str, checkpoints))
    say_next(
        *(f"python3 -m experiments.{program} --checkpoint {same}" for program in programs),
        f"python3 -m experiments.report {shlex.join(runs)}",
    )
