"""What training keeps of one run: checkpoints, evaluations, measurements and time."""

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

from jaxlt.devices.processes import by_first, is_loss_of_a_process, on_all_processes
from jaxlt.errors import UsageError
from jaxlt.files.directory_lock import lock_directory
from jaxlt.files.disk_errors import disk_errors_explained
from jaxlt.files.json_files import without_nan
from jaxlt.runs.checkpoint import Checkpoints, digest
from jaxlt.runs.events import Events
from jaxlt.runs.workdir import Workdir

# Numbers, or lists of one number a class; None or NaN where there is nothing to average.
Metrics = dict[str, float | list[float]]
# Takes an evaluation or a measurement as plain numbers.
Callback = Callable[[dict[str, Any]], object]

# TensorBoard shows a curve a number, so that there is no room for one a class.
_MAX_CURVES = 10

_logger = logging.getLogger(__name__)


class Run:
    """A run's directory while it trains, which no other process may do then.

    Args:
        workdir: where everything goes.
        keep_checkpoints: how many of the latest are kept, beside the best by balanced accuracy.
        label: name of the run in messages.
        skip_nonfinite: how many steps without a finite loss may be left out.
        callbacks: each is handed every evaluation and measurement, as written to metrics.jsonl.

    Raises:
        UsageError: another process trains in the directory; nothing in it is changed.

    Attributes:
        seconds: time of the run's steps in earlier sessions; `restore` sets it.
        skipped: the steps that were left out so far, counted from 1.
    """

    def __init__(
        self,
        workdir: Workdir,
        keep_checkpoints: int,
        label: str,
        skip_nonfinite: int = 0,
        callbacks: Sequence[Callback] = (),
    ):
        self.workdir, self.label = workdir, label
        self.seconds, self._code = 0.0, list(workdir.code)
        self.skipped: list[int] = []
        self._skip_nonfinite, self._callbacks = skip_nonfinite, callbacks
        self._frozen: dict[str, str] = {}
        # Before anything else: opening the checkpoints removes those that are half written.
        self._lock = contextlib.ExitStack()
        by_first(lambda: self._lock.enter_context(lock_directory(workdir.path)))
        self._checkpoints = Checkpoints(workdir.checkpoints, keep=keep_checkpoints)
        self._events: Events | None = None

    def restore(
        self,
        initial: Any,
        template_at: Callable[[int], Any],
        until: int | None = None,
    ) -> Any:
        """Returns the newest state that is whole, else the initial one.

        Args:
            initial: state before the first step.
            template_at: from the step of a checkpoint to a state of its shapes.
            until: no state after this step.

        Raises:
            UsageError: the checkpoint was trained on other frozen parameters than the initial
                state's, or none can be read.
        """
        # Checkpoints hold what is trained, and tell by this what it was trained on.
        self._frozen = {"frozen": digest(initial.frozen)} if initial.frozen else {}
        restored = self._checkpoints.restore_latest(template_at, until)
        state, record = restored or (initial, {"seconds": 0.0, "code": [], **self._frozen})
        if (found := record.get("frozen")) != self._frozen.get("frozen"):
            raise on_all_processes(
                UsageError(
                    f"checkpoints in {self.workdir.checkpoints} were trained on a pretrained "
                    f"network with digest {found}, this run's has {self._frozen.get('frozen')}: "
                    "it must be the same"
                )
            )
        self.seconds, self.skipped = record["seconds"], list(record.get("skipped_steps", []))
        # Which code trained, in the order of first use.
        self._code = list(dict.fromkeys([*record["code"], *self.workdir.code]))
        return state

    def begin(self, step: int) -> None:
        """Drops what was kept of steps after this one, and opens the log of events."""
        self._checkpoints.drop_after(step)
        self._by_first(lambda: self._begin(step))

    def _begin(self, step: int) -> None:
        self.workdir.keep_metrics_until(step)
        self._events = Events(self.workdir.tensorboard, step + 1)

    def skip(self, step: int, loss: float, batch: Mapping[str, Any]) -> None:
        """Counts a step whose loss is not finite, and writes down its batch.

        Args:
            step: counted from 1.
            loss: NaN also where the loss was finite and the update was not.
            batch: what tells which images it was.

        Raises:
            UsageError: it is one more than may be left out.
        """
        record = {"step": step, "loss": str(loss), **batch}
        self._by_first(lambda: self.workdir.write_nonfinite_batch(record))
        file = self.workdir.nonfinite_batch
        if len(self.skipped) >= self._skip_nonfinite:
            whose = self.label or self.workdir.path
            before = f", after {len(self.skipped)} skipped steps" if self.skipped else ""
            raise on_all_processes(
                UsageError(
                    f"training loss of {whose} must stay finite, it is {loss} at step "
                    f"{step}{before}: lower the learning rate or the perturbation radius; its "
                    f"batch is in {file}"
                )
            )
        self.skipped.append(step)
        _logger.warning(
            "%s: step %d is skipped, its loss or update is not finite (%d of %d); its batch is in "
            "%s",
            self.label,
            step,
            len(self.skipped),
            self._skip_nonfinite,
            file,
        )

    def steps_taken(self, after: int, until: int) -> int:
        """Returns how many steps between two were not skipped."""
        return until - after - sum(after < step <= until for step in self.skipped)

    def record(self, step: int, metrics: Metrics) -> None:
        """Writes down an evaluation."""
        self._by_first(lambda: self._record({"step": step, **metrics}, _finite_numbers(metrics)))

    def record_measurement(self, step: int, record: Mapping[str, Any]) -> None:
        """Writes down a measurement, under `measurement` in the record, taken before a step."""
        curves = _curves("measurement", record["measurement"])
        numbers = {name: value for name, value in curves if math.isfinite(value)}
        self._by_first(lambda: self._record({"step": step, **record}, numbers))

    def _record(self, record: Mapping[str, Any], curves: Mapping[str, float]) -> None:
        assert self._events is not None, "begin comes before the first record"
        self.workdir.append_metrics(record)
        self._events.add(curves, record["step"])
        for callback in self._callbacks:
            callback(without_nan(record))

    def _by_first(self, write: Callable[[], object]) -> None:
        """Writes in the directory, process 0 alone; where it cannot, all of them stop."""

        def explained() -> None:
            with disk_errors_explained(self.workdir.path):
                write()

        by_first(explained)

    def save(self, state: Any, metrics: Metrics | None, session_seconds: float) -> None:
        """Saves a checkpoint, in the background.

        Args:
            state: may be donated afterwards.
            metrics: of the evaluation at its step, None where there was none.
            session_seconds: time of the steps since `begin`.
        """
        numbers = None if metrics is None else _finite_numbers(metrics)
        seconds = self.seconds + session_seconds
        record = {"seconds": seconds, "code": self._code, **self._frozen, **self._skips}
        self._checkpoints.save(state, record, numbers)

    def wait(self) -> None:
        """Returns when every checkpoint is on disk."""
        self._checkpoints.wait()

    def finish(self, session_seconds: float) -> None:
        """Writes the result: the last evaluation and the time."""
        seconds = round(self.seconds + session_seconds, 3)
        self._by_first(lambda: self._write_result(seconds))

    def _write_result(self, seconds: float) -> None:
        records = self.workdir.read_metrics()
        if not records:
            raise UsageError(f"{self.workdir.path} must hold the metrics.jsonl of its run, none is")
        result = {**records[-1], "seconds": seconds, "code": self._code, **self._skips}
        self.workdir.write_result(result)

    @property
    def _skips(self) -> dict[str, list[int]]:
        # A copy: the record of a checkpoint is written while training goes on.
        any_or_allowed = self.skipped or self._skip_nonfinite
        return {"skipped_steps": list(self.skipped)} if any_or_allowed else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # Saves wait for all processes, and so would this one, for one that has died.
        if error is None or not is_loss_of_a_process(error):
            self.close()

    def close(self) -> None:
        """Waits for checkpoints, closes the log of events and lets other processes in."""
        with self._lock, contextlib.closing(self._checkpoints):
            if self._events is not None:
                self._events.close()


def _finite_numbers(metrics: Metrics) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if isinstance(v, float) and math.isfinite(v)}


def _curves(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Yields the numbers of nested mappings and lists by path; of long lists, mean and maximum."""
    if isinstance(value, list):
        value = dict(enumerate(value))
        if len(value) > _MAX_CURVES:
            numbers = list(value.values())
            value = {"mean": math.fsum(numbers) / len(numbers), "max": max(numbers)}
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, item in value.items():
        yield from _curves(f"{name}/{key}", item)
