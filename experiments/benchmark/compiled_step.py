"""The whole training step of one case, compiled and measured."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.cases import CaseName, Problem
from experiments.benchmark.path_cost import Cost, path_cost
from jaxlt.recipes.network import Network
from jaxlt.recipes.stage import Stage
from jaxlt.recipes.step import build_regime, build_step, check_micro_batch
from jaxlt.recipes.step_forms import StepForm, StepForms
from jaxlt.training import TrainState, make_state_fn
from jaxlt.training.step.train_step import TrainStep


class StepMemory(NamedTuple):
    """XLA's count of a program's memory in bytes.

    Attributes:
        arguments: of what goes in.
        results: of what comes out.
        temporaries: of what is in between, at its most.
        reused: of results that lie where donated arguments were.
    """

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


@dataclass
class CompiledStep:
    """One training step with the state that it advances.

    Attributes:
        cost: FLOPs and bytes of the path that this batch takes.
        peak_memory: bytes of arguments, results and temporaries, what is donated counted once.
        trace_seconds: from Python to XLA's input.
        compile_seconds: from there to the device's program.
    """

    cost: Cost
    peak_memory: int
    trace_seconds: float
    compile_seconds: float
    _program: jax.stages.Compiled
    _state: TrainState
    _batch: tuple[jax.Array, jax.Array]

    def __call__(self) -> None:
        """Runs one step to its end."""
        self._state, loss = self._program(self._state, *self._batch)
        jax.block_until_ready((self._state, loss))


class Training(NamedTuple):
    """What a stage trains with.

    Attributes:
        initialise: from a seed to the first state.
        forms: which form of the step a batch takes.
        step_at: from such a form to the pure step.
    """

    initialise: Callable[[int], TrainState]
    forms: StepForms
    step_at: Callable[[StepForm], TrainStep]


def build_training(
    network: Network,
    stage: Stage,
    class_counts: tuple[int, ...],
    image_shape: tuple[int, int, int],
    *,
    passes_by_group: bool = True,
) -> Training:
    """Builds the first state of a stage, and its steps as training runs them.

    Args:
        network: the network.
        stage: the stage.
        class_counts: training images of each class.
        image_shape: height, width, channels.
        passes_by_group: see `jaxlt.training.make_train_step`.

    Raises:
        UsageError: the network cannot do what is asked for.
    """
    model = network.build(len(class_counts), image_shape)
    check_micro_batch(network, model)
    regime = build_regime(stage, class_counts, micro_batch=network.micro_batch)

    def step_at(form: StepForm) -> TrainStep:
        return build_step(stage, model, class_counts, regime, form, passes_by_group=passes_by_group)

    return Training(
        make_state_fn(model, stage.build_optimizer(class_counts), image_shape),
        StepForms(stage, class_counts, model, regime, by_group=passes_by_group),
        step_at,
    )


def _build(problem: Problem, case: CaseName) -> tuple[Training, TrainStep]:
    """Returns a case's training and the step that the problem's batch takes."""
    training = build_training(
        problem.network, problem.stage(case), problem.class_counts, problem.image_shape
    )
    return training, training.step_at(training.forms.choose(0, problem.labels[np.newaxis]))


def compile_step(problem: Problem, case: CaseName) -> CompiledStep:
    """Builds, compiles and analyses a case's step on the default device."""
    training, step = _build(problem, case)
    device = jax.devices()[0]
    state, images, labels = jax.device_put(
        (training.initialise(0), jnp.asarray(problem.images), jnp.asarray(problem.labels)), device
    )
    began = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=0).lower(state, images, labels)
    traced = time.perf_counter()
    program = lowered.compile()
    compiled = time.perf_counter()
    for_host = program if device.platform == "cpu" else None
    return CompiledStep(
        cost=path_cost(step, state, images, labels, compiled_for_host=for_host),
        peak_memory=StepMemory.of(program).peak,
        trace_seconds=traced - began,
        compile_seconds=compiled - traced,
        _program=program,
        _state=state,
        _batch=(images, labels),
    )


def step_memory(problem: Problem, case: CaseName) -> tuple[StepMemory, float]:
    """Compiles a case's step for its memory alone, without an array on the device.

    Returns:
        Its memory, and the seconds that compiling took, in a form that is not to be run: the same
        operations in slower machine code.
    """
    training, step = _build(problem, case)
    state = jax.eval_shape(lambda: training.initialise(0))
    batch = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (problem.images, problem.labels))
    options: dict[str, Any] = {}
    if jax.default_backend() == "cpu":
        options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
        if getattr(problem.network, "remat", False):
            # Else the CPU's compiler merges what is computed again with what was computed before.
            options["xla_disable_hlo_passes"] = "cse_barrier_expander"
    began = time.perf_counter()
    program = jax.jit(step, donate_argnums=0).lower(state, *batch).compile(options)
    return StepMemory.of(program), time.perf_counter() - began
