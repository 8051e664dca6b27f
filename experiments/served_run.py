"""The network that a program is to serve: of a run, by one of its checkpoints, finished or not."""

import dataclasses
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.files.directory import expanded
from jaxlt.runs.reader import RunReader, directory_and_step
from jaxlt.runs.workdir import is_step

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Served:
    """A run's directory, and the step of the checkpoint to take, None for the newest."""

    path: Path
    step: int | None

    def predictor(self) -> Predictor:
        """Loads the network; of a run that has not ended a line says so."""
        reader = RunReader(self.path)
        if not reader.result_file.is_file() and (steps := reader.saved_steps()):
            taken = steps[-1] if self.step is None else self.step
            _logger.warning(
                "run %s has not ended: the network is that after step %d", self.path, taken
            )
        return Predictor.load(self.path, self.step, unfinished=True)


def served(run: Path, checkpoint: int | None = None, *, best: bool = False) -> Served:
    """Finds the checkpoint of a run; UsageError where it has none such.

    Args:
        run: its directory, or one of its checkpoints, RUN/checkpoints/STEP.
        checkpoint: the step; None for that of the path, or the newest.
        best: whether to take the one of best balanced accuracy, among those that are kept.
    """
    directory, step = directory_and_step(expanded(run))
    if sum((step is not None, checkpoint is not None, best)) > 1:
        raise UsageError(
            f"one checkpoint of run {directory} must be named, got several; give its step once, or "
            "--best alone"
        )
    if not best:
        return Served(directory, checkpoint if step is None else step)
    reader = RunReader(directory)
    saved = set(reader.saved_steps())
    evaluated = {
        record["step"]: float(record.get("balanced_accuracy") or np.nan)
        for record in reader.read_metrics()
        if record["step"] in saved
    }
    known = {step: value for step, value in evaluated.items() if not np.isnan(value)}
    if not known:
        raise UsageError(
            f"run {directory} must have a checkpoint that was evaluated for --best, got none; "
            "leave it out for the newest"
        )
    found = max(known, key=lambda one: (known[one], one))
    _logger.info(
        "step %d has the best balanced accuracy of the checkpoints kept, %.4f on the images that "
        "the run was evaluated on",
        found,
        known[found],
    )
    return Served(directory, found)


def named(words: Sequence[str], checkpoint: str | None) -> tuple[Path, int | None, tuple[str, ...]]:
    """Returns the run and the step that a user has given, and the words behind the run.

    Args:
        words: in front of all flags: the run, where `checkpoint` is not the run itself, and others.
        checkpoint: value of `--checkpoint`, a step or a run.

    Raises:
        UsageError: there is no run.
    """
    step = None if checkpoint is None else _step(checkpoint)
    given = [*words] if checkpoint is None or step is not None else [checkpoint, *words]
    if not given or not given[0]:
        raise UsageError("RUN must be a run's directory, got nothing; give it before all flags")
    if step is None and checkpoint and "/" not in checkpoint and not Path(checkpoint).exists():
        raise UsageError(
            f"checkpoint must be a step, a number, or a run's directory, got {checkpoint}, which "
            "is not there; --best takes the step of best balanced accuracy"
        )
    return Path(given[0]), step, tuple(given[1:])


def only_run(words: Sequence[str], checkpoint: str | None) -> tuple[Path, int | None]:
    """Returns what `named` does, where a run is all that can be given."""
    run, step, others = named(words, checkpoint)
    if others:
        raise UsageError(f"RUN must be one run's directory, got {shlex.join([str(run), *others])}")
    return run, step


def _step(word: str) -> int | None:
    """Returns the step that a word names, None where it is a path."""
    return int(word) if is_step(word) and not (Path(word) / "model.json").exists() else None
