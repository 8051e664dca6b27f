"""What is measured between steps: of a batch, at a state, and how it is written down."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_training import (
    GROUPS,
    MEASUREMENTS,
    Batches,
    Killed,
    Linear,
    batch,
    initial_state,
    job_of,
    killed_at,
    loss,
    make_job,
    measure_fn,
    measurements_of,
    optimizer,
    outcome,
    program,
    step_of,
)

import jaxlt
from jaxlt.analysis.group_sharpness import group_sharpness
from jaxlt.data import Batch
from jaxlt.models.networks.convolution import BatchNorm
from jaxlt.runs.run import Events
from jaxlt.training import (
    Measurements,
    Program,
    Regime,
    Workdir,
    make_measure_fn,
    make_state_fn,
    make_train_step,
    train,
)
from jaxlt.training.loop.together import train_together
from jaxlt.training.step.ensemble import (
    EnsemblePipeline,
    measured_over_members,
    over_members,
    stack,
)

MASKS = np.stack(list(GROUPS.values()))
DUE = [4, 8, 12, 16, 20, 24]


def after_a_step():
    return jax.jit(step_of())(initial_state(), *batch(0))[0]


def expected_of(state, images, labels, mask=None):
    def losses_of(params):
        logits = Linear().apply({"params": params}, images, train=True)
        return jaxlt.class_losses(loss(logits, labels, None), labels, 3)

    return jax.jit(lambda params: group_sharpness(losses_of, params, MASKS, mask=mask)._asdict())(
        state.params
    )


def assert_close(measured, expected):
    for name, values in expected.items():
        np.testing.assert_allclose(measured[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_it_is_of_the_batch_at_the_state_and_of_the_step_before():
    state = after_a_step()
    measured = jax.jit(measure_fn)(state, *batch(1))
    assert_close(measured, expected_of(state, *batch(1)))
    np.testing.assert_array_equal(
        measured["perturbation_norm"], state.opt_state[0].perturbation_norm
    )
    np.testing.assert_array_equal(measured["method_sharpness"], state.opt_state[0].sharpness)
    assert measured["method_sharpness"] > 0


def test_without_a_method_there_is_nothing_of_its_own():
    state = dataclasses.replace(initial_state(), opt_state=())
    measured = jax.eval_shape(measure_fn, state, *batch(1))
    assert set(measured) == {"loss", "gradient_norm", "sharpness", "cosine"}


def test_along_the_trained_leaves_alone():
    state = initial_state()

    def bias(params):
        return {"Dense_0": {"kernel": False, "bias": True}}

    measured = jax.jit(make_measure_fn(Linear(), loss, MASKS, mask=bias))(state, *batch(1))
    assert_close(measured, expected_of(state, *batch(1), bias))
    whole = expected_of(state, *batch(1))
    assert (measured["gradient_norm"] < whole["gradient_norm"]).all()


def test_images_are_neither_mixed_nor_moved():
    def moved(features, classifier, labels, moment):
        raise AssertionError

    regime = Regime(mixup=1.0, loss_of_features=moved)
    state = initial_state()
    measured = jax.jit(make_measure_fn(Linear(), loss, MASKS, regime=regime))(state, *batch(1))
    assert_close(measured, expected_of(state, *batch(1)))


def test_a_loss_sees_the_moment_of_the_step():
    def drawing(logits, labels, moment):
        noise = jax.random.normal(moment.key, logits.shape)
        return loss(logits + noise, labels, moment) * (1 + moment.step)

    regime = Regime(first_step=-3)
    step = make_train_step(Linear(), optimizer(), drawing, 3, regime=regime)
    measure = jax.jit(make_measure_fn(Linear(), drawing, MASKS, regime=regime))
    state = after_a_step()
    _, step_loss = jax.jit(step)(state, *batch(1))
    np.testing.assert_allclose(measure(state, *batch(1))["loss"][0], step_loss, rtol=1e-5)


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, images, *, train):
        hidden = nn.Dense(4)(images.reshape(len(images), -1))
        return nn.Dense(3)(nn.relu(BatchNorm(use_running_average=not train)(hidden)))


@pytest.mark.parametrize("hold", [False, True])
def test_batch_norm_is_that_of_the_steps_passes(hold):
    """SAM's own sharpness in the step, with the same radius, is that of all classes."""
    regime = Regime(hold_statistics=hold)
    state = make_state_fn(Normalized(), optimizer(), (2, 2, 1))(0)
    measured = jax.jit(make_measure_fn(Normalized(), loss, MASKS, regime=regime))(state, *batch(1))
    step = make_train_step(Normalized(), optimizer(), loss, 3, regime=regime)
    after, _ = jax.jit(step)(state, *batch(1))
    np.testing.assert_allclose(measured["sharpness"][0], after.opt_state[0].sharpness[0], rtol=1e-4)


def test_described_by_names_of_groups():
    measured = {
        "loss": np.array([0.1, 2, np.nan], np.float32),
        "gradient_norm": np.array([1, 2, np.inf], np.float32),
        "sharpness": np.array([3, 4, 5], np.float32),
        "cosine": np.arange(9, dtype=np.float32).reshape(3, 3),
        "method_sharpness": np.array([7], np.float32),
        "perturbation_norm": np.array([0.05], np.float32),
    }
    labels = np.array([[0, 1], [1, 1], [2, 1], [0, 0]])
    described = MEASUREMENTS.describe(measured, labels)
    assert list(described) == [
        *("loss", "gradient_norm", "sharpness", "cosine", "batches_without"),
        *("perturbation_norm", "method_sharpness"),
    ]
    assert described["loss"]["all"] == 0.1
    assert np.isnan([described["loss"]["last"], described["gradient_norm"]["last"]]).all()
    assert described["sharpness"] == {"all": 3, "first": 4, "last": 5}
    assert described["cosine"] == {"all_first": 1, "all_last": 2, "first_last": 5}
    without = {"all": 0, "first": 0.5, "last": 0.75, "tail": 0.25}
    assert described["batches_without"] == without
    assert described["perturbation_norm"] == [0.05]


@pytest.fixture(params=[1, 4], ids=["step by step", "in chunks"])
def chunk_steps(request):
    return request.param


@pytest.fixture(scope="module")
def measured_runs(tmp_path_factory):
    paths = {}
    for steps in (1, 4):
        paths[steps] = tmp_path_factory.mktemp("measured")
        train(make_job(None, steps, MEASUREMENTS), Workdir(paths[steps], {}))
    return paths


@pytest.fixture
def measured_run(measured_runs, chunk_steps):
    return measured_runs[chunk_steps]


def test_measuring_changes_no_bit_of_a_run(tmp_path, measured_run, chunk_steps):
    train(make_job(chunk_steps=chunk_steps), Workdir(tmp_path, {}))
    assert outcome(tmp_path)[0] == outcome(measured_run)[0]
    assert Workdir(tmp_path, {}).read_metrics() == Workdir(measured_run, {}).read_metrics()


def test_before_each_step_that_is_due_and_not_after_the_last(measured_run):
    lines = [json.loads(line) for line in (measured_run / "metrics.jsonl").read_text().splitlines()]
    order = [(line["step"], "measurement" in line) for line in lines]
    measured = [(step, True) for step in DUE]
    assert order == sorted([*measured, (10, False), (20, False), (25, False)])
    workdir = Workdir(measured_run, {})
    assert [line["step"] for line in measurements_of(workdir)] == DUE
    assert [line["step"] for line in workdir.read_metrics()] == [10, 20, 25]
    result = workdir.read_result()
    assert result is not None
    assert "measurement" not in result


def test_the_numbers_are_those_of_the_step_that_follows(tmp_path, monkeypatch, measured_run):
    losses = []
    call = Program.__call__

    def recording(*arguments):
        state, chunk_losses = call(*arguments)
        losses.extend(chunk_losses.tolist())
        return state, chunk_losses

    monkeypatch.setattr(Program, "__call__", recording)
    train(make_job(), Workdir(tmp_path, {}))
    for line in measurements_of(Workdir(measured_run, {})):
        step, measured = line["step"], line["measurement"]
        np.testing.assert_allclose(measured["loss"]["all"], losses[step], rtol=1e-5)


def test_batches_without_a_group_are_those_since_the_measurement_before(tmp_path):
    def of_one_class(step):
        return Batch(batch(step).images, np.full(8, step % 5 // 2, np.int32))

    workdir = Workdir(tmp_path, {})
    train(job_of(program(1), Batches(of_one_class), initial_state(), MEASUREMENTS), workdir)
    for line in measurements_of(workdir):
        classes = np.arange(line["step"] - 4, line["step"]) % 5 // 2
        without = line["measurement"]["batches_without"]
        assert without["first"] == np.mean(classes != 0)
        assert without["last"] == np.mean(classes != 2)


@pytest.mark.parametrize("at", [9, 12, 20])
def test_a_stopped_run_measures_as_one_that_never_stopped(tmp_path, measured_run, chunk_steps, at):
    with pytest.raises(Killed):
        train(make_job(Batches(killed_at(at)), chunk_steps, MEASUREMENTS), Workdir(tmp_path, {}))
    train(make_job(None, chunk_steps, MEASUREMENTS), Workdir(tmp_path, {}))
    assert outcome(tmp_path) == outcome(measured_run)


def test_measuring_does_not_count_as_training(tmp_path, monkeypatch, clock):
    measure = Program.measure

    def slow(*arguments):
        clock.now += 100
        return measure(*arguments)

    monkeypatch.setattr(Program, "measure", slow)
    workdir = Workdir(tmp_path, {})
    train(make_job(measurements=MEASUREMENTS), workdir)
    assert clock.now > 100 * len(DUE)
    assert workdir.read_result()["seconds"] < 100


def test_members_measure_as_they_would_alone(tmp_path):
    pipelines = [Batches(lambda step, seed=seed: batch(step, seed)) for seed in (0, 1)]
    pipeline = EnsemblePipeline(pipelines)
    together = Program(
        pipeline,
        lambda path: over_members(step_of()),
        measure_fn=measured_over_members(measure_fn),
    )
    workdirs = [Workdir(tmp_path / f"seed{seed}", {}) for seed in (0, 1)]
    states = stack([initial_state(seed) for seed in (0, 1)])
    train_together(job_of(together, pipeline, states, MEASUREMENTS), workdirs, labels=["0", "1"])
    for seed, workdir in enumerate(workdirs):
        alone = Workdir(tmp_path / f"alone{seed}", {})
        train(job_of(program(1), pipelines[seed], initial_state(seed), MEASUREMENTS), alone)
        pairs = zip(measurements_of(workdir), measurements_of(alone), strict=True)
        for mine, other in pairs:
            assert mine["step"] == other["step"]
            assert jax.tree.structure(mine) == jax.tree.structure(other)
            for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_tensorboard_has_a_curve_a_number_but_none_a_class(tmp_path, monkeypatch):
    curves = {}
    monkeypatch.setattr(
        Events,
        "add",
        lambda self, numbers, step: [
            curves.setdefault(name, []).append((name, number, step))
            for name, number in numbers.items()
        ],
    )

    def many_classes(state, images, labels):
        measured = measure_fn(state, images, labels)
        return {**measured, "method_sharpness": jnp.arange(20.0)}

    one = Program(Batches(), lambda path: step_of(), measure_fn=many_classes)
    train(
        job_of(one, Batches(), initial_state(), Measurements(10, GROUPS, GROUPS["last"])),
        Workdir(tmp_path, {}),
    )
    names = {name for name in curves if name.startswith("measurement/")}
    assert {"measurement/sharpness/first", "measurement/cosine/all_last"} <= names
    assert "measurement/batches_without/tail" in names
    assert {name for name in names if "norm/" in name and "gradient" not in name} == {
        "measurement/perturbation_norm/0"
    }
    of_classes = {name: curves[name][0][1:] for name in names if "method_sharpness" in name}
    assert of_classes == {
        "measurement/method_sharpness/mean": (9.5, 10),
        "measurement/method_sharpness/max": (19, 10),
    }
