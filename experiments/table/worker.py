"""One of several processes that train: takes runs from a connection until it closes."""

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from experiments import command_line
from experiments.execution import Execution
from experiments.experiment import Experiment, Replica
from experiments.recipe import Recipe
from experiments.runs import run_all
from jaxlt import UsageError
from jaxlt.devices.compilation_cache import enable_compilation_cache
from jaxlt.errors import Interrupted

# Share of an accelerator's memory for all processes; JAX would take most of it for each.
_SHARE_OF_MEMORY = 0.9


class Task(NamedTuple):
    """A run to be trained.

    Attributes:
        name: of the recipe.
        recipe: what to run.
        replica: seed and directory.
    """

    name: str
    recipe: Recipe
    replica: Replica

    @property
    def label(self) -> str:
        """Name of the run in lines of the log."""
        return f"{self.name} {self.replica.name}"


def work(connection: Connection, number: int, jobs: int, execution: Execution) -> None:
    """Trains the runs that arrive; answers each with None, a UsageError or an exit status.

    Args:
        connection: carries a `Task` here and its outcome back; the process ends when it closes.
        number: of this process, from 0.
        jobs: how many there are.
        execution: how the runs are computed.
    """
    # Training catches SIGTERM by itself. Before it, and when the signal comes again, there is
    # nothing to save and nothing to be lost: who wants it to stop keeps asking.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_stop_without_parent, daemon=True).start()
    _share_machine(number, jobs)
    command_line.run(lambda: _serve(connection, execution))


def _serve(connection: Connection, execution: Execution) -> None:
    enable_compilation_cache()
    log = _LabelledLog()
    # A progress bar for each of several processes would leave no line legible.
    sys.stderr = _Plain(sys.stderr)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(log)
    experiment: Experiment | None = None
    while (task := _next(connection)) is not None:
        log.label = task.label
        try:
            # Seeds of one recipe come one after the other and share what is compiled.
            if experiment is None or experiment.recipe != task.recipe:
                experiment = Experiment(task.recipe, execution)
            run_all(
                experiment,
                [task.replica],
                label=task.name,
                keep_checkpoints=execution.keep_checkpoints,
            )
            outcome = None
        except UsageError as error:
            outcome = error
        except Interrupted as stop:
            outcome = stop.exit_status
        # The run is on disk, whether or not there still is a parent to be told.
        with contextlib.suppress(ConnectionError):
            connection.send(outcome)


def _next(connection: Connection) -> Task | None:
    try:
        return connection.recv()
    except (EOFError, ConnectionError):
        return None


def _share_machine(number: int, jobs: int) -> None:
    """Keeps the process to its share of the cores and of an accelerator's memory."""
    cores = sorted(os.sched_getaffinity(0))
    first = number * len(cores) // jobs
    share = cores[first : (number + 1) * len(cores) // jobs] or cores[first : first + 1]
    os.sched_setaffinity(0, share)
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", f"{_SHARE_OF_MEMORY / jobs:.3f}")


def _stop_without_parent() -> None:
    """Saves the run when the parent was killed: whoever starts it again trains in its directory."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


class _Plain:
    """A stream that says it is no terminal."""

    def __init__(self, stream: Any):
        self._stream = stream

    def isatty(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _LabelledLog(logging.Formatter):
    """Begins every line with the name of the run, unless the line names it."""

    label = ""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if self.label in text else f"{self.label}: {text}"
