"""Compiled training: one step, or a chunk of steps, as one program of the device."""

import itertools
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlt.data import Chunk, Pipeline
from jaxlt.devices.sharding import Layout, batch_sharding, replicated
from jaxlt.training.step.measurement import MeasureFn
from jaxlt.training.step.state import TrainState
from jaxlt.training.step.train_step import TrainStep

_MAX_CHUNK_STEPS = 100
# Several chunks are under way at once: on the device, on their way to it, and being made.
_MAX_CHUNK_BYTES = 2**28
_LAYOUT = Layout()


def steps_per_chunk(bytes_per_step: int) -> int:
    """Returns how many steps a program should take at most.

    On accelerators the host is asked for work once a chunk. On CPU it is one step: convolutions
    within `lax.scan` take several times longer there.

    Args:
        bytes_per_step: of the data that the host sends for one step.
    """
    if jax.default_backend() == "cpu":
        return 1
    return max(1, min(_MAX_CHUNK_STEPS, _MAX_CHUNK_BYTES // bytes_per_step))


def single_path(step: int, labels: np.ndarray) -> Hashable:
    """Chooses the same path for all steps."""
    del step, labels


class Program:
    """Compiles pure steps; reads their batches through the pipeline inside the compiled program.

    Which of several forms of a step (its path) a chunk takes is chosen on the host, since
    conditionals and loops around convolutions are slow in XLA on CPU. Each path is compiled when
    it is first needed.

    Args:
        pipeline: whose `read` and `resident` are used; the chunks may come from any pipeline that
            shares them.
        step_at: from a path to its pure step.
        choose: from the number of a chunk's first step and its labels, (K, B), to the path.
        measure_fn: what `measure` computes, from what a step takes to named arrays; None for
            nothing.
        boundaries: steps before which a chunk must end, because the path changes there.
        chunk_steps: longest chunk.
        layout: where the state is on the devices.

    Attributes:
        compile_seconds: time that compiling has taken so far.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        step_at: Callable[[Any], TrainStep],
        choose: Callable[[int, np.ndarray], Hashable] = single_path,
        *,
        measure_fn: MeasureFn | None = None,
        boundaries: Sequence[int] = (),
        chunk_steps: int = 1,
        layout: Layout = _LAYOUT,
    ):
        self._read, self._step_at, self._choose = pipeline.read, step_at, choose
        self._boundaries, self._chunk_steps = sorted(boundaries), chunk_steps
        self._measure_fn = measure_fn
        self._layout = layout
        self._resident = layout.place(pipeline.resident)
        self._measure: jax.stages.Compiled | None = None
        self._executables: dict[tuple[Hashable, int], jax.stages.Compiled] = {}
        self.compile_seconds = 0.0

    def place(self, tree: Any) -> Any:
        """Puts a state, or a part of one, on the devices as the program takes it."""
        return self._layout.place_state(tree)

    def cut(self, start: int, stop: int, measure_every: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yields the stretches between two evaluations as (first, last + 1, steps a chunk).

        Chunks are as even as they can be, so that programs of few lengths are compiled. Where they
        end depends on the arguments alone, so that a resumed run meets the same chunks.

        Args:
            start: first step.
            stop: last step + 1.
            measure_every: chunks also end after each multiple of so many steps; 0 for none.
        """
        edges = [start, *(step for step in self._boundaries if start < step < stop), stop]
        for first, last in itertools.pairwise(edges):
            if measure_every and self._chunk_steps > 1:
                yield from _on_grid(first, last, _divisor(measure_every, self._chunk_steps))
            else:
                yield first, last, math.ceil((last - first) / self._num_chunks(last - first))

    def _num_chunks(self, steps: int) -> int:
        return math.ceil(steps / self._chunk_steps)

    def __call__(self, state: TrainState, step: int, chunk: Chunk) -> tuple[TrainState, jax.Array]:
        """Takes the steps of a chunk, on the device, while the host goes on.

        Args:
            state: after `step` steps; donated, it must not be used again.
            step: number of the chunk's first step, from 0.
            chunk: K steps of data.

        Returns:
            The state after the chunk, and the losses (K, ...) of its steps.

        Raises:
            UsageError: the batch cannot be divided evenly over the devices.
        """
        chunk = self._spread(chunk)
        return self._executable(state, step, chunk)(state, self._resident, chunk.payload)

    def measure(self, state: TrainState, chunk: Chunk) -> dict[str, np.ndarray]:
        """Measures at a state, with the images of the step that is about to be taken.

        Args:
            state: lives on.
            chunk: its first step counts.
        """
        first = self._spread(_first_step(chunk))
        measured = self._measure_executable(state, first)(state, self._resident, first.payload)
        return jax.tree.map(np.asarray, measured)

    def bytes_needed(self, state: TrainState, step: int, chunk: Chunk) -> int:
        """Returns the memory that such a call takes on each device, with all it is handed.

        Nothing is run; what is compiled for it serves the call.
        """
        return _bytes_needed(self._executable(self.place(state), step, self._spread(chunk)))

    def bytes_needed_to_measure(self, state: TrainState, chunk: Chunk) -> int:
        """Returns the memory that `measure` takes, likewise."""
        first = self._spread(_first_step(chunk))
        return _bytes_needed(self._measure_executable(self.place(state), first))

    def _spread(self, chunk: Chunk) -> Chunk:
        """Makes of what each process has of a chunk the whole, on the devices."""
        self._layout.check_divisible(chunk.labels.shape[-1])
        return chunk._replace(payload=self._layout.spread(chunk.payload, axis=1))

    def _measure_executable(self, state: TrainState, first: Chunk) -> jax.stages.Compiled:
        if self._measure is None:
            began = time.perf_counter()
            self._measure = self._compile_measure(state, first.payload)
            self.compile_seconds += time.perf_counter() - began
        return self._measure

    def _compile_measure(self, state: TrainState, payload: Any) -> jax.stages.Compiled:
        measure_fn = self._measure_fn
        assert measure_fn is not None, "nothing to measure was given"

        def measure(state: TrainState, resident: Any, payload: Any) -> dict[str, jax.Array]:
            step = jax.tree.map(lambda leaf: leaf[0], payload)
            return measure_fn(state, *self._read(resident, step))

        jitted = self._jit(measure, state, replicated(self._layout.mesh))
        return jitted.lower(state, self._resident, payload).compile()

    def _executable(self, state: TrainState, step: int, chunk: Chunk) -> jax.stages.Compiled:
        path = self._choose(step, chunk.labels)
        num_steps = len(jax.tree.leaves(chunk.payload)[0])
        key = path, num_steps
        if key not in self._executables:
            began = time.perf_counter()
            self._executables[key] = self._compile(self._step_at(path), state, chunk.payload)
            self.compile_seconds += time.perf_counter() - began
        return self._executables[key]

    def _compile(
        self, train_step: TrainStep, state: TrainState, payload: Any
    ) -> jax.stages.Compiled:
        num_steps = len(jax.tree.leaves(payload)[0])

        def run(state: TrainState, resident: Any, payload: Any):
            def step(state: TrainState, payload: Any):
                return train_step(state, *self._read(resident, payload))

            if num_steps > 1:
                return jax.lax.scan(step, state, payload)
            state, loss = step(state, jax.tree.map(lambda leaf: leaf[0], payload))
            return state, loss[jnp.newaxis]

        of_losses = replicated(self._layout.mesh)
        jitted = self._jit(run, state, (self._layout.of_state(state), of_losses), donate_argnums=0)
        return jitted.lower(state, self._resident, payload).compile()

    def _jit(
        self, function: Callable[..., Any], state: TrainState, results: Any, **options: Any
    ) -> Any:
        """Jits a function of a state, the resident data and a payload."""
        layout = self._layout
        everywhere, of_batch = replicated(layout.mesh), batch_sharding(layout.mesh)
        return jax.jit(
            function,
            in_shardings=(layout.of_state(state), everywhere, of_batch),
            out_shardings=results,
            **options,
        )


def _first_step(chunk: Chunk) -> Chunk:
    """Returns the chunk of its first step alone."""
    return jax.tree.map(lambda leaf: leaf[:1], chunk)


def _bytes_needed(executable: jax.stages.Compiled) -> int:
    memory = executable.memory_analysis()
    if memory is None:
        raise NotImplementedError(f"{jax.default_backend()} reports no memory of programs")
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def _divisor(number: int, largest: int) -> int:
    """Returns the largest divisor of a number up to a bound."""
    return next(size for size in range(min(number, largest), 0, -1) if number % size == 0)


def _on_grid(first: int, last: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Cuts steps at the multiples of a size, and what is left at both ends into tens and ones.

    So programs of three lengths are compiled, wherever measurements and evaluations meet.
    """
    begin = min(-(-first // size) * size, last)
    end = max(last // size * size, begin)
    for start, stop, length in (
        *_tens_and_ones(first, begin, size),
        (begin, end, size),
        *_tens_and_ones(end, last, size),
    ):
        if start < stop:
            yield start, stop, length


def _tens_and_ones(first: int, last: int, size: int) -> Iterator[tuple[int, int, int]]:
    tens = min(10, size)
    between = last - (last - first) % tens
    yield first, between, tens
    yield between, last, 1
