"""The training loop: steps, evaluations, checkpoints and logs, resumable at any step."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data import Chunk
from jaxlt.devices.processes import as_first_says
from jaxlt.devices.sharding import local
from jaxlt.errors import Interrupted
from jaxlt.files.disk_errors import disk_errors_explained
from jaxlt.runs.run import Callback, Metrics, Run
from jaxlt.runs.workdir import Workdir
from jaxlt.training.loop.job import Job, unchanged
from jaxlt.training.loop.progress import Progress, Stopwatch
from jaxlt.training.loop.signals import catch_signals
from jaxlt.training.loop.stop_votes import StopVotes
from jaxlt.training.step.ensemble import stack, unstack
from jaxlt.training.step.state import TrainState

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
        callbacks: each is handed every evaluation and measurement, as plain numbers.

    Returns:
        The final state. `workdir.read_result()` then gives the last evaluation and `seconds`, the
        time of the steps over all sessions, without compilation and evaluation.

    Raises:
        Interrupted: a signal asked to stop.
        UsageError: another process trains in the workdir, no checkpoint of it can be read, or more
            losses than the job may leave out are no finite numbers, or the disk is full.
    """
    with (
        disk_errors_explained(workdir.path),
        Run(workdir, keep_checkpoints, label, job.skip_nonfinite, callbacks) as run,
    ):
        initial = job.program.place(job.initial_state)
        state = run.restore(initial, _placed_template(job))
        return _Session(job, [run], label, is_ensemble=False).run(state)


def train_together(
    job: Job,
    workdirs: Sequence[Workdir],
    *,
    keep_checkpoints: int = 2,
    label: str = "",
    labels: Sequence[str],
) -> None:
    """Trains members to the end, from the newest step of which all have a whole checkpoint.

    Each has its own directory, as if it had been trained alone, and `train` says what holds for
    it. Its `seconds` are its share of the time.

    Args:
        job: what to train, with a leading axis of members in its state and batches.
        workdirs: of each member.
        keep_checkpoints: see `train`; at least 2 are kept, since a kill may leave some members
            one checkpoint behind the others.
        label: name of all together in progress lines.
        labels: name of each member in messages.

    Raises:
        Interrupted: a signal asked to stop.
        UsageError: as for `train`.
    """
    with disk_errors_explained(workdirs[0].path.parent), contextlib.ExitStack() as closing:
        keep, skip = max(2, keep_checkpoints), job.skip_nonfinite
        runs = [
            closing.enter_context(Run(workdir, keep, name, skip))
            for workdir, name in zip(workdirs, labels, strict=True)
        ]
        states = _restore_at_one_step(runs, job)
        _Session(job, runs, label, is_ensemble=True).run(stack(states))


def _restore_at_one_step(runs: list[Run], job: Job) -> list[TrainState]:
    initial, until = unstack(job.program.place(job.initial_state)), None
    while True:
        states = [
            run.restore(state, _placed_template(job), until)
            for run, state in zip(runs, initial, strict=True)
        ]
        steps = {int(state.step) for state in states}
        if len(steps) == 1:
            return states
        until = min(steps)


def _placed_template(job: Job) -> Callable[[int], TrainState]:
    return lambda step: job.program.place(job.template_at(step))


class _Session:
    """One uninterrupted stretch of training, of one run or of members.

    Steps are those of the run; programs, pipelines and evaluations count within their stage.
    """

    def __init__(self, job: Job, runs: list[Run], label: str, *, is_ensemble: bool):
        self._job, self._runs, self._label, self._is_ensemble = job, runs, label, is_ensemble
        self._stopwatch = Stopwatch()
        self._progress = Progress(label, job.num_steps)

    def run(self, state: TrainState) -> TrainState:
        step, num_steps = int(np.ravel(state.step)[0]), self._job.num_steps
        if step:
            _logger.info("%s: resumed after step %d of %d", self._label, step, num_steps)
        finished = all(run.workdir.read_result() is not None for run in self._runs)
        if step == num_steps and as_first_says(finished):
            return state
        for run in self._runs:
            run.begin(step)
        with self._progress.start(step), catch_signals() as received:
            votes = StopVotes(received)
            for number, stage in enumerate(self._job.stages):
                begin = self._job.begin_of(number)
                if step < begin + stage.num_steps:
                    state = self._stage(state, step, number, votes)
                    step = begin + stage.num_steps
        # All members are on disk before the first of them counts as finished.
        self._wait()
        for run in self._runs:
            run.finish(self._seconds)
        if asked := votes.settle():
            # The run is whole, but whoever asked to stop wants no other to follow.
            raise Interrupted(asked, step)
        return state

    def _stage(self, state: TrainState, step: int, number: int, votes: StopVotes) -> TrainState:
        """Takes a stage from a step of the run to its end."""
        stage, begin = self._job.stages[number], self._job.begin_of(number)
        end = begin + stage.num_steps
        if step == begin:
            state = self._of_each(stage.enter, state)
        # A copy, since programs donate their state and the job may be trained again.
        state = self._job.program.place(jax.tree.map(jnp.copy, state))
        while step < end:
            if stage.steps is None:
                stop, state = end, dataclasses.replace(state, step=state.step + 1)
            else:
                stop = min(begin + _next_multiple(step - begin, stage.steps.eval_steps), end)
                state = self._steps(state, number, (step, stop), votes)
            if stop == end:
                state = self._of_each(stage.leave, state)
            evaluations = self._evaluate(state, stop, number)
            zeros = jnp.zeros(state.loss_sum.shape, state.loss_sum.dtype)
            state = dataclasses.replace(state, loss_sum=self._job.program.place(zeros))
            self._save(state, evaluations)
            step = stop
            if step < self._job.num_steps and (asked := votes.settle()):
                self._wait()
                raise Interrupted(asked, step)
        return state

    def _steps(
        self, state: TrainState, number: int, between: tuple[int, int], votes: StopVotes
    ) -> TrainState:
        """Takes steps of a stage, up to an evaluation.

        Args:
            state: before them.
            number: of the stage.
            between: steps of the run: the first and the last + 1.
            votes: on whether to stop before the evaluation.
        """
        (step, stop), begin = between, self._job.begin_of(number)
        steps = self._job.steps_of(number)
        program, previous, asked = steps.program, None, 0
        self._stopwatch.start()
        for chunk in steps.chunks(step - begin, stop - begin):
            self._stopwatch.lap()
            if steps.measured_at(step - begin):
                if previous is not None:
                    # What the device still does is a step, which counts in the time.
                    self._check_finite(*previous, number)
                    previous = None
                    self._stopwatch.lap()
                self._measure(state, step, number, chunk)
                self._stopwatch.start()
            compiled = program.compile_seconds
            state, losses = program(state, step - begin, chunk)
            if previous is not None:
                # Fetched a call late: the device never waits for the host, nor the host runs ahead.
                self._check_finite(*previous, number)
            previous, step = (losses, step), step + len(losses)
            self._stopwatch.lap(without=program.compile_seconds - compiled)
            self._progress.advance(len(losses))
            asked = votes()
            if asked and step < stop:
                break
        if previous is not None:
            self._check_finite(*previous, number)
        self._stopwatch.lap()
        if step < stop:
            self._save(state, None)
            self._wait()
            raise Interrupted(asked, step)
        return state

    def _measure(self, state: TrainState, step: int, number: int, chunk: Chunk) -> None:
        """Measures before a step of the run, with which the chunk begins, and writes it down."""
        steps, within = self._job.steps_of(number), step - self._job.begin_of(number)
        measurements = steps.measurements
        assert measurements is not None, "only then is a step measured"
        measured = steps.program.measure(state, chunk)
        # Drawn again: a run that was stopped in between has not seen these batches.
        labels = steps.pipeline.labels(within - measurements.every, within)
        labels = labels.reshape(len(self._runs), measurements.every, -1)
        for index, run in enumerate(self._runs):
            own = {name: x[index] if self._is_ensemble else x for name, x in measured.items()}
            record = {"measurement": measurements.describe(own, labels[index])}
            run.record_measurement(step, self._job.describe(record, number))

    def _evaluate(self, state: TrainState, step: int, number: int) -> list[Metrics]:
        stage = self._job.stages[number]
        evaluations: list[Metrics] = []
        for run, one in zip(self._runs, self._states(state), strict=True):
            metrics = stage.evaluate(one)
            if stage.steps is not None:
                within, every = step - self._job.begin_of(number), stage.steps.eval_steps
                taken = run.steps_taken(step - (within - 1) % every - 1, step)
                train_loss = float(one.loss_sum) / taken if taken else float("nan")
                metrics = {"train_loss": train_loss, **metrics}
            evaluations.append(metrics)
            run.record(step, self._job.describe(metrics, number))
        self._progress.report(step, evaluations)
        return evaluations

    def _save(self, state: TrainState, evaluations: list[Metrics] | None) -> None:
        states = self._states(state)
        for index, (run, one) in enumerate(zip(self._runs, states, strict=True)):
            run.save(one, evaluations[index] if evaluations else None, self._seconds)

    def _wait(self) -> None:
        for run in self._runs:
            run.wait()

    def _states(self, state: TrainState) -> list[TrainState]:
        return unstack(state) if self._is_ensemble else [state]

    def _of_each(self, change: Callable[[TrainState], TrainState], state: TrainState) -> TrainState:
        if change is unchanged:
            return state
        # Each process does the same by itself: what stages do in between is not made for several.
        changed = [change(local(one)) for one in self._states(state)]
        return self._job.program.place(stack(changed) if self._is_ensemble else changed[0])

    @property
    def _seconds(self) -> float:
        return self._stopwatch.seconds / len(self._runs)

    def _check_finite(self, losses: jax.Array, step: int, number: int) -> None:
        """Has each run skip its steps without finite losses, or stop.

        Args:
            losses: of steps of the run.
            step: the first of them.
            number: of their stage.
        """
        values = np.asarray(losses).reshape(len(losses), len(self._runs))
        for offset, index in np.argwhere(~np.isfinite(values)):
            within = step + offset - self._job.begin_of(number)
            pipeline = self._job.steps_of(number).pipeline
            batch = {
                name: drawn(within, within + 1).reshape(len(self._runs), -1)[index].tolist()
                for name, drawn in (("images", pipeline.image_numbers), ("labels", pipeline.labels))
            }
            self._runs[index].skip(int(step + offset + 1), float(values[offset, index]), batch)


def _next_multiple(number: int, of: int) -> int:
    return (number // of + 1) * of
