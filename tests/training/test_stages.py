"""A run of several stages: its boundaries, and that stopping anywhere changes no bit."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lanes import soak_but
from small_training import (
    GROUPS,
    Batches,
    Killed,
    Linear,
    batch,
    evaluate,
    killed_at,
    measurements_of,
)

import jaxlt
from jaxlt.training import (
    Job,
    JobStage,
    Measurements,
    Program,
    Steps,
    Workdir,
    make_measure_fn,
    make_state_fn,
    make_train_step,
    train,
)
from jaxlt.training.loop.together import train_together
from jaxlt.training.step.decoupling import next_stage
from jaxlt.training.step.ensemble import EnsemblePipeline, stack
from jaxlt.training.step.network_pass import Regime

FIRST, LAST, EVERY = 7, 5, 3
# Its state is another than that of the first stage's, and so are its checkpoints.
LAST_OPTIMIZER = optax.adam(0.01)
# Seven steps, one that takes none, five: what each checkpoint is of.
BOUNDARIES = (FIRST, FIRST + 1, FIRST + 1 + LAST)


@functools.cache
def first_optimizer():
    return optax.chain(jaxlt.sam(0.05), optax.sgd(0.1, momentum=0.9))


def loss(logits, labels, moment):
    # Weighs the steps, so that a stage's own count of them matters.
    return jaxlt.losses.cross_entropy(logits, labels) * (1 + 0.1 * moment.step)


MEASUREMENTS = Measurements(2, GROUPS, GROUPS["last"])


def step_of(optimizer, first_step):
    return make_train_step(Linear(), optimizer, loss, 3, regime=Regime(first_step=first_step))


def initial(seed=0):
    return make_state_fn(Linear(), first_optimizer(), (2, 2, 1))(seed)


def last_template():
    return make_state_fn(Linear(), LAST_OPTIMIZER, (2, 2, 1))(0)


def halved(state):
    """A stage without steps: a pure function of the state before it."""
    return next_stage(state, jax.tree.map(lambda w: w / 2, state.params), first_optimizer())


def entered(state):
    return next_stage(state, state.params, LAST_OPTIMIZER)


def left(state):
    return dataclasses.replace(state, params=jax.tree.map(lambda w: w + 1, state.params))


def program(optimizer, first_step):
    masks, regime = np.stack(list(GROUPS.values())), Regime(first_step=first_step)
    return Program(
        Batches(),
        lambda path: step_of(optimizer, first_step),
        measure_fn=make_measure_fn(Linear(), loss, masks, regime=regime),
    )


@functools.cache
def programs():
    return program(first_optimizer(), 0), program(LAST_OPTIMIZER, FIRST + 1)


def job(first=batch, last=batch, state=None):
    later = Batches(lambda step: last(step + 100))
    first_program, last_program = programs()
    return Job(
        state or initial(),
        (
            JobStage(
                Steps(first_program, Batches(first), FIRST, EVERY, MEASUREMENTS),
                evaluate,
                initial,
            ),
            JobStage(None, evaluate, initial, enter=halved),
            JobStage(
                Steps(last_program, later, LAST, EVERY, MEASUREMENTS),
                evaluate,
                last_template,
                enter=entered,
                leave=left,
            ),
        ),
    )


def outcome(path):
    last = path / "checkpoints" / str(BOUNDARIES[-1]) / "record" / "metadata"
    return json.loads(last.read_text())["digest"], (path / "metrics.jsonl").read_bytes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("uninterrupted")
    train(job(), Workdir(path, {}))
    return path


def test_each_stage_is_evaluated_by_its_own_steps(uninterrupted):
    records = Workdir(uninterrupted, {}).read_metrics()
    assert [(r["stage"], r["step"]) for r in records] == [
        (0, 3),
        (0, 6),
        (0, 7),
        (1, 8),
        (2, 11),
        (2, 13),
    ]
    assert ["train_loss" in r for r in records] == [True] * 3 + [False] + [True] * 2
    assert Workdir(uninterrupted, {}).read_result()["step"] == BOUNDARIES[-1]


def test_each_stage_is_measured_by_its_own_steps(uninterrupted):
    records = measurements_of(Workdir(uninterrupted, {}))
    places = [(record["stage"], record["step"]) for record in records]
    assert places == [(0, 2), (0, 4), (0, 6), (2, 10), (2, 12)]
    # Adam measures no sharpness of its own.
    assert ["method_sharpness" in record["measurement"] for record in records] == [
        *[True] * 3,
        *[False] * 2,
    ]
    missing = [0 not in batch(100 + step).labels for step in (2, 3)]
    without = records[-1]["measurement"]["batches_without"]
    assert without["first"] == np.mean(missing)


def test_the_stages_follow_each_other_as_by_hand(uninterrupted, tmp_path):
    state = initial()
    first = jax.jit(step_of(first_optimizer(), 0))
    for step in range(FIRST):
        state, _ = first(state, *batch(step))
    state = dataclasses.replace(halved(state), step=state.step + 1)
    state = entered(state)
    last = jax.jit(step_of(LAST_OPTIMIZER, FIRST + 1))
    for step in range(LAST):
        state, _ = last(state, *batch(step + 100))
    trained = train(job(), Workdir(tmp_path, {}))
    for a, b in zip(
        jax.tree.leaves(left(state).params), jax.tree.leaves(trained.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert int(trained.step) == BOUNDARIES[-1]


@pytest.mark.parametrize(
    "stages",
    [{"first": killed_at(6)}, {"last": killed_at(101)}]
    + [pytest.param({"first": killed_at(1)}, marks=pytest.mark.soak)]
    + [pytest.param({"last": killed_at(100 + at)}, marks=pytest.mark.soak) for at in (0, 3, 4)],
)
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, uninterrupted, stages):
    with pytest.raises(Killed):
        train(job(**stages), Workdir(tmp_path, {}))
    train(job(), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == outcome(uninterrupted)


@pytest.mark.parametrize("change", ["enter", "leave"])
@pytest.mark.parametrize("number", soak_but([1], range(3)))
def test_a_run_stopped_between_stages_resumes_to_the_same_bits(
    tmp_path, uninterrupted, number, change
):
    whole = job()

    def stop(state):
        raise Killed

    stages = list(whole.stages)
    stages[number] = dataclasses.replace(stages[number], **{change: stop})
    with pytest.raises(Killed):
        train(dataclasses.replace(whole, stages=tuple(stages)), Workdir(tmp_path, {}))
    train(job(), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == outcome(uninterrupted)


def test_a_boundary_is_crossed_once(tmp_path, uninterrupted):
    """The checkpoint of a boundary holds the end of the earlier stage, whatever comes after."""
    workdir = Workdir(tmp_path, {})
    train(job(), workdir)
    saved = workdir.saved_steps()
    assert saved[-1] == BOUNDARIES[-1]
    for step in saved:
        assert job().template_at(step).opt_state is not None
    states = [job().template_at(step).opt_state for step in BOUNDARIES]
    kinds = [type(state[0]).__name__ for state in states]  # pyright: ignore[reportIndexIssue]
    assert kinds == ["SharpnessState", "SharpnessState", "ScaleByAdamState"]


def test_members_cross_boundaries_together(tmp_path):
    seeds = (0, 1)

    def pipelines(offset):
        return EnsemblePipeline(
            [Batches(lambda step, seed=seed: batch(step + offset, seed)) for seed in seeds]
        )

    together = [
        Program(pipelines(0), lambda path: jax.vmap(step_of(first_optimizer(), 0))),
        Program(pipelines(100), lambda path: jax.vmap(step_of(LAST_OPTIMIZER, FIRST + 1))),
    ]
    one = job()
    stages = (
        dataclasses.replace(one.stages[0], steps=Steps(together[0], pipelines(0), FIRST, EVERY)),
        one.stages[1],
        dataclasses.replace(one.stages[2], steps=Steps(together[1], pipelines(100), LAST, EVERY)),
    )
    workdirs = [Workdir(tmp_path / f"seed{seed}", {}) for seed in seeds]
    stacked = Job(stack([initial(seed) for seed in seeds]), stages)
    train_together(stacked, workdirs, labels=["a", "b"])
    for seed, workdir in zip(seeds, workdirs, strict=True):
        alone = Workdir(tmp_path / f"alone{seed}", {})
        draw = lambda step, seed=seed: batch(step, seed)  # noqa: E731
        train(job(draw, draw, initial(seed)), alone)
        for mine, others in zip(alone.read_metrics(), workdir.read_metrics(), strict=True):
            assert mine["step"] == others["step"]
            np.testing.assert_allclose(mine["norm"], others["norm"], rtol=1e-5)


def test_the_loss_counts_steps_from_the_stage_s_begin():
    states = [
        jax.jit(step_of(first_optimizer(), first))(
            dataclasses.replace(initial(), step=jnp.asarray(step)), *batch(0)
        )[1]
        for first, step in ((0, 2), (5, 7))
    ]
    assert float(states[0]) == float(states[1])
