"""Members: runs of several seeds or radii as one program, along a leading axis."""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from jaxlt.data import Chunk, Pipeline
from jaxlt.training.step.measurement import MeasureFn
from jaxlt.training.step.state import TrainState


class EnsemblePipeline:
    """The pipelines of R members as one, for a step under `vmap`.

    Args:
        pipelines: of the members, sharing one `resident` and one `read`.

    Attributes:
        resident: what the pipelines share.
    """

    def __init__(self, pipelines: Sequence[Pipeline]):
        self._pipelines = tuple(pipelines)
        self.resident = pipelines[0].resident

    def chunks(self, start_step: int, stop_step: int, size: int) -> Iterator[Chunk]:
        """Yields chunks of a payload a member and the labels of all, (R * K, B); see `Pipeline`."""
        streams = [pipeline.chunks(start_step, stop_step, size) for pipeline in self._pipelines]
        for chunks in zip(*streams, strict=True):
            payloads = tuple(chunk.payload for chunk in chunks)
            yield Chunk(payloads, np.concatenate([chunk.labels for chunk in chunks]))

    def labels(self, start_step: int, stop_step: int) -> Int[np.ndarray, "batches batch"]:
        """Returns the labels of all, (R * K, B), as the chunks have them; see `Pipeline`."""
        return np.concatenate([one.labels(start_step, stop_step) for one in self._pipelines])

    def image_numbers(self, start_step: int, stop_step: int) -> Int[np.ndarray, "batches batch"]:
        """Returns the images of all, (R * K, B), likewise; see `Pipeline`."""
        return np.concatenate([one.image_numbers(start_step, stop_step) for one in self._pipelines])

    def read(
        self, resident: Any, payload: Any
    ) -> tuple[Shaped[Array, "members batch ..."], Int[Array, "members batch"]]:
        """Returns one step's images and labels; see `Pipeline`."""
        # Stacked on the device: on the host it would be one more copy of every image.
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *payload)
        return jax.vmap(self._pipelines[0].read, in_axes=(None, 0))(resident, stacked)


# Members have one and the same frozen network, which is not stacked.


def stack(states: Sequence[TrainState]) -> TrainState:
    """Stacks the states of members on a leading axis."""
    return _with_frozen(_stack([_with_frozen(state, {}) for state in states]), states[0].frozen)


def unstack(state: TrainState) -> list[TrainState]:
    """Takes the states of members apart."""
    return [_with_frozen(one, state.frozen) for one in _unstack(_with_frozen(state, {}))]


def over_members(step: Callable[..., tuple[TrainState, Any]]) -> Callable[..., Any]:
    """Maps a step `(state, *arguments) -> (state, result)` over stacked states and arguments."""

    def steps(state: TrainState, *arguments: Any) -> tuple[TrainState, Any]:
        def one(alone: TrainState, *arguments: Any) -> tuple[TrainState, Any]:
            after, result = step(_with_frozen(alone, state.frozen), *arguments)
            return _with_frozen(after, {}), result

        after, results = jax.vmap(one)(_with_frozen(state, {}), *arguments)
        return _with_frozen(after, state.frozen), results

    return steps


def measured_over_members(measure_fn: MeasureFn) -> MeasureFn:
    """Maps a measurement over stacked states and batches."""
    over = over_members(lambda state, *batch: (state, measure_fn(state, *batch)))
    return lambda state, images, labels: over(state, images, labels)[1]


def _with_frozen(state: TrainState, frozen: Any) -> TrainState:
    return dataclasses.replace(state, frozen=frozen)


@jax.jit
def _stack(states: Sequence[TrainState]) -> TrainState:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


@jax.jit
def _unstack(state: TrainState) -> list[TrainState]:
    return [jax.tree.map(operator.itemgetter(member), state) for member in range(len(state.step))]
