"""The training loop: steps, evaluations, checkpoints and logs, resumable at any step."""

import contextlib
import dataclasses
import logging
import math
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from tensorboardX import SummaryWriter

from jaxlt.data import Batch
from jaxlt.errors import Interrupted, UsageError
from jaxlt.training.checkpoint import Checkpoints
from jaxlt.training.progress import Progress, Stopwatch
from jaxlt.training.sharding import data_mesh, replicated, shard_batch
from jaxlt.training.state import TrainState
from jaxlt.training.step import TrainStep
from jaxlt.training.workdir import Workdir

_logger = logging.getLogger(__name__)

# Numbers, or lists of one number a class; None or NaN where there is nothing to average.
Metrics = dict[str, float | list[float]]


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train; see `train`.

    Attributes:
        initial_state: state before the first step.
        train_step: `(state, images, labels) -> (state, loss)`.
        batches: from (start, stop) to the batches of the steps start .. stop - 1.
        evaluate: from a state to metrics: numbers, or lists with one number a class.
        num_steps: length of the run.
        eval_steps: an evaluation and a checkpoint every so many steps, and after the last.
    """

    initial_state: TrainState
    train_step: TrainStep
    batches: Callable[[int, int], Iterator[Batch]]
    evaluate: Callable[[TrainState], Metrics]
    num_steps: int
    eval_steps: int


def train(job: Job, workdir: Workdir, *, keep_checkpoints: int = 2, label: str = "") -> TrainState:
    """Trains to the end, from the newest whole checkpoint of the workdir if there is one.

    A run killed at any moment and started again ends with the bits of one that never stopped.
    SIGTERM and SIGINT save the state after the current step; in the last stretch of a run the
    result too.

    Args:
        job: what to train.
        workdir: where its checkpoints and logs live.
        keep_checkpoints: how many of the latest are kept, beside the best by balanced accuracy.
        label: name of the run in progress lines.

    Returns:
        The final state. `workdir.read_result()` then gives the last evaluation and `seconds`, the
        time of the steps over all sessions, without compilation and evaluation.

    Raises:
        Interrupted: a signal asked to stop.
        UsageError: no checkpoint of the workdir can be read, or the loss is no finite number.
    """
    mesh = data_mesh()
    checkpoints = Checkpoints(workdir.checkpoints, keep=keep_checkpoints)
    try:
        # A copy, since the step donates its state and the job may be trained again.
        state = jax.device_put(jax.tree.map(jnp.copy, job.initial_state), replicated(mesh))
        state, record = checkpoints.restore_latest(state) or (state, {"seconds": 0.0})
        start = int(state.step)
        if start:
            _logger.info("%s: resumed after step %d of %d", label, start, job.num_steps)
        workdir.keep_metrics_until(start)
        if start < job.num_steps or workdir.read_result() is None:
            session = _Session(job, workdir, checkpoints, mesh, record["seconds"], label)
            state = session.run(state, start)
        return state
    finally:
        checkpoints.close()


class _Session:
    """One uninterrupted stretch of training."""

    def __init__(
        self,
        job: Job,
        workdir: Workdir,
        checkpoints: Checkpoints,
        mesh: jax.sharding.Mesh,
        seconds: float,
        label: str,
    ):
        self._job, self._workdir, self._checkpoints, self._mesh = job, workdir, checkpoints, mesh
        self._stopwatch = Stopwatch(seconds)
        self._progress = Progress(label, job.num_steps)

    def run(self, state: TrainState, step: int) -> TrainState:
        with (
            self._progress.start(step),
            _catch_signals() as received,
            SummaryWriter(str(self._workdir.tensorboard), purge_step=step + 1) as events,
        ):
            every, num_steps = self._job.eval_steps, self._job.num_steps
            while step < num_steps:
                stop = min((step // every + 1) * every, num_steps)
                state = self._steps(state, step, stop, received)
                step = stop
                metrics, state = self._evaluate(state, step)
                _write_events(events, step, metrics)
                self._progress.report(metrics)
                self._save(state, metrics)
                if received and step < num_steps:
                    self._checkpoints.wait()
                    raise Interrupted(received[0], step)
        self._checkpoints.wait()
        records = self._workdir.read_metrics()
        if not records:
            raise UsageError(
                f"{self._workdir.path} must hold the metrics.jsonl of its run, none is"
            )
        last = records[-1]
        self._workdir.write_result({**last, "seconds": round(self._stopwatch.seconds, 3)})
        if received:
            # The run is whole, but whoever asked to stop wants no other to follow.
            raise Interrupted(received[0], step)
        return state

    def _steps(self, state: TrainState, start: int, stop: int, received: list[int]) -> TrainState:
        previous, step = None, start
        self._stopwatch.start()
        for step, batch in enumerate(self._job.batches(start, stop), start=start + 1):
            images, labels = shard_batch((batch.images, batch.labels), self._mesh)
            state, loss = self._job.train_step(state, images, labels)
            # Fetched a step late: the device never waits for the host, nor the host runs ahead.
            _check_finite(previous, step - 1)
            previous = loss
            self._stopwatch.lap()
            self._progress.advance()
            if received and step < stop:
                break
        _check_finite(previous, step)
        if received and step < stop:
            self._save(state, None)
            self._checkpoints.wait()
            raise Interrupted(received[0], step)
        return state

    def _save(self, state: TrainState, metrics: Metrics | None) -> None:
        numbers = None if metrics is None else _finite_numbers(metrics)
        self._checkpoints.save(state, {"seconds": self._stopwatch.seconds}, numbers)

    def _evaluate(self, state: TrainState, step: int) -> tuple[Metrics, TrainState]:
        previous = (step - 1) // self._job.eval_steps * self._job.eval_steps
        metrics: Metrics = {"step": step, "train_loss": float(state.loss_sum) / (step - previous)}
        metrics.update(self._job.evaluate(state))
        self._workdir.append_metrics(metrics)
        return metrics, dataclasses.replace(state, loss_sum=jnp.zeros_like(state.loss_sum))


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; the second of a kind acts as if nobody had caught the first."""
    received: list[int] = []
    before: dict[int, Any] = {
        signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)
    }

    def collect(signum: int, frame: object) -> None:
        del frame
        received.append(signum)
        signal.signal(signum, before[signum])

    for signum in before:
        signal.signal(signum, collect)
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _check_finite(loss: jax.Array | None, step: int) -> None:
    if loss is not None and not math.isfinite(loss):
        raise UsageError(
            f"training loss must stay finite, it is {float(loss)} at step {step}: lower the "
            "learning rate or the perturbation radius"
        )


def _finite_numbers(metrics: Metrics) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if isinstance(v, float) and math.isfinite(v)}


def _write_events(events: SummaryWriter, step: int, metrics: Metrics) -> None:
    for name, value in _finite_numbers(metrics).items():
        events.add_scalar(name, value, step)
