"""Finished runs as a report needs them: their records, without network, checkpoint or images."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from jaxlt.errors import UsageError
from jaxlt.recipes.trained_run import TrainedRun

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class LearnedClasses:
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


def learned_by(run: TrainedRun) -> LearnedClasses:
    """Returns what a run learned."""
    network, counts = run.files.description, run.class_counts.tolist()
    dataset = run.recorded.data.name
    return LearnedClasses(dataset, network.class_names, tuple(counts), network.image_shape)


def read_run(path: Path) -> TrainedRun:
    """Reads all that a report shows of a run, so that nothing is drawn of one that is damaged.

    Raises:
        UsageError: the directory holds no finished run, or a damaged one.
    """
    run = TrainedRun(path)
    run.files.check_finished()
    _ = run.files.seed, learned_by(run), run.files.evaluations, run.files.result
    return run


def read_runs(paths: Sequence[Path]) -> list[TrainedRun]:
    """Reads runs and the finished ones of directories of runs, each once.

    Args:
        paths: absolute.

    Raises:
        UsageError: one of `paths` has no finished run, or one is damaged.
    """
    if not paths:
        raise UsageError("run must name at least one directory, got none")
    found = dict.fromkeys(run for path in paths for run in _directories(path))
    return [read_run(path) for path in found]


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
