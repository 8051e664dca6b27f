"""Compiled chunks of steps: the same training however it is cut, each path compiled once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import Batches, batch, initial_state, measure_fn, step_of

from jaxlt.training import Program
from jaxlt.training.loop.program import steps_per_chunk
from jaxlt.training.loop.together import bytes_of


def train(program, cuts, pipeline=None):
    """Trains to the last of the steps in `cuts`, chunks ending at each of them."""
    state, losses = program.place(jax.tree.map(jnp.copy, initial_state())), []
    for start, stop in zip([0, *cuts], cuts, strict=False):
        (chunk,) = (pipeline or Batches()).chunks(start, stop, stop - start)
        state, chunk_losses = program(state, start, chunk)
        assert chunk_losses.shape == (stop - start,)
        losses.extend(chunk_losses.tolist())
    return state, losses


def test_chunks_train_as_single_steps_do():
    program = Program(Batches(), lambda path: step_of())
    state, losses = initial_state(), []
    step = jax.jit(step_of())
    for number in range(8):
        state, loss = step(state, *batch(number))
        losses.append(float(loss))
    for cuts in ([1, 2, 3, 4, 5, 6, 7, 8], [4, 8], [3, 7, 8]):
        after, chunk_losses = train(program, cuts)
        assert int(after.step) == 8
        np.testing.assert_allclose(chunk_losses, losses, rtol=1e-5)
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(
                after.params["Dense_0"][name], state.params["Dense_0"][name], atol=1e-6
            )


def test_optimization_barriers_hold_in_compiled_steps():
    """The CPU's compiler drops them by itself; convolutions and `jax.checkpoint` need them."""

    def step(state, images, labels):
        return step_of()(state, *jax.lax.optimization_barrier((images, labels)))

    program = Program(Batches(), lambda path: step)
    (chunk,) = Batches().chunks(0, 1, 1)
    state = program.place(initial_state())
    compiled: Any = program.compiled(state, 0, program.spread(chunk))
    assert "opt-barrier" in compiled.as_text()


def test_the_state_is_donated():
    program = Program(Batches(), lambda path: step_of())
    state = program.place(jax.tree.map(jnp.copy, initial_state()))
    (chunk,) = Batches().chunks(0, 2, 2)
    program(state, 0, chunk)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_chunks_end_at_boundaries_and_are_even():
    program = Program(Batches(), lambda path: step_of(), boundaries=(7, 23), chunk_steps=4)
    assert list(program.cut(0, 10)) == [(0, 7, 4), (7, 10, 3)]
    assert list(program.cut(10, 20)) == [(10, 20, 4)]
    assert list(program.cut(20, 29)) == [(20, 23, 3), (23, 29, 3)]
    whole = Program(Batches(), lambda path: step_of(), chunk_steps=100)
    assert list(whole.cut(0, 170)) == [(0, 170, 85)]
    assert list(whole.cut(0, 40)) == [(0, 40, 40)]


def test_chunks_end_where_is_measured_and_are_of_three_lengths():
    program = Program(Batches(), lambda path: step_of(), boundaries=(170,), chunk_steps=40)
    assert list(program.cut(0, 133, 75)) == [(0, 125, 25), (125, 133, 1)]
    assert list(program.cut(133, 266, 75)) == [
        *[(133, 143, 10), (143, 150, 1), (150, 170, 10)],
        *[(170, 175, 1), (175, 250, 25), (250, 260, 10), (260, 266, 1)],
    ]
    assert list(program.cut(130, 147, 75)) == [(130, 140, 10), (140, 147, 1)]
    single = Program(Batches(), lambda path: step_of())
    assert list(single.cut(0, 133, 25)) == [(0, 133, 1)]


@pytest.mark.parametrize("every", [1, 7, 10, 96, 100, 101])
def test_wherever_chunks_end_all_steps_are_taken_once(every):
    program = Program(Batches(), lambda path: step_of(), boundaries=(55, 222), chunk_steps=100)
    for stop in range(300, 330):
        taken, ends = [], {0}
        for first, last, size in program.cut(0, stop, every):
            for step in range(first, last, size):
                taken += range(step, min(step + size, last))
                ends.add(taken[-1] + 1)
        assert taken == list(range(stop))
        assert ends >= {0, 55, 222, *range(0, stop, every)}


def test_measuring_is_compiled_once_and_leaves_the_state_alone():
    program = Program(Batches(), lambda path: step_of(), measure_fn=measure_fn)
    state = program.place(initial_state())
    compiled = []
    for start, stop in ((0, 3), (5, 6)):
        (chunk,) = Batches().chunks(start, stop, stop - start)
        measured = program.measure(state, chunk)
        expected = jax.jit(measure_fn)(state, *batch(start))
        np.testing.assert_allclose(measured["sharpness"], expected["sharpness"], rtol=1e-5)
        compiled.append(program.compile_seconds)
    assert compiled[0] == compiled[1] > 0
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert bytes_of(program.compiled_measure(state, chunk)) > 0


def test_each_path_and_length_is_compiled_once_and_chosen_by_the_host():
    asked, chosen = [], []

    def step_at(path):
        asked.append(path)
        return step_of(0.05 if path == "small" else 0.5)

    def choose(step, labels):
        chosen.append((step, labels.shape))
        return "small" if step < 4 else "large"

    program = Program(Batches(), step_at, choose)
    state, losses = train(program, [2, 4, 6, 8])
    assert asked == ["small", "large"]
    assert chosen == [(step, (2, 8)) for step in (0, 2, 4, 6)]
    assert program.compile_seconds > 0
    again, same = train(Program(Batches(), lambda path: step_of(0.05)), [2, 4, 6, 8])
    np.testing.assert_array_equal(losses[:4], same[:4])
    assert not np.allclose(state.params["Dense_0"]["kernel"], again.params["Dense_0"]["kernel"])


class Resident:
    """Images that stay on the device; the host sends their numbers."""

    def __init__(self):
        images, labels = batch(0)
        self.resident = jnp.asarray(images), jnp.asarray(labels)

    def chunks(self, start_step, stop_step, size):
        for chunk in Batches(lambda step: batch(0)).chunks(start_step, stop_step, size):
            numbers = np.broadcast_to(np.arange(8), chunk.labels.shape)
            yield chunk._replace(payload={"numbers": numbers, "unused": None})

    def read(self, resident, payload):
        return tuple(array[payload["numbers"]] for array in resident)


@pytest.mark.parametrize("cuts", [[1, 2, 3], [3]])
def test_reads_through_the_pipeline_inside_the_compiled_program(cuts):
    pipeline = Resident()
    state, losses = train(Program(pipeline, lambda path: step_of()), cuts, pipeline)
    host = Batches(lambda step: batch(0))
    expected, expected_losses = train(Program(host, lambda path: step_of()), cuts, host)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-6)
    np.testing.assert_allclose(
        state.params["Dense_0"]["kernel"], expected.params["Dense_0"]["kernel"], atol=1e-6
    )


def test_memory_counts_all_that_a_call_is_handed():
    program = Program(Batches(), lambda path: step_of())
    state = initial_state()
    needed = []
    for steps in (2, 200):
        (chunk,) = Batches().chunks(0, steps, steps)
        compiled = program.compiled(program.place(state), 0, program.spread(chunk))
        needed.append(bytes_of(compiled))
    payload = 198 * (8 * 4 + 8) * 4
    assert payload <= needed[1] - needed[0] < 1.5 * payload
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_chunks_on_accelerators_fit_many_steps_but_not_too_many_bytes(monkeypatch):
    assert steps_per_chunk(1) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert steps_per_chunk(1) == 100
    assert steps_per_chunk(2**28 // 3) == 3
    assert steps_per_chunk(2**30) == 1
