"""The whole training step of one case, compiled and measured."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from experiments.benchmark.cases import CaseName, Problem
from experiments.benchmark.path_cost import compile_quickly, path_cost
from jaxlt.devices.backends import compiler_options
from jaxlt.recipes.built_stage import StepForms, build_regime, build_step, check_micro_batch
from jaxlt.recipes.stage import Stage
from jaxlt.training import TrainState, make_state_fn


class StepMemory(NamedTuple):
    """XLA's count of a program's memory in bytes; `reused` is of results in donated arguments."""

    arguments: int
    results: int
    temporaries: int
    reused: int

    @classmethod
    def of(cls, program: jax.stages.Compiled) -> Self:
        """Reads the analysis of a compiled program."""
        memory: Any = program.memory_analysis()
        return cls(
            memory.argument_size_in_bytes,
            memory.output_size_in_bytes,
            memory.temp_size_in_bytes,
            memory.alias_size_in_bytes,
        )

    @property
    def peak(self) -> int:
        """All of it, what is donated counted once."""
        return self.arguments + self.results + self.temporaries - self.reused


@dataclass(frozen=True)
class StepCost:
    """What a step costs on the path that the batch takes; `seconds` has one number a round."""

    flops: float
    bytes: float
    peak_memory: int
    trace_seconds: float
    compile_seconds: float
    seconds: Sequence[float] = ()
    torch_seconds: Sequence[float] | None = None


@dataclass
class CompiledStep:
    """Training steps with the state that they advance, and their mean cost, without times.

    They are one, or all from a whole step to the next (`jaxlt.every`).
    """

    cost: StepCost
    _programs: Sequence[jax.stages.Compiled]
    _state: TrainState
    _batch: list[jax.Array]

    def __call__(self) -> None:
        """Runs the steps to their end."""
        loss = None
        for program in self._programs:
            self._state, loss = program(self._state, *self._batch)
        jax.block_until_ready((self._state, loss))

    def of_one(self, seconds: Sequence[float]) -> list[float]:
        """Returns the time of a step, from those of calls."""
        return [one / len(self._programs) for one in seconds]


class Training:
    """A stage's first state, and its steps as training runs them.

    `by_group` is `passes_by_group` of `jaxlt.training.make_train_step`. `initialize` goes from a
    seed to the first state, `step_at` from one of the `forms` to the pure step; `step` is the first
    one, as the problem's batch takes it, and `steps` all kinds of them: a whole one, and where the
    method has such, a reused one.
    """

    def __init__(self, problem: Problem, stage: Stage, *, by_group: bool = True):
        network, counts, shape = problem.network, problem.class_counts, problem.image_shape
        model = network.build(len(counts), shape)
        check_micro_batch(network, model)
        regime = build_regime(stage, counts, micro_batch=network.micro_batch)
        self.initialize = make_state_fn(model, stage.build_optimizer(counts), shape)
        self.forms = StepForms(stage, counts, model, regime, by_group=by_group)
        self.step_at = functools.partial(
            build_step, stage, model, counts, regime, passes_by_group=by_group
        )
        labels = problem.labels[np.newaxis]
        numbers = range(min(self.forms.every, 2))
        self.steps = [self.step_at(self.forms.choose(number, labels)) for number in numbers]
        self.step = self.steps[0]

    def lower(self, state: TrainState, batch: Sequence[Any], kind: int = 0) -> jax.stages.Lowered:
        """Traces a kind of the problem's steps for a state and a batch, or their shapes."""
        options = compiler_options()
        jitted = jax.jit(self.steps[kind], donate_argnums=0, compiler_options=options)
        return jitted.lower(state, *batch)


def compile_step(problem: Problem, case: CaseName, *, by_group: bool = True) -> CompiledStep:
    """Builds, compiles and analyzes a case's step on the default device."""
    training = Training(problem, problem.stage(case), by_group=by_group)
    device = jax.devices()[0]
    arrays = training.initialize(0), problem.images, problem.labels
    state, *batch = jax.device_put(arrays, device)
    programs, costs = [], []
    for kind, step in enumerate(training.steps):
        began = time.perf_counter()
        lowered = training.lower(state, batch, kind)
        traced = time.perf_counter()
        program = lowered.compile()
        compiled = time.perf_counter()
        for_host = program if device.platform == "cpu" else None
        work = path_cost(step, state, *batch, compiled_for_host=for_host)
        peak = StepMemory.of(program).peak
        costs.append(StepCost(work.flops, work.bytes, peak, traced - began, compiled - traced))
        programs.append(program)
    every = training.forms.every
    programs += programs[-1:] * (every - len(programs))
    return CompiledStep(_mean(costs, every), programs, state, batch)


def _mean(costs: Sequence[StepCost], every: int) -> StepCost:
    """Returns the cost of a step where one of so many is of the first kind, the others the last."""
    first, last = costs[0], costs[-1]
    return StepCost(
        (first.flops + (every - 1) * last.flops) / every,
        (first.bytes + (every - 1) * last.bytes) / every,
        max(cost.peak_memory for cost in costs),
        sum(cost.trace_seconds for cost in costs),
        sum(cost.compile_seconds for cost in costs),
    )


def step_memory(problem: Problem, case: CaseName) -> StepMemory:
    """Compiles a case's step for its memory alone, without an array on the device."""
    training = Training(problem, problem.stage(case))
    state, *batch = jax.eval_shape(lambda: (training.initialize(0), problem.images, problem.labels))
    lowered = training.lower(state, batch)
    on_cpu = jax.default_backend() == "cpu"
    return StepMemory.of(compile_quickly(lowered) if on_cpu else lowered.compile())
