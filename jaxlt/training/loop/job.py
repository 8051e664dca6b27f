"""What a run consists of: its stages, one after the other."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from jaxlt.data import Chunk, Pipeline
from jaxlt.runs.run import Metrics
from jaxlt.training.loop.program import Program
from jaxlt.training.step.measurement import Measurements
from jaxlt.training.step.state import TrainState


def unchanged(state: TrainState) -> TrainState:
    """What a stage does at an end where there is nothing to do."""
    return state


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a stage.

    Attributes:
        program: the compiled steps; they count from 0 in each stage.
        pipeline: the data; its steps count from 0 too.
        num_steps: how many.
        eval_steps: an evaluation and a checkpoint every so many, and after the last.
        measurements: taken between steps, by the program's `measure`; None for none.
    """

    program: Program
    pipeline: Pipeline
    num_steps: int
    eval_steps: int
    measurements: Measurements | None = None

    def cut(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yields the stretches between two evaluations, see `Program.cut`."""
        every = 0 if self.measurements is None else self.measurements.every
        return self.program.cut(start, stop, every)

    def chunks(self, step: int, stop: int) -> Iterator[Chunk]:
        """Yields the chunks up to the evaluation after step `stop - 1` of the stage."""
        begun = step // self.eval_steps * self.eval_steps
        for first, last, size in self.cut(begun, stop):
            if step < last:
                yield from self.pipeline.chunks(max(first, step), last, size)

    def measured_at(self, step: int) -> bool:
        """Whether a measurement is taken after so many steps, before the next."""
        return self.measurements is not None and self.measurements.due(step)


@dataclasses.dataclass(frozen=True)
class JobStage:
    """One stage of a run.

    The checkpoint at a boundary holds the state in which the earlier stage ended. `enter` and
    `leave` must be deterministic, so that a run killed next to a boundary finds the same state.

    Attributes:
        steps: what the stage does between its ends; None for a stage that computes its result in
            `enter` alone, which counts as one step.
        evaluate: from the state of one member to metrics: numbers, or lists of one a class.
        template: () to a state of the stage, for its shapes.
        enter: from the state in which the stage before ended to the one in which this begins.
        leave: from the state after the last step to the one in which the stage ends.
    """

    steps: Steps | None
    evaluate: Callable[[TrainState], Metrics]
    template: Callable[[], TrainState]
    enter: Callable[[TrainState], TrainState] = unchanged
    leave: Callable[[TrainState], TrainState] = unchanged

    @property
    def num_steps(self) -> int:
        """Its length."""
        return 1 if self.steps is None else self.steps.num_steps


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train; see `jaxlt.training.train` and `train_together`.

    Attributes:
        initial_state: state before the first step; of members, stacked.
        stages: at least one; the first has steps.
        skip_nonfinite: how many steps whose loss or update is not finite a member may leave out;
            more than 0 if the steps are made so, see `make_train_step`.
    """

    initial_state: TrainState
    stages: tuple[JobStage, ...]
    skip_nonfinite: int = 0

    @property
    def num_steps(self) -> int:
        """Length of the run."""
        return sum(stage.num_steps for stage in self.stages)

    @property
    def program(self) -> Program:
        """The compiled steps of the first stage."""
        return self._first_steps.program

    @property
    def _first_steps(self) -> Steps:
        return self.steps_of(0)

    def steps_of(self, number: int) -> Steps:
        """Returns the steps of a stage that takes some."""
        steps = self.stages[number].steps
        if steps is None:
            raise ValueError(f"stage {number} of a job must have steps")
        return steps

    def begin_of(self, number: int) -> int:
        """Returns the step of the run at which a stage begins."""
        return sum(stage.num_steps for stage in self.stages[:number])

    def template_at(self, step: int) -> TrainState:
        """Returns a state with the shapes of a checkpoint of this step."""
        for number, stage in enumerate(self.stages):
            if step <= self.begin_of(number) + stage.num_steps:
                return stage.template()
        raise ValueError(f"step {step} lies after the run's end, {self.num_steps}")

    def bytes_needed(self) -> int:
        """Returns the memory that the first steps take on each device."""
        steps = self._first_steps
        _, last, size = next(steps.cut(0, min(steps.eval_steps, steps.num_steps)))
        chunk = next(steps.pipeline.chunks(0, last, size))
        needed = steps.program.bytes_needed(self.initial_state, 0, chunk)
        if steps.measurements is not None and steps.measurements.every < steps.num_steps:
            to_measure = steps.program.bytes_needed_to_measure(self.initial_state, chunk)
            needed = max(needed, to_measure)
        return needed

    def describe(self, record: dict[str, Any], number: int) -> dict[str, Any]:
        """Adds the number of the stage to an evaluation, where there are several."""
        return {"stage": number, **record} if len(self.stages) > 1 else record
