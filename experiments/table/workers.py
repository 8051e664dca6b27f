"""Runs in several processes at once, which save their state when they are to stop."""

import contextlib
import multiprocessing
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from experiments.execution import Execution
from experiments.table.worker import Task, work
from jaxlt import UsageError
from jaxlt.errors import Interrupted
from jaxlt.training.loop.signals import catch_signals

# Seconds between looks at signals, and between requests to stop.
_PATIENCE = 0.5


class RunsInterrupted(Interrupted):
    """A signal asked to stop; what the runs have reached is saved.

    Attributes:
        exit_status: see `Interrupted`.
    """

    def __init__(self, exit_status: int, unfinished: int):
        name = signal.Signals(exit_status - 128).name
        Exception.__init__(self, f"stopped by {name} with {unfinished} runs to go, state saved")
        self.exit_status = exit_status


def train_in_processes(tasks: Sequence[Task], jobs: int, execution: Execution) -> None:
    """Trains runs, each in one of several processes that share the cores.

    Not an executor of the standard library: those cannot be told to end what is being done, and
    their workers outlive a parent that is killed.

    Args:
        tasks: the runs, in the order in which they begin.
        jobs: processes, at most.
        execution: how the runs are computed.

    Raises:
        UsageError: of a run, or a process was killed; the others have saved their state.
        RunsInterrupted: a signal asked to stop.
    """
    if not tasks:
        return
    jobs = min(jobs, len(tasks))
    with catch_signals() as received, contextlib.ExitStack() as closing:
        workers = [_Worker(number, jobs, execution) for number in range(jobs)]
        for worker in workers:
            closing.callback(worker.close)
        _Crew(workers, deque(tasks), received).run()


class _Worker:
    """A process that trains one run at a time.

    Attributes:
        task: what it is doing, None while it waits.
    """

    def __init__(self, number: int, jobs: int, execution: Execution):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process: Any = context.Process(target=work, args=(theirs, number, jobs, execution))
        self.task: Task | None = None
        with _without_keyboard():
            self._process.start()
        # Its end is closed here, so that the connection breaks when the process dies.
        theirs.close()

    def begin(self, task: Task) -> None:
        """Hands over a run."""
        self.task = task
        # A process that has died is noticed by `end`.
        with contextlib.suppress(ConnectionError):
            self.connection.send(task)

    def end(self) -> UsageError | int | None:
        """Returns what became of the run: a mistake, the status of an interruption, or nothing."""
        task, self.task = self.task, None
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            return self._death(task)

    def ask_to_stop(self) -> None:
        """Asks the run to save its state. A process that still prepares its run does not listen."""
        self._process.terminate()

    def close(self) -> None:
        """Lets the process end; one that is still at work has been given up, and is killed."""
        self.connection.close()
        if self.task is not None:
            self._process.kill()
        self._process.join()

    def _death(self, task: Task | None) -> UsageError | int:
        self._process.join()
        name, code = task.label if task else "a worker", self._process.exitcode
        if code == -signal.SIGTERM:
            return 128 + signal.SIGTERM  # asked to stop while it was still starting
        if code < 0:
            return UsageError(
                f"the process of {name} was killed by {signal.Signals(-code).name}: jobs must be "
                f"so few that they fit in memory"
            )
        raise RuntimeError(f"the process of {name} ended with status {code}, see above")


class _Crew:
    """Workers and what is left for them to do."""

    def __init__(self, workers: list[_Worker], waiting: deque[Task], received: list[int]):
        self._workers, self._waiting, self._received = workers, waiting, received
        self._unfinished = len(waiting)
        self._mistake: UsageError | None = None
        self._status: int | None = None

    def run(self) -> None:
        """Returns when everything is done; raises what stopped it, once all have stopped."""
        self._hand_out()
        while busy := {one.connection: one for one in self._workers if one.task is not None}:
            for connection in wait(list(busy), timeout=_PATIENCE):
                self._take(busy[connection])  # pyright: ignore[reportArgumentType]
            if self._received and self._status is None:
                self._status = 128 + self._received[0]
            if self._stopping:
                for worker in self._workers:
                    if worker.task is not None:
                        worker.ask_to_stop()
            else:
                self._hand_out()
        if self._mistake is not None:
            raise self._mistake
        if self._status is not None:
            raise RunsInterrupted(self._status, self._unfinished)

    @property
    def _stopping(self) -> bool:
        return self._mistake is not None or self._status is not None

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._waiting and worker.task is None:
                worker.begin(self._waiting.popleft())

    def _take(self, worker: _Worker) -> None:
        outcome = worker.end()
        if isinstance(outcome, UsageError):
            self._mistake = self._mistake or outcome
        elif outcome is not None:
            self._status = self._status or outcome
        else:
            self._unfinished -= 1


@contextlib.contextmanager
def _without_keyboard() -> Iterator[None]:
    """Blocks SIGINT for a process that is started meanwhile, and so for good.

    A terminal sends it to all processes; when the runs are to stop is decided in this one.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
