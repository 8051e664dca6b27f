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
from jaxlt.devices.backends import compiler_options
from jaxlt.devices.sharding import Layout, batch_sharding, replicated
from jaxlt.training.step.measurement import MeasureFn, cut_at_measurements
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


class Program:
    """Compiles pure steps; reads their batches through the pipeline inside the compiled program.

    Which of several forms of a step (its path) a chunk takes is chosen on the host, since
    conditionals around convolutions are slow in XLA on CPU. Each is compiled when it is needed.

    Args:
        pipeline: whose `read` and `resident` are used; those of the chunks must share them.
        step_at: from a path to its pure step.
        choose: from the number of a chunk's first step and its labels, (K, B), to the path.
        measure_fn: what `measure` computes, from what a step takes to named arrays.
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
        choose: Callable[[int, np.ndarray], Hashable] = lambda step, labels: None,
        *,
        measure_fn: MeasureFn | None = None,
        boundaries: Sequence[int] = (),
        chunk_steps: int = 1,
        layout: Layout = _LAYOUT,
    ):
        self._read, self._step_at, self._choose = pipeline.read, step_at, choose
        self._boundaries, self._chunk_steps = sorted(boundaries), chunk_steps
        self._measure_fn, self._layout = measure_fn, layout
        self._resident = layout.place(pipeline.resident)
        self._executables: dict[Hashable, jax.stages.Compiled] = {}
        self.compile_seconds = 0.0

    def place(self, tree: Any) -> Any:
        """Puts a state, or a part of one, on the devices as the program takes it."""
        return self._layout.place_state(tree)

    def spread(self, chunk: Chunk) -> Chunk:
        """Makes of what each process has of a chunk the whole, divided evenly over the devices."""
        self._layout.check_divisible(chunk.labels.shape[-1])
        return chunk._replace(payload=self._layout.spread(chunk.payload, axis=1))

    def cut(self, start: int, stop: int, measure_every: int = 0) -> Iterator[tuple[int, int, int]]:
        """Yields the stretches between two evaluations as (first, last + 1, steps a chunk).

        Chunks are as even as they can be, so that programs of few lengths are compiled. Where they
        end depends on the arguments alone, so that a resumed run meets the same chunks.

        Args:
            start: the first step.
            stop: one after the last.
            measure_every: chunks also end after each multiple of so many steps; 0 for none.
        """
        edges = [start, *(step for step in self._boundaries if start < step < stop), stop]
        for first, last in itertools.pairwise(edges):
            if measure_every and self._chunk_steps > 1:
                yield from cut_at_measurements(first, last, measure_every, self._chunk_steps)
            else:
                chunks = math.ceil((last - first) / self._chunk_steps)
                yield first, last, math.ceil((last - first) / chunks)

    def __call__(self, state: TrainState, step: int, chunk: Chunk) -> tuple[TrainState, jax.Array]:
        """Takes the K steps of a chunk, on the device, while the host goes on.

        Args:
            state: after `step` steps; donated, it must not be used again.
            step: number of the chunk's first step, from 0.
            chunk: K steps of data, whose losses (K, ...) are returned.
        """
        chunk = self.spread(chunk)
        return self.compiled(state, step, chunk)(state, self._resident, chunk.payload)

    def measure(self, state: TrainState, chunk: Chunk) -> dict[str, np.ndarray]:
        """Measures with the images of a chunk's first step.

        Args:
            state: where it is measured; it lives on.
            chunk: of the program's pipeline.
        """
        chunk = self.spread(first_step(chunk))
        measured = self.compiled_measure(state, chunk)(state, self._resident, chunk.payload)
        return jax.tree.map(np.asarray, measured)

    def compiled(self, state: TrainState, step: int, chunk: Chunk) -> jax.stages.Compiled:
        """Compiles the steps of a spread chunk, `step` the first; Args as of `measure`."""
        path, num_steps = self._choose(step, chunk.labels), len(jax.tree.leaves(chunk.payload)[0])
        if (key := (path, num_steps)) not in self._executables:
            began, layout = time.perf_counter(), self._layout
            self._executables[key] = self._compile(
                self._steps(self._step_at(path), num_steps),
                state,
                chunk.payload,
                out_shardings=(layout.of_state(state), replicated(layout.mesh)),
                donate_argnums=0,
            )
            self.compile_seconds += time.perf_counter() - began
        return self._executables[key]

    def _steps(self, train_step: TrainStep, num_steps: int) -> Callable[..., Any]:
        def run(state: TrainState, resident: Any, payload: Any):
            def step(state: TrainState, payload: Any):
                return train_step(state, *self._read(resident, payload))

            if num_steps > 1:
                return jax.lax.scan(step, state, payload)
            state, loss = step(state, jax.tree.map(lambda leaf: leaf[0], payload))
            return state, loss[jnp.newaxis]

        return run

    def compiled_measure(self, state: TrainState, chunk: Chunk) -> jax.stages.Compiled:
        """Compiles `measure` for a spread chunk of one step; Args as there."""
        if "measure" not in self._executables:
            began = time.perf_counter()
            measure_fn = self._measure_fn
            assert measure_fn is not None, "nothing to measure was given"

            def measure(state: TrainState, resident: Any, payload: Any) -> dict[str, jax.Array]:
                step = jax.tree.map(lambda leaf: leaf[0], payload)
                return measure_fn(state, *self._read(resident, step))

            self._executables["measure"] = self._compile(
                measure, state, chunk.payload, out_shardings=replicated(self._layout.mesh)
            )
            self.compile_seconds += time.perf_counter() - began
        return self._executables["measure"]

    def _compile(
        self, function: Callable[..., Any], state: TrainState, payload: Any, **options: Any
    ) -> jax.stages.Compiled:
        """Compiles a function of a state, the resident data and a payload."""
        mesh, of_state = self._layout.mesh, self._layout.of_state(state)
        in_shardings = (of_state, replicated(mesh), batch_sharding(mesh))
        options |= {"in_shardings": in_shardings, "compiler_options": compiler_options()}
        return jax.jit(function, **options).lower(state, self._resident, payload).compile()


def first_step(chunk: Chunk) -> Chunk:
    """Returns the chunk of its first step alone."""
    return jax.tree.map(lambda leaf: leaf[:1], chunk)
