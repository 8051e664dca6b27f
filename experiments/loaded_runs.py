"""The finished runs that a program is given, their images, and where it writes its report."""

import json
import logging
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from experiments.command_line import check_distinct, say_next
from experiments.presentation import method_name, path_label, place_of
from jaxlt.errors import UsageError
from jaxlt.files.directory import claim_directory, without_nan, write_json
from jaxlt.files.whole_file import unwritable
from jaxlt.recipes.recorded import TrainedRun
from jaxlt.runs.differences import key_but_for_seed
from jaxlt.runs.reader import directory_and_step

if TYPE_CHECKING:
    from jaxlt.data import ImageSet

_Result = TypeVar("_Result")

_CHUNK = 128


def load_run(path: Path, label: str, dataset: str | None = None) -> TrainedRun:
    """Reads a run's directory, or one of its `checkpoints/STEP`; UsageError for another.

    Its images are read from `dataset`, None for where they were.
    """
    directory, step = directory_and_step(path)
    run = TrainedRun(directory, step, label, dataset)
    run.check()
    return run


def load_runs(paths: Sequence[Path], dataset: str | None = None) -> list[TrainedRun]:
    """Reads several runs, at least one, each once; their labels are what their paths differ in.

    The images of all are read from `dataset`, None for where they were.
    """
    check_distinct("checkpoint", [path.absolute() for path in paths])
    found = [directory_and_step(path.absolute()) for path in paths]
    common = Path(os.path.commonpath([directory.parent for directory, _ in found]))
    return [
        load_run(path, with_step(path_label(directory.relative_to(common)), step), dataset)
        for path, (directory, step) in zip(paths, found, strict=True)
    ]


def with_step(label: str, step: int | None) -> str:
    """Returns a label that names the step, where there is one."""
    return label if step is None else f"{label}, step {step}"


def seeds_rows(runs: Sequence[TrainedRun]) -> dict[str, list[int]]:
    """Returns the numbers of the runs of each row, by a label of what their paths have in common.

    Runs of one row differ in nothing but their seed; all are of one step, or of the newest.
    """
    rows: dict[tuple, list[int]] = {}
    for number, run in enumerate(runs):
        rows.setdefault((run.step, key_but_for_seed(run.files.identity)), []).append(number)
    root = Path(os.path.commonpath([run.path.absolute().parent for run in runs]))
    labeled: dict[str, list[int]] = {}
    for (step, _), numbers in rows.items():
        common = Path(os.path.commonpath([runs[number].path.absolute() for number in numbers]))
        if common.name == f"seed{runs[numbers[0]].files.seed}":
            common = common.parent
        name = method_name(path_label(common.relative_to(root.parent if common == root else root)))
        label = with_step(name, step)
        while label in labeled:
            label += "'"
        labeled[label] = numbers
    # In the order of every table; those of no method stay as they were given.
    return dict(sorted(labeled.items(), key=lambda row: place_of(row[0].partition(",")[0])))


def first_of_each_class(labels: np.ndarray, images_per_class: int | None) -> np.ndarray:
    """Returns the places in labels (n,) of the first so many of each class, in order; None: all."""
    if images_per_class is None:
        return np.arange(len(labels))
    if images_per_class < 1:
        raise UsageError(f"images_per_class must be at least 1, got {images_per_class}")
    firsts = [np.flatnonzero(labels == c)[:images_per_class] for c in np.unique(labels)]
    return np.sort(np.concatenate(firsts))


def in_chunks(
    function: Callable[[np.ndarray], np.ndarray], images: "ImageSet", indices: np.ndarray
) -> np.ndarray:
    """Applies a function of uint8 images (B, H, W, C) to those at `indices`, some at a time."""
    return np.concatenate([function(images.load(chunk)) for chunk in chunks(indices)])


def chunks(sequence: Any) -> Iterator[Any]:
    """Cuts an array or a list into pieces that fit in memory as images."""
    for start in range(0, len(sequence), _CHUNK):
        yield sequence[start : start + _CHUNK]


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
