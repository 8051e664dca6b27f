"""The training loop: steps, evaluations, checkpoints and logs, resumable at any step."""

import contextlib
import dataclasses
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data import Chunk
from jaxlt.devices.cluster import StopVotes, local
from jaxlt.devices.processes import are_several, as_first_says
from jaxlt.errors import Interrupted
from jaxlt.files.directory import disk_errors_explained
from jaxlt.runs.run import Callback, Metrics, Run
from jaxlt.runs.workdir import Workdir
from jaxlt.training.loop.job import Job, PlacedStage
from jaxlt.training.loop.nonfinite import skip_or_stop
from jaxlt.training.loop.progress import Progress, Stopwatch
from jaxlt.training.step.ensemble import stack, unstack
from jaxlt.training.step.measurement import curves
from jaxlt.training.step.state import TrainState

_Asked = Callable[..., int]

_logger = logging.getLogger(__name__)


def train(
    job: Job,
    workdir: Workdir,
    *,
    keep_checkpoints: int = 2,
    label: str = "",
    callbacks: Sequence[Callback] = (),
) -> TrainState:
    """Trains to the end, from the newest whole checkpoint of the workdir if there is one.

    A run killed at any moment and started again ends with the bits of one that never stopped.
    SIGTERM and SIGINT save the state after the current chunk of steps; in the last stretch of a
    run the result too.

    Args:
        job: what to train.
        workdir: where its checkpoints and logs live.
        keep_checkpoints: how many of the latest are kept, beside the best by balanced accuracy.
        label: name of the run in progress lines.
        callbacks: each is handed every evaluation and measurement, see `jaxlt.recipes.train`.

    Returns:
        The final state. `workdir.read_result()` then gives the last evaluation and `seconds`, the
        time of the steps over all sessions, without compilation and evaluation.

    Raises:
        Interrupted: a signal asked to stop.
        UsageError: another process trains in the workdir, no checkpoint of it can be read, more
            losses than the job may leave out are not finite, or the disk is full.
    """
    with (
        disk_errors_explained(workdir.path),
        Run(workdir, keep_checkpoints, label, job.skip_nonfinite, callbacks) as run,
    ):
        place = job.program.place
        state = run.restore(place(job.initial_state), lambda step: place(job.template_at(step)))
        return Session(job, [run], label).run(state)


class Session:
    """One uninterrupted stretch of training, of one run or of members along a leading axis.

    Steps are those of the run; programs, pipelines and evaluations count within their stage.
    """

    def __init__(self, job: Job, runs: Sequence[Run], label: str, *, is_ensemble: bool = False):
        self._job, self._runs, self._label, self._is_ensemble = job, runs, label, is_ensemble
        self._stopwatch = Stopwatch()

    def run(self, state: TrainState) -> TrainState:
        """Trains from a restored or initial state to the end."""
        step, num_steps = int(np.ravel(state.step)[0]), self._job.num_steps
        if step:
            _logger.info("%s: resumed after step %d of %d", self._label, step, num_steps)
        finished = all(run.workdir.read_result() is not None for run in self._runs)
        if step == num_steps and as_first_says(finished):
            return state
        for run in self._runs:
            run.begin(step)
        self._progress = Progress(self._label, step, num_steps)
        with contextlib.closing(self._progress), _stop_signals() as asked:
            for placed in self._job.placed:
                if step < placed.end:
                    state = self._stage(state, step, placed, asked)
                    step = placed.end
        # All members are on disk before the first of them counts as finished.
        self._wait()
        for run in self._runs:
            run.finish(self._seconds)
        if signum := asked(wait=True):
            # The run is whole, but whoever asked to stop wants no other to follow.
            raise Interrupted(signum, step)
        return state

    def _stage(
        self, state: TrainState, step: int, placed: PlacedStage, asked: _Asked
    ) -> TrainState:
        """Takes a stage from a step of the run to its end."""
        _, begin, end, stage = placed
        if step == begin:
            state = self._of_each(stage.enter, state)
        # A copy, since programs donate their state and the job may be trained again.
        state = self._job.program.place(jax.tree.map(jnp.copy, state))
        while step < end:
            pace = {}
            if stage.steps is None:
                stop, state = end, dataclasses.replace(state, step=state.step + 1)
            else:
                every = stage.steps.eval_steps
                stop = min(begin + ((step - begin) // every + 1) * every, end)
                before = self._seconds
                state = self._steps(state, step, stop, placed, asked)
                if stage.steps.pace is not None:
                    pace = stage.steps.pace(step - begin, stop - begin, self._seconds - before)
            if stop == end:
                state = self._of_each(stage.leave, state)
            evaluations = self._evaluate(state, stop, placed, pace)
            zeros = jnp.zeros(state.loss_sum.shape, state.loss_sum.dtype)
            state = dataclasses.replace(state, loss_sum=self._job.program.place(zeros))
            self._save(state, evaluations)
            step = stop
            if step < self._job.num_steps and (signum := asked(wait=True)):
                self._wait()
                raise Interrupted(signum, step)
        return state

    def _steps(
        self, state: TrainState, step: int, stop: int, placed: PlacedStage, asked: _Asked
    ) -> TrainState:
        """Takes the steps of a stage from one of the run up to the evaluation after another."""
        steps, begin, every = placed.steps, placed.begin, placed.steps.measure_every
        program, previous, signum = steps.program, None, 0
        self._stopwatch.start()
        for chunk in steps.chunks(step - begin, stop - begin):
            self._stopwatch.lap()
            if every and step > begin and (step - begin) % every == 0:
                if previous is not None:
                    # What the device still does is a step, which counts in the time.
                    self._check_finite(previous, placed)
                    previous = None
                    self._stopwatch.lap()
                self._measure(state, step, placed, chunk)
                self._stopwatch.start()
            compiled = program.compile_seconds
            state, losses = program(state, step - begin, chunk)
            # Fetched a call late: the device never waits for the host, nor the host runs ahead.
            self._check_finite(previous, placed)
            previous, step = (losses, step), step + len(losses)
            self._stopwatch.lap(without=program.compile_seconds - compiled)
            self._progress.advance(len(losses))
            signum = asked()
            if signum and step < stop:
                break
        self._check_finite(previous, placed)
        self._stopwatch.lap()
        if step < stop:
            self._save(state, None)
            self._wait()
            raise Interrupted(signum, step)
        return state

    def _check_finite(self, taken: tuple[jax.Array, int] | None, placed: PlacedStage) -> None:
        """Has each run skip its steps without finite losses, or stop; of losses from a step on."""
        if taken is not None:
            values = np.asarray(taken[0]).reshape(len(taken[0]), len(self._runs))
            if not np.isfinite(values).all():
                skip_or_stop(self._runs, placed, values, taken[1])

    def _measure(self, state: TrainState, step: int, placed: PlacedStage, chunk: Chunk) -> None:
        """Measures before a step of the run, with which the chunk begins, and writes it down."""
        steps, within = placed.steps, step - placed.begin
        assert steps.measurements is not None, "only then is a step measured"
        measured = steps.program.measure(state, chunk)
        # Drawn again: a run that was stopped in between has not seen these batches.
        labels = steps.pipeline.labels(within - steps.measure_every, within)
        labels = labels.reshape(len(self._runs), steps.measure_every, -1)
        for index, run in enumerate(self._runs):
            own = {name: x[index] if self._is_ensemble else x for name, x in measured.items()}
            found = steps.measurements.describe(own, labels[index])
            record = self._told(placed, {"measurement": found})
            run.record(step, record, dict(curves("measurement", found)))

    def _evaluate(
        self, state: TrainState, step: int, placed: PlacedStage, pace: dict[str, float]
    ) -> list[Metrics]:
        evaluations: list[Metrics] = []
        for run, one in zip(self._runs, self._states(state), strict=True):
            metrics = placed.stage.evaluate(one)
            if placed.stage.steps is not None:
                # Earlier ones may have been further apart, or closer.
                taken = run.steps_taken(max(placed.begin, run.evaluated), step)
                train_loss = float(one.loss_sum) / taken if taken else float("nan")
                metrics = {"train_loss": train_loss, **metrics}
            evaluations.append(metrics)
            run.record(step, self._told(placed, metrics), pace)
        self._progress.report(step, evaluations)
        return evaluations

    def _told(self, placed: PlacedStage, record: dict[str, Any]) -> dict[str, Any]:
        """Adds the number of the stage to a record, where there are several."""
        return {"stage": placed.number, **record} if len(self._job.stages) > 1 else record

    def _save(self, state: TrainState, evaluations: list[Metrics] | None) -> None:
        metrics = evaluations or [None] * len(self._runs)
        for run, one, of_run in zip(self._runs, self._states(state), metrics, strict=True):
            run.save(one, of_run, self._seconds)

    def _wait(self) -> None:
        for run in self._runs:
            run.wait()

    def _states(self, state: TrainState) -> list[TrainState]:
        return unstack(state) if self._is_ensemble else [state]

    def _of_each(self, change: Callable[..., TrainState] | None, state: TrainState) -> TrainState:
        if change is None:
            return state
        # Each process does the same by itself: what stages do in between is not made for several.
        state = local(state) if are_several() else state
        changed = [change(one) for one in self._states(state)]
        return self._job.program.place(stack(changed) if self._is_ensemble else changed[0])

    @property
    def _seconds(self) -> float:
        return self._stopwatch.seconds / len(self._runs)


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Asked]:
    """Collects SIGTERM and SIGINT; the second of a kind acts as if nobody had caught the first.

    Yields what returns the signal to stop for, 0 to go on, the same on all processes.
    """
    received: list[int] = []
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}

    def collect(signum: int, _: object) -> None:
        received.append(signum)
        signal.signal(signum, before[signal.Signals(signum)])

    def own(*, wait: bool = False) -> int:
        del wait
        return next(iter(received), 0)

    for signum in before:
        signal.signal(signum, collect)
    try:
        yield StopVotes(own) if are_several() else own
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
