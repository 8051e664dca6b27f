"""What training keeps of one run: checkpoints, evaluations, measurements and time."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import (  # Made when it is imported, where none can look.
    Event,  # pyright: ignore[reportAttributeAccessIssue]
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]
)
from tensorboardX.summary import scalar

from jaxlt.devices.cluster import is_loss_of_a_process
from jaxlt.devices.processes import by_first, on_all_processes
from jaxlt.errors import UsageError
from jaxlt.files.directory import disk_errors_explained, lock_directory, without_nan
from jaxlt.runs.checkpoint import Checkpoints, digest
from jaxlt.runs.workdir import Workdir

# Numbers, or lists of one number a class; None or NaN where there is nothing to average.
Metrics = dict[str, float | list[float]]
# Takes an evaluation or a measurement as `metrics.jsonl` has it.
Callback = Callable[[dict[str, Any]], object]


class Run:
    """A run's directory while it trains, which no other process may do then.

    `seconds` is the time of its steps in earlier sessions, `skipped` the steps left out so far,
    counted from 1.
    """

    def __init__(
        self,
        workdir: Workdir,
        keep_checkpoints: int,
        label: str,
        skip_nonfinite: int = 0,
        callbacks: Sequence[Callback] = (),
    ):
        self.workdir, self.label, self.skip_nonfinite = workdir, label, skip_nonfinite
        self.seconds, self._code, self._callbacks = 0.0, list(workdir.code), callbacks
        self.skipped: list[int] = []
        # Step of the last evaluation.
        self.evaluated = 0
        self._frozen: dict[str, str] = {}
        self._evaluation: dict[str, Any] | None = None
        # Before anything else: opening the checkpoints removes those that are half written.
        self._lock = contextlib.ExitStack()
        by_first(lambda: self._lock.enter_context(lock_directory(workdir.path)))
        self._checkpoints = Checkpoints(workdir.checkpoints, keep=keep_checkpoints)
        self._events: Events | None = None

    def restore(
        self, initial: Any, template_at: Callable[[int], Any], until: int | None = None
    ) -> Any:
        """Returns the newest state that is whole, else the initial one.

        Raises UsageError as `Checkpoints.restore_latest`, and where it was trained on other frozen
        parameters than the initial state's.
        """
        # Checkpoints hold what is trained, and tell by this what it was trained on.
        self._frozen = {"frozen": digest(initial.frozen)} if initial.frozen else {}
        restored = self._checkpoints.restore_latest(template_at, until)
        state, record = restored or (initial, {"seconds": 0.0, "code": [], **self._frozen})
        found, own = record.get("frozen"), self._frozen.get("frozen")
        if found != own:
            reason = (
                f"the pretrained network must be the one that the checkpoints in "
                f"{self.workdir.checkpoints} were trained on, with digest {found}, got {own}"
            )
            raise on_all_processes(UsageError(reason))
        self.seconds, self.skipped = record["seconds"], list(record.get("skipped_steps", []))
        # Which code trained, in the order of first use.
        self._code = list(dict.fromkeys([*record["code"], *self.workdir.code]))
        return state

    def begin(self, step: int) -> None:
        """Drops what was kept of steps after this one, and opens the log of events."""

        def begin() -> None:
            self.workdir.keep_metrics_until(step)
            self._events = Events(self.workdir.path / "tensorboard", step + 1)

        self._checkpoints.drop_after(step)
        self.by_first(begin)
        if step:
            self.evaluated = max((one["step"] for one in self.workdir.read_metrics()), default=0)

    def by_first(self, write: Callable[[], object]) -> None:
        """Writes in the directory, process 0 alone; where it cannot, all of them stop."""
        by_first(disk_errors_explained(self.workdir.path)(write))

    def record(
        self, step: int, values: Mapping[str, Any], curves: Mapping[str, float] | None = None
    ) -> None:
        """Writes down an evaluation or a measurement taken after a step.

        TensorBoard shows the numbers among the values, and the curves.
        """

        def write() -> None:
            assert self._events is not None, "begin comes before the first record"
            record = without_nan({"step": step, **values})
            self.workdir.append_metrics(record)
            if "measurement" not in record:
                self._evaluation = record
            self._events.add({**_finite_numbers(values), **(curves or {})}, step)
            for callback in self._callbacks:
                # A copy, which the callback may change.
                callback(without_nan(record))

        self.by_first(write)
        if "measurement" not in values:
            self.evaluated = step

    def save(self, state: Any, metrics: Metrics | None, session_seconds: float) -> None:
        """Saves a checkpoint, in the background; the time is that of the steps since `begin`."""
        numbers = None if metrics is None else _finite_numbers(metrics)
        self._checkpoints.save(state, {**self._spent(session_seconds), **self._frozen}, numbers)

    def wait(self) -> None:
        """Returns when every checkpoint is on disk."""
        self._checkpoints.wait()

    def finish(self, session_seconds: float) -> None:
        """Writes the result, the mark of a finished run: the last evaluation and the time."""

        def write() -> None:
            # An earlier session's, where this one had no step left to take.
            records = [self._evaluation] if self._evaluation else self.workdir.read_metrics()
            if not records:
                raise UsageError(
                    f"{self.workdir.path} must hold the metrics.jsonl of its run, got none"
                )
            result = {**records[-1], **self._spent(session_seconds)}
            result["seconds"] = round(result["seconds"], 3)
            self.workdir.write_result(result)

        self.by_first(write)

    def steps_taken(self, after: int, until: int) -> int:
        """Returns how many steps between two were not skipped."""
        return until - after - sum(after < step <= until for step in self.skipped)

    def _spent(self, session_seconds: float) -> dict[str, Any]:
        """Returns what a checkpoint and the result say beside the state and the evaluation."""
        spent: dict[str, Any] = {"seconds": self.seconds + session_seconds, "code": self._code}
        if self.skipped or self.skip_nonfinite:
            # A copy: the record of a checkpoint is written while training goes on.
            spent["skipped_steps"] = list(self.skipped)
        return spent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Saves wait for all processes, and so would this one, for one that has died.
        if error is not None and is_loss_of_a_process(error):
            return
        with self._lock, contextlib.closing(self._checkpoints):
            if self._events is not None:
                self._events.close()


def _finite_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if isinstance(v, float) and math.isfinite(v)}


class Events:
    """A file of events for TensorBoard, which hides earlier sessions' from its first step on.

    `tensorboardX.SummaryWriter` writes in a thread, which dies where the disk is full, and training
    waits for it for ever. This one raises OSError.
    """

    def __init__(self, directory: Path, first_step: int):
        directory.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(directory / "events"))
        self._write(Event(step=first_step, session_log=SessionLog(status=SessionLog.START)))

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve, on disk when this returns."""
        for name, number in numbers.items():
            self._write(Event(step=step, summary=scalar(name, number)))
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)
