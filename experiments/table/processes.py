"""Runs in several processes at once, each of them the ordinary program for one run."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxlt import UsageError
from jaxlt.errors import Interrupted
from jaxlt.recipes.in_words import shown
from jaxlt.recipes.recipe import Execution, Recipe
from jaxlt.recipes.recorded import write_recipe

_ROOT = Path(__file__).parents[2]
# Share of an accelerator's memory for all processes; JAX would take most of it for each.
_SHARE_OF_MEMORY = 0.9
_LONGEST_LINE = 2**24
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_STOPPED = {128 + signum for signum in _SIGNALS}

_logger = logging.getLogger(__name__)


class PlannedRun(NamedTuple):
    """A run to be trained: the recipe and its name, the seed, the run's directory."""

    name: str
    recipe: Recipe
    seed: int
    path: Path

    @property
    def label(self) -> str:
        """Name of the run in lines of the log."""
        return f"{self.name} seed {self.seed}"


class RunsInterrupted(Interrupted):
    """A signal asked to stop; what the runs have reached is saved."""

    def __init__(self, exit_status: int, unfinished: int):
        name = signal.Signals(exit_status - 128).name
        Exception.__init__(self, f"stopped by {name} with {unfinished} runs to go, state saved")
        self.exit_status = exit_status


def train_in_processes(runs: Sequence[PlannedRun], jobs: int, execution: Execution) -> None:
    """Trains runs, `jobs` at a time; what stops one is raised once the others have saved theirs."""
    with tempfile.TemporaryDirectory() as recipes:
        crew = _Crew(runs, min(jobs, len(runs)), execution, Path(recipes))
        before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
        try:
            asyncio.run(crew.train())
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


class _Crew:
    """The processes, and the runs that wait for one."""

    def __init__(self, runs: Sequence[PlannedRun], jobs: int, execution: Execution, recipes: Path):
        self._waiting, self._unfinished = deque(runs), len(runs)
        self._jobs, self._execution, self._recipes = jobs, dataclasses.asdict(execution), recipes
        self._processes: set[asyncio.subprocess.Process] = set()
        self._failure: Exception | None = None
        self._status: int | None = None

    async def train(self) -> None:
        """Returns when all is done; when all have stopped, raises what stopped them."""
        loop = asyncio.get_running_loop()
        for signum in _SIGNALS:
            loop.add_signal_handler(signum, self._receive, signum)
        await asyncio.gather(*map(self._work, range(self._jobs)))
        if self._failure is not None:
            raise self._failure
        if self._status is not None:
            raise RunsInterrupted(self._status, self._unfinished)

    @property
    def _stopping(self) -> bool:
        return self._failure is not None or self._status is not None

    def _receive(self, signum: int) -> None:
        # The second of a kind acts as if nobody had caught the first.
        asyncio.get_running_loop().remove_signal_handler(signum)
        self._stop(status=128 + signum)

    def _stop(self, *, failure: Exception | None = None, status: int | None = None) -> None:
        """Notes the reason, and asks every process to save its run, once: twice would kill it."""
        asked = self._stopping
        self._failure, self._status = self._failure or failure, self._status or status
        self._waiting.clear()
        for process in () if asked else self._processes:
            _ask_to_stop(process)

    async def _work(self, number: int) -> None:
        while self._waiting:
            await self._train(self._waiting.popleft(), number)

    async def _train(self, run: PlannedRun, number: int) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(run, number),
            env=_environment(self._jobs),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LONGEST_LINE,
            # A terminal's Ctrl-C is for this process alone, which decides when the runs stop.
            process_group=0,
        )
        self._processes.add(process)
        if self._stopping:
            _ask_to_stop(process)
        try:
            error = await _log(process, run.label)
            self._take(run, await process.wait(), error)
        finally:
            self._processes.remove(process)
            if process.returncode is None:
                process.kill()
                await process.wait()

    def _take(self, run: PlannedRun, status: int, error: str) -> None:
        """Notes what became of a run."""
        # The signal itself ends a process that has nothing to save yet.
        signaled = 128 - status if status < 0 else status
        if status == 0:
            self._unfinished -= 1
        elif status == 2 and error:
            self._stop(failure=UsageError(error))
        elif signaled in _STOPPED:
            self._stop(status=signaled)
        elif status < 0:
            text = (
                f"jobs must be so few that their runs fit in memory, got {self._jobs}: the process "
                f"of {run.label} was killed by {signal.Signals(-status).name}"
            )
            self._stop(failure=UsageError(text))
        else:
            text = f"the process of {run.label} ended with status {status}, see above"
            self._stop(failure=RuntimeError(text))

    def _command(self, run: PlannedRun, number: int) -> list[str]:
        file = self._recipes / f"{run.name}.json"
        file.write_text(write_recipe(run.recipe))
        cores = ",".join(map(str, _share_of_cores(number, self._jobs)))
        started = [sys.executable, "-m", "experiments.table.child", str(os.getpid()), cores]
        flags = {"recipe": file, "seed": run.seed, "workdir": run.path, **self._execution}
        return [*started, *(f"--{name.replace('_', '-')}={shown(flags[name])}" for name in flags)]


def _ask_to_stop(process: asyncio.subprocess.Process) -> None:
    # Not by SIGINT, which is ignored where a shell started the program in its background.
    with contextlib.suppress(ProcessLookupError):
        process.terminate()


async def _log(process: asyncio.subprocess.Process, label: str) -> str:
    """Logs what a process says, each line with the run's name; returns its error's text."""
    assert process.stdout is not None, "it is a pipe"
    error, done = "", False
    async for said in process.stdout:
        line = said.decode(errors="replace").rstrip()
        # What to type next is for who started the program.
        done = done or line == "next:"
        if line.startswith("error: "):
            error = line.removeprefix("error: ")
        elif line and not done:
            text = line if label in line else f"{label}: {line}"
            _logger.info("%s", text, extra={"said": line})
    return error


def _share_of_cores(number: int, jobs: int) -> list[int]:
    cores = sorted(os.sched_getaffinity(0))
    first = number * len(cores) // jobs
    return cores[first : (number + 1) * len(cores) // jobs] or cores[first : first + 1]


def _environment(jobs: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in environment:
        environment.setdefault("XLA_CLIENT_MEM_FRACTION", f"{_SHARE_OF_MEMORY / jobs:.3f}")
    return environment
