"""What a run consists of: its stages, one after the other."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jaxlt.data import Chunk, Pipeline
from jaxlt.runs.run import Metrics
from jaxlt.training.loop.program import Program
from jaxlt.training.step.measurement import Measurements
from jaxlt.training.step.state import TrainState


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a stage, counted from 0.

    Attributes:
        program: the compiled steps.
        pipeline: the data.
        num_steps: how many.
        eval_steps: an evaluation and a checkpoint every so many, and after the last.
        measurements: taken between steps, by the program's `measure`; None for none.
        pace: from a first step, one after the last, and seconds to TensorBoard's curves of them.
    """

    program: Program
    pipeline: Pipeline
    num_steps: int
    eval_steps: int
    measurements: Measurements | None = None
    pace: Callable[[int, int, float], dict[str, float]] | None = None

    @property
    def measure_every(self) -> int:
        """Steps between two measurements, 0 for none."""
        return 0 if self.measurements is None else self.measurements.every

    def chunks(self, step: int, stop: int) -> Iterator[Chunk]:
        """Yields the chunks of steps between two evaluations.

        Args:
            step: the first step, counted from the stage's first.
            stop: one after the last, behind which the evaluation comes.
        """
        begun = step // self.eval_steps * self.eval_steps
        for first, last, size in self.program.cut(begun, stop, self.measure_every):
            if step < last:
                yield from self.pipeline.chunks(max(first, step), last, size)


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
        enter: from the state in which the stage before ended to this one's first; None if the same.
        leave: from the state after the last step to the one in which the stage ends, likewise.
    """

    steps: Steps | None
    evaluate: Callable[[TrainState], Metrics]
    template: Callable[[], TrainState]
    enter: Callable[[TrainState], TrainState] | None = None
    leave: Callable[[TrainState], TrainState] | None = None


class PlacedStage(NamedTuple):
    """A stage in a run: its number, and the steps of the run between which it lies."""

    number: int
    begin: int
    end: int
    stage: JobStage

    @property
    def steps(self) -> Steps:
        """Those of a stage that takes some."""
        assert self.stage.steps is not None, f"stage {self.number} must have steps"
        return self.stage.steps


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train; see `jaxlt.training.train`.

    Attributes:
        initial_state: before the first step; of members, stacked.
        stages: at least one; the first has steps.
        skip_nonfinite: how many steps that are not finite a member may leave out; more than 0 if
            the steps are made so, see `make_train_step`.
    """

    initial_state: TrainState
    stages: tuple[JobStage, ...]
    skip_nonfinite: int = 0

    @property
    def placed(self) -> list[PlacedStage]:
        """The stages in their order."""
        found, begin = [], 0
        for number, stage in enumerate(self.stages):
            end = begin + (stage.steps.num_steps if stage.steps else 1)
            found.append(PlacedStage(number, begin, end, stage))
            begin = end
        return found

    @property
    def num_steps(self) -> int:
        """Length of the run."""
        return self.placed[-1].end

    @property
    def program(self) -> Program:
        """The compiled steps of the first stage."""
        return self.placed[0].steps.program

    def template_at(self, step: int) -> TrainState:
        """Returns a state with the shapes of a checkpoint of this step."""
        for placed in self.placed:
            if step <= placed.end:
                return placed.stage.template()
        raise ValueError(f"step {step} lies after the run's end, {self.num_steps}")
